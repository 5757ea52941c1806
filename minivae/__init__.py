"""minivae: variational autoencoders and other generative models, without a deep-learning framework.

    import minivae
    vae = minivae.VAE(latent_dim=2).fit(X)

Every gradient is derived and written by hand: kernels/SUBJECT/reference.py has the formulas,
minivae/engine/step.py the training step, minivae/models the families, `minivae.gradcheck` the tool
that checks them.
"""

import importlib

_HOMES = {
    "VAE": "models.vae.estimator",
    "NADE": "models.nade",
    "Flow": "models.flow",
    "RBM": "models.rbm",
    "PixelCNN": "models.pixelcnn",
    "WaveNet": "models.wavenet",
    "PixelRNN": "models.pixelrnn",
    "GAN": "models.gan",
    "LinearGaussian": "models.linear_gaussian",
    "VAEImputer": "models.vae.imputer",
    "VAEOutlierDetector": "models.vae.outliers",
    "load": "models",
    "StorageError": "files.storage",
}
_MODULES = {
    "models": "models",
    "datasets": "data.datasets",
    "gradcheck": "evaluation.gradcheck",
    "kernels": "kernels",
    "plots": "app.plots",
}
__all__ = ["__version__", *_HOMES, *_MODULES]


def __getattr__(name):
    """Import what is asked for when it is asked for, so that `import minivae` is fast."""
    if name == "__version__":
        from importlib.metadata import version

        return version("minivae")
    if name in _HOMES:
        return getattr(importlib.import_module(f"minivae.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"minivae.{_MODULES[name]}")
    raise AttributeError(f"module 'minivae' has no attribute {name!r}")


def __dir__():
    return __all__
