"""The families of models, by the names that files and the command have for them."""

import importlib

MODELS = {
    "vae": "minivae.models.vae.estimator:VAE",
    "nade": "minivae.models.nade:NADE",
    "pixelrnn": "minivae.models.pixelrnn:PixelRNN",
    "pixelcnn": "minivae.models.pixelcnn:PixelCNN",
    "wavenet": "minivae.models.wavenet:WaveNet",
    "flow": "minivae.models.flow:Flow",
    "rbm": "minivae.models.rbm:RBM",
    "gan": "minivae.models.gan:GAN",
}


def find(name):
    """The class of a family; imported when it is asked for."""
    if name not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {name!r}")
    module, attribute = MODELS[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def load(path, part=None):
    """The model at path, of whichever family it is; part as in the family's own `load`."""
    from minivae.files import document

    return document.load(path, part, find)
