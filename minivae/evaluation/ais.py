"""Annealed importance sampling of ln p(x) for a model with latent variables (Neal 2001).

From the prior to the posterior leads a path of densities f_t(z) = p(z) p(x|z)^beta_t, beta_0 = 0
and beta_T = 1, whose integrals are 1 and p(x). A chain begins with z_0 of p(z), and z_t comes from
z_{t-1} by a transition that leaves f_t invariant. Then

    w = prod_t f_t(z_{t-1}) / f_{t-1}(z_{t-1}),   ln w = -sum_t (beta_t - beta_{t-1}) nll(z_{t-1}),

has the mean p(x), so in expectation ln of a mean of weights is a lower bound of ln p(x), by Jensen.
The transitions are Hamiltonian Monte Carlo, with the gradient of our own backward pass; that of
beta_T is left out, since no weight depends on it. As in Wu, Burda, Salakhutdinov and Grosse (2016,
arXiv 1611.04273). The same path backwards, from a z that is a draw of p(z|x), has weights of mean
1 / p(x), and bounds ln p(x) from above: bidirectional Monte Carlo (Grosse, Ghahramani, Adams 2015).

All chains of some rows of X are the rows of one session (engine/threads.py), the chains of a row
one behind the other. Where others have the number of a row, their noise has a checksum of what is
in it; and step sizes depend on the chains of their own row alone. So a row's value depends on
nothing but the row (with device="reference" up to the rounding of NumPy's BLAS), and other rows
have other noise. Shared by all rows, the noise of a few chains would not average out in a mean over
rows.
"""

import itertools
import threading
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minivae.data.rows import fetch
from minivae.evaluation.blocks import spread
from minivae.kernels import STREAM_CHAINS, STREAM_METROPOLIS, STREAM_PIXELS

ROWS = {"cuda": 8192}  # of a session, chains in all: what one GPU computes at once
CACHED_ROWS = 256  # the same where a processor's cache holds what a layer reads and writes
FIRST_SIZE, ACCEPTANCE, RATE = 0.3, 0.65, 0.6  # of leapfrog steps, see `Chains.adapt`
STEEPNESS = 4.0  # of the schedule


class Annealing(NamedTuple):
    """How to anneal, and who does it."""

    n_chains: int  # C, of each row
    n_temperatures: int  # T
    n_leapfrog: int
    machine: str  # "cpu", "reference" or "cuda"
    workers: int  # threads, at most; each has a session of its own
    make_session: Callable  # of so many rows


class Bracket(NamedTuple):
    """ln p(x) of draws x (n, D) from the model itself, between two bounds (n,), in nats."""

    x: np.ndarray
    lower: np.ndarray
    lower_error: np.ndarray  # standard errors, see `log_mean`
    upper: np.ndarray
    upper_error: np.ndarray


class Interrupted(Exception):
    """Nobody waits any more for what a thread computes."""


def schedule(n_temperatures):
    """beta_0, ..., beta_T from 0 to 1 (T + 1,): a sigmoid of t, moved and scaled to end exactly
    there. Its steps are small at both ends, where f_t changes most."""
    sigmoid = 1 / (1 + np.exp(-np.linspace(-STEEPNESS, STEEPNESS, n_temperatures + 1)))
    return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


def log_mean(log_w):
    """(ln of the mean weight, its standard error) for ln w (C,) of the chains of one row.

    By the delta method the error of ln m is that of m, divided by m: std(w) / (sqrt(C) mean(w)).
    It is NaN for one chain, and too small where the weights of few chains miss what is rare.
    """
    top = log_w.max()
    if not np.isfinite(top) or len(log_w) == 1:
        return top, np.nan
    w = np.exp(log_w - top)
    return top + np.log(w.mean()), w.std(ddof=1) / len(w) ** 0.5 / w.mean()


# --- chains of one session ------------------------------------------------------------------------


class Chains:
    """n_chains chains for each of some rows of X, on one session, until the Event `stop` is set.

    The session has a row for each chain: x, z, the current nll and dz = d nll / dz, and in eps the
    momentum.
    """

    def __init__(self, session, n_chains, n_leapfrog, seed, stop):
        self.session, self.k, self.stop = session, session.k, stop
        self.n_chains, self.n_leapfrog, self.seed = n_chains, n_leapfrog, seed
        self.factors = np.exp(RATE * (np.arange(n_chains + 1) / n_chains - ACCEPTANCE))

    def put(self, x, keys):
        """Explain rows x (n, D) of the host, where NaN is missing; keys: the first row of noise of
        each."""
        session, B = self.session, len(x) * self.n_chains
        self.n_rows, self.keys = len(x), keys
        self.batch = session.put(np.repeat(x, self.n_chains, axis=0))
        session.load_x(self.batch)
        names = ("z", "dz", "nll", "eps")
        self.z, self.dnll, self.nll, self.v = (session.view(name, B) for name in names)
        Z, whole = self.z.shape[1], session.rows.shape[0]
        room = {name: session.array(name, (whole, Z)) for name in ("old_z", "old_dnll")}
        room["u"] = session.array("u", (whole, 1))
        columns = ("old_nll", "before", "after", "size", "accepted")
        room |= {name: session.array(name, (whole,)) for name in columns}
        self.room = {name: array[:B] for name, array in room.items()}

    def draw(self, kind, stream, step, array):
        """Noise of all chains in array (B, columns)."""
        for i, first_row in enumerate(self.keys):
            own = array[i * self.n_chains : (i + 1) * self.n_chains]
            kind(self.seed, stream, step, first_row, own)

    def begin(self, z=None):
        """Set out from z (n, Z), each for all chains of a row; None: from draws of the prior."""
        if z is None:
            self.draw(self.k.random_normal, STREAM_CHAINS, 0, self.z)
        else:
            self.session.upload(np.repeat(z, self.n_chains, axis=0), self.z)
        self.session.program.latent_gradient(self.session.task, self.batch)

    def anneal(self, betas, first_step, sizes=None):
        """(ln w (n, C), step sizes (T - 1, n) that were used) from betas[0] to betas[-1].

        sizes: given ones, instead of adapting them. The transition at betas[t] uses the noise of
        step first_step + t.
        """
        log_w, used, size = 0.0, [], np.full(self.n_rows, FIRST_SIZE)
        for t in range(1, len(betas)):
            nll = np.array(self.session.download(self.nll), np.float64)
            log_w = log_w - (betas[t] - betas[t - 1]) * nll
            if t == len(betas) - 1:
                break
            if self.stop.is_set():
                raise Interrupted
            used.append(size if sizes is None else sizes[t - 1])
            accepted = self.move(betas[t], used[-1], first_step + t)
            size = self.adapt(size, accepted)
        return log_w.reshape(self.n_rows, self.n_chains), used

    def move(self, beta, size, step):
        """A transition at beta with leapfrog steps of `size` (n,); which chains (n, C) accepted."""
        k, session, room = self.k, self.session, self.room
        z, v, nll, dnll = self.z, self.v, self.nll, self.dnll
        self.draw(k.random_normal, STREAM_CHAINS, step, v)
        self.draw(k.random_uniform, STREAM_METROPOLIS, step, room["u"])
        session.upload(np.repeat(size, self.n_chains), room["size"])
        for name, array in (("old_z", z), ("old_nll", nll), ("old_dnll", dnll)):
            k.copy(array, room[name])
        k.hamiltonian(z, v, nll, beta, room["before"])
        self.follow(beta)
        k.hamiltonian(z, v, nll, beta, room["after"])
        k.metropolis(room["before"], room["after"], room["u"].reshape(-1), room["old_z"],
                     room["old_nll"], room["old_dnll"], z, nll, dnll, room["accepted"])  # fmt: skip
        return session.download(room["accepted"]).reshape(self.n_rows, self.n_chains)

    def follow(self, beta):
        """n_leapfrog leapfrog steps of the trajectory that begins at z with the momentum v."""
        k, session, size = self.k, self.session, self.room["size"]
        for leap in range(self.n_leapfrog):
            k.leapfrog_momentum(self.v, self.z, self.dnll, beta, size, 1.0 if leap else 0.5)
            k.leapfrog_position(self.z, self.v, size)
            session.program.latent_gradient(session.task, self.batch)
        k.leapfrog_momentum(self.v, self.z, self.dnll, beta, size, 0.5)

    def adapt(self, size, accepted):
        """ln size += RATE (share of a row's chains that accepted - ACCEPTANCE).

        The rate stays the same, since the densities change all the way. Looked up by the number of
        chains, a factor has the same bits wherever its row is.
        """
        return size * self.factors[np.count_nonzero(accepted, axis=1)]


# --- over all rows --------------------------------------------------------------------------------


def log_likelihood(how, X, binarize, seed):
    """(estimate of ln p(x) of each row (n,), its standard error (n,)), float64, in nats.

    Step sizes adapt to the chains that use them, as everybody does it, so a transition depends a
    little on the past of its chain, and the weights have the mean p(x) not exactly.
    """
    betas = schedule(how.n_temperatures)

    def explain(own, rows):
        x = _fetched(own.session, X, rows, binarize, seed)
        own.put(x, [zlib.crc32(row) >> 1 for row in x])
        own.begin()
        return [log_mean(row) for row in own.anneal(betas, 0)[0]]

    found = np.empty((2, X.shape[0]))
    for rows, values in _in_blocks(how, explain, X.shape[0], seed):
        found[:, rows] = np.transpose(values)
    return found[0], found[1]


def bracket(how, n, seed):
    """The Bracket of n draws from the model.

    The z of which x was drawn is an exact draw of p(z|x), where the way back begins. It takes the
    step sizes of the way forward, which know nothing of its noise, so its weights are unbiased. All
    chains of a row begin at the same z, which its error does not count: the spread over rows does.
    """
    betas = schedule(how.n_temperatures)

    def explain(own, rows):
        session = own.session
        batch = session.batch(rows.stop - rows.start)
        session.program.draw(session.task, batch, seed, rows.start)
        x, z = (np.array(session.download(session.view(name, batch.B))) for name in ("x", "z"))
        own.put(x, [row * how.n_chains for row in range(rows.start, rows.stop)])
        own.begin()
        log_w, sizes = own.anneal(betas, 0)
        forward = [log_mean(row) for row in log_w]
        own.begin(z)
        log_w, _ = own.anneal(betas[::-1], len(betas), sizes[::-1])
        backward = [log_mean(row) for row in log_w]
        return x, np.transpose(forward), np.transpose(backward)

    parts = [values for _, values in _in_blocks(how, explain, n, seed)]
    x, forward, backward = zip(*parts, strict=True)
    (lower, lower_error), (over, upper_error) = np.hstack(forward), np.hstack(backward)
    return Bracket(np.vstack(x), lower, lower_error, -over, upper_error)


def _fetched(session, X, rows, binarize, seed):
    """The given rows of X on the host, binarised as in importance.log_likelihood: once for all
    chains, and NaN where they are missing."""
    x = fetch(X, rows, session.task.theta.dtype)
    if not binarize:
        return x
    batch = session.put(x)
    session.load_x(batch)
    view = session.view("x", batch.B)
    session.binarize(view, binarize, seed, STREAM_PIXELS, 0, rows.start)
    return np.where(np.isnan(x), x, session.download(view))


def _in_blocks(how, explain, n, seed):
    """(rows, explain(Chains, rows)) of all blocks of n rows, in their order.

    Each thread follows all chains of its rows to their end.
    """
    most, workers = max(1, ROWS.get(how.machine, CACHED_ROWS) // how.n_chains), min(how.workers, n)
    n_blocks = min(n, -(-n // (most * workers)) * workers)  # as many for each thread
    ends = [n * i // n_blocks for i in range(n_blocks + 1)]
    cuts = [slice(*pair) for pair in itertools.pairwise(ends)]
    session = how.make_session(max(rows.stop - rows.start for rows in cuts) * how.n_chains)
    stop = threading.Event()
    owned = [
        Chains(own, how.n_chains, how.n_leapfrog, seed, stop)
        for own in [session, *(session.beside() for _ in range(workers - 1))]
    ]
    yield from spread(owned, cuts, explain, stop)
