"""Write the README's table of results, from the saved runs of the benchmarks.

    python docs/make_results.py

``tests/test_readme.py`` fails if the table is not what this writes.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SAVED = ROOT / "benchmarks" / "results" / "cpu-amx.json"
START, END = "<!-- results -->\n\n", "\n<!-- end of results -->\n"

# Rows of the benchmark, in this order. The rest is in docs/benchmarks.md.
RUNTIMES = (
    "OpenVINO default, PyTorch's own export",
    "PyTorch eager FP32",
    "ONNX Runtime FP32, standard MaxUnpool",
    "NNCF + OpenVINO INT8, edgeseg's unpooling",
    "edgeseg BF16",
    "edgeseg INT8",
)


def main() -> None:
    """Write the table into the README."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(START)
    tail = rest.split(END)[1]
    readme.write_text(head + START + table() + END + tail, encoding="utf-8")
    print(f"wrote {readme}")


def table() -> str:
    """Return the table with what it needs to be read."""
    saved = json.loads(SAVED.read_text(encoding="utf-8"))
    nets = [(net, _by_runtime(net)) for net in saved["nets"]]
    heads = [f"{net['net']} {net['size'][0]}x{net['size'][1]} (HxW), ms" for net, _ in nets]

    lines = [f"| runtime | {' | '.join(heads)} |", "|---|--:|--:|"]
    for runtime in RUNTIMES:
        cells = [_cell(rows[runtime]) for _, rows in nets]
        name = f"**{runtime}**" if runtime.startswith("edgeseg") else runtime
        lines.append(f"| {name} | {' | '.join(cells)} |")

    machine = saved["machine"]
    where = f"{machine['cores_usable']} cores of an {machine['cpu']} with AMX"
    lines += [
        "",
        f"`make bench` on {where}: batch 1, medians.",
        "In brackets: how many times as fast as PyTorch eager. edgeseg is timed from frame to",
        "label map, the others from tensor to logits.",
    ]
    return "\n".join(lines) + "\n"


def _by_runtime(net: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["runtime"]: row for row in net["results"]}


def _cell(row: dict[str, Any]) -> str:
    return f"{row['latency_ms_p50']:.1f} ({row['speedup']:.2f}x)"


if __name__ == "__main__":
    main()
