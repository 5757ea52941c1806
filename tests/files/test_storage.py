"""Model files: what is kept, what is refused, and that a file is written whole or not at all."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors import safe_open
from safetensors.numpy import save_file

from minivae import VAE, StorageError, storage

X = np.random.default_rng(0).random((20, 5))
MODELS = {
    "plain": dict(),
    "gaussian": dict(likelihood="gaussian", optimizer="sgd", momentum=0.9, dtype="float64"),
    "deep": dict(hidden_layer_sizes=[6, 3], activation="softplus", optimizer="adagrad"),
    "linear": dict(hidden_layer_sizes=(), latent_dim=1, binarize="stochastic", beta=2.0),
    "compiled": dict(device="cpu", n_threads=2, activation="tanh"),
    "NumPy's numbers": dict(latent_dim=np.int64(3), hidden_layer_sizes=np.array([4]),
                            learning_rate=np.float32(0.01), beta=np.float64(0.5), verbose=np.True_),
    "no seed": dict(random_state=None),
    "a state": dict(random_state=np.random.RandomState(1)),
}  # fmt: skip


def vae(**settings):
    return VAE(**{**dict(hidden_layer_sizes=(4,), epochs=2, batch_size=8, device="reference",
                         random_state=0), **settings})  # fmt: skip


def same_model(a, b):
    """Equal in everything but the time that epochs took."""
    for x, y in [(a._state.theta, b._state.theta), (a._state.moments, b._state.moments)]:
        assert (x.dtype, x.tobytes()) == (y.dtype, y.tobytes())
    facts = [
        (m._state.steps, m._state.epochs, m.seed_, m.n_features_in_,
         {name: values for name, values in m.history_.items() if name != "seconds"})
        for m in (a, b)
    ]  # fmt: skip
    assert facts[0] == facts[1]


def parts(path):
    """({name: array}, {"minivae": text}) of a file."""
    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name).copy() for name in file.keys()}, file.metadata()


def forge(path, arrays, facts):
    """A file of these, with a checksum that is right, whatever they are."""
    facts = {name: value for name, value in facts.items() if name != "checksum"}
    try:
        document = storage.seal(arrays, facts)
    except ValueError:  # of what JSON cannot hold there is none
        document = json.dumps(facts)
    save_file(arrays, path, {"minivae": document})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    vae().fit(X).save(path)
    return path


# --- what is kept -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_is_the_saved_one_and_trains_on_as_if_never_stored(name, tmp_path):
    model = vae(**MODELS[name]).fit(X)
    model.save(tmp_path / "model")
    loaded = VAE.load(tmp_path / "model")
    same_model(loaded, model)
    settings = model.get_params()
    if not isinstance(settings["random_state"], int):
        settings["random_state"] = None  # what it stood for is in seed_
    settings["verbose"] = 0  # is of the user, not of the model
    settings["hidden_layer_sizes"] = tuple(settings["hidden_layer_sizes"])
    assert loaded.get_params() == settings

    eps = np.ones((20, loaded.latent_dim))
    for read in (
        lambda m: m.transform(X),
        lambda m: m.reconstruct(X),
        lambda m: m.elbo(X, random_state=3),
        lambda m: m.score_samples(np.round(X), 3),
        lambda m: m.sample(4, random_state=3),
        lambda m: m.loss_and_gradients(X, eps)[0],
    ):
        assert_array_equal(read(loaded), read(model))
    same_model(loaded.partial_fit(X), model.partial_fit(X))


def test_a_file_says_what_training_without_a_break_would_have_said(tmp_path):
    """Stored and loaded after every epoch, the model ends where it ends without."""
    model = vae(epochs=1, optimizer="adam").fit(X)
    for _ in range(3):
        model.save(tmp_path / "model")
        model = VAE.load(tmp_path / "model").partial_fit(X)
    same_model(model, vae(epochs=4, optimizer="adam").fit(X))


def test_another_process_can_encode_and_sample(saved):
    """Nothing of the process that trained is needed."""
    code = (
        "import sys, numpy as np, minivae; vae = minivae.VAE.load(sys.argv[1]);"
        "X = np.random.default_rng(0).random((20, 5));"
        "print(vae.transform(X).tobytes().hex(), vae.sample(3).tobytes().hex())"
    )
    run = subprocess.run([sys.executable, "-c", code, saved], capture_output=True, text=True)
    model = VAE.load(saved)
    expected = [model.transform(X).tobytes().hex(), model.sample(3).tobytes().hex()]
    assert (run.returncode, run.stdout.split(), run.stderr) == (0, expected, "")


def test_names_of_columns_are_kept(tmp_path):
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame(X, columns=["a", "b", "ü", "d d", ""])
    model = vae().fit(frame)
    model.save(tmp_path / "model")
    loaded = VAE.load(tmp_path / "model")
    assert loaded.feature_names_in_.dtype == model.feature_names_in_.dtype == object
    assert_array_equal(loaded.feature_names_in_, model.feature_names_in_)
    assert_array_equal(loaded.transform(frame), model.transform(frame))
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.transform(frame[["b", "a", "ü", "d d", ""]])


def test_equal_models_make_equal_bytes(saved, tmp_path):
    models = [VAE.load(saved), VAE.load(saved), vae().fit(X)]
    assert "seconds" in models[2].history_  # the one thing that varies
    for index, model in enumerate(models):
        model.save(tmp_path / str(index))
        assert (tmp_path / str(index)).read_bytes() == saved.read_bytes()


def test_the_file_holds_every_parameter_by_its_name_as_it_looks(saved):
    """Any safetensors reader can use it. The heads are strided views: easily stored scrambled."""
    model, (arrays, metadata) = VAE.load(saved), parts(saved)
    for name, view in model.parameters_.items():
        assert_array_equal(arrays.pop(name), view, err_msg=name)
    assert {name.split(".", 2)[0] for name in arrays} == {"optimizer"}
    facts = json.loads(metadata["minivae"])
    assert (facts["format"], facts["settings"]["latent_dim"]) == (storage.FORMAT, 2)


def test_loading_needs_no_file_afterwards(saved):
    model = VAE.load(saved)
    before = model.transform(X)
    saved.write_bytes(bytes(saved.stat().st_size))
    assert_array_equal(model.transform(X), before)


# --- bad files ----------------------------------------------------------------------------------


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
    "no settings": (lambda f: f.pop("settings"), "does not describe a VAE.*settings"),
    "no history": (lambda f: f.pop("history"), "does not describe a VAE.*history"),
    "unknown setting": (lambda f: f["settings"].update(x=1), "does not describe a VAE.*'x'"),
    "bad setting": (lambda f: f["settings"].update(latent_dim="2"), "not describe.*latent_dim"),
    "not built": (lambda f: f["settings"].update(posterior="full"), "posterior"),
    "other size": (lambda f: f["settings"].update(latent_dim=3), "encoder.mu.weight is"),
    "other depth": (lambda f: f["settings"].update(hidden_layer_sizes=[4, 4]), "encoder.1.bias"),
    "huge data": (lambda f: f.update(n_features=HUGE), "model.safetensors: "),
    "huge layer": (lambda f: f["settings"].update(latent_dim=HUGE), "model.safetensors: "),
    "no width": (lambda f: f.update(n_features=0), "model.safetensors: "),
    "negative width": (lambda f: f.update(n_features=-5), "model.safetensors: "),
    "words for epochs": (lambda f: f.update(epochs="two"), "does not describe a VAE"),
    "no epochs": (lambda f: f.update(epochs=None), "does not describe a VAE"),
    "other history": (lambda f: f.update(history=[1, 2]), "does not describe a VAE"),
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
    "another kind": (lambda f: f.update(model="GAN"), "it is a 'GAN', and only 'VAE' is known"),
    "half a row": (lambda f: f.update(rows=0.5), "rows must be a whole number"),
    "three totals": (lambda f: f.update(totals=[0, 0, 0]), "totals must be two numbers"),
    "words for totals": (lambda f: f.update(totals=["a", "b"]), "totals must be two numbers"),
    "no data": (lambda f: f.update(data=None), "does not describe a VAE"),
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
    for path, words in [(tmp_path / "none", "there is no such file"), (tmp_path, "is a folder")]:
        with pytest.raises(StorageError, match=words):
            VAE.load(path)


# --- writing ------------------------------------------------------------------------------------


def test_constructing_and_training_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vae().fit(X).score(np.round(X))
    assert os.listdir(tmp_path) == []


def test_a_path_can_be_text_and_what_is_there_is_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model in (vae().fit(X), vae(latent_dim=3).fit(X)):
        model.save("file")
        same_model(VAE.load("file"), model)
    assert os.listdir(tmp_path) == ["file"]


def test_where_no_file_can_be_written_is_said_before_anything_is(saved, tmp_path):
    model, whole = VAE.load(saved), saved.read_bytes()
    (tmp_path / "link").symlink_to(saved)
    (tmp_path / "loose").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    for path, words in [
        (tmp_path, "not a regular file"), (tmp_path / "link", "not a regular file"),
        (tmp_path / "loose", "not a regular file"), (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "none" / "model", "folder .*none does not exist"),
        (saved / "model", "folder .* does not exist"),
        (tmp_path / ("x" * 300), "cannot be written"),
    ]:  # fmt: skip
        with pytest.raises(StorageError, match=words):
            model.save(path)
    assert sorted(os.listdir(tmp_path)) == before
    assert saved.read_bytes() == whole


def test_no_permission_is_said(saved, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    model = VAE.load(saved)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match=r"cannot be written \(Permission denied"):
            model.save(saved)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt("stop")]
)
def test_a_failed_write_leaves_the_old_file_and_no_litter(error, failing, saved, monkeypatch):
    def fail(*args):
        raise error

    whole, model = saved.read_bytes(), VAE.load(saved).partial_fit(X)
    monkeypatch.setattr(storage.os, failing, fail)
    expected = StorageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match=str(error.args[-1])):
        model.save(saved)
    monkeypatch.undo()
    assert saved.read_bytes() == whole
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(umask, saved):
    before = os.umask(umask)
    try:
        for path in (saved, saved.with_name("new")):
            VAE.load(saved).save(path)
            assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    finally:
        os.umask(before)
