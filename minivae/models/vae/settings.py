"""The settings of a VAE."""

from minivae.kernels import ACTIVATIONS
from minivae.models.settings import BINARIZED, COMMON, SIZES, Setting, choice, real, whole
from minivae.models.vae.likelihoods import LIKELIHOODS

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
        "kinds of a table's columns, real, positive, binary, count, category or ignore; those not "
        "given are inferred",
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
