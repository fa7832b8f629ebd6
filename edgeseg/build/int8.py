"""The INT8 side of building an engine: calibrate, place, check or keep a budget, and say what was done."""

from dataclasses import replace
from typing import Any

from edgeseg.backends.base import AUTO, NATIVE, Backend
from edgeseg.backends.openvino import backend, forms, session
from edgeseg.backends.proof import MOST_FRAMES, reference
from edgeseg.build.mixed_precision import (
    Candidate,
    FloatLabels,
    Say,
    Search,
    layer_errors,
    pareto,
    paying_layers,
    run_with,
)
from edgeseg.build.options import SCALES, Quantization
from edgeseg.data import Dataset, open_dataset
from edgeseg.data.sampling import spread
from edgeseg.errors import CheckFailedError, InputError
from edgeseg.graph.network import Network
from edgeseg.quantize.calibration_set import CalibrationSet, frame_digest
from edgeseg.quantize.label_change import require_close
from edgeseg.quantize.placement import Placement
from edgeseg.quantize.ptq import DEFAULT_METHOD, Prepared, folded, prepare, tensors_to_range
from edgeseg.quantize.ranges import Ranges, fitting_ranges

DEFAULT_DROP = 0.5  # points of mIoU, where ``precision`` is ``auto`` and no budget is given


def quantize(
    network: Network,
    precision: str,
    calibration: CalibrationSet,
    options: Quantization,
    aim: Backend,
    say: Say,
    *,
    unpool: str = AUTO,
) -> tuple[Network, str, dict[str, Any]]:
    """The net to compile, its precision (``int8``, ``mixed``; with ``auto`` also a float one), the passport's facts.

    Accuracy is measured on this CPU, whose engine computes the same Q/DQ graph. Time is too: for another target no
    layer is left in float for being slow, and ``auto`` is refused. ``unpool`` is how candidates unpool while they are
    timed, as ``PlanOptions`` has it.
    """
    if options.scales not in SCALES:
        raise InputError("INT8: unknown kind of scales", got=repr(options.scales), expected=" or ".join(SCALES))
    for warning in calibration.aspect_warnings(network.spec.input_size):
        say(f"warning: {warning}")
    dataset = open_dataset(options.data, options.split) if options.data else None
    if options.max_miou_drop is not None and dataset is None:
        raise InputError("`max_miou_drop` needs labelled data", hint="Give it: `data=camvid:PATH`.")
    if precision == "auto" and dataset is None:
        raise InputError(
            "`precision=auto` cannot tell what INT8 costs without labelled data",
            hint="Give it: `data=camvid:PATH`; or build with `precision=int8`, or without `calib`.",
        )
    if precision == "auto" and aim.name != backend.TARGET:
        raise InputError(
            f"`precision=auto` measures speed on this CPU, not on the target {aim.name}",
            hint="Build `precision=fp16` and `precision=int8` `max_miou_drop=0.5`, and compare them there.",
        )
    prepared = _prepared(network, calibration, options, say)
    facts: dict[str, Any] = {
        "method": prepared.ranges.method,
        "scales": options.scales,
        "calibration": calibration.to_dict(),
        "ranges_from_cache": prepared.from_cache,
    }
    placement: Placement | None
    if dataset is None:
        made, found, placement = _checked(prepared, calibration, options, facts)
    else:
        overlap = _overlap(calibration, dataset)
        if overlap:
            say(f"warning: {overlap} calibration frames are frames of {dataset.name}: its score flatters")
            facts["frames_shared_with_data"] = overlap
        made, found, placement = _budgeted(prepared, calibration, dataset, precision, options, aim, unpool, facts, say)
    if placement is not None:
        facts |= {"int8_layers": len(placement.layers), "float_layers": placement.floats}
    return made, found, facts


def _prepared(network: Network, calibration: CalibrationSet, options: Quantization, say: Say) -> Prepared:
    """The folded net with its ranges: of a file that fits, from the cache, or collected now."""
    given: Ranges | None = None
    method = options.method or DEFAULT_METHOD
    if options.ranges is not None:
        tensors = tensors_to_range(folded(network))
        given, reason = fitting_ranges(options.ranges, network.sha256, calibration.digest, tensors)
        if given is None:
            say(f"warning: {reason}")
    prepared = prepare(
        network,
        calibration,
        method,
        ranges=given,
        exact=options.scales == SCALES[0],
        on_frame=lambda n: say(f"calibrating: frame {n}"),
    )
    for tensor, note in prepared.ranges.notes.items():
        say(f"{tensor}: {note}")
    return prepared


def _checked(
    prepared: Prepared, calibration: CalibrationSet, options: Quantization, facts: dict[str, Any]
) -> tuple[Network, str, Placement]:
    """INT8 wherever it can be; an error that names layers where that changes too many labels."""
    placement = prepared.placement(options.keep_float)
    quantized = prepared.quantized(placement)
    precision = "mixed" if options.keep_float else "int8"
    change = FloatLabels(prepared.network, calibration).change(run_with(quantized, precision))
    facts["label_agreement"] = round(change.agreement, 5)
    facts["label_change"] = change.to_dict()
    if not change.passes(options.limits):
        noise = layer_errors(prepared, placement, calibration)
        require_close(change, options.limits, noise, prepared.network.name)
    return quantized, precision, placement


def _overlap(calibration: CalibrationSet, dataset: Dataset) -> int:
    """How many calibration frames are frames of the data, pixel by pixel."""
    known = {frame.sha256 for frame in calibration.frames}
    return sum(frame_digest(dataset[index].image) in known for index in range(len(dataset)))


def _budgeted(
    prepared: Prepared,
    calibration: CalibrationSet,
    dataset: Dataset,
    precision: str,
    options: Quantization,
    aim: Backend,
    unpool: str,
    facts: dict[str, Any],
    say: Say,
) -> tuple[Network, str, Placement | None]:
    """The fastest candidate within the budget; the list of all that were scored goes into ``facts``."""
    count = min(options.frames or len(dataset), len(dataset))
    indices = spread(len(dataset), count)
    drop = DEFAULT_DROP if options.max_miou_drop is None else options.max_miou_drop
    search = Search(prepared, calibration, dataset, indices, options.limits, say)
    reference = search.float_candidate("fp32")
    floor = reference.miou - drop / 100
    candidates = [c for c in [search.fewest_floats(floor)] if c is not None]
    if not candidates and precision == "int8":
        require = f"{drop:g} points under {100 * reference.miou:.2f}"
        raise CheckFailedError(
            f"{prepared.network.name}: no choice of layers keeps the budget",
            got=f"mIoU {100 * search.noisy(len(search.ranked)).miou:.2f} with all of them in float",
            expected=f"at most {require}",
            hint="Give a larger `max_miou_drop`, or a better calibration set.",
        )
    if aim.name == backend.TARGET:
        candidates += _paying(search, prepared, floor)
    if precision == "auto":
        candidates += [search.float_candidate(p) for p in {"fp32", session.best_precision()}]
    timed = _timed(candidates, unpool if aim.name == backend.TARGET else NATIVE, calibration, say)
    within = [c for c in timed if search.is_good(c, floor)]
    best = min(within, key=lambda c: c.latency_ms)
    facts["budget"] = {
        "data": dataset.name, "split": options.split, "frames": len(indices), "max_miou_drop": drop,
        "reference_miou": round(reference.miou, 5), "miou": round(best.miou, 5),
        "candidates": [replace(c, within_budget=search.is_good(c, floor)).to_dict() for c in timed],
        "pareto": [c.to_dict() for c in pareto(timed)],
        "scored": [c.to_dict() for c in search.found.values()],
        "rounding_noise": {name: round(value, 6) for name, value in search.noise.items()},
    }  # fmt: skip
    rest = ", ".join(f"{c.precision} {c.latency_ms:.2f} ms" for c in timed if c is not best)
    say(
        f"chosen: {best.precision}, {best.latency_ms:.2f} ms, mIoU {100 * best.miou:.2f} "
        f"({100 * (best.miou - reference.miou):+.2f} against fp32){'; slower: ' + rest if rest else ''}"
    )
    if best.change is not None:
        facts["label_agreement"] = round(best.change.agreement, 5)
        facts["label_change"] = best.change.to_dict()
    placement = None if best.precision in session.FLOATS else prepared.placement(best.keep_float)
    assert best.network is not None
    return best.network, best.precision, placement


def _paying(search: Search, prepared: Prepared, floor: float) -> list[Candidate]:
    """The candidate with INT8 only where it saves time here, if it is another and within the budget."""
    quantized = search.noisy(0).network
    assert quantized is not None
    saved = paying_layers(prepared.network, quantized, search.everything)
    costly = [name for name, milliseconds in saved.items() if milliseconds <= 0]
    if not costly or len(costly) == len(saved):
        return []
    candidate = search.candidate(costly, "INT8 saves no time here")
    return [candidate] if search.is_good(candidate, floor) else []


def _timed(candidates: list[Candidate], unpool: str, calibration: CalibrationSet, say: Say) -> list[Candidate]:
    """Return the candidates with their latency, in the form each will be built in, measured in turn."""
    compiled = {}
    frames = list(calibration.subset(MOST_FRAMES).images())
    for place_, c in enumerate(candidates):
        assert c.network is not None
        known = None if c.precision in session.FLOATS else reference(c.network, frames)
        compiled[str(place_)] = forms.choose(c.network, c.precision, unpool, known, say).compiled
    times = session.trial(compiled)
    return [replace(c, latency_ms=times[str(place_)]) for place_, c in enumerate(candidates)]
