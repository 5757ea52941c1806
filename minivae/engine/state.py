"""What training changes, which is all that a file keeps, and what is remembered of it."""

from dataclasses import dataclass, field

import numpy as np

BEST = "best."  # how the names of the best epoch's parameters begin
CARRIED = "carried."  # and those of regions whose rows persist


@dataclass
class State:
    """All that a step changes, and how far training has come."""

    theta: np.ndarray  # (P,) parameters
    moments: np.ndarray  # (2, P) of the optimiser
    totals: np.ndarray  # (n_terms,) sums over the rows of the pass that is not complete
    epochs: int = 0  # passes made over data
    steps: int = 0  # updates made: the number of the next one
    rows: int = 0  # of the pass that is not complete
    best: np.ndarray | None = None  # (P,) parameters of the best epoch, where training keeps them
    carried: dict = field(default_factory=dict)  # {region: rows (C, columns)} that persist

    @classmethod
    def new(cls, layout, seed, dtype):
        """Initial parameters, and the optimiser at rest."""
        theta = layout.initialise(seed, dtype)
        rows = {n: np.zeros((0, r.columns), dtype) for n, r in layout.carried.items()}
        moments, totals = np.zeros((2, theta.size), dtype), np.zeros(len(layout.terms))
        return cls(theta, moments, totals, carried=rows)

    @classmethod
    def unmade(cls, layout, dtype, best=False, carried=0):
        """The same in name and shape only: zeros that take no memory and cannot be written."""
        zero, P = np.zeros((), dtype), layout.n_parameters
        theta, moments = np.broadcast_to(zero, P), np.broadcast_to(zero, (2, P))
        rows = {n: np.broadcast_to(zero, (carried, r.columns)) for n, r in layout.carried.items()}
        return cls(theta, moments, zero, best=theta if best else None, carried=rows)

    def carry(self, rows):
        """Have at least so many rows of what persists; new ones are 0."""
        for name, old in self.carried.items():
            self.carried[name] = np.pad(old, ((0, max(0, rows - len(old))), (0, 0)))

    def begin_pass(self):
        """Forget the batches of a pass that is not complete."""
        self.rows = 0
        self.totals[:] = 0

    def arrays(self, layout):
        """{name: view} of all that a file keeps: parameters, the optimiser's moments, the best
        epoch's parameters, and rows that persist."""
        arrays = layout.named_views(self.theta)
        for slot, moment in enumerate(self.moments):
            views = layout.named_views(moment)
            arrays |= {f"optimizer.{slot}.{name}": view for name, view in views.items()}
        if self.best is not None:
            views = layout.named_views(self.best)
            arrays |= {f"{BEST}{name}": view for name, view in views.items()}
        return arrays | {f"{CARRIED}{name}": rows for name, rows in self.carried.items()}


@dataclass
class Record:
    """What is remembered of a training."""

    history: dict = field(default_factory=dict)  # name: one value per epoch
    data: dict = field(default_factory=dict)  # fingerprints of what `fit` was given
    settled: int | None = None  # passes that `fit` settled on, where it was given no number
    best: tuple = ()  # arrays and facts of the best epoch, while its file is still to be written
