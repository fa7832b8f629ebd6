"""Measure flicker, and what the filter against it gains and costs, on a clip with ground truth.

    python -m benchmarks.flicker --data camvid:PATH [--split val] [--json FILE]

The frames must be consecutive: CamVid's ``val`` split in the SegNet layout is CamSeq01, 101 frames
at 15 frames per second. The strength of the filter is chosen on the first half of the clip; the
table shows the second half, which had no part in the choice. Rows: the engines that ship in fp32
and int8, each without the filter and with it at several strengths; the ground truth, which flickers
too, because annotators draw each frame anew; and an exponential average of the network's scores
where the picture is still, which needs an engine that returns logits (ENet in fp32 only).
"""

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from edgeseg.backends.engine import Engine
from edgeseg.data import open_dataset
from edgeseg.data.base import Sample, iterate
from edgeseg.errors import DataError
from edgeseg.files import write_json
from edgeseg.imaging.preprocess import resize_labels
from edgeseg.imaging.stillness import Stillness
from edgeseg.metrics.confusion import Scores, confusion_matrix, scores
from edgeseg.metrics.flicker import ClipFlicker, FlickerMeter
from edgeseg.profiling.entry import open_entry
from edgeseg.profiling.machine import describe_machine
from edgeseg.spec import LabelSpace
from edgeseg.types import Float, Image
from edgeseg.video.smooth import DEFAULT_STRENGTH, LabelSmoother

ENGINES = (
    "enet-camvid@fp32",
    "enet-camvid@int8",
    "segnet-light-camvid@fp32",
    "segnet-light-camvid@int8",
)
SCORED = ENGINES[0]  # the one whose scores are averaged, too: it takes a second run
STRENGTHS = (1, 2, 3, 5)
THIN_OR_MOVING = ("Pole", "SignSymbol", "Pedestrian", "Bicyclist")

# Weight of the new scores in the exponential average.
NEW_SCORES = 0.3


@dataclass(frozen=True)
class Found:
    """Hold the label maps of all frames under one name.

    Attributes
    ----------
    engine : name of the engine, or ``ground truth``.
    filtered : how the labels were filtered.
    label_maps : one per frame.
    """

    engine: str
    filtered: str
    label_maps: Sequence[Image]


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="camvid:PATH")
    parser.add_argument("--split", default="val", help="the split that holds the clip")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args()

    # Label the clip once per engine.
    console = Console()
    dataset = open_dataset(options.data, options.split)
    samples = list(iterate(dataset))
    found = [Found("ground truth", "-", [sample.mask for sample in samples])]
    for name in ENGINES:
        with console.status(f"{name}: labelling {len(samples)} frames"):
            found += of_engine(name, samples)

    # Score the halves of the clip.
    middle = len(samples) // 2
    halves = {"first": slice(0, middle), "second": slice(middle, len(samples))}
    results: dict[str, list[dict[str, Any]]] = {}
    for half, part in halves.items():
        results[half] = measure(found, samples, part, dataset.labels)

    for half, rows in results.items():
        console.print(table(rows, f"{dataset.name}, {half} half"))
    times = milliseconds(samples, found[1].label_maps, dataset.labels)
    console.print(times)
    if options.json:
        facts = {"benchmark": "flicker", "machine": describe_machine(), "milliseconds": times}
        write_json(options.json, {**facts, "default": DEFAULT_STRENGTH, **results})


def of_engine(name: str, samples: Sequence[Sample]) -> list[Found]:
    """Label the clip with an engine: without filter, with each strength, with averaged scores.

    Parameters
    ----------
    name : name of the engine, with its precision.
    samples : the frames of the clip.
    """
    with open_entry(name).engine as engine:
        raw = [engine(sample.image) for sample in samples]
        averaged = list(average_scores(engine, samples)) if name == SCORED else []

    found = [Found(name, "none", raw)]
    for strength in STRENGTHS:
        smoother = LabelSmoother(strength)
        smooth = [
            smoother(sample.image, labels) for sample, labels in zip(samples, raw, strict=True)
        ]
        found.append(Found(name, f"strength {strength}", smooth))
    if averaged:
        found.append(Found(name, "averaged scores", averaged))
    return found


def average_scores(engine: Engine, samples: Iterable[Sample]) -> Iterable[Image]:
    """Yield the labels of exponentially averaged scores; what moved starts anew.

    Parameters
    ----------
    engine : an engine that returns logits.
    samples : the frames of the clip.
    """
    stillness = Stillness()
    average: Float | None = None
    for sample in samples:
        # Softmax over the classes.
        logits = engine.logits(sample.image)
        shares = np.exp(logits - logits.max(axis=0))
        shares /= shares.sum(axis=0)

        still = stillness.add(sample.image)
        if average is None or still is None:
            average = shares
        else:
            height, width = shares.shape[1:]
            keep = resize_labels(still.view(np.uint8), (height, width))
            average += (1 - (1 - NEW_SCORES) * keep) * (shares - average)
        labels = average.argmax(axis=0).astype(np.uint8)
        yield resize_labels(labels, (sample.image.shape[0], sample.image.shape[1]))


def measure(
    found: Iterable[Found], samples: Sequence[Sample], part: slice, labels: LabelSpace
) -> list[dict[str, Any]]:
    """Score every row on a part of the clip; return one dict per row.

    Parameters
    ----------
    found : the label maps.
    samples : the frames and their ground truth.
    part : which frames.
    labels : the label space.

    Raises
    ------
    DataError : the frames are not consecutive.
    """
    rows: list[dict[str, Any]] = []
    plain: Scores | None = None
    for one in found:
        clip = ClipFlicker(labels)
        matrix = np.zeros((len(labels), len(labels)), np.int64)
        changes: list[float] = []
        before: Image | None = None
        for sample, label_map in zip(samples[part], one.label_maps[part], strict=True):
            clip.add(sample.name, sample.image, label_map)
            if before is not None:
                changes.append(float((label_map != before).mean()))
            before = label_map
            if one.engine != "ground truth":
                matrix += confusion_matrix(sample.mask, label_map, len(labels), labels.ignore_id)

        flicker = clip.result
        if flicker is None:
            raise DataError("flicker cannot be measured", got=clip.reason)
        row: dict[str, Any] = {"engine": one.engine, "filter": one.filtered, **flicker.to_dict()}
        row["all_changes"] = float(np.mean(changes))
        if one.engine != "ground truth":
            result = scores(labels.names, matrix)
            plain = result if one.filtered == "none" or plain is None else plain
            change = result.iou - plain.iou
            row["miou"] = result.mean_iou
            row["miou_change"] = result.mean_iou - plain.mean_iou
            row["iou_change"] = dict(zip(labels.names, change.tolist(), strict=True))
        rows.append(row)
    return rows


def table(rows: Iterable[dict[str, Any]], title: str) -> Table:
    """Return the rows as a table.

    Parameters
    ----------
    rows : as ``measure`` returns them.
    title : title of the table.
    """
    made = Table(title=title, caption="Percent; changes are points against no filter.")
    made.add_column("labels")
    made.add_column("filter")
    for heading in ("flicker", "all changes", "mIoU", "change", *THIN_OR_MOVING):
        made.add_column(heading, justify="right")

    for row in rows:
        cells = [f"{100 * row['flicker']:.2f}", f"{100 * row['all_changes']:.2f}"]
        if "miou" in row:
            cells += [f"{100 * row['miou']:.2f}", f"{100 * row['miou_change']:+.2f}"]
            cells += [f"{100 * row['iou_change'][name]:+.2f}" for name in THIN_OR_MOVING]
        made.add_row(row["engine"], row["filter"], *cells)
    return made


def milliseconds(
    samples: Sequence[Sample], label_maps: Sequence[Image], labels: LabelSpace
) -> dict[str, dict[str, float]]:
    """Time the filter and the meter; return the median, and the least, of 100 frames.

    Parameters
    ----------
    samples : the frames.
    label_maps : their labels.
    labels : the label space.
    """
    times: dict[str, dict[str, float]] = {}
    for width, height in ((480, 360), (1280, 720)):
        frames = [cv2.resize(sample.image, (width, height)) for sample in samples[:20]]
        maps = [resize_labels(label_map, (height, width)) for label_map in label_maps[:20]]
        calls: dict[str, Callable[[Image, Image], object]] = {
            "filter": LabelSmoother(),
            "meter": FlickerMeter(labels).add,
        }
        for name, call in calls.items():
            taken: list[float] = []
            for _ in range(5):
                for frame, label_map in zip(frames, maps, strict=True):
                    start = time.perf_counter()
                    call(np.asarray(frame, np.uint8), label_map)
                    taken.append(1e3 * (time.perf_counter() - start))
            times[f"{name} {width}x{height}"] = {
                "median": round(float(np.median(taken)), 2),
                "least": round(min(taken), 2),
            }
    return times


if __name__ == "__main__":
    main()
