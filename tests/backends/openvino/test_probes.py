"""The probes know right INT8 from wrong INT8."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx_tools import run_ort

from edgeseg.backends.openvino import probes, runtime


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


@pytest.mark.parametrize("probe", [probes.int8_is_exact, probes.signed_int8_is_exact])
def test_a_probe_that_does_not_compile_says_no(monkeypatch: pytest.MonkeyPatch, probe: Any) -> None:
    monkeypatch.setattr(runtime, "core", Broken)
    assert probe.__wrapped__() is False


def test_the_probe_of_products_knows_right_from_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact sums, and those of processors that add two products in 16 bits."""
    model = probes.products_graph()

    def exact(x: np.ndarray) -> np.ndarray:
        return run_ort(model, x=x)[0]

    monkeypatch.setattr(runtime, "core", lambda: Given(exact))
    assert probes.int8_is_exact.__wrapped__() is True
    for wrong in (lambda x: np.minimum(exact(x), 1e6), lambda x: np.maximum(exact(x), -1e6)):
        monkeypatch.setattr(runtime, "core", lambda wrong=wrong: Given(wrong))
        assert probes.int8_is_exact.__wrapped__() is False


def test_the_probe_of_signs_knows_right_from_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    model = probes.concat_graph()

    def exact(x: np.ndarray) -> np.ndarray:
        return run_ort(model, x=x)[0]

    np.testing.assert_array_equal(
        exact(probes.concat_input()), probes.concat_output(probes.concat_input())
    )
    monkeypatch.setattr(runtime, "core", lambda: Given(exact))
    assert probes.signed_int8_is_exact.__wrapped__() is True
    # The scale is lost.
    monkeypatch.setattr(runtime, "core", lambda: Given(lambda x: np.round(exact(x))))
    assert probes.signed_int8_is_exact.__wrapped__() is False
