"""Tables in and out of the commands: names, a label, columns to drop, and .csv files of rows."""

import json
import shutil
import sys

import numpy as np
import pytest
from shell import TINY, call

import minivae
from minivae import datasets
from minivae.app import tables

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(12, 3)).round(4)
NAMES = ["height", "2020", 'a "b", c']  # as csv has to put in quotation marks
pandas = pytest.importorskip("pandas", reason="pandas is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a table that has an id and a class, and a run on it without them."""
    folder = tmp_path_factory.mktemp("tables")
    frame = pandas.DataFrame(ROWS, columns=NAMES)
    frame["id"], frame["class"] = [f"p{i}" for i in range(12)], list("abc") * 4
    frame.to_csv(folder / "table.csv")  # with its index
    frame.to_parquet(folder / "table.parquet")
    words = ["train", folder / "table.csv", "--label", "class", "--drop", "id"]
    assert train(folder, *words) == 0
    return folder


def train(folder, *words):
    from minivae.app import cli, pictures

    draw, pictures.of = pictures.of, lambda *words: []
    try:
        more = ["--out", folder / "run", "--likelihood", "gaussian", *TINY, "--test-fraction", 0.25]
        return cli.main([str(word) for word in (*words, *more)])
    finally:
        pictures.of = draw


def test_the_model_has_the_names_and_the_run_its_choice(run):
    model = minivae.load(run / "run" / "model.safetensors")
    assert model.feature_names_in_.tolist() == NAMES
    facts = json.loads((run / "run" / "history.json").read_text())
    assert facts["label"] == "class" and facts["drop"] == ["id"]


def test_the_label_is_for_pictures(run, capsys):
    data = datasets.load(run / "table.csv", label="class", drop=["id"])
    assert sorted([*data.train_labels, *data.test_labels]) == sorted("abc" * 4)
    assert data.names == tuple(NAMES) and list(data.train) == NAMES


def test_what_is_left_out_is_said(run, tmp_path, capsys, no_pictures):
    words = ["train", run / "table.csv", "--drop", "id,class", "--out", tmp_path / "new", *TINY]
    code, _, err = call(capsys, *words, "--likelihood", "gaussian")
    assert code == 0 and "table.csv: the first column, which has no name and a number" in err


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_same_columns_are_taken_from_every_file(run, kind, tmp_path, capsys):
    """Whether it has those that were left out, or not."""
    model = minivae.load(run / "run" / "model.safetensors")
    frame = pandas.DataFrame(ROWS, columns=NAMES)
    expected = model.transform(frame)
    frame.to_csv(tmp_path / "plain.csv", index=False)
    frame.to_parquet(tmp_path / "plain.parquet")
    for path in run / f"table.{kind}", tmp_path / f"plain.{kind}":
        code, _, err = call(capsys, "encode", run / "run", path, "--out", tmp_path / "codes.npy")
        assert code == 0 and "Warning" not in err
        np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), expected)


@pytest.mark.parametrize("command", ["score", "encode", "reconstruct", "trace"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_other_columns_are_refused_in_the_words_of_scikit_learn(
    run, kind, command, tmp_path, capsys
):
    frame = pandas.DataFrame(ROWS, columns=NAMES)
    for wrong, words in [
        (frame[NAMES[::-1]], "in the same order"),
        (frame.rename(columns={"height": "junk"}), "unseen at fit time: - junk"),
        (frame[NAMES[:2]], "now missing: - a"),
    ]:
        path = tmp_path / f"wrong.{kind}"
        wrong.to_csv(path, index=False) if kind == "csv" else wrong.to_parquet(path)
        code, out, err = call(capsys, command, run / "run", path)
        assert (code, out) == (2, "") and words in err and "The feature names should match" in err


def test_without_pandas_the_names_are_compared_all_the_same(run, tmp_path, capsys, monkeypatch):
    pandas.DataFrame(ROWS, columns=NAMES)[NAMES[::-1]].to_csv(tmp_path / "wrong.csv", index=False)
    pandas.DataFrame(ROWS, columns=NAMES).to_csv(tmp_path / "right.csv", index=False)
    monkeypatch.setitem(sys.modules, "pandas", None)
    code, _, err = call(capsys, "encode", run / "run", tmp_path / "wrong.csv")
    assert code == 2 and "in the same order: height, 2020, a" in err


def test_rows_without_names_are_taken_by_their_order(run, tmp_path, capsys):
    np.save(tmp_path / "rows.npy", ROWS)
    code, _, err = call(capsys, "encode", run / "run", tmp_path / "rows.npy", "--out",
                        tmp_path / "codes.npy")  # fmt: skip
    assert (code, err) == (0, "")
    model = minivae.load(run / "run" / "model.safetensors")
    expected = model.transform(pandas.DataFrame(ROWS, columns=NAMES))
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), expected)


def test_names_say_nothing_to_a_model_without(images, tmp_path, capsys):
    X = RNG.integers(0, 2, (4, 12))
    pandas.DataFrame(X, columns=[f"pixel {j}" for j in range(12)]).to_csv(tmp_path / "x.csv")
    code, _, err = call(capsys, "encode", images, tmp_path / "x.csv", "--out", tmp_path / "c.npy")
    assert code == 0 and "Warning" not in err and np.load(tmp_path / "c.npy").shape == (4, 2)


def test_every_command_that_gives_rows_writes_them_with_names(run, tmp_path, capsys):
    """And our own reader reads the same numbers, and names, back."""
    model = minivae.load(run / "run" / "model.safetensors")
    frame = pandas.DataFrame(ROWS, columns=NAMES)
    codes = model.transform(frame)
    path, data = tmp_path / "out.csv", run / "table.csv"
    for words, names, expected in [
        (["sample", run / "run", "-n", 9, "--seed", 3], NAMES, model.sample(9, 3)),
        (["reconstruct", run / "run", data], NAMES, model.reconstruct(frame)),
        (["encode", run / "run", data], ["vae0", "vae1"], codes),
        (["decode", run / "run", tmp_path / "codes.csv"], NAMES, model.inverse_transform(codes)),
    ]:
        assert call(capsys, *words, "--out", path)[0] == 0
        found = datasets.read(path)
        assert list(found) == names
        np.testing.assert_array_equal(found.to_numpy(np.float32), expected)
        if words[0] == "encode":
            shutil.copy(path, tmp_path / "codes.csv")
    for words in ["sample", run / "run"], ["score", run / "run", data]:  # rows can be scored again
        assert call(capsys, *words, "--out", path)[0] == 0


def test_columns_without_names_are_called_x1_and_so_on(images, tmp_path, capsys):
    assert call(capsys, "sample", images, "-n", 3, "--out", tmp_path / "x.csv")[0] == 0
    assert list(datasets.read(tmp_path / "x.csv")) == [f"x{j + 1}" for j in range(12)]


def test_scores_of_rows(run, tmp_path, capsys):
    words = ["score", run / "run", run / "table.csv", "--n-samples", 7]
    code, out, _ = call(capsys, *words, "--out", tmp_path / "rows.csv")
    assert code == 0 and f"{tmp_path / 'rows.csv'}: scores of 12 rows of " in out
    model = minivae.load(run / "run" / "model.safetensors")
    frame = pandas.DataFrame(ROWS, columns=NAMES)
    found = datasets.read(tmp_path / "rows.csv")
    assert list(found) == ["row", "elbo", "log_likelihood"]
    assert found.row.tolist() == list(range(12))
    np.testing.assert_array_equal(found.elbo, model.elbo(frame, n_samples=7, random_state=0))
    np.testing.assert_array_equal(found.log_likelihood, model.score_samples(frame, n_samples=7))
    assert f"{found.log_likelihood.mean():.2f} +- " in out


def test_a_missing_cell_is_refused_where_it_is_in_the_file(run, tmp_path, capsys):
    frame = pandas.DataFrame(ROWS, columns=NAMES)
    frame.iloc[7, 1] = np.nan
    frame.to_csv(tmp_path / "gap.csv", index=False)
    for words in ["train", "gap.csv", "--out", tmp_path / "new"], ["score", run / "run", "gap.csv"]:
        code, _, err = call(capsys, *[tmp_path / w if w == "gap.csv" else w for w in words], *(
            ["--likelihood", "gaussian"] if "train" in words else []))  # fmt: skip
        assert code == 2 and err.count("gap.csv") == 1
        assert "in 1 of 36 entries, first in row 7, column 1 ('2020')" in err


def test_a_run_goes_on_with_its_choice(run, tmp_path, capsys, no_pictures):
    shutil.copytree(run / "run", tmp_path / "run")
    words = ["train", run / "table.csv", "--resume", "--out", tmp_path / "run", "--epochs", 3]
    assert call(capsys, *words)[0] == 0
    code, _, err = call(capsys, *words, "--drop", "id,class")
    assert code == 2 and "--drop was ['id'], and is now ('id', 'class')" in err


def test_names_that_are_numbers_are_read_back_as_names(tmp_path):
    for names in ["2020", "2021"], ["1e5", "x"], ["x", "y"]:
        (tmp_path / "a.csv").write_bytes(tables.as_csv(names, np.array([[1.5, 2], [3, 4]])))
        assert list(datasets.read(tmp_path / "a.csv")) == names
