"""Annealed importance sampling beside the matrix products that it cannot do without.

    python benchmarks/ais.py [ROWS [TEMPERATURES]]      # rows of X, 16 chains each; 32 and 5

For a decoder 20-400-784, float32: seconds of the four products of a leapfrog step (decoder forward,
and backward to z), by our own kernel and by NumPy's BLAS (of one thread, if OPENBLAS_NUM_THREADS=1
is set before), and of `vae.ais`, in turn within one run, on one thread and on two. The ratio to the
products is what to compare; the seconds for 100 rows and 1,000 temperatures are worked out.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import minivae
from minivae.evaluation.ais import CACHED_ROWS
from minivae.kernels import tables

Z, H, D, CHAINS, LEAPFROG, TURNS = 20, 400, 784, 16, 10, 3
FLOPS = 4 * (Z * H + H * D)  # of a chain's leapfrog step


def products(matmul, chains, steps, n_threads):
    """Seconds for the products of so many steps of so many chains."""
    rng = np.random.default_rng(0)
    W, V = (rng.standard_normal(shape).astype("f4") for shape in ((Z, H), (H, D)))

    def work(_):
        room = (np.ones((CACHED_ROWS, n), "f4") for n in (Z, H, D, D, H, Z))
        z, h, y, dy, dh, dz = room
        for _ in range(steps * chains // (CACHED_ROWS * n_threads)):
            for a, b, out in ((z, W, h), (h, V, y), (dy, V.T, dh), (dh, W.T, dz)):
                matmul(a, b, out)

    with ThreadPoolExecutor(n_threads) as pool:
        begin = time.perf_counter()
        list(pool.map(work, range(n_threads)))
        return time.perf_counter() - begin


def main(rows=32, temperatures=5):
    X = (np.random.default_rng(0).random((rows, D)) < 0.3).astype("f4")
    vae = minivae.VAE(Z, hidden_layer_sizes=(H,), epochs=1, random_state=0).fit(X)
    chains, steps = rows * CHAINS, (temperatures - 1) * LEAPFROG + 1

    def annealed(n_threads):
        vae.set_params(n_threads=n_threads)
        begin = time.perf_counter()
        vae.ais(X, CHAINS, temperatures, LEAPFROG, random_state=0)
        return time.perf_counter() - begin

    ours, blas = tables.cpu().matmul, lambda a, b, out: np.matmul(a, b, out=out)
    for n_threads in (1, 2):
        runs = {
            "products, ours": lambda n=n_threads: products(ours, chains, steps, n),
            "products, BLAS": lambda n=n_threads: products(blas, chains, steps, n),
            "vae.ais": lambda n=n_threads: annealed(n),
        }
        for run in runs.values():
            run()  # compiles
        turns = [{name: run() for name, run in runs.items()} for _ in range(TURNS)]
        best = {name: min(turn[name] for turn in turns) for name in runs}
        print(f"{n_threads} thread{'s' * (n_threads > 1)}")
        for name, seconds in best.items():
            speed = chains * steps * FLOPS / seconds / 1e9
            whole = seconds * (100 * CHAINS * (999 * LEAPFROG + 1)) / (chains * steps)
            print(f"  {name:16}{speed:6.1f} GFLOP/s  {seconds / best['products, ours']:5.2f}"
                  f"  100 rows, 1,000 temperatures: {whole:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
