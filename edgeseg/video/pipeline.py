"""Run source -> network -> draw -> write, overlapped and in order.

Each stage has a thread. The source reads ahead in its own thread; the network and the drawing
have one each. The writing stays in the caller's thread, where windows must live and where Ctrl-C
arrives. OpenCV and the engines release the GIL, so the stages run at the same time.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from edgeseg.capabilities import SIZES
from edgeseg.errors import OutputError
from edgeseg.reporter import SILENT, Reporter
from edgeseg.video.frames import Channel, Frame, Source
from edgeseg.video.gauges import Gauges
from edgeseg.video.interrupts import Terminated, held_back
from edgeseg.video.labelling import Clock, Extras, Labelled, Labeller, Segmenter
from edgeseg.video.painter import Painter
from edgeseg.video.parts import source_names, source_paths, tell_news
from edgeseg.video.sinks import Output, Sink
from edgeseg.video.summary import Percentiles, Samples, Summary
from edgeseg.video.view import View

T = TypeVar("T")

STAGES = ("read", "network", "draw", "write")

_QUEUE = 2  # frames between two stages: enough to overlap, too few to add lag

# Nothing can interrupt a call of the engine; one that never returns must not hang the caller.
_JOIN_TIMEOUT_S = 10.0


def segment(
    engine: Segmenter,
    source: Source,
    sinks: Sequence[Sink],
    *,
    view: View | None = None,
    max_frames: int | None = None,
    extras: Extras | None = None,
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
    view : how the pictures look; ``View()`` unless given.
    max_frames : number of frames after which to stop.
    extras : further engines, a filter over time, meters; nothing of that unless given.
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
    >>> import numpy as np
    >>> from edgeseg.spec import CAMVID_11, ModelSpec
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
            painter = Painter(engine.spec.labels, view, _network_size(engine))

        labeller = Labeller(
            engine,
            extras or Extras(),
            alpha=painter.alpha if painter and painter.takes_engine_pictures else None,
            wanted=lambda: frozenset().union(*(sink.wanted_engines for sink in sinks)),
            clock=clock,
        )
        run = _Run(labeller, source, sinks, painter, max_frames=max_frames, clock=clock)
        summary = run.execute(reporter, Gauges(engine, extras or Extras()))
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
    thread ``write`` and ``_ages``. The caller's thread reads all of them for the summary, after it
    has waited for the other threads.
    """

    def __init__(
        self,
        labeller: Labeller,
        source: Source,
        sinks: Sequence[Sink],
        painter: Painter | None,
        *,
        max_frames: int | None,
        clock: Clock,
    ) -> None:
        self._labeller = labeller
        self._source = source
        self._names = source_names(source)
        self._sinks = sinks
        self._painter = painter  # None if no sink needs pictures
        self._max_frames = max_frames
        self._clock = clock

        # Drawing and writing never slow the network of a live source down: they skip frames.
        live = source.info.live
        capacity = source.count if live else _QUEUE
        self._labelled: Channel[Labelled] = Channel(capacity, keep_newest=live)
        self._drawn: Channel[Output] = Channel(capacity, keep_newest=live)

        self._samples = {stage: Samples() for stage in STAGES}
        self._ages = Samples()
        self._told_errors = 0
        self._frames_in = 0
        self._frames_out = 0
        self._start_s = 0.0
        self._end_s = 0.0

    def execute(self, reporter: Reporter, gauges: Gauges) -> Summary:
        """Start the stages, write in this thread until the end, and stop them again."""
        stages = (
            _thread("network", self._network_stage, self._labelled),
            _thread("draw", lambda: self._draw_stage(gauges), self._drawn),
        )

        self._start_s = self._clock()
        self._end_s = self._start_s
        for stage in stages:
            stage.start()

        try:
            stopped = self._write_stage(reporter)
        except Terminated:
            stopped = "terminated"
        except KeyboardInterrupt:
            stopped = "interrupted"
        finally:
            self._stop(stages)
        return self._summary(stopped)

    def _network_stage(self) -> Iterator[Labelled]:
        """Yield labelled frames: stages read and network."""
        if self._labeller.takes_nv12:
            self._source.hand_on_nv12()

        while (frame := self._read()) is not None:
            labelled = self._labeller(frame)
            if labelled.network_ms is not None:
                self._samples["network"].add(labelled.network_ms / 1e3)
            yield labelled

    def _read(self) -> Frame | None:
        """Return the next frame; None after the last one, or after ``max_frames``."""
        if self._max_frames is not None and self._frames_in >= self._max_frames:
            return None

        frame = next(self._source, None)
        if frame is not None and frame.lost_s is None:
            self._frames_in += 1
            self._samples["read"].add(frame.read_ms / 1e3)
        return frame

    def _draw_stage(self, gauges: Gauges) -> Iterator[Output]:
        """Yield results with pictures, if a sink needs them: stage draw."""
        for labelled in self._labelled:
            frame = labelled.frame
            labels = labelled.labels
            status = gauges.status(labelled, self._source.dropped)
            picture = labelled.picture

            if self._painter is not None:
                start = self._clock()
                if picture is None:
                    picture = self._painter.paint(frame, labels)
                name = self._names[frame.source] if len(self._names) > 1 else ""
                picture = self._painter.finish(picture, labels, status, name)
                self._samples["draw"].add(self._clock() - start)

            yield Output(frame, labels, picture, labelled.others, status)

    def _write_stage(self, reporter: Reporter) -> str:
        """Write all results in the caller's thread, and return why the run ended: stage write."""
        total = self._source.info.frames
        if self._max_frames is not None:
            total = self._max_frames if total is None else min(total, self._max_frames)

        for output in self._drawn:
            with held_back():
                self._write(output)
            self._told_errors = tell_news(self._source, reporter, self._told_errors)
            reporter.progress("segment", self._frames_out, total)
            if any(sink.closed for sink in self._sinks):
                return "window closed"

        tell_news(self._source, reporter, self._told_errors)
        if self._frames_in == self._max_frames:
            return "max_frames"
        return "camera lost" if self._source.lost else "end of source"

    def _write(self, output: Output) -> None:
        """Write one result to every sink."""
        start = self._clock()
        for sink in self._sinks:
            sink.write(output)

        self._end_s = self._clock()
        if output.frame.lost_s is not None:
            return

        self._samples["write"].add(self._end_s - start)
        self._frames_out += 1
        if output.frame.captured_s is not None:
            self._ages.add(time.perf_counter() - output.frame.captured_s)

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
            skipped=self._labelled.dropped + self._drawn.dropped,
            reconnects=self._source.reconnects,
            age_ms=self._ages.percentiles_ms() if len(self._ages) else None,
        )


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


def _network_size(engine: Segmenter) -> tuple[int, int] | None:
    """Return the (H, W) of the labels that the network gives; None if frames run as they are."""
    capabilities: frozenset[str] = getattr(engine, "capabilities", frozenset())
    return None if SIZES in capabilities else engine.spec.input_size


def _refuse_overwriting(source: Source, sinks: Sequence[Sink]) -> None:
    """Raise ``OutputError`` if a sink would overwrite what the source reads."""
    for sink in sinks:
        for read in source_paths(source):
            if read is None or sink.path is None:
                continue
            if read.resolve() == sink.path.resolve():
                raise OutputError(
                    f"{sink.path}: is what is being read", hint="Give another output."
                )
            if _masks_beside(read, sink.path):
                raise OutputError(
                    f"{sink.path}: a mask would replace {read}", hint="Give another folder."
                )


def _masks_beside(source: Path, folder: Path) -> bool:
    """Return whether a folder sink would write ``NAME.png`` over the one PNG that is the source."""
    is_png = source.is_file() and source.suffix.lower() == ".png"
    return is_png and folder.resolve() == source.resolve().parent
