"""What is refused, for `test_bad_input.py`: one entry for each row of docs/bad-input.md."""

import datetime
import os
from functools import partial

import numpy as np
from scipy import sparse
from sklearn.exceptions import NotFittedError
from worlds import (
    NAMES,
    NORMAL,
    CommandError,
    X,
    at_the_last_step,
    call,
    checkpoints_at,
    command,
    data,
    diverges,
    each,
    filled_meanwhile,
    fit_on_full_disk,
    flipped,
    foreign,
    frame,
    give,
    in_the_midst,
    in_use,
    load,
    load_by_another_class,
    load_pipe,
    mapped,
    no_compiler,
    no_gpu,
    of_named_table,
    of_schema,
    of_table,
    other_architecture,
    removed_folder,
    reordered_held_out,
    save_at,
    save_on_full_disk,
    save_without_permission,
    unknown_family,
    use,
    with_NA,
)

import minivae
from minivae import StorageError
from minivae.models import MODELS, find


def families(group):
    """Names of the families that an entry is for: "all", some by name, "with" a setting, "of bits",
    which take 0 and 1 alone, in rows of any width, or "without codes"."""
    if group == "all":
        return tuple(MODELS)
    if group.startswith("with "):
        return tuple(name for name in MODELS if group[5:] in find(name).SETTINGS)
    if group == "of bits":
        images = families("with image_shape")
        bits = (name for name in families("with binarize") if not find(name).takes_tables)
        return tuple(name for name in bits if name not in images)
    if group == "without codes":
        return tuple(name for name in MODELS if not hasattr(find(name), "transform"))
    return tuple(group.split(", "))


# fmt: off
ALL, VAES, FLOWS, RBMS, PIXELS = "all", "vae", "flow", "rbm", "pixelcnn"
WAVENETS, RNNS, GANS = "wavenet", "pixelrnn", "gan"
GAUSSIAN = dict(likelihood="gaussian")  # for families that have it
def in_parts(values):
    """A csr matrix (24, 5) whose first entry is the sum of two."""
    values = np.float32(values)  # with another dtype, SciPy would add them up when it converts them
    return sparse.csr_array((values, [0, 0], [0, 2] + [2] * 23), shape=(24, 5))


def sparse_halves(df):
    """A data frame whose columns keep what is not 0.5."""
    from pandas import SparseDtype

    return df.astype(SparseDtype(np.float32, 0.5))


MASKED = np.ma.masked_array(X, mask=X > 0.9)
AGAIN = ("partial_fit", "use", "X_valid")  # after a fit, which may make another model of other data
NEW = "train X.npy --model {family} --out new "
REFUSED = [  # what is given; to which models; what the message names; the exception; the message;
    # ways to give it
    ("text that is no number", ALL, "X", ValueError, "convert string to float: .*'a'",
        give(np.full((24, 5), "a"))),
    ("objects that are no numbers", ALL, "X", TypeError, "'dict'", give(np.full((24, 5), {},
        object))),
    ("None among numbers", ALL, "X", ValueError, "NaN or inf.* in 1 of 120 entries, first in row 2",
        give([[*row[:4], None] if i == 2 else list(row) for i, row in enumerate(X)])),
    ("complex numbers", ALL, "X", ValueError, "Complex data not supported", give(X + 1j)),
    ("dates and times among objects, in lists or as categories", ALL, "X", TypeError,
        "dates or times", [
        *give([[np.datetime64("2020-01-01"), 0.5, 0, 0, 0]]),
        *give([[np.timedelta64(1, "s")] * 5] * 2),
        *give(np.full((24, 5), datetime.timedelta(0), object)),
        *give(frame(lambda df: df.assign(a=datetime.date(2020, 1, 1)))),
        *give(frame(lambda df: df.assign(a=np.datetime64("2020-01-01", "s")).astype(
            {"a": "category"})))]),
    ("dates and times", ALL, "X", (TypeError, ValueError), "datetime64|timedelta64", [
        *give(np.full((24, 5), np.datetime64("2020-01-01")), GAUSSIAN),
        *give(np.full((24, 5), np.timedelta64(3, "s")), GAUSSIAN)]),
    ("records (a structured array)", ALL, "X", (TypeError, ValueError), "dtype",
        give(np.zeros(4, "f4,f4"))),
    ("NaN", ALL, "X", ValueError, "NaN or inf.* in 120 of 120 entries, first in row 0, column 0",
        give(X * np.nan)),
    ("infinity", ALL, "X", ValueError, "NaN or inf.* in 120 of",
        give(X + np.inf) + give(X - np.inf)),
    ("values outside [0, 1] under a Bernoulli likelihood", ALL, "X", ValueError,
        r"values in \[0, 1", give(X - 0.001) + give(X + 0.001)),
    ("pixels from 0 to 255 under a Bernoulli likelihood", ALL, "X", ValueError, "divide by 255",
        give((X * 255).astype("u1")) + give(mapped((X * 255).astype("u1")))),
    ("numbers beyond the model's dtype", ALL, "X", ValueError, "too large.*float32", [
        *give(NORMAL.astype("f8") * 1e300, GAUSSIAN),
        *give(sparse.csr_array(NORMAL.astype("f8") * 1e300), GAUSSIAN),
        *give(mapped(NORMAL.astype("f8") * 1e300), GAUSSIAN)]),
    ("numbers whose squares are beyond the model's dtype", VAES, "X", FloatingPointError, "scale X",
        call(lambda w: diverges(w, NORMAL * np.float32(1e37), 1e-3))),
    ("one row or column as a Series", ALL, "X", ValueError, "2-dimensional container.*Series", [
        *give(frame(lambda df: df.iloc[0])), *give(frame(lambda df: df["a"]))]),
    ("one row as a flat array", ALL, "X", ValueError, "Expected 2D array, got 1D", give(X[0])),
    ("images as a 3-D array", ALL, "X", ValueError, "with dim 3", give(X[None])),
    ("a single number, or nothing (None)", ALL, "X", ValueError, "2D array, got scalar",
        give(0.5) + give(None, names=["fit", "partial_fit", "use"])),
    ("no rows", ALL, "X", ValueError, r"0 sample\(s\)", give(X[:0])),
    ("no columns", ALL, "X", ValueError, r"0 feature\(s\)", give(X[:, :0])),
    ("rows of different lengths", ALL, "X", ValueError, "inhomogeneous", give([[0.5] * 5,
        [0.5] * 4])),
    ("the name of a file", ALL, "X", ValueError, "could not convert", give("table.csv")),
    ("another number of columns than before", ALL, "X", ValueError, "3 features.* 5",
        give(X[:, :3], names=["partial_fit", "use", "X_valid"])),
    ("a memory map that is not 2-D", ALL, "X", ValueError, r"shape \(5,\)", give(mapped(X[0]))),
    ("a masked array with masked entries", ALL, "X", ValueError, "masked", give(MASKED)),
    ("a sparse matrix with NaN", ALL, "X", ValueError, "NaN or inf",
        give(sparse.csr_array(X * np.nan))),
    ("a data frame with missing values", ALL, "X", ValueError, r"row 3, column 1 \('b'\)",
        give(frame(with_NA, dtype="Float32")) + give(frame(with_NA))),
    ("a data frame of sparse columns whose fill value is not 0", ALL, "X", ValueError,
        "fill value.*to_dense", give(frame(sparse_halves))),
    ("a data frame with a column of text or categories", ALL, "X", ValueError,
        r"to float: 'u' \(column 'b'\)", [
        *give(frame(b="u")), *give(frame(lambda df: df.assign(b="u").astype({"b": "category"})))]),
    ("a data frame with its columns in another order", ALL, "feature names", ValueError,
        "same order",
        give(frame(lambda df: df[NAMES[::-1]]), names=["partial_fit", "use"])),
    ("held-out rows with their columns in another order", ALL, "X_valid", ValueError,
        "same order|feature names", [reordered_held_out]),
    ("a data frame with a column too few", ALL, "feature names", ValueError, "now missing:.*- e",
        give(frame(lambda df: df[NAMES[:4]]), names=["partial_fit", "use"])),
    ("a data frame with a column too many", ALL, "feature names", ValueError, "unseen.*- f",
        give(frame(f=0.5), names=["partial_fit", "use"])),
    ("a data frame with two columns of one name", ALL, "X", ValueError, "'a'",
        give(frame(lambda df: df.set_axis(list("aacde"), axis=1)), names=["fit"])),
    ("a data frame whose column names are numbers other than 0, 1, 2, ...", ALL, "X", ValueError,
        "names are no words, such as (2019|1)", [
        *give(frame(lambda df: df.set_axis([2019, 2020, 2021, 2022, 2023], axis=1))),
        *give(frame(lambda df: df.set_axis(range(5), axis=1)[[1, 0, 2, 3, 4]]))]),
    ("a data frame with column names of several levels", ALL, "X", ValueError,
        "names are no words, such as .'a', 1", give(
        frame(lambda df: df.set_axis([("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)], axis=1)),
        names=["fit", "X_valid"])),
    ("a sparse matrix with an entry in parts whose sum is outside [0, 1]", ALL, "X", ValueError,
        "values from 0 to 1.8", give(in_parts([0.9, 0.9]))),
    ("a data frame whose column names are words and numbers", ALL, "X", TypeError, "'int', 'str'",
        give(frame(lambda df: df.set_axis(["a", 1, "c", "d", "e"], axis=1)), names=["fit"])),

    ("a table of which nothing is known", VAES, "X", ValueError, "no column to learn of .*all miss",
        of_table(lambda rows: np.full(rows.shape, np.nan), ("fit",), schema=None)),
    ("a table with a category, or one of two values, that was not in fit", VAES, "X", ValueError,
        "in row 3 of column (4|5), expected .*no other value was in the table",
        of_table({(3, 4): "purple"}, AGAIN) + of_table({(3, 5): "perhaps"}, AGAIN)),
    ("a table with a word in a column of numbers", VAES, "X", ValueError,
        "'tall' in row 3 of column 0, expected a number", of_table({(3, 0): "tall"}, AGAIN)),
    ("a table with a negative count, or one that is not whole", VAES, "X", ValueError,
        "row 3 of column 2, expected a whole number, 0 or greater",
        of_table({(3, 2): -1.0}) + of_table({(3, 2): 0.5})),
    ("a table with 0 or less in a positive column", VAES, "X", ValueError,
        "row 3 of column 1, expected a number greater than 0",
        of_table({(3, 1): 0.0}) + of_table({(3, 1): -2.0})),
    ("a table with infinity, or numbers beyond 1e300", VAES, "X", ValueError,
        "row 3 of column 0, expected a number within",
        of_table({(3, 0): np.inf}) + of_table({(3, 0): -np.inf}) + of_table({(3, 0): 1e301})),
    ("a table with a column of dates", VAES, "X", ValueError,
        "X has dates or times .* in column 0",
        of_table({(3, 0): datetime.date(2020, 1, 1)})),
    ("a table with a column too few or too many", VAES, "X", ValueError, "X has (6|8) features",
        of_table(lambda rows: rows[:, :6], ("partial_fit", "use"))
        + of_table(lambda rows: np.hstack([rows, rows[:, :1]]), ("partial_fit", "use"))),
    ("a table with its columns in another order, as a data frame", VAES, "feature names",
        ValueError, "same order", of_named_table(lambda df: df[list("bacdefg")])),
    ("a table with two columns of one name, as a data frame", VAES, "X", ValueError,
        "'a'", of_named_table(lambda df: df.set_axis(list("aacdefg"), axis=1), ("fit",))),
    ("schema: a kind that is unknown", VAES, "schema", ValueError,
        "column 0 must be of one of real, .*got 'best'", of_schema({0: "best"})),
    ("schema: a column that is not there", VAES, "schema", ValueError,
        "a kind is given for column ('z'|7), which X has not",
        of_schema({"z": "real"}) + of_schema({7: "real"})),
    ("schema: a kind that the column cannot be of", VAES, "X", ValueError,
        "column (4|0|6)", of_schema({4: "real"}) + of_schema({0: "count"})
        + of_schema({6: "binary"})),
    ("schema: with another likelihood", VAES, "schema", ValueError, "goes with likelihood=",
        use(("fit",), schema={0: "real"}, likelihood="gaussian")),

    ("latent_dim: 0, a fraction or True", VAES, "latent_dim", ValueError,
        "be .* [Gg]ot (0|2.5|True)",
        each("latent_dim", 0, 2.5, True)),
    ("latent_dim: more than memory holds", VAES, "latent_dim", (ValueError, MemoryError),
        "1000000000",
        use(names=["fit"], latent_dim=10**15) + use(names=["fit"], latent_dim=10**20)),
    ("hidden_layer_sizes: 0, negative, a fraction, True or text", VAES, "hidden_layer_sizes",
        ValueError,
        "positive integers|array-like",
        each("hidden_layer_sizes", (0,), (-1,), (2.5,), (True,), "64")),
    ("hidden_layer_sizes: a set or a dict", VAES, "hidden_layer_sizes", ValueError, "got {5",
        each("hidden_layer_sizes", {5}, {5: 1})),
    ("hidden_layer_sizes: one number, as such or as an array", VAES, "hidden_layer_sizes",
        ValueError, "array-like|positive integers", [
        *each("hidden_layer_sizes", 4, np.array(4)),
        *call(lambda w: w.model.set_params(hidden_layer_sizes=np.array(4)).save(w.path))]),
    ("n_hidden: 0, a fraction or True", "with n_hidden", "n_hidden", ValueError,
        "be .* [Gg]ot (0|2.5|True)", each("n_hidden", 0, 2.5, True)),
    ("n_hidden: more than memory holds", "with n_hidden", "n_hidden", (ValueError, MemoryError),
        "1000000000", use(names=["fit"], n_hidden=10**15) + use(names=["fit"], n_hidden=10**20)),
    ("n_layers, n_channels, first_kernel or kernel: 0, a fraction or True", PIXELS,
        r"n_\w+|\w*kernel", ValueError, "[Gg]ot (0|2.5|True)", [way for name in
        "n_layers n_channels first_kernel kernel".split() for way in each(name, 0, 2.5, True)]),
    ("first_kernel or kernel: an even number", PIXELS, r"\w*kernel", ValueError,
        "kernel=4 has no middle: set an odd number", each("first_kernel", 4) + each("kernel", 4)),
    ("image_shape: one number, 0, or -1 twice", "with image_shape", "image_shape", ValueError,
        "image_shape.* must be .*[Gg]ot", each("image_shape", 5, (0, 5), (-1, -1))),
    ("image_shape that does not fit the columns, or none where these are no square",
        "with image_shape", "image_shape", ValueError, "n_features=5(:| is no square: set)",
        [way for shape in ((2, 3), (-1, 2), None) for way in use(["fit"], image_shape=shape)]),
    ("gated: a word or a number", PIXELS, "gated", ValueError, "[Gg]ot ('yes'|2)",
        each("gated", "yes", 2)),
    ("n_state: 0, a fraction, True or more than 8192", RNNS, "n_state", ValueError,
        "be .* [Gg]ot (0|2.5|True|8193)", each("n_state", 0, 2.5, True, 2**13 + 1)),
    ("learning_rate: 0, negative, NaN or infinity", ALL, "learning_rate", ValueError,
        "(0|-1|nan|inf)",
        each("learning_rate", 0, -1, np.nan, np.inf, -np.inf)),
    ("learning_rate: an integer beyond float64", ALL, "learning_rate", ValueError, "finite|float",
        each("learning_rate", 10**400)),
    ("learning_rate: a list that is no schedule", ALL, "learning_rate", ValueError,
        "list of .epochs, rate.", each("learning_rate", [], [0.1], [(0, 0.1)], [(5, -1)], [(5,)])),
    ("learning_rate: so large that training diverges", ALL, "learning_rate", FloatingPointError,
        "learning_rate below (1e.20|3e.38)", call(diverges)),
    ("learning_rate, momentum or weight_decay: a bool", ALL, "learning_rate|momentum|weight_decay",
        ValueError, "True|False", [*each("learning_rate", True), *each("momentum", False),
        *each("weight_decay", True)]),
    ("beta: negative, infinity or a bool", VAES, "beta", ValueError, "-1|inf|True",
        each("beta", -1, np.inf, True)),
    ("batch_size or epochs: 0", ALL, "batch_size|epochs", ValueError, "[Gg]ot 0",
        use(batch_size=0) + use(epochs=0)),
    ("patience: 0", "with patience", "patience", ValueError, "[Gg]ot 0", use(patience=0)),
    ("latent_dim or discriminator_rate: 0, a fraction or True, or too large", GANS,
        "latent_dim|discriminator_rate", ValueError, "[Gg]ot (0|2.5|True|1001|65537)",
        each("latent_dim", 0, 2.5, True, 65537) + each("discriminator_rate", 0, 2.5, True, 1001)),
    ("generator_sizes or discriminator_sizes: 0, a fraction, or one number", GANS,
        r"\w+_sizes", ValueError, "positive integers|array-like. Got 5",
        each("generator_sizes", (0,), (2.5,), 5) + each("discriminator_sizes", (0,), (2.5,), 5)),
    ("beta1: negative, 1 or a bool", GANS, "beta1", ValueError, "-1|[Gg]ot (1|True)",
        each("beta1", -1, 1, True)),
    ("activation or output: a name that is unknown", GANS, "activation|output", ValueError,
        "'(gelu|softmax)'", each("activation", "gelu") + each("output", "softmax")),
    ("score or score_samples, where there is no likelihood", GANS, "score", AttributeError,
        "a gan has no likelihood, so no score_samples and no score: look at sample",
        call(lambda w: w.model.score_samples(X), lambda w: w.model.score(X))),
    ("patience without held-out rows", "with patience", "patience", ValueError,
        "validation_fraction, such as 0.1, or give X_valid", use(("fit",), patience=2)),
    ("validation_fraction: so much that no row is left", ALL, "validation_fraction", ValueError,
        "n_samples=24 leaves no row", use(("fit",), validation_fraction=0.99)),
    ("sample_weight: another length, below 0, or all 0", "with patience", "sample_weight",
        ValueError, "expected one per row|at least 0", call(*(
            lambda w, weights=weights: w.model.score(X, sample_weight=weights)
            for weights in ([1.0], np.arange(24) - 1.0, np.zeros(24))))),
    ("n_threads: 0, or True", ALL, "n_threads", ValueError, "[Gg]ot (0|True)",
        each("n_threads", 0, True)),
    ("random_state: negative, a fraction, text, 2**63", ALL, "random_state", ValueError,
        "be an int",
        each("random_state", -1, 0.5, "seed", 2**63)),
    ("random_state: True", ALL, "random_state", ValueError, "True", each("random_state", True)),
    ("optimizer, device, dtype or matmul_precision: a name that is unknown", ALL,
        "optimizer|device|dtype|matmul_precision", ValueError,
        "must be (a str among|one of) .*'best'",
        [way for name in "optimizer device dtype matmul_precision".split()
         for way in each(name, "best")]),
    ("n_steps: 0, a fraction or more than 1000", RBMS, "n_steps", ValueError, "[Gg]ot (0|2.5|1001)",
        each("n_steps", 0, 2.5, 1001)),
    ("chains: a name that is unknown", RBMS, "chains", ValueError, "must be a str among .*'best'",
        each("chains", "best")),
    ("n_chains, n_temperatures or n_gibbs: 0 or a fraction", RBMS,
        "n_chains|n_temperatures|n_gibbs", ValueError, "got (0|2.5)", [
        way for n in (0, 2.5) for way in call(
        lambda w, n=n: w.model.log_partition(n_chains=n),
        lambda w, n=n: w.model.log_partition(n_temperatures=n),
        lambda w, n=n: w.model.sample(n_gibbs=n))]),
    ("binarize: a name that is unknown", "with binarize", "binarize", ValueError,
        "must be a str among .*'best'", each("binarize", "best")),
    ("coupling or prior: a name that is unknown", FLOWS, "coupling|prior", ValueError,
        "must be a str among .*'best'", each("coupling", "best") + each("prior", "best")),
    ("n_couplings: 0, a fraction or True", FLOWS, "n_couplings", ValueError, "[Gg]ot (0|2.5|True)",
        each("n_couplings", 0, 2.5, True)),
    ("dequantize: 1, a fraction, or more than 65536", FLOWS, "dequantize", ValueError,
        "[Gg]ot (1|2.5|65537)", each("dequantize", 1, 2.5, 2**16 + 1)),
    ("n_channels, n_skip, n_stacks or max_dilation: 0, a fraction or True", WAVENETS,
        "n_channels|n_skip|n_stacks|max_dilation", ValueError, "[Gg]ot (0|2.5|True)",
        [way for name in "n_channels n_skip n_stacks max_dilation".split()
         for way in each(name, 0, 2.5, True)]),
    ("levels: 1, a fraction, or more than 256", WAVENETS, "levels", ValueError,
        "[Gg]ot (1|2.5|257)", each("levels", 1, 2.5, 257)),
    ("binarize, for more than two levels", WAVENETS, "binarize", ValueError,
        "leaves 2 levels, got levels=4: set one", use(binarize="threshold", levels=4)),
    ("activation, likelihood, posterior, objective or missing: a name that is unknown", VAES,
        "activation|likelihood|posterior|objective|missing", ValueError,
        "must be a str among .*'best'",
        [way for name in "activation likelihood posterior objective missing".split()
         for way in each(name, "best")]),
    ("beta, beta_warmup or free_bits with an importance-weighted objective", VAES,
        "beta|beta_warmup|free_bits", ValueError, "goes with objective=\"elbo\", got "
        "objective='iwae'", [
        *use(objective="iwae", beta=0.5), *use(objective="iwae", beta_warmup=2),
        *use(objective="iwae", free_bits=0.1)]),
    ("free_bits with posterior full", VAES, "free_bits", ValueError, "goes with posterior",
        use(free_bits=0.1, posterior="full")),
    ("n_importance: no whole number above 0", VAES, "n_importance", ValueError, "n_importance",
        each("n_importance", 0, -1, 1.5)),
    ("beta_warmup: no whole number", VAES, "beta_warmup", ValueError, "beta_warmup",
        each("beta_warmup", -1, 1.5)),
    ("device: cuda where no GPU works", ALL, "device", ValueError, "cannot be used: .*use device=",
        no_gpu(use(device="cuda"))),
    ("device: cpu where Numba's compiler is switched off", ALL, "device", RuntimeError,
        "NUMBA_DISABLE_JIT .*use device=", no_compiler(use(device="cpu"))),
    ("binarize with a Gaussian likelihood", VAES, "binarize", ValueError, "goes with",
        use(binarize="threshold", **GAUSSIAN)),
    ("a setting that is not there", ALL, "latent", ValueError, "Valid parameters are",
        call(lambda w: w.model.set_params(latent=3))),
    ("another architecture after fit, then partial_fit or save", ALL,
        r"latent_dim|n_\w+", ValueError, "changed after fit", call(
        lambda w: w.reshaped().partial_fit(X), lambda w: w.reshaped().save(w.path))),
    ("more than 2**32 updates", ALL, "batch_size", RuntimeError, "after 4294967296 updates",
        [at_the_last_step]),

    ("a model that was not fitted", ALL, "fit", NotFittedError, "not fitted yet", call(
        lambda w: w.new().score_samples(X) if w.new().score_kind else w.new().sample(),
        lambda w: w.new().sample(),
        lambda w: w.new().save(w.path))),
    ("Z of another width", VAES, "Z", ValueError, "Z has 3 columns, expected .* 2",
        call(lambda w: w.model.inverse_transform(np.zeros((4, 3))))),
    ("Z of another width than X has", FLOWS, "Z", ValueError, "Z has 3 columns, expected .*: 5",
        call(lambda w: w.model.inverse_transform(np.zeros((4, 3))))),
    ("Z of another width than n_hidden", RBMS, "Z", ValueError, "Z has 3 columns, expected .*: 5",
        call(lambda w: w.model.inverse_transform(np.zeros((4, 3))))),
    ("Z that is flat", VAES, "Z", ValueError, "2D array, got 1D",
        call(lambda w: w.model.inverse_transform(np.zeros(2)))),
    ("Z with NaN", VAES, "Z", ValueError, "contains NaN",
        call(lambda w: w.model.inverse_transform([[0, np.nan]]))),
    ("Z or eps with masked entries", VAES, "Z|eps", ValueError, "masked", call(
        lambda w: w.model.inverse_transform(MASKED[:, :2]),
        lambda w: w.model.loss_and_gradients(X, MASKED[:, :2]))),
    ("eps of another shape", VAES, "eps", ValueError, r"\(1, 2\), expected .*\(24, 2\)",
        call(lambda w: w.model.loss_and_gradients(X, [[0.0, 0.0]]))),
    ("n_samples of sample: 0 or a fraction", ALL, "n_samples", ValueError,
        "positive integer, got (0|2.5)", call(
        lambda w: w.model.sample(0), lambda w: w.model.sample(2.5))),
    ("n_samples of elbo or score_samples: 0 or a fraction", VAES, "n_samples", ValueError,
        "positive integer, got (0|2.5)", call(
        lambda w: w.model.elbo(X, 0), lambda w: w.model.score_samples(X, 2.5))),
    ("impute, where no values may be missing", VAES, "impute|missing", ValueError,
        'impute needs missing="mask", got missing=\'error\': fit a model with that',
        call(lambda w: w.model.impute(X))),
    ("n_draws or n_samples of impute: 0 or a fraction", VAES, "n_draws|n_samples", ValueError,
        "positive integer, got (0|2.5)", call(
        lambda w: w.model.impute(X, 0), lambda w: w.model.impute(X, 2.5),
        lambda w: w.model.impute(X, n_samples=0))),
    ("augment with classes of another number of rows", VAES, "y", ValueError,
        r"y has shape \(5,\), expected a class for each row of X: \(24,\)",
        call(lambda w: w.model.augment(X, np.zeros(5)))),
    ("n_chains, n_temperatures or n_leapfrog of ais: 0 or a fraction", VAES, "n_", ValueError,
        "n_(chains|temperatures|leapfrog) must be a positive integer, got (0|2.5)", call(
        lambda w: w.model.ais(X, 0), lambda w: w.model.ais(X, n_temperatures=2.5),
        lambda w: w.model.ais_bracket(n_leapfrog=0))),
    ("n_chains of ais_bracket: more than memory holds", VAES, "n_.*n_chains", MemoryError,
        "too large", call(
        lambda w: w.model.ais_bracket(1, 10**15), lambda w: w.model.ais_bracket(1, 10**20))),
    ("diagnose on a single row", VAES, "X", ValueError, "X has 1 row; .* needs 2 or more",
        call(lambda w: w.model.diagnose(X[:1]))),
    ("n_samples: more than memory holds", ALL, "n_samples", (ValueError, MemoryError), "1000000000",
        call(lambda w: w.model.sample(10**15), lambda w: w.model.sample(10**20))),

    ("save into a folder that is not there", ALL, "none", StorageError,
        "does not exist; make it first",
        call(lambda w: w.model.save(w.folder / "none" / "model"))),
    ("save over a folder, a link or a pipe", ALL, "target", StorageError, "not a regular file", [
        *save_at(lambda w, path: path.mkdir()), *save_at(lambda w, path: os.mkfifo(path)),
        *save_at(lambda w, path: path.symlink_to(w.path))]),
    ("save where one may not write", ALL, "model.safetensors", StorageError, "Permission denied",
        call(save_without_permission)),
    ("save on a full disk", ALL, "model.safetensors", StorageError, "No space left",
        call(save_on_full_disk)),
    ("save or load: no path (empty, None, a number)", ALL, "path", (TypeError, ValueError), "got", [
        way for path in ("", None, 5) for way in call(
        lambda w, path=path: w.model.save(path), lambda w, path=path: minivae.load(path))]),
    ("save or load: a name that no file can have", ALL, "none", StorageError, "is no name", [
        way for path in ("none\0", "none\ud800") for way in call(
        lambda w, path=path: w.model.save(path), lambda w, path=path: minivae.load(path))]),
    ("save or load in a folder that was removed", ALL, "none", StorageError,
        "was removed|no such file", call(
        lambda w: removed_folder(w) or w.model.save("none"),
        lambda w: removed_folder(w) or minivae.load("none"))),
    ("checkpoints: a file, an empty path, or no path", ALL, "checkpoints", (TypeError, ValueError),
        "folder", [partial(checkpoints_at, path) for path in ("model.safetensors", "", True)]),
    ("checkpoints on a full disk", ALL, "checkpoint", StorageError, "No space left",
        call(fit_on_full_disk)),
    ("load a file that is not there", ALL, "none", StorageError, "no such file",
        call(lambda w: minivae.load(w.folder / "none"))),
    ("load a folder", ALL, "kept", StorageError, "is a folder",
        call(lambda w: minivae.load(w.folder))),
    ("load a pipe", ALL, "pipe", StorageError, "not a regular file|not a whole", [load_pipe]),
    ("load an empty file, or a text", ALL, "file", StorageError, "not a whole safetensors file",
        load(lambda w: b"") + load(lambda w: b"hello " * 20)),
    ("load a safetensors file of something else", ALL, "file", StorageError, "not one of minivae's",
        load(foreign)),
    ("load a file whose end is missing", ALL, "file", StorageError, "not a whole safetensors file",
        load(lambda w: w.path.read_bytes()[:-40])),
    ("load a file with a byte that is wrong", ALL, "file", StorageError, "checksum", load(flipped)),
    ("load a file of a newer format", ALL, "file", StorageError, "has format 2, .* update minivae",
        load(lambda w: w.path.read_bytes().replace(b'format\\": 1', b'format\\": 2'))),
    ("load a file whose arrays are those of another architecture", ALL, "file", StorageError,
        r".weight is .* expected float32 \(\d, \d\)|not expected: \w+|_layers",
        load(other_architecture)),
    ("load a file of another family by its class", ALL, "file", StorageError,
        "it is a .*, not a .*minivae.load reads any", [load_by_another_class]),
    ("load a file of a family that is unknown", ALL, "file", StorageError,
        "model must be one of vae, nade", load(unknown_family)),

    ("fit or partial_fit in two threads at once, of one estimator", ALL, "fit|model|estimator",
        RuntimeError, "another thread", call(lambda w: in_the_midst(w, lambda m: m.fit(X)),
        lambda w: in_the_midst(w, lambda m: m.partial_fit(X)))),

    ("a command that is unknown", ALL, "tarin", CommandError,
        "2 .*unknown command tarin; did you mean train", command("tarin")),
    ("an option that is unknown, or cut short", ALL, "--batchsize|--batch", CommandError,
        "2 .*unknown option --batch.*; did you mean --batch-size",
        command(NEW + "--batchsize 2") + command(NEW + "--batch 2")),
    ("an option with a number that its setting may not be", ALL,
        "--learning-rate|--momentum|--weight-decay", CommandError,
        r"2 .*expected a (positive, )?finite number, .*, got '(0|nan|3:0|1|-1)' \(see", [
        *command(NEW + "--learning-rate 0"), *command(NEW + "--learning-rate nan"),
        *command(NEW + "--learning-rate 3:0"), *command(NEW + "--momentum 1"),
        *command(NEW + "--weight-decay -1")]),
    ("an option of another family", ALL, "--n-hidden|--free-bits", CommandError,
        "2 .*unknown option", [lambda w: command(
            NEW + ("--n-hidden 2" if w.family == "vae" else "--free-bits 2"))[0](w)]),
    ("a family that is unknown", ALL, "--model", CommandError, "2 .*invalid choice: 'rbn'",
        command("train X.npy --out new --model rbn")),
    ("encode, decode or reconstruct, with a model that has no codes", "without codes",
        "encode|decode|recon", CommandError, "2 .*needs a model with latent codes.* is a", [
        *command("encode {run}"), *command("reconstruct {run}"), *command("decode {run} X.npy")]),
    ("a DATA file that is not there", ALL, "no.csv", CommandError, "2 .*there is no file",
        command("train no.csv --out new")),
    ("a csv file with a stray word in a column of numbers", ALL, "t.csv", CommandError,
        r"2 .*line 12, column 2 \('y'\): .*'b' as in 10 other rows",
        data("t.csv", b"x,y\n" + b"0,1\n" * 10 + b"1,b\n")),
    ("a csv file of numbers that can be read in two ways, such as 1_000 or 1,234.5", ALL, "t.csv",
        CommandError, "2 .*line (1|2), column 1.*: expected a number",
        data("t.csv", b"1_0,2_0\n0,1\n1,1\n") + data("t.csv", b'x,y\n"1,234.5",2\n1,1\n')),
    ("a csv or parquet file with a column of dates or times", ALL, "t.csv", CommandError,
        r"2 .*column 2 \('day'\) holds dates or times.*leave it out \(--drop",
        data("t.csv", b"x,day\n0,2020-01-31\n1,2020-02-01\n")),
    ("a csv file with two columns of one name", ALL, "t.csv", CommandError,
        "2 .*two columns have one name, 'x': rename one", data("t.csv", b"x,x\n0,1\n1,1\n")),
    ("a csv file with missing values", "of bits", "t.csv", CommandError,
        r"2 .*NaN or inf.* in 1 of 6 entries, first in row 1, column 1 \('y'\)",
        data("t.csv", b"x,y\n0,1\n1,\n1,1\n")),
    ("--label or --drop with a name that is no column", ALL, "--label|--drop", CommandError,
        "2 .*(ys|z): there is no such column", [
        *data("t.csv", b"x,y\n0,1\n1,1\n", "--label ys"),
        *data("t.csv", b"x,y\n0,1\n1,1\n", "--drop x,z")]),
    ("a csv file with rows of different lengths", ALL, "t.csv", CommandError,
        "2 .*line 3 has 1 cells",
        data("t.csv", b"x,y\n0,1\n1\n")),
    ("a csv file with numbers beyond float64", ALL, "t.csv", CommandError, "2 .*row 1.*too large",
        data("t.csv", b"0,1\n1,1e400\n1,1\n")),
    ("a csv file with numbers beyond the model's dtype", "of bits", "t.csv", CommandError,
        "2 .*row 1.*too large", data("t.csv", b"0,1\n1,1e300\n1,1\n")),
    ("a csv file of one row", ALL, "t.csv", CommandError, "2 .*at least 2 rows",
        data("t.csv", b"0,1\n")),
    ("a damaged npz file", ALL, "t.npz", CommandError, "2 .*damaged",
        data("t.npz", b"PK\3\4" + b"x" * 99)),
    ("--image-shape that does not fit the data", ALL, "image.shape", CommandError,
        "2 .*= 5.*(2, 3)", command(NEW + "--image-shape 2x3")),
    ("--seed of 2**63 or more", ALL, "--seed", CommandError, "2 .*expected a whole number",
        command(NEW + f"--seed {2**63}")),
    ("--out: a folder that is not empty", ALL, "--out", CommandError, "2 .*is not empty",
        command("train X.npy --out {run}")),
    ("--out: a folder below a file", ALL, "--out", CommandError, "2 .*X.npy",
        command("train X.npy --out X.npy/new")),
    ("--resume with another value of an option", ALL, "--batch-size", CommandError,
        "2 .*--seed was 0, and is now 5; --batch-size was 8, and is now 4",
        command("train X.npy --out {run} --resume --seed 5 --batch-size 4")),
    ("--resume with another family", ALL, "--model", CommandError, "2 .*--model was '.*', and is", [
        lambda w: command("train X.npy --out {run} --resume --model "
                          + ("nade" if w.family == "vae" else "vae"))[0](w)]),
    ("--resume together with --overwrite", ALL, "--overwrite", CommandError, "2 .*--resume",
        command("train X.npy --out {run} --resume --overwrite")),
    ("minivae train in a folder where another one is at work", ALL, "--out", CommandError,
        "2 .*another minivae train is at work", [
        lambda w: (command("")[0](w), partial(in_use, w))[1]]),
    ("minivae train in a folder that another one fills in the meantime", ALL, "--out", CommandError,
        "2 .*is not empty", [
        lambda w: (command("")[0](w), partial(filled_meanwhile, w))[1]]),
]
# fmt: on
