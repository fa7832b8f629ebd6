"""``make``: a recipe to trained weights, ONNX files, engines and their comparison, doing again only what changed.

A step is done when its *key*, a hash of everything it depends on, is the one in ``make.json`` and the files it wrote
are still the ones it wrote.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg import __version__
from edgeseg.artifact import sha256_file, write_json
from edgeseg.errors import InputError
from edgeseg.quantize.sets import frame_digest
from edgeseg.training.recipe import Recipe

STATE = "make.json"
PROBED_FRAMES = 8


@dataclass(frozen=True)
class Options:
    """``qat_epochs`` 0: INT8 by post-training quantization alone. ``rounds`` of timing in the comparison."""

    qat_epochs: int = 5
    rounds: int = 3


@dataclass(frozen=True)
class Step:
    """One thing to do: ``run()`` writes ``outputs``; ``key`` is what it depends on."""

    name: str
    key: Mapping[str, Any]
    outputs: tuple[Path, ...]
    run: Callable[[], object]


class Chain:
    """Runs steps in ``folder``, and remembers in ``make.json`` what was done from what."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self._path = folder / STATE
        self._state: dict[str, Any] = {}
        if self._path.is_file():
            try:
                self._state = json.loads(self._path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{self._path}: cannot be read", hint="Delete it; every step is then done again."
                ) from error

    def is_done(self, step: Step) -> bool:
        """Whether nothing it depends on, and nothing it wrote, has changed."""
        kept = self._state.get(step.name)
        if not isinstance(kept, dict) or kept.get("key") != _digest(step.key):
            return False
        return kept.get("outputs") == {p.name: sha256_file(p) for p in step.outputs if p.is_file()}

    def do(self, step: Step) -> None:
        """Run a step unless it is done."""
        if self.is_done(step):
            self.say(f"{step.name}: up to date")
            return
        self.say(f"{step.name} ...")
        step.run()
        written = {p.name: sha256_file(p) for p in step.outputs}
        self._state[step.name] = {"key": _digest(step.key), "depends_on": dict(step.key), "outputs": written}
        write_json(self._path, self._state)


def _digest(key: Mapping[str, Any]) -> str:
    text = json.dumps({**key, "edgeseg": __version__}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def data_digest(address: str, split: str) -> str:
    """A hash of a split: its names, and the pixels and labels of a few of its frames."""
    from edgeseg.data import open_dataset

    data = open_dataset(address, split)
    spread = sorted({round(i * (len(data) - 1) / (PROBED_FRAMES - 1)) for i in range(PROBED_FRAMES)})
    pixels = [(frame_digest(s.image), hashlib.sha256(s.mask.tobytes()).hexdigest()) for s in (data[i] for i in spread)]
    return hashlib.sha256(json.dumps([list(data.names), pixels]).encode()).hexdigest()


def make(
    recipe: Recipe,
    folder: Path,
    options: Options | None = None,
    *,
    say: Callable[[str], None] = print,
    progress: bool = False,
) -> Path:
    """Train ``recipe`` in ``folder``, export it, fine-tune it for INT8, build an engine a precision, compare them.

    Returns the comparison, ``compare.json``. Each step may raise its own errors; what was done before stays done.
    """
    from edgeseg.runtime import cpu

    options = options or Options()
    chain = Chain(folder, say)
    data = {s: data_digest(recipe.data.address, s) for s in dict.fromkeys((recipe.data.train, recipe.data.val))}
    best, net, int8 = folder / "best.pt", folder / f"{recipe.name}.onnx", folder / f"{recipe.name}.int8.onnx"
    chain.do(Step("train", {"recipe": recipe.model_dump(mode="json"), "data": data}, (best,),
                  lambda: _train(recipe, folder, say, progress)))  # fmt: skip
    weights = sha256_file(best)
    chain.do(Step("export", {"weights": weights}, (net,), lambda: _export(best, net)))
    if options.qat_epochs:
        key = {"weights": weights, "data": data, "epochs": options.qat_epochs}
        chain.do(Step("qat", key, (int8,), lambda: _qat(best, int8, recipe, options, say, progress)))
    engines = []
    for precision in ("fp32", "bf16", "int8"):
        if precision == "bf16" and "BF16" not in cpu.device()[1]:
            continue
        source = int8 if precision == "int8" and options.qat_epochs else net
        engine = folder / f"{recipe.name}.{precision}.cpu.engine"
        key = {"net": sha256_file(source), "machine": cpu.device()[0], "openvino": cpu.library_version()}
        if source is net and precision == "int8":
            key["set"] = data[recipe.data.train]
        chain.do(Step(f"build {precision}", key, (engine, engine.with_name(f"{engine.name}.json")),
                      lambda s=source, e=engine, p=precision: _build(s, e, p, recipe, say)))  # type: ignore[misc]  # fmt: skip
        engines.append(engine)
    result = folder / "compare.json"
    key = {"engines": [sha256_file(e) for e in engines], "data": data[recipe.data.val], "rounds": options.rounds}
    chain.do(Step("compare", key, (result,), lambda: _compare(engines, result, recipe, options)))
    return result


def _train(recipe: Recipe, folder: Path, say: Callable[[str], None], progress: bool) -> None:
    from edgeseg.training.fit import has_begun, train

    kept = folder / "recipe.json"
    if kept.is_file() and json.loads(kept.read_text(encoding="utf-8")) != recipe.model_dump(mode="json"):
        raise InputError(
            f"{folder}: holds a run of another recipe, or of this one before it changed",
            hint="Give another folder with --out, or delete that one.",
        )
    train(recipe, folder, resume=has_begun(recipe, folder), say=say, progress=progress)


def _export(best: Path, net: Path) -> None:
    from edgeseg.export.to_onnx import export_checkpoint

    export_checkpoint(best, net)


def _qat(best: Path, out: Path, recipe: Recipe, options: Options, say: Callable[[str], None], progress: bool) -> None:
    from edgeseg.training.qat import Tuning, tune

    tuned = tune(best, out, Tuning(epochs=options.qat_epochs, data=recipe.data.address), say=say, progress=progress)
    say(f"val mIoU {tuned.miou:.4f} in INT8 after epoch {tuned.epoch}, {tuned.float_miou:.4f} in float")


def _build(source: Path, engine: Path, precision: str, recipe: Recipe, say: Callable[[str], None]) -> None:
    from edgeseg.export.network import load_network
    from edgeseg.quantize.placement import is_quantized
    from edgeseg.quantize.sets import resolve_set
    from edgeseg.runtime import build_engine

    calib = None
    if precision == "int8" and not is_quantized(load_network(source).model):
        calib = resolve_set(recipe.data.address, split=recipe.data.train)
    build_engine(source, precision=precision, out=engine, calib=calib, say=say)


def _compare(engines: list[Path], out: Path, recipe: Recipe, options: Options) -> None:
    from edgeseg.data import open_dataset
    from edgeseg.profiling.compare import compare
    from edgeseg.profiling.entry import open_entry

    data = open_dataset(recipe.data.address, recipe.data.val)
    result = compare([open_entry(str(engine)) for engine in engines], data, rounds=options.rounds)
    facts = result.to_dict()
    write_json(out, {**facts, "data": {**facts["data"], "address": recipe.data.address, "split": recipe.data.val}})
