"""The kernels of cuda.cu and the host code around them, without a card.

They are compiled for cards by whatever compiler is there, and run on the CPU by emulator.py: each
kernel against the reference for several orders of threads, whole captured steps against the
reference's, and planted bugs, which must be found.
"""

import contextlib
import ctypes
import inspect
import platform
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import test_kernels
import test_random
from device_checks import (
    SHAPES,
    TWINS,
    check_all_finite,
    check_random,
    check_twin,
    check_views,
    put,
    table,
)
from emulator import GXX, ORDERS, Emulator
from numpy.testing import assert_array_equal

from minivae.kernels import launches, reference

EMULATED = pytest.mark.skipif(
    GXX is None or platform.system() != "Linux", reason="the emulated GPU needs Linux and g++"
)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(scope="module")
def devices():
    """One device in memory for each order of threads and blocks."""
    return [Emulator(order) for order in ORDERS]


@pytest.fixture(scope="module")
def device(devices):
    """A device in memory whose threads run in a shuffled order."""
    return devices[-1]


# --- the source -----------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@DTYPES
def test_the_kernels_compile_for_cards_without_a_warning(architecture, dtype, tmp_path):
    defines = [f"-D{name}={value}" for name, value in launches.definitions(dtype).items()]
    command = ["nvcc", "-cubin", f"-arch={architecture}", "-Werror", "all-warnings", "-Xptxas",
               "-warn-spills,-Werror", *defines, str(launches.SOURCE), "-o",
               str(tmp_path / "cubin")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def find_nvrtc():
    """The compiler that CuPy uses, as a library, or None."""
    for version in ("13", "12"):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(f"libnvrtc.so.{version}")
    with contextlib.suppress(ImportError, RuntimeError):
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib("nvrtc").abs_path)
    return None


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@DTYPES
def test_the_kernels_compile_as_cupy_compiles_them(architecture, dtype):
    library = find_nvrtc()
    if library is None:
        pytest.skip("NVRTC is not installed")
    defines = [f"-D{name}={value}" for name, value in launches.definitions(dtype).items()]
    options = ["-std=c++14", *defines, "-ftz=true", f"--gpu-architecture={architecture}"]
    program, source = ctypes.c_void_p(), launches.SOURCE.read_bytes()
    created = library.nvrtcCreateProgram(ctypes.byref(program), source, b"cuda.cu", 0, None, None)
    texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    done = library.nvrtcCompileProgram(program, len(options), texts)
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert (created, done, log.value.strip(b"\n ")) == (0, 0, b"")


def test_float32_kernels_compute_in_float32(tmp_path):
    """Double precision is slow on most cards. Totals are added in it, the learning rate read."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    defines = [f"-D{name}={value}" for name, value in launches.definitions("float32").items()]
    ptx = tmp_path / "ptx"
    subprocess.run(["nvcc", "-ptx", "-arch=sm_80", *defines, str(launches.SOURCE), "-o", str(ptx)],
                   check=True)  # fmt: skip
    _, *entries = ptx.read_text().split(".visible .entry ")
    assert len(entries) == len(launches.signatures())
    reads = ("ld.", "st.", ".reg", "cvt.rn.f32.f64")
    double = {
        entry.split("(")[0]
        for entry in entries
        for line in entry.splitlines()
        if ".f64" in line and not line.strip().startswith(reads)
    }
    assert double == {"add_totals"}


def test_the_table_has_the_names_and_signatures_of_the_reference():
    twins = [name for name in vars(launches.Table) if not name.startswith("_")]
    assert sorted(twins) == sorted(test_kernels.KERNELS)
    for name in twins:
        signature = inspect.signature(getattr(launches.Table, name))
        own = signature.replace(parameters=list(signature.parameters.values())[1:])
        assert own == inspect.signature(getattr(reference, name)), name


def test_every_kernel_has_a_launch():
    """And what the parser made of the source is all that there is."""
    source = launches.SOURCE.read_text()
    assert len(launches.signatures()) == source.count("__global__")
    assert set(launches.signatures()) == set(test_kernels.KERNELS) - {"join"} | {"advance"}
    for parameters in launches.signatures().values():
        for kind, pointer, _ in parameters:
            assert kind in {"REAL", *launches.SCALARS}
            assert pointer in ("", "*")


# --- kernels --------------------------------------------------------------------------------------


def require_same_bits(devices, check, *how):
    """check(device, ...) leaves the same arrays on every device, and on the first one twice."""
    first, *others = (check(device, *how) for device in [devices[0], *devices])
    for other in others:
        for one, two in zip(first, other, strict=True):
            assert_array_equal(one, two)


@EMULATED
@pytest.mark.parametrize("name", TWINS)
@DTYPES
def test_twin_agrees_with_the_reference_in_any_order_of_threads(name, dtype, devices):
    for seed, shape in enumerate(SHAPES):  # seeds choose activations, masks, forms of products
        require_same_bits(devices, lambda d, *how: check_twin(d, name, dtype, *how), shape, seed)
        for magnitude in (1e-3, 30.0, 1e3):
            check_twin(devices[-1], name, dtype, shape, 100 + seed, magnitude)
    for seed in range(12):
        check_twin(devices[-1], name, dtype, (5, 9), seed)


@EMULATED
@DTYPES
def test_random_numbers_views_and_finiteness(dtype, device):
    check_random(device, dtype)
    check_views(device, dtype)
    check_all_finite(device, dtype)


@EMULATED
def test_philox_gives_the_known_answer(device):
    words, zeros = np.zeros((1, 4), np.uint32), test_random.KNOWN_ANSWERS.split("\n")[1]
    table(device).random_words(0, 0, 0, 0, words)
    assert [f"{word:08x}" for word in words[0]] == zeros.split()[6:]


@EMULATED
def test_the_papers_and_the_special_values(device):
    """What test_kernels.py and test_random.py ask of a table."""
    k = table(device)
    test_kernels.test_bernoulli_value(k)
    test_kernels.test_gaussian_value(0.7, k)
    test_kernels.test_posterior_value(50, k)
    test_kernels.test_optimizers_follow_their_papers_over_many_steps(k)
    for name in test_kernels.HAND_STEPS:
        test_kernels.test_optimizer_step_by_hand(name, k)
    test_random.check_posterior_std(k)
    test_random.test_large_logits_give_finite_nll_and_p_minus_x(k)
    test_random.test_the_gradient_may_replace_what_it_is_of(k)
    test_random.test_nan_stays_nan(k)
    test_random.test_threshold_is_one_from_a_half(k)
    test_random.test_totals_are_added_in_float64(k)


# --- planted bugs ---------------------------------------------------------------------------------

SUM = """  part[threadIdx.x] = value;
  __syncthreads();
  for (u32 half"""
ATOMIC = """  __shared__ T sum;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  atomicAdd(&sum, value);
  __syncthreads();
  return sum;
  for (u32 half"""
LEFT = "left[y][x] = i < m && start + x < depth ? a[i * a_down + (start + x) * a_right] : (REAL)0;"
BUGS = {  # name: kernel, what stands in the source, what is planted there, what finds it
    "block_sum without a barrier": ("bernoulli_nll", SUM, SUM.replace("__syncthreads();", ""), ""),
    "block_sum without the barriers between its levels": (
        "gaussian_nll", "threadIdx.x + half];\n    __syncthreads();", "threadIdx.x + half];", ""
    ),
    "a barrier that one warp meets": (
        "sum_rows", "  part[threadIdx.x] = total;\n  __syncthreads();",
        "  part[threadIdx.x] = total;\n  if (warp == 0) __syncthreads();", "divergent barrier"
    ),
    "shared memory that nothing wrote": (
        "matmul", LEFT,
        "if (i < m && start + x < depth) left[y][x] = a[i * a_down + start + x];", "",
    ),
    "a write behind the end": (
        "threshold", "if (at < size)", "if (at <= size)", "wrote outside of an array"
    ),
    "a read behind the end": ("sum_rows", "i < rows; i += warps", "i <= rows; i += warps", ""),
    "block_sum with an atomic sum of floats": ("bernoulli_nll", SUM, ATOMIC, ""),
    "a thread without a guard": ("bias_activation", "if (j >= columns) return;", "", ""),
    "a clamp is missing": (
        "sample_gaussian", "held = hold_logvar(logvar[i * logvar_down + j])",
        "held = logvar[i * logvar_down + j]", ""
    ),
    "a first step that is not unbiased": ("adam", "(t * log_beta1)", "((t + 1) * log_beta1)", ""),
}  # fmt: skip


@EMULATED
@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_found(bug):
    name, right, wrong, message = BUGS[bug]
    source = launches.SOURCE.read_text()
    assert right in source
    place = "T block_sum(" if "block_sum" in bug else f"void {name}("
    start = source.index(right, source.index(place))
    planted = source[:start] + wrong + source[start + len(right) :]
    devices = [Emulator(order, planted) for order in ORDERS]
    with pytest.raises(AssertionError, match=message or None):
        for seed, shape in enumerate([(5, 1), (7, 33), (9, 300)]):
            require_same_bits(
                devices, lambda d, *how: check_twin(d, name, "float32", *how, 30.0), shape, seed
            )


@EMULATED
def test_the_host_cannot_touch_an_array_on_the_device(device):
    array = put(device, np.ones((3, 4), np.float32))
    for touch in (
        lambda: array[0, 0], lambda: array + 1, lambda: np.sum(array), lambda: float(array[0]),
        lambda: array.__setitem__(0, 1), lambda: device.upload(array, array),
    ):  # fmt: skip
        with pytest.raises((TypeError, AssertionError)):
            touch()
    for touch in (
        lambda: device.empty((1,), np.float32), lambda: device.download(array),
        lambda: device.upload(np.ones((3, 4), np.float32), array),
        lambda: table(device).all_finite(np.ones(1), np.ones(1)),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match="while a step is captured"):
            device.capture(touch)


@EMULATED
def test_a_replay_sees_that_an_array_is_gone(device):
    k, arrays = launches.Table(device), [put(device, np.ones((3, 4), np.float32))]
    replay = device.capture(lambda: k.threshold(arrays[0]))
    replay()
    arrays.clear()
    with pytest.raises(AssertionError, match="gone"):
        replay()


def test_more_columns_than_a_grid_can_have_are_refused():
    """A card would fail to launch; nothing is run here, so any device will do."""
    with pytest.raises(ValueError, match="gather got a matrix of too many columns: 65536 blocks"):
        launches.launch(SimpleNamespace(address=lambda *words: 0), np.float32, "gather", (1, 65536),
                        None, None, None, None, 1)  # fmt: skip
