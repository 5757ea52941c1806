"""Who runs a step on a processor: in which thread, and what interrupts, errors and forks leave."""

import bdb
import inspect
import os
import threading

import numpy as np
import pytest

from minivae import VAE
from minivae.engine import step, threads
from minivae.training import loop

X = np.random.default_rng(0).random((64, 4))
SETTINGS = dict(hidden_layer_sizes=(3,), epochs=1, batch_size=32, random_state=0)


def learned(model):
    """All of a model but its settings."""
    facts = model.seed_, model.n_features_in_, model.state_.epochs, repr(model.history_)
    return model.state_.theta.tobytes(), model.state_.moments.tobytes(), facts


def refuse_threads(monkeypatch, error, after):
    """The pool of threads takes so many jobs and then raises error; the jobs that it took."""
    jobs = []

    class Pool(threads.ThreadPoolExecutor):
        def submit(self, *arguments):
            if len(jobs) == after:
                raise error
            jobs.append(super().submit(*arguments))
            return jobs[-1]

    monkeypatch.setattr(threads, "ThreadPoolExecutor", Pool)
    return jobs


@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupt_between_the_workers_stops_all_of_them(after, monkeypatch):
    """When threads are started or when they begin to train: the second one never comes, and the
    first must not wait for it."""
    jobs = refuse_threads(monkeypatch, KeyboardInterrupt, after)
    with pytest.raises(KeyboardInterrupt):
        VAE(**SETTINGS, n_threads=2).fit(X)
    assert len(jobs) == after
    for job in jobs:
        job.result(timeout=20)


@pytest.mark.parametrize("after", [0, 1])
def test_a_fit_without_threads_leaves_the_model_and_no_checkpoint(after, tmp_path, monkeypatch):
    model = VAE(**SETTINGS, n_threads=2).fit(X)
    before, fresh = learned(model), VAE(**SETTINGS, n_threads=2)
    refuse_threads(monkeypatch, RuntimeError("can't start new thread"), after)
    words = r"n_threads=2: too many for this system \(can't start new thread\)"
    for call in (model.fit, model.partial_fit, fresh.fit, fresh.partial_fit):
        with pytest.raises(RuntimeError, match=words):
            call(X)
    with pytest.raises(RuntimeError, match=words):
        model.set_params(epochs=2).resume(X)
    with pytest.raises(RuntimeError, match=words):
        model.set_params(random_state=5).fit(X[:, :3], checkpoints=tmp_path / "new")
    assert learned(model) == before and os.listdir(tmp_path / "new") == []
    assert vars(fresh).keys() == fresh.get_params().keys()


# --- the calling thread -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "called"),
    [
        (dict(device="reference", n_threads=2), True),
        (dict(device="cpu", n_threads=1), True),
        (dict(device="cpu", n_threads=2), False),
    ],
    ids=str,
)
def test_one_worker_trains_in_the_thread_that_calls(settings, called, monkeypatch):
    trainers, init = [], threads.Trainer.__init__

    def watched(trainer, *arguments):
        init(trainer, *arguments)
        trainers.append(trainer)

    monkeypatch.setattr(threads.Trainer, "__init__", watched)
    before = set(threading.enumerate())
    VAE(**SETTINGS, **settings).fit(X)
    assert [trainer.threads is None for trainer in trainers] == [called]
    assert not set(threading.enumerate()) - before  # nobody is left behind


class Debugger(bdb.Bdb):
    """What pdb is made of. It follows the thread in which it was started."""

    def __init__(self, file, line):
        super().__init__()
        assert self.set_break(file, line) is None
        self.stops = []

    def user_line(self, frame):
        if frame.f_lineno in self.breaks.get(self.canonic(frame.f_code.co_filename), ()):
            self.stops.append(dict(frame.f_locals))
        self.set_continue()


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_debugger_follows_the_reference_into_a_step(device):
    """Places are known by file and line, and a bound function has those of its source."""
    source, first = inspect.getsourcelines(step.train_step)
    after = next(i for i, text in enumerate(source) if text.strip().startswith("shard = "))
    debugger = Debugger(step.__file__, first + after)
    debugger.runcall(VAE(**SETTINGS, device=device, n_threads=1 + (device == "reference")).fit, X)
    if device == "reference":
        assert [(stop["B"], stop["first"], stop["last"]) for stop in debugger.stops] == [
            (32, 0, 32)
        ] * 2
        assert [(stop["step"], stop["worker"]) for stop in debugger.stops] == [(0, 0), (1, 0)]
    else:
        assert debugger.stops == []  # compiled


# --- forks --------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_after_a_fork_while_a_thread_fits_the_child_can_fit(monkeypatch):
    """The thread stays behind, and with it what it was doing."""
    model, expected = (VAE(**SETTINGS, n_threads=2) for _ in range(2))
    expected.fit(X)
    chunk, begun, go_on = loop.train_chunk, threading.Event(), threading.Event()

    def train_chunk(*arguments):
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            go_on.wait()
        chunk(*arguments)

    monkeypatch.setattr(loop, "train_chunk", train_chunk)
    other = threading.Thread(target=model.fit, args=(X,))
    other.start()
    assert begun.wait(timeout=50)
    child = os.fork()
    if child == 0:
        try:
            os._exit(learned(model.fit(X))[:2] != learned(expected)[:2])
        finally:
            os._exit(2)
    try:
        with pytest.raises(RuntimeError, match="being trained by another thread"):
            model.fit(X)  # here it still is
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        go_on.set()
        other.join()
    assert learned(model)[:2] == learned(expected)[:2]
