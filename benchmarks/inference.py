"""Using a trained VAE, beside the same model in PyTorch: transform, elbo, sample, score_samples.

    python benchmarks/inference.py [--rows 10000] [--repeats 5]

784-400-20 with parameters as they are drawn at first, on rows of zeros and ones. Both have all
threads of the machine. PyTorch runs without gradients in blocks of rows; of several sizes the
fastest counts. The two take turns, and the smallest time of each is compared: a ratio above 1 says
that minivae is faster. Draws are checked to be of the same distribution by their means.
"""

import argparse
import functools
import math
import time

import numpy as np
import torch
import torch.nn.functional as F

import minivae
from minivae.engine.threads import processors

D, H, Z, K = 784, 400, 20, 100
BLOCKS = (512, 2048, 10_000)  # rows that PyTorch decodes at once


class Torch:
    """The model as functions over plain tensors."""

    def __init__(self, vae):
        p = {name: torch.tensor(np.ascontiguousarray(a)) for name, a in vae.parameters_.items()}
        self.encoder = p["encoder.0.weight"], p["encoder.0.bias"]
        heads = [
            [p[f"encoder.{h}.{part}"] for h in ("mu", "logvar")] for part in ("weight", "bias")
        ]
        self.heads = tuple(torch.cat(parts, -1).contiguous() for parts in heads)
        self.decoder = [(p[f"decoder.{i}.weight"], p[f"decoder.{i}.bias"]) for i in ("0", "out")]

    def encode(self, x):
        h = F.relu(torch.addmm(self.encoder[1], x, self.encoder[0]))
        return torch.addmm(self.heads[1], h, self.heads[0]).chunk(2, dim=1)

    def decode(self, z):
        (W, b), (V, c) = self.decoder
        return torch.addmm(c, F.relu(torch.addmm(b, z, W)), V)

    def transform(self, x):
        return self.encode(x)[0]

    def elbo(self, x):
        mu, logvar = self.encode(x)
        std = torch.exp(0.5 * logvar)
        y = self.decode(torch.addcmul(mu, std, torch.randn_like(mu)))
        nll = F.binary_cross_entropy_with_logits(y, x, reduction="none").sum(1)
        return -nll - 0.5 * (mu.square() + std.square() - logvar - 1).sum(1)

    def sample(self, x):
        return torch.bernoulli(torch.sigmoid(self.decode(torch.randn(len(x), Z))))

    def score_samples(self, x):
        """All draws of some rows in one product, the rows so few that it is of the block's size."""
        mu, logvar = (a.repeat_interleave(K, 0) for a in self.encode(x))
        eps = torch.randn_like(mu)
        z = torch.addcmul(mu, torch.exp(0.5 * logvar), eps)
        # x is a target of one row for all its draws, so it is broadcast and not copied.
        y = self.decode(z).view(len(x), K, D)
        nll = (F.softplus(y) - x[:, None] * y).sum(2)
        log_w = 0.5 * (eps.square() + logvar - z.square()).sum(1).view(len(x), K) - nll
        return torch.logsumexp(log_w, 1) - math.log(K)


def in_blocks(function, x, size):
    with torch.inference_mode():
        return torch.cat([function(part) for part in x.split(size)])


def timed(function):
    begin = time.perf_counter()
    value = function()
    return time.perf_counter() - begin, value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(processors())
    X = (np.random.default_rng(0).random((arguments.rows, D)) < 0.2).astype(np.float32)
    vae = minivae.VAE(Z, hidden_layer_sizes=(H,), random_state=0)
    vae.loss_and_gradients(X[:1])
    x, peer = torch.from_numpy(X), Torch(vae)
    ours = {
        "transform": lambda: vae.transform(X),
        "elbo": lambda: vae.elbo(X, random_state=0),
        "sample": lambda: vae.sample(len(X), random_state=0),
        "score_samples": lambda: vae.score_samples(X, K),
    }
    print(f"{arguments.rows} rows, {D}-{H}-{Z}, {processors()} threads, torch {torch.__version__}")
    for name, mine in ours.items():
        sizes = [max(1, size // (K if name == "score_samples" else 1)) for size in BLOCKS]
        times = {"minivae": []} | {size: [] for size in sizes}
        repeats = arguments.repeats if name != "score_samples" else max(1, arguments.repeats // 2)
        for _ in range(repeats + 1):  # the first one compiles
            seconds, found = timed(mine)
            times["minivae"].append(seconds)
            for size in sizes:
                seconds, theirs = timed(functools.partial(in_blocks, getattr(peer, name), x, size))
                times[size].append(seconds)
        gap = abs(float(np.mean(found)) - float(theirs.double().mean()))
        assert gap < 0.02 * max(1, abs(float(np.mean(found)))), f"{name}: means are {gap} apart"
        best = {which: min(values[1:]) for which, values in times.items()}
        size = min(sizes, key=best.get)
        print(f"{name:14} minivae {best['minivae'] * 1e3:8.1f} ms, torch {best[size] * 1e3:8.1f} "
              f"ms in blocks of {size}: ratio {best[size] / best['minivae']:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
