"""Pictures of what a calibration set shows and of what INT8 costs a net. matplotlib is imported when one is drawn."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.artifact import atomic_path, require_writable
from edgeseg.errors import MissingDependencyError, OutputError
from edgeseg.quantize.report import SetReport, Settling

if TYPE_CHECKING:
    from edgeseg.quantize.sensitivity import LayerCost, Sensitivity

SUFFIXES = (".png", ".svg", ".pdf")
_PERCENTS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100)
_COLOURS = {"minmax": "tab:grey", "percentile": "tab:blue", "mse": "tab:orange"}
_NAMED, _BARS = 5, 24  # layers of a sensitivity plot
_LONGEST_NAME = 26  # characters: two of them fit side by side


def require_picture(path: Path) -> None:
    """Raise now what ``plot_report`` would raise after the work: a wrong name, no such folder, no matplotlib."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: not the name of a picture", expected=f"one that ends in {', '.join(SUFFIXES)}")
    require_writable(path)
    try:
        importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "a plot needs matplotlib, which is not installed", hint='Install it: pip install "edgeseg[train]".'
        ) from error


def plot_report(report: SetReport, path: Path) -> Path:
    """Draw how ranges (and the score) settle and what classes the set shows. Needs the ``train`` extra."""
    require_picture(path)
    from matplotlib.figure import Figure

    panels = 1 + bool(report.settling.scores) + bool(report.coverage)
    figure = Figure(figsize=(5.2 * panels, 4.2), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    figure.suptitle(f"{report.network}: {report.set_description}", fontsize=10)
    warned = [verdict.item for verdict in report.verdicts if verdict.state == "warning"]
    if warned:
        figure.supxlabel(f"warnings: {', '.join(warned)}", color="tab:red", fontsize=10)
    _draw_settling(axes[0], report.settling)
    if report.settling.scores:
        _draw_scores(axes[1], report.settling)
    if report.coverage:
        _draw_coverage(axes[-1], report)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _draw_settling(axis: Any, settling: Settling) -> None:
    """Change of amax against all frames, in percent: median over the tensors drawn through, worst dashed."""
    counts = settling.counts[:-1] or settling.counts  # the last is 0 by definition
    for method, colour in _COLOURS.items():
        for values, style in ((settling.median, "-"), (settling.worst, "--")):
            percent = [100 * value for value in values[method][: len(counts)]]
            axis.plot(counts, percent, style, color=colour, marker="o", markersize=3)
        axis.plot([], [], color=colour, label=method)
    axis.plot([], [], "-", color="black", label="median tensor")
    axis.plot([], [], "--", color="black", label="worst tensor")
    axis.set_xscale("log", base=2)
    axis.set_yscale("symlog", linthresh=1)  # a change of 0 has no logarithm
    axis.set_ylim(0, max(100, *(100 * max(values) for values in settling.worst.values())))
    axis.set_yticks(_PERCENTS, [f"{percent:g}" for percent in _PERCENTS])
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.set(title="ranges settle", xlabel="frames", ylabel=f"amax against {settling.counts[-1]} frames, % off")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)


def _draw_scores(axis: Any, settling: Settling) -> None:
    axis.plot(settling.counts, [100 * score for score in settling.scores], color="tab:green", marker="o", markersize=4)
    axis.set_xscale("log", base=2)
    axis.set_xticks(settling.counts, [str(count) for count in settling.counts])
    axis.set(title="INT8 score settles", xlabel="frames calibrated on", ylabel="score, %")
    axis.grid(alpha=0.3)


def _draw_coverage(axis: Any, report: SetReport) -> None:
    """Frames that show a class as bars, with its share of the pixels written behind them."""
    names = [one.name for one in report.coverage]
    frames = [one.frames for one in report.coverage]
    bars = axis.barh(names, frames, color=["tab:blue" if count else "tab:red" for count in frames])
    shares = [f"{100 * one.share:.2g} %" if one.pixels else "never" for one in report.coverage]
    axis.bar_label(bars, shares, padding=3, fontsize=8)
    axis.set_xlim(0, report.frames * 1.18)
    axis.invert_yaxis()
    axis.set(title="classes shown, with their share of the pixels", xlabel=f"frames of {report.frames}")
    axis.set_axisbelow(True)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3, axis="x")


def plot_sensitivity(result: "Sensitivity", path: Path) -> Path:
    """Draw every layer's noise against the time INT8 saves in it, and what the costliest cost. Needs ``train``."""
    require_picture(path)
    from matplotlib.figure import Figure

    bars = result.scored[:_BARS]
    figure = Figure(figsize=(12, max(4.2, 1.4 + 0.22 * len(bars))), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(f"{result.network}: one layer in INT8, all else in float; {result.scored_on}", fontsize=10)
    _draw_noise_against_time(left, result)
    _draw_costs(right, bars, result)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _draw_noise_against_time(axis: Any, result: "Sensitivity") -> None:
    """A dot a layer; those that were scored filled, the costliest named. Sums have no time of their own."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axis.set(title="worth it? low and to the right", xlabel="ms a frame that INT8 saves here")
    axis.set_ylabel("rounding noise, % of the output's power")
    timed = [layer for layer in result.layers if layer.saved_ms is not None and layer.noise]
    if not timed:
        axis.text(0.5, 0.5, "no layer could be timed", ha="center", transform=axis.transAxes)
        return
    for scored, label in ((True, "cost scored"), (False, "not scored")):
        dots = [layer for layer in timed if (layer.labels_changed is not None) == scored]
        if not dots:
            continue
        x, y = [layer.saved_ms for layer in dots], [100 * (layer.noise or 0.0) for layer in dots]
        axis.scatter(x, y, s=22, facecolors="tab:blue" if scored else "none", edgecolors="tab:blue", label=label)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.minorticks_off()
    axis.set_ylim(low, high * (high / low) ** 0.4)  # an empty band above the dots
    _name_costliest(axis, [layer for layer in timed if layer.labels_changed is not None][:_NAMED])
    axis.legend(fontsize=8, loc="best")
    axis.grid(alpha=0.3)


def _name_costliest(axis: Any, layers: "Sequence[LayerCost]") -> None:
    """Write names into the band above the dots, from left to right as the dots are, each with a line to its own."""
    last = len(layers) - 1
    for place, layer in enumerate(sorted(layers, key=lambda layer: layer.saved_ms or 0.0)):
        axis.annotate(
            _short(layer.name),
            (layer.saved_ms, 100 * (layer.noise or 0.0)),
            xytext=(0.01 + 0.98 * (place / last if last else 0.5), 0.97 - 0.055 * (place % 3)),
            textcoords="axes fraction",
            fontsize=8,
            ha="center" if 0 < place < last or not last else "left" if place == 0 else "right",
            va="top",
            arrowprops={"arrowstyle": "-", "color": "grey", "linewidth": 0.6},
        )


def _short(name: str) -> str:
    """The end of a name that is too long: exporters put where a layer is first."""
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"


def _draw_costs(axis: Any, bars: "Sequence[LayerCost]", result: "Sensitivity") -> None:
    """A bar a layer, the costliest on top: points of mIoU where there are labels, otherwise labels that change."""
    labelled = result.float_miou is not None
    costs = [layer.miou_points or 0.0 if labelled else 100 * (layer.labels_changed or 0.0) for layer in bars]
    places = range(len(bars))
    axis.barh(places, costs, color=["tab:red" if cost > 0 else "tab:green" for cost in costs])
    axis.set_yticks(places, [_short(layer.name) for layer in bars], fontsize=8)
    axis.invert_yaxis()
    axis.axvline(0, color="black", linewidth=0.8)
    what = "points of mIoU lost" if labelled else "labels that change, %"
    whole = result.int8.miou_points if labelled else 100 * (result.int8.labels_changed or 0.0)
    axis.set(title=f"cost of each alone (all of them together: {whole:.2f})", xlabel=what)
    axis.grid(alpha=0.3, axis="x")
