"""The code that only a GPU would run, over stand-ins for CuPy and cuBLAS; and machines without one.

What a stand-in cannot show: whether the real CuPy, driver and card do what it does.
"""

import ctypes
import subprocess
import sys

import numpy as np
import pytest
from emulator import EMULATED
from fake_cupy import FakeBlas, FakeGPU, fake_cupy
from kernel_arguments import TWINS
from kernel_checks import (
    check_products,
    check_random,
    check_sum_of_some_columns,
    check_twin,
    hosted_table,
    put,
)

from minivae.kernels.support import device
from minivae.kernels.support.launches import Control, Rows
from minivae.kernels.tables import on_device

# --- with a GPU ---------------------------------------------------------------------------------


@EMULATED
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_go_through_the_code_for_a_card(gpu, dtype):
    card = device.find()
    assert isinstance(card, device.Card), card
    for name in TWINS:
        for shape in ((0, 5), (1, 1), (7, 33)):
            check_twin(card, name, dtype, shape, 0)
        check_twin(card, name, dtype, (7, 33), 1, sliced=True)
    check_products(card, dtype)
    check_sum_of_some_columns(card, dtype)
    check_random(hosted_table(card), dtype)


@EMULATED
def test_a_subject_is_compiled_once_and_when_it_is_needed(gpu):
    card = device.find()
    assert [call for call in gpu.calls if "compile" in call] == ["compile random float32"]
    gpu.calls.clear()
    k, x = on_device(card), put(card, np.ones((3, 4)))
    for _ in range(2):
        k.threshold(x)
        k.bernoulli_mean(x, x)
        k.copy(x, put(card, np.ones((4, 3))))
    Control(card).advance(3)
    assert [call for call in gpu.calls if "compile" in call] == [
        "compile random float64", "compile likelihoods float64", "compile batch float64",
    ]  # fmt: skip
    assert gpu.calls.count("get_function threshold") == 1


@EMULATED
def test_a_replay_goes_on_with_the_rows_that_come_next(gpu):
    card = device.find()
    control, data = Control(card), np.arange(12.0).reshape(6, 2)
    k, x = on_device(card, control), put(card, np.zeros((2, 2)))
    given, order = put(card, data), put(card, np.array([5, 0, 3, 2, 1, 4]))

    def step():
        k.gather(given, Rows(order, 2), x, None)
        control.advance(2)

    control.start(0, 0.0, failed=True)
    step()
    replay = card.capture(step)
    control.start(0, 0.0)
    for rows in ([5, 0], [3, 2], [1, 4]):
        replay()
        np.testing.assert_array_equal(card.download(x), data[rows])


@EMULATED
def test_a_capture_that_fails_is_ended(gpu):
    card = device.find()

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
        card = device.find(0, precision)
        matmul = hosted_table(card).matmul
        matmul(ones, ones, ones.copy())
        assert card.blas.library.computes == {code}
        matmul(ones.astype(float), ones.astype(float), ones.astype(float))
        assert card.blas.library.computes == {code, 70}
    with pytest.raises(ValueError, match="matmul_precision must be one of float32, tf32, got 'f'"):
        device.find(0, "f")


@EMULATED
def test_cublas_errors_are_named(gpu, monkeypatch):
    card = device.find()
    monkeypatch.setattr(FakeBlas, "cublasGemmEx", lambda self, *arguments: 13)
    a = put(card, np.ones((2, 2), np.float32))
    with pytest.raises(RuntimeError, match="cublasGemmEx failed with cuBLAS status 13"):
        card.product(a, a, a)
    with pytest.raises(ValueError, match=r"strides .* expected adjacent rows or columns"):
        device._form((0, (4, 4), (64, 8)), np.dtype("float32"))


@EMULATED
def test_products_of_what_does_not_fit_together_are_refused(gpu):
    """cuBLAS would take the first array's dtype for all, and write a result in any layout."""
    card = device.find()
    k, single, double = (
        on_device(card),
        put(card, np.ones((2, 2), "f4")),
        put(card, np.ones((2, 2))),
    )
    for arrays, name in [((single, double, single), "b"), ((single, single, double), "out")]:
        with pytest.raises(TypeError, match=f"{name} has dtype float64, expected float32"):
            k.matmul(*arrays)
    with pytest.raises(ValueError, match="out has strides"):
        k.matmul(single, single, single.T)


@EMULATED
def test_arrays_that_are_elsewhere_are_refused_by_name(gpu):
    card = device.find()
    here, away = (put(card, np.ones((3, 4))) for _ in range(2))
    away.device.id = 1
    k = on_device(card)
    with pytest.raises(ValueError, match="mean is on GPU 1, expected on GPU 0: copy it there"):
        k.bernoulli_mean(here, away)
    with pytest.raises(TypeError, match=r"x is a numpy.ndarray, expected a cupy.ndarray on GPU 0"):
        k.threshold(np.ones((3, 4)))


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
    assert message in device.find()
    assert "\n" not in device.find()


def test_a_gpu_that_does_not_exist(install):
    install(FakeGPU(count=1))
    assert device.find(1) == "there is no GPU 1: this machine has 1, numbered from 0"


def test_a_broken_installation_is_said_in_one_line(install, tmp_path, monkeypatch):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.13:\\n cannot open')\n")
    monkeypatch.syspath_prepend(tmp_path)
    install(None)
    monkeypatch.delitem(sys.modules, "cupy")
    assert device.find() == (
        "CuPy is installed but cannot be imported: ImportError: libcudart.so.13: cannot open"
    )


@EMULATED
@pytest.mark.parametrize("fault", ["words", "product"])
def test_a_gpu_that_computes_wrongly_is_not_used(fault, install, monkeypatch):
    install(FakeGPU())
    if fault == "words":
        monkeypatch.setattr(device, "KNOWN_ANSWER", [1, 2, 3, 4])
    else:
        monkeypatch.setattr(FakeBlas, "cublasGemmEx", lambda self, *arguments: 0)
    assert "does not work: RuntimeError: " in device.find()
    assert " gave " in device.find()


def test_cublas_is_found_by_pathfinder_or_by_its_version(monkeypatch):
    loaded = []
    monkeypatch.setattr(ctypes, "CDLL", loaded.append)
    cupy = fake_cupy(FakeGPU())
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    device.cublas_library(cupy)
    found = type("Found", (), {"abs_path": "/lib/libcublas.so.13"})
    pathfinder = type("Module", (), {"load_nvidia_dynamic_lib": staticmethod(lambda name: found)})
    monkeypatch.setitem(sys.modules, "cuda", type("Package", (), {"pathfinder": pathfinder}))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
    device.cublas_library(cupy)
    assert loaded == ["libcublas.so.13", "/lib/libcublas.so.13"]


def test_nothing_of_a_gpu_is_imported_for_other_machines(tmp_path):
    code = (
        "import sys; from minivae.kernels import tables; tables.cpu();"
        "print([n for n in sys.modules if 'cupy' in n or n.endswith(('.cuda', '.device'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
