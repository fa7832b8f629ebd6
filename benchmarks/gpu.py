"""Measure what only a CUDA device can show (``make gpu-test``), and write one JSON file.

    python -m benchmarks.gpu [--tensorrt-include DIR] [--data camvid:PATH] [--out FOLDER]

1. The plugin's kernels. They are called through ``IPluginV3`` on device memory and compared bit for
   bit with the same source on the host, and once more under compute-sanitizer if it is installed.
   Their bandwidth at SegNet's five levels is measured beside a device-to-device copy of as many
   bytes, and beside PyTorch's pooling with indices and unpooling if torch sees the device. The
   kernels before and after a net are measured beside the copy, too. Without nvcc or TensorRT's
   headers this part is left out, and so is what needs the plugin below.
2. If TensorRT is installed: every net that ships, in FP16 and INT8, with the plugin and without:
   labels against the CPU engine, latency p50 and p99 with a CUDA graph and without, and what
   trtexec reports for the same plan.
3. There as well, on the first of those nets: plans for a range of batches and of sizes, with
   scores, for later versions of TensorRT, and between edgeseg's own kernels; arrays of PyTorch as
   input and output.

The exit code is 1 if labels or bytes are not what they must be. There is no limit for speed: the
numbers are written down, with the bytes that each kernel must move at least.
"""

import argparse
import functools
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from edgeseg.backends.base import NATIVE, PLUGIN, PlanOptions, graph_file
from edgeseg.backends.engine import Engine
from edgeseg.backends.load import load_engine
from edgeseg.backends.openvino.compiled import Compiled, settings
from edgeseg.backends.tensorrt import cuda
from edgeseg.backends.tensorrt.bindings import TENSORRT, is_installed, library
from edgeseg.backends.tensorrt.engine import TensorRTEngine
from edgeseg.backends.tensorrt.plugin.build import (
    FLAGS,
    SOURCES,
    build_plugin,
    find_nvcc,
    find_tensorrt_include,
    plugin_library,
    sources_sha256,
)
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.cli.spelling import as_options
from edgeseg.data import open_dataset
from edgeseg.errors import EdgesegError, EngineError, MissingDependencyError
from edgeseg.files import write_json
from edgeseg.graph.lowering import lower
from edgeseg.graph.network import load_network
from edgeseg.imaging.postprocess import overlay
from edgeseg.imaging.preprocess import resize_frame, resize_labels
from edgeseg.passport import Passport
from edgeseg.precision import INT8
from edgeseg.profiling.machine import describe_machine
from edgeseg.zoo import zoo, zoo_int8

FRAMES = 20
WARM = 10
CALLS = 200
LEAST_SAME = {"fp16": 0.999, "int8": 0.999}
FULL_HD = (1080, 1920)
TOOLS = ("memcheck", "racecheck")  # of compute-sanitizer
_FOUND = 86  # its exit code where it has found something
_WITHOUT_PLUGIN = {"left_out": "the plugin is not built", "holds": True}
_LINE = re.compile(
    r"(?P<form>\w+ .+?)\s+(?P<shape>\d+x\d+x\d+x\d+)\s+"
    r"pool (?P<pool_ms>[\d.]+) ms (?P<pool>\d+) GB/s\s+"
    r"unpool (?P<unpool_ms>[\d.]+) ms (?P<unpool>\d+) GB/s\s+"
    r"copy (?P<copy_ms>[\d.]+) ms (?P<copy>\d+) GB/s"
)
_PICTURE = re.compile(
    r"(?P<kernel>(?:preprocess|overlay) \w+)\s+(?P<frame>\d+x\d+) net (?P<net>\d+x\d+)\s+"
    r"(?P<bytes>\d+) bytes\s+(?P<ms>[\d.]+) ms\s+copy (?P<copy_ms>[\d.]+) ms"
)


def plugin_part(given: Path | None, console: Console) -> dict[str, Any]:
    """Measure the plugin; return why it is left out if nvcc or TensorRT's headers are not here.

    TensorRT from PyPI has no headers.
    """
    try:
        find_nvcc()
        include = find_tensorrt_include(given)
    except MissingDependencyError as error:
        console.print(
            f"the plugin is left out: {escape(as_options(str(error)))}", style="bold yellow"
        )
        return {"left_out": str(error)}
    return plugin_on_device(include, console)


def plugin_on_device(include: Path, console: Console) -> dict[str, Any]:
    """Compile and run ``tests/gpu.cu``: comparisons, then bandwidth."""
    built = build_plugin(tensorrt_include=include)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "gpu"
        capability = cuda.device()[1]
        # Without -ffp-contract=off a compiler on aarch64 would multiply and add in one step: the
        # host's half must round as the device's.
        command = [
            str(find_nvcc()),
            *FLAGS,
            "-Xcompiler",
            "-ffp-contract=off",
            f"-arch=sm_{capability}",
            f"-I{SOURCES / 'include'}",
            f"-I{SOURCES / 'src'}",
            f"-I{SOURCES / 'tests'}",
            "-isystem",
            str(include),
            str(SOURCES / "tests" / "gpu.cu"),
            "-ldl",
            "-o",
            str(program),
        ]
        compiled = subprocess.run(command, capture_output=True, text=True)
        if compiled.returncode:
            raise EngineError("the device test does not compile", got=_last_line(compiled))
        done = subprocess.run([str(program), str(built)], capture_output=True, text=True)
        console.print(done.stdout + done.stderr, markup=False, highlight=False)
        watched = {
            tool: sanitized(tool, [str(program), str(built), "--compare"], console)
            for tool in TOOLS
        }
    return {
        "exit_code": done.returncode,
        "same_as_host": done.returncode == 0,
        "sanitizer": watched,
        "bandwidth": bandwidth(done.stdout),
        "pictures": pictures(done.stdout),
    }


def sanitized(tool: str, command: list[str], console: Console) -> str | None:
    """Return what compute-sanitizer's ``tool`` reports: ``clean``, or its first complaint.

    Return ``None`` if it is not installed, or does not get as far as a summary.
    """
    beside = [str(find_nvcc().parent), "/usr/local/cuda/bin", "/opt/nvidia/compute-sanitizer"]
    program = shutil.which("compute-sanitizer") or next(
        filter(None, (_in(folder) for folder in beside)), None
    )
    if program is None:
        console.print(f"compute-sanitizer is not here: {tool} is left out", style="yellow")
        return None
    words = [program, "--tool", tool, "--error-exitcode", str(_FOUND), *command]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode == 0:
        return "clean"
    watched = done.returncode == _FOUND or "SUMMARY" in done.stdout
    if not watched:  # on some boards it may not watch a device
        console.print(f"compute-sanitizer does not run here: {tool} is left out", style="yellow")
        return None
    lines = [line.strip("= ") for line in done.stdout.splitlines() if line.startswith("=========")]
    told = [line for line in lines if line and not line.startswith("COMPUTE-SANITIZER")]
    return told[0] if told else f"exit code {done.returncode}"


def _in(folder: str) -> str | None:
    """Return the compute-sanitizer of a folder, if it is there."""
    return shutil.which("compute-sanitizer", path=folder)


def bandwidth(said: str) -> list[dict[str, Any]]:
    """Read the rows of pooling and unpooling from the lines of ``gpu.cu``."""
    return [
        {
            "form": m["form"].strip(),
            "shape": [int(n) for n in m["shape"].split("x")],
            "bytes": round(1e6 * float(m["copy"]) * float(m["copy_ms"])),
            **{f"{k}_ms": float(m[f"{k}_ms"]) for k in ("pool", "unpool", "copy")},
            **{f"{k}_gb_per_s": float(m[k]) for k in ("pool", "unpool", "copy")},
            **{
                f"{k}_of_copy": round(float(m["copy_ms"]) / float(m[f"{k}_ms"]), 3)
                for k in ("pool", "unpool")
            },
        }
        for m in map(_LINE.match, said.splitlines())
        if m is not None
    ]


def pictures(said: str) -> list[dict[str, Any]]:
    """Read the rows of the kernels before and after a net from the lines of ``gpu.cu``."""
    return [
        {
            "kernel": m["kernel"],
            "frame": m["frame"],
            "net": m["net"],
            "bytes": int(m["bytes"]),
            "ms": float(m["ms"]),
            "copy_ms": float(m["copy_ms"]),
            "of_copy": round(float(m["copy_ms"]) / float(m["ms"]), 3),
        }
        for m in map(_PICTURE.match, said.splitlines())
        if m is not None
    ]


def torch_on_device(ours: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Time PyTorch's pooling with indices and unpooling, FP16, on the shapes of ``ours``.

    ``times_faster`` is its time for the pair over ours. There are no rows if torch sees no device.
    """
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    timer: Any = torch.cuda.Event
    rows = []
    for own in ours:
        shape = own["shape"]
        x = torch.randn(shape, device="cuda", dtype=torch.float16)
        times = {}
        pooled, index = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
        calls: dict[str, Callable[[], Any]] = {
            "pool": functools.partial(torch.nn.functional.max_pool2d, x, 2, return_indices=True),
            "unpool": functools.partial(
                torch.nn.functional.max_unpool2d, pooled, index, (2, 2), output_size=shape
            ),
        }
        for name, call in calls.items():
            spent = []
            for turn in range(WARM + 30):
                start, end = (timer(enable_timing=True) for _ in range(2))
                start.record()
                for _ in range(10):
                    call()
                end.record()
                torch.cuda.synchronize()
                if turn >= WARM:
                    spent.append(start.elapsed_time(end) / 10)
            times[f"{name}_ms"] = float(np.median(spent))
        pair = sum(times.values()) / (own["pool_ms"] + own["unpool_ms"])
        rows.append({"shape": shape, **times, "times_faster": round(pair, 2)})
    return rows


def engines_on_device(
    address: str, console: Console, *, has_plugin: bool = True
) -> list[dict[str, Any]]:
    """Measure every net that ships as a TensorRT plan.

    Labels are compared with the CPU engine's. Without the plugin, nets unpool by standard operators
    only.
    """
    data = open_dataset(address, "val")
    frames = [data[i].image for i in range(0, len(data), max(1, len(data) // FRAMES))][:FRAMES]
    rows = []
    with tempfile.TemporaryDirectory() as text:
        for name, precision, unpool in _plans():
            path = Path(text) / f"{name}.{precision}.{unpool}.engine"
            source = zoo_int8(name) if precision == "int8" else zoo()[name]
            assert source is not None
            row = {"net": name, "precision": precision, "unpool": unpool}
            if unpool == PLUGIN and not has_plugin:
                rows.append({**row, **_WITHOUT_PLUGIN})
                continue
            measure = functools.partial(one_engine, path, source, precision, unpool, frames)
            rows.append(measured(row, measure, console))
    return rows


def one_engine(
    path: Path, source: Path, precision: str, unpool: str, frames: list[Any]
) -> dict[str, Any]:
    """Build and open a plan; return its share of equal labels, and its latency.

    Labels are compared with those of the same file in FP32 on the CPU.
    """
    build_engine(
        source, precision=precision, target=TENSORRT, out=path, plan=PlanOptions(unpool=unpool)
    )
    engine = load_engine(path)
    pairs = zip(frames, on_cpu(source, frames), strict=True)
    same = float(np.mean([np.mean(engine(frame) == want) for frame, want in pairs]))
    row = {
        "same_as_cpu": round(same, 5),
        "holds": same >= LEAST_SAME[precision],
        **latency(engine, frames),
    }
    if cuda.binding().name == cuda.BINDINGS[0]:
        bare = latency(_without_graphs(path), frames)
        row |= {f"{key}_without_graph": value for key, value in bare.items()}
    return row | {"trtexec_ms": _trtexec(Passport.read(path), path)}


def on_cpu(source: Path, frames: list[Any]) -> list[Any]:
    """Return the labels of a file on the CPU, with float parts in FP32 on every processor."""
    network = load_network(source)
    compiled = Compiled(lower(network).model, network.name, {**settings(INT8), **settings("fp32")})
    fitted = (np.ascontiguousarray(resize_frame(f, network.spec.input_size)) for f in frames)
    return [
        resize_labels(np.array(compiled(one), np.uint8), f.shape[:2])
        for one, f in zip(fitted, frames, strict=True)
    ]


def measured(
    row: dict[str, Any], measure: Callable[[], dict[str, Any]], console: Console
) -> dict[str, Any]:
    """Return ``row`` with what ``measure`` gives.

    An error becomes a row, too, so that what was measured before is not lost.
    """
    try:
        row = row | measure()
    except Exception as error:  # PyTorch's, ONNX Runtime's and TensorRT's own
        row = row | {"error": f"{type(error).__name__}: {error}", "holds": False}
    console.print(row)
    return row


def latency(call: Callable[[Any], Any], frames: list[Any]) -> dict[str, float]:
    """Return p50 and p99 of a call, milliseconds.

    They are by the wall clock and, for an engine, also by the device's clock.
    """
    wall: list[float] = []
    device: list[float] = []
    for turn in range(WARM + CALLS):
        begun = time.perf_counter()
        call(frames[turn % len(frames)])
        if turn >= WARM:
            wall.append(1e3 * (time.perf_counter() - begun))
            device.append(getattr(call, "gpu_milliseconds", float("nan")))
    found = _percentiles("wall", wall)
    if not np.isnan(device).all():
        found |= _percentiles("gpu", device)
    return found


def _without_graphs(path: Path) -> Engine:
    """Open an engine on a binding that reports no CUDA graphs."""
    gpu = cuda.CudaPython()
    gpu.has_graphs = False
    passport = Passport.read(path)
    return TensorRTEngine(passport, path.read_bytes(), library(TENSORRT), device=gpu)


# -- what else a plan can be -----------------------------------------------------------------------


def open_plan(name: str, plan: PlanOptions, folder: Path) -> tuple[Any, Path]:
    """Build and open a FP16 engine of a net that ships; return it and the file of its graph."""
    path = folder / "plan.engine"
    for old in folder.glob("plan.*"):
        old.unlink()
    build_engine(
        zoo()[name],
        precision="fp16",
        target=TENSORRT,
        out=path,
        plan=replace(plan, save_graph=True),
    )
    return load_engine(path), graph_file(path)


def features_on_device(
    name: str, address: str, console: Console, *, has_plugin: bool = True
) -> list[dict[str, Any]]:
    """Compare every feature with what it must equal.

    Features are ranges, scores, arrays on the device, later versions, and edgeseg's kernels. The
    last two are left out without the plugin.
    """
    data = open_dataset(address, "val")
    frames = [data[i].image for i in range(min(8, len(data)))]
    rows = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for feature in (batches, sizes, scores, arrays, later_versions, kernels):
            row = {"net": name, "feature": feature.__name__.replace("_", " ")}
            if feature in (later_versions, kernels) and not has_plugin:
                rows.append({**row, **_WITHOUT_PLUGIN})
                continue
            rows.append(
                measured(
                    row, functools.partial(_beside_alone, feature, name, frames, folder), console
                )
            )
    return rows


# What a child process runs to build a version-compatible plan.
_BUILD_LATER = (
    "import sys; from edgeseg.backends.base import PlanOptions; "
    "from edgeseg.build.engine_from_onnx import build_engine; "
    "build_engine(sys.argv[1], precision='fp16', target='tensorrt', out=sys.argv[2], "
    "plan=PlanOptions(version_compatible=True, unpool='plugin'))"
)


def _beside_alone(
    feature: Callable[..., dict[str, Any]], name: str, frames: list[Any], folder: Path
) -> dict[str, Any]:
    """Measure a feature beside the plan for one frame of one size."""
    return feature(name, open_plan(name, PlanOptions(), folder)[0], frames, folder)


def _same(one: Any, other: Any) -> dict[str, Any]:
    """Return the share of equal values, and whether it is enough."""
    share = float(np.mean(np.asarray(one) == np.asarray(other)))
    return {"same": round(share, 5), "holds": share >= LEAST_SAME["fp16"]}


def batches(name: str, alone: Engine, frames: list[Any], folder: Path) -> dict[str, Any]:
    """Check that up to eight frames at a time are labelled as one by one."""
    engine, _ = open_plan(name, PlanOptions(batch=(1, 8, 8)), folder)
    batch = np.stack((frames * 8)[:8])
    got = {count: engine(batch[:count]) for count in (1, 3, 8)}
    want = np.stack([alone(one) for one in batch])
    result = _same(
        np.concatenate(list(got.values())), np.concatenate([want[:count] for count in got])
    )
    per_frame = latency(engine, [batch])["gpu_ms_p50"] / 8
    return result | {
        "gpu_ms_a_frame_of_8": round(per_frame, 4),
        "gpu_ms_of_1": latency(alone, frames)["gpu_ms_p50"],
    }


def sizes(name: str, alone: Engine, frames: list[Any], folder: Path) -> dict[str, Any]:
    """Check the least, best and largest size against the graph in ONNX Runtime.

    The sizes are used in turn and again.
    """
    import onnxruntime

    height, width = alone.spec.input_size
    least = (height // 16 * 8, width // 16 * 8)
    largest = (2 * height, 2 * width)
    plan = PlanOptions(sizes=(least, (height, width), largest), unpool=NATIVE)
    engine, graph = open_plan(name, plan, folder)
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    got: list[Any] = []
    want: list[Any] = []
    for size in (least, (height, width), largest, least):
        frame = np.ascontiguousarray(resize_frame(frames[0], size))
        got.append(engine(frame).ravel())
        want.append(session.run(["labels"], {"frame": frame[None]})[0].ravel())
    return _same(np.concatenate(got), np.concatenate(want)) | latency(engine, [frame])


def scores(name: str, alone: Engine, frames: list[Any], folder: Path) -> dict[str, Any]:
    """Check that labels are the scores' argmax, and those of a plan without scores."""
    engine, _ = open_plan(name, PlanOptions(scores=True), folder)
    fitted = [resize_frame(f, engine.spec.input_size) for f in frames]
    best = [engine.logits(f).argmax(0) for f in fitted]
    argmax = _same(best, [engine(f) for f in fitted])
    same = _same(best, [alone(f) for f in fitted])
    return same | {"argmax": argmax["same"], "holds": same["holds"] and argmax["holds"]}


def arrays(name: str, alone: Any, frames: list[Any], folder: Path) -> dict[str, Any]:
    """Check PyTorch's tensors as input and output, on the device, by DLPack."""
    import torch
    from torch.utils.dlpack import from_dlpack

    if not torch.cuda.is_available():
        return {"left_out": "PyTorch sees no device", "holds": True}
    fitted = [np.ascontiguousarray(resize_frame(f, alone.spec.input_size)) for f in frames]
    given = [
        from_dlpack(alone.on_device(torch.from_numpy(f).cuda())).cpu().numpy().copy()
        for f in fitted
    ]
    return _same(given, [alone(f) for f in fitted])


def later_versions(name: str, alone: Engine, frames: list[Any], folder: Path) -> dict[str, Any]:
    """Check that a version-compatible plan opens in a process that has not seen the plugin.

    The plan has the plugin inside. It is built in a process of its own: in this one other engines
    have loaded the plugin, so that TensorRT could not open the plan to prove it.
    """
    path = folder / "later.engine"
    words = [sys.executable, "-c", _BUILD_LATER, str(zoo()[name]), str(path)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise EngineError("a version-compatible plan does not build", got=_last_line(done))
    used = Passport.read(path).tensorrt.plugin
    if not used:
        raise EngineError(
            "a version-compatible plan was built without the plugin",
            got=_last_line(done),
            expected="the plugin inside",
        )
    np.save(folder / "frame.npy", frames[0])
    code = (
        "import sys, numpy, edgeseg; engine = edgeseg.load_engine(sys.argv[1]); "
        "numpy.save(sys.argv[3], engine(numpy.load(sys.argv[2])))"
    )
    words = [
        sys.executable,
        "-c",
        code,
        str(path),
        str(folder / "frame.npy"),
        str(folder / "labels.npy"),
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise EngineError("a version-compatible plan does not open", got=_last_line(done))
    return _same(np.load(folder / "labels.npy"), alone(frames[0])) | {
        "plugin": used,
        "mb": round(path.stat().st_size / 1e6, 1),
    }


def kernels(name: str, alone: Engine, frames: list[Any], folder: Path) -> dict[str, Any]:
    """Check the plan between edgeseg's own kernels, and time it.

    Frames of the net's size must be labelled as by the other plan. A full HD picture must be that
    of the host.
    """
    engine, _ = open_plan(name, PlanOptions(kernels=True), folder)
    fitted = [np.ascontiguousarray(resize_frame(f, engine.spec.input_size)) for f in frames]
    found = _same([engine(f) for f in fitted], [alone(f) for f in fitted])
    large = np.ascontiguousarray(resize_frame(frames[0], FULL_HD))
    labels, painted = engine.paint(large)
    apart = int(np.abs(painted.astype(int) - overlay(large, labels, engine.spec.labels)).max())
    on_host = latency(lambda f: overlay(f, alone(f), alone.spec.labels), [large])
    on_device = latency(engine.paint, [large])
    return found | {
        "holds": found["holds"] and apart <= 1,
        "picture_off_by": apart,
        "full_hd_same": _same(labels, alone(large))["same"],
        "full_hd_wall_ms_p50": on_device["wall_ms_p50"],
        "full_hd_wall_ms_p50_by_the_host": on_host["wall_ms_p50"],
    }


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the last line that a program printed."""
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def _plans() -> Iterator[tuple[str, str, str]]:
    """Yield every net that ships, in every precision, with both ways to unpool."""
    for name in zoo():
        for precision in ("fp16", "int8"):
            for unpool in ("plugin", "native"):
                yield name, precision, unpool


def _percentiles(what: str, times: list[float]) -> dict[str, float]:
    """Return p50 and p99 of times."""
    return {f"{what}_ms_p{p}": round(float(np.percentile(times, p)), 4) for p in (50, 99)}


def _trtexec(passport: Passport, path: Path) -> float | None:
    """Return the median GPU time that trtexec measures for a plan, milliseconds.

    Return ``None`` if trtexec is not installed.
    """
    program = shutil.which("trtexec") or shutil.which("trtexec", path="/usr/src/tensorrt/bin")
    if program is None:
        return None
    words = [program, f"--loadEngine={path}", "--useCudaGraph", "--noDataTransfers"]
    if passport.tensorrt.plugin:
        words.append(f"--dynamicPlugins={plugin_library()}")
    done = subprocess.run(words, capture_output=True, text=True)
    found = re.search(r"GPU Compute Time:.*?median = ([\d.]+) ms", done.stdout)
    return float(found[1]) if found else None


def main(arguments: list[str]) -> int:
    """Run everything; return 0 if all that must hold does, 2 without a device."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--tensorrt-include", type=Path)
    parser.add_argument("--data", default="synthetic://?size=480x360&seed=0")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    if not cuda.has_gpu():
        console.print(
            f"[bold red]error:[/] no CUDA device here: {cuda.why_no_gpu()}. Run it where there is "
            "one."
        )
        return 2
    name, capability = cuda.device()
    try:
        plugin = plugin_part(options.tensorrt_include, console)
    except EdgesegError as error:
        console.print(f"[bold red]error:[/] {escape(as_options(str(error)))}")
        return error.exit_code
    halves = [row for row in plugin.get("bandwidth", []) if row["form"] == "fp16 linear"]
    has_plugin = "left_out" not in plugin
    here = is_installed(TENSORRT)
    if not here:
        console.print(
            "TensorRT is not installed here: engines are left out (parts 2 and 3)",
            style="bold yellow",
        )
    result: dict[str, Any] = {
        "benchmark": "gpu",
        "device": name,
        "sm": capability,
        "machine": describe_machine(),
        "sources_sha256": sources_sha256(),
        "tensorrt": library(TENSORRT).version if here else None,
        "data": options.data.partition(":")[0],
        "plugin": plugin,
    }
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

    # Write after each part: it is kept whatever the next does.
    path = write_json(options.out / f"gpu-{slug}.json", result)
    result["torch"] = measured({}, lambda: {"pairs": torch_on_device(halves)}, console)
    write_json(path, result)
    result["engines"] = []
    if here:
        result["engines"] = engines_on_device(options.data, console, has_plugin=has_plugin)
    write_json(path, result)
    result["features"] = []
    if here:
        net = next(iter(zoo()))
        result["features"] = features_on_device(net, options.data, console, has_plugin=has_plugin)
    write_json(path, result)
    print(path)
    clean = all(said in (None, "clean") for said in plugin.get("sanitizer", {}).values())
    rows = result["engines"] + result["features"]
    holds = all(row.get("holds", False) for row in rows)
    return 0 if plugin.get("same_as_host", True) and clean and holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
