"""What the examples claim, of smaller runs where theirs take minutes; and gradient_by_hand.py: its
formulas, minivae and finite differences agree."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_every_number_by_hand_is_that_of_minivae(capsys):
    """Tolerances: sums of a few numbers of size 1 in float64; and of the finite difference with
    h = 1e-5, rounding of 1e-16 / h and truncation of h^2."""
    found = runpy.run_path(str(EXAMPLES / "gradient_by_hand.py"))
    assert found["worst"]["minivae"] < 1e-14
    assert found["worst"]["numeric"] < 1e-9
    assert set(found["PARAMETERS"].values()) == found["gradients"].keys()
    printed = capsys.readouterr().out
    near = [float(word) for word in re.findall(r"[-+]\d\.\d{6}\b", printed)]
    for name, array in found["trace"].items():  # but what was given, and what is written over
        if name not in ("x", "eps") and "(" not in name:
            gaps = [min(abs(number - value) for value in near) for number in array.ravel()]
            assert max(gaps) < 1e-6, name
    assert 0 < found["expected"] - found["fall"] < 0.05 * found["expected"]  # of the second order


def run(name, tmp_path, monkeypatch, *arguments):
    """What an example leaves behind, with its picture in a file of its own."""
    monkeypatch.setattr("sys.argv", [name, str(tmp_path / "picture.png"), *arguments])
    found = runpy.run_path(str(EXAMPLES / name))
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    return found


def test_the_plain_net_has_a_blind_spot_and_the_gated_one_has_none(tmp_path, monkeypatch):
    """Of 11 x 11 pixels, from the middle of the last line: one line up sees one pixel more on the
    right, so 4 + 3 + 2 + 1 of the five columns there are not seen."""
    found = run("blind_spot.py", tmp_path, monkeypatch)
    never = {name: (found["before"] & ~moved).sum() for name, moved in found["pictures"].items()}
    assert never == {"plain": 10, "gated": 0}


def test_both_gradients_are_unbiased_and_one_is_quiet(tmp_path, monkeypatch, capsys):
    """Of four entries none is off by 4 standard errors; a variance ratio far above what is claimed
    of other models would not come from chance."""
    found = run("two_gradients.py", tmp_path, monkeypatch)
    quiet = found["dz"]
    for name, draws in found["ESTIMATES"].items():
        apart = draws - quiet
        error = apart.std(axis=0, ddof=1) / len(apart) ** 0.5
        assert (abs(apart.mean(axis=0)) <= 4 * error).all(), name
    ratios = [draws.var(axis=0).mean() / quiet.var(axis=0).mean()
              for draws in found["ESTIMATES"].values()]  # fmt: skip
    assert ratios[1] > 50 > ratios[2] > 1
    assert "both are unbiased" in capsys.readouterr().out


def test_an_encoder_is_worth_thousands_of_draws(tmp_path, monkeypatch):
    """Both estimates rise; 16 draws of the encoder come nearer than 1,024 of the prior."""
    found = run("why_an_encoder.py", tmp_path, monkeypatch)
    best, counts = found["best"].mean(), list(found["COUNTS"])
    prior, encoder = (values.mean(axis=1) for values in found["found"].values())
    assert (prior[1:] > prior[:-1]).all() and encoder[-1] > encoder[0]
    assert best - encoder[counts.index(16)] < best - prior[counts.index(1024)]
    assert abs(encoder[-1] - best) < 0.2 < best - prior[counts.index(256)]


@pytest.mark.slow
def test_a_bound_stays_below_and_draws_close_its_gap(tmp_path, monkeypatch):
    """The gap is a mean divergence, above 0; 1,000 weighted draws leave a third of it at most."""
    found = run("the_gap.py", tmp_path, monkeypatch)
    for name, values in found["found"].items():
        exact, elbo = values.T
        assert (elbo < exact).all() and (exact[1:] > exact[:-1]).all()
        assert found["weighted"][name][-1] < (exact - elbo)[-1] / 3


def test_a_vae_fills_in_better_than_the_mean_and_at_half_missing_better_than_others(
    tmp_path, monkeypatch
):
    """Wine, one seed: the example's own numbers of it are further apart than its seeds are."""
    found = run("impute_tables.py", tmp_path, monkeypatch, "1", "wine")
    mean, knn, iterative, vae = found["errors"]["wine"][:, :, 0].T
    assert (vae < mean).all() and vae[-1] < min(knn[-1], iterative[-1])


def test_broken_correlations_are_found(tmp_path, monkeypatch):
    """One seed. Permuting moves no column's values, so a look at columns alone finds less."""
    found = run("find_outliers.py", tmp_path, monkeypatch, "1")
    assert found["auc"]["VAEOutlierDetector"][0] > 0.98 > found["auc"]["IsolationForest"][0] + 0.1
    X, is_outlier = found["broken"](0)
    as_measured = found["StandardScaler"]().fit_transform(found["load_breast_cancer"]().data)
    assert (X != as_measured).any(axis=1)[is_outlier].all()
    assert (np.sort(X, axis=0) == np.sort(as_measured, axis=0)).all()


def test_the_codes_of_digits_keep_their_classes(tmp_path, monkeypatch):
    """After 10 passes codes are far better than one of ten classes by chance, and the least beta
    keeps more in them than beta = 1 does."""
    found = run("embed_digits.py", tmp_path, monkeypatch, "10")
    assert min(np.mean(accuracy) for accuracy in found["accuracy"].values()) > 0.5
    assert found["by_folds"][0] > found["by_folds"][-1]


def test_added_digits_are_like_those_of_their_class(tmp_path, monkeypatch):
    found = run("augment_digits.py", tmp_path, monkeypatch, "1", "10")
    assert (found["found"] > 0.7).all()
    for images, classes in found["made"]:
        assert images.shape == (len(classes), 64) and (np.bincount(classes) == 40).all()
    moved, classes = found["shifted"](np.eye(64), np.arange(64))
    for image, pixel in zip(moved[:64], classes[:64], strict=True):  # by one to the left
        assert image.sum() == (pixel % 8 > 0) and image[pixel - 1] == (pixel % 8 > 0)
