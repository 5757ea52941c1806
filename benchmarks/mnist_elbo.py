"""Test ELBO of the small dense VAE that everybody runs: MNIST, 784-400-20, 10 epochs, three seeds.

    python benchmarks/mnist_elbo.py --data-dir FOLDER

Grey values as Bernoulli targets, ReLU, Adam 1e-3, batch 128; the ELBO is that of all 10,000 test
images with sampled z. Published logs of the same setting: -105.59 and -105.56 nats.
"""

import argparse
import time

import numpy as np

import minivae


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="folder with the MNIST files (default: download)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    mnist = minivae.datasets.load("mnist", data_dir=arguments.data_dir)
    results = []
    for seed in arguments.seeds:
        vae = minivae.VAE(20, epochs=arguments.epochs, random_state=seed)
        begin = time.perf_counter()
        vae.fit(mnist.train)
        seconds = time.perf_counter() - begin
        results.append(vae.elbo(mnist.test, n_samples=10).mean())
        print(
            f"seed {seed}: train ELBO {vae.history_['elbo'][-1]:.2f} (last epoch), "
            f"test ELBO {results[-1]:.2f} nats, {seconds:.1f} s of training"
        )
    print(f"test ELBO over {len(results)} seeds: {np.mean(results):.2f} +- {np.std(results):.2f}")


if __name__ == "__main__":
    main()
