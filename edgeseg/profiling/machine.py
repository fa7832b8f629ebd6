"""What numbers were measured on: a description of the machine for every saved result."""

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

PACKAGES = ("openvino", "onnxruntime", "onnx", "numpy", "opencv-python", "edgeseg")


def describe_machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """The processor and what OpenVINO can do on it, cores, system, Python, versions, load: plain values for JSON.

    ``cores_usable`` are those this process may run on; ``load_average_1min`` is before the measurement if this is
    called before it, and ``None`` where the system keeps none (Windows). A package that is not installed is left out.
    """
    from edgeseg.runtime import cpu

    name, features = cpu.device()
    return {
        "cpu": name,
        "features": list(features),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": {package: version for package in packages if (version := _version(package))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
