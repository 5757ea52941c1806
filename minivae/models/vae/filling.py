"""Rows that a VAE completes or makes anew: imputation and augmentation."""

import numpy as np

from minivae.data import checks
from minivae.data.rows import fetch
from minivae.evaluation import importance, imputation
from minivae.models import tables


def impute(model, X, n_draws, n_samples, random_state):
    """See VAE.impute."""
    model._check_loaded()
    n_samples = checks.check_count("n_samples", n_samples)
    if n_draws is not None:
        n_draws = checks.check_count("n_draws", n_draws)
    if model.missing != "mask":
        raise ValueError(
            f'impute needs missing="mask", got missing={model.missing!r}: fit a model with that '
            "setting, on X with its missing values"
        )
    given, X = X, model._check_X(X)
    binarize, seed = model._binarize_code, model._seed(random_state)
    session = model._session(X.shape[0], model._for_use(importance.draws_at_once(n_samples)))
    if n_draws is None:
        means = imputation.means(session, X, binarize, model.seed_, n_samples)
        return _filled(model, given, X, means, "mean")
    with checks.named_memory(f"n_draws={n_draws}"):
        z = imputation.posterior_draws(session, X, binarize, seed, n_samples, n_draws)
        one = model._session(z.shape[0] * n_draws, model._for_use())
        x = imputation.draws(one, z.reshape(-1, z.shape[2]), seed).reshape(*z.shape[:2], -1)
    filled = [_filled(model, given, X, x[:, draw], "draw") for draw in range(n_draws)]
    return np.stack(filled) if isinstance(filled[0], np.ndarray) else filled


def _filled(model, given, X, values, how):
    """What was given, with values (n, D) in place of what is missing in X, the same in numbers."""
    if model.schema_ is not None:
        return model.schema_.fill(given, values, how)
    X = fetch(X, slice(None), X.dtype)
    return tables.as_given(model, np.where(np.isnan(X), values, X).astype(X.dtype), how, given)


def augment(model, X, y, n_samples, random_state):
    """See VAE.augment."""
    model._check_loaded()
    n_samples, seed = checks.check_count("n_samples", n_samples), model._seed(random_state)
    X = model._check_X(X)
    rng = np.random.default_rng(seed)
    if y is None:
        rows, y_new = rng.integers(X.shape[0], size=n_samples), None
    else:
        y = np.asarray(y)
        if y.shape != (X.shape[0],):
            raise ValueError(f"y has shape {y.shape}, expected a class for each row of X: "
                             f"({X.shape[0]},)")  # fmt: skip
        classes, codes = np.unique(y, return_inverse=True)
        chosen = rng.permutation(np.arange(n_samples) % len(classes))
        rows = np.array([rng.choice(np.flatnonzero(codes == code)) for code in chosen])
        y_new = classes[chosen]
    session = model._session(n_samples, model._for_use())
    X = fetch(X, rows, model.state_.theta.dtype)
    z = imputation.encoded_draws(session, X, model._binarize_code, seed)
    X_new = tables.as_given(model, importance.decode(session, z), "draw")
    return X_new if y is None else (X_new, y_new)
