"""Score an engine on labelled data."""

from collections.abc import Callable, Sequence

import numpy as np

from edgeseg.data import Dataset
from edgeseg.data.base import Sample
from edgeseg.errors import DataError
from edgeseg.metrics.confusion import Scores, confusion_matrix, scores
from edgeseg.reporter import SILENT, Reporter, track
from edgeseg.spec import LabelSpace
from edgeseg.types import Image

Labeller = Callable[[Image], Image]


def check_labels(ours: LabelSpace, theirs: LabelSpace, data: str) -> None:
    """Raise an error unless an engine's classes and the data's have the same names.

    Colours may differ.

    Parameters
    ----------
    ours : the engine's label space.
    theirs : the data's label space.
    data : name of the data, for the error.

    Raises
    ------
    DataError : names or their order differ; the error shows the first pair that differs.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> check_labels(CAMVID_11, CAMVID_11, "camvid/val")
    """
    if ours.names != theirs.names:
        pairs = zip(ours.names, theirs.names, strict=False)
        differ = [(our, their) for our, their in pairs if our != their]
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
    indices: Sequence[int] | None = None,
    observer: Callable[[Sample, Image], None] | None = None,
    reporter: Reporter = SILENT,
) -> Scores:
    """Label every frame at its own size and score it, void excluded, over the whole data set.

    Parameters
    ----------
    engine : an ``Engine``, or any function from frame (H, W, 3) uint8 BGR to label map (H, W)
        uint8.
    dataset : the labelled frames.
    labels : the engine's label space. If ``None``: ``engine.spec.labels``, or the data's for a
        function without spec.
    indices : the frames to score, all if ``None``.
    observer : receives each frame and the labels that were found in it.
    reporter : receives the progress over the frames.

    Returns
    -------
    The scores of one confusion matrix over all frames.

    Raises
    ------
    DataError : the label spaces disagree.
    """
    spec = getattr(engine, "spec", None)
    if labels is None:
        labels = spec.labels if spec is not None else dataset.labels
    check_labels(labels, dataset.labels, dataset.name)

    classes = len(dataset.labels)
    matrix = np.zeros((classes, classes), np.int64)
    chosen = range(len(dataset)) if indices is None else indices
    for index in track(chosen, "score", reporter):
        sample = dataset[index]
        prediction = engine(sample.image)
        matrix += confusion_matrix(sample.mask, prediction, classes, dataset.labels.ignore_id)
        if observer is not None:
            observer(sample, prediction)
    return scores(dataset.labels.names, matrix)
