"""Make a report: measure, collect the facts, and write them as one HTML file."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.backends.engine import Engine
from edgeseg.data import Dataset
from edgeseg.errors import InputError
from edgeseg.files import write_bytes, write_json
from edgeseg.passport import Passport
from edgeseg.profiling.compare import compare
from edgeseg.profiling.comparison import Comparison
from edgeseg.profiling.entry import Entry, open_entry
from edgeseg.profiling.report.gather import Watcher
from edgeseg.profiling.report.page import render, require_jinja
from edgeseg.profiling.report.verdict import verdict
from edgeseg.profiling.results import KIND as RESULT_KIND
from edgeseg.profiling.results import Result, read_result
from edgeseg.reporter import SILENT, Reporter
from edgeseg.video.frames import Source

KIND = "edgeseg report"
FORMAT = 1
_BINS = 36
_CONFUSIONS = 8  # the largest ones that are listed
_LAYERS = 16


@dataclass(frozen=True)
class Report:
    """Hold a report.

    Attributes
    ----------
    facts : every figure, as plain values for JSON.
    html : the page.
    """

    facts: dict[str, Any]
    html: str

    def write(self, path: Path, json_path: Path | None = None) -> Path:
        """Write the page, and the facts if there is a path for them.

        Parameters
        ----------
        path : the HTML file.
        json_path : the JSON file; ``None`` for none.

        Raises
        ------
        OutputError : a file cannot be written.
        """
        if json_path is not None:
            write_json(json_path, self.facts)
        return write_bytes(path, self.html.encode())


@dataclass(frozen=True)
class Extras:
    """Hold what was measured earlier, by other commands.

    Attributes
    ----------
    results : results of ``edgeseg profile``.
    sensitivities : results of ``edgeseg sensitivity``, as plain values.
    """

    results: tuple[Result, ...] = ()
    sensitivities: tuple[dict[str, Any], ...] = ()

    @classmethod
    def read(cls, paths: Sequence[Path]) -> "Extras":
        """Read the JSON files of ``edgeseg profile`` and ``edgeseg sensitivity``.

        Parameters
        ----------
        paths : the files.

        Raises
        ------
        InputError : a file cannot be read, or is of neither command.
        """
        results: list[Result] = []
        sensitivities: list[dict[str, Any]] = []
        for path in paths:
            try:
                facts = json.loads(path.read_bytes())
            except OSError as error:
                raise InputError(f"{path}: cannot be read", got=error.strerror) from error
            except ValueError as error:
                raise InputError(f"{path}: is no JSON", got=error) from error

            if isinstance(facts, dict) and facts.get("kind") == RESULT_KIND:
                results.append(read_result(path))
            elif isinstance(facts, dict) and {"layers", "network", "int8"} <= set(facts):
                sensitivities.append(facts)
            else:
                raise InputError(
                    f"{path}: not a result that a report can show",
                    expected="the JSON of `profile(...)` or `sensitivity(...)`",
                )
        return cls(tuple(results), tuple(sensitivities))


def report(
    engines: Sequence[Engine | Entry | str | Path],
    data: Dataset | Source,
    *,
    indices: Sequence[int] | None = None,
    name: str | None = None,
    extras: Extras | None = None,
    rounds: int = 3,
    command: str = "",
    reporter: Reporter = SILENT,
) -> Report:
    """Compare engines and make the report; the first engine is the reference.

    Parameters
    ----------
    engines : as in ``edgeseg.profiling.compare.compare``.
    data : labelled data, or a source of frames, which the caller closes.
    indices : which frames, in rising order; all by default.
    name : name of the data, instead of its own.
    extras : what other commands measured.
    rounds : number of turns per engine for the latency.
    command : the command line, for the protocol.
    reporter : receives the progress.

    Raises
    ------
    InputError : no engine, no frame, or engines of different classes.
    DataError : the data has other classes than the engines.
    MissingDependencyError : the package that fills the page's template is not installed.
    """
    require_jinja()
    given = Extras() if extras is None else extras
    with ExitStack() as opened:
        entries: list[Entry] = []
        for engine in engines:
            entry = engine if isinstance(engine, Entry) else open_entry(engine)
            if not isinstance(engine, Engine | Entry):
                opened.enter_context(entry.engine)
            entries.append(entry)
        if not entries:
            raise InputError("nothing to report on", expected="at least one engine")

        labels = entries[0].engine.spec.labels if isinstance(data, Source) else data.labels
        watcher = Watcher(labels)
        comparison = compare(
            entries,
            data,
            indices=indices,
            name=name,
            rounds=rounds,
            observer=watcher,
            reporter=reporter,
        )
    facts = _facts(comparison, watcher, given, command)
    return Report(facts, render(facts, watcher.pictures))


def _facts(
    comparison: Comparison, watcher: Watcher, extras: Extras, command: str
) -> dict[str, Any]:
    """Return every figure of the report."""
    saved = comparison.to_dict()
    ids = [engine["id"] for engine in saved["engines"]]
    calibrations: dict[str, Any] = {}
    for result in comparison.results:
        calibration = _calibration(result.passport)
        if calibration is not None:
            calibrations[result.id] = calibration
    libraries = sorted(
        {
            f"{result.passport.library} {result.passport.library_version}"
            for result in comparison.results
        }
    )
    return {
        "kind": KIND,
        "format": FORMAT,
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "libraries": libraries,
        "verdict": verdict(saved),
        "palette": _palette(comparison),
        "comparison": saved,
        **watcher.facts(ids),
        "confusions": _confusions(saved),
        "latency_histogram": _histogram(comparison),
        "profiles": _profiles(saved, extras.results),
        "calibration": calibrations,
        "sensitivity": [_sensitivity(one) for one in extras.sensitivities],
    }


def _palette(comparison: Comparison) -> list[list[str]]:
    """Return the name and the colour of every class."""
    labels = comparison.data.labels
    pairs = zip(labels.names, labels.palette, strict=True)
    return [[name, "#" + "".join(f"{part:02x}" for part in colour)] for name, colour in pairs]


def _confusions(saved: dict[str, Any]) -> dict[str, Any]:
    """Return how each engine's confusions changed, in shares of the true pixels of a class."""
    if not saved["data"]["labelled"]:
        return {}
    names = saved["data"]["classes"]
    first = _shares(saved["engines"][0]["confusion_matrix"])
    found: dict[str, Any] = {}
    for engine in saved["engines"][1:]:
        change = _shares(engine["confusion_matrix"]) - first
        off = change.copy()
        np.fill_diagonal(off, 0)
        largest: list[dict[str, Any]] = []
        for cell in np.argsort(-np.abs(off), axis=None)[:_CONFUSIONS]:
            true, predicted = divmod(int(cell), len(names))
            value = float(off[true, predicted])
            if value:
                largest.append(
                    {"truth": names[true], "predicted": names[predicted], "change": value}
                )
        found[engine["id"]] = {"change": change.tolist(), "largest": largest}
    return found


def _shares(matrix: list[list[int]]) -> Any:
    """Return a confusion matrix in shares of the rows; a row without pixels is 0."""
    table = np.asarray(matrix, np.float64)
    return table / np.maximum(table.sum(axis=1, keepdims=True), 1)


def _histogram(comparison: Comparison) -> dict[str, Any]:
    """Return how many calls took how long; the last bin holds all above the 99th percentile."""
    times = {result.id: np.asarray(result.latency.times_ms) for result in comparison.results}
    low = min(float(values.min()) for values in times.values())
    high = max(float(np.percentile(values, 99)) for values in times.values())
    edges = np.linspace(low, max(high, low * 1.01 + 1e-6), _BINS + 1)
    counts: dict[str, list[int]] = {}
    for key, values in times.items():
        counts[key] = np.histogram(np.minimum(values, edges[-1]), edges)[0].tolist()
    return {"edges_ms": edges.tolist(), "engines": counts}


def _profiles(saved: dict[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """Return throughput and energy of the engines whose very file was profiled."""
    found: dict[str, Any] = {}
    for engine in saved["engines"]:
        for result in results:
            for record in result.engines:
                if record.engine.engine_sha256 != engine["engine_sha256"]:
                    continue
                speeds = [row.frames_per_s for row in record.throughput]
                power = record.power
                found[engine["id"]] = {
                    "ms_p50": record.latency.ms_p50,
                    "frames_per_s": max(speeds) if speeds else None,
                    "watts": None if power is None else power.gross_w,
                    "mj_per_frame": None if power is None else power.gross_mj_per_frame,
                    "cpu": result.machine.get("cpu"),
                    "measured_at": result.measured_at,
                }
    return found


def _calibration(passport: Passport) -> dict[str, Any] | None:
    """Return how an INT8 engine was calibrated; ``None`` for a float engine."""
    facts = passport.int8
    if facts.int8_layers is None:
        return None
    made: dict[str, Any] = {}
    if facts.origin and facts.origin.startswith("{"):
        made = json.loads(facts.origin)  # the file was quantized before, and says how
    calibration = facts.calibration or made.get("calibration", {})
    frames = calibration.get("frames", made.get("frames"))
    return {
        "source": calibration.get("source"),
        "split": calibration.get("split"),
        "choose": calibration.get("choose"),
        "digest": calibration.get("digest"),
        "frames": len(frames) if isinstance(frames, list | dict) else frames,
        "method": facts.method or made.get("method"),
        "scales": facts.scales or made.get("scales"),
        "int8_layers": facts.int8_layers,
        "layers": facts.layers,
        "float_layers": facts.float_layers or made.get("float_layers", {}),
        "label_agreement": facts.label_agreement,
        "frames_shared_with_data": facts.frames_shared_with_data,
    }


def _sensitivity(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the layers that were scored, the costliest first."""
    layers: list[dict[str, Any]] = []
    for layer in facts["layers"]:
        if layer.get("labels_changed") is not None:
            keys = ("name", "what", "labels_changed", "miou_points", "saved_ms")
            layers.append({key: layer.get(key) for key in keys})
    return {
        "network": facts["network"],
        "scored_on": facts.get("scored_on"),
        "layers": layers[:_LAYERS],
    }
