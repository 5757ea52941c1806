"""Pictures of a model and its training, each returned as a matplotlib Figure.

No pyplot and no global backend: save a result with ``figure.savefig(path)``. Grey images are
intensities, 0 black to 1 white, for digits and faces alike. A table is an array of numbers or a
frame, whose words are drawn too. Arguments that do not fit raise ValueError or TypeError before
anything is drawn.
"""

from minivae.app.plots.images import image_grid, manifold
from minivae.app.plots.latents import ACTIVE, latent_overview, latent_scatter
from minivae.app.plots.rows import compared, reconstructions, samples
from minivae.app.plots.style import COLOURS, spread
from minivae.app.plots.tables import correlations, imputed, marginals
from minivae.app.plots.training import learning_curve

__all__ = [
    "ACTIVE",
    "COLOURS",
    "compared",
    "correlations",
    "image_grid",
    "imputed",
    "latent_overview",
    "latent_scatter",
    "learning_curve",
    "manifold",
    "marginals",
    "reconstructions",
    "samples",
    "spread",
]
