"""Posterior collapse: which latents a model uses, and whether its codes lie where the prior does.

From the heads mu and logvar of q(z|x) for many rows x, for each latent z_j:

    active      Var_x E_q[z_j] > 0.01: its mean moves with x (Burda, Grosse, Salakhutdinov 2015)
    kl          the mean over rows of KL(q(z_j|x) || N(0, 1)), in nats
    mean, variance
                of the aggregated posterior, q(z_j|x) mixed over all rows: E[mu], and by the law of
                total variance E[exp(logvar)] + Var[mu]; the prior has 0 and 1
    mismatch    KL of a Gaussian with these moments from the prior, (m^2 + v - ln v - 1) / 2 nats:
                large where draws from the prior are no codes that the decoder was trained on
"""

from dataclasses import dataclass

import numpy as np

from minivae.evaluation.importance import kl_per_latent
from minivae.kernels import LOGVAR_BOUND

ACTIVE = 0.01  # variance of a mean over rows above which a latent counts as active
SHOWN = 20  # latents of a table


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found, an array (Z,) each; made to be printed."""

    active: np.ndarray  # bool
    kl: np.ndarray
    spread: np.ndarray  # Var_x E_q[z_j]
    mean: np.ndarray
    variance: np.ndarray
    mismatch: np.ndarray
    advice: str  # in a sentence or two; empty where all latents are active

    @property
    def n_active(self):
        return int(np.count_nonzero(self.active))

    def __str__(self):
        Z, order = len(self.kl), np.argsort(-self.kl, kind="stable")
        rows = [("latent", "active", "KL", "Var of mean", "mean", "variance", "KL of moments")]
        for j in order[:SHOWN]:
            numbers = self.kl, self.spread, self.mean, self.variance, self.mismatch
            cells = (f"{values[j]:.4g}" for values in numbers)
            rows.append((f"z{j + 1}", "yes" if self.active[j] else "no", *cells))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        if Z > SHOWN:
            rest = order[SHOWN:]
            lines.append(f"and {len(rest)} of less KL, {self.active[rest].sum()} of them active")
        lines.append(f"{self.n_active} of {Z} latents active; KL {self.kl.sum():.4g} nats per row")
        return "\n".join(lines + [self.advice] * bool(self.advice))


def diagnose(mu, logvar, settings):
    """The Diagnosis of heads mu, logvar (n, Z) of n rows; settings: {name: value} of the model, of
    which the advice names those that there are.

    ValueError for a single row, which has no variance.
    """
    if len(mu) < 2:
        raise ValueError("X has 1 row; whether latents differ between rows needs 2 or more")
    mu, logvar = np.asarray(mu, np.float64), np.asarray(logvar, np.float64)
    spread, mean = mu.var(axis=0), mu.mean(axis=0)
    held = np.clip(logvar, -LOGVAR_BOUND, LOGVAR_BOUND)
    variance = np.exp(held).mean(axis=0) + spread
    mismatch = (mean**2 + variance - np.log(variance) - 1) / 2
    active = spread > ACTIVE
    return Diagnosis(active, kl_per_latent(mu, logvar), spread, mean, variance, mismatch,
                     _advice(active, settings))  # fmt: skip


def _advice(active, settings):
    """What has happened, and what could be tried."""
    Z, n = active.size, int(np.count_nonzero(active))
    if n == Z:
        return ""
    tries = ["more epochs"]
    if settings.get("likelihood") == "gaussian":
        tries.append("columns scaled to standard deviation 1")
    tries.append("a smaller beta")
    tries += [name for name in ("beta_warmup", "free_bits") if not settings.get(name, True)]
    try_these = f"{', '.join(tries[:-1])} or {tries[-1]}"
    if n == 0:
        return f"No latent is active: the decoder does without z. Try {try_these}."
    return (
        f"{Z - n} of {Z} latents say nothing about x: latent_dim={n} would do as well. To use more "
        f"of them, try {try_these}."
    )
