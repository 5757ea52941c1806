"""CUDA twins of batch/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import blocks, common_shape


def gather(on, data, rows, x, observed):
    n, D = common_shape(x=x, observed=observed)
    if rows.size != n or data.shape[1] != D:
        raise ValueError(f"x has shape {x.shape}, expected {(rows.size, data.shape[1])}")
    on.launch("gather", x.dtype, (n, blocks(D)), data, *on.rows(rows), x, observed, D)


def encoder_input(on, x, observed, groups, units, h):
    B, D = common_shape(x=x, observed=observed)
    width = D if observed is None else 2 * D
    if h.shape != (B, width):
        raise ValueError(f"h has shape {h.shape}, expected {(B, width)}")
    n_groups = 0 if groups is None else len(groups)
    on.launch("encoder_input", x.dtype, (B, 1), x, observed, groups, units, h, n_groups, D)


def copy(on, source, target):
    if source.size != target.size:
        raise ValueError(f"source has {source.size} entries, target {target.size}")
    on.launch("copy", target.dtype, (blocks(target.size), 1),
              source, target, on.counters, target.size)  # fmt: skip


def repeat_rows(on, rows, repeated):
    (B, D), draws = rows.shape, len(repeated)
    on.launch("repeat_rows", rows.dtype, (draws, blocks(D)), rows, repeated, draws // max(B, 1), D)


def scale_rows(on, factors, rows):
    n, D = rows.shape
    on.launch("scale_rows", rows.dtype, (n, blocks(D)), factors, rows, D)


def mean_of_draws(on, values, mean):
    draws = values.size // max(mean.size, 1)
    on.launch("mean_of_draws", mean.dtype, (blocks(mean.size), 1), values, mean, draws, mean.size)


def all_finite(on, values):
    flags = on.flags()
    on.launch("all_finite", values.dtype, (blocks(values.size), 1), values, flags, values.size)
    return on.passed(flags)


def add_terms(on, terms, totals):
    n_terms, B = terms.shape
    on.launch("add_terms", terms.dtype, (n_terms, 1), terms, on.counters, totals, B)


def join(on, barrier, workers):
    """A device has one worker: its kernels run one after the other."""
    assert workers == 1
