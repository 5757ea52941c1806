"""Data files, and runs of `minivae train` on them that several tests look at."""

import shutil

import numpy as np
import pytest
from shell import TINY

from minivae.app import cli, pictures


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder with data: 20 grey images of 4 x 3 pixels with labels, and a table of 4 columns."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    np.savez(folder / "images.npz", X=rng.integers(0, 256, (20, 4, 3), dtype=np.uint8),
             y=np.arange(20) % 3)  # fmt: skip
    np.save(folder / "more.npy", np.zeros((2, 13)))
    table = rng.normal(3, 2, (12, 4))
    np.savetxt(folder / "table.csv", table, delimiter=",", header="a,b,c,d", comments="")
    return folder


@pytest.fixture(scope="session")
def images(files):
    """A run on the images, Z = 2. Tests that write into it work on a copy."""
    out = files / "images_run"
    assert cli.main(["train", f"{files}/images.npz", "--out", str(out), *TINY]) == 0
    return out


@pytest.fixture(scope="session")
def table(files):
    """A run on the table, Z = 3, Gaussian."""
    out = files / "table_run"
    words = ["train", f"{files}/table.csv", "--out", str(out), *TINY, "--latent-dim", "3"]
    assert cli.main([*words, "--likelihood", "gaussian"]) == 0
    return out


@pytest.fixture
def copy(images, tmp_path):
    return shutil.copytree(images, tmp_path / "run")


@pytest.fixture
def no_pictures(monkeypatch):
    """For tests of other things: to draw takes longer than all the rest."""
    monkeypatch.setattr(pictures, "of", lambda *words: [])
