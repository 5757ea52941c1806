"""Numba twins of chains/reference.py."""

from ..support.formulas import log
from ..support.native import compiled


@compiled
def leapfrog_momentum(v, z, dnll, beta, size, fraction):
    weight = v.dtype.type(beta)
    for i in range(v.shape[0]):
        row, place, slope = v[i], z[i], dnll[i]
        time = v.dtype.type(fraction) * size[i]
        for j in range(row.size):
            row[j] -= time * (place[j] + weight * slope[j])


@compiled
def leapfrog_position(z, v, size):
    for i in range(z.shape[0]):
        row, momentum, time = z[i], v[i], size[i]
        for j in range(row.size):
            row[j] += time * momentum[j]


@compiled
def hamiltonian(z, v, nll, beta, energy):
    half, weight = z.dtype.type(0.5), z.dtype.type(beta)
    for i in range(z.shape[0]):
        total = z.dtype.type(0)
        for j in range(z.shape[1]):
            total += z[i, j] * z[i, j] + v[i, j] * v[i, j]
        energy[i] = half * total + weight * nll[i]


@compiled
def metropolis(before, after, u, old_z, old_nll, old_dnll, z, nll, dnll, accepted):
    one, zero = z.dtype.type(1), z.dtype.type(0)
    for i in range(z.shape[0]):
        accepted[i] = one if log(u[i]) < before[i] - after[i] else zero
        if accepted[i] == zero:
            nll[i] = old_nll[i]
            for j in range(z.shape[1]):
                z[i, j] = old_z[i, j]
                dnll[i, j] = old_dnll[i, j]
