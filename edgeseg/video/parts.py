"""Tell the sources apart that run together: their names, facts, paths and news."""

from pathlib import Path

from edgeseg.reporter import Reporter
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


def tell_news(source: Source, reporter: Reporter, told_errors: int) -> int:
    """Report cameras that were lost or came back, and sources that ended with an error.

    Parameters
    ----------
    source : a source, or several as ``merge`` returns them.
    reporter : receives a warning for each.
    told_errors : how many errors of single sources were reported before.

    Returns
    -------
    How many errors of single sources are reported now.
    """
    if not isinstance(source, Merged):
        _tell_events(source, source.name, reporter)
        return told_errors

    for part, name in zip(source.sources, source.names, strict=True):
        _tell_events(part, name, reporter)
    errors = list(source.errors.items())
    for number, error in errors[told_errors:]:
        reporter.warning(f"{source.names[number]}: ended: {error}")
    return len(errors)


def _tell_events(source: Source, name: str, reporter: Reporter) -> None:
    """Report what happened to one source."""
    for event in source.take_events():
        reporter.warning(f"{name}: {event}" if name else event)
