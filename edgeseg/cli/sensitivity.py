"""Define ``sensitivity``: measure which layers INT8 harms, and in which it saves time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import (
    ConsoleReporter,
    escape,
    stdout,
    tell_notes,
    tell_warning,
    tell_written,
)
from edgeseg.cli.groups import option_groups
from edgeseg.cli.inputs import find_onnx, open_folded, open_labelled
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import (
    Calib,
    Count,
    DataOptions,
    Json,
    Method,
    MethodOption,
    OnnxArgument,
    SpecOptions,
)
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from edgeseg.data import Dataset
    from edgeseg.graph.network import Network
    from edgeseg.profiling.sensitivity import LayerCost, Sensitivity
    from edgeseg.quantize.calibration_set import CalibrationSet
    from edgeseg.quantize.ptq import FoldedNetwork


@command()
@option_groups
def sensitivity(
    model: OnnxArgument,
    data: DataOptions,
    spec: SpecOptions,
    calib: Calib = None,
    count: Count = None,
    method: MethodOption = Method.mse,
    frames: Annotated[
        int, typer.Option(min=1, help="Number of frames to score on, evenly spread.")
    ] = 12,
    layers: Annotated[
        int,
        typer.Option(min=0, help="Number of layers to score, those with most noise first; 0: all."),
    ] = 16,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Draw the layers to a picture (needs pip install "edgeseg\\[train]").',
        ),
    ] = None,
    json_file: Json = None,
) -> None:
    """Measure what INT8 does to each layer alone: noise, lost mIoU, saved time.

    Without --data, the calibration frames are scored: the share of labels that change.
    """
    _require_outputs(model, plot, json_file)
    folded = open_folded(find_onnx(model), spec.overrides())
    dataset = _open_data(folded.network, data)
    calibration = _read_set(folded.network, calib, count)

    result = _measure(folded, calibration, dataset, method.value, frames, layers)
    print_sensitivity(result)
    if plot:
        from edgeseg.profiling.plots import plot_sensitivity

        tell_written(plot_sensitivity(result, plot))
    if json_file:
        split = data.split if data.data else None
        scored = {**result.data, "address": data.data, "split": split}
        write_report(json_file, {**result.to_dict(), "data": scored})


def _require_outputs(model: str, plot: Path | None, json_file: Path | None) -> None:
    """Raise now if an output cannot be written, not after minutes of work."""
    require_json(json_file, Path(model))
    if plot:
        from edgeseg.profiling.plots import require_picture

        require_picture(plot)


def _open_data(network: "Network", options: DataOptions) -> "Dataset | None":
    """Open the labelled data, if any is given."""
    dataset = open_labelled(options, network)
    if dataset is not None and not len(dataset):
        raise InputError(f"{dataset.name}: has no frames to score on")
    return dataset


def _read_set(network: "Network", calib: str | None, count: int | None) -> "CalibrationSet":
    """Read the calibration set, and warn about frames that will be stretched."""
    from edgeseg.quantize.calibration_set import resolve_set

    with ConsoleReporter(waiting=f"reading {calib or 'the calibration set'}") as reporter:
        calibration = resolve_set(calib, count=count, reporter=reporter)
    for warning in calibration.aspect_warnings(network.spec.input_size):
        tell_warning(warning)
    return calibration


def _measure(
    folded: "FoldedNetwork",
    calibration: "CalibrationSet",
    dataset: "Dataset | None",
    method: str,
    frames: int,
    layers: int,
) -> "Sensitivity":
    """Calibrate, then measure; show progress."""
    from edgeseg.profiling.sensitivity import sensitivity as measure
    from edgeseg.quantize.ptq import plan_quantization

    with ConsoleReporter() as reporter:
        plan = plan_quantization(folded, calibration, method, reporter=reporter)
        tell_notes(plan.ranges.notes)
        return measure(plan, calibration, dataset, frames=frames, layers=layers, reporter=reporter)


def print_sensitivity(result: "Sensitivity") -> None:
    """Print the cost of the layers, and what the numbers mean; it fits 80 columns.

    Parameters
    ----------
    result : what was measured.
    """
    console = stdout()
    console.print(_table(result))
    console.print(escape(_legend(result)), style="dim", highlight=False)

    # Layers in which INT8 does not pay.
    saved = [layer.saved_ms for layer in result.layers if layer.saved_ms is not None]
    losing = [milliseconds for milliseconds in saved if milliseconds <= 0]
    if losing:
        text = f"In {len(losing)} of {len(saved)} layers INT8 saves no time on this machine."
        console.print(text, highlight=False)

    # The machine, and the layers that stay in float.
    machine = result.machine
    load = f"load {machine['load_average_1min']} before the measurement"
    where = f"{machine['cpu']}, {machine['cores']} cores, {load}."
    console.print(escape(where), style="dim", highlight=False)
    for reason in dict.fromkeys(result.floats.values()):
        names = ", ".join(name for name, why in result.floats.items() if why == reason)
        console.print(escape(f"always float ({reason}): {names}"), highlight=False)


def _legend(result: "Sensitivity") -> str:
    """Return what the columns of the table mean."""
    lines = [
        "noise: power of the rounding noise, relative to the layer's output",
        f"labels: share that changes on {result.scored_on} if only this layer is in INT8",
    ]
    if result.float_miou is not None:
        lines.append(
            f"mIoU: points lost of {100 * result.float_miou:.2f} in float; below 0 is a gain"
        )
    lines.append("saved: ms per frame of INT8 against the fastest float, measured here")
    return "; ".join(lines) + "."


def _table(result: "Sensitivity") -> "Table":
    """Return one row per scored layer, one for the others, and one for all layers together."""
    from rich import box
    from rich.table import Table

    # The columns.
    labelled = result.float_miou is not None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("what", overflow="fold")
    headings = ["noise\n%", "labels\n%", "saved\nms"]
    if labelled:
        headings.insert(1, "mIoU\npoints")
    for heading in headings:
        table.add_column(heading, justify="right")

    # The rows.
    for layer in result.scored:
        table.add_row(*_cells(layer, labelled))
    others = [layer for layer in result.layers if layer.labels_changed is None]
    if others:
        table.add_row(*_other_cells(others, labelled), style="dim")
    table.add_section()
    name = f"all {len(result.layers)} in INT8"
    table.add_row(*_cells(result.int8, labelled, name), style="bold")
    return table


def _cells(layer: "LayerCost", labelled: bool, name: str = "") -> list[str]:
    """Return the cells of a layer; the column mIoU only if the data is labelled."""
    cells = [
        escape(name or layer.name),
        escape(layer.what),
        "" if layer.noise is None else f"{100 * layer.noise:.2g}",
    ]
    if labelled:
        cells.append(_signed(layer.miou_points))
    cells.append("-" if layer.labels_changed is None else f"{100 * layer.labels_changed:.2f}")
    cells.append(_signed(layer.saved_ms))
    return cells


def _other_cells(layers: "list[LayerCost]", labelled: bool) -> list[str]:
    """Return the cells of the row for the layers that were not scored."""
    noise = max(layer.noise or 0.0 for layer in layers)
    saved = sum(layer.saved_ms or 0.0 for layer in layers)
    name = "1 other" if len(layers) == 1 else f"{len(layers)} others"
    cells = [name, "less noise", f"{100 * noise:.2g}"]
    if labelled:
        cells.append("-")
    return [*cells, "-", f"{saved:.2f}"]


def _signed(value: float | None) -> str:
    """Return a number with two digits, without "-0.00"."""
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"
