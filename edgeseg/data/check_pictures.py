"""Draw what a check of data looks at: a contact sheet, and a histogram of the classes."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edgeseg.data.check import DataReport
from edgeseg.data.inventory import Entry, take_inventory
from edgeseg.data.quick_check import spread_order
from edgeseg.errors import DataError
from edgeseg.files import write_bytes
from edgeseg.imaging.legend import LegendRow, column_width, legend
from edgeseg.imaging.lettering import panel, text_width, write
from edgeseg.imaging.postprocess import overlay
from edgeseg.types import Image

SHEET = "sheet.png"
CLASSES = "classes.png"

_COUNT = 16  # frames of the sheet
_COLUMNS = 4
_WIDTH = 320  # of a frame in the sheet
_STEP = _WIDTH + 6  # from one frame to the next
_ROW = 20
_BAR = 420  # length of the longest bar
_VOID = (96, 32, 128)  # a colour that no frame is likely to be full of


def draw_pictures(report: DataReport, folder: Path) -> list[Path]:
    """Write a contact sheet and a histogram of the classes.

    Parameters
    ----------
    report : what the check found.
    folder : the folder to write ``sheet.png`` and ``classes.png`` to.

    Returns
    -------
    The files.

    Raises
    ------
    OutputError : a file cannot be written.
    """
    entries = [entry for entry in take_inventory(report.address).entries if entry.has_mask]
    order = sorted(spread_order(len(entries))[:_COUNT])
    shown = [entries[index] for index in order]
    files = []
    for name, picture in (
        (SHEET, contact_sheet(shown, report)),
        (CLASSES, class_histogram(report)),
    ):
        _, data = cv2.imencode(".png", picture)
        files.append(write_bytes(folder / name, data.tobytes()))
    return files


def contact_sheet(entries: Sequence[Entry], report: DataReport) -> Image:
    """Draw frames with their masks over them, named, and a legend.

    Void is striped, so that it differs from a black class. Frames that cannot be read are grey.

    Parameters
    ----------
    entries : the frames.
    report : the check, for classes and colours.

    Returns
    -------
    (H, W, 3) uint8 BGR.
    """
    cells = [_cell(entry, report) for entry in entries]
    height = max((cell.shape[0] for cell in cells), default=_ROW)
    rows = []
    for start in range(0, max(1, len(cells)), _COLUMNS):
        row = panel(height, _STEP * _COLUMNS)
        for column, cell in enumerate(cells[start : start + _COLUMNS]):
            left = column * _STEP
            row[: cell.shape[0], left : left + _WIDTH] = cell
        rows.append(row)

    labels = report.labels
    names = [
        LegendRow(name, (blue, green, red))
        for name, (red, green, blue) in zip(labels.names, labels.palette, strict=True)
    ]
    names.append(LegendRow("void (striped)", _VOID))
    widest = column_width([one.name for one in names], _ROW)
    columns = max(1, _STEP * _COLUMNS // widest)
    drawn = legend(names, _ROW, columns, widest)[:, : _STEP * _COLUMNS]
    foot = panel(drawn.shape[0], _STEP * _COLUMNS)
    foot[:, : drawn.shape[1]] = drawn
    return np.concatenate([*rows, foot])


def class_histogram(report: DataReport) -> Image:
    """Draw the share of each class in the pixels, and in how many frames it is.

    Parameters
    ----------
    report : the check.

    Returns
    -------
    (H, W, 3) uint8 BGR.
    """
    labels = report.labels
    pixels = [*report.all_pixels.tolist(), sum(report.ignored.values())]
    seen = report.all_seen.tolist()
    total = max(1, sum(pixels))
    names = [*labels.names, "void"]
    colours = [*((b, g, r) for r, g, b in labels.palette), _VOID]
    frames = max(1, sum(report.frames.values()))

    left = max(text_width(name, _ROW) for name in names) + 12
    texts = []
    for index, count in enumerate(pixels):
        share = 100 * count / total
        text = f"{share:.2f} %" if share < 10 else f"{share:.1f} %"
        if index < len(seen):
            text += f", in {seen[index]} of {frames} frames"
        texts.append(text)
    right = max(text_width(text, _ROW) for text in texts) + 12

    title = f"{report.address}: share of the pixels"
    width = max(left + _BAR + right, text_width(title, _ROW) + 12)
    picture = panel(_ROW * (len(names) + 2), width)
    write(picture, title, (6, 4), _ROW)
    longest = max(1, max(pixels))
    for index, name in enumerate(names):
        top = _ROW * (index + 1) + 10
        write(picture, name, (6, top), _ROW)
        length = round(_BAR * pixels[index] / longest)
        bar = slice(top + 4, top + _ROW - 3), slice(left, left + max(1, length))
        picture[bar] = colours[index]
        cv2.rectangle(
            picture, (left, top + 4), (left + max(1, length), top + _ROW - 4), (150, 150, 150)
        )
        write(picture, texts[index], (left + length + 8, top), _ROW)
    return picture


def _cell(entry: Entry, report: DataReport) -> Image:
    """Draw one frame of the sheet with its mask over it, below its name."""
    ids: Image | None = None
    fault = " (cannot be used)"
    try:
        image, decoded = entry.read()
    except DataError:
        image = np.full((180, 320, 3), 96, np.uint8)
    else:
        if decoded.ids.shape == image.shape[:2]:
            ids = decoded.ids
            fault = f" (no class: {next(iter(decoded.unknown))})" if decoded.unknown else ""

    height = round(_WIDTH * image.shape[0] / image.shape[1])
    size = (_WIDTH, height)
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if ids is not None:
        mask = np.asarray(cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        small = overlay(small, mask, report.labels, 0.6)
        stripes = (np.add.outer(np.arange(height), np.arange(_WIDTH)) % 8) < 3
        small[(mask == report.labels.ignore_id) & stripes] = _VOID

    title = panel(_ROW, _WIDTH)
    write(title, f"{entry.split or 'no split'}: {entry.name}{fault}", (4, 0), _ROW)
    return np.concatenate([title, small])
