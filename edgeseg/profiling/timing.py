"""Time calls: warm-up by a rule, turns of several engines, statistics, a histogram as text."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgeseg.reporter import SILENT, Reporter
from edgeseg.types import Image

Call = Callable[[Image], object]
Clock = Callable[[], float]

# The rule of the warm-up: windows of at least so many calls and seconds; times have settled if the
# medians of three windows in a row differ by at most this share; it ends at the latest after the
# limit.
WINDOW_CALLS = 5
WINDOW_S = 0.2
WINDOWS = 3
SETTLED_SHARE = 0.05
LIMIT_S = 10.0
RULE = (
    f"windows of at least {WINDOW_CALLS} calls and {WINDOW_S:g} s, until the medians of {WINDOWS} "
    f"in a row differ by at most {100 * SETTLED_SHARE:g} %, for at most {LIMIT_S:g} s"
)

TURN_S = 1.0  # of one engine, before the next one has its turn
_BLOCKS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True)
class WarmUp:
    """Describe the warm-up of an engine.

    Attributes
    ----------
    calls : number of calls.
    seconds : how long they took.
    settled : True if times settled before the limit.
    """

    calls: int
    seconds: float
    settled: bool


@dataclass
class Timed:
    """Hold the calls of one engine.

    Attributes
    ----------
    starts_s, ends_s : start and end of each call, on the clock of the measurement.
    turns : start and end of each turn.
    """

    starts_s: list[float] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=list)
    turns: list[tuple[float, float]] = field(default_factory=list)

    @property
    def milliseconds(self) -> npt.NDArray[np.float64]:
        """Return the time of each call in milliseconds."""
        seconds = np.asarray(self.ends_s, np.float64) - np.asarray(self.starts_s, np.float64)
        return 1e3 * seconds


def warm_up(call: Call, frames: Sequence[Image], clock: Clock = time.perf_counter) -> WarmUp:
    """Call an engine until its times settle, by ``RULE``.

    Parameters
    ----------
    call : the engine, or any function of a frame.
    frames : (H, W, 3) uint8 BGR; they are repeated.
    clock : returns the time in seconds; tests pass a fake one.
    """
    begin = clock()
    medians: list[float] = []
    calls = 0
    while True:
        times: list[float] = []
        window = clock()
        while len(times) < WINDOW_CALLS or clock() - window < WINDOW_S:
            start = clock()
            call(frames[calls % len(frames)])
            times.append(clock() - start)
            calls += 1
        medians.append(float(np.median(times)))

        last = medians[-WINDOWS:]
        settled = len(last) == WINDOWS and max(last) <= min(last) * (1 + SETTLED_SHARE)
        spent = clock() - begin
        if settled or spent >= LIMIT_S:
            return WarmUp(calls, spent, settled)


def take_turns(
    calls: Sequence[Call],
    frames: Sequence[Image],
    seconds: float,
    *,
    turn_s: float = TURN_S,
    clock: Clock = time.perf_counter,
    reporter: Reporter = SILENT,
    after_turn: Callable[[int], None] | None = None,
) -> list[Timed]:
    """Time engines in turns until each has run for some seconds.

    Each round gives every engine one turn and starts with the next engine, so that drift of the
    machine hits all alike and none always runs after the same other one. A turn starts with one
    call that is not counted.

    Parameters
    ----------
    calls : engines, or any functions of a frame.
    frames : (H, W, 3) uint8 BGR; they are repeated.
    seconds : time of each engine over all its turns.
    turn_s : time of one turn.
    clock : returns the time in seconds; tests pass a fake one.
    reporter : receives the progress over all turns.
    after_turn : called after each turn with the place of the engine.
    """
    done = [Timed() for _ in calls]
    rounds = max(1, round(seconds / turn_s))
    length = seconds / rounds
    total = rounds * len(calls)
    reporter.progress("measure", 0, total)
    for number in range(total):
        round_number, place = divmod(number, len(calls))
        turn = (round_number + place) % len(calls)
        _turn(calls[turn], frames, length, clock, done[turn])
        if after_turn is not None:
            after_turn(turn)
        reporter.progress("measure", number + 1, total)
    return done


def _turn(call: Call, frames: Sequence[Image], seconds: float, clock: Clock, timed: Timed) -> None:
    """Run one turn, and add its calls."""
    call(frames[0])
    first = clock()
    number = 0
    while True:
        start = clock()
        call(frames[number % len(frames)])
        end = clock()
        timed.starts_s.append(start)
        timed.ends_s.append(end)
        number += 1
        if end - first >= seconds:
            timed.turns.append((first, end))
            return


def text_bars(
    edges_ms: Sequence[float], counts: Sequence[int], width: int = 40, lines: int = 10
) -> list[str]:
    """Return a histogram as lines of text: lower bound, bar, number of calls.

    Parameters
    ----------
    edges_ms : bounds of the bins; the last bin, above the last bound, is open.
    counts : number of calls per bin, as many as bounds.
    width : characters of the longest bar.
    lines : number of lines at most, without the last bin; bins are joined for it.

    Examples
    --------
    >>> for line in text_bars([1.0, 1.5, 2.0], [3, 0, 1], width=6):
    ...     print(line)
    1.00 ██████ 3
    1.50        0
    2.00 ██     1
    """
    step = -(-(len(counts) - 1) // lines)
    rows: list[tuple[float, int]] = []
    for first in range(0, len(counts) - 1, step):
        rows.append((edges_ms[first], sum(counts[first : min(first + step, len(counts) - 1)])))
    rows.append((edges_ms[-1], counts[-1]))

    most = max(count for _, count in rows) or 1
    labels = [_number(edge) for edge, _ in rows]
    longest = max(len(label) for label in labels)
    digits = max(len(str(count)) for _, count in rows)
    return [
        f"{label:>{longest}} {_bar(count / most, width):<{width}} {count:>{digits}}"
        for label, (_, count) in zip(labels, rows, strict=True)
    ]


def _bar(share: float, width: int) -> str:
    """Return a bar in eighths of a character; one call is always seen."""
    eighths = round(share * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    return "█" * (eighths // 8) + (_BLOCKS[eighths % 8] if eighths % 8 else "")


def _number(value: float) -> str:
    """Return milliseconds with two digits behind the point, or fewer for large ones."""
    return f"{value:.2f}" if value < 100 else f"{value:.1f}"
