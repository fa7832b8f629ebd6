"""Draw the frames of a synthetic drive in several processes, and return them in their order."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import cv2

from edgeseg.cores import usable_cores
from edgeseg.data.base import Sample
from edgeseg.data.synthetic import SyntheticDrive

_AHEAD = 4  # frames per process that are drawn before they are wanted
_WORTH = 20  # shorter drives are drawn here: a process needs seconds to start


def draw_ahead(drive: SyntheticDrive, processes: int | None = None) -> Iterator[Sample]:
    """Yield the frames of a drive in their order; several processes draw them.

    Parameters
    ----------
    drive : the drive.
    processes : number of processes; by default one per processor that this process may use. With 1,
        and for short drives, the frames are drawn here.

    Examples
    --------
    >>> drive = SyntheticDrive(length=2, size=(48, 64))
    >>> [sample.name for sample in draw_ahead(drive)]
    ['synthetic_0_000000', 'synthetic_0_000001']
    """
    count = usable_cores() if processes is None else processes
    if count < 2 or len(drive) < _WORTH:
        yield from drive
        return

    # A forked copy of a process with threads may hang; a new process cannot.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(drive,))
    waiting: deque[Future[Sample]] = deque()
    try:
        for i in range(len(drive)):
            waiting.append(pool.submit(_frame, i))
            if len(waiting) >= count * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_drive: SyntheticDrive


def _begin(drive: SyntheticDrive) -> None:
    """Prepare a new process: keep the drive, and end with the process that started it."""
    global _drive
    _drive = drive
    cv2.setNumThreads(1)  # the processes share the processors
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """End this process when its parent has ended, however that ended."""
    parent.join()
    os._exit(1)


def _frame(i: int) -> Sample:
    """Draw one frame."""
    return _drive.frame(i)
