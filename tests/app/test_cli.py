"""The command line: what each command writes and prints, what it refuses, and how it ends."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

import minivae
from minivae import backend, cli, commands, datasets, runs

TINY = "--hidden 5 --epochs 2 --batch-size 8 --device reference".split()
STARTED = {"checkpoint.safetensors", "history.json"}
ALWAYS = {"model.safetensors", "best.safetensors", "learning_curve.png", "reconstructions.png"}
ALWAYS |= {"samples.png"} | STARTED
COMMAND_NAMES = [command.__name__ for command in cli.COMMANDS]


def call(capsys, *words):
    """Exit code, stdout, stderr of a command, run in this process."""
    capsys.readouterr()
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:  # argparse
        code = stop.code
    return code, *capsys.readouterr()


def contents(folder):
    """{name: bytes} of the files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_picture(path):
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 50 and pixels.std() > 0.01, f"{path} is empty"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with data: 20 grey images of 4 x 3 pixels with labels, and a table of 4 columns."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    np.savez(folder / "images.npz", X=rng.integers(0, 256, (20, 4, 3), dtype=np.uint8),
             y=np.arange(20) % 3)  # fmt: skip
    table = rng.normal(3, 2, (12, 4))
    np.savetxt(folder / "table.csv", table, delimiter=",", header="a,b,c,d", comments="")
    return folder


@pytest.fixture(scope="module")
def images(files):
    """A run on the images, Z = 2. Tests that write into it work on a copy."""
    out = files / "images_run"
    assert cli.main(["train", f"{files}/images.npz", "--out", str(out), *TINY]) == 0
    return out


@pytest.fixture(scope="module")
def table(files):
    """A run on the table, Z = 3, Gaussian."""
    out = files / "table_run"
    words = ["train", f"{files}/table.csv", "--out", str(out), *TINY, "--latent-dim", "3"]
    assert cli.main([*words, "--likelihood", "gaussian"]) == 0
    return out


@pytest.fixture
def copy(images, tmp_path):
    return shutil.copytree(images, tmp_path / "run")


# --- train --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "more"), [("images", {"manifold.png", "latent.png"}), ("table", set())]
)
def test_train_leaves_the_model_the_history_and_pictures(run, more, request):
    folder = request.getfixturevalue(run)
    assert {path.name for path in folder.iterdir()} == ALWAYS | more
    for picture in folder.glob("*.png"):
        assert_picture(picture)


def test_history_says_what_the_run_was(images, files):
    facts = json.loads((images / "history.json").read_text())
    vae = minivae.VAE.load(images / "model.safetensors")
    test = datasets.load(files / "images.npz").test
    assert facts.pop("history") == {n: v for n, v in vae.history_.items() if n != "seconds"}
    assert facts == {
        "data": f"{files}/images.npz",
        "data_dir": None,
        "test_fraction": 0.1,
        "seed": 0,
        "image_shape": [4, 3],
        "minivae": minivae.__version__,
        "held_out_elbo": vae.elbo(test, n_samples=10, random_state=0).mean(),
    }


def test_train_does_what_the_estimator_does_with_the_same_settings(files, tmp_path, capsys):
    words = """--latent-dim 3 --hidden 4,3 --activation tanh --binarize threshold --beta 0.5
        --optimizer sgd --learning-rate 0.01 --momentum 0.5 --weight-decay 0.001 --batch-size 7
        --epochs 3 --dtype float64 --device reference --n-threads 1 --test-fraction 0.3 --seed 5"""
    settings = dict(
        latent_dim=3, hidden_layer_sizes=(4, 3), activation="tanh", binarize="threshold", beta=0.5,
        optimizer="sgd", learning_rate=0.01, momentum=0.5, weight_decay=0.001, batch_size=7,
        epochs=3, dtype="float64", device="reference", n_threads=1, random_state=5,
    )  # fmt: skip
    run = tmp_path / "new" / "run"  # with the folder above it
    code, out, err = call(
        capsys, "train", files / "images.npz", "--out", run, "--quiet", *words.split()
    )
    assert (code, err) == (0, "")
    assert "held-out ELBO -" in out and str(run) in out
    loaded = minivae.VAE.load(run / "model.safetensors")
    expected = minivae.VAE(**settings)
    assert loaded.get_params() == expected.get_params()
    data = datasets.load(files / "images.npz", test_fraction=0.3)
    expected.fit(data.train, X_valid=data.test)
    for name, array in expected.parameters_.items():
        np.testing.assert_array_equal(loaded.parameters_[name], array)


def test_the_defaults_are_those_of_the_estimator():
    args = cli.make_parser().parse_args(["train", "--out", "x"])
    estimator = minivae.VAE().get_params()
    options = {name: getattr(args, name) for name in estimator if hasattr(args, name)}
    assert options.pop("epochs") is None  # depends on the data
    assert estimator.keys() - options.keys() == {"epochs", "posterior", "random_state", "verbose"}
    assert options == {name: estimator[name] for name in options}
    assert set(cli.OPTIONS["--device"][0]) == set(backend.DEVICES)


def test_digits_are_the_default_data_and_few_rows_have_more_epochs(
    files, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(commands, "EPOCHS", 2)
    monkeypatch.setattr(commands, "UPDATES", 30)  # digits have 13 batches
    for data, epochs in ([], 3), ([files / "images.npz"], 30):
        run = tmp_path / str(epochs)
        words = "--hidden 2 --device reference".split()
        code, out, err = call(capsys, "train", *data, "--out", run, *words)
        assert code == 0 and f"{epochs} epochs in" in out
        history = json.loads((run / "history.json").read_text())["history"]
        assert len(history["valid_elbo"]) == epochs
    assert "images.npz: 18 rows to train on, 2 held out" in err
    assert "VAE 12-2-2-2-12" in err and "80 parameters" in err  # 26 + 12 + 6 + 36
    assert "cross-entropy" in err  # the images are grey
    assert f"epoch {epochs}" in err and "100%" in err  # the progress bar


def test_no_hidden_layer_two_rows_and_images_from_a_table(tmp_path, capsys):
    np.save(tmp_path / "two.npy", np.eye(2, 6))
    words = ["--hidden", "", "--image-shape", "2x3", "--epochs", 1, "--device", "reference"]
    code, _, err = call(capsys, "train", tmp_path / "two.npy", "--out", tmp_path / "run", *words)
    assert code == 0 and "VAE 6-2-6" in err
    assert "cross-entropy" not in err  # zeros and ones
    assert_picture(tmp_path / "run" / "manifold.png")


def test_a_folder_in_use_is_left_alone(copy, files, capsys):
    (copy / "notes.txt").write_text("mine")
    before = contents(copy)
    train = ["train", files / "table.csv", "--out", copy, "--likelihood", "gaussian", *TINY]
    code, out, err = call(capsys, *train)
    assert (code, out) == (2, "")
    assert "--out" in err and str(copy) in err and "--overwrite" in err
    assert contents(copy) == before


def test_overwrite_replaces_a_run_and_nothing_else(copy, files, capsys):
    (copy / "notes.txt").write_text("mine")
    (copy / "codes.npy").write_text("mine too")
    before = contents(copy)
    train = ["train", files / "table.csv", "--out", copy, "--likelihood", "gaussian", *TINY]
    assert call(capsys, *train, "--latent-dim", 3, "--overwrite")[0] == 0
    after = contents(copy)
    # The pictures of two latent variables would now be of another model.
    assert after.keys() == ALWAYS | {"notes.txt", "codes.npy"}
    assert {name for name in after if after[name] == before[name]} == {"notes.txt", "codes.npy"}


@pytest.mark.parametrize("name", ["", "model.safetensors", "history.json", "manifold.png"])
def test_what_is_not_a_plain_file_is_not_replaced(name, files, tmp_path, capsys):
    if name == "history.json":
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / name).symlink_to("elsewhere")
    elif name:
        (tmp_path / "run" / name).mkdir(parents=True)
    else:
        (tmp_path / "run").write_text("a file")
    train = ["train", files / "images.npz", "--out", tmp_path / "run", "--overwrite", *TINY]
    code, out, err = call(capsys, *train)
    assert (code, out) == (2, "")
    assert f"--out: {tmp_path / 'run' / name} is in the way" in err
    assert [path.name for path in tmp_path.rglob("*")] == ["run"] + [name] * bool(name)


def test_an_interrupted_run_ends_with_130_and_one_line(files, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("minivae.estimator.train", interrupted)
    train = ["train", files / "images.npz", "--out", tmp_path / "run", "--quiet", *TINY]
    assert call(capsys, *train) == (130, "", "minivae: interrupted\n")
    assert contents(tmp_path / "run").keys() == STARTED


def test_a_diverged_run_ends_with_1_and_one_line(files, tmp_path, capsys):
    words = "--likelihood gaussian --learning-rate 1e300 --dtype float64 --optimizer sgd --quiet"
    train = ["train", files / "table.csv", "--out", tmp_path / "run", *words.split(), *TINY]
    code, out, err = call(capsys, *train)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("minivae: error: the loss became") and "learning_rate below 1e+300" in err
    assert contents(tmp_path / "run").keys() == STARTED
    assert minivae.VAE.load(tmp_path / "run" / "checkpoint.safetensors").history_ == {"seconds": []}


# --- using a run --------------------------------------------------------------------------------


def test_sample(copy, capsys):
    vae = minivae.VAE.load(copy / "model.safetensors")
    before = imread(copy / "samples.png")
    code, out, _ = call(capsys, "sample", copy, "-n", 9, "--seed", 3)
    assert (code, out) == (0, f"{copy / 'samples.png'}: 9 samples\n")
    assert imread(copy / "samples.png").shape != before.shape  # 3 x 3 images instead of 10 x 10
    assert call(capsys, "sample", copy, "-n", 7, "--seed", 3, "--out", copy / "x.npy")[0] == 0
    np.testing.assert_array_equal(np.load(copy / "x.npy"), vae.sample(7, random_state=3))


def test_reconstruct_encode_and_decode_agree_with_the_estimator(copy, files, capsys):
    vae = minivae.VAE.load(copy / "model.safetensors")
    held_out = datasets.load(files / "images.npz").test
    rows = np.load(files / "images.npz")["X"].reshape(20, 12) / np.float32(255)
    # By default the held-out rows of the run's data; of a file all rows, in order.
    for data, X in ([], held_out), ([files / "images.npz"], rows):
        code, out, _ = call(capsys, "encode", copy, *data)
        assert code == 0 and str(copy / "codes.npy") in out and f"{len(X)} " in out
        codes = np.load(copy / "codes.npy")
        np.testing.assert_array_equal(codes, vae.transform(X))
        assert call(capsys, "reconstruct", copy, *data, "--out", copy / "Y.npy")[0] == 0
        np.testing.assert_array_equal(np.load(copy / "Y.npy"), vae.reconstruct(X))
        assert call(capsys, "decode", copy, copy / "codes.npy")[0] == 0
        np.testing.assert_array_equal(np.load(copy / "decoded.npy"), vae.reconstruct(X))
    for words in ["reconstruct", copy], ["decode", copy, copy / "codes.npy"]:
        assert call(capsys, *words, "--out", copy / "Y.png")[0] == 0
        assert_picture(copy / "Y.png")


def test_codes_survive_a_csv_file_exactly(copy, capsys):
    vae = minivae.VAE.load(copy / "model.safetensors")
    assert call(capsys, "encode", copy, "--out", copy / "codes.csv")[0] == 0
    assert call(capsys, "encode", copy, "--out", copy / "codes.npy")[0] == 0
    assert (copy / "codes.csv").read_text().startswith("z1,z2\n")
    assert call(capsys, "decode", copy, copy / "codes.csv")[0] == 0
    expected = vae.inverse_transform(np.load(copy / "codes.npy"))
    np.testing.assert_array_equal(np.load(copy / "decoded.npy"), expected)


def test_a_data_set_by_name_gives_its_held_out_rows(tmp_path, capsys):
    train = ["train", "--out", tmp_path / "run", "--hidden", 2, "--epochs", 1, "--quiet"]
    assert call(capsys, *train, "--device", "reference")[0] == 0
    for data in [], ["digits"]:
        assert call(capsys, "encode", tmp_path / "run", *data)[0] == 0
        codes = np.load(tmp_path / "run" / "codes.npy")
        vae = minivae.VAE.load(tmp_path / "run" / "model.safetensors")
        np.testing.assert_array_equal(codes, vae.transform(datasets.load("digits").test))


@pytest.mark.parametrize(("run", "grey"), [("images", True), ("table", False)])
def test_score(run, grey, request, capsys):
    folder = request.getfixturevalue(run)
    vae = minivae.VAE.load(folder / "model.safetensors")
    data = json.loads((folder / "history.json").read_text())["data"]
    X = np.load(data)["X"].reshape(20, 12) / np.float32(255) if grey else cli.datasets.read(data)
    code, out, err = call(capsys, "score", folder, data, "--n-samples", 5)
    assert code == 0
    assert ("cross-entropy" in err, err.count("\n")) == (grey, int(grey))
    first, log_likelihood, elbo = out.splitlines()
    assert first.startswith(f"{len(X)} rows of {data}") and "nats" in first
    with pytest.warns(UserWarning, match="cross-entropy") if grey else contextlib.nullcontext():
        values = vae.score_samples(X, 5)
    error = values.std(ddof=1) / np.sqrt(len(X))
    assert f"{values.mean():.2f} +- {error:.2f}" in log_likelihood
    values = vae.elbo(X, 5, random_state=0)
    error = values.std(ddof=1) / np.sqrt(len(X))
    assert f"{values.mean():.2f} +- {error:.2f}" in elbo


def test_gradcheck_tells_right_from_wrong(tmp_path, capsys, monkeypatch):
    X, model = np.eye(4), tmp_path / "linear.safetensors"
    np.save(tmp_path / "X.npy", X)
    settings = dict(hidden_layer_sizes=(), device="reference", epochs=1, random_state=0)
    minivae.VAE(1, **settings).fit(X).save(model)
    gradcheck = ["gradcheck", model, tmp_path / "X.npy", "--rows", 3, "--max-coordinates", 3]
    code, out, err = call(capsys, *gradcheck)
    assert code == 0 and "PASSED" in out and "the first 3 of 4 rows" in err
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "20 directions" in lines["encoder.mu.weight"]  # (4, 1)
    assert "1 coordinates" in lines["encoder.mu.bias"]
    right = minivae.vae.evaluation.losses_and_gradient

    def wrong(*args):
        losses, gradient = right(*args)
        return losses, 1.001 * gradient

    monkeypatch.setattr(minivae.vae.evaluation, "losses_and_gradient", wrong)
    code, out, _ = call(capsys, *gradcheck)
    assert code == 1 and "FAILED" in out


def test_a_run_whose_data_have_moved_says_so(copy, capsys):
    facts = json.loads((copy / "history.json").read_text())
    (copy / "history.json").write_text(json.dumps(facts | {"data": "gone.npy"}))
    code, out, err = call(capsys, "score", copy)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "DATA is needed: history.json names gone.npy" in err


def test_info(table, capsys):
    code, out, err = call(capsys, "info", table)
    assert (code, err) == (0, "")
    vae = minivae.VAE.load(table / "model.safetensors")
    n_parameters = sum(array.size for array in vae.parameters_.values())
    assert f"{(table / 'model.safetensors').stat().st_size} bytes" in out
    assert f"VAE 4-5-3-5-4, relu, gaussian likelihood, {n_parameters} parameters, 2 epochs" in out
    for name, array in vae.parameters_.items():
        assert f"  {name:22} float32 {array.shape}\n" in out
    assert f"{vae.history_['elbo'][-1]:.6g} in the last epoch" in out


def test_a_model_file_from_python_needs_its_data_named(images, files, tmp_path, capsys):
    model = shutil.copy(images / "model.safetensors", tmp_path / "mine.safetensors")
    assert call(capsys, "info", model)[0] == 0
    code, out, err = call(capsys, "encode", model)
    assert (code, out) == (2, "") and "DATA" in err
    assert call(capsys, "encode", model, files / "images.npz")[0] == 0
    assert np.load(tmp_path / "codes.npy").shape == (20, 2)
    assert call(capsys, "sample", model)[0] == 0  # histograms: nothing says that these are images
    histograms = imread(tmp_path / "samples.png")
    assert call(capsys, "sample", model, "--image-shape", "4x3")[0] == 0
    assert imread(tmp_path / "samples.png").shape != histograms.shape


def test_a_history_that_is_not_one_is_refused(copy, capsys):
    for text in "{", "5", "[" * 100_000, '{"data": 5}', '{"data": "digits", "test_fraction": "x"}':
        (copy / "history.json").write_text(text)
        code, out, err = call(capsys, "encode", copy)
        assert (code, out, err.count("\n")) == (2, "", 1)


# --- refusals and ends --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "COMMAND"),
        ("learn", "COMMAND"),
        ("train", "--out"),
        ("train --out new --lat 3", "--lat"),  # no abbreviations: they would break with new options
        ("train --out new --latent-dim 0", "--latent-dim: expected a whole number from 1, got '0'"),
        ("train --out new --hidden 5,", "--hidden"),
        ("train --out new --hidden 5,-1", "--hidden"),
        ("train --out new --activation gelu", "--activation"),
        ("train --out new --likelihood poisson", "--likelihood"),
        ("train --out new --binarize yes", "--binarize"),
        ("train --out new --beta -1", "beta"),
        ("train --out new --beta much", "--beta"),
        ("train --out new --optimizer lbfgs", "--optimizer"),
        ("train --out new --learning-rate 0", "learning_rate"),
        ("train --out new --learning-rate inf", "learning_rate"),
        ("train --out new --momentum 1", "momentum"),
        ("train --out new --weight-decay nan", "weight_decay"),
        ("train --out new --batch-size 1.5", "--batch-size"),
        ("train --out new --epochs 0", "--epochs"),
        ("train --out new --dtype float16", "--dtype"),
        ("train --out new --device tpu", "--device"),
        ("train --out new --device cuda", "--device cuda cannot be used: "),
        ("train --out new --n-threads 0", "--n-threads"),
        ("train --out new --seed -1", "--seed"),
        ("train --out new --image-shape 8", "--image-shape"),
        ("train --out new --image-shape 8x9", "image_shape"),
        ("train --out new --test-fraction 1", "test_fraction"),
        ("train --out new --likelihood gaussian --binarize threshold", "--binarize threshold"),
        ("train nothing.csv --out new", "nothing.csv"),
        ("train nothing.txt --out new", "nothing.txt"),
        ("train mnist --data-dir nowhere --out new", "--data-dir"),
        ("train {files}/table.csv --out new", "table.csv: X has values from"),
        ("sample nowhere", "DIR: there is no nowhere"),
        ("sample {files}/table.csv", "table.csv"),
        ("sample {images} -n 0", "-n"),
        ("sample {images} --out new.gif", "--out must end in .png or .npy"),
        ("sample {images} --out nowhere/new.npy", "nowhere/new.npy"),
        ("sample {images} --image-shape 5x5 --out new.png", "image_shape"),
        ("reconstruct {images} --out new.csv", "--out must end in .png or .npy"),
        ("reconstruct {images} {files}/table.csv", "table.csv: X has 4 features"),
        ("encode {images} {files}/more.npy", "more.npy: X has 13 features"),
        ("encode {images} --out new.png", "--out must end in .npy or .csv"),
        ("decode {images}", "CODES"),
        ("decode {images} nothing.npy", "nothing.npy"),
        ("decode {images} {files}/table.csv", "table.csv: Z has 4 columns"),
        ("score {images} --n-samples 0", "--n-samples"),
        ("gradcheck {images} --rows 0", "--rows"),
        ("info {images} more", "more"),
        ("impute", "impute is not built yet"),
        ("impute {images} table.csv", "impute is not built yet"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(
    words, message, files, images, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    np.save(files / "more.npy", np.zeros((2, 13)))
    before = contents(images)
    code, out, err = call(capsys, *words.format(files=files, images=images).split(), *[])
    assert (code, out) == (2, "")
    error = err.splitlines()[-1]
    assert error.startswith("minivae: error: ") and message in error
    assert "Traceback" not in err
    assert contents(images) == before and not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_help_lists_the_commands_and_each_has_a_purpose_and_an_example(capsys):
    code, out, err = call(capsys, "--help")
    assert (code, err) == (0, "")
    for name in COMMAND_NAMES:
        assert f"\n    {name}" in out
    assert "impute" not in out
    assert call(capsys, "--version") == (0, f"minivae {minivae.__version__}\n", "")


@pytest.mark.parametrize("name", COMMAND_NAMES)
def test_the_example_of_a_command_is_one(name, capsys):
    code, out, err = call(capsys, name, "--help")
    assert (code, err) == (0, "")
    purpose = out.split("\n\n")[1]
    assert purpose.endswith(".") and "\n" not in purpose
    example = shlex.split(out.partition("example:\n")[2])
    assert example[:2] == ["minivae", name]
    cli.make_parser().parse_args(example[1:])  # or SystemExit
    options = out.partition("options:\n")[2].partition("example:")[0]
    assert "None" not in options and "False" not in options  # as defaults they say nothing


def test_help_and_version_are_light():
    heavy = "cupy matplotlib numba pandas pooch scipy sklearn tqdm".split()
    code = f"""
import sys
from minivae.cli import main
for words in ["--help"], ["--version"], ["train", "--help"]:
    try:
        main(words)
    except SystemExit as stop:
        assert stop.code == 0
print("loaded:", *sorted(set(sys.modules) & set({heavy})))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.endswith("loaded:\n")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_who_has_gone_is_no_error(images):
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from minivae.cli import main; sys.exit(main())"
    run = subprocess.run(
        [sys.executable, "-c", code, "info", images],
        stdout=writer, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    assert (run.returncode, run.stderr) == (1, "")


def test_cupy_without_a_device_does_not_disturb_the_cpu(files, tmp_path):
    (tmp_path / "cupy.py").write_text(
        "class ndarray:\n    pass\n\n"
        "def is_available():\n    return False\n\n"
        "def __getattr__(name):\n"
        "    if name.startswith('__'):\n        raise AttributeError(name)\n"
        "    raise RuntimeError('cudaErrorNoDevice: no CUDA-capable device is detected')\n"
    )
    run = f"{tmp_path}/run"
    train = ["train", f"{files}/images.npz", "--hidden", "3", "--epochs", "2", "--out", run]
    commands = [*train, "--device", "auto"], ["sample", run], ["encode", run], ["score", run]
    code = f"import cupy; from minivae.cli import main; print([main(w) for w in {commands}])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )  # where -c looks first for cupy
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[0, 0, 0, 0]\n"), done.stderr


# --- going on with a run ------------------------------------------------------------------------


def test_resume_refuses_other_options_with_a_list_of_them(copy, files, capsys):
    before = contents(copy)
    words = [
        "--learning-rate",
        0.5,
        "--hidden",
        "7,3",
        "--seed",
        9,
        "--epochs",
        1,
        "--n-threads",
        2,
    ]
    code, out, err = call(capsys, "train", "digits", "--out", copy, "--resume", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    for words in (
        f"--data was '{files}/images.npz', and is now 'digits'",
        "--learning-rate was 0.001, and is now 0.5",
        "--hidden was (5,), and is now (7, 3)",
        "--seed was 0, and is now 9",
        "--epochs is 1, and 2 have begun",
    ):
        assert words in err
    assert "--n-threads" not in err  # results do not depend on it
    assert contents(copy) == before


def test_resume_refuses_other_rows_under_the_same_name(files, tmp_path, capsys):
    table = shutil.copy(files / "table.csv", tmp_path / "table.csv")
    train = ["train", table, "--out", tmp_path / "run", "--likelihood", "gaussian", *TINY]
    assert call(capsys, *train)[0] == 0
    before = contents(tmp_path / "run")
    rows = np.loadtxt(table, delimiter=",", skiprows=1)
    np.savetxt(table, rows[:-1], delimiter=",")
    code, out, err = call(capsys, "train", "--out", tmp_path / "run", "--resume", "--quiet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "resume needs the data that fit was given: X was" in err
    assert contents(tmp_path / "run") == before


def test_resume_needs_no_option_again_and_may_add_epochs(copy, files, capsys):
    settings = minivae.VAE.load(copy / "model.safetensors").get_params()
    code, out, err = call(capsys, "train", "--out", copy, "--resume", "--epochs", 5)
    assert code == 0 and "going on after 2 of 5 epochs" in err
    assert "5 epochs, 3 of them now, in" in out
    model = minivae.VAE.load(copy / "model.safetensors")
    assert model.get_params() == {**settings, "epochs": 5}
    whole = files / "five_epochs"
    assert call(capsys, "train", files / "images.npz", "--out", whole, *TINY, "--epochs", 5)[0] == 0
    assert contents(copy) == contents(whole)


def test_resume_where_there_is_nothing_begins(files, tmp_path, images, capsys):
    train = ["train", files / "images.npz", "--out", tmp_path / "run", *TINY, "--resume"]
    code, _, err = call(capsys, *train)
    assert code == 0 and f"nothing to resume in {tmp_path / 'run'}: a new run" in err
    assert contents(tmp_path / "run") == contents(images)


def test_resume_of_a_complete_run_changes_nothing(copy, images, capsys):
    assert call(capsys, "train", "--out", copy, "--resume")[0] == 0
    assert contents(copy) == contents(images)


def test_resume_does_not_take_a_folder_with_other_things(files, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    train = ["train", files / "images.npz", "--out", tmp_path, *TINY, "--resume"]
    code, _, err = call(capsys, *train)
    assert code == 2 and "is not empty" in err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_runs_in_one_folder_are_refused(files, tmp_path, capsys):
    train = ["train", files / "images.npz", "--out", tmp_path, *TINY]
    with runs.alone_in(tmp_path):
        code, _, err = call(capsys, *train, "--quiet")
    assert code == 2 and err.endswith(f"--out: another minivae train is at work in {tmp_path}\n")
    assert list(tmp_path.iterdir()) == []
    assert call(capsys, *train)[0] == 0


def test_a_run_that_is_not_complete_says_how_to_go_on(copy, capsys):
    (copy / "model.safetensors").unlink()
    code, _, err = call(capsys, "sample", copy)
    assert code == 2 and f"minivae train --resume --out {copy}" in err
    assert call(capsys, "sample", copy / "checkpoint.safetensors")[0] == 0  # as it advises
    assert_picture(copy / "samples.png")


def test_resume_finds_data_that_moved_by_what_is_in_them(copy, files, tmp_path, capsys):
    moved = shutil.copy(files / "images.npz", tmp_path / "moved.npz")
    train = ["train", moved, "--out", copy, "--resume", "--epochs", 3, "--quiet"]
    assert call(capsys, *train)[0] == 0
    assert json.loads((copy / "history.json").read_text())["data"] == str(moved)


def test_resume_of_what_python_trained_says_how_to_go_on(tmp_path, capsys):
    X = np.random.default_rng(0).random((20, 6))
    settings = dict(hidden_layer_sizes=(3,), epochs=1, device="reference")
    minivae.VAE(**settings).fit(X, checkpoints=tmp_path / "mine")
    code, _, err = call(capsys, "train", "--resume", "--out", tmp_path / "mine")
    assert code == 2 and "does not say what the data were" in err and ".resume(X)" in err


def test_resume_does_not_train_on_other_data_than_the_run_was_begun_with(files, tmp_path, capsys):
    """A run that was killed before its first checkpoint has only its history."""
    (tmp_path / "run").mkdir()
    runs.write_history(tmp_path / "run", {"data": f"{files}/images.npz"})
    code, _, err = call(capsys, "train", "--resume", "--out", tmp_path / "run")
    assert code == 2 and f"was begun with the data {files}/images.npz" in err
    train = ["train", files / "images.npz", "--resume", "--out", tmp_path / "run", *TINY]
    assert call(capsys, *train)[0] == 0


def test_epochs_that_have_begun_are_not_cut_off(copy, files, capsys, monkeypatch):
    vae = minivae.VAE.load(copy / "checkpoint.safetensors")
    data = datasets.load(files / "images.npz")
    count = iter([False] * 2 + [True] * 9)
    monkeypatch.setattr(
        "minivae.training.put_off", lambda *n: contextlib.nullcontext(lambda: next(count))
    )
    monkeypatch.setattr("minivae.interrupts.CHUNK_SECONDS", 0.0)
    vae.set_params(epochs=3).resume(data.train, X_valid=data.test, checkpoints=copy)
    assert 0 < minivae.VAE.load(copy / "checkpoint.safetensors")._state.rows < 18
    monkeypatch.undo()
    code, _, err = call(capsys, "train", "--resume", "--out", copy, "--epochs", 2)
    assert code == 2 and "--epochs is 2, and 3 have begun" in err


def test_a_checkpoint_that_changed_meanwhile_is_not_overwritten(copy, capsys, monkeypatch):
    """Another `train --resume` may have gone on while this one read its data."""
    load = datasets.load

    def slowly(*words):
        data = load(*words)
        minivae.VAE.load(copy / "checkpoint.safetensors").set_params(epochs=4).resume(
            data.train, X_valid=data.test, checkpoints=copy
        )
        return data

    monkeypatch.setattr(datasets, "load", slowly)
    code, _, err = call(capsys, "train", "--resume", "--out", copy, "--epochs", 3, "--quiet")
    assert code == 2 and "another minivae train was at work" in err
    assert len(minivae.VAE.load(copy / "checkpoint.safetensors").history_["loss"]) == 4
