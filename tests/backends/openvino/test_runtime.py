"""OpenVINO on this processor: its version, its device, and one run of a compiled graph."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from edgeseg.backends.openvino import runtime
from edgeseg.backends.openvino.runtime import Device


def test_openvino_is_opened_once_and_says_its_version_and_device() -> None:
    assert runtime.core() is runtime.core()
    assert runtime.library_version().split(".")[0].isdecimal()
    name, features = runtime.device()
    assert name
    assert name == name.strip()
    assert "FP32" in features
    assert list(features) == sorted(features)


def test_openvino_is_imported_without_its_telemetry() -> None:
    """It would start a process that calls home. What a program imports later is its own affair."""
    code = (
        "import sys; from edgeseg.backends.openvino import runtime; runtime.core();"
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
    monkeypatch.setattr(runtime, "device", lambda: Device("some processor", features))
    assert runtime.best_precision() == best


class Request:
    """An infer request of a graph that adds 1."""

    def infer(self, inputs: dict[int, np.ndarray], share_inputs: bool) -> None:
        assert share_inputs
        self.output = inputs[0].astype(np.float32) + 1

    def get_output_tensor(self, index: int) -> Any:
        assert index == 0
        return type("Tensor", (), {"data": self.output})


def test_a_frame_goes_in_as_a_batch_of_one() -> None:
    found = runtime.infer(Request(), np.zeros((4, 6, 3), np.uint8))
    np.testing.assert_array_equal(found, np.ones((4, 6, 3)))
