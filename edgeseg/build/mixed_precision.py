"""Search which layers stay in float so that INT8 keeps a budget.

Layers are ranked by their own rounding noise (``quantize.layer_error``). How many of the noisiest
ones have to stay in float is found by bisection, each candidate scored on labelled data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeseg.backends.openvino import forms
from edgeseg.backends.openvino.compiled import Compiled, settings
from edgeseg.data import Dataset
from edgeseg.graph.network import Network
from edgeseg.imaging.preprocess import resize_frame, resize_labels
from edgeseg.metrics.evaluate import evaluate
from edgeseg.precision import INT8
from edgeseg.quantize.calibration_set import CalibrationSet
from edgeseg.quantize.label_change import LabelChange, Limits, compare_labels
from edgeseg.quantize.layer_error import local_errors
from edgeseg.quantize.placement import Placement
from edgeseg.quantize.ptq import QuantizationPlan, network_input
from edgeseg.reporter import SILENT, Reporter
from edgeseg.types import Image

ERROR_FRAMES = 3  # frames on which rounding noise is measured
AGREEMENT_FRAMES = 8  # frames on which labels are compared with the float network's
_PROFILED_CALLS = 12
_WARMUP_CALLS = 2


@dataclass(frozen=True)
class Candidate:
    """Describe one way to run a network.

    Attributes
    ----------
    precision : ``int8``, ``mixed``, or a float precision.
    keep_float : names of the layers that stay in float.
    miou : mean IoU on the data, 0 to 1.
    latency_ms : median milliseconds per frame on this machine; NaN before it is timed.
    within_budget : True if it loses no more than the budget, and no class.
    network : the network; it is neither compared nor printed.
    change : what it changes in the float network's labels; ``None`` for a float network.

    Examples
    --------
    >>> Candidate("mixed", ("conv1",), miou=0.612, latency_ms=3.2).to_dict()["float_layers"]
    1
    """

    precision: str
    keep_float: tuple[str, ...]
    miou: float
    latency_ms: float = float("nan")
    within_budget: bool = True
    network: Network | None = field(default=None, repr=False, compare=False)
    change: LabelChange | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for the passport."""
        return {
            "precision": self.precision,
            "float_layers": len(self.keep_float),
            "miou": round(self.miou, 5),
            "latency_ms": round(self.latency_ms, 3),
            "within_budget": self.within_budget,
        }


def run_with(network: Network, precision: str) -> Callable[[Image], Image]:
    """Compile a network for this CPU; return a function from frames to label maps.

    Parameters
    ----------
    network : a float network or a Q/DQ network.
    precision : its precision.

    Returns
    -------
    A function from (H, W, 3) uint8 BGR, of any size, to (H, W) uint8 of the same size.
    """
    compiled = forms.compile_form(network, forms.default_form(precision), precision)

    def label(frame: Image) -> Image:
        fitted = np.ascontiguousarray(resize_frame(frame, network.spec.input_size))
        labels = np.array(compiled(fitted), np.uint8)
        return resize_labels(labels, frame.shape[:2])

    return label


def layer_errors(
    plan: QuantizationPlan,
    placement: Placement,
    calibration: CalibrationSet,
    reporter: Reporter = SILENT,
) -> dict[str, float]:
    """Measure the rounding noise of every layer and sum, on a few frames of the set.

    Parameters
    ----------
    plan : the plan of the quantization.
    placement : what runs in INT8.
    calibration : the calibration set.
    reporter : receives the progress over the frames.

    Returns
    -------
    Noise power over signal power, by name.
    """
    frames = calibration.subset(ERROR_FRAMES).images()
    inputs = (network_input(plan.network, frame) for frame in frames)
    scales = plan.scales(placement)
    return local_errors(
        plan.network.model, placement, scales, inputs, exact=plan.exact, reporter=reporter
    )


class FloatLabels:
    """Keep the float network's labels of a few frames, to compare INT8 candidates with.

    The frames are ``AGREEMENT_FRAMES`` frames of the calibration set's source that are not in the
    set; if the source has no others, frames of the set.

    Parameters
    ----------
    network : the float network.
    calibration : the calibration set.

    Attributes
    ----------
    held_out : True if the frames are not in the set.
    frames : (H, W, 3) uint8 BGR each.
    space : the label space.
    labels : (H, W) uint8 for each frame.
    """

    def __init__(self, network: Network, calibration: CalibrationSet) -> None:
        held_out = calibration.held_out(AGREEMENT_FRAMES)
        self.held_out = bool(held_out)
        self.frames = held_out or list(calibration.subset(AGREEMENT_FRAMES).images())
        self.space = network.spec.labels

        label = run_with(network, "fp32")
        self.labels = [label(frame) for frame in self.frames]

    def change(self, label: Callable[[Image], Image]) -> LabelChange:
        """Return what an INT8 network changes in these labels.

        Parameters
        ----------
        label : the INT8 network, as a function from frame to label map.
        """
        return compare_labels(self.labels, label, self.frames, self.space, held_out=self.held_out)


class Search:
    """Score candidates on labelled data, each one at most once.

    Parameters
    ----------
    plan : the plan of the quantization.
    calibration : the calibration set.
    dataset : the labelled data.
    indices : the frames of the data to score.
    limits : what INT8 must keep of the float network's labels.
    reporter : receives a message for each candidate.

    Attributes
    ----------
    everything : the placement with INT8 wherever it is possible.
    noise : noise power over signal power of each layer and sum in it.
    ranked : the layers and sums, the noisiest first.
    found : the candidates that were scored, by precision and layers in float.
    """

    def __init__(
        self,
        plan: QuantizationPlan,
        calibration: CalibrationSet,
        dataset: Dataset,
        indices: Sequence[int],
        limits: Limits,
        reporter: Reporter,
    ) -> None:
        self.plan = plan
        self.dataset = dataset
        self.indices = indices
        self.limits = limits
        self.reporter = reporter

        self.everything = plan.placement()
        self.noise = layer_errors(plan, self.everything, calibration, reporter)
        self.ranked = sorted(self.noise, key=lambda layer: -self.noise[layer])
        self.found: dict[tuple[str, tuple[str, ...]], Candidate] = {}
        self._float_labels = FloatLabels(plan.network, calibration)

    def float_candidate(self, precision: str) -> Candidate:
        """Return the float network as a candidate.

        Parameters
        ----------
        precision : a float precision of this CPU.
        """
        key = (precision, ())
        if key not in self.found:
            network = self.plan.network
            miou = self._miou(network, run_with(network, precision))
            self.found[key] = Candidate(precision, (), miou, network=network)
            self.reporter.info(f"{precision}: mIoU {100 * miou:.2f}")
        return self.found[key]

    def candidate(self, keep_float: Sequence[str], why: str) -> Candidate:
        """Return the candidate that runs all layers in INT8 but some.

        Parameters
        ----------
        keep_float : names of the layers that stay in float.
        why : the reason, for the passport.
        """
        kept = tuple(sorted(keep_float))
        precision = "mixed" if kept else "int8"
        key = (precision, kept)
        if key in self.found:
            return self.found[key]

        placement = self.plan.placement(kept, reasons=dict.fromkeys(kept, why))
        network = self.plan.quantized(placement)
        label = run_with(network, precision)
        change = self._float_labels.change(label)
        miou = self._miou(network, label)
        self.found[key] = Candidate(precision, kept, miou, network=network, change=change)

        in_float = f" with {len(kept)} of {len(self.ranked)} layers in float" if kept else ""
        self.reporter.info(f"{precision}{in_float}: mIoU {100 * miou:.2f}{self._lost(change)}")
        return self.found[key]

    def noisy(self, count: int) -> Candidate:
        """Return the candidate that keeps the noisiest layers in float.

        Parameters
        ----------
        count : how many of them.
        """
        return self.candidate(self.ranked[:count], "rounding noise")

    def is_good(self, candidate: Candidate, floor: float) -> bool:
        """Return True if a candidate scores high enough and loses no class.

        Parameters
        ----------
        candidate : the candidate.
        floor : the least mIoU, 0 to 1.
        """
        keeps_classes = candidate.change is None or candidate.change.passes(self.limits)
        return candidate.miou >= floor and keeps_classes

    def fewest_floats(self, floor: float) -> Candidate | None:
        """Return the good candidate with the fewest layers in float; ``None`` if there is none.

        Parameters
        ----------
        floor : the least mIoU, 0 to 1.
        """
        if self.is_good(self.noisy(0), floor):
            return self.noisy(0)

        # Double the number of layers in float until a candidate is good.
        too_few = 0
        enough = 1
        while enough < len(self.ranked) and not self.is_good(self.noisy(enough), floor):
            too_few = enough
            enough *= 2
        enough = min(enough, len(self.ranked))
        if not self.is_good(self.noisy(enough), floor):
            return None

        # Halve the interval between too few and enough.
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if self.is_good(self.noisy(middle), floor):
                enough = middle
            else:
                too_few = middle
        return self.noisy(enough)

    def _miou(self, network: Network, label: Callable[[Image], Image]) -> float:
        """Return the mean IoU on the data of a network, given as a function of a frame."""
        return evaluate(
            label, self.dataset, labels=network.spec.labels, indices=self.indices
        ).mean_iou

    def _lost(self, change: LabelChange) -> str:
        """Return which class a candidate loses, as text; empty if it loses none."""
        worst = change.worst_class
        if change.passes(self.limits) or worst is None:
            return ""
        name = change.names[worst]
        return f", class {name!r} at IoU {change.iou[worst]:.2f} with the float net's labels"


def paying_layers(network: Network, quantized: Network, placement: Placement) -> dict[str, float]:
    """Measure on this machine what INT8 saves in each layer.

    Both networks are profiled in turn. A sum is computed inside the convolution in front of it, so
    its time is in that layer's.

    Parameters
    ----------
    network : the float network.
    quantized : the same network in INT8.
    placement : its placement.

    Returns
    -------
    Milliseconds by layer; less than 0 if INT8 is slower.
    """
    # Compile both with counters.
    config = {**settings(INT8), "PERF_COUNT": "YES"}
    form = forms.default_form(INT8)
    pair = [Compiled(forms.graph_of(net, form), net.name, config) for net in (network, quantized)]

    # Run them in turn.
    frame = np.random.default_rng(0).integers(0, 256, pair[0].frame_shape, np.uint8)
    spent: list[dict[str, list[float]]] = [{}, {}]
    for turn in range(_PROFILED_CALLS):
        for times, compiled in zip(spent, pair, strict=True):
            compiled(frame)
            if turn < _WARMUP_CALLS:
                continue
            for node, milliseconds in compiled.milliseconds().items():
                times.setdefault(node.split("/WithoutBiases")[0], []).append(milliseconds)

    # Compare the medians.
    in_float = {node: float(np.median(times)) for node, times in spent[0].items()}
    in_int8 = {node: float(np.median(times)) for node, times in spent[1].items()}
    measured = [name for name in placement.layers if name in in_float and name in in_int8]
    return {name: in_float[name] - in_int8[name] for name in measured}


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that no other beats in both mIoU and latency, the fastest first.

    Parameters
    ----------
    candidates : timed candidates.

    Examples
    --------
    >>> fast = Candidate("int8", (), miou=0.60, latency_ms=2.0)
    >>> slow = Candidate("bf16", (), miou=0.62, latency_ms=3.0)
    >>> slower = Candidate("fp32", (), miou=0.62, latency_ms=9.0)
    >>> [candidate.precision for candidate in pareto([slow, slower, fast])]
    ['int8', 'bf16']
    """
    kept = [
        candidate
        for candidate in candidates
        if not any(_beats(other, candidate) for other in candidates)
    ]
    return sorted(kept, key=lambda candidate: candidate.latency_ms)


def _beats(one: Candidate, other: Candidate) -> bool:
    """Return True if ``one`` is at least as good in mIoU and latency, and better in one of them."""
    at_least_as_good = one.miou >= other.miou and one.latency_ms <= other.latency_ms
    differs = (one.miou, one.latency_ms) != (other.miou, other.latency_ms)
    return at_least_as_good and differs
