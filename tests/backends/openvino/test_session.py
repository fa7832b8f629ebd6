"""OpenVINO on this processor: what it can do, compiled graphs, and their times."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_tools import run_ort

from edgeseg.backends.openvino import probes, session
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


# -- what there is ---------------------------------------------------------------------------------


def test_openvino_is_opened_once_and_says_its_version_and_device() -> None:
    assert session.core() is session.core()
    assert session.library_version().split(".")[0].isdecimal()
    name, features = session.device()
    assert name
    assert name == name.strip()
    assert "FP32" in features
    assert list(features) == sorted(features)


def test_openvino_is_imported_without_its_telemetry() -> None:
    """It would start a process that calls home. What a program imports later is its own affair."""
    code = (
        "import sys; from edgeseg.backends.openvino import session; session.core();"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize(
    ("features", "best"), [(("BF16", "FP32"), "bf16"), (("FP32", "INT8"), "fp32")]
)
def test_bf16_is_best_where_the_processor_computes_it(
    monkeypatch: pytest.MonkeyPatch, features: tuple[str, ...], best: str
) -> None:
    monkeypatch.setattr(session, "device", lambda: ("some processor", features))
    assert session.best_precision() == best


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
    monkeypatch.setattr(session, "best_precision", lambda: "bf16")
    monkeypatch.setattr(session, "int8_is_exact", lambda: is_exact)
    found = session.settings(precision, floats)
    assert found["INFERENCE_PRECISION_HINT"] == hint
    assert found.get(session.INT8_KERNELS) == kernels
    assert (found["PERFORMANCE_HINT"], found["NUM_STREAMS"]) == ("LATENCY", "1")


# -- the probes ------------------------------------------------------------------------------------


class Broken:
    """An OpenVINO that compiles nothing."""

    def read_model(self, data: bytes) -> bytes:
        return data

    def compile_model(self, *_: Any) -> Any:
        raise RuntimeError("No suitable implementations")


class Given:
    """An OpenVINO whose graphs give ``result`` of their input."""

    def __init__(self, result: Callable[[np.ndarray], np.ndarray]) -> None:
        self.result = result

    def read_model(self, data: bytes) -> bytes:
        return data

    def compile_model(self, *_: Any) -> Any:
        return lambda inputs: [self.result(inputs[0])]


@pytest.mark.parametrize("probe", [session.int8_is_exact, session.signed_int8_is_exact])
def test_a_probe_that_does_not_compile_says_no(monkeypatch: pytest.MonkeyPatch, probe: Any) -> None:
    monkeypatch.setattr(session, "core", Broken)
    assert probe.__wrapped__() is False


def test_the_probe_of_products_knows_right_from_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact sums, and those of processors that add two products in 16 bits."""
    model = session._largest_products_graph(16, 12, 127)

    def exact(x: np.ndarray) -> np.ndarray:
        return run_ort(model, x=x)[0]

    monkeypatch.setattr(session, "core", lambda: Given(exact))
    assert session.int8_is_exact.__wrapped__() is True
    for wrong in (lambda x: np.minimum(exact(x), 1e6), lambda x: np.maximum(exact(x), -1e6)):
        monkeypatch.setattr(session, "core", lambda wrong=wrong: Given(wrong))
        assert session.int8_is_exact.__wrapped__() is False


def test_the_probe_of_signs_knows_right_from_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    model = probes.concat_graph()

    def exact(x: np.ndarray) -> np.ndarray:
        return run_ort(model, x=x)[0]

    np.testing.assert_array_equal(
        exact(probes.concat_input()), probes.concat_output(probes.concat_input())
    )
    monkeypatch.setattr(session, "core", lambda: Given(exact))
    assert session.signed_int8_is_exact.__wrapped__() is True
    monkeypatch.setattr(
        session, "core", lambda: Given(lambda x: np.round(exact(x)))
    )  # the scale is lost
    assert session.signed_int8_is_exact.__wrapped__() is False


# -- compiled graphs -------------------------------------------------------------------------------


def test_a_compiled_graph_runs() -> None:
    compiled = session.Compiled(graph(), "net", session.settings("fp32"))
    assert compiled.frame_shape == (*SIZE, 3)
    first = compiled(frame(1))
    np.testing.assert_array_equal(first, -frame(1).astype(np.float32))
    compiled(frame(2))
    np.testing.assert_array_equal(
        first, -frame(2).astype(np.float32)
    )  # a view that the next call overwrites


def test_a_blob_opens_again() -> None:
    blob = session.Compiled(graph(), "net", session.settings("fp32")).blob()
    assert isinstance(blob, bytes)
    again = session.core().import_model(blob, "CPU", session.settings("fp32"))
    np.testing.assert_array_equal(again([frame()[None]])[0][0], -frame().astype(np.float32))


def test_an_operator_that_openvino_lacks_is_named() -> None:
    with pytest.raises(
        GraphError, match=r"^net: OpenVINO has no such operator: got Foo-17\. Replace it in the net"
    ):
        session.Compiled(graph("Foo"), "net", session.settings("fp32"))


def test_what_openvino_cannot_compile_is_told_in_one_line() -> None:
    model = graph()
    model.graph.node[1].input[0] = "nowhere"
    with pytest.raises(GraphError, match=r"^net: OpenVINO cannot compile it: got .+") as caught:
        session.Compiled(model, "net", session.settings("fp32"))
    assert "\n" not in str(caught.value)


def test_milliseconds_are_those_of_the_calls_since_the_last_time() -> None:
    compiled = session.Compiled(graph(), "net", {**session.settings("fp32"), "PERF_COUNT": "YES"})
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
    times = session.trial(candidates)
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

    monkeypatch.setattr("edgeseg.backends.openvino.session.time.perf_counter", lambda: now)
    times = session.trial({"fast": passes(0.001), "slow": passes(0.003)})
    assert times == {"fast": pytest.approx(1.0), "slow": pytest.approx(3.0)}
