"""Label every picture of a folder: one PNG of class ids per picture.

python examples/label_folder.py photos masks
python examples/label_folder.py photos masks --engine net.int8.cpu.engine
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

import edgeseg
from edgeseg.imaging.postprocess import indexed_png

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}


def main() -> None:
    """Label the pictures, and print which classes each one has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--engine", default="enet-camvid")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    with edgeseg.load_engine(options.engine) as engine:
        space = engine.spec.labels
        for path in sorted(options.folder.iterdir()):
            if path.suffix.lower() not in SUFFIXES:
                continue
            picture = cv2.imread(str(path))
            if picture is None:
                print(f"{path.name}: not a picture")
                continue

            labels = engine(picture.astype(np.uint8))
            (options.out / f"{path.stem}.png").write_bytes(indexed_png(labels, space))

            found = [name for index, name in enumerate(space.names) if (labels == index).any()]
            print(f"{path.name}: {', '.join(found)}")


if __name__ == "__main__":
    main()
