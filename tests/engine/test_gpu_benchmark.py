"""What of benchmarks/gpu.py needs no card: counting, budget, report, and its end without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2] / "benchmarks"
SIZE = "784-400-20:128"


@pytest.fixture
def gpu(monkeypatch):
    """The module benchmarks/gpu.py."""
    monkeypatch.syspath_prepend(HERE)
    import gpu

    yield gpu
    for name in ("gpu", "peer_worker"):
        sys.modules.pop(name, None)


def test_floor_by_hand(gpu):
    """3-5-2, batch 7: weights 3x5, 5x4, 2x5, 5x3; the first has no gradient by its input."""
    problem = gpu.Problem.parse("3-5-2:7", "adam")
    assert gpu.flops(problem) == 2 * 7 * (3 * (15 + 20 + 10 + 15) - 15)
    assert gpu.bytes_moved(problem) == 4 * (6 * (60 + 5 + 4 + 5 + 3) + 7 * 3)
    for rates, least in [((1e6, 1e12), 2310.0), ((1e12, 1e6), 1932.0)]:
        ceilings = dict(zip(("flops_per_second", "bytes_per_second"), rates, strict=True))
        assert gpu.floor(problem, ceilings) == pytest.approx(least)


def test_flops_are_those_of_the_measured_facts(gpu):
    assert gpu.flops(gpu.Problem.parse(SIZE, "adam")) == pytest.approx(420e6, rel=0.01)


def answers(peer, loss=100.0):
    if peer == "ceilings":
        return [{"flops_per_second": 1e14, "bytes_per_second": 2e12}]
    times = {"minivae": [50.0, 51.0, 52.0], "torch graph": [75.0, 76.5, 90.0]}
    return [{"size": SIZE, "loss": loss, "norms": [1.0, 2.0], "microseconds": times[peer]}]


def test_what_is_missing_late_or_wrong_is_named(gpu):
    now = [0.0]

    def ask(task, seconds):
        assert task["precision"] in gpu.PRECISIONS and task["sizes"] == [SIZE]
        assert seconds == 200 - now[0]
        now[0] += 20
        peer = task["peer"]
        if peer == "torch eager":
            return [], "ModuleNotFoundError: No module named 'torch'"
        if peer == "jax scan":
            return answers("torch graph", loss=103.0), None
        if peer == "jax jit":
            return [{"size": SIZE, "failed": "RuntimeError: JAX sees no GPU"}], None
        return answers(peer if peer in ("ceilings", "minivae") else "torch graph"), None

    results = gpu.measure(200, [SIZE], ask, lambda: now[0])
    lines = "\n".join(gpu.table(results["tf32"], SIZE, "tf32"))
    for line in [
        "784-400-20:128, tf32: 420 MFLOP, 16.1 MB at least, floor 8.0 us",
        "minivae                      51.0      (50.0 - 52.0)    1.00    16 %",
        "torch eager            ModuleNotFoundError: No module named 'torch'",
        "torch graph                  76.5      (75.0 - 90.0)    1.50    11 %",
        "jax scan               left out: its first loss or gradients differ (loss 103.0000)",
        "jax jit                failed: RuntimeError: JAX sees no GPU",
    ]:
        assert line in lines, lines
    late = "\n".join(gpu.table(results["float32"], SIZE, "float32"))
    assert "jax jit                not measured: the time was over" in late


def test_a_report_without_minivae_or_ceilings_is_still_a_report(gpu, tmp_path):
    results = gpu.measure(0, [SIZE], None, lambda: 0.0)
    lines = gpu.table(results["tf32"], SIZE, "tf32")
    assert len(lines) == 2 + len(gpu.PEERS)
    assert "floor " not in lines[0]
    path = tmp_path / "gpu.json"
    gpu.write(path, {"gpu": "none", "sizes": [SIZE], "results": results})
    report = json.loads(path.read_text())
    assert report["counted"][SIZE]["flops"] == gpu.flops(gpu.Problem.parse(SIZE, "adam"))
    assert report["results"]["tf32"][SIZE]["minivae"] == "not measured: the time was over"


def test_a_worker_that_hangs_or_fails_is_a_line(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    script = tmp_path / "gpu_peers.py"
    script.write_text(
        "import sys, time\nprint('noise')\nprint('{\"size\": 1}', flush=True)\n"
        "time.sleep(60) if 'hang' in sys.argv[1] else sys.exit('no CUDA\\nlast line')\n"
    )
    assert gpu.ask({"peer": "hang"}, 2.0) == ([{"size": 1}], "no answer in 2 s")
    assert gpu.ask({"peer": "fail"}, 20.0) == ([{"size": 1}], "last line")


def test_what_was_skipped_was_not_checked(gpu, monkeypatch):
    for code, said, passed in [
        (0, "3 passed, 90 deselected in 1.2s", True),
        (0, "2 passed, 1 skipped, 90 deselected in 1.2s", False),
        (1, "1 failed, 2 passed in 1.2s", False),
    ]:
        done = subprocess.CompletedProcess([], code, said, "")
        monkeypatch.setattr(gpu.subprocess, "run", lambda *given, done=done, **named: done)
        assert gpu.checks(1.0) == (None if passed else said)


def test_without_a_card_it_ends_with_2_and_one_line(tmp_path):
    pytest.importorskip("minivae")
    from minivae.kernels.support import device

    if not isinstance(device.find(), str):
        pytest.skip("there is a card")
    done = subprocess.run([sys.executable, str(HERE / "gpu.py")], cwd=tmp_path,
                          capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("nothing to measure: ")
