"""VAEOutlierDetector: rows that a VAE finds unlikely, in scikit-learn's contract."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import check_is_fitted

from minivae.models.vae.imputer import copy_features, of_tables


class VAEOutlierDetector(OutlierMixin, BaseEstimator):
    """Calls the rows with the smallest ln p(x) under a VAE outliers.

    Parameters
    ----------
    vae : VAE, default None
        What is trained, a clone of it. None is what it is to VAEImputer.
    contamination : float in (0, 0.5], default 0.1
        The share of the rows of `fit` that are outliers.
    n_samples : int, default 100
        Draws of z for each row's ln p(x).
    random_state : int, RandomState or None, default None
        Of the VAE that None stands for.

    Attributes
    ----------
    vae_ : the trained VAE
    offset_ : float, the ln p(x), in nats, below which a row is an outlier
    n_features_in_, feature_names_in_ : as in scikit-learn
    """

    _parameter_constraints = {
        "vae": [HasMethods(["fit", "score_samples"]), None],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, vae=None, *, contamination=0.1, n_samples=100, random_state=None):
        self.vae = vae
        self.contamination = contamination
        self.n_samples = n_samples
        self.random_state = random_state

    def fit(self, X, y=None):
        """Train the VAE on X (n, D), and find the threshold there; y is ignored."""
        self._validate_params()
        self.vae_ = of_tables(self.vae, self.random_state).fit(X)
        copy_features(self, self.vae_)
        self.offset_ = float(np.percentile(self._score(X), 100 * self.contamination))
        return self

    def score_samples(self, X):
        """ln p(x) of each row (n,), in nats: the lower, the less usual."""
        check_is_fitted(self)
        return self._score(X)

    def decision_function(self, X):
        """`score_samples` above the threshold (n,), in nats: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """1 for each row that is as usual, -1 for each that is not (n,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _score(self, X):
        return self.vae_.score_samples(X, n_samples=self.n_samples)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.sparse = True
        return tags
