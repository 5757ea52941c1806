"""The 2-D manifold of faces (Kingma and Welling 2013, figure 4a).

    python frey_face_manifold.py [--data-dir FOLDER] [--out FOLDER]

The Frey Face video: 1965 frames of 28 x 20 pixels, Gaussian likelihood with means between 0 and 1,
one hidden layer of 200 tanh units and batches of 100 as in the paper, here with Adam and a learned
variance for each pixel. About twenty seconds.
"""

import argparse
from pathlib import Path

import minivae
from minivae import plots

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data-dir", help="folder that has frey_face.npy (default: download)")
parser.add_argument("--out", type=Path, default=Path("frey_manifold"), help="folder for pictures")
parser.add_argument("--epochs", type=int, default=350)
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)

frey = minivae.datasets.load("frey-face", data_dir=arguments.data_dir)
vae = minivae.VAE(
    latent_dim=2,
    hidden_layer_sizes=(200,),
    activation="tanh",
    likelihood="bounded_gaussian",
    batch_size=100,
    epochs=arguments.epochs,
    random_state=0,
    verbose=1,
)
vae.fit(frey.train, X_valid=frey.test)
print(f"test ELBO {vae.elbo(frey.test, n_samples=10).mean():.1f} nats per frame")

manifold = plots.manifold(vae.inverse_transform, frey.image_shape, n=15)
manifold.savefig(arguments.out / "manifold.png")
frames = frey.test[plots.spread(len(frey.test), 20)]  # neighbours in the video look alike
faces = plots.reconstructions(frames, vae.reconstruct(frames), frey.image_shape)
faces.savefig(arguments.out / "reconstructions.png")
print(f"pictures are in {arguments.out}/")
