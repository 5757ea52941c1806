"""The optimisers, and what others must know of each."""

from typing import NamedTuple


class Facts(NamedTuple):
    """What an optimiser keeps beside the parameters."""

    epsilon: float  # added to the square root that it divides by, as in PyTorch
    square: int | None  # which of its moments is a sum of squares, so never negative


FACTS = {
    "sgd": Facts(0.0, None),
    "adagrad": Facts(1e-10, 0),
    "adam": Facts(1e-8, 1),
}
