"""Make weights, ONNX files, engines and a comparison from a recipe; repeat only what changed.

A step is up to date if its *key* (everything it depends on) has the hash in ``make.json``, and the
files that it wrote have not changed since.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgeseg.data.sampling import spread
from edgeseg.errors import InputError
from edgeseg.files import sha256_file, write_json
from edgeseg.quantize.calibration_set import frame_digest
from edgeseg.reporter import LINES, Reporter
from edgeseg.training.recipe import Recipe
from edgeseg.version import __version__

STATE = "make.json"
PROBED_FRAMES = 8  # frames of a split that its hash covers


@dataclass(frozen=True)
class Options:
    """Hold the options of ``make``.

    Attributes
    ----------
    qat_epochs : epochs of quantization-aware training; 0: INT8 by post-training quantization only.
    rounds : rounds of timing in the comparison.
    """

    qat_epochs: int = 5
    rounds: int = 3


@dataclass(frozen=True)
class Step:
    """Describe one step.

    Attributes
    ----------
    name : name of the step, unique in its chain.
    key : everything the step depends on, as plain values.
    outputs : files that the step writes.
    run : function that does the work.
    """

    name: str
    key: Mapping[str, Any]
    outputs: tuple[Path, ...]
    run: Callable[[], object]


class Chain:
    """Run steps, and record in ``make.json`` what each was made from.

    Parameters
    ----------
    folder : the folder of ``make.json``.
    reporter : receives messages.

    Raises
    ------
    InputError : ``make.json`` cannot be read.
    """

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        self.folder = folder
        self.reporter = reporter
        self._path = folder / STATE
        self._state: dict[str, Any] = {}
        if self._path.is_file():
            try:
                self._state = json.loads(self._path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{self._path}: cannot be read",
                    hint="Delete it; every step is then done again.",
                ) from error

    def is_done(self, step: Step) -> bool:
        """Return True if neither the step's key nor the files it wrote have changed.

        Parameters
        ----------
        step : the step.
        """
        kept = self._state.get(step.name)
        if not isinstance(kept, dict) or kept.get("key") != _digest(step.key):
            return False

        present = {path.name: sha256_file(path) for path in step.outputs if path.is_file()}
        return kept.get("outputs") == present

    def made_from(self, name: str) -> Mapping[str, Any]:
        """Return what a finished step depended on; empty if it was never finished.

        Parameters
        ----------
        name : the step's name.
        """
        kept = self._state.get(name)
        depends_on = kept.get("depends_on") if isinstance(kept, dict) else None
        return depends_on if isinstance(depends_on, dict) else {}

    def do(self, step: Step) -> None:
        """Run a step unless it is up to date, and record it.

        Parameters
        ----------
        step : the step.
        """
        if self.is_done(step):
            self.reporter.info(f"{step.name}: up to date")
            return

        self.reporter.info(f"{step.name} ...")
        step.run()

        self._state[step.name] = {
            "key": _digest(step.key),
            "depends_on": dict(step.key),
            "outputs": {path.name: sha256_file(path) for path in step.outputs},
        }
        write_json(self._path, self._state)


def _digest(key: Mapping[str, Any]) -> str:
    """Return the hash of a key, and of edgeseg's version."""
    text = json.dumps({**key, "edgeseg": __version__}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def data_digest(address: str, split: str) -> str:
    """Return a hash of a split: of all names, and of the pixels and labels of a few frames.

    Parameters
    ----------
    address : address of the data, such as ``camvid:PATH``.
    split : name of the split.
    """
    from edgeseg.data import open_dataset

    data = open_dataset(address, split)
    probes: list[tuple[str, str]] = []
    for index in spread(len(data), PROBED_FRAMES):
        sample = data[index]
        mask_digest = hashlib.sha256(sample.mask.tobytes()).hexdigest()
        probes.append((frame_digest(sample.image), mask_digest))

    text = json.dumps([list(data.names), probes])
    return hashlib.sha256(text.encode()).hexdigest()


def make(
    recipe: Recipe,
    folder: Path,
    options: Options | None = None,
    *,
    reporter: Reporter = LINES,
) -> Path:
    """Train, export, fine-tune for INT8, build one engine per precision, and compare them.

    Each step may raise its own errors. Steps that were finished before stay finished.

    Parameters
    ----------
    recipe : the recipe.
    folder : folder for everything that is made.
    options : the options; the defaults of ``Options`` if not given.
    reporter : receives messages and progress.

    Returns
    -------
    The file of the comparison, ``compare.json``.

    Raises
    ------
    InputError : the folder holds a run of another recipe or on other data, or its ``make.json``
        cannot be read.
    """
    options = options or Options()
    chain = Chain(folder, reporter)
    splits = dict.fromkeys((recipe.data.train, recipe.data.val))
    data = {split: data_digest(recipe.data.address, split) for split in splits}
    key: dict[str, Any]

    # Train. A finished run cannot go on with other data.
    if chain.made_from("train").get("data", data) != data:
        raise InputError(
            f"{folder}: holds a run on other data, or on this data before it changed",
            hint="Give another folder with `out`, or delete that one.",
        )
    best = folder / "best.pt"
    key = {"recipe": recipe.model_dump(mode="json"), "data": data}
    chain.do(Step("train", key, (best,), lambda: _train(recipe, folder, reporter)))
    weights = sha256_file(best)

    # Export.
    float_file = folder / f"{recipe.name}.onnx"
    chain.do(Step("export", {"weights": weights}, (float_file,), lambda: _export(best, float_file)))

    # Fine-tune for INT8.
    int8_file = folder / f"{recipe.name}.int8.onnx"
    if options.qat_epochs:
        key = {"weights": weights, "data": data, "epochs": options.qat_epochs}
        run_qat = partial(_qat, best, int8_file, recipe, options, reporter)
        chain.do(Step("qat", key, (int8_file,), run_qat))

    # Build the engines.
    sources = {"fp32": float_file, "bf16": float_file, "int8": float_file}
    if options.qat_epochs:
        sources["int8"] = int8_file
    engines = _do_builds(chain, recipe, sources, data[recipe.data.train], reporter)

    # Compare them.
    result = folder / "compare.json"
    key = {
        "engines": [sha256_file(engine) for engine in engines],
        "data": data[recipe.data.val],
        "rounds": options.rounds,
    }
    chain.do(Step("compare", key, (result,), lambda: _compare(engines, result, recipe, options)))
    return result


def _do_builds(
    chain: Chain, recipe: Recipe, sources: Mapping[str, Path], calibration: str, reporter: Reporter
) -> list[Path]:
    """Build one engine per precision that this processor computes natively.

    ``sources`` are the ONNX files by precision. ``calibration`` is the hash of the frames that INT8
    is calibrated on, if its file has no ranges yet.
    """
    from edgeseg.backends.openvino import runtime

    engines: list[Path] = []
    for precision, source in sources.items():
        if precision == "bf16" and "BF16" not in runtime.device().features:
            continue

        key: dict[str, Any] = {
            "net": sha256_file(source),
            "machine": runtime.device().name,
            "openvino": runtime.library_version(),
        }
        if precision == "int8" and source == sources["fp32"]:
            key["set"] = calibration
        engine = chain.folder / f"{recipe.name}.{precision}.cpu.engine"
        outputs = (engine, engine.with_name(f"{engine.name}.json"))
        run_build = partial(_build, source, engine, precision, recipe, reporter)
        chain.do(Step(f"build {precision}", key, outputs, run_build))
        engines.append(engine)
    return engines


def _train(recipe: Recipe, folder: Path, reporter: Reporter) -> None:
    """Train the recipe, or continue its training.

    Raise ``InputError`` if the folder holds a run of another recipe.
    """
    from edgeseg.training.fit import has_begun, train

    kept = folder / "recipe.json"
    if kept.is_file() and json.loads(kept.read_text(encoding="utf-8")) != recipe.model_dump(
        mode="json"
    ):
        raise InputError(
            f"{folder}: holds a run of another recipe, or of this one before it changed",
            hint="Give another folder with `out`, or delete that one.",
        )

    train(recipe, folder, resume=has_begun(recipe, folder), reporter=reporter)


def _export(best: Path, net: Path) -> None:
    """Export the checkpoint to an ONNX file."""
    from edgeseg.export.onnx_from_torch import export_checkpoint

    export_checkpoint(best, net)


def _qat(best: Path, out: Path, recipe: Recipe, options: Options, reporter: Reporter) -> None:
    """Fine-tune the checkpoint for INT8, and write its Q/DQ file."""
    from edgeseg.training.qat.fine_tune import Tuning, tune

    tuning = Tuning(epochs=options.qat_epochs, data=recipe.data.address)
    tuned = tune(best, out, tuning, reporter=reporter)
    reporter.info(
        f"val mIoU {tuned.miou:.4f} in INT8 after epoch {tuned.epoch}, {tuned.float_miou:.4f} in "
        "float"
    )


def _build(source: Path, engine: Path, precision: str, recipe: Recipe, reporter: Reporter) -> None:
    """Build an engine; calibrate on the training split if INT8 is wanted from a float file."""
    from edgeseg.build.engine_from_onnx import build_engine
    from edgeseg.graph.network import load_network
    from edgeseg.graph.ops import is_quantized
    from edgeseg.quantize.calibration_set import resolve_set

    calib = None
    if precision == "int8" and not is_quantized(load_network(source).model):
        calib = resolve_set(recipe.data.address, split=recipe.data.train)
    build_engine(source, precision=precision, out=engine, calib=calib, reporter=reporter)


def _compare(engines: list[Path], out: Path, recipe: Recipe, options: Options) -> None:
    """Compare the engines on the validation split, and write the result with the data's address."""
    from edgeseg.data import open_dataset
    from edgeseg.profiling.compare import compare
    from edgeseg.profiling.entry import open_entry

    data = open_dataset(recipe.data.address, recipe.data.val)
    entries = [open_entry(str(engine)) for engine in engines]
    facts = compare(entries, data, rounds=options.rounds).to_dict()

    facts["data"] = {**facts["data"], "address": recipe.data.address, "split": recipe.data.val}
    write_json(out, facts)
