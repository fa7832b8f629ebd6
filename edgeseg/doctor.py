"""Find what this machine can run, what is missing, and the command that installs it."""

import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgeseg.errors import EdgesegError, MissingDependencyError, OutputError


@dataclass(frozen=True)
class Finding:
    """Hold the state of one part of this machine.

    Attributes
    ----------
    part : name of the part.
    ok : True if it works.
    found : what was found, such as a version.
    hint : what to do if it does not work.
    needed : True if edgeseg does not work without it.

    Examples
    --------
    >>> Finding("display", ok=False, found="none").needed
    False
    """

    part: str
    ok: bool
    found: str
    hint: str = ""
    needed: bool = False


def _version(*packages: str) -> str | None:
    """Return the version of the first of these packages that is installed."""
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def _package(
    part: str, packages: tuple[str, ...], install: str, *, needed: bool = False
) -> Finding:
    """Check that one of these packages is installed; pip installs the requirement ``install``."""
    version = _version(*packages)
    hint = "" if version else f'pip install "{install}"'
    return Finding(part, version is not None, version or "not installed", hint, needed)


def _cpu() -> list[Finding]:
    """Check OpenVINO, and report the processor's precisions."""
    from edgeseg.backends.openvino import probes, runtime

    try:
        name, features = runtime.device()
    except (ImportError, RuntimeError) as error:
        problem = str(error).splitlines()[0]
        hint = 'pip install "openvino>=2025.0"'
        return [Finding("cpu target", False, problem, hint, needed=True)]

    precisions: list[str] = []
    for precision in runtime.PRECISIONS:
        if precision == "fp32" or precision.upper() in features:
            precisions.append(precision)
    found = (
        f"OpenVINO {_version('openvino')} on {name}, {os.cpu_count()} cores, "
        f"{', '.join(precisions)} (auto: {runtime.best_precision()})"
    )
    if not probes.int8_is_exact():
        found += "; no VNNI: INT8 models are computed in float"
    return [Finding("cpu target", True, found, needed=True)]


def _extension() -> Finding:
    """Check whether the CPU extension is built, or can be."""
    from edgeseg.backends.openvino.extension import build

    try:
        missing = build.why_not()
        there = not missing and build.library_path().is_file()
    except (ImportError, RuntimeError, EdgesegError) as error:
        missing = str(error).splitlines()[0]
        there = False

    if missing:
        hint = "not needed: models that unpool are only slower in INT8 without it"
        return Finding("CPU extension", False, missing, hint)
    found = "built" if there else "will be built with the first INT8 model that unpools"
    return Finding("CPU extension", True, found)


def _opencv() -> Finding:
    """Check OpenCV, and report its video decoders."""
    try:
        import cv2
    except ImportError as error:
        hint = 'pip install "opencv-python>=4.8.1.78"'
        return Finding("video", False, str(error), hint, needed=True)

    lines = [line.strip() for line in cv2.getBuildInformation().splitlines()]
    decoders: list[str] = []
    for decoder in ("FFMPEG", "GStreamer"):
        if any(line.startswith(f"{decoder}:") and "YES" in line for line in lines):
            decoders.append(decoder)
    found = f"OpenCV {cv2.__version__} with {', '.join(decoders) or 'no decoder'}"
    return Finding("video", True, found, needed=True)


def _h264_encoder() -> Finding:
    """Find the encoder that videos are written with, by encoding a few frames."""
    part = "H.264 encoder"
    try:
        from edgeseg.video.encoders import find_encoder
    except ImportError as error:
        return Finding(part, False, str(error), 'pip install "av>=17"', needed=True)

    encoder = find_encoder(".mp4", 640, 480)
    version = f"FFmpeg of PyAV {_version('av')}"
    if encoder is None or encoder.codec != "h264":
        hint = "write a .webm, which browsers play, or install PyAV's own wheel: pip install av"
        return Finding(part, False, f"none in the {version}", hint)
    return Finding(part, True, f"{encoder.name}, {version}")


def _display() -> Finding:
    """Check whether a window can be shown."""
    has_server = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    there = sys.platform in ("darwin", "win32") or has_server
    hint = "" if there else "`segment(show=True)` needs a desktop; use `out=VIDEO` without one"
    return Finding("display", there, "found" if there else "none", hint)


def _cameras() -> Finding:
    """List the cameras; they are only found on Linux."""
    devices: list[str] = []
    if sys.platform == "linux":
        devices = sorted(str(path) for path in Path("/dev").glob("video*"))

    if not devices:
        return Finding("camera", False, "none", "connect a camera, or use a video file")
    return Finding("camera", True, ", ".join(devices))


def _gpu() -> Finding:
    """Check for an NVIDIA GPU, and report its compute capability."""
    from edgeseg.backends.tensorrt import cuda

    if not cuda.has_gpu():
        found = ", ".join(filter(None, (cuda.why_no_gpu(), cuda.driver_version())))
        hint = cuda.gpu_hint() or "not needed for the cpu target"
        return Finding("NVIDIA GPU", False, found, hint)

    name, capability = cuda.device()
    facts = [name, f"compute capability {capability / 10:.1f}"]
    if cuda.driver_version():
        facts.append(cuda.driver_version())
    if cuda.is_integrated():
        facts.append("shares the processor's memory")
    return Finding("NVIDIA GPU", True, ", ".join(facts))


def _tensorrt(target: str, label: str) -> Finding:
    """Check that a TensorRT can be imported, and that it starts.

    An installed one may lack its libraries, be too old, or not fit the driver.
    """
    from edgeseg.backends.tensorrt.bindings import library, why_not_starting

    try:
        version = library(target).version
    except MissingDependencyError as error:
        return Finding(label, False, str(error.got), error.hint or "")

    reason, hint = why_not_starting(target)
    if not reason:
        return Finding(label, True, version)
    return Finding(label, False, f"{version} does not start: {reason}", hint)


def _plugin() -> Finding:
    """Check whether edgeseg's CUDA library is built."""
    from edgeseg.backends.tensorrt.plugin.build import plugin_library

    try:
        return Finding("TensorRT plugin", True, str(plugin_library()))
    except EdgesegError as error:
        found = "not built" if isinstance(error, MissingDependencyError) else str(error.what)
        hint = "`build_plugin()`; without it, TensorRT unpools with standard operators"
        return Finding("TensorRT plugin", False, found, hint)


def _cache() -> Finding:
    """Return where engines are kept, and whether only this user can write there."""
    from edgeseg.files import cache_path
    from edgeseg.trust import require_private_folder

    folder = cache_path()
    try:
        require_private_folder(folder)
    except OutputError as error:
        return Finding("engine cache", False, str(error.got), error.hint or "", needed=True)
    return Finding("engine cache", True, str(folder))


def examine() -> list[Finding]:
    """Return one finding per part of this machine. Nothing is built or installed."""
    from edgeseg.zoo import zoo

    is_new_enough = sys.version_info >= (3, 10)
    hint = "" if is_new_enough else "install Python 3.10 or newer"
    python = Finding("python", is_new_enough, platform.python_version(), hint, needed=True)

    names = ", ".join(zoo())
    hint = "" if names else "install edgeseg again"
    shipped = Finding("shipped models", bool(names), names or "none", hint, needed=True)

    return [
        python,
        *_cpu(),
        _extension(),
        _package("onnx", ("onnx",), "onnx>=1.21", needed=True),
        _opencv(),
        _h264_encoder(),
        shipped,
        _cache(),
        _package("training", ("lightning",), "edgeseg[train]"),
        _package("plots", ("matplotlib",), "edgeseg[train]"),
        _package("torch", ("torch",), "edgeseg[train]"),
        _gpu(),
        _tensorrt("tensorrt", "TensorRT"),
        _tensorrt("tensorrt-rtx", "TensorRT-RTX"),
        _package("CUDA binding", ("cuda-python", "cuda-bindings", "pycuda"), "edgeseg[tensorrt]"),
        _plugin(),
        _display(),
        _cameras(),
    ]
