"""Draw the plots of a report from its facts."""

from typing import Any

from edgeseg.profiling.report.figures import marked, pointer, shown
from edgeseg.profiling.report.svg import WIDTH, Plot, Scale, series

_RIGHT = WIDTH - 14
_LEFT = 44
_BAR = 9  # height of a bar


def class_bars(facts: dict[str, Any]) -> str:
    """Draw the IoU of every class and engine, with its interval over frames.

    Parameters
    ----------
    facts : the report's facts; the data is labelled.
    """
    engines = facts["comparison"]["engines"]
    names = facts["comparison"]["data"]["classes"]
    row = len(engines) * _BAR + 10
    top = 8
    bottom = top + row * len(names)
    left = 16 + 7.2 * min(16, max(map(len, names)))
    plot = Plot(bottom + 36, "IoU of every class, with 95 % intervals over frames")
    scale = Scale(0, 100, left, WIDTH - 50)
    plot.x_axis(scale, top, bottom, "IoU, %")

    for number, name in enumerate(names):
        y = top + number * row + 4
        cut = name if len(name) <= 16 else name[:15] + "…"
        plot.text(left - 6, y + len(engines) * _BAR / 2 + 4, cut, "name", "end")
        for index in range(len(engines)):
            _class_bar(plot, scale, y + index * _BAR, facts, (index, name))
    return plot.svg()


def _class_bar(
    plot: Plot, scale: Scale, y: float, facts: dict[str, Any], which: tuple[int, str]
) -> None:
    """Draw the bar of one class and engine, its interval, and its number."""
    index, name = which
    engine = facts["comparison"]["engines"][index]
    one = engine["per_class"][name]
    if one["iou"] is None:
        return
    iou = 100 * one["iou"]
    title = f"{name}, {engine['id']}: {shown(one['iou'], 'percent')}"
    plot.bar(scale.start, y, scale(iou) - scale.start, _BAR - 1.5, series(index), title)
    end = iou
    if one["iou_interval"]:
        low, high = (100 * value for value in one["iou_interval"])
        middle = y + (_BAR - 1.5) / 2
        plot.line(scale(low), middle, scale(high), middle, "whisker")
        plot.line(scale(low), y + 1, scale(low), y + _BAR - 2.5, "whisker")
        plot.line(scale(high), y + 1, scale(high), y + _BAR - 2.5, "whisker")
        end = max(iou, high)
    path = pointer("comparison", "engines", index, "per_class", name, "iou")
    place = f'x="{scale(end) + 4:.1f}" y="{y + _BAR - 2:.1f}" class="value"'
    plot.parts.append(marked(facts, path, "percent", "text", place))


def boundary_lines(facts: dict[str, Any]) -> str:
    """Draw the mean boundary F of every engine by the distance that still counts as a match.

    Parameters
    ----------
    facts : the report's facts.
    """
    found = facts["boundary_by_distance"]
    pixels = found["pixels"]
    known = [100 * f for row in found["engines"].values() for f in row if f is not None]
    plot = Plot(240, "mean boundary F by distance")
    if not known:
        return ""
    low = 10 * int(min(known) // 10)
    x = Scale(0, pixels[-1] + 0.5, _LEFT, _RIGHT)
    y = Scale(low, 100, 204, 24)
    plot.y_axis(y, _LEFT, _RIGHT, "boundary F, %")
    plot.x_axis(x, 24, 204, "largest distance of a match, pixels")
    for index, (key, row) in enumerate(found["engines"].items()):
        points = [(pixel, 100 * f) for pixel, f in zip(pixels, row, strict=True) if f is not None]
        # The reference is wider, to be seen below a line that covers it.
        css = series(index) if index else f"{series(index)} wide"
        plot.path([(x(pixel), y(f)) for pixel, f in points], css)
        for pixel, f in points:
            plot.dot(x(pixel), y(f), series(index), f"{key}, {pixel} px: {f:.2f}")
    return plot.svg()


def pareto(facts: dict[str, Any]) -> str:
    """Draw mIoU against milliseconds, and millijoules beside the points where they are known.

    Parameters
    ----------
    facts : the report's facts.
    """
    comparison = facts["comparison"]
    score, heading = "miou", "mIoU, %"
    if not comparison["data"]["labelled"]:
        score, heading = "agreement", "labels as the first engine's, %"
    engines = [one for one in comparison["engines"] if one[score] is not None]
    if not engines:
        return ""
    values = [100 * one[score] for one in engines]
    pad = max(0.5, 0.3 * (max(values) - min(values)))
    x = Scale(0, 1.15 * max(one["latency_ms_p50"] for one in engines), _LEFT, _RIGHT)
    y = Scale(max(0, min(values) - pad), min(100.0, max(values) + pad), 204, 24)
    plot = Plot(240, f"{heading} against latency")
    plot.y_axis(y, _LEFT, _RIGHT, heading)
    plot.x_axis(x, 24, 204, "median latency of a frame, ms")

    for index, engine in enumerate(comparison["engines"]):
        if engine[score] is None:
            continue
        place = x(engine["latency_ms_p50"]), y(100 * engine[score])
        plot.dot(*place, series(index), str(engine["id"]))
        text = str(engine["id"])
        energy = facts["profiles"].get(engine["id"], {}).get("mj_per_frame")
        if energy is not None:
            text += f", {shown(energy, 'short')} mJ"
        is_right = place[0] > WIDTH / 2
        plot.text(
            place[0] + (-8 if is_right else 8),
            place[1] + (17 if index % 2 else -8),  # neighbours do not hide each other
            text,
            "name",
            "end" if is_right else "start",
        )
    return plot.svg()


def latency_histogram(facts: dict[str, Any]) -> str:
    """Draw how many calls took how long.

    Parameters
    ----------
    facts : the report's facts.
    """
    found = facts["latency_histogram"]
    edges = found["edges_ms"]
    highest = max(max(counts) for counts in found["engines"].values())
    x = Scale(edges[0], edges[-1], _LEFT, _RIGHT)
    y = Scale(0, 1.08 * highest, 204, 24)
    plot = Plot(240, "histogram of the latency")
    plot.y_axis(y, _LEFT, _RIGHT, "calls")
    plot.x_axis(x, 24, 204, "latency of a frame, ms")
    for index, counts in enumerate(found["engines"].values()):
        points = [(x(edges[0]), y(0))]
        for number, count in enumerate(counts):
            points += [(x(edges[number]), y(count)), (x(edges[number + 1]), y(count))]
        points.append((x(edges[-1]), y(0)))
        plot.path(points, f"{series(index)} area")
    return plot.svg()


def layer_bars(layers: list[dict[str, Any]]) -> str:
    """Draw what each layer alone in INT8 costs; those that cost most come first.

    Parameters
    ----------
    layers : the layers of ``edgeseg sensitivity`` that were scored.
    """
    row = 17
    labelled = all(layer["miou_points"] is not None for layer in layers)
    key, factor = ("miou_points", 1.0) if labelled else ("labels_changed", 100.0)
    values = [factor * layer[key] for layer in layers]
    left = 150
    bottom = 8 + row * len(layers)
    plot = Plot(bottom + 36, "cost of each layer alone in INT8")
    x = Scale(min(0.0, *values), max(*values, 1e-6), left, WIDTH - 46)
    title = "mIoU lost, points" if labelled else "labels changed, %"
    plot.x_axis(x, 8, bottom, title)
    for number, (layer, value) in enumerate(zip(layers, values, strict=True)):
        y = 10 + row * number
        name = str(layer["name"])
        cut = name if len(name) <= 22 else "…" + name[-21:]
        plot.text(left - 6, y + 10, cut, "name", "end")
        start, end = sorted((x(0), x(value)))
        plot.bar(start, y, end - start, row - 5, "s1", f"{name}: {value:.3f}")
        plot.text(max(x(0), x(value)) + 4, y + 10, f"{value:.3f}", "value")
    return plot.svg()
