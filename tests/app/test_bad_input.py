"""Bad and odd input: what happens for each kind, in one table; `docs/bad-input.md` tells users.

Refused (support/refused.py): an exception names the argument and says what is wrong; the fitted
model and the files that were there are the same afterwards, bit for bit. Taken (support/taken.py):
the result is that of clean input. Every row runs for every family that it holds for, but what
starts processes, in which no family does anything of its own, for one.
"""

import re
import signal
from pathlib import Path

import numpy as np
import pytest
from refused import REFUSED, families
from taken import TAKEN
from tiny import FAMILIES
from worlds import World

IN_PROCESSES = {
    "two processes that save to one file, and one that loads it",
    "a process that forks after training with threads",
    "no home folder",
}
PAGE = Path(__file__).parents[2] / "docs" / "bad-input.md"


@pytest.fixture
def worlds(tmp_path, monkeypatch):
    """Makes new Worlds of a family. What takes ten minutes hangs; a first call compiles, and on a
    machine that has much else to do that takes more than one."""

    def hangs(*args):
        raise AssertionError("it hangs")

    usual = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(600)
    yield lambda family, name: World(family, tmp_path / name, monkeypatch)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, usual)


@pytest.mark.parametrize(
    ("family", "entry"),
    [
        pytest.param(family, entry, id=f"{family}-{entry[0]}")
        for entry in REFUSED
        for family in families(entry[1])
    ],
)
def test_refused(family, entry, worlds, monkeypatch):
    _, _, argument, error, words, ways = entry
    for i, way in enumerate(ways):
        world = worlds(family, str(i))
        attempt = way(world)
        before = world.everything()
        with pytest.raises(error, match=f"(?s){words}") as caught:
            attempt()
        assert re.search(rf"(?<![\w.])({argument})", str(caught.value)), "which input?"
        assert world.everything() == before
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        pytest.param(family, kind, id=f"{family}-{kind}")
        for kind in TAKEN
        for family in (FAMILIES[:1] if kind in IN_PROCESSES else FAMILIES)
    ],
)
def test_taken(kind, family, worlds):
    found, expected = TAKEN[kind](worlds(family, "w"))
    np.testing.assert_array_equal(found, expected)


def test_the_page_has_every_kind_and_what_happens():
    rows = re.findall(
        r"^\| (.+?) \| (all|[\w, ]+) \| (Taken|Refused)\b.* \|$",
        PAGE.read_text("utf-8"),
        re.MULTILINE,
    )
    table = [(entry[0], entry[1], "Refused") for entry in REFUSED]
    table += [(kind, "all", "Taken") for kind in TAKEN]
    assert sorted(rows) == sorted(table)
    assert len(set(rows)) == len(rows) >= 55
