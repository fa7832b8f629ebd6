"""Compare the speed of the CPU engines with the usual runtimes, side by side in one run.

    python -m benchmarks.cpu [--nets segnet enet] [--rounds 7] [--seconds 1.0]
                             [--json FILE] [--show FILE]

Every candidate runs the same net (random weights, the same seed) on the same frame, batch 1, with
all cores. In each round every candidate is warmed up with one call and then called for
``--seconds``. Rounds go through all candidates, so that a machine whose speed drifts slows them
alike. The median over all rounds is quoted, and ratios of medians.

For edgeseg, everything between a uint8 BGR frame and a uint8 label map is timed. For the others
only the net is timed, from a ready float tensor to logits: preprocessing and argmax cost them
nothing.

INT8 rows are calibrated on the same frames of the synthetic drive. If a peer has several forms, all
are tried and the fastest is timed. A second table sets the time of each edgeseg engine against that
of its convolutions.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import nodes
from benchmarks.candidates import Candidate, Case, float_candidates, make_case, make_net
from benchmarks.int8 import int8_candidates
from edgeseg.files import sha256_file
from edgeseg.graph.network import load_network
from edgeseg.profiling.machine import PACKAGES, describe_machine

SIZES = {"segnet": (352, 480), "enet": (360, 480)}
MAX_CALLS = 400


def candidates(
    name: str, folder: Path, console: Console
) -> tuple[Case, list[Candidate], dict[str, Any]]:
    """Return the common case, every way to run one net, and the facts that identify it."""
    size = SIZES[name]
    console.print(f"preparing {name} {size[0]}x{size[1]}: minutes …")
    net = make_net(name, size)
    case = make_case(name, net, size, folder)
    found = float_candidates(case, net)
    quantized, left_out = int8_candidates(case)
    facts = {
        "net": name,
        "size": list(size),
        "classes": len(case.spec.labels),
        "onnx_sha256": sha256_file(case.standard),
        "parameters": sum(p.numel() for p in net.parameters()),
        "onnx_nodes": len(load_network(case.standard).model.graph.node),
        "calibration": {"set": case.calibration.describe(), "digest": case.calibration.digest},
        "left_out": left_out,
    }
    return case, found + quantized, facts


def time_all(found: list[Candidate], rounds: int, seconds: float, console: Console) -> None:
    """Fill every candidate's ``times``, going round all of them."""
    for candidate in found:
        with console.status(f"first call: {candidate.name}"):
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


def results(found: list[Candidate], profiles: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, slowest first.

    Speed and labels are compared to those of the first candidate.
    """
    truth = np.asarray(found[0].labels())
    base = found[0].median_ms
    rows = []
    for c in sorted(found, key=lambda c: -c.median_ms):
        row = {
            "runtime": c.name,
            "edgeseg": c.ours,
            "latency_ms_p50": round(c.median_ms, 3),
            "latency_ms_p95": round(float(np.percentile(c.times, 95)) * 1e3, 3),
            "calls": len(c.times),
            "speedup": round(base / c.median_ms, 3),
            "same_labels": round(_agreement(c, truth), 6),
            **c.detail,
        }
        rows.append(row | ({"profile": profiles[c.name]} if c.name in profiles else {}))
    return rows


def _agreement(candidate: Candidate, truth: Any) -> float:
    """Return the share of pixels that are labelled as in ``truth``."""
    return float((np.asarray(candidate.labels()) == truth).mean())


def show(net: dict[str, Any], console: Console) -> None:
    """Print one net's tables and the notes under them."""
    table = Table(
        title=f"{net['net']} {net['size'][0]}x{net['size'][1]}, batch 1, {os.cpu_count()} cores"
    )
    for heading in ("runtime", "median ms", "p95 ms", "calls", "faster than eager", "same labels"):
        table.add_column(heading, justify="left" if heading == "runtime" else "right")
    for row in net["results"]:
        table.add_row(
            f"[bold]{row['runtime']}[/]" if row["edgeseg"] else row["runtime"],
            f"{row['latency_ms_p50']:.1f}",
            f"{row['latency_ms_p95']:.1f}",
            str(row["calls"]),
            f"{row['speedup']:.2f}x",
            f"{100 * row['same_labels']:.2f} %",
        )
    console.print(table)
    inside = Table(title="inside edgeseg's engines, with counters on")
    for heading in ("engine", "graph ms", "convolutions ms", "ratio", "the rest, ms"):
        inside.add_column(
            heading, justify="left" if heading in ("engine", "the rest, ms") else "right"
        )
    for cells in _profile_cells(net):
        inside.add_row(*cells)
    console.print(inside)
    for note in notes(net):
        console.print(note, soft_wrap=True, markup=False, highlight=False)


def _profile_cells(net: dict[str, Any]) -> list[list[str]]:
    """Return the cells of every row with a profile.

    They are name, graph, convolutions, ratio, and the three costliest other node types.
    """
    found = []
    for row in net["results"]:
        p = row.get("profile")
        if not p:
            continue
        rest = [
            (kind, ms) for kind, ms in p["by_type_ms"].items() if kind not in nodes.CONVOLUTIONS
        ][:3]
        told = ", ".join(f"{kind} {ms:.1f}" for kind, ms in rest)
        ratio = "" if p["ratio"] is None else f"{p['ratio']:.2f}"
        found.append(
            [row["runtime"], f"{p['graph_ms']:.1f}", f"{p['convolution_ms']:.1f}", ratio, told]
        )
    return found


def notes(net: dict[str, Any]) -> list[str]:
    """Return notes of a sentence or two that explain one net's table.

    There are none for a run without INT8 rows.
    """
    quantized = [row for row in net["results"] if "int8_layers" in row or "tried_ms" in row]
    if not quantized:
        return []
    same = [100 * row["same_labels"] for row in quantized]
    told = [
        f"INT8 is calibrated on {net['calibration']['set']}, the same for all. The weights are "
        "random, so these rows "
        f"say nothing of accuracy: {min(same):.1f} to {max(same):.1f} % of their labels are those "
        "of eager FP32."
    ]
    for row in quantized:
        if "tried_ms" in row:
            tried = ", ".join(f"{form} {ms:.1f} ms" for form, ms in row["tried_ms"].items())
            about = f" {row['about']}." if "about" in row else ""
            told.append(
                f"{row['runtime']}: {row['variant']}, the fastest in a short trial "
                f"({tried}).{about}"
            )
        else:
            told.append(
                f"{row['runtime']}: {row['int8_layers']} of {row['layers']} layers in INT8."
            )
    told += [f"{row} is left out: {why}." for row, why in net["left_out"].items()]
    return told


def markdown(result: dict[str, Any]) -> str:
    """Return the README's tables of a saved result: one per net.

    A table has median milliseconds and the factor over PyTorch eager. Under it are notes on the
    INT8 rows, and where the time goes inside edgeseg's engines, if the run has that.
    """
    lines = []
    for net in result["nets"]:
        height, width = net["size"]
        title = f"{net['net']} {height}x{width} (HxW)"
        lines += [f"| {title} | ms | faster than eager |", "|---|---|---|"]
        for row in net["results"]:
            name = f"**{row['runtime']}**" if row["edgeseg"] else row["runtime"]
            lines.append(f"| {name} | {row['latency_ms_p50']:.1f} | {row['speedup']:.2f}x |")
        lines.append("")
        told = notes(net)
        lines += [*(f"- {note}" for note in told), ""] if told else []
        cells = _profile_cells(net)
        if cells:
            lines += [
                f"| inside the engine, {title} | graph ms | its convolutions ms | ratio | the "
                "rest, ms |"
            ]
            lines += ["|---|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in cells), ""]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Return the facts of this machine that the numbers depend on."""
    return {
        **describe_machine(("torch", "nncf", *PACKAGES)),
        "torch_threads": torch.get_num_threads(),
    }


def measure(
    name: str, options: argparse.Namespace, folder: Path, console: Console
) -> dict[str, Any]:
    """Measure one net and print its tables; return its part of the JSON line."""
    case, found, facts = candidates(name, folder, console)
    time_all(found, options.rounds, options.seconds, console)
    with console.status("profiling"):
        profiles = nodes.profile(
            {c.name: c.engine for c in found if c.engine is not None}, case.frame
        )
    net = {**facts, "results": results(found, profiles)}
    show(net, console)
    return net


def main() -> None:
    """Parse, measure, print the tables and the JSON line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--nets", nargs="+", choices=sorted(SIZES), default=["segnet", "enet"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of calls, a candidate and round"
    )
    parser.add_argument("--json", type=Path, help="write the JSON line to a file, too")
    parser.add_argument(
        "--show", type=Path, help="print the README's table of a saved result, measure nothing"
    )
    options = parser.parse_args()
    if options.show:
        print(markdown(json.loads(options.show.read_text(encoding="utf-8"))))
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    begun = time.perf_counter()
    start = machine()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDGESEG_CACHE"] = str(
            Path(folder) / "cache"
        )  # ranges of random nets are no one's to keep
        nets = [measure(name, options, Path(folder), console) for name in options.nets]
    protocol = {
        "command": " ".join(["python -m benchmarks.cpu", *sys.argv[1:]]),
        "rounds": options.rounds,
        "seconds_per_candidate_and_round": options.seconds,
        "statistic": "median over all calls of all rounds",
        "timed": "edgeseg: uint8 frame to uint8 labels; others: float tensor to logits",
        "profile": f"median of {nodes.RUNS} runs with OpenVINO's counters on, engines in turn",
        "batch": 1,
        "minutes": round((time.perf_counter() - begun) / 60, 1),
    }
    line = json.dumps({"benchmark": "cpu", "machine": start, "protocol": protocol, "nets": nets})
    print(line)
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
