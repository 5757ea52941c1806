"""Model files that are not what `save` wrote: each is refused, in words."""

import json

import numpy as np
import pytest
from model_files import forge, parts
from safetensors.numpy import save_file
from tiny import tiny

from minivae import VAE, StorageError
from minivae.files import storage

X = np.random.default_rng(0).random((20, 5))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    tiny(hidden_layer_sizes=(4,)).fit(X).save(path)
    return path


def test_every_broken_byte_count_is_refused(saved):
    whole = saved.read_bytes()
    for length in [*range(0, 24), *range(24, len(whole), 401), len(whole) - 1]:
        saved.write_bytes(whole[:length])
        with pytest.raises(StorageError, match=f"{saved.name}: is not a whole safetensors file"):
            VAE.load(saved)
    saved.write_bytes(whole + b"more")
    with pytest.raises(StorageError, match="not a whole safetensors file"):
        VAE.load(saved)


@pytest.mark.parametrize("content", [b"", b"\x80\x04N.", b"PK\x03\x04", b"\x00" * 99, b"hello" * 9])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(StorageError, match="file: is not a whole safetensors file"):
        VAE.load(tmp_path / "file")


WEIGHT, MOMENT = "encoder.0.weight", "optimizer.0.encoder.0.weight"
BAD_ARRAYS = {  # what happens to the arrays, words
    "one missing": (lambda a: a.pop(WEIGHT), f"missing or not expected: {WEIGHT}"),
    "no moments": (lambda a: a.pop(MOMENT), f"missing or not expected: {MOMENT}"),
    "one too many": (lambda a: a.update(extra=a[WEIGHT]), "missing or not expected: extra"),
    "transposed": (lambda a: a.update({WEIGHT: a[WEIGHT].T.copy()}), rf"{WEIGHT} is .*\(4, 5\)"),
    "flat": (lambda a: a.update({WEIGHT: a[WEIGHT].ravel()}), rf"{WEIGHT} is .*\(20,\)"),
    "other dtype": (lambda a: a.update({WEIGHT: a[WEIGHT].astype("f8")}), f"{WEIGHT} is float64"),
    "integers": (lambda a: a.update({WEIGHT: a[WEIGHT].astype("i4")}), f"{WEIGHT} is int32"),
    "NaN": (lambda a: a[WEIGHT].fill(np.nan), f"{WEIGHT} has values that are NaN or inf"),
    "infinity": (lambda a: a[MOMENT].fill(np.inf), f"{MOMENT} has values that are NaN or inf"),
}
HUGE = 10**14  # times the smallest layer, more bytes than any machine can address
BAD_FACTS = {  # what happens to the facts, words
    "newer": (lambda f: f.update(format=storage.FORMAT + 1), f"reads {storage.FORMAT}; update"),
    "no format": (lambda f: f.pop("format"), "metadata cannot be read"),
    "no settings": (lambda f: f.pop("settings"), "does not describe a model.*settings"),
    "no history": (lambda f: f.pop("history"), "does not describe a model.*history"),
    "unknown setting": (lambda f: f["settings"].update(x=1), "does not describe a model.*'x'"),
    "bad setting": (lambda f: f["settings"].update(latent_dim="2"), "not describe.*latent_dim"),
    "other posterior": (lambda f: f["settings"].update(posterior="full"), "encoder.lower"),
    "other size": (lambda f: f["settings"].update(latent_dim=3), "encoder.mu.weight is"),
    "other depth": (lambda f: f["settings"].update(hidden_layer_sizes=[4, 4]), "encoder.1.bias"),
    "huge data": (lambda f: f.update(n_features=HUGE), "model.safetensors: "),
    "huge layer": (lambda f: f["settings"].update(latent_dim=HUGE), "model.safetensors: "),
    "no width": (lambda f: f.update(n_features=0), "model.safetensors: "),
    "negative width": (lambda f: f.update(n_features=-5), "model.safetensors: "),
    "words for epochs": (lambda f: f.update(epochs="two"), "does not describe a model"),
    "no epochs": (lambda f: f.update(epochs=None), "does not describe a model"),
    "other history": (lambda f: f.update(history=[1, 2]), "does not describe a model"),
    "too few names": (lambda f: f.update(feature_names=["a"]), "model.safetensors: "),
    "part of a feature": (lambda f: f.update(n_features=5.5), "n_features must be a whole number"),
    "as many, as a float": (lambda f: f.update(n_features=5.0), "n_features must be a whole"),
    "yes for a seed": (lambda f: f.update(seed=True), "seed must be a whole number"),
    "half a seed": (lambda f: f.update(seed=1.5), "seed must be a whole number"),
    "one name for all": (lambda f: f.update(feature_names=["a"] * 5), "different words"),
    "numbers for names": (lambda f: f.update(feature_names=[1, 2, 3, 4, 5]), "a list of words"),
    "one word for names": (lambda f: f.update(feature_names="abcde"), "a list of words"),
    "words in the history": (lambda f: f["history"].update(loss=["low"]), "not numbers"),
    "truth in the history": (lambda f: f["history"].update(loss=[True]), "not numbers"),
    "NaN in the history": (lambda f: f["history"].update(loss=[float("nan")]), "is damaged"),
    "another kind": (lambda f: f.update(model="GAN"), "it is a GAN, not a vae"),
    "another family": (lambda f: f.update(model="nade"), "it is a nade, not a vae"),
    "no family": (lambda f: f.pop("model"), "does not describe a model.*model"),
    "no word for a family": (lambda f: f.update(model=["vae"]), "does not describe a model"),
    "half a row": (lambda f: f.update(rows=0.5), "rows must be a whole number"),
    "three totals": (
        lambda f: f.update(totals=[0, 0, 0]),
        "totals must be a number for each of nll, kl",
    ),
    "words for totals": (
        lambda f: f.update(totals=["a", "b"]),
        "totals must be a number for each of nll, kl",
    ),
    "no data": (lambda f: f.update(data=None), "does not describe a model"),
    "some data": (lambda f: f.update(data={"X": {"rows": 1}}), "a fingerprint for 'X'"),
    "history of the future": (
        lambda f: f["history"].update(loss=[1.0] * 99),
        "one value per epoch",
    ),
    "epochs without a loss": (
        lambda f: f.update(epochs=2**32 - 1),
        "the loss of 4294967295 epochs",
    ),
    "a number for a history": (lambda f: f["history"].update(loss=1.0), "one value per epoch"),
    "negative seed": (lambda f: f.update(seed=-1), "model.safetensors: "),
    "seed too large": (lambda f: f.update(seed=2**64), "model.safetensors: "),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_wrong_arrays_are_refused(case, saved):
    damage, words = BAD_ARRAYS[case]
    arrays, metadata = parts(saved)
    damage(arrays)
    forge(saved, arrays, json.loads(metadata["minivae"]))
    with pytest.raises(StorageError, match=words):
        VAE.load(saved)


def test_negative_sums_of_squares_are_refused(saved):
    arrays, metadata = parts(saved)
    squares = MOMENT.replace("optimizer.0", "optimizer.1")
    arrays[squares].flat[0] = -1e-3
    forge(saved, arrays, json.loads(metadata["minivae"]))
    with pytest.raises(StorageError, match="sums of squares are negative"):
        VAE.load(saved)


@pytest.mark.parametrize("case", BAD_FACTS)
def test_wrong_facts_are_refused(case, saved):
    damage, words = BAD_FACTS[case]
    arrays, metadata = parts(saved)
    facts = json.loads(metadata["minivae"])
    damage(facts)
    forge(saved, arrays, facts)
    with pytest.raises(StorageError, match=words):
        VAE.load(saved)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [(None, "not one of minivae's"), ({"format": "pt"}, "not one of minivae's"),
     ({"minivae": "{"}, "metadata cannot be read"), ({"minivae": "[1]"}, "metadata cannot be read"),
     ({"minivae": "[" * 10**5}, "metadata cannot be read")],
    ids=["none", "foreign", "no JSON", "no dict", "deep"],
)  # fmt: skip
def test_safetensors_of_others_are_refused(metadata, words, tmp_path):
    save_file({"weight": np.ones(3)}, tmp_path / "file", metadata)
    with pytest.raises(StorageError, match=words):
        VAE.load(tmp_path / "file")


def test_what_cannot_be_read_is_refused(tmp_path):
    for path, words in [
        (tmp_path / "none", "there is no such file"), (tmp_path, "is a folder"),
        (tmp_path / "a\0b", "is no name that a file can have"),
        (str(tmp_path / "a\ud800b"), "is no name that a file can have"),
    ]:  # fmt: skip
        with pytest.raises(StorageError, match=words):
            VAE.load(path)
