"""One peer of `peers.py` in a process of its own, and what all peers share: problem, data, check.

    python benchmarks/peer_worker.py TASK      # TASK is JSON; peers.py starts this

The parent writes one JSON line a request and reads one JSON line back. Here too: minivae itself,
and its floor, which is the matrix products of its step and nothing else.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np

ROWS = 16384  # of the data, about: 51 MB at 784 features, more than the caches near a core hold
LEARNING_RATES = {"adam": 1e-3, "sgd": 1e-4}
LIKELIHOODS = ("bernoulli", "gaussian")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
PEERS = {  # and the package that each needs
    "minivae": "minivae",
    "floor": "minivae",
    "torch eager": "torch",
    "torch.compile": "torch",
    "jax jit": "jax",
    "jax scan": "jax",
}


def settings(peer):
    """{name: setting} of a peer to choose from, the first one for a quick run.

    Left out, as trials on two cores showed no clear gain: PyTorch's foreach optimisers, the
    compiled step without its C++ wrapper, passive waiting in OpenMP; JAX's threefry generator,
    fast math and wider vectors.
    """
    if peer in ("minivae", "floor"):
        return {"as the estimator": {}}
    if peer == "torch eager":
        forms = {"fused": {}}
    elif peer == "torch.compile":
        whole = {"graph": "step", "cpp_wrapper": True}
        forms = {
            "whole step, C++ wrapper": whole,
            "whole step, C++ wrapper, max-autotune": {**whole, "mode": "max-autotune"},
            "loss, fused": {"graph": "loss"},
        }
    else:
        form = {"scan": peer == "jax scan"}
        forms = {"leaves": form, "flat": {**form, "flat": True}}
    return {
        # NPROC is where JAX reads how many threads to start
        f"{form}, {n} thread{'s' * (n > 1)}": {**setting, "threads": n, "env": {"NPROC": str(n)}}
        for form, setting in forms.items()
        for n in dict.fromkeys((CORES, 1))
    }


class Problem(NamedTuple):
    """A VAE D -> H... -> Z -> ...H -> D and how it is trained; ReLU and float32 throughout."""

    n_features: int
    hidden: tuple
    latent: int
    batch: int
    likelihood: str
    optimizer: str

    @classmethod
    def parse(cls, size, optimizer):
        """From "784-400-20:128" or "560-200-2:100:gaussian": widths, batch, likelihood."""
        widths, batch, likelihood = (*size.split(":"), "bernoulli")[:3]
        n_features, *hidden, latent = (int(width) for width in widths.split("-"))
        if likelihood not in LIKELIHOODS or min(n_features, *hidden, latent, int(batch)) < 1:
            raise ValueError(f"not a size: {size!r}")
        return cls(n_features, tuple(hidden), latent, int(batch), likelihood, optimizer)

    @property
    def steps_per_epoch(self):
        return max(1, ROWS // self.batch)

    @property
    def learning_rate(self):
        return LEARNING_RATES[self.optimizer]

    @property
    def layers(self):
        """(fan_in, fan_out) of the encoder's and of the decoder's layers; mu | logvar is one."""
        encoder = [self.n_features, *self.hidden, 2 * self.latent]
        decoder = [self.latent, *reversed(self.hidden), self.n_features]
        return list(pairwise(encoder)), list(pairwise(decoder))

    def data(self):
        """Grey values (n, D) in (0, 1) with a structure to learn; n is a multiple of the batch."""
        rng = np.random.default_rng(1)
        n = self.steps_per_epoch * self.batch
        codes = rng.standard_normal((n, 4), dtype=np.float32)
        basis = rng.standard_normal((4, self.n_features), dtype=np.float32)
        return 1 / (1 + np.exp(-(codes @ basis)))

    def initial(self):
        """Weight (H_in, H_out) and bias of each layer, then noise_logvar where there is one."""
        rng = np.random.default_rng(2)
        arrays = []
        for fan_in, fan_out in [layer for half in self.layers for layer in half]:
            bound = (6 / (fan_in + fan_out)) ** 0.5
            arrays.append(rng.uniform(-bound, bound, (fan_in, fan_out)).astype(np.float32))
            arrays.append(np.zeros(fan_out, np.float32))
        if self.likelihood == "gaussian":
            arrays.append(np.zeros(1, np.float32))
        return arrays

    def names(self):
        """What `initial` returns, by name."""
        encoder, decoder = self.layers
        layers = [f"encoder.{i}" for i in range(len(encoder) - 1)] + ["encoder.mu|logvar"]
        layers += [f"decoder.{i}" for i in range(len(decoder) - 1)] + ["decoder.out"]
        names = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
        return names + ["decoder.noise_logvar"] * (self.likelihood == "gaussian")

    def check_batch(self, X):
        """x (B, D) and eps (B, Z) on which all peers must agree."""
        shape = (self.batch, self.latent)
        return X[: self.batch], np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


class Minivae:
    """The estimator's own training loop, called as `VAE.fit` calls it."""

    granule = 1  # the loop takes any number of steps

    def __init__(self, problem, setting, X, arrays, **device):
        import minivae
        from minivae.engine.machine import machine
        from minivae.engine.threads import count_threads

        self.vae = vae = minivae.VAE(
            problem.latent,
            hidden_layer_sizes=problem.hidden,
            likelihood=problem.likelihood,
            optimizer=problem.optimizer,
            learning_rate=problem.learning_rate,
            batch_size=problem.batch,
            **device,
        )
        self.problem, self.X = problem, X
        self.seed, self.layout, self.state = vae.new_state(problem.n_features, seed=0)
        self.state.theta[:] = np.concatenate([array.ravel() for array in arrays])
        vae.become(self.seed, self.layout, self.state)
        self.machine = machine(vae.program, vae.device, vae.matmul_precision)
        self.threads = count_threads(None, self.layout, problem.batch)

    def recipe(self):
        from minivae.training.loop import make_recipe

        weights = loss_weights(self.vae.program, self.layout)
        return make_recipe(self.vae, self.seed, self.problem.learning_rate, None, weights)

    def trainer(self, X):
        """Who trains on X, with new room for gradient and workspace."""
        m = self.machine
        return m.trainer(m, self.layout, self.recipe(), self.state, X, None)

    def train(self, steps):
        epochs, rest = divmod(steps, self.problem.steps_per_epoch)
        self._epochs(self.X, epochs)
        if rest:
            self._epochs(self.X[: rest * self.problem.batch], 1)

    def _epochs(self, X, epochs):
        from minivae.engine.state import Record
        from minivae.training.loop import Run, train

        rates = [(1, self.problem.learning_rate)]
        recipe = self.recipe()
        weights = lambda epoch: recipe.weights  # noqa: E731
        run = Run(self.machine, self.layout, weights, recipe, rates, self.state, Record())
        train(run, X, None, self.state.epochs + epochs, self.trainer(X), show=False)

    def loss_and_gradients(self, x, eps):
        """Both heads of the encoder as one layer, as `Problem.names` has them."""
        loss, of = self.vae.loss_and_gradients(x, eps)
        gradients = []
        for name in self.problem.names():
            mu, bar, logvar = name.partition("mu|logvar")
            heads = [of[f"{mu}{head}{logvar}"] for head in bar.split("|")]
            gradients.append(np.concatenate(heads, axis=-1))
        return loss, gradients


def loss_weights(program, layout):
    """(n_terms,) of the loss, in the order of the layout."""
    return tuple(program.weights()[name] for name in layout.terms)


class Floor:
    """The products of minivae's step on its threads; no join, no other work."""

    granule = 1

    def __init__(self, problem, setting, X, arrays):
        from minivae.engine.threads import make_task

        minivae = Minivae(problem, setting, X, arrays)
        state, batch, self.threads = minivae.state, problem.batch, minivae.threads
        self.task = make_task(minivae.layout, minivae.recipe(), X[:0], state.theta,
                              state.moments, batch, self.threads)  # fmt: skip
        work = self.task.work
        work[:] = np.random.default_rng(0).standard_normal(work.size)
        self.products = compile_products(minivae.machine)

    def train(self, steps):
        with ThreadPoolExecutor(self.threads) as pool:
            jobs = [pool.submit(self.products, self.task, steps, worker)
                    for worker in range(self.threads)]  # fmt: skip
        for job in jobs:
            job.result()


def compile_products(machine):
    """All matrix products of a step, on the same parts of the same matrices: engine/net.py."""
    import numba

    matmul, net, Shard = machine.k.matmul, machine.program.net, machine.task.Shard
    share, weight, read, written = machine.task.share, net.weight, net.read, net.written

    @numba.njit(nogil=True)
    def products(task, steps, worker):
        B, work = task.recipe.batch_size, task.work
        first, last = share(B, worker, task.workers)
        shard, batch = Shard(B, first, last), Shard(B, 0, B)
        for _ in range(steps):
            for index in range(task.layers.size):
                layer = task.layers[index]
                h, y = read(work, layer.h, layer, shard), written(work, layer.y, layer, shard)
                matmul(h, weight(layer, task.theta), y)
            for index in range(task.layers.size - 1, -1, -1):
                layer = task.layers[index]
                if layer.dh >= 0:
                    da = written(work, layer.dy, layer, shard)
                    matmul(da, weight(layer, task.theta).T, read(work, layer.dh, layer, shard))
            for index in range(task.layers.size):
                layer = task.layers[index]
                h, da = read(work, layer.h, layer, batch), written(work, layer.dy, layer, batch)
                begin, end = share(layer.fan_in, worker, task.workers)
                matmul(h[:, begin:end].T, da, weight(layer, task.gradient)[begin:end])

    return products


# --- the process of a peer ----------------------------------------------------------------------


def peer_class(peer):
    """The class behind a peer's name. Frameworks are imported only by their own workers."""
    if peer == "minivae":
        return Minivae
    if peer == "floor":
        return Floor
    if peer.startswith("jax"):
        from jax_peer import Jax

        return Jax
    from torch_peer import Compiled, Eager

    return Eager if peer == "torch eager" else Compiled


def check(peer, problem, X, path):
    """Loss and gradients at the start, for fixed noise: the loss, and the gradients to a file."""
    loss, gradients = peer.loss_and_gradients(*problem.check_batch(X))
    if path:
        np.savez(path, **dict(zip(problem.names(), map(np.ravel, gradients), strict=True)))
    return float(loss)


def peak_memory():
    """Largest resident size of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints is not an answer

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    task = json.loads(sys.argv[1])
    problem = Problem.parse(task["size"], task["optimizer"])
    X = problem.data()
    begin = time.perf_counter()
    peer = peer_class(task["peer"])(problem, task["setting"], X, problem.initial())
    first = {"granule": peer.granule, "threads": peer.threads}
    if task["check"]:
        first["loss"] = check(peer, problem, X, task["check"])
    peer.train(peer.granule)
    first["seconds"] = time.perf_counter() - begin
    peer.train(problem.steps_per_epoch - peer.granule)
    if task["check"]:
        first["trained"] = check(peer, problem, X, None)
    answer(**first)
    for line in sys.stdin:
        steps = json.loads(line)["steps"]
        begin = time.perf_counter()
        peer.train(steps)  # returns when all of it is computed
        answer(seconds=time.perf_counter() - begin, peak=peak_memory())


# --- its parent -----------------------------------------------------------------------------------


class PeerFailed(Exception):
    """A worker ended before its answer, or answered what minivae does not: how, in a line."""


class Worker:
    """A peer's process as its parent sees it; stopped, with all its threads, but for its turns."""

    def __init__(self, peer, size, optimizer, setting, check):
        task = {"peer": peer, "size": size, "optimizer": optimizer, "setting": setting}
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, __file__, json.dumps({**task, "check": check})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, **setting.get("env", {})},
            preexec_fn=os.setpgrp,  # a group to stop, in this session: it ends if the parent dies
        )  # fmt: skip
        try:
            self.first = self._answer()
        except BaseException:
            self.close()
            raise

    def seconds(self, steps):
        """Wall time of that many steps, by the worker's own clock."""
        os.killpg(self.process.pid, signal.SIGCONT)
        print(json.dumps({"steps": steps}), file=self.process.stdin, flush=True)
        answer = self._answer()
        self.peak = answer["peak"]
        return answer["seconds"]

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise PeerFailed((self.log.read().strip().splitlines() or ["no message"])[-1])
        os.killpg(self.process.pid, signal.SIGSTOP)  # pools would go on spinning for a while
        return json.loads(line)

    def close(self):
        """End the process, whatever it does; may be called again."""
        if self.process.returncode is None:  # else its number may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.log):
            file.close()


if __name__ == "__main__":
    main()
