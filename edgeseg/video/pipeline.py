"""source -> network -> draw -> write, overlapped, in order.

Each stage has a thread: the source reads ahead in its own, the network and the drawing have one each, and the writing
stays in the caller's, where windows must live and where Ctrl-C arrives. OpenCV and the engines release the GIL.
"""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.errors import EngineError, OutputError
from edgeseg.postprocess import LabelMap, Picture, legend, overlay
from edgeseg.spec import LabelSpace, ModelSpec
from edgeseg.video.frames import Channel, Frame, Source
from edgeseg.video.sinks import Output, Sink

STAGES = ("read", "network", "draw", "write")

_QUEUE = 2  # frames between two stages: enough to overlap, too few to be lag
_JOIN_TIMEOUT_S = 10.0  # a network call cannot be interrupted; one that never returns must not hang the caller
_LEGEND_ROW_SHARE = 26  # a legend's row is this part of the frame's height
_LEGEND_MAX_SHARE = 0.5  # a legend wider than this much of the frame hides more than it tells

Clock = Callable[[], float]
Progress = Callable[[int, int | None], None]


class Segmenter(Protocol):
    """What ``segment`` runs: an engine, or any callable with a spec.

    One that has ``paint(frame, alpha) -> (labels, picture)``, as engines built with ``--kernels`` do, paints, too; one
    with ``takes_nv12`` is given a camera's ``Nv12`` as it is.
    """

    @property
    def spec(self) -> ModelSpec: ...
    def __call__(self, frame: npt.NDArray[np.uint8], /) -> npt.NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Percentiles:
    """Of one stage's latency, milliseconds; linear interpolation between samples."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes
    ----------
    frames_in, frames_out : frames taken from the source; frames written to every sink.
    dropped : frames a live source passed over, because the network was busy.
    wall_s : from asking for the first frame to having written the last.
    fps : ``frames_out / wall_s``.
    latency_ms : per stage that ran, of ``read``, ``network``, ``draw``, ``write``. They overlap: do not add them up.
    stopped : ``end of source``, ``max_frames``, ``interrupted`` (Ctrl-C) or ``window closed``.
    """

    frames_in: int
    frames_out: int
    dropped: int
    wall_s: float
    fps: float
    latency_ms: dict[str, Percentiles]
    stopped: str

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


class Samples:
    """Durations of one stage, in bounded memory: all of them up to ``capacity``, then a fair sample (a reservoir)."""

    def __init__(self, capacity: int = 100_000) -> None:
        self._values = np.empty(capacity, np.float64)
        self._seen = 0
        self._random = random.Random(0)

    def add(self, seconds: float) -> None:
        slot = self._seen if self._seen < len(self._values) else self._random.randrange(self._seen + 1)
        if slot < len(self._values):
            self._values[slot] = seconds
        self._seen += 1

    def __len__(self) -> int:
        return self._seen

    def percentiles_ms(self) -> Percentiles:
        values = self._values[: min(self._seen, len(self._values))] * 1e3
        p50, p95, p99 = (float(p) for p in np.percentile(values, (50, 95, 99), method="linear"))
        return Percentiles(p50, p95, p99)


def segment(
    engine: Segmenter,
    source: Source,
    sinks: Sequence[Sink],
    *,
    alpha: float = 0.5,
    show_legend: bool = True,
    max_frames: int | None = None,
    on_progress: Progress | None = None,
    clock: Clock = time.perf_counter,
) -> Summary:
    """Run an engine over a source into sinks, and close them all.

    Parameters
    ----------
    engine : ``(H, W, 3) uint8 BGR -> (H, W) uint8 labels``, with ``.spec.labels``. Called from one thread, not yours.
    source, sinks : from ``open_source`` and the sinks' constructors; both are finished or aborted, and closed, here.
    alpha : weight of the colours in the pictures, 0 to 1.
    show_legend : draw the classes' names into the pictures (left out where they would hide half the frame).
    max_frames : stop after so many.
    on_progress : called as ``on_progress(frames_out, total or None)`` in your thread after each frame.
    clock : seconds; for tests.

    Returns
    -------
    A ``Summary``. Ctrl-C and a closed window end the run early but well: the outputs so far are kept, and ``stopped``
    says so.

    Raises
    ------
    Whatever the source, the engine, a sink or ``on_progress`` raised, after unfinished outputs were removed.
    ``OutputError`` where a sink would overwrite the source.
    """
    try:
        _refuse_overwriting(source, sinks)
        run = _Run(engine, source, sinks, max_frames, clock)
        run.painter = _Painter(engine.spec.labels, alpha, show_legend) if any(s.needs_picture for s in sinks) else None
        summary = run.execute(on_progress)
        for sink in sinks:
            sink.finish()
        return summary
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    finally:
        source.close()


class _Run:
    """One run's threads, channels and clocks."""

    def __init__(
        self, engine: Segmenter, source: Source, sinks: Sequence[Sink], max_frames: int | None, clock: Clock
    ) -> None:
        self._engine, self._source, self._sinks = engine, source, sinks
        self._max_frames, self._clock = max_frames, clock
        self._samples = {stage: Samples() for stage in STAGES}
        self._labelled: Channel[tuple[Frame, LabelMap, Picture | None]] = Channel(_QUEUE)
        self._drawn: Channel[Output] = Channel(_QUEUE)
        self._frames_in = 0
        self.painter: _Painter | None = None

    def execute(self, on_progress: Progress | None) -> Summary:
        stages = (
            threading.Thread(target=_work, args=(self._segmented, self._labelled), name="edgeseg-network", daemon=True),
            threading.Thread(target=_work, args=(self._painted, self._drawn), name="edgeseg-draw", daemon=True),
        )
        self._start_s = self._end_s = self._clock()
        self._frames_out, stopped = 0, ""
        for stage in stages:
            stage.start()
        try:
            stopped = self._write_all(on_progress)
        except KeyboardInterrupt:
            stopped = "interrupted"
        finally:
            self._stop(stages)
        return self._summary(stopped)

    def _segmented(self) -> Iterator[tuple[Frame, LabelMap, Picture | None]]:
        """Stages read and network; an engine that paints gives the picture along with the labels."""
        paint = getattr(self._engine, "paint", None) if self.painter is not None else None
        takes_nv12 = getattr(self._engine, "takes_nv12", False)
        if takes_nv12:
            self._source.hand_on_nv12()
        while self._max_frames is None or self._frames_in < self._max_frames:
            frame = next(self._source, None)
            if frame is None:
                return
            self._frames_in += 1
            self._samples["read"].add(frame.read_ms / 1e3)
            start = self._clock()
            picture = None
            given: Any = frame.pixels if takes_nv12 else frame.image
            if paint is not None and self.painter is not None:
                labels, picture = paint(given, self.painter.alpha)
            else:
                labels = self._engine(given)
            self._samples["network"].add(self._clock() - start)
            if labels.shape != frame.size or labels.dtype != np.uint8:
                raise EngineError(
                    f"the engine's labels for frame {frame.name} are not a label map",
                    got=f"{labels.shape} {labels.dtype}",
                    expected=f"{frame.size} uint8",
                )
            yield frame, labels, picture

    def _painted(self) -> Iterator[Output]:
        """Stage draw."""
        for frame, labels, painted in self._labelled:
            if self.painter is None:
                yield Output(frame, labels, None)
                continue
            start = self._clock()
            picture = self.painter.finish(self.painter.paint(frame, labels) if painted is None else painted)
            self._samples["draw"].add(self._clock() - start)
            yield Output(frame, labels, picture)

    def _write_all(self, on_progress: Progress | None) -> str:
        """Stage write, in the caller's thread; gives back why it ended."""
        total = self._source.info.frames
        if self._max_frames is not None:
            total = self._max_frames if total is None else min(total, self._max_frames)
        for output in self._drawn:
            with _whole():
                self._write(output)
            if on_progress is not None:
                on_progress(self._frames_out, total)
            if any(sink.closed for sink in self._sinks):
                return "window closed"
        return "max_frames" if self._frames_out == self._max_frames else "end of source"

    def _write(self, output: Output) -> None:
        start = self._clock()
        for sink in self._sinks:
            sink.write(output)
        self._end_s = self._clock()
        self._samples["write"].add(self._end_s - start)
        self._frames_out += 1

    def _stop(self, stages: Iterable[threading.Thread]) -> None:
        """Wake every thread and wait for it, whichever side it waits on."""
        self._drawn.close()
        self._labelled.close()
        self._source.close()
        deadline = time.monotonic() + _JOIN_TIMEOUT_S
        for stage in stages:
            stage.join(max(0.0, deadline - time.monotonic()))

    def _summary(self, stopped: str) -> Summary:
        wall_s = self._end_s - self._start_s
        return Summary(
            frames_in=self._frames_in,
            frames_out=self._frames_out,
            dropped=self._source.dropped,
            wall_s=wall_s,
            fps=self._frames_out / wall_s if wall_s > 0 else 0.0,
            latency_ms={stage: samples.percentiles_ms() for stage, samples in self._samples.items() if len(samples)},
            stopped=stopped,
        )


class _Painter:
    """Overlay plus legend; the legend is drawn once for each frame size."""

    def __init__(self, labels: LabelSpace, alpha: float, show_legend: bool) -> None:
        self.alpha = alpha
        self._labels, self._show_legend = labels, show_legend
        self._panels: dict[tuple[int, int], Picture | None] = {}

    def paint(self, frame: Frame, labels: LabelMap) -> Picture:
        return overlay(frame.image, labels, self._labels, self.alpha)

    def finish(self, picture: Picture) -> Picture:
        """Draw the legend into a painted picture."""
        panel = self._panel(picture.shape[0], picture.shape[1]) if self._show_legend else None
        if panel is not None:
            height, width = panel.shape[:2]
            corner = picture[:height, :width]
            corner[:] = cv2.addWeighted(corner, 0.25, panel, 0.75, 0.0)
        return picture

    def _panel(self, height: int, width: int) -> Picture | None:
        if (height, width) not in self._panels:
            row = max(14, height // _LEGEND_ROW_SHARE)
            panel = legend(self._labels, max(1, min(row * len(self._labels), height)))
            fits = panel.shape[1] <= width * _LEGEND_MAX_SHARE
            self._panels[height, width] = panel if fits else None
        return self._panels[height, width]


@contextmanager
def _whole() -> Iterator[None]:
    """Hold Ctrl-C back inside the block: it would strike mid-frame, and leave one sink a frame ahead of the others."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    pending: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, where: pending.append((number, where)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if pending:
        handler(*pending[-1])


def _work(items: Callable[[], Iterator[object]], channel: "Channel[object]") -> None:
    """A stage's thread: its items into its channel, its exception behind them."""
    error: BaseException | None = None
    try:
        for item in items():
            if not channel.put(item):
                break
    except BaseException as caught:  # all of it belongs to the caller of segment
        error = caught
    channel.finish(error)


def _refuse_overwriting(source: Source, sinks: Sequence[Sink]) -> None:
    for sink in sinks:
        if source.path is not None and sink.path is not None and source.path.resolve() == sink.path.resolve():
            raise OutputError(f"{sink.path}: is what is being read", hint="Give another output.")
        if _masks_beside(source, sink):
            raise OutputError(f"{sink.path}: a mask would replace {source.path}", hint="Give another folder.")


def _masks_beside(source: Source, sink: Sink) -> bool:
    """Whether a folder sink would write ``NAME.png`` over the one PNG that is the source."""
    path, folder = source.path, sink.path
    is_png = path is not None and path.is_file() and path.suffix.lower() == ".png"
    return bool(is_png and path and folder and folder.resolve() == path.resolve().parent)
