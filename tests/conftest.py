"""What all tests share: the folder of real data and a deterministic Hypothesis profile."""

import os
from pathlib import Path

import hypothesis
import pytest

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
