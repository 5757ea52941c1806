"""Tables from a shell: learned as tables by default, their kinds, missing cells, and `impute`."""

import json

import numpy as np
import pytest
from shell import TINY, call

import minivae
from minivae import datasets
from minivae.app import tables

pandas = pytest.importorskip("pandas", reason="pandas is not installed")
RNG = np.random.default_rng(0)
N = 40


def people(gaps):
    """Columns of every kind; gaps: whether cells are missing."""
    frame = pandas.DataFrame({
        "id": [f"p{i}" for i in range(N)],
        "age": RNG.integers(18, 80, N),
        "income": np.exp(RNG.normal(9, 1, N)).round(2),
        "city": RNG.choice(["Oslo", "Rome", "Lima, Peru"], N),
        "smoker": np.where(RNG.random(N) < 0.4, "TRUE", "FALSE"),
        "kids": RNG.poisson(1.3, N),
        "planet": "Earth",
    }).astype(object)  # fmt: skip
    if gaps:
        for j in range(1, 6):
            frame.iloc[RNG.choice(N, 4, replace=False), j] = np.nan
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with tables, and a run on each of two."""
    folder = tmp_path_factory.mktemp("tables")
    people(True).to_csv(folder / "gaps.csv")  # with its index
    people(False).to_csv(folder / "whole.csv", index=False)
    return folder


def train(capsys, table, out, *words):
    return call(capsys, "train", table, "--out", out, *TINY, *words)


def test_a_table_is_learned_as_one_and_its_columns_are_named(folder, tmp_path, capsys, no_pictures):
    code, out, err = train(capsys, folder / "gaps.csv", tmp_path / "run")
    assert code == 0
    assert (
        "a table of 7 columns, 20 missing cells, 2 columns left out; likelihood mixed, missing mask"
    ) in err
    for line in ["id      left out (id: tells the rows apart)", "kids    count, from 0 to ",
                 "income  positive, ", "smoker  binary, False, True",
                 "city    category, 'Lima, Peru', 'Oslo', 'Rome'"]:  # fmt: skip
        assert line in err
    assert "one noise variance" not in err  # the model has a scale for each column
    assert "vae of a table of 7 columns, latent_dim 2, " in out
    code, out, _ = call(capsys, "info", tmp_path / "run")
    assert "city    category, 'Lima, Peru'" in out


def test_without_missing_cells_none_are_allowed(folder, tmp_path, capsys, no_pictures):
    code, _, err = train(capsys, folder / "whole.csv", tmp_path / "run")
    assert (
        code == 0 and "7 columns, 0 missing cells, 2 columns left out; likelihood mixed, m" in err
    )
    assert minivae.load(tmp_path / "run" / "model.safetensors").missing == "error"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--missing error", "NaN"),
        ("--likelihood gaussian", "column 'id'"),
        ("--model nade", "column 'id'"),
    ],
)
def test_what_is_said_holds(words, message, folder, tmp_path, capsys):
    start = ["train", folder / "gaps.csv", "--out", tmp_path / "run"]
    code, _, err = call(capsys, *start, *words.split())
    assert code == 2 and message in err and not (tmp_path / "run").exists()


def test_images_in_a_csv_are_no_table(tmp_path, capsys, no_pictures):
    np.savetxt(tmp_path / "x.csv", RNG.integers(0, 2, (20, 4)), fmt="%d", delimiter=",")
    assert train(capsys, tmp_path / "x.csv", tmp_path / "run", "--image-shape", "2x2")[0] == 0
    assert minivae.load(tmp_path / "run" / "model.safetensors").likelihood == "bernoulli"


def test_raw_breast_cancer_is_learned_in_its_own_units(tmp_path, capsys, no_pictures):
    """It came to an ELBO of -846,581 nats as one Gaussian of one noise variance."""
    from sklearn.datasets import load_breast_cancer

    load_breast_cancer(as_frame=True).data.to_csv(tmp_path / "bc.csv", index=False)
    words = "--hidden 50 --latent-dim 5 --epochs 20 --device reference --quiet".split()
    code, _, err = call(capsys, "train", tmp_path / "bc.csv", "--out", tmp_path / "run", *words)
    assert (code, err) == (0, "")
    model = minivae.load(tmp_path / "run" / "model.safetensors")
    data = datasets.load(tmp_path / "bc.csv")
    # ln p of independent columns, each normal or log-normal by its moments: the least one can know.
    lower = 0.0
    for column in model.schema_.columns:
        x = data.train[column.name].to_numpy()
        y = data.test[column.name].to_numpy()
        mean, sd = x.mean(), x.std()
        lower += np.mean(-0.5 * ((y - mean) / sd) ** 2 - np.log(sd * np.sqrt(2 * np.pi)))
    assert json.loads((tmp_path / "run" / "history.json").read_text())["held_out_score"] > lower


def test_all_rows_say_what_a_column_is(tmp_path, capsys, no_pictures):
    """Not those alone that are trained on: here the held-out ones have a value that no other has,
    and the numbers of the rows are in no order."""
    n = 30
    test = np.random.default_rng(0).permutation(n)[-3:]  # of datasets.load
    frame = pandas.DataFrame({
        "number": np.arange(1, n + 1),
        "x": RNG.normal(size=n),
        "price": np.exp(RNG.normal(0, 1.5, n)),
        "flag": RNG.integers(0, 2, n).astype(float),
        "word": RNG.choice(["a", "b"], n),
    })  # fmt: skip
    frame.loc[test[0], ["price", "flag", "word"]] = [-1.0, 2.5, "c"]
    frame.to_csv(tmp_path / "x.csv", index=False)
    code, _, err = train(capsys, tmp_path / "x.csv", tmp_path / "run")
    assert code == 0, err
    model = minivae.load(tmp_path / "run" / "model.safetensors")
    kinds = {column.name: column.kind for column in model.schema_.columns}
    assert kinds == {"number": "id", "x": "real", "price": "real", "flag": "real",
                     "word": "category"}  # fmt: skip
    words = ["train", tmp_path / "x.csv", "--resume", "--out", tmp_path / "run", "--epochs", 3]
    assert call(capsys, *words)[0] == 0


def test_schema_says_what_columns_are(folder, tmp_path, capsys, no_pictures):
    run, words = tmp_path / "run", ["--schema", "kids=real,id=ignore,income=ignore"]
    code, _, err = train(capsys, folder / "gaps.csv", run, *words)
    assert code == 0 and "income  left out (ignore: as asked for)" in err
    model = minivae.load(run / "model.safetensors")
    assert model.schema == {"kids": "real", "id": "ignore", "income": "ignore"}
    resume = ["train", "--resume", "--out", run, "--epochs", 3]
    assert call(capsys, *resume, *words)[0] == 0
    code, _, err = call(capsys, *resume, "--schema", "kids=count")
    assert code == 2 and "'kids': 'real'" in err and "and is now {'kids': 'count'}" in err


def test_columns_without_names_have_kinds_too(tmp_path, capsys, no_pictures):
    np.savetxt(tmp_path / "x.csv", RNG.normal(5, 1, (20, 3)), delimiter=",")
    code, _, err = train(capsys, tmp_path / "x.csv", tmp_path / "run", "--schema", "x2=positive")
    assert code == 0 and "x2  positive, from" in err and "x3  real, from" in err
    model = minivae.load(tmp_path / "run" / "model.safetensors")
    assert [column.kind for column in model.schema_.columns] == ["real", "positive", "real"]


def test_every_command_works_with_a_table(folder, tmp_path, capsys, no_pictures):
    run, data = tmp_path / "run", folder / "gaps.csv"
    assert train(capsys, data, run)[0] == 0
    for words in ["score", run], ["encode", run, data], ["gradcheck", run], ["trace", run, data]:
        code, _, err = call(capsys, *words)
        assert code == 0, err
    for words in ["sample", run, "-n", 5], ["reconstruct", run, data]:
        assert call(capsys, *words, "--out", tmp_path / "rows.csv")[0] == 0
        frame = datasets.read(tmp_path / "rows.csv")
        assert list(frame) == list(people(False))
        assert set(frame["city"]) <= {"Oslo", "Rome", "Lima, Peru"}
    code, _, err = call(capsys, "sample", run, "--out", tmp_path / "rows.npy")
    assert code == 2 and "rows.npy can only hold numbers, and here are words too: .csv" in err


def test_a_table_in_other_units_is_said_to_be_one(tmp_path, capsys, no_pictures):
    frame = pandas.DataFrame(RNG.normal(100, 5, (30, 3)), columns=["a", "b", "c"])
    frame.to_csv(tmp_path / "raw.csv", index=False)
    ((frame - 100) / 5).assign(c=frame["c"]).to_csv(tmp_path / "scaled.csv", index=False)
    assert train(capsys, tmp_path / "raw.csv", tmp_path / "run")[0] == 0
    code, _, err = call(capsys, "score", tmp_path / "run", tmp_path / "scaled.csv")
    assert code == 0 and err.startswith("note: 2 of 3 columns look unlike what the model was tr")
    assert ", such as a: from -" in err and err.count("\n") == 1
    assert call(capsys, "score", tmp_path / "run", tmp_path / "raw.csv")[2] == ""
    few = [tmp_path / "few.csv", "--out", tmp_path / "codes.csv"]
    frame[:1].to_csv(few[0], index=False)
    assert call(capsys, "encode", tmp_path / "run", *few)[2] == ""


def test_packed_bits_are_said_to_be_such(tmp_path, capsys, no_pictures):
    """Images of two colours, eight pixels to a byte; grey images of as many bytes are not."""
    rows, columns = np.mgrid[:16, :16]
    at = RNG.uniform(4, 12, (60, 2, 1, 1))
    discs = np.hypot(rows - at[:, 0], columns - at[:, 1]) < RNG.uniform(2, 6, (60, 1, 1))
    np.save(tmp_path / "bits.npy", np.packbits(discs.reshape(60, -1), axis=1))
    np.save(tmp_path / "grey.npy", RNG.integers(0, 256, (60, 32), dtype=np.uint8))
    for name, packed in [("bits", True), ("grey", False)]:
        code, _, err = train(capsys, tmp_path / f"{name}.npy", tmp_path / name)
        assert code == 0 and ("numpy.unpackbits(X, axis=1)" in err) == packed


# --- impute ---------------------------------------------------------------------------------------


def filled(capsys, table, out, *words):
    """(bytes before, bytes after, stdout) of `minivae impute`."""
    words = words or [*TINY, "--quiet"]
    code, said, err = call(capsys, "impute", table, "--out", out, *words)
    assert code == 0, err
    return table.read_bytes(), out.read_bytes(), said


def test_impute_fills_in_what_is_missing_and_nothing_else(folder, tmp_path, capsys):
    *_, said = filled(capsys, folder / "gaps.csv", tmp_path / "out.csv")
    assert said.splitlines() == [
        f"{tmp_path / 'out.csv'}: 20 of 20 missing cells filled in, by column:",
        *(f"  {name:6}  4" for name in ["age", "income", "city", "smoker", "kids"]),
    ]
    as_text = {"dtype": str, "keep_default_na": False}
    one = pandas.read_csv(folder / "gaps.csv", **as_text)
    two = pandas.read_csv(tmp_path / "out.csv", **as_text)
    assert list(one) == list(two)
    known = (one != "").to_numpy()
    assert (one.to_numpy()[known] == two.to_numpy()[known]).all()
    new = {name: two[name][one[name] == ""] for name in one}
    assert set(new["smoker"]) <= {"TRUE", "FALSE"}  # as the column writes them
    assert set(new["city"]) <= {"Oslo", "Rome", "Lima, Peru"}
    assert all(word.isdecimal() for word in [*new["age"], *new["kids"]])  # whole numbers stay whole
    assert all(float(word) > 0 for word in new["income"])


def test_impute_by_a_trained_model_gives_the_model_s_means(folder, tmp_path, capsys, no_pictures):
    assert train(capsys, folder / "gaps.csv", tmp_path / "run")[0] == 0
    out = tmp_path / "out.csv"
    filled(capsys, folder / "gaps.csv", out, "--from", tmp_path / "run")
    model = minivae.load(tmp_path / "run" / "model.safetensors")
    X = datasets.read(folder / "gaps.csv")
    expected, found = model.impute(X), datasets.read(out)
    np.testing.assert_allclose(found["income"], expected["income"], rtol=1e-5)  # six digits
    assert found["city"].astype(str).tolist() == expected["city"].astype(str).tolist()


def test_impute_keeps_the_form_of_a_text(tmp_path, capsys):
    """Separator, decimal mark, quotation marks, blank lines, ends of lines, the mark of UTF-8."""
    rows = ["\ufeffa;b;c", '1,5;"x ""y""";TRUE', ";;FALSE", "", '2,25;"z;w";', '3,5; ? ;TRUE',
            '-7,5;"z;w";NA']  # fmt: skip
    (tmp_path / "in.csv").write_bytes("\r\n".join(rows).encode())
    _, after, _ = filled(capsys, tmp_path / "in.csv", tmp_path / "out.csv")
    lines = after.decode().split("\r\n")
    assert [lines[i] for i in (0, 1, 3)] == [rows[i] for i in (0, 1, 3)]
    a, b, c = lines[2].split(";", 1)[0], lines[2], lines[2].rsplit(";", 1)[1]
    assert "," in a and "." not in a and -7.5 <= float(a.replace(",", ".")) <= 3.5
    words = '"x ""y"""', '"z;w"'
    assert b in [f"{a};{word};FALSE" for word in words] and c == "FALSE"
    assert lines[4] in [f'2,25;"z;w";{truth}' for truth in ("TRUE", "FALSE")]
    assert lines[5] in [f"3,5; {word} ;TRUE" for word in words]
    assert lines[6] in [f'-7,5;"z;w";{truth}' for truth in ("TRUE", "FALSE")]


def test_impute_says_if_nothing_is_missing_and_copies(folder, tmp_path, capsys):
    before, after, said = filled(capsys, folder / "whole.csv", tmp_path / "out.csv")
    assert before == after and said.count("\n") == 1 and "no cell of " in said


def test_impute_leaves_columns_without_a_model_empty(tmp_path, capsys):
    rows = [f"{i if i else ''},{i % 3},{'' if i == 5 else i * i},,k" for i in range(12)]
    (tmp_path / "in.csv").write_text("\n".join(["n,a,b,nothing,k", *rows]) + "\n")
    _, after, said = filled(capsys, tmp_path / "in.csv", tmp_path / "out.csv", "--schema",
                            "n=ignore", *TINY)  # fmt: skip
    assert "1 of 14 missing cells filled in" in said
    assert "  nothing  0, 12 stay empty: the model has nothing to say of them\n" in said
    assert after.decode().splitlines()[1] == ",0,0,,k"


def test_impute_keeps_the_types_and_the_index_of_parquet(tmp_path, capsys):
    frame = people(True).set_index("id")
    frame = frame.astype({"age": "Int64", "kids": "Int8", "income": "float32", "planet": "string"})
    frame["smoker"] = (frame["smoker"] == "TRUE").astype("boolean").mask(frame["smoker"].isna())
    frame["city"] = frame["city"].astype("category")
    frame.to_parquet(tmp_path / "in.parquet")
    before = pandas.read_parquet(tmp_path / "in.parquet")
    filled(capsys, tmp_path / "in.parquet", tmp_path / "out.parquet")
    after = pandas.read_parquet(tmp_path / "out.parquet")
    assert after.isna().sum().sum() == 0 and before.isna().sum().sum() == 20
    pandas.testing.assert_index_equal(before.index, after.index)
    known = before.notna()
    for name in before:
        column = after[name].cat.categories if name == "city" else after[name]
        assert (
            column.dtype == (before[name].cat.categories if name == "city" else before[name]).dtype
        )
        assert after[name][known[name]].tolist() == before[name][known[name]].tolist()


# --- pictures -------------------------------------------------------------------------------------


def test_a_table_has_pictures_of_its_columns(folder, tmp_path, capsys):
    from shell import ALWAYS, assert_picture

    assert train(capsys, folder / "gaps.csv", tmp_path / "run")[0] == 0
    found = {path.name for path in (tmp_path / "run").iterdir()}
    assert found == ALWAYS | {"latent.png", "correlations.png", "imputed.png"}
    for path in (tmp_path / "run").glob("*.png"):
        assert_picture(path)


def test_columns_left_out_are_in_no_picture(folder, tmp_path, capsys, no_pictures):
    assert train(capsys, folder / "gaps.csv", tmp_path / "run")[0] == 0
    model = minivae.load(tmp_path / "run" / "model.safetensors")
    X, names = tables.learned(model, datasets.read(folder / "gaps.csv"))
    assert list(X) == names == ["age", "income", "city", "smoker", "kids"]
