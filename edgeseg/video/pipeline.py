"""Run source -> network -> draw -> write, overlapped and in order.

Each stage has a thread. The source reads ahead in its own thread; the network and the drawing
have one each. The writing stays in the caller's thread, where windows must live and where Ctrl-C
arrives. OpenCV and the engines release the GIL, so the stages run at the same time.
"""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.capabilities import NV12, PAINT
from edgeseg.errors import EngineError, OutputError
from edgeseg.imaging.postprocess import LabelMap, Picture, legend, overlay
from edgeseg.reporter import SILENT, Reporter
from edgeseg.spec import LabelSpace, ModelSpec
from edgeseg.video.frames import Channel, Frame, Source
from edgeseg.video.sinks import Output, Sink

STAGES = ("read", "network", "draw", "write")

_QUEUE = 2  # frames between two stages: enough to overlap, too few to add lag

# Nothing can interrupt a call of the engine; one that never returns must not hang the caller.
_JOIN_TIMEOUT_S = 10.0

_LEGEND_ROW_SHARE = 26  # a row of the legend is the frame's height divided by this
_LEGEND_MAX_SHARE = 0.5  # a legend wider than this share of the frame hides more than it tells

Clock = Callable[[], float]  # -> seconds


class Segmenter(Protocol):
    """Describe what ``segment`` runs: an engine, or any callable with a spec.

    One more attribute is optional: ``capabilities``, a set of names of ``edgeseg.capabilities``.
    With ``PAINT`` the engine has ``paint(frame, alpha) -> (labels, picture)`` and paints the
    pictures, too. With ``NV12`` it receives a camera's ``Nv12`` without conversion. Engines built
    with ``PlanOptions(kernels=True)`` have both.
    """

    @property
    def spec(self) -> ModelSpec:
        """Return the contract of the engine's model."""
        ...

    def __call__(self, frame: npt.NDArray[np.uint8], /) -> npt.NDArray[np.uint8]:
        """Return the (H, W) uint8 label map of an (H, W, 3) uint8 BGR frame."""
        ...


@dataclass(frozen=True)
class Percentiles:
    """Hold percentiles of one stage's latency.

    Attributes
    ----------
    p50, p95, p99 : milliseconds; linear interpolation between samples.
    """

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Summary:
    """Summarise a run.

    Attributes
    ----------
    frames_in : frames taken from the source.
    frames_out : frames written to every sink.
    dropped : frames that a live source skipped because the network was busy.
    wall_s : seconds from the request for the first frame to the end of writing the last one.
    fps : ``frames_out / wall_s``.
    latency_ms : latency per stage that ran: ``read``, ``network``, ``draw``, ``write``. The stages
        overlap, so do not add them up.
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
        """Return plain values for JSON."""
        return asdict(self)


class Samples:
    """Collect the durations of one stage in bounded memory.

    Keeps every duration up to ``capacity``, then a fair random sample of all (a reservoir).

    Parameters
    ----------
    capacity : number of durations to keep.

    Examples
    --------
    >>> samples = Samples()
    >>> for seconds in (0.01, 0.02, 0.03):
    ...     samples.add(seconds)
    >>> round(samples.percentiles_ms().p50, 3)
    20.0
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._values = np.empty(capacity, np.float64)
        self._seen = 0
        self._random = random.Random(0)

    def add(self, seconds: float) -> None:
        """Add one duration.

        Parameters
        ----------
        seconds : the duration.
        """
        full = self._seen >= len(self._values)
        slot = self._random.randrange(self._seen + 1) if full else self._seen
        if slot < len(self._values):
            self._values[slot] = seconds
        self._seen += 1

    def __len__(self) -> int:
        return self._seen

    def percentiles_ms(self) -> Percentiles:
        """Return the percentiles of the durations, milliseconds."""
        kept = min(self._seen, len(self._values))
        values_ms = self._values[:kept] * 1e3
        p50, p95, p99 = np.percentile(values_ms, (50, 95, 99), method="linear")
        return Percentiles(float(p50), float(p95), float(p99))


def segment(
    engine: Segmenter,
    source: Source,
    sinks: Sequence[Sink],
    *,
    alpha: float = 0.5,
    show_legend: bool = True,
    max_frames: int | None = None,
    reporter: Reporter = SILENT,
    clock: Clock = time.perf_counter,
) -> Summary:
    """Run an engine over a source, write the results to sinks, and close them all.

    Parameters
    ----------
    engine : maps (H, W, 3) uint8 BGR frames to (H, W) uint8 label maps, and has ``.spec.labels``.
        One thread calls it, not yours.
    source : from ``open_source``. It is closed here.
    sinks : objects of the sink classes. They are finished, or aborted after an error.
    alpha : weight of the colours in the pictures, 0 to 1.
    show_legend : draw the names of the classes into the pictures. The legend is left out if it
        would hide half of the frame.
    max_frames : number of frames after which to stop.
    reporter : receives the progress after each frame, in your thread.
    clock : returns seconds; tests pass their own.

    Returns
    -------
    A ``Summary``. Ctrl-C and a closed window end the run early without an error: the outputs so far
    are kept, and ``stopped`` names the reason.

    Raises
    ------
    OutputError : a sink would overwrite the source.
    EngineError : the engine returned something else than a label map of the frame's size.
    Any exception of the source, the engine, a sink or ``reporter`` is raised again, after the
    unfinished outputs were removed.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> from edgeseg.video import open_source
    >>> class AllSky:
    ...     spec = ModelSpec(architecture="none", input_size=(48, 64), labels=CAMVID_11)
    ...     def __call__(self, frame):
    ...         return np.zeros(frame.shape[:2], np.uint8)
    >>> segment(AllSky(), open_source("synthetic://?length=3&size=64x48"), sinks=[]).frames_out
    3
    """
    try:
        _refuse_overwriting(source, sinks)
        run = _Run(engine, source, sinks, max_frames, clock)
        if any(sink.needs_picture for sink in sinks):
            run.painter = _Painter(engine.spec.labels, alpha, show_legend)

        summary = run.execute(reporter)
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
    """Hold the threads, channels and clocks of one run."""

    def __init__(
        self,
        engine: Segmenter,
        source: Source,
        sinks: Sequence[Sink],
        max_frames: int | None,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._source = source
        self._sinks = sinks
        self._max_frames = max_frames
        self._clock = clock

        self._samples = {stage: Samples() for stage in STAGES}
        self._labelled: Channel[tuple[Frame, LabelMap, Picture | None]] = Channel(_QUEUE)
        self._drawn: Channel[Output] = Channel(_QUEUE)
        self._frames_in = 0
        self.painter: _Painter | None = None

    def execute(self, reporter: Reporter) -> Summary:
        """Start the stages, write in this thread until the end, and stop them again."""
        stages = (
            threading.Thread(
                target=_work,
                args=(self._segmented, self._labelled),
                name="edgeseg-network",
                daemon=True,
            ),
            threading.Thread(
                target=_work,
                args=(self._painted, self._drawn),
                name="edgeseg-draw",
                daemon=True,
            ),
        )

        self._start_s = self._clock()
        self._end_s = self._start_s
        self._frames_out = 0
        for stage in stages:
            stage.start()

        try:
            stopped = self._write_all(reporter)
        except KeyboardInterrupt:
            stopped = "interrupted"
        finally:
            self._stop(stages)
        return self._summary(stopped)

    def _segmented(self) -> Iterator[tuple[Frame, LabelMap, Picture | None]]:
        """Yield frames, labels, and pictures if the engine paints them: stages read and network."""
        engine: Any = self._engine
        capabilities: frozenset[str] = getattr(engine, "capabilities", frozenset())
        takes_nv12 = NV12 in capabilities
        if takes_nv12:
            self._source.hand_on_nv12()

        while self._max_frames is None or self._frames_in < self._max_frames:
            frame = next(self._source, None)
            if frame is None:
                return
            self._frames_in += 1
            self._samples["read"].add(frame.read_ms / 1e3)

            # The conversion of a frame to BGR counts as time of the network.
            start = self._clock()
            picture = None
            pixels: Any = frame.pixels if takes_nv12 else frame.image
            if self.painter is not None and PAINT in capabilities:
                labels, picture = engine.paint(pixels, self.painter.alpha)
            else:
                labels = engine(pixels)
            self._samples["network"].add(self._clock() - start)

            _require_label_map(frame, labels)
            yield frame, labels, picture

    def _painted(self) -> Iterator[Output]:
        """Yield results with pictures, if a sink needs them: stage draw."""
        for frame, labels, painted in self._labelled:
            if self.painter is None:
                yield Output(frame, labels, None)
                continue

            start = self._clock()
            if painted is None:
                painted = self.painter.paint(frame, labels)
            picture = self.painter.finish(painted)
            self._samples["draw"].add(self._clock() - start)

            yield Output(frame, labels, picture)

    def _write_all(self, reporter: Reporter) -> str:
        """Write all results in the caller's thread (stage write), and return why the run ended."""
        total = self._source.info.frames
        if self._max_frames is not None:
            total = self._max_frames if total is None else min(total, self._max_frames)

        for output in self._drawn:
            with _whole():
                self._write(output)
            reporter.progress("segment", self._frames_out, total)
            if any(sink.closed for sink in self._sinks):
                return "window closed"

        return "max_frames" if self._frames_out == self._max_frames else "end of source"

    def _write(self, output: Output) -> None:
        """Write one result to every sink."""
        start = self._clock()
        for sink in self._sinks:
            sink.write(output)

        self._end_s = self._clock()
        self._samples["write"].add(self._end_s - start)
        self._frames_out += 1

    def _stop(self, stages: Iterable[threading.Thread]) -> None:
        """Wake every thread, on whichever side it waits, and wait for its end."""
        self._drawn.close()
        self._labelled.close()
        self._source.close()

        deadline = time.monotonic() + _JOIN_TIMEOUT_S
        for stage in stages:
            stage.join(max(0.0, deadline - time.monotonic()))

    def _summary(self, stopped: str) -> Summary:
        """Return the summary of the run, which ended because of ``stopped``."""
        wall_s = self._end_s - self._start_s
        latency_ms: dict[str, Percentiles] = {}
        for stage, samples in self._samples.items():
            if len(samples):
                latency_ms[stage] = samples.percentiles_ms()

        return Summary(
            frames_in=self._frames_in,
            frames_out=self._frames_out,
            dropped=self._source.dropped,
            wall_s=wall_s,
            fps=self._frames_out / wall_s if wall_s > 0 else 0.0,
            latency_ms=latency_ms,
            stopped=stopped,
        )


class _Painter:
    """Paint overlays and legends; a legend is drawn once for each frame size."""

    def __init__(self, labels: LabelSpace, alpha: float, show_legend: bool) -> None:
        self.alpha = alpha
        self._labels = labels
        self._show_legend = show_legend
        self._panels: dict[tuple[int, int], Picture | None] = {}

    def paint(self, frame: Frame, labels: LabelMap) -> Picture:
        """Return the frame with the colours of its labels over it."""
        return overlay(frame.image, labels, self._labels, self.alpha)

    def finish(self, picture: Picture) -> Picture:
        """Draw the legend into a painted picture, in place, and return the picture."""
        panel = self._panel(picture.shape[0], picture.shape[1]) if self._show_legend else None
        if panel is not None:
            height, width = panel.shape[:2]
            corner = picture[:height, :width]
            corner[:] = cv2.addWeighted(corner, 0.25, panel, 0.75, 0.0)
        return picture

    def _panel(self, height: int, width: int) -> Picture | None:
        """Return the legend for frames of a size, or None if it would be too wide for them."""
        if (height, width) not in self._panels:
            row = max(14, height // _LEGEND_ROW_SHARE)
            panel = legend(self._labels, max(1, min(row * len(self._labels), height)))
            fits = panel.shape[1] <= width * _LEGEND_MAX_SHARE
            self._panels[height, width] = panel if fits else None
        return self._panels[height, width]


@contextmanager
def _whole() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block.

    Otherwise it would interrupt the writing of a frame, and leave one sink a frame ahead of the
    others.
    """
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
    """Put the items of a stage, then its exception if it raised one, into its channel."""
    error: BaseException | None = None
    try:
        for item in items():
            if not channel.put(item):
                break
    except BaseException as caught:  # any exception belongs to the caller of ``segment``
        error = caught
    channel.finish(error)


def _require_label_map(frame: Frame, labels: LabelMap) -> None:
    """Raise ``EngineError`` unless ``labels`` is (H, W) uint8 of the frame's size."""
    if labels.shape != frame.size or labels.dtype != np.uint8:
        raise EngineError(
            f"the engine's labels for frame {frame.name} are not a label map",
            got=f"{labels.shape} {labels.dtype}",
            expected=f"{frame.size} uint8",
        )


def _refuse_overwriting(source: Source, sinks: Sequence[Sink]) -> None:
    """Raise ``OutputError`` if a sink would overwrite what the source reads."""
    for sink in sinks:
        if source.path is None or sink.path is None:
            continue
        if source.path.resolve() == sink.path.resolve():
            raise OutputError(f"{sink.path}: is what is being read", hint="Give another output.")
        if _masks_beside(source.path, sink.path):
            raise OutputError(
                f"{sink.path}: a mask would replace {source.path}", hint="Give another folder."
            )


def _masks_beside(source: Path, folder: Path) -> bool:
    """Return whether a folder sink would write ``NAME.png`` over the one PNG that is the source."""
    is_png = source.is_file() and source.suffix.lower() == ".png"
    return is_png and folder.resolve() == source.resolve().parent
