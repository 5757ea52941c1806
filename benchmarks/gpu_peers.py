"""One peer of `gpu.py` in a process of its own; gpu.py starts this with a task in JSON.

For every size one JSON line: the first loss, the norms of the first gradients, and microseconds per
step of several stretches. What fails for a size is in its line.
"""

import json
import sys
import time

import numpy as np
import peer_worker
from peer_worker import Problem

STRETCHES, STRETCH_SECONDS = 5, 0.4
SETTING = {"threads": 1, "graph": "loss"}


class Minivae(peer_worker.Minivae):
    """The step as a device replays it; X is copied to the card once."""

    def __init__(self, problem, precision, X, arrays, device="cuda"):
        super().__init__(problem, {}, X, arrays, device=device, matmul_precision=precision)
        self.on_card = self.trainer(X).__enter__()  # for as long as the process lives

    def train(self, steps):
        from minivae.training.order import shuffled

        state, batch = self.state, self.problem.batch
        while steps > 0:
            rows = shuffled(len(self.X), self.seed, state.epochs)[: steps * batch]
            made = self.on_card.run(self.recipe(), state, self.X, rows)
            state.epochs, state.steps = state.epochs + 1, state.steps + made
            assert made == len(rows) // batch, "a loss was not finite"
            steps -= made


def torch_peer(form):
    """The class of a PyTorch peer on a GPU, on top of those for CPUs."""
    import torch
    from torch_peer import Compiled, Eager

    torch.set_default_device("cuda")
    base = Compiled if form in ("reduce-overhead", "max-autotune") else Eager

    class Torch(base):
        def __init__(self, problem, precision, X, arrays):
            names = {"tf32": "high", "float32": "highest"}
            torch.set_float32_matmul_precision(names[precision])
            super().__init__(problem, {**SETTING, "mode": form}, X, arrays)
            self.X = self.X.cuda()
            if form == "graph":
                self.capture()

        def train(self, steps):
            super().train(steps)
            torch.cuda.synchronize()

        def loss_and_gradients(self, x, eps):
            x, eps = torch.tensor(x), torch.tensor(eps)
            value = self.loss(self.parameters, x, eps)
            gradients = torch.autograd.grad(value, self.parameters)
            return value.item(), [gradient.cpu().numpy() for gradient in gradients]

        def capture(self):
            """One whole step as a CUDA graph, as PyTorch's notes on CUDA graphs have it."""
            start = [parameter.detach().clone() for parameter in self.parameters]
            rate = self.problem.learning_rate
            self.optimizer = torch.optim.Adam(self.parameters, lr=rate, fused=True, capturable=True)
            self.rows = torch.arange(self.problem.batch)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.optimizer.zero_grad(set_to_none=True)
                    self.body()
            torch.cuda.current_stream().wait_stream(stream)
            self.optimizer.zero_grad(set_to_none=True)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.body()
            with torch.no_grad():
                for parameter, value in zip(self.parameters, start, strict=True):
                    parameter.copy_(value)
            self.step = self.replay

        def body(self):
            x = self.X.index_select(0, self.rows)
            eps = torch.randn(self.problem.batch, self.problem.latent)
            self.loss(self.parameters, x, eps).backward()
            self.optimizer.step()

        def replay(self, rows):
            self.rows.copy_(rows)
            self.graph.replay()

    return Torch


def jax_peer(form):
    """The class of a JAX peer on a GPU."""
    import jax
    from jax_peer import Jax

    if jax.default_backend() != "gpu":
        raise RuntimeError(f"JAX sees no GPU, only {jax.default_backend()}")

    def make(problem, precision, X, arrays):
        names = {"tf32": "tensorfloat32", "float32": "float32"}
        jax.config.update("jax_default_matmul_precision", names[precision])
        return Jax(problem, {"threads": 1, "scan": form == "scan"}, X, arrays)

    return make


def peer_class(peer):
    """What makes a peer, by its name."""
    package, _, form = peer.partition(" ")
    return {"minivae": lambda form: Minivae, "torch": torch_peer, "jax": jax_peer}[package](form)


def stretches(peer, problem):
    """Microseconds per step of several stretches of some tenths of a second, after two epochs."""
    per_epoch = problem.steps_per_epoch
    peer.train(per_epoch)
    begin = time.perf_counter()
    peer.train(per_epoch)
    epochs = max(1, round(STRETCH_SECONDS / (time.perf_counter() - begin)))
    times = []
    for _ in range(STRETCHES):
        begin = time.perf_counter()
        peer.train(epochs * per_epoch)
        times.append(1e6 * (time.perf_counter() - begin) / (epochs * per_epoch))
    return times


def answer(make, size, precision):
    """The line of one size."""
    problem = Problem.parse(size, "adam")
    X = problem.data()
    peer = make(problem, precision, X, problem.initial())
    loss, gradients = peer.loss_and_gradients(*problem.check_batch(X))
    norms = [float(np.linalg.norm(gradient)) for gradient in gradients]
    return {"loss": float(loss), "norms": norms, "microseconds": stretches(peer, problem)}


def ceilings(precision, n=8192, n_bytes=2**30, rounds=10):
    """What the card does at best: a large product, and a large copy, which reads and writes."""
    from minivae.kernels import tables
    from minivae.kernels.support import device

    card = device.find(0, precision)
    k = tables.on_device(card)
    a, b, out = (card.empty((n, n), np.float32) for _ in range(3))
    for array in (a, b):
        card.upload(np.random.default_rng(0).standard_normal((n, n), np.float32), array)
    source, target = (card.empty((n_bytes // 4,), np.float32) for _ in range(2))

    def seconds(body):
        body()
        card.stream.synchronize()
        begin = time.perf_counter()
        for _ in range(rounds):
            body()
        card.stream.synchronize()
        return (time.perf_counter() - begin) / rounds

    def copy():
        runtime = card.cupy.cuda.runtime
        runtime.memcpyAsync(target.data.ptr, source.data.ptr, n_bytes,
                            runtime.memcpyDeviceToDevice, card.stream.ptr)  # fmt: skip

    return {
        "flops_per_second": 2 * n**3 / seconds(lambda: k.matmul(a, b, out)),
        "bytes_per_second": 2 * n_bytes / seconds(copy),
    }


def main():
    task = json.loads(sys.argv[1])
    if task["peer"] == "ceilings":
        print(json.dumps(ceilings(task["precision"])), flush=True)
        return
    make = peer_class(task["peer"])
    for size in task["sizes"]:
        try:
            line = answer(make, size, task["precision"])
        except Exception as error:
            line = {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
        print(json.dumps({"size": size, **line}), flush=True)


if __name__ == "__main__":
    main()
