"""VAE: the variational autoencoder as a scikit-learn transformer."""

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from minivae.data import checks
from minivae.engine.threads import processors
from minivae.evaluation import ais, importance
from minivae.evaluation.diagnosis import diagnose
from minivae.kernels import ACTIVATIONS, LIKELIHOODS
from minivae.models.base import Model
from minivae.models.settings import BINARIZED, COMMON, SIZES, choice, real, whole
from minivae.models.vae import program


class VAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Model):
    """Variational autoencoder with dense layers, trained by hand-written gradients.

    Minimises the mean over rows of nll + beta * kl in nats, nll = -ln p(x|z) and
    kl = KL(q(z|x) || N(0, I)), by stochastic gradients with one reparameterised sample per row
    (Kingma and Welling 2013). For beta = 1 that is -ELBO, an upper bound of -ln p(x).

    Parameters
    ----------
    {settings}

    Attributes
    ----------
    parameters_ : dict of name to array, views of the live parameters
    history_ : dict of lists, one value per epoch: loss, nll, kl, elbo (means over the epoch's rows,
        nats), gradient_norm, seconds, and valid_elbo, valid_nll, valid_kl if held-out rows were
        given to `fit`
    n_features_in_ : int, D
    seed_ : int, the seed of every random number that the model draws
    """

    program = program
    score_kind = "lower bound"
    instead_of_bernoulli = ', or use likelihood="gaussian"'
    parts = ("encoder", "decoder")
    SETTINGS = {
        "latent_dim": whole(2, "Z, the number of latent variables"),
        "hidden_layer_sizes": SIZES,
        "activation": choice("relu", ACTIVATIONS, "after each hidden layer"),
        "likelihood": choice(
            "bernoulli",
            LIKELIHOODS,
            "p(x|z): 'bernoulli' with learned logits, for X in [0, 1]; or 'gaussian' with learned "
            "mean and one learned variance, shared by all features",
        ),
        "binarize": BINARIZED,
        "posterior": choice(
            "diagonal", ("diagonal", "full"), "covariance of q(z|x); 'full' is not built yet"
        ),
        "missing": choice(
            "error", ("error", "mask"), "what NaN in X means: an error, or a value not observed"
        ),
        "beta": real(1.0, "weight of kl in the loss"),
        **COMMON,
    }

    def __init__(
        self,
        latent_dim=2,
        *,
        hidden_layer_sizes=(400,),
        activation="relu",
        likelihood="bernoulli",
        binarize=None,
        posterior="diagonal",
        missing="error",
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
        self.missing = missing
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

    # --- what the base asks for -----------------------------------------------------------------

    def plan_settings(self):
        return {
            "latent_dim": int(self.latent_dim),
            "hidden_layer_sizes": tuple(map(int, self.hidden_layer_sizes)),
            "activation": self.activation,
            "likelihood": self.likelihood,
            "missing": self.missing,
        }

    def _weights(self):
        return program.weights(beta=float(self.beta))

    def _check_family(self):
        if self.posterior == "full":
            raise NotImplementedError('posterior="full" is not built yet; use posterior="diagonal"')
        self._check_binarize()

    def _check_binarize(self):
        if self.binarize is not None and self.likelihood != "bernoulli":
            raise ValueError(
                f'binarize={self.binarize!r} goes with likelihood="bernoulli", got '
                f"likelihood={self.likelihood!r}; leave binarize=None"
            )

    @property
    def is_bernoulli(self):
        return self.likelihood == "bernoulli"

    @property
    def takes_missing(self):
        return self.missing == "mask"

    @property
    def _n_features_out(self):
        return self.layout_.plan.latent_dim

    @property
    def _binarize_code(self):
        self._check_binarize()
        return super()._binarize_code

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags

    def held_out_score(self, X):
        """(ELBO of each row of X (n,), in words how)."""
        return self.elbo(X, n_samples=10, random_state=0), "10 draws for each"

    # --- use ------------------------------------------------------------------------------------

    def transform(self, X):
        """Posterior means of the rows of X, (n, Z). Stochastic binarisation is left out here."""
        self._check_loaded("encoder")
        X = self._check_X(X)
        return self._encode(self._session(X.shape[0]), X)

    def kl_per_latent(self, X):
        """KL(q(z_j|x) || N(0, 1)) of each latent (Z,), the mean over the rows of X, in nats: near 0
        for a latent that the model does not use."""
        self._check_loaded("encoder")
        X = self._check_X(X)
        heads = importance.encode(self._session(X.shape[0]), X, self._binarize_code)
        return importance.kl_per_latent(*heads)

    def diagnose(self, X):
        """Which latents the model uses, on the rows of X (2 or more): a Diagnosis, which prints as
        a table with advice.

        Arrays (Z,): active, kl, spread, mean, variance, mismatch (evaluation/diagnosis.py), and
        n_active, advice.
        """
        self._check_loaded("encoder")
        X = self._check_X(X)
        heads = importance.encode(self._session(X.shape[0]), X, self._binarize_code)
        return diagnose(*heads, self.get_params())

    def inverse_transform(self, Z):
        """Decoder means for codes Z (n, latent_dim): probabilities or Gaussian means, (n, D)."""
        self._check_loaded("decoder")
        Z = checks.as_array(Z, "Z", dtype=self.state_.theta.dtype, order="C")
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"Z has {Z.shape[1]} columns, expected one per latent: {self._n_features_out}"
            )
        return importance.decode(self._session(len(Z)), Z)

    def reconstruct(self, X):
        """Decoder means at the posterior means of X, (n, D)."""
        self._check_loaded()
        X = self._check_X(X)
        session = self._session(X.shape[0])
        return importance.decode(session, self._encode(session, X))

    def _encode(self, session, X):
        return importance.encode(session, X, self._binarize_code)[0]

    def sample(self, n_samples=1, random_state=None):
        """Draws of x from the model, (n_samples, D): z from N(0, I), then x from p(x|z).

        For the means that pictures usually show: `inverse_transform` of standard normal Z.
        random_state as in `elbo`.
        """
        self._check_loaded("decoder")
        return self._draws(n_samples, random_state)

    def elbo(self, X, n_samples=1, random_state=None):
        """ELBO of each row of X (n,), in nats, from n_samples posterior draws: unbiased.

        The draws are a function of the seed, the draw and the row. random_state None takes the
        estimator's own: an int there repeats the same draws in every call, None draws afresh.
        """
        self._check_loaded()
        n_samples = checks.check_count("n_samples", n_samples)
        X, seed = self._check_X(X), self._seed(random_state)
        return -sum(self._terms(X, n_samples, seed).values())

    def score_samples(self, X, n_samples=100):
        """Importance-weighted estimate of ln p(x) for each row of X (n,), in nats.

        In expectation a lower bound that tightens with n_samples and is never below the ELBO
        (Burda, Grosse, Salakhutdinov 2015). The same posterior noise serves every row and call.
        """
        n_samples = checks.check_count("n_samples", n_samples)
        X = self._check_to_score(X)
        return importance.log_likelihood(self._session(X.shape[0]), X, self._binarize_code,
                                         self.seed_, n_samples)  # fmt: skip

    def ais(self, X, n_chains=16, n_temperatures=1000, n_leapfrog=10, random_state=None):
        """Estimate of ln p(x) for each row of X (n,) and its standard error (n,), in nats, by
        annealed importance sampling (Neal 2001; Wu et al. 2016).

        n_chains chains lead from the prior to the posterior of each row in n_temperatures steps, by
        Hamiltonian Monte Carlo of n_leapfrog leapfrog steps; their size adapts to an acceptance of
        0.65, row by row. In expectation a lower bound, but for the little that adapting does to
        it; far tighter than `score_samples` where q(z|x) is far from the posterior, and slower by
        orders of magnitude. The error is that of ln of the mean weight, by the delta method. A
        row's noise is a function of the seed and of the row's values, not of its place.
        random_state as in `elbo`.
        """
        how = self._annealing(n_chains, n_temperatures, n_leapfrog)
        X, seed = self._check_to_score(X), self._seed(random_state)
        with checks.named_memory(f"n_chains={n_chains}"):
            return ais.log_likelihood(how, X, self._binarize_code, seed)

    def ais_bracket(self, n_samples=100, n_chains=16, n_temperatures=1000, n_leapfrog=10,
                    random_state=None):  # fmt: skip
        """ln p(x) of n_samples draws from the model, between a lower and an upper bound, in nats.

        A tuple with x (n, D), lower, lower_error, upper and upper_error (n,): annealed importance
        sampling as in `ais`, and the same backwards from the z that x was drawn with (bidirectional
        Monte Carlo; Grosse, Ghahramani, Adams 2015). Where the means of lower and upper are close,
        `ais` can be trusted for this model and these settings. The errors are of one row; that of
        a mean is seen in the spread of upper - lower over the rows. random_state as in `elbo`.
        """
        self._check_loaded()
        how = self._annealing(n_chains, n_temperatures, n_leapfrog)
        n_samples, seed = checks.check_count("n_samples", n_samples), self._seed(random_state)
        with checks.named_memory(f"n_samples={n_samples}, n_chains={n_chains}"):
            return ais.bracket(how, n_samples, seed)

    def _annealing(self, n_chains, n_temperatures, n_leapfrog):
        counts = {"n_chains": n_chains, "n_temperatures": n_temperatures, "n_leapfrog": n_leapfrog}
        counts = [checks.check_count(name, value) for name, value in counts.items()]
        return ais.Annealing(*counts, self._machine.name, self.n_threads or processors(),
                             lambda rows: self._session(rows, self.state_.theta))  # fmt: skip

    # --- gradients, for given noise -------------------------------------------------------------

    def loss_and_gradients(self, X, eps=None):
        """(loss, {name: gradient}) of the mean loss over X (n, D) for the noise eps (n, Z).

        eps None draws the noise of step 0. A model that was not fitted is given its initial
        parameters first.
        """
        return self._point(X, self._noise(X, eps)).loss_and_gradients()

    def check_gradients(self, X, eps=None, **options):
        """Compare every gradient on X (n, D) with finite differences, in float64, for fixed noise.

        Returns the Report of `minivae.gradcheck.check_gradient` (which takes the options): per
        parameter the worst relative error; `.passed`, `.worst`, and as text a table.
        """
        return self._point(X, self._noise(X, eps), np.float64).check_gradients(**options)

    def trace(self, X, eps=None):
        """Every array of one batch X (n, D), forward and gradient, in the order of the step.

        A mapping name -> array that prints as a table with shape, unit, norm and the line of the
        program that made it (evaluation/trace.py). eps as in `loss_and_gradients`.
        """
        return self._trace(X, self._noise(X, eps))

    def _noise(self, X, eps):
        """{region: its values} for eps (n, Z), or nothing where it is None."""
        if eps is None:
            return {}
        n = X.shape[0] if hasattr(X, "shape") else len(X)
        return {"eps": checks.check_noise(eps, (n, self.latent_dim), self.dtype)}
