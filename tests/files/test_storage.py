"""Model files: what is kept, what is refused, and that a file is written whole or not at all."""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from families import of_rows
from model_files import forge, parts
from numpy.testing import assert_array_equal
from tiny import FAMILIES, same_model, tiny

import minivae
from minivae import NADE, VAE, StorageError
from minivae.files import storage
from minivae.files.document import tuples

X = np.random.default_rng(0).random((20, 5))
MODELS = {  # settings of a VAE, or of the family that the name begins with
    "plain": dict(),
    "gaussian": dict(likelihood="gaussian", optimizer="sgd", momentum=0.9, dtype="float64"),
    "deep": dict(hidden_layer_sizes=[6, 3], activation="softplus", optimizer="adagrad"),
    "linear": dict(hidden_layer_sizes=(), latent_dim=1, binarize="stochastic", beta=2.0),
    "compiled": dict(device="cpu", n_threads=2, activation="tanh"),
    "NumPy's numbers": dict(latent_dim=np.int64(3), hidden_layer_sizes=np.array([4]),
                            learning_rate=np.float32(0.01), beta=np.float64(0.5), verbose=np.True_),
    "no seed": dict(random_state=None),
    "long numbers": dict(learning_rate=np.longdouble(0.01), latent_dim=np.int8(3)),
    "a state": dict(random_state=np.random.RandomState(1)),
    "schedule": dict(learning_rate=[(1, 0.01), (2, np.float32(0.001))]),
    "long schedule": dict(learning_rate=[(1, 0.01 / n) for n in range(1, 500)]),
    "masked": dict(missing="mask"),
    "nade": dict(binarize="threshold"),
    "nade, compiled": dict(device="cpu", n_threads=2, optimizer="sgd", momentum=0.5),
    "nade, small numbers": dict(n_hidden=np.int8(9), epochs=np.int8(2), batch_size=np.int16(7)),
}  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    tiny().fit(X).save(path)
    return path


# --- what is kept -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_is_the_saved_one_and_trains_on_as_if_never_stored(name, tmp_path):
    family = name.split(",")[0]
    make = partial(tiny, family if family in FAMILIES else "vae")
    model = make(**MODELS[name]).fit(X)
    model.save(tmp_path / "model")
    loaded = minivae.load(tmp_path / "model")
    assert type(loaded) is type(model)
    same_model(loaded, model)
    settings = model.get_params()
    if not isinstance(settings["random_state"], int):
        settings["random_state"] = None  # what it stood for is in seed_
    settings["verbose"] = 0  # is of the user, not of the model
    settings = {name: tuples(value) for name, value in settings.items()}
    assert loaded.get_params() == settings

    reads = [
        lambda m: of_rows(m, np.round(X)),
        lambda m: m.sample(4, random_state=3),
        lambda m: m.loss_and_gradients(X)[0],
    ]
    if hasattr(model, "transform"):
        eps = np.ones((20, loaded.latent_dim))
        reads += [
            lambda m: m.transform(X),
            lambda m: m.reconstruct(X),
            lambda m: m.elbo(X, random_state=3),
            lambda m: m.score_samples(np.round(X), 3),
            lambda m: m.loss_and_gradients(X, eps)[0],
        ]
    for read in reads:
        assert_array_equal(read(loaded), read(model))
    same_model(loaded.partial_fit(X), model.partial_fit(X))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_says_what_training_without_a_break_would_have_said(family, tmp_path):
    """Stored and loaded after every epoch, the model ends where it ends without."""
    model = tiny(family, epochs=1, optimizer="adam").fit(X)
    for _ in range(3):
        model.save(tmp_path / "model")
        model = minivae.load(tmp_path / "model").partial_fit(X)
    same_model(model, tiny(family, epochs=4, optimizer="adam").fit(X))


def test_a_file_is_loaded_by_its_own_family_or_by_any(saved, tmp_path):
    tiny("nade").fit(X).save(tmp_path / "nade")
    assert type(minivae.load(tmp_path / "nade")) is NADE and type(minivae.load(saved)) is VAE
    with pytest.raises(StorageError, match=r"it is a nade, not a vae: minivae\.load reads any"):
        VAE.load(tmp_path / "nade")
    with pytest.raises(ValueError, match=r"part must be one of \(none\), or None"):
        minivae.load(tmp_path / "nade", part="encoder")
    arrays, metadata = parts(saved)
    forge(saved, arrays, json.loads(metadata["minivae"]) | {"model": "gpt"})
    with pytest.raises(StorageError, match=f"one of {', '.join(minivae.models.MODELS)}, got 'gpt'"):
        minivae.load(saved)


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
    model = tiny().fit(frame)
    model.save(tmp_path / "model")
    loaded = VAE.load(tmp_path / "model")
    assert loaded.feature_names_in_.dtype == model.feature_names_in_.dtype == object
    assert_array_equal(loaded.feature_names_in_, model.feature_names_in_)
    assert_array_equal(loaded.transform(frame), model.transform(frame))
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.transform(frame[["b", "a", "ü", "d d", ""]])


def test_equal_models_make_equal_bytes(saved, tmp_path):
    models = [VAE.load(saved), VAE.load(saved), tiny().fit(X)]
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


# --- writing ------------------------------------------------------------------------------------


def test_constructing_and_training_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny().fit(X).score(np.round(X))
    assert os.listdir(tmp_path) == []


def test_a_path_can_be_text_and_what_is_there_is_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model in (tiny().fit(X), tiny(latent_dim=3).fit(X)):
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
        (tmp_path / "a\0b", "x00b': is no name that a file can have"),
        (tmp_path / "a\ud800b", "ud800b': is no name that a file can have"),
    ]:  # fmt: skip
        with pytest.raises(StorageError, match=words):
            model.save(path)
    assert sorted(os.listdir(tmp_path)) == before
    assert saved.read_bytes() == whole


def test_a_folder_that_was_removed_under_the_process_is_said(saved, tmp_path, monkeypatch):
    model, folder = VAE.load(saved), tmp_path / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(StorageError, match=r"^model: the folder .* was removed"):
        model.save("model")
    with pytest.raises(StorageError, match=r"^model: there is no such file"):
        VAE.load("model")


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


def test_a_setting_that_no_file_can_hold_is_refused_by_its_name(saved):
    """Not "0-d array" or "could not convert", which would be the words of what meets it first."""
    whole = saved.read_bytes()
    for name, value in [
        ("hidden_layer_sizes", np.array(4)), ("latent_dim", "two"), ("beta", "much"),
        ("learning_rate", 0), ("learning_rate", 1j), ("epochs", 2.5),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=name):
            VAE.load(saved).set_params(**{name: value}).save(saved)
    assert saved.read_bytes() == whole


@pytest.mark.parametrize("family", FAMILIES)
def test_what_trained_to_its_last_step_is_loaded_and_trains_no_more(family, tmp_path):
    """A step's number is one word of a random number's counter: 2^32 steps and no more."""
    model = tiny(family).fit(X)
    model.state_.steps = 2**32 - 2  # as after months
    for _ in range(2):
        with pytest.raises(RuntimeError, match="stopped after 4294967296 updates, in epoch 3"):
            model.partial_fit(X)  # which would be three
        assert model.state_.steps == 2**32
        model.save(tmp_path / "model")
        loaded = minivae.load(tmp_path / "model")
        same_model(loaded, model)
        model = loaded


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
