"""Exact ln p(x) of NADE on binarised MNIST, with its defaults: 500 hidden units, 20 epochs.

    python benchmarks/nade_mnist.py --data-dir FOLDER

Trains on the 50,000 training images of the fixed binarisation, then scores its 10,000 test images.
Published for NADE in one fixed order of the pixels: 88.33 nats of -ln p(x).
"""

import argparse
import time

import minivae


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="folder that has binarized_mnist.npz")
    parser.add_argument("--epochs", type=int, help="other than the default, for a short run")
    parser.add_argument("--rows", type=int, help="so many training images, for a short run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    mnist = minivae.datasets.load("binarized-mnist", data_dir=arguments.data_dir)
    nade = minivae.NADE(random_state=arguments.seed, verbose=1)
    if arguments.epochs:
        nade.set_params(epochs=arguments.epochs)
    train = mnist.train[: arguments.rows]

    begin = time.perf_counter()
    nade.fit(train)
    seconds = time.perf_counter() - begin
    print(f"{len(train)} images, {nade.epochs} epochs: {seconds:.1f} s of training, ln p(x) "
          f"{nade.history_['log_likelihood'][-1]:.2f} (last epoch)")  # fmt: skip

    begin = time.perf_counter()
    scores = nade.score_samples(mnist.test)
    error = scores.std(ddof=1) / len(scores) ** 0.5
    seconds = time.perf_counter() - begin
    print(f"held-out ln p(x), exact: {scores.mean():.2f} +- {error:.2f} nats per image, published "
          f"-88.33 ({len(scores)} images in {seconds:.1f} s)")  # fmt: skip

    nade.sample(1)  # compiled, before the clock runs
    begin = time.perf_counter()
    nade.sample(64)
    print(f"64 samples: {1000 * (time.perf_counter() - begin):.0f} ms")


if __name__ == "__main__":
    main()
