"""Draw plots of a calibration set, and of what INT8 costs a network.

matplotlib is imported only when a plot is drawn.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.errors import MissingDependencyError, OutputError
from edgeseg.files import atomic_path, require_writable
from edgeseg.quantize.calibration_check.report import SetReport, Settling

if TYPE_CHECKING:
    from edgeseg.profiling.sensitivity import LayerCost, Sensitivity

SUFFIXES = (".png", ".svg", ".pdf")
_PERCENTS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100)
_COLOURS = {"minmax": "tab:grey", "percentile": "tab:blue", "mse": "tab:orange"}
_NAMED = 5  # layers of a sensitivity plot that get their name
_BARS = 24  # layers of a sensitivity plot that get a bar
_LONGEST_NAME = 26  # characters; two such names fit side by side


def require_picture(path: Path) -> None:
    """Raise an error before the work if a plot cannot be written to ``path``.

    Parameters
    ----------
    path : the file to write; its suffix is one of ``SUFFIXES``.

    Raises
    ------
    OutputError : another suffix, or a folder that does not exist or is not writable.
    MissingDependencyError : matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"{path}: not the name of a picture", expected=f"one that ends in {', '.join(SUFFIXES)}"
        )
    require_writable(path)

    try:
        importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "a plot needs matplotlib, which is not installed",
            hint='Install it: pip install "edgeseg[train]".',
        ) from error


def plot_report(report: SetReport, path: Path) -> Path:
    """Draw how ranges and the score converge, and which classes the set shows.

    Parameters
    ----------
    report : the report of a calibration set.
    path : the file to write, as for ``require_picture``.

    Raises
    ------
    OutputError : the file cannot be written.
    MissingDependencyError : matplotlib is not installed; it comes with the ``train`` extra.
    """
    require_picture(path)
    from matplotlib.figure import Figure

    panels = 1 + bool(report.settling.scores) + bool(report.coverage)
    figure = Figure(figsize=(5.2 * panels, 4.2), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])

    # Title, and warnings below the panels.
    figure.suptitle(f"{report.network}: {report.set_description}", fontsize=10)
    warned = [verdict.item for verdict in report.verdicts if verdict.state == "warning"]
    if warned:
        figure.supxlabel(f"warnings: {', '.join(warned)}", color="tab:red", fontsize=10)

    # Panels.
    _draw_settling(axes[0], report.settling)
    if report.settling.scores:
        _draw_scores(axes[1], report.settling)
    if report.coverage:
        _draw_coverage(axes[-1], report)

    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _draw_settling(axis: Any, settling: Settling) -> None:
    """Draw the change of amax against that of all frames, in percent.

    The median over the tensors is a solid line, the worst tensor a dashed one.
    """
    counts = settling.counts[:-1] or settling.counts  # the last change is 0 by definition

    # One colour per method.
    for method, colour in _COLOURS.items():
        for values, style in ((settling.median, "-"), (settling.worst, "--")):
            percent = [100 * value for value in values[method][: len(counts)]]
            axis.plot(counts, percent, style, color=colour, marker="o", markersize=3)
        axis.plot([], [], color=colour, label=method)

    # Empty lines that explain the styles in the legend.
    axis.plot([], [], "-", color="black", label="median tensor")
    axis.plot([], [], "--", color="black", label="worst tensor")

    axis.set_xscale("log", base=2)
    axis.set_yscale("symlog", linthresh=1)  # a change of 0 has no logarithm
    peaks = [100 * max(values) for values in settling.worst.values()]
    axis.set_ylim(0, max(100, *peaks))
    axis.set_yticks(_PERCENTS, [f"{percent:g}" for percent in _PERCENTS])
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.set(
        title="ranges settle",
        xlabel="frames",
        ylabel=f"amax against {settling.counts[-1]} frames, % off",
    )
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)


def _draw_scores(axis: Any, settling: Settling) -> None:
    """Draw the INT8 score in percent against the number of calibration frames."""
    percent = [100 * score for score in settling.scores]
    axis.plot(settling.counts, percent, color="tab:green", marker="o", markersize=4)
    axis.set_xscale("log", base=2)
    axis.set_xticks(settling.counts, [str(count) for count in settling.counts])
    axis.set(title="INT8 score settles", xlabel="frames calibrated on", ylabel="score, %")
    axis.grid(alpha=0.3)


def _draw_coverage(axis: Any, report: SetReport) -> None:
    """Draw one bar per class: the frames that show it, and its share of the pixels as text."""
    names = [one.name for one in report.coverage]
    frames = [one.frames for one in report.coverage]
    colours = ["tab:blue" if count else "tab:red" for count in frames]
    shares = [f"{100 * one.share:.2g} %" if one.pixels else "never" for one in report.coverage]

    bars = axis.barh(names, frames, color=colours)
    axis.bar_label(bars, shares, padding=3, fontsize=8)

    axis.set_xlim(0, report.frames * 1.18)
    axis.invert_yaxis()
    axis.set(
        title="classes shown, with their share of the pixels", xlabel=f"frames of {report.frames}"
    )
    axis.set_axisbelow(True)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3, axis="x")


def plot_sensitivity(result: "Sensitivity", path: Path) -> Path:
    """Draw each layer's noise against the time that INT8 saves, and the cost of the costliest.

    Parameters
    ----------
    result : the result of ``edgeseg.profiling.sensitivity.sensitivity``.
    path : the file to write, as for ``require_picture``.

    Raises
    ------
    OutputError : the file cannot be written.
    MissingDependencyError : matplotlib is not installed; it comes with the ``train`` extra.
    """
    require_picture(path)
    from matplotlib.figure import Figure

    bars = result.scored[:_BARS]
    height = max(4.2, 1.4 + 0.22 * len(bars))
    figure = Figure(figsize=(12, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(
        f"{result.network}: one layer in INT8, all else in float; {result.scored_on}", fontsize=10
    )
    _draw_noise_against_time(left, result)
    _draw_costs(right, bars, result)

    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _draw_noise_against_time(axis: Any, result: "Sensitivity") -> None:
    """Draw one dot per layer: filled if it was scored, with its name if it is one of the costliest.

    Sums have no time of their own, so they have no dot.
    """
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axis.set(title="worth it? low and to the right", xlabel="ms a frame that INT8 saves here")
    axis.set_ylabel("rounding noise, % of the output's power")
    timed = [layer for layer in result.layers if layer.saved_ms is not None and layer.noise]
    if not timed:
        axis.text(0.5, 0.5, "no layer could be timed", ha="center", transform=axis.transAxes)
        return

    # Dots, filled if scored.
    for scored, label in ((True, "cost scored"), (False, "not scored")):
        dots = [layer for layer in timed if (layer.labels_changed is not None) == scored]
        if not dots:
            continue
        milliseconds = [layer.saved_ms for layer in dots]
        percents = [100 * (layer.noise or 0.0) for layer in dots]
        fill = "tab:blue" if scored else "none"
        axis.scatter(
            milliseconds, percents, s=22, facecolors=fill, edgecolors="tab:blue", label=label
        )

    # A logarithmic axis, with more ticks if it spans less than two decades.
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    ticks = (1, 2, 5) if high < 100 * low else (1,)
    axis.yaxis.set_major_locator(LogLocator(subs=ticks))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.minorticks_off()
    axis.set_ylim(low, high * (high / low) ** 0.4)  # an empty band above the dots

    # Names in that band.
    scored_layers = [layer for layer in timed if layer.labels_changed is not None]
    _name_costliest(axis, scored_layers[:_NAMED])
    axis.legend(fontsize=8, loc="best")
    axis.grid(alpha=0.3)


def _name_costliest(axis: Any, layers: "Sequence[LayerCost]") -> None:
    """Write names into the band above the dots, in their order, each with a line to its dot."""
    last = len(layers) - 1
    for place, layer in enumerate(sorted(layers, key=lambda layer: layer.saved_ms or 0.0)):
        # The outermost names end at the borders of the axis.
        if last and place == 0:
            alignment = "left"
        elif last and place == last:
            alignment = "right"
        else:
            alignment = "center"

        across = place / last if last else 0.5
        axis.annotate(
            _short(layer.name),
            (layer.saved_ms, 100 * (layer.noise or 0.0)),
            xytext=(0.01 + 0.98 * across, 0.97 - 0.055 * (place % 3)),
            textcoords="axes fraction",
            fontsize=8,
            ha=alignment,
            va="top",
            arrowprops={"arrowstyle": "-", "color": "grey", "linewidth": 0.6},
        )


def _short(name: str) -> str:
    """Return a name, or only its end if it is long: exporters put the path of a layer first."""
    if len(name) <= _LONGEST_NAME:
        return name
    return f"...{name[3 - _LONGEST_NAME :]}"


def _draw_costs(axis: Any, bars: "Sequence[LayerCost]", result: "Sensitivity") -> None:
    """Draw one bar per layer, the costliest on top.

    Bars show points of mIoU if the data is labelled, else the share of labels that change.
    """
    # Choose what the bars show.
    if result.float_miou is not None:
        costs = [layer.miou_points or 0.0 for layer in bars]
        whole = result.int8.miou_points
        what = "points of mIoU lost"
    else:
        costs = [100 * (layer.labels_changed or 0.0) for layer in bars]
        whole = 100 * (result.int8.labels_changed or 0.0)
        what = "labels that change, %"

    places = range(len(bars))
    colours = ["tab:red" if cost > 0 else "tab:green" for cost in costs]
    axis.barh(places, costs, color=colours)
    axis.set_yticks(places, [_short(layer.name) for layer in bars], fontsize=8)
    axis.invert_yaxis()
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set(title=f"cost of each alone (all of them together: {whole:.2f})", xlabel=what)
    axis.grid(alpha=0.3, axis="x")
