"""Published numbers, trained anew: Table 1 of Burda, Grosse and Salakhutdinov (2015), one layer.

    python benchmarks/published.py FOLDER --objective iwae --k 5 [--rounds 8] [--data-dir DATA]

784-200-200-50 and back, tanh, MNIST binarised afresh at every use, Adam, batches of 20, and 8
rounds of 3^i epochs at the rate 0.001 * 10^(-i/7), 3280 epochs in all: hours. Stop it at any time;
the same command goes on, since FOLDER has a checkpoint. At the end of what was trained it says
-L_5000 of the test images, binarised once, and the number of active units. Published: k = 1 86.76
(19); k = 5 86.47 (20) as a VAE and 85.54 (22) as an IWAE; k = 50 86.35 (20) and 84.78 (25).

Ours differs from the paper's code in Adam's epsilon (1e-8, theirs 1e-4) and in the first biases of
the decoder (0, theirs the logits of the mean image).
"""

import argparse
import time
from pathlib import Path

import numpy as np

import minivae

ROUNDS = [(3**i, 0.001 * 10 ** (-i / 7)) for i in range(8)]


def trained(arguments, X):
    """The model after the rounds that are asked for; goes on if the folder has a checkpoint."""
    rates = ROUNDS[: arguments.rounds]
    checkpoint = Path(arguments.folder) / "checkpoint.safetensors"
    begin = time.perf_counter()
    if checkpoint.exists():
        vae = minivae.load(checkpoint)
        print(f"going on after {vae.state_.epochs} epochs", flush=True)
        if not arguments.score:
            vae.set_params(epochs=sum(epochs for epochs, _ in rates), learning_rate=rates)
            vae.resume(X, checkpoints=arguments.folder)
    else:
        vae = minivae.VAE(
            50, hidden_layer_sizes=(200, 200), activation="tanh", binarize="stochastic",
            objective=arguments.objective, n_importance=arguments.k, batch_size=20,
            epochs=sum(epochs for epochs, _ in rates), learning_rate=rates, random_state=1,
        )  # fmt: skip
        vae.fit(X, checkpoints=arguments.folder)
    print(f"{vae.state_.epochs} epochs, {vae.state_.steps} updates, "
          f"{time.perf_counter() - begin:.0f} s now")  # fmt: skip
    return vae


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="of the run; the same one to go on")
    parser.add_argument("--objective", choices=("elbo", "iwae", "dreg"), default="elbo")
    parser.add_argument("--k", type=int, default=1)
    parser.add_argument("--rounds", type=int, choices=range(1, 9), default=8)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--score", action="store_true", help="do not train, score what there is")
    parser.add_argument("--data-dir", help="folder with the MNIST files (default: download)")
    arguments = parser.parse_args()
    mnist = minivae.datasets.load("mnist", data_dir=arguments.data_dir)
    vae = trained(arguments, mnist.train)
    found = vae.score_samples(mnist.test, arguments.samples, return_error=True)
    error = np.sqrt(np.mean(found.error**2) / len(mnist.test))
    draws = np.median(found.effective_draws)
    print(f"-ELBO {-vae.elbo(mnist.test, random_state=0).mean():.2f}, "
          f"-L_{arguments.samples} {-found.log_p.mean():.2f} +- {error:.2f} nats of "
          f"{len(mnist.test)} test images (median of effective draws {draws:.0f}), "
          f"active units {vae.diagnose(mnist.test).n_active}")  # fmt: skip


if __name__ == "__main__":
    main()
