"""Check a sample of labelled data in a second, at the start of a training."""

import time
from collections.abc import Sequence

import numpy as np

from edgeseg.data.base import Dataset
from edgeseg.errors import DataError
from edgeseg.reporter import SILENT, Reporter

_SAMPLE_S = 0.8  # of the second that the check may take


def check_sample(
    datasets: Sequence[Dataset], seconds: float = _SAMPLE_S, reporter: Reporter = SILENT
) -> int:
    """Read some masks of data sets for a moment, so that a wrong id is found before training.

    Parameters
    ----------
    datasets : the open splits; the first frames that are read are spread over each of them.
    seconds : time after which no further frame is read; one frame of each is read in any case.
    reporter : receives a warning if only one class occurs.

    Returns
    -------
    The number of frames that were read.

    Raises
    ------
    DataError : a mask cannot be used; the error names its file.
    """
    end = time.perf_counter() + seconds
    orders = [spread_order(len(data)) for data in datasets]
    classes: set[int] = set()
    read = 0
    for turn in range(max((len(order) for order in orders), default=0)):
        if turn and time.perf_counter() >= end:
            break
        for data, order in zip(datasets, orders, strict=True):
            if turn >= len(order):
                continue
            sample = data[order[turn]]
            ids = np.flatnonzero(np.bincount(sample.mask.ravel(), minlength=256))
            strange = ids[(ids >= len(data.labels)) & (ids != data.labels.ignore_id)]
            if strange.size:
                raise DataError(
                    f"{data.name}: frame {sample.name} has ids of no class",
                    got=f"id {strange[0]}",
                    expected=f"0..{len(data.labels) - 1}, {data.labels.ignore_id}",
                    hint="`data check` lists all such frames.",
                )
            classes.update(int(number) for number in ids if number != data.labels.ignore_id)
            read += 1

    labels = datasets[0].labels if datasets else None
    if labels is not None and read and len(labels) > 1 and len(classes) < 2:
        names = [labels.names[number] for number in classes]
        reporter.warning(
            f"{datasets[0].name}: {read} masks that were looked at have no class but "
            f"{', '.join(names) or 'void'}"
        )
    return read


def spread_order(count: int) -> list[int]:
    """Return indices below ``count``, at most 256, so that the first few are spread over the whole.

    Parameters
    ----------
    count : how many there are.

    Examples
    --------
    >>> spread_order(8)[:3]
    [4, 2, 6]
    """
    order: list[int] = []
    seen: set[int] = set()
    parts = 1
    while len(order) < min(count, 256):
        for part in range(parts):
            index = (2 * part + 1) * count // (2 * parts)
            if index not in seen:
                seen.add(index)
                order.append(index)
        parts *= 2
        if parts > 2 * count:
            break
    return order
