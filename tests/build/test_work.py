"""How much work an INT8 build is: copies of the model, shape inferences and lowerings, counted."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import ModelProto

from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.build.options import Quantization
from edgeseg.graph import lowering
from edgeseg.zoo import zoo

DRIVE = "synthetic://?length=8&size=96x64&seed=1"
# The most that a build of ENet may do: more is a step walked twice.
MOST = {"copies": 20, "inferences": 13, "lowerings": 4}


def counted(counts: Counter[str], what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        counts[what] += 1
        return function(*arguments, **options)

    return call


def test_an_int8_build_walks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count copies, inferences and lowerings of one build.

    Before bodies were kept with their network: 126 copies, 71 inferences, 12 lowerings.
    """
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "cache"))
    counts: Counter[str] = Counter()
    monkeypatch.setattr(ModelProto, "CopyFrom", counted(counts, "copies", ModelProto.CopyFrom))
    monkeypatch.setattr(
        onnx.shape_inference,
        "infer_shapes",
        counted(counts, "inferences", onnx.shape_inference.infer_shapes),
    )
    monkeypatch.setattr(
        lowering, "_lowered_body", counted(counts, "lowerings", lowering._lowered_body)
    )

    build_engine(
        zoo()["enet-camvid"],
        precision="int8",
        calib=DRIVE,
        out=tmp_path / "n.engine",
        quantization=Quantization(least_agreement=0),
    )

    assert {what: (counts[what], most) for what, most in MOST.items() if counts[what] > most} == {}
