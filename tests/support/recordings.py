"""Make a small video, and hear what a source that cannot be opened says."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.video import open_source


def make_video(path: Path) -> Path:
    """A clip of 20 frames in MPEG-4."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 15, (64, 48))
    assert writer.isOpened()
    for index in range(20):
        writer.write(np.full((48, 64, 3), 10 * index, np.uint8))
    writer.release()
    return path


def said(uri: str) -> str:
    """The message of a source that cannot be opened."""
    with pytest.raises(InputError) as caught:
        open_source(uri)
    return str(caught.value)
