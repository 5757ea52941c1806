"""Train the small dense VAE that everybody runs on MNIST: 784-400-20, about half a minute.

    python train_mnist.py [--data-dir FOLDER] [--out FOLDER]

Prints the test ELBO (published logs of this setting: -105.6 nats after 10 epochs) and leaves the
model, the learning curve, reconstructions and samples in the folder.
"""

import argparse
from pathlib import Path

import numpy as np

import minivae
from minivae import plots

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data-dir", help="folder that has the MNIST files (default: download them)")
parser.add_argument("--out", type=Path, default=Path("mnist"), help="folder for the results")
parser.add_argument("--epochs", type=int, default=10)
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)

mnist = minivae.datasets.load("mnist", data_dir=arguments.data_dir)
vae = minivae.VAE(latent_dim=20, epochs=arguments.epochs, random_state=0, verbose=1)
vae.fit(mnist.train, X_valid=mnist.test)

elbo = vae.elbo(mnist.test, n_samples=10)  # one value per image
print(f"test ELBO {elbo.mean():.2f} +- {elbo.std() / len(elbo) ** 0.5:.2f} nats per image")

vae.save(arguments.out / "model.safetensors")
images = mnist.test[plots.spread(len(mnist.test), 30)]
prior = np.random.default_rng(0).standard_normal((100, 20))
for name, figure in {
    "learning_curve": plots.learning_curve(vae.history_),
    "reconstructions": plots.reconstructions(images, vae.reconstruct(images), mnist.image_shape),
    "samples": plots.samples(
        vae.inverse_transform(prior), mnist.image_shape, title="means of p(x|z), z from N(0, I)"
    ),
}.items():
    figure.savefig(arguments.out / f"{name}.png")
print(f"model and pictures are in {arguments.out}/")
