"""Engines: build them, open them, call them. One builder and one runner a target; ``cpu`` is OpenVINO.

Nothing here imports torch.
"""

from edgeseg.runtime.build import build_engine
from edgeseg.runtime.engine import Engine
from edgeseg.runtime.load import load_engine, resolve_engine, zoo_int8

__all__ = ["Engine", "build_engine", "load_engine", "resolve_engine", "zoo_int8"]
