"""edgeseg: semantic segmentation from PyTorch to a live camera on a small machine.

>>> import edgeseg
>>> engine = edgeseg.load_engine(edgeseg.build_engine("segnet.onnx"))  # doctest: +SKIP
>>> labels = engine(frame)  # (H, W, 3) uint8 BGR -> (H, W) uint8  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeseg.offline import stay_offline
from edgeseg.version import __version__ as __version__

stay_offline()  # before any library is imported

if TYPE_CHECKING:
    from edgeseg.backends.base import PlanOptions
    from edgeseg.backends.engine import Engine
    from edgeseg.build.engine_from_onnx import build_engine
    from edgeseg.build.options import Quantization
    from edgeseg.commands import (
        calibrate,
        compare,
        export_onnx,
        load_engine,
        profile,
        qat,
        report,
        sensitivity,
        train,
    )
    from edgeseg.graph.network import Overrides, load_network
    from edgeseg.imaging.nv12 import Nv12
    from edgeseg.metrics.evaluate import evaluate
    from edgeseg.spec import LabelSpace, ModelSpec
    from edgeseg.video import open_source, segment

__all__ = [
    "Engine",
    "LabelSpace",
    "ModelSpec",
    "Nv12",
    "Overrides",
    "PlanOptions",
    "Quantization",
    "build_engine",
    "calibrate",
    "compare",
    "evaluate",
    "export_onnx",
    "load_engine",
    "load_network",
    "open_source",
    "profile",
    "qat",
    "report",
    "segment",
    "sensitivity",
    "train",
]

# Imported when first asked for: ``import edgeseg`` itself costs next to nothing.
_HOME = {
    "Engine": "backends.engine",
    "LabelSpace": "spec",
    "ModelSpec": "spec",
    "Nv12": "imaging.nv12",
    "Overrides": "graph.network",
    "PlanOptions": "backends.base",
    "Quantization": "build.options",
    "build_engine": "build.engine_from_onnx",
    "evaluate": "metrics.evaluate",
    "load_network": "graph.network",
    "open_source": "video",
    "segment": "video",
    **dict.fromkeys(
        (
            "calibrate",
            "compare",
            "export_onnx",
            "load_engine",
            "profile",
            "qat",
            "report",
            "sensitivity",
            "train",
        ),
        "commands",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgeseg' has no attribute {name!r}")
    return getattr(import_module(f"edgeseg.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
