"""The code that only a GPU would run, over stand-ins for CuPy and cuBLAS; and machines without one.

What a stand-in cannot show: whether the real CuPy, driver and card do what it does.
"""

import ctypes
import platform
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from device_checks import (
    TWINS,
    check_evaluation,
    check_failure,
    check_training,
    check_twin,
    check_views,
    new_state,
    problem,
    put,
    run,
)
from emulator import GXX
from fake_cupy import FakeBlas, FakeGPU, fake_cupy

from minivae import VAE, backend
from minivae.kernels import cuda

EMULATED = pytest.mark.skipif(
    GXX is None or platform.system() != "Linux", reason="the emulated GPU needs Linux and g++"
)


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
    assert isinstance(card, cuda.Card), card
    for dtype in ("float32", "float64"):
        check_training(card, 13, dtype, likelihood=likelihood)
        check_views(card, dtype)
        for name, shape in product(TWINS, ((0, 5), (1, 1), (7, 33))):
            check_twin(card, name, dtype, shape, 0)
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
def test_a_capture_that_fails_is_ended(gpu):
    card = cuda.find()

    def fails():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        card.capture(fails)
    assert gpu.calls[-2:] == ["begin_capture", "end_capture"]
    card.capture(lambda: None)()


@EMULATED
def test_the_precision_of_products_is_what_was_asked_for(gpu):
    ones = np.ones((2, 2), np.float32)
    for precision, code in [("float32", 68), ("tf32", 77)]:
        machine = backend.machine("cuda", matmul_precision=precision)
        machine.k.matmul(ones, ones, ones.copy())
        card = cuda.find(0, precision)
        assert card.blas.library.computes == {code}
        machine.k.matmul(ones.astype(float), ones.astype(float), ones.astype(float))
        assert card.blas.library.computes == {code, 70}
    with pytest.raises(ValueError, match="matmul_precision must be one of float32, tf32, got 'f'"):
        backend.machine("cuda", matmul_precision="f")


@EMULATED
def test_cublas_errors_are_named(gpu, monkeypatch):
    card = cuda.find()
    monkeypatch.setattr(FakeBlas, "cublasGemmEx", lambda self, *arguments: 13)
    a = put(card, np.ones((2, 2), np.float32))
    with pytest.raises(RuntimeError, match="cublasGemmEx failed with cuBLAS status 13"):
        card.product(a, a, a)
    with pytest.raises(ValueError, match=r"strides .* expected adjacent rows or columns"):
        cuda._form((0, (4, 4), (64, 8)), np.dtype("float32"))


@EMULATED
def test_arrays_that_are_elsewhere_are_refused_by_name(gpu):
    card = cuda.find()
    away = put(card, np.ones((14, 7)))
    away.device.id = 1
    X, plan, recipe = problem(14)
    with backend.machine("cuda").crew(plan, "float64") as crew:
        with pytest.raises(ValueError, match="data is on GPU 1, expected on GPU 0: copy it there"):
            crew.run(recipe, new_state(plan), away, np.arange(14))
    with pytest.raises(TypeError, match=r"x is a numpy.ndarray, expected a cupy.ndarray on GPU 0"):
        card.address("x", X)


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


def test_a_broken_installation_is_said_in_one_line(install, tmp_path, monkeypatch):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.13:\\n cannot open')\n")
    monkeypatch.syspath_prepend(tmp_path)
    install(None)
    monkeypatch.delitem(sys.modules, "cupy")
    why = cuda.find()
    assert why == (
        "CuPy is installed but cannot be imported: ImportError: libcudart.so.13: cannot open"
    )
    assert backend.machine("auto") is backend.machine("cpu")


@EMULATED
@pytest.mark.parametrize("fault", ["words", "product"])
def test_a_gpu_that_computes_wrongly_is_not_used(fault, install, monkeypatch):
    install(FakeGPU())
    if fault == "words":
        monkeypatch.setattr(cuda, "KNOWN_ANSWER", [1, 2, 3, 4])
    else:
        monkeypatch.setattr(FakeBlas, "cublasGemmEx", lambda self, *arguments: 0)
    assert "does not work: RuntimeError: " in cuda.find()
    assert " gave " in cuda.find()


def test_cublas_is_found_by_pathfinder_or_by_its_version(monkeypatch):
    loaded = []
    monkeypatch.setattr(ctypes, "CDLL", loaded.append)
    cupy = fake_cupy(FakeGPU())
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    cuda.cublas_library(cupy)
    found = type("Found", (), {"abs_path": "/lib/libcublas.so.13"})
    pathfinder = type("Module", (), {"load_nvidia_dynamic_lib": staticmethod(lambda name: found)})
    monkeypatch.setitem(sys.modules, "cuda", type("Package", (), {"pathfinder": pathfinder}))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
    cuda.cublas_library(cupy)
    assert loaded == ["libcublas.so.13", "/lib/libcublas.so.13"]


def test_nothing_of_a_gpu_is_imported_for_other_machines(tmp_path):
    code = (
        "import sys, minivae; from minivae import backend; backend.machine('cpu');"
        "print([n for n in sys.modules if n.startswith(('cupy', 'minivae.kernels.cuda'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
