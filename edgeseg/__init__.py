"""edgeseg: semantic segmentation from PyTorch to a live camera on a small machine.

>>> import edgeseg
>>> engine = edgeseg.load_engine(edgeseg.build_engine("segnet.onnx"))  # doctest: +SKIP
>>> labels = engine(frame)  # (H, W, 3) uint8 BGR -> (H, W) uint8  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgeseg.evaluation import evaluate
    from edgeseg.nv12 import Nv12
    from edgeseg.runtime import Engine, build_engine, load_engine
    from edgeseg.spec import LabelSpace, ModelSpec
    from edgeseg.video import open_source, segment

__all__ = [
    "Engine",
    "LabelSpace",
    "ModelSpec",
    "Nv12",
    "build_engine",
    "evaluate",
    "load_engine",
    "open_source",
    "segment",
]

# Imported when first asked for: ``import edgeseg`` itself costs next to nothing.
_HOME = {
    "Engine": "runtime",
    "build_engine": "runtime",
    "Nv12": "nv12",
    "load_engine": "runtime",
    "LabelSpace": "spec",
    "ModelSpec": "spec",
    "evaluate": "evaluation",
    "open_source": "video",
    "segment": "video",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgeseg' has no attribute {name!r}")
    return getattr(import_module(f"edgeseg.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
