"""The kernels that stand around a net, built for the CPU, and an engine between them on the GPU of
NumPy.
"""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_gpu import CAPTURING, STREAMS, FakeCuda, fake_library
from passports import plan_passport

from edgeseg.backends.tensorrt.frame_engine import FrameEngine
from edgeseg.backends.tensorrt.graphs import graph_for
from edgeseg.backends.tensorrt.kernels import open_library
from edgeseg.backends.tensorrt.plugin.build import SOURCES
from edgeseg.facts import SCORES
from edgeseg.graph.network import Network, load_network
from edgeseg.passport import Passport
from edgeseg.reporter import SILENT

RTX = "tensorrt-rtx"


def passport_of(network: Network, **facts: Any) -> Passport:
    return plan_passport(network, **{"outputs": SCORES, **facts})


def build_library(folder: Path) -> Any:
    """The library, loaded."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not here")
    out = folder / "libkernels.so"
    flags = [
        "-std=c++17",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-ffp-contract=off",
        "-shared",
        "-fPIC",
    ]
    includes = [f"-I{SOURCES / 'include'}", f"-I{SOURCES / 'src'}"]
    source = str(SOURCES / "host" / "library.cpp")
    done = subprocess.run(
        [compiler, *flags, *includes, source, "-o", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return open_library(out)


class Late:
    """The library's functions as a stream has them: they read what they are told at once, and work
    later.
    """

    def __init__(self, library: Any) -> None:
        self.library, self.calls, self.code = library, 0, 0

    def edgeseg_plugin_version(self) -> int:
        return int(self.library.edgeseg_plugin_version())

    def edgeseg_preprocess(self, frame: Any, net: Any, out: Any, stream: Any) -> int:
        told = [_copied(frame), _copied(net)]
        return self._put(
            stream, lambda: self.library.edgeseg_preprocess(*map(ctypes.byref, told), out, None)
        )

    def edgeseg_overlay_scores(
        self, scores: Any, half: int, classes: int, h: int, w: int, o: Any, stream: Any
    ) -> int:
        told = _copied(o)
        call = self.library.edgeseg_overlay_scores
        return self._put(
            stream, lambda: call(scores, half, classes, h, w, ctypes.byref(told), None)
        )

    def _put(self, stream: Any, work: Callable[[], int]) -> int:
        self.calls += 1

        def run() -> None:
            assert work() == 0

        if self.code == 0:
            (CAPTURING[-1] if CAPTURING else STREAMS[stream.value or 0]).append(run)
        return self.code


def _copied(reference: Any) -> ctypes.Structure:
    told = reference._obj
    return type(told).from_buffer_copy(told)  # type: ignore[no-any-return]


def opened(
    small_onnx: Path,
    library: Any,
    gpu: FakeCuda,
    *,
    precision: str = "fp32",
    zero_copy: bool = False,
) -> FrameEngine:
    network = load_network(small_onnx)
    model, _ = graph_for(network, precision, None, SILENT, kernels=True)
    return FrameEngine(
        passport_of(network),
        model.SerializeToString(),
        fake_library(),
        library,
        device=gpu,
        zero_copy=zero_copy,
    )
