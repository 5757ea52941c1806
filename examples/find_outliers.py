"""Rows whose columns do not belong together: each value is usual, and only together they are not.

    python find_outliers.py [PICTURE] [SEEDS]

Breast cancer, 569 rows of 30 measurements, which are correlated. In a tenth of the rows each
column's values are permuted among these rows, so no column's values change. All detectors are
fitted on all rows, outliers too, without a label. The number is the area under the ROC curve (AUC):
how often an outlier gets a worse score than another row. 0.5 is chance. On 2026-11-25:
IsolationForest 0.760, PCA 0.982, FactorAnalysis 0.987, VAEOutlierDetector 0.998.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.preprocessing import StandardScaler

import minivae

SHARE, Z = 0.1, 10
SEEDS = range(int(sys.argv[2]) if len(sys.argv) > 2 else 5)
DETECTORS = {
    "IsolationForest": lambda seed: IsolationForest(random_state=seed),
    "PCA": lambda seed: PCA(Z),
    "FactorAnalysis": lambda seed: FactorAnalysis(Z),
    "VAEOutlierDetector": lambda seed: minivae.VAEOutlierDetector(random_state=seed),
}


def broken(seed):
    """(breast cancer, standardised, with some rows' columns permuted; which rows these are)."""
    rng = np.random.default_rng(seed)
    X = StandardScaler().fit_transform(load_breast_cancer().data)
    is_outlier = np.zeros(len(X), bool)
    is_outlier[rng.choice(len(X), int(SHARE * len(X)), replace=False)] = True
    X[is_outlier] = rng.permuted(X[is_outlier], axis=0)
    return X, is_outlier


scores = {name: [] for name in DETECTORS}
truth = []
for seed in SEEDS:
    X, is_outlier = broken(seed)
    truth.append(is_outlier)
    for name, make in DETECTORS.items():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "FactorAnalysis did not converge")
            scores[name].append(-make(seed).fit(X).score_samples(X))

print(f"AUC of rows with broken correlations, mean and spread over {len(SEEDS)} seeds\n")
auc = {}
for name, found in scores.items():
    auc[name] = [roc_auc_score(*pair) for pair in zip(truth, found, strict=True)]
    print(f"{name:20}{np.mean(auc[name]):8.3f} +- {np.std(auc[name]):.3f}")

figure = Figure(figsize=(8, 4), dpi=150, layout="constrained")
left, right = figure.subplots(1, 2)
for (name, found), colour in zip(
    scores.items(), ("#DDCC77", "#88CCEE", "#CC6677", "#332288"), strict=True
):
    left.plot(*roc_curve(truth[0], found[0])[:2], color=colour, label=name)
left.set(xlabel="share of other rows that are called outliers", ylabel="share of outliers found",
         title="ROC curves, first seed")  # fmt: skip
left.legend(frameon=False)
log_p = -scores["VAEOutlierDetector"][0]
bins = np.linspace(*np.percentile(log_p, (1, 100)), 50)
for rows, colour, name in (
    (~truth[0], "#332288", "as measured"), (truth[0], "#CC6677", "columns permuted"),
):  # fmt: skip
    right.hist(log_p[rows].clip(bins[0]), bins, color=colour, alpha=0.6, label=name)
right.set(xlabel="ln p(x) under the VAE, nats", ylabel="rows", title="What the VAE says")
right.legend(frameon=False)
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
path = Path(sys.argv[1] if len(sys.argv) > 1 else "find_outliers.png")
figure.savefig(path)
print(f"\nThe picture is in {path}.")
