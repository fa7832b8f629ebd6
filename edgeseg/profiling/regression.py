"""Has a comparison got worse, or better without anyone saying why? Golden files alarm in both directions.

The rule, in points (hundredths of a score): mIoU, mean boundary F and label agreement of an engine may each move by
``max_drop`` from the saved comparison, the IoU of one class by four times that. A class moves more than the mean of
all: the mean of n independent changes is sqrt(n) times steadier, which is 3.3 for 11 classes and 4.4 for 19.

Every engine is held against its own saved scores, found by its id (NAME@PRECISION). Latency belongs to a machine, so it
is only looked at as the ratio of medians to the first engine, and only warned about unless a limit is given.
"""

import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeseg.errors import InputError
from edgeseg.profiling.compare import FORMAT, KIND, Comparison
from edgeseg.spec import first_problem

CLASS_FACTOR = 4
SLOWDOWN_WARNED = 1.25  # of the ratio to the first engine; medians of one run repeat within a few percent

_RENEW = "improved without explanation: if it is meant, renew the baseline with --json"
_ROUNDING = 1e-9


class _Saved(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class _Class(_Saved):
    iou: float | None


class _Engine(_Saved):
    id: str
    agreement: float
    latency_ratio: float | None
    miou: float | None = None
    boundary_f: float | None = None
    per_class: dict[str, _Class] = {}


class _Data(_Saved):
    name: str
    frames: int
    sha256: str
    pixels_sha256: str


class _Machine(_Saved):
    cpu: str


class _Comparison(_Saved):
    """The part of ``Comparison.to_dict`` that a later one is held against."""

    kind: Literal["edgeseg comparison"]
    format: Literal[1]
    reference: str
    data: _Data
    machine: _Machine
    engines: tuple[_Engine, ...] = Field(min_length=1)


def read_baseline(path: Path) -> dict[str, Any]:
    """A saved comparison. Raises ``InputError`` where the file is missing, damaged, or something else."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: no such baseline", got=error.strerror, hint="Save one: --json FILE.") from error
    except ValueError as error:
        raise InputError(f"{path}: the baseline is not JSON", got=error) from error
    _parse(value, str(path))
    return dict(value)


def _parse(value: object, source: str = "the baseline") -> _Comparison:
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise InputError(f"{source}: not a saved comparison", hint="Save one: edgeseg compare ... --json FILE.")
    if value.get("format") != FORMAT:
        raise InputError(f"{source}: another edgeseg's format", got=value.get("format"), expected=FORMAT)
    try:
        return _Comparison.model_validate(value)
    except ValidationError as error:
        raise InputError(f"{source}: the saved comparison is damaged", got=first_problem(error)) from error


def check_against(
    baseline: dict[str, Any],
    comparison: Comparison,
    *,
    max_drop: float = 0.5,
    max_gain: float | None = None,
    max_slowdown: float | None = None,
) -> list[str]:
    """What left the band around a saved comparison, a line each; nothing where all is as it was.

    Parameters
    ----------
    baseline : ``Comparison.to_dict()`` of then, or the JSON of it (``read_baseline``).
    max_drop, max_gain : points (0.5 is half a percent point) a mean score may fall or rise; ``max_gain`` defaults to
        ``max_drop``. A class may move ``CLASS_FACTOR`` times as much.
    max_slowdown : the factor by which an engine's median latency, relative to the first engine's, may grow.

    Raises
    ------
    InputError : the two cannot be held against each other: other data, other engines, another first engine, damage.
    """
    bands = (max_drop, max_drop if max_gain is None else max_gain)
    if not all(math.isfinite(band) and band >= 0 for band in bands):
        raise InputError("not a band of points", got=bands, expected="numbers from 0 up")
    then, now = _parse(baseline), _parse(comparison.to_dict(), "this comparison")
    _require_same(then, now)
    said: list[str] = []
    for old, new in _pairs(then, now):
        for title, a, b in (
            ("mIoU", old.miou, new.miou),
            ("boundary F", old.boundary_f, new.boundary_f),
            ("label agreement", old.agreement, new.agreement),
        ):
            said += _moved(f"{new.id}: {title}", a, b, *bands)
        for name, of_class in old.per_class.items():
            wide = (CLASS_FACTOR * bands[0], CLASS_FACTOR * bands[1])
            said += _moved(f"{new.id}: IoU of {name}", of_class.iou, new.per_class[name].iou, *wide)
    if max_slowdown is not None:
        said += [f"{line}, more than the {max_slowdown:g} allowed" for line in _slower(then, now, max_slowdown)]
    return said


def warnings_against(baseline: dict[str, Any], comparison: Comparison) -> list[str]:
    """What is no regression but worth knowing, a line each: relative latency, frames that decode to other pixels."""
    then, now = _parse(baseline), _parse(comparison.to_dict(), "this comparison")
    said = _slower(then, now, SLOWDOWN_WARNED)
    if said and then.machine.cpu != now.machine.cpu:
        said.append(f"the baseline's latency is of another processor ({then.machine.cpu}; this: {now.machine.cpu})")
    if then.data.pixels_sha256 != now.data.pixels_sha256:
        said.append("the frames' pixels are not the baseline's (changed, or another decoder), their labels are")
    return said


def _require_same(then: _Comparison, now: _Comparison) -> None:
    """Raise ``InputError`` unless both are of the same frames, labels and engines."""
    for what, old, new in (
        ("frames", then.data.frames, now.data.frames),
        ("data (another hash of names and labels)", then.data.sha256[:12], now.data.sha256[:12]),
        ("first engine", then.reference, now.reference),
        ("engines", ", ".join(sorted(e.id for e in then.engines)), ", ".join(sorted(e.id for e in now.engines))),
        ("classes", *("; ".join(sorted({", ".join(e.per_class) for e in c.engines})) for c in (then, now))),
    ):
        if old != new:
            raise InputError(
                f"the baseline is of other {what}",
                got=new,
                expected=old,
                hint=f"Compare on its data ({then.data.name}, {then.data.frames} frames) and engines, or renew it "
                "with --json.",
            )


def _pairs(then: _Comparison, now: _Comparison) -> list[tuple[_Engine, _Engine]]:
    old = {engine.id: engine for engine in then.engines}
    return [(old[engine.id], engine) for engine in now.engines]


def _moved(title: str, then: float | None, now: float | None, max_drop: float, max_gain: float) -> list[str]:
    """No line, or one: how far a score left its band. A score that came or went has left it."""
    if then is None or now is None:
        return [] if then == now else [f"{title} {_shown(now)}, was {_shown(then)}"]
    change = 100 * (now - then)
    line = f"{title} {_shown(now)}, was {_shown(then)}: {change:+.2f} points"
    if change < -max_drop - _ROUNDING:
        return [f"{line}, a drop of more than {max_drop:g}"]
    if change > max_gain + _ROUNDING:
        return [f"{line}, a gain of more than {max_gain:g}; {_RENEW}"]
    return []


def _shown(score: float | None) -> str:
    return "none" if score is None else f"{100 * score:.2f}"


def _slower(then: _Comparison, now: _Comparison, limit: float) -> list[str]:
    said = []
    for old, new in _pairs(then, now):
        if old.latency_ratio and new.latency_ratio and new.latency_ratio > limit * old.latency_ratio:
            said.append(
                f"{new.id}: median latency is {new.latency_ratio:.2f} of {now.reference}'s, was "
                f"{old.latency_ratio:.2f}: {new.latency_ratio / old.latency_ratio:.2f} times as slow"
            )
    return said
