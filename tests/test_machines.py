"""Machines by the name of their device: whole steps through the code for a card, and what is said
where there is none. The card's own code is tested in tests/kernels/test_card.py.
"""

import subprocess
import sys

import numpy as np
import pytest
from device_checks import (
    check_evaluation,
    check_failure,
    check_training,
    new_state,
    problem,
    run,
)
from emulator import EMULATED
from fake_cupy import FakeBlas, FakeGPU, fake_cupy
from kernel_checks import put

from minivae import VAE, backend
from minivae.kernels.support import device as cuda


@pytest.fixture
def install(monkeypatch):
    """install(gpu): puts the stand-ins for CuPy and cuBLAS in place, or no CuPy at all for None."""

    def into(gpu):
        monkeypatch.setitem(sys.modules, "cupy", gpu and fake_cupy(gpu))
        monkeypatch.setattr(cuda, "cublas_library", lambda cupy: FakeBlas(gpu))
        cuda.find.cache_clear()
        backend._cuda.cache_clear()
        return gpu

    yield into
    cuda.find.cache_clear()
    backend._cuda.cache_clear()


@pytest.fixture
def gpu(install):
    """A GPU behind a stand-in for CuPy."""
    return install(FakeGPU())


# --- with a GPU ---------------------------------------------------------------------------------


@EMULATED
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_whole_steps_go_through_the_code_for_a_card(gpu, likelihood):
    card = cuda.find()
    for dtype in ("float32", "float64"):
        check_training(card, 13, dtype, likelihood=likelihood)
    check_failure(card, 1)
    check_evaluation(card, likelihood)


@EMULATED
def test_capture_happens_on_its_own_stream_after_a_rehearsal(gpu):
    X, plan, recipe = problem(14)
    with backend.machine("cuda").crew(plan, "float64") as crew:
        run(crew, recipe, new_state(plan), X, np.arange(14))
        begin = gpu.calls.index("begin_capture")
        assert "get_function adam" in gpu.calls[:begin]
        assert gpu.calls[begin : begin + 2] == ["begin_capture", "end_capture"]
        replays = [call for call in gpu.calls if call == "launch"]
        assert len(replays) == 4
        gpu.calls.clear()
        run(crew, recipe, new_state(plan), X, np.arange(14))
    # Full batches without a word from the host, one look, the short batch, another look, totals.
    steps = gpu.calls[gpu.calls.index("launch") :][:7]
    assert steps == ["launch"] * 3 + ["asnumpy", "launch", "asnumpy", "asnumpy"]


@EMULATED
def test_data_that_are_elsewhere_are_refused_by_name(gpu):
    away = put(cuda.find(), np.ones((14, 7)))
    away.device.id = 1
    _, plan, recipe = problem(14)
    with backend.machine("cuda").crew(plan, "float64") as crew:
        with pytest.raises(ValueError, match="data is on GPU 1, expected on GPU 0: copy it there"):
            crew.run(recipe, new_state(plan), away, np.arange(14))


@EMULATED
def test_memory_that_is_not_enough(install):
    install(FakeGPU(limit=2**25 + 20_000))
    X, plan, recipe = problem(64)
    recipe = recipe._replace(batch_size=64)
    with backend.machine("cuda").crew(plan, "float64") as crew:
        with pytest.raises(MemoryError, match=r"batch_size up to \d+ would fit"):
            crew.run(recipe, new_state(plan), X, np.arange(64))


@EMULATED
def test_auto_is_the_gpu_if_there_is_one(gpu):
    assert backend.machine("auto") is backend.machine("cuda") is backend.machine("cuda:0")
    backend.check_device("cuda")


# --- without one --------------------------------------------------------------------------------

MISSING = {
    "no CuPy": (None, "CuPy is not installed: pip install 'cupy-cuda13x[ctk]'"),
    "no driver": (FakeGPU(broken="cudaErrorInsufficientDriver: driver\nis too old"),
                  "no NVIDIA driver that works, or no GPU: CUDARuntimeError: "
                  "cudaErrorInsufficientDriver: driver is too old"),
    "no device": (FakeGPU(count=0), "there is no GPU 0: this machine has 0, numbered from 0"),
    "no memory": (FakeGPU(limit=1000), "GPU 0 is there but does not work: OutOfMemoryError"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_is_said_in_one_line(case, install):
    gpu, message = MISSING[case]
    install(gpu)
    for call in (backend.machine, backend.check_device):
        with pytest.raises(ValueError) as error:
            call("cuda")
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert str(error.value).endswith('use device="cpu" or "auto"')
    assert backend.machine("auto") is backend.machine("cpu")
    X = np.eye(4, 3)
    assert type(VAE(2, hidden_layer_sizes=(3,), device="auto", epochs=1).fit(X).transform(X)) is (
        np.ndarray
    )


def test_a_gpu_that_does_not_exist(install):
    install(FakeGPU(count=1))
    with pytest.raises(ValueError, match="there is no GPU 1: this machine has 1, numbered from"):
        backend.machine("cuda:1")


@pytest.mark.parametrize(
    "device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:1", "auto:0", None, 3]
)
def test_names_of_devices(device):
    with pytest.raises(ValueError, match="device must be one of auto, cpu, cuda, reference, or"):
        backend.check_device(device)


def test_nothing_of_a_gpu_is_imported_for_other_machines(tmp_path):
    code = (
        "import sys, minivae; from minivae import backend; backend.machine('cpu');"
        "print([n for n in sys.modules if 'cupy' in n or n.endswith('kernels.support.device')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


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
