"""The 2-D manifold of handwritten digits (Kingma and Welling 2013, figure 4b).

    python mnist_manifold.py [--data-dir FOLDER] [--out FOLDER]

A VAE with two latent variables and one hidden layer of 500 tanh units, as in the paper, here with
Adam. A regular grid of the unit square goes through the inverse Gaussian CDF, so it covers the
prior evenly, and then through the decoder. About two minutes.
"""

import argparse
from pathlib import Path

import minivae
from minivae import plots

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data-dir", help="folder that has the MNIST files (default: download them)")
parser.add_argument("--out", type=Path, default=Path("mnist_manifold"), help="folder for pictures")
parser.add_argument("--epochs", type=int, default=30)
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)

mnist = minivae.datasets.load("mnist", data_dir=arguments.data_dir)
vae = minivae.VAE(
    latent_dim=2,
    hidden_layer_sizes=(500,),
    activation="tanh",
    batch_size=100,
    epochs=arguments.epochs,
    random_state=0,
    verbose=1,
)
vae.fit(mnist.train, X_valid=mnist.test)
print(f"test ELBO {vae.elbo(mnist.test, n_samples=10).mean():.2f} nats per image")

manifold = plots.manifold(vae.inverse_transform, mnist.image_shape)
manifold.savefig(arguments.out / "manifold.png")
scatter = plots.latent_scatter(vae.transform(mnist.test), mnist.test_labels)
scatter.savefig(arguments.out / "latent.png")
print(f"pictures are in {arguments.out}/")
