"""Print the result of ``profile``: tables, histograms, and what was missing; it fits 80 columns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeseg.cli.console import escape, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from edgeseg.profiling.engine_record import EngineRecord, LayerTable
    from edgeseg.profiling.results import Result

_LAYERS = 12  # rows of the layer table
_OTHER_COLUMNS = 59  # characters of the layer table beside the names
_WHOLE = 1000  # numbers from here on have no digits behind the point
_LEAST_WIDTH = 17  # of the first column


def print_result(result: "Result") -> None:
    """Print the result of a measurement.

    Parameters
    ----------
    result : the result.
    """
    console = stdout()
    console.print(_latency(result))
    console.print(_speed(result))
    console.print(_start(result))
    if any(record.power for record in result.engines):
        console.print(_power(result))
    if result.power_modes:
        console.print(_modes(result))
    for record in result.engines:
        if record.soak:
            console.print(_soak(record))
        if record.layers:
            console.print(_layers(record.engine.id, record.layers))
    _print_histograms(result)
    _print_notes(result)


def _table(title: str, first: str, headings: Sequence[str]) -> "Table":
    """Return an empty table: a column of text, and columns of numbers."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.collapse_padding = True  # so that seven numbers fit beside a name
    table.add_column(first, overflow="fold", min_width=_LEAST_WIDTH)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _name(record: "EngineRecord") -> str:
    """Return an engine's name on two lines: the second has precision and size."""
    name, _, precision = record.engine.id.rpartition("@")
    height, width = record.engine.input_size
    return f"{escape(name)}\n[bold]{escape(precision)}[/] [dim]{height}x{width}[/]"


def _number(value: float | None, digits: int = 2) -> str:
    """Return a number; "-" if it was not measured."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if value < _WHOLE else f"{value:.0f}"


def _latency(result: "Result") -> "Table":
    """Return the table of latencies, with mIoU if there is one."""
    scored = any(record.miou is not None for record in result.engines)
    headings = ["p50\nms", "p90\nms", "p95\nms", "p99\nms", "max\nms", "calls"]
    table = _table("latency", "engine", [*headings, *(["mIoU\n%"] if scored else [])])
    for record in result.engines:
        figures = record.latency
        values = (figures.ms_p50, figures.ms_p90, figures.ms_p95, figures.ms_p99, figures.ms_max)
        cells = [_number(value) for value in values]
        miou = None if record.miou is None else 100 * record.miou
        table.add_row(
            _name(record), *cells, str(figures.calls), *([_number(miou)] if scored else [])
        )
    return table


def _speed(result: "Result") -> "Table":
    """Return the table of throughput, stages and start."""
    counts = sorted({row.in_flight for record in result.engines for row in record.throughput})
    headings = [f"FPS\n{count}" for count in counts]
    stages = ["pre\nms", "net\nms", "post\nms"]
    counted = ", ".join(str(count) for count in counts)
    title = f"FPS with {counted} frames in flight; stages of a frame" if counts else "stages"
    table = _table(title, "engine", [*headings, *stages])
    for record in result.engines:
        speeds = {row.in_flight: row.frames_per_s for row in record.throughput}
        cells = [_number(speeds.get(count), 1) for count in counts]
        parts = record.stages
        if parts is not None:
            cells += [
                _number(parts.preprocess_ms),
                _number(parts.network_ms),
                _number(parts.postprocess_ms),
            ]
        else:
            cells += ["-"] * 3
        table.add_row(_name(record), *cells)
    return table


def _start(result: "Result") -> "Table":
    """Return the table of what the start of each engine costs."""
    table = _table(
        "start", "engine", ["open\nms", "first\nframe ms", "warm-up\ns", "settled", "RAM\nMB"]
    )
    for record in result.engines:
        start = record.start
        table.add_row(
            _name(record),
            _number(start.open_ms, 0),
            _number(start.first_frame_ms, 1),
            _number(start.warm_up_s, 1),
            "yes" if start.settled else "no",
            _number(None if start.memory_bytes is None else start.memory_bytes / 1e6, 0),
        )
    return table


def _power(result: "Result") -> "Table":
    """Return the table of power and energy."""
    table = _table(
        "power, gross and less idle",
        "engine",
        ["gross\nW", "net\nW", "gross\nmJ/frame", "net\nmJ/frame", "sampling\nerror %", "mIoU\n/J"],
    )
    for record in result.engines:
        power = record.power
        if power is None:
            table.add_row(_name(record), *(["-"] * 6))
            continue
        table.add_row(
            _name(record),
            _number(power.gross_w),
            _number(power.net_w),
            _number(power.gross_mj_per_frame, 1),
            _number(power.net_mj_per_frame, 1),
            _number(power.sampling_error_percent),
            _number(power.miou_per_joule),
        )
    return table


def _modes(result: "Result") -> "Table":
    """Return the table of power modes; the best ones, in Pareto's sense, have a star."""
    from edgeseg.profiling.mode_sweep import best_frames_per_s, pareto_rows

    table = _table(
        "power modes (* no other is better in all)",
        "mode, engine",
        ["p50\nms", "best\nFPS", "W", "mJ\n/frame", "mIoU\n%", ""],
    )
    for mode, record, good in pareto_rows(result):
        power = record.power
        table.add_row(
            f"{escape(mode)}\n{escape(record.engine.id)}",
            _number(record.latency.ms_p50),
            _number(best_frames_per_s(record), 1),
            _number(None if power is None else power.gross_w),
            _number(None if power is None else power.gross_mj_per_frame, 1),
            _number(None if record.miou is None else 100 * record.miou),
            "*" if good else "",
        )
    return table


def _soak(record: "EngineRecord") -> "Table":
    """Return the table of a long run; of many minutes, about ten are shown."""
    assert record.soak is not None
    soak = record.soak
    drift = soak.drift_percent_per_hour
    table = _table(
        f"{escape(record.engine.id)}: last part against the first {soak.change_percent:+.1f} %, "
        f"drift {drift:+.1f} % an hour",
        "from, s",
        ["p50\nms", "p95\nms", "calls", "hottest\nC", "clock\nMHz", "W"],
    )
    step = max(1, len(soak.minutes) // 10)
    shown = soak.minutes[::step]
    if shown[-1] is not soak.minutes[-1]:
        shown = [*shown, soak.minutes[-1]]
    for part in shown:
        table.add_row(
            f"{part.start_s:.0f}",
            _number(part.ms_p50),
            _number(part.ms_p95),
            str(part.calls),
            _number(part.temperature_c, 1),
            _number(part.cpu_mhz, 0),
            _number(part.watts),
        )
    return table


def _layers(key: str, layers: "LayerTable") -> "Table":
    """Return the layers that take the most time."""
    total = layers.layers_ms or 1.0
    table = _table(
        f"{escape(key)}: layers, {layers.layers_ms:.2f} of {layers.graph_ms:.2f} ms",
        "layer",
        ["ms", "%", "Mmac", "KB", "in", "bound by", "of\nlimit"],
    )
    width = max(20, stdout().width - _OTHER_COLUMNS)
    order = sorted(layers.rows, key=lambda row: -row.ms)
    for row in order[:_LAYERS]:
        name = row.name if len(row.name) <= width else f"...{row.name[3 - width :]}"
        table.add_row(
            f"{escape(name)}\n[dim]{escape(row.kind)}[/]",
            _number(row.ms, 3),
            _number(100 * row.ms / total, 1),
            _number(row.multiply_adds / 1e6, 1),
            _number(row.bytes / 1e3, 0),
            escape(row.precision),
            row.bound or "-",
            "-" if row.of_limit is None else f"{100 * row.of_limit:.0f} %",
        )
    rest = sum(row.ms for row in order[_LAYERS:])
    if rest:
        share = _number(100 * rest / total, 1)
        table.add_row(f"[dim]{len(order) - _LAYERS} more[/]", _number(rest, 3), share)
    return table


def _print_histograms(result: "Result") -> None:
    """Print the distribution of each engine's latency."""
    from edgeseg.profiling.timing import text_bars

    console = stdout()
    for record in result.engines:
        figures = record.latency
        console.print(f"[bold]{escape(record.engine.id)}[/] [dim]ms, calls[/]", highlight=False)
        for line in text_bars(figures.histogram_edges_ms, figures.histogram_counts):
            console.print(line, highlight=False, markup=False)


def _print_notes(result: "Result") -> None:
    """Print where and how it was measured, and what is missing."""
    console = stdout()
    if any(record.layers for record in result.engines):
        text = "Mmac: million multiply-adds. KB: inputs, weights, outputs. of limit: speed against"
        console.print(f"{text} the measured limit; above 100 % data stays in caches.", style="dim")
    machine = result.machine
    state = result.state
    loads = ", ".join(f"{load:.0f}" for load in state["cpu_load_percent"])
    load_before = machine["load_average_1min"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, load {load_before} before the measurement",
        f"load of the cores meanwhile: {loads} %",
    ]

    during = state["during"]
    if during["cpu_mhz_max"] is not None:
        lines.append(f"clock {during['cpu_mhz_min']:.0f} to {during['cpu_mhz_max']:.0f} MHz")
    if during["temperatures_c_max"]:
        hottest = max(during["temperatures_c_max"].values())
        lines.append(f"hottest sensor {hottest:.1f} C")
    events = state["throttle_events"]
    if events or during["throttle_flags"]:
        told = [f"{name} {count} times" for name, count in events.items()]
        lines.append(f"throttled: {', '.join([*told, *during['throttle_flags']])}")
    if result.power.whole:
        lines.append(f"power of {' + '.join(result.power.whole)}")
    for meter in result.power.meters:
        lines.append(f"accuracy of {meter['meter']}: {meter['accuracy']}")
    if result.limits is not None:
        speeds = ", ".join(f"{key} {value:.0f}" for key, value in result.limits.gmac_s.items())
        lines.append(
            f"limits: memory {result.limits.memory_gb_s:.1f} GB/s, cache "
            f"{result.limits.cache_gb_s:.1f} GB/s, {speeds} G multiply-adds/s"
        )

    lines += [f"no {name}: {why}" for name, why in state["before"]["absent"].items()]
    lines += [f"no power from {name}: {why}" for name, why in result.power.missing.items()]
    lines += _missing(result)
    for line in lines:
        console.print(escape(f"{line}."), style="dim", highlight=False)


def _missing(result: "Result") -> list[str]:
    """Return what was not measured and why; what all engines lack is told once."""
    told: dict[str, list[str]] = {}
    for record in result.engines:
        for name, why in record.missing.items():
            told.setdefault(f"no {name}: {why}", []).append(record.engine.id)
    return [
        line if len(ids) == len(result.engines) else f"{', '.join(ids)}: {line}"
        for line, ids in told.items()
    ]
