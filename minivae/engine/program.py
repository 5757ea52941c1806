"""What a family of models is to the engine, and how its source runs over another kernel table.

A family is a module with these names. It has no base class and no decorator; everything that
computes is a function over the kernel table, which the module imports as

    from minivae.kernels.tables import reference as k

    NAME                    "nade": what files and the command call it
    TERMS                   ("nll",): the terms of its loss, each a value per row, in nats
    SCORE                   ("log_likelihood", "ln p(x)"): name and title of what is maximised,
                            minus the sum of the terms by `weights()`, or by `score_weights()` of
                            programs that have it; None where players with losses of their own
                            maximise nothing together: no epoch is the best then, and there is no
                            setting `patience`
    class Plan(NamedTuple)  the model as whole numbers, Regions and Nets: no arrays
    make_plan(layout, n_features, **settings)
                            declares regions, dense nets and blocks of parameters by name, once,
                            and before them terms that only some settings have; the layout answers
                            with their places. Arrays that never change are its `constant`s, which
                            the task has; rows it is to `carry`, as of Markov chains, stay for steps
    weights(**settings)     {term: weight}; loss = mean over rows of the sum of weight * term
    LOSSES                  {"generator.": ("g_loss",), ...}, only where not all parameters descend
                            all terms: the terms of those whose names begin so. The gradient check
                            alone reads it

and, for a task (engine/task.py) and the rows of a shard, compiled or not,

    load(task, rows, shard, step)   x, and all that is random, into the workspace
    terms_pass(task, shard)         the terms of each row, with no gradient
    rows_pass(task, shard)          the terms, and the gradient by all that `block_gradient` reads:
                                    a pure function of theta and the workspace
    block_gradient(task, block, batch, worker)
                                    the worker's part of one block's gradient, over the whole batch;
                                    the engine then updates that part

`bind` gives these functions another meaning of the name `k`: the same code objects, with globals in
which `k` is another table and an imported module or function is the bound one. That is why a step
can be written once. Numba reads a module among the globals as a value that never changes.
"""

import hashlib
import sys
from pathlib import Path
from types import FunctionType, ModuleType

from minivae.engine import step
from minivae.kernels.tables import reference


def is_bound(module):
    """Whether a module is written against the kernel table, so that it belongs to a program."""
    return isinstance(module, ModuleType) and vars(module).get("k") is reference


def reached(module, found=()):
    """`module` and all modules of its program that it imports, those first that import none."""
    found = list(found)
    for value in vars(module).values():
        home = sys.modules.get(getattr(value, "__module__", None) or "")
        for other in (value, home):
            if is_bound(other) and other not in (module, *found):
                found = reached(other, found)
    return found if module in found else [*found, module]


def modules(program):
    """All modules of a program: engine/step.py, the family's own, and what these import."""
    return reached(step, reached(program))


def bind(program, table, compiled):
    """{module: bound module} of `modules(program)`.

    compiled(function, inline) makes of a function what is called. Inlined ("always"), a step is one
    piece: compiled sooner, and no call has to hand on a whole Task. What a module lists in APART is
    called from several places or has to look at types, and is compiled by itself ("never").
    """
    bound = {}
    for module in modules(program):
        new = bound[module] = ModuleType(module.__name__, module.__doc__)
        names = vars(new)
        names.update(vars(module), k=table)
        for name, value in vars(module).items():
            if isinstance(value, ModuleType):
                names[name] = table if value is reference else bound.get(value, value)
            elif isinstance(value, FunctionType):
                home = sys.modules.get(value.__module__)
                if home is module:
                    value = FunctionType(value.__code__, names, name, value.__defaults__)
                    apart = name in vars(module).get("APART", ())
                    names[name] = compiled(value, inline="never" if apart else "always")
                elif home in bound:
                    names[name] = vars(bound[home])[value.__name__]
    vars(bound[step])["program"] = bound[program]
    return bound


def fingerprint(program):
    """A word for the family and the text of all its modules, on which compiled code depends.

    Numba looks at a function's own file only, and two families compile the same functions of the
    same files. In the name of what is compiled, this word keeps stale and foreign code apart.
    """
    text = b"".join(Path(module.__file__).read_bytes() for module in modules(program))
    return f"_{program.NAME}_{hashlib.sha256(text).hexdigest()[:12]}"
