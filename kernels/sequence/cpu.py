"""Numba twins of sequence/reference.py.

Where x_d = 0 the hidden layer stays as it is, so a sigmoid is needed after each variable that is
set, not after each variable: eight times fewer for binarised digits. The variables between two that
are set share one h; below they are called a run.
"""

import numpy as np

from ..support.formulas import exp, log, sigmoid
from ..support.native import compiled

STRIP = 16  # variables at a time: their rows of V and W stay in the innermost cache
TILE = 512  # hidden units at a time: their columns of V, W and both gradients stay in cache


@compiled
def nade_logits(x, W, c, V, b, a, h, logits):
    B, D = x.shape
    zero = x.dtype.type(0)
    for i in range(B):
        row, hidden, bias = a[i], h[i], c[min(i, len(c) - 1)]
        for j in range(row.size):
            row[j] = bias[j]
        for j in range(row.size):
            hidden[j] = sigmoid(row[j])
    for begin in range(0, D, STRIP):
        end = min(begin + STRIP, D)
        for i in range(B):
            row, hidden, entries, target = a[i], h[i], x[i], logits[i]
            bias, d = b[min(i, len(b) - 1)], begin
            while d < end:
                last = d + 1  # the run is d <= e < last
                while last < end and entries[last - 1] == zero:
                    last += 1
                while d + 4 <= last:
                    v0, v1, v2, v3 = V[d], V[d + 1], V[d + 2], V[d + 3]
                    s0, s1, s2, s3 = zero, zero, zero, zero
                    for j in range(hidden.size):
                        s0 += v0[j] * hidden[j]
                        s1 += v1[j] * hidden[j]
                        s2 += v2[j] * hidden[j]
                        s3 += v3[j] * hidden[j]
                    target[d], target[d + 1] = bias[d] + s0, bias[d + 1] + s1
                    target[d + 2], target[d + 3] = bias[d + 2] + s2, bias[d + 3] + s3
                    d += 4
                while d < last:
                    v0, s0 = V[d], zero
                    for j in range(hidden.size):
                        s0 += v0[j] * hidden[j]
                    target[d] = bias[d] + s0
                    d += 1
                value = entries[last - 1]
                if value != zero:
                    w = W[last - 1]
                    for j in range(row.size):
                        row[j] += value * w[j]
                    for j in range(row.size):
                        hidden[j] = sigmoid(row[j])


@compiled
def nade_backward(x, dlogits, W, c, V, first, last, dW, dc, dV):
    # For each row once forth, which stores h of every run, and once back. A loop over hidden
    # units has few arrays: else the compiler gives up proving that they do not overlap.
    B, D = x.shape
    zero, one = x.dtype.type(0), x.dtype.type(1)
    states = np.empty((D, TILE), x.dtype)  # h of each run of the row at hand
    ends = np.empty(D + 1, np.int64)  # run r is ends[r] <= d < ends[r + 1]
    room = np.empty((3, TILE), x.dtype)
    for left in range(first, last, TILE):
        right = min(left + TILE, last)
        n = right - left
        a, after, dh = room[0][:n], room[1][:n], room[2][:n]
        if dc is not None:
            for i in range(len(dc)):
                dbias = dc[i][left:right]
                for j in range(n):
                    dbias[j] = zero
        if dW is not None:
            for d in range(D):
                dw, dv = dW[d][left:right], dV[d][left:right]
                for j in range(n):
                    dw[j] = zero
                    dv[j] = zero
        for i in range(B):
            entries, errors, bias = x[i], dlogits[i], c[min(i, len(c) - 1)][left:right]
            for j in range(n):
                a[j] = bias[j]
                after[j] = zero
            runs, ends[0] = 0, 0
            for d in range(D):
                value = entries[d]
                if value != zero or d == D - 1:
                    h, w = states[runs][:n], W[d][left:right]
                    for j in range(n):
                        h[j] = sigmoid(a[j])
                        a[j] += value * w[j]
                    runs += 1
                    ends[runs] = d + 1
            for run in range(runs - 1, -1, -1):
                h, begin, end = states[run][:n], ends[run], ends[run + 1]
                if dW is not None:
                    value, dw = entries[end - 1], dW[end - 1][left:right]
                    for j in range(n):  # `after` is the sum of da over all variables behind the run
                        dw[j] += value * after[j]
                for j in range(n):
                    dh[j] = zero
                d = begin
                while d + 4 <= end:
                    g0, g1, g2, g3 = errors[d], errors[d + 1], errors[d + 2], errors[d + 3]
                    v0, v1 = V[d][left:right], V[d + 1][left:right]
                    v2, v3 = V[d + 2][left:right], V[d + 3][left:right]
                    for j in range(n):
                        dh[j] += (g0 * v0[j] + g1 * v1[j]) + (g2 * v2[j] + g3 * v3[j])
                    d += 4
                while d < end:
                    g0, v0 = errors[d], V[d][left:right]
                    for j in range(n):
                        dh[j] += g0 * v0[j]
                    d += 1
                if dW is not None:
                    for d in range(begin, end):
                        g0, dv = errors[d], dV[d][left:right]
                        for j in range(n):
                            dv[j] += g0 * h[j]
                for j in range(n):
                    after[j] += dh[j] * h[j] * (one - h[j])
            if dc is not None:
                dbias = dc[min(i, len(dc) - 1)][left:right]
                for j in range(n):
                    dbias[j] += after[j]


@compiled
def nade_sample(u, W, c, V, b, a, h, x):
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for i in range(x.shape[0]):
        row, hidden = a[i], h[i]
        begin, bias = c[min(i, len(c) - 1)], b[min(i, len(b) - 1)]
        for j in range(row.size):
            row[j] = begin[j]
        for j in range(row.size):
            hidden[j] = sigmoid(row[j])
        for d in range(x.shape[1]):
            v, logit = V[d], zero
            for j in range(hidden.size):
                logit += v[j] * hidden[j]
            x[i, d] = one if u[i, d] < sigmoid(bias[d] + logit) else zero
            if x[i, d] != zero:
                w = W[d]
                for j in range(row.size):
                    row[j] += w[j]
                for j in range(row.size):
                    hidden[j] = sigmoid(row[j])


@compiled
def levels_nll(logits, x, levels, scale, nll, dlogits):
    real = logits.dtype.type
    zero, half, one, factor = real(0), real(0.5), real(1), real(scale)
    p = np.empty(levels, logits.dtype)
    for i in range(x.shape[0]):
        cost = zero
        for d in range(x.shape[1]):
            begin, end = d * levels, (d + 1) * levels
            row, k = logits[i, begin:end], int(x[i, d] * real(levels - 1) + half)
            top, total = row[0], zero
            for c in range(1, levels):
                top = max(top, row[c])
            drawn = row[k] - top
            for c in range(levels):
                p[c] = exp(row[c] - top)
            for c in range(levels):
                total += p[c]
            cost += log(total) - drawn
            if dlogits is not None:
                target, share = dlogits[i, begin:end], factor * (one / total)
                for c in range(levels):
                    target[c] = share * p[c]
                target[k] -= factor
        nll[i] = cost


@compiled
def levels_draw(logits, u, x):
    real, C = x.dtype.type, logits.shape[1]
    zero, one = real(0), real(1)
    p = np.empty(C, logits.dtype)
    for i in range(x.shape[0]):
        row = logits[i]
        top, total, below, drawn = row[0], zero, zero, zero
        for c in range(1, C):
            top = max(top, row[c])
        for c in range(C):
            p[c] = exp(row[c] - top)
        for c in range(C):
            total += p[c]
        for c in range(C - 1):
            below += p[c] / total
            drawn += one if below <= u[i, 0] else zero
        x[i, 0] = drawn / real(C - 1)


@compiled
def queue_taps(h, queue, t, taps):
    C, zero = h.shape[1], h.dtype.type(0)
    d = queue.shape[1] // C
    first = t % d * C
    for i in range(h.shape[0]):
        row, slot, target = h[i], queue[i, first : first + C], taps[i]
        for c in range(C):
            target[c] = slot[c] if t >= d else zero
        for c in range(C):
            target[C + c] = row[c]
            slot[c] = row[c]
