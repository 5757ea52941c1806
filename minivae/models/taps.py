"""Taps of causal convolutions: which earlier positions of a row a position sees.

Whole numbers (D, T) as kernels/convolution/reference.py reads them: position taps[p, t] of the row,
or -1, outside. Positions are numbered in the order in which the model factorises p(x).
"""

import numpy as np


def image_taps(height, width, offsets):
    """Taps of a pixel at (i, j), numbered line by line: the pixels (i + di, j + dj) of offsets."""
    i, j = np.divmod(np.arange(height * width), width)
    di, dj = np.array(offsets, np.int64).reshape(-1, 2).T
    rows, columns = i[:, None] + di, j[:, None] + dj
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return np.where(inside, rows * width + columns, -1)


def inverse_taps(taps):
    """(D, T): whose tap t each position is, -1 where it is nobody's. It is one position's at most.

    What `scatter_taps` reads: the way back of a gradient.
    """
    inverse = np.full(taps.shape, -1)
    for t, seen in enumerate(taps.T):
        live = np.flatnonzero(seen >= 0)
        assert len(set(seen[live])) == len(live), "a tap sees a position from two others"
        inverse[seen[live], t] = live
    return inverse


def offsets(first_kernel, kernel, gated):
    """Of a PixelCNN: ((of layer 0, of the others) of the horizontal stack, the same of the vertical
    one)."""
    sides = first_kernel // 2, kernel // 2
    above = [[(i, j) for i in range(-n, 0) for j in range(-n, n + 1)] for n in sides]
    on_line = [[(0, j) for j in range(-n, n + 1)] for n in sides]
    left = on_line[0][: sides[0]], on_line[1][: sides[1] + 1]  # the pixel itself in the others
    if not gated:
        left = above[0] + left[0], above[1] + left[1]
    return left, (above[0], above[1] + on_line[1])
