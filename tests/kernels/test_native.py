"""How functions become native code, and what is kept of it."""

import numba
import pytest

from minivae.kernels.support import native
from minivae.kernels.tables import cpu


@pytest.fixture
def function():
    names = {}
    exec(compile("def double(x): return 2 * x", __file__, "exec"), names)
    return names["double"]


def test_a_full_disk_costs_the_cache_not_the_result(function, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    compiled = native.compiled(function)
    monkeypatch.setattr(type(compiled._cache._cache_file), "save", full)
    assert compiled(21) == 42


def test_a_broken_cache_is_no_obstacle(function, monkeypatch):
    def broken(*args, **kwargs):
        raise EOFError("Ran out of input")

    compiled = native.compiled(function)
    monkeypatch.setattr(type(compiled._cache._cache_file), "load", broken)
    assert compiled(21) == 42


def test_a_change_of_any_kernel_file_is_a_new_cache_entry(monkeypatch, tmp_path):
    assert cpu().matmul.py_func.__qualname__ == f"matmul_{native.DIGEST}"
    assert native._digest() == native.DIGEST
    monkeypatch.setattr(native, "__file__", str(tmp_path / "support" / "native.py"))
    digests = set()
    for name, text in [("dense/cpu.py", "1"), ("support/formulas.py", "1"),
                       ("support/formulas.py", "2")]:  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        digests.add(native._digest())
    assert len(digests) == 3


def test_without_a_place_for_a_cache_it_compiles_in_memory():
    names = {}
    exec(compile("def double(x): return x + x", "no_such_folder/kernel.py", "exec"), names)
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(names["double"])
    double = native.compiled(names["double"])
    assert double(21) == 42
    assert double.stats.cache_path is None


def test_a_constant_is_no_reason_to_compile_once_more(function):
    """Numba types it as itself, so that every stream of random numbers had a generator compiled."""
    double = native.compiled(function)
    both = numba.njit(lambda: double(1) + double(2))
    assert both() == 6
    assert double.signatures == [(numba.int64,)]
