"""Quantize a network for an engine: find ranges, then check classes or keep a budget.

Without labelled data, the INT8 network must keep the float network's labels, class by class.
With labelled data, layers stay in float until no more than a budget of mIoU is lost.
"""

from dataclasses import dataclass, replace

from edgeseg.backends.base import AUTO, NATIVE, Backend
from edgeseg.backends.openvino import backend, forms, runtime
from edgeseg.backends.openvino.compiled import trial
from edgeseg.backends.proof import MOST_FRAMES, reference
from edgeseg.build.mixed_precision import (
    Candidate,
    FloatLabels,
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
from edgeseg.facts import Budget, Int8Facts
from edgeseg.graph.network import Network
from edgeseg.quantize.calibration_set import CalibrationSet, frame_digest
from edgeseg.quantize.label_change import require_close
from edgeseg.quantize.placement import Placement
from edgeseg.quantize.ptq import DEFAULT_METHOD, QuantizationPlan, fold_network, plan_quantization
from edgeseg.quantize.ranges import fitting_ranges
from edgeseg.reporter import SILENT, Reporter

DEFAULT_DROP = 0.5  # points of mIoU, if ``precision`` is ``auto`` and no budget is given


@dataclass(frozen=True)
class Request:
    """Hold what an INT8 network is wanted for.

    Attributes
    ----------
    precision : ``int8``, or ``auto`` for the fastest precision within the budget.
    calibration : the calibration set.
    options : how to quantize, and what may be lost.
    backend : the backend that will compile the network.
    unpool : how candidates unpool while they are timed, as in ``PlanOptions``.
    reporter : receives messages and progress.
    """

    precision: str
    calibration: CalibrationSet
    options: Quantization
    backend: Backend
    unpool: str = AUTO
    reporter: Reporter = SILENT

    @property
    def is_for_cpu(self) -> bool:
        """Return True if the engine will run on this kind of machine's CPU."""
        return self.backend.name == backend.TARGET


@dataclass(frozen=True)
class Quantized:
    """Hold the network to compile.

    Attributes
    ----------
    network : a Q/DQ network; a float one if ``auto`` found it faster.
    precision : ``int8``, ``mixed``, or a float precision.
    facts : how it was made, for the passport.
    """

    network: Network
    precision: str
    facts: Int8Facts


def quantize(network: Network, request: Request) -> Quantized:
    """Quantize a float network and check what it costs.

    Accuracy is measured on this CPU, whose engine computes the same Q/DQ graph. Time is measured on
    it too: for another target, no layer stays in float because INT8 is slow there.

    Parameters
    ----------
    network : a float network.
    request : what it is wanted for.

    Raises
    ------
    InputError : the options contradict each other or the network.
    CheckFailedError : INT8 changes too many labels, loses a class, or exceeds the budget.
    """
    options = request.options
    reporter = request.reporter

    # Check the request.
    if options.scales not in SCALES:
        raise InputError(
            "INT8: unknown kind of scales", got=repr(options.scales), expected=" or ".join(SCALES)
        )
    for warning in request.calibration.aspect_warnings(network.spec.input_size):
        reporter.warning(warning)
    dataset = open_dataset(options.data, options.split) if options.data else None
    _require_data(request, dataset)

    # Find the ranges.
    plan = _plan(network, request)
    facts = Int8Facts(
        method=plan.ranges.method,
        scales=options.scales,
        calibration=request.calibration.to_dict(),
        ranges_from_cache=plan.from_cache,
    )

    # Without labelled data, check the classes.
    if dataset is None:
        return _checked(plan, request, facts)

    # With labelled data, keep the budget.
    shared = _shared_frames(request.calibration, dataset)
    if shared:
        reporter.warning(
            f"{shared} calibration frames are frames of {dataset.name}: its score flatters"
        )
        facts = facts.model_copy(update={"frames_shared_with_data": shared})
    return _within_budget(plan, request, dataset, facts)


def _require_data(request: Request, dataset: Dataset | None) -> None:
    """Raise ``InputError`` if labelled data is missing, or speed is wanted for another target."""
    if dataset is None and request.options.max_miou_drop is not None:
        raise InputError("`max_miou_drop` needs labelled data", hint="Give it: `data=camvid:PATH`.")

    if request.precision != "auto":
        return
    if dataset is None:
        raise InputError(
            "`precision=auto` cannot tell what INT8 costs without labelled data",
            hint="Give it: `data=camvid:PATH`; or build with `precision=int8`, or without `calib`.",
        )
    if not request.is_for_cpu:
        raise InputError(
            "`precision=auto` measures speed on this CPU, not on the target "
            f"{request.backend.name}",
            hint="Build `precision=fp16` and `precision=int8` `max_miou_drop=0.5`, and compare "
            "them there.",
        )


def _plan(network: Network, request: Request) -> QuantizationPlan:
    """Plan the quantization with ranges from a file that fits, from the cache, or found now."""
    options = request.options
    folded = fold_network(network)

    given = None
    if options.ranges is not None:
        digest = request.calibration.digest
        given, reason = fitting_ranges(
            options.ranges, network.sha256, digest, folded.tensors_to_range
        )
        if given is None:
            request.reporter.warning(reason)

    plan = plan_quantization(
        folded,
        request.calibration,
        options.method or DEFAULT_METHOD,
        ranges=given,
        exact=options.scales == SCALES[0],
        reporter=request.reporter,
    )
    for tensor, note in plan.ranges.notes.items():
        request.reporter.info(f"{tensor}: {note}")
    return plan


def _checked(plan: QuantizationPlan, request: Request, facts: Int8Facts) -> Quantized:
    """Use INT8 wherever it is possible; raise an error if the labels change too much."""
    options = request.options
    placement = plan.placement(options.keep_float)
    quantized = plan.quantized(placement)
    precision = "mixed" if options.keep_float else "int8"

    float_labels = FloatLabels(plan.network, request.calibration)
    change = float_labels.change(run_with(quantized, precision))
    if not change.passes(options.limits):
        noise = layer_errors(plan, placement, request.calibration)
        require_close(change, options.limits, noise, plan.network.name)

    found = {
        "label_agreement": round(change.agreement, 5),
        "label_change": change.to_dict(),
        **_layer_facts(placement),
    }
    return Quantized(quantized, precision, facts.model_copy(update=found))


def _layer_facts(placement: Placement) -> dict[str, object]:
    """Return how many layers run in INT8, and why the others do not."""
    return {"int8_layers": len(placement.layers), "float_layers": placement.floats}


def _shared_frames(calibration: CalibrationSet, dataset: Dataset) -> int:
    """Return how many calibration frames are frames of the data, pixel by pixel."""
    known = {frame.sha256 for frame in calibration.frames}
    return sum(frame_digest(dataset[index].image) in known for index in range(len(dataset)))


def _within_budget(
    plan: QuantizationPlan, request: Request, dataset: Dataset, facts: Int8Facts
) -> Quantized:
    """Choose the fastest candidate that loses no more than the budget and no class."""
    options = request.options
    count = len(dataset) if options.frames is None else min(options.frames, len(dataset))
    indices = spread(len(dataset), count)
    drop = DEFAULT_DROP if options.max_miou_drop is None else options.max_miou_drop

    # Score float, and find the fewest layers that have to stay in float.
    search = Search(plan, request.calibration, dataset, indices, options.limits, request.reporter)
    float_candidate = search.float_candidate("fp32")
    floor = float_candidate.miou - drop / 100
    fewest = search.fewest_floats(floor)
    if fewest is None and request.precision == "int8":
        raise _over_budget(search, drop, float_candidate.miou)

    # Collect candidates, and time them in turn.
    candidates: list[Candidate] = []
    if fewest is not None:
        candidates.append(fewest)
    if request.is_for_cpu:
        candidates += _paying(search, plan, floor)
    if request.precision == "auto":
        for precision in dict.fromkeys(("fp32", runtime.best_precision())):
            candidates.append(search.float_candidate(precision))
    timed = _timed(candidates, request)

    # Choose the fastest good one.
    good = [candidate for candidate in timed if search.is_good(candidate, floor)]
    best = min(good, key=lambda candidate: candidate.latency_ms)
    _report_choice(best, timed, float_candidate.miou, request.reporter)

    found: dict[str, object] = {
        "budget": _budget_facts(search, dataset, options.split, drop, best, timed)
    }
    if best.change is not None:
        found["label_agreement"] = round(best.change.agreement, 5)
        found["label_change"] = best.change.to_dict()
    if best.precision not in runtime.FLOATS:
        found |= _layer_facts(plan.placement(best.keep_float))
    assert best.network is not None
    return Quantized(best.network, best.precision, facts.model_copy(update=found))


def _over_budget(search: Search, drop: float, float_miou: float) -> CheckFailedError:
    """Return the error for a network that exceeds the budget even with all layers in float."""
    rounded_image = search.noisy(len(search.ranked)).miou
    return CheckFailedError(
        f"{search.plan.network.name}: no choice of layers keeps the budget",
        got=f"mIoU {100 * rounded_image:.2f} with all of them in float",
        expected=f"at most {drop:g} points under {100 * float_miou:.2f}",
        hint="Give a larger `max_miou_drop`, or a better calibration set.",
    )


def _paying(search: Search, plan: QuantizationPlan, floor: float) -> list[Candidate]:
    """Return the candidate with INT8 only where it saves time, if it is another one and good."""
    quantized = search.noisy(0).network
    assert quantized is not None
    saved = paying_layers(plan.network, quantized, search.everything)

    costly = [name for name, milliseconds in saved.items() if milliseconds <= 0]
    if not costly or len(costly) == len(saved):
        return []
    candidate = search.candidate(costly, "INT8 saves no time here")
    return [candidate] if search.is_good(candidate, floor) else []


def _timed(candidates: list[Candidate], request: Request) -> list[Candidate]:
    """Return the candidates with their latency, each in the form in which it would be built."""
    unpool = request.unpool if request.is_for_cpu else NATIVE
    frames = list(request.calibration.subset(MOST_FRAMES).images())

    compiled = {}
    for number, candidate in enumerate(candidates):
        assert candidate.network is not None
        known = None
        if candidate.precision not in runtime.FLOATS:
            known = reference(candidate.network, frames)
        chosen = forms.choose(
            candidate.network, candidate.precision, unpool, known, request.reporter
        )
        compiled[str(number)] = chosen.compiled

    times = trial(compiled)
    return [
        replace(candidate, latency_ms=times[str(number)])
        for number, candidate in enumerate(candidates)
    ]


def _report_choice(
    best: Candidate, timed: list[Candidate], float_miou: float, reporter: Reporter
) -> None:
    """Report which candidate was chosen, and how slow the others are."""
    others = [
        f"{other.precision} {other.latency_ms:.2f} ms" for other in timed if other is not best
    ]
    slower = f"; slower: {', '.join(others)}" if others else ""
    change = 100 * (best.miou - float_miou)
    reporter.info(
        f"chosen: {best.precision}, {best.latency_ms:.2f} ms, mIoU {100 * best.miou:.2f} "
        f"({change:+.2f} against fp32){slower}"
    )


def _budget_facts(
    search: Search,
    dataset: Dataset,
    split: str,
    drop: float,
    best: Candidate,
    timed: list[Candidate],
) -> Budget:
    """Return how the budget was kept, for the passport."""
    reference_miou = search.float_candidate("fp32").miou
    floor = reference_miou - drop / 100
    judged = [
        replace(candidate, within_budget=search.is_good(candidate, floor)) for candidate in timed
    ]
    return Budget(
        data=dataset.name,
        split=split,
        frames=len(search.indices),
        max_miou_drop=drop,
        reference_miou=round(reference_miou, 5),
        miou=round(best.miou, 5),
        candidates=tuple(candidate.to_dict() for candidate in judged),
        pareto=tuple(candidate.to_dict() for candidate in pareto(timed)),
        scored=tuple(candidate.to_dict() for candidate in search.found.values()),
        rounding_noise={name: round(value, 6) for name, value in search.noise.items()},
    )
