"""learning_rate as a schedule, [(epochs, rate), ...]: each epoch has its rate, also cut in two."""

import contextlib

import numpy as np
import pytest
from families import OTHER, X, bits, small

import minivae
from minivae import VAE
from minivae.engine import threads
from minivae.models import MODELS
from minivae.training import loop

SCHEDULE = [(2, 0.05), (1, 0.005)]
RATES = [0.05, 0.05, 0.005, 0.005, 0.005]  # the last one goes on
FAMILY = pytest.mark.parametrize("name", MODELS)
DEVICE = pytest.mark.parametrize("device", ["reference", "cpu"])


@FAMILY
@DEVICE
def test_every_epoch_is_that_of_its_rate(name, device):
    by_hand = small(name, device=device)
    for rate in RATES:
        by_hand.set_params(learning_rate=rate).partial_fit(X)
    model = small(name, device=device, learning_rate=SCHEDULE, epochs=5)
    assert bits(model.fit(X)) == bits(by_hand)
    assert bits(model.fit(X)) == bits(by_hand)  # a new fit begins with the first rate
    stepwise = small(name, device=device, learning_rate=tuple(SCHEDULE))
    for _ in RATES:
        stepwise.partial_fit(X)
    assert bits(stepwise) == bits(by_hand)
    one = [small(name, device=device, learning_rate=rate).fit(X) for rate in (0.05, [(1, 0.05)])]
    assert bits(one[0]) == bits(one[1])


def interrupt_after(steps, monkeypatch):
    """Ctrl-C comes in the chunk that ends with so many steps."""
    chunk, came = loop.train_chunk, []

    def train_chunk(run, *rest):
        chunk(run, *rest)
        if run.state.steps == steps:
            came.append(True)

    @contextlib.contextmanager
    def defer_signals(*signals):
        yield lambda: bool(came)

    monkeypatch.setattr(loop, "train_chunk", train_chunk)
    monkeypatch.setattr(loop, "defer_signals", defer_signals)


@FAMILY
def test_resumed_in_the_middle_it_ends_as_undisturbed(name, tmp_path, monkeypatch):
    """Between two batches of any epoch, and also where a rate ends."""
    monkeypatch.setattr(threads, "CHUNK_SECONDS", 0.0)
    settings = dict(learning_rate=SCHEDULE, epochs=4, device="reference")
    expected = small(name, **settings).fit(X, X_valid=OTHER)
    for moment in range(1, 12):  # three batches an epoch
        folder = tmp_path / str(moment)
        with monkeypatch.context() as patch:
            interrupt_after(moment, patch)
            small(name, **settings).fit(X, X_valid=OTHER, checkpoints=folder)
        model = minivae.load(folder / "checkpoint.safetensors")
        assert model.state_.steps == moment
        assert bits(model.resume(X, X_valid=OTHER)) == bits(expected)


def test_other_epochs_and_rates_may_be_set_before_going_on():
    model = small("vae", device="reference", learning_rate=SCHEDULE, epochs=2).fit(X)
    model.set_params(epochs=5).resume(X)
    assert bits(model) == bits(
        small("vae", device="reference", learning_rate=SCHEDULE, epochs=5).fit(X)
    )


@pytest.mark.parametrize(
    "rate",
    [[], [(0, 0.1)], [(1, -0.1)], [(1, 0.1), 0.1], [(1.5, 0.1)], [(1, np.nan)], [(1,)]],
    ids=str,
)
def test_a_bad_schedule_is_refused_with_an_example(rate):
    words = r"learning_rate must be a positive, finite number, or a list of \(epochs, rate\) "
    with pytest.raises(ValueError, match=words + r"of such, such as \[\(10, 0.002\), \(5, 0.0002"):
        VAE(learning_rate=rate).fit(X)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_advice_names_the_rate_of_the_epoch():
    schedule = [(1, 1e-3), (1, 1e30)]
    model = small("vae", device="reference", learning_rate=schedule, optimizer="sgd", epochs=5,
                  likelihood="gaussian")  # fmt: skip
    with pytest.raises(FloatingPointError, match=r"epoch 3, .*learning_rate below 1e\+30, or scal"):
        model.fit(X)
