"""Ctrl-C and termination at a moment that suits: put off until what is going on is complete."""

import contextlib
import signal
import threading


@contextlib.contextmanager
def defer_signals(*signals):
    """Within the block, the first of these signals only makes the yielded function return True.

    It acts as usual when the block has ended; a second one acts as usual at once. Only the main
    thread gets signals, so in any other the function never returns True. An ignored signal stays
    ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = []
    usual = {number: signal.getsignal(number) for number in signals}
    usual = {n: handler for n, handler in usual.items() if handler not in (None, signal.SIG_IGN)}

    def restore():
        for number, handler in usual.items():
            signal.signal(number, handler)

    def take_note(number, frame):
        came.append(number)
        restore()

    try:
        for number in usual:
            signal.signal(number, take_note)
        yield lambda: bool(came)
    finally:
        restore()
    if came:
        signal.raise_signal(came[0])
