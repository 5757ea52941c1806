"""Numba twins of boltzmann/reference.py."""

from ..support.formulas import sigmoid, softplus
from ..support.native import compiled


@compiled
def free_energy(v, field, a, c, scale, energy, da, dfield):
    factor = v.dtype.type(scale)
    for i in range(v.shape[0]):
        visible, signal = v[i], field[i]
        total = v.dtype.type(0)
        for j in range(visible.size):
            total += a[j] * visible[j]
        for j in range(signal.size):
            total += softplus(signal[j] + c[j])
        energy[i] = -total
        if da is not None:
            slope, dsignal = da[i], dfield[i]
            for j in range(visible.size):
                slope[j] = -factor * visible[j]
            for j in range(signal.size):
                dsignal[j] = -factor * sigmoid(signal[j] + c[j])


@compiled
def pseudo_nll(x, u, field, W, a, c, nll):
    real, D = x.dtype.type, x.shape[1]
    for i in range(x.shape[0]):
        d = min(int(u[i, 0] * real(D)), D - 1)
        t, weight, signal = real(1) - real(2) * x[i, d], W[d], field[i]
        total = a[d] * t
        for j in range(signal.size):
            s = signal[j] + c[j]
            total += softplus(s + t * weight[j]) - softplus(s)
        nll[i] = real(D) * softplus(total)


@compiled
def anneal_energy(v, field, base, a, c, before, after, gain):
    real = v.dtype.type
    old, new, zero = real(before), real(after), real(0)
    for i in range(v.shape[0]):
        visible, signal = v[i], field[i]
        total, hidden = zero, zero
        for j in range(visible.size):
            total += (a[j] - base[j]) * visible[j]
        for j in range(signal.size):
            s = signal[j] + c[j]
            hidden += softplus(new * s) - softplus(old * s)
        gain[i] = (new - old) * total + hidden
