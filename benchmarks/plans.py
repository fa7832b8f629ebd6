"""Build every net with TensorRT-RTX, without a GPU: time, size and warnings.

    python -m benchmarks.plans [--nets enet ...] [--sm 75,80,86,89,120] [--size 360x480]
                               [--json FILE] [--show FILE]

Nets have random weights (neither time nor size depends on them) and INT8 ranges of four frames of
the synthetic drive. The nets that ship are built as they are. Unpooling is native: TensorRT-RTX has
no plugins.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from edgeseg.backends.base import PlanOptions
from edgeseg.backends.tensorrt.bindings import RTX, library
from edgeseg.backends.tensorrt.builder import build_plan
from edgeseg.backends.tensorrt.graphs import graph_for
from edgeseg.data import open_dataset
from edgeseg.errors import EngineError
from edgeseg.files import write_json
from edgeseg.graph.network import Network, load_network
from edgeseg.models import REGISTRY, architecture
from edgeseg.profiling.machine import describe_machine
from edgeseg.quantize.calibration_set import resolve_set
from edgeseg.quantize.ptq import plan_quantization
from edgeseg.reporter import SILENT
from edgeseg.spec import CAMVID_11, ModelSpec
from edgeseg.zoo import zoo, zoo_int8

DRIVE = "synthetic://?length=8&seed=0"
PRECISIONS = ("fp32", "fp16", "int8")
TURING = 75


def forms(name: str, size: tuple[int, int], folder: Path) -> Iterator[tuple[str, Network]]:
    """Yield the files of a net by precision: a net that ships, or one with random weights."""
    if name in zoo():
        int8 = zoo_int8(name)
        yield from ((p, load_network(zoo()[name])) for p in PRECISIONS[:2])
        if int8 is not None:
            yield "int8", load_network(int8)
        return
    import torch

    from edgeseg.export.onnx_from_torch import export_module
    from edgeseg.models import create

    torch.manual_seed(0)
    stride = architecture(name).stride
    height, width = (-(-side // stride) * stride for side in size)
    spec = ModelSpec(architecture=name, input_size=(height, width), stride=stride, labels=CAMVID_11)
    network = load_network(
        export_module(create(name, len(CAMVID_11)), spec, folder / f"{name}.onnx")
    )
    yield from ((p, network) for p in PRECISIONS[:2])
    prepared = plan_quantization(network, resolve_set(DRIVE, count=4))
    yield "int8", prepared.quantized(prepared.placement())


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Build all nets that the options name."""
    height, _, width = options.size.partition("x")
    sm = tuple(int(s) for s in options.sm.split(","))
    frames = [open_dataset(DRIVE, "train")[i].image for i in range(4)]
    rows = []
    for name in options.nets or [*zoo(), *REGISTRY]:
        with tempfile.TemporaryDirectory() as folder, console.status(name):
            for precision, network in forms(name, (int(height), int(width)), Path(folder)):
                graph, facts = graph_for(network, precision, frames, SILENT)
                said = ""
                built_for = sm
                try:
                    plan = build_plan(graph, name, RTX, PlanOptions(sm=sm))
                except EngineError as error:  # TensorRT-RTX has no FP32 matrix product for Turing
                    said = str(error.got)
                    built_for = tuple(s for s in sm if s != TURING)
                    plan = build_plan(graph, name, RTX, PlanOptions(sm=built_for))
                rows.append(
                    {
                        "net": name,
                        "ships": name in zoo(),
                        "precision": precision,
                        "size": list(network.spec.input_size),
                        "seconds": round(plan.seconds, 2),
                        "bytes": len(plan.data),
                        "layers": plan.layers,
                        "sm": list(built_for),
                        "without_turing": said,
                        "warnings": list(plan.warnings),
                        "fp32_nodes": ", ".join(facts.fp32_nodes),
                    }
                )
        times = [f"{row['precision']} {row['seconds']} s" for row in rows if row["net"] == name]
        console.print(f"{name}: {', '.join(times)}", highlight=False)
    return {
        "benchmark": "plans",
        "library": f"{RTX} {library(RTX).version}",
        "sm": list(sm),
        "machine": describe_machine(),
        "plans": rows,
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the table as the README has it, one row per net."""
    lines = [
        "| net | input (HxW) | build, s (fp32 / fp16 / int8) | plan, MB | warnings |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["net"] for row in result["plans"]):
        rows = {row["precision"]: row for row in result["plans"] if row["net"] == name}
        height, width = rows["fp32"]["size"]
        seconds = " / ".join(f"{rows[p]['seconds']:.1f}" for p in PRECISIONS if p in rows)
        megabytes = " / ".join(f"{rows[p]['bytes'] / 1e6:.1f}" for p in PRECISIONS if p in rows)
        warnings = sum(len(row["warnings"]) for row in rows.values())
        less = ", ".join(p for p in PRECISIONS if p in rows and rows[p]["without_turing"])
        remark = f"; {less} not for RTX 20" if less else ""
        lines.append(
            f"| `{name}` | {height}x{width} | {seconds} | {megabytes} | "
            f"{warnings or 'none'}{remark} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Run, print the table, and save it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plans", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--nets", nargs="+", choices=[*zoo(), *REGISTRY])
    parser.add_argument("--sm", default="75,80,86,89,120")
    parser.add_argument("--size", default="360x480", help="HEIGHTxWIDTH of nets that do not ship")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--show", type=Path, help="print the table of a saved run")
    options = parser.parse_args(arguments)
    result = (
        json.loads(options.show.read_text()) if options.show else run(options, Console(stderr=True))
    )
    if options.json:
        write_json(options.json, result)
    print(markdown(result))


if __name__ == "__main__":
    main(sys.argv[1:])
