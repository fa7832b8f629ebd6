"""Pictures of what the check of a calibration set found. matplotlib is imported when one is drawn."""

import importlib
from pathlib import Path
from typing import Any

from edgeseg.artifact import atomic_path, require_writable
from edgeseg.errors import MissingDependencyError, OutputError
from edgeseg.quantize.report import SetReport, Settling

SUFFIXES = (".png", ".svg", ".pdf")
_PERCENTS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100)
_COLOURS = {"minmax": "tab:grey", "percentile": "tab:blue", "mse": "tab:orange"}


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
