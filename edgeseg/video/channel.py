"""Pass items from one thread to another: the newest, or all of them in order."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Finished(Exception):  # noqa: N818 - no error: the end of a stream
    """Tell a consumer that a channel has ended and that all of its items were taken."""


class Channel(Generic[T]):
    """Pass items from one thread to another through a bounded queue on which neither side can hang.

    The producer calls ``put`` and then ``finish``. The consumer iterates, and calls ``close`` if it
    stops early.

    Parameters
    ----------
    capacity : number of items that may wait.
    keep_newest : if the queue is full, drop the oldest item instead of waiting for room.

    Attributes
    ----------
    dropped : number of items that nobody took because newer ones replaced them. With
        ``keep_newest`` this includes those that waited when the channel was closed.
    dropped_before : how many of them were dropped before the consumer took its first item.

    Examples
    --------
    >>> channel: Channel[int] = Channel(capacity=2, keep_newest=True)
    >>> [channel.put(item) for item in (1, 2, 3)]
    [True, True, True]
    >>> channel.finish()
    >>> list(channel), channel.dropped
    ([2, 3], 1)
    """

    def __init__(self, capacity: int, *, keep_newest: bool = False) -> None:
        self._capacity = capacity
        self._keep_newest = keep_newest
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._closed = False
        self._error: BaseException | None = None
        self._is_taken_from = False
        self.dropped = 0
        self.dropped_before = 0

    def put(self, item: T) -> bool:
        """Add an item.

        Waits for room in the queue. With ``keep_newest`` it does not wait: it drops the oldest item
        and counts it in ``dropped``.

        Parameters
        ----------
        item : the item to add.

        Returns
        -------
        False if the consumer is gone, so that the producer should stop.
        """
        with self._changed:
            while not (self._closed or self._keep_newest) and len(self._items) >= self._capacity:
                self._changed.wait()
            if self._closed:
                return False

            if len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1

            self._items.append(item)
            self._changed.notify_all()
            return True

    def finish(self, error: BaseException | None = None) -> None:
        """End the stream; the producer calls this once.

        Parameters
        ----------
        error : the producer's exception. The consumer raises it after the items before it.
        """
        with self._changed:
            self._finished = True
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """Discard all items and wake both sides: ``put`` then returns False."""
        with self._changed:
            self._closed = True
            if self._keep_newest:
                self.dropped += len(self._items)
            self._items.clear()
            self._changed.notify_all()

    def get(self, timeout_s: float | None = None) -> T | None:
        """Take the next item, and wait for one if none is there.

        Parameters
        ----------
        timeout_s : how long to wait, seconds; None waits for ever.

        Returns
        -------
        The item; None if none came in time.

        Raises
        ------
        Finished : the channel has ended or was closed.
        Any exception that the producer passed to ``finish``.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._items or self._finished or self._closed, timeout=timeout_s
            )

            if self._items:
                if not self._is_taken_from:
                    self._is_taken_from = True
                    self.dropped_before = self.dropped
                item = self._items.popleft()
                self._changed.notify_all()
                return item

            if self._error is not None and not self._closed:
                raise self._error
            if self._finished or self._closed:
                raise Finished
            return None

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                item = self.get()
            except Finished:
                return

            # Without a time limit, None is an item like any other. The lock is free here: the
            # consumer may take its time.
            yield cast(T, item)
