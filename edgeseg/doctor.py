"""What this machine can run, what is missing, and the line that installs it."""

import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgeseg.errors import EdgesegError, MissingDependencyError


@dataclass(frozen=True)
class Finding:
    """One row: a part, whether it works, what was found, and what to do if it does not. ``needed`` for the base."""

    part: str
    ok: bool
    found: str
    hint: str = ""
    needed: bool = False


def _version(*packages: str) -> str | None:
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def _package(part: str, packages: tuple[str, ...], install: str, *, needed: bool = False) -> Finding:
    version = _version(*packages)
    hint = "" if version else f'pip install "{install}"'
    return Finding(part, version is not None, version or "not installed", hint, needed)


def _cpu() -> list[Finding]:
    from edgeseg.runtime import cpu

    try:
        name, features = cpu.device()
    except (ImportError, RuntimeError) as error:
        return [Finding("cpu target", False, str(error).splitlines()[0], 'pip install "openvino>=2025.0"', needed=True)]
    precisions = [p for p in cpu.PRECISIONS if p == "fp32" or p.upper() in features]
    can = f"{name}, {os.cpu_count()} cores, {', '.join(precisions)} (auto: {cpu.best_precision()})"
    if not cpu.int8_is_exact():
        can += "; no VNNI: INT8 nets are computed in float"
    return [Finding("cpu target", True, f"OpenVINO {_version('openvino')} on {can}", needed=True)]


def _extension() -> Finding:
    from edgeseg.extension import build

    try:
        missing = build.why_not()
        there = not missing and build.library_path().is_file()
    except (ImportError, RuntimeError, EdgesegError) as error:
        missing, there = str(error).splitlines()[0], False
    found = missing or ("built" if there else "built with the first net that unpools in INT8")
    hint = "nets that unpool run in INT8 without it, slower" if missing else ""
    return Finding("CPU extension", not missing, found, hint)


def _opencv() -> Finding:
    try:
        import cv2
    except ImportError as error:
        return Finding("video", False, str(error), 'pip install "opencv-python>=4.8"', needed=True)
    info = cv2.getBuildInformation()

    def has(word: str) -> bool:
        return any(line.strip().startswith(f"{word}:") and "YES" in line for line in info.splitlines())

    parts = [word for word in ("FFMPEG", "GStreamer") if has(word)]
    return Finding("video", True, f"OpenCV {cv2.__version__} with {', '.join(parts) or 'no decoder'}", needed=True)


def _display() -> Finding:
    there = sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    hint = "" if there else "segment --show needs a desktop; use -o VIDEO without one"
    return Finding("display", there, "found" if there else "none", hint)


def _cameras() -> Finding:
    devices = sorted(str(p) for p in Path("/dev").glob("video*")) if sys.platform == "linux" else []
    return Finding(
        "camera", bool(devices), ", ".join(devices) or "none", "" if devices else "plug one in, or use a video file"
    )


def _gpu() -> Finding:
    from edgeseg.runtime.tensorrt import cuda

    if not cuda.has_gpu():
        return Finding("NVIDIA GPU", False, cuda.why_no_gpu(), "the cpu target needs none")
    name, capability = cuda.device()
    shares = ", shares the processor's memory" if cuda.is_integrated() else ""
    return Finding("NVIDIA GPU", True, f"{name}, compute capability {capability / 10:.1f}{shares}")


def _tensorrt(target: str, label: str) -> Finding:
    """Imported, since what is installed may still lack its libraries or be too old."""
    from edgeseg.runtime.tensorrt.library import library

    try:
        return Finding(label, True, library(target).version)
    except MissingDependencyError as error:
        return Finding(label, False, str(error.got), error.hint or "")


def _plugin() -> Finding:
    from edgeseg.plugin.build import plugin_library

    try:
        return Finding("plugin", True, str(plugin_library()))
    except EdgesegError as error:
        said = "not built" if isinstance(error, MissingDependencyError) else str(error.what)
        return Finding("plugin", False, said, "edgeseg build-plugin; tensorrt unpools by standard operators without it")


def examine() -> list[Finding]:
    """Look at this machine; nothing is built, run or installed."""
    from edgeseg.runtime.load import cache_folder, zoo

    python = Finding(
        "python", sys.version_info >= (3, 10), platform.python_version(), "Python 3.10 or newer", needed=True
    )
    nets = zoo()
    return [
        python,
        *_cpu(),
        _extension(),
        _package("onnx", ("onnx",), "onnx>=1.17", needed=True),
        _opencv(),
        Finding(
            "shipped nets", bool(nets), ", ".join(nets) or "none", "" if nets else "install edgeseg again", needed=True
        ),
        Finding("engine cache", True, str(cache_folder())),
        _package("training", ("lightning",), "edgeseg[train]"),
        _package("torch", ("torch",), "edgeseg[train]"),
        _gpu(),
        _tensorrt("tensorrt", "TensorRT"),
        _tensorrt("tensorrt-rtx", "TensorRT-RTX"),
        _package("CUDA binding", ("cuda-python", "cuda-bindings", "pycuda"), "edgeseg[tensorrt]"),
        _plugin(),
        _display(),
        _cameras(),
    ]
