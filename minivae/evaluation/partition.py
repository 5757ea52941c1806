"""ln Z of a restricted Boltzmann machine: exact where one side is small, else by annealing.

The machine is p(v) = exp(-F(v)) / Z of kernels/boltzmann/reference.py, with a (D,), W (D, H) and
c (H,). Whatever has two sides, such that the units of one are independent given the other, is one.

Annealed importance sampling (Neal 2001; Salakhutdinov and Murray 2008) begins with a machine whose
Z is known: independent units of the biases `base`, ln Z_0 = sum softplus(base) + H ln 2. Between it
and ours lie machines of the free energies F_b, b = 0 to 1 (`anneal_energy` has them). A chain draws
v_0 from the first one, and v_t from v_(t-1) by a Gibbs step at b_t, which leaves exp(-F_b) as it
is. Then

    w = prod over t of exp(F_b_(t-1)(v_(t-1)) - F_b_t(v_(t-1)))

has the mean Z / Z_0. So the estimate of Z is right in the mean, that of ln Z by Jensen's inequality
too low in the mean, and ln p(x) with it too high. The same path backwards, from draws of our
machine, has weights of mean Z_0 / Z: ln Z is too high in the mean, as far as the draws are true.
"""

import itertools
import threading
from typing import NamedTuple

import numpy as np

from minivae.evaluation.ais import Interrupted, log_mean
from minivae.evaluation.blocks import spread
from minivae.kernels import SIGMOID, STREAM_CHAINS
from minivae.kernels.support.stable import softplus

FEW = 20  # units of a side, all of whose states are summed over
STATES = 2**12  # of them at once
PILOT = 100  # Gibbs steps before the base is read off
BURN_IN = 10  # part of the temperatures, one in so many, that the way back waits at b = 1


class Machine(NamedTuple):
    """The parameters of a restricted Boltzmann machine, arrays of the host."""

    a: np.ndarray  # (D,)
    W: np.ndarray  # (D, H)
    c: np.ndarray  # (H,)

    @property
    def is_small(self):
        """Whether ln Z can be summed up."""
        return min(self.W.shape) <= FEW

    def log_partition(self):
        """ln Z, exact but for rounding, in float64, by all states of the smaller side.

        Given h the visible units are independent, and the other way round: sum over v of
        exp(-E(v, h)) = exp(c.h) prod_d (1 + exp(a_d + (W h)_d)).
        """
        a, W, c = (np.asarray(array, np.float64) for array in self)
        if len(a) < len(c):
            a, W, c = c, W.T, a
        total = -np.inf
        for first in range(0, 2 ** len(c), STATES):
            numbers = np.arange(first, min(first + STATES, 2 ** len(c)))
            h = (numbers[:, None] >> np.arange(len(c)) & 1).astype(np.float64)
            values = h @ c + softplus(a + h @ W.T).sum(axis=1)
            total = np.logaddexp(total, np.logaddexp.reduce(values))
        return float(total)


def temperatures(n):
    """b_0 = 0, ..., b_n = 1: half of the steps from 0.9 on, where a machine changes most."""
    return np.interp(np.linspace(0, 1, n + 1), [0, 1 / 6, 1 / 2, 1], [0, 0.5, 0.9, 1])


class Chains:
    """Chains of one session, which takes the kernels and has the room, until `stop` is set."""

    def __init__(self, session, machine, n_chains, seed, stop):
        self.session, self.k, self.seed, self.stop = session, session.k, seed, stop
        (D, H), self.machine = machine.W.shape, machine
        shapes = {"W": (D, H), "a": (D,), "c": (H,), "base": (D,), "visible": (D,), "hidden": (H,),
                  "v": (n_chains, D), "h": (n_chains, H), "gain": (n_chains,),
                  "b": (n_chains,)}  # fmt: skip
        self.room = {name: session.array(name, shape) for name, shape in shapes.items()}
        for name, values in machine._asdict().items():
            session.upload(values, self.room[name])
        self.set_base(np.zeros(D))

    def set_base(self, base):
        self.base = base
        self.session.upload(base, self.room["base"])

    def rows(self, rows):
        """Be the chains of these numbers."""
        self.first, n = rows.start, rows.stop - rows.start
        self.v, self.h, self.gain, self.b = (self.room[n_][:n] for n_ in ("v", "h", "gain", "b"))

    def draw(self, array, step):
        """array <- 1 with the probability that it has, else 0."""
        self.k.random_binarize(array, self.seed, STREAM_CHAINS, step, self.first)

    def begin(self, step):
        """Draws of the base."""
        self.k.repeat_rows(self.room["base"].reshape(1, -1), self.v)
        self.session.upload(np.zeros(len(self.base)), self.room["visible"])
        self.k.bias_activation(self.v, self.room["visible"], SIGMOID)
        self.draw(self.v, step)

    def move(self, b, step):
        """A Gibbs step at b, for h = v W: h from its probabilities given v, then v given h."""
        k, session, room, machine = self.k, self.session, self.room, self.machine
        session.upload(np.full(len(self.v), b), self.b)
        session.upload(b * machine.c, room["hidden"])
        session.upload((1 - b) * self.base + b * machine.a, room["visible"])
        k.scale_rows(self.b, self.h)
        k.bias_activation(self.h, room["hidden"], SIGMOID)
        self.draw(self.h, 2 * step)
        k.matmul(self.h, room["W"].T, self.v)
        k.scale_rows(self.b, self.v)
        k.bias_activation(self.v, room["visible"], SIGMOID)
        self.draw(self.v, 2 * step + 1)
        if self.stop.is_set():
            raise Interrupted

    def stay(self, n, step):
        """n Gibbs steps of the machine itself."""
        for i in range(n):
            self.k.matmul(self.v, self.room["W"], self.h)
            self.move(1.0, step + i)

    def anneal(self, betas, step):
        """ln w (n,) from betas[0] to betas[-1]; the step at the last one is left out."""
        log_w, room = 0.0, self.room
        for i, (before, after) in enumerate(itertools.pairwise(betas)):
            self.k.matmul(self.v, room["W"], self.h)
            self.k.anneal_energy(self.v, self.h, room["base"], room["a"], room["c"], before, after,
                                 self.gain)  # fmt: skip
            log_w = log_w + np.array(self.session.download(self.gain), np.float64)
            if i < len(betas) - 2:
                self.move(after, step + i)
        return log_w


def own_base(chains, n):
    """Biases (D,) of the frequencies of the machine's units, +1 of each value, in n chains after
    some Gibbs steps from fair coins."""
    chains.rows(slice(0, n))
    chains.begin(0)
    chains.stay(PILOT, 1)
    on = np.array(chains.session.download(chains.v), np.float64).sum(axis=0)
    return np.log(on + 1) - np.log(n - on + 1)


def estimate(session, machine, n_chains, n_temperatures, seed, reverse=False, base=None):
    """(estimate of ln Z, its standard error), in nats; a function of the seed, not of threads.

    In the mean too low; reverse: by the path backwards, and too high. The error is that of ln of
    the mean weight, by the delta method, and too small where few of the weights count. Any base
    (D,) is right; None: near the machine's own frequencies, so that the path is short.
    """
    stop, workers = threading.Event(), min(session.workers, n_chains)
    sessions = [session, *(session.beside() for _ in range(workers - 1))]
    owned = [Chains(own, machine, n_chains, seed, stop) for own in sessions]
    base = own_base(owned[0], n_chains) if base is None else base
    for own in owned:
        own.set_base(base)
    betas = temperatures(n_temperatures)

    def work(own, rows):
        own.rows(rows)
        first = PILOT + 2  # of the steps that have numbers of their own
        own.begin(2 * first - 2)
        log_w = own.anneal(betas, first)
        if not reverse:
            return log_w
        own.stay(n_temperatures // BURN_IN + 1, first + n_temperatures)
        return own.anneal(betas[::-1], first + 3 * n_temperatures)

    ends = [n_chains * i // workers for i in range(workers + 1)]
    cuts = [slice(*pair) for pair in itertools.pairwise(ends)]
    log_w = np.concatenate([values for _, values in spread(owned, cuts, work, stop)])
    mean, error = log_mean(log_w)
    start = softplus(base).sum() + len(machine.c) * np.log(2)
    return float(start - mean if reverse else start + mean), float(error)
