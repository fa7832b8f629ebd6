"""Label the frames of a run: the engine, further engines, the filter over time, and their times."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeseg.capabilities import NV12, PAINT
from edgeseg.errors import EngineError
from edgeseg.imaging.postprocess import LabelMap, Picture
from edgeseg.spec import ModelSpec
from edgeseg.video.frames import Frame

_RATE_WINDOW_S = 2.0  # the rate on the picture is that of the last two seconds

Clock = Callable[[], float]  # -> seconds
Smoother = Callable[[npt.NDArray[np.uint8], LabelMap], LabelMap]  # BGR frame, labels -> labels
FlickerOf = Callable[[npt.NDArray[np.uint8], LabelMap], float | None]  # BGR frame, labels -> share


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
class Extras:
    """Hold what a run does beside labelling each frame with one engine.

    Attributes
    ----------
    others : further engines, by name. One labels a frame only while a sink wants its labels.
    smoother : makes a filter over time, one for each source, such as ``LabelSmoother``. Its labels
        replace those of the engine.
    flicker : makes a meter of flicker, one for each source. It sees the labels before the filter.
    sensors : reads the temperature of the hottest processor, degrees Celsius, and the power of the
        device, watts; None for what is unknown. It is called about once a second.
    """

    others: Mapping[str, Segmenter] = field(default_factory=dict)
    smoother: Callable[[], Smoother] | None = None
    flicker: Callable[[], FlickerOf] | None = None
    sensors: Callable[[], tuple[float | None, float | None]] | None = None


@dataclass(frozen=True, eq=False)
class Labelled:
    """Hold a frame and what the network stage found out about it.

    Attributes
    ----------
    frame : the frame.
    labels : (H, W) uint8 label ids.
    picture : the painted frame, if the engine paints; else None.
    others : label maps of further engines, by name.
    network_ms : milliseconds that the engine took; None for a repeated frame, which it did not see.
    fps : frames that the engine labels per second, over the last two seconds.
    flicker : share of pixels that flicker; None if it is not measured.
    """

    frame: Frame
    labels: LabelMap
    picture: Picture | None
    others: Mapping[str, LabelMap]
    network_ms: float | None
    fps: float | None
    flicker: float | None


class Labeller:
    """Label frames one by one, in one thread.

    Parameters
    ----------
    engine : labels every frame.
    extras : further engines, filters and meters.
    alpha : weight of the colours if pictures are needed and the engine paints; None for no picture.
    wanted : returns the names of the further engines that are wanted now.
    clock : returns seconds.

    Attributes
    ----------
    takes_nv12 : True if the engine reads ``Nv12`` frames.
    """

    def __init__(
        self,
        engine: Segmenter,
        extras: Extras,
        *,
        alpha: float | None,
        wanted: Callable[[], Iterable[str]] = lambda: (),
        clock: Clock = time.perf_counter,
    ) -> None:
        capabilities: frozenset[str] = getattr(engine, "capabilities", frozenset())
        self.takes_nv12 = NV12 in capabilities
        self._engine = engine
        self._extras = extras
        self._wanted = wanted
        self._clock = clock

        # Painted on the device, the filter's labels would be missing from the picture.
        paints = PAINT in capabilities and extras.smoother is None
        self._alpha = alpha if paints else None

        # By source.
        self._last: dict[int, LabelMap] = {}
        self._smoothers: dict[int, Smoother] = {}
        self._meters: dict[int, FlickerOf] = {}
        self._ends_s: dict[int, deque[float]] = {}

    def __call__(self, frame: Frame) -> Labelled:
        """Label a frame.

        A frame that a lost source repeats keeps the labels that it had; no engine runs.

        Raises
        ------
        EngineError : an engine returned something else than a label map of the frame's size.
        """
        if frame.lost_s is not None:
            return self._repeated(frame)

        start_s = self._clock()
        labels, picture = self._run(frame)
        end_s = self._clock()
        _require_label_map(frame, labels)

        flicker = self._flicker(frame, labels)
        labels = self._smoothed(frame, labels)
        self._last[frame.source] = labels
        return Labelled(
            frame,
            labels,
            picture,
            others=self._others(frame),
            network_ms=(end_s - start_s) * 1e3,
            fps=self._rate(frame.source, end_s),
            flicker=flicker,
        )

    def _run(self, frame: Frame) -> tuple[LabelMap, Picture | None]:
        """Run the engine on a frame; return the labels, and the picture if the engine paints it.

        The conversion of a frame to BGR happens here, so it counts as time of the network.
        """
        engine: Any = self._engine  # NV12 and PAINT are more than ``Segmenter`` describes
        pixels: Any = frame.pixels if self.takes_nv12 else frame.image
        if self._alpha is None:
            return engine(pixels), None

        labels, picture = engine.paint(pixels, self._alpha)
        return labels, picture

    def _repeated(self, frame: Frame) -> Labelled:
        """Return a repeated frame with the labels of its picture, or with none."""
        labels = self._last.get(frame.source)
        if labels is None or labels.shape != frame.size:
            labels = np.full(frame.size, self._engine.spec.labels.ignore_id, np.uint8)
        self._ends_s.pop(frame.source, None)
        return Labelled(frame, labels, None, {}, network_ms=None, fps=None, flicker=None)

    def _others(self, frame: Frame) -> dict[str, LabelMap]:
        """Return the labels of the further engines that are wanted."""
        labels: dict[str, LabelMap] = {}
        if self._extras.others:
            for name in self._wanted():
                if name in self._extras.others:
                    labels[name] = self._extras.others[name](frame.image)
                    _require_label_map(frame, labels[name])
        return labels

    def _flicker(self, frame: Frame, labels: LabelMap) -> float | None:
        """Return the share of pixels that flicker, if it is measured."""
        if self._extras.flicker is None:
            return None
        if frame.source not in self._meters:
            self._meters[frame.source] = self._extras.flicker()
        return self._meters[frame.source](frame.image, labels)

    def _smoothed(self, frame: Frame, labels: LabelMap) -> LabelMap:
        """Return the labels after the filter over time, if there is one."""
        if self._extras.smoother is None:
            return labels
        if frame.source not in self._smoothers:
            self._smoothers[frame.source] = self._extras.smoother()
        return self._smoothers[frame.source](frame.image, labels)

    def _rate(self, source: int, end_s: float) -> float | None:
        """Return the frames per second of a source; None until there are two frames."""
        ends_s = self._ends_s.setdefault(source, deque())
        ends_s.append(end_s)
        while end_s - ends_s[0] > _RATE_WINDOW_S and len(ends_s) > 2:
            ends_s.popleft()

        span_s = ends_s[-1] - ends_s[0]
        return (len(ends_s) - 1) / span_s if span_s > 0 else None


def _require_label_map(frame: Frame, labels: LabelMap) -> None:
    """Raise ``EngineError`` unless ``labels`` is (H, W) uint8 of the frame's size."""
    if labels.shape != frame.size or labels.dtype != np.uint8:
        raise EngineError(
            f"the engine's labels for frame {frame.name} are not a label map",
            got=f"{labels.shape} {labels.dtype}",
            expected=f"{frame.size} uint8",
        )
