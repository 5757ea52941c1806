"""Known bugs of other people's VAE code, planted into ours: each must make its guard fail.

Most guards are in `guards.py`; they pass on the true code, on the reference and on the compiled
kernels. The bugs' numbers are those of the project's list, where other files guard them as well:

test_kernels    1 2 8 9 13 25 28 32 33         test_step       3 4 5 11 31 32
test_vae        7 10 12 17 18 19 24 26 27      test_sklearn    23 37
test_storage    22 36                          test_cli        6
test_gradcheck  34 35                          only here       21
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
from types import ModuleType, SimpleNamespace
from typing import NamedTuple
from unittest import mock

import guards as G
import numpy as np
import pytest
from scipy import stats

import minivae
from minivae import backend, evaluation, objective, training
from minivae.kernels import STREAM_EVALUATION, reference
from minivae.kernels import cpu as cpu_table

RNG = np.random.default_rng(9)


class Plant(NamedTuple):
    """A bug in a few words, and what plants it and returns the machine to run."""

    words: str
    into: Callable


def kernel(**kernels):
    """A kernel is replaced."""
    (bug,) = kernels.values()
    return Plant(bug.__name__, lambda monkeypatch: G.reference_machine(**kernels))


def source(words, old, new):
    """The text of `objective.py` is another in one place."""

    def into(monkeypatch):
        text = inspect.getsource(objective)
        assert text.count(old) == 1, f"objective.py should have {old!r} once"
        program = ModuleType("mutant")
        exec(compile(text.replace(old, new), program.__name__, "exec"), vars(program))
        return G.reference_machine(program)

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
    with mock.patch.dict(sys.modules, {"cupy": cupy}):
        X = G.bits(4, 3)
        try:
            assert backend.machine("auto").k is backend.machine("cpu").k
            codes = G.estimator(X).partial_fit(X).transform(X)
        except (AttributeError, RuntimeError) as error:
            raise AssertionError("CuPy was asked for an array or a device") from error
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


def half_std(mu, logvar, eps, z, kl):
    reference.sample_gaussian(mu, logvar, eps / 2, z, kl)


def std_of_exp_logvar(mu, logvar, eps, z, kl):
    reference.sample_gaussian(mu, logvar, eps, z, kl)
    z[:] = mu + np.exp(logvar) * eps


def unclamped(mu, logvar, eps, z, kl):
    z[:] = mu + np.exp(logvar / 2) * eps
    kl[:] = (mu * mu + np.exp(logvar) - logvar - 1).sum(axis=1) / 2


def kl_mean_over_latents(mu, logvar, eps, z, kl):
    reference.sample_gaussian(mu, logvar, eps, z, kl)
    kl /= mu.shape[1]


def kl_mean_over_batch(mu, logvar, eps, z, kl):
    reference.sample_gaussian(mu, logvar, eps, z, kl)
    kl /= mu.shape[0]


def dkl_times_std(dz, mu, logvar, eps, kl_scale, dmu, dlogvar):
    std = np.exp(logvar / 2)
    dmu[:] = dz + kl_scale * mu
    dlogvar[:] = (dz * eps * std + kl_scale * (std * std - 1) * std) / 2


def clip_ignored(dz, mu, logvar, eps, kl_scale, dmu, dlogvar):
    held = np.clip(logvar, -30, 30)
    reference.sample_gaussian_backward(dz, mu, held, eps, kl_scale, dmu, dlogvar)


def second_draw(dz, mu, logvar, eps, kl_scale, dmu, dlogvar):
    eps = RNG.standard_normal(eps.shape)
    reference.sample_gaussian_backward(dz, mu, logvar, eps, kl_scale, dmu, dlogvar)


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
    dlogits[:] = scale * (p - x)


def matmul_of_memory(a, b, out):
    np.matmul(a.ravel("K").reshape(a.shape), b.ravel("K").reshape(b.shape), out=out)


def sgd_of_normalised(theta, gradient, velocity, learning_rate, momentum, weight_decay):
    reference.sgd(theta, gradient / gradient.std(), velocity, learning_rate, momentum, weight_decay)


def no_noise_in_evaluation(seed, stream, step, first_row, eps):
    reference.random_normal(seed, stream, step, first_row, eps)
    eps *= stream != STREAM_EVALUATION


# --- planted functions around the step ----------------------------------------------------------

log_likelihood, encode, decode = evaluation.log_likelihood, evaluation.encode, evaluation.decode
losses_and_gradient, train_chunk = evaluation.losses_and_gradient, training.train_chunk
initialise, make_workspace, elbo = training.initialise, training.make_workspace, training.elbo
init = minivae.VAE.__init__


def gradient_of_sum(machine, plan, theta, X, eps, beta):
    losses, gradient = losses_and_gradient(machine, plan, theta, X, eps, beta)
    return losses, gradient * len(X)


def mean_of_batch_means(recipe, state, X, crew):
    """For two batches, each a chunk."""
    rows, totals = state.rows, state.totals.copy()
    train_chunk(recipe, state, X, crew)
    mean = (state.totals - totals) / (state.rows - rows)
    state.totals[:] = state.rows * (mean if rows == 0 else (totals / rows + mean) / 2)


def light_kl(machine, plan, theta, X, binarize, seed, n_samples):
    mu, logvar = encode(machine, plan, theta, X, binarize)
    kl = (mu**2 + np.exp(logvar) - logvar - 1).sum(axis=1) / 2
    return elbo(machine, plan, theta, X, binarize, seed, n_samples) + (1 - 0.00025) * kl


def first_rows(machine, plan, theta, X, *arguments):
    return log_likelihood(machine, plan, theta, X[np.arange(len(X)) % 512], *arguments)


def one_sample(*arguments):
    return log_likelihood(*arguments[:-1], 1)


def log_weights(machine, plan, theta, X, binarize, seed, K):
    """ln w of each sample, (K, n), for a Gaussian likelihood."""
    mu, logvar = encode(machine, plan, theta, X, binarize)
    eps = RNG.standard_normal((K, 1, plan.latent_dim))
    z = mu + np.exp(logvar / 2) * eps
    mean = decode(machine, plan, theta, z.reshape(-1, plan.latent_dim)).reshape(K, *X.shape)
    log_p = stats.norm.logpdf(X, mean, np.exp(theta[plan.noise] / 2)).sum(axis=2)
    return log_p + (eps**2 + logvar - z**2).sum(axis=2) / 2


def mean_of_logs(*arguments):
    return log_weights(*arguments).mean(axis=0)


def worst_weigh_most(*arguments):
    log_w = log_weights(*arguments)
    return (np.exp(-log_w) / np.exp(-log_w).sum(axis=0) * log_w).sum(axis=0)


def exp_without_max(*arguments):
    return np.log(np.exp(log_weights(*arguments)).mean(axis=0))


def whole_blocks_only(machine, plan, theta, X, binarize):
    mu, logvar = encode(machine, plan, theta, X, binarize)
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


def softplus_as_probability(*arguments):
    return -np.log1p(-decode(*arguments))  # of p = sigmoid(l) that is softplus(l)


def from_mean_posterior(vae, n_samples=1, random_state=None):
    z = RNG.normal(0.4, 0.5, (n_samples, vae.latent_dim))
    return vae.inverse_transform(z)


def double_parameters(*arguments):
    return initialise(*arguments).astype(np.float64)


def double_noise(*arguments):
    work = make_workspace(*arguments)
    return work._replace(eps=work.eps.astype(np.float64))


@functools.wraps(init, assigned=())  # the signature, not the name
def delete_temp(vae, *arguments, **settings):
    shutil.rmtree("temp", ignore_errors=True)
    init(vae, *arguments, **settings)


def unpickle(path):
    return np.load(path, allow_pickle=True)["theta"], {}


def no_warning(X):
    pass


# --- which guard must notice which bug ----------------------------------------------------------

LOSS = """forward(plan, theta, None, 1 / B, work, shard)
    backward(plan, theta, recipe.beta / B, work, shard)"""
BATCHES = "range(0, order.size, recipe.batch_size)"
WHOLE_BATCHES = BATCHES.replace("order.size", "order.size - recipe.batch_size + 1")
HEADS = ("eps, kl_scale, dmu, dlogvar)", "eps, kl_scale, dlogvar, dmu)")
UPDATE = """    for layer in range(plan.weight.size):
        descend("""
PER_ROW = UPDATE.replace("range(plan.weight.size)", "[*range(plan.weight.size)] * B")
NOISE = "STREAM_POSTERIOR, step, "
GRADIENT, STEP = G.reported_loss_has_this_gradient, G.training_step_follows_the_reported_loss
MUTATIONS = [  # number in the list of known bugs, guard, bug
    (1, G.sampler_has_the_posterior_std, kernel(sample_gaussian=half_std)),
    (2, GRADIENT, kernel(sample_gaussian_backward=dkl_times_std)),
    (2, GRADIENT, source("heads_swapped", *HEADS)),
    (2, G.logvar_is_held, kernel(sample_gaussian_backward=clip_ignored)),
    (3, GRADIENT, function("evaluation.losses_and_gradient", gradient_of_sum)),
    (
        3,
        STEP,
        source("sum_for_mean", LOSS, LOSS.replace("1 / B", "1.0").replace("beta / B", "beta")),
    ),
    (3, STEP, source("no_beta", LOSS, LOSS.replace("recipe.beta", "1"))),
    (4, GRADIENT, kernel(sample_gaussian_backward=second_draw)),
    (4, G.workers_do_not_change_training, source("shared_noise", f"{NOISE}first", f"{NOISE}0")),
    (5, G.a_batch_makes_one_update, source("per_row", UPDATE, PER_ROW)),
    (5, G.batch_is_the_mean_of_its_rows, kernel(sum_rows=bias_of_last_row)),
    (6, cupy_without_a_device_changes_nothing, function("evaluation.encode", asnumpy_if_cupy)),
    (7, G.exact_posterior_elbo_is_log_p, kernel(sample_gaussian=std_of_exp_logvar)),
    (8, G.kl_is_its_integral, kernel(sample_gaussian=kl_mean_over_latents)),
    (9, STEP, kernel(sgd=sgd_of_normalised)),
    (10, G.samples_come_from_the_prior, function("vae.VAE.sample", from_mean_posterior)),
    (11, G.batch_is_the_mean_of_its_rows, kernel(sample_gaussian=kl_mean_over_batch)),
    (12, G.held_out_objective_is_the_trained_one, function("training.elbo", light_kl)),
    (13, G.likelihoods_are_scipys, kernel(gaussian_nll=mean_squares)),
    (14, G.bound_rises_to_log_p, function("evaluation.log_likelihood", worst_weigh_most)),
    (15, G.bound_rises_to_log_p, function("evaluation.log_likelihood", one_sample)),
    (16, G.bound_rises_to_log_p, function("evaluation.log_likelihood", mean_of_logs)),
    (16, G.exact_posterior_scores_log_p, function("evaluation.log_likelihood", exp_without_max)),
    (17, G.epoch_loss_weighs_rows_equally, function("training.train_chunk", mean_of_batch_means)),
    (18, G.rows_are_independent, function("evaluation.log_likelihood", first_rows)),
    (19, G.rows_are_independent, function("evaluation.encode", whole_blocks_only)),
    (19, G.every_row_trains, source("last_batch_dropped", BATCHES, WHOLE_BATCHES)),
    (21, estimators_leave_files_alone, function("VAE.__init__", delete_temp)),
    (22, model_files_run_no_code, function("storage.read", unpickle)),
    (23, G.encoding_is_deterministic, function("evaluation.encode", random_code)),
    (24, G.elbo_is_its_integral, kernel(random_normal=no_noise_in_evaluation)),
    (25, G.large_logits_are_exact, kernel(bernoulli_nll=clipped_probabilities)),
    (26, G.samples_have_the_decoders_means, function("evaluation.decode", softplus_as_probability)),
    (27, grey_likelihoods_are_warned_of, function("validation.warn_of_grey", no_warning)),
    (28, G.logvar_is_held, kernel(sample_gaussian=unclamped)),
    (31, G.kernels_keep_dtype_and_inputs, function("training.initialise", double_parameters)),
    (31, G.kernels_keep_dtype_and_inputs, function("training.make_workspace", double_noise)),
    (32, G.kernels_keep_dtype_and_inputs, kernel(activation_backward=leaky_in_place)),
    (33, G.strided_arrays_are_read_by_index, kernel(matmul=matmul_of_memory)),
]
GUARDS = {guard.__name__: guard for _, guard, _ in MUTATIONS}
MACHINES = {"reference": G.reference_machine, "cpu": lambda: G.machine_of(cpu_table)}


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
