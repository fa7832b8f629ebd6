"""Measure what an engine costs: its latency, and the accuracy that a lower precision loses.

Nothing here imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.profiling.compare import compare
    from edgeseg.profiling.comparison import Comparison
    from edgeseg.profiling.latency import Latency, measure_latency
    from edgeseg.profiling.machine import describe_machine
    from edgeseg.profiling.regression import check_against, read_baseline

__all__ = [
    "Comparison",
    "Latency",
    "check_against",
    "compare",
    "describe_machine",
    "measure_latency",
    "read_baseline",
]

# PEP 562: the first use of a name loads its module and the engines' libraries. Importing this
# package loads neither.
_HOME = {
    "Comparison": "comparison",
    "Latency": "latency",
    "check_against": "regression",
    "compare": "compare",
    "describe_machine": "machine",
    "measure_latency": "latency",
    "read_baseline": "regression",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
