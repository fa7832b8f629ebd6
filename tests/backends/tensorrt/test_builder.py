"""What a build reports, and the commands that build the same plan; no TensorRT is needed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onnx import NodeProto, helper
from reporting import Heard

from edgeseg.backends.base import PlanOptions
from edgeseg.backends.tensorrt import builder
from edgeseg.backends.tensorrt.bindings import Message

SHAPES = ((1, 64, 96, 3), (4, 64, 96, 3), (8, 96, 128, 3))


class Monitored(SimpleNamespace):
    """As much of TensorRT as a progress monitor needs."""

    class IProgressMonitor:
        pass


def monitor(heard: Heard) -> Any:
    return builder._monitor(Monitored(), heard)


def test_phases_are_tasks_that_end() -> None:
    heard = Heard()
    phases = monitor(heard)
    phases.phase_start("tactics", None, 2)
    phases.phase_start("inner", "tactics", 1)
    assert phases.step_complete("inner", 0) is True
    phases.phase_finish("inner")
    phases.step_complete("tactics", 0)
    phases.step_complete("tactics", 1)
    phases.phase_finish("tactics")
    assert heard.steps == [
        ("build: tactics", 0, 2),
        ("build: inner", 0, 1),
        ("build: inner", 1, 1),
        ("build: tactics", 1, 2),
        ("build: tactics", 2, 2),
    ]


def test_a_phase_that_ends_before_its_last_step_ends_its_task() -> None:
    heard = Heard()
    phases = monitor(heard)
    phases.phase_start("tactics", None, 5)
    phases.step_complete("tactics", 0)
    phases.phase_finish("tactics")
    assert heard.steps[-1] == ("build: tactics", 5, 5)
    assert len(heard.steps) == 3


def test_warnings_are_those_a_user_should_see() -> None:
    said = [
        Message("warning", " twice "),
        Message("warning", "twice"),
        Message("error", "bad"),
        Message("info", "hello"),
        Message("warning", "this differs from one already registered"),
    ]
    assert builder._warnings(said) == ("twice", "bad")


def scoped(scopes: str) -> NodeProto:
    made = helper.make_node("Relu", ["x"], ["y"])
    entry = made.metadata_props.add()
    entry.key, entry.value = builder._SCOPE, scopes
    return made


@pytest.mark.parametrize(
    ("scopes", "layer"),
    [
        ("['', 'decoder', 'decoder.up', 'relu']", "decoder.up"),
        ("['relu']", ""),
        ("", ""),
        ("[", ""),
        ("3", ""),
    ],
)
def test_the_layer_a_node_comes_from(scopes: str, layer: str) -> None:
    assert builder._source_layer(scoped(scopes)) == layer
    assert builder._source_layer(None) == ""


@pytest.mark.parametrize(
    ("domain", "reason", "advice"),
    [
        ("com.mine", "no importer", "com.mine"),
        ("", "Non-zero zero point is not supported", "symmetric"),
        ("", "types must match: float and half", "`precision=fp32`"),
        ("", "No importer registered for op: Foo", "`target=cpu`"),
        ("", "something else", "opset 17 to 20"),
    ],
)
def test_advice_is_by_the_parsers_reason(domain: str, reason: str, advice: str) -> None:
    assert advice in builder._advice(helper.make_node("Foo", ["x"], ["y"], domain=domain), reason)


def test_trtexecs_commands() -> None:
    plugin = Path("/lib/plugin.so")
    options = PlanOptions(workspace_mib=512, level=3, timing_cache=Path("t.cache"))
    build, run = builder.trtexec("e.engine", "e.onnx", "tensorrt", options, (), plugin, SHAPES)
    assert build == (
        "trtexec --onnx=e.onnx --saveEngine=e.engine --skipInference --stronglyTyped "
        "--memPoolSize=workspace:512M "
        "--builderOptimizationLevel=3 --timingCacheFile=t.cache --minShapes=frame:1x64x96x3 "
        "--optShapes=frame:4x64x96x3 --maxShapes=frame:8x96x128x3 --dynamicPlugins=/lib/plugin.so"
    )
    assert run == (
        "trtexec --loadEngine=e.engine --useCudaGraph --noDataTransfers --shapes=frame:4x64x96x3 "
        "--dynamicPlugins=/lib/plugin.so"
    )
    build, run = builder.trtexec("a b", "e.onnx", "tensorrt-rtx", PlanOptions(), (86, 120))
    assert (
        build == "tensorrt_rtx --onnx=e.onnx '--saveEngine=a b' --skipInference "
        "--computeCapabilities=86,120"
    )
    assert run == "tensorrt_rtx '--loadEngine=a b' --useCudaGraph --noDataTransfers"
