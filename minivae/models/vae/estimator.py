"""VAE: the variational autoencoder as a scikit-learn transformer."""

from numbers import Real

import numpy as np

from minivae.data import checks
from minivae.data.rows import BLOCK
from minivae.engine.layout import Layout
from minivae.engine.threads import count_sessions
from minivae.evaluation import ais, importance, quadrature
from minivae.evaluation.diagnosis import diagnose
from minivae.evaluation.terms import mean_terms
from minivae.models import tables
from minivae.models.base import Model
from minivae.models.transformer import Transformer
from minivae.models.vae import filling, program
from minivae.models.vae.likelihoods import columns_of_table
from minivae.models.vae.settings import SETTINGS, SUITED, check_binarize, check_together


class VAE(Transformer, Model):
    """Variational autoencoder with dense layers, trained by hand-written gradients.

    Minimises the mean over rows of nll + beta * kl in nats, nll = -ln p(x|z) and
    kl = KL(q(z|x) || N(0, I)), by stochastic gradients with reparameterised draws (Kingma and
    Welling 2013). For beta = 1 that is -ELBO, an upper bound of -ln p(x). Other objectives, and
    what nll and kl are there: minivae/models/vae/objectives.py.

    Parameters
    ----------
    {settings}

    Attributes
    ----------
    parameters_ : dict of name to array, views of the live parameters
    history_ : dict of lists, one value per epoch: loss, nll, kl, elbo (means over the epoch's rows,
        nats), gradient_norm, seconds, and valid_elbo, valid_nll, valid_kl if there are held-out
        rows
    n_epochs_ : int, passes made; best_epoch_ : int from 1, the one with the best held-out score
    n_features_in_ : int, D
    seed_ : int, the seed of every random number that the model draws
    """

    program = program
    score_kind = "lower bound"
    sampling = "parallel"
    PUBLISHED = {"binarized-mnist": -88.71}  # Burda et al. 2015: 200-200-50, one sample
    instead_of_bernoulli = ', or use likelihood="gaussian"'
    parts = ("encoder", "decoder")
    SETTINGS = SETTINGS
    SUITED = SUITED

    def __init__(
        self,
        latent_dim=2,
        *,
        hidden_layer_sizes=(400,),
        activation="relu",
        likelihood="bernoulli",
        schema=None,
        binarize=None,
        posterior="diagonal",
        objective="elbo",
        n_importance=1,
        missing="error",
        beta=1.0,
        beta_warmup=0,
        free_bits=0.0,
        optimizer="adam",
        learning_rate=1e-3,
        momentum=0.0,
        weight_decay=0.0,
        batch_size=128,
        epochs=None,
        validation_fraction=0.0,
        patience=None,
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
        self.schema = schema
        self.binarize = binarize
        self.posterior = posterior
        self.objective = objective
        self.n_importance = n_importance
        self.missing = missing
        self.beta = beta
        self.beta_warmup = beta_warmup
        self.free_bits = free_bits
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.validation_fraction = validation_fraction
        self.patience = patience
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
            "posterior": self.posterior,
            "objective": self.objective,
            "n_importance": int(self.n_importance),
            "free_bits": float(self.free_bits),
            "columns": self.schema_ and columns_of_table(self.schema_),
        }

    def _weights(self, epoch=None):
        share = 1.0 if epoch is None else min(1.0, (epoch + 1) / (self.beta_warmup + 1))
        weights = program.weights(beta=float(self.beta) * share)
        return weights | {"slack": weights["kl"]}

    def _for_use(self, draws=1):
        """The layout for using the model, with so many draws of each row."""
        return self._layout(objective="elbo", n_importance=draws, free_bits=0.0)

    def _layout(self, **changes):
        """The layout of the same parameters with some settings that do not shape them changed."""
        settings = self.layout_.settings | changes
        same = settings == self.layout_.settings
        return self.layout_ if same else Layout(program, self.layout_.n_features, **settings)

    def _check_family(self):
        """Raise for settings that do not go together."""
        check_together(self)

    @property
    def is_bernoulli(self):
        return self.likelihood == "bernoulli"

    @property
    def on_unit_interval(self):
        return self.likelihood in ("bernoulli", "bounded_gaussian", "continuous_bernoulli")

    @property
    def likelihood_in_words(self):
        return f"likelihood={self.likelihood!r}"

    @property
    def takes_tables(self):
        return self.likelihood == "mixed"

    @property
    def takes_missing(self):
        return self.missing == "mask"

    @property
    def _n_features_out(self):
        return self.layout_.plan.latent_dim

    @property
    def _binarize_code(self):
        check_binarize(self)
        return super()._binarize_code

    def held_out_score(self, X):
        """(ELBO of each row of X (n,), in words how)."""
        return self.elbo(X, n_samples=10, random_state=0), "10 draws for each"

    # --- use ------------------------------------------------------------------------------------

    def transform(self, X):
        """Posterior means of the rows of X, (n, Z). Stochastic binarisation is left out here."""
        self._check_loaded("encoder")
        X = self._check_X(X)
        return self._encode(self._session(X.shape[0], self._for_use()), X)

    def kl_per_latent(self, X):
        """KL(q(z_j|x) || N(0, 1)) of each latent (Z,), the mean over the rows of X, in nats: near 0
        for a latent that the model does not use."""
        self._check_loaded("encoder")
        X = self._check_X(X)
        session = self._session(X.shape[0], self._for_use())
        return importance.kl_per_latent(*importance.encode(session, X, self._binarize_code))

    def diagnose(self, X):
        """Which latents the model uses, on the rows of X (2 or more): a Diagnosis, which prints as
        a table with advice.

        Arrays (Z,): active, kl, spread, mean, variance, mismatch (evaluation/diagnosis.py), and
        n_active, advice.
        """
        self._check_loaded("encoder")
        X = self._check_X(X)
        session = self._session(X.shape[0], self._for_use())
        heads = importance.encode(session, X, self._binarize_code)
        return diagnose(*heads, self.get_params())

    def inverse_transform(self, Z):
        """E[x|z] for codes Z (n, latent_dim): probabilities or means (n, D); of a table with
        likelihood="mixed" a table, with the most probable categories."""
        self._check_loaded("decoder")
        Z = checks.check_codes(Z, self._n_features_out, "latent", self.state_.theta.dtype)
        means = importance.decode(self._session(len(Z), self._for_use()), Z)
        return tables.as_given(self, means, "mean", Z)

    def reconstruct(self, X):
        """`inverse_transform` of the posterior means of X, (n, D)."""
        self._check_loaded()
        given, X = X, self._check_X(X)
        session = self._session(X.shape[0], self._for_use())
        means = importance.decode(session, self._encode(session, X))
        return tables.as_given(self, means, "mean", given)

    def _encode(self, session, X):
        return importance.encode(session, X, self._binarize_code)[0]

    def sample(self, n_samples=1, random_state=None):
        """Draws of x from the model, (n_samples, D): z from N(0, I), then x from p(x|z); a table
        where the model was trained on one.

        For the means that pictures usually show: `inverse_transform` of standard normal Z.
        random_state as in `elbo`.
        """
        self._check_loaded("decoder")
        return tables.as_given(self, self._draws(n_samples, random_state), "draw")

    def impute(self, X, n_draws=None, n_samples=1000, random_state=None):
        """X with its missing values filled in; what is known stays as it is. Needs missing="mask".

        n_draws None: with their mean given what is known of the row (of a category, the mode), by
        self-normalised importance sampling of n_samples draws of z (evaluation/imputation.py).
        n_draws: so many multiple imputations (n_draws, n, D), or a list of tables; each is a draw
        from p(what is missing | what is known), resampled from n_samples. random_state as in
        `elbo`.
        """
        return filling.impute(self, X, n_draws, n_samples, random_state)

    def augment(self, X, y=None, n_samples=100, random_state=None):
        """New rows (n_samples, D) like those of X, or with classes y (n,) the pair (rows, their
        classes), as many of each class as of any other.

        Each is E[x|z] for a draw z of q(z|x) of a row x that is drawn from its class: so it keeps
        what the model has learned of the row, and not the noise of p(x|z), which knows no class.
        random_state as in `elbo`.
        """
        return filling.augment(self, X, y, n_samples, random_state)

    def elbo(self, X, n_samples=1, random_state=None):
        """ELBO of each row of X (n,), in nats, from n_samples posterior draws: unbiased.

        The draws are a function of the seed, the draw and the row. random_state None takes the
        estimator's own: an int there repeats the same draws in every call, None draws afresh.
        """
        self._check_loaded()
        n_samples = checks.check_count("n_samples", n_samples)
        X, seed = self._check_X(X), self._seed(random_state)
        session = self._session(X.shape[0], self._for_use())
        return -sum(mean_terms(session, X, self._binarize_code, seed, n_samples).values())

    def score_samples(self, X, n_samples=100, return_error=False):
        """Importance-weighted estimate of ln p(x) for each row of X (n,), in nats.

        In expectation a lower bound that tightens with n_samples and is never below the ELBO
        (Burda, Grosse, Salakhutdinov 2015). The same posterior noise serves every row and call.

        return_error: also the standard error of each, and the effective number of draws, of
        n_samples: an Estimate (log_p, error, effective_draws), see evaluation/importance.py. Where
        few draws count, the bound is loose, and `ais` says more.
        """
        n_samples = checks.check_count("n_samples", n_samples)
        X = self._check_to_score(X)
        layout = self._for_use(importance.draws_at_once(n_samples))
        session = self._session(X.shape[0], layout)
        found = importance.log_likelihood(session, X, self._binarize_code, self.seed_, n_samples)
        return found if return_error else found.log_p

    def quadrature(self, X, tolerance=1e-3):
        """ln p(x) of each row of X (n,), in nats, float64: z is integrated out on a grid.

        For latent_dim 1 or 2, else ValueError. In float64 whatever the model's dtype. The grid is
        refined until that moves no row by more than tolerance; what is left of the error is less
        (evaluation/quadrature.py). Warns where a posterior is too narrow for the finest grid.
        """
        if not isinstance(tolerance, Real) or not 0 < tolerance < np.inf:
            raise ValueError(f"tolerance must be a positive number of nats, got {tolerance!r}")
        X = self._check_to_score(X)
        theta = self.state_.theta.astype(np.float64)
        session = self._session(BLOCK, self._for_use(), theta)
        return quadrature.log_likelihood(session, X, self._binarize_code, self.seed_, tolerance)

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
        layout, theta, m = self._for_use(), self.state_.theta, self._machine
        return ais.Annealing(*counts, m.name, count_sessions(m, self.n_threads),
                             lambda rows: self._session(rows, layout, theta))  # fmt: skip

    # --- gradients, for given noise -------------------------------------------------------------

    def loss_and_gradients(self, X, eps=None):
        """(loss, {name: gradient}) of the mean loss over X (n, D) for the noise eps (n, Z), or
        (n, K, Z) where n_importance is K > 1.

        eps None draws the noise of step 0. A model that was not fitted is given its initial
        parameters first.
        """
        return self._point(X, self._noise(X, eps)).loss_and_gradients()

    def check_gradients(self, X, eps=None, **options):
        """Compare every gradient on X (n, D) with finite differences, in float64, for fixed noise.

        Returns the Report of `minivae.gradcheck.check_gradient` (which takes the options): per
        parameter the worst relative error; `.passed`, `.worst`, and as text a table. For "dreg",
        whose gradient is the derivative of its loss in the mean over eps only, it is "iwae"'s.
        """
        noise, layout = self._noise(X, eps), None
        if self.objective == "dreg":
            self._check_X_to_train(X)  # gives a new model its layout
            layout = self._layout(objective="iwae")
        return self._point(X, noise, np.float64, layout).check_gradients(**options)

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
        Z, K = int(self.latent_dim), int(self.n_importance)
        shape = (n, Z) if K == 1 else (n, K, Z)
        return {"eps": checks.check_noise(eps, shape, self.dtype).reshape(-1, Z)}
