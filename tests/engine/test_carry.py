"""What a family carries from step to step: two regions of the toy, one of a family with files.

On a device it is part of the State that tests/engine/test_graph.py compares.
"""

import json

import numpy as np
import pytest
from device_checks import BATCH, problem, run, same_state
from families import X, bits, small
from model_files import forge, parts
from numpy.testing import assert_array_equal
from toy import Toy

import minivae
from minivae.engine.machine import machine
from minivae.training.order import shuffled

SETTINGS = dict(dtype="float64", batch_size=5, epochs=2, random_state=0)
MACHINES = [("reference", 1), ("cpu", 1), ("cpu", 2), ("cpu", 3)]


def expected(epochs, n=11, batch=5):
    """(sum of the rows of X at each place of a batch, how many these were)."""
    trail, count = np.zeros((batch, X.shape[1])), np.zeros((batch, 1))
    for epoch in range(epochs):
        for place, row in enumerate(shuffled(n, 0, epoch)):
            trail[place % batch] += X[row]
            count[place % batch] += 1
    return trail, count


@pytest.mark.parametrize(("device", "n_threads"), MACHINES)
def test_each_row_goes_on_from_the_step_before(device, n_threads):
    """Batches of 5, 5 and 1: workers share them in other ways, and the last has one row."""
    toy = Toy(device=device, n_threads=n_threads, **SETTINGS).fit(X)
    trail, count = expected(2)
    assert count.tolist() == [[6], [4], [4], [4], [4]]
    assert_array_equal(toy.state_.carried["trail"], trail)
    assert_array_equal(toy.state_.carried["count"], count)
    toy.partial_fit(X)
    assert_array_equal(toy.state_.carried["trail"], expected(3)[0])


@pytest.mark.parametrize(("device", "n_threads"), MACHINES)
def test_a_batch_that_is_refused_has_carried_nothing(device, n_threads):
    """The third one: what is carried is as two good batches left it, chains being random."""
    p = problem("rbm", 14)
    on, order, bad = machine(p.program, device), p.order(), p.X.copy()
    bad[order[2 * BATCH]] = np.nan
    state, expected = p.start(), p.start()
    cases = ((state, bad, order), (expected, p.X, order[: 2 * BATCH]))
    for one, data, rows in cases:
        with on.trainer(on, p.layout, p.recipe, one, p.X, n_threads) as trainer:
            with np.errstate(all="ignore"):
                assert run(trainer, p.recipe, one, data, rows) == 2
    same_state(state, expected)
    assert expected.carried["chain"].any()


def test_larger_batches_get_rows_of_0_and_smaller_ones_leave_rows_alone():
    toy = Toy(device="reference", **SETTINGS).fit(X)
    trail, _ = expected(2)
    toy.set_params(batch_size=3).partial_fit(X[:3])
    assert toy.state_.carried["count"].ravel().tolist() == [7, 5, 5, 4, 4]
    assert_array_equal(toy.state_.carried["trail"][3:], trail[3:])
    toy.set_params(batch_size=20).partial_fit(X)
    assert toy.state_.carried["count"].ravel().tolist() == [8, 6, 6, 5, 5] + 6 * [1]


FORGED = {
    "no chains": (lambda a: a.pop("carried.chain"), "missing or not expected: carried.chain"),
    "other chains": (lambda a: a.update({"carried.more": a["carried.chain"]}),
                     "not expected: carried.more"),
    "chains of another width": (
        lambda a: a.update({"carried.chain": np.zeros((5, 3))}), r"expected float64 \(5, 8\)"),
    "a number for chains": (
        lambda a: a.update({"carried.chain": np.zeros(())}), r"expected float64 \(0, 8\)"),
    "chains of another dtype": (
        lambda a: a.update({"carried.chain": np.zeros((5, 8), "f4")}), "is float32"),
    "NaN": (lambda a: a["carried.chain"].fill(np.nan), "carried.chain has values that are NaN"),
}  # fmt: skip


@pytest.mark.parametrize("words", FORGED)
def test_a_forged_file_is_refused(words, tmp_path):
    change, message = FORGED[words]
    path = tmp_path / "model"
    small("rbm", device="reference").fit(X).save(path)
    arrays, metadata = parts(path)
    change(arrays)
    forge(path, arrays, json.loads(metadata["minivae"]))
    with pytest.raises(minivae.StorageError, match=message):
        minivae.load(path)


def test_a_file_of_more_chains_than_a_batch_has_is_taken(tmp_path):
    """Of a model that was trained in larger batches before."""
    model = small("rbm", device="reference", batch_size=9).fit(X)
    model.set_params(batch_size=4).partial_fit(X)
    model.save(tmp_path / "model")
    twin = minivae.load(tmp_path / "model")
    assert twin.state_.carried["chain"].shape == (9, 8) and bits(twin) == bits(model)
    assert bits(twin.partial_fit(X)) == bits(model.partial_fit(X))


def test_a_new_model_that_was_not_trained_has_a_file_too(tmp_path):
    model = small("rbm", device="reference")
    model.loss_and_gradients(X)
    model.save(tmp_path / "model")
    twin = minivae.load(tmp_path / "model")
    assert twin.state_.carried["chain"].shape == (0, 8)
    assert bits(twin.partial_fit(X)) == bits(model.partial_fit(X))
