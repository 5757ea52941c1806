"""The RBM against all of its states, which a small one has few of: 2^6 visible and 2^4 hidden ones.

What holds for every family is in test_families.py. At the end known bugs are planted: each must
make its guard fail, which is one of the functions that the tests here call.
"""

import contextlib
import inspect
import itertools
import threading
from types import FunctionType
from unittest import mock

import numpy as np
import pytest
from guards import machine_of
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

import minivae
from minivae.evaluation import partition
from minivae.evaluation.point import Point
from minivae.kernels import STREAM_HIDDEN, STREAM_SAMPLE, STREAM_SAMPLE_UNIFORM, tables
from minivae.models import rbm

D, H = 6, 4
STATES = np.array(list(itertools.product([0.0, 1.0], repeat=D)))
HIDDEN = np.array(list(itertools.product([0.0, 1.0], repeat=H)))
DEVICES = pytest.mark.parametrize("device", ["reference", "cpu"])
ROUNDING = 1e-12  # float64: some hundred roundings of terms of order 1


def model(device="reference", seed=0, D=D, H=H, size=0.8, **settings):
    """A float64 RBM with parameters of this size, trained on nothing."""
    same = dict(dtype="float64", random_state=0, batch_size=8, device=device)
    one = minivae.RBM(H, **{**same, **settings})
    one.loss_and_gradients(np.eye(2, D))
    rng = np.random.default_rng(seed)
    for view in one.parameters_.values():
        view[:] = rng.normal(0, size, view.shape)
    return one


def parameters(one):
    views = one.parameters_
    return views["visible.bias"], views["hidden.weight"], views["hidden.bias"]


def minus_energies(one):
    """-E(v, h) of all visible and all hidden states, (2^D, 2^H)."""
    a, W, c = parameters(one)
    return (STATES @ a)[:, None] + HIDDEN @ c + STATES @ W @ HIDDEN.T


def probabilities(one):
    """p(v) of all visible states, from the energy itself."""
    joint = minus_energies(one)
    return np.exp(special.logsumexp(joint, axis=1) - special.logsumexp(joint))


# --- exact ----------------------------------------------------------------------------------------


@DEVICES
def test_scores_are_those_of_the_energy(device):
    one = model(device)
    assert one.score_kind == "exact"
    assert_allclose(one.score_samples(STATES), np.log(probabilities(one)), atol=ROUNDING)
    assert one.log_partition() == (pytest.approx(special.logsumexp(minus_energies(one))), 0.0)


def test_either_side_can_be_summed_over(monkeypatch):
    one = model(H=9)
    machine = partition.Machine(*parameters(one))
    swapped = partition.Machine(machine.c, machine.W.T, machine.a)
    monkeypatch.setattr(partition, "STATES", 7)  # of 64, so that the last part is short
    assert machine.log_partition() == pytest.approx(swapped.log_partition(), abs=ROUNDING)


def test_the_kind_of_score_says_what_is_done(monkeypatch):
    assert minivae.RBM(20).score_kind == "exact" and minivae.RBM(21).score_kind == "estimate"
    assert model(H=21).score_kind == "exact"  # of six features
    monkeypatch.setattr(partition, "FEW", 3)
    one = model("cpu")
    scores, how = one.held_out_score(STATES)
    assert one.score_kind == "estimate" and "too high" in how
    assert_array_equal(scores, one.score_samples(STATES))  # the same draws in every call
    expected = np.log(probabilities(one))
    error = one.log_partition(random_state=0)[1]
    assert 0 < error < 0.01 and abs(scores - expected).max() < 5 * error


def transitions(one):
    """T[v, v'] of a Gibbs step: sum over h of p(h|v) p(v'|h), by the model's own probabilities."""
    p_h, p_v = one.transform(STATES), one.inverse_transform(HIDDEN)
    given_v = np.prod(np.where(HIDDEN[None], p_h[:, None], 1 - p_h[:, None]), axis=2)
    given_h = np.prod(np.where(STATES[None], p_v[:, None], 1 - p_v[:, None]), axis=2)
    return given_v @ given_h


@DEVICES
def test_a_gibbs_step_leaves_the_model_as_it_is_in_detailed_balance(device):
    one = model(device)
    p, T = probabilities(one), transitions(one)
    assert_allclose(T.sum(axis=1), 1, atol=ROUNDING)
    assert_allclose(p @ T, p, atol=ROUNDING)
    assert_allclose(p[:, None] * T, (p[:, None] * T).T, atol=ROUNDING)


def steps_have_their_probabilities(one):
    """20,000 chains, one step from one state: chi-square against its row of T, rare ones as one."""
    n, start = 20_000, 37
    expected = n * transitions(one)[start]
    session = one._session(n, theta=one.state_.theta)
    batch, x = session.batch(n), session.view("x", n)
    x[:] = STATES[start]
    session.program.gibbs(session.task, x, batch, 3, STREAM_SAMPLE_UNIFORM, STREAM_SAMPLE, 0, 0)
    counts = np.bincount((x @ 2 ** np.arange(D)[::-1]).astype(int), minlength=2**D)
    rare = expected < 5
    assert 0 < rare.sum() < 40
    observed = [*counts[~rare], counts[rare].sum()]
    expected = [*expected[~rare], expected[rare].sum()]
    assert stats.chisquare(observed, expected, sum_check=False).pvalue > 1e-4


def varied(device="reference"):
    return model(device, seed=1, size=1.2)


@DEVICES
def test_a_step_draws_what_its_probabilities_say(device):
    steps_have_their_probabilities(varied(device))


# --- gradients ------------------------------------------------------------------------------------


def finite_differences(one, X, h=1e-5):
    """{name: gradient} of the exact mean of -ln p over X, by central differences: an error of h^2
    times third derivatives of order 1, and of 1e-15 / h by rounding."""
    found = {}
    for name, view in one.parameters_.items():
        found[name] = np.empty(view.shape)
        for i in np.ndindex(view.shape):
            old, values = view[i], []
            for moved in (old + h, old - h):
                view[i] = moved
                values.append(-one.score(X))
            view[i] = old
            found[name][i] = (values[0] - values[1]) / (2 * h)
    return found


def test_with_every_state_for_a_chain_the_gradient_is_that_of_the_likelihood():
    """Each state is a chain beside a row of data. Weighed by its probability, what it adds to the
    gradient makes the mean over the model exact."""
    one = model()
    X, p = STATES[np.random.default_rng(2).integers(0, 64, 64)], probabilities(one)
    point = Point(one._session(64, theta=one.state_.theta), X, {"chain": STATES}, 0, 0)
    point.compute()
    n = len(STATES)
    rows = {name: point.session.view(name, n) for name in one.layout_.regions}
    weight = n * p[:, None]  # of what has the factor 1 / n
    assert_array_equal(rows["chain"], STATES)
    found = {
        "hidden.weight": X.T @ rows["dfield.data"] + STATES.T @ (weight * rows["dfield.chain"]),
        "hidden.bias": rows["dfield.data"].sum(0) + (weight * rows["dfield.chain"]).sum(0),
        "visible.bias": rows["dbias+data"].sum(0) + (weight * rows["dbias+chain"]).sum(0),
    }
    for name, expected in finite_differences(one, X).items():
        assert_allclose(found[name], expected, atol=1e-8, err_msg=name)


def test_many_long_chains_give_the_gradient_of_the_likelihood():
    """8,000 chains of 100 steps from 0. What one of them adds to an entry of a gradient lies
    between 0 and 1, with a standard deviation of 1/2 at most."""
    n = 8000
    one = model("cpu", n_steps=100, size=0.5)
    X = STATES[np.random.default_rng(2).integers(0, 64, n)]
    _, gradients = one.loss_and_gradients(X)
    for name, expected in finite_differences(one, X).items():
        assert_allclose(gradients[name], expected, atol=4 * 0.5 / n**0.5, err_msg=name)


def gradients_are_right(one):
    X = np.random.default_rng(1).integers(0, 2, (5, D)).astype(float)
    report = one.check_gradients(X)
    assert report.passed, str(report)


@DEVICES
@pytest.mark.parametrize("chains", ["persistent", "data"])
def test_gradients_by_finite_differences(device, chains):
    gradients_are_right(model(device, chains=chains))


def test_chains_of_contrastive_divergence_begin_at_the_data():
    """Weights that hold each unit where it is: a chain stays at its row, and nothing is carried."""
    one = model(H=D, chains="data")
    a, W, c = parameters(one)
    W[:], a[:], c[:] = 200 * np.eye(D), -100, -100
    trace = one.trace(STATES)
    assert_array_equal(trace["chain"], STATES)
    assert one.layout_.carried == {} == one.state_.carried
    assert_array_equal(model(H=D).trace(STATES)["x"], STATES)


def judged_by_one_column(one):
    """The mean over all columns is minus the pseudo-log-likelihood, which has a sum over all."""
    ln_p = np.log(probabilities(one))
    number = STATES @ 2 ** np.arange(D)[::-1]
    expected = 0.0
    for d in range(D):
        other = STATES.copy()
        other[:, d] = 1 - other[:, d]
        flipped = ln_p[(other @ 2 ** np.arange(D)[::-1]).astype(int)]
        expected -= ln_p[number.astype(int)] - np.logaddexp(ln_p, flipped)
    session, found = one._session(64, theta=one.state_.theta), 0.0
    batch = session.put(STATES)
    for d in range(D):
        session.load_x(batch)
        session.view("noise", 64)[:] = (d + 0.5) / D
        session.program.terms_pass(session.task, batch)
        found = found + np.array(session.view("pseudo_nll", 64)) / D
    assert_allclose(found, expected, atol=10 * ROUNDING)


@DEVICES
def test_what_training_shows_is_the_pseudo_likelihood(device):
    judged_by_one_column(model(device))


# --- chains that persist --------------------------------------------------------------------------


def chains_persist(one):
    """Weights that hold every unit where it is, and no training to speak of: chains stay where they
    are, although the data are elsewhere. Of 11 rows in batches of 8, the last three move less."""
    a, W, c = parameters(one)
    W[:], a[:], c[:] = 200 * np.eye(D), -100, -100
    one.state_.carry(8)
    one.state_.carried["chain"][:] = STATES[20:28]
    one.partial_fit(np.zeros((11, D)))
    assert_array_equal(one.state_.carried["chain"], STATES[20:28])


def still(device="reference", **settings):
    return model(device, H=D, learning_rate=1e-9, optimizer="sgd", **settings)


@DEVICES
def test_chains_go_on_from_step_to_step(device):
    chains_persist(still(device))


def test_more_rows_than_before_get_new_chains_and_the_old_ones_stay():
    one = model()
    one.partial_fit(STATES[:3])
    old = one.state_.carried["chain"].copy()
    assert old.shape == (3, D)
    hold = still()
    chains_persist(hold)
    hold.set_params(batch_size=20)
    hold.partial_fit(STATES[:30])
    expected = np.vstack([STATES[20:28], np.zeros((12, D))])
    assert_array_equal(hold.state_.carried["chain"], expected)


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_batch_that_is_refused_moves_no_chain(device):
    one = model(device).partial_fit(STATES)
    chains = one.state_.carried["chain"].copy()
    assert chains.any()
    one.parameters_["visible.bias"][:2] = 1.5e308  # finite, but not the sum of two
    with pytest.raises(FloatingPointError, match="epoch 2, batch 1"), np.errstate(all="ignore"):
        one.partial_fit(np.ones((8, D)))
    assert_array_equal(one.state_.carried["chain"], chains)


def test_held_out_rows_have_no_chains():
    one = model(epochs=3).fit(STATES, X_valid=STATES[:9])
    valid = {name for name in one.history_ if name.startswith("valid_")}
    names = ("pseudo_log_likelihood", "pseudo_nll", "data_energy")
    assert valid == {f"valid_{name}" for name in names}
    assert one.best_epoch_ == 1 + np.argmax(one.history_["valid_pseudo_log_likelihood"])


def test_it_learns():
    """Two patterns with a tenth of their bits turned, in equal parts. Fitted to n rows, 34 numbers
    miss the entropy by about 34 / 2n = 0.017 nats, and the noise of chains is of that order."""
    rng, n = np.random.default_rng(0), 1000
    patterns = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    X = abs(patterns[rng.integers(0, 2, n)] - (rng.random((n, D)) < 0.1)).astype(float)
    turned = abs(X[:, None] - patterns).sum(axis=2)
    truth = np.log((0.1**turned * 0.9 ** (D - turned)).mean(axis=1)).mean()
    one = minivae.RBM(4, learning_rate=[(15, 0.1), (5, 0.01)], batch_size=50, epochs=20,
                      random_state=0).fit(X)  # fmt: skip
    assert abs(one.score(X) - truth) < 0.05
    assert one.score(X) > -D * np.log(2) + 1  # of fair coins
    assert one.sample(2000, random_state=1).mean(axis=0) == pytest.approx(X.mean(axis=0), abs=0.05)


def test_a_draw_is_the_end_of_a_chain_of_so_many_steps():
    one = still()
    a, W, c = parameters(one)
    W[:], a[:], c[:] = 200 * np.eye(D), -100, -100
    first = one.sample(50, random_state=1, n_gibbs=1)
    assert_array_equal(one.sample(50, random_state=1, n_gibbs=7), first)  # where it began
    assert 0.3 < first.mean() < 0.7 and len(np.unique(first, axis=0)) > 20


# --- annealing ------------------------------------------------------------------------------------


def machine(seed=0, D=24, H=15, size=0.6):
    rng = np.random.default_rng(seed)
    return partition.Machine(*(rng.normal(0, size, shape) for shape in (D, (D, H), H)))


def session(device="reference", workers=1):
    found = model(device)._session(1)
    found.workers = workers
    return found


def without_weights(where):
    """The base is the machine, and each weight 1."""
    flat = machine()._replace(W=np.zeros((24, 15)))
    found, error = partition.estimate(where, flat, 7, 50, 0, base=flat.a)
    assert found == pytest.approx(flat.log_partition(), abs=1e-10) and error < 1e-12


def test_without_weights_annealing_is_exact():
    without_weights(session())


def weights_are_right_in_the_mean(where):
    """A path of two steps, far too short, and 20,000 chains: the mean weight is Z / Z_0 within 5 of
    its errors, since the weights have no long tail for weights as small as these."""
    one = machine(D=6, H=4, size=0.7)
    found, error = partition.estimate(where, one, 20_000, 2, 1, base=np.zeros(6))
    assert error < 0.02 and abs(found - one.log_partition()) < 5 * error


def test_a_short_path_is_right_in_the_mean():
    weights_are_right_in_the_mean(session())


@pytest.mark.parametrize("seed", [0, 1])
def test_annealing_brackets_ln_z(seed):
    one = machine(seed)
    exact, where = one.log_partition(), session("cpu")
    (low, low_error), (high, high_error) = (
        partition.estimate(where, one, 100, 600, seed, reverse) for reverse in (False, True)
    )
    assert max(low_error, high_error) < 0.05
    assert abs(low - exact) < 5 * low_error and abs(high - exact) < 5 * high_error
    assert low - 3 * low_error < exact < high + 3 * high_error


def test_a_path_too_short_is_too_low_and_too_high_backwards():
    """By Jensen's inequality in the mean, and by nats where the weights have a long tail."""
    one = machine(2, size=2.0)
    exact = one.log_partition()
    low, _ = partition.estimate(session(), one, 10, 3, 0, base=np.zeros(24))
    high, _ = partition.estimate(session(), one, 10, 3, 0, True, base=np.zeros(24))
    assert low < exact - 1 and high > exact + 1


def test_an_estimate_does_not_depend_on_threads():
    one = machine()
    found = [partition.estimate(session("cpu", n), one, 11, 20, 3) for n in (1, 2, 3)]
    assert found[0] == found[1] == found[2]
    assert found[0] != partition.estimate(session("cpu"), one, 11, 20, 4)


def test_nobody_waits_for_a_thread_that_nobody_needs():
    stop = threading.Event()
    chains = partition.Chains(session(), machine(), 2, 0, stop)
    chains.rows(slice(0, 2))
    chains.begin(0)
    stop.set()
    with pytest.raises(partition.Interrupted):
        chains.stay(1, 1)


# --- known bugs -----------------------------------------------------------------------------------


def planted(*replaced):
    """The family's program as Python, (old, new) of its text replaced."""
    text, names = inspect.getsource(rbm), vars(rbm).copy()
    for old, new in replaced:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    exec(compile(text, rbm.__file__, "exec"), names)
    return {n: f for n, f in names.items() if isinstance(f, FunctionType)}


def running(family=None, **kernels):
    """Context in which the RBM runs with these functions or kernels."""
    changed = mock.patch.multiple(rbm, **family) if family else contextlib.nullcontext()
    with changed:
        bound = machine_of(tables.reference, rbm, **kernels)
    return mock.patch("minivae.models.base.machine", lambda *device: bound)


def no_hidden_draws(x, seed, stream, *where):
    if stream not in (STREAM_HIDDEN, STREAM_SAMPLE_UNIFORM):
        tables.reference.random_binarize(x, seed, stream, *where)


def of_one_column(x, u, field, W, a, c, nll):
    tables.reference.pseudo_nll(x, u, field, W, a, c, nll)
    nll /= x.shape[1]


def moved_first(self, betas, step):
    """The weight of a temperature is taken after its Gibbs step."""
    log_w, room = 0.0, self.room
    for i, (before, after) in enumerate(itertools.pairwise(betas)):
        self.k.matmul(self.v, room["W"], self.h)
        self.move(after, step + i)
        self.k.matmul(self.v, room["W"], self.h)
        self.k.anneal_energy(self.v, self.h, room["base"], room["a"], room["c"], before, after,
                             self.gain)  # fmt: skip
        log_w = log_w + np.array(self.session.download(self.gain), np.float64)
    return log_w


OLD_HIDDEN = (
    "    judge(task, shard)\n\n\ndef terms_pass",
    "    region(work, plan.chain_dfield, shard)[:] = scale * region(work, plan.h, shard)\n"
    "    judge(task, shard)\n\n\ndef terms_pass",
)
RESTART = ("    if plan.persistent == 0:\n", "    if plan.persistent < 2:\n")
FULL_BATCH = ("plan.chain_energy, -scale,", "plan.chain_energy, -1 / 8,")
BUGS = {  # number in docs/known-bugs.md, guard, model, what plants it
    "hidden units of the step before": (46, gradients_are_right, model, dict(
        family=[OLD_HIDDEN])),
    "probabilities drive the chain": (47, steps_have_their_probabilities, varied, dict(
        random_binarize=no_hidden_draws)),
    "chains begin anew": (48, chains_persist, still, dict(family=[RESTART])),
    "a short batch divided as a full one": (49, gradients_are_right, model, dict(
        family=[FULL_BATCH])),
    "a sum of one column": (50, judged_by_one_column, model, dict(pseudo_nll=of_one_column)),
}  # fmt: skip


@pytest.mark.parametrize("words", BUGS)
@pytest.mark.parametrize("is_planted", [False, True])
def test_a_planted_bug_is_noticed(words, is_planted):
    _, guard, make, plant = BUGS[words]
    plant = dict(plant) if is_planted else {}
    if "family" in plant:
        plant["family"] = planted(*plant["family"])
    with running(**plant):
        if is_planted:
            with pytest.raises(AssertionError):
                guard(make())
        else:
            guard(make())


def test_weights_taken_after_the_step_are_noticed(monkeypatch):
    """Number 45 of docs/known-bugs.md."""
    monkeypatch.setattr(partition.Chains, "anneal", moved_first)
    with pytest.raises(AssertionError):
        weights_are_right_in_the_mean(session())
