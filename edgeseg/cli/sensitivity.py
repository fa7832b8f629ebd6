"""``sensitivity``: which layers INT8 harms, and which it pays in."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.calibrate import Method, net_file, tell_notes, tell_written
from edgeseg.cli.console import escape, progress, stderr, stdout, tell_assumed, waiting
from edgeseg.cli.options import Json, require_json, spec_flags, write_report
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from edgeseg.data import Dataset
    from edgeseg.graph.network import Network, Overrides
    from edgeseg.profiling.sensitivity import LayerCost, Sensitivity
    from edgeseg.quantize.calibration_set import CalibrationSet


@app.command()
@spec_flags
def sensitivity(
    net: Annotated[str, typer.Argument(metavar="NET", help="A float .onnx file, or a shipped net.")],
    calib: Annotated[
        str | None,
        typer.Option(metavar="SET", help="camvid:PATH, a folder, a video, synthetic:// or calibration/sets/NAME.toml."),
    ] = None,
    count: Annotated[int | None, typer.Option(help="Frames of --calib (default 100).")] = None,
    method: Annotated[Method, typer.Option(case_sensitive=False, help="How a range is chosen.")] = Method.mse,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Labelled data for mIoU; without it, labels that change are counted."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
    frames: Annotated[int, typer.Option(min=1, help="Score on so many frames, evenly spread.")] = 12,
    layers: Annotated[int, typer.Option(min=0, help="Score so many of the noisiest layers; 0: all.")] = 16,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="A picture, FILE.png.")] = None,
    *,
    overrides: "Overrides",
    json_file: Json = None,
) -> None:
    """What INT8 does to each layer alone: rounding noise, what it costs in mIoU or labels, what it saves in time."""
    _require(net, plot, json_file)
    network, calibration, dataset = _open(net, overrides, calib, count, data, split)
    result = _measure(network, calibration, dataset, method.value, frames, layers)
    print_sensitivity(result)
    if plot:
        from edgeseg.profiling.plots import plot_sensitivity

        tell_written(plot_sensitivity(result, plot))
    if json_file:
        facts = result.to_dict()
        write_report(json_file, {**facts, "data": {**result.data, "address": data, "split": split if data else None}})


def _require(net: str, plot: Path | None, json_file: Path | None) -> None:
    """Raise now what would fail after minutes."""
    require_json(json_file, Path(net))
    if plot:
        from edgeseg.profiling.plots import require_picture

        require_picture(plot)


def _open(
    net: str, overrides: "Overrides", calib: str | None, count: int | None, data: str | None, split: str
) -> "tuple[Network, CalibrationSet, Dataset | None]":
    """The folded net, the frames it is calibrated on, and the labelled data, if there is any; checked."""
    from edgeseg.data import open_dataset
    from edgeseg.graph.network import load_network
    from edgeseg.metrics.evaluate import check_labels
    from edgeseg.quantize.calibration_set import resolve_set
    from edgeseg.quantize.ptq import folded, tensors_to_range

    network = folded(load_network(net_file(net), overrides))
    tell_assumed(network.assumed)
    tensors_to_range(network)
    dataset = open_dataset(data, split) if data else None
    if dataset is not None:
        check_labels(network.spec.labels, dataset.labels, dataset.name)
        if not len(dataset):
            raise InputError(f"{dataset.name}: no frames to score on")
    with waiting(f"reading {calib}" if calib else "reading"):
        calibration = resolve_set(calib, count=count)
    for warning in calibration.aspect_warnings(network.spec.input_size):
        stderr().print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True, highlight=False)
    return network, calibration, dataset


def _measure(
    network: "Network",
    calibration: "CalibrationSet",
    dataset: "Dataset | None",
    method: str,
    frames: int,
    layers: int,
) -> "Sensitivity":
    """Calibrate, then measure, each with a bar."""
    from edgeseg.profiling.sensitivity import count_steps
    from edgeseg.profiling.sensitivity import sensitivity as measure
    from edgeseg.quantize.ptq import prepare

    with progress(f"calibrating {network.name}", len(calibration)) as step:
        prepared = prepare(network, calibration, method, on_frame=lambda _: step())
    tell_notes(prepared.ranges)
    with progress("one layer at a time", count_steps(prepared, layers)) as step:
        return measure(prepared, calibration, dataset, frames=frames, layers=layers, on_step=step)


def print_sensitivity(result: "Sensitivity") -> None:
    """The scored layers, the others in a line, all of them together, and what the numbers mean; for 80 columns."""
    console = stdout()
    console.print(_table(result))
    console.print(escape(_legend(result)), style="dim", highlight=False)
    timed = [layer for layer in result.layers if layer.saved_ms is not None]
    losing = [layer for layer in timed if layer.saved_ms is not None and layer.saved_ms <= 0]
    if losing:
        console.print(f"INT8 saves no time here in {len(losing)} of the {len(timed)} layers.", highlight=False)
    machine = result.machine
    where = f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average_1min']} before."
    console.print(escape(where), style="dim", highlight=False)
    for reason in dict.fromkeys(result.floats.values()):
        names = ", ".join(name for name, why in result.floats.items() if why == reason)
        console.print(f"always float ({escape(reason)}): {escape(names)}", highlight=False)


def _legend(result: "Sensitivity") -> str:
    """What the columns of the table are."""
    changes = f"labels: share that changes on {result.scored_on}, with one layer in INT8 and all else in fp32"
    said = ["noise: power of the rounding noise over that of the layer's output", changes]
    if result.float_miou is not None:
        said.append(f"mIoU: points lost there of {100 * result.float_miou:.2f}, less than 0 gained")
    said.append("saved: ms a frame of the layer in INT8 against the fastest float, measured here")
    return "; ".join(said) + "."


def _table(result: "Sensitivity") -> "Table":
    from rich import box
    from rich.table import Table

    labelled = result.float_miou is not None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("what", overflow="fold")
    for heading in ("noise\n%", *(["mIoU\npoints"] if labelled else []), "labels\n%", "saved\nms"):
        table.add_column(heading, justify="right")
    for layer in result.scored:
        table.add_row(*_cells(layer, labelled))
    others = [layer for layer in result.layers if layer.labels_changed is None]
    if others:
        noise = max(layer.noise or 0.0 for layer in others)
        saved = sum(layer.saved_ms or 0.0 for layer in others)
        cells = [
            f"{len(others)} other{'' if len(others) == 1 else 's'}",
            "less noise",
            f"{100 * noise:.2g}",
            *["-"] * labelled,
            "-",
            f"{saved:.2f}",
        ]
        table.add_row(*cells, style="dim")
    table.add_section()
    table.add_row(*_cells(result.int8, labelled, f"all {len(result.layers)} in INT8"), style="bold")
    return table


def _cells(layer: "LayerCost", labelled: bool, name: str = "") -> list[str]:
    def signed(value: float | None) -> str:
        return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"  # + 0.0: no "-0.00"

    return [
        escape(name or layer.name),
        escape(layer.what),
        "" if layer.noise is None else f"{100 * layer.noise:.2g}",
        *([signed(layer.miou_points)] if labelled else []),
        "-" if layer.labels_changed is None else f"{100 * layer.labels_changed:.2f}",
        signed(layer.saved_ms),
    ]
