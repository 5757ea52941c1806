"""The second process of a first run: what it compiles, and when there is none."""

import subprocess

import pytest
from families import SMALL
from tiny import FAMILIES

from minivae.app import warm
from minivae.models import find


def what(family):
    return {
        "model": family,
        "settings": {"device": "reference", "random_state": 0, **SMALL[family]},
        "n_features": 6,
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_it_calls_what_a_run_calls_after_training(family, monkeypatch):
    called, make = [], find(family)
    wanted = [m for m in ("held_out_score", "sample", "transform", "inverse_transform")
              if hasattr(make, m)]  # fmt: skip

    def watched(name, method):
        def call(self, *arguments, **options):
            called.append(name)
            return method(self, *arguments, **options)

        return call

    for name in wanted:
        monkeypatch.setattr(make, name, watched(name, getattr(make, name)))
    warm.compile_evaluation(what(family))
    assert set(called) == set(wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_second_process_understands_what_it_is_told(family, monkeypatch):
    monkeypatch.setattr(warm, "machine", lambda *arguments: None)
    monkeypatch.setattr(warm, "is_compiled", lambda machine: False)
    monkeypatch.setattr(warm.subprocess, "Popen", lambda words, **options: words)
    words = warm.started(find(family)(**SMALL[family], random_state=0), 6)
    monkeypatch.undo()
    words[-1] = words[-1].replace('"cpu"', '"reference"')  # compiling it would take long
    run = subprocess.run(words, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("case", ["compiled already", "no process to be had"])
def test_training_needs_no_second_process(case, monkeypatch):
    def refuse(*arguments, **options):
        assert case == "no process to be had"
        raise OSError("Resource temporarily unavailable")

    monkeypatch.setattr(warm, "machine", lambda *arguments: None)
    monkeypatch.setattr(warm, "is_compiled", lambda machine: case == "compiled already")
    monkeypatch.setattr(warm.subprocess, "Popen", refuse)
    reached = False
    with warm.compiling_beside(find(FAMILIES[0])(), 6):
        reached = True
    assert reached
