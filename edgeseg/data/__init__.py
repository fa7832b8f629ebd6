"""Labelled data: every reader returns the same ``Sample``s.

``open_dataset("camvid:PATH", split)`` finds the reader.
"""

from edgeseg.data.base import READERS, Dataset, Sample, iterate, open_dataset, require_folder

__all__ = ["READERS", "Dataset", "Sample", "iterate", "open_dataset", "require_folder"]
