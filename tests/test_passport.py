"""Passports are written typed, and passports of format 1 still open."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgeseg.errors import EngineError
from edgeseg.facts import Budget, Int8Facts, OpenVinoFacts, TensorRTFacts
from edgeseg.passport import FORMAT, Passport
from edgeseg.spec import CAMVID_11, ModelSpec

SPEC = ModelSpec(architecture="x", input_size=(64, 96), labels=CAMVID_11)
COMMON: dict[str, Any] = {
    "name": "net",
    "spec": SPEC.model_dump(mode="json"),
    "onnx_sha256": "0" * 64,
    "engine_sha256": "1" * 64,
    "edgeseg": "0.1.0",
    "library_version": "2026.4",
    "device": "a processor",
    "device_features": ["INT8"],
    "build_seconds": 1.5,
    "built_at": "2026-11-01T00:00:00+00:00",
}
CPU_1 = {
    **COMMON,
    "format": 1,
    "target": "cpu",
    "precision": "int8",
    "library": "OpenVINO",
    "settings": {"INFERENCE_PRECISION_HINT": "f32"},
    "form": {
        "argmax": "compare",
        "unpool": "extension",
        "floats": "fp32",
        "activations": "unsigned",
        "rounded_in_float": "conv1, conv2",
        "latency_ms_search": "3.217",
        "latency_ms_unpool_native": "4.000",
    },
    "int8": {
        "method": "mse",
        "scales": "power-of-two",
        "calibration": {"source": "x", "frames": []},
        "ranges_from_cache": False,
        "int8_layers": 3,
        "float_layers": {"last": "gives the scores"},
    },
    "proof": {"frames": 6, "agreement": 1.0},
}
TENSORRT_1 = {
    **COMMON,
    "format": 1,
    "target": "tensorrt",
    "precision": "fp16",
    "library": "tensorrt",
    "settings": {
        "workspace_mib": "",
        "level": "3",
        "layers": "57",
        "warnings": "one; two",
        "outputs": "labels, scores",
        "trtexec_build": "trtexec --onnx=e.graph.onnx",
        "trtexec_run": "trtexec --loadEngine=e.engine",
        "batch": "1:4:8",
        "sizes": "64x96:64x96:96x128",
        "size_step": "8",
        "version_compatible": "yes",
        "plugin": "libedgeseg_plugin.so",
        "plugin_sources_sha256": "ab",
    },
    "form": {
        "unpool": "plugin",
        "fp16_seen": "8 calibration frames",
        "fp32_nodes": "a, b",
        "graph_sha256": "cd",
    },
}


def read(folder: Path, values: dict[str, Any]) -> Passport:
    engine = folder / "n.engine"
    Passport.path_for(engine).write_text(json.dumps(values))
    return Passport.read(engine)


def test_a_cpu_passport_of_format_1_opens(tmp_path: Path) -> None:
    passport = read(tmp_path, CPU_1)
    assert passport.format == FORMAT
    assert passport.openvino == OpenVinoFacts(
        config={"INFERENCE_PRECISION_HINT": "f32"},
        argmax="compare",
        unpool="extension",
        activations="unsigned",
        floats="fp32",
        rounded_in_float=("conv1", "conv2"),
        latency_ms={"search": 3.217, "unpool_native": 4.0},
    )
    assert passport.int8.float_layers == {"last": "gives the scores"}
    assert passport.int8.ranges_from_cache is False
    with pytest.raises(EngineError, match="is not a TensorRT plan: got cpu"):
        _ = passport.tensorrt


def test_a_tensorrt_passport_of_format_1_opens(tmp_path: Path) -> None:
    passport = read(tmp_path, TENSORRT_1)
    assert passport.tensorrt == TensorRTFacts(
        outputs="labels, scores",
        unpool="plugin",
        batch=(1, 4, 8),
        sizes=((64, 96), (64, 96), (96, 128)),
        size_step=8,
        version_compatible=True,
        plugin="libedgeseg_plugin.so",
        plugin_sources_sha256="ab",
        level=3,
        layers=57,
        warnings=("one", "two"),
        trtexec_build="trtexec --onnx=e.graph.onnx",
        trtexec_run="trtexec --loadEngine=e.engine",
        graph_sha256="cd",
        fp16_seen="8 calibration frames",
        fp32_nodes=("a", "b"),
    )
    with pytest.raises(EngineError, match="is not an OpenVINO engine: got tensorrt"):
        _ = passport.openvino


def test_a_plain_plan_of_format_1_opens(tmp_path: Path) -> None:
    """Before batches and sizes were dynamic, a passport had none of their keys."""
    passport = read(tmp_path, {**TENSORRT_1, "settings": {"batch": "", "sizes": ""}, "form": {}})
    assert passport.tensorrt == TensorRTFacts()


@pytest.mark.parametrize("values", [CPU_1, TENSORRT_1], ids=["cpu", "tensorrt"])
def test_what_is_written_is_read_again(tmp_path: Path, values: dict[str, Any]) -> None:
    budget = Budget(
        data="d", split="val", frames=3, max_miou_drop=0.5, reference_miou=0.6, miou=0.598
    )
    passport = read(tmp_path, values).model_copy(
        update={"int8": Int8Facts(method="mse", budget=budget)}
    )
    again = read(tmp_path, json.loads(passport.model_dump_json()))
    assert again == passport


def test_facts_that_are_not_known_are_not_written() -> None:
    assert Int8Facts().model_dump(mode="json") == {}
    assert Int8Facts(ranges_from_cache=False, int8_layers=0).model_dump(mode="json") == {
        "ranges_from_cache": False,
        "int8_layers": 0,
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": FORMAT + 1}, "was written by a newer edgeseg"),
        ({"settings": {"batch": "1:2"}}, "the passport cannot be read"),
        ({"settings": {"sizes": "axb"}}, "the passport cannot be read"),
        ({"settings": 3}, "the passport cannot be read"),
        ({"built_by": "me"}, "the passport cannot be read"),
    ],
)
def test_a_damaged_passport_is_one_line(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(EngineError, match=says) as caught:
        read(tmp_path, {**TENSORRT_1, **change})
    assert "\n" not in str(caught.value)
