"""Tell what the words of a user name: globs, lists of pictures, short names."""

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from edgeseg.errors import InputError
from edgeseg.video.sources.pictures import PICTURE_SUFFIXES, natural_key

# Container formats and raw streams that FFmpeg reads.
VIDEO_SUFFIXES = frozenset(
    {".264", ".265", ".3gp", ".apng", ".asf", ".avi", ".flv", ".gif", ".h264", ".h265", ".hevc"}
    | {".ivf", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"}
    | {".mts", ".mxf", ".nut", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)

# Between the pictures of a list; the one character that no path has.
_BETWEEN = "\0"

_LONGEST_NAME = 48


def expand_sources(words: Sequence[str]) -> list[str]:
    """Return one address for each source that the words of a user name.

    A word with ``*``, ``?`` or ``[]`` is a glob: hidden files, and files that are neither pictures
    nor videos, are left out. Each video is a source of its own. Pictures that follow each other
    are one source together, in natural order, as those of a folder are.

    Parameters
    ----------
    words : files, folders, globs, cameras, addresses.

    Returns
    -------
    Addresses for ``open_source``.

    Raises
    ------
    InputError : nothing matches a glob.

    Examples
    --------
    >>> expand_sources(["0", "rtsp://10.0.0.5/front", "a.mp4"])
    ['0', 'rtsp://10.0.0.5/front', 'a.mp4']
    >>> pictures = expand_sources(["shot10.png", "shot2.png", "0"])
    >>> [pictures_of(address) for address in pictures]
    [[PosixPath('shot2.png'), PosixPath('shot10.png')], []]
    """
    found: list[str] = []
    pictures: list[str] = []
    for word in words:
        for address in _matches(word) if is_glob(word) else [word]:
            if _is_picture(address):
                pictures.append(address)
                continue
            found += _joined(pictures)
            pictures = []
            found.append(address)
    return found + _joined(pictures)


def is_glob(word: str) -> bool:
    """Return whether a word is a glob, and neither an address nor a file of that very name.

    Parameters
    ----------
    word : the word.

    Examples
    --------
    >>> is_glob("clips/*.mp4"), is_glob("rtsp://camera/live?profile=1"), is_glob("a.mp4")
    (True, False, False)
    """
    if "://" in word or " ! " in word or _BETWEEN in word or word.startswith("synthetic:"):
        return False
    return glob.has_magic(word) and not os.path.lexists(os.path.expanduser(word))


def pictures_of(address: str) -> list[Path]:
    """Return the pictures of a list that ``expand_sources`` made; none if it is no list.

    Parameters
    ----------
    address : one address of ``expand_sources``.
    """
    return [Path(word) for word in address.split(_BETWEEN)] if _BETWEEN in address else []


def described(address: str) -> str:
    """Return an address as people read it: a list of pictures by its number and folder.

    Parameters
    ----------
    address : one address of ``expand_sources``.

    Examples
    --------
    >>> described(expand_sources(["shots/1.png", "shots/2.png"])[0])
    '2 pictures in shots'
    """
    pictures = pictures_of(address)
    return f"{len(pictures)} pictures in {pictures[0].parent}" if pictures else address


def _matches(word: str) -> list[str]:
    """Return what a glob finds, in natural order: pictures first."""
    everything = glob.glob(os.path.expanduser(word), recursive=True)
    known: list[str] = []
    for path in everything:
        suffix = os.path.splitext(path)[1].lower()
        if suffix in PICTURE_SUFFIXES or suffix in VIDEO_SUFFIXES:
            known.append(path)

    if not known:
        raise InputError(
            f"{word}: no video or picture matches",
            got=f"{len(everything)} other files" if everything else "nothing",
            hint='Write "**/" in it to search sub-folders, too.',
        )
    return sorted(known, key=lambda path: (not _is_picture(path), natural_key(Path(path))))


def _is_picture(word: str) -> bool:
    """Return whether a word is the path of a picture."""
    if "://" in word or " ! " in word or _BETWEEN in word:
        return False
    return os.path.splitext(word)[1].lower() in PICTURE_SUFFIXES and not os.path.isdir(word)


def _joined(pictures: Iterable[str]) -> list[str]:
    """Return one address for pictures that follow each other; none if there are none."""
    in_order = sorted(pictures, key=lambda path: natural_key(Path(path)))
    return [_BETWEEN.join(in_order)] if in_order else []


def source_name(uri: str) -> str:
    """Return a short name of a source, safe as the name of a file, and without a password.

    Parameters
    ----------
    uri : an address for ``open_source``.

    Examples
    --------
    >>> [source_name(uri) for uri in ("0", "/dev/video2", "csi://1", "clips/front door.mp4")]
    ['camera0', 'camera2', 'csi1', 'front-door']
    >>> source_name("rtsp://admin:secret@10.0.0.5:554/live")
    '10.0.0.5'
    """
    return _safe(_plain_name(uri)) or "source"


def _plain_name(uri: str) -> str:
    """Return the part of an address by which people know it."""
    if uri == "-" or uri.startswith(("/dev/stdin", "/dev/fd/", "/proc/self/fd/")):
        return "pipe"
    if " ! " in uri:
        return "pipeline"
    if uri.startswith("synthetic:"):
        return "synthetic"

    camera = re.fullmatch(r"(?:v4l2://)?(?:/dev/video)?([0-9]+)(?:\?.*)?", uri)
    if camera:
        return f"camera{camera[1]}"
    if uri.startswith("csi://"):
        return "csi" + uri.removeprefix("csi://").partition("?")[0].strip("/")
    if uri.startswith("v4l2://"):
        return Path(uri.removeprefix("v4l2://").partition("?")[0]).name

    if "://" in uri and not uri.startswith("file://"):
        return _host(uri)

    pictures = pictures_of(uri)
    if pictures:
        return pictures[0].absolute().parent.name
    path = Path(os.path.expanduser(uri.removeprefix("file://"))).absolute()
    return path.name if os.path.isdir(path) else path.stem


def _host(uri: str) -> str:
    """Return the host of a network address."""
    try:
        return urlsplit(uri).hostname or "stream"
    except ValueError:  # no valid address
        return "stream"


def _safe(name: str) -> str:
    """Return a name with all but letters, digits, dots, dashes and underscores made dashes."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:_LONGEST_NAME]


def unique_names(names: Iterable[str]) -> list[str]:
    """Return names of which no two are equal: the second ``front`` is ``front-2``.

    Parameters
    ----------
    names : names as ``source_name`` returns them; an empty one becomes ``source``.

    Examples
    --------
    >>> unique_names(["front", "", "front"])
    ['front', 'source', 'front-2']
    """
    given = [name or "source" for name in names]
    unique: list[str] = []
    for name in given:
        new = name
        number = 2
        while new.lower() in {used.lower() for used in unique}:
            new = f"{name}-{number}"
            number += 1
        unique.append(new)
    return unique
