"""Where a training that diverges stops, what it says, and what it leaves intact."""

import numpy as np
import pytest

from minivae import NADE, VAE, StorageError
from minivae.engine import threads
from minivae.engine.layout import Layout
from minivae.engine.machine import machine
from minivae.models.vae import program
from minivae.training import loop
from minivae.training.divergence import first_fault
from minivae.training.order import shuffled

X = np.random.default_rng(0).random((40, 6))
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy tells of overflows
SETTINGS = dict(hidden_layer_sizes=(5, 4), likelihood="gaussian", batch_size=8, epochs=2,
                activation="identity", random_state=0)  # fmt: skip


def poison(vae, name, step, value):
    """Gives a parameter a value before the chunk that begins with the step."""
    chunk = loop.train_chunk

    def train_chunk(run, *rest):
        if run.state.steps == step:
            vae.parameters_[name].flat[0] = value
        chunk(run, *rest)

    return train_chunk


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "encoder.0.weight",
            1e38,
            "encoder.1 overflowed in matmul (encoder.0 up to 8.6e+37, encoder.1.weight up to 1.0e",
        ),
        (
            "encoder.mu.bias",
            3e19,
            "nll overflowed in gaussian_nll (decoder.out up to",
        ),
        ("encoder.mu.bias", np.inf, "encoder.mu.bias was made infinite or NaN by the update"),
        ("encoder.1.bias", np.nan, "encoder.1.bias was made infinite or NaN by the update"),
        (
            "decoder.0.bias",
            1e38,
            "decoder.1 overflowed in matmul (decoder.0 up to 1.0e+38, decoder.1.weight up to 1.0e",
        ),
        (
            "decoder.out.bias",
            1e30,
            "nll overflowed in gaussian_nll (decoder.out up to 1.0e+30, decoder.noise_logvar up to",
        ),
    ],
)
def test_the_report_names_what_went_first_and_the_batch_and_nothing_else_changes(
    device, name, value, words, tmp_path, monkeypatch
):
    monkeypatch.setattr(threads, "CHUNK_SECONDS", 0.0)
    vae = VAE(**SETTINGS, device=device, n_threads=2)
    vae.fit(X)
    vae.set_params(epochs=4)
    vae.parameters_["encoder.1.weight"][:] = 10.0
    vae.parameters_["decoder.1.weight"][:] = 10.0
    monkeypatch.setattr(loop, "train_chunk", poison(vae, name, 13, value))
    with pytest.raises(FloatingPointError) as caught:
        vae.resume(X, checkpoints=tmp_path)
    message = str(caught.value)
    assert words in message
    assert "in epoch 3, batch 4:" in message  # step 13 is the fourth of the third pass
    assert "Try a learning_rate below 0.001, or scale X" in message
    # The state is that before the batch; the checkpoint is that of the epoch before.
    assert (vae.state_.steps, vae.state_.rows) == (13, 24)
    vae.parameters_[name].flat[0] = 0.0
    assert np.isfinite(vae.state_.theta).all() and np.isfinite(vae.state_.moments).all()


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_the_report_of_a_family_without_layers(device):
    """Nothing of it is written for a family: it looks at what the family's own step made."""
    nade = NADE(5, batch_size=8, device=device, random_state=0).partial_fit(X)
    nade.parameters_["visible.weight"][:] = 3e38
    words = r"logits overflowed in nade_logits \(.*x up to .*, visible.weight up to 3.0e\+38"
    with pytest.raises(FloatingPointError, match=rf"epoch 2, batch 1: {words}"):
        nade.partial_fit(X)
    assert (nade.state_.steps, nade.state_.rows) == (5, 0)


def test_the_last_good_checkpoint_is_left_and_can_be_gone_on_from(tmp_path):
    vae = VAE(**{**SETTINGS, "learning_rate": 1e-4, "optimizer": "sgd"}).fit(
        X, checkpoints=tmp_path
    )
    before = vae.state_.theta.copy()
    vae.set_params(learning_rate=1e30, epochs=5)
    with pytest.raises(FloatingPointError, match=r"epoch 3, batch \d"):
        vae.resume(X, checkpoints=tmp_path)
    model = VAE.load(tmp_path / "checkpoint.safetensors")
    assert model.state_.steps == 10 and (model.state_.theta == before).all()
    model.set_params(epochs=3, learning_rate=1e-4)
    assert np.isfinite(model.resume(X).history_["loss"]).all()


def test_every_loss_of_a_batch_counts(monkeypatch):
    """One row of one batch is enough."""
    monkeypatch.setattr(threads, "CHUNK_SECONDS", 0.0)
    rows = X.astype("f4")
    rows[17] = 1e30
    vae = VAE(**SETTINGS, n_threads=2)
    with pytest.raises(FloatingPointError, match="nll overflowed") as caught:
        vae.fit(rows)
    order = shuffled(40, vae.seed_, 0)
    batch = list(order).index(17) // 8
    assert f"batch {batch + 1}:" in str(caught.value)
    assert vae.state_.steps == batch


def test_parameters_that_the_last_update_made_infinite_are_noticed_before_they_are_stored(
    tmp_path, monkeypatch
):
    vae = VAE(**SETTINGS, device="reference")

    def infinite(run, *rest):
        run.state.theta[3] = np.inf
        chunk(run, *rest)

    chunk = loop.train_chunk
    monkeypatch.setattr(machine(program, "reference").k, "all_finite", lambda terms: True)
    monkeypatch.setattr(loop, "train_chunk", infinite)
    with pytest.raises(FloatingPointError, match=r"encoder.0.weight became infinite or NaN in epo"):
        vae.fit(X, checkpoints=tmp_path)
    assert VAE.load(tmp_path / "checkpoint.safetensors").state_.steps == 0


def test_a_growing_gradient_shows_in_the_history():
    """Its norm is that of the last batch's gradient: here the only batch's."""
    vae = VAE(**{**SETTINGS, "batch_size": 40, "dtype": "float64"}, device="reference")
    vae.partial_fit(X)
    again = VAE(**{**SETTINGS, "batch_size": 40, "dtype": "float64"}, device="reference")
    order = shuffled(40, 0, 0)
    _, gradients = again.loss_and_gradients(X[order])  # the noise of step 0
    expected = np.sqrt(sum((g**2).sum() for g in gradients.values()))
    np.testing.assert_allclose(vae.history_["gradient_norm"], [expected], rtol=1e-12)
    wild = VAE(**{**SETTINGS, "optimizer": "sgd", "learning_rate": 0.2, "epochs": 30})
    with pytest.raises(FloatingPointError):
        wild.fit(50 * X)
    norms = [*wild.history_.get("gradient_norm", ()), loop.norm(np.float32([1e30]))]
    assert norms[-1] == pytest.approx(1e30)


def test_every_name_of_a_layer_can_be_the_first_fault():
    """`first_fault` walks through all parameters: none is left out."""
    layout = Layout(program, 6, hidden_layer_sizes=(5, 4), latent_dim=2, activation="relu",
                    likelihood="gaussian", missing="error")  # fmt: skip
    work = np.zeros(3 * layout.width, "f4")
    for name in layout.slots:
        theta = np.zeros(layout.n_parameters, "f4")
        layout.named_views(theta)[name].flat[0] = np.nan
        assert first_fault(layout, theta, work, 3) == (
            f"{name} was made infinite or NaN by the update before"
        )


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_the_last_update_may_not_leave_nan(device, tmp_path):
    X = np.random.default_rng(0).random((50, 6))
    vae = VAE(hidden_layer_sizes=(8,), epochs=1, batch_size=50, random_state=0, device=device,
              learning_rate=1e300, optimizer="sgd")  # fmt: skip
    with pytest.raises(FloatingPointError, match="learning_rate"):
        vae.fit(X)
    with pytest.raises(StorageError, match="NaN or infinite"):
        vae.save(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
