"""Make the alphabet that the package ships, `edgeseg/imaging/lettering.npz`, from DejaVu Sans.

    python tests/imaging/make_lettering.py

Pillow draws the letters; matplotlib brings the font. Neither is needed to use the alphabet.
"""

from pathlib import Path

import numpy as np

SHIPPED = Path(__file__).resolve().parents[2] / "edgeseg" / "imaging" / "lettering.npz"
SIZE = 32  # pixels of the font's em

# Printable ASCII, Latin-1, Latin Extended-A, dashes, quotation marks and a few signs.
CHARACTERS = "".join(map(chr, [*range(0x20, 0x7F), *range(0xA0, 0x180)])) + "".join(
    map(chr, [0x2013, 0x2014, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2026, 0x20AC, 0x2212])
)


def alphabet() -> dict[str, np.ndarray]:
    """Return the letters side by side, where each starts, and their characters."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(str(path), SIZE)
    ascent, descent = font.getmetrics()

    letters = []
    for character in CHARACTERS:
        width = max(1, round(font.getlength(character)))
        letter = Image.new("L", (width, ascent + descent))
        ImageDraw.Draw(letter).text((0, 0), character, fill=255, font=font)
        letters.append(np.asarray(letter, np.uint8))

    starts = np.cumsum([0, *(letter.shape[1] for letter in letters)]).astype(np.int32)
    codes = np.array([ord(character) for character in CHARACTERS], np.int32)
    return {"strip": np.hstack(letters), "starts": starts, "codes": codes}


if __name__ == "__main__":
    made = alphabet()
    np.savez_compressed(SHIPPED, strip=made["strip"], starts=made["starts"], codes=made["codes"])
