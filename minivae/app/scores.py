"""How well a model explains data: the lines of `minivae score`.

No line knows a family by name: what a model can be asked is what it has methods for.
"""

import math

import numpy as np

CLEAR = 2.0  # standard errors of a mean difference that are no accident


def of_run(model, held_out):
    """A line on what `held_out_score` gave, or on why it gave nothing."""
    if held_out is None:
        return f"no held-out score: nothing is maximised by a {model.program.NAME}; see its samples"
    values, how = held_out
    return f"held-out {model.program.SCORE[1]} {mean_text(values)} nats per row ({how})"


def of_rows(model, X, n_samples):
    """{name: nats of each row of X (n,)}: elbo where the model has one, and log_likelihood.

    n_samples: posterior draws for each row, for a model that has an ELBO.
    """
    if not hasattr(model, "elbo"):
        return {"log_likelihood": model.score_samples(X)}
    return {
        "elbo": model.elbo(X, n_samples=n_samples, random_state=0),
        "log_likelihood": model.score_samples(X, n_samples=n_samples),
    }


def lines(model, X, values, ais_rows):
    """Lines on ln p(x), the ELBO and AIS of the rows of X, as far as the model has them, and a
    sentence on each pair that disagrees. values: of `of_rows`. AIS is for the first ais_rows rows
    alone, as it is slow.
    """
    exact = values["log_likelihood"]
    kind = {"lower bound": "importance-weighted estimate"}.get(model.score_kind, model.score_kind)
    found = [_line("log-likelihood", exact, X.shape[1], f"{kind}; ")]
    said = []
    if "elbo" in values:
        elbo = values["elbo"]
        found.append(_line("ELBO", elbo, X.shape[1]))
        said.append(_compare(
            exact - elbo, "the ELBO", "below", f"the {kind}",
            "q(z|x) is not the posterior, so the bound is loose"
        ))  # fmt: skip
    if ais_rows:
        annealed, error = model.ais(X[:ais_rows], random_state=0)
        n = f"the first {len(annealed)} rows" if len(annealed) < len(X) else "all rows"
        chains = np.sqrt(np.square(error).sum()) / len(error)
        found.append(_line("AIS", annealed, X.shape[1], f"{n}, +- {chains:.2f} by its chains; "))
        gap = annealed - exact[:ais_rows]
        said.append(_compare(
            gap, "AIS", "above", f"the {kind} of its rows",
            "more draws (--n-samples) would raise that"
        ))  # fmt: skip
        said.append(_compare(
            -gap, "AIS", "below", f"the {kind} of its rows",
            "its chains have not come to the posterior, so the other one is nearer to ln p(x)"
        ))  # fmt: skip
    return found + [line for line in said if line]


def mean_text(values):
    """Mean and standard error."""
    return f"{np.mean(values):.2f} +- {standard_error(values):.2f}"


def _line(name, values, D, how=""):
    """Mean and standard error of nats, and -ln p / (D ln 2): bits that a code needs for each of D
    features."""
    bits = -np.mean(values) / (D * math.log(2))
    return f"{name:15} {mean_text(values)}  ({how}{bits:.3f} bits per dimension)"


def _compare(gap, one, where, other, why):
    """A sentence where the mean of a gap (n,) is clearly above 0; the errors of pairs that have
    their rows in common largely cancel in it."""
    if not np.mean(gap) > CLEAR * standard_error(gap):  # NaN for one row
        return ""
    return f"{one} is {mean_text(gap)} nats {where} {other}: {why}"


def standard_error(values):
    return np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
