"""Compiled graphs: their settings, their runs, and their times."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeseg.backends.openvino import probes, runtime
from edgeseg.backends.openvino.compiled import INT8_KERNELS, Compiled, settings, trial
from edgeseg.errors import GraphError

SIZE = (4, 6)


def graph(kind: str = "Neg") -> onnx.ModelProto:
    """Frame (1, H, W, 3) uint8 -> y of one operator, float32."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node(kind, ["float"], ["y"], "last"),
    ]
    ends = [
        helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, *SIZE, 3]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, *SIZE, 3]),
    ]
    made = helper.make_graph(nodes, "test", ends[:1], ends[1:])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def frame(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.mark.parametrize(
    ("precision", "floats", "is_exact", "hint", "kernels"),
    [
        ("fp32", None, True, "f32", None),
        ("bf16", None, False, "bf16", None),
        ("int8", None, True, "bf16", None),
        ("int8", "fp32", True, "f32", None),
        ("int8", "fp32", False, "f32", "NO"),
    ],
)
def test_settings(
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    floats: str | None,
    is_exact: bool,
    hint: str,
    kernels: str | None,
) -> None:
    monkeypatch.setattr(runtime, "best_precision", lambda: "bf16")
    monkeypatch.setattr(probes, "int8_is_exact", lambda: is_exact)
    found = settings(precision, floats)
    assert found["INFERENCE_PRECISION_HINT"] == hint
    assert found.get(INT8_KERNELS) == kernels
    assert (found["PERFORMANCE_HINT"], found["NUM_STREAMS"]) == ("LATENCY", "1")


def test_a_compiled_graph_runs() -> None:
    compiled = Compiled(graph(), "net", settings("fp32"))
    assert compiled.frame_shape == (*SIZE, 3)
    first = compiled(frame(1))
    np.testing.assert_array_equal(first, -frame(1).astype(np.float32))
    compiled(frame(2))
    np.testing.assert_array_equal(
        first, -frame(2).astype(np.float32)
    )  # a view that the next call overwrites


def test_a_blob_opens_again() -> None:
    blob = Compiled(graph(), "net", settings("fp32")).blob()
    assert isinstance(blob, bytes)
    again = runtime.core().import_model(blob, "CPU", settings("fp32"))
    np.testing.assert_array_equal(again([frame()[None]])[0][0], -frame().astype(np.float32))


def test_an_operator_that_openvino_lacks_is_named() -> None:
    with pytest.raises(
        GraphError, match=r"^net: OpenVINO has no such operator: got Foo-17\. Replace it in the net"
    ):
        Compiled(graph("Foo"), "net", settings("fp32"))


def test_what_openvino_cannot_compile_is_told_in_one_line() -> None:
    model = graph()
    model.graph.node[1].input[0] = "nowhere"
    with pytest.raises(GraphError, match=r"^net: OpenVINO cannot compile it: got .+") as caught:
        Compiled(model, "net", settings("fp32"))
    assert "\n" not in str(caught.value)


def test_milliseconds_are_those_of_the_calls_since_the_last_time() -> None:
    compiled = Compiled(graph(), "net", {**settings("fp32"), "PERF_COUNT": "YES"})
    for _ in range(3):
        compiled(frame())
    spent = compiled.milliseconds()
    assert spent
    assert all(time >= 0 for time in spent.values())
    assert not any(compiled.milliseconds().values())  # no call since then


class Timed:
    """A compiled graph that keeps when it was called."""

    frame_shape = (*SIZE, 3)
    calls: list[str]

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def __call__(self, given: np.ndarray) -> np.ndarray:
        assert (given.shape, given.dtype) == (self.frame_shape, np.dtype(np.uint8))
        self.calls.append(self.name)
        return given


def test_a_trial_calls_graphs_in_turns() -> None:
    calls: list[str] = []
    candidates: Any = {name: Timed(name, calls) for name in ("one", "other")}
    times = trial(candidates)
    assert list(times) == ["one", "other"]
    assert all(time >= 0 for time in times.values())
    assert calls == ["one", "other"] * (len(calls) // 2)
    assert len(calls) >= 6


def test_a_trial_finds_the_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def passes(seconds: float) -> Any:
        def call(given: np.ndarray) -> np.ndarray:
            nonlocal now
            now += seconds
            return given

        call.frame_shape = (*SIZE, 3)  # type: ignore[attr-defined]
        return call

    monkeypatch.setattr("edgeseg.backends.openvino.compiled.time.perf_counter", lambda: now)
    times = trial({"fast": passes(0.001), "slow": passes(0.003)})
    assert times == {"fast": pytest.approx(1.0), "slow": pytest.approx(3.0)}
