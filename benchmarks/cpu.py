"""Speed of the CPU engines against the runtimes people would otherwise pick, side by side in one run.

    python -m benchmarks.cpu [--nets segnet enet] [--rounds 7] [--seconds 1.0] [--json FILE] [--show FILE]

Every candidate runs the same net (random weights, the same seed) on the same frame, batch 1, with all cores. In each
round every candidate is warmed up with one call and then called for ``--seconds``; rounds go through all candidates,
so that a machine whose speed drifts slows them alike. The median over all rounds is quoted, and ratios of medians.

What is timed: for edgeseg, everything between a uint8 BGR frame and a uint8 label map. For the others only the net,
from a ready float tensor to logits: they are given the preprocessing and the argmax for free.
"""

import argparse
import contextlib
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from edgeseg.artifact import sha256_file
from edgeseg.export.network import load_network
from edgeseg.export.to_onnx import export_module
from edgeseg.models import architecture, create
from edgeseg.preprocess import to_input
from edgeseg.profiling.machine import PACKAGES, describe_machine
from edgeseg.runtime import build_engine, load_engine
from edgeseg.runtime import cpu as cpu_target
from edgeseg.spec import CAMVID_11, ModelSpec

SIZES = {"segnet": (352, 480), "enet": (360, 480)}
BASELINE = "PyTorch eager FP32"
MAX_CALLS = 400


@dataclass
class Candidate:
    """One way to run the net: ``call()`` runs a frame, ``labels()`` what it said of it."""

    name: str
    ours: bool
    call: Callable[[], Any]
    labels: Callable[[], Any]
    times: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.times) * 1e3


@contextlib.contextmanager
def pytorch_pooling(name: str) -> Iterator[None]:
    """The net with PyTorch's own pooling and unpooling (int64 indices), as anyone else would write it."""
    module = import_module(architecture(name).factory.split(":")[0])
    ours = module.max_pool_code, module.max_unpool_code
    module.max_pool_code = lambda x: F.max_pool2d(x, 2, return_indices=True)  # type: ignore[attr-defined]
    module.max_unpool_code = lambda v, i, like: F.max_unpool2d(v, i, 2, output_size=list(like.shape[2:]))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.max_pool_code, module.max_unpool_code = ours  # type: ignore[attr-defined]


def _torch(name: str, net: Any, x: torch.Tensor, title: str, *, compiled: bool, bf16: bool) -> Candidate:
    run = torch.compile(net) if compiled else net

    def call() -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16), pytorch_pooling(name):
            out: torch.Tensor = run(x)
            return out

    return Candidate(title, False, call, lambda: call().float().argmax(1)[0].numpy())


def _onnxruntime(path: Path, x: Any, title: str) -> Candidate:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def call() -> Any:
        return session.run(None, {name: x})[0]

    return Candidate(title, False, call, lambda: call().argmax(1)[0])


def _openvino(path: Path, x: Any, title: str) -> Candidate:
    core = cpu_target.core()
    model = core.read_model(path)
    model.reshape(list(x.shape))
    request = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()

    def call() -> Any:
        request.infer({0: x}, share_inputs=True)
        return request.get_output_tensor(0).data

    return Candidate(title, False, call, lambda: call().argmax(1)[0])


def _edgeseg(path: Path, frame: Any, precision: str) -> Candidate:
    engine = load_engine(build_engine(path, precision=precision))
    return Candidate(f"edgeseg {precision.upper()}", True, lambda: engine(frame), lambda: engine(frame))


def candidates(name: str, folder: Path, console: Console) -> tuple[list[Candidate], dict[str, Any]]:
    """Every way to run one net, and what identifies it."""
    torch.manual_seed(0)
    size = SIZES[name]
    net = create(name, len(CAMVID_11)).eval()
    _settle(net, size)
    spec = ModelSpec(architecture=name, input_size=size, stride=architecture(name).stride, labels=CAMVID_11)
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    x = to_input(frame, spec)
    tensor = torch.from_numpy(x)
    console.print(f"preparing {name} {size[0]}x{size[1]} …")
    standard = export_module(net, spec, folder / f"{name}.onnx")
    scatter = _pytorch_export(name, net, tensor, folder / f"{name}-scatter.onnx")
    found = [
        _torch(name, net, tensor, BASELINE, compiled=False, bf16=False),
        _torch(name, net, tensor, "torch.compile FP32", compiled=True, bf16=False),
        _torch(name, net, tensor, "torch.compile BF16 autocast", compiled=True, bf16=True),
        _onnxruntime(standard, x, "ONNX Runtime FP32, standard MaxUnpool"),
        _openvino(scatter, x, "OpenVINO default, PyTorch's own export"),
    ]
    found += [
        _edgeseg(standard, frame, p) for p in cpu_target.PRECISIONS if p == "fp32" or "BF16" in cpu_target.device()[1]
    ]
    facts = {
        "net": name,
        "size": list(size),
        "classes": len(CAMVID_11),
        "onnx_sha256": sha256_file(standard),
        "parameters": sum(p.numel() for p in net.parameters()),
        "onnx_nodes": len(load_network(standard).model.graph.node),
    }
    return found, facts


def _settle(net: torch.nn.Module, size: tuple[int, int]) -> None:
    """Give batch normalisation the statistics of a noise batch, so that activations have a trained net's scale."""
    net.train()
    with torch.no_grad():
        for _ in range(2):
            net(torch.randn(1, 3, *size))
    net.eval()


def _pytorch_export(name: str, net: torch.nn.Module, x: torch.Tensor, path: Path) -> Path:
    """What ``torch.onnx.export`` writes by itself: unpooling as a scatter."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "onnxscript", "onnx_ir")]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(None), pytorch_pooling(name):
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), str(path), dynamo=True, external_data=False, verbose=False)
    return path


def time_all(found: list[Candidate], rounds: int, seconds: float, console: Console) -> None:
    """Fill every candidate's ``times``, going round all of them."""
    for candidate in found:
        candidate.call()
    for number in range(rounds):
        for candidate in found:
            with console.status(f"round {number + 1} of {rounds}: {candidate.name}"):
                candidate.call()
                end = time.perf_counter() + seconds
                for _ in range(MAX_CALLS):
                    start = time.perf_counter()
                    candidate.call()
                    candidate.times.append(time.perf_counter() - start)
                    if time.perf_counter() >= end:
                        break


def report(found: list[Candidate], facts: dict[str, Any], console: Console) -> dict[str, Any]:
    """Print one net's table; return its part of the JSON line."""
    truth = found[0].labels()
    base = found[0].median_ms
    table = Table(title=f"{facts['net']} {facts['size'][0]}x{facts['size'][1]}, batch 1, {os.cpu_count()} cores")
    for heading in ("runtime", "median ms", "p95 ms", "calls", "faster than eager", "same labels"):
        table.add_column(heading, justify="left" if heading == "runtime" else "right")
    rows = []
    for c in sorted(found, key=lambda c: -c.median_ms):
        agree = float((np.asarray(c.labels()) == truth).mean())
        p95 = float(np.percentile(c.times, 95)) * 1e3
        rows.append({
            "runtime": c.name, "edgeseg": c.ours, "latency_ms_p50": round(c.median_ms, 3),
            "latency_ms_p95": round(p95, 3), "calls": len(c.times), "speedup": round(base / c.median_ms, 3),
            "same_labels": round(agree, 6),
        })  # fmt: skip
        name = f"[bold]{c.name}[/]" if c.ours else c.name
        table.add_row(
            name,
            f"{c.median_ms:.1f}",
            f"{p95:.1f}",
            str(len(c.times)),
            f"{base / c.median_ms:.2f}x",
            f"{100 * agree:.2f} %",
        )
    console.print(table)
    return {**facts, "results": rows}


def markdown(result: dict[str, Any]) -> str:
    """The README's table of a saved result: median milliseconds and the factor over PyTorch eager, a net."""
    lines = []
    for net in result["nets"]:
        height, width = net["size"]
        lines += [f"| {net['net']} {width}x{height} | ms | faster than eager |", "|---|---|---|"]
        for row in net["results"]:
            name = f"**{row['runtime']}**" if row["edgeseg"] else row["runtime"]
            lines.append(f"| {name} | {row['latency_ms_p50']:.1f} | {row['speedup']:.2f}x |")
        lines.append("")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {**describe_machine(("torch", *PACKAGES)), "torch_threads": torch.get_num_threads()}


def main() -> None:
    """Parse, measure, print the tables and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=sorted(SIZES), default=["segnet", "enet"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of calls, a candidate and round")
    parser.add_argument("--json", type=Path, help="write the JSON line to a file, too")
    parser.add_argument("--show", type=Path, help="print the README's table of a saved result, measure nothing")
    options = parser.parse_args()
    if options.show:
        print(markdown(json.loads(options.show.read_text(encoding="utf-8"))))
        return
    console = Console()
    start = machine()
    nets = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.nets:
            found, facts = candidates(name, Path(folder), console)
            time_all(found, options.rounds, options.seconds, console)
            nets.append(report(found, facts, console))
    protocol = {
        "command": " ".join(["python -m benchmarks.cpu", *sys.argv[1:]]),
        "rounds": options.rounds,
        "seconds_per_candidate_and_round": options.seconds,
        "statistic": "median over all calls of all rounds",
        "timed": "edgeseg: uint8 frame to uint8 labels; others: float tensor to logits",
        "batch": 1,
    }
    line = json.dumps({"benchmark": "cpu", "machine": start, "protocol": protocol, "nets": nets})
    print(line)
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
