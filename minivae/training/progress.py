"""What training shows while it runs: a bar, and behind it where the loss stands."""

import sys
import threading

from tqdm import tqdm

LINE = "{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}"


def on_terminal():
    """Whether somebody sees a bar; in a file every look at the clock would leave a line."""
    return sys.stderr is not None and sys.stderr.isatty()


class Bar(tqdm):
    """tqdm's bar, with a lock of this process alone. The one that it has else is shared with forks:
    of a fork that was killed in the wrong moment, all others would wait for ever."""


Bar.set_lock(threading.RLock())


class PassBar:
    """A bar over the rows of a pass, and of every pass after it, for `with`; call it with how many
    are done, of how many."""

    def __init__(self, title):
        self.title, self.bar = title, None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.close()

    def __call__(self, done, n_rows):
        if done == 0:
            self.__exit__()
            self.bar = Bar(total=n_rows, bar_format=LINE, desc=self.title, leave=False,
                            disable=not on_terminal())  # fmt: skip
        else:
            self.bar.update(done - self.bar.n)


class Progress:
    """A bar over the rows of all epochs, for `with`. The time left leaves out the first chunk, in
    which code may have been compiled."""

    def __init__(self, state, n_rows, last_epoch, title, show):
        self.n_rows, self.title = n_rows, title
        self.start = n_rows * state.epochs + state.rows
        self.bar = Bar(total=n_rows * last_epoch, initial=self.start, bar_format=LINE,
                        desc="compiling", disable=not show or not on_terminal())  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.bar.close()

    def chunk(self, state, values, history):
        """Some batches were made; values: means over the pass so far."""
        if self.bar.n == self.start:
            self.bar.unpause()  # what was compiled until now says nothing of the time left
        self.bar.set_description(f"epoch {state.epochs + 1}", refresh=False)
        self.bar.set_postfix_str(self._describe(values, history), refresh=False)
        self.bar.update(self.n_rows * state.epochs + state.rows - self.bar.n)

    def epoch(self, values, history):
        """An epoch was made, of which values are the means."""
        self.bar.set_postfix_str(self._describe(values, history))

    def _describe(self, values, history):
        if self.title is None:  # of what is maximised
            return f"loss {values['loss']:.2f}"
        name, title = self.title
        held_out = history.get(f"valid_{name}")
        behind = f", held-out {held_out[-1]:.2f}" if held_out else ""
        return f"loss {values['loss']:.2f}, {title} {values[name]:.2f}{behind}"
