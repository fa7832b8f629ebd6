"""Check the options of ``build-engine``: their defaults, and what the build receives."""

from pathlib import Path
from typing import Any

import pytest

from edgeseg.backends.base import PlanOptions
from edgeseg.build import options as build
from edgeseg.build.options import Quantization
from edgeseg.cli import build_options
from edgeseg.cli.build_options import (
    Int8Options,
    Scales,
    TensorRtOptions,
    parse_batches,
    parse_capabilities,
    parse_sizes,
)
from edgeseg.cli.options import DataOptions, Method, Precision
from edgeseg.errors import InputError


@pytest.mark.parametrize("name", ["LEAST_AGREEMENT", "LEAST_MEAN_IOU", "LEAST_CLASS_IOU"])
def test_the_copied_limits_are_those_of_the_build(name: str) -> None:
    assert getattr(build_options, name) == getattr(build, name)


def test_the_scales_are_those_of_the_build() -> None:
    assert tuple(scales.value for scales in Scales) == build.SCALES


def test_the_default_options_are_those_of_the_build() -> None:
    assert Int8Options().quantization(DataOptions()) == Quantization(method="mse")
    assert TensorRtOptions().plan("auto", prove=True) == PlanOptions()


def test_int8_options_reach_the_build() -> None:
    options = Int8Options(
        calib="camvid:x",
        method=Method.entropy,
        scales=Scales.any,
        ranges=Path("n.ranges.json"),
        keep_float=["a", "b"],
        max_miou_drop=0.5,
        frames=7,
        min_agreement=0.1,
        min_iou=0.2,
        min_class_iou=0.3,
        save_onnx=Path("q.onnx"),
    )
    assert options.quantization(DataOptions("camvid:y", "test")) == Quantization(
        method="entropy",
        keep_float=("a", "b"),
        data="camvid:y",
        split="test",
        frames=7,
        max_miou_drop=0.5,
        least_agreement=0.1,
        least_mean_iou=0.2,
        least_class_iou=0.3,
        ranges=Path("n.ranges.json"),
        scales="any",
        save_onnx=Path("q.onnx"),
    )


@pytest.mark.parametrize(
    ("options", "data", "named"),
    [
        ({"keep_float": ["a"]}, None, "--keep-float"),
        ({"max_miou_drop": 0.0}, None, "--max-miou-drop"),  # 0 is a budget, too
        ({}, "camvid:x", "--data"),
        ({"ranges": Path("r.json")}, None, "--ranges"),
        ({"scales": Scales.any}, None, "--scales"),
        ({"scales": Scales.any, "keep_float": ["a"]}, "camvid:x", "--keep-float, --data, --scales"),
    ],
)
def test_options_that_need_a_calibration_set(
    options: dict[str, Any], data: str | None, named: str
) -> None:
    with pytest.raises(InputError, match=f"without a calibration set: got {named}\\. Give one: "):
        Int8Options(**options).quantization(DataOptions(data))
    Int8Options(**options, calib="camvid:x").quantization(DataOptions(data))


@pytest.mark.parametrize("wanted", list(Precision))
def test_int8_is_a_precision(wanted: Precision) -> None:
    assert Int8Options().resolve_precision(wanted) is wanted
    if wanted in (Precision.auto, Precision.int8):
        assert Int8Options(int8=True).resolve_precision(wanted) is Precision.int8
        return
    with pytest.raises(InputError, match=f"disagree: got --precision {wanted.value}"):
        Int8Options(int8=True).resolve_precision(wanted)


def test_tensorrt_options_reach_the_build() -> None:
    options = TensorRtOptions(
        sm="75,8.6",
        workspace=512,
        level=2,
        timing_cache=Path("t.cache"),
        scores=True,
        version_compatible=True,
        kernels=True,
        batch="4",
        sizes="32x64:64x96:96x128",
        print_trtexec=True,
    )
    assert options.plan("plugin", prove=False) == PlanOptions(
        unpool="plugin",
        sm=(75, 86),
        workspace_mib=512,
        level=2,
        timing_cache=Path("t.cache"),
        scores=True,
        version_compatible=True,
        kernels=True,
        batch=(1, 4, 4),
        sizes=((32, 64), (64, 96), (96, 128)),
        save_graph=True,
        prove=False,
    )


@pytest.mark.parametrize(
    ("text", "capabilities"),
    [(None, ()), ("", ()), ("86", (86,)), ("sm75, 8.6,120", (75, 86, 120))],
)
def test_capabilities(text: str | None, capabilities: tuple[int, ...]) -> None:
    assert parse_capabilities(text) == capabilities


@pytest.mark.parametrize("text", [",", "x", "86,", "-86", "²"])
def test_what_are_no_capabilities(text: str) -> None:
    with pytest.raises(InputError, match="--sm: not compute capabilities"):
        parse_capabilities(text)


def test_batches_and_sizes_without_options() -> None:
    assert parse_batches(None) == (1, 1, 1)
    assert parse_sizes(None) == ()


@pytest.mark.parametrize("text", ["", "8x8", "8x8:8x8", "8x8:8x8:8", "8x8:8x8:8x8:8x8"])
def test_what_is_no_range_of_sizes(text: str) -> None:
    with pytest.raises(InputError, match="--sizes: not a "):
        parse_sizes(text)
