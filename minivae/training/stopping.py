"""Which epoch was the best, and whether it is time to stop.

Both are functions of the history alone, so that a training that was interrupted decides as if it
had not been.
"""

import numpy as np


def held_out_scores(history, program):
    """The held-out score of each epoch: greater is better; none without held-out rows, or of a
    program that maximises nothing."""
    return history.get(f"valid_{program.SCORE[0]}", []) if program.SCORE else []


def best_epoch(scores):
    """The epoch, from 0, with the greatest score, the first of equals; None where no score is
    finite: a file keeps no others, so they cannot count."""
    scores = np.array(scores, float)
    finite = np.isfinite(scores)
    return int(np.where(finite, scores, -np.inf).argmax()) if finite.any() else None


def out_of_patience(scores, patience):
    """Whether so many epochs have come after the best one; patience None never ends."""
    if patience is None:
        return False
    best = best_epoch(scores)
    return len(scores) - (0 if best is None else best + 1) >= patience
