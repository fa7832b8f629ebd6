"""``make gpu-test``: what only a CUDA device can show. Builds the plugin, compares, measures, writes one JSON.

    python -m benchmarks.gpu [--tensorrt-include DIR] [--data camvid:PATH] [--out FOLDER]

1. The plugin's kernels, called through ``IPluginV3`` on device memory, against the same source on the host, to the bit;
   their bandwidth at SegNet's five levels beside a device-to-device copy of as many bytes, and PyTorch's pooling with
   indices and unpooling where torch sees the device.
2. Where TensorRT is installed: every net that ships, in FP16 and INT8, with the plugin and without: labels against the
   CPU engine, latency p50 and p99 with a CUDA graph and without, and what trtexec says of the same plan.

Exits 1 where labels or bytes are not what they must be. Speed has no floor here: the numbers are written down.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from edgeseg.artifact import Passport, write_json
from edgeseg.data import open_dataset
from edgeseg.errors import EdgesegError, EngineError
from edgeseg.plugin.build import (
    FLAGS,
    SOURCES,
    build_plugin,
    find_nvcc,
    find_tensorrt_include,
    plugin_library,
    sources_sha256,
)  # fmt: skip
from edgeseg.profiling.machine import describe_machine
from edgeseg.runtime import build_engine, load_engine
from edgeseg.runtime.load import zoo, zoo_int8
from edgeseg.runtime.target import PlanOptions
from edgeseg.runtime.tensorrt import cuda
from edgeseg.runtime.tensorrt.library import TENSORRT, is_installed, library

FRAMES, WARM, CALLS = 20, 10, 200
LEAST_SAME = {"fp16": 0.999, "int8": 0.999}
_LINE = re.compile(
    r"(?P<form>\w+ .+?)\s+(?P<shape>\d+x\d+x\d+x\d+)\s+pool (?P<pool_ms>[\d.]+) ms (?P<pool>\d+) GB/s\s+"
    r"unpool (?P<unpool_ms>[\d.]+) ms (?P<unpool>\d+) GB/s\s+copy (?P<copy_ms>[\d.]+) ms (?P<copy>\d+) GB/s"
)


def plugin_on_device(include: Path, console: Console) -> dict[str, Any]:
    """Compile and run ``tests/gpu.cu``: comparisons, then bandwidth."""
    built = build_plugin(tensorrt_include=include)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "gpu"
        capability = cuda.device()[1]
        flags = [f for f in FLAGS if not f.startswith("-fvisibility")]
        command = [
            str(find_nvcc()), *flags, f"-arch=sm_{capability}", f"-I{SOURCES / 'include'}", f"-I{SOURCES / 'src'}",
            f"-I{SOURCES / 'tests'}", "-isystem", str(include), str(SOURCES / "tests" / "gpu.cu"), "-ldl", "-o",
            str(program),
        ]  # fmt: skip
        compiled = subprocess.run(command, capture_output=True, text=True)
        if compiled.returncode:
            raise EngineError("the device test does not compile", got=compiled.stderr.strip().splitlines()[-1])
        done = subprocess.run([str(program), str(built)], capture_output=True, text=True)
    console.print(done.stdout + done.stderr, markup=False, highlight=False)
    rows = [
        {
            "form": m["form"].strip(), "shape": [int(n) for n in m["shape"].split("x")],
            **{f"{k}_ms": float(m[f"{k}_ms"]) for k in ("pool", "unpool", "copy")},
            **{f"{k}_gb_per_s": float(m[k]) for k in ("pool", "unpool", "copy")},
            **{f"{k}_of_copy": round(float(m["copy_ms"]) / float(m[f"{k}_ms"]), 3) for k in ("pool", "unpool")},
        }
        for m in map(_LINE.match, done.stdout.splitlines()) if m is not None
    ]  # fmt: skip
    return {"exit_code": done.returncode, "same_as_host": done.returncode == 0, "bandwidth": rows}


def torch_on_device(shapes: list[list[int]]) -> list[dict[str, Any]]:
    """PyTorch's pooling with indices and unpooling, FP16, on the same shapes; empty where torch sees no device."""
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    rows = []
    for shape in shapes:
        x = torch.randn(shape, device="cuda", dtype=torch.float16)
        times = {}
        pooled, index = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
        calls = {
            "pool": lambda x=x: torch.nn.functional.max_pool2d(x, 2, return_indices=True),
            "unpool": lambda p=pooled, i=index, s=shape: torch.nn.functional.max_unpool2d(p, i, 2, output_size=s),
        }
        for name, call in calls.items():
            spent = []
            for turn in range(WARM + 30):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                for _ in range(10):
                    call()
                end.record()
                torch.cuda.synchronize()
                if turn >= WARM:
                    spent.append(start.elapsed_time(end) / 10)
            times[f"{name}_ms"] = float(np.median(spent))
        rows.append({"shape": shape, **times})
    return rows


def engines_on_device(address: str, console: Console) -> list[dict[str, Any]]:
    """Every net that ships as a TensorRT plan: labels against the CPU engine, and latency."""
    data = open_dataset(address, "val")
    frames = [data[i].image for i in range(0, len(data), max(1, len(data) // FRAMES))][:FRAMES]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, precision, unpool in _plans():
            source = zoo_int8(name) if precision == "int8" else zoo()[name]
            assert source is not None
            twin = load_engine(build_engine(
                source, precision="int8" if precision == "int8" else "fp32", target="cpu", out=Path(folder) / "t.engine"
            ))  # fmt: skip
            path = Path(folder) / f"{name}.{precision}.{unpool}.engine"
            try:
                build_engine(source, precision=precision, target=TENSORRT, out=path, plan=PlanOptions(unpool=unpool))
                engine = load_engine(path)
            except EdgesegError as error:
                console.print(f"{name} {precision} {unpool}: {error}", style="red", markup=False)
                rows.append({"net": name, "precision": precision, "unpool": unpool, "error": str(error)})
                continue
            same = float(np.mean([np.mean(engine(f) == twin(f)) for f in frames]))
            wall, device = [], []
            for turn in range(WARM + CALLS):
                begun = time.perf_counter()
                engine(frames[turn % len(frames)])
                if turn >= WARM:
                    wall.append(1e3 * (time.perf_counter() - begun))
                    device.append(engine.gpu_milliseconds)  # type: ignore[attr-defined]
            row = {
                "net": name, "precision": precision, "unpool": unpool, "same_as_cpu": round(same, 5),
                "holds": same >= LEAST_SAME[precision], **_percentiles("wall", wall), **_percentiles("gpu", device),
                "trtexec_ms": _trtexec(Passport.read(path), path),
            }  # fmt: skip
            console.print(row)
            rows.append(row)
    return rows


def _plans() -> Iterator[tuple[str, str, str]]:
    for name in zoo():
        for precision in ("fp16", "int8"):
            for unpool in ("plugin", "native"):
                yield name, precision, unpool


def _percentiles(what: str, times: list[float]) -> dict[str, float]:
    return {f"{what}_ms_p{p}": round(float(np.percentile(times, p)), 4) for p in (50, 99)}


def _trtexec(passport: Passport, path: Path) -> float | None:
    """The median GPU time that trtexec measures of a plan, milliseconds; ``None`` where it is not installed."""
    program = shutil.which("trtexec") or shutil.which("trtexec", path="/usr/src/tensorrt/bin")
    if program is None:
        return None
    words = [program, f"--loadEngine={path}", "--useCudaGraph", "--noDataTransfers"]
    if "plugin" in passport.settings:
        words.append(f"--dynamicPlugins={plugin_library()}")
    done = subprocess.run(words, capture_output=True, text=True)
    found = re.search(r"GPU Compute Time:.*?median = ([\d.]+) ms", done.stdout)
    return float(found[1]) if found else None


def main(arguments: list[str]) -> int:
    """Run it all; 0 where everything that must hold does, 2 without a device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--tensorrt-include", type=Path)
    parser.add_argument("--data", default="synthetic://?size=480x360&seed=0")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    if not cuda.has_gpu():
        console.print(f"[bold red]error:[/] no CUDA device here: {cuda.why_no_gpu()}. Run it where there is one.")
        return 2
    name, capability = cuda.device()
    try:
        include = find_tensorrt_include(options.tensorrt_include)
        plugin = plugin_on_device(include, console)
    except EdgesegError as error:
        console.print(f"[bold red]error:[/] {error}", markup=True)
        return error.exit_code
    engines = engines_on_device(options.data, console) if is_installed(TENSORRT) else []
    shapes = [row["shape"] for row in plugin["bandwidth"] if row["form"] == "fp16 linear"]
    result = {
        "benchmark": "gpu", "device": name, "sm": capability, "machine": describe_machine(),
        "sources_sha256": sources_sha256(), "tensorrt": library(TENSORRT).version if engines else None,
        "plugin": plugin, "torch": torch_on_device(shapes), "data": options.data.partition(":")[0], "engines": engines,
    }  # fmt: skip
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = write_json(options.out / f"gpu-{slug}.json", result)
    print(path)
    return 0 if plugin["same_as_host"] and all(row.get("holds", False) for row in engines) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
