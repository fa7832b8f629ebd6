"""Say in one sentence what each precision costs and saves."""

from typing import Any

from edgeseg.profiling.report.figures import shown


def verdict(comparison: dict[str, Any]) -> str:
    """Return one sentence on all engines but the first.

    Parameters
    ----------
    comparison : ``Comparison.to_dict()``.

    Examples
    --------
    >>> first = {"id": "net@fp32", "name": "net", "precision": "fp32", "miou": 0.675}
    >>> verdict({"engines": [first], "data": {"labelled": True, "frames": 9, "name": "drive"}})
    'FP32 has an mIoU of 67.50 on the 9 frames of drive.'
    """
    engines = comparison["engines"]
    first = engines[0]
    data = comparison["data"]
    names = short_names(engines)
    where = f"on the {data['frames']} frames of {data['name']}"
    if len(engines) == 1:
        if not data["labelled"]:
            return f"{names[0]} alone, without labels: nothing to compare {where}."
        return f"{names[0]} has an mIoU of {_percent(first['miou'])} {where}."

    parts: list[str] = []
    for name, engine in zip(names[1:], engines[1:], strict=True):
        accuracy = _accuracy(engine) if data["labelled"] else _agreement(engine)
        text = f"{name} {accuracy} and {_time(engine)}"
        loss = _class_loss(engine) if data["labelled"] else ""
        parts.append(text + loss)
    return f"Against {names[0]}, {'; '.join(parts)}."


def short_names(engines: list[dict[str, Any]]) -> list[str]:
    """Return the precisions, in capitals, if they tell the engines apart; else the engines' ids.

    Parameters
    ----------
    engines : the engines of ``Comparison.to_dict()``.

    Examples
    --------
    >>> float_one = {"id": "net@fp32", "name": "net", "precision": "fp32"}
    >>> short_names([float_one, {"id": "net.int8@int8", "name": "net.int8", "precision": "int8"}])
    ['FP32', 'INT8']
    """
    nets = {str(one["name"]).removesuffix(f".{one['precision']}") for one in engines}
    precisions = [str(one["precision"]).upper() for one in engines]
    if len(nets) == 1 and len(set(precisions)) == len(precisions):
        return precisions
    return [str(one["id"]) for one in engines]


def _accuracy(engine: dict[str, Any]) -> str:
    """Return what became of the mIoU."""
    change = engine["miou_change"]
    ends = engine["miou_change_interval"]
    if change is None:
        return "has no mIoU"
    points = f"{abs(100 * change):.2f}"
    if ends is None or ends[0] <= 0 <= ends[1]:
        return f"keeps the mIoU ({shown(change, 'points')}, which the choice of frames may explain)"
    return f"costs {points} mIoU" if change < 0 else f"gains {points} mIoU"


def _agreement(engine: dict[str, Any]) -> str:
    """Return how many labels are the first engine's."""
    return f"keeps {_percent(engine['agreement'])} % of the labels"


def _time(engine: dict[str, Any]) -> str:
    """Return the time that is saved or lost."""
    ratio = engine["latency_ratio"]
    if ratio is None:
        return "was not timed"
    saved = round(100 * (1 - ratio))
    if abs(saved) < 3:  # medians repeat within a few percent
        return "takes the same time"
    return f"saves {saved} % of the time" if saved > 0 else f"takes {-saved} % more time"


def _class_loss(engine: dict[str, Any]) -> str:
    """Return the class that lost most, of those whose interval is below 0."""
    losses: list[tuple[float, str]] = []
    for name, row in engine["per_class"].items():
        ends = row["iou_change_interval"]
        if ends is not None and ends[1] < 0:
            losses.append((row["iou_change"], name))
    if not losses:
        return ", and no class loses beyond its interval"
    change, name = min(losses)
    return f", while {name} loses {-100 * change:.2f} points"


def _percent(share: float | None) -> str:
    """Return a share in percent."""
    return "-" if share is None else f"{100 * share:.2f}"
