"""Data that is not an array in memory: sparse matrices and memory-mapped files."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from minivae import VAE
from minivae.data.rows import fetch, parts, streamed

rng = np.random.default_rng(0)
X = (rng.random((700, 11)) * (rng.random((700, 11)) < 0.3)).astype("f4")
X[5] = 0


def mapped(tmp_path, array, mode="r"):
    path = tmp_path / "X.npy"
    np.save(path, array)
    return np.load(path, mmap_mode=mode)


FORMS = {
    "csr": lambda tmp_path: sparse.csr_matrix(X),
    "csc": lambda tmp_path: sparse.csc_array(X),
    "coo": lambda tmp_path: sparse.coo_array(X),
    "memmap": lambda tmp_path: mapped(tmp_path, X),
    "memmap of float64": lambda tmp_path: mapped(tmp_path, X.astype("f8")),
    "memmap by columns": lambda tmp_path: mapped(tmp_path, np.asfortranarray(X)),
    "memmap, copy on write": lambda tmp_path: mapped(tmp_path, X, "c"),
}


def vae(**settings):
    return VAE(3, **{**dict(hidden_layer_sizes=(9,), epochs=2, random_state=0), **settings})


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("form", FORMS)
def test_training_and_use_are_those_of_the_array(form, device, tmp_path):
    other = FORMS[form](tmp_path)
    assert streamed(other)
    model, same = vae(device=device).fit(X, X_valid=X), vae(device=device).fit(other, X_valid=other)
    for name, value in model.parameters_.items():
        assert_array_equal(same.parameters_[name], value)
    del model.history_["seconds"], same.history_["seconds"]
    assert same.history_ == model.history_
    same.partial_fit(other), model.partial_fit(X)
    for method in ("transform", "reconstruct", "elbo"):
        assert_array_equal(getattr(same, method)(other), getattr(model, method)(X))
    with pytest.warns(UserWarning, match="strictly between 0 and 1"):
        assert_array_equal(same.score_samples(other, 2), model.score_samples(X, 2))
    loss, gradients = same.loss_and_gradients(other[:20] if form != "coo" else X[:20])
    expected, expected_gradients = model.loss_and_gradients(X[:20])
    assert loss == expected
    assert all(np.array_equal(gradients[name], g) for name, g in expected_gradients.items())
    assert_array_equal(fetch(sparse.csr_array(other) if form in ("csc", "coo") else other,
                             slice(None), "f4"), X)  # fmt: skip


def test_a_copy_on_write_map_keeps_its_changes(tmp_path):
    data = mapped(tmp_path, X, "c")
    data[0] = 1
    vae().fit(data)
    assert (data[0] == 1).all()


def test_wide_data_is_fetched_in_small_pieces(monkeypatch):
    monkeypatch.setattr("minivae.data.rows.CHUNK_BYTES", 100 * X.shape[1] * 4)
    fetched = []

    def watch(X, rows, dtype):
        fetched.append(len(rows))
        return fetch(X, rows, dtype)

    monkeypatch.setattr("minivae.training.loop.fetch", watch)
    vae(batch_size=50, epochs=5).fit(sparse.csr_array(X))
    assert max(fetched) == 100
    assert sum(fetched) == 5 * len(X)


@pytest.mark.parametrize("form", ["array", "csr", "memmap"])
def test_bad_values_are_found_where_they_are(form, tmp_path):
    bad = X.copy()
    bad[600, 3], bad[650, 0] = np.nan, np.inf
    high = X.copy()
    high[600, 3] = 1.5
    make = {"array": np.array, "csr": sparse.csr_array, "memmap": lambda a: mapped(tmp_path, a)}
    model = vae()
    with pytest.raises(ValueError, match="2 of 7700 entries, first in row 600, column 3"):
        model.fit(make[form](bad))
    with pytest.raises(ValueError, match=r"from 0 to 1.5, but .* divide by 255"):
        model.fit(make[form](high))
    assert not hasattr(model, "n_features_in_")


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((3, 2), complex)], ids=["1-d", "complex"])
def test_a_map_of_something_else_is_refused(array, tmp_path):
    with pytest.raises(ValueError, match=r"memory map of shape .* expected real numbers"):
        vae().fit(mapped(tmp_path, array))


def test_all_that_is_stored_comes_once(tmp_path):
    for form in FORMS.values():
        seen = np.zeros_like(X)
        other = form(tmp_path)
        for part, row, column in parts(other):
            np.add.at(seen, (row, column), part)
        assert_array_equal(seen, X)


SCRIPT = r"""
import re, sys
import numpy as np
from minivae import VAE

n = int(sys.argv[2])
X = np.memmap(sys.argv[1], "float32", "w+", shape=(n, 784))  # a file with a hole: takes no disk
X[:: n // 1000, ::7] = 1
X.flush()
X = np.memmap(sys.argv[1], "float32", "r", shape=(n, 784))
vae = VAE(2, hidden_layer_sizes=(8,), epochs=1, batch_size=512, random_state=0).fit(X)
assert np.isfinite(vae.history_["loss"]).all()
print(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says how much memory was in use")
@pytest.mark.parametrize(
    "gigabytes", [1, pytest.param(10, marks=pytest.mark.slow)], ids=lambda size: f"{size} GB"
)
def test_memory_does_not_grow_with_a_file(gigabytes, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "X", str(gigabytes * 10**9 // 3136)],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    # Libraries 0.3 GB, chunks and the pages that they came from 0.3; rows are sorted by number.
    assert 1024 * int(run.stdout) < 0.6e9 + 0.04e9 * gigabytes
