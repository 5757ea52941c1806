"""CUDA twins of chains/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import blocks, common_shape


def leapfrog_momentum(on, v, z, dnll, beta, size, fraction):
    B, Z = common_shape(v=v, z=z, dnll=dnll)
    on.launch("leapfrog_momentum", v.dtype, (B, blocks(Z)), v, z, dnll, beta, size, fraction, Z)


def leapfrog_position(on, z, v, size):
    B, Z = common_shape(z=z, v=v)
    on.launch("leapfrog_position", z.dtype, (B, blocks(Z)), z, v, size, Z)


def hamiltonian(on, z, v, nll, beta, energy):
    B, Z = common_shape(z=z, v=v)
    on.launch("hamiltonian", z.dtype, (B, 1), z, v, nll, beta, energy, Z)


def metropolis(on, before, after, u, old_z, old_nll, old_dnll, z, nll, dnll, accepted):
    B, Z = common_shape(old_z=old_z, old_dnll=old_dnll, z=z, dnll=dnll)
    on.launch("metropolis", z.dtype, (B, 1), before, after, u, old_z, old_nll, old_dnll,
              z, nll, dnll, accepted, Z)  # fmt: skip
