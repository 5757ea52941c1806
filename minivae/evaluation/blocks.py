"""Work on blocks of rows, by as many threads as the machine is worth.

Everything is done in blocks, so memory does not grow with the data. A value belongs to one row and
does not depend on how rows are grouped, nor on which thread computes it; with device="reference"
up to the rounding of NumPy's BLAS.
"""

from queue import SimpleQueue

from minivae.data.rows import blocks, watcher
from minivae.engine.threads import started


def for_blocks(session, n, work):
    """work(session, rows) for each block of n rows, a slice; the session given is this one, or one
    beside it in another thread."""
    cuts = list(blocks(n, max(1, len(session.rows))))
    workers = min(session.workers, len(cuts))
    owned = [session, *(session.beside() for _ in range(workers - 1))]
    for _ in spread(owned, cuts, work):
        pass


def spread(owned, cuts, work, stop=None):
    """(rows, work(own, rows)) of all slices `cuts`, in their order; `own` is one of `owned`, of
    which each thread has its own. A watcher sees the rows pass.

    stop: an Event for work that takes long, set when nobody waits for the rest any more.
    """
    n, tell, pool = cuts[-1].stop if cuts else 0, watcher(), _pool(len(owned))
    tell(0, n)
    if pool is None:
        for rows in cuts:
            yield rows, work(owned[0], rows)
            tell(rows.stop, n)
        return
    idle = SimpleQueue()
    for own in owned:
        idle.put(own)

    def one(rows):
        own = idle.get()
        try:
            return rows, work(own, rows)
        finally:
            idle.put(own)

    with pool:
        try:
            for rows, value in pool.map(one, cuts):
                yield rows, value
                tell(rows.stop, n)
        finally:
            if stop:
                stop.set()


def _pool(workers):
    """So many threads, or None for one, or where the system does not give more."""
    try:
        return started(workers) if workers > 1 else None
    except RuntimeError:
        return None
