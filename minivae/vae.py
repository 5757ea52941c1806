"""VAE: the variational autoencoder as a scikit-learn estimator, the face of the package."""

from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from minivae import evaluation, storage
from minivae.backend import machine
from minivae.kernels import BINARIZE, LIKELIHOODS, STREAM_BINARIZE, STREAM_POSTERIOR, reference
from minivae.parameters import named_views, plan_model
from minivae.rows import fetch
from minivae.training import SQUARES, State, make_recipe, train
from minivae.validation import (
    SETTINGS,
    check_count,
    check_facts,
    check_form,
    check_settings,
    check_values,
    seed_of,
    warn_of_grey,
)


class VAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Variational autoencoder with dense layers, trained by hand-written gradients.

    Minimises the mean over rows of nll + beta * kl in nats, nll = -ln p(x|z) and
    kl = KL(q(z|x) || N(0, I)), by stochastic gradients with one reparameterised sample per row
    (Kingma and Welling 2013). For beta = 1 that is -ELBO, an upper bound of -ln p(x).

    Parameters
    ----------
    latent_dim : int
        Z, the number of latent variables.
    hidden_layer_sizes : tuple of int
        Units of the encoder's hidden layers; the decoder mirrors them. () gives a linear VAE.
    activation : {"relu", "tanh", "sigmoid", "softplus", "identity"}
    likelihood : {"bernoulli", "gaussian"}
        p(x|z): Bernoulli with learned logits, for X in [0, 1]; or Gaussian with learned mean and
        one learned variance, shared by all features.
    binarize : {"stochastic", "threshold"} or None
        Turns grey values into 0 and 1: with probability x afresh at every use, or by x >= 1/2.
    posterior : {"diagonal", "full"}
        q(z|x). "full" is not built yet.
    beta : float
        Weight of kl in the loss.
    optimizer : {"adam", "adagrad", "sgd"}
    learning_rate, momentum, weight_decay : float
        momentum is used by SGD. weight_decay * parameter is added to every gradient.
    batch_size, epochs : int
    dtype : {"float32", "float64"}
        Of parameters and all computations.
    device : {"cpu", "reference", "auto", "cuda"}
        "cpu" is compiled code, "reference" plain NumPy. "cuda" is not built yet.
    n_threads : int or None
        Threads of a training step; None takes as many as there are processors and work for. Results
        do not depend on it.
    random_state : int, RandomState or None
    verbose : int
        1 shows a progress bar.

    Attributes
    ----------
    parameters_ : dict of name to array, views of the live parameters
    history_ : dict of lists, one value per epoch: loss, nll, kl, elbo (means over the epoch's rows,
        nats), seconds, and valid_elbo if held-out rows were given to `fit`
    n_features_in_ : int, D
    seed_ : int, the seed of every random number that the model draws
    """

    _parameter_constraints = SETTINGS

    def __init__(
        self,
        latent_dim=2,
        *,
        hidden_layer_sizes=(400,),
        activation="relu",
        likelihood="bernoulli",
        binarize=None,
        posterior="diagonal",
        beta=1.0,
        optimizer="adam",
        learning_rate=1e-3,
        momentum=0.0,
        weight_decay=0.0,
        batch_size=128,
        epochs=20,
        dtype="float32",
        device="cpu",
        n_threads=None,
        random_state=None,
        verbose=0,
    ):
        self.latent_dim = latent_dim
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.likelihood = likelihood
        self.binarize = binarize
        self.posterior = posterior
        self.beta = beta
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.dtype = dtype
        self.device = device
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    # --- training -------------------------------------------------------------------------------

    def fit(self, X, y=None, *, X_valid=None):
        """Train from new parameters on X (n, D) for `epochs` passes; y is ignored.

        X may be a SciPy sparse matrix, or an np.memmap of any real dtype: their rows are fetched
        as they are needed. An array of another dtype than the model's is converted as a whole.
        X_valid (m, D): held-out rows; their mean ELBO after each epoch is history_["valid_elbo"].
        """
        self._check_settings()
        array = self._check_new(X, "X")
        if X_valid is not None:
            X_valid = self._check_new(X_valid, "X_valid")
            if X_valid.shape[1] != array.shape[1]:
                raise ValueError(
                    f"X_valid has {X_valid.shape[1]} features, expected as many as X: "
                    f"{array.shape[1]}"
                )
        validate_data(self, X, skip_check_array=True)  # names, number of features
        self._start()
        self._train(array, X_valid, self.epochs)
        return self

    def partial_fit(self, X, y=None):
        """Train for one more pass over X (n, D), going on from where the model is; y is ignored."""
        self._check_settings()
        X = self._check_X_to_train(X)
        self._train(X, None, 1)
        return self

    def _train(self, X, X_valid, epochs):
        recipe = make_recipe(self, self.seed_)
        train(machine(self.device), recipe, self._state, X, X_valid, epochs, self.n_threads,
              show=bool(self.verbose))  # fmt: skip

    # --- use ------------------------------------------------------------------------------------

    def transform(self, X):
        """Posterior means of the rows of X, (n, Z). Stochastic binarisation is left out here."""
        check_is_fitted(self)
        return self._encode(self._check_X(X))[0]

    def inverse_transform(self, Z):
        """Decoder means for codes Z (n, latent_dim): probabilities or Gaussian means, (n, D)."""
        check_is_fitted(self)
        Z = check_array(Z, dtype=self._state.theta.dtype, input_name="Z")
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"Z has {Z.shape[1]} columns, expected one per latent: {self._n_features_out}"
            )
        return self._decode(Z)

    def reconstruct(self, X):
        """Decoder means at the posterior means of X, (n, D)."""
        check_is_fitted(self)
        return self._decode(self._encode(self._check_X(X))[0])

    def sample(self, n_samples=1, random_state=None):
        """Draws of x from the model, (n_samples, D): z from N(0, I), then x from p(x|z).

        For the means that pictures usually show: `inverse_transform` of standard normal Z.
        random_state as in `elbo`.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        return evaluation.sample(*self._model, n_samples, self._seed(random_state))

    def elbo(self, X, n_samples=1, random_state=None):
        """ELBO of each row of X (n,), in nats, from n_samples posterior draws: unbiased.

        The draws are a function of the seed, the draw and the row. random_state None takes the
        estimator's own: an int there repeats the same draws in every call, None draws afresh.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        X, seed = self._check_X(X), self._seed(random_state)
        return evaluation.elbo(*self._model, X, self._binarize, seed, n_samples)

    def score_samples(self, X, n_samples=100):
        """Importance-weighted estimate of ln p(x) for each row of X (n,), in nats.

        In expectation a lower bound that tightens with n_samples and is never below the ELBO
        (Burda, Grosse, Salakhutdinov 2015). The same posterior noise serves every row and call.
        """
        return self._score_samples(X, n_samples)

    def _score_samples(self, X, n_samples):
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        X = self._check_X(X)
        if self.likelihood == "bernoulli" and self.binarize is None:
            warn_of_grey(X)
        return evaluation.log_likelihood(*self._model, X, self._binarize, self.seed_, n_samples)

    def score(self, X, y=None):
        """Mean of `score_samples` over the rows of X: an estimate of mean ln p(x) in nats."""
        return float(np.mean(self._score_samples(X, n_samples=100)))

    # --- gradients ------------------------------------------------------------------------------

    def loss_and_gradients(self, X, eps=None):
        """(loss, {name: gradient}) of the mean loss over X (n, D) for the noise eps (n, Z).

        eps None draws the noise of step 0. A model that was not fitted is given its initial
        parameters first.
        """
        X, eps = self._with_noise(X, eps)
        losses, gradient = evaluation.losses_and_gradient(*self._model, X, eps, self.beta)
        return float(losses.mean()), named_views(self._state.plan, gradient)

    def check_gradients(self, X, eps=None, **options):
        """Compare every gradient on X (n, D) with finite differences, in float64, for fixed noise.

        Returns the Report of `minivae.gradcheck.check_gradient` (which takes the options): per
        parameter the worst relative error; `.passed`, `.worst`, and as text a table.
        """
        X, eps = self._with_noise(X, eps)
        return evaluation.check_gradients(*self._model, X, eps, self.beta, **options)

    def _with_noise(self, X, eps):
        """X, binarised, and eps, both checked; initialises a model that was not fitted."""
        self._check_settings()
        X = fetch(self._check_X_to_train(X), slice(None), self.dtype).copy()
        if eps is None:
            eps = np.empty((len(X), self.latent_dim), self.dtype)
            reference.random_normal(self.seed_, STREAM_POSTERIOR, 0, 0, eps)
        else:
            eps = check_array(eps, dtype=self.dtype, order="C", input_name="eps")
            if eps.shape != (len(X), self.latent_dim):
                raise ValueError(
                    f"eps has shape {eps.shape}, expected (n, latent_dim) = "
                    f"{(len(X), self.latent_dim)}: one noise vector per row of X"
                )
        machine(self.device).binarize(X, self._binarize, self.seed_, STREAM_BINARIZE, 0, 0)
        return X, eps

    # --- files ----------------------------------------------------------------------------------

    def save(self, path):
        """Write the model, the optimiser's state and the history to path, as safetensors.

        Equal models give equal bytes: the seconds that epochs took are left out.
        """
        check_is_fitted(self)
        self._check_unchanged()
        settings = self.get_params()
        history = {name: values for name, values in self.history_.items() if name != "seconds"}
        if not isinstance(self.random_state, Integral):
            settings["random_state"] = None  # seed_ says what it stood for
        facts = {
            "settings": settings,
            "n_features": self.n_features_in_,
            "feature_names": list(getattr(self, "feature_names_in_", [])),
            "seed": self.seed_,
            "epochs": self._state.epochs,
            "steps": self._state.steps,
            "history": history,
        }
        storage.write(path, self._state.arrays(), facts)

    @classmethod
    def load(cls, path):
        """The model that `save` wrote to path, ready to use and to train on."""
        arrays, facts = storage.read(path)
        try:
            settings = dict(facts["settings"])
            settings["hidden_layer_sizes"] = tuple(settings["hidden_layer_sizes"])
            vae = cls(**settings)
            vae._check_settings()
            check_facts(facts)
            vae.n_features_in_ = facts["n_features"]
            if facts["feature_names"]:
                vae.feature_names_in_ = np.array(facts["feature_names"], dtype=object)
            storage.compare(path, arrays, State.unmade(vae._make_plan(), vae.dtype).arrays())
            vae._start(facts["seed"])
            vae._state.epochs, vae._state.steps = facts["epochs"], facts["steps"]
            vae._state.history = facts["history"]
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            NotImplementedError,
            OverflowError,
        ) as error:
            raise storage.StorageError(f"{path}: does not describe a VAE ({error})") from error
        for name, target in vae._state.arrays().items():
            target[...] = arrays[name]
        squares = SQUARES.get(vae.optimizer)
        if squares is not None and (vae._state.moments[squares] < 0).any():
            raise storage.StorageError(f"{path}: {vae.optimizer}'s sums of squares are negative")
        return vae

    # --- inside ---------------------------------------------------------------------------------

    @property
    def parameters_(self):
        """{name: view} of the live parameters, sharing memory with the model."""
        check_is_fitted(self)
        return named_views(self._state.plan, self._state.theta)

    @property
    def history_(self):
        """{name: list with one value per epoch}."""
        check_is_fitted(self)
        return self._state.history

    @property
    def _model(self):
        """What evaluation needs: the machine, the plan, the parameters."""
        return machine(self.device), self._state.plan, self._state.theta

    @property
    def _binarize(self):
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
        self._validate_params()
        check_settings(self)

    def _check_X(self, X):
        """X as a C-contiguous array with the features of the model, which has parameters."""
        array = check_form(X, self, self._state.theta.dtype)
        validate_data(self, X, reset=False, skip_check_array=True)  # names, number of features
        likelihood = LIKELIHOODS[self._state.plan.likelihood]
        return check_values(array, likelihood, columns=getattr(X, "columns", None))

    def _check_X_to_train(self, X):
        """The same for any model; one without parameters gets its initial ones."""
        if hasattr(self, "_state"):
            self._check_unchanged()
            return self._check_X(X)
        array = self._check_new(X, "X")
        validate_data(self, X, skip_check_array=True)
        self._start()
        return array

    def _check_new(self, X, name):
        """X with any number of features, as the settings want it."""
        array = check_form(X, self, self.dtype, name)
        return check_values(array, self.likelihood, name, getattr(X, "columns", None))

    def _check_unchanged(self):
        """Raise if a setting that shapes the model is not what the model was made with."""
        made, plan = self._state.plan, self._make_plan()
        same = all(map(np.array_equal, made, plan))
        if not same or self._state.theta.dtype != self.dtype:
            raise ValueError(
                "latent_dim, hidden_layer_sizes, activation, likelihood or dtype was changed after "
                "fit; set it back, or call fit for a new model"
            )

    def _make_plan(self):
        return plan_model(self.n_features_in_, self.hidden_layer_sizes, self.latent_dim,
                          self.activation, self.likelihood)  # fmt: skip

    def _start(self, seed=None):
        """New parameters, empty history, the optimiser at rest."""
        self.seed_ = seed_of(self.random_state) if seed is None else seed
        self._state = State.new(self._make_plan(), self.seed_, self.dtype)

    def _seed(self, random_state):
        """The seed for a call; None takes the estimator's own random_state."""
        return seed_of(self.random_state if random_state is None else random_state)

    def _encode(self, X):
        return evaluation.encode(*self._model, X, self._binarize)

    def _decode(self, Z):
        return evaluation.decode(*self._model, Z)
