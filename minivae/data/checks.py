"""What a model accepts as data: the form of X and its values, counts and seeds."""

import contextlib
import datetime
import secrets
import sys
import warnings
from numbers import Integral

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_array

from minivae.data.rows import mapped, parts, streamed
from minivae.engine.graph import on_gpu
from minivae.engine.machine import parse_device

TIMES = (np.datetime64, np.timedelta64, datetime.date, datetime.time, datetime.timedelta)


def check_count(name, value):
    """A positive integer as Python's own: one of NumPy's, such as np.int8, would overflow later."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def check_weights(sample_weight, X):
    """sample_weight as numbers of at least 0, not all of them 0, one per row of X; or None."""
    if sample_weight is None:
        return None
    weights = as_array(sample_weight, "sample_weight", dtype=np.float64, ensure_2d=False)
    n = X.shape[0] if hasattr(X, "shape") else len(X)
    if weights.shape != (n,):
        raise ValueError(f"sample_weight has shape {weights.shape}, expected one per row of X: "
                         f"({n},)")  # fmt: skip
    if weights.min() < 0 or not 0 < weights.sum() < np.inf:
        raise ValueError("sample_weight must be at least 0, and not 0 for all rows; its smallest "
                         f"entry is {weights.min():g} and its sum {weights.sum():g}")  # fmt: skip
    return weights


def seed_of(random_state):
    """The seed in [0, 2^63) that a random_state stands for; None: a new one every time."""
    if random_state is None:
        return secrets.randbits(63)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if not isinstance(random_state, Integral) or not 0 <= random_state < 2**63:
        raise ValueError(
            f"random_state must be None, a RandomState or an int from 0 to 2^63 - 1, "
            f"got {random_state!r}"
        )
    return int(random_state)


def check_form(X, estimator, dtype, name="X"):
    """X as numbers (n, D): a C-contiguous array, or a CSR matrix for a sparse one; a np.memmap
    stays what it is; what is on a GPU is copied, for the checks and for all but training."""
    if on_gpu(X):
        X = copy_from_gpu(X, parse_device(estimator.device), dtype, name)
    if mapped(X):
        if X.ndim != 2 or X.size == 0 or X.dtype.kind not in "biuf":
            raise ValueError(
                f"{name} is a memory map of shape {X.shape} and dtype {X.dtype}, expected real "
                "numbers of shape (rows, features), one row or more"
            )
        return X
    check_labels(getattr(X, "columns", ()), name)
    X = as_array(X, name, dtype=dtype, order="C", accept_sparse="csr", ensure_all_finite=False,
                 estimator=estimator)  # fmt: skip
    if issparse(X) and not X.has_canonical_format:  # an entry may be in parts
        X = X.copy()
        X.sum_duplicates()
    return X


def check_rows(X):
    """Raise for one row or one column, where a table is wanted."""
    if getattr(X, "ndim", 2) != 2:
        raise ValueError(
            f"X has the shape {X.shape}, expected a table: (rows, columns). Reshape your data: "
            "X.reshape(1, -1) is one row, X.reshape(-1, 1) one column"
        )


def check_labels(labels, name):
    """Raise for names of a frame's columns that are neither words, which are compared later, nor
    0, 1, 2, ...: their order would go unnoticed."""
    labels = list(labels)
    if not any(isinstance(label, str) for label in labels) and labels != list(range(len(labels))):
        raise ValueError(
            f"{name} has columns whose names are no words, such as {labels[0]!r}, so that their "
            f"order could not be compared: make them words, {name}.columns.map(str)"
        )


def copy_from_gpu(X, device, dtype, name):
    """A cupy.ndarray as a NumPy array; ValueError for one that training could not use as it is."""
    machine, index = device
    if not hasattr(X, "get") or machine not in ("cuda", "auto"):
        raise ValueError(
            f'{name} is a {type(X).__name__} on a GPU, expected a cupy.ndarray and device="cuda", '
            f"or a NumPy array: cupy.asnumpy({name})"
        )
    if X.device.id != index:
        raise ValueError(
            f'{name} is on GPU {X.device.id}, expected it on GPU {index}, that of device="cuda'
            f'{(index and f":{index}") or ""}": copy it there, or choose the other device'
        )
    if X.dtype != dtype or not X.flags.c_contiguous:
        raise ValueError(
            f"{name} is a GPU's array of {X.dtype} with strides {X.strides}, expected C-contiguous "
            f"{dtype}, as the model is: cupy.ascontiguousarray({name}, {np.dtype(dtype).name!r})"
        )
    return X.get()


def as_array(X, name, **options):
    """X as scikit-learn's check_array makes it; errors name X, and nothing is lost in silence."""
    if np.ma.is_masked(X):
        raise ValueError(f"{name} has masked entries: fill them in, or leave those rows out, first")
    if _holds_times(X):
        raise TypeError(
            f"{name} holds dates or times (datetime64, timedelta64){_column(X, _holds_times)}: "
            "turn them into numbers first"
        )
    seen = set()
    for column in getattr(X, "columns", ()):
        if column in seen:
            raise ValueError(f"{name} has two columns of the name {column!r}: rename one")
        seen.add(column)
    try:
        with np.errstate(over="ignore"):  # infinity is refused later, with where it is
            return check_array(X, input_name=name, **options)
    except (TypeError, ValueError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        hint = _column(X, _holds_words)
        if "fill value" in str(error):  # of pandas' sparse columns
            hint = f"; make it dense, {name}.sparse.to_dense()"
        raise kind(f"{name}: {error}{hint}") from error


def _holds_times(X):
    """Whether there are dates or times in X, which would be taken for numbers; also as objects."""
    if issparse(X):
        return False
    dtypes = X.dtypes if hasattr(X, "columns") else [getattr(X, "dtype", None)]
    if any(getattr(dtype, "kind", "") in ("m", "M") for dtype in dtypes):
        return True
    try:
        values = np.asarray(X)
    except (TypeError, ValueError):  # that it is no array will be said in better words
        return False
    kinds = {type(value) for value in values.flat} if values.dtype.kind == "O" else set()
    return values.dtype.kind in "mM" or any(issubclass(kind, TIMES) for kind in kinds)


def _holds_words(X):
    """Whether something in X is no number."""
    try:
        np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError):
        return True
    return False


def _column(X, bad):
    """The first column of a frame that is bad, as words in brackets; "" for what has no columns."""
    if not hasattr(X, "iloc") or not hasattr(X, "columns"):
        return ""
    labels = (label for j, label in enumerate(X.columns) if bad(X.iloc[:, j]))
    return next((f" (column {label!r})" for label in labels), "")


def check_features(array, X_valid, width, X):
    """Raise unless array, made of X_valid, has the features of X, in the same order."""
    if array.shape[1] != width:
        raise ValueError(f"X_valid has {array.shape[1]} features, expected as many as X: {width}")
    names = [getattr(data, "columns", None) for data in (X_valid, X)]
    if all(name is not None for name in names) and list(names[0]) != list(names[1]):
        raise ValueError(
            f"X_valid has the features {list(names[0])}, expected those of X in the same order: "
            f"{list(names[1])}"
        )


@contextlib.contextmanager
def named_memory(what):
    """Say what it was that does not fit into memory."""
    try:
        yield
    except (MemoryError, ValueError) as error:  # ValueError: more than NumPy can count
        raise MemoryError(f"{what}: too large for memory ({error})") from error


def check_values(X, model, dtype, labels, name="X"):
    """X, as `check_form` gives it; ValueError for values that the model cannot have.

    Those are NaN (unless it takes missing values) and infinity in the model's dtype, and for a
    Bernoulli likelihood what lies outside [0, 1]. labels: names of the columns, or None.
    """
    missing = model.takes_missing
    low, high = (0, 0) if issparse(X) else (np.inf, -np.inf)  # what is not stored is 0
    smallest, largest = (np.fmin, np.fmax) if missing else (np.minimum, np.maximum)
    for part, _, _ in parts(X):
        if part.size:  # without `missing`, NaN is the smallest if there is one
            low, high = (
                smallest(low, smallest.reduce(part, None)),
                largest(high, largest.reduce(part, None)),
            )
    with np.errstate(over="ignore"):
        low, high = np.array([low, high]).astype(dtype)
    if missing and low > high:  # nothing is known, so nothing can be wrong
        return X
    if not (np.isfinite(low) and np.isfinite(high)):
        _refuse_not_finite(X, dtype, labels, name, missing)
    if model.on_unit_interval and (low < 0 or high > 1):
        raise ValueError(  # scikit-learn wants the first words
            f"{'Negative values in data: ' if low < 0 else ''}{name} has values from {low:g} to "
            f"{high:g}, but {model.likelihood_in_words} needs values in [0, 1]: scale {name} "
            f"(8-bit images: divide by 255){model.instead_of_bernoulli}"
        )
    return X


def check_codes(Z, width, what, dtype):
    """Z as an array (n, width) of dtype; ValueError for another width. what: a column is of."""
    Z = as_array(Z, "Z", dtype=dtype, order="C")
    if Z.shape[1] != width:
        raise ValueError(f"Z has {Z.shape[1]} columns, expected one per {what}: {width}")
    return Z


def check_something(X, model, name):
    """Raise where X may have NaN and has nothing else: of that nothing can be learned."""
    if (
        model.takes_missing
        and not issparse(X)
        and all(np.isnan(part).all() for part, _, _ in parts(X))
    ):
        raise ValueError(
            f"{name} has no value that is not NaN: give rows of which something is known"
        )


def _refuse_not_finite(X, dtype, columns, name, missing):
    """Raise, with how many entries of X are not finite and where the first is."""
    bad = []
    for part, row, column in parts(X):
        with np.errstate(over="ignore"):
            part = part.astype(dtype)
        wrong = np.isinf(part) if missing else ~np.isfinite(part)
        bad.append((row[wrong], column[wrong]))
    row, column = next((rows[0], columns_[0]) for rows, columns_ in bad if rows.size)
    label = f" ({columns[column]!r})" if columns is not None else ""
    what = "infinity" if missing else "NaN or infinity"
    raise ValueError(
        f"{name} contains {what} in {sum(rows.size for rows, _ in bad)} of "
        f"{X.shape[0] * X.shape[1]} entries, first in row {row}, column {column}{label} (what is "
        f"too large for {np.dtype(dtype)} counts as infinity); remove those rows or fill them in "
        "first"
    )


def check_noise(eps, shape, dtype):
    """eps as an array of shape (n, Z) or (n, K, Z); ValueError for another shape."""
    eps = as_array(eps, "eps", dtype=dtype, order="C", allow_nd=len(shape) > 2)
    if eps.shape != shape:
        names = "(n, latent_dim)" if len(shape) == 2 else "(n, n_importance, latent_dim)"
        raise ValueError(
            f"eps has shape {eps.shape}, expected {names} = {shape}: one noise vector per row of X "
            "and draw"
        )
    return eps


def warn_of_grey(X):
    """Warn that the Bernoulli "likelihood" of values between 0 and 1 is none."""
    if any(np.any((part > 0) & (part < 1)) for part, _, _ in parts(X)):
        warnings.warn(
            "X has values strictly between 0 and 1, but a Bernoulli likelihood is a distribution "
            "over 0 and 1: the result is a negative cross-entropy, not a log-likelihood, and must "
            'not be compared with one. Set binarize="stochastic" or "threshold", or binarise X.',
            UserWarning,
            stacklevel=_levels_to_the_caller(),
        )


def warn_of_unlike(X, X_valid):
    """Warn where most columns of held-out rows lie mostly outside the range that X has: their score
    would be that of other data, as behind a scaler that X alone has passed."""
    if streamed(X) or streamed(X_valid):
        return
    low, high = np.fmin.reduce(X, axis=0), np.fmax.reduce(X, axis=0)
    outside = ((X_valid < low) | (X_valid > high)).mean(axis=0) > 0.5
    if outside.mean() > 0.5:
        j = int(outside.argmax())
        warnings.warn(
            f"{outside.sum()} of {len(outside)} columns of X_valid lie outside those of X, such as "
            f"column {j}: from {np.nanmin(X_valid[:, j]):.4g} to {np.nanmax(X_valid[:, j]):.4g}, "
            f"and in X from {low[j]:.4g} to {high[j]:.4g}. Was X scaled, and X_valid not? A "
            "pipeline does not transform X_valid: validation_fraction holds out rows of X instead.",
            UserWarning,
            stacklevel=_levels_to_the_caller(),
        )


def _levels_to_the_caller():
    """How far up, as `warnings.warn` in the calling function counts, minivae was called from, if
    scikit-learn is not counted."""
    level, frame, ours = 1, sys._getframe(1), ("minivae", "sklearn")
    while frame.f_globals.get("__name__", "").partition(".")[0] in ours and frame.f_back:
        level, frame = level + 1, frame.f_back
    return level


def compare_data(known, given):
    """Raise unless the fingerprints of the data that are given are those of the `fit`."""
    if not known:
        raise ValueError(
            "resume goes on with a fit, and this model's last pass was not one of fit: use "
            "partial_fit, or call fit for a new model"
        )
    lines = [
        f"{name} was {_describe(known.get(name))}, and is now {_describe(given.get(name))}"
        for name in ("X", "X_valid")
        if known.get(name) != given.get(name)
    ]
    if lines:
        raise ValueError(f"resume needs the data that fit was given: {'; '.join(lines)}")


def _describe(data):
    """A fingerprint in words."""
    if data is None:
        return "not given"
    return f"{data['rows']} x {data['features']} with sha256 {data['sha256'][:12]}"
