"""What training changes, which is all that a file keeps, and what is remembered of it."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class State:
    """All that a step changes, and how far training has come."""

    theta: np.ndarray  # (P,) parameters
    moments: np.ndarray  # (2, P) of the optimiser
    totals: np.ndarray  # (n_terms,) sums over the rows of the pass that is not complete
    epochs: int = 0  # passes made over data
    steps: int = 0  # updates made: the number of the next one
    rows: int = 0  # of the pass that is not complete

    @classmethod
    def new(cls, layout, seed, dtype):
        """Initial parameters, and the optimiser at rest."""
        theta = layout.initialise(seed, dtype)
        return cls(theta, np.zeros((2, theta.size), dtype), np.zeros(len(layout.terms)))

    @classmethod
    def unmade(cls, layout, dtype):
        """The same in name and shape only: zeros that take no memory and cannot be written."""
        zero, P = np.zeros((), dtype), layout.n_parameters
        return cls(np.broadcast_to(zero, P), np.broadcast_to(zero, (2, P)), zero)

    def begin_pass(self):
        """Forget the batches of a pass that is not complete."""
        self.rows = 0
        self.totals[:] = 0

    def arrays(self, layout):
        """{name: view} of all that a file keeps: parameters and the optimiser's moments."""
        arrays = layout.named_views(self.theta)
        for slot, moment in enumerate(self.moments):
            views = layout.named_views(moment)
            arrays |= {f"optimizer.{slot}.{name}": view for name, view in views.items()}
        return arrays


@dataclass
class Record:
    """What is remembered of a training."""

    history: dict = field(default_factory=dict)  # name: one value per epoch
    data: dict = field(default_factory=dict)  # fingerprints of what `fit` was given
    best: tuple = ()  # arrays and facts of the best epoch, while its file is still to be written
