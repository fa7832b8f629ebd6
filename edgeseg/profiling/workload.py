"""Open the frames that engines are profiled on."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from edgeseg.data import Dataset
from edgeseg.data.sampling import spread
from edgeseg.errors import InputError
from edgeseg.profiling.frames import Sample, frames_of, open_frames, spread_frames
from edgeseg.profiling.results import DataFacts
from edgeseg.types import Image
from edgeseg.video.frames import Source

DEFAULT_SOURCE = "synthetic://?length=8&size=480x360"
TIMED_FRAMES = 8  # kept decoded and used in turn


@dataclass(frozen=True)
class Workload:
    """Hold the frames that engines run on.

    Attributes
    ----------
    address : where they are from.
    frames : decoded frames, (H, W, 3) uint8 BGR, which are repeated.
    labelled : labelled data to score on; None for none.
    split : its split.
    indices : the frames to score; None for all.
    """

    address: str
    frames: Sequence[Image]
    labelled: Dataset | None = None
    split: str | None = None
    indices: Sequence[int] | None = None

    def facts(self) -> DataFacts:
        """Return what identifies the frames."""
        digest = hashlib.sha256()
        for frame in self.frames:
            digest.update(repr(frame.shape).encode())
            digest.update(np.ascontiguousarray(frame).data)
        scored = 0
        if self.labelled is not None:
            scored = len(self.labelled) if self.indices is None else len(self.indices)
        return DataFacts(
            address=self.address,
            split=self.split,
            frames=len(self.frames),
            sha256=digest.hexdigest(),
            scored_frames=scored,
        )


def open_workload(
    data: str | None = None,
    source: str | None = None,
    *,
    split: str = "val",
    frames: int | None = None,
) -> Workload:
    """Read the frames to time on, and open the data to score on.

    Parameters
    ----------
    data : labelled data, such as ``camvid:PATH``: engines are scored on it, and timed on it if
        there is no ``source``.
    source : frames to time on: a video, a folder, a camera. Without both, a synthetic drive.
    split : split of ``data``.
    frames : number of frames to score, evenly spread; None for all.

    Raises
    ------
    InputError : there is no such data or source, or ``data`` has no labels.

    Examples
    --------
    >>> work = open_workload(source="synthetic://?length=3&size=64x48")
    >>> len(work.frames), work.labelled
    (3, None)
    """
    labelled: Dataset | None = None
    indices: Sequence[int] | None = None
    if data is not None:
        opened = open_frames(data, split)
        if isinstance(opened, Source):
            opened.close()
            raise InputError(
                f"{data}: has no labels to score on",
                hint=f"Give it as `source={data}` to time on it.",
            )
        labelled = opened
        indices = None if frames is None else spread(len(opened), frames)

    if labelled is not None and source is None:
        chosen = [labelled[i].image for i in spread(len(labelled), TIMED_FRAMES)]
        return Workload(str(data), chosen, labelled, split, indices)

    address = source or DEFAULT_SOURCE
    found = open_frames(address, split)
    if isinstance(found, Source):
        with closing(found):
            images = _images(found)
    else:
        images = [found[i].image for i in spread(len(found), TIMED_FRAMES)]
    if not images:
        raise InputError(f"{address}: no frame to profile on")
    return Workload(address, images, labelled, None if data is None else split, indices)


def _images(source: Source) -> list[Image]:
    """Return frames of a source, evenly spread; of a live one the first ones."""
    indices = spread_frames(source, TIMED_FRAMES)
    read = frames_of(source, indices)
    sample = Sample(read.count)
    for item in read.items:
        sample.offer(item.image)
    return sample.images
