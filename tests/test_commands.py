"""The commands as functions of `edgeseg`, on a small model and the synthetic drive."""

from pathlib import Path

import numpy as np
import pytest

import edgeseg
from edgeseg.errors import InputError

DRIVE = "synthetic://?length=6&size=96x64&seed=1"


def test_an_onnx_file_opens_as_an_engine(small_onnx: Path) -> None:
    with edgeseg.open_source(DRIVE) as source:
        frame = next(iter(source)).image
    labels = edgeseg.load_engine(small_onnx, precision="fp32")(frame)
    assert labels.shape == frame.shape[:2]
    assert labels.dtype == np.uint8


def test_a_shipped_name_that_is_nearly_right_is_named() -> None:
    with pytest.raises(InputError, match="Did you mean 'enet-camvid'"):
        edgeseg.load_engine("enet-canvid")


def test_ranges_are_found_and_build_an_engine(small_onnx: Path, tmp_path: Path) -> None:
    ranges = edgeseg.calibrate(small_onnx, DRIVE, tmp_path / "n.ranges.json")
    assert ranges.frames == 6
    engine = edgeseg.build_engine(
        small_onnx,
        precision="int8",
        calib=DRIVE,
        out=tmp_path / "n.engine",
        quantization=edgeseg.Quantization(ranges=tmp_path / "n.ranges.json", least_agreement=0),
    )
    assert edgeseg.load_engine(engine).passport.int8.ranges_from_cache


def test_an_unknown_method_is_refused_before_work(small_onnx: Path) -> None:
    with pytest.raises(InputError, match=r"unknown method.*Did you mean 'minmax'"):
        edgeseg.calibrate(small_onnx, DRIVE, method="minmx")


def test_sensitivity_ranks_layers(small_onnx: Path) -> None:
    found = edgeseg.sensitivity(small_onnx, DRIVE, frames=2, layers=1)
    assert len(found.layers) > 5
    assert [layer.rank for layer in found.layers] == sorted(layer.rank for layer in found.layers)


@pytest.mark.parametrize("data", [DRIVE, "video"])
def test_engines_are_compared_on_labels_or_without(
    data: str, small_onnx: Path, tmp_path: Path
) -> None:
    if data == "video":
        from edgeseg.data import open_dataset
        from edgeseg.imaging.postprocess import indexed_png

        drive = open_dataset(DRIVE, "train")
        (tmp_path / "frames").mkdir()
        for index in range(2):
            png = indexed_png(drive[index].mask, drive.labels)
            (tmp_path / "frames" / f"{index}.png").write_bytes(png)
        data = str(tmp_path / "frames")
    result = edgeseg.compare(
        [f"{small_onnx}@fp32", f"{small_onnx}@fp32"], data, split="train", frames=2, rounds=1
    )
    facts = result.to_dict()
    assert facts["data"]["frames"] == 2
    assert len(facts["engines"]) == 2
