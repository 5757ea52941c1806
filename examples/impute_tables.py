"""Missing values of three tables that come with scikit-learn, filled in by four imputers.

    python impute_tables.py [PICTURE] [SEEDS] [TABLE ...]

Of (breast) cancer, wine and diabetes, standardised, each value is hidden with probability 10, 30 or
50 %. All imputers see the same holes, of so many seeds (5). The number is the root mean square
error of the hidden values, in standard deviations of their columns: 1 is what filling in the true
mean of each column would give. All imputers are as they come. Errors on 2026-11-25:

    share hidden         mean   KNNImputer   IterativeImputer   VAEImputer
    cancer    10 %      1.002        0.549              0.347        0.398
    cancer    50 %      1.015        0.748              0.569        0.520
    wine      10 %      1.001        0.727              0.727        0.712
    wine      50 %      1.006        0.901              0.887        0.795
    diabetes  10 %      1.004        0.802              0.662        0.718
    diabetes  50 %      1.008        0.997              0.893        0.849
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.preprocessing import StandardScaler

import minivae

TABLES = {"cancer": load_breast_cancer, "wine": load_wine, "diabetes": load_diabetes}
TABLES = {name: TABLES[name] for name in sys.argv[3:] or TABLES}
SHARES = (0.1, 0.3, 0.5)
SEEDS = range(int(sys.argv[2]) if len(sys.argv) > 2 else 5)
IMPUTERS = {
    "mean": lambda seed: SimpleImputer(),
    "KNNImputer": lambda seed: KNNImputer(),
    "IterativeImputer": lambda seed: IterativeImputer(random_state=seed),
    "VAEImputer": lambda seed: minivae.VAEImputer(random_state=seed),
}
COLOURS = ("0.6", "#DDCC77", "#CC6677", "#332288")


def error(X, share, make, seed):
    """Root mean square error of one imputer on what the seed hides of X."""
    hidden = np.random.default_rng(seed).random(X.shape) < share
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        filled = make(seed).fit_transform(np.where(hidden, np.nan, X))
    return np.sqrt(np.mean((filled - X)[hidden] ** 2))


print(f"Error of hidden values, standardised: mean and spread over {len(SEEDS)} seeds\n")
print(f"{'':18}" + "".join(f"{name:>19}" for name in IMPUTERS))
errors = {}  # {table: (shares, imputers, seeds)}
for table, load in TABLES.items():
    X = StandardScaler().fit_transform(load().data)
    errors[table] = np.empty((len(SHARES), len(IMPUTERS), len(SEEDS)))
    for row, share in zip(errors[table], SHARES, strict=True):
        for found, make in zip(row, IMPUTERS.values(), strict=True):
            found[:] = [error(X, share, make, seed) for seed in SEEDS]
        cells = (f"{found.mean():.3f} +- {found.std():.3f}" for found in row)
        print(f"{table:12}{share:4.0%}  " + "".join(f"{cell:>19}" for cell in cells), flush=True)

figure = Figure(figsize=(9, 3.4), dpi=150, layout="constrained")
panels = figure.subplots(1, len(TABLES), sharey=True, squeeze=False)[0]
for axes, (table, found) in zip(panels, errors.items(), strict=True):
    for j, (name, colour) in enumerate(zip(IMPUTERS, COLOURS, strict=True)):
        axes.plot(SHARES, found[:, j], ".", color=colour, alpha=0.4)
        axes.plot(SHARES, found[:, j].mean(axis=1), color=colour, label=name)
    axes.set(title=table, xlabel="share of values hidden", xticks=SHARES)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
figure.axes[0].set(ylabel="error, standard deviations", ylim=0)
figure.axes[0].legend(frameon=False, loc="lower right")
path = Path(sys.argv[1] if len(sys.argv) > 1 else "impute_tables.png")
figure.savefig(path)
print(f"\nThe picture is in {path}: each dot is a seed.")
