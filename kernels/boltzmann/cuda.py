"""CUDA twins of boltzmann/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import common_shape


def free_energy(on, v, field, a, c, scale, energy, da, dfield):
    (B, D), (_, H) = common_shape(v=v, da=da), common_shape(field=field, dfield=dfield)
    _check(v, field, a=(a, D), c=(c, H), energy=(energy, B))
    on.launch("free_energy", v.dtype, (B, 1), v, field, a, c, scale, energy, da, dfield, D, H)


def pseudo_nll(on, x, u, field, W, a, c, nll):
    (B, D), H = x.shape, field.shape[1]
    _check(x, field, a=(a, D), c=(c, H), nll=(nll, B), u=(u, B))
    if W.shape != (D, H):
        raise ValueError(f"W has shape {W.shape}, expected {(D, H)}")
    on.launch("pseudo_nll", x.dtype, (B, 1), x, u, field, W, a, c, nll, D, H)


def anneal_energy(on, v, field, base, a, c, before, after, gain):
    (B, D), H = v.shape, field.shape[1]
    _check(v, field, base=(base, D), a=(a, D), c=(c, H), gain=(gain, B))
    on.launch("anneal_energy", v.dtype, (B, 1), v, field, base, a, c, before, after, gain, D, H)


def _check(v, field, **sizes):
    """ValueError unless v and field have as many rows, and each array so many numbers."""
    if len(v) != len(field):
        raise ValueError(f"field has {len(field)} rows, expected {len(v)}")
    for name, (array, size) in sizes.items():
        if array.size != size:
            raise ValueError(f"{name} has {array.size} numbers, expected {size}")
