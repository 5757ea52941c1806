"""PixelCNN: who sees whom, probabilities that sum to 1, drawing with what was computed before; and
mistakes of other people's masks and gates, planted, which these tests must notice
(docs/known-bugs.md)."""

import itertools

import guards as G
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import minivae
from minivae import PixelCNN
from minivae.kernels import STREAM_SAMPLE
from minivae.kernels.tables import reference
from minivae.models import pixelcnn as program

DEVICES = pytest.mark.parametrize("device", ["reference", "cpu"])
GATED = pytest.mark.parametrize("gated", [True, False], ids=["gated", "plain"])


def stirred(height, width, **settings):
    """A small float64 model of images, whose parameters are all of a size that shows."""
    same = dict(n_layers=2, n_channels=8, first_kernel=3, image_shape=(height, width),
                dtype="float64", device="reference", random_state=0)  # fmt: skip
    model = PixelCNN(**same | settings)
    X = np.zeros((1, height * width))
    model.loss_and_gradients(X)
    rng = np.random.default_rng(5)
    for value in model.parameters_.values():
        value += rng.normal(0, 0.5, value.shape)
    model.parameters_["output.0.bias"][:] += 1  # or a relu may be shut, and see nothing
    model.n_features_in_ = X.shape[1]
    model.parameters_["logit.bias"][:] -= logits_of(model, rng.integers(0, 2, X.shape)).mean()
    return model


def logits_of(model, X):
    """(n, D), of one pass over all pixels."""
    session = model._session(len(X), theta=model.state_.theta)
    batch = session.put(np.asarray(X, float))
    session.load_x(batch)
    session.program.terms_pass(session.task, batch)
    return session.download(session.view("logit", batch.B)).reshape(X.shape).copy()


def seen(model):
    """(D, D) whether logit d moves when pixel e of some image of random bits does.

    Of several, since a relu may be shut in one. BLAS may round a row of a product other than an
    equal row, so the reference may differ in the last digits where nothing is seen; float64 has 16,
    and what is seen moves by far more.
    """
    D = model.layout_.n_features
    found = np.zeros((D, D), bool)
    for image in np.random.default_rng(1).integers(0, 2, (5, D)):
        X = np.tile(image, (D + 1, 1))
        X[np.arange(D), np.arange(D)] = 1 - image
        logits = logits_of(model, X)
        moved = abs(logits[:-1] - logits[-1]).T
        if model.device == "cpu":
            assert_array_equal(moved[moved < 1e-13], 0)
        found |= moved > 1e-13
    return found


def before(D):
    """The pixels before each pixel: strictly below the diagonal."""
    return np.tril(np.ones((D, D), bool), -1)


# --- who sees whom --------------------------------------------------------------------------------


@DEVICES
@pytest.mark.parametrize(("height", "width"), [(4, 5), (1, 7), (6, 1)])
def test_the_gated_one_sees_all_pixels_before_a_pixel_and_no_other(height, width, device):
    model = stirred(height, width, n_layers=5, device=device)
    assert_array_equal(seen(model), before(height * width))


def test_no_layer_reaches_farther_than_its_kernel():
    """Layers of 5 and 3, 3 pixels: two, and one more for each, in every direction."""
    model = stirred(7, 9, n_layers=2, first_kernel=5)
    i, j = np.divmod(np.arange(63), 9)
    near = (abs(i[:, None] - i) <= 4) & (abs(j[:, None] - j) <= 4)
    assert_array_equal(seen(model), before(63) & near)


@DEVICES
def test_the_plain_one_has_a_blind_spot(device):
    """One line up is one pixel to the right at most: a wedge above on the right is never seen."""
    model = stirred(5, 7, gated=False, n_layers=6, device=device)
    i, j = np.divmod(np.arange(35), 7)
    up, right = i[:, None] - i, j - j[:, None]
    assert_array_equal(seen(model), before(35) & (right <= up))
    assert (before(35) & (right > up)).sum() > 100  # what the gated one sees besides


@GATED
def test_the_first_pixel_knows_nothing(gated):
    model = stirred(3, 4, gated=gated)
    logits = logits_of(model, np.random.default_rng(0).integers(0, 2, (20, 12)))
    assert np.ptp(logits[:, 0]) < 1e-13 < np.ptp(logits[:, 1:], axis=0).min()


# --- probabilities, draws -------------------------------------------------------------------------


@DEVICES
@GATED
def test_probabilities_of_all_images_sum_to_1(gated, device):
    """4,096 of 3 x 4 pixels, each of some hundred roundings."""
    rows = np.array(list(itertools.product([0.0, 1.0], repeat=12)))
    model = stirred(3, 4, n_layers=1, gated=gated, device=device)
    p = np.exp(model.score_samples(rows))
    assert abs(p.sum() - 1) < 1e-12 and p.max() < 0.5


def test_every_gradient_of_larger_kernels():
    model = stirred(3, 4, n_layers=1, n_channels=1, first_kernel=7, kernel=5)
    X = np.random.default_rng(0).integers(0, 2, (2, 12)).astype(float)
    report = model.check_gradients(X)
    assert report.passed and report.worst < 1e-6, str(report)


@DEVICES
@GATED
def test_drawing_with_what_was_computed_before_is_drawing_anew(gated, device):
    """All pixels once for each pixel, with NaN where nothing was drawn yet; the same uniforms."""
    model, n = stirred(4, 5, gated=gated, device=device), 6
    u, x = np.empty((n, 20)), np.full((n, 20), np.nan)
    k = model._machine.k
    k.random_uniform(7, STREAM_SAMPLE, 0, 0, u)
    for d in range(20):
        logit = logits_of(model, x)[:, d : d + 1].copy()
        pixel = np.empty((n, 1))
        k.bernoulli_draw(logit, u[:, d : d + 1].copy(), pixel)
        x[:, d : d + 1] = pixel
    assert_array_equal(model.sample(n, random_state=7), x)
    assert 0.1 < x.mean() < 0.9


# --- the shape of images --------------------------------------------------------------------------


def test_columns_that_are_no_image_are_refused_before_anything_is_made(tmp_path):
    X = np.zeros((4, 12))
    model = PixelCNN(device="reference")
    for call in (model.fit, model.partial_fit, model.check_data, model.loss_and_gradients):
        with pytest.raises(ValueError, match="n_features=12 is no square: set image_shape"):
            call(X)
    assert not hasattr(model, "state_") and not hasattr(model, "n_features_in_")
    model = stirred(3, 4)
    model.save(tmp_path / "model")
    twin = minivae.load(tmp_path / "model")
    assert twin.image_shape == (3, 4)
    assert_array_equal(twin.score_samples(X), model.score_samples(X))


def test_the_line_and_the_image_are_other_models():
    X = np.random.default_rng(0).integers(0, 2, (5, 12))
    line, image = stirred(1, 12), stirred(3, 4)
    assert line.layout_.n_parameters == image.layout_.n_parameters
    assert abs(line.score_samples(X) - image.score_samples(X)).min() > 1e-3


# --- planted bugs ---------------------------------------------------------------------------------

offsets = program.offsets


def centre_row_of_mask_B_is_zero(first_kernel, kernel, gated):
    """Not the pixels on the right alone, but all of the line."""
    (left, _), vertical = offsets(first_kernel, kernel, gated)
    return (left, [(0, 0)][:0]), vertical


def mask_A_with_the_pixel_itself(first_kernel, kernel, gated):
    (left, others), vertical = offsets(first_kernel, kernel, gated)
    return ([*left, (0, 0)], others), vertical


def stacks_without_a_shift(first_kernel, kernel, gated):
    """The vertical stack sees its own line, and is read where it stands."""
    horizontal, (above, others) = offsets(first_kernel, kernel, gated)
    n = first_kernel // 2
    return horizontal, (above + [(0, j) for j in range(-n, n + 1)], others)


def shift_and_mask_both(first_kernel, kernel, gated):
    """A line above that is left out twice: nobody sees the one right above."""
    horizontal, (above, others) = offsets(first_kernel, kernel, gated)
    return horizontal, ([(i - 1, j) for i, j in above], others)


def rows_above_without_their_right(first_kernel, kernel, gated):
    """The kernel of a plain net in the vertical stack's layers: a blind spot again."""
    horizontal, (above, others) = offsets(first_kernel, kernel, gated)
    return horizontal, (above, [(i, j) for i, j in others if i < 0 or j <= 0])


def input_times_tanh(a, y):
    """A gate that is none: f tanh(f) for tanh(f) sigmoid(g)."""
    f = a[:, : y.shape[1]]
    y[:] = f * np.tanh(f)


def bias_of_the_other_half(a, y):
    """In passes over one position alone: f and g changed places."""
    R = y.shape[1]
    a = np.hstack([a[:, R:], a[:, :R]]) if one_position(y) else a
    reference.gate(a, y)


def taps_of_the_pixel_before(h, taps, cols):
    """In passes over one position alone, whose cache is a step late."""
    reference.gather_taps(h, np.where(taps > 0, taps - 1, taps) if len(taps) == 1 else taps, cols)


def one_position(y):
    """Whether y is every D-th row of a region: it is no piece of memory."""
    return len(y) == 6 and y.strides[0] > 10 * y.itemsize


ALL_BEFORE, DRAWS, GRADIENT, SUM = (
    lambda: test_the_gated_one_sees_all_pixels_before_a_pixel_and_no_other(4, 5, "reference"),
    lambda: test_drawing_with_what_was_computed_before_is_drawing_anew(True, "reference"),
    test_every_gradient_of_larger_kernels,
    lambda: test_probabilities_of_all_images_sum_to_1(True, "reference"),
)
PLANTED = [  # number in the list of known bugs, what must notice, offsets or kernels
    ("C1", ALL_BEFORE, centre_row_of_mask_B_is_zero),
    ("C2", ALL_BEFORE, mask_A_with_the_pixel_itself),
    ("C2", SUM, mask_A_with_the_pixel_itself),
    ("C3", ALL_BEFORE, stacks_without_a_shift),
    ("C3", SUM, stacks_without_a_shift),
    ("C4", ALL_BEFORE, shift_and_mask_both),
    ("C5", ALL_BEFORE, rows_above_without_their_right),
    ("C6", GRADIENT, dict(gate=input_times_tanh)),
    ("C7", DRAWS, dict(gate=bias_of_the_other_half)),
    ("C8", DRAWS, dict(gather_taps=taps_of_the_pixel_before)),
]


def name_of(bug):
    return (next(iter(bug.values())) if isinstance(bug, dict) else bug).__name__


@pytest.mark.parametrize(
    ("guard", "bug"), [pytest.param(g, bug, id=f"{row}-{name_of(bug)}") for row, g, bug in PLANTED]
)
def test_a_planted_bug_is_noticed(guard, bug, monkeypatch):
    if not isinstance(bug, dict):
        monkeypatch.setattr(program, "offsets", bug)
    kernels = bug if isinstance(bug, dict) else {}
    with G.running(G.machine_of(reference, program, **kernels)), pytest.raises(AssertionError):
        guard()


def test_a_line_that_is_filled_pixel_by_pixel_is_noticed(monkeypatch):
    """C9: of each line the vertical stack has the first pixel alone before the others are drawn."""
    true = program.lines_above

    def first_pixel_alone(task, shard, first, last, step):
        true(task, shard, first, first + 1, step)

    monkeypatch.setattr(program, "lines_above", first_pixel_alone)
    with G.running(G.machine_of(reference, program)), pytest.raises(AssertionError):
        DRAWS()


@pytest.mark.parametrize("guard", {id(guard): guard for _, guard, _ in PLANTED}.values())
def test_the_true_code_passes(guard):
    with G.running(G.machine_of(reference, program)):
        guard()
