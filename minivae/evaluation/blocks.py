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
    size, tell = len(session.rows), watcher()
    workers = min(session.workers, -(-n // max(size, 1)))
    pool = _pool(workers)
    tell(0, n)
    if pool is None:
        for rows in blocks(n, size):
            work(session, rows)
            tell(rows.stop, n)
        return
    idle = SimpleQueue()
    for mine in [session, *(session.beside() for _ in range(workers - 1))]:
        idle.put(mine)

    def one(rows):
        mine = idle.get()
        try:
            work(mine, rows)
        finally:
            idle.put(mine)
        return rows

    with pool:
        for rows in pool.map(one, blocks(n, size)):
            tell(rows.stop, n)


def _pool(workers):
    """So many threads, or None for one, or where the system does not give more."""
    try:
        return started(workers) if workers > 1 else None
    except RuntimeError:
        return None
