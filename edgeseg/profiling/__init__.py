"""What an engine costs: latency, the machine it was measured on, and what a lower precision did to the scores.

Nothing here imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.profiling.compare import Comparison, compare
    from edgeseg.profiling.latency import Latency, measure_latency
    from edgeseg.profiling.machine import describe_machine
    from edgeseg.profiling.regression import check_against, read_baseline

__all__ = [
    "Comparison", "Latency", "check_against", "compare", "describe_machine", "measure_latency", "read_baseline",
]  # fmt: skip

# PEP 562: the engines' libraries are loaded by the first use of a name, not by the import of this package.
_HOME = {
    **dict.fromkeys(("Comparison", "compare"), "compare"),
    **dict.fromkeys(("Latency", "measure_latency"), "latency"),
    **dict.fromkeys(("check_against", "read_baseline"), "regression"),
    "describe_machine": "machine",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
