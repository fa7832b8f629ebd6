"""Stop a run without tearing a frame: Ctrl-C and SIGTERM wait until every sink has written it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, and what a service manager or `kill` sends.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """Say that SIGTERM asks for the end; handle it as Ctrl-C."""


@contextmanager
def sigterm_stops() -> Iterator[None]:
    """Raise ``Terminated`` in the main thread if SIGTERM arrives inside the block.

    A service is then stopped as by Ctrl-C: what was written so far becomes whole files. Outside of
    the main thread, where no signal arrives, the block runs unchanged.

    Examples
    --------
    >>> import os
    >>> try:
    ...     with sigterm_stops():
    ...         os.kill(os.getpid(), signal.SIGTERM)
    ... except Terminated:
    ...     print("stopped")
    stopped
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_terminated(number: int, where: FrameType | None) -> None:
    """Raise ``Terminated``; the handler of SIGTERM."""
    raise Terminated


@contextmanager
def held_back() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the end of the block.

    Otherwise they would interrupt the writing of a frame, and leave one sink a frame ahead of the
    others. Signals without a Python handler keep their effect.

    Examples
    --------
    >>> with held_back():
    ...     pass  # a Ctrl-C in here is raised after the block
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    pending: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
    for stop in STOP_SIGNALS:
        handler = signal.getsignal(stop)
        if callable(handler):
            handlers[int(stop)] = handler
            signal.signal(stop, lambda number, where: pending.append((number, where)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if pending:
        number, where = pending[-1]
        handlers[number](number, where)
