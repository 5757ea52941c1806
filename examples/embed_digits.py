"""Are the codes of a VAE a good embedding? Digits, 10 numbers for each, and their neighbours.

    python embed_digits.py [PICTURE] [EPOCHS]

1,797 digits of 8 x 8 pixels, 70 % to learn from and 30 % to test on. A test digit gets the class of
most of its 5 nearest neighbours among the others: by all pixels, by 10 principal components, by the
means of q(z|x) of a VAE with 10 latents. With beta = 1 the price of a code, kl, drives out what
tells the classes apart, so beta is chosen too: by cross-validation on the 70 %.

On 2026-11-25, test accuracy: pixels 0.981, components 0.972, a VAE with beta = 1 0.952, and with
the beta that was chosen, 0.03, 0.983. By cross-validation that VAE was level with the components,
0.970 and 0.971; the standard error of either is 0.005.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
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


PIXELS, COMPONENTS = neighbours(), neighbours(PCA(Z, random_state=0))
search = GridSearchCV(neighbours(vae()), {"vae__beta": BETAS}, cv=FOLDS, refit=False).fit(X, y)
chosen = search.best_params_["vae__beta"]
by_folds = search.cv_results_["mean_test_score"]
lines = {
    f"{X.shape[1]} pixels": cross_val_score(PIXELS, X, y, cv=FOLDS).mean(),
    f"{Z} components": cross_val_score(COMPONENTS, X, y, cv=FOLDS).mean(),
}
print(f"Accuracy of 5 nearest neighbours, mean of {FOLDS} folds of {len(y)} digits")
for name, mean in lines.items():
    print(f"    {name:20}{mean:.3f}")
for beta, mean in zip(BETAS, by_folds, strict=True):
    print(f"    {f'VAE, beta {beta}':20}{mean:.3f}{'  chosen' * (beta == chosen)}")

models = dict(zip(lines, ([PIXELS], [COMPONENTS]), strict=True))
models |= {f"VAE, beta {beta}": [neighbours(vae(beta, seed)) for seed in SEEDS]
           for beta in (1.0, chosen)}  # fmt: skip
print(f"\nThe same on {len(y_test)} test digits; of VAEs the mean of {len(SEEDS)} seeds")
accuracy = {}
for name, some in models.items():
    accuracy[name] = [model.fit(X, y).score(X_test, y_test) for model in some]
    print(f"    {name:20}{np.mean(accuracy[name]):.3f}")

figure = Figure(figsize=(9, 4), dpi=150, layout="constrained")
left, right = figure.subplots(1, 2)
left.semilogx(BETAS, by_folds, "o-", color="#332288", label="means of a VAE")
for (name, mean), style in zip(lines.items(), (":", "--"), strict=True):
    left.axhline(mean, color="0.35", linestyle=style, label=name)
left.set(xlabel="beta", ylabel="accuracy of 5 nearest neighbours", title="By cross-validation")
left.legend(frameon=False)
left.spines[["top", "right"]].set_visible(False)
codes = PCA(2, random_state=0).fit_transform(some[0][:-1].transform(X_test))
points = right.scatter(*codes.T, c=y_test, s=8, cmap="tab10", vmin=-0.5, vmax=9.5)
figure.colorbar(points, ticks=range(10))
right.set(xticks=[], yticks=[], title="Codes of test digits, two principal components")
path = Path(sys.argv[1] if len(sys.argv) > 1 else "embed_digits.png")
figure.savefig(path)
print(f"\nThe picture is in {path}.")
