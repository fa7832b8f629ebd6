"""Hand the newest result of each source to everybody who looks at it.

The pipeline's thread calls ``publish``; it swaps in the result and returns. All else runs in the
server's thread. A listener takes the newest result when he is ready for one, so that a slow one
skips frames and nothing queues up.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgeseg.spec import LabelSpace
from edgeseg.video.page.protocol import Shot
from edgeseg.video.sinks import Output

_SHORTEST_GAP_S = 1 / 40  # between two wake-ups: faster is no smoother to the eye
_FPS_INERTIA = 0.9  # of the average time between results, where the pipeline tells no rate


class Listener:
    """Wait for results, on behalf of one connection.

    Attributes
    ----------
    sources : names of the sources that he looks at.
    engines : names of the engines that he looks at.
    event : is set whenever there may be something to send.

    Examples
    --------
    >>> Listener().sources
    ()
    """

    def __init__(self) -> None:
        self.sources: tuple[str, ...] = ()
        self.engines: tuple[str, ...] = ()
        self.event = asyncio.Event()


class Hub:
    """Keep the newest result of each source, encode it once, and wake its listeners.

    Parameters
    ----------
    labels : the classes and their colours.
    sources : names of the sources, in the order of ``Frame.source``.
    engines : names of the engines; the first is that of ``Output.labels``.

    Attributes
    ----------
    labels, sources, engines : as given.
    on_wanted : is called with the names of the further engines that somebody looks at, whenever
        they change.
    encoded : number of JPEG and label maps messages that were encoded.
    drawn : number of overlays that were drawn.
    closing : True once the server stops.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> Hub(CAMVID_11, ["camera0"], ["enet"]).newest("camera0") is None
    True
    """

    def __init__(self, labels: LabelSpace, sources: Sequence[str], engines: Sequence[str]) -> None:
        self.labels = labels
        self.sources = tuple(sources)
        self.engines = tuple(engines)
        self.on_wanted: Callable[[frozenset[str]], None] = lambda names: None
        self.encoded = 0
        self.drawn = 0
        self.closing = False

        self._newest: dict[str, Shot] = {}
        self._gaps_s: dict[str, float] = {}

        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()  # held for moments: it guards the loop's end
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="edgeseg-page-encode")
        self._parts: dict[str, tuple[int, dict[object, asyncio.Future[bytes]]]] = {}

        self._listeners: set[Listener] = set()
        self._wake_pending = False
        self._last_wake_s = 0.0

    # The pipeline's thread.

    def publish(self, output: Output) -> None:
        """Make a result the newest of its source.

        Parameters
        ----------
        output : the result; it is kept until the next one of its source.
        """
        number = output.frame.source
        name = self.sources[number] if number < len(self.sources) else f"source{number}"
        now = time.perf_counter()
        before = self._newest.get(name)

        self._newest[name] = Shot(
            output,
            source=name,
            engine=self.engines[0],
            serial=1 if before is None else before.serial + 1,
            received_s=now,
            fps=self._fps(name, before, output, now),
        )

        with self._lock:
            if self._loop is not None and self._listeners and not self._wake_pending:
                self._wake_pending = True
                self._loop.call_soon_threadsafe(self._wake_soon)

    def _fps(self, name: str, before: Shot | None, output: Output, now: float) -> float | None:
        """Return the rate that the pipeline tells, else that of the results."""
        if output.frame.lost_s is not None:
            return 0.0
        if output.status.fps is not None:
            return output.status.fps
        if before is None:
            return None
        gap_s = now - before.received_s
        average_s = self._gaps_s.get(name, gap_s)
        average_s = _FPS_INERTIA * average_s + (1 - _FPS_INERTIA) * gap_s
        self._gaps_s[name] = average_s
        return 1 / average_s if average_s > 0 else None

    # The server's thread.

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to wake listeners.

        Parameters
        ----------
        loop : the loop that the listeners run in.
        """
        with self._lock:
            self._loop = loop

    def close(self) -> None:
        """Wake all listeners for the last time; they see ``closing``."""
        with self._lock:
            self._loop = None
        self.closing = True
        self._wake()

    def free(self) -> None:
        """Forget the results and stop the encoding thread; any thread may call this."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._newest.clear()
        self._parts.clear()

    def newest(self, source: str) -> Shot | None:
        """Return the newest result of a source; None before the first.

        Parameters
        ----------
        source : its name.
        """
        return self._newest.get(source)

    def shots(self) -> list[Shot]:
        """Return the newest results of all sources, in the order of the sources."""
        names = list(self.sources) + [name for name in self._newest if name not in self.sources]
        return [self._newest[name] for name in names if name in self._newest]

    @property
    def listeners(self) -> int:
        """Return how many connections look at something, or could."""
        return len(self._listeners)

    def join(self, listener: Listener) -> None:
        """Begin to wake a listener.

        Parameters
        ----------
        listener : the listener of a new connection.
        """
        self._listeners.add(listener)

    def leave(self, listener: Listener) -> None:
        """Forget a listener.

        Parameters
        ----------
        listener : the listener of a connection that ended.
        """
        self._listeners.discard(listener)
        self.tell_wanted()

    def tell_wanted(self) -> None:
        """Call ``on_wanted``; to be called whenever a listener's choice changed."""
        wanted: set[str] = set()
        for listener in self._listeners:
            if listener.sources:
                wanted.update(listener.engines)
        self.on_wanted(frozenset(wanted & set(self.engines[1:])))

    async def message(self, shot: Shot, engines: tuple[str, ...]) -> bytes:
        """Return the message of a result, encoded once for all who look at these engines.

        Parameters
        ----------
        shot : the result.
        engines : names of the engines.
        """

        def encode() -> bytes:
            self.encoded += 1
            return shot.message(engines)

        return await self._once(shot, engines, encode)

    async def overlay(self, shot: Shot) -> bytes:
        """Return the drawn overlay of a result as JPEG, drawn once for all who read it.

        Parameters
        ----------
        shot : the result.
        """

        def draw() -> bytes:
            self.drawn += 1
            return shot.drawn(self.labels)

        return await self._once(shot, "overlay", draw)

    async def _once(self, shot: Shot, key: object, make: Callable[[], bytes]) -> bytes:
        """Return a part of a result; the encoding thread makes it at the first request."""
        serial, parts = self._parts.get(shot.source, (0, {}))
        if serial < shot.serial:
            parts = {}
            self._parts[shot.source] = shot.serial, parts
        if key not in parts:
            parts[key] = asyncio.get_running_loop().run_in_executor(self._pool, make)
        return await asyncio.shield(parts[key])

    def _wake_soon(self) -> None:
        """Wake all listeners, but not more often than the eye can see."""
        wait_s = self._last_wake_s + _SHORTEST_GAP_S - time.perf_counter()
        if wait_s > 0:
            asyncio.get_running_loop().call_later(wait_s, self._wake)
        else:
            self._wake()

    def _wake(self) -> None:
        """Set the events of all listeners."""
        self._last_wake_s = time.perf_counter()
        self._wake_pending = False
        for listener in self._listeners:
            listener.event.set()

    def facts(self) -> dict[str, Any]:
        """Return what the page must know before the first frame."""
        return {
            "type": "hello",
            "labels": self.labels.model_dump(),
            "sources": self.sources,
            "engines": self.engines,
        }
