"""Open OpenVINO, find what this processor can do, and run a compiled graph."""

import functools
import importlib
import sys
from typing import Any, NamedTuple

from edgeseg.precision import INT8
from edgeseg.types import Image

FLOATS = ("fp32", "bf16")
PRECISIONS = (*FLOATS, INT8)


class Device(NamedTuple):
    """Describe the processor.

    Attributes
    ----------
    name : its full name.
    features : what OpenVINO uses of it (``BF16``, ``INT8``, ...), sorted.

    Examples
    --------
    >>> "BF16" in Device("some processor", ("BF16", "FP32")).features
    True
    """

    name: str
    features: tuple[str, ...]


@functools.cache
def _openvino() -> Any:
    """Import ``openvino`` without its telemetry, which would start a process that calls home.

    OpenVINO has a stub for the case that its telemetry package is not installed. This function
    hides the package during the import, so that OpenVINO uses the stub.
    """
    name = "openvino_telemetry"
    hidden = name not in sys.modules
    if hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # makes `import` raise ImportError
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden:
            del sys.modules[name]


@functools.cache
def core() -> Any:
    """Return OpenVINO's entry point, one per process."""
    return _openvino().Core()


def library_version() -> str:
    """Return OpenVINO's version down to the build: a compiled blob fits exactly one."""
    return str(_openvino().get_version())


def device() -> Device:
    """Return the processor's name and its features for OpenVINO."""
    plugin = core()
    name = str(plugin.get_property("CPU", "FULL_DEVICE_NAME")).strip()
    features = plugin.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return Device(name, tuple(sorted(str(feature) for feature in features)))


def best_precision() -> str:
    """Return ``bf16`` if the processor computes it natively, else ``fp32``.

    Without native BF16, OpenVINO would only emulate it.
    """
    return "bf16" if "BF16" in device().features else "fp32"


def infer(request: Any, frame: Image) -> Image:
    """Run a compiled graph on one frame; return its only output, without the batch dimension.

    The result is a view that the next call overwrites.

    Parameters
    ----------
    request : OpenVINO's infer request of a graph with one input and one output.
    frame : (H, W, 3) uint8 BGR of the input size.
    """
    request.infer({0: frame[None]}, share_inputs=True)
    output: Image = request.get_output_tensor(0).data[0]
    return output
