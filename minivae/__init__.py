"""minivae: variational autoencoders without a deep-learning framework.

    import minivae
    vae = minivae.VAE(latent_dim=2).fit(X)

Every gradient is derived and written by hand: `minivae.kernels.reference` has the formulas,
`minivae.objective` the training step, `minivae.gradcheck` the tool that checks them.
"""

import importlib

_HOMES = {"VAE": "vae", "StorageError": "storage"}
_MODULES = ("datasets", "gradcheck", "kernels", "plots")
__all__ = ["VAE", "StorageError", "__version__", *_MODULES]


def __getattr__(name):
    """Import what is asked for when it is asked for, so that `import minivae` is fast."""
    if name == "__version__":
        from importlib.metadata import version

        return version("minivae")
    if name in _HOMES:
        return getattr(importlib.import_module(f"minivae.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"minivae.{name}")
    raise AttributeError(f"module 'minivae' has no attribute {name!r}")


def __dir__():
    return __all__
