"""Hamiltonian Monte Carlo on latents z: the specification.

The target has the density exp(-U(z)) but for a constant, with

    U(z) = z'z / 2 + beta nll(z),

that is p(z) p(x|z)^beta for the prior N(0, I) and nll = -ln p(x|z). A momentum v of N(0, I) is
added; then exp(-H(z, v)) with H = U(z) + v'v / 2 has the target as its marginal. The motion
dz/dt = v, dv/dt = -dU/dz leaves H as it is (Neal 2011, "MCMC using Hamiltonian dynamics"). All
chains of a batch are independent: z, v and dnll = d nll / dz (B, Z), and one number of each for
nll, for H and for `size`, the length of a step in time, all (B,).
"""

import numpy as np


def leapfrog_momentum(v, z, dnll, beta, size, fraction):
    """v_i -= fraction size_i dU/dz at z_i, with dU/dz = z + beta dnll.

    A leapfrog step is half of this, a whole `leapfrog_position`, and with the new dnll the other
    half (fraction = 1/2). Between two steps the halves are one whole. Each part moves z or v by a
    function of the other, so it is undone by the same with size < 0 and keeps volume: a trajectory
    is reversible, which the test of `metropolis` builds on. Its error in H is of order size^2.
    """
    v -= fraction * size[:, None] * (z + beta * dnll)


def leapfrog_position(z, v, size):
    """z_i += size_i v_i."""
    z += size[:, None] * v


def hamiltonian(z, v, nll, beta, energy):
    """energy_i = H(z_i, v_i) = (z'z + v'v) / 2 + beta nll, in nats."""
    energy[:] = (z * z + v * v).sum(axis=1) / 2 + beta * nll


def metropolis(before, after, u, old_z, old_nll, old_dnll, z, nll, dnll, accepted):
    """accepted_i = [ln u_i < before_i - after_i]; where it is 0, z, nll and dnll <- the old ones.

    before and after (B,) are H at both ends of a trajectory, u (B,) uniform on (0, 1). To accept
    with probability min(1, exp(before - after)) leaves exp(-H) invariant, as the trajectory is
    reversible and keeps volume (Duane, Kennedy, Pendleton, Roweth 1987). An end whose H is NaN is
    never accepted.
    """
    accepted[:] = np.log(u) < before - after
    back = accepted == 0
    z[back], nll[back], dnll[back] = old_z[back], old_nll[back], old_dnll[back]
