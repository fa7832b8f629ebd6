"""Which layers stay in float, under a budget of accuracy and by measured latency.

Layers are ranked by their own rounding noise (``quantize.layer_error``); how many of the noisiest have to stay in
float is found by scoring, doubling the number until the budget is met and halving the interval after that. What is
faster is measured on this machine: INT8 does not pay in every layer, and in some nets in none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeseg.backends.openvino import forms, session
from edgeseg.data import Dataset
from edgeseg.graph.network import Network
from edgeseg.imaging.preprocess import resize_frame, resize_labels
from edgeseg.metrics.evaluate import evaluate
from edgeseg.precision import INT8
from edgeseg.quantize.calibration_set import CalibrationSet
from edgeseg.quantize.label_change import LabelChange, Limits, compare_labels
from edgeseg.quantize.layer_error import local_errors
from edgeseg.quantize.placement import Placement
from edgeseg.quantize.ptq import Prepared, network_input
from edgeseg.types import Image

ERROR_FRAMES = 3
AGREEMENT_FRAMES = 8
Say = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """One way to run the net: ``miou`` (0..1) on the data, ``latency_ms`` here, the layers left in float.

    ``change`` is what it changes in the float net's labels; ``None`` for a float net.
    """

    precision: str
    keep_float: tuple[str, ...]
    miou: float
    latency_ms: float = float("nan")
    within_budget: bool = True
    network: Network | None = field(default=None, repr=False, compare=False)
    change: LabelChange | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, object]:
        """For the passport."""
        return {
            "precision": self.precision,
            "float_layers": len(self.keep_float),
            "miou": round(self.miou, 5),
            "latency_ms": round(self.latency_ms, 3),
            "within_budget": self.within_budget,
        }


def run_with(network: Network, precision: str) -> Callable[[Image], Image]:
    """Frames of any size to label maps of their size, compiled for this machine."""
    compiled = forms.compile_form(network, forms.default_form(precision), precision)

    def label(frame: Image) -> Image:
        fitted = np.ascontiguousarray(resize_frame(frame, network.spec.input_size))
        return resize_labels(np.array(compiled(fitted), np.uint8), frame.shape[:2])

    return label


def layer_errors(prepared: Prepared, placement: Placement, calibration: CalibrationSet) -> dict[str, float]:
    """The rounding noise of every layer and sum over a few frames of the set."""
    frames = calibration.subset(ERROR_FRAMES).images()
    inputs = (network_input(frame, prepared.network) for frame in frames)
    steps = prepared.scales(placement)
    return local_errors(prepared.network.model, placement, steps, inputs, exact=prepared.exact)


class FloatLabels:
    """The float net's labels of a few frames, computed once: what INT8 candidates are compared with.

    The frames are ``AGREEMENT_FRAMES`` of the calibration set's source that are not in the set, or of the set itself if
    its source has no others.
    """

    def __init__(self, network: Network, calibration: CalibrationSet) -> None:
        held_out = calibration.held_out(AGREEMENT_FRAMES)
        self.held_out = bool(held_out)
        self.frames = held_out or list(calibration.subset(AGREEMENT_FRAMES).images())
        self.space = network.spec.labels
        label = run_with(network, "fp32")
        self.labels = [label(frame) for frame in self.frames]

    def change(self, label: Callable[[Image], Image]) -> LabelChange:
        """Return what an INT8 net, given as a function of a frame, changes in these labels."""
        return compare_labels(self.labels, label, self.frames, self.space, held_out=self.held_out)


class Search:
    """Scores candidates on ``dataset`` (its frames ``indices``), each at most once."""

    def __init__(
        self,
        prepared: Prepared,
        calibration: CalibrationSet,
        dataset: Dataset,
        indices: Sequence[int],
        limits: Limits,
        say: Say,
    ) -> None:
        self.prepared, self.dataset, self.indices, self.say = prepared, dataset, indices, say
        self.limits = limits
        self.full = FloatLabels(prepared.network, calibration)
        self.everything = prepared.placement()
        self.noise = layer_errors(prepared, self.everything, calibration)
        self.ranked = sorted(self.noise, key=lambda layer: -self.noise[layer])
        self.found: dict[tuple[str, tuple[str, ...]], Candidate] = {}

    def miou(self, network: Network, label: Callable[[Image], Image]) -> float:
        """Return the mean IoU (0..1) on the data of a net, given as a function of a frame."""
        return evaluate(label, self.dataset, labels=network.spec.labels, indices=self.indices).mean_iou

    def float_candidate(self, precision: str) -> Candidate:
        """The net as it is."""
        key = (precision, ())
        if key not in self.found:
            network = self.prepared.network
            self.found[key] = Candidate(
                precision, (), self.miou(network, run_with(network, precision)), network=network
            )
            self.say(f"{precision}: mIoU {100 * self.found[key].miou:.2f}")
        return self.found[key]

    def candidate(self, keep_float: Sequence[str], why: str) -> Candidate:
        """INT8 but for ``keep_float``."""
        kept = tuple(sorted(keep_float))
        precision = "mixed" if kept else "int8"
        key = (precision, kept)
        if key not in self.found:
            placement = self.prepared.placement(kept, reasons=dict.fromkeys(kept, why))
            network = self.prepared.quantized(placement)
            label = run_with(network, precision)
            change, miou = self.full.change(label), self.miou(network, label)
            self.found[key] = Candidate(precision, kept, miou, network=network, change=change)
            left = f" with {len(kept)} of {len(self.ranked)} layers in float" if kept else ""
            self.say(f"{precision}{left}: mIoU {100 * miou:.2f}{self._lost(change)}")
        return self.found[key]

    def _lost(self, change: LabelChange) -> str:
        """Return which class a candidate loses, for people; empty if it loses none."""
        c = change.worst_class
        if change.passes(self.limits) or c is None:
            return ""
        return f", class {change.names[c]!r} at IoU {change.iou[c]:.2f} with the float net's labels"

    def is_good(self, candidate: Candidate, floor: float) -> bool:
        """Return whether a candidate scores at least ``floor`` (mIoU, 0..1) and loses no class."""
        return candidate.miou >= floor and (candidate.change is None or candidate.change.passes(self.limits))

    def noisy(self, count: int) -> Candidate:
        """INT8 but for the ``count`` noisiest layers."""
        return self.candidate(self.ranked[:count], "rounding noise")

    def fewest_floats(self, floor: float) -> Candidate | None:
        """Return the candidate with the fewest layers in float that is good; ``None`` if there is none."""
        low, high = 0, 1
        if self.is_good(self.noisy(0), floor):
            return self.noisy(0)
        while high < len(self.ranked) and not self.is_good(self.noisy(high), floor):
            low, high = high, high * 2
        high = min(high, len(self.ranked))
        if not self.is_good(self.noisy(high), floor):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.is_good(self.noisy(middle), floor) else (middle, high)
        return self.noisy(high)


def paying_layers(network: Network, quantized: Network, placement: Placement) -> dict[str, float]:
    """What INT8 saves in each layer of ``placement``, in milliseconds measured on this machine (less than 0: it costs).

    Both nets are profiled in turn; sums are computed inside the convolution in front of them and are not told apart.
    """
    config = {**session.settings(INT8), "PERF_COUNT": "YES"}
    form = forms.default_form(INT8)
    pair = [session.Compiled(forms.graph_of(net, form), net.name, config) for net in (network, quantized)]
    frame = np.random.default_rng(0).integers(0, 256, pair[0].frame_shape, np.uint8)
    spent: list[dict[str, list[float]]] = [{}, {}]
    for turn in range(12):
        for times, compiled in zip(spent, pair, strict=True):
            compiled(frame)
            for node, milliseconds in compiled.milliseconds().items():
                if turn > 1:
                    times.setdefault(node.split("/WithoutBiases")[0], []).append(milliseconds)
    before, after = ({node: float(np.median(v)) for node, v in times.items()} for times in spent)
    return {name: before[name] - after[name] for name in placement.layers if name in before and name in after}


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats in both mIoU and latency, fastest first."""
    kept = [
        c
        for c in candidates
        if not any(
            o.miou >= c.miou and o.latency_ms <= c.latency_ms and (o.miou, o.latency_ms) != (c.miou, c.latency_ms)
            for o in candidates
        )
    ]
    return sorted(kept, key=lambda c: c.latency_ms)
