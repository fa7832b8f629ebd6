"""Show where an edgeseg engine spends its time: the whole graph against its convolutions.

The times are those of OpenVINO's own profile. A convolution's time includes what OpenVINO computes
inside it: bias, activation, the sum behind it, and rounding.
"""

import io
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeseg.backends.openvino import backend, runtime
from edgeseg.backends.openvino.engine import unpack
from edgeseg.passport import Passport

CONVOLUTIONS = frozenset(
    {
        "Convolution",
        "GroupConvolution",
        "ConvolutionBackpropData",
        "GroupConvolutionBackpropData",
        "Deconvolution",
    }
)
RUNS = 15
_WARM_UP = 2

Run = tuple[float, Sequence[tuple[str, float]]]
"""Milliseconds of a call by the clock, and (type, milliseconds) of every node in it."""


class Profiled:
    """Open an engine file once more, with counters; a call runs a frame (H, W, 3) uint8 BGR.

    OpenVINO's ``real_time`` of a node is the mean of all calls since it was compiled, cold ones
    included. So the time of one call is the growth of ``calls * mean``.
    """

    def __init__(self, engine: Path) -> None:
        blob, _ = unpack(engine.read_bytes(), engine.name)
        passport = Passport.read(engine)
        backend.prepare_to_open(passport)
        config = {**passport.openvino.config, "PERF_COUNT": "YES"}
        self._request = (
            runtime.core().import_model(io.BytesIO(blob), "CPU", config).create_infer_request()
        )
        self._calls = 0
        self._totals: list[float] = []

    def __call__(self, frame: Any) -> Run:
        start = time.perf_counter()
        self._request.infer({0: frame[None]}, share_inputs=True)
        wall = (time.perf_counter() - start) * 1e3
        self._calls += 1
        nodes = self._request.profiling_info
        means = [node.real_time.total_seconds() * 1e3 for node in nodes]
        before = self._totals or [0.0] * len(nodes)
        spent, self._totals = last_call(means, self._calls, before)
        return wall, [(node.node_type, ms) for node, ms in zip(nodes, spent, strict=True)]


def last_call(
    means: Sequence[float], calls: int, before: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Return what the last call took, per node, and the totals so far.

    ``calls`` is the number of calls, ``before`` the totals of the call before. Means are whole
    microseconds, so a node's time is right to ``calls`` microseconds, up or down alike.
    """
    totals = [mean * calls for mean in means]
    return [total - old for total, old in zip(totals, before, strict=True)], totals


def profile(engines: dict[str, Path], frame: Any) -> dict[str, dict[str, Any]]:
    """Return the ``summary`` of every engine; the engines take turns on one frame."""
    opened = {name: Profiled(engine) for name, engine in engines.items()}
    runs: dict[str, list[Run]] = {name: [] for name in engines}
    for turn in range(_WARM_UP + RUNS):
        for name, engine in opened.items():
            run = engine(frame)
            if turn >= _WARM_UP:
                runs[name].append(run)
    return {name: summary(found) for name, found in runs.items()}


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return medians over ``runs``, in milliseconds.

    ``graph_ms`` is by the clock, ``nodes_ms`` is the sum of all nodes, and ``convolution_ms`` that
    of the convolutions (transposed ones too). ``ratio`` is ``graph_ms / convolution_ms``, or
    ``None`` without convolutions. ``by_type_ms`` has every node type that took time, the longest
    first.
    """
    by_type: list[dict[str, float]] = []
    for _, nodes in runs:
        sums: dict[str, float] = {}
        for kind, milliseconds in nodes:
            sums[kind] = sums.get(kind, 0.0) + milliseconds
        by_type.append(sums)
    graph = statistics.median(wall for wall, _ in runs)
    convolutions = statistics.median(
        sum(sums[kind] for kind in CONVOLUTIONS & sums.keys()) for sums in by_type
    )
    kinds = set[str]().union(*by_type)
    medians = {kind: statistics.median(sums.get(kind, 0.0) for sums in by_type) for kind in kinds}
    order = sorted(medians, key=lambda kind: (-medians[kind], kind))
    return {
        "runs": len(runs),
        "graph_ms": round(graph, 3),
        "nodes_ms": round(statistics.median(sum(sums.values()) for sums in by_type), 3),
        "convolution_ms": round(convolutions, 3),
        "ratio": round(graph / convolutions, 3) if convolutions else None,
        "by_type_ms": {
            kind: round(medians[kind], 3) for kind in order if round(medians[kind], 3) > 0
        },
    }
