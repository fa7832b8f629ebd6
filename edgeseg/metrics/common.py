"""Share what all scores need: which pixels count, and divisions by zero pixels."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.errors import DataError
from edgeseg.types import Vector

LabelMap = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


def known_pixels(truth: LabelMap, classes: int, ignore_id: int) -> Flags:
    """Return (H, W) bool: the pixels that are not void.

    Parameters
    ----------
    truth : (H, W) uint8 label ids.
    classes : number of classes; an id not below it is void.
    ignore_id : id of unlabelled pixels, which are void, too.

    Examples
    --------
    >>> known_pixels(np.array([[0, 1, 7, 255]], np.uint8), classes=2, ignore_id=255).tolist()
    [[True, True, False, False]]
    """
    known: Flags = (truth < classes) & (truth != ignore_id)
    return known


def known_predictions(prediction: LabelMap, known: Flags, classes: int) -> LabelMap:
    """Return the predicted ids of the pixels that are not void, as a vector.

    Parameters
    ----------
    prediction : (H, W) uint8 label ids.
    known : (H, W) bool, as ``known_pixels`` returns it.
    classes : number of classes.

    Raises
    ------
    DataError : shapes differ, or a predicted id is not below ``classes``.

    Examples
    --------
    >>> known = np.array([[True, True, False]])
    >>> known_predictions(np.array([[1, 0, 9]], np.uint8), known, classes=2).tolist()
    [1, 0]
    """
    if prediction.shape != known.shape:
        raise DataError(
            "prediction and truth differ in size", got=prediction.shape, expected=known.shape
        )

    ids: LabelMap = prediction[known]
    if ids.size and int(ids.max()) >= classes:
        raise DataError(
            "a predicted label id is out of range",
            got=int(ids.max()),
            expected=f"below {classes}",
        )
    return ids


def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Vector:
    """Divide in float64; NaN where both are 0.

    Parameters
    ----------
    part : numerators, (classes,).
    whole : denominators, (classes,).

    Examples
    --------
    >>> ratio(np.array([1, 0]), np.array([4, 0])).tolist()
    [0.25, nan]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Vector = part.astype(np.float64) / whole
    return out


def mean_of_present(values: Vector) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none.

    Parameters
    ----------
    values : one score per class; NaN for a class without score.

    Examples
    --------
    >>> mean_of_present(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def json_number(value: float) -> float | None:
    """Return a plain float; ``None`` instead of NaN, which JSON does not have.

    Parameters
    ----------
    value : a score.

    Examples
    --------
    >>> json_number(np.float64(0.5)), json_number(float("nan"))
    (0.5, None)
    """
    return None if np.isnan(value) else float(value)
