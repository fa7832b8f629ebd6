"""Read several sources with one engine: a turn each, the newest frame of each."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeseg.errors import InputError
from edgeseg.video.frames import Frame, Source, VideoInfo
from edgeseg.video.sources.words import unique_names

# A source that hangs inside a driver is left behind, not waited for.
_JOIN_TIMEOUT_S = 2.5


def merge(sources: Sequence[Source]) -> "Merged":
    """Return one source that gives the frames of several.

    The sources take turns; one that has no frame ready is passed over, so that a slow or dead one
    delays none. Of a live source the newest frame is taken, and older ones are dropped. Of a file
    every frame is taken, also beside live sources: each of its frames waits for its turn. To play
    it as a camera beside cameras, open it with ``Playback(realtime=True)``.

    Parameters
    ----------
    sources : at least one. They are closed with the merged one.

    Returns
    -------
    A source whose frames tell by ``Frame.source`` whose they are. Their names begin with the
    source's name, so that no two frames have one name.

    Raises
    ------
    InputError : there are no sources.

    Examples
    --------
    >>> from edgeseg.video.sources import open_source
    >>> drives = [open_source("synthetic://?length=2&size=64x48") for _ in range(2)]
    >>> with merge(drives) as source:
    ...     source.names, sorted(frame.source for frame in source)
    (('synthetic', 'synthetic-2'), [0, 0, 1, 1])
    """
    if not sources:
        raise InputError("no sources to merge", expected="at least one")
    return Merged(sources)


class Merged(Source):
    """Give the frames of several sources, a turn each; made by ``merge``.

    Parameters
    ----------
    sources : the sources.

    Attributes
    ----------
    sources : the sources, in the order of their numbers.
    names : a short name of each, safe as the name of a file; no two are equal.
    infos : the facts of each.
    errors : the error with which a source ended early, by its number. The others go on. When all
        have ended, the first of these errors is raised.
    info : the facts of the first source; live if any is, and the frames of all together.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self.names = tuple(unique_names([source.name for source in sources]))
        self.infos = tuple(source.info for source in sources)
        self.errors: dict[int, BaseException] = {}

        self._changed = threading.Condition()
        self._waiting: list[Frame | None] = [None] * len(sources)
        self._replaced = 0
        self._left = len(sources)
        self._turn = 0
        self._is_closed = False
        self._takers: list[threading.Thread] = []

        # The base class has a reader of its own, which is not used here.
        info = _common_info(self.infos)
        super().__init__(replace(info, live=False), iter(()), hand_on_nv12=self._hand_on_nv12)
        self.info = info
        self.name = "+".join(self.names)
        self.count = len(sources)
        for source in sources:
            self.notes += source.notes

    def __enter__(self) -> "Merged":
        return self

    @property
    def paths(self) -> tuple[Path | None, ...]:
        """Return what each source reads, if that is a file or a folder."""
        return tuple(source.path for source in self.sources)

    @property
    def dropped(self) -> int:
        """Return how many frames all live sources dropped since the first frame was taken."""
        return self._replaced + sum(source.dropped for source in self.sources)

    def __next__(self) -> Frame:
        """Return the next frame: of the source whose turn it is, or of the next that has one.

        Raises
        ------
        InputError : all sources have ended, one of them by this error.
        """
        self._start_takers()
        with self._changed:
            while not self._is_closed:
                frame = self._take()
                if frame is not None:
                    return frame
                if not self._left:
                    break
                self._changed.wait()

            if self.errors and not self._is_closed:
                number = min(self.errors)
                raise self.errors.pop(number)
        raise StopIteration

    def ready(self, most: int) -> list[Frame]:
        """Return frames for one run of a batch: at most one of each source.

        Waits for the first one, and takes of the others what is there.

        Parameters
        ----------
        most : the largest batch, 1 or more.

        Returns
        -------
        The frames; none if all sources have ended.

        Raises
        ------
        InputError : as for ``__next__``.
        """
        first = next(self, None)
        if first is None:
            return []

        frames = [first]
        with self._changed:
            passed = 1
            while len(frames) < most and passed < self.count:
                frame = self._take(self.count - passed)
                if frame is None:
                    break
                passed = (frame.source - first.source) % self.count + 1
                frames.append(frame)
        return frames

    def _take(self, reach: int | None = None) -> Frame | None:
        """Take the frame of the next source that has one; the lock is held.

        Looks at ``reach`` sources, beginning with the one whose turn it is.
        """
        for step in range(self.count if reach is None else reach):
            number = (self._turn + step) % self.count
            frame = self._waiting[number]
            if frame is not None:
                self._waiting[number] = None
                self._turn = (number + 1) % self.count
                self._changed.notify_all()
                return frame
        return None

    def _start_takers(self) -> None:
        """Start a thread for each source, the first time."""
        with self._changed:
            if self._takers or self._is_closed:
                return
            for number in range(self.count):
                self._takers.append(
                    threading.Thread(
                        target=self._take_all,
                        args=(number,),
                        name=f"edgeseg-merge-{number}",
                        daemon=True,
                    )
                )
        for taker in self._takers:
            taker.start()

    def _take_all(self, number: int) -> None:
        """Take all frames of one source; a thread for each runs this."""
        source = self.sources[number]
        prefix = self.names[number]
        try:
            for frame in source:
                named = replace(frame, source=number, name=f"{prefix}-{frame.name}")
                if not self._offer(number, named):
                    break
        except BaseException as error:  # any exception belongs to the consumer
            with self._changed:
                self.errors[number] = error
        finally:
            with self._changed:
                self._left -= 1
                self.lost = self.lost or source.lost
                self.skipped += source.skipped
                self._changed.notify_all()

    def _offer(self, number: int, frame: Frame) -> bool:
        """Put a frame where the consumer takes it; return False if the consumer is gone."""
        with self._changed:
            self.reconnects = sum(source.reconnects for source in self.sources)
            if not self.infos[number].live:
                while self._waiting[number] is not None and not self._is_closed:
                    self._changed.wait()

            before = self._waiting[number]
            if before is None or before.lost_s is not None:
                self._waiting[number] = frame
            elif frame.lost_s is None:  # a repeated picture replaces no new one
                self._waiting[number] = frame
                self._replaced += 1
            self._changed.notify_all()
            return not self._is_closed

    def _hand_on_nv12(self) -> None:
        """Make the frames of all sources that can do it NV12."""
        for source in self.sources:
            source.hand_on_nv12()

    def close(self) -> None:
        """Close all sources, at the same time: several that hang take no longer than one."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

        closers = [threading.Thread(target=source.close, daemon=True) for source in self.sources]
        for closer in closers:
            closer.start()
        for thread in (*closers, *self._takers):
            if thread is not threading.current_thread():
                thread.join(_JOIN_TIMEOUT_S)
        super().close()


def _common_info(infos: Sequence[VideoInfo]) -> VideoInfo:
    """Return the facts of all sources together."""
    live = any(info.live for info in infos)
    counts: list[int] = []
    for info in infos:
        if info.frames is not None:
            counts.append(info.frames)
    known = len(counts) == len(infos) and not live
    return replace(infos[0], frames=sum(counts) if known else None, live=live)
