"""Write what a run leaves for people to look at.

The numbers become CSV; the curves, and a panel of frames, truths and predictions, become pictures.
"""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edgeseg.data import Sample
from edgeseg.errors import OutputError
from edgeseg.files import atomic_path, write_bytes
from edgeseg.metrics.confusion import Scores
from edgeseg.spec import ModelSpec
from edgeseg.types import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_ROWS = 4

Row = dict[str, Any]

_WHOLE_NUMBERS = ("epoch", "step")

# The curves over epochs: (title, ((column, label), ...)).
_CURVES = (
    ("loss", (("loss", "train"), ("val_loss", "val"))),
    ("mIoU", (("train_miou", "train"), ("miou", "val"))),
    ("pixel accuracy", (("train_pixel_accuracy", "train"), ("pixel_accuracy", "val"))),
)


class History:
    """Hold the numbers of a run, one row per validation.

    A row has the epoch, the step, the learning rate, the losses, the scores on the validation split
    and in training, and ``iou/CLASS`` per class. Scores in training are those of the augmented
    batches since the row before, by the model as it was at each batch.

    Parameters
    ----------
    rows : the rows to begin with; None for none.

    Attributes
    ----------
    rows : the rows, in order.

    Examples
    --------
    >>> history = History([{"epoch": 1, "step": 6, "loss": 2.1}])
    >>> history.rows[-1]["step"]
    6
    """

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows: list[Row] = rows or []

    def add(
        self,
        epoch: int,
        step: int,
        lr: float,
        losses: tuple[float, float],
        result: Scores,
        in_training: Scores,
    ) -> None:
        """Add a row.

        Parameters
        ----------
        epoch : number of the epoch, from 1 on.
        step : number of steps of the optimizer so far.
        lr : learning rate.
        losses : loss in training and on the validation split.
        result : scores on the validation split.
        in_training : scores in training.
        """
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
        for name, iou in zip(result.names, result.iou, strict=True):
            row[f"iou/{name}"] = float(iou)
        self.rows.append(row)

    @classmethod
    def read_csv(cls, path: Path) -> "History":
        """Read what ``write_csv`` wrote.

        Parameters
        ----------
        path : the file.
        """
        rows: list[Row] = []
        with path.open(encoding="utf-8", newline="") as file:
            for texts in csv.DictReader(file):
                row: Row = {}
                for key, text in texts.items():
                    row[key] = int(text) if key in _WHOLE_NUMBERS else float(text)
                rows.append(row)
        return cls(rows)

    def write_csv(self, path: Path) -> Path:
        """Write the rows as CSV, atomically.

        Parameters
        ----------
        path : the file.

        Returns
        -------
        ``path``.

        Raises
        ------
        OutputError : the file cannot be written.
        """
        columns = list(self.rows[0]) if self.rows else ["epoch"]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return write_bytes(path, text.getvalue().encode())


def draw_curves(history: History, path: Path) -> Path:
    """Draw loss, mIoU, pixel accuracy and learning rate over epochs; training is dashed.

    Parameters
    ----------
    history : the numbers.
    path : the PNG file to write.

    Returns
    -------
    ``path``.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 3.6), layout="constrained")
    axes = figure.subplots(1, 4)
    for axis, (title, columns) in zip(axes, _CURVES, strict=False):
        _draw_scores(axis, history.rows, title, columns)

    epochs = [row["epoch"] for row in history.rows]
    axes[3].plot(epochs, [row["lr"] for row in history.rows], color="tab:grey")
    axes[3].set(title="learning rate", xlabel="epoch", yscale="log")

    for axis in axes:
        axis.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _draw_scores(
    axis: "Axes", rows: Sequence[Row], title: str, columns: Sequence[tuple[str, str]]
) -> None:
    """Draw columns of the history over epochs; all but the loss are in 0..1."""
    epochs = [row["epoch"] for row in rows]
    for column, label in columns:
        values = [row.get(column, float("nan")) for row in rows]
        style = "--" if label == "train" else "-"
        axis.plot(epochs, values, label=label, color="tab:blue", linestyle=style)

    axis.set(title=title, xlabel="epoch")
    if title == "loss":
        axis.legend(loc="upper right")
    else:
        axis.set_ylim(0, 1)
        axis.legend(loc="lower right")


def draw_panel(
    predict: Callable[[Image], Image],
    samples: Sequence[Sample],
    spec: ModelSpec,
    path: Path,
) -> Path:
    """Draw rows of frame, truth and prediction.

    Parameters
    ----------
    predict : returns the label map (H, W) uint8 of a frame (H, W, 3) uint8 BGR.
    samples : the labelled frames; ``PANEL_ROWS`` of them are drawn, evenly spaced.
    spec : holds the colours of the classes.
    path : the PNG file to write.

    Returns
    -------
    ``path``.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    from edgeseg.imaging.postprocess import colourise

    count = min(PANEL_ROWS, len(samples))
    rows: list[Image] = []
    for index in np.linspace(0, len(samples) - 1, count).astype(int):
        sample = samples[index]
        truth = colourise(sample.mask, spec.labels)
        prediction = colourise(predict(sample.image), spec.labels)
        row = np.hstack([sample.image, truth, prediction])

        # Data sets of photographs have many sizes: every row gets the width of the first.
        width = rows[0].shape[1] if rows else row.shape[1]
        if row.shape[1] != width:
            height = round(row.shape[0] * width / row.shape[1])
            row = cv2.resize(row, (width, height), interpolation=cv2.INTER_NEAREST)
        rows.append(row)

    encoded, data = cv2.imencode(".png", np.vstack(rows))
    if not encoded:
        raise OutputError(f"{path}: the panel cannot be encoded as PNG")
    return write_bytes(path, data.tobytes())
