"""The gradient checker must pass right gradients and, above all, fail wrong ones.

Each wrong gradient here is the right one with one deliberate fault, so a test fails if the checker
goes blind to that fault. Inputs are fixed by seed.
"""

from functools import partial

import numpy as np
import pytest

from minivae.evaluation.gradcheck import Report, check_gradient

RNG = np.random.default_rng(7)
X = RNG.standard_normal((4, 3))
W = RNG.standard_normal((3, 5))
LARGE = RNG.standard_normal((50, 40))  # 2000 entries: checked along random directions
POSITIVE = np.exp(X)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def tanh_backward(x, dy):
    return dy / np.cosh(x) ** 2


def matmul(x, w):
    return x @ w


def matmul_backward(x, w, dy):
    return dy @ w.T, x.T @ dy


def relu(x):
    return np.maximum(x, 0)


def relu_backward(x, dy, slope_at_zero=0.0):
    return dy * np.where(x == 0, slope_at_zero, x > 0)


def gaussian_kl(mu, logvar):
    return 0.5 * (mu**2 + np.exp(logvar) - logvar - 1).sum(axis=1)


def gaussian_kl_backward(mu, logvar, dkl):
    return dkl[:, None] * mu, 0.5 * dkl[:, None] * (np.exp(logvar) - 1)


OPS = {
    "matmul": (matmul, matmul_backward, [X, W]),
    "tanh": (np.tanh, tanh_backward, [X]),
    "softplus": (lambda x: np.logaddexp(0, x), lambda x, dy: dy * sigmoid(x), [X]),
    "exp": (np.exp, lambda x, dy: dy * np.exp(x), [X]),
    "log": (np.log, lambda x, dy: dy / x, [POSITIVE]),
    "log close to 0": (np.log, lambda x, dy: dy / x, [POSITIVE / 300]),
    "sum of all": (lambda x: (x**2).sum(), lambda x, dy: 2 * x * dy, [X]),
    "sum of rows": (lambda x: np.sin(x).sum(1), lambda x, dy: np.cos(x) * dy[:, None], [X]),
    "0-d": (lambda a, b: a * np.exp(b), lambda a, b, d: (d * np.exp(b), d * a * np.exp(b)), [2, 1]),
    "identity, a view": (lambda x: x, lambda x, dy: dy, [X]),
    "KL": (gaussian_kl, gaussian_kl_backward, [X, X / 3]),
    "tanh, 2000 entries": (np.tanh, tanh_backward, [LARGE]),
}


@pytest.mark.parametrize("name", OPS)
def test_right_gradients_pass_with_nine_digits(name):
    forward, backward, inputs = OPS[name]
    report = check_gradient(forward, backward, [np.float64(x) for x in inputs])
    assert report.passed, str(report)
    assert report.worst <= 1e-9
    assert report.kinks == 0
    report.raise_if_failed()


def test_several_outputs_all_count():
    def backward(x, dsin, dcos):
        return dsin * np.cos(x) - dcos * np.sin(x)

    def forgets_the_second(x, dsin, dcos):
        return dsin * np.cos(x)

    def forward(x):
        return np.sin(x), np.cos(x)

    assert check_gradient(forward, backward, [X]).passed
    assert not check_gradient(forward, forgets_the_second, [X]).passed


def test_given_dout_is_used():
    seen = []

    def backward(x, dy):
        seen.append(dy)
        return tanh_backward(x, dy)

    dout = np.arange(12.0).reshape(4, 3)
    report = check_gradient(np.tanh, backward, [X], dout=dout)
    assert report.passed
    np.testing.assert_array_equal(seen[0], dout)


# ---- wrong gradients must fail ----


def all_by_a_thousandth(gradient):
    return gradient * 1.001


def one_entry_by_a_thousandth(gradient):
    wrong = gradient.copy()
    wrong[-1, 0] *= 1.001
    return wrong


def swapped_rows(gradient):
    return gradient[::-1]


@pytest.mark.parametrize("name", ["matmul", "tanh", "softplus", "exp", "log", "sum of all", "KL"])
@pytest.mark.parametrize("fault", [all_by_a_thousandth, one_entry_by_a_thousandth, swapped_rows])
@pytest.mark.parametrize("method", ["central", "complex"])
def test_wrong_gradients_fail(name, fault, method):
    forward, backward, inputs = OPS[name]
    if name == "softplus":  # logaddexp does not take complex numbers

        def forward(x):
            return np.log(1 + np.exp(x))

    def last_one_wrong(*args):
        gradients = backward(*args)
        gradients = list(gradients) if isinstance(gradients, tuple) else [gradients]
        return [*gradients[:-1], fault(gradients[-1])]

    assert check_gradient(forward, backward, inputs, method=method).passed
    report = check_gradient(forward, last_one_wrong, inputs, method=method)
    assert not report.passed
    # Only the wrong input is blamed. The error is the fault: 1/1000 of the larger, wrong value.
    *right, wrong = report.inputs.values()
    assert all(x.error <= report.tolerance for x in right)
    if fault is not swapped_rows:
        assert wrong.error == pytest.approx(1e-3 / 1.001, rel=1e-5)
    if fault is one_entry_by_a_thousandth:
        assert wrong.index == (inputs[-1].shape[0] - 1, 0)
        assert wrong.analytic == pytest.approx(1.001 * wrong.numeric, rel=1e-8)


def test_transposed_gradient_fails():
    def backward(x, w, dy):
        return dy @ w.T, (x.T @ dy).T

    square = X[:3]
    assert check_gradient(matmul, matmul_backward, [square, square]).passed
    assert not check_gradient(matmul, backward, [square, square]).passed


def test_missing_term_fails():
    def forward(x):
        return x * np.tanh(x)

    assert check_gradient(forward, lambda x, d: d * (np.tanh(x) + tanh_backward(x, x)), [X]).passed
    assert not check_gradient(forward, lambda x, d: d * np.tanh(x), [X]).passed


@pytest.mark.parametrize("method", ["central", "complex"])
def test_wrong_gradients_fail_along_directions(method):
    def last_row_wrong(x, dy):
        gradient = tanh_backward(x, dy)
        gradient[-1] *= 1.001
        return gradient

    report = check_gradient(np.tanh, tanh_backward, [LARGE], method=method)
    assert report.passed
    assert report.inputs["inputs[0]"].checked == 20
    for backward in (lambda x, dy: 1.001 * tanh_backward(x, dy), last_row_wrong):
        report = check_gradient(np.tanh, backward, [LARGE], method=method)
        assert not report.passed
        assert report.inputs["inputs[0]"].kind == "directions"


def test_tiny_entries_are_judged_in_absolute_terms():
    # sigmoid(40) is 1 - 4e-18: the forward pass cannot show its slope, the gradient can.
    x = np.array([40.0, 0.3])
    assert check_gradient(sigmoid, lambda x, dy: dy * sigmoid(x) * sigmoid(-x), [x]).passed
    # An error far above the rounding level 40 eps / h = 1e-11 still fails.
    wrong = np.array([1e-8, 0.0])
    report = check_gradient(sigmoid, lambda x, dy: dy * sigmoid(x) * sigmoid(-x) + wrong, [x])
    assert not report.passed
    assert report.inputs["inputs[0]"].index == (0,)


def test_gradient_zero_where_the_op_cancels_inside():
    # At the prior KL and gradient are 0, while exp(logvar) - 1 - logvar rounds as if it were 1.
    zeros = np.zeros((2, 3))
    report = check_gradient(gaussian_kl, gaussian_kl_backward, [zeros, zeros])
    assert report.passed, str(report)
    assert report.kinks == 0


# ---- kinks ----


def test_relu_at_zero_is_recognised_as_a_kink():
    x = np.array([0.0, 1.0, -1.0, 0.0])
    for slope in (0.0, 0.5, 1.0):  # every value between the one-sided slopes 0 and 1 is right
        report = check_gradient(relu, lambda x, dy, s=slope: relu_backward(x, dy, s), [x])
        assert report.passed, str(report)
        assert report.kinks == 2
    for slope in (1.001, -0.001):
        report = check_gradient(relu, lambda x, dy, s=slope: relu_backward(x, dy, s), [x])
        assert not report.passed
        assert report.inputs["inputs[0]"].index in [(0,), (3,)]


@pytest.mark.parametrize("distance", [9e-4, 4.444e-4, 1e-4, 1e-5, 1e-6])
def test_kink_within_the_first_step_is_avoided_by_a_smaller_one(distance):
    x = np.array([distance, -distance])
    report = check_gradient(relu, relu_backward, [x])
    assert report.passed, str(report)
    assert report.kinks == 0
    assert not check_gradient(relu, lambda x, dy: relu_backward(x, 1.001 * dy), [x]).passed


def test_kink_closer_than_the_smallest_step():
    x = np.array([3e-9, -3e-9, 1.0])
    report = check_gradient(relu, relu_backward, [x])
    assert report.passed, str(report)
    assert report.kinks == 2
    assert not check_gradient(relu, lambda x, dy: 1.001 * relu_backward(x, dy), [x]).passed


def test_weak_kink_within_the_first_step_costs_no_accuracy():
    def forward(x):
        return x + 1e-4 * relu(x)

    x = np.array([-3e-4, 0.5])
    report = check_gradient(forward, lambda x, dy: dy * (1 + 1e-4 * (x > 0)), [x])
    assert report.passed
    assert report.worst <= 1e-9
    assert not check_gradient(forward, lambda x, dy: dy * (1 + 1e-4 * (x > -1)), [x]).passed


def test_slopes_at_a_kink_are_accurate_beside_strong_curvature():
    def forward(x):
        return np.abs(x) * np.exp(50 * x)

    def backward(x, dy, slope_at_zero):
        slope = np.sign(x) * np.exp(50 * x) * (1 + 50 * x)
        return dy * np.where(x == 0, slope_at_zero, slope)

    x = np.array([0.0, 0.1])
    for slope, passes in ((1, True), (-1, True), (1 + 1e-5, False), (-1 - 1e-5, False)):
        report = check_gradient(forward, lambda x, dy, s=slope: backward(x, dy, s), [x])
        assert report.passed == passes, str(report)
        assert report.kinks == 1


@pytest.mark.parametrize("level", [*np.logspace(3, 8, 11), 5e9])
def test_kink_beside_large_numbers(level):
    # Noise 40 eps level / h: at 1e-3 below the jump, at 1e-7 above it for the larger levels.
    x = np.array([0.0, 1.0])
    for slope, passes in ((0, True), (1, True), (-0.2, False), (1.2, False)):
        report = check_gradient(
            lambda x: level + relu(x),
            lambda x, dy, s=slope: relu_backward(x, dy, s),
            [x],
            dout=np.ones(2),
        )
        assert report.passed == passes, str(report)
        assert report.kinks == 1


@pytest.mark.parametrize("level", [1e3, 1e5, 1e7, 1e9])
@pytest.mark.parametrize("frequency", [1, 10, 100, 1000])
def test_curvature_beside_large_numbers_is_no_kink(level, frequency):
    x = np.array([0.3, 1.0, -2.0])
    report = check_gradient(
        lambda x: level + np.sin(frequency * x) / frequency,
        lambda x, dy: dy * np.cos(frequency * x),
        [x],
    )
    assert report.passed, str(report)
    assert report.kinks == 0


def test_flat_minimum_is_no_kink():
    # The one-sided slopes are -+h^3, far below anything that counts at this point.
    def backward(x, dy):
        return dy * (4 * x**3 + 5 * x**4)

    report = check_gradient(lambda x: x**4 + x**5, backward, [np.zeros(2)])
    assert report.passed, str(report)
    assert report.kinks == 0


def test_absolute_value():
    x = np.array([0.0, 2.0, -3.0])
    report = check_gradient(np.abs, lambda x, dy: dy * np.sign(x), [x])
    assert report.passed
    assert report.kinks == 1
    assert not check_gradient(np.abs, lambda x, dy: dy * np.where(x < 0, -1, 1.01), [x]).passed


def test_nothing_but_kinks_is_a_failure():
    report = check_gradient(np.abs, lambda x, dy: dy * np.sign(x), [np.zeros(3)])
    assert not report.passed
    assert report.worst == 0
    assert "nothing was compared" in str(report)
    report = check_gradient(np.abs, lambda x, dy: dy * 3, [np.zeros(3)])
    assert "3 of 3 failed" in str(report) and "nothing was compared" not in str(report)


JUMPS = {  # forward, its gradient beside the jump, and the point, of which the first entry jumps
    "threshold": (lambda x: 1.0 * (x >= 0.5), lambda x: 0 * x, [0.5, 0.2, -3.0]),
    "threshold from above": (lambda x: 1.0 * (x > 0.5), lambda x: 0 * x, [0.5, 0.2, -3.0]),
    "threshold beside x": (lambda x: 1.0 * (x >= 0.5), lambda x: 0 * x, [0.5 - 3e-9, 0.2, 1.0]),
    "sign": (np.sign, lambda x: 0 * x, [0.0, 0.2, -3.0]),
    "one point": (lambda x: np.where(x == 0, 1, x), lambda x: x**0, [0.0, 0.2, -3.0]),
    "small on a slope": (lambda x: 5 * x + 1e-5 * (x > 1), lambda x: 5 * x**0, [1.0, 0.2, -3.0]),
    "beside large numbers": (lambda x: 1e6 + (x > 1), lambda x: 0 * x, [1.0, 0.2, -3.0]),
    "at large x": (lambda x: np.sin(x) + (x > 2e3), np.cos, [2e3, 0.2, -3.0]),
    "with a kink": (lambda x: relu(x) - 0.1 * (x > 0), lambda x: 1.0 * (x > 0), [0.0, 0.2, -3.0]),
    "root": (lambda x: np.sqrt(relu(x)), lambda x: (x > 0) / 2 / x**0.5, [0.0, 0.25, 1.0]),
}


@pytest.mark.parametrize("name", JUMPS)
def test_jumps_are_no_kinks(name):
    forward, slope, x = JUMPS[name]

    def backward(x, dy, slope_at_jump):
        with np.errstate(all="ignore"):
            return dy * np.where(x == point[0], slope_at_jump, slope(x))

    point = np.array(x)
    for value in (0.0, 1.0, 1e3):  # no value is a gradient there
        report = check_gradient(forward, lambda x, dy, v=value: backward(x, dy, v), [point])
        item = report.inputs["inputs[0]"]
        assert (item.jumps, item.kinks, item.failed) == (1, 0, 0), str(report)
        assert not report.passed
        assert report.worst <= 1e-6  # of the other entries
        assert (
            "forward jumps at 1 of 3, first at coordinate (0,): sum(dout * outputs) changes by "
            in str(report)
        )
        assert "no gradient exists" in str(report)
    header, row = (line.split() for line in str(report).splitlines()[1:3])
    assert (header[5], row[6]) == ("jumps", "1")
    assert check_gradient(forward, lambda x, dy: backward(x, dy, 0.0), [point[1:]]).passed
    with pytest.raises(AssertionError, match="jumps"):
        report.raise_if_failed()


def test_a_jump_along_a_direction_and_beside_a_wrong_entry():
    def forward(x):
        return np.tanh(x) + 1.0 * (x >= LARGE[3, 2])

    report = check_gradient(forward, tanh_backward, [LARGE])
    assert report.inputs["inputs[0]"].jumps == 20
    assert not report.passed

    def wrong(x, dy):
        return tanh_backward(x, dy) * np.where(x == LARGE[3, 3], 1.001, 1)

    report = check_gradient(forward, wrong, [LARGE[:5]])  # both are told
    item = report.inputs["inputs[0]"]
    assert (item.jumps, item.failed, item.index) == (1, 1, (3, 3))
    assert "1 of 200 failed" in item.failure and "jumps at 1 of 200" in item.failure


@pytest.mark.parametrize("curvature", [0, 1, 1e4])
@pytest.mark.parametrize("distance", [0, *np.logspace(-12, -3, 19)])
def test_a_kink_at_or_beside_x_is_no_jump(distance, curvature):
    # With much curvature, here on the right, q(h) is far from q(h/4) even at the smallest step.
    def forward(x, kink, left, right):
        u = x - kink
        return np.where(u > 0, right, left) * u + curvature * relu(u) ** 2

    for left, right in ((-1e-3, 0), (0, -1e-3), (1, -1), (1e-3, 1)):
        for kink in (distance, -distance):
            report = check_gradient(
                partial(forward, kink=kink, left=left, right=right), lambda x, dy: 0 * dy, [[0.0]]
            )
            assert report.inputs["inputs[0]"].jumps == 0, str(report)


@pytest.mark.parametrize("level", np.logspace(8, 9.5, 7))
def test_rounding_beside_a_kink_is_no_jump(level):
    # At the smallest step rounding puts q off by more than the slopes, and by most at h/4.
    def forward(x):
        rounding = (level + np.sin(1e3 * x)) - level - np.sin(1e3 * x)
        return relu(x) + rounding, np.full(1, level)

    def backward(x, dy, dlevel):
        return relu_backward(x, dy)

    report = check_gradient(forward, backward, [np.zeros(1)], dout=(np.ones(1), np.ones(1)))
    item = report.inputs["inputs[0]"]
    assert (item.kinks, item.jumps) == (1, 0), str(report)


def test_curvature_that_jumps_is_no_kink():
    def elu(x):
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))

    x = np.array([0.0, 1.0, -1.0])
    report = check_gradient(elu, lambda x, dy: dy * np.exp(np.minimum(x, 0)), [x])
    assert report.passed, str(report)
    assert report.kinks == 0


# ---- whole models ----


def test_relu_model_with_flat_blocks():
    # A flat vector split in blocks; some of the 600 hidden units switch within the first step.
    rows = RNG.standard_normal((20, 8))

    def forward(weight, bias, out):
        return np.log(np.cosh(relu(rows @ weight + bias) @ out)).sum(axis=1)

    def backward(weight, bias, out, dloss):
        hidden = relu(rows @ weight + bias)
        dy = np.tanh(hidden @ out) * dloss[:, None]
        dhidden = (dy @ out.T) * (hidden > 0)
        return rows.T @ dhidden, dhidden.sum(axis=0), hidden.T @ dy

    def forgets_relu(weight, bias, out, dloss):
        dy = np.tanh(relu(rows @ weight + bias) @ out) * dloss[:, None]
        return rows.T @ (dy @ out.T), *backward(weight, bias, out, dloss)[1:]

    flat = RNG.standard_normal(8 * 30 + 30 + 30 * 4) / 3
    blocks = [flat[:240].reshape(8, 30), flat[240:270], flat[270:].reshape(30, 4)]
    for limit in (1000, 100):  # by coordinates, then the larger blocks along directions
        options = {"names": ["weight", "bias", "out"], "max_coordinates": limit}
        assert check_gradient(forward, backward, blocks, **options).passed
        report = check_gradient(forward, forgets_relu, blocks, **options)
        assert [name for name, x in report.inputs.items() if x.error > 1e-6] == ["weight"]


# ---- complex step ----


@pytest.mark.parametrize("name", ["matmul", "tanh", "exp", "log", "sum of all", "0-d", "KL"])
def test_complex_step_is_exact_to_rounding(name):
    forward, backward, inputs = OPS[name]
    inputs = [np.float64(x) for x in inputs]
    report = check_gradient(forward, backward, inputs, method="complex")
    assert report.tolerance == 1e-12
    assert report.passed, str(report)
    assert report.worst <= 1e-13

    def wrong(*args):
        gradients = backward(*args)
        return [g * (1 + 1e-9) for g in (gradients if len(inputs) > 1 else [gradients])]

    assert not check_gradient(forward, wrong, inputs, method="complex").passed


def test_complex_step_refuses_a_forward_that_is_not_analytic():
    with pytest.raises(TypeError, match="central"):
        check_gradient(np.abs, lambda x, dy: dy * np.sign(x), [X], method="complex")


NOT_ANALYTIC = {  # forward and its gradient; the complex step is wrong for the first half of it
    "abs": (lambda x: np.concatenate([np.abs(x[:2]), x[2:] ** 2]), np.sign),
    "real": (lambda x: np.concatenate([x[:2].real * x[:2], x[2:] ** 2]), lambda x: 2 * x),
    "conj": (lambda x: np.concatenate([x[:2].conj() * x[:2], x[2:] ** 2]), lambda x: 2 * x),
}


@pytest.mark.parametrize("name", NOT_ANALYTIC)
def test_a_forward_that_is_not_analytic_is_not_called_a_wrong_gradient(name):
    forward, slope = NOT_ANALYTIC[name]

    def backward(x, dy):
        return dy * np.concatenate([slope(x[:2]), 2 * x[2:]])

    assert check_gradient(forward, backward, [X]).passed
    report = check_gradient(forward, backward, [X], method="complex")
    item = report.inputs["inputs[0]"]
    assert not report.passed
    assert (item.checked, item.failed, item.not_analytic) == (12, 0, 6)
    assert "forward is not analytic at 6 of 12, first at coordinate (0, 0): complex" in item.failure
    assert "use method='central'" in item.failure
    assert "failed" not in item.failure

    # Central differences are the judge there: a wrong gradient is still seen, and what is wrong.
    report = check_gradient(forward, lambda x, dy: 1.001 * backward(x, dy), [X], method="complex")
    item = report.inputs["inputs[0]"]
    assert (item.failed, item.not_analytic) == (12, 6)
    assert item.error == pytest.approx(1e-3 / 1.001, rel=1e-5)
    assert item.factor == pytest.approx(1.001, rel=1e-6)


@pytest.mark.parametrize("factor", [1 + 1e-9, 1 + 1e-5, 2.0])
def test_a_wrong_gradient_is_not_blamed_on_an_analytic_forward(factor):
    # Central differences cannot see the 1e-9, so they do not speak for the gradient either.
    report = check_gradient(
        np.tanh, lambda x, dy: factor * tanh_backward(x, dy), [X], method="complex"
    )
    item = report.inputs["inputs[0]"]
    assert (item.failed, item.not_analytic) == (12, 0)
    assert "analytic at" not in item.failure
    assert item.factor == pytest.approx(factor, rel=1e-12)


def test_the_worst_is_a_wrong_entry_not_one_judged_by_central_differences():
    # Relative errors 1e-9, far above 1e-12, and about 1e-7, far below the 1e-6 of the judge.
    def forward(x):
        return np.concatenate([np.abs(x[:1]), x[1:] ** 2])

    def backward(x, dy):
        return dy * np.concatenate([(1 + 1e-7) * np.sign(x[:1]), 2 * (1 + 1e-9) * x[1:]])

    item = check_gradient(forward, backward, [X], method="complex").inputs["inputs[0]"]
    assert (item.failed, item.not_analytic) == (9, 3)
    assert item.index[0] > 0
    assert item.error == pytest.approx(1e-9, rel=1e-3)


def test_kinks_and_jumps_that_the_complex_step_meets():
    # NumPy orders complex numbers, so relu at i h has the slope 1. The gradient 0 is no fault.
    x = np.array([0.0, 1.0, -1.0])
    report = check_gradient(relu, relu_backward, [x], method="complex")
    item = report.inputs["inputs[0]"]
    assert (item.failed, item.kinks, item.not_analytic) == (0, 1, 1), str(report)
    assert not report.passed

    def forward(x):
        return np.abs(x) + x**2 + (x.real >= 0)

    report = check_gradient(forward, lambda x, dy: dy * (1 + 2 * x), [x], method="complex")
    item = report.inputs["inputs[0]"]
    assert (item.jumps, item.not_analytic, item.failed) == (1, 2, 1), str(report)


def test_the_complex_step_stands_where_central_differences_find_nothing():
    # Every step to the left leaves the domain.
    x = np.array([1e-9, 2e-9])
    assert check_gradient(np.log, lambda x, dy: dy / x, [x], method="complex").passed
    report = check_gradient(np.log, lambda x, dy: 2 * dy / x, [x], method="complex")
    item = report.inputs["inputs[0]"]
    assert (item.failed, item.not_analytic, item.kinks) == (2, 0, 0)
    assert item.factor == pytest.approx(2, rel=1e-12)


def test_central_differences_start_from_the_point_for_each_input():
    def forward(x, y):
        return (x * y).conj() * (x * y)

    def backward(x, y, dy):
        return 2 * dy * x * y * y, 2 * dy * x * x * y

    report = check_gradient(forward, backward, [X, X[::-1]], method="complex")
    for item in report.inputs.values():
        assert (item.failed, item.not_analytic) == (0, 12), str(report)


# ---- common factors ----


FACTORS = {
    1.001: "1.001 times numeric in every coordinate\n",
    -1: "-1 times numeric in every coordinate: is the sign wrong?\n",
    0: "0 times numeric in every coordinate: is a path missing?\n",
    2: "2 times numeric in every coordinate: is a factor 1/2 lost, or a path counted twice?\n",
    1 / 2: "1/2 times numeric in every coordinate: is a factor 2 lost, as of a square, or ",
    32: "32 times numeric in every coordinate: is a sum taken where forward takes a mean?\n",
    1 / 32: "1/32 times numeric in every coordinate: is a mean taken twice, or where forward ",
    1 / 784: "1/784 times numeric in every coordinate: is a mean taken twice, ",
    -2: "-2 times numeric in every coordinate: is the sign wrong? is a factor 1/2 lost, ",
    -1 / 32: "-1/32 times numeric in every coordinate: is the sign wrong? is a mean taken twice, ",
    1.5: "1.5 times numeric in every coordinate\n",
    1 + 3e-6: "1.000003 times numeric in every coordinate\n",  # tolerance 1e-6
    2 + 3e-6: "2.000003 times numeric in every coordinate\n",  # not 2
    1 / 7000: "0.0001428571 times numeric in every coordinate\n",  # 2 n d > 1/100: may be chance
}


@pytest.mark.parametrize("factor", FACTORS)
def test_a_common_factor_is_named(factor):
    report = check_gradient(np.tanh, lambda x, dy: factor * tanh_backward(x, dy), [X])
    item = report.inputs["inputs[0]"]
    assert item.factor == pytest.approx(factor, rel=1e-8)
    assert f"\n  analytic is {FACTORS[factor]}" in item.failure + "\n"


def test_the_ends_of_a_mean():
    # The commonest of all: backward of a mean over B rows for a sum, and the reverse.
    B = len(X)

    def mean(x):
        return np.sin(x).sum(axis=1).mean()

    def backward(x, dy, scale):
        return dy * scale * np.cos(x)

    assert check_gradient(mean, lambda x, dy: backward(x, dy, 1 / B), [X]).passed
    for scale, words in ((1, "4 times numeric .* a sum taken"), (1 / B**2, "1/4 times .* twice")):
        report = check_gradient(mean, lambda x, dy, s=scale: backward(x, dy, s), [X])
        with pytest.raises(AssertionError, match=words):
            report.raise_if_failed()


def test_a_common_factor_along_directions():
    report = check_gradient(np.tanh, lambda x, dy: tanh_backward(x, dy) / 50, [LARGE])
    assert "analytic is 1/50 times numeric in every direction: is a mean" in str(report)

    def first_row_twice(x, dy):
        return tanh_backward(x, dy) * np.where(np.arange(len(x)) == 0, 2, 1)[:, None]

    report = check_gradient(np.tanh, first_row_twice, [LARGE])
    item = report.inputs["inputs[0]"]
    assert item.failed == 20
    assert item.factor is None and "times" not in item.failure


def with_factors(factors):
    """The gradient of tanh, but entry i of it `factors[i]` times what it should be."""

    def backward(x, dy):
        gradient = tanh_backward(x, dy)
        gradient.flat[: len(factors)] *= factors
        return gradient

    return check_gradient(np.tanh, backward, [X]).inputs["inputs[0]"]


@pytest.mark.parametrize(
    ("factors", "common"),
    [
        ([2, 2], 2),
        ([1.001, 1.001, 1.001], 1.001),
        ([2, 3], None),
        ([2, -2], None),
        ([0, 2, 2], None),
        ([2, 2, 2, 1.001], None),
        ([1.001, 1.001 + 2e-5], None),  # the tolerance is 1e-6
        ([1.001, 1.001 + 1e-7], 1.001),
        ([1.001], None),  # one ratio is always common: only one with a meaning says something
        ([1.5], None),
        ([0], 0),
        ([-1], -1),
        ([2], 2),
        ([1 / 32], 1 / 32),
    ],
)
def test_a_factor_of_some_entries(factors, common):
    item = with_factors(factors)
    assert item.failed == len(factors)
    if common is None:
        assert item.factor is None and "times" not in item.failure
    else:
        assert item.factor == pytest.approx(common, rel=1e-6)
        assert "times numeric in every failing coordinate" in item.failure


def test_entries_that_are_zero_agree_with_every_factor():
    def twice(x, dy):
        return 2 * relu_backward(x, dy)

    item = check_gradient(relu, twice, [X]).inputs["inputs[0]"]
    assert item.failed == (X > 0).sum() < 12
    assert "analytic is 2 times numeric in every coordinate: " in item.failure

    def twice_but_one(x, dy):  # not zero where the number is
        return twice(x, dy) + (x == X[X < 0][0])

    item = check_gradient(relu, twice_but_one, [X]).inputs["inputs[0]"]
    assert item.failed == (X > 0).sum() + 1
    assert item.factor is None


def test_numbers_that_are_not_known_have_no_factor():
    # The noise 40 eps level / h is about 1e-2 at h = 1e-3, so all slopes 0.3 are known to 1/30.
    def forward(x):
        return 1e9 + 0.3 * x

    report = check_gradient(forward, lambda x, dy: 0.9 * dy, [X], dout=np.ones((4, 3)))
    item = report.inputs["inputs[0]"]
    assert item.failed == 12
    assert item.factor is None and "times" not in item.failure
    report = check_gradient(
        lambda x: forward(x) - 1e9 + 1e7, lambda x, dy: 0.9 * dy, [X], dout=np.ones((4, 3))
    )
    assert "analytic is 3 times numeric in every coordinate" in str(report)


def test_a_factor_beside_a_kink():
    x = np.array([0.0, 1.0, -1.0, 2.0])
    report = check_gradient(relu, lambda x, dy: 2 * relu_backward(x, dy, 1.0), [x])
    item = report.inputs["inputs[0]"]
    assert (item.kinks, item.failed) == (1, 3)
    assert "analytic is 2 times numeric in every coordinate: " in item.failure


def test_values_that_are_not_finite_have_no_factor():
    for value in (np.nan, np.inf):
        report = check_gradient(
            np.tanh, lambda x, dy, v=value: 2 * tanh_backward(x, dy) + (x == X[0, 0]) * v, [X]
        )
        assert report.inputs["inputs[0]"].factor is None


def test_each_planted_fault_has_its_own_diagnosis():
    def forward(x):
        return x * np.tanh(x)

    def backward(x, dy):
        return dy * (np.tanh(x) + x / np.cosh(x) ** 2)

    def missing_path(x, dy):
        return dy * np.tanh(x)

    faults = {
        "is 1.001 times numeric in every coordinate": lambda x, d: 1.001 * backward(x, d),
        "in every coordinate: is the sign wrong?": lambda x, d: -backward(x, d),
        "1 of 12 failed": lambda x, d: one_entry_by_a_thousandth(backward(x, d)),
        "in every coordinate: is a path missing?": lambda x, d: 0 * backward(x, d),
        "12 of 12 failed": missing_path,  # one of two: there is no factor in common
    }
    assert check_gradient(forward, backward, [X]).passed
    for words, fault in faults.items():
        for method in ("central", "complex"):
            report = check_gradient(forward, fault, [X], method=method)
            assert not report.passed
            assert words in str(report)
            assert ("times" in str(report)) == ("every" in words)
            assert report.inputs["inputs[0]"].not_analytic == 0


# ---- report ----


def test_halving_ratio_is_four_for_a_smooth_op():
    report = check_gradient(np.exp, lambda x, dy: dy * np.exp(x), [X])
    # The next term of the series changes the ratio by a few h^2 = 1e-6, rounding by about 1e-4.
    assert report.inputs["inputs[0]"].halving_ratio == pytest.approx(4, abs=1e-3)
    # A linear op has no such error, all differences are rounding.
    linear = check_gradient(matmul, matmul_backward, [X, W])
    assert all(x.halving_ratio is None for x in linear.inputs.values())


def test_two_extrapolations_leave_an_error_of_sixth_order():
    # With u = 100 h = 0.1 the relative errors of D(h), R(h) and the value used are about
    # u^2 / 6 = 2e-3, u^4 / 480 = 2e-7 and u^6 / 322560 = 3e-12.
    x = np.array([0.001, 0.002])
    report = check_gradient(
        lambda x: np.sin(100 * x), lambda x, dy: 100 * dy * np.cos(100 * x), [x], tolerance=0.1
    )
    assert report.worst <= 1e-10


def test_report_reads_well():
    def wrong(x, w, b, dy):
        dx, dw = matmul_backward(x, w, dy)
        dw[1, 2] *= 1.5
        return dx, dw, None

    def forward(x, w, b):
        return x @ w + b

    report = check_gradient(forward, wrong, [X, W, np.ones(5)], names=["x", "weight", "bias"])
    lines = str(report).splitlines()
    assert lines[1].split() == "input shape checked failed kinks jumps ratio worst error".split()
    assert lines[2].startswith("x       (4, 3)  12 coordinates")
    assert lines[3].startswith("weight  (3, 5)  15 coordinates")
    assert lines[4].startswith("bias    (5,)    not differentiated")
    assert lines[5].startswith(
        "FAILED, look at weight: 1 of 15 failed, worst at coordinate (1, 2): analytic "
    )
    assert len(lines) == 6
    item = report.inputs["weight"]
    assert (item.checked, item.kinks, item.index) == (15, 0, (1, 2))
    assert item.analytic == pytest.approx(1.5 * item.numeric, rel=1e-8)
    assert report.worst == item.error == pytest.approx(1 / 3, rel=1e-8)
    with pytest.raises(AssertionError, match="look at weight"):
        report.raise_if_failed()
    right = check_gradient(np.tanh, tanh_backward, [X])
    assert str(right).splitlines()[-1].startswith("PASSED")


def test_failures_are_counted():
    def some_wrong(x, dy):
        gradient = tanh_backward(x, dy)
        gradient.flat[:37] *= np.linspace(1.001, 1.1, 37)
        return gradient

    report = check_gradient(np.tanh, some_wrong, [LARGE[:5]], names=["x"])
    item = report.inputs["x"]
    assert (item.checked, item.failed) == (200, 37)
    assert "x: 37 of 200 failed, worst at coordinate (0, 36): " in str(report)
    assert str(report).splitlines()[2].startswith("x      (5, 40)  200 coordinates  37      0 ")
    assert check_gradient(np.tanh, tanh_backward, [LARGE[:5]]).inputs["inputs[0]"].failed == 0
    # Along a random direction every check sees the wrong entries.
    report = check_gradient(np.tanh, some_wrong, [LARGE])
    assert "20 of 20 failed, worst at direction " in str(report)


def test_same_seed_same_report():
    first, again = (check_gradient(np.tanh, tanh_backward, [LARGE], seed=3) for _ in range(2))
    other = check_gradient(np.tanh, tanh_backward, [LARGE], seed=4)
    assert first == again
    assert str(first) == str(again)
    assert first != other


def test_directions_are_random_unit_vectors():
    points = []

    def forward(x):
        points.append(x.copy())
        return np.tanh(x)

    check_gradient(forward, tanh_backward, [LARGE], n_directions=3)
    moves = [point - LARGE for point in points if not np.array_equal(point, LARGE)]
    sizes = np.array([np.linalg.norm(move) for move in moves])
    # h = 1e-3 ||x||, then its half and quarter, right and left.
    expected = 1e-3 * np.linalg.norm(LARGE) * np.tile([1, 1 / 2, 1 / 4], 6)
    np.testing.assert_allclose(sizes, expected, rtol=1e-9)
    units = np.array([move.ravel() for move in moves]) / sizes[:, None]
    # All 2000 entries move. The largest of 2000 normals is about 3.5 of root 2000 = 45.
    assert np.all(units != 0)
    assert np.abs(units).max() < 0.15
    overlap = units[::6] @ units[::6].T  # normal about 1 / 45 between different directions
    assert np.abs(overlap - np.eye(3)).max() < 0.15


def test_reports_of_different_inputs_are_merged():
    def report(name, factor=1.0, **options):
        def backward(x, dy):
            return factor * tanh_backward(x, dy)

        return check_gradient(np.tanh, backward, [X], names=[name], **options)

    right, other, wrong = report("right"), report("other"), report("wrong", 1.001)
    merged = Report.merged([right, other, wrong])
    assert (merged.method, merged.tolerance) == ("central", 1e-6)
    assert list(merged.inputs) == ["right", "other", "wrong"]
    assert merged.inputs["wrong"] is wrong.inputs["wrong"]
    assert merged.worst == wrong.worst
    assert not merged.passed
    assert "FAILED, look at wrong: 12 of 12 failed" in str(merged)
    assert Report.merged([right, other]).passed
    assert Report.merged([right]) == right
    assert Report.merged(iter([right, wrong])) == Report.merged([right, wrong])
    for reports in (
        [],
        [right, report("right")],
        [right, report("other", tolerance=1e-5)],
        [right, report("other", method="complex", tolerance=1e-6)],
    ):
        with pytest.raises(ValueError, match="reports must share method, tolerance and no input"):
            Report.merged(reports)


def test_empty_and_undifferentiated_inputs():
    def forward(x, empty, fixed):
        return np.tanh(x) * fixed + empty.sum()

    def backward(x, empty, fixed, dy):
        return tanh_backward(x, dy * fixed), np.zeros_like(empty), None

    report = check_gradient(forward, backward, [X, np.zeros((0, 3)), X])
    assert report.passed
    assert [x.checked for x in report.inputs.values()] == [12, 0, 0]
    assert report.inputs["inputs[2]"].kind == "not differentiated"


# ---- values that are not finite ----


def test_nonfinite_values_fail():
    def double(x, dy):
        return 2 * dy

    for value in (np.nan, np.inf):
        report = check_gradient(lambda x, v=value: np.where(x == X[1, 1], v, 2 * x), double, [X])
        assert not report.passed
        assert report.worst == np.inf
        assert report.kinks == 0
        broken = np.full((4, 3), value)
        assert check_gradient(lambda x: 2 * x, lambda x, dy, b=broken: b, [X]).worst == np.inf
    one_nan = np.where(X[2, 1] == X, np.nan, 1.0)
    report = check_gradient(lambda x: 2 * x, lambda x, dy: 2 * dy * one_nan, [X])
    assert report.inputs["inputs[0]"].index == (2, 1)
    for value in (np.nan, np.inf):  # the imaginary part alone is finite
        report = check_gradient(lambda x, v=value: x + v, lambda x, dy: dy, [X], method="complex")
        assert report.worst == np.inf and report.inputs["inputs[0]"].not_analytic == 0
    report = check_gradient(np.sqrt, lambda x, dy: dy, [np.array([0.0, 1.0])])
    assert report.worst == np.inf  # no derivative from the left at any step


def test_nonfinite_outputs_are_given_up_at_once():
    calls = []

    def forward(x):
        calls.append(1)
        return x / 0

    assert not check_gradient(forward, lambda x, dy: dy, [X]).passed
    assert len(calls) == 1


def test_a_step_out_of_the_domain_is_made_smaller():
    report = check_gradient(np.log, lambda x, dy: dy / x, [np.array([5e-4, 1.0])])
    assert report.passed, str(report)


# ---- wrong use ----


@pytest.mark.parametrize("method", ["central", "complex"])
def test_inputs_are_never_modified(method):
    inputs = [X.copy(), W.copy()]
    for x in inputs:
        x.flags.writeable = False
    check_gradient(matmul, matmul_backward, inputs, method=method)
    np.testing.assert_array_equal(inputs[0], X)
    np.testing.assert_array_equal(inputs[1], W)


def test_a_dout_modified_or_returned_by_backward_does_no_harm():
    def backward(x, dy):
        dy *= 1 - np.tanh(x) ** 2
        return dy

    assert check_gradient(np.tanh, backward, [X]).passed


def test_a_workspace_used_again_does_no_harm():
    out, gradient = np.empty_like(X), np.empty_like(X)

    def forward(x):
        return np.tanh(x, out=out)

    def backward(x, dy):
        return np.divide(dy, np.cosh(x) ** 2, out=gradient)

    report = check_gradient(forward, backward, [X])
    assert report.passed
    assert report == check_gradient(np.tanh, tanh_backward, [X])


def test_in_place_modification_is_detected():
    def forward(x, w):
        w *= 2
        return x @ w

    def backward(x, w, dy):
        gradients = matmul_backward(x, w, dy)
        x -= 1
        return gradients

    calls = []

    def forward_later(x, w):
        calls.append(1)
        if len(calls) == 5:
            w += 1
        return x @ w

    names = ["x", "weight"]
    with pytest.raises(ValueError, match="forward modified weight in place"):
        check_gradient(forward, matmul_backward, [X, W], names=names)
    with pytest.raises(ValueError, match="backward modified x in place"):
        check_gradient(matmul, backward, [X, W], names=names)
    with pytest.raises(ValueError, match="forward modified weight in place"):
        check_gradient(forward_later, matmul_backward, [X, W], names=names)


def test_wrong_gradient_shapes_and_counts():
    with pytest.raises(ValueError, match=r"gradient of w must have shape \(3, 5\), got \(5, 3\)"):
        check_gradient(matmul, lambda x, w, dy: (dy @ w.T, dy.T @ x), [X, W], names=["x", "w"])
    with pytest.raises(ValueError, match=r"expected 2 arrays.*gradient of w, got 1"):
        check_gradient(matmul, lambda x, w, dy: dy @ w.T, [X, W], names=["x", "w"])
    with pytest.raises(ValueError, match="nothing to check"):
        check_gradient(np.tanh, lambda x, dy: None, [X])
    with pytest.raises(ValueError, match=r"dout\[0\] must have shape \(4, 3\), got \(3,\)"):
        check_gradient(np.tanh, tanh_backward, [X], dout=np.ones(3))
    with pytest.raises(ValueError, match="expected 1 arrays"):
        check_gradient(np.tanh, tanh_backward, [X], dout=(X, X))


@pytest.mark.parametrize("dtype", ["float32", "int64", "complex128"])
def test_only_float64_is_accepted(dtype):
    with pytest.raises(TypeError, match=rf"inputs\[0\] has dtype {dtype}.*astype"):
        check_gradient(np.tanh, tanh_backward, [X.astype(dtype)])


def test_lost_precision_is_an_error():
    with pytest.raises(TypeError, match="gradient of x has dtype float32"):
        check_gradient(
            np.tanh, lambda x, dy: tanh_backward(x, dy).astype(np.float32), [X], names=["x"]
        )
    with pytest.raises(TypeError, match="output 0 of forward has dtype float32"):
        check_gradient(lambda x: np.tanh(x).astype(np.float32), tanh_backward, [X])
    with pytest.raises(TypeError, match="output 0 of forward has dtype object"):
        check_gradient(lambda x: None, tanh_backward, [X])


def test_wrong_options():
    with pytest.raises(ValueError, match="'forward'"):
        check_gradient(np.tanh, tanh_backward, [X], method="forward")
    for option in ({"tolerance": 0}, {"tolerance": np.nan}, {"step": 0}, {"n_directions": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            check_gradient(np.tanh, tanh_backward, [X], **option)
    with pytest.raises(TypeError, match="tuple or list"):
        check_gradient(np.tanh, tanh_backward, X)
    for names in (["x"], ["x", "x"]):
        with pytest.raises(ValueError, match="different names"):
            check_gradient(matmul, matmul_backward, [X, W], names=names)
