"""What a run leaves for people: its numbers as CSV, its curves and a frame / truth / prediction panel as pictures."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg.data import Sample
from edgeseg.files import atomic_path, write_bytes
from edgeseg.metrics.confusion import Scores
from edgeseg.spec import ModelSpec
from edgeseg.types import Image

PANEL_ROWS = 4


class History:
    """One row a validation: epoch, step, lr, losses, scores on ``val`` and in training, and ``iou/CLASS`` each.

    Scores in training are those of the augmented batches since the row before, by the net as it was at each.
    """

    def __init__(self, rows: list[dict[str, Any]] | None = None) -> None:
        self.rows: list[dict[str, Any]] = rows or []

    def add(
        self, epoch: int, step: int, lr: float, losses: tuple[float, float], result: Scores, in_training: Scores
    ) -> None:
        """``losses`` are (training, validation)."""
        row = {
            "epoch": epoch,
            "step": step,
            "lr": float(lr),
            "loss": losses[0],
            "val_loss": losses[1],
            "miou": result.mean_iou,
            "pixel_accuracy": result.pixel_accuracy,
            "mean_pixel_accuracy": result.mean_pixel_accuracy,
            "mean_dice": result.mean_dice,
            "train_miou": in_training.mean_iou,
            "train_pixel_accuracy": in_training.pixel_accuracy,
        }
        row |= {f"iou/{name}": float(iou) for name, iou in zip(result.names, result.iou, strict=True)}
        self.rows.append(row)

    @classmethod
    def read_csv(cls, path: Path) -> "History":
        """What ``write_csv`` wrote."""
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                {k: int(v) if k in ("epoch", "step") else float(v) for k, v in r.items()} for r in csv.DictReader(file)
            ]
        return cls(rows)

    def write_csv(self, path: Path) -> Path:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]) if self.rows else ["epoch"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return write_bytes(path, text.getvalue().encode())


def draw_curves(history: History, path: Path) -> Path:
    """Loss, learning rate, accuracy and mIoU by epoch; training dashed."""
    from matplotlib.figure import Figure

    rows = history.rows
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(15, 3.6), layout="constrained")
    axes = figure.subplots(1, 4)
    curves = (
        ("loss", (("loss", "train"), ("val_loss", "val"))),
        ("mIoU", (("train_miou", "train"), ("miou", "val"))),
        ("pixel accuracy", (("train_pixel_accuracy", "train"), ("pixel_accuracy", "val"))),
    )
    for axis, (title, keys) in zip(axes, curves, strict=False):
        for key, label in keys:
            values = [row.get(key, float("nan")) for row in rows]
            axis.plot(epochs, values, label=label, color="tab:blue", linestyle="--" if label == "train" else "-")
        axis.set(title=title, xlabel="epoch", **({} if title == "loss" else {"ylim": (0, 1)}))
        axis.legend(loc="upper right" if title == "loss" else "lower right")
    axes[3].plot(epochs, [row["lr"] for row in rows], color="tab:grey")
    axes[3].set(title="learning rate", xlabel="epoch", yscale="log")
    for axis in axes:
        axis.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def draw_panel(predict: Callable[[Image], Image], samples: Sequence[Sample], spec: ModelSpec, path: Path) -> Path:
    """Rows of frame, truth, prediction, evenly spaced over ``samples``."""
    from edgeseg.imaging.postprocess import colourise

    rows: list[Image] = []
    for i in np.linspace(0, len(samples) - 1, min(PANEL_ROWS, len(samples))).astype(int):
        sample = samples[i]
        pictures = (sample.image, colourise(sample.mask, spec.labels), colourise(predict(sample.image), spec.labels))
        row = np.hstack(pictures)
        if rows and row.shape[1] != rows[0].shape[1]:  # data sets of photographs have many sizes
            width = rows[0].shape[1]
            row = cv2.resize(row, (width, round(row.shape[0] * width / row.shape[1])), interpolation=cv2.INTER_NEAREST)
        rows.append(row)
    ok, data = cv2.imencode(".png", np.vstack(rows))
    assert ok
    return write_bytes(path, data.tobytes())
