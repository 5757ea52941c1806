"""A hash of what 24 small trainings come to, so that two commits can be compared on one machine.

    python benchmarks/bits.py > before.txt      # at one commit
    python benchmarks/bits.py > after.txt       # at the other one, in the same environment
    diff before.txt after.txt                   # nothing: parameters and moments have the same bits

VAEs with both likelihoods, three optimisers and two dtypes, each on one thread and on two, which
must not differ: then the exit code is 1. Hashes of other machines or versions may be others, since
the last bit of a product belongs to the processor and its compiler.
"""

import hashlib
import itertools
import sys

import numpy as np

import minivae

ROWS, COLUMNS = 634, 61  # 19 batches and a short one, and vectors that are not full
BINARIZE = {"bernoulli": "stochastic", "gaussian": None}
OPTIMIZERS, DTYPES, THREADS = ("adam", "sgd", "adagrad"), ("float32", "float64"), (1, 2)


def digest(likelihood, optimizer, dtype, n_threads):
    """16 hexadecimal digits of parameters, with their names, and of the optimiser's moments."""
    vae = minivae.VAE(
        latent_dim=8,
        hidden_layer_sizes=(33, 20),
        likelihood=likelihood,
        binarize=BINARIZE[likelihood],
        beta=1.5,
        optimizer=optimizer,
        learning_rate=0.01,
        momentum=0.9,
        weight_decay=1e-4,
        batch_size=33,
        epochs=2,
        dtype=dtype,
        n_threads=n_threads,
        random_state=7,
    )
    vae.fit(np.random.default_rng(1).random((ROWS, COLUMNS)).astype(dtype))
    found = hashlib.sha256()
    for name, array in vae.parameters_.items():
        found.update(name.encode() + array.tobytes())
    found.update(vae.state_.moments.tobytes())
    return found.hexdigest()[:16]


def main():
    equal = True
    for setting in itertools.product(BINARIZE, OPTIMIZERS, DTYPES):
        digests = [digest(*setting, n) for n in THREADS]
        for n, found in zip(THREADS, digests, strict=True):
            print(f"{' '.join(setting):26} {n} thread{'s' * (n > 1):1}  {found}", flush=True)
        equal &= len(set(digests)) == 1
    if not equal:
        print("the number of threads changes the result", file=sys.stderr)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
