"""What stands behind the public methods of `VAE`: its state, and checks of settings and data."""

import contextlib

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from minivae import evaluation, validation
from minivae.backend import check_device, machine
from minivae.kernels import BINARIZE, LIKELIHOODS
from minivae.parameters import named_views, plan_model
from minivae.rows import fingerprint, on_gpu
from minivae.training import State, make_crew, make_recipe, train


class Estimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A VAE without its settings' defaults and its public methods."""

    _parameter_constraints = validation.SETTINGS

    @property
    def parameters_(self):
        """{name: view} of the live parameters, sharing memory with the model."""
        check_is_fitted(self)
        views = named_views(self._state.plan, self._state.theta).items()
        return {name: view for name, view in views if name.startswith(self._part or "")}

    @property
    def history_(self):
        """{name: list with one value per epoch}."""
        check_is_fitted(self)
        return self._state.history

    @property
    def _model(self):
        """What evaluation needs: the machine, the plan, the parameters."""
        return machine(self.device, self.matmul_precision), self._state.plan, self._state.theta

    @property
    def _binarize(self):
        validation.check_binarize(self)
        return BINARIZE.index(self.binarize)

    @property
    def _n_features_out(self):
        return self._state.plan.latent_dim

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = self.likelihood == "bernoulli"
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _check_settings(self):
        """Raise unless the settings are right, and this computer has the device."""
        self._validate_params()
        validation.check_settings(self)
        check_device(self.device, self.matmul_precision)

    def _check_X(self, X):
        """X as a C-contiguous array with the features of the model, which has parameters."""
        array = validation.check_form(X, self, self._state.theta.dtype)
        validate_data(self, X, reset=False, skip_check_array=True)  # names, number of features
        likelihood = LIKELIHOODS[self._state.plan.likelihood]
        return validation.check_values(array, likelihood, self._state.theta.dtype, X)

    def _check_X_to_train(self, X):
        """The same for any model; one without parameters gets its initial ones."""
        if hasattr(self, "_state"):
            self._check_loaded()
            self._check_unchanged()
            return self._check_X(X)
        array = self._check_new(X, "X")
        state = self._new_state(self._make_plan(array.shape[1]))
        validate_data(self, X, skip_check_array=True)
        self._start(*state)
        return array

    def _check_new(self, X, name):
        """X with any number of features, as the settings want it."""
        array = validation.check_form(X, self, self.dtype, name)
        return validation.check_values(array, self.likelihood, self.dtype, X, name)

    def _check_valid(self, X_valid, width, X):
        """X_valid, if there is one, with the features of X, which are so many."""
        if X_valid is None:
            return None
        array = self._check_new(X_valid, "X_valid")
        validation.check_features(array, X_valid, width, X)
        return array

    def _check_loaded(self, part=None):
        """Raise unless the model has parameters, of this part or of both."""
        check_is_fitted(self)
        if self._part not in (None, part):
            raise ValueError(
                f"only the {self._part} of this model was loaded; load(path) without part loads all"
            )

    def _check_unchanged(self):
        """Raise if a setting that shapes the model is not what the model was made with."""
        made, plan = self._state.plan, self._make_plan(self.n_features_in_)
        same = all(map(np.array_equal, made, plan))
        if not same or self._state.theta.dtype != self.dtype:
            raise ValueError(
                "latent_dim, hidden_layer_sizes, activation, likelihood or dtype was changed after "
                "fit; set it back, or call fit for a new model"
            )

    def _make_plan(self, n_features):
        return plan_model(n_features, self.hidden_layer_sizes, self.latent_dim, self.activation,
                          self.likelihood)  # fmt: skip

    def _new_state(self, plan, seed=None):
        """(seed, State): new parameters, empty history, the optimiser at rest."""
        seed = validation.seed_of(self.random_state) if seed is None else seed
        with validation.named_memory(
            f"latent_dim={self.latent_dim}, hidden_layer_sizes={self.hidden_layer_sizes}"
        ):
            return seed, State.new(plan, seed, self.dtype)

    @contextlib.contextmanager
    def _unchanged_by_errors(self):
        """If the block fails, by a full disk or no memory, the model is what it was before."""
        before = vars(self).copy()
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _start(self, seed, state, part=None):
        """Become the model that state is."""
        self.seed_, self._state, self._part = seed, state, part

    def _seed(self, random_state):
        """The seed for a call; None takes the estimator's own random_state."""
        return validation.seed_of(self.random_state if random_state is None else random_state)

    def _encode(self, X):
        return evaluation.encode(*self._model, X, self._binarize)

    def _decode(self, Z):
        return evaluation.decode(*self._model, Z)

    def _crew(self, X, array):
        """Who trains, with all memory that it takes, and on what: X on a GPU, else its array."""
        data = X if on_gpu(X) else array
        with validation.named_memory(f"batch_size={self.batch_size} on {data.shape[0]} rows"):
            recipe = make_recipe(self, self.seed_)
            return make_crew(self._model[0], recipe, self._state, data, self.n_threads), data

    def _train(self, crew, X, X_valid, last_epoch, keep=None):
        recipe = make_recipe(self, self.seed_)
        try:
            train(self._model[0], recipe, self._state, X, X_valid, last_epoch, crew,
                  show=bool(self.verbose), keep=keep)  # fmt: skip
        finally:
            if keep:
                keep.write_best()

    def _fingerprints(self, X, X_valid):
        given = {"X": X} if X_valid is None else {"X": X, "X_valid": X_valid}
        return {name: fingerprint(array, self.dtype) for name, array in given.items()}
