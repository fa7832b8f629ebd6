"""Keep the libraries that edgeseg imports from opening connections and from writing identifiers."""

import os
import sys

# What each library reads before it starts its telemetry.
_SWITCHES = {
    # ONNX Runtime 1.26 and later, on import: looks up a host of its maker, and keeps a device id
    # and a queue of events in the user's cache.
    "ORT_DISABLE_TELEMETRY": "1",
    # OpenVINO's tools, where `edgeseg.backends.openvino.runtime` does not hide their telemetry.
    "OPENVINO_TELEMETRY_OPT_OUT": "1",
}


def stay_offline() -> None:
    """Switch off the telemetry of ONNX Runtime and OpenVINO, in this process and its children.

    A switch that the user has set in the environment is left as it is. ``import edgeseg`` calls
    this before it imports anything else. Where ONNX Runtime was imported earlier, by the
    application, its telemetry is stopped.
    """
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)

    runtime = sys.modules.get("onnxruntime")
    stop = getattr(runtime, "disable_telemetry_events", None)
    if stop is not None and os.environ["ORT_DISABLE_TELEMETRY"] == "1":
        stop()
