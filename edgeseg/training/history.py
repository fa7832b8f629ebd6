"""What a run leaves for people: its numbers as CSV, its curves and a frame / truth / prediction panel as pictures."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.artifact import atomic_path, write_bytes
from edgeseg.data import Sample
from edgeseg.metrics import Scores
from edgeseg.spec import ModelSpec

Image = npt.NDArray[np.uint8]
PANEL_ROWS = 4


class History:
    """One row a validation: epoch, step, lr, loss, miou, pixel_accuracy, and ``iou/CLASS`` each."""

    def __init__(self, rows: list[dict[str, Any]] | None = None) -> None:
        self.rows: list[dict[str, Any]] = rows or []

    def add(self, epoch: int, step: int, lr: float, loss: float, result: Scores) -> None:
        row = {
            "epoch": epoch,
            "step": step,
            "lr": float(lr),
            "loss": loss,
            "miou": result.mean_iou,
            "pixel_accuracy": result.pixel_accuracy,
            "mean_pixel_accuracy": result.mean_pixel_accuracy,
        }
        row |= {f"iou/{name}": float(iou) for name, iou in zip(result.names, result.iou, strict=True)}
        self.rows.append(row)

    def write_csv(self, path: Path) -> Path:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]) if self.rows else ["epoch"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return write_bytes(path, text.getvalue().encode())


def draw_curves(history: History, path: Path) -> Path:
    """Loss, learning rate, accuracy and mIoU by epoch."""
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in history.rows]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.plot(epochs, [row["loss"] for row in history.rows], color="tab:red")
    left.set(title="training loss", xlabel="epoch", ylabel="cross-entropy")
    middle.plot(epochs, [row["lr"] for row in history.rows], color="tab:grey")
    middle.set(title="learning rate", xlabel="epoch", yscale="log")
    for key, label in (
        ("miou", "mIoU"),
        ("pixel_accuracy", "pixel accuracy"),
        ("mean_pixel_accuracy", "mean pixel accuracy"),
    ):
        right.plot(epochs, [row[key] for row in history.rows], label=label)
    right.set(title="validation", xlabel="epoch", ylim=(0, 1))
    right.legend(loc="lower right")
    for axis in (left, middle, right):
        axis.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def draw_panel(predict: Callable[[Image], Image], samples: Sequence[Sample], spec: ModelSpec, path: Path) -> Path:
    """Rows of frame, truth, prediction, evenly spaced over ``samples``."""
    from edgeseg.postprocess import colourise

    rows = []
    for i in np.linspace(0, len(samples) - 1, min(PANEL_ROWS, len(samples))).astype(int):
        sample = samples[i]
        pictures = (sample.image, colourise(sample.mask, spec.labels), colourise(predict(sample.image), spec.labels))
        rows.append(np.hstack(pictures))
    ok, data = cv2.imencode(".png", np.vstack(rows))
    assert ok
    return write_bytes(path, data.tobytes())
