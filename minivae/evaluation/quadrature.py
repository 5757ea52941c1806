"""ln p(x) of a model with one or two latent variables, by integrating them out on a grid.

    p(x) = integral of p(x | z) N(z; 0, I) dz  ~  h^Z * sum over the nodes z of a grid of step h.

That is the trapezoidal rule, as the integrand vanishes at the edge. For an analytic integrand its
error falls faster than any power of h: for a posterior like a Gaussian of deviation s it is about
2 exp(-2 pi^2 s^2 / h^2), which is 5e-9 for h = s and 1e-34 for h = s / 2. A decoder with corners
(ReLU) has an error of order h^2.

Nothing is known of s beforehand, so the step is halved until the result moves by less than a
tolerance: what is left is far smaller than that move, with corners a third of it. The edge is moved
outwards until the integrand there is nothing beside the sum. The decoder's output does not depend
on x, so a block of nodes is decoded once for all rows.
"""

import itertools
import warnings

import numpy as np

from minivae.data.rows import BLOCK, fetch
from minivae.evaluation.blocks import for_blocks
from minivae.kernels import STREAM_PIXELS

MAX_LATENT = 2
EDGE = 7.0  # of the grid at first; the prior has 5e-12 of its mass beyond
STEP = 0.25
NOTHING = np.log(1e-10)  # of the integrand at the edge beside the sum
MAX_NODES = 2**20


def log_likelihood(session, X, binarize, seed, tolerance):
    """ln p(x) of each row (n,), float64, in nats.

    The grid of a row is refined until halving its step moves the result by at most tolerance. Warns
    of rows that MAX_NODES nodes are too few for. ValueError where z has more than two dimensions.
    """
    Z = session.layout.plan.latent_dim
    if Z > MAX_LATENT:
        raise ValueError(
            f"latent_dim is {Z}, and a grid over z is affordable up to {MAX_LATENT}: "
            "score_samples estimates ln p(x) of any model"
        )
    log_p, moved = np.empty(X.shape[0]), np.empty(X.shape[0])

    def work(session, rows):
        batch = session.put(fetch(X, rows, session.task.theta.dtype))
        session.load_x(batch)
        session.binarize(session.view("x", batch.B), binarize, seed, STREAM_PIXELS, 0, rows.start)
        log_p[rows], moved[rows] = integrate(session, loaded(session, batch.B), Z, tolerance)

    for_blocks(session, X.shape[0], work)
    if (moved > tolerance).any():
        warnings.warn(
            f"ln p(x) of {(moved > tolerance).sum()} of {len(log_p)} rows moved by up to "
            f"{moved.max():.1g} nats when the grid over z was last refined: their posteriors are "
            f"too narrow, or too far out, for {MAX_NODES} nodes",
            stacklevel=3,
        )
    return log_p


def loaded(session, B):
    """{region: values (B, D)} of the host: x as the workspace has it, and what of it is known."""
    names = [name for name in ("x", "observed") if name in session.layout.regions]
    return {name: np.array(session.download(session.view(name, B))) for name in names}


def integrate(session, data, Z, tolerance):
    """(ln p(x) (B,), by how much each moved when its grid was last refined (B,)).

    Each row has a grid of its own; those that have the same one share the decoder's outputs.
    """
    B = len(data["x"])
    log_p, moved, rows, edge = np.empty(B), np.full(B, np.inf), np.arange(B), EDGE
    while rows.size:
        log_sum, log_edge = add_up(session, data, rows, grid(edge, STEP, Z), edge)
        log_p[rows] = log_sum + Z * np.log(STEP)
        inside = log_edge < log_sum + NOTHING
        refine(session, data, rows[inside], log_sum[inside], edge, Z, tolerance, log_p, moved)
        rows, edge = rows[~inside], 2 * edge
        if n_nodes(edge, STEP, Z) > MAX_NODES:
            break
    return log_p, moved


def refine(session, data, rows, log_sum, edge, Z, tolerance, log_p, moved):
    """Halve the step for these rows, whose sums over the first grid are given, for as long as that
    moves them; log_p and moved of all rows get what comes out."""
    step = STEP / 2
    while rows.size and n_nodes(edge, step, Z) <= MAX_NODES:
        more, _ = add_up(session, data, rows, grid(edge, step, Z, new=True), edge)
        log_sum = np.logaddexp(log_sum, more)
        now = log_sum + Z * np.log(step)
        moved[rows], log_p[rows] = abs(now - log_p[rows]), now
        going_on = moved[rows] > tolerance
        rows, log_sum, step = rows[going_on], log_sum[going_on], step / 2


def n_nodes(edge, step, Z):
    """How many nodes a grid has."""
    return (2 * round(edge / step) + 1) ** Z


def grid(edge, step, Z, new=False):
    """The nodes (m, Z) of [-edge, edge]^Z at multiples of step; new: that those of 2 step lack."""
    count = round(edge / step)
    index = np.array(list(itertools.product(range(-count, count + 1), repeat=Z)))
    return step * (index[(index % 2).any(axis=1)] if new else index)


def add_up(session, data, rows, nodes, edge):
    """(ln sum over nodes of p(x|z) N(z; 0, I), ln of its greatest term on the edge) of each row."""
    log_sum, log_edge = np.full((2, len(rows)), -np.inf)
    one = {name: session.array(f"one {name}", (1, x.shape[1])) for name, x in data.items()}
    for first in range(0, len(nodes), BLOCK):
        z = nodes[first : first + BLOCK]
        batch, outermost = session.batch(len(z)), abs(z).max(axis=1) == edge
        session.upload(z, session.view("z", batch.B))
        y = session.program.decode(session.task, batch)
        log_prior = -(z.shape[1] * np.log(2 * np.pi) + (z * z).sum(axis=1)) / 2
        for i, row in enumerate(rows):
            for name, values in data.items():
                session.upload(values[row : row + 1], one[name])
                session.tile(one[name], session.view(name, batch.B))
            session.program.likelihood(session.task, y, batch)
            log_joint = log_prior - session.download(session.view("nll", batch.B))
            log_sum[i] = np.logaddexp(log_sum[i], np.logaddexp.reduce(log_joint))
            log_edge[i] = max(log_edge[i], log_joint.max(initial=-np.inf, where=outermost))
    return log_sum, log_edge
