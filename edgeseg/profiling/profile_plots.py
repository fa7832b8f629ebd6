"""Draw the result of ``profile``: latency, roofline, soak, and the best engines and power modes.

matplotlib is imported only when a plot is drawn.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.files import atomic_path
from edgeseg.profiling.engine_record import EngineRecord, LayerRow
from edgeseg.profiling.mode_sweep import best_frames_per_s, pareto_rows
from edgeseg.profiling.plots import require_picture
from edgeseg.profiling.results import Limits, Result

_COLOURS = {"memory": "tab:orange", "arithmetic": "tab:blue"}
_LINES = {"fp32": "-", "bf16": "--", "int8": ":"}
_MARKERS = "osD^vP*X"
_LEAST_INTENSITY = 0.05  # multiply-adds per byte


def draw_all(result: Result, folder: Path) -> list[Path]:
    """Draw every plot that the result has figures for.

    Parameters
    ----------
    result : the result.
    folder : folder of the PNG files; it is made if it is not there.

    Returns
    -------
    The files.

    Raises
    ------
    OutputError : a file cannot be written.
    MissingDependencyError : matplotlib is not installed.
    """
    plots: list[tuple[str, Callable[[Any], None], tuple[float, float]]] = []

    def add(name: str, draw: Callable[[Any], None], width: float, height: float) -> None:
        plots.append((name, draw, (width, height)))

    rows = -(-len(result.engines) // 2)
    add("latency", lambda figure: _latency(figure, result), 10, 2.4 * rows + 0.8)
    layered = [record for record in result.engines if record.layers]
    if layered and result.limits is not None:
        add(
            "roofline", lambda figure: _rooflines(figure, layered, result), 10, 4.4 * _half(layered)
        )
    soaked = [record for record in result.engines if record.soak]
    if soaked:
        add("soak", lambda figure: _soak(figure, soaked), 9, 6.5)
    rows_of_all = pareto_rows(result)
    has_another_figure = any(record.power or record.miou for _, record, _ in rows_of_all)
    if len(rows_of_all) > 1 and has_another_figure:
        add("pareto", lambda figure: _pareto(figure, result), 8, 5)
    return [_draw(folder / f"{name}.png", draw, size) for name, draw, size in plots]


def _half(records: list[EngineRecord]) -> int:
    """Return the number of rows of two panels each."""
    return -(-len(records) // 2)


def _draw(path: Path, draw: Callable[[Any], None], size: tuple[float, float]) -> Path:
    """Draw one figure into a file."""
    require_picture(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path


def _where(result: Result) -> str:
    """Return the machine, for titles."""
    return f"{result.machine['cpu']}, {result.machine['cores']} cores"


def _latency(figure: Any, result: Result) -> None:
    """Draw a histogram per engine, all with one axis of milliseconds."""
    records = result.engines
    axes = figure.subplots(_half(records), min(2, len(records)), squeeze=False).ravel()
    figure.suptitle(f"latency of a frame, {_where(result)}", fontsize=11)
    for axis, record in zip(axes, records, strict=False):
        figures = record.latency
        edges = np.asarray(figures.histogram_edges_ms)
        axis.stairs(figures.histogram_counts[:-1], edges, fill=True, color="tab:blue", alpha=0.7)
        axis.axvline(figures.ms_p50, color="tab:red", linewidth=1)
        axis.axvline(figures.ms_p99, color="tab:red", linewidth=1, linestyle=":")
        axis.set_title(
            f"{record.engine.id}: p50 {figures.ms_p50:.2f}, p99 {figures.ms_p99:.2f} ms (dotted), "
            f"{figures.calls} calls",
            fontsize=8,
        )
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.set_xlabel("ms", fontsize=8)
        axis.tick_params(labelsize=8)
    for axis in axes[len(records) :]:
        axis.set_visible(False)


def _rooflines(figure: Any, records: list[EngineRecord], result: Result) -> None:
    """Draw a roofline plot per engine."""
    assert result.limits is not None
    axes = figure.subplots(_half(records), min(2, len(records)), squeeze=False, sharey=True).ravel()
    figure.suptitle(
        f"roofline of the layers, {_where(result)}\narea: time of the layer; black: measured "
        "limits of memory and arithmetic; grey: with data in the cache",
        fontsize=11,
    )
    for axis, record in zip(axes, records, strict=False):
        _roofline(axis, record, result.limits)
    for axis in axes[len(records) :]:
        axis.set_visible(False)


def _roofline(axis: Any, record: EngineRecord, limits: Limits) -> None:
    """Draw the limits as lines and each layer with multiply-adds as a dot."""
    assert record.layers is not None
    layers = record.layers
    busy = [row for row in layers.rows if row.multiply_adds and row.bytes and row.ms > 0]
    total = layers.layers_ms or 1.0

    # The limits.
    peak = max(limits.gmac_s.values())
    most = max([peak / limits.memory_gb_s * 4, *(row.multiply_adds / row.bytes for row in busy)])
    intensities = np.geomspace(_LEAST_INTENSITY, most, 200)
    used = {row.precision for row in busy} & limits.gmac_s.keys() or {"fp32"}
    for precision in sorted(used):
        speed = limits.gmac_s[precision]
        for bandwidth, alpha in ((limits.memory_gb_s, 0.9), (limits.cache_gb_s, 0.25)):
            roof = np.minimum(speed, bandwidth * intensities)
            axis.plot(
                intensities,
                roof,
                color="black",
                alpha=alpha,
                linewidth=1.2,
                linestyle=_LINES.get(precision, "-"),
            )
        axis.annotate(
            f"{precision} {speed:.0f}", (most, speed), fontsize=8, ha="right", va="bottom"
        )

    # The layers.
    for bound, colour in _COLOURS.items():
        chosen = [row for row in busy if row.bound == bound]
        all_of_it = sum(row.ms for row in layers.rows if row.bound == bound)
        axis.scatter(
            [row.multiply_adds / row.bytes for row in chosen],
            [row.multiply_adds / row.ms / 1e6 for row in chosen],
            s=[4 + 1500 * row.ms / total for row in chosen],
            color=colour,
            alpha=0.55,
            linewidths=0,
        )
        share = 100 * all_of_it / total
        place = 0.93 if bound == "memory" else 0.86
        axis.text(
            0.03,
            place,
            f"{bound}: {share:.0f} % of the time",
            color=colour,
            fontsize=9,
            transform=axis.transAxes,
        )
    without = sum(row.ms for row in layers.rows if not row.multiply_adds)
    axis.text(
        0.03,
        0.79,
        f"layers without multiply-adds, not drawn: {100 * without / total:.0f} %",
        fontsize=8,
        transform=axis.transAxes,
    )
    _name_longest(axis, sorted(busy, key=lambda row: -row.ms)[:3])
    axis.set(xscale="log", yscale="log")
    axis.set_xlabel("multiply-adds per byte", fontsize=9)
    axis.set_ylabel("10⁹ multiply-adds per second", fontsize=9)
    axis.set_title(f"{record.engine.id}: {layers.layers_ms:.1f} ms", fontsize=10)
    axis.grid(alpha=0.25)


def _name_longest(axis: Any, rows: list[LayerRow]) -> None:
    """Write the names of the layers that take longest below the dots, each with a line to its dot.

    The names are in the order of the dots, so that the lines do not cross.
    """
    order = sorted(rows, key=lambda row: row.multiply_adds / row.bytes)
    for number, row in enumerate(order):
        name = row.name if len(row.name) <= 26 else f"...{row.name[-23:]}"
        axis.annotate(
            f"{name} {row.ms:.2f} ms",
            (row.multiply_adds / row.bytes, row.multiply_adds / row.ms / 1e6),
            xytext=(0.97, 0.05 + 0.055 * number),
            textcoords="axes fraction",
            ha="right",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "color": "grey", "linewidth": 0.5},
        )


def _soak(figure: Any, records: list[EngineRecord]) -> None:
    """Draw latency over time, and below it temperature, clock and power if they are known."""
    wanted = {
        "temperature_c": "hottest sensor, C",
        "cpu_mhz": "clock, MHz",
        "watts": "W",
    }
    known = [
        name
        for name in wanted
        if any(
            getattr(part, name) is not None for r in records if r.soak for part in r.soak.minutes
        )
    ]
    axes = figure.subplots(1 + len(known), 1, sharex=True, squeeze=False).ravel()
    for record in records:
        if record.soak is None:
            continue
        parts = record.soak.minutes
        middle = [(part.start_s + part.end_s) / 120 for part in parts]
        change = record.soak.change_percent
        axes[0].plot(
            middle,
            [p.ms_p50 for p in parts],
            marker=".",
            label=f"{record.engine.id} p50 ({change:+.1f} %)",
        )
        axes[0].fill_between(
            middle, [p.ms_p50 for p in parts], [p.ms_p95 for p in parts], alpha=0.15
        )
        for axis, name in zip(axes[1:], known, strict=True):
            axis.plot(middle, [getattr(part, name) for part in parts], marker=".")
    axes[0].set_ylabel("ms (band: to p95)")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(fontsize=8)
    axes[0].set_title("long run: last part against the first")
    for axis, name in zip(axes[1:], known, strict=True):
        axis.set_ylabel(wanted[name])
    axes[-1].set_xlabel("minutes")
    for axis in axes:
        axis.grid(alpha=0.3)


def _pareto(figure: Any, result: Result) -> None:
    """Draw frames per second against watts, or against mIoU."""
    rows = pareto_rows(result)
    axis = figure.subplots()
    has_power = all(record.power is not None for _, record, _ in rows)
    has_score = all(record.miou is not None for _, record, _ in rows)
    modes = list(dict.fromkeys(mode for mode, _, _ in rows))

    def across(record: EngineRecord) -> float:
        if has_power and record.power is not None:
            return record.power.gross_w
        if has_score and record.miou is not None:
            return 100 * record.miou
        return float("nan")

    for place, (mode, record, good) in enumerate(rows):
        x = across(record)
        y = best_frames_per_s(record)
        marker = _MARKERS[modes.index(mode) % len(_MARKERS)]
        colour = "tab:green" if good else "tab:grey"
        axis.scatter([x], [y], marker=marker, s=70, color=colour, zorder=3)
        text = " ".join(part for part in (mode, record.engine.id) if part)
        if has_power and record.miou is not None:
            text += f", {100 * record.miou:.1f} mIoU"
        axis.annotate(
            text,
            (x, y),
            xytext=(7, 6 if place % 2 else -10),
            textcoords="offset points",
            fontsize=8,
        )
    axis.set_xlabel("W" if has_power else "mIoU, %")
    axis.set_ylabel("best frames per second")
    axis.set_title(f"green: no other is better in all ({_where(result)})", fontsize=10)
    axis.margins(0.25)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
