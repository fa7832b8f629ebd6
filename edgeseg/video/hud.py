"""Write the state of a run into its pictures: a status line, and a card when the signal is lost."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.imaging.legend import LEAST_ROW
from edgeseg.imaging.lettering import panel, text_width, write
from edgeseg.video.status import Status

Picture = npt.NDArray[np.uint8]

PANEL_OPACITY = 0.75  # of panels over the picture

_ROW_SHARE = 30  # a row of text is the picture's shorter side (as 9 of 16) divided by this
_CARD_ROW = 2.0  # the card's row, in rows of the line
_MOST_LINES = 2  # of the status; what does not fit is left out
_DIM = 0.35  # brightness of a picture that is no longer live
_SEPARATOR = " · "


def row_height(height: int, width: int) -> int:
    """Return the height in pixels of a row of text in pictures of a size.

    Parameters
    ----------
    height, width : size of the picture in pixels.

    Examples
    --------
    >>> row_height(720, 1280), row_height(1280, 720), row_height(240, 320)
    (24, 24, 15)
    """
    return max(LEAST_ROW, min(height, width) // _ROW_SHARE)


def status_parts(status: Status, name: str = "") -> list[str]:
    """Return what is known about a run as short texts, the most important first.

    Parameters
    ----------
    status : facts about the run at this moment.
    name : name of the frame's source; empty if there is one source alone.

    Examples
    --------
    >>> status_parts(Status(fps=31.24, age_ms=48.2, engine="enet-camvid int8 cpu", watts=12.3))
    ['31 FPS', '48 ms old', 'enet-camvid int8 cpu', '12.3 W']
    """
    parts = [name] if name else []
    if status.fps is not None:
        parts.append(f"{status.fps:.0f} FPS" if status.fps >= 9.95 else f"{status.fps:.1f} FPS")
    if status.age_ms is not None:
        parts.append(_age_text(status.age_ms))
    if status.engine:
        parts.append(status.engine)
    if status.temperature_c is not None:
        parts.append(f"{status.temperature_c:.0f} °C")
    if status.watts is not None:
        parts.append(f"{status.watts:.1f} W")
    if status.flicker is not None:
        parts.append(f"flicker {100 * status.flicker:.1f} %")
    return parts


def draw_status(picture: Picture, status: Status, name: str = "") -> int:
    """Write the status into the bottom left corner of a picture, in place.

    Parameters
    ----------
    picture : (H, W, 3) uint8 BGR.
    status : facts about the run at this moment.
    name : name of the frame's source; empty if there is one source alone.

    Returns
    -------
    Height in pixels of what was drawn; 0 if nothing is known, or nothing fits.

    Examples
    --------
    >>> picture = np.full((240, 320, 3), 255, np.uint8)
    >>> draw_status(picture, Status(fps=25.0))
    21
    """
    height, width = picture.shape[:2]
    row = row_height(height, width)
    pad = row // 5
    margin = row // 2
    lines = _lines(status_parts(status, name), row, width - 2 * margin)
    panel_height = len(lines) * row + 2 * pad
    if not lines or panel_height > height // 3:
        return 0

    widest = max(_line_width(line, row) for line in lines)
    drawn = panel(panel_height, widest + 2 * margin)
    for index, line in enumerate(lines):
        left = margin
        for text in line:
            write(drawn, text, (left, pad + index * row), row)
            left += text_width(text, row)

    lay(picture[height - panel_height :, : drawn.shape[1]], drawn)
    return panel_height


def draw_no_signal(picture: Picture, lost_s: float, name: str = "") -> None:
    """Dim a picture and write over it for how long its source has given no frames, in place.

    Parameters
    ----------
    picture : (H, W, 3) uint8 BGR, the last frame or its overlay.
    lost_s : seconds since the last frame.
    name : name of the source; empty if there is one source alone.

    Examples
    --------
    >>> picture = np.full((240, 320, 3), 200, np.uint8)
    >>> draw_no_signal(picture, 12.3)
    >>> picture[0, 0].tolist()
    [70, 70, 70]
    """
    cv2.convertScaleAbs(picture, dst=picture, alpha=_DIM)

    height, width = picture.shape[:2]
    text = f"no signal, {_duration_text(lost_s)}"
    if name:
        text = f"{name}: {text}"

    # As large as the width allows.
    row = round(_CARD_ROW * row_height(height, width))
    room = width - row
    if text_width(text, row) > room:
        row = max(6, row * room // text_width(text, row))
    card = panel(min(height, 2 * row), min(width, text_width(text, row) + row))
    write(card, text, (row // 2, card.shape[0] // 4), row)

    top = (height - card.shape[0]) // 2
    left = (width - card.shape[1]) // 2
    picture[top : top + card.shape[0], left : left + card.shape[1]] = card


def lay(part: Picture, drawn: Picture) -> None:
    """Lay a panel over a part of a picture of the same size, in place; the picture shines through.

    Parameters
    ----------
    part : (H, W, 3) uint8, a view of the picture.
    drawn : (H, W, 3) uint8, the panel; what reaches over the part is cut off.

    Examples
    --------
    >>> picture = np.zeros((4, 4, 3), np.uint8)
    >>> lay(picture[:2, :2], np.full((2, 2, 3), 100, np.uint8))
    >>> picture[:3, 0, 0].tolist()
    [75, 75, 0]
    """
    fitted = drawn[: part.shape[0], : part.shape[1]]
    part[:] = cv2.addWeighted(part, 1 - PANEL_OPACITY, fitted, PANEL_OPACITY, 0.0)


def _lines(parts: Sequence[str], row: int, room: int) -> list[list[str]]:
    """Return the texts of lines of at most ``room`` pixels; parts that do not fit are left out.

    Most parts stay the same for many frames, so they are written one by one: each is drawn once.
    """
    lines: list[list[str]] = []
    for part in parts:
        if text_width(part, row) > room:
            continue
        if lines and _line_width([*lines[-1], _SEPARATOR, part], row) <= room:
            lines[-1] += [_SEPARATOR, part]
        elif len(lines) < _MOST_LINES:
            lines.append([part])
    return lines


def _line_width(texts: Sequence[str], row: int) -> int:
    """Return the width in pixels of texts written one after the other."""
    return sum(text_width(text, row) for text in texts)


def _age_text(age_ms: float) -> str:
    """Return the age of a frame: in milliseconds, from ten seconds on in seconds."""
    return f"{age_ms:.0f} ms old" if age_ms < 10_000 else f"{age_ms / 1e3:.0f} s old"


def _duration_text(seconds: float) -> str:
    """Return a duration such as ``12 s``, ``3 min 5 s`` or ``2 h 7 min``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
