"""The linear Gaussian model, where nothing has to be approximated: probabilistic PCA (Tipping and
Bishop 1999) and factor analysis. It is the oracle for models whose ln p(x) has no closed form.

    z ~ N(0, I),   x | z ~ N(W z + mean, Psi),   W (D, Z),   Psi = diag(psi),

psi the same number for all features ("isotropic") or one for each ("diagonal"). By Bayes' rule, in
which every exponent is quadratic in z,

    p(z | x) = N(m, M^-1),   M = I + W' Psi^-1 W,   m = M^-1 W' Psi^-1 (x - mean).

For every z, ln p(x) = ln p(x | z) + ln p(z) - ln p(z | x). At z = m the last exponent is 0:

    ln p(x) = -1/2 [ D ln 2 pi + sum ln psi + ln det M + |Psi^-1/2 (x - mean - W m)|^2 + |m|^2 ],

a sum of squares that loses no digits where psi is small. For any q(z) = N(mu, C),

    ln p(x) = L(q) + KL(q || p(z | x)),   L(q) = E_q ln p(x | z) - KL(q || p(z)),
    E_q ln p(x | z) = -1/2 [ D ln 2 pi + sum over d of ln psi_d
                             + ((x_d - mean_d - W_d mu)^2 + W_d C W_d') / psi_d ].

The E step of EM makes q the posterior, so that L touches ln p(x). The M step raises L by W, mean
and psi: a regression of each x_d on (z, 1), and the mean of the squares that it leaves. So ln p(x)
never falls. An entry that is missing is left out of every sum over d above, and of its feature's
regression. Rows that miss the same entries share one M: a pattern.
"""

import inspect
import math
import warnings
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from minivae.data import checks
from minivae.data.rows import fetch
from minivae.kernels import STREAM_PRIOR, STREAM_SAMPLE, STREAM_WEIGHTS
from minivae.kernels.tables import reference
from minivae.models import settings
from minivae.models.settings import COMMON, choice, real, whole

LOG_2PI = math.log(2 * math.pi)
FLOOR = 1e-9  # least psi, in units of a feature's variance: where psi is 0, p(x) is infinite


class Parameters(NamedTuple):
    W: np.ndarray  # (D, Z)
    mean: np.ndarray  # (D,)
    psi: np.ndarray  # (D,) also where it is one number


class Rows(NamedTuple):
    """X (n, D), and what of it is known."""

    x: np.ndarray  # (n, D) 0 where it is missing
    observed: np.ndarray  # (n, D) bool
    patterns: np.ndarray  # (P, D) the different rows of `observed`, as 1 and 0
    which: np.ndarray  # (n,) the pattern of each row
    groups: list  # of P arrays: the rows of each pattern


class Posterior(NamedTuple):
    """p(z | x) = N(m, M^-1) of each row."""

    mean: np.ndarray  # m (n, Z)
    precision: np.ndarray  # M (P, Z, Z)
    covariance: np.ndarray  # M^-1 (P, Z, Z)
    log_det: np.ndarray  # ln det M (P,)


def grouped(X):
    """Rows of an array with NaN for what is missing."""
    observed = ~np.isnan(X)
    bits = np.packbits(observed, axis=1)
    _, first, which = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    which = which.reshape(-1)  # NumPy 2.0 gives (n, 1)
    groups = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    return Rows(np.where(observed, X, 0), observed, observed[first].astype(float), which, groups)


def e_step(theta, rows):
    """The posterior of each row."""
    W, mean, psi = theta
    outer = (W[:, :, None] * W[:, None]).reshape(len(W), -1)  # (D, Z Z)
    Z = W.shape[1]
    M = np.eye(Z) + (rows.patterns / psi @ outer).reshape(-1, Z, Z)
    covariance = np.linalg.inv(M)
    b = rows.observed * (rows.x - mean) / psi @ W  # W' Psi^-1 (x - mean)
    m = np.einsum("nij,nj->ni", covariance[rows.which], b) if len(M) > 1 else b @ covariance[0]
    return Posterior(m, M, covariance, np.linalg.slogdet(M)[1])


def log_likelihood(theta, rows, posterior):
    """ln p(x) of each row (n,)."""
    m, log_det = posterior.mean, posterior.log_det[rows.which]
    constant = rows.observed @ (LOG_2PI + np.log(theta.psi))
    squares = residual(theta, rows, m) ** 2 @ (1 / theta.psi)
    return -(constant + log_det + squares + (m * m).sum(axis=1)) / 2


def residual(theta, rows, z):
    """x - mean - W z (n, D), 0 where x is missing."""
    return rows.observed * (rows.x - theta.mean - z @ theta.W.T)


def m_step(rows, posterior, isotropic, floor):
    """(the Parameters that maximise L(q) for q = the posterior, mean of L(q) over rows there).

    By W_d and mean_d, L is minus the weighted square sum over the rows that have x_d of
    E_q (x_d - mean_d - W_d z)^2: the normal equations are A_d (W_d, mean_d) = sum of x_d E_q(z, 1),
    A_d = sum of E_q (z, 1)(z, 1)'. Then -sum (ln psi_d + squares / psi_d) has one maximum, at the
    mean of the squares, and falls away from it, so a bound from below is kept by clipping.
    """
    q, (n, Z) = posterior, posterior.mean.shape
    extended = np.column_stack([q.mean, np.ones(n)])  # E_q (z, 1)
    counts = np.array([len(group) for group in rows.groups])[:, None, None]
    second = np.array([extended[g].T @ extended[g] for g in rows.groups])
    second[:, :Z, :Z] += counts * q.covariance
    A = np.tensordot(rows.patterns.T, second, 1)  # (D, Z + 1, Z + 1)
    solution = np.linalg.solve(A, (rows.x.T @ extended)[:, :, None])[:, :, 0]
    W, mean = solution[:, :Z], solution[:, Z]

    covariance = np.tensordot(rows.patterns.T, counts * q.covariance, 1)  # (D, Z, Z)
    squares = (residual(Parameters(W, mean, None), rows, q.mean) ** 2).sum(axis=0)
    squares += np.einsum("di,dij,dj->d", W, covariance, W)
    known = rows.observed.sum(axis=0)
    psi = np.full_like(mean, squares.sum() / known.sum()) if isotropic else squares / known
    psi = np.maximum(psi, floor)
    log_p = -(known * (LOG_2PI + np.log(psi)) + squares / psi).sum() / 2  # E_q ln p(x | z)
    traces = np.trace(q.covariance, axis1=1, axis2=2) + q.log_det - Z
    kl = ((q.mean**2).sum() + traces[rows.which].sum()) / 2
    return Parameters(W, mean, psi), (log_p - kl) / n


def em(rows, theta, isotropic, floor, max_iter, tol):
    """(Parameters, history, whether it converged): M and E steps in turn, after one E step."""
    q, history = e_step(theta, rows), {"bound": [], "log_likelihood": []}
    last, now = -np.inf, log_likelihood(theta, rows, q).mean()
    while now - last > tol and len(history["bound"]) < max_iter:
        theta, bound = m_step(rows, q, isotropic, floor)
        q = e_step(theta, rows)
        last, now = now, log_likelihood(theta, rows, q).mean()
        history["bound"].append(float(bound))
        history["log_likelihood"].append(float(now))
    return theta, history, now - last <= tol


def closed_form(x, Z, floor):
    """The Parameters of the optimum of isotropic noise (Tipping and Bishop 1999, equations 7, 8).

    With the covariance U L U' of x, which has mean 0, and l falling: psi is the mean of the
    eigenvalues that W leaves over, and W = U_k (L_k - psi I)^1/2. D - 1 latents can make every
    covariance that there is; more of them stay unused.
    """
    n, D = x.shape
    l, U = np.linalg.eigh(x.T @ x / n)
    l, U, k = l[::-1], U[:, ::-1], min(Z, D - 1)
    psi = max(l[k:].mean(), floor)
    W = np.zeros((D, Z))
    W[:, :k] = U[:, :k] * np.sqrt(np.maximum(l[:k] - psi, 0))
    W *= np.sign(W[abs(W).argmax(axis=0), range(Z)])  # else the sign is LAPACK's
    return Parameters(W, np.zeros(D), np.full(D, psi))


def beginning(variance, Z, isotropic, floor, seed):
    """Parameters for EM: W at random, so that half of a variance is W's on average."""
    D = len(variance)
    W, psi = np.empty((D, Z)), variance.mean() if isotropic else variance
    reference.random_normal(seed, STREAM_WEIGHTS, 0, 0, W)
    W *= np.sqrt(variance / (2 * Z))[:, None]
    return Parameters(W, np.zeros(D), np.maximum(np.broadcast_to(psi / 2, (D,)), floor))


# --- the estimator --------------------------------------------------------------------------------


class LinearGaussian(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Probabilistic PCA and factor analysis: ln p(x), posterior and EM without approximation.

    z ~ N(0, I), x | z ~ N(W z + mean, Psi) with a diagonal Psi. Maximises the mean over rows of
    ln p(x), in nats. All is float64 NumPy, with X as one array in memory.

    Parameters
    ----------
    {settings}

    Attributes
    ----------
    components_ : array (Z, D), W' as scikit-learn has it: x = z @ components_ + mean_ + noise
    mean_ : array (D,)
    noise_variance_ : float, or array (D,) for noise="diagonal"
    history_ : dict of lists, one value per iteration, means over rows in nats: bound, which is L(q)
        after the M step, and log_likelihood, to which the E step then raises it; of
        solver="closed" one value of log_likelihood
    n_iter_ : int, iterations of EM
    n_features_in_ : int, D
    """

    score_kind = "exact"
    device = "reference"  # where it computes: plain NumPy
    on_unit_interval = False
    SETTINGS = {
        "n_components": whole(2, "Z, the number of latent variables"),
        "noise": choice(
            "isotropic", ("isotropic", "diagonal"), "Psi: 'isotropic', one variance (probabilistic "
            "PCA); 'diagonal', one for each feature (factor analysis)"),
        "solver": choice(
            "em", ("em", "closed"), "'em'; or 'closed', the optimum by eigenvectors, for isotropic "
            "noise and complete rows"),
        "missing": choice(
            "error", ("error", "mask"), "what NaN in X means: an error, or a value not observed"),
        "max_iter": whole(1000, "most iterations of EM"),
        "tol": real(1e-6, "EM ends when an iteration gains no more than that, in nats per row"),
        "random_state": COMMON["random_state"],
    }  # fmt: skip
    _parameter_constraints = {name: setting.constraint for name, setting in SETTINGS.items()}

    def __init__(self, n_components=2, *, noise="isotropic", solver="em", missing="error",
                 max_iter=1000, tol=1e-6, random_state=None):  # fmt: skip
        self.n_components = n_components
        self.noise, self.solver, self.missing = noise, solver, missing
        self.max_iter, self.tol, self.random_state = max_iter, tol, random_state

    @property
    def takes_missing(self):
        """Whether X may have NaN, which means missing."""
        return self.missing == "mask"

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.takes_missing
        return tags

    def check_settings(self):
        """Raise unless the settings are right."""
        settings.check_kinds(self, self.SETTINGS)
        self._validate_params()
        settings.check(self, self.SETTINGS)
        if self.solver == "closed" and self.noise != "isotropic":
            raise ValueError('solver="closed" goes with noise="isotropic": use solver="em"')

    def _rows_to_fit(self, X):
        """(Rows of X less the means of its features, those means, variances (D,), least psi)."""
        rows = self._grouped(X, fitted=False)
        if not rows.observed.any(axis=0).all():
            raise ValueError("X has nothing but NaN in column "
                             f"{rows.observed.any(axis=0).argmin()}: leave it out")  # fmt: skip
        if self.solver == "closed" and not rows.observed.all():
            raise ValueError('solver="closed" needs rows without NaN: use solver="em"')
        inside, known = {"axis": 0, "where": rows.observed}, rows.observed.sum(axis=0)
        constant = rows.x.max(initial=-np.inf, **inside) == rows.x.min(initial=np.inf, **inside)
        with np.errstate(over="ignore", invalid="ignore"):
            centre = rows.x.sum(axis=0) / known
            x = np.where(rows.observed, rows.x - centre, 0)
            variance = np.where(constant, 0, (x * x).sum(axis=0) / known)
        if not 0 < variance.sum() < np.inf:
            raise ValueError(f"X (n_samples={len(x)}) has the variance {variance.sum()}, expected "
                             "a positive, finite one: give rows that differ, on another scale if "
                             "float64 cannot hold their squares")  # fmt: skip
        mean = variance.mean()
        least = mean if self.noise == "isotropic" else np.where(constant, mean, variance)
        return rows._replace(x=x), centre, variance, FLOOR * least

    def _grouped(self, X, fitted=True):
        array = checks.check_form(X, self, np.float64)
        if fitted:
            validate_data(self, X, reset=False, skip_check_array=True)  # names, number of features
        checks.check_values(array, self, np.float64, X)
        return grouped(fetch(array, slice(None), np.float64))

    def _infer(self, X):
        """(Rows of X, with the features of the fit, Parameters, Posterior)."""
        check_is_fitted(self)
        rows = self._grouped(X)
        psi = np.broadcast_to(self.noise_variance_, self.mean_.shape)
        theta = Parameters(self.components_.T, self.mean_, psi)
        return rows, theta, e_step(theta, rows)

    def fit(self, X, y=None):
        """Maximise ln p of X (n, D); y is ignored. Warns where max_iter was not enough."""
        self.check_settings()
        rows, centre, variance, floor = self._rows_to_fit(X)
        Z, isotropic, converged = int(self.n_components), self.noise == "isotropic", True
        if self.solver == "closed":
            theta = closed_form(rows.x, Z, floor)
            log_p = log_likelihood(theta, rows, e_step(theta, rows))
            history = {"log_likelihood": [float(log_p.mean())]}
        else:
            theta = beginning(variance, Z, isotropic, floor, checks.seed_of(self.random_state))
            theta, history, converged = em(rows, theta, isotropic, floor, self.max_iter, self.tol)
        validate_data(self, X, skip_check_array=True)  # names, number of features
        self.components_, self._n_features_out = np.ascontiguousarray(theta.W.T), Z
        self.mean_ = theta.mean + centre
        self.noise_variance_ = float(theta.psi[0]) if isotropic else theta.psi
        self.history_, self.n_iter_ = history, len(history["log_likelihood"])
        if not converged:
            warnings.warn(f"EM gained more than tol={self.tol} nats per row in the last of its "
                          f"max_iter={self.max_iter} iterations: raise one of them",
                          ConvergenceWarning, stacklevel=2)  # fmt: skip
        return self

    def score_samples(self, X):
        """ln p(x) of each row of X (n,), exact, in nats; of what is observed of it."""
        rows, theta, p = self._infer(X)
        return log_likelihood(theta, rows, p)

    def score(self, X, y=None, sample_weight=None):
        """Mean of `score_samples` over the rows of X, weighted by sample_weight (n,), in nats."""
        weights = checks.check_weights(sample_weight, X)
        return float(np.average(self.score_samples(X), weights=weights))

    def posterior(self, X):
        """p(z | x) of each row of X, exact: (means (n, Z), covariances (n, Z, Z))."""
        rows, _, p = self._infer(X)
        return p.mean, p.covariance[rows.which]

    def mean_field(self, X):
        """The diagonal q that maximises L(q): (means (n, Z), variances (n, Z)).

        Its mean is the posterior's. L has (ln v_j - M_jj v_j) / 2 of a variance v_j, which is
        greatest at 1 / M_jj. Its gap is 1/2 [sum over j of ln M_jj - ln det M].
        """
        rows, _, p = self._infer(X)
        return p.mean, 1 / np.diagonal(p.precision, axis1=1, axis2=2)[rows.which]

    def bound(self, X, q):
        """L(q) of each row of X (n,), in nats: at most ln p(x), which it is for the posterior.

        q = (means (n, Z), covariances (n, Z, Z) or variances (n, Z)).
        """
        rows, theta, _ = self._infer(X)
        mean, covariance, log_det = self._check_q(q, len(rows.x))
        spread = np.einsum("di,nij,dj->nd", theta.W, covariance, theta.W, optimize=True)
        squares = (residual(theta, rows, mean) ** 2 + rows.observed * spread) / theta.psi
        log_p = -(rows.observed * (LOG_2PI + np.log(theta.psi)) + squares).sum(axis=1) / 2
        traces = np.trace(covariance, axis1=1, axis2=2) - mean.shape[1]
        return log_p - (traces + (mean * mean).sum(axis=1) - log_det) / 2

    def gap(self, X, q):
        """KL(q || p(z | x)) of each row of X (n,), in nats: what `bound` lacks of ln p(x); for
        q = N(mu, C) it is 1/2 [tr M C + (mu - m)' M (mu - m) - Z - ln det M - ln det C].
        """
        rows, _, p = self._infer(X)
        mean, covariance, log_det = self._check_q(q, len(rows.x))
        M, away = p.precision[rows.which], mean - p.mean
        traces = np.einsum("nij,nji->n", M, covariance) + np.einsum("ni,nij,nj->n", away, M, away)
        return (traces - mean.shape[1] - p.log_det[rows.which] - log_det) / 2

    def _check_q(self, q, n):
        """q as (means (n, Z), covariances (n, Z, Z), their ln det (n,))."""
        Z = len(self.components_)
        mean, covariance = (np.asarray(part, np.float64) for part in q)
        if mean.shape != (n, Z) or covariance.shape not in ((n, Z), (n, Z, Z)):
            raise ValueError(f"q has shapes {mean.shape}, {covariance.shape}, expected means "
                             f"{(n, Z)}, covariances {(n, Z, Z)} or variances")  # fmt: skip
        if covariance.ndim == 2:
            covariance = covariance[:, :, None] * np.eye(Z)
        finite = np.isfinite(mean).all() and np.isfinite(covariance).all()
        if not finite or not (np.linalg.eigvalsh(covariance) > 0).all():
            raise ValueError("q must have finite means and positive definite covariances")
        return mean, covariance, np.linalg.slogdet(covariance)[1]

    def transform(self, X):
        """Posterior means of the rows of X, (n, Z)."""
        return self._infer(X)[2].mean

    def inverse_transform(self, Z):
        """E[x | z] for codes Z (n, n_components), (n, D)."""
        check_is_fitted(self)
        Z = checks.as_array(Z, "Z", dtype=np.float64)
        if Z.shape[1] != len(self.components_):
            raise ValueError(f"Z has {Z.shape[1]} columns, expected one per latent: "
                             f"{len(self.components_)}")  # fmt: skip
        return Z @ self.components_ + self.mean_

    def impute(self, X):
        """X (n, D) with E[x_d | what is observed of the row] = mean_d + W_d m for every NaN."""
        rows, theta, p = self._infer(X)
        return np.where(rows.observed, rows.x, p.mean @ theta.W.T + theta.mean)

    def sample(self, n_samples=1, random_state=None):
        """Draws of x from the model, (n_samples, D). Row i is a function of the seed and i.

        random_state None takes the estimator's own: an int there repeats the same draws in every
        call, None draws afresh.
        """
        check_is_fitted(self)
        n_samples = checks.check_count("n_samples", n_samples)
        seed = checks.seed_of(self.random_state if random_state is None else random_state)
        with checks.named_memory(f"n_samples={n_samples}"):
            z, x = (np.empty((n_samples, size)) for size in self.components_.shape)
        reference.random_normal(seed, STREAM_PRIOR, 0, 0, z)
        reference.random_normal(seed, STREAM_SAMPLE, 0, 0, x)
        return self.inverse_transform(z) + x * np.sqrt(self.noise_variance_)


LinearGaussian.__doc__ = settings.described(inspect.getdoc(LinearGaussian), LinearGaussian.SETTINGS)
