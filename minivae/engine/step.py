"""The training step of every family, written once; machines differ only in the kernel table `k`.

Workers share a step in two halves, with one wait after each. First every worker takes some rows of
the batch: the family's `rows_pass`, forward, and backward down to the gradient by each layer's
a = h W + b. Then it takes some rows or columns of every block of parameters: their gradient over
the whole batch (the family's `block_gradient`), and their update, while the gradient is in cache.
So no gradient is ever added up across workers, and compiled results have the same bits for any
number of them.
"""

from minivae.engine.task import Shard, region, share, terms
from minivae.kernels import ADAGRAD, ADAM, SGD
from minivae.kernels.tables import reference as k

APART = ("bring", "put_back")  # compiled once for each type of what is carried
program = None  # the family's module: `bind` puts it here, as it puts a table behind k


def train(task, order, first_step, worker):
    """Train on the rows `order` of the data, batch after batch, as one of the task's workers.

    Returns how many steps were made: fewer than there are batches where a term of the loss is not
    finite; the batch that gave it has changed nothing.
    """
    step = first_step
    for start in range(0, order.size, task.recipe.batch_size):
        if not train_step(task, order[start : start + task.recipe.batch_size], step, worker):
            break
        step += 1
    return step - first_step


def train_step(task, rows, step, worker):
    """One step on the batch `rows` of the data; False, and nothing changed, where its loss is not
    finite."""
    B = rows.size
    first, last = share(B, worker, task.workers)
    shard = Shard(B, first, last)
    bring(task.work, task.carried, shard)
    program.load(task, rows[first:last], shard, step)
    program.rows_pass(task, shard)
    k.join(task.barrier, task.workers)

    if not k.all_finite(terms(task, B)):
        return False
    put_back(task.work, task.carried, shard)
    batch = Shard(B, 0, B)
    for block in range(task.blocks.size):
        program.block_gradient(task, block, batch, worker)
        update_block(task, block, step, worker)
    if worker == 0:
        k.add_terms(terms(task, B), task.totals)
    k.join(task.barrier, task.workers)
    return True


def bring(work, carried, shard):
    """The shard's carried rows into the workspace, where `load` finds them."""
    if carried is not None:
        for place, rows in carried:  # once each; `copy` would not, after a loss that is not finite
            k.repeat_rows(rows[shard.first : shard.last], region(work, place, shard))


def put_back(work, carried, shard):
    """The shard's carried rows as the step leaves them, to where the next one finds them."""
    if carried is not None:
        for place, rows in carried:
            k.copy(region(work, place, shard), rows[shard.first : shard.last])


def update_block(task, block, step, worker):
    """Update what the worker has computed of a block's gradient."""
    whole, workers = task.blocks[block], task.workers
    rate = task.recipe.learning_rate * int(whole.pace)  # a NumPy number would be of its own dtype
    pieces = 1 if workers == 1 else whole.last - whole.first
    for index in range(whole.first, whole.first + pieces):
        begin, end, lines, stride = whole.begin, whole.end, 1, 0  # alone: all pieces in one pass
        if workers > 1:
            piece = task.pieces[index]
            columns, rows = piece.columns, (piece.end - piece.begin) // piece.columns
            if piece.by_columns:
                left, right = share(columns, worker, workers)
                begin, end, lines, stride = piece.begin + left, piece.begin + right, rows, columns
            else:
                upper, lower = share(rows, worker, workers)
                begin, end = piece.begin + upper * columns, piece.begin + lower * columns
        for line in range(lines):
            update(task, step, rate, begin + line * stride, end + line * stride)


def update(task, step, rate, begin, end):
    """Step 0, 1, ... of the optimiser on the parameters begin <= i < end."""
    recipe = task.recipe
    theta, gradient = task.theta[begin:end], task.gradient[begin:end]
    first, second = task.moments[0, begin:end], task.moments[1, begin:end]
    decay = recipe.weight_decay
    if recipe.optimizer == ADAM:
        k.adam(theta, gradient, first, second, step + 1, rate,
               recipe.beta1, recipe.beta2, recipe.epsilon, decay)  # fmt: skip
    elif recipe.optimizer == ADAGRAD:
        k.adagrad(theta, gradient, first, rate, decay, recipe.epsilon)
    else:
        assert recipe.optimizer == SGD
        k.sgd(theta, gradient, first, rate, recipe.momentum, decay)


def loss_and_gradient(task, batch):
    """The terms of each row, and the gradient of the mean loss, for what `load` has put into the
    workspace: no data, no noise, no update."""
    program.rows_pass(task, batch)
    for block in range(task.blocks.size):
        program.block_gradient(task, block, batch, 0)
