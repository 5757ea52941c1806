"""The CUDA source, without a card: compiled by whatever compiler is there, and with planted bugs.

The emulated GPU must find those. What the kernels compute is asked in test_twins.py and in the
files of the subjects.
"""

import contextlib
import ctypes
import shutil
import subprocess

import numpy as np
import pytest
from emulator import EMULATED, ORDERS, Emulator
from kernel_checks import check_twin, hosted_table, put
from test_twins import KERNELS, require_same_bits

from minivae.kernels.support import launches
from minivae.kernels.tables import on_device

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
SUBJECTS = pytest.mark.parametrize("subject", launches.subjects())
CARDS = {"float32": 90, "float64": 80}  # the newest and the oldest that docs/gpu.md names
NVCC = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")


# --- the source -----------------------------------------------------------------------------------


def double_arithmetic(ptx):
    """Kernels in PTX that compute with doubles: more than read, write and round them."""
    harmless = ("ld.", "st.", ".reg", "cvt.rn.f32.f64")
    _, *entries = ptx.split(".visible .entry ")
    return {
        entry.split("(")[0]
        for entry in entries
        for line in entry.splitlines()
        if ".f64" in line and not line.strip().startswith(harmless)
    }


@NVCC
@SUBJECTS
@DTYPES
def test_the_kernels_compile_for_cards_without_a_warning(subject, dtype, tmp_path):
    """And in float32 with no double arithmetic, which is slow on most cards; but totals are added
    in it, and counts drawn."""
    defines = [f"-D{name}={value}" for name, value in launches.definitions(dtype).items()]
    (tmp_path / "source.cu").write_text(launches.source(subject))
    command = ["nvcc", "-cubin", f"-arch=sm_{CARDS[dtype]}", "-Werror", "all-warnings", "-Xptxas",
               "-warn-spills,-Werror", *defines, "-keep", "source.cu"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (ptx,) = (path.read_text() for path in tmp_path.glob("*.ptx"))
    assert ptx.count(".visible .entry ") == launches.source(subject).count("__global__")
    if dtype == "float32":
        allowed = {"batch": {"add_terms"}, "likelihoods": {"mixed_draw"}}
        assert double_arithmetic(ptx) == allowed.get(subject, set())


def find_nvrtc():
    """The compiler that CuPy uses, as a library, or None."""
    for version in ("13", "12"):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(f"libnvrtc.so.{version}")
    with contextlib.suppress(ImportError, RuntimeError):
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib("nvrtc").abs_path)
    return None


@DTYPES
def test_the_kernels_compile_as_cupy_compiles_them(dtype):
    library = find_nvrtc()
    if library is None:
        pytest.skip("NVRTC is not installed")
    defines = [f"-D{name}={value}" for name, value in launches.definitions(dtype).items()]
    options = [*defines, "-ftz=true", "--device-as-default-execution-space", "-arch=sm_90"]
    texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    for subject in launches.subjects():
        program, size, source = ctypes.c_void_p(), ctypes.c_size_t(), launches.source(subject)
        created = library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"cuda.cu", 0, None, None
        )
        done = library.nvrtcCompileProgram(program, len(options), texts)
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        assert (created, done, log.value.strip(b"\n ")) == (0, 0, b""), subject


def test_every_kernel_has_a_launch():
    """And what the parser made of the source is all that there is."""
    kernels = launches.signatures()
    sources = [launches.source(subject) for subject in launches.subjects()]
    assert len(kernels) == sum(source.count("__global__") for source in sources)
    assert kernels.keys() == KERNELS.keys() - {"join"} | {"advance"}
    for signature in kernels.values():
        pointers = {name for _, pointer, name in signature.parameters if pointer}
        for (kind, pointer, name), before in zip(
            signature.parameters, [None, *signature.names], strict=False
        ):
            assert kind in {"REAL", *launches.SCALARS}
            assert pointer in ("", "*")
            if name.endswith(launches.STRIDES):  # stands right behind its array, rows first
                matrix, end = name.rsplit("_", 2)[0], name[name.rindex("_", 0, -7) :]
                assert matrix in pointers and kind == "i64"
                assert before == (matrix if end == "_row_stride" else matrix + "_row_stride")


def test_a_kernel_of_no_real_numbers_is_no_reason_to_compile():
    single, double = np.dtype("float32"), np.dtype("float64")
    for kernel, subject in [("random_words", "random"), ("advance", "batch")]:
        assert not launches.signatures()[kernel].has_real
        assert launches.unit({}, None, kernel) == (subject, single)
        assert launches.unit({(subject, double): 1}, None, kernel) == (subject, double)
        assert launches.unit({("dense", double): 1}, None, kernel) == (subject, single)
    assert launches.unit({("batch", single): 1}, double, "gather") == ("batch", double)


@EMULATED
def test_only_what_is_used_is_compiled():
    device = Emulator()
    k = hosted_table(device)
    k.random_normal(1, 2, 3, 4, np.empty((2, 3)))
    k.random_words(1, 2, 3, 4, np.empty((2, 3), np.uint32))
    k.threshold(np.empty((2, 3)))
    assert list(device.units) == [("random", np.dtype("float64"))]


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
LEFT = """    left[y][x] = i < m && column < depth ? a[i * a_row_stride + column * a_column_stride] : (REAL)0;
"""  # noqa: E501
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
        "if (i < m && column < depth) left[y][x] = a[i * a_row_stride + column];", "",
    ),
    "a write behind the end": (
        "threshold", "j >= columns", "j > columns", "wrote outside of an array"
    ),
    "a read behind the end": ("sum_rows", "i < rows; i += warps", "i <= rows; i += warps", ""),
    "block_sum with an atomic sum of floats": ("bernoulli_nll", SUM, ATOMIC, ""),
    "a thread without a guard": ("bias_activation", "if (j >= columns) return;", "", ""),
    "a matrix taken for contiguous": ("threshold", "block_row(x, x_row_stride)",
                                      "block_row(x, columns)", ""),
    "a clamp is missing": (
        "sample_gaussian", "hold_logvar(logvar[row * logvar_row_stride + j])",
        "logvar[row * logvar_row_stride + j]", ""
    ),
    "a mask is forgotten": ("bernoulli_nll", "known ? softplus", "true ? softplus", ""),
    "a first step that is not unbiased": ("adam", "(t * log_beta1)", "((t + 1) * log_beta1)", ""),
    "a column that another thread wrote": ("encoder_input", "  __syncthreads();", "", ""),
    "the logarithm of a factorial is forgotten": ("mixed_nll", " + lgamma(target + 1)", "", ""),
    "a softmax has the slope of a sigmoid": (
        "mixed_nll", "exp(logit - of.top) / of.total", "sigmoid(logit)", ""
    ),
    "sums of segments that are not there yet": (
        "nade_backward", "    slopes[segment][unit] = slope;\n    __syncthreads();",
        "    slopes[segment][unit] = slope;", ""
    ),
    "a segment forgets those before it": (
        "nade_backward", "before < segment", "before < 0", ""
    ),
    "weights of another variable": (
        "nade_logits", "V + (i64)d * hidden", "V + (i64)(d / 2) * hidden", ""
    ),
}  # fmt: skip


@EMULATED
@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_found(bug):
    name, right, wrong, message = BUGS[bug]
    subject = launches.signatures()[name].subject
    source = launches.source(subject)
    assert right in source
    place = "T block_sum(" if "block_sum" in bug else f"void {name}("
    start = source.index(right, source.index(place))
    planted = source[:start] + wrong + source[start + len(right) :]
    devices = [Emulator(order, lambda subject: planted) for order in ORDERS]
    with pytest.raises(AssertionError, match=message or None):
        for seed, shape in enumerate([(5, 1), (7, 33), (9, 300), (5, 40)]):
            require_same_bits(
                devices, lambda d, *how: check_twin(d, name, "float32", *how, 30.0), shape, seed
            )
            check_twin(devices[-1], name, "float32", shape, seed, sliced=True)


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
        lambda: hosted_table(device).all_finite(np.ones(1)),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match="while a step is captured"):
            device.capture(touch)


@EMULATED
def test_a_replay_sees_that_an_array_is_gone(device):
    k, arrays = on_device(device), [put(device, np.ones((3, 4), np.float32))]
    replay = device.capture(lambda: k.threshold(arrays[0]))
    replay()
    arrays.clear()
    with pytest.raises(AssertionError, match="gone"):
        replay()
