"""The lines of `minivae score`, of a model that says what it is told to, and what `minivae train`
says of latents that collapsed."""

import math

import numpy as np
import pytest
from shell import call

import minivae
from minivae import datasets
from minivae.app import commands, scores

RNG = np.random.default_rng(0)
X = np.zeros((50, 8))
LEVEL = RNG.standard_normal(50) * 10 - 80  # of rows, which differ much more than the estimates


class Told:
    """score_samples, elbo and ais at given distances from LEVEL."""

    score_kind = "lower bound"

    def __init__(self, elbo, annealed):
        self.values = {"elbo": elbo, "ais": annealed}

    def score_samples(self, X, n_samples):
        return LEVEL[: len(X)]

    def elbo(self, X, n_samples, random_state):
        return LEVEL[: len(X)] + self.values["elbo"]

    def ais(self, X, random_state):
        return LEVEL[: len(X)] + self.values["ais"], np.full(len(X), 0.3)


def said(model, X, ais_rows):
    return scores.lines(model, X, scores.of_rows(model, X, 5), ais_rows)


def test_the_lines():
    lines = said(Told(0.0, 0.0), X, 9)
    names = [line[:16] for line in lines]
    assert names == ["log-likelihood  ", "ELBO            ", "AIS             "]
    first, mean = LEVEL[:9], LEVEL[:9].mean()
    assert lines[2][16:] == (
        f"{mean:.2f} +- {first.std(ddof=1) / 3:.2f}  (the first 9 rows, +- 0.10 by its chains; "
        f"{-mean / 8 / math.log(2):.3f} bits per dimension)"
    )
    assert "(all rows, +- 0.04 by its chains; " in said(Told(0.0, 0.0), X, 80)[2]
    assert len(said(Told(-1.0, -1.0), X[:1], 1)) == 3  # no error, so no sentence
    assert len(said(Told(0.0, 0.0), X, None)) == 2


@pytest.mark.parametrize(
    ("elbo", "annealed", "begins", "ends"),
    [
        (-2.0, 0.0, "the ELBO is 2.00 +- ", "below the importance-weighted estimate: q(z|x)"),
        (0.0, 1.5, "AIS is 1.50 +- ", "above the importance-weighted estimate of its rows: "),
        (0.0, -1.5, "AIS is 1.50 +- ", "below the importance-weighted estimate of its rows: "),
    ],
)
def test_a_sentence_for_what_disagrees(elbo, annealed, begins, ends):
    noise = RNG.standard_normal(50)
    noise -= noise.mean()
    told = Told(elbo + noise * bool(elbo), annealed + noise * bool(annealed))
    *_, last = lines = said(told, X, 50)
    assert len(lines) == 4 and last.startswith(begins) and f" nats {ends}" in last
    told = Told(elbo + 20 * noise, annealed + 20 * noise)  # less than 2 errors, of 2.8 nats each
    assert len(said(told, X, 50)) == 3


def test_train_says_that_latents_collapsed(files, tmp_path, no_pictures, capsys):
    words = ["--device", "reference", "--epochs", 1, "--beta", 1e6, "--quiet"]
    code, out, err = call(capsys, "train", files / "images.npz", "--out", tmp_path, *words)
    model = minivae.load(tmp_path / "model.safetensors")
    data = datasets.load(files / "images.npz").test
    assert (code, err) == (0, "")
    (first,) = commands.collapsed(model, data)
    assert first.startswith("No latent is active: ")
    assert commands.collapsed(Told(0, 0), data) == []  # a model that cannot be asked
    assert commands.collapsed(model, data[:1]) == []
    model.parameters_["encoder.mu.weight"][:] *= 1000
    assert commands.collapsed(model, data) == []
    model.parameters_["encoder.mu.weight"][:, 1] = 0
    (line,) = commands.collapsed(model, data)
    assert line.startswith("1 of 2 latents say nothing about x: latent_dim=1 would do as well.")
    assert out.splitlines().count(first) == 1
