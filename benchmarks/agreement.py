"""Compare INT8 with scales of powers of two and with scales of any value.

    python -m benchmarks.agreement --data camvid:PATH [--frames 21] [--json FILE]

The benchmark shows what the scales cost, and who labels the same pixels alike. Each net that ships
is quantized both ways on the data's ``train`` split and scored on all of ``val``. On some frames of
``val``, evenly spread, the labels of one file in ONNX Runtime are compared with those of OpenVINO
computing in FP32, and with those of the engine that edgeseg builds. The engine computes float parts
in BF16 if that keeps the labels.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from edgeseg.backends.openvino import forms
from edgeseg.backends.openvino.compiled import Compiled, settings
from edgeseg.backends.proof import reference
from edgeseg.build.options import SCALES
from edgeseg.data import open_dataset
from edgeseg.files import write_json
from edgeseg.graph.lowering import LoweringOptions, lower
from edgeseg.graph.network import Network, load_network
from edgeseg.imaging.preprocess import resize_frame, resize_labels
from edgeseg.metrics.evaluate import evaluate
from edgeseg.precision import INT8
from edgeseg.profiling.machine import describe_machine
from edgeseg.quantize.calibration_set import resolve_set
from edgeseg.quantize.ptq import plan_quantization
from edgeseg.types import Image
from edgeseg.zoo import zoo


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="camvid:PATH")
    parser.add_argument("--frames", type=int, default=21, help="frames compared pixel by pixel")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args()
    console = Console()
    rows = []
    for name, path in zoo().items():
        for kind in SCALES:
            with console.status(f"{name}, scales: {kind}"):
                rows.append(
                    {"net": name, "scales": kind}
                    | measure(path, kind, options.data, options.frames)
                )
    console.print(table(rows))
    if options.json:
        facts = {
            "benchmark": "agreement",
            "machine": describe_machine(),
            "frames": options.frames,
            "rows": rows,
        }
        write_json(options.json, facts)


def measure(path: Path, kind: str, data: str, frames: int) -> dict[str, Any]:
    """Return the mIoU (0..1) of a quantized net on ``val``, and the shares of equal labels.

    A share is that of the pixels which get the same label as in ONNX Runtime.
    """
    prepared = plan_quantization(
        load_network(path), resolve_set(data, split="train"), exact=kind == SCALES[0]
    )
    network = prepared.quantized(prepared.placement())
    val = open_dataset(data, "val")
    known = reference(network, resolve_set(data, split="train").subset(2).images())
    chosen = forms.choose(forms.named(network), INT8, known=known)

    def engine(frame: Image) -> Image:
        fitted = np.ascontiguousarray(resize_frame(frame, network.spec.input_size))
        return resize_labels(np.array(chosen.compiled(fitted), np.uint8), frame.shape[:2])

    places = np.linspace(0, len(val) - 1, min(frames, len(val))).astype(int)
    seen = [
        np.ascontiguousarray(resize_frame(val[int(p)].image, network.spec.input_size))
        for p in places
    ]
    graph = lower(network, LoweringOptions(for_openvino=False)).model
    want = in_onnx_runtime(graph, seen)
    return {
        "miou": evaluate(engine, val, labels=network.spec.labels).mean_iou,
        "openvino_fp32": alike(want, in_openvino(network, graph, seen)),
        "floats": chosen.form.floats,
        "engine": alike(want, [engine(frame) for frame in seen]),
    }


def in_onnx_runtime(graph: onnx.ModelProto, frames: list[Image]) -> list[Image]:
    """Return label maps (H, W) by ONNX Runtime, with nothing fused."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    return [session.run(None, {"frame": frame[None]})[0][0] for frame in frames]


def in_openvino(network: Network, graph: onnx.ModelProto, frames: list[Image]) -> list[Image]:
    """Return label maps (H, W) by OpenVINO, with float parts computed in FP32."""
    compiled = Compiled(graph, network.name, settings("fp32"))
    return [np.array(compiled(frame)) for frame in frames]


def alike(one: list[Image], other: list[Image]) -> float:
    """Return the share of pixels that are labelled the same."""
    return float(np.mean([(a == b).mean() for a, b in zip(one, other, strict=True)]))


def table(rows: list[dict[str, Any]]) -> Table:
    """Return the rows as a table to print."""
    made = Table(title="INT8, labels against ONNX Runtime's")
    for heading in (
        "net",
        "scales",
        "mIoU on val",
        "OpenVINO FP32, same labels",
        "engine, same labels",
    ):
        made.add_column(heading, justify="left" if heading in ("net", "scales") else "right")
    for row in rows:
        shares = (f"{100 * row[key]:.4f} %" for key in ("openvino_fp32", "engine"))
        made.add_row(row["net"], row["scales"], f"{100 * row['miou']:.2f}", *shares)
    return made


if __name__ == "__main__":
    main()
