"""Scores of an engine on labelled data."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edgeseg.data import Dataset
from edgeseg.errors import DataError
from edgeseg.metrics import Scores, confusion_matrix, scores
from edgeseg.spec import LabelSpace

Image = npt.NDArray[np.uint8]
Labeller = Callable[[Image], Image]


def check_labels(ours: LabelSpace, theirs: LabelSpace, data: str) -> None:
    """Raise ``DataError`` unless an engine's classes are the data's, name by name (colours may differ)."""
    if ours.names != theirs.names:
        differ = [(a, b) for a, b in zip(ours.names, theirs.names, strict=False) if a != b]
        first = f"; the first that differs: {differ[0][0]} / {differ[0][1]}" if differ else ""
        raise DataError(
            f"the engine's labels are not those of {data}",
            got=f"{len(ours)} classes ({ours.name})",
            expected=f"{len(theirs)} classes ({theirs.name}){first}",
        )


def evaluate(
    engine: Labeller,
    dataset: Dataset,
    *,
    labels: LabelSpace | None = None,
    on_frame: Callable[[int], None] | None = None,
    indices: Sequence[int] | None = None,
) -> Scores:
    """Label every frame of ``dataset`` at its own size and score it, void excluded, over the whole set.

    ``engine`` is an ``Engine`` or any frame -> label map function; ``labels`` defaults to ``engine.spec.labels``.
    ``on_frame(i)`` is called after each frame. Raises ``DataError`` where label spaces disagree.
    """
    spec = getattr(engine, "spec", None)
    space = labels or (spec.labels if spec is not None else dataset.labels)
    check_labels(space, dataset.labels, dataset.name)
    classes = len(dataset.labels)
    matrix = np.zeros((classes, classes), np.int64)
    for done, index in enumerate(range(len(dataset)) if indices is None else indices):
        sample = dataset[index]
        matrix += confusion_matrix(sample.mask, engine(sample.image), classes, dataset.labels.ignore_id)
        if on_frame:
            on_frame(done)
    return scores(dataset.labels.names, matrix)
