"""Dense layers for any family: forward, backward, and one layer's part of the gradient."""

from minivae.engine.layout import Net, Region
from minivae.engine.task import matrix, parameter, region, share
from minivae.kernels.tables import reference as k

APART = ("forward", "backward")  # called for every net of a family, compiled once


def between(task, first, last):
    """The layers first <= i < last, each of which reads the one before, as a Net."""
    layer = task.layers[last - 1]
    y = Region(layer.y, layer.fan_out, layer.times)
    return Net(first, last, y, Region(layer.dy, layer.fan_out, layer.times))


def weight(layer, flat):
    """The layer's (H_in, H_out) part of a parameter-shaped buffer."""
    return parameter(flat, layer.weight, layer.fan_in, layer.fan_out)


def bias(layer, flat):
    """The layer's (H_out,) part of a parameter-shaped buffer."""
    return flat[layer.bias : layer.bias + layer.fan_out]


def read(work, start, layer, shard):
    """The shard's rows of the layer's input, or of the gradient by it: (rows * repeat, H_in)."""
    return matrix(work, shard, start, layer.fan_in, layer.times)


def written(work, start, layer, shard):
    """The shard's rows of the layer's output, or of the gradient by it: (rows * repeat, H_out)."""
    return matrix(work, shard, start, layer.fan_out, layer.times)


def forward(task, net, shard):
    """y = f(h W + b) through all layers of the net; the last output."""
    work = task.work
    for index in range(net.first, net.last):
        layer = task.layers[index]
        h, y = read(work, layer.h, layer, shard), written(work, layer.y, layer, shard)
        k.matmul(h, weight(layer, task.theta), y)
        k.bias_activation(y, bias(layer, task.theta), layer.activation)
    return region(work, net.y, shard)


def backward(task, net, shard):
    """After `forward`, given net.dy: the gradient by every layer's a = h W + b, in place of that by
    its output, and by the net's input where somebody asks for it.

    dL/da = dL/dy f'(a), and a layer's input gets dL/dh = dL/da W^T.
    """
    work = task.work
    for index in range(net.last - 1, net.first - 1, -1):
        layer = task.layers[index]
        y, dy = written(work, layer.y, layer, shard), written(work, layer.dy, layer, shard)
        k.activation_backward(dy, y, layer.activation)
        if layer.dh >= 0:
            k.matmul(dy, weight(layer, task.theta).T, read(work, layer.dh, layer, shard))


def block_gradient(task, index, batch, worker):
    """The worker's part of a layer's gradient over the batch: rows of dW = h^T da, and of db."""
    layer, work = task.layers[index], task.work
    h, da = read(work, layer.h, layer, batch), written(work, layer.dy, layer, batch)
    first, last = share(layer.fan_in, worker, task.workers)
    k.matmul(h[:, first:last].T, da, weight(layer, task.gradient)[first:last])
    first, last = share(layer.fan_out, worker, task.workers)
    k.sum_rows(da, first, bias(layer, task.gradient)[first:last])
