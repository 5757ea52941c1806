"""Known bugs of other people's VAE code, planted into ours: each must make its guard fail.

Most guards are in `guards.py`; they pass on the true code, on the reference and on the compiled
kernels. The bugs' numbers are those of the project's list, where other files guard them as well:

kernels/           1 2 8 9 13 25 28 32 33       engine/test_step     3 4 5 11 31 32
models/test_vae    7 10 12 17 18 19 24 26 27    models/test_sklearn  23 37
training/          20                           files/               22 36
app/               6                            evaluation/          34 35
only here          21 38 39 40 41 42 43 44
"""

import contextlib
import functools
import inspect
import os
import pickle
import shutil
import sys
import warnings
from collections.abc import Callable
from types import FunctionType, ModuleType, SimpleNamespace
from typing import NamedTuple
from unittest import mock

import guards as G
import numpy as np
import pytest
import table_guards as T
from scipy import stats

import minivae
from minivae.engine import layout, step, threads
from minivae.engine import machine as engine
from minivae.evaluation import importance, imputation, point
from minivae.kernels import CATEGORY, STREAM_EVALUATION, tables
from minivae.kernels.support import device
from minivae.kernels.tables import reference
from minivae.models.vae import program
from minivae.training import loop

RNG = np.random.default_rng(9)


class Plant(NamedTuple):
    """A bug in a few words, and what plants it and returns the machine to run."""

    words: str
    into: Callable


def kernel(**kernels):
    """A kernel is replaced."""
    (bug,) = kernels.values()
    return Plant(bug.__name__, lambda monkeypatch: G.reference_machine(**kernels))


def source(words, module, old, new):
    """The text of a module that is bound is another in one place."""

    def into(monkeypatch):
        text = inspect.getsource(module)
        assert text.count(old) == 1, f"{module.__name__} should have {old!r} once"
        names = vars(module).copy()
        exec(compile(text.replace(old, new), module.__file__, "exec"), names)
        for name, value in names.items():
            if isinstance(value, FunctionType) and value.__module__ == module.__name__:
                monkeypatch.setattr(module, name, value)
        return G.reference_machine()

    return Plant(words, into)


def function(target, bug):
    """A function outside the step is replaced."""

    def into(monkeypatch):
        monkeypatch.setattr(f"minivae.{target}", bug)
        return G.reference_machine()

    return Plant(bug.__name__, into)


# --- guards of what is around the mathematics ---------------------------------------------------


def grey_likelihoods_are_warned_of(machine):
    X = G.bits(4, 3)
    vae = G.estimator(X)
    for values, expected in ((X, []), (0.5 * X, [UserWarning])):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            vae.score_samples(values, 1)
        assert [warning.category for warning in caught] == expected


def cupy_without_a_device_changes_nothing(machine):
    def no_device(*arguments):
        raise RuntimeError("no CUDA-capable device is detected")

    cupy = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=no_device))
    cupy.cuda.is_available = cupy.is_available = lambda: False
    cupy.asnumpy = cupy.asarray = no_device
    numba_table = tables.cpu()  # imports Numba, which must stay imported
    device.find.cache_clear()
    with mock.patch.dict(sys.modules, {"cupy": cupy}):
        X = G.bits(4, 3)
        try:
            assert engine.machine(program, "auto").k is numba_table
            codes = G.estimator(X).partial_fit(X).transform(X)
        except (AttributeError, RuntimeError) as error:
            raise AssertionError("CuPy was asked for an array or a device") from error
        finally:
            device.find.cache_clear()
    assert type(codes) is np.ndarray


def estimators_leave_files_alone(machine):
    """In the current folder, which is empty."""
    os.mkdir("temp")
    open("temp/notes", "w").close()
    G.estimator(G.bits(4, 3)).partial_fit(G.bits(4, 3))
    assert list(os.walk(".")) == [(".", ["temp"], []), ("./temp", [], ["notes"])]


class MakesAFolder:
    """Unpickled, it makes the folder `ran`."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def model_files_run_no_code(machine):
    """In the current folder, which is empty."""
    with open("pickle", "wb") as file:
        pickle.dump(MakesAFolder(), file)
    np.savez("objects.npz", theta=np.array([MakesAFolder()]))
    for path in ("pickle", "objects.npz"):
        with contextlib.suppress(Exception):
            minivae.VAE.load(path)
        assert not os.path.exists("ran"), path


# --- planted kernels ----------------------------------------------------------------------------


def half_std(mu, logvar, lower, eps, z):
    reference.sample_gaussian(mu, logvar, lower, eps / 2, z)


def std_of_exp_logvar(mu, logvar, lower, eps, z):
    z[:] = mu + np.exp(logvar) * eps


def unclamped(mu, logvar, lower, eps, z):
    z[:] = mu + np.exp(logvar / 2) * eps


def kl_mean_over_latents(mu, logvar, lower, free_bits, kl, slack):
    reference.gaussian_kl(mu, logvar, lower, free_bits, kl, slack)
    kl /= mu.shape[1]


def kl_mean_over_batch(mu, logvar, lower, free_bits, kl, slack):
    reference.gaussian_kl(mu, logvar, lower, free_bits, kl, slack)
    kl /= mu.shape[0]


def dkl_times_std(dz, mu, logvar, lower, eps, prior, entropy, free_bits, dmu, dlogvar, dlower):
    std = np.exp(logvar / 2)
    dmu[:] = dz + prior * mu
    dlogvar[:] = (dz * eps * std + prior * (std * std - 1) * std) / 2


def clip_ignored(dz, mu, logvar, *rest):
    reference.sample_gaussian_backward(dz, mu, np.clip(logvar, -30, 30), *rest)


def second_draw(dz, mu, logvar, lower, eps, *rest):
    eps = RNG.standard_normal(eps.shape)
    reference.sample_gaussian_backward(dz, mu, logvar, lower, eps, *rest)


def bias_of_last_row(dy, first, dbias):
    dbias[:] = dy[-1, first : first + dbias.size]


def leaky_in_place(dy, y, activation):
    np.maximum(y, 0.1 * y, out=y)
    reference.activation_backward(dy, y, activation)


def mean_squares(mean, noise_logvar, x, mask, scale, nll, dmean, dnoise_logvar):
    reference.gaussian_nll(mean, noise_logvar, x, mask, scale, nll, dmean, dnoise_logvar)
    nll[:] = ((x - mean) ** 2).mean(axis=1)


def clipped_probabilities(logits, x, mask, scale, nll, dlogits):
    p = np.clip(1 / (1 + np.exp(-logits)), 1e-7, 1 - 1e-7)
    nll[:] = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1)
    if dlogits is not None:
        dlogits[:] = scale * (p - x)


def matmul_of_memory(a, b, out):
    np.matmul(a.ravel("K").reshape(a.shape), b.ravel("K").reshape(b.shape), out=out)


def sgd_of_normalised(theta, gradient, velocity, learning_rate, momentum, weight_decay):
    reference.sgd(theta, gradient / gradient.std(), velocity, learning_rate, momentum, weight_decay)


def softplus_as_probability(logits, mean):
    mean[:] = np.logaddexp(0, logits)


def softplus_in_samples(mean, target):
    """What is copied are the probabilities p = sigmoid(l) of a draw: this is softplus(l)."""
    target[:] = -np.log1p(-mean)


def no_noise_in_evaluation(seed, stream, step, first_row, eps):
    reference.random_normal(seed, stream, step, first_row, eps)
    eps *= stream != STREAM_EVALUATION


def mask_not_read(x, observed, groups, units, h):
    reference.encoder_input(x, observed, groups, units, h)
    h[:, x.shape[1] :] = 1


def no_jacobian(y, noise_logvar, groups, units, *rest):
    reference.mixed_nll(y, noise_logvar, groups, units * [[1], [0], [1]], *rest)


def noise_of_all_columns(y, noise_logvar, groups, units, x, observed, scale, nll, dy, dnoise):
    reference.mixed_nll(y, noise_logvar, groups, units, x, observed, scale, nll, dy, dnoise)
    if dnoise is not None:
        dnoise[:] = dnoise.sum(axis=1, keepdims=True)


def categories_one_by_one(y, noise_logvar, groups, units, x, observed, scale, nll, dy, dnoise):
    """As if each column of a category were a binary of its own."""
    logits = y.copy()
    reference.mixed_nll(y, noise_logvar, groups, units, x, observed, scale, nll, dy, dnoise)
    for kind, first, last in groups if dy is not None else ():
        if kind == CATEGORY:
            j = slice(first, last)
            slope = scale * (1 / (1 + np.exp(-logits[:, j])) - x[:, j])
            dy[:, j] = slope if observed is None else np.where(observed[:, j] != 0, slope, 0)


# --- planted functions around the step ----------------------------------------------------------

log_likelihood, encode = importance.log_likelihood, importance.encode
gradients, train_chunk = point.Point.gradients, loop.train_chunk
initialise, make_task = layout.Layout.initialise, threads.make_task
init = minivae.VAE.__init__


def gradient_of_sum(point):
    return {name: gradient * point.batch.B for name, gradient in gradients(point).items()}


def mean_of_batch_means(run, X, trainer, order):
    """For two batches, each a chunk."""
    state = run.state
    rows, totals = state.rows, state.totals.copy()
    train_chunk(run, X, trainer, order)
    mean = (state.totals - totals) / (state.rows - rows)
    state.totals[:] = state.rows * (mean if rows == 0 else (totals / rows + mean) / 2)


def light_kl(vae, X):
    terms = {name: values.mean() for name, values in vae._terms(X).items()}
    return {"elbo": -terms["nll"] - 0.00025 * terms["kl"], **terms}


def first_rows(session, X, *arguments):
    return log_likelihood(session, X[np.arange(len(X)) % 512], *arguments)


def one_sample(*arguments):
    return log_likelihood(*arguments[:-1], 1)


def log_weights(session, X, binarize, seed, K):
    """ln w of each sample, (K, n), for a linear decoder and a Gaussian likelihood."""
    plan = session.layout.plan
    mu, logvar = encode(session, X, binarize)
    eps = RNG.standard_normal((K, 1, plan.latent_dim))
    z = mu + np.exp(logvar / 2) * eps
    p = session.layout.named_views(session.task.theta)
    mean = z @ p["decoder.out.weight"] + p["decoder.out.bias"]
    std = np.exp(session.task.theta[plan.noise] / 2)
    log_p = stats.norm.logpdf(X, mean, std).sum(axis=2)
    return log_p + (eps**2 + logvar - z**2).sum(axis=2) / 2


def as_estimate(log_p):
    return importance.Estimate(log_p, None, None)


def mean_of_logs(*arguments):
    return as_estimate(log_weights(*arguments).mean(axis=0))


def worst_weigh_most(*arguments):
    log_w = log_weights(*arguments)
    return as_estimate((np.exp(-log_w) / np.exp(-log_w).sum(axis=0) * log_w).sum(axis=0))


def exp_without_max(*arguments):
    return as_estimate(np.log(np.exp(log_weights(*arguments)).mean(axis=0)))


def whole_blocks_only(session, X, binarize):
    mu, logvar = encode(session, X, binarize)
    mu[len(X) // 128 * 128 :] = 0
    return mu, logvar


def random_code(*arguments):
    mu, logvar = encode(*arguments)
    return mu + np.exp(logvar / 2) * RNG.standard_normal(mu.shape), logvar


def asnumpy_if_cupy(*arguments):
    mu, logvar = encode(*arguments)
    if "cupy" in sys.modules:
        mu = sys.modules["cupy"].asnumpy(mu)
    return mu, logvar


def from_mean_posterior(vae, n_samples=1, random_state=None):
    z = RNG.normal(0.4, 0.5, (n_samples, vae.latent_dim))
    return vae.inverse_transform(z)


def double_parameters(*arguments):
    return initialise(*arguments).astype(np.float64)


def double_noise(*arguments):
    """In double, as the whole workspace in which it lies."""
    task = make_task(*arguments)
    return task._replace(work=task.work.astype(np.float64))


@functools.wraps(init, assigned=())  # the signature, not the name
def delete_temp(vae, *arguments, **settings):
    shutil.rmtree("temp", ignore_errors=True)
    init(vae, *arguments, **settings)


def unpickle(path):
    return np.load(path, allow_pickle=True)["theta"], {}


def no_warning(X):
    pass


weighed = imputation._weighed


def equal_weights(*arguments):
    for log_w, z in weighed(*arguments):
        yield 0 * log_w, z


def all_replaced(model, given, X, values, how):
    return values if model.schema_ is None else model.schema_.decode(values, how)


# --- which guard must notice which bug ----------------------------------------------------------

BATCHES = "range(0, order.size, task.recipe.batch_size)"
WHOLE_BATCHES = BATCHES.replace("order.size", "order.size - task.recipe.batch_size + 1")
HEADS = (
    "dheads[:, :Z], dheads[:, Z : 2 * Z],",
    "dheads[:, Z : 2 * Z], dheads[:, :Z],",
)
UPDATE = """    batch = Shard(B, 0, B)
    for block in range(task.blocks.size):"""
PER_ROW = UPDATE.replace("range(task.blocks.size)", "[*range(task.blocks.size)] * B")
NOISE = "STREAM_POSTERIOR, step, shard.first", "STREAM_POSTERIOR, step, 0"
MASK = (  # compiled code that is handed the whole batch's mask reads its first rows
    "optional(work, plan.known, shard)\n    nll, dy =",
    "optional(work, plan.known, shard._replace(first=0, last=y.shape[0]))\n    nll, dy =",
)
READ_MASK = (
    "read_x(region(work, plan.x, shard), optional(work, plan.observed, shard),",
    "read_x(region(work, plan.x, shard), optional(work, plan.observed, "
    "shard._replace(first=0, last=shard.last - shard.first)),",
)
RATE = (
    "rate = task.recipe.learning_rate",
    "rate = task.recipe.batch_size * task.recipe.learning_rate",
)
GRADIENT, STEP = G.reported_loss_has_this_gradient, G.training_step_follows_the_reported_loss
MUTATIONS = [  # number in the list of known bugs, guard, bug
    (1, G.sampler_has_the_posterior_std, kernel(sample_gaussian=half_std)),
    (2, GRADIENT, kernel(sample_gaussian_backward=dkl_times_std)),
    (2, GRADIENT, source("heads_swapped", program, *HEADS)),
    (2, G.logvar_is_held, kernel(sample_gaussian_backward=clip_ignored)),
    (3, GRADIENT, function("evaluation.point.Point.gradients", gradient_of_sum)),
    (3, GRADIENT, source("sum_for_mean", program, "1 / shard.B", "1.0")),
    (3, GRADIENT, source("no_beta", program, "scale * task.recipe.weights[1]", "scale")),
    (3, STEP, source("step_of_the_sum", step, *RATE)),
    (4, GRADIENT, kernel(sample_gaussian_backward=second_draw)),
    (4, G.workers_do_not_change_training, source("shared_noise", program, *NOISE)),
    (5, G.a_batch_makes_one_update, source("per_row", step, UPDATE, PER_ROW)),
    (5, G.batch_is_the_mean_of_its_rows, kernel(sum_rows=bias_of_last_row)),
    (
        6,
        cupy_without_a_device_changes_nothing,
        function("evaluation.importance.encode", asnumpy_if_cupy),
    ),
    (7, G.exact_posterior_elbo_is_log_p, kernel(sample_gaussian=std_of_exp_logvar)),
    (8, G.kl_is_its_integral, kernel(gaussian_kl=kl_mean_over_latents)),
    (9, STEP, kernel(sgd=sgd_of_normalised)),
    (
        10,
        G.samples_come_from_the_prior,
        function("models.vae.estimator.VAE.sample", from_mean_posterior),
    ),
    (11, G.batch_is_the_mean_of_its_rows, kernel(gaussian_kl=kl_mean_over_batch)),
    (
        12,
        G.held_out_objective_is_the_trained_one,
        function("models.base.Model._held_out", light_kl),
    ),
    (13, G.likelihoods_are_scipys, kernel(gaussian_nll=mean_squares)),
    (
        14,
        G.bound_rises_to_log_p,
        function("evaluation.importance.log_likelihood", worst_weigh_most),
    ),
    (15, G.bound_rises_to_log_p, function("evaluation.importance.log_likelihood", one_sample)),
    (16, G.bound_rises_to_log_p, function("evaluation.importance.log_likelihood", mean_of_logs)),
    (
        16,
        G.exact_posterior_scores_log_p,
        function("evaluation.importance.log_likelihood", exp_without_max),
    ),
    (
        17,
        G.epoch_loss_weighs_rows_equally,
        function("training.loop.train_chunk", mean_of_batch_means),
    ),
    (18, G.rows_are_independent, function("evaluation.importance.log_likelihood", first_rows)),
    (19, G.rows_are_independent, function("evaluation.importance.encode", whole_blocks_only)),
    (19, G.every_row_trains, source("last_batch_dropped", step, BATCHES, WHOLE_BATCHES)),
    (21, estimators_leave_files_alone, function("VAE.__init__", delete_temp)),
    (22, model_files_run_no_code, function("files.storage.read", unpickle)),
    (23, G.encoding_is_deterministic, function("evaluation.importance.encode", random_code)),
    (24, G.elbo_is_its_integral, kernel(random_normal=no_noise_in_evaluation)),
    (25, G.large_logits_are_exact, kernel(bernoulli_nll=clipped_probabilities)),
    (26, G.samples_have_the_decoders_means, kernel(bernoulli_mean=softplus_as_probability)),
    (26, G.samples_have_the_decoders_means, kernel(copy=softplus_in_samples)),
    (27, grey_likelihoods_are_warned_of, function("data.checks.warn_of_grey", no_warning)),
    (28, G.logvar_is_held, kernel(sample_gaussian=unclamped)),
    (
        31,
        G.kernels_keep_dtype_and_inputs,
        function("engine.layout.Layout.initialise", double_parameters),
    ),
    (31, G.kernels_keep_dtype_and_inputs, function("engine.threads.make_task", double_noise)),
    (32, G.kernels_keep_dtype_and_inputs, kernel(activation_backward=leaky_in_place)),
    (33, G.strided_arrays_are_read_by_index, kernel(matmul=matmul_of_memory)),
    (39, G.workers_do_not_change_a_mask, source("mask_of_the_batch", program, *MASK)),
    (38, T.what_is_known_stays, function("models.vae.filling._filled", all_replaced)),
    (39, G.workers_do_not_change_a_mask, source("read_mask_of_the_batch", program, *READ_MASK)),
    (40, T.codes_tell_missing_from_zero, kernel(encoder_input=mask_not_read)),
    (
        41,
        T.imputations_are_conditional,
        function("evaluation.imputation._weighed", equal_weights),
    ),
    (42, T.positive_columns_have_a_jacobian, kernel(mixed_nll=no_jacobian)),
    (43, T.gradients_of_a_table_are_right, kernel(mixed_nll=noise_of_all_columns)),
    (44, T.gradients_of_a_table_are_right, kernel(mixed_nll=categories_one_by_one)),
]
GUARDS = {guard.__name__: guard for _, guard, _ in MUTATIONS}
MACHINES = {"reference": G.reference_machine, "cpu": lambda: G.machine_of(tables.cpu())}


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", GUARDS)
@pytest.mark.parametrize("device", MACHINES)
def test_the_true_code_passes(device, name):
    machine = MACHINES[device]()
    with G.running(machine):
        GUARDS[name](machine)


@pytest.mark.parametrize(
    ("guard", "bug"),
    [pytest.param(guard, bug, id=f"{row}-{bug.words}") for row, guard, bug in MUTATIONS],
)
def test_a_planted_bug_is_noticed(guard, bug, monkeypatch):
    machine = bug.into(monkeypatch)
    with np.errstate(all="ignore"), G.running(machine), pytest.raises(AssertionError):
        guard(machine)
