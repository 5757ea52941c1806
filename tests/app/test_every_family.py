"""Every command does for every family what its estimator does; what one cannot do is said."""

import json
import shutil
from functools import partialmethod

import numpy as np
import pytest
from shell import call, contents, options_of
from tiny import FAMILIES, history, reshaped, same_model, tiny

import minivae
from minivae import datasets, models
from minivae.app import options, pictures, runs
from minivae.files import storage

BITS = (np.random.default_rng(0).random((24, 6)) > 0.6).astype("f4")
CODES = {"encode": ["{run}"], "reconstruct": ["{run}"], "decode": ["{run}", "{folder}/bits.npy"]}


TINY = dict(epochs=2, batch_size=8, device="reference")  # as in `tiny`


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bits")
    np.save(folder / "bits.npy", BITS)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def run(request, folder):
    """(family, the folder of a run, what it printed) of `minivae train` on bits."""
    out, lines = folder / request.param, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minivae.app.pictures.of", lambda *words: [])
        patch.setattr("builtins.print", lambda *words, file=None: lines.append(words[0]))
        words = ["train", folder / "bits.npy", "--out", out, *options_of(request.param, **TINY)]
        assert minivae.app.cli.main(list(map(str, words))) == 0
    return request.param, out, lines


@pytest.fixture
def copy(run, tmp_path, no_pictures):
    return shutil.copytree(run[1], tmp_path / "run")


def loaded(folder):
    return minivae.load(folder / runs.MODEL)


def test_train_does_what_the_estimator_does(run, folder):
    family, out, lines = run
    data = datasets.load(folder / "bits.npy")
    expected = tiny(family).fit(data.train, X_valid=data.test)
    model = loaded(out)
    same_model(model, expected)
    assert model.get_params() == expected.get_params() and type(model) is models.find(family)
    facts = json.loads((out / runs.HISTORY).read_text())
    assert facts["model"] == family and facts["history"] == history(model)
    assert any(line.startswith(f"{family} of 6 features, ") for line in lines)
    if not model.program.SCORE:
        assert facts["score"] is None and facts["held_out_score"] is None
        assert any(line.startswith("no held-out score: nothing is maximised") for line in lines)
        return
    name, title = model.program.SCORE
    assert facts["score"] == name and f"valid_{name}" in facts["history"]
    scores, how = expected.held_out_score(data.test)
    assert facts["held_out_score"] == scores.mean()
    assert f"held-out {title} {scores.mean():.2f} +- " in "\n".join(lines)
    assert f"nats per row ({how})" in "\n".join(lines)


def test_a_model_gets_the_pictures_that_it_can_have(run, folder):
    _, out, _ = run
    model, data = loaded(out), datasets.load(folder / "bits.npy")
    names = {name for name, _ in pictures.of(model, data, 0)}
    expected = {"learning_curve.png", "samples.png", "correlations.png"}
    expected |= {"reconstructions.png"} if hasattr(model, "reconstruct") else set()
    expected |= {"latent.png"} if hasattr(model, "kl_per_latent") else set()
    assert names == expected
    assert names <= set(runs.PICTURES)


def test_resume_ends_where_one_go_would_have_ended(run, folder, copy, capsys):
    family, _, _ = run
    whole = copy.with_name("whole")
    train = [
        "train",
        folder / "bits.npy",
        "--out",
        whole,
        *options_of(family, **TINY | {"epochs": 4}),
    ]
    assert call(capsys, *train)[0] == 0
    code, _, err = call(capsys, "train", "--resume", "--out", copy, "--epochs", 4)
    assert code == 0 and "going on after 2 of 4 epochs" in err
    found, expected = contents(copy), contents(whole)
    if loaded(copy).program.SCORE:
        best = [minivae.load(folder / storage.BEST) for folder in (copy, whole)]
        same_model(*best)  # which may be an epoch of before, when two was the number to make
        assert found.pop(storage.BEST) and expected.pop(storage.BEST)
    assert found == expected


def test_resume_with_another_family_is_refused(run, copy, capsys):
    family = run[0]
    before = contents(copy)
    for other in FAMILIES:
        code, out, err = call(capsys, "train", "--resume", "--out", copy, "--model", other)
        if other == family:
            assert code == 0 and contents(copy) == before
        else:
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert f"--model was '{family}', and is now '{other}'" in err
            assert contents(copy) == before


def test_resume_knows_the_options_of_the_family_that_the_run_has(run, copy, capsys):
    family, before = run[0], contents(copy)
    said = options_of(family, **TINY)[2:]
    assert "--model" not in said
    train = ["train", "--resume", "--out", copy]
    assert call(capsys, *train, *said)[0] == 0 and contents(copy) == before
    (name, size), table = *reshaped(family).items(), models.find(family).SETTINGS
    option = options.option_of(name, table[name])
    code, out, err = call(capsys, *train, option, size)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{option} was {size - 1}, and is now {size}" in err and contents(copy) == before


def test_sample(run, copy, capsys):
    code, out, err = call(capsys, "sample", copy, "-n", 5, "--seed", 3, "--out", copy / "X.npy")
    assert (code, out, err) == (0, f"{copy}/X.npy: 5 samples\n", "")
    expected = loaded(copy).sample(5, random_state=3)
    np.testing.assert_array_equal(np.load(copy / "X.npy"), expected)


def test_score(run, folder, capsys):
    _, out, _ = run
    model = loaded(out)
    code, said, err = call(capsys, "score", out, folder / "bits.npy")
    if model.score_kind is None:
        assert (code, said, err.count("\n")) == (2, "", 1) and "has no likelihood" in err
        return
    assert (code, err) == (0, "")
    values = model.score_samples(BITS)  # 100 draws are the default of both
    error = values.std(ddof=1) / np.sqrt(len(BITS))
    lines = said.splitlines()
    assert lines[0].startswith(f"24 rows of {folder}/bits.npy")
    kind = "exact" if model.score_kind == "exact" else "importance-weighted estimate"
    bits = -values.mean() / np.log(2) / 6
    line = f"log-likelihood  {values.mean():.2f} +- {error:.2f}  ({kind}; {bits:.3f} bits per "
    assert lines[1] == f"{line}dimension)"
    assert all(line[0] == "the" for line in map(str.split, lines[2 + hasattr(model, "elbo") :]))


def test_score_by_annealing(run, folder, capsys, monkeypatch):
    family, out, _ = run
    model = loaded(out)
    if hasattr(model, "ais"):  # which is slow
        quick = partialmethod(type(model).ais, n_chains=4, n_temperatures=5)
        monkeypatch.setattr(type(model), "ais", quick)
    code, said, err = call(capsys, "score", out, folder / "bits.npy", "--ais", 3)
    if not hasattr(model, "ais"):
        assert (code, said, err.count("\n")) == (2, "", 1)
        if model.score_kind is None:
            return
        assert f"score --ais needs a model with latent codes, and {out}" in err
        assert f" is a {family}, " in err
        return
    assert (code, err) == (0, "")
    values, errors = model.ais(BITS[:3], random_state=0)
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(3)
    chains = np.sqrt((errors**2).sum()) / 3
    assert (f"AIS             {mean:.2f} +- {error:.2f}  (the first 3 rows, +- {chains:.2f} by its "
            f"chains; {-mean / np.log(2) / 6:.3f} bits per dimension)\n") in said  # fmt: skip


def test_gradcheck(run, folder, capsys):
    _, out, _ = run
    code, said, err = call(capsys, "gradcheck", out, folder / "bits.npy", "--rows", 3)
    assert code == 0 and "PASSED" in said and "the first 3 of 24 rows" in err
    for name in loaded(out).parameters_:
        assert f"\n{name} " in f"\n{said}"


def test_trace(run, folder, tmp_path, capsys):
    _, out, _ = run
    words = ["trace", out, folder / "bits.npy", "--rows", 2, "--out", tmp_path / "t.npz"]
    code, said, err = call(capsys, *words)
    expected = loaded(out).trace(BITS[:2])
    assert code == 0 and "the first 2 of 24 rows" in err
    assert said.startswith(str(expected)) and f"t.npz: {len(expected)} arrays\n" in said
    with np.load(tmp_path / "t.npz") as found:
        assert len(found.files) == len(expected)
        for name, array in zip(found.files, expected.values(), strict=True):
            np.testing.assert_array_equal(found[name], array)


def test_info(run, capsys):
    family, out, _ = run
    model = loaded(out)
    code, said, err = call(capsys, "info", out)
    assert (code, err) == (0, "") and f"\n{family} of 6 features, " in said
    for name, array in model.parameters_.items():
        assert f"  {name:22} float32 {array.shape}\n" in said
    for name, value in model.get_params().items():
        assert f"  {name:22} {value!r}\n" in said


@pytest.mark.parametrize("command", CODES)
def test_what_needs_codes_is_for_models_that_have_them(command, run, folder, copy, capsys):
    family, _, _ = run
    words = [word.format(run=copy, folder=folder) for word in CODES[command]]
    before = contents(copy)
    method = {"encode": "transform", "decode": "inverse_transform"}.get(command, command)
    code, out, err = call(capsys, command, *words, "--out", copy / "X.npy")
    if hasattr(models.find(family), method):
        six = loaded(run[1]).transform(BITS).shape[1] == 6  # or the six columns are no codes
        assert code == (2 if command == "decode" and not six else 0)
        return
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{command} needs a model with latent codes" in err and f"is a {family}, " in err
    assert contents(copy) == before
