"""A live source whose camera is lost: it repeats its last frame, tries again, and leaves nothing.

The camera is the synthetic one, whose faults go through the same code as those of real cameras.
"""

import itertools
import threading
import time

import pytest
from live_sources import descriptors, reader_threads, within

from edgeseg.errors import InputError
from edgeseg.video.frames import Frame, Source
from edgeseg.video.sources.live import LiveOptions
from edgeseg.video.sources.synthetic import open_synthetic

SMALL = "synthetic://?size=96x64&fps=60&realtime=1"


def read_until_back(source: Source, times: int, limit_s: float) -> list[Frame]:
    """The frames until a source came back some times."""
    frames: list[Frame] = []
    end_s = time.perf_counter() + limit_s
    while source.reconnects < times or frames[-1].lost_s is not None:
        assert time.perf_counter() < end_s
        frames.append(next(source))
    return frames


def test_a_lost_camera_repeats_its_last_frame_and_comes_back() -> None:
    with open_synthetic(f"{SMALL}&fault=unplug@0.3:1.6", LiveOptions(stall_s=0.5)) as source:
        frames = read_until_back(source, 1, 10)
        events = source.take_events()
        assert source.take_events() == []

    repeated = [frame for frame in frames if frame.lost_s is not None]
    last = frames[frames.index(repeated[0]) - 1]
    assert 2 <= len(repeated) <= 4
    for number, frame in enumerate(repeated):
        assert frame.pixels is last.pixels
        assert frame.index == last.index
        assert frame.captured_s == last.captured_s
        assert frame.lost_s is not None
        assert 0.5 * (number + 1) <= frame.lost_s < 0.5 * (number + 1) + 0.4
        assert frame.timestamp_s == pytest.approx(last.timestamp_s + frame.lost_s)

    assert frames[-1].index == last.index + 1
    assert frames[-1].timestamp_s > repeated[-1].timestamp_s - 0.2
    assert events[0] == "no signal (no such device); trying again"
    assert events[1].startswith("back after ")
    assert len(events) == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("stall@0.2:1", "no frame for 0.3 s|gives no frames"),
        ("drop@0.2", "the stream ended"),
        ("resize@0.2", "another size"),
    ],
)
def test_every_fault_ends_in_a_new_connection(fault: str, reason: str) -> None:
    with open_synthetic(f"{SMALL}&fault={fault}", LiveOptions(stall_s=0.3)) as source:
        frames = read_until_back(source, 1, 10)
        events = source.take_events()
    assert any(f"no signal ({words})" in events[0] for words in reason.split("|"))
    size = (48, 72) if fault.startswith("resize") else (64, 96)
    assert frames[0].size == (64, 96)
    assert frames[-1].size == size
    assert (source.info.width, source.info.height) == (96, 64)


def test_many_losses_leave_no_thread_and_no_descriptor() -> None:
    """Seven losses; the same with a hundred took no longer to return, either."""
    faults = ",".join(f"unplug@{0.3 + 0.8 * number:.2f}:0.3" for number in range(7))
    before = descriptors()
    with open_synthetic(f"{SMALL}&fault={faults}", LiveOptions(stall_s=0.5)) as source:
        frames = read_until_back(source, 7, 14)
        assert source.reconnects == 7
        assert len(reader_threads()) == 1
    assert reader_threads() == []
    assert descriptors() == before

    gaps = [
        second.captured_s - first.captured_s
        for first, second in itertools.pairwise(frames)
        if first.captured_s is not None and second.captured_s is not None
    ]
    away = [gap for gap in gaps if gap > 0.29]
    assert len(away) >= 7
    assert max(gaps) < 0.3 + 2.0  # back within two seconds


def test_a_camera_that_stays_away_is_given_up() -> None:
    options = LiveOptions(stall_s=0.3, give_up_s=1.0)
    start_s = time.perf_counter()
    with open_synthetic(f"{SMALL}&fault=unplug@0.2:99", options) as source:
        frames = list(source)
        assert 1.0 < time.perf_counter() - start_s < 6.0
        assert source.lost
        assert source.take_events()[-1] == "gave up after 1 s (no such device)"
    assert frames[-1].lost_s is not None


def test_a_camera_with_an_end_is_not_opened_again() -> None:
    with open_synthetic(f"{SMALL}&length=20", LiveOptions(stall_s=0.3)) as source:
        frames = list(source)
        assert (source.lost, source.reconnects, source.take_events()) == (False, 0, [])
    assert frames[-1].index == 19
    assert all(frame.lost_s is None for frame in frames)


def test_closing_ends_the_wait_for_a_lost_camera_at_once() -> None:
    source = open_synthetic(f"{SMALL}&fault=unplug@0.2:99", LiveOptions(stall_s=0.3))
    while next(source).lost_s is None:
        pass
    time.sleep(0.8)  # the second wait is longer
    consumer = threading.Thread(target=lambda: list(source))
    consumer.start()
    start_s = time.perf_counter()
    source.close()
    assert time.perf_counter() - start_s < 0.5
    consumer.join(1)
    assert not consumer.is_alive()
    assert reader_threads() == []


def test_the_first_failure_is_an_error_unless_waiting_is_wanted() -> None:
    uri = f"{SMALL}&fault=unplug@0:0.7"
    with pytest.raises(InputError, match="no such device"):
        open_synthetic(uri)

    heard: list[str] = []
    start_s = time.perf_counter()
    with open_synthetic(uri, LiveOptions(wait=True, on_wait=heard.append)) as source:
        assert time.perf_counter() - start_s > 0.5
        assert next(source).lost_s is None
    assert heard == ["no signal (no such device); trying again"]

    forever = f"{SMALL}&fault=unplug@0:99"
    with pytest.raises(InputError, match="no such device"):
        open_synthetic(forever, LiveOptions(wait=True, give_up_s=0.4))


@pytest.mark.parametrize("options", [{"stall_s": 0.0}, {"give_up_s": -1.0}])
def test_times_are_positive(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"`{next(iter(options))}`"):
        LiveOptions(**options)  # type: ignore[arg-type]


def test_every_frame_is_either_taken_or_dropped_and_those_taken_are_fresh() -> None:
    """A camera of 60 frames a second, and a consumer of ten."""
    ages: list[float] = []
    taken: list[int] = []
    with open_synthetic(f"{SMALL}&length=120") as source:
        for frame in source:
            time.sleep(0.1)
            taken.append(frame.index)
            assert frame.captured_s is not None
            ages.append(time.perf_counter() - frame.captured_s)
        dropped = source.dropped
    assert taken[-1] == 119
    assert len(taken) + dropped == 120 - taken[0]
    ages.sort()
    assert ages[int(0.95 * len(ages))] <= 1.5 * 0.1 + 1 / 60


def test_a_frame_that_waits_when_the_source_is_closed_was_dropped() -> None:
    with open_synthetic(f"{SMALL}&length=30") as source:
        first = next(source).index
        assert within(5, lambda: reader_threads() == [])
    assert 1 + source.dropped == 30 - first
