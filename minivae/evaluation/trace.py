"""One batch of a step, number by number: every array that it writes, and the line that made it.

The family's own program runs over the reference kernels, each behind an observer that looks at
which arrays a call has changed. So the trace is of the step that trains, and no family has code
for it.
"""

import linecache
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from minivae.engine import step, task
from minivae.engine.machine import Machine
from minivae.engine.program import bind, modules
from minivae.engine.threads import Session
from minivae.evaluation.point import Point
from minivae.kernels.tables import reference

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Entry:
    """An array as one call of a kernel left it."""

    name: str
    array: np.ndarray
    unit: str
    kernel: str  # that wrote it
    reads: tuple  # names of the other arrays that the kernel was given
    place: str  # file and line of the program that asked for it
    source: str  # what stands there


class Trace(Mapping):
    """{name: array} of one batch, in the order of the step; prints as a table.

    `trace.entries[name]` has unit, kernel, inputs and the line of the program beside the array. An
    array that is written twice, as a layer's output before and after its activation, has its first
    state under "name (kernel)"; it has NaN where nothing was written yet.
    """

    def __init__(self, entries):
        self.entries = entries

    def __getitem__(self, name):
        return self.entries[name].array

    def __iter__(self):
        return iter(self.entries)

    def __len__(self):
        return len(self.entries)

    def __str__(self):
        rows = [("array", "shape", "unit", "norm", "by", "line")]
        for name, entry in self.entries.items():
            norm = f"{np.sqrt(np.square(entry.array, dtype=np.float64).sum()):.4g}"
            shape = " x ".join(map(str, entry.array.shape))
            rows.append((name, shape, entry.unit, norm, entry.kernel, entry.place))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def trace(layout, weights, theta, values, given=None, binarize=0, seed=0):
    """The Trace of the mean loss over values (n, D) and of its gradient, with the noise of step 0.

    given {region: values} replaces some of what was loaded.
    """
    entries = {}
    with np.errstate(all="ignore"):  # what overflows is there to be seen
        observer = _Observer(layout, theta, len(values), entries)
        session = observer.session(weights, len(values))
        point = Point(session, values, given or {}, binarize, seed)
        for name in given or {}:
            observer.replaced(name)
        point.compute()
    return Trace(entries)


class _Observer:
    """A kernel table whose calls leave entries behind."""

    def __init__(self, layout, theta, B, entries):
        self.layout, self.B, self.entries, self.theta = layout, B, entries, theta
        own = [m for m in modules(layout.program) if not m.__name__.startswith("minivae.engine.")]
        self.program_files = {module.__file__ for module in own}

    def session(self, weights, rows):
        table = ModuleType("traced")
        kernels = {n: v for n, v in vars(reference).items() if callable(v) and n[0] != "_"}
        vars(table).update({name: self._observed(name, f) for name, f in kernels.items()})
        bound = bind(self.layout.program, table, lambda function, inline: function)
        machine = Machine("reference", table, bound[self.layout.program], bound[step],
                          bound[task], None, Session)  # fmt: skip
        session = Session(machine, self.layout, weights, self.theta, rows)
        for flat in (session.task.work, session.task.gradient):
            flat[:] = np.nan  # or a zero that is written over a zero would not be seen
        self.buffers = {"": self.theta, "d": session.task.gradient}
        self.work = session.task.work
        return session

    def _observed(self, kernel, function):
        def call(*arguments):
            given = [(self._name(a), a) for a in arguments if isinstance(a, np.ndarray)]
            given = [(name, array) for name, array in given if name]
            before = [array.tobytes() for _, array in given]
            result = function(*arguments)
            same = [a.tobytes() == old for (_, a), old in zip(given, before, strict=True)]
            kept_names = [name for (name, _), kept in zip(given, same, strict=True) if kept]
            reads = tuple(dict.fromkeys(kept_names))  # two heads are one array
            for (name, _), kept in zip(given, same, strict=True):
                if not kept:
                    self._add(name, kernel, reads)
            return result

        return call

    def replaced(self, name):
        """A region was given by the caller, in place of what the program had loaded."""
        array = self.layout.region_view(self.work, name, self.B).copy()
        self.entries[name] = Entry(name, array, self._unit(name), "given", (), "-", "")

    def _add(self, name, kernel, reads):
        if name in self.layout.regions:
            array = self.layout.region_view(self.work, name, self.B)
        else:  # a gradient, in the shape that its parameters have
            slot = self.layout.slots[name[1:].split("+")[0]]
            flat = self.buffers["d"][slot.begin : slot.begin + int(np.prod(slot.shape))]
            array = flat.reshape(slot.shape)
        old = self.entries.pop(name, None)
        if old is not None and old.kernel != kernel:
            self.entries[f"{name} ({old.kernel})"] = old
        place, source = self._line()
        self.entries[name] = Entry(
            name, array.copy(), self._unit(name), kernel, reads, place, source
        )

    def _unit(self, name):
        if name in self.layout.terms:
            return "nats"
        of = name[1:].split("+")[0]
        names = self.layout.regions.keys() | self.layout.slots.keys()
        known = names | {known.rpartition(".")[2] for known in names}
        return "nats / unit" if name[0] == "d" and {name[1:], of} & known else "-"

    def _line(self):
        """(file:line, text) of the innermost call in the family's own files, or in the engine."""
        frame = found = sys._getframe(2)
        while frame is not None:
            if frame.f_code.co_filename in self.program_files:
                found = frame
                break
            frame = frame.f_back
        path, number = Path(found.f_code.co_filename), found.f_lineno
        text = linecache.getline(str(path), number).strip()
        inside = path.is_relative_to(PACKAGE)  # a family may be somebody else's
        name = path.relative_to(PACKAGE).as_posix() if inside else path.name
        return f"{name}:{number}", text

    def _name(self, array):
        """What an array is: a region of the workspace, or parameters, or a gradient by them."""
        at = self._offset(self.work, array)
        if at is not None:
            for name, (start, columns, repeat) in self.layout.regions.items():
                if self.B * start <= at < self.B * (start + columns * repeat):
                    return name
        for prefix, flat in self.buffers.items():
            at = self._offset(flat, array)
            if at is not None:
                return prefix + "+".join(
                    name for name, slot in self.layout.slots.items()
                    if slot.begin <= at < slot.begin + int(np.prod(slot.shape))
                )  # fmt: skip
        return None

    @staticmethod
    def _offset(flat, array):
        """How many numbers behind the begin of flat an array begins; None if not in it."""
        distance = array.__array_interface__["data"][0] - flat.__array_interface__["data"][0]
        return distance // flat.itemsize if 0 <= distance < flat.nbytes and array.size else None
