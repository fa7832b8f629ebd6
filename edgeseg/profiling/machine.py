"""Describe the machine that a result was measured on, to save it with the result."""

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

PACKAGES = ("openvino", "onnxruntime", "onnx", "numpy", "opencv-python", "edgeseg")


def describe_machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Return facts about this machine as plain values for JSON.

    These are the processor and its features for OpenVINO, cores, system, Python, versions and load.
    ``cores_usable`` counts the cores that this process may run on. ``load_average_1min`` is
    ``None`` on systems that have no such value (Windows). Call this function before a measurement,
    so that the load does not include the measurement itself.

    Parameters
    ----------
    packages : packages to list with their versions; those that are not installed are left out.

    Examples
    --------
    >>> sorted(describe_machine(packages=["numpy"])["versions"])
    ['numpy']
    """
    from edgeseg.backends.openvino import runtime
    from edgeseg.cores import usable_cores

    name, features = runtime.device()

    # Not every system can tell the load.
    load = None
    if hasattr(os, "getloadavg"):
        load = round(os.getloadavg()[0], 2)

    versions: dict[str, str] = {}
    for package in packages:
        version = _version(package)
        if version:
            versions[package] = version

    return {
        "cpu": name,
        "features": list(features),
        "cores": os.cpu_count(),
        "cores_usable": usable_cores(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average_1min": load,
        "versions": versions,
    }


def _version(package: str) -> str | None:
    """Return the version of an installed package, or ``None``."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
