"""The settings of a VAE."""

from minivae.kernels import ACTIVATIONS
from minivae.models.settings import BINARIZED, COMMON, SIZES, Setting, choice, real, whole
from minivae.models.vae.likelihoods import LIKELIHOODS

SUITED = {
    "bits": {"latent_dim": 20},  # of images of 0 and 1, on which likelihoods are compared
    "table": {"likelihood": "mixed"},
    # At a rate of 1e-3 Adam moves a noise_logvar by about 3 in 3,000 updates, and columns that
    # others nearly determine want less noise; more units learn some hundred rows by heart; and no
    # number of passes suits all tables (benchmarks/NOTES.md).
    "few rows": {
        "hidden_layer_sizes": (32,),
        "learning_rate": 5e-3,
        "batch_size": 32,
        "validation_fraction": 0.1,
        "patience": 100,
    },
    "gaps": {"missing": "mask"},
    # Tables are small: 64 hidden units fit them where 400 begin to repeat them. Of a row with holes
    # q(z|x) is a poor posterior, and a bound of 5 draws asks less of it than the ELBO does.
    "imputing": {
        "latent_dim": 10,
        "hidden_layer_sizes": (64,),
        "likelihood": "mixed",
        "missing": "mask",
        "objective": "iwae",
        "n_importance": 5,
    },
}
SETTINGS = {
    "latent_dim": whole(2, "Z, the number of latent variables"),
    "hidden_layer_sizes": SIZES,
    "activation": choice("relu", ACTIVATIONS, "after each hidden layer"),
    "likelihood": choice(
        "bernoulli",
        LIKELIHOODS,
        "p(x|z): 'bernoulli' with learned logits, for X in [0, 1]; 'gaussian' with learned means "
        "and one learned variance; 'diagonal_gaussian' with a variance for each feature; "
        "'bounded_gaussian' the same, with means between 0 and 1; 'continuous_bernoulli', a "
        "density on [0, 1]; or 'mixed', a table, each column as its kind wants it",
    ),
    "schema": Setting(
        None,
        [dict, None],
        "kinds of a table's columns, real, positive, binary, count, category, id or ignore; those "
        "not given are inferred",
        "schema",
    ),
    "binarize": BINARIZED,
    "posterior": choice(
        "diagonal",
        ("diagonal", "full"),
        "covariance of q(z|x): 'full' has a Cholesky factor with Z (Z - 1) / 2 more outputs",
    ),
    "objective": choice(
        "elbo",
        ("elbo", "iwae", "dreg"),
        "the bound of ln p(x) to maximise: 'elbo'; 'iwae', the importance-weighted bound of "
        "n_importance draws; or 'dreg', the same with a doubly reparameterised gradient",
    ),
    "n_importance": whole(1, "K, draws of z for each row and step"),
    "missing": choice(
        "error", ("error", "mask"), "what NaN in X means: an error, or a value not observed"
    ),
    "beta": real(1.0, "weight of kl in the loss"),
    "beta_warmup": whole(0, "epochs in which the weight of kl rises to beta", low=0),
    "free_bits": real(0.0, "nats of kl, of each latent, that cost nothing"),
    **COMMON,
}


def check_together(vae):
    """Raise for settings that do not go together."""
    if vae.objective != "elbo":
        for name, plain in {"beta": 1, "beta_warmup": 0, "free_bits": 0}.items():
            if getattr(vae, name) != plain:
                raise ValueError(
                    f'{name}={getattr(vae, name)!r} goes with objective="elbo", got '
                    f"objective={vae.objective!r}; leave {name}={plain}"
                )
    if vae.free_bits and vae.posterior == "full":
        raise ValueError(
            f'free_bits={vae.free_bits!r} goes with posterior="diagonal", whose kl is a sum '
            'over latents, got posterior="full"; leave free_bits=0'
        )
    if vae.schema is not None and vae.likelihood != "mixed":
        raise ValueError(
            f'schema={vae.schema!r} goes with likelihood="mixed", got '
            f"likelihood={vae.likelihood!r}; leave schema=None"
        )
    check_binarize(vae)


def check_binarize(vae):
    """Raise unless binarize is what the likelihood can have."""
    if vae.binarize is not None and vae.likelihood != "bernoulli":
        raise ValueError(
            f'binarize={vae.binarize!r} goes with likelihood="bernoulli", got '
            f"likelihood={vae.likelihood!r}; leave binarize=None"
        )
