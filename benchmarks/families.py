"""The training step of each family beside the same model in PyTorch, eager and compiled.

    python benchmarks/families.py [FAMILY ...] [--rows 2000] [--seconds 2] [--rounds 5]

Rows are 28 x 28 bits, 13 in 100 of them 1 as in binarised MNIST, float32, Adam, and each family's
default settings and batch size. A round lets ours and each peer train for some seconds, one after
the other, in one process; a ratio compares two turns of one round, so that a slow moment of the
machine falls on both, and is above 1 where ours is faster. A peer is taken at the number of threads
at which a trial was fastest. PyTorch's losses are in torch_families.py. Needs the extra `bench`.
"""

import argparse
import os
import statistics
import time

import numpy as np
import torch
from torch_families import COMPILED, LOSSES

import minivae
from minivae.models import find


class Ours:
    """Our own step: `partial_fit`, with all that a pass over rows needs."""

    def __init__(self, model, X):
        self.model, self.X = model, X
        self.steps = -(-len(X) // int(model.batch_size))

    def train(self):
        self.model.partial_fit(self.X)
        return self.steps


class Peer:
    """Loss, backward and Adam in PyTorch, over rows in a new order each pass."""

    def __init__(self, model, X, compiled):
        self.batch, self.X = int(model.batch_size), torch.from_numpy(X)
        self.p = {n: torch.tensor(a, requires_grad=True) for n, a in model.parameters_.items()}
        self.optimizer = torch.optim.Adam(self.p.values(), lr=1e-3, fused=True)

        written = (COMPILED if compiled else LOSSES)[model.program.NAME]

        def loss(p, x):
            return written(model, p, x)

        self.loss = torch.compile(loss, dynamic=False) if compiled else loss
        self.threads = None

    def train(self):
        torch.set_num_threads(self.threads)
        batches = torch.randperm(len(self.X)).split(self.batch)
        for rows in batches:
            self.optimizer.zero_grad(set_to_none=True)
            self.loss(self.p, self.X[rows]).backward()
            self.optimizer.step()
        return len(batches)

    def settle(self):
        """The number of threads at which a pass is fastest."""
        times = {}
        for self.threads in range(1, os.cpu_count() + 1):
            self.train()
            times[self.threads] = step_time(self, 0.0)
        self.threads = min(times, key=times.get)


def step_time(runner, seconds):
    """Seconds of one step, from whole passes that take so long together, one pass at least."""
    start, steps = time.perf_counter(), 0
    while steps == 0 or time.perf_counter() - start < seconds:
        steps += runner.train()
    return (time.perf_counter() - start) / steps


def measure(name, arguments):
    """Lines on a family."""
    torch._dynamo.reset()  # or its limit of recompilations is that of all families together
    make = find(name)
    model = make(random_state=0, **make.SUITED.get("bits", {}))
    rng = np.random.default_rng(0)
    n = arguments.rows // int(model.batch_size) * int(model.batch_size)  # whole batches alone
    X = (rng.random((n, 784)) < 0.13).astype("f4")
    model.partial_fit(X)
    runners = {"ours": Ours(model, X), "eager": Peer(model, X, False),
               "compiled": Peer(model, X, True)}  # fmt: skip
    for peer in ("eager", "compiled"):
        runners[peer].settle()
    rounds = [
        {who: step_time(runner, arguments.seconds) for who, runner in runners.items()}
        for _ in range(arguments.rounds)
    ]
    ours = statistics.median(times["ours"] for times in rounds)
    line = f"{name:10} batch {model.batch_size:4}  ours {1000 * ours:7.2f} ms"
    for peer in ("eager", "compiled"):
        ratios = sorted(times[peer] / times["ours"] for times in rounds)
        line += (f"   {peer} {statistics.median(ratios):5.2f} x ({ratios[0]:.2f} to "
                 f"{ratios[-1]:.2f}, {runners[peer].threads} threads)")  # fmt: skip
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", default=list(LOSSES))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"minivae {minivae.__version__}, PyTorch {torch.__version__}, {os.cpu_count()} cores")
    for name in arguments.families:
        print(measure(name, arguments), flush=True)


if __name__ == "__main__":
    main()
