"""Run source -> network -> draw -> write, overlapped and in order.

Each stage has a thread. The source reads ahead in its own thread; the network and the drawing
have one each. The writing stays in the caller's thread, where windows must live and where Ctrl-C
arrives. OpenCV and the engines release the GIL, so the stages run at the same time.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edgeseg.capabilities import NV12, PAINT
from edgeseg.errors import EngineError, OutputError
from edgeseg.imaging.postprocess import LabelMap, Picture
from edgeseg.reporter import SILENT, Reporter
from edgeseg.spec import ModelSpec
from edgeseg.video.frames import Channel, Frame, Source
from edgeseg.video.painter import Painter
from edgeseg.video.sinks import Output, Sink
from edgeseg.video.summary import Percentiles, Samples, Summary

T = TypeVar("T")

STAGES = ("read", "network", "draw", "write")

_QUEUE = 2  # frames between two stages: enough to overlap, too few to add lag

# Nothing can interrupt a call of the engine; one that never returns must not hang the caller.
_JOIN_TIMEOUT_S = 10.0

Clock = Callable[[], float]  # -> seconds

# What the network stage passes on; the picture is None if the engine does not paint.
_Labelled = tuple[Frame, LabelMap, Picture | None]


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
        painter = None
        if any(sink.needs_picture for sink in sinks):
            painter = Painter(engine.spec.labels, alpha, show_legend)

        run = _Run(engine, source, sinks, painter, max_frames=max_frames, clock=clock)
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
    """Hold the threads, channels and clocks of one run.

    Each counter has one writer, so no lock is needed. The network thread counts ``_frames_in``; the
    caller's thread counts ``_frames_out`` and sets ``_start_s`` and ``_end_s``. Of ``_samples``,
    the network thread fills ``read`` and ``network``, the draw thread ``draw``, and the caller's
    thread ``write``. The caller's thread reads all of them for the summary, after it has waited for
    the other threads.
    """

    def __init__(
        self,
        engine: Segmenter,
        source: Source,
        sinks: Sequence[Sink],
        painter: Painter | None,
        *,
        max_frames: int | None,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._source = source
        self._sinks = sinks
        self._painter = painter  # None if no sink needs pictures
        self._max_frames = max_frames
        self._clock = clock

        # What the engine can do beyond a ``Segmenter``.
        capabilities: frozenset[str] = getattr(engine, "capabilities", frozenset())
        self._takes_nv12 = NV12 in capabilities
        self._paints = PAINT in capabilities

        self._labelled: Channel[_Labelled] = Channel(_QUEUE)
        self._drawn: Channel[Output] = Channel(_QUEUE)

        self._samples = {stage: Samples() for stage in STAGES}
        self._frames_in = 0
        self._frames_out = 0
        self._start_s = 0.0
        self._end_s = 0.0

    def execute(self, reporter: Reporter) -> Summary:
        """Start the stages, write in this thread until the end, and stop them again."""
        stages = (
            _thread("network", self._network_stage, self._labelled),
            _thread("draw", self._draw_stage, self._drawn),
        )

        self._start_s = self._clock()
        self._end_s = self._start_s
        for stage in stages:
            stage.start()

        try:
            stopped = self._write_stage(reporter)
        except KeyboardInterrupt:
            stopped = "interrupted"
        finally:
            self._stop(stages)
        return self._summary(stopped)

    def _network_stage(self) -> Iterator[_Labelled]:
        """Yield frames, labels, and pictures if the engine paints them: stages read and network."""
        if self._takes_nv12:
            self._source.hand_on_nv12()

        while True:
            frame = self._read()
            if frame is None:
                return

            start = self._clock()
            labels, picture = self._label(frame)
            self._samples["network"].add(self._clock() - start)

            _require_label_map(frame, labels)
            yield frame, labels, picture

    def _read(self) -> Frame | None:
        """Return the next frame; None after the last one, or after ``max_frames``."""
        if self._max_frames is not None and self._frames_in >= self._max_frames:
            return None

        frame = next(self._source, None)
        if frame is not None:
            self._frames_in += 1
            self._samples["read"].add(frame.read_ms / 1e3)
        return frame

    def _label(self, frame: Frame) -> tuple[LabelMap, Picture | None]:
        """Run the engine on a frame; return the labels, and the picture if the engine paints it.

        The conversion of a frame to BGR happens here, so it counts as time of the network.
        """
        engine: Any = self._engine  # NV12 and PAINT are more than ``Segmenter`` describes
        pixels: Any = frame.pixels if self._takes_nv12 else frame.image

        if self._painter is not None and self._paints:
            labels, picture = engine.paint(pixels, self._painter.alpha)
            return labels, picture
        return engine(pixels), None

    def _draw_stage(self) -> Iterator[Output]:
        """Yield results with pictures, if a sink needs them: stage draw."""
        for frame, labels, painted in self._labelled:
            if self._painter is None:
                yield Output(frame, labels, None)
                continue

            start = self._clock()
            if painted is None:
                painted = self._painter.paint(frame, labels)
            picture = self._painter.finish(painted)
            self._samples["draw"].add(self._clock() - start)

            yield Output(frame, labels, picture)

    def _write_stage(self, reporter: Reporter) -> str:
        """Write all results in the caller's thread, and return why the run ended: stage write."""
        total = self._source.info.frames
        if self._max_frames is not None:
            total = self._max_frames if total is None else min(total, self._max_frames)

        for output in self._drawn:
            with _ctrl_c_held_back():
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


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
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


def _thread(name: str, items: Callable[[], Iterator[T]], channel: Channel[T]) -> threading.Thread:
    """Return a thread, not yet started, that puts the items of a stage into its channel."""
    return threading.Thread(
        target=_work, args=(items, channel), name=f"edgeseg-{name}", daemon=True
    )


def _work(items: Callable[[], Iterator[T]], channel: Channel[T]) -> None:
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
