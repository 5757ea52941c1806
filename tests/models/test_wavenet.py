"""WaveNet: the paper's formulas written out, what depends on what, sums over all rows, a signal of
known entropy, draws; and mistakes of other people's WaveNets, planted, which these tests must
notice (docs/known-bugs.md)."""

import itertools

import guards as G
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special

from minivae import WaveNet, load
from minivae.kernels.tables import reference
from minivae.models import wavenet as program
from minivae.models.taps import image_taps

DEVICES = pytest.mark.parametrize("device", ["reference", "cpu"])
LEVELS = pytest.mark.parametrize("levels", [2, 3])
SHORT = dict(max_dilation=2, n_stacks=2)  # receptive field 2 + 1 + 2 + 1 + 2


def rows(n, D, levels=2, seed=0):
    return np.random.default_rng(seed).integers(0, levels, (n, D)) / (levels - 1)


def every_row(D, levels):
    return np.array(list(itertools.product(np.arange(levels) / (levels - 1), repeat=D)))


def stirred(X, **settings):
    """A small float64 model with parameters for X, none of them 0."""
    same = dict(n_channels=4, n_skip=5, dtype="float64", device="reference", random_state=0)
    model = WaveNet(**same | settings)
    model.loss_and_gradients(X)
    rng = np.random.default_rng(5)
    for value in model.parameters_.values():
        value += rng.normal(0, 0.4, value.shape)
    model.n_features_in_ = X.shape[1]
    return model


def logits(model, X):
    """Of all positions, (B, D, channels)."""
    session = model._session(len(X), theta=model.state_.theta)
    batch = session.put(np.asarray(X, session.task.theta.dtype))
    session.load_x(batch)
    session.program.terms_pass(session.task, batch)
    return session.download(session.view("logits", batch.B)).reshape(*X.shape, -1).copy()


# --- values ---------------------------------------------------------------------------------------


def logits_by_the_paper(model, x):
    """(D, channels) for one row: position by position, from those before it, by names."""
    p, D = model.parameters_, x.size
    powers = 0
    while 2 ** (powers + 1) <= min(model.max_dilation or D, D - 1):
        powers += 1
    every = [2**i for i in range(powers + 1)] * model.n_stacks

    def map_of(name, h):
        return h @ p[f"{name}.weight"] + p[f"{name}.bias"]

    def before(values, t):
        return values[t] if t >= 0 else np.zeros_like(values[0])

    seen = [np.array([before(x, t - 2), before(x, t - 1)]) for t in range(D)]
    h, skip = ([map_of(f"first.{to}", pair) for pair in seen] for to in ("residual", "skip"))
    for i, d in enumerate(every):
        taps = [np.concatenate([before(h, t - d), h[t]]) for t in range(D)]
        y = [np.tanh(map_of(f"layer.{i}.filter", pair))
             * special.expit(map_of(f"layer.{i}.gate", pair)) for pair in taps]  # fmt: skip
        h = [h[t] + map_of(f"layer.{i}.residual", y[t]) for t in range(D)]
        skip = [skip[t] + map_of(f"layer.{i}.skip", y[t]) for t in range(D)]
    out = np.hstack([h, skip])
    for layer in ("output.0", "output.1"):
        out = np.maximum(map_of(layer, out), 0)
    return map_of("logits", out)


@DEVICES
@LEVELS
def test_ln_p_is_that_of_the_paper(levels, device):
    X = rows(4, 9, levels)
    for settings in (SHORT, {}):
        model = stirred(X, levels=levels, device=device, **settings)
        for x, found in zip(X, model.score_samples(X), strict=True):
            a = logits_by_the_paper(model, x)
            if levels == 2:
                a = np.hstack([0 * a, a])
            log_p = special.log_softmax(a, axis=1)
            expected = log_p[np.arange(9), np.rint(x * (levels - 1)).astype(int)].sum()
            assert_allclose(found, expected, rtol=1e-12)  # some hundred roundings


@DEVICES
@pytest.mark.parametrize(("D", "levels"), [(12, 2), (6, 3), (1, 2)])
def test_probabilities_of_all_rows_sum_to_1(D, levels, device):
    """Of images of 3 x 4 pixels, 4,096 rows; of three levels; of one column."""
    X = every_row(D, levels)
    model = stirred(X[:2], levels=levels, device=device)
    p = np.exp(model.score_samples(X))
    assert abs(p.sum() - 1) < 1e-12 and np.ptp(p) > 1e-5


# --- what depends on what -------------------------------------------------------------------------


def dependence(model, D, levels):
    """(D, D) bool: whether the logits at t are others, in any bit, once x_j is."""
    X = rows(3, D, levels, seed=1)
    whole, found = logits(model, X), np.zeros((D, D), bool)
    for j in range(D):
        other = X.copy()
        other[:, j] = 1 - X[:, j]
        other[X[:, j] == 0.5, j] = 0
        found[:, j] = (logits(model, other) != whole).any(axis=(0, 2))
    return found


@DEVICES
@LEVELS
def test_a_position_depends_on_all_of_its_receptive_field_and_on_nothing_else(levels, device):
    """Strictly below the diagonal, so the first position's logits are constants."""
    D, t = 14, np.arange(14)
    for settings, field in ((SHORT, 8), (dict(max_dilation=1), 3), (dict(max_dilation=5), 9),
                            ({}, 17)):  # fmt: skip
        model = stirred(rows(2, D, levels), levels=levels, device=device, **settings)
        assert model.receptive_field_ == field
        back = t[:, None] - t
        assert_array_equal(dependence(model, D, levels), (back > 0) & (back <= field))


def test_the_dilations_reach_over_all_columns():
    for D, field in ((1, 3), (2, 3), (3, 5), (64, 65), (784, 1025)):
        model = WaveNet(1, n_skip=1, random_state=0, device="reference")
        model.loss_and_gradients(np.eye(2, D))
        assert model.receptive_field_ == field > D - 1


# --- draws ----------------------------------------------------------------------------------------


def naive_draws(model, n, seed):
    """A whole pass for each position, of which one column of logits is used."""
    k, D = model._machine.k, model.layout_.n_features
    dtype = model.state_.theta.dtype
    x, u = np.zeros((n, D), dtype), np.empty((n, D), dtype)
    k.random_uniform(seed, program.STREAM_SAMPLE, 0, 0, u)
    for t in range(D):
        at = np.ascontiguousarray(logits(model, x)[:, t])
        kernel = k.bernoulli_draw if model.levels == 2 else k.levels_draw
        kernel(at, u[:, t : t + 1], x[:, t : t + 1])
    return x


@pytest.mark.parametrize("levels", [2, 5])
@pytest.mark.parametrize(("device", "dtype"), [("reference", "float64"), ("cpu", "float32")])
def test_draws_by_queues_are_those_by_whole_passes(levels, device, dtype):
    """Bit for bit, on the CPU because a product's rows do not depend on each other; on the
    reference because no uniform is within a rounding of where a draw jumps."""
    D = 21
    for settings in (SHORT, {}):
        model = stirred(rows(2, D, levels), levels=levels, device=device, dtype=dtype, **settings)
        drawn = model.sample(30, random_state=3)
        assert_array_equal(drawn, naive_draws(model, 30, 3))
        assert len(np.unique(drawn)) == levels


# --- a signal whose entropy is known --------------------------------------------------------------


class AutoRegression:
    """A chain of second order on 16 levels: p(k | i, j) is proportional to the normal density of
    mean 7.5 + 1.2 (i - 7.5) - 0.5 (j - 7.5) and standard deviation 1.5, i being the last level and
    j the one before it. It begins with a pair of its stationary distribution."""

    def __init__(self):
        i, j, k = (level - 7.5 for level in np.meshgrid(*[np.arange(16.0)] * 3, indexing="ij"))
        self.p = special.softmax(-((k - 1.2 * i + 0.5 * j) ** 2) / (2 * 1.5**2), axis=2)
        pairs = np.full((16, 16), 1 / 256)  # of (last, before)
        for _ in range(300):  # the largest root has modulus 0.5 ** 0.5: 0.7 ** 300 is nothing
            pairs = np.einsum("ij,ijk->ki", pairs, self.p)
        self.pairs = pairs
        self.rate = -(pairs[:, :, None] * self.p * np.log(self.p)).sum()  # nats a step

    def entropy(self, D):
        """Of D steps, in nats."""
        return special.entr(self.pairs).sum() + (D - 2) * self.rate

    def draw(self, n, D, seed):
        rng = np.random.default_rng(seed)
        x = np.empty((n, D), int)
        x[:, 1], x[:, 0] = np.unravel_index(rng.choice(256, n, p=self.pairs.ravel()), (16, 16))
        for t in range(2, D):
            below = np.cumsum(self.p[x[:, t - 1], x[:, t - 2]], axis=1)
            x[:, t] = (below < rng.random((n, 1))).sum(axis=1).clip(max=15)
        return x / 15

    def log_p(self, x):
        """Of each row, exact."""
        k = np.rint(15 * x).astype(int)
        steps = self.p[k[:, 1:-1], k[:, :-2], k[:, 2:]]
        return np.log(self.pairs[k[:, 1], k[:, 0]]) + np.log(steps).sum(axis=1)


def test_a_signal_costs_its_entropy_rate_and_what_was_not_learned():
    """By Gibbs' inequality no model has fewer nats than the source, but for the error of the mean
    over 1,000 rows. A model of P parameters that was fitted to N rows is above by P / (2 N)
    (Akaike 1974); the bound allows as much again, for that the family does not have the source in
    it and training has not come to its end."""
    source, D, N = AutoRegression(), 24, 4000
    X, X_test = source.draw(N, D, seed=0), source.draw(1000, D, seed=1)
    truth = -source.log_p(X_test)
    error = truth.std() / np.sqrt(len(X_test))
    assert abs(truth.mean() - source.entropy(D)) < 5 * error  # the oracle agrees with itself
    model = WaveNet(8, n_skip=16, levels=16, max_dilation=2, epochs=12, batch_size=32,
                    learning_rate=[(9, 1e-2), (3, 1e-3)], random_state=0, n_threads=1)  # fmt: skip
    found = -model.fit(X).score_samples(X_test)
    assert found.mean() > source.entropy(D) - 5 * error
    above = found - truth  # row by row, so that what is common to both cancels
    slack = 5 * above.std() / np.sqrt(len(X_test))
    assert -slack < above.mean() < model.layout_.n_parameters / N + slack
    alone = special.entr(source.pairs.sum(axis=0)).sum()  # nats of a step, without those before it
    assert (alone - found.mean() / D) / (alone - source.rate) > 0.9  # of what memory is worth


# --- what is refused ------------------------------------------------------------------------------


def test_a_sequence_may_not_be_longer_than_its_table_of_taps():
    X = np.zeros((2, 2**16 + 1), "f4")
    with pytest.raises(ValueError, match="n_features=65537: a sequence has 65,536 columns at most"):
        WaveNet(1, n_skip=1, device="reference").fit(X)


def test_a_signal_is_kept_in_files_with_its_levels(tmp_path):
    X = rows(8, 6, 5)
    model = WaveNet(2, n_skip=2, levels=5, epochs=1, device="reference", random_state=0).fit(X)
    model.save(tmp_path / "model")
    twin = load(tmp_path / "model")
    assert_array_equal(twin.score_samples(X), model.score_samples(X))
    assert set(np.unique(twin.sample(50) * 4)) <= {0, 1, 2, 3, 4}


# --- mistakes of others ---------------------------------------------------------------------------


def taps_on_both_sides(D, stack):
    """Padding that keeps a convolution centred: half of it lies ahead."""
    return TAPS(D, stack)[:1] + [
        image_taps(1, D, [(0, -((d + 1) // 2)), (0, d // 2)]) for d in stack
    ]


def target_seen(D, stack):
    """The first convolution reads x_t itself."""
    return [image_taps(1, D, [(0, -1), (0, 0)]), *TAPS(D, stack)[1:]]


def linear_filter(a, y):
    """f tanh(g) for tanh(f) sigmoid(g)."""
    R = y.shape[1]
    y[:] = a[:, :R] * np.tanh(a[:, R:])


def only_with_full_context(logits, x, observed, scale, nll, dlogits):
    seen = np.ones_like(x)
    seen[:, :8] = 0
    reference.bernoulli_nll(logits, x, seen, scale, nll, dlogits)


def queue_emptied(h, queue, t, taps):
    queue[:] = 0
    reference.queue_taps(h, queue, t, taps)


def queue_too_long(h, queue, t, taps):
    """The position before the one that is asked for."""
    C = h.shape[1]
    d = queue.shape[1] // C
    reference.queue_taps(h, queue, t, taps)
    if d > 1:
        taps[:, :C] = queue[:, (t + 1) % d * C : (t + 1) % d * C + C] if t >= d else 0


def bias_of_the_other_half(y, bias, activation):
    """In the generator, which has 30 rows here and not 30 D."""
    reference.bias_activation(y, np.roll(bias, 1) if len(y) == 30 else bias, activation)


def level_below(logits, u, x):
    """Draws by sums that begin one level late, so that the last one never comes."""
    reference.levels_draw(logits, u, x)
    x[:] = np.minimum(x, 1 - 1 / (logits.shape[1] - 1))


TAPS = program.taps_of
DEPENDS, PAPER, SUMS, DRAWS = (
    lambda: test_a_position_depends_on_all_of_its_receptive_field_and_on_nothing_else(
        2, "reference"
    ),
    lambda: test_ln_p_is_that_of_the_paper(2, "reference"),
    lambda: test_probabilities_of_all_rows_sum_to_1(12, 2, "reference"),
    lambda: test_draws_by_queues_are_those_by_whole_passes(2, "reference", "float64"),
)


def five_levels():
    test_draws_by_queues_are_those_by_whole_passes(5, "reference", "float64")


PLANTED = [  # number in the list of known bugs, what must notice, what is replaced, and by what
    ("W1", DEPENDS, "taps_of", taps_on_both_sides),
    ("W2", DEPENDS, "taps_of", target_seen),
    ("W2", SUMS, "taps_of", target_seen),
    ("W3", PAPER, "gate", linear_filter),
    ("W4", SUMS, "bernoulli_nll", only_with_full_context),
    ("W5", DRAWS, "queue_taps", queue_emptied),
    ("W5", DRAWS, "queue_taps", queue_too_long),
    ("W6", DRAWS, "bias_activation", bias_of_the_other_half),
    ("W7", five_levels, "levels_draw", level_below),
]


@pytest.mark.parametrize(
    ("guard", "name", "bug"),
    [
        pytest.param(guard, name, bug, id=f"{row}-{bug.__name__}")
        for row, guard, name, bug in PLANTED
    ],
)
def test_a_planted_bug_is_noticed(guard, name, bug, monkeypatch):
    kernels = {} if name == "taps_of" else {name: bug}
    if not kernels:
        monkeypatch.setattr(program, name, bug)
    with G.running(G.machine_of(reference, program, **kernels)), pytest.raises(AssertionError):
        guard()


@pytest.mark.parametrize("guard", {id(guard): guard for _, guard, *_ in PLANTED}.values())
def test_the_true_code_passes(guard):
    with G.running(G.machine_of(reference, program)):
        guard()
