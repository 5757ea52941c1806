"""Where everything lies: a model's parameters, and what one of its steps writes.

A family declares both by name, once, in its `make_plan`. Each declaration answers with a place, in
whole numbers that compiled code can read; names, shapes and initial values stay here.
"""

import importlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minivae.kernels import STREAM_WEIGHTS
from minivae.kernels.tables import reference


class Region(NamedTuple):
    """The place of a (B * repeat, columns) matrix in the workspace of a batch of B rows."""

    start: int  # how many numbers per row of the batch lie before it
    columns: int
    repeat: int = 1  # rows of the matrix per row of the batch: samples, time steps, pixels

    def side_by_side(self):
        """The same memory as (B, repeat * columns): the rows of a batch row beside each other."""
        return Region(self.start, self.repeat * self.columns)


class Net(NamedTuple):
    """Dense layers one after the other: layers first <= i < last of the model."""

    first: int
    last: int
    y: Region  # the output of the last one
    dy: Region  # and the gradient by it


# What compiled code reads are arrays of records, one array for each kind, since every array in a
# Task costs the compiler dearly. An entry reads `layers[index].fan_in`.
#
# A dense layer: its sizes; the code of its activation; where its weight (H_in, H_out) and, right
# behind, its bias (H_out,) begin among the parameters; where its input h, its output y and the
# gradients by them begin in the workspace, as Region.start says it (dh -1: nobody asks for it), and
# how many rows these have per row of the batch.
LAYER = "fan_in fan_out activation weight bias h dh y dy times"
# A block is some parameters, one behind the other, whose gradients are computed together: those of
# a dense layer, or (layer -1) others, and updated with so many times the learning rate (pace). The
# second half of a step shares out each of its pieces, first <= piece < last: matrices, by rows or
# by columns.
BLOCK = "begin end first last layer pace"
PIECE = "begin end columns by_columns"


def records(fields, rows):
    """An array with one record of whole numbers for each row."""
    names = fields.split()
    assert not set(names) & set(dir(np.recarray)), "NumPy would find its own method of that name"
    dtype = np.dtype([(name, np.int64) for name in names])
    return np.array([tuple(row) for row in rows], dtype).view(np.recarray)


@dataclass(frozen=True)
class Slot:
    """The place of a parameter: columns left <= j < right of a piece, which is (rows, columns) or
    (columns,)."""

    begin: int
    shape: tuple  # of the piece
    left: int
    right: int
    glorot: bool

    def view(self, flat):
        """The parameter in a buffer (P,)."""
        size = int(np.prod(self.shape))
        return flat[self.begin : self.begin + size].reshape(self.shape)[..., self.left : self.right]


class Layout:
    """Names and places of a family's model for data of so many features.

    program is the family's module, settings are the arguments of its `make_plan`. The terms of the
    loss come first in the workspace, in a region of one column each.
    """

    def __init__(self, program, n_features, **settings):
        self.program, self.n_features, self.settings = program, n_features, settings
        self.slots, self.regions, self.carried = {}, {}, {}
        self.n_parameters = self.width = 0  # P, and numbers per row of a workspace
        self._layers, self._blocks, self._pieces, self._constants = [], [], [], []
        self.terms = program.TERMS
        for name in self.terms:
            self.region(name, 1)
        self.plan = program.make_plan(self, n_features, **settings)
        clash = self.regions.keys() & {f"d{name}" for name in self.slots}
        assert not clash, f"regions called as gradients are: {clash}"

    def __reduce__(self):
        """Pickled and copied as what it was made of, with the module by its name."""
        return _again, (self.program.__name__, self.n_features, self.settings)

    # --- what a family declares -----------------------------------------------------------------

    def term(self, name):
        """One more term of the loss, which only some settings have; before any other region."""
        assert len(self.regions) == len(self.terms), "terms come first"
        self.terms += (name,)
        return self.region(name, 1)

    def region(self, name, columns, repeat=1):
        """A new matrix (B * repeat, columns) of the workspace."""
        assert name not in self.regions, f"two regions called {name!r}"
        self.regions[name] = Region(self.width, columns, repeat)
        self.width += columns * repeat
        return self.regions[name]

    def carry(self, name, columns):
        """A new region (B, columns) whose rows persist, such as Markov chains: row i begins a step
        as row i of a step before left it, if the loss was finite there, or as 0."""
        self.carried[name] = self.region(name, columns)
        return self.carried[name]

    def block(self, *pieces, layer=-1, pace=1):
        """A new block: (name, shape, by_columns, glorot) of each piece; where each begins.

        A piece may hold several parameters side by side: {name: columns, ...} instead of a name.
        glorot: drawn at random at first, else 0; or the names among them that are.
        pace: a whole number, of learning rates of the recipe by which the block is updated.
        """
        begin, first = self.n_parameters, len(self._pieces)
        places = [self._piece(*piece) for piece in pieces]
        self._blocks.append((begin, self.n_parameters, first, len(self._pieces), layer, pace))
        return places

    def _piece(self, names, shape, by_columns=False, glorot=()):
        begin, left = self.n_parameters, 0
        names = {names: shape[-1]} if isinstance(names, str) else names
        for name, columns in names.items():
            drawn = name in glorot if isinstance(glorot, tuple) else glorot
            self.slots[name] = Slot(begin, shape, left, left + columns, drawn)
            left += columns
        assert left == shape[-1]
        self.n_parameters += int(np.prod(shape))
        columns = shape[-1] if len(shape) > 1 else 1
        self._pieces.append((begin, self.n_parameters, columns, by_columns))
        return begin

    def dense(self, name, h, dh, hidden, heads, activation, last_activation, zero=(), pace=1):
        """A Net that reads h: layers of the sizes `hidden`, and a last one of {head: columns, ...}.

        dh: where the gradient by h goes, or None. Hidden layers are called name.0, name.1, ...; the
        heads lie side by side in one layer, and those in `zero` begin with weights of 0. pace: of
        every block.
        """
        first, hidden = len(self._layers), list(hidden)
        stack = [{f"{name}.{i}": columns} for i, columns in enumerate(hidden)] + [heads]
        for i, names in enumerate(stack):
            fan_out = sum(names.values())
            drawn = tuple(f"{n}.weight" for n in names if n not in zero)
            weight, bias = self.block(
                ({f"{n}.weight": c for n, c in names.items()}, (h.columns, fan_out), False, drawn),
                ({f"{n}.bias": c for n, c in names.items()}, (fan_out,)),
                layer=len(self._layers), pace=pace,
            )  # fmt: skip
            for n in names:  # weight, bias, weight, bias: the order in which they are drawn
                for part in ("weight", "bias"):
                    self.slots[f"{n}.{part}"] = self.slots.pop(f"{n}.{part}")
            code = activation if i < len(hidden) else last_activation
            h, dh = self._layer("+".join(names), h, dh, fan_out, code, weight, bias)
        return Net(first, len(self._layers), h, dh)

    def reuse(self, name, net, h, dh):
        """A Net of the parameters of `net` that reads another h, with outputs and gradients by them
        of its own, called name.0, name.1, ...; it has no blocks: the parameters get no gradient of
        what it computes, which goes to dh alone."""
        first = len(self._layers)
        for i, layer in enumerate(self._layers[net.first : net.last]):
            h, dh = self._layer(f"{name}.{i}", h, dh, *layer[1:5])
        return Net(first, len(self._layers), h, dh)

    def _layer(self, name, h, dh, fan_out, activation, weight, bias):
        """A new layer; the regions of its output and of the gradient by it."""
        y, dy = self.region(name, fan_out, h.repeat), self.region(f"d{name}", fan_out, h.repeat)
        places = h.start, -1 if dh is None else dh.start, y.start, dy.start
        self._layers.append((h.columns, fan_out, activation, weight, bias, *places, h.repeat))
        return y, dy

    def constant(self, values):
        """One more of `Task.constants`: an array of whole numbers, or of numbers of the model's
        dtype, that stays the same."""
        self._constants.append(np.ascontiguousarray(values))

    # --- what the engine makes of it ------------------------------------------------------------

    @property
    def repeat(self):
        """Rows of the largest matrices per row of the batch."""
        return max(region.repeat for region in self.regions.values())

    def tables(self):
        """Layers, blocks and pieces, for compiled code."""
        tables = (LAYER, self._layers), (BLOCK, self._blocks), (PIECE, self._pieces)
        return [records(*table) for table in tables]

    def constants(self, dtype):
        """The constants as a tuple, or None where there are none."""
        if not self._constants:
            return None
        return tuple(c if c.dtype.kind == "i" else c.astype(dtype) for c in self._constants)

    def places(self, carried):
        """`Task.carried` for {region: rows}; None where nothing is carried."""
        return tuple((self.carried[name], rows) for name, rows in carried.items()) or None

    def named_views(self, flat):
        """{name: view} of a buffer (P,): every parameter by its name, sharing memory with it.

        Heads are columns of one matrix, so their views are strided.
        """
        return {name: slot.view(flat) for name, slot in self.slots.items()}

    def initialise(self, seed, dtype):
        """A new buffer (P,): Glorot uniform where a slot asks for it, else 0.

        Glorot and Bengio 2010: U(-a, a) with a = sqrt(6 / (fan_in + fan_out)) keeps the variance of
        signals and of gradients alike from layer to layer; a head counts its own columns only.
        Each weight is a draw of its own: (seed, weights' stream, index of the name, row, column).
        """
        flat = np.zeros(self.n_parameters, dtype)
        for index, (name, view) in enumerate(self.named_views(flat).items()):
            if self.slots[name].glorot:
                u = np.empty(view.shape, dtype)
                reference.random_uniform(seed, STREAM_WEIGHTS, index, 0, u)
                view[:] = (2 * u - 1) * (6 / sum(view.shape)) ** 0.5
        return flat

    def region_view(self, work, name, B):
        """The region (B * repeat, columns), or a term (B,), in a workspace after a batch of B rows;
        work may be an array on a device."""
        start, columns, repeat = self.regions[name]
        flat = work[B * start : B * (start + columns * repeat)]
        return flat if name in self.terms else flat.reshape((B * repeat, columns))

    def region_views(self, work, B):
        """{name: region_view} of all regions."""
        return {name: self.region_view(work, name, B) for name in self.regions}


def _again(program, n_features, settings):
    """The Layout that a pickle stands for."""
    return Layout(importlib.import_module(program), n_features, **settings)
