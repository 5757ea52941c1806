"""VAEImputer: fills in missing values, in scikit-learn's contract."""

from numbers import Integral

from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import check_is_fitted

from minivae.models.vae.estimator import VAE
from minivae.models.vae.settings import SUITED


class VAEImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Replaces NaN by its mean given what is known of the row, under a VAE that is trained on rows
    with missing values; beside scikit-learn's IterativeImputer.

    `transform` gives an array (n, D), or a frame under `set_output`; of a frame with words, whose
    categories get their mode, a frame. A column that is NaN in all rows of `fit` stays NaN.

    Parameters
    ----------
    vae : VAE with missing="mask", default None
        What is trained, a clone of it. None is VAE(10, hidden_layer_sizes=(64,),
        likelihood="mixed", missing="mask", objective="iwae", n_importance=5).
    n_samples : int, default 1000
        Draws of z for each row.
    random_state : int, RandomState or None, default None
        Of the VAE that None stands for.

    Attributes
    ----------
    vae_ : the trained VAE
    n_features_in_, feature_names_in_ : as in scikit-learn
    """

    _parameter_constraints = {
        "vae": [HasMethods(["fit", "impute"]), None],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, vae=None, *, n_samples=1000, random_state=None):
        self.vae = vae
        self.n_samples = n_samples
        self.random_state = random_state

    def fit(self, X, y=None):
        """Train the VAE on X (n, D); y is ignored."""
        self._validate_params()
        self.vae_ = of_tables(self.vae, self.random_state).fit(X)
        copy_features(self, self.vae_)
        return self

    def transform(self, X):
        """X (n, D) with its missing values filled in."""
        check_is_fitted(self)
        return self.vae_.impute(X, n_samples=self.n_samples)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.sparse = True
        return tags


def of_tables(vae, random_state):
    """A clone of a VAE, or for None one of tables with missing values."""
    if vae is not None:
        return clone(vae)
    return VAE(**SUITED["imputing"], random_state=random_state)


def copy_features(estimator, vae):
    """The estimator was trained on the features that the VAE was trained on."""
    estimator.n_features_in_ = vae.n_features_in_
    if hasattr(vae, "feature_names_in_"):
        estimator.feature_names_in_ = vae.feature_names_in_
