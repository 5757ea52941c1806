"""Training speed of minivae on a GPU beside PyTorch, JAX, and the best that the card can do.

    python benchmarks/gpu.py [--minutes 8] [--json gpu.json]

First the checks of `pytest -m gpu`; if one fails, nothing is timed. Then every peer trains the same
VAE with Adam on the same data, already on the card, in a process of its own, alone on the card:
rows gathered in a new random order each epoch, fresh noise each step. What there was no time for,
is not installed or fails is named. Without a card: one line, and exit code 2.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from peer_worker import Problem

HERE = Path(__file__).resolve().parent
SIZES = ("784-400-20:128", "784-400-20:1024", "784-500-500-50:100")
PRECISIONS = ("tf32", "float32")  # of matrix products
PEERS = ("minivae", "torch eager", "torch graph", "jax scan", "jax jit", "torch reduce-overhead",
         "torch max-autotune")  # fmt: skip
FLOAT = 4  # bytes
LEAST_SECONDS = 15  # to start a peer with


# --- the floor ------------------------------------------------------------------------------------


def flops(problem):
    """Floating-point operations of a step's matrix products: forward, and both gradients.

    The first layer needs no gradient by what it reads.
    """
    encoder, decoder = problem.layers
    layers = [fan_in * fan_out for fan_in, fan_out in encoder + decoder]
    return 2 * problem.batch * (3 * sum(layers) - layers[0])


def bytes_moved(problem):
    """The fewest bytes of a step with Adam: parameters and both moments read and written once, and
    the batch read; all between that could stay in caches."""
    parameters = sum(array.size for array in problem.initial())
    return FLOAT * (6 * parameters + problem.batch * problem.n_features)


def floor(problem, ceilings):
    """The least microseconds of a step: the larger of arithmetic and memory, by measured rates."""
    arithmetic = flops(problem) / ceilings["flops_per_second"]
    memory = bytes_moved(problem) / ceilings["bytes_per_second"]
    return 1e6 * max(arithmetic, memory)


# --- peers ----------------------------------------------------------------------------------------


def ask(task, seconds):
    """What a worker answers in so many seconds, and in a line why that is not all, or None."""
    command = [sys.executable, str(HERE / "gpu_peers.py"), json.dumps(task)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        output, errors, failed = done.stdout, done.stderr, done.returncode != 0
    except subprocess.TimeoutExpired as error:
        output, errors, failed = _text(error.stdout), f"no answer in {seconds:.0f} s", True
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return lines, (errors.strip().splitlines() or ["no message"])[-1] if failed else None


def _text(output):
    return output.decode() if isinstance(output, bytes) else output or ""


def agrees(answer, reference, precision):
    """Whether first loss and gradients are those of minivae, to the precision of the products."""
    tolerance = {"tf32": 1e-2, "float32": 1e-3}[precision]
    pairs = [(answer["loss"], reference["loss"])]
    pairs += zip(answer["norms"], reference["norms"], strict=True)
    return all(abs(one - two) <= tolerance * abs(two) for one, two in pairs)


def measure(deadline, sizes, ask=ask, clock=time.monotonic):
    """{precision: {"ceilings": ..., size: {peer: microseconds per step, or why there are none}}}"""
    results = {}
    for precision in PRECISIONS:
        results[precision] = entries = {size: {} for size in sizes}
        first = {}
        for peer in ("ceilings", *PEERS):
            left = deadline - clock()
            if left < LEAST_SECONDS:
                answers, failure = [], "not measured: the time was over"
            else:
                task = {"peer": peer, "precision": precision, "sizes": sizes}
                answers, failure = ask(task, left)
            if peer == "ceilings":
                entries["ceilings"] = answers[0] if answers else {"failed": failure}
                continue
            found = {answer["size"]: answer for answer in answers}
            first = first or found
            for size in sizes:
                entries[size][peer] = entry(found.get(size), first.get(size), precision, failure)
    return results


def entry(answer, reference, precision, failure):
    """The times of a peer, or in words why there are none."""
    if answer is None:
        return failure or "left out: no answer"
    if "failed" in answer:
        return f"failed: {answer['failed']}"
    if reference is not None and "loss" in reference and not agrees(answer, reference, precision):
        return f"left out: its first loss or gradients differ (loss {answer['loss']:.4f})"
    return answer["microseconds"]


# --- report ---------------------------------------------------------------------------------------


def table(entries, size, precision):
    """Lines of one size and precision: microseconds, times minivae's, share of the floor."""
    problem = Problem.parse(size, "adam")
    lines = [f"{size}, {precision}: {flops(problem) / 1e6:.0f} MFLOP, "
             f"{bytes_moved(problem) / 1e6:.1f} MB at least"]  # fmt: skip
    ceilings = entries["ceilings"]
    least = None if "failed" in ceilings else floor(problem, ceilings)
    if least is not None:
        lines[0] += f", floor {least:.1f} us"
    lines.append(f"  {'':22} {'us a step':>10} {'(least - most)':>18} {'ratio':>7} {'floor':>7}")
    ours = entries[size]["minivae"]
    for peer, times in entries[size].items():
        if isinstance(times, str):
            lines.append(f"  {peer:22} {times}")
            continue
        middle = statistics.median(times)
        spread = f"({min(times):.1f} - {max(times):.1f})"
        ratio = "" if isinstance(ours, str) else f"{middle / statistics.median(ours):.2f}"
        share = "" if least is None else f"{100 * least / middle:.0f} %"
        lines.append(f"  {peer:22} {middle:10.1f} {spread:>18} {ratio:>7} {share:>7}")
    return lines


def write(path, report):
    """The report as JSON, with what the floors were counted from."""
    counted = {size: {"flops": flops(problem), "bytes": bytes_moved(problem)}
               for size in report["sizes"]
               for problem in [Problem.parse(size, "adam")]}  # fmt: skip
    path.write_text(json.dumps({**report, "counted": counted}, indent=1), encoding="utf-8")


def checks(seconds):
    """None, or in lines what failed of `pytest -m gpu`, or was skipped: that checked nothing."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-x"]
    try:
        done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True,
                              timeout=seconds)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"pytest -m gpu did not end in {seconds:.0f} s"
    said = (done.stdout + done.stderr).strip()
    return None if done.returncode == 0 and " skipped" not in said else said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="when to end, at the latest")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), metavar="FILE")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), metavar="WIDTHS:BATCH")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    from minivae.kernels.support import device

    card = device.find()
    if isinstance(card, str):
        print(f"nothing to measure: {card}", file=sys.stderr)
        return 2
    name = card.cupy.cuda.runtime.getDeviceProperties(card.index)["name"].decode()
    print(f"{name}: checking", flush=True)
    failure = checks((deadline - time.monotonic()) / 2)
    if failure:
        print(f"{failure}\nchecks failed, so nothing was timed", file=sys.stderr)
        return 1
    print("checks passed, timing", flush=True)
    results = measure(deadline, options.sizes)
    for precision in PRECISIONS:
        for size in options.sizes:
            print("\n".join(["", *table(results[precision], size, precision)]))
    write(options.json, {"gpu": name, "sizes": options.sizes, "results": results})
    print(f"\nwritten to {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
