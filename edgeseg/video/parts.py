"""Tell the sources apart that run together: their names, facts and paths."""

from pathlib import Path

from edgeseg.video.frames import Source, VideoInfo
from edgeseg.video.sources.merged import Merged


def source_names(source: Source) -> tuple[str, ...]:
    """Return the short name of each source, in the order of ``Frame.source``.

    Parameters
    ----------
    source : a source, or several as ``merge`` returns them.

    Examples
    --------
    >>> from edgeseg.video import open_source
    >>> with open_source("synthetic://?length=1&size=64x48") as source:
    ...     len(source_names(source))
    1
    """
    return tuple(source.names) if isinstance(source, Merged) else (source.name or "camera0",)


def source_infos(source: Source) -> tuple[VideoInfo, ...]:
    """Return the facts of each source, in the order of ``Frame.source``.

    Parameters
    ----------
    source : a source, or several as ``merge`` returns them.
    """
    return tuple(source.infos) if isinstance(source, Merged) else (source.info,)


def source_paths(source: Source) -> tuple[Path | None, ...]:
    """Return the file or folder that each source reads, if there is one.

    Parameters
    ----------
    source : a source, or several as ``merge`` returns them.
    """
    return source.paths if isinstance(source, Merged) else (source.path,)
