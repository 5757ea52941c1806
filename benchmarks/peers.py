"""Training speed of minivae beside PyTorch and JAX, and beside the matrix products of its own step.

    python benchmarks/peers.py [--quick] [--json FILE] [--picture FILE.png]

All peers train the same VAE in float32 on the same data in memory: rows gathered in a new random
order each epoch, fresh normal noise each step, the same optimiser. Each is a process of its own;
they take turns, and while one works the others are stopped by a signal. A ratio compares two turns
of one round, so that a slow moment of the machine falls on both. Needs POSIX.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from peer_worker import CORES, LEARNING_RATES, PEERS, PeerFailed, Problem, Worker, settings

HERE = Path(__file__).resolve().parent
SIZES = (
    "784-400-20:128",
    "784-400-20:1024",
    "784-500-500-50:100",
    "64-32-8:32",
    "560-200-2:100:gaussian",
)
QUICK_SIZES = ("784-400-20:128", "64-32-8:32", "560-200-2:100:gaussian")
PACKAGES = ("minivae", "numpy", "numba", "torch", "jax", "jaxlib")

# In fresh processes: one epoch of the digits, import included.
MINIVAE_EPOCH = """
import sys, numpy, minivae
X = numpy.load(sys.argv[1])
minivae.VAE(8, hidden_layer_sizes=(32,), batch_size=32, epochs=1, random_state=0).fit(X)
"""
TORCH_EPOCH = """
import sys, numpy
from peer_worker import Problem
from torch_peer import Eager
X = numpy.load(sys.argv[1])
problem = Problem.parse("64-32-8:32", "adam")
Eager(problem, {"threads": 1}, X, problem.initial()).train(-(-len(X) // 32))
"""


def is_installed(package):
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


# --- one size, one optimiser --------------------------------------------------------------------


def measure(size, optimizer, options, busy_rounds):
    """Everything about one size and optimiser, as it goes to the JSON file."""
    problem = Problem.parse(size, optimizer)
    entries, finalists = {}, {}
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        for peer in options.peers:
            if not is_installed(PEERS[peer]):
                entries[peer] = {"missing": "not installed"}
                continue
            workers, trials = start(peer, size, optimizer, options.quick, Path(folder), stack)
            entries[peer] = {"trials": trials}
            if not workers:
                entries[peer]["missing"] = "; ".join(sorted(set(trials.values())))
                continue
            steps = stretches(workers, problem, options.seconds / 3)
            times = turns(workers, steps, 1 if options.quick else 3)
            trials |= {name: min(values) for name, values in times.items()}
            for name in best_by_threads(peer, trials, workers):
                finalists[peer, name] = workers.pop(name)
            for worker in workers.values():
                worker.close()
        steps = stretches(finalists, problem, options.seconds)
        times = turns(finalists, steps, options.rounds)
        reference = times["minivae", "as the estimator"]
        for (peer, name), values in sorted(times.items(), key=lambda t: statistics.median(t[1])):
            worker = finalists[peer, name]
            final = {
                "setting": name,
                "microseconds": values,
                "ratio": summary(values, reference),
                "peak_mb": worker.peak,
                "start_seconds": worker.first["seconds"],
                "threads": worker.first["threads"],
            }
            entries[peer].setdefault("finals", []).append(final)  # the quickest comes first
        busy = {}
        for peer in ("minivae", "torch eager"):
            if busy_rounds and "finals" in entries.get(peer, {}):
                key = peer, entries[peer]["finals"][0]["setting"]
                busy[peer] = busy_core(finalists[key], max(1, steps[key] // 8), busy_rounds)
    n_parameters = sum(array.size for array in problem.initial())
    return {"size": size, "optimizer": optimizer, "parameters": n_parameters,
            "steps_per_epoch": problem.steps_per_epoch, "peers": entries, "busy": busy}  # fmt: skip


def best_by_threads(peer, trials, workers):
    """The quickest setting for each number of threads: a busy moment slows some far more."""
    best = {}
    for name in workers:
        threads = settings(peer)[name].get("threads")
        best[threads] = min(best.get(threads, name), name, key=trials.get)
    return best.values()


def start(peer, size, optimizer, quick, folder, stack):
    """({setting: worker}, {setting: why it failed}), all of them checked against minivae."""
    workers, failures = {}, {}
    for name, setting in list(settings(peer).items())[: 1 if quick else None]:
        print(f"  {size} {optimizer}: starting {peer}, {name}", file=sys.stderr)
        path = folder / f"{peer}, {name}.npz"
        check = None if peer == "floor" else str(path)
        try:
            worker = Worker(peer, size, optimizer, setting, check)
            stack.callback(worker.close)  # also of one that fails the check
            if peer == "minivae":
                path.rename(folder / "reference.npz")
                (folder / "reference.json").write_text(json.dumps(worker.first))
            elif check:
                compare(worker.first, json.loads((folder / "reference.json").read_text()))
                compare_gradients(path, folder / "reference.npz")
        except PeerFailed as error:
            if peer == "minivae":
                raise SystemExit(
                    f"minivae failed, so there is nothing to compare: {error}"
                ) from None
            failures[name] = f"failed: {error}"
            print(f"  {peer}, {name} is left out: {error}", file=sys.stderr)
            continue
        workers[name] = worker
    return workers, failures


def compare(ours, reference):
    """Same first loss, to rounding; an epoch of other noise and order must lower it as much."""
    loss, fall = reference["loss"], reference["loss"] - reference["trained"]
    if not abs(ours["loss"] - loss) <= 1e-4 * abs(loss):
        raise PeerFailed(f"its first loss is {ours['loss']}, minivae's {loss}")
    if not abs(ours["loss"] - ours["trained"] - fall) <= 0.1 * fall:
        losses = f"{ours['trained']}, minivae's {reference['trained']}"
        raise PeerFailed(f"its loss after an epoch is {losses}")


def compare_gradients(path, reference_path):
    """Every gradient within 1e-3 of its largest entry: rounding in sums of up to 1024 rows."""
    with np.load(path) as ours, np.load(reference_path) as reference:
        for key, gradient in reference.items():
            difference = np.abs(ours[key] - gradient).max() / np.abs(gradient).max()
            if not difference <= 1e-3:
                raise PeerFailed(f"its gradient of {key} is {difference} of its size off")


def stretches(workers, problem, seconds):
    """{name: steps} that take about so long: whole epochs, or part of one where that is long."""
    steps, per_epoch = {}, problem.steps_per_epoch
    for name, worker in workers.items():
        few = max(worker.first["granule"], min(16, per_epoch))
        step = worker.seconds(few) / few
        if step * per_epoch > 2 * seconds:
            steps[name] = max(few, round(seconds / step))
        else:
            epoch = worker.seconds(per_epoch)
            steps[name] = per_epoch * max(1, round(seconds / epoch))
    return steps


def turns(workers, steps, rounds):
    """{name: microseconds per step, one value a round}; in each round every worker has a turn."""
    times = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            times[name].append(worker.seconds(steps[name]) / steps[name] * 1e6)
    return times


def summary(times, reference):
    """Median and range of the ratios, round by round."""
    ratios = [a / b for a, b in zip(times, reference, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def busy_core(worker, steps, rounds):
    """Slowdown of a worker while another process keeps one core busy."""
    quiet, busy = [], []
    for _ in range(rounds):
        quiet.append(worker.seconds(steps))
        loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            busy.append(worker.seconds(steps))
        finally:
            loop.kill()
            loop.wait()
    return summary(busy, quiet)


# --- fresh processes ----------------------------------------------------------------------------


def fresh_processes(rounds):
    """Seconds from starting Python to the end of one epoch of the digits."""
    import minivae

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "digits.npy")
        np.save(data, minivae.datasets.load("digits").train)
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(Path(folder, "cache"))}

        def seconds(script):
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", script, data], cwd=HERE, env=environment, check=True
            )
            return time.perf_counter() - begin

        times = {"minivae, empty JIT cache": [seconds(MINIVAE_EPOCH)]}
        scripts = {"minivae, warm JIT cache": MINIVAE_EPOCH}
        if is_installed("torch"):
            scripts["torch eager"] = TORCH_EPOCH
            seconds(TORCH_EPOCH)  # its files, too, are now in memory
        for _ in range(rounds):
            for name, script in scripts.items():
                times.setdefault(name, []).append(seconds(script))
    return times


# --- report -------------------------------------------------------------------------------------


def machine():
    """What the numbers were measured with."""
    model = None
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":")[1].strip() for line in lines if "model name" in line), None)
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "cores": CORES,
        "system": f"{platform.system()} {platform.machine()}",
        "load": os.getloadavg(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions,
    }


def interval(values, digits):
    """median (min - max)"""
    low, middle, high = values["min"], values["median"], values["max"]
    return f"{middle:.{digits}f} ({low:.{digits}f} - {high:.{digits}f})"


def print_result(result):
    """The table of one size and optimiser."""
    print(f"\n{result['size']}, {result['optimizer']}: {result['parameters']:,} parameters")
    row = "{:14} {:>28} {:>22} {:>8} {:>8} {:>8}  {}".format
    heads = "microseconds per step", "times minivae's", "peak MB", "start s", "threads", "setting"
    print(row("", *heads))
    for peer, entry in result["peers"].items():
        if "missing" in entry:
            print(f"{peer:14} {entry['missing']}")
            continue
        final = entry["finals"][0]
        times = final["microseconds"]
        spread = {"median": statistics.median(times), "min": min(times), "max": max(times)}
        cells = interval(spread, 0 if spread["median"] > 1000 else 1), interval(final["ratio"], 2)
        peak, start = f"{final['peak_mb']:.0f}", f"{final['start_seconds']:.1f}"
        print(row(peer, *cells, peak, start, final["threads"], final["setting"]))
    minivae, floor = (result["peers"].get(peer, {}) for peer in ("minivae", "floor"))
    if "finals" in floor:
        pair = (entry["finals"][0]["microseconds"] for entry in (minivae, floor))
        print(f"minivae over its floor, the matrix products alone: {interval(summary(*pair), 2)}")
    for peer, slowdown in result["busy"].items():
        print(f"{peer} with one core kept busy: {interval(slowdown, 1)} times the time")


def print_verdicts(results):
    """One line a size and optimiser: minivae against its best peer."""
    lines = []
    for result in results:
        rivals = {
            peer: entry["finals"][0]["ratio"]
            for peer, entry in result["peers"].items()
            if peer not in ("minivae", "floor") and "finals" in entry
        }
        if rivals:
            best = min(rivals, key=lambda peer: rivals[peer]["median"])
            name = f"{result['size']}, {result['optimizer']}"
            lines.append(f"{name:30} {interval(rivals[best], 2):22} {best}")
    if lines:
        print("\nminivae against the best peer (above 1: minivae is faster)", *lines, sep="\n")


def draw(results, path):
    """Bars of the ratios, one panel per optimiser."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    optimizers = list(dict.fromkeys(result["optimizer"] for result in results))
    figure = Figure(figsize=(10, 3.5 * len(optimizers)), layout="constrained")
    panels = figure.subplots(len(optimizers), squeeze=False)[:, 0]
    for ax, optimizer in zip(panels, optimizers, strict=True):
        part = [result for result in results if result["optimizer"] == optimizer]
        peers = [peer for peer in part[0]["peers"] if peer != "minivae"]
        for i, peer in enumerate(peers):
            for j, result in enumerate(part):
                if "finals" not in result["peers"][peer]:
                    continue
                ratio = result["peers"][peer]["finals"][0]["ratio"]
                middle, place = ratio["median"], j + (i - len(peers) / 2 + 0.5) * 0.8 / len(peers)
                error = [[middle - ratio["min"]], [ratio["max"] - middle]]
                # a bar starts at 1, minivae's own time
                ax.bar(place, middle - 1, 0.75 / len(peers), bottom=1, color=f"C{i}",
                       yerr=error, error_kw={"linewidth": 0.8})  # fmt: skip
            ax.bar(0, 0, color=f"C{i}", label=peer)
        ax.axhline(1, color="black", linewidth=1)
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        ax.set_ylim(min(0.4, low), max(2.5, high))  # with ticks on both sides of 1
        ax.set_xticks(range(len(part)), [result["size"] for result in part])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_ylabel("time / minivae's time")
        ax.set_title(optimizer)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(PEERS))
    figure.savefig(path, dpi=120)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short, one setting a peer: a test")
    parser.add_argument("--sizes", nargs="+", metavar="WIDTHS:BATCH[:LIKELIHOOD]")
    parser.add_argument("--optimizers", nargs="+", choices=LEARNING_RATES)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER",
                        help=f"minivae is always there; {', '.join(PEERS)}")  # fmt: skip
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="length of a turn, about")
    parser.add_argument("--busy", type=int, metavar="ROUNDS", help="rounds with one core kept busy")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE")
    options = parser.parse_args()
    quick = options.quick
    defaults = {
        "sizes": QUICK_SIZES if quick else SIZES,
        "optimizers": ["adam"] if quick else list(LEARNING_RATES),
        "rounds": 2 if quick else 7,
        "seconds": 0.1 if quick else 0.75,
        "busy": 1 if quick else 3,
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.peers = [peer for peer in PEERS if peer == "minivae" or peer in options.peers]
    for size in options.sizes:
        try:
            Problem.parse(size, "adam")
        except ValueError:
            expected = "WIDTHS:BATCH[:bernoulli|gaussian], such as 784-400-20:128"
            parser.error(f"--sizes: expected {expected}, got {size!r}")
    return options


def main():
    options = parse_arguments()
    report = {"machine": machine(), "rounds": options.rounds, "seconds": options.seconds}
    facts = report["machine"]
    print(f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}, {facts['date']}")
    print(", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    missing = {package for package in PEERS.values() if not is_installed(package)}
    if missing:
        peers = ", ".join(peer for peer, package in PEERS.items() if package in missing)
        print(f"not installed: {', '.join(sorted(missing))}, so there is no {peers}; "
              "pip install -e '.[bench]' brings them", file=sys.stderr)  # fmt: skip
    report["results"] = results = []
    for size in options.sizes:
        for optimizer in options.optimizers:
            busy_rounds = options.busy if optimizer == options.optimizers[0] else 0
            results.append(measure(size, optimizer, options, busy_rounds))
            print_result(results[-1])
            sys.stdout.flush()
            if options.json:  # after each: a run takes half an hour
                options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    report["fresh_processes"] = times = fresh_processes(1 if options.quick else 3)
    print("\nPython's start to the end of one epoch of the digits, seconds")
    for name, values in times.items():
        print(f"{name:26} {statistics.median(values):6.2f}")
    print_verdicts(results)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if options.picture:
        draw(results, options.picture)


if __name__ == "__main__":
    main()
