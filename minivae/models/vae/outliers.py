"""VAEOutlierDetector: rows that a VAE finds unlikely, in scikit-learn's contract."""

from numbers import Integral, Real

from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils._param_validation import HasMethods, Interval


class VAEOutlierDetector(OutlierMixin, BaseEstimator):
    """Calls the rows with the smallest ln p(x) under a VAE outliers.

    Parameters
    ----------
    vae : VAE, default None
        What is fitted, a clone of it. None is a VAE of tables: likelihood="mixed", missing="mask".
    contamination : float in (0, 0.5], default 0.1
        The share of the rows of `fit` that are outliers.
    n_samples : int, default 100
        Draws of each row's `score_samples`.
    random_state : int, RandomState or None, default None
        Of the VAE that None stands for.

    Attributes
    ----------
    vae_ : the fitted VAE
    offset_ : float, the ln p(x), in nats, below which a row is an outlier
    n_features_in_, feature_names_in_ : as in scikit-learn
    """

    _parameter_constraints = {
        "vae": [HasMethods(["fit", "score_samples"]), None],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }
