"""Machines by the name of their device: whole steps through the code for a card, and what is said
where there is none.

CuPy and cuBLAS are stand-ins. What these cannot show: whether the real ones, driver and card do
what they do.
"""

import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from device_checks import (
    D,
    check_failure,
    check_session,
    check_training,
    find_card,
    problem,
    run,
    small,
)
from emulator import EMULATED
from fake_cupy import FakeGPU
from kernel_checks import put
from tiny import FAMILIES

from minivae import VAE
from minivae.engine import machine as engine
from minivae.engine.machine import check_device, machine
from minivae.kernels import tables
from minivae.kernels.support import device

FAMILY = pytest.mark.parametrize("family", FAMILIES)


# --- with a GPU -----------------------------------------------------------------------------------


@EMULATED
@FAMILY
def test_whole_steps_go_through_the_code_for_a_card(family, gpu):
    card = find_card()
    for dtype in ("float32", "float64"):
        check_training(card, problem(family, 13, binarize="stochastic"), dtype)
    check_failure(card, problem(family, 14), 1)
    check_session(card, problem(family, 9))


@EMULATED
@FAMILY
def test_an_estimator_goes_through_the_code_for_a_card(family, gpu):
    X = np.random.default_rng(0).random((14, D))
    settings = dict(binarize="stochastic", batch_size=4, epochs=2, dtype="float64", random_state=0)
    one, two = (small(family, device=name, **settings).fit(X) for name in ("reference", "cuda"))
    # Some hundred roundings in a step, which the 8 steps grow by little: see check_training.
    np.testing.assert_allclose(two.state_.theta, one.state_.theta, rtol=0, atol=1e-12)
    if one.score_kind:
        np.testing.assert_allclose(two.score_samples(X), one.score_samples(X), rtol=0, atol=1e-10)
    there = put(find_card(), X)
    there.get = X.copy  # as the checks of X want it
    assert two.partial_fit(there).state_.theta.tobytes() != one.state_.theta.tobytes()
    np.testing.assert_allclose(two.state_.theta, one.partial_fit(X).state_.theta, atol=1e-12)


@EMULATED
def test_capture_happens_on_its_own_stream_after_a_rehearsal(gpu):
    p = problem("vae", 14)
    state, on = p.start(), machine(p.program, "cuda")
    with p.trainer(on, state) as trainer:
        run(trainer, p.recipe, state, p.X, np.arange(14))
        begin = gpu.calls.index("begin_capture")
        assert "get_function adam" in gpu.calls[:begin]
        assert gpu.calls[begin : begin + 2] == ["begin_capture", "end_capture"]
        replays = [call for call in gpu.calls if call == "launch"]
        assert len(replays) == 4
        gpu.calls.clear()
        run(trainer, p.recipe, state, p.X, np.arange(14))
    # Full batches without a word from the host, one look, the short batch, another look, totals.
    steps = gpu.calls[gpu.calls.index("launch") :][:7]
    assert steps == ["launch"] * 3 + ["asnumpy", "launch", "asnumpy", "asnumpy"]


@EMULATED
@pytest.mark.parametrize("invalid", [False, True])
def test_the_error_of_a_capture_is_not_hidden_by_its_end(invalid, gpu):
    """Where it was invalid, CuPy would raise that; where it was not, it would make a graph."""
    card = find_card()

    def fails():
        gpu.invalid = invalid
        raise KeyboardInterrupt

    gpu.calls.clear()
    with pytest.raises(KeyboardInterrupt):
        card.capture(fails)
    assert gpu.calls == ["begin_capture", "end_capture"]
    assert len(gpu.destroyed) == (not invalid)
    gpu.invalid = False
    card.capture(lambda: None)()


class WatchedLock:
    """A lock that says when a thread has to wait for it."""

    def __init__(self):
        self.lock, self.waits = threading.RLock(), threading.Event()

    def __enter__(self):
        if not self.lock.acquire(blocking=False):
            self.waits.set()
            self.lock.acquire()

    def __exit__(self, *error):
        self.lock.release()


@EMULATED
def test_what_another_thread_asks_for_waits_for_the_end_of_a_capture(gpu):
    """It would become a part of the step, or make the capture invalid."""
    card = find_card()
    k, x = tables.on_device(card), put(card, np.ones((2, 2), "f4"))
    k.threshold(x)
    for ask in (
        lambda: k.threshold(x),
        lambda: k.matmul(x, x, x),
        lambda: card.upload(np.ones((2, 2), "f4"), x),
        lambda: card.download(x),
        lambda: card.empty((2, 2), "f4"),
    ):
        card.lock, asked = WatchedLock(), []
        other = threading.Thread(target=lambda ask=ask, asked=asked: asked.append(ask()))

        def body(other=other, asked=asked):
            other.start()
            assert card.lock.waits.wait(20) and not asked

        replay = card.capture(body)
        other.join(20)
        assert len(asked) == 1
        replay()


@EMULATED
def test_warnings_do_not_make_a_card_unusable(gpu, monkeypatch):
    """Warnings are errors here, and libraries warn where they are loaded, at the first use."""
    warn = lambda: warnings.warn("a path was not found", DeprecationWarning, stacklevel=2)  # noqa: E731
    with pytest.raises(DeprecationWarning):
        warn()
    cupy, empty = sys.modules["cupy"], sys.modules["cupy"].empty
    monkeypatch.setattr(cupy, "empty", lambda *given: (warn(), empty(*given))[1])
    assert isinstance(device.find(), device.Card)


@EMULATED
def test_data_that_are_elsewhere_are_refused_by_name(gpu):
    away = put(find_card(), np.ones((14, D)))
    away.device.id = 1
    p = problem("vae", 14)
    state = p.start()
    with p.trainer(machine(p.program, "cuda"), state) as trainer:
        with pytest.raises(ValueError, match="data is on GPU 1, expected on GPU 0: copy it there"):
            trainer.run(p.recipe, state, away, np.arange(14))


@EMULATED
def test_memory_that_is_not_enough(install):
    install(FakeGPU(limit=2**25 + 20_000))
    p = problem("vae", 64, batch_size=64)
    with pytest.raises(MemoryError, match=r"batch_size up to \d+ would fit"):
        p.trainer(machine(p.program, "cuda"), p.start())


@EMULATED
def test_auto_is_the_gpu_if_there_is_one(gpu):
    auto, first, cuda = (machine(VAE.program, name) for name in ("auto", "cuda:0", "cuda"))
    assert auto is first is cuda
    check_device("cuda")
    tf32 = machine(VAE.program, "cuda", "tf32")
    assert tf32 is not cuda and tf32 is machine(VAE.program, "auto", "tf32")
    with pytest.raises(ValueError, match="matmul_precision must be one of float32, tf32, got 'f'"):
        machine(VAE.program, "cuda", "f")


# --- without one ----------------------------------------------------------------------------------

MISSING = {
    "no CuPy": (None, "CuPy is not installed: pip install 'cupy-cuda13x[ctk]'"),
    "no driver": (FakeGPU(broken="cudaErrorInsufficientDriver: driver\nis too old"),
                  "no NVIDIA driver that works, or no GPU: CUDARuntimeError: "
                  "cudaErrorInsufficientDriver: driver is too old"),
    "no device": (FakeGPU(count=0), "there is no GPU 0: this machine has 0, numbered from 0"),
    "no memory": (FakeGPU(limit=1000), "GPU 0 is there but does not work: OutOfMemoryError"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_is_said_in_one_line(case, install, monkeypatch):
    gpu, message = MISSING[case]
    install(gpu)
    X = np.eye(4, 3)
    for call in (
        lambda: machine(VAE.program, "cuda"),
        lambda: check_device("cuda"),
        lambda: small(device="cuda").fit(X),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert str(error.value).endswith('use device="cpu" or "auto"')
    assert machine(VAE.program, "auto") is machine(VAE.program, "cpu")
    on_processor = engine.on_processor  # "cpu" would have to be compiled
    monkeypatch.setattr(
        engine, "on_processor", lambda program, _: on_processor(program, "reference")
    )
    assert type(small(device="auto").fit_transform(X)) is np.ndarray


@pytest.mark.parametrize("case", MISSING)
def test_the_tests_on_a_card_pass_nowhere_without_one(case, install):
    """They are skipped where nobody wanted a GPU, and fail where one does not work."""
    gpu, message = MISSING[case]
    install(gpu)
    expected = pytest.skip.Exception if gpu is None else pytest.fail.Exception
    with pytest.raises(expected) as outcome:
        find_card()
    assert message in outcome.value.msg


def test_a_gpu_that_does_not_exist(install):
    install(FakeGPU(count=1))
    with pytest.raises(ValueError, match="there is no GPU 1: this machine has 1, numbered from"):
        machine(VAE.program, "cuda:1")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:1", "auto:0", None, 3])
def test_names_of_devices(name):
    with pytest.raises(ValueError, match="device must be one of auto, cpu, cuda, reference, or"):
        check_device(name)


def test_nothing_of_a_gpu_is_imported_for_other_machines(tmp_path):
    code = (
        "import sys; from minivae import VAE; from minivae.engine.machine import machine;"
        "machine(VAE.program, 'cpu'); machine(VAE.program, 'reference');"
        "print([n for n in sys.modules if 'cupy' in n or n.endswith('kernels.support.device')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_machine_of_a_processor_is_made_once():
    cpu = machine(VAE.program, "cpu")
    assert cpu is machine(VAE.program, "cpu", "tf32") and cpu.k is tables.cpu()
    assert machine(VAE.program, "reference").k is tables.reference


# --- without a cache of compiled code -------------------------------------------------------------

SCRIPT = """
import numpy as np
from minivae import VAE
X = np.eye(8, dtype="f4")
print(VAE(hidden_layer_sizes=(4,), epochs=1, random_state=0).fit(X).history_["loss"])
"""


def train(tmp_path, **environment):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        cwd=tmp_path, env={"PATH": "", **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


@pytest.mark.slow  # three first compilations
def test_training_needs_no_cache(tmp_path):
    """A broken cache, or none that could be written: training goes on, to the same result."""
    cache = tmp_path / "cache"
    expected = train(tmp_path, NUMBA_CACHE_DIR=str(cache))
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:20])
    assert train(tmp_path, NUMBA_CACHE_DIR=str(cache)) == expected
    assert train(tmp_path, NUMBA_CACHE_DIR="/dev/full/no/folder") == expected
