"""Train every net by one short recipe, build its engines, score and time them.

    python -m benchmarks.nets --data camvid:PATH [--nets enet fcn ...] [--epochs 3]
                              [--size 180x240] [--encoder vgg16=FILE --encoder resnet34=FILE]
                              [--runs DIR] [--json FILE] [--show FILE]

The short recipe has half size, flips, scales and crops; an encoder with ImageNet weights is frozen,
if its weights are given. Each net is exported, calibrated on the training split and built in FP32,
BF16 and INT8. Then everything is scored on ``val``, together with the nets that ship. In the end
all engines are timed in turns.

Finished work is not repeated (``edgeseg make``), so a long run can be cut into parts; its times are
those of its last part. These are not the nets' best scores: the table shows how little each was
trained. ``--gpu-recipes`` trains the recipes ``segnet-camvid``, ``unet-resnet34-camvid`` and
``pspnet-camvid`` in full instead; this needs a CUDA device.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from edgeseg.backends.openvino import runtime
from edgeseg.data import Dataset, open_dataset
from edgeseg.errors import EdgesegError
from edgeseg.files import write_json
from edgeseg.models import REGISTRY
from edgeseg.models.summary import summarise
from edgeseg.pipeline import Options, make
from edgeseg.profiling.compare import compare
from edgeseg.profiling.entry import open_entry
from edgeseg.profiling.latency import measure_latency
from edgeseg.profiling.machine import describe_machine
from edgeseg.training.recipe import Recipe, load_recipe, with_changes
from edgeseg.zoo import zoo

ROOT = Path(__file__).resolve().parent.parent
GPU_RECIPES = ("segnet-camvid", "unet-resnet34-camvid", "pspnet-camvid")
RATES = {"enet": 5e-3, "segnet": 1e-3}
DEFAULT_RATE = 5e-4
# An epoch of r2unet takes as long as four of unet.
MOST_EPOCHS = {"r2unet": 2}
SIZES = {"r2unet": (90, 120)}
FRAMES = 20  # to time engines on


def short_recipe(
    name: str, address: str, size: tuple[int, int], epochs: int, encoder: str | None
) -> Recipe:
    """Return the same few epochs for every net; two have a learning rate of their own."""
    stride = REGISTRY[name].stride
    fitted = tuple(-(-side // stride) * stride for side in SIZES.get(name, size))
    epochs = min(epochs, MOST_EPOCHS.get(name, epochs))
    return Recipe.model_validate(
        {
            "name": f"{name}-short",
            "model": {
                "architecture": name,
                "input_size": fitted,
                "encoder": encoder,
                "arguments": {"stem": "plain"} if encoder and name == "pspnet" else {},
                "freeze_encoder_epochs": epochs if encoder else 0,
            },
            "data": {"address": address, "balance_drives": 0.5},
            "augment": {"scale": (1.0, 1.5), "brightness": 0.2, "contrast": 0.2},
            "loss": {"class_weights": "median", "weight_power": 0.5, "prior_correction": 0.5},
            "optim": {"lr": RATES.get(name, DEFAULT_RATE), "clip_norm": 5.0},
            "fit": {
                "epochs": epochs,
                "batch": 8,
                "precision": "bf16",
                "ema": 0.98,
                "validate_every": 1,
                "workers": 1,
            },
        }
    )


def row_of(
    name: str, size: tuple[int, int], trained: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one net's row of the table: the net, its training, and its engines' scores.

    ``facts`` are those of a comparison.
    """
    counted = next(
        s for s in summarise(len(facts["data"]["classes"]), size) if s.architecture.name == name
    )
    return {
        "net": name,
        "size": list(size),
        "trained": trained,
        "parameters": counted.parameters,
        "multiply_adds": counted.multiply_adds,
        "engines": {
            e["precision"]: {k: e[k] for k in ("miou", "pixel_accuracy", "size_bytes")}
            for e in facts["engines"]
        },
    }


def training_of(recipe: Recipe) -> str:
    """Describe in a few words how a recipe trains."""
    epochs = f"{recipe.fit.epochs} epoch{'s' if recipe.fit.epochs > 1 else ''}"
    if not recipe.model.encoder:
        return f"{epochs} from scratch"
    frozen = recipe.model.freeze_encoder_epochs >= recipe.fit.epochs
    return f"{epochs}, encoder {'frozen, ' if frozen else ''}from ImageNet"


def precisions() -> tuple[str, ...]:
    """Return the precisions of the engines that this machine runs."""
    return ("fp32", "bf16", "int8") if "BF16" in runtime.device().features else ("fp32", "int8")


def shipped_rows(
    data: Dataset, console: Console
) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield one row per net that ships, and what to open for each precision."""
    for name in zoo():
        console.rule(name)
        names = {precision: f"{name}@{precision}" for precision in precisions()}
        entries = [open_entry(n) for n in names.values()]
        facts = compare(entries, data, rounds=1).to_dict()
        spec = entries[0].engine.spec
        yield row_of(spec.architecture, spec.input_size, f"ships as `{name}`", facts), names


def time_in_turns(
    rows: Sequence[tuple[dict[str, Any], Mapping[str, str]]], data: Dataset, rounds: int
) -> None:
    """Add the median latency to the facts of every engine.

    All engines take turns on the same frames.
    """
    frames = [data[i].image for i in range(0, len(data), max(1, len(data) // FRAMES))][:FRAMES]
    places: list[tuple[dict[str, Any], str]] = []
    for row, names in rows:
        for precision, name in names.items():
            places.append((row["engines"][precision], name))
    times = measure_latency([open_entry(name).engine for _, name in places], frames, rounds=rounds)
    for (facts, _), latency in zip(places, times, strict=True):
        facts.update(latency.to_dict())


def markdown(result: dict[str, Any]) -> str:
    """Return the table as the README has it."""
    headings = (
        "net",
        "parameters",
        "multiply-adds",
        "input (HxW)",
        "trained",
        "mIoU fp32 / bf16 / int8",
        "pixel accuracy",
        "FPS fp32 / bf16 / int8",
    )
    lines = [
        f"| {' | '.join(headings)} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["nets"]:
        engines = [row["engines"].get(p) for p in ("fp32", "bf16", "int8")]
        miou = " / ".join("-" if e is None else f"{100 * e['miou']:.1f}" for e in engines)
        fps = " / ".join("-" if e is None else f"{1e3 / e['latency_ms_p50']:.0f}" for e in engines)
        accuracy = row["engines"]["fp32"]["pixel_accuracy"]
        lines.append(
            f"| `{row['net']}` | {row['parameters'] / 1e6:.2f} M | "
            f"{row['multiply_adds'] / 1e9:.1f} G | "
            f"{row['size'][0]}x{row['size'][1]} | {row['trained']} | {miou} | {100 * accuracy:.1f} "
            f"| {fps} |"
        )
    return "\n".join(lines)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Make all nets that the options name; report and leave out one that fails."""
    rows: list[tuple[dict[str, Any], dict[str, str]]] = []
    failed = []
    names = GPU_RECIPES if options.gpu_recipes else options.nets or list(REGISTRY)
    for name in names:
        console.rule(name)
        recipe = _recipe_of(name, options)
        try:
            made = make(recipe, options.runs / recipe.name, Options(qat_epochs=0))
        except EdgesegError as error:
            console.print(f"left out: {error}", markup=False, style="red")
            failed.append({"net": name, "why": str(error)})
            continue
        facts = json.loads(made.read_text(encoding="utf-8"))
        paths = {
            e["precision"]: str(made.parent / f"{e['id'].replace('@', '.')}.cpu.engine")
            for e in facts["engines"]
        }
        model = recipe.model
        row = row_of(model.architecture, model.input_size, training_of(recipe), facts)
        rows.append((row, paths))
    data = open_dataset(options.data, "val")
    rows += shipped_rows(data, console)
    console.rule("times")
    time_in_turns(rows, data, options.rounds)
    return {
        "benchmark": "nets",
        "machine": describe_machine(),
        "data": options.data.partition(":")[0],
        "rounds": options.rounds,
        "nets": [row for row, _ in rows],
        "left_out": failed,
    }


def _recipe_of(name: str, options: argparse.Namespace) -> Recipe:
    """Return the short recipe of a net, or a whole recipe for a GPU by its name."""
    encoders = dict(text.partition("=")[::2] for text in options.encoder)
    if not options.gpu_recipes:
        height, _, width = options.size.partition("x")
        given = encoders.get(REGISTRY[name].pretrained or "")
        return short_recipe(name, options.data, (int(height), int(width)), options.epochs, given)

    recipe = load_recipe(ROOT / "engines" / f"{name}.toml")
    recipe = with_changes(recipe, {"data.address": options.data})
    given = encoders.get(REGISTRY[recipe.model.architecture].pretrained or "")
    return with_changes(recipe, {"model.encoder": given} if given else {})


def main(arguments: list[str]) -> None:
    """Run, print the table, save it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.nets", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", default="camvid:data/camvid")
    parser.add_argument("--nets", nargs="+", choices=list(REGISTRY))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--size", default="180x240", help="HEIGHTxWIDTH")
    parser.add_argument(
        "--encoder", action="append", default=[], help="vgg16=FILE, resnet34=FILE or resnet50=FILE"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/nets"))
    parser.add_argument("--rounds", type=int, default=5, help="turns an engine, to measure latency")
    parser.add_argument("--gpu-recipes", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--show", type=Path, help="print the table of a saved run")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    result = (
        json.loads(options.show.read_text(encoding="utf-8"))
        if options.show
        else run(options, console)
    )
    if options.json:
        write_json(options.json, result)
    print(markdown(result))


if __name__ == "__main__":
    main(sys.argv[1:])
