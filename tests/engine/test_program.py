"""`bind`: the same source over another table, each family apart; and names that compiled code of
another source cannot have."""

import importlib
import sys
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
import toy
from families import SMALL

from minivae.engine import net, step, task
from minivae.engine.layout import Layout
from minivae.engine.machine import machine
from minivae.engine.program import bind, fingerprint, is_bound, modules
from minivae.engine.threads import Session
from minivae.kernels import tables
from minivae.kernels.support import native
from minivae.kernels.tables import reference
from minivae.models import MODELS, find, nade
from minivae.models.vae import estimator, likelihoods, objectives
from minivae.models.vae import program as vae

PROGRAMS = {name: find(name).program for name in MODELS} | {"toy": toy}


def plain(function, inline):
    return function


def table():
    """A table of its own."""
    k = ModuleType("k")
    vars(k).update(vars(reference))
    return k


def functions(module):
    return {name: f for name, f in vars(module).items() if isinstance(f, FunctionType)}


# --- which modules ------------------------------------------------------------------------------


def test_a_program_is_its_module_and_what_is_written_against_the_table():
    assert set(modules(vae)) == {task, net, step, vae, likelihoods, objectives}
    assert set(modules(nade)) == {task, step, nade}  # no dense layers
    assert set(modules(toy)) == {task, net, step, toy}
    for program in PROGRAMS.values():
        found = modules(program)
        assert len(found) == len(set(found))
        places = {module: i for i, module in enumerate(found)}
        assert places[task] < places[program]  # those first that import none
    assert not is_bound(estimator) and not is_bound(np) and not is_bound(None)


@pytest.mark.parametrize("name", PROGRAMS)
def test_everything_that_is_called_is_bound_to_the_same_table(name):
    """Through every module, however it was imported: `net.forward`, or `region` by its name."""
    program, k = PROGRAMS[name], table()
    bound = bind(program, k, plain)
    own = {id(f) for module in bound.values() for f in functions(module).values()}
    for module, new in bound.items():
        assert new is not module and vars(new)["k"] is k
        for f in functions(module).values():
            if sys.modules[f.__module__] in bound:
                twin = getattr(new, f.__name__)
                assert twin is not f and twin.__globals__["k"] is k and twin.__code__ is f.__code__
        for reached in vars(new).values():
            home = sys.modules.get(getattr(reached, "__module__", None) or "")
            if isinstance(reached, FunctionType) and home in bound:
                assert id(reached) in own, f"{reached} is not bound"
            if isinstance(reached, ModuleType):
                assert reached not in [*bound, reference], f"{reached} is not bound"
    assert bound[step].program is bound[program]
    assert step.program is None and vars(program)["k"] is reference  # the source is as it was


def test_two_families_are_apart():
    tables_ = {name: table() for name in PROGRAMS}
    bound = {name: bind(PROGRAMS[name], k, plain) for name, k in tables_.items()}
    for name, mine in bound.items():
        assert mine[step].program is mine[PROGRAMS[name]]
        assert mine[step].train_step.__globals__["program"] is mine[PROGRAMS[name]]
        for shared in (task, step):
            for f in functions(mine[shared]).values():
                if f.__module__ in (task.__name__, step.__name__):
                    assert f.__globals__["k"] is tables_[name]
    assert bound["vae"][net].k is tables_["vae"] and bound["toy"][net].k is tables_["toy"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_bound_step_calls_its_own_table_only(name):
    """Run, not read: every kernel of the module's own table raises."""
    program, calls = PROGRAMS[name], []

    def watched(kernel, function):
        def call(*arguments):
            calls.append(kernel)
            return function(*arguments)

        return call

    k = ModuleType("k")
    vars(k).update({n: watched(n, f) for n, f in vars(reference).items() if callable(f)})
    settings = dict(n_latents=2, n_repeats=3)  # of the toy
    if name in MODELS:
        settings = find(name)(**SMALL[name]).plan_settings()
    layout = Layout(program, 5, **settings)
    bound, own = bind(program, k, plain), machine(program, "reference")
    made = type(own)("watched", k, bound[program], bound[step], bound[task], None, Session)
    theta = layout.initialise(0, "float64")
    session = Session(made, layout, np.ones(len(layout.terms)), theta, 4)

    def refuse(*arguments):
        raise AssertionError("a kernel of the source's own table was called")

    with pytest.MonkeyPatch.context() as patch:
        for kernel in [name for name, value in vars(reference).items() if callable(value)]:
            patch.setattr(reference, kernel, refuse)
        batch = session.put(np.eye(4, 5))
        session.load(batch)
        session.step.loss_and_gradient(session.task, batch)
    ends = {"bernoulli_nll", "prior_nll", "free_energy", "adversarial_losses"}
    assert "gather" in calls and ends & set(calls)


# --- how compiled -------------------------------------------------------------------------------


def test_only_what_asks_for_it_is_compiled_by_itself():
    """Inlined, a step is one piece of machine code, and compiled sooner."""
    asked = {}

    def note(function, inline):
        asked[function.__module__.rpartition(".")[2], function.__name__] = inline
        return function

    bind(vae, table(), note)
    apart = {name for name, inline in asked.items() if inline == "never"}
    own = {("objectives", name) for name in objectives.APART}
    own |= {("likelihoods", name) for name in likelihoods.APART}
    own |= {("program", name) for name in vae.APART}
    own |= {("task", name) for name in task.APART} | {("net", name) for name in net.APART}
    own |= {("step", name) for name in step.APART}
    assert apart == own
    assert set(asked.values()) == {"never", "always"}


def names_of(program):
    """Qualified names of all that is compiled for a program; nothing is, before its first call."""
    made = bind(program, tables.cpu(), partial(native.compiled, layout=fingerprint(program)))
    return {
        f.py_func.__qualname__
        for module in made.values()
        for f in vars(module).values()
        if hasattr(f, "py_func") and f.py_func.__module__ in {m.__name__ for m in made}
    }


def test_what_is_compiled_for_two_families_has_different_names():
    """They compile the same functions of the same files, and Numba looks at these files only."""
    names = {name: names_of(program) for name, program in PROGRAMS.items()}
    assert any(name.startswith("train_step_") for name in names["vae"])
    assert not names["vae"] & names["nade"] and not names["vae"] & names["toy"]
    assert all(f"_{name}_" in each for name in names for each in names[name])
    assert len({fingerprint(program) for program in PROGRAMS.values()}) == len(PROGRAMS)
    assert all(fingerprint(PROGRAMS[name]).startswith(f"_{name}_") for name in PROGRAMS)
    assert set(MODELS) <= set(PROGRAMS)


@pytest.mark.parametrize("edited", modules(vae), ids=lambda module: module.__name__)
def test_an_edit_of_any_module_of_a_family_changes_every_name(edited, tmp_path, monkeypatch):
    before = names_of(vae)
    text = Path(edited.__file__).read_text(encoding="utf-8")
    (tmp_path / "edited.py").write_text(text + "\n", encoding="utf-8")
    monkeypatch.setattr(edited, "__file__", str(tmp_path / "edited.py"))
    assert not names_of(vae) & before
    monkeypatch.undo()
    assert names_of(vae) == before


def test_names_have_the_digest_of_all_kernels():
    assert all(native.DIGEST in name for name in names_of(nade))


@pytest.mark.slow
def test_stale_machine_code_is_not_run(tmp_path, monkeypatch):
    """A family in a package of its own, edited between two imports: the second one runs the new
    text, though Numba's cache lies beside the file."""
    source = Path(toy.__file__).read_text(encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    edits = {"": "", "twice": (".mean()", ".mean() * 2")}
    X, losses = np.eye(4, 5), {}
    for word, edit in edits.items():
        text = source.replace(*edit) if edit else source
        assert (text == source) == (word == "")
        (tmp_path / "toy_copy.py").write_text(text, encoding="utf-8")
        sys.modules.pop("toy_copy", None)
        importlib.invalidate_caches()
        family = importlib.import_module("toy_copy").Toy
        losses[word] = {
            device: family(device=device, dtype="float64", random_state=0).loss_and_gradients(X)[0]
            for device in ("reference", "cpu")
        }
    sys.modules.pop("toy_copy")
    for found in losses.values():
        assert found["cpu"] == pytest.approx(found["reference"], rel=1e-13)
    assert losses["twice"]["cpu"] == pytest.approx(2 * losses[""]["cpu"], rel=1e-13)
