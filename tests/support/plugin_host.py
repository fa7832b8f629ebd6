"""The plugin's kernels on the CPU: building the host executable, TensorRT's formats in NumPy, calls
by the batch.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from edgeseg.backends.tensorrt.plugin.build import SOURCES

Array = npt.NDArray[Any]
TYPES: dict[str, type[np.generic]] = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}
# (type, the value's format, the code's format): everything that there are kernels for.
COMBINATIONS = [
    ("fp32", "linear", "linear"),
    ("fp16", "linear", "linear"),
    ("fp16", "hwc8", "chw32"),
    ("fp16", "hwc8", "hwc16"),
    ("int8", "linear", "linear"),
    ("int8", "chw32", "chw32"),
    ("int8", "hwc16", "hwc16"),
]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
SANITIZERS = [
    "-fsanitize=address",
    "-fsanitize=undefined",
    "-fno-sanitize-recover=all",
]  # nvcc splits at commas
_LANES = {"hwc8": 8, "hwc16": 16, "chw32": 32}


def build_host(folder: Path, *, device_branches: bool = False) -> Path:
    """Compile the bodies for the CPU, warnings as errors, under AddressSanitizer and UBSan.

    With ``device_branches``, what nvcc would take for the device is compiled, CUDA's intrinsics in
    plain C++.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not here")
    flags = ["-std=c++17", "-O1", "-g", *WARNINGS, "-ffp-contract=off", *SANITIZERS]
    if device_branches:
        flags += [
            "-Wno-unknown-pragmas",
            "-fno-strict-aliasing",
            "-include",
            str(SOURCES / "host" / "device_words.h"),
        ]
        probe = [compiler, "-x", "c++", "-fsyntax-only", "-"]
        half = "#ifndef __aarch64__\n_Float16 half;\n#endif\n"
        if subprocess.run(probe, input=half, capture_output=True, text=True).returncode:
            pytest.skip("this g++ has no binary16")
    out = folder / "edgeseg_host"
    includes = [f"-I{SOURCES / 'include'}", f"-I{SOURCES / 'src'}"]
    source = str(SOURCES / "host" / "main.cpp")
    done = subprocess.run(
        [compiler, *flags, *includes, source, "-o", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out


def pack(x: Array, form: str, padding: int | float = 0) -> Array:
    """An (N, C, H, W) array as TensorRT lays it out.

    What stands in the padding channels is given.
    """
    if form == "linear":
        return np.ascontiguousarray(x)
    n, c, h, w = x.shape
    lanes = _LANES[form]
    padded = np.full((n, -(-c // lanes) * lanes, h, w), padding, x.dtype)
    padded[:, :c] = x
    if form == "chw32":
        return np.ascontiguousarray(
            padded.reshape(n, -(-c // lanes), lanes, h, w).transpose(0, 1, 3, 4, 2)
        )
    return np.ascontiguousarray(padded.transpose(0, 2, 3, 1))


def unpack(raw: Array, form: str, shape: Sequence[int]) -> tuple[Array, Array]:
    """The (N, C, H, W) array of ``shape`` in ``raw``, and its padding channels (N, P, H, W)."""
    n, c, h, w = shape
    if form == "linear":
        return raw.reshape(n, c, h, w), np.zeros((n, 0, h, w), raw.dtype)
    lanes = _LANES[form]
    channels = -(-c // lanes) * lanes
    if form == "chw32":
        whole = (
            raw.reshape(n, channels // lanes, h, w, lanes)
            .transpose(0, 1, 4, 2, 3)
            .reshape(n, channels, h, w)
        )
    else:
        whole = raw.reshape(n, h, w, channels).transpose(0, 3, 1, 2)
    return whole[:, :c], whole[:, c:]


class Call(NamedTuple):
    """One call of the host executable: its settings, the arrays it reads, and the types of those it
    writes.
    """

    name: str
    settings: Mapping[str, object]
    reads: Mapping[str, Array]
    writes: Mapping[str, type[np.generic]]


def run_calls(host: Path, folder: Path, calls: Sequence[Call]) -> list[dict[str, Array]]:
    """What each call wrote, flat. One process for all of them; any sanitizer's report fails it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, call in enumerate(calls):
        words = [f"{key}={value}" for key, value in call.settings.items()]
        for key, array in call.reads.items():
            np.ascontiguousarray(array).tofile(folder / f"{number}.{key}")
        words += [f"{key}={folder / f'{number}.{key}'}" for key in (*call.reads, *call.writes)]
        lines.append(" ".join([call.name, *words]))
    # AddressSanitizer wants to be the first library, and a run on another processor preloads one
    # (`processors.py`).
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [host], input="\n".join(lines) + "\n", capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == ["0"] * len(calls), done.stdout[-400:]
    return [
        {key: np.fromfile(folder / f"{number}.{key}", kind) for key, kind in call.writes.items()}
        for number, call in enumerate(calls)
    ]
