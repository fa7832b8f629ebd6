"""Make the pictures of the README and of these pages.

    python docs/make_pictures.py             # all of them
    python docs/make_pictures.py drive chain

- ``drive``: ``pictures/drive.webp``, a synthetic drive labelled by ``enet-camvid``, which moves.
- ``chain``: ``pictures/chain.svg``, the commands from training to a camera.
- ``unpooling``: ``pictures/unpooling.svg``, pooling with codes, and unpooling.
"""

import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import edgeseg
from edgeseg.imaging.postprocess import Picture
from edgeseg.video import Output, Sink, View

FOLDER = Path(__file__).parent / "pictures"

DRIVE = "synthetic://?length=84&size=480x360&seed=4&fps=12"
SKIPPED = 16  # frames at the start: a van close to the camera
DRIVE_MS = 83  # per frame
QUALITY = 60  # of WebP
MOST_BYTES = 1_500_000

# Every step of the chain: command, what it writes, what it does.
CHAIN = (
    ("edgeseg train", "best.pt", "recipe and data to a checkpoint"),
    ("edgeseg export", "net.onnx", "checked against PyTorch"),
    ("edgeseg calibrate", "ranges", "are the frames good enough?"),
    ("edgeseg build-engine", "net.int8.cpu.engine", "proven against the ONNX file"),
    ("edgeseg compare", "scores.json", "mIoU and milliseconds"),
    ("edgeseg segment", "video, masks, page", "a camera, a video or a folder"),
)
BOX = (196, 62)  # width and height
GAP = (44, 44)
MARGIN = 12
COLUMNS = 3

# What is pooled and unpooled in the picture of unpooling. The second window has equal maxima.
VALUES = ((1, 5, 2, 2), (3, 0, 2, 1), (0, 0, 9, 4), (7, 6, 8, 9))
CELL = 34
TINTS = ("#fde9d9", "#dceefb", "#e4f4dc", "#f3e3f7")  # one per window


class Pictures(Sink):
    """Keep the pictures of a run."""

    def __init__(self) -> None:
        self.found: list[Picture] = []

    def write(self, output: Output) -> None:
        assert output.picture is not None
        self.found.append(output.picture.copy())


def drive(folder: Path) -> Path:
    """Make the moving picture of a labelled drive."""
    sink = Pictures()
    with edgeseg.load_engine("enet-camvid", precision="fp32") as engine:
        source = edgeseg.open_source(DRIVE)
        view = View(mode="side-by-side", legend="off", hud=False)
        edgeseg.segment(engine, source, [sink], view=view)

    small = [
        cv2.resize(picture, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
        for picture in sink.found[SKIPPED:]
    ]
    animation = cv2.Animation(0)
    animation.frames = small
    animation.durations = [DRIVE_MS] * len(small)

    path = folder / "drive.webp"
    cv2.imwriteanimation(str(path), animation, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    if path.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{path}: {path.stat().st_size} bytes, more than {MOST_BYTES}")
    return path


def chain(folder: Path) -> Path:
    """Make the picture of the chain of commands."""
    width = 2 * MARGIN + COLUMNS * BOX[0] + (COLUMNS - 1) * GAP[0]
    rows = -(-len(CHAIN) // COLUMNS)
    height = 2 * MARGIN + rows * BOX[1] + (rows - 1) * GAP[1]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        "<title>The chain of commands, and the file that each writes</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for index, step in enumerate(CHAIN):
        lines += _box(index, *step)
        if index + 1 < len(CHAIN):
            lines.append(_arrow(index))
    lines.append("</svg>")

    path = folder / "chain.svg"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _corner(index: int) -> tuple[int, int]:
    """Return the upper left corner of a box: rows from left to right."""
    row, column = divmod(index, COLUMNS)
    return MARGIN + column * (BOX[0] + GAP[0]), MARGIN + row * (BOX[1] + GAP[1])


def _box(index: int, command: str, writes: str, does: str) -> list[str]:
    """Return a box with a command, what it writes and what it does."""
    x, y = _corner(index)
    left = x + 10
    return [
        f'<rect x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="#eef3f8" '
        'stroke="#3a6ea5"/>',
        f'<text x="{left}" y="{y + 19}" font-family="monospace" font-weight="bold" '
        f'fill="#12304f">{escape(command)}</text>',
        f'<text x="{left}" y="{y + 36}" fill="#222222">writes {escape(writes)}</text>',
        f'<text x="{left}" y="{y + 53}" font-size="10.5" fill="#444444">{escape(does)}</text>',
    ]


def _arrow(index: int) -> str:
    """Return the arrow from a box to the next one, which may be in the next row."""
    (x, y), (next_x, next_y) = _corner(index), _corner(index + 1)
    style = 'fill="none" stroke="#3a6ea5" stroke-width="2"'
    if next_y == y:
        tip, middle = next_x - 3, y + BOX[1] // 2
        head = f"M{tip - 7} {middle - 5}L{tip} {middle}L{tip - 7} {middle + 5}"
        path = f"M{x + BOX[0] + 3} {middle}H{tip}{head}"
        return f'<path d="{path}" {style}/>'

    start, end = x + BOX[0] // 2, next_x + BOX[0] // 2
    between, tip = y + BOX[1] + GAP[1] // 2, next_y - 3
    head = f"M{end - 5} {tip - 7}L{end} {tip}L{end + 5} {tip - 7}"
    path = f"M{start} {y + BOX[1] + 3}V{between}H{end}V{tip}{head}"
    return f'<path d="{path}" {style}/>'


def unpooling(folder: Path) -> Path:
    """Make the picture of pooling with codes, and of unpooling."""
    x = np.array(VALUES)
    windows = x.reshape(2, 2, 2, 2).swapaxes(1, 2).reshape(2, 2, 4)
    maxima, codes = windows.max(-1), windows.argmax(-1)
    spread = np.where(np.arange(4) == codes[..., None], maxima[..., None], 0)
    unpooled = spread.reshape(2, 2, 2, 2).swapaxes(1, 2).reshape(4, 4)

    top, gap = 34, 46
    grids = (("input", x), ("maxima", maxima), ("codes", codes), ("unpooled", unpooled))
    lines: list[str] = []
    left = MARGIN
    for name, values in grids:
        down = top + (4 - len(values)) * CELL // 2
        lines += _grid(left, down, name, values)
        left += len(values) * CELL + gap
    width, height = left - gap + MARGIN, top + 4 * CELL + MARGIN

    path = folder / "unpooling.svg"
    start = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="14">',
        "<title>A plane, its maxima and their codes, and the unpooled plane</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    path.write_text("\n".join([*start, *lines, "</svg>"]) + "\n", encoding="utf-8")
    return path


def _grid(left: int, top: int, name: str, values: "np.ndarray[tuple[int, ...], Any]") -> list[str]:
    """Return the cells of a tensor; a window has one tint in all tensors."""
    size = len(values)
    lines = [f'<text x="{left}" y="{top - 9}" fill="#222222">{name}</text>']
    for row in range(size):
        for column in range(size):
            tint = TINTS[row * 2 // size * 2 + column * 2 // size]
            x, y = left + column * CELL, top + row * CELL
            lines.append(
                f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="{tint}" '
                'stroke="#777777"/>'
            )
            lines.append(
                f'<text x="{x + CELL // 2}" y="{y + CELL // 2 + 5}" text-anchor="middle" '
                f'fill="#222222">{values[row, column]}</text>'
            )
    return lines


PICTURES: dict[str, Callable[[Path], Path]] = {
    "drive": drive,
    "chain": chain,
    "unpooling": unpooling,
}


def main() -> None:
    """Make the pictures that were named, or all."""
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        path = PICTURES[name](FOLDER)
        print(f"wrote {path}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
