"""Define ``evaluate``: score an engine on labelled data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, escape, stdout
from edgeseg.cli.groups import option_groups
from edgeseg.cli.inputs import open_engine
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import EngineArgument, EngineOptions, Json, SpecOptions

if TYPE_CHECKING:
    from edgeseg.data.base import Sample
    from edgeseg.graph.network import Overrides
    from edgeseg.metrics.confusion import Scores
    from edgeseg.metrics.flicker import ClipFlicker
    from edgeseg.passport import Passport
    from edgeseg.types import Image

# The share of all still pixels that a class needs to be named among those that flicker most.
_LEAST_STILL_SHARE = 0.01


@command()
@option_groups
def evaluate(
    engine: EngineArgument,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Labelled data: camvid:PATH, cityscapes:PATH, synthetic://, ...; or a video file, "
            "which has no labels, for the flicker alone.",
        ),
    ],
    engine_options: EngineOptions,
    spec: SpecOptions,
    split: Annotated[str, typer.Option(help="Split of DATA.")] = "val",
    json_file: Json = None,
) -> None:
    """Score an engine on labelled data: mIoU, pixel accuracy, and scores per class.

    Flicker, the share of labels that change where the picture does not, is measured if the frames
    are consecutive, or if DATA is a video file.
    """
    require_json(json_file, Path(engine), Path(f"{engine}.json"), Path(data))
    overrides = spec.overrides()
    if Path(data).is_file():
        facts = _evaluate_video(engine, data, engine_options, overrides)
    else:
        facts = _evaluate_dataset(engine, data, split, engine_options, overrides)
    if json_file:
        write_report(json_file, facts)


def _evaluate_dataset(
    name: str, address: str, split: str, options: EngineOptions, overrides: "Overrides"
) -> dict[str, Any]:
    """Score an engine on labelled data, and print the scores; return the facts for JSON."""
    from edgeseg.data import open_dataset
    from edgeseg.metrics.evaluate import evaluate as score
    from edgeseg.metrics.flicker import ClipFlicker

    dataset = open_dataset(address, split)
    opened = open_engine(name, options, overrides)
    clip = ClipFlicker(dataset.labels)
    truth = ClipFlicker(dataset.labels)

    def observe(sample: "Sample", found: "Image") -> None:
        clip.add(sample.name, sample.image, found)
        truth.add(sample.name, sample.image, sample.mask)

    with opened, ConsoleReporter() as reporter:
        result = score(opened, dataset, observer=observe, reporter=reporter)
    passport = opened.passport
    where = f"{dataset.name}, {len(dataset)} frames"
    print_scores(result, f"{passport.name} ({passport.precision}) on {where}")
    print_flicker(clip, truth)

    about = {"data": address, "split": split, "frames": len(dataset)}
    facts = {**_engine_facts(passport), **about, **result.to_dict(), **_flicker_facts(clip)}
    facts["flicker_of_truth"] = truth.result.to_dict() if truth.result else None
    return facts


def _evaluate_video(
    name: str, address: str, options: EngineOptions, overrides: "Overrides"
) -> dict[str, Any]:
    """Measure the flicker of an engine on a video, and print it; return the facts for JSON."""
    from edgeseg.metrics.flicker import measure_flicker
    from edgeseg.video import open_source

    with open_source(address) as source:
        opened = open_engine(name, options, overrides)
        frames = ((frame.name, frame.image) for frame in source)
        labels = opened.spec.labels
        count = source.info.frames
        with opened, ConsoleReporter() as reporter:
            clip = measure_flicker(opened, frames, labels, count=count, reporter=reporter)

    passport = opened.passport
    console = stdout()
    title = f"{passport.name} ({passport.precision}) on {address}, {clip.frames} frames"
    console.print(escape(title), soft_wrap=True, highlight=False)
    print_flicker(clip)
    hint = "A video has no labels: give labelled data, such as camvid:PATH, for mIoU."
    console.print(hint, style="dim", highlight=False)
    about = {"data": address, "frames": clip.frames}
    return {**_engine_facts(passport), **about, **_flicker_facts(clip)}


def _flicker_facts(clip: "ClipFlicker") -> dict[str, Any]:
    """Return the flicker for JSON, or why there is none."""
    flicker = clip.result
    return {
        "flicker": None if flicker is None else flicker.to_dict(),
        "flicker_unmeasured": clip.reason or None,
    }


def print_flicker(clip: "ClipFlicker", truth: "ClipFlicker | None" = None) -> None:
    """Print the flicker, and the classes that flicker most; or why it is not measured.

    Parameters
    ----------
    clip : the flicker of the engine.
    truth : the flicker of the ground truth, which is what a perfect engine would have.
    """
    import numpy as np

    console = stdout()
    flicker = clip.result
    if flicker is None:
        console.print(escape(f"flicker is not measured: {clip.reason}"), soft_wrap=True)
        return

    line = f"flicker {_percent(flicker.overall)} %"
    if truth is not None and truth.result is not None:
        line += f" (the ground truth's own: {_percent(truth.result.overall)} %)"
    line += f", measured on the still pixels, {_percent(flicker.still_share)} % of all"

    # The classes that flicker most, of those with enough still pixels for a share.
    enough = flicker.still >= _LEAST_STILL_SHARE * flicker.still.sum()
    shares = np.where(enough, flicker.by_class, 0.0)
    order = [index for index in np.argsort(-shares)[:3] if enough[index]]
    worst = [f"{flicker.names[index]} {_percent(shares[index])} %" for index in order]
    console.print(escape(f"{line}; most: {', '.join(worst)}"), soft_wrap=True)


def _engine_facts(passport: "Passport") -> dict[str, Any]:
    """Return what identifies an engine in the JSON."""
    return {
        "engine": passport.name,
        "precision": passport.precision,
        "onnx_sha256": passport.onnx_sha256,
        "engine_sha256": passport.engine_sha256,
    }


def print_scores(result: "Scores", title: str) -> None:
    """Print a table of the classes, and the means below it; all scores in percent.

    Parameters
    ----------
    result : the scores.
    title : title of the table.
    """
    from rich.table import Table

    # One row per class.
    table = Table(title=escape(title), caption="Scores are in percent.")
    table.add_column("class")
    for heading in ("IoU", "Dice = F1", "sensitivity", "precision", "pixels"):
        table.add_column(heading, justify="right")
    pixels = result.matrix.sum(axis=1)
    for index, name in enumerate(result.names):
        table.add_row(
            escape(name),
            _percent(result.iou[index]),
            _percent(result.dice[index]),
            _percent(result.sensitivity[index]),
            _percent(result.precision[index]),
            f"{pixels[index]:,}",
        )

    # The means.
    means = (
        f"mIoU {_percent(result.mean_iou)}",
        f"pixel accuracy {_percent(result.pixel_accuracy)}",
        f"mean pixel accuracy {_percent(result.mean_pixel_accuracy)}",
        f"frequency-weighted IoU {_percent(result.frequency_weighted_iou)}",
        f"mean Dice {_percent(result.mean_dice)}",
    )
    console = stdout()
    console.print(table)
    console.print("   ".join(means), soft_wrap=True)
    if result.absent:
        absent = escape(", ".join(result.absent))
        console.print(f"not in the means, because neither labels nor predictions have it: {absent}")


def _percent(score: float) -> str:
    """Return a score (0..1) in percent; "-" if it is not defined."""
    is_nan = score != score
    return "-" if is_nan else f"{100 * score:.2f}"
