"""What the estimator accepts: its settings, and the values of X."""

import secrets
import warnings
from numbers import Integral, Real

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions

from minivae.backend import DEVICES, check_device
from minivae.kernels import ACTIVATIONS, BINARIZE, LIKELIHOODS, OPTIMIZERS
from minivae.rows import parts

SETTINGS = {
    "latent_dim": [Interval(Integral, 1, None, closed="left")],
    "hidden_layer_sizes": ["array-like"],
    "activation": [StrOptions(set(ACTIVATIONS))],
    "likelihood": [StrOptions(set(LIKELIHOODS))],
    "binarize": [StrOptions(set(BINARIZE) - {None}), None],
    "posterior": [StrOptions({"diagonal", "full"})],
    "beta": [Interval(Real, 0, None, closed="left")],
    "optimizer": [StrOptions(set(OPTIMIZERS))],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "momentum": [Interval(Real, 0, 1, closed="left")],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "epochs": [Interval(Integral, 1, None, closed="left")],
    "dtype": [StrOptions({"float32", "float64"})],
    "device": [StrOptions(set(DEVICES))],
    "n_threads": [Interval(Integral, 1, None, closed="left"), None],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def check_settings(vae):
    """Raise for settings that are wrong together, or that are not built yet."""
    for name in ("latent_dim", "batch_size", "epochs", "n_threads"):
        if isinstance(getattr(vae, name), bool):
            raise ValueError(f"{name} must be an integer, got {getattr(vae, name)!r}")
    sizes = vae.hidden_layer_sizes
    if not all(isinstance(n, Integral) and not isinstance(n, bool) and n >= 1 for n in sizes):
        raise ValueError(
            f"hidden_layer_sizes must hold positive integers, one per hidden layer, got {sizes!r}"
        )
    for name in ("beta", "learning_rate", "weight_decay"):
        if not np.isfinite(getattr(vae, name)):
            raise ValueError(f"{name} must be finite, got {getattr(vae, name)!r}")
    check_device(vae.device)
    if vae.posterior == "full":
        raise NotImplementedError('posterior="full" is not built yet; use posterior="diagonal"')
    check_binarize(vae)


def check_binarize(vae):
    """Raise for binarisation of what is not Bernoulli."""
    if vae.binarize is not None and vae.likelihood != "bernoulli":
        raise ValueError(
            f'binarize={vae.binarize!r} goes with likelihood="bernoulli", got '
            f"likelihood={vae.likelihood!r}; leave binarize=None"
        )


def check_count(name, value):
    """Raise unless value is a positive integer."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


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
    stays what it is."""
    if isinstance(X, np.memmap):
        if X.ndim != 2 or X.size == 0 or X.dtype.kind not in "biuf":
            raise ValueError(
                f"{name} is a memory map of shape {X.shape} and dtype {X.dtype}, expected real "
                "numbers of shape (rows, features), one row or more"
            )
        return X
    return check_array(X, dtype=dtype, order="C", accept_sparse="csr", ensure_all_finite=False,
                       input_name=name, estimator=estimator)  # fmt: skip


def check_values(X, likelihood, name="X", columns=None):
    """X, as `check_form` gives it; ValueError for values that the likelihood cannot model.

    Those are NaN and infinity, and for a Bernoulli likelihood what lies outside [0, 1]. columns:
    their names, or None.
    """
    low, high = (0, 0) if issparse(X) else (np.inf, -np.inf)  # what is not stored is 0
    for part, _, _ in parts(X):
        if part.size:
            low, high = np.minimum(low, part.min()), np.maximum(high, part.max())  # NaN, if any
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = [(row[~np.isfinite(part)], column[~np.isfinite(part)])
               for part, row, column in parts(X)]  # fmt: skip
        row, column = next((rows[0], columns_[0]) for rows, columns_ in bad if rows.size)
        label = f" ({columns[column]!r})" if columns is not None else ""
        raise ValueError(
            f"{name} contains NaN or infinity in {sum(rows.size for rows, _ in bad)} of "
            f"{X.shape[0] * X.shape[1]} entries, first in row {row}, column {column}{label}; "
            "remove those rows or fill them in first"
        )
    if likelihood == "bernoulli" and (low < 0 or high > 1):
        raise ValueError(
            f'{name} has values from {low:g} to {high:g}, but likelihood="bernoulli" needs values '
            f'in [0, 1]: scale {name} (8-bit images: divide by 255), or use likelihood="gaussian"'
        )
    return X


def check_noise(eps, shape, dtype):
    """eps as an array of shape (n, Z); ValueError for another shape."""
    eps = check_array(eps, dtype=dtype, order="C", input_name="eps")
    if eps.shape != shape:
        raise ValueError(
            f"eps has shape {eps.shape}, expected (n, latent_dim) = {shape}: one noise vector per "
            "row of X"
        )
    return eps


def warn_of_grey(X):
    """Warn that the Bernoulli "likelihood" of values between 0 and 1 is none."""
    if any(np.any((part > 0) & (part < 1)) for part, _, _ in parts(X)):
        warnings.warn(
            'X has values strictly between 0 and 1, but likelihood="bernoulli" is a distribution '
            "over 0 and 1: the result is a negative cross-entropy, not a log-likelihood, and must "
            'not be compared with one. Set binarize="stochastic" or "threshold", or binarise X.',
            UserWarning,
            stacklevel=4,  # whoever called score or score_samples
        )


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
