"""Exact resume: however a training is interrupted, it ends bit for bit as if it had not been."""

import itertools
import os
import signal
import threading

import numpy as np
import pytest
from scipy import sparse

from minivae import VAE
from minivae.engine import threads
from minivae.training import checkpoints, interrupts, loop

RNG = np.random.default_rng(0)
X, X_valid = RNG.random((50, 6)), RNG.random((9, 6))
BITS = (X > 0.5).astype("f4")
SETTINGS = dict(hidden_layer_sizes=(5,), epochs=3, batch_size=8, device="reference", random_state=3)
MODELS = {
    "adam": dict(),
    "binarised": dict(binarize="stochastic", beta=0.5),
    "gaussian, momentum": dict(likelihood="gaussian", optimizer="sgd", momentum=0.9),
    "adagrad, float64": dict(optimizer="adagrad", dtype="float64", weight_decay=0.1),
    "compiled": dict(device="cpu", n_threads=2),
    "one batch": dict(batch_size=500),
    "drawn seed": dict(random_state=np.random.RandomState(1)),
}


class Interruption(Exception):
    pass


def bits(vae):
    """All of a model that is to be the same."""
    state = vae.state_
    history = sorted(item for item in vae.history_.items() if item[0] != "seconds")
    facts = state.epochs, state.steps, state.rows, state.totals.tolist(), repr(history), vae.seed_
    return state.theta.tobytes(), state.moments.tobytes(), facts


@pytest.fixture
def step_by_step(monkeypatch):
    """A look at clock, signals and checkpoints after every step."""
    monkeypatch.setattr(threads, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 0.0)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # hundreds of them: half of the time


def interrupted_at(moment, monkeypatch):
    """Training raises Interruption when it could store itself for the moment-th time."""
    count = itertools.count()

    def patch(event):
        write = getattr(checkpoints.Checkpoints, event)

        def call(self):
            write(self)
            if next(count) == moment:
                raise Interruption

        monkeypatch.setattr(checkpoints.Checkpoints, event, call)

    for event in ("batches", "epoch", "end"):
        patch(event)


def held_out(values, monkeypatch):
    """The held-out ELBO of one epoch after the other."""
    values = iter(values)
    monkeypatch.setattr(VAE, "_held_out", lambda model, X: {"elbo": next(values)})


# --- resume in Python ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_from_every_checkpoint_training_ends_bit_for_bit_as_without_a_break(
    name, step_by_step, tmp_path, monkeypatch
):
    settings = {**SETTINGS, **MODELS[name]}
    expected = VAE(**settings).fit(X, X_valid=X_valid)
    settings["random_state"] = expected.seed_
    events = 0
    for moment in itertools.count():
        folder = tmp_path / str(moment)
        with monkeypatch.context() as patch:
            interrupted_at(moment, patch)
            try:
                VAE(**settings).fit(X, X_valid=X_valid, checkpoints=folder)
                break
            except Interruption:
                events += 1
        vae = VAE.load(folder / "checkpoint.safetensors")
        vae.resume(X, X_valid=X_valid, checkpoints=folder)
        assert bits(vae) == bits(expected), f"after event {moment}"
        assert len(vae.history_["seconds"]) == 3
        assert VAE.load(folder / "checkpoint.safetensors").transform(X).tolist() == (
            expected.transform(X).tolist()
        )
    assert events == 1 + (3 if name == "one batch" else 21)  # 7 batches an epoch; the end
    assert sorted(os.listdir(folder)) == ["best.safetensors", "checkpoint.safetensors"]


def test_the_best_by_held_out_elbo_is_kept_as_well_as_the_last(tmp_path, monkeypatch):
    held_out([-3.0, -1.0, -2.0, -1.0, -0.5, -4.0], monkeypatch)
    vae = VAE(**{**SETTINGS, "epochs": 3}).fit(X, X_valid=X_valid, checkpoints=tmp_path)
    best = VAE.load(tmp_path / "best.safetensors")
    last = VAE.load(tmp_path / "checkpoint.safetensors")
    assert best.history_["valid_elbo"] == [-3, -1]
    assert bits(last) == bits(vae)
    vae = VAE.load(tmp_path / "checkpoint.safetensors").set_params(epochs=6)
    vae.resume(X, X_valid=X_valid, checkpoints=tmp_path)
    assert VAE.load(tmp_path / "best.safetensors").history_["valid_elbo"] == [-3, -1, -2, -1, -0.5]
    VAE(**SETTINGS).fit(X, checkpoints=tmp_path / "new")
    assert os.listdir(tmp_path / "new") == ["checkpoint.safetensors"]  # no best without X_valid


def test_a_new_fit_does_not_replace_the_files_of_another(tmp_path):
    """A cell of a notebook that is run again must not take the run that it was to rescue."""
    vae = VAE(**SETTINGS).fit(X, X_valid=X_valid, checkpoints=tmp_path)
    before, content = bits(vae), {path: path.read_bytes() for path in tmp_path.iterdir()}
    for model in (vae, VAE(**{**SETTINGS, "latent_dim": 5})):
        with pytest.raises(ValueError, match=r"best.safetensors of an earlier training; go on"):
            model.fit(X, checkpoints=tmp_path)
    assert bits(vae) == before
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == content


def test_other_data_are_refused_with_what_differs(tmp_path):
    vae = VAE(**SETTINGS).fit(X, X_valid=X_valid, checkpoints=tmp_path)
    before = bits(vae)
    vae.set_params(epochs=4)
    other = X.copy()
    other[-1, -1] += 1e-6
    for data, valid, words in [
        (other, X_valid, "X was 50 x 6 with sha256 .*, and is now 50 x 6 with sha256"),
        (X[:-1], X_valid, "X was 50 x 6 .* and is now 49 x 6"),
        (X[::-1], X_valid, "X was"),
        (X, None, "X_valid was 9 x 6 .* and is now not given"),
        (X_valid, X, "X was .*; X_valid was"),
    ]:
        with pytest.raises(ValueError, match=words):
            vae.resume(data, X_valid=valid)
        assert bits(vae) == before
    vae.resume(X, X_valid=X_valid)  # and the right data go on
    assert vae.state_.epochs == 4


def test_the_same_data_in_another_form_are_the_same(tmp_path):
    VAE(**SETTINGS).fit(BITS, checkpoints=tmp_path)
    np.save(tmp_path / "x.npy", BITS)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for form in (BITS.astype(bool), sparse.csr_array(BITS), mapped, np.asfortranarray(BITS)):
        VAE.load(tmp_path / "checkpoint.safetensors").resume(form)


def test_resume_needs_a_fit(tmp_path):
    with pytest.raises(ValueError, match="not fitted yet"):
        VAE(**SETTINGS).resume(X)
    with pytest.raises(ValueError, match="use partial_fit, or call fit"):
        VAE(**SETTINGS).partial_fit(X).resume(X)


def test_a_complete_fit_has_nothing_to_resume():
    vae = VAE(**SETTINGS).fit(X)
    before = bits(vae)
    assert bits(vae.resume(X)) == before


def test_partial_fit_in_pieces_is_fit():
    vae = VAE(**SETTINGS)
    for _ in range(3):
        vae.partial_fit(X)
    assert bits(vae) == bits(VAE(**SETTINGS).fit(X))


def test_history_has_one_value_per_epoch_whatever_was_recorded(tmp_path):
    vae = VAE(**{**SETTINGS, "epochs": 1}).fit(X, X_valid=X_valid).partial_fit(X)
    vae.save(tmp_path / "model")
    vae = VAE.load(tmp_path / "model").partial_fit(X)
    assert np.isfinite(vae.history_["gradient_norm"]).all()
    assert len(vae.history_["gradient_norm"]) == len(vae.history_["loss"]) == 3
    np.testing.assert_array_equal(np.isnan(vae.history_["seconds"]), [True, True, False])
    np.testing.assert_array_equal(np.isnan(vae.history_["valid_elbo"]), [False, True, True])


def test_what_is_no_folder_is_said_before_the_model_is_touched(tmp_path):
    vae = VAE(**SETTINGS).fit(X)
    before = bits(vae)
    (tmp_path / "file").touch()
    for call in (vae.fit, vae.resume):
        with pytest.raises(ValueError, match=r"checkpoints must be a folder, .*file' cannot"):
            call(X, checkpoints=tmp_path / "file")
    assert bits(vae) == before
    vae.fit(X, checkpoints=tmp_path / "new" / "folder")
    assert os.listdir(tmp_path / "new" / "folder") == ["checkpoint.safetensors"]


# --- signals ------------------------------------------------------------------------------------


def send_at(moment, number, monkeypatch):
    count, run = itertools.count(), loop.train_chunk

    def train_chunk(*args):
        if next(count) == moment:
            os.kill(os.getpid(), number)
        run(*args)

    monkeypatch.setattr(loop, "train_chunk", train_chunk)


@pytest.mark.parametrize("stored", [True, False])
def test_ctrl_c_waits_for_the_batch_and_leaves_a_model_that_goes_on(
    stored, step_by_step, tmp_path, monkeypatch
):
    expected = VAE(**SETTINGS).fit(X)
    for moment in (0, 3, 6, 7, 20):
        vae, folder = VAE(**SETTINGS), tmp_path / str(moment)
        with monkeypatch.context() as patch:
            send_at(moment, signal.SIGINT, patch)
            with pytest.raises(KeyboardInterrupt):
                vae.fit(X, checkpoints=folder if stored else None)
        assert vae.state_.steps == moment + 1
        if stored:
            assert bits(VAE.load(folder / "checkpoint.safetensors")) == bits(vae)
        assert bits(vae.resume(X)) == bits(expected)


def test_termination_stores_the_model_first(step_by_step, tmp_path, monkeypatch):
    came = []
    usual = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        send_at(4, signal.SIGTERM, monkeypatch)
        VAE(**SETTINGS).fit(X, checkpoints=tmp_path)
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert came == [signal.SIGTERM]
    assert VAE.load(tmp_path / "checkpoint.safetensors").state_.steps == 5


def test_a_second_signal_acts_at_once_and_handlers_are_as_before():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupts.defer_signals(signal.SIGINT) as interrupted:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not at once")
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ZeroDivisionError), interrupts.defer_signals(signal.SIGINT):
        os.kill(os.getpid(), signal.SIGINT)  # an error in the block goes first
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_that_are_ignored_or_of_another_thread_are_left_alone():
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.defer_signals(signal.SIGINT) as interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            assert not interrupted()
    finally:
        signal.signal(signal.SIGINT, usual)
    fitted = []
    thread = threading.Thread(target=lambda: fitted.append(VAE(**SETTINGS).fit(X)))
    thread.start()
    thread.join()
    assert bits(fitted[0]) == bits(VAE(**SETTINGS).fit(X))


# --- parts --------------------------------------------------------------------------------------


def test_the_encoder_or_the_decoder_can_be_loaded_alone(tmp_path):
    vae = VAE(**SETTINGS).fit(X)
    vae.save(tmp_path / "model")
    encoder = VAE.load(tmp_path / "model", part="encoder")
    decoder = VAE.load(tmp_path / "model", part="decoder")
    codes = vae.transform(X)
    assert encoder.transform(X).tobytes() == codes.tobytes()
    assert decoder.inverse_transform(codes).tobytes() == vae.inverse_transform(codes).tobytes()
    assert decoder.sample(4, random_state=1).tobytes() == vae.sample(4, random_state=1).tobytes()
    for part, words in ((encoder, "encoder"), (decoder, "decoder")):
        assert {name.split(".")[0] for name in part.parameters_} == {words}
        for name in "reconstruct elbo score partial_fit resume loss_and_gradients save".split():
            with pytest.raises(ValueError, match=f"only the {words} of this model was loaded"):
                getattr(part, name)(BITS)
        assert part.fit(X).part_ is None  # a new model is whole
    with pytest.raises(ValueError, match="only the encoder"):
        VAE.load(tmp_path / "model", part="encoder").inverse_transform(codes)
    with pytest.raises(ValueError, match="only the decoder"):
        VAE.load(tmp_path / "model", part="decoder").transform(X)
    with pytest.raises(ValueError, match="part must be one of encoder, decoder, or None"):
        VAE.load(tmp_path / "model", part="heads")


# --- found by review ----------------------------------------------------------------------------


def test_the_best_is_stored_also_if_training_then_diverges(tmp_path, monkeypatch):
    """It may wait in memory, as epochs are short."""
    held_out([-3.0, -1.0], monkeypatch)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    chunk = loop.train_chunk

    def diverges(run, *rest):
        if run.state.epochs == 2:
            raise FloatingPointError("the loss became inf")
        chunk(run, *rest)

    monkeypatch.setattr(loop, "train_chunk", diverges)
    with pytest.raises(FloatingPointError):
        VAE(**SETTINGS).fit(X, X_valid=X_valid, checkpoints=tmp_path)
    assert VAE.load(tmp_path / "best.safetensors").history_["valid_elbo"] == [-3, -1]


def test_the_best_is_not_lost_by_a_disk_that_was_full(tmp_path, monkeypatch):
    held_out([-3.0, -1.0, -2.0], monkeypatch)
    vae, write, full = VAE(**SETTINGS), checkpoints.storage.write, [False, False, False, True, True]

    def fails(path, *content):
        if full and full.pop(0):
            raise OSError(28, "No space left on device")
        write(path, *content)

    monkeypatch.setattr(checkpoints.storage, "write", fails)
    monkeypatch.setattr(checkpoints, "SHARE", 0.0)
    with pytest.raises(OSError, match="No space"):
        vae.fit(X, X_valid=X_valid, checkpoints=tmp_path)
    vae.resume(X, X_valid=X_valid, checkpoints=tmp_path)
    assert vae.history_["valid_elbo"] == [-3, -1, -2]
    assert VAE.load(tmp_path / "best.safetensors").history_["valid_elbo"] == [-3, -1]


def test_the_best_of_another_training_does_not_stay(tmp_path):
    VAE(**SETTINGS).fit(X, X_valid=X_valid, checkpoints=tmp_path)
    other = VAE(**{**SETTINGS, "random_state": 5}).fit(X, X_valid=X_valid)
    other.resume(X, X_valid=X_valid, checkpoints=tmp_path)
    assert os.listdir(tmp_path) == ["checkpoint.safetensors"]
    assert bits(VAE.load(tmp_path / "checkpoint.safetensors")) == bits(other)


def test_an_infinite_held_out_elbo_does_not_end_training_or_forbid_saving(tmp_path, monkeypatch):
    held_out([-np.inf, -2.0, np.nan], monkeypatch)
    vae = VAE(**SETTINGS).fit(X, X_valid=X_valid, checkpoints=tmp_path)
    vae.save(tmp_path / "model")
    np.testing.assert_array_equal(
        VAE.load(tmp_path / "model").history_["valid_elbo"], [np.nan, -2, np.nan]
    )
    assert VAE.load(tmp_path / "best.safetensors").state_.epochs == 2


def test_after_an_error_in_a_batch_resume_does_not_promise_what_it_cannot_keep(monkeypatch):
    """Steps may have been made that nobody counted."""
    vae, chunk = VAE(**SETTINGS), loop.train_chunk

    def fails(run, *rest):
        if run.state.epochs == 1:
            raise KeyboardInterrupt  # a second one
        chunk(run, *rest)

    monkeypatch.setattr(loop, "train_chunk", fails)
    with pytest.raises(KeyboardInterrupt):
        vae.fit(X)
    with pytest.raises(ValueError, match="resume goes on with a fit"):
        vae.resume(X)


def test_a_fit_without_memory_for_its_batch_leaves_the_model_and_its_checkpoint(
    tmp_path, monkeypatch
):
    vae = VAE(**SETTINGS).fit(X, checkpoints=tmp_path)
    before, content = bits(vae), (tmp_path / "checkpoint.safetensors").read_bytes()

    def no_memory(*words):
        raise MemoryError("Unable to allocate 74.5 GiB")

    monkeypatch.setattr(threads, "make_task", no_memory)
    vae.set_params(batch_size=10**9)
    for call in (vae.fit, vae.partial_fit):
        with pytest.raises(MemoryError, match=r"batch_size=1000000000 on 50 rows: too large"):
            call(X)
    with pytest.raises(MemoryError):
        vae.fit(X, checkpoints=tmp_path / "new")
    assert bits(vae) == before and os.listdir(tmp_path / "new") == []
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == content


def test_saving_while_another_thread_trains_is_refused(monkeypatch, tmp_path):
    vae, chunk, refused = VAE(**SETTINGS), loop.train_chunk, []

    def saved_in_between(*words):
        def save():
            with pytest.raises(RuntimeError, match="being trained by another thread"):
                vae.save(tmp_path / "model")
            refused.append(True)

        thread = threading.Thread(target=save)
        thread.start()
        thread.join()
        chunk(*words)

    monkeypatch.setattr(loop, "train_chunk", saved_in_between)
    vae.fit(X)
    assert refused
    vae.save(tmp_path / "model")
