"""Compare INT8 engines in each form that OpenVINO can run: labels and time per frame.

    python -m benchmarks.forms [NET.onnx ...] [--data camvid:PATH] [--rounds 5]
                               [--on avx512-vnni] [--json FILE]

A form is signed or unsigned INT8 activations, with float parts computed in BF16 or FP32. ``signed``
with the fastest float is what edgeseg built before it proved its engines.

All forms of a net take turns, so that a machine whose speed drifts slows all of them alike. Compare
medians and their ratios.

``--on`` hides instruction sets from a process of its own (``tests/other_processor.c``), to see what
OpenVINO chooses and computes without them.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from edgeseg.backends.base import NATIVE
from edgeseg.backends.openvino import forms as cpu_forms
from edgeseg.backends.openvino import runtime
from edgeseg.backends.openvino.compiled import Compiled, trial
from edgeseg.backends.openvino.forms import COMPARE, EXTENSION, SEARCH, SIGNED, UNSIGNED, Form
from edgeseg.backends.proof import Reference, reference
from edgeseg.data import open_dataset
from edgeseg.errors import EdgesegError
from edgeseg.files import write_json
from edgeseg.graph.network import load_network
from edgeseg.precision import INT8
from edgeseg.profiling.machine import describe_machine
from edgeseg.zoo import zoo, zoo_int8

DRIVE = "synthetic://?length=4&size=480x360&seed=7"
FRAMES = 6


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "nets", nargs="*", type=Path, help="Q/DQ files; the nets that ship unless given"
    )
    parser.add_argument("--data", default=DRIVE, help="frames to label")
    parser.add_argument("--rounds", type=int, default=5, help="trials of all forms")
    parser.add_argument("--on", help="a kind of processor: avx512-vnni, avx512-bf16, avx2-vnni")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args()
    if options.on:
        sys.exit(elsewhere(options.on, sys.argv[1:]))

    console = Console()
    shipped = [path for name in zoo() if (path := zoo_int8(name)) is not None]
    rows: list[dict[str, Any]] = []
    for path in options.nets or shipped:
        with console.status(f"{path.name}: compiling its forms"):
            rows += measure(path, options.data, options.rounds)
    console.print(table(rows))
    machine = describe_machine()
    console.print(f"{machine['cpu']}, {', '.join(machine['features'])}")
    if options.json:
        write_json(
            options.json,
            {"benchmark": "forms", "machine": machine, "data": options.data, "rows": rows},
        )


def elsewhere(kind: str, arguments: Sequence[str]) -> int:
    """Run this benchmark in a process that sees another processor; return its exit code."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
    import processors

    if reason := processors.why_not(kind):
        print(reason, file=sys.stderr)
        return 2
    place = arguments.index("--on")
    rest = [*arguments[:place], *arguments[place + 2 :]]
    environment = {**os.environ, "LD_PRELOAD": str(processors.library()), processors.VARIABLE: kind}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.forms", *rest], env=environment
    ).returncode


def measure(path: Path, data: str, rounds: int) -> list[dict[str, Any]]:
    """Return one row per form of a Q/DQ file.

    A row has milliseconds, and the share of pixels with the label of the file in ONNX Runtime.
    """
    network = cpu_forms.named(load_network(path))
    dataset = open_dataset(data, "val" if data.startswith("camvid") else "train")
    places = np.linspace(0, len(dataset) - 1, min(FRAMES, len(dataset))).astype(int)
    known = reference(network, [dataset[int(place)].image for place in places])
    if known is None:
        raise SystemExit(f"{path}: ONNX Runtime does not run it")

    compiled: dict[str, Compiled] = {}
    rows: list[dict[str, Any]] = []
    for name, form in forms(network.form != "labels").items():
        try:
            compiled[name] = cpu_forms.compile_form(network, form, INT8)
        except EdgesegError:
            continue  # OpenVINO has no such form of this net
        rows.append({"net": path.stem, "form": name, **same_labels(known, compiled[name])})
    chosen = cpu_forms.choose(network, INT8, known=known)
    compiled["edgeseg"] = chosen.compiled
    told = f"edgeseg: {chosen.form.activations}, {chosen.form.floats}"
    rows.append({"net": path.stem, "form": told, **same_labels(known, chosen.compiled)})

    trials = [trial(compiled) for _ in range(rounds)]
    for row, name in zip(rows, compiled, strict=True):
        row["ms"] = round(float(np.median([trial[name] for trial in trials])), 3)
    before = [row["ms"] for row in rows if row["form"].startswith(before_form())]
    for row in rows:
        row["ratio"] = round(row["ms"] / min(before), 3)
    return rows


def before_form() -> str:
    """Return the form that was built before engines were proven."""
    return f"{SIGNED}, {runtime.best_precision()}"


def forms(has_scores: bool) -> dict[str, Form]:
    """Return every form by name, with both ways to compute the argmax."""
    found = {}
    for activations in (SIGNED, UNSIGNED):
        for floats in dict.fromkeys((runtime.best_precision(), "fp32")):
            for argmax in (SEARCH, COMPARE) if has_scores else (SEARCH,):
                for unpool in unpoolings():
                    name = f"{activations}, {floats}, {argmax}, {unpool}"
                    found[name] = Form(argmax, unpool, activations, floats)
    return found


def unpoolings() -> tuple[str, ...]:
    """Return the ways to unpool that this machine has."""
    from edgeseg.backends.openvino.extension import build as extension

    try:
        extension.load()
    except EdgesegError:
        return (NATIVE,)
    return NATIVE, EXTENSION


def same_labels(known: Reference, compiled: Compiled) -> dict[str, float]:
    """Return the share of pixels that are labelled as by the file."""
    return {"same_labels": round(known.agreement(compiled), 6)}


def table(rows: list[dict[str, Any]]) -> Table:
    """Return the rows as a table to print."""
    made = Table(title="INT8 engines, form by form")
    for heading in ("net", "form", "labels of the file", "ms", "of before"):
        made.add_column(heading, justify="left" if heading in ("net", "form") else "right")
    for row in rows:
        share = f"{100 * row['same_labels']:.3f} %"
        made.add_row(row["net"], row["form"], share, f"{row['ms']:.2f}", f"{row['ratio']:.2f}")
    return made


if __name__ == "__main__":
    main()
