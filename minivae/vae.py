"""VAE: the variational autoencoder as a scikit-learn estimator, the face of the package."""

import numpy as np
from sklearn.utils.validation import validate_data

from minivae import evaluation, storage, validation
from minivae.checkpoints import Checkpoints, facts_of, load
from minivae.estimator import Estimator
from minivae.kernels import STREAM_BINARIZE, STREAM_POSTERIOR, reference
from minivae.parameters import named_views
from minivae.rows import fetch
from minivae.training import one_at_a_time


class VAE(Estimator):
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
    device : {"cpu", "reference", "auto", "cuda", "cuda:1", ...}
        "cpu" is compiled code, "reference" plain NumPy, "cuda" a GPU (docs/gpu.md), "auto" a GPU if
        there is one that works.
    matmul_precision : {"float32", "tf32"}
        Of a GPU's products of float32 matrices; TF32 is faster and keeps 10 of 23 bits of factors.
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
        matmul_precision="float32",
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
        self.matmul_precision = matmul_precision
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    # --- training -------------------------------------------------------------------------------

    @one_at_a_time
    def fit(self, X, y=None, *, X_valid=None, checkpoints=None):
        """Train from new parameters on X (n, D) for `epochs` passes; y is ignored.

        X may be a SciPy sparse matrix, or an np.memmap of any real dtype: their rows are fetched
        as they are needed. A cupy.ndarray is trained on where it is. An array of another dtype than
        the model's is converted as a whole.
        X_valid (m, D): held-out rows; their mean ELBO after each epoch is history_["valid_elbo"].
        checkpoints: a folder; after every epoch (some of them, if they take milliseconds), every
        minute and when it is interrupted, training leaves the model there as
        checkpoint.safetensors, and the one with the best held-out ELBO as best.safetensors. `load`
        and `resume` go on from there. A folder that has them already is refused.
        """
        self._check_settings()
        array = self._check_new(X, "X")
        X_valid = self._check_valid(X_valid, array.shape[1], X)
        keep = None if checkpoints is None else Checkpoints(self, checkpoints)
        if keep:
            keep.check_new()
        with self._unchanged_by_errors():
            state = self._new_state(self._make_plan(array.shape[1]))
            validate_data(self, X, skip_check_array=True)  # names, number of features
            self._start(*state)
            self._state.data = self._fingerprints(array, X_valid)
            crew, data = self._crew(X, array)
            if keep:
                keep.write()
        self._train(crew, data, X_valid, self.epochs, keep)
        return self

    @one_at_a_time
    def resume(self, X, y=None, *, X_valid=None, checkpoints=None):
        """Go on with a `fit` that did not come to its end, until `epochs` passes are made.

        X and X_valid must be what `fit` was given, else ValueError says what differs. The model
        ends bit for bit as without the interruption (on the same machine and versions).
        checkpoints as in `fit`, in the same folder or another one.
        """
        self._check_settings()
        self._check_loaded()
        array = self._check_X_to_train(X)
        X_valid = self._check_valid(X_valid, array.shape[1], X)
        validation.compare_data(self._state.data, self._fingerprints(array, X_valid))
        crew, data = self._crew(X, array)
        keep = None if checkpoints is None else Checkpoints(self, checkpoints)
        if keep:
            keep.go_on()
        self._train(crew, data, X_valid, self.epochs, keep)
        return self

    @one_at_a_time
    def partial_fit(self, X, y=None):
        """Train for one more pass over X (n, D), going on from where the model is; y is ignored."""
        self._check_settings()
        array = self._check_X_to_train(X)
        crew, data = self._crew(X, array)
        self._state.begin_pass()
        self._state.data = {}  # may be other data than those of the passes before
        self._train(crew, data, None, self._state.epochs + 1)
        return self

    # --- use ------------------------------------------------------------------------------------

    def transform(self, X):
        """Posterior means of the rows of X, (n, Z). Stochastic binarisation is left out here."""
        self._check_loaded("encoder")
        return self._encode(self._check_X(X))[0]

    def inverse_transform(self, Z):
        """Decoder means for codes Z (n, latent_dim): probabilities or Gaussian means, (n, D)."""
        self._check_loaded("decoder")
        Z = validation.as_array(Z, "Z", dtype=self._state.theta.dtype)
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"Z has {Z.shape[1]} columns, expected one per latent: {self._n_features_out}"
            )
        return self._decode(Z)

    def reconstruct(self, X):
        """Decoder means at the posterior means of X, (n, D)."""
        self._check_loaded()
        return self._decode(self._encode(self._check_X(X))[0])

    def sample(self, n_samples=1, random_state=None):
        """Draws of x from the model, (n_samples, D): z from N(0, I), then x from p(x|z).

        For the means that pictures usually show: `inverse_transform` of standard normal Z.
        random_state as in `elbo`.
        """
        self._check_loaded("decoder")
        validation.check_count("n_samples", n_samples)
        seed = self._seed(random_state)
        with validation.named_memory(f"n_samples={n_samples}"):
            return evaluation.sample(*self._model, n_samples, seed)

    def elbo(self, X, n_samples=1, random_state=None):
        """ELBO of each row of X (n,), in nats, from n_samples posterior draws: unbiased.

        The draws are a function of the seed, the draw and the row. random_state None takes the
        estimator's own: an int there repeats the same draws in every call, None draws afresh.
        """
        self._check_loaded()
        validation.check_count("n_samples", n_samples)
        X, seed = self._check_X(X), self._seed(random_state)
        return evaluation.elbo(*self._model, X, self._binarize, seed, n_samples)

    def score_samples(self, X, n_samples=100):
        """Importance-weighted estimate of ln p(x) for each row of X (n,), in nats.

        In expectation a lower bound that tightens with n_samples and is never below the ELBO
        (Burda, Grosse, Salakhutdinov 2015). The same posterior noise serves every row and call.
        """
        return self._score_samples(X, n_samples)

    def _score_samples(self, X, n_samples):
        self._check_loaded()
        validation.check_count("n_samples", n_samples)
        X = self._check_X(X)
        if self.likelihood == "bernoulli" and self.binarize is None:
            validation.warn_of_grey(X)
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
            eps = validation.check_noise(eps, (len(X), self.latent_dim), self.dtype)
        self._model[0].binarize(X, self._binarize, self.seed_, STREAM_BINARIZE, 0, 0)
        return X, eps

    # --- files ----------------------------------------------------------------------------------

    @one_at_a_time
    def save(self, path):
        """Write the model, the optimiser's state and the history to path, as safetensors.

        Equal models give equal bytes: the seconds that epochs took are left out.
        """
        self._check_loaded()
        self._check_unchanged()
        storage.write(path, self._state.arrays(), facts_of(self))

    @classmethod
    def load(cls, path, part=None):
        """The model that `save` wrote to path, ready to use and to train on.

        part="encoder" gives one that can only `transform`, part="decoder" one that can only
        `inverse_transform` and `sample`. StorageError for a file that is not a whole model.
        """
        return load(cls, path, part)
