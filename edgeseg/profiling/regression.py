"""Check a comparison against a saved one. An unexplained gain is an alarm, too.

The rule, in points (hundredths of a score): the mIoU, mean boundary F and label agreement of an
engine may each move by ``max_drop`` from the saved comparison. The mIoU and the IoU of a class must
also move beyond the confidence interval of the change, which is drawn from the counts per frame of
both comparisons (``edgeseg.metrics.bootstrap``): a change that a few frames make is no alarm. So
the IoU of one class may have a narrow tolerance, twice ``max_drop``.

A comparison that was saved without counts per frame has no intervals. Then the IoU of a class may
move by four times ``max_drop``: the mean of n independent changes is sqrt(n) times steadier than
one of them, which is 3.3 for 11 classes and 4.4 for 19.

Every engine is compared with its own saved scores, found by its id (NAME@PRECISION). Latency
depends on the machine. So only its ratio to the first engine's latency is compared (medians), and a
change is only a warning unless the caller gives a limit.
"""

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeseg.errors import InputError
from edgeseg.metrics.bootstrap import Counts, FrameCounts, Interval, Intervals, change_intervals
from edgeseg.profiling.comparison import FORMAT, KIND, Comparison
from edgeseg.spec import first_problem

CLASS_FACTOR = 2  # tolerance of a class, in units of that of the mean
CLASS_FACTOR_ALONE = 4  # the same without intervals
GATE_CONFIDENCE = 0.99  # an engine has a dozen numbers, and each is a chance of a false alarm
SLOWDOWN_WARNED = 1.25  # growth of the latency ratio; medians repeat within a few percent

_RENEW = "improved without explanation: if it is meant, renew the baseline with `json`"
_ROUNDING = 1e-9


class _Saved(BaseModel):
    """Read part of a saved comparison; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class _Class(_Saved):
    """Hold the saved scores of one class."""

    iou: float | None


class _Engine(_Saved):
    """Hold the saved scores of one engine."""

    id: str
    agreement: float
    latency_ratio: float | None
    miou: float | None = None
    boundary_f: float | None = None
    per_class: dict[str, _Class] = {}
    true_positive_per_frame: dict[str, str] | None = None
    predicted_per_frame: dict[str, str] | None = None


class _Data(_Saved):
    """Hold the saved facts of the data."""

    name: str
    frames: int
    sha256: str
    pixels_sha256: str
    truth_per_frame: dict[str, str] | None = None


class _Machine(_Saved):
    """Hold the saved facts of the machine."""

    cpu: str


class _Comparison(_Saved):
    """Hold the part of ``Comparison.to_dict`` that a later comparison is checked against."""

    kind: Literal["edgeseg comparison"]
    format: Literal[1]
    reference: str
    data: _Data
    machine: _Machine
    engines: tuple[_Engine, ...] = Field(min_length=1)


def read_baseline(path: Path) -> dict[str, Any]:
    """Read a saved comparison.

    Parameters
    ----------
    path : a JSON file of ``Comparison.to_dict()``.

    Raises
    ------
    InputError : the file is missing, damaged, or not a comparison.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: no such baseline", got=error.strerror, hint="Save one: `json=FILE`."
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: the baseline is not JSON", got=error) from error

    _parse(value, str(path))
    return dict(value)


def _parse(value: object, source: str = "the baseline") -> _Comparison:
    """Check and read ``Comparison.to_dict()``; raise ``InputError`` with the name ``source``."""
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise InputError(
            f"{source}: not a saved comparison", hint="Save one: `compare(..., json=FILE)`."
        )
    if value.get("format") != FORMAT:
        raise InputError(
            f"{source}: another edgeseg's format", got=value.get("format"), expected=FORMAT
        )
    try:
        return _Comparison.model_validate(value)
    except ValidationError as error:
        raise InputError(
            f"{source}: the saved comparison is damaged", got=first_problem(error)
        ) from error


def check_against(
    baseline: dict[str, Any],
    comparison: Comparison,
    *,
    max_drop: float = 0.5,
    max_gain: float | None = None,
    max_slowdown: float | None = None,
) -> list[str]:
    """Return one line per score that moved too far from a saved comparison.

    Parameters
    ----------
    baseline : the saved ``Comparison.to_dict()``, as ``read_baseline`` returns it.
    comparison : the new comparison.
    max_drop : points that a mean score may fall; 0.5 is half a percentage point. The IoU of one
        class may move ``CLASS_FACTOR`` times as far, ``CLASS_FACTOR_ALONE`` times if the baseline
        has no counts per frame.
    max_gain : points that a mean score may rise; ``max_drop`` by default.
    max_slowdown : factor by which an engine's median latency, relative to the first engine's, may
        grow. ``None``: no limit.

    Raises
    ------
    InputError : the two cannot be compared: other data, other engines, another first engine, or a
        damaged baseline; or ``max_drop`` or ``max_gain`` is negative or not finite.
    """
    bands = (max_drop, max_drop if max_gain is None else max_gain)
    if not all(math.isfinite(band) and band >= 0 for band in bands):
        raise InputError("not a band of points", got=bands, expected="numbers from 0 up")

    then = _parse(baseline)
    now = _parse(comparison.to_dict(), "this comparison")
    _require_same(then, now)

    # Scores: the means, then each class.
    problems: list[str] = []
    for old, new in _pairs(then, now):
        intervals = _intervals(then, old, now, new)
        mean = None if intervals is None else intervals.mean
        problems += _moved(f"{new.id}: mIoU", old.miou, new.miou, bands, mean)
        problems += _moved(f"{new.id}: boundary F", old.boundary_f, new.boundary_f, bands)
        problems += _moved(f"{new.id}: label agreement", old.agreement, new.agreement, bands)
        factor = CLASS_FACTOR_ALONE if intervals is None else CLASS_FACTOR
        wide = (factor * bands[0], factor * bands[1])
        for index, (name, saved) in enumerate(old.per_class.items()):
            iou = new.per_class[name].iou
            interval = None if intervals is None else intervals.classes[index]
            problems += _moved(f"{new.id}: IoU of {name}", saved.iou, iou, wide, interval)

    # Latency.
    if max_slowdown is not None:
        for line in _slower(then, now, max_slowdown):
            problems.append(f"{line}, more than the {max_slowdown:g} allowed")
    return problems


def warnings_against(baseline: dict[str, Any], comparison: Comparison) -> list[str]:
    """Return one line per change that is no regression but worth knowing.

    These are a slower engine relative to the first one, and frames that decode to other pixels.

    Parameters
    ----------
    baseline : the saved ``Comparison.to_dict()``, as ``read_baseline`` returns it.
    comparison : the new comparison.

    Raises
    ------
    InputError : the baseline is damaged.
    """
    then = _parse(baseline)
    now = _parse(comparison.to_dict(), "this comparison")

    warnings = _slower(then, now, SLOWDOWN_WARNED)
    if warnings and then.machine.cpu != now.machine.cpu:
        warnings.append(
            f"the baseline's latency is of another processor ({then.machine.cpu}; this: "
            f"{now.machine.cpu})"
        )
    if then.data.pixels_sha256 != now.data.pixels_sha256:
        warnings.append(
            "the frames' pixels are not the baseline's (changed, or another decoder), their labels "
            "are"
        )
    return warnings


def _require_same(then: _Comparison, now: _Comparison) -> None:
    """Raise ``InputError`` unless both have the same frames, labels and engines."""
    facts = (
        ("frames", then.data.frames, now.data.frames),
        ("data (another hash of names and labels)", then.data.sha256[:12], now.data.sha256[:12]),
        ("first engine", then.reference, now.reference),
        ("engines", _engine_ids(then), _engine_ids(now)),
        ("classes", _class_names(then), _class_names(now)),
    )
    for what, old, new in facts:
        if old != new:
            raise InputError(
                f"the baseline is of other {what}",
                got=new,
                expected=old,
                hint=f"Compare on its data ({then.data.name}, {then.data.frames} frames) and "
                "engines, "
                "or renew it with `json`.",
            )


def _engine_ids(comparison: _Comparison) -> str:
    """Return the sorted ids of all engines, as text."""
    return ", ".join(sorted(engine.id for engine in comparison.engines))


def _class_names(comparison: _Comparison) -> str:
    """Return the class names of the engines, as text, without repetition."""
    names = {", ".join(engine.per_class) for engine in comparison.engines}
    return "; ".join(sorted(names))


def _pairs(then: _Comparison, now: _Comparison) -> list[tuple[_Engine, _Engine]]:
    """Return each engine's saved and new scores, in the new order."""
    old = {engine.id: engine for engine in then.engines}
    return [(old[engine.id], engine) for engine in now.engines]


def is_beyond(interval: Interval | None, change: float, tolerance: float) -> bool:
    """Return True if a change is beyond its tolerance and beyond its confidence interval.

    Parameters
    ----------
    interval : interval of the change; ``None`` or NaN: only the tolerance counts.
    change : the change, a share. The interval is moved to it if its own value differs.
    tolerance : points, hundredths of a share.

    Examples
    --------
    >>> is_beyond(Interval(-0.02, -0.05, 0.01), -0.02, tolerance=0.5)
    False
    >>> is_beyond(Interval(-0.02, -0.03, -0.01), -0.02, tolerance=0.5)
    True
    """
    if abs(100 * change) <= tolerance + _ROUNDING:
        return False
    if interval is None or interval.to_list() is None:
        return True
    shift = change - interval.value
    return Interval(change, interval.low + shift, interval.high + shift).excludes_zero


def _intervals(then: _Comparison, old: _Engine, now: _Comparison, new: _Engine) -> Intervals | None:
    """Return the intervals of an engine's changes; ``None`` if one side has no counts per frame."""
    before = _counts(then, old)
    after = _counts(now, new)
    if before is None or after is None:
        return None
    return change_intervals(before, after, confidence=GATE_CONFIDENCE)


def _counts(comparison: _Comparison, engine: _Engine) -> FrameCounts | None:
    """Return the counts per frame of an engine, if they were saved."""
    lines = (
        engine.true_positive_per_frame,
        comparison.data.truth_per_frame,
        engine.predicted_per_frame,
    )
    parts: list[Counts] = []
    for line in lines:
        if line is None:
            return None
        parts.append(_numbers(line, list(engine.per_class), comparison.data.frames))
    return FrameCounts(*parts)


def _numbers(lines: dict[str, str], names: list[str], frames: int) -> Counts:
    """Return saved counts, (frames, classes) int64."""
    try:
        columns = [[int(number) for number in lines[name].split()] for name in names]
        table: Counts = np.array(columns, np.int64).T
        if table.shape != (frames, len(names)):
            raise ValueError(f"counts of shape {table.shape}")
    except (KeyError, ValueError, OverflowError) as error:
        raise InputError(
            "the baseline: the counts per frame are damaged", got=error, hint="Save it again."
        ) from error
    return table


def _moved(
    title: str,
    then: float | None,
    now: float | None,
    bands: tuple[float, float],
    interval: Interval | None = None,
) -> list[str]:
    """Return a line if a score left its bands, appeared or disappeared; otherwise an empty list."""
    max_drop, max_gain = bands
    if then is None or now is None:
        return [] if then == now else [f"{title} {_shown(now)}, was {_shown(then)}"]

    change = 100 * (now - then)
    line = f"{title} {_shown(now)}, was {_shown(then)}: {change:+.2f} points"
    if change < 0 and is_beyond(interval, now - then, max_drop):
        return [f"{line}, a drop of more than {max_drop:g}"]
    if change > 0 and is_beyond(interval, now - then, max_gain):
        return [f"{line}, a gain of more than {max_gain:g}; {_RENEW}"]
    return []


def _shown(score: float | None) -> str:
    """Return a score in percent, for a message."""
    return "none" if score is None else f"{100 * score:.2f}"


def _slower(then: _Comparison, now: _Comparison, limit: float) -> list[str]:
    """Return one line per engine whose latency ratio grew by more than the factor ``limit``."""
    lines: list[str] = []
    for old, new in _pairs(then, now):
        if (
            old.latency_ratio
            and new.latency_ratio
            and new.latency_ratio > limit * old.latency_ratio
        ):
            lines.append(
                f"{new.id}: median latency is {new.latency_ratio:.2f} of {now.reference}'s, was "
                f"{old.latency_ratio:.2f}: {new.latency_ratio / old.latency_ratio:.2f} times as "
                "slow"
            )
    return lines


def check_against_first(comparison: Comparison, *, max_drop: float = 0.5) -> list[str]:
    """Return one line per score that an engine lost against the first engine of a comparison.

    The rule is that of ``check_against``, without boundary F and label agreement, and a gain is no
    alarm: another precision may be luckier.

    Parameters
    ----------
    comparison : the comparison; its data is labelled.
    max_drop : points that the mIoU may fall; the IoU of a class may fall ``CLASS_FACTOR`` times as
        far.

    Raises
    ------
    InputError : the data has no labels.
    """
    first = comparison.reference.per_frame
    if first is None:
        raise InputError(
            f"{comparison.data.name}: has no labels", hint="Compare with a saved comparison."
        )

    problems: list[str] = []
    for row in comparison.results[1:]:
        if row.per_frame is None:
            continue
        found = change_intervals(first, row.per_frame, confidence=GATE_CONFIDENCE)
        titles = ("mIoU", *(f"IoU of {name}" for name in comparison.data.labels.names))
        for title, one in zip(titles, (found.mean, *found.classes), strict=True):
            limit = max_drop if title == "mIoU" else CLASS_FACTOR * max_drop
            if one.value < 0 and is_beyond(one, one.value, limit):
                ends = f"99 % interval {100 * one.low:+.2f} to {100 * one.high:+.2f}"
                problems.append(
                    f"{row.id}: {title} {100 * one.value:+.2f} points against "
                    f"{comparison.reference.id} ({ends}), a drop of more than {limit:g}"
                )
    return problems
