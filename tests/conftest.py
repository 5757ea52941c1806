"""What all tests share: the folder of real data, a deterministic Hypothesis profile, stand-ins for
CuPy."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest
from fake_cupy import FakeBlas, FakeGPU, fake_cupy

from minivae.kernels.support import device

# The same examples in every run and nothing kept between runs; first calls compile, so no deadline.
hypothesis.settings.register_profile(
    "minivae", derandomize=True, database=None, deadline=None, max_examples=50
)
hypothesis.settings.load_profile("minivae")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real data; tests that ask for it are skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MINIVAE_DATA_DIR") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real data: neither $MINIVAE_DATA_DIR nor {beside} is a folder")
    return folder


@pytest.fixture
def install(monkeypatch):
    """install(gpu): puts the stand-ins for CuPy and cuBLAS in place, or no CuPy at all for None."""

    def into(gpu):
        monkeypatch.setitem(sys.modules, "cupy", gpu and fake_cupy(gpu))
        monkeypatch.setattr(device, "cublas_library", lambda cupy: FakeBlas(gpu))
        device.find.cache_clear()
        return gpu

    yield into
    device.find.cache_clear()


@pytest.fixture
def gpu(install):
    """A GPU behind a stand-in for CuPy."""
    return install(FakeGPU())
