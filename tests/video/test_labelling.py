"""Check the network stage: repeated frames, further engines, filters over time, and the rate."""

import numpy as np
import pytest

from edgeseg.errors import EngineError
from edgeseg.imaging.postprocess import LabelMap
from edgeseg.spec import CAMVID_11, ModelSpec
from edgeseg.types import Image
from edgeseg.video.frames import Frame
from edgeseg.video.labelling import Extras, Labeller

SPEC = ModelSpec(architecture="stub", input_size=(4, 6), labels=CAMVID_11)


class Constant:
    """An engine that gives one label, and counts its calls."""

    spec = SPEC

    def __init__(self, label: int) -> None:
        self.label = label
        self.calls = 0

    def __call__(self, frame: Image) -> LabelMap:
        self.calls += 1
        return np.full(frame.shape[:2], self.label, np.uint8)


def frame(index: int, *, lost_s: float | None = None, source: int = 0) -> Frame:
    pixels = np.full((4, 6, 3), index, np.uint8)
    return Frame(index, pixels, f"{index:06d}", index / 10, lost_s=lost_s, source=source)


def test_a_repeated_frame_keeps_its_labels_and_runs_no_engine() -> None:
    engine = Constant(3)
    labeller = Labeller(engine, Extras(), alpha=None)
    seen = labeller(frame(0))
    again = labeller(frame(0, lost_s=2.5))
    assert engine.calls == 1
    assert again.labels is seen.labels
    assert again.network_ms is None
    assert again.fps is None


def test_a_frame_that_is_lost_from_the_start_has_no_labels() -> None:
    labelled = Labeller(Constant(3), Extras(), alpha=None)(frame(0, lost_s=2.0))
    assert set(labelled.labels.ravel()) == {CAMVID_11.ignore_id}


def test_further_engines_run_only_while_a_sink_wants_them() -> None:
    wanted: set[str] = set()
    int8 = Constant(5)
    labeller = Labeller(
        Constant(3), Extras(others={"int8": int8}), alpha=None, wanted=lambda: wanted
    )
    assert labeller(frame(0)).others == {}
    assert int8.calls == 0

    wanted |= {"int8", "no such engine"}
    others = labeller(frame(1)).others
    assert list(others) == ["int8"]
    assert set(others["int8"].ravel()) == {5}


def test_each_source_has_its_own_filter_and_its_own_meter() -> None:
    class Filter:
        def __init__(self) -> None:
            self.seen: list[int] = []
            filters.append(self)

        def __call__(self, image: Image, labels: LabelMap) -> LabelMap:
            self.seen.append(int(image[0, 0, 0]))
            return np.full_like(labels, 9)

    class Meter:
        def __call__(self, image: Image, labels: LabelMap) -> float:
            return float(labels[0, 0])  # sees what the engine gave, not what the filter gave

    filters: list[Filter] = []
    labeller = Labeller(Constant(3), Extras(smoother=Filter, flicker=Meter), alpha=None)
    for index in range(4):
        labelled = labeller(frame(index, source=index % 2))
        assert set(labelled.labels.ravel()) == {9}
        assert labelled.flicker == 3.0
    assert [one.seen for one in filters] == [[0, 2], [1, 3]]


def test_the_rate_is_that_of_the_last_seconds() -> None:
    now = [0.0]
    labeller = Labeller(Constant(3), Extras(), alpha=None, clock=lambda: now[0])
    rates: list[float | None] = []
    for index in range(60):
        now[0] += 0.1 if index < 40 else 0.05  # 10 frames per second, then 20
        rates.append(labeller(frame(index)).fps)
    assert rates[0] is None
    assert rates[20] == pytest.approx(10)
    assert rates[-1] == pytest.approx(15, abs=1)  # the last two seconds hold both


def test_labels_of_another_size_are_refused() -> None:
    class Wrong(Constant):
        def __call__(self, frame: Image) -> LabelMap:
            return np.zeros((2, 2), np.uint8)

    with pytest.raises(EngineError, match="not a label map"):
        Labeller(Wrong(0), Extras(), alpha=None)(frame(0))
    labeller = Labeller(
        Constant(0), Extras(others={"b": Wrong(0)}), alpha=None, wanted=lambda: ["b"]
    )
    with pytest.raises(EngineError, match="not a label map"):
        labeller(frame(0))
