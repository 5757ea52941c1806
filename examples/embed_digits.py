"""Are the codes of a VAE a good embedding? Digits, 10 numbers for each, and their neighbours.

    python embed_digits.py [PICTURE] [EPOCHS]

1,797 digits of 8 x 8 pixels, 70 % to learn from and 30 % to test on. A test digit gets the class of
most of its 5 nearest neighbours among the others: by all pixels, by 10 principal components, by the
means of q(z|x) of a VAE with 10 latents. With beta = 1 the price of a code, kl, drives out what
tells the classes apart, so beta is chosen too: by cross-validation on the 70 %.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

import minivae

Z, BETAS, SEEDS, FOLDS = 10, (0.03, 0.1, 0.3, 1.0), range(3), 3
EPOCHS = int(sys.argv[2]) if len(sys.argv) > 2 else 200

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)


def neighbours(*embedding):
    """A classifier by 5 nearest neighbours of what an embedding makes of X."""
    return make_pipeline(*embedding, KNeighborsClassifier(5))


def vae(beta=1.0, seed=0):
    return minivae.VAE(Z, beta=beta, epochs=EPOCHS, random_state=seed)


search = GridSearchCV(neighbours(vae()), {"vae__beta": BETAS}, cv=FOLDS, refit=False).fit(X, y)
chosen = search.best_params_["vae__beta"]
by_folds = search.cv_results_["mean_test_score"]
print(f"Accuracy of 5 nearest neighbours, mean of {FOLDS} folds of {len(y)} digits")
for beta, mean in zip(BETAS, by_folds, strict=True):
    print(f"    VAE, beta {beta:<8}{mean:.3f}{'  chosen' * (beta == chosen)}")

found = {"64 pixels": [neighbours()], f"PCA({Z})": [neighbours(PCA(Z, random_state=0))]}
found |= {f"VAE({Z}), beta {beta}": [neighbours(vae(beta, seed)) for seed in SEEDS]
          for beta in (1.0, chosen)}  # fmt: skip
print(f"\nthe same on {len(y_test)} test digits; of VAEs the mean of {len(SEEDS)} seeds")
accuracy = {}
for name, models in found.items():
    accuracy[name] = [model.fit(X, y).score(X_test, y_test) for model in models]
    print(f"    {name:18}{np.mean(accuracy[name]):.3f}")

figure = Figure(figsize=(9, 4), dpi=150, layout="constrained")
left, right = figure.subplots(1, 2)
left.semilogx(BETAS, by_folds, "o-", color="#332288", label="VAE, by cross-validation")
left.plot([chosen] * len(SEEDS), accuracy[name], "x", color="#CC6677", label="VAE chosen, test")
left.axhline(*accuracy["64 pixels"], color="0.35", linestyle=":", label="64 pixels, test")
left.axhline(*accuracy[f"PCA({Z})"], color="0.35", label=f"PCA({Z}), test")
left.set(xlabel="beta", ylabel="accuracy of 5 nearest neighbours")
left.legend(frameon=False)
codes = PCA(2, random_state=0).fit_transform(models[0][:-1].transform(X_test))
points = right.scatter(*codes.T, c=y_test, s=8, cmap="tab10", vmin=-0.5, vmax=9.5)
figure.colorbar(points, ticks=range(10))
right.set(xticks=[], yticks=[], title="Codes of test digits, two principal components")
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
path = Path(sys.argv[1] if len(sys.argv) > 1 else "embed_digits.png")
figure.savefig(path)
print(f"\nThe picture is in {path}.")
