"""PixelRNN: written out pixel by pixel, what depends on what, sums over all images, draws; and
mistakes of other people's recurrent nets, planted, which these tests must notice
(docs/known-bugs.md)."""

import inspect
import itertools

import guards as G
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special

from minivae import PixelRNN
from minivae.kernels import STREAM_SAMPLE
from minivae.kernels.tables import reference
from minivae.models import pixelrnn as program

DEVICES = pytest.mark.parametrize("device", ["reference", "cpu"])
SHAPES = pytest.mark.parametrize("shape", [(3, 4), (1, 12), (12, 1), (6, 2)])
EVERY_IMAGE = np.array(list(itertools.product([0.0, 1.0], repeat=12)))  # all 2^12
IMAGES = EVERY_IMAGE[5::321]


def stirred(device="reference", shape=(3, 4), X=IMAGES, **settings):
    """A small float64 model with parameters, none of them 0 or near it."""
    same = dict(n_hidden=3, dtype="float64", random_state=0, batch_size=20)
    model = PixelRNN(4, image_shape=shape, device=device, **same | settings)
    model.loss_and_gradients(X)
    rng = np.random.default_rng(5)
    for value in model.parameters_.values():
        value[:] = rng.choice([-1, 1], value.shape) * rng.uniform(0.3, 1.2, value.shape)
    model.n_features_in_ = X.shape[1]
    return model


def probability(model, x, t, d):
    """p(x_td = 1 | what comes before) of one image x (T, w), from the paper and from scratch."""
    p = {name: np.asarray(value) for name, value in model.parameters_.items()}
    W_n, W_r, W_z = np.split(p["gru.input.weight"], 3, axis=1)
    U_r, U_z, U_n = np.split(p["gru.state.weight"], 3, axis=1)
    b_n, b_r, b_z = np.split(p["gru.bias"], 3)
    s = np.zeros(model.n_state)
    for row in x[:t]:
        r = special.expit(row @ W_r + s @ U_r + b_r)
        z = special.expit(row @ W_z + s @ U_z + b_z)
        s = z * s + (1 - z) * np.tanh(row @ W_n + b_n + r * (s @ U_n))
    c = s @ p["condition.hidden.weight"] + p["condition.hidden.bias"][t]
    b = s @ p["condition.visible.weight"][:, d] + p["condition.visible.bias"][t, d]
    h = special.expit(c + x[t, :d] @ p["row.hidden.weight"][:d])
    return special.expit(b + h @ p["row.visible.weight"][d])


def probabilities(model, x):
    """(D,) for one image x (D,)."""
    T, w = model.image_shape
    image = x.reshape(T, w)
    return np.array([probability(model, image, t, d) for t in range(T) for d in range(w)])


def logits(model, X):
    return model.trace(X)["logits"].reshape(X.shape)


# --- what the model is ----------------------------------------------------------------------------


@DEVICES
@SHAPES
def test_ln_p_is_that_of_the_paper(shape, device):
    model = stirred(device, shape)
    p = np.array([probabilities(model, x) for x in IMAGES])
    expected = np.log(np.where(IMAGES == 1, p, 1 - p)).sum(axis=1)
    # Twelve logarithms of sums of some ten products of what is below 2, through twelve steps.
    assert_allclose(model.score_samples(IMAGES), expected, rtol=1e-12)


@DEVICES
@SHAPES
def test_probabilities_of_all_images_sum_to_1(shape, device):
    p = np.exp(stirred(device, shape).score_samples(EVERY_IMAGE))
    assert abs(p.sum() - 1) < 1e-12  # 4096 terms, each of some hundred roundings
    assert p.max() > 10 / 4096  # far from uniform


@SHAPES
def test_a_pixel_depends_on_all_before_it_and_on_nothing_else(shape):
    """Each pixel of an image is flipped: the dependency matrix is strictly lower triangular."""
    model, x = stirred(shape=shape), IMAGES[:1]
    flipped = abs(np.eye(12) - x)
    moved = abs(logits(model, flipped) - logits(model, x)) > 1e-12  # [j, i]: pixel i, by pixel j
    assert_array_equal(moved.T, np.tri(12, k=-1, dtype=bool))


@SHAPES
def test_every_gradient_through_time(shape):
    report = stirred(shape=shape).check_gradients(IMAGES[:4])
    assert report.passed and report.worst <= 1e-6, str(report)


# --- draws ----------------------------------------------------------------------------------------


@DEVICES
@SHAPES
def test_draws_are_those_of_a_sampler_that_computes_all_anew_for_each_pixel(shape, device):
    """With the same uniforms, bit for bit; and p is that of the whole image, once it is drawn."""
    model, (T, w) = stirred(device, shape), shape
    u, expected = np.empty((9, 12)), np.zeros((9, T, w))
    reference.random_uniform(3, STREAM_SAMPLE, 0, 0, u)
    for i, t, d in itertools.product(range(9), range(T), range(w)):
        expected[i, t, d] = u[i, t * w + d] < probability(model, expected[i], t, d)
    drawn = model.sample(9, random_state=3)
    assert_array_equal(drawn, expected.reshape(9, 12))
    assert_array_equal(drawn, u < special.expit(logits(model, drawn)))


# --- what it learns -------------------------------------------------------------------------------


def test_the_state_carries_a_row_past_another_one():
    """The third row is the first one, whatever the second one is: 8 bits in 12."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (1000, 2, 4)).astype("f4")
    X = np.concatenate([rows, rows[:, :1]], axis=1).reshape(-1, 12)
    settings = dict(n_state=24, n_hidden=16, image_shape=(3, 4), learning_rate=0.01, epochs=30)
    model = PixelRNN(**settings, batch_size=50, n_threads=1, random_state=0).fit(X)
    # No model gets above -8 ln 2, and one that forgets the first row has -12 ln 2 = -8.3.
    assert -8 * np.log(2) - 0.5 < model.score(X) < -8 * np.log(2) + 0.1


# --- what is refused ------------------------------------------------------------------------------


def test_data_that_are_no_such_images_are_refused_before_anything_is_made():
    for shape, words in (
        (None, "n_features=12 is no square: set image_shape="),
        ((5, 2), r"image_shape=\(5, 2\) does not fit n_features=12"),
    ):
        model = PixelRNN(image_shape=shape, device="reference")
        for call in (model.fit, model.partial_fit, model.check_data):
            with pytest.raises(ValueError, match=words):
                call(IMAGES)
        assert not hasattr(model, "state_")


def test_a_side_that_is_left_open_follows_from_the_columns():
    wide, narrow = (stirred(shape=shape) for shape in ((-1, 4), (3, -1)))
    assert_array_equal(wide.score_samples(IMAGES), narrow.score_samples(IMAGES))


# --- planted bugs ---------------------------------------------------------------------------------


def state_kept_without_its_gate(t, H, states, gates, dstates, dgates):
    """dh' z, the way that does not go through U, is forgotten."""
    before = dstates.copy()
    reference.gru_backward(t, H, states, gates, dstates, dgates)
    dstates[:] = before


def reset_gate_left_out_of_the_gradient(t, H, states, gates, dstates, dgates):
    reference.gru_backward(t, H, states, gates, dstates, dgates)
    step = dgates[:, t * 4 * H : (t + 1) * 4 * H]
    step[:, 3 * H :] = step[:, :H]


def gates_exchanged(t, recurrent, bias, states, gates):
    """h' = z n + (1 - z) h: another model, on whose gradient forward and backward do not agree."""
    H = bias.size // 3
    reference.gru(t, recurrent, bias, states, gates)
    h, after = states[:, t * H : (t + 1) * H], states[:, (t + 1) * H : (t + 2) * H]
    n = gates[:, t * 4 * H : t * 4 * H + H]
    after[:] = n + h - after


def own_pixel_seen(x, W, c, V, b, a, h, logits):
    """x_d is in the hidden layer that predicts it."""
    for d in range(x.shape[1]):
        before = c + x[:, : d + 1] @ W[: d + 1]
        logits[:, d] = special.expit(before) @ V[d] + b[:, d]


CUT = ("        k.add(through, at(task, plan.dstates, t, shard))\n", "")
IN_FORWARD = """        condition(task, t, shard)
        if t + 1 < plan.n_steps:
            advance(task, t, shard)
    biases"""
ONE_ROW_OFF = (IN_FORWARD, """        if t + 1 < plan.n_steps:
            advance(task, t, shard)
        condition(task, t, shard)
    biases""")  # fmt: skip
NEXT = "at(task, plan.states, min(t + 1, plan.n_steps - 1), shard)"
STATE_AFTER = ("k.matmul(at(task, plan.states, t, shard), C", f"k.matmul({NEXT}, C")
FORGETFUL = ("""shard))
        if t + 1 < plan.n_steps:
            advance(task, t, shard)
""", f"shard))\n        k.clear({NEXT})\n")  # fmt: skip

SUM, DEPENDS, GRADIENT, PAPER, DRAWS = (
    lambda: test_probabilities_of_all_images_sum_to_1((3, 4), "reference"),
    lambda: test_a_pixel_depends_on_all_before_it_and_on_nothing_else((3, 4)),
    lambda: test_every_gradient_through_time((3, 4)),
    lambda: test_ln_p_is_that_of_the_paper((3, 4), "reference"),
    lambda: test_draws_are_those_of_a_sampler_that_computes_all_anew_for_each_pixel(
        (3, 4), "reference"),
)  # fmt: skip
PLANTED = [  # number in the list of known bugs, what must notice, kernels, changes of the source
    ("R1 the state has seen the row", SUM, {}, [ONE_ROW_OFF, STATE_AFTER]),
    ("R1 the state has seen the row", DEPENDS, {}, [ONE_ROW_OFF, STATE_AFTER]),
    ("R1 the pixel itself is seen", SUM, dict(nade_logits=own_pixel_seen), []),
    ("R2 the gradient is cut after a step", GRADIENT, {}, [CUT]),
    ("R3", GRADIENT, dict(gru_backward=state_kept_without_its_gate), []),
    ("R4", GRADIENT, dict(gru_backward=reset_gate_left_out_of_the_gradient), []),
    ("R4", PAPER, dict(gru=gates_exchanged), []),
    ("R5 the sampler forgets", DRAWS, {}, [FORGETFUL]),
]


def planted(monkeypatch, kernels, changes):
    """The reference's machine with other kernels, and with other text of the family's module."""
    text = inspect.getsource(program)
    for old, new in changes:
        assert text.count(old) == 1, f"the source should have {old!r} once"
        text = text.replace(old, new)
    names = {"__name__": program.__name__}
    exec(compile(text, program.__file__, "exec"), names)
    for name in ("forward", "condition", "backward", "draw"):
        monkeypatch.setattr(program, name, names[name])
    return G.machine_of(reference, program, **kernels)


@pytest.mark.parametrize(
    ("guard", "kernels", "changes"),
    [
        pytest.param(*bug, id="-".join([words, *(f.__name__ for f in bug[1].values())]))
        for words, *bug in PLANTED
    ],
)
def test_a_planted_bug_is_noticed(guard, kernels, changes, monkeypatch):
    machine = planted(monkeypatch, kernels, changes)
    with G.running(machine), pytest.raises(AssertionError):
        guard()


@pytest.mark.parametrize("guard", [SUM, DEPENDS, GRADIENT, PAPER, DRAWS])
def test_the_true_code_passes(guard, monkeypatch):
    with G.running(planted(monkeypatch, {}, [])):
        guard()
