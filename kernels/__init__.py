"""The kernel table: everything that a training step computes, one small function each.

By subject: SUBJECT/reference.py is the specification (NumPy, with every derivation), beside it lie
its twins, with the same names, arguments and side effects: cpu.py (Numba), and cuda.cu with the
launches of its kernels in cuda.py. `tables.py` collects them. Rules that hold for all of them:

* Results are written into arrays that the caller gives; gradients are written whole, not added.
* Letters: B batch rows, D data, Z latents, P parameters. `d` + name is a gradient.
* Values per row (`nll`, `kl`) are sums over features or latents, in nats. `scale` multiplies
  gradients only, so `scale = 1 / B` makes them gradients of the mean over rows.
* Noise is an argument, or a pure function of (seed, stream, step, row, column).

This page holds what both sides must agree on: the integer codes by which a compiled step
chooses among kernels, the streams of random numbers, and the constants of the formulas.
"""

ACTIVATIONS = ("identity", "relu", "tanh", "sigmoid", "softplus")
IDENTITY, RELU, TANH, SIGMOID, SOFTPLUS = range(5)

# Kinds of columns of a table. `groups`, an int64 array (G, 3) of (kind, first, last), says which
# columns first <= j < last are of a kind; those with noise come first. A category is a group.
KINDS = ("real", "bounded", "grey", "binary", "count", "category")
REAL, BOUNDED, GREY, BINARY, COUNT, CATEGORY = range(6)

BINARIZE = (None, "threshold", "stochastic")
KEEP, THRESHOLD, STOCHASTIC = range(3)

PRIORS = ("logistic", "normal")  # of the codes of a flow
LOGISTIC, NORMAL = range(2)

PRECISIONS = ("float32", "tf32")  # of a GPU's products of float32 matrices

OPTIMIZERS = ("sgd", "adagrad", "adam")
SGD, ADAGRAD, ADAM = range(3)

# One stream of random numbers per purpose, so that no two purposes ever share a draw.
STREAM_WEIGHTS, STREAM_ORDER, STREAM_POSTERIOR, STREAM_BINARIZE = range(4)
STREAM_PRIOR, STREAM_EVALUATION, STREAM_SCORE, STREAM_PIXELS, STREAM_SAMPLE = range(4, 9)
STREAM_CHAINS, STREAM_METROPOLIS = range(9, 11)
STREAM_SAMPLE_UNIFORM, STREAM_IMPUTATION, STREAM_HELD_OUT = range(11, 14)
STREAM_HIDDEN, STREAM_VISIBLE, STREAM_FLIP = range(14, 17)

# A log-variance is held within +-LOGVAR_BOUND before exp, so that float32 never overflows:
# exp(30) is 1e13, and its square still fits. Outside, the gradient is 0.
LOGVAR_BOUND = 30.0

# An affine coupling scales by e^s with |s| <= LOG_SCALE_BOUND, so that no number of them that is in
# use leaves float32: eight, which change each half four times, by e^8 = 3,000 at most.
LOG_SCALE_BOUND = 2.0

# The rate of a count is exp of what a network says; from this logarithm on, its tangent: float32
# does not overflow, and a rate that is far too large is still pulled back.
LOG_RATE_BOUND = 30.0

# So many steps from its mode a draw of a count may be, on either side. A Poisson variable is
# farther off with a probability below 2^-24, the resolution of the uniforms, up to a rate of 1e8.
COUNT_STEPS = 2**16

# Moments of an optimiser whose size is below this become 0. A weight that gets no gradient any more
# would else let them decay into denormal numbers, on which processors are a hundred times slower.
NEGLIGIBLE = 1e-30
