"""The host's side of CUDA kernels: what is refused, and what steers a captured step."""

from types import SimpleNamespace

import numpy as np
import pytest
from emulator import EMULATED
from kernel_calls import normals
from kernel_checks import put
from numpy.testing import assert_array_equal

from minivae.kernels.support import launches
from minivae.kernels.support.launches import Control, Counter, Rate, Rows
from minivae.kernels.tables import on_device, reference

pytestmark = EMULATED


@pytest.fixture
def here(device):
    """A float32 matrix of ones on the device."""
    return lambda *shape: put(device, np.ones(shape, np.float32))


# --- what is refused ------------------------------------------------------------------------------


def test_arrays_of_another_dtype_are_refused_by_name(device, here):
    k, x, double = on_device(device), here(3, 4), put(device, np.ones((3, 4)))
    with pytest.raises(TypeError, match="eps has dtype float64, expected float32: convert it once"):
        k.sample_gaussian(x, x, None, double, x)
    with pytest.raises(TypeError, match="observed has dtype bool, expected float32"):
        k.gather(x, put(device, np.arange(3)), here(3, 4), put(device, np.ones((3, 4), bool)))
    with pytest.raises(TypeError, match="rows has dtype int32, expected int64"):
        k.gather(x, put(device, np.arange(3, dtype=np.int32)), here(3, 4), None)
    with pytest.raises(TypeError, match="totals has dtype float32, expected float64"):
        k.add_terms(x, here(3))


def test_layouts_that_a_kernel_cannot_read_are_refused_by_name(device, here):
    k = on_device(device)
    with pytest.raises(ValueError, match=r"y has strides .* expected rows whose entries are adj"):
        k.bias_activation(here(3, 4).T, here(3), 1)
    with pytest.raises(ValueError, match=r"dlogits has strides .* expected rows whose entries"):
        k.bernoulli_nll(here(3, 4), here(3, 4), None, 1.0, here(3), here(3, 8)[:, ::2])
    with pytest.raises(ValueError, match=r"nll has shape .* expected a C-contiguous array: make a"):
        k.bernoulli_nll(here(3, 4), here(3, 4), None, 1.0, here(6)[::2], None)
    with pytest.raises(ValueError, match=r"values has shape \(3, 2\) .* C-contiguous"):
        k.all_finite(here(3, 4)[:, :2])


def test_shapes_that_do_not_match_are_refused_by_name(device, here):
    k, x, rows = on_device(device), here(3, 4), put(device, np.arange(3))
    with pytest.raises(ValueError, match=r"shapes do not match: \(3, 4\) @ \(3, 4\) into"):
        k.matmul(x, x, x)
    with pytest.raises(ValueError, match=r"x has shape \(3, 5\), expected \(3, 4\) as logits has"):
        k.bernoulli_nll(x, here(3, 5), None, 1.0, here(3), None)
    with pytest.raises(ValueError, match=r"x has shape \(2, 4\), expected \(3, 4\)"):
        k.gather(x, rows, here(2, 4), None)
    with pytest.raises(ValueError, match="source has 12 entries, target 11"):
        k.copy(x, here(11))
    with pytest.raises(ValueError, match=r"a weight has shape \(3, 4\), expected \(4, 5\)"):
        k.nade_backward(x, x, here(4, 5), here(1, 5), x, 0, 5, x, here(1, 5), x)


def test_more_columns_than_a_grid_can_have_are_refused():
    """A card would fail to launch; nothing is run here, so any device will do."""
    with pytest.raises(ValueError, match="gather got a matrix of too many columns: 65536 blocks"):
        launches.launch(SimpleNamespace(address=lambda *words: 0), np.float32, "gather", (1, 65536),
                        None, None, None, None, None, 1)  # fmt: skip


def test_a_wrong_number_of_arguments_is_noticed(device):
    for given in ([None] * 3, [None, None, None, 1, 2]):
        with pytest.raises(ValueError):
            launches.launch(device, np.float32, "copy", (1, 1), *given)


# --- a captured step ------------------------------------------------------------------------------


class Step:
    """Adam on the mean of gathered rows: all that a Control steers, in one captured step."""

    def __init__(self, device, data, rows, order):
        self.device, self.control = device, Control(device)
        k, n = on_device(device, self.control), rows
        self.theta, self.first, self.second, self.kept = (
            put(device, np.zeros(data.shape[1], np.float32)) for _ in range(4)
        )
        self.totals, self.x = put(device, np.zeros(1)), put(device, data[:n])
        data, order = put(device, data), put(device, order)
        gradient = put(device, np.zeros(len(self.theta), np.float32))
        u = put(device, np.zeros((1, 4), np.float32))

        def body():
            k.gather(data, Rows(order, n)[:n], self.x, None)
            k.random_uniform(7, 1, Counter(), 0, u)
            k.sum_rows(self.x, 0, gradient)
            assert k.all_finite(self.x)  # in a capture it is the device that knows
            k.copy(u[0], self.kept[:4])
            k.adam(self.theta, gradient, self.first, self.second, Counter() + 1, Rate(),
                   0.9, 0.99, 1e-8, 0.0)  # fmt: skip
            k.add_terms(gradient.reshape(1, -1), self.totals)
            self.control.advance(n)

        self.control.start(0, 0.0, failed=True)
        body()  # a rehearsal: all is compiled, nothing that lasts changes
        self.replay, self.body = device.capture(body), body

    def state(self):
        lasting = (self.theta, self.first, self.second, self.totals, self.kept)
        return [self.device.download(array) for array in lasting]


def expected_states(data, order, rows, rate, first_step, n_steps):
    """The same by the reference, one by one: the states before each step and after the last."""
    theta, first, second, kept = np.zeros((4, data.shape[1]), np.float32)
    totals, states = np.zeros(1), []
    for step in range(first_step, first_step + n_steps):
        states.append([v.copy() for v in (theta, first, second, totals, kept)])
        batch = order[(step - first_step) * rows :][:rows]
        u, gradient = np.zeros((1, 4), np.float32), data[batch].sum(axis=0)
        reference.random_uniform(7, 1, step, 0, u)
        kept[:4] = u
        reference.adam(theta, gradient, first, second, step + 1, rate, 0.9, 0.99, 1e-8, 0.0)
        totals += gradient.sum(dtype=np.float64)
    return [*states, [theta, first, second, totals, kept]]


def require_close(found, expected):
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)


def test_a_replay_takes_the_next_rows_and_the_next_number_of_a_step(device):
    data, order = (
        normals(12, 5).astype(np.float32),
        np.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7, 11, 10]),
    )
    step = Step(device, data, 4, order)
    for array in step.state():
        assert_array_equal(array, 0)  # the rehearsal left nothing behind
    expected = expected_states(data, order, 4, 0.1, 20, 3)
    step.control.start(20, 0.1)
    for after in expected[1:]:
        step.replay()
        require_close(step.state(), after)
    assert step.control.step() == 23


def test_the_learning_rate_may_change_between_replays(device):
    data, order = normals(8, 5).astype(np.float32), np.arange(8)
    step = Step(device, data, 4, order)
    step.control.start(0, 0.1)
    step.replay()
    before = step.device.download(step.theta)
    step.control.start(1, 0.0)
    step.replay()
    assert_array_equal(step.device.download(step.theta), before)


def test_nothing_that_lasts_is_written_once_something_was_not_finite(device):
    data, order = normals(12, 5).astype(np.float32), np.arange(12)
    data[6, 2] = np.nan  # in the second batch of three
    step = Step(device, data, 4, order)
    step.control.start(0, 0.1)
    step.replay()
    after_one = step.state()
    require_close(after_one, expected_states(data, order, 4, 0.1, 0, 1)[1])
    for _ in range(3):
        step.replay()
        for one, two in zip(step.state(), after_one, strict=True):
            assert_array_equal(one, two)
    assert step.control.step() == 1
    assert np.isnan(step.device.download(step.x)).any()  # the batch that it was is still there


def test_rows_can_be_cut(device):
    rows = Rows(np.arange(10), 10)[2:7]
    assert (rows.size, rows.order[0]) == (5, 2)
    assert Rows(np.arange(10), 10)[8:20].size == 2
