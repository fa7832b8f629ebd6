"""Measure what INT8 does to each layer alone: its noise, the labels it changes, the time it saves.

Noise is cheap to compute, so every layer has it (``edgeseg.quantize.layer_error``). The change of
labels is scored for the noisiest layers, one at a time: that layer in INT8, everything else in full
precision. Time is measured on this machine, layer by layer.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from onnx import ModelProto, NodeProto

from edgeseg.build.mixed_precision import layer_errors, paying_layers, run_with
from edgeseg.data import Dataset
from edgeseg.data.sampling import spread
from edgeseg.errors import DataError
from edgeseg.graph.network import Network
from edgeseg.metrics.evaluate import check_labels, evaluate
from edgeseg.profiling.frames import Hashes, Item
from edgeseg.profiling.machine import describe_machine
from edgeseg.quantize.calibration_set import CalibrationSet
from edgeseg.quantize.placement import Placement
from edgeseg.quantize.ptq import QuantizationPlan
from edgeseg.reporter import SILENT, Reporter, track
from edgeseg.types import Image

DEFAULT_LAYERS = 16
DEFAULT_FRAMES = 12
# The precision of everything but the layer on trial. In the fastest float precision (BF16) the rest
# would change more labels than the layer does.
EXACT = "fp32"


@dataclass(frozen=True)
class Score:
    """Hold the scores of one network.

    Attributes
    ----------
    labels_changed : share of pixels (0..1) that the float network labels differently.
    miou : mean IoU (0..1) against ground truth; ``None`` without labelled data.

    Examples
    --------
    >>> Score(labels_changed=0.02)
    Score(labels_changed=0.02, miou=None)
    """

    labels_changed: float
    miou: float | None = None


class Scorer:
    """Score networks against a float one, on evenly spread frames.

    Parameters
    ----------
    reference : the float network. Its label maps are kept, (H, W) uint8 each.
    calibration : the calibration set; its frames are used if there is no ``dataset``.
    dataset : labelled data, or ``None``.
    count : number of frames.

    Attributes
    ----------
    labels : label space of the networks.
    dataset : the labelled data, or ``None``.
    frames : the calibration frames to score on; they are used if there is no ``dataset``.
    indices : indices of the frames of ``dataset``; empty without it.
    on : the frames in words.
    facts : the frames as plain values, with hashes.
    float_miou : mean IoU (0..1) of the float network; ``None`` without labelled data.

    Raises
    ------
    DataError : the data has other classes than the network, or no labels on these frames.
    """

    def __init__(
        self,
        reference: Network,
        calibration: CalibrationSet,
        dataset: Dataset | None,
        count: int,
    ) -> None:
        self.labels = reference.spec.labels
        self.dataset = dataset

        # Choose the frames.
        self.frames = calibration.subset(count)
        self.indices: list[int] = []
        if dataset is None:
            self.on = f"{len(self.frames)} of the {len(calibration)} calibration frames"
            self.facts: dict[str, Any] = {
                "labelled": False,
                "frames": len(self.frames),
                "digest": self.frames.digest,
            }
        else:
            check_labels(self.labels, dataset.labels, dataset.name)
            self.indices = spread(len(dataset), count)
            self.on = f"{len(self.indices)} of the {len(dataset)} frames of {dataset.name}"
            self.facts = {
                "labelled": True,
                "name": dataset.name,
                **_hashed(dataset, self.indices),
            }

        # Label them with the float network, and keep its labels.
        self._reference: list[Image] = []
        label = run_with(reference, EXACT)

        def kept(frame: Image) -> Image:
            self._reference.append(label(frame))
            return self._reference[-1]

        self.float_miou = self._run(kept)
        if self.float_miou is not None and math.isnan(self.float_miou):
            raise DataError(
                f"{self.on}: nothing to score",
                got="void in every pixel",
                hint="Score more frames.",
            )

    def __call__(self, network: Network, precision: str = EXACT) -> Score:
        """Score a network.

        Parameters
        ----------
        network : a network with the same spec as the reference.
        precision : precision of its float parts; ``int8``: the fastest one.
        """
        label = run_with(network, precision)
        changed: list[float] = []

        def watched(frame: Image) -> Image:
            found = label(frame)
            wanted = self._reference[len(changed)]
            changed.append(float((found != wanted).mean()))
            return found

        miou = self._run(watched)
        return Score(sum(changed) / len(changed), miou)

    def _run(self, label: Callable[[Image], Image]) -> float | None:
        """Label every frame; return the mean IoU (0..1), or ``None`` without labelled data."""
        if self.dataset is not None:
            scores = evaluate(label, self.dataset, labels=self.labels, indices=self.indices)
            return scores.mean_iou

        for frame in self.frames.images():
            label(frame)
        return None


def _hashed(dataset: Dataset, indices: list[int]) -> dict[str, Any]:
    """Return the number, the hashes and the indices of the chosen frames."""
    hashes = Hashes()
    for index in indices:
        sample = dataset[index]
        hashes.add(Item(sample.name, sample.image, sample.mask))
    return {
        "frames": len(indices),
        "facts_sha256": hashes.facts_sha256,
        "pixels_sha256": hashes.pixels_sha256,
        "indices": indices,
    }


@dataclass(frozen=True)
class LayerCost:
    """Hold what INT8 costs and saves in one layer or sum, or in all of them.

    Attributes
    ----------
    name : name of the layer.
    what : what it computes, such as ``3x3, 16 to 64``.
    noise : power of the rounding noise divided by the power of the signal there.
    labels_changed : share of labels (0..1) that change if only this layer runs in INT8; ``None`` if
        it was not scored.
    miou_points : points of mIoU (hundredths) lost then, negative for a gain; ``None`` if it was not
        scored or there were no labels.
    saved_ms : milliseconds per frame that INT8 saves in this layer on this machine, negative if it
        is slower; ``None`` for a sum, which is computed inside the convolution in front of it.

    Examples
    --------
    >>> costly = LayerCost("a", "3x3, 16 to 64", noise=0.01, labels_changed=0.02, miou_points=0.5)
    >>> noisy = LayerCost("b", "3x3, 64 to 64", noise=0.02)
    >>> [cost.name for cost in sorted([noisy, costly], key=lambda cost: cost.rank)]
    ['a', 'b']
    """

    name: str
    what: str
    noise: float | None
    labels_changed: float | None = None
    miou_points: float | None = None
    saved_ms: float | None = None

    @property
    def rank(self) -> tuple[float, ...]:
        """Return a sort key that puts the costliest layer first and layers without a score last.

        Layers are sorted by points of mIoU, then by labels changed, then by noise.
        """
        points = 0.0 if self.miou_points is None else self.miou_points
        scored = self.labels_changed is not None
        return (not scored, -points, -(self.labels_changed or 0.0), -(self.noise or 0.0))


@dataclass(frozen=True)
class Sensitivity:
    """Hold what INT8 does to a network, layer by layer.

    Attributes
    ----------
    network, network_sha256 : name of the network, and hash of its file.
    calibration : the calibration set as plain values.
    method : how the ranges were computed.
    scored_on : the scored frames in words.
    data : the scored frames as plain values, with hashes.
    float_miou : mean IoU (0..1) of the float network; ``None`` without labelled data.
    int8 : cost of all layers in INT8 together.
    layers : cost of each layer and sum, the costliest first.
    floats : layers that always stay in float, with the reason.
    machine : the machine, as ``describe_machine`` returns it.
    """

    network: str
    network_sha256: str
    calibration: dict[str, object]
    method: str
    scored_on: str
    data: dict[str, Any]
    float_miou: float | None
    int8: LayerCost
    layers: tuple[LayerCost, ...]
    floats: dict[str, str]
    machine: dict[str, Any]

    @property
    def scored(self) -> tuple[LayerCost, ...]:
        """Return the layers whose cost was scored, the costliest first."""
        return tuple(layer for layer in self.layers if layer.labels_changed is not None)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)


def sensitivity(
    plan: QuantizationPlan,
    calibration: CalibrationSet,
    dataset: Dataset | None = None,
    *,
    frames: int = DEFAULT_FRAMES,
    layers: int = DEFAULT_LAYERS,
    reporter: Reporter = SILENT,
) -> Sensitivity:
    """Measure noise and time of every layer and sum, and the cost of the noisiest ones.

    Parameters
    ----------
    plan : the quantization plan of the network.
    calibration : the calibration set.
    dataset : labelled data to score on; ``None``: the calibration frames, without mIoU.
    frames : number of frames to score on.
    layers : number of layers to score, the noisiest first; 0: all.
    reporter : receives the progress: the noise of the layers, then the score of each layer.

    Raises
    ------
    DataError : the data has other classes than the network, or no labels on these frames.
    """
    machine = describe_machine()

    # Noise of every layer.
    full = plan.placement()
    noise = layer_errors(plan, full, calibration, reporter)

    # Scores of the float network and of the whole network in INT8.
    scorer = Scorer(plan.network, calibration, dataset, frames)
    quantized = plan.quantized(full)
    whole = scorer(quantized)

    # Time that INT8 saves in each layer.
    saved = paying_layers(plan.network, quantized, full)

    # Scores of the noisiest layers, each alone in INT8.
    scores: dict[str, Score] = {}
    ranked = sorted(noise, key=lambda name: -noise[name])
    for name in track(ranked[: layers or None], "score layers", reporter):
        scores[name] = scorer(plan.quantized(alone(plan, full, name)))

    kinds = _kinds(plan.network.model)
    costs: list[LayerCost] = []
    for name in ranked:
        score = scores.get(name)
        costs.append(_cost(name, kinds[name], noise[name], score, scorer, saved.get(name)))
    return Sensitivity(
        network=plan.network.name,
        network_sha256=plan.network.sha256,
        calibration=calibration.to_dict(),
        method=plan.ranges.method,
        scored_on=scorer.on,
        data=scorer.facts,
        float_miou=scorer.float_miou,
        int8=_cost("all", "", None, whole, scorer, sum(saved.values())),
        layers=tuple(sorted(costs, key=lambda cost: cost.rank)),
        floats=full.floats,
        machine=machine,
    )


def alone(plan: QuantizationPlan, full: Placement, name: str) -> Placement:
    """Return the placement with one layer or sum in INT8 and everything else in float.

    A sum runs in INT8 only in front of a layer that does. Alone, only its branches are rounded, to
    the scales that they have in the full placement.

    Parameters
    ----------
    plan : the quantization plan of the network.
    full : the placement with all layers in INT8.
    name : the layer or sum.
    """
    # Keep everything else in float.
    others = [other for other in (*full.layers, *full.sums) if other != name]
    reasons = dict.fromkeys(others, f"{name} is on trial")
    placement = plan.placement(others, reasons=reasons)
    if name not in full.sums:
        return placement

    # Round the branches of the sum.
    branches = next(node.input for node in plan.network.model.graph.node if node.name == name)
    tensors = tuple(tensor for tensor in full.tensors if tensor in branches)
    scale_of = {tensor: full.scale_of[tensor] for tensor in tensors}
    sources = {key: full.sources[key] for key in scale_of.values()}
    return Placement((), (name,), (), tensors, scale_of, sources, placement.floats)


def _cost(
    name: str,
    what: str,
    noise: float | None,
    score: Score | None,
    scorer: Scorer,
    saved_ms: float | None,
) -> LayerCost:
    """Return the cost of a layer; ``score`` is ``None`` if it was not scored."""
    if score is None:
        return LayerCost(name, what, noise, saved_ms=saved_ms)

    lost = None
    if score.miou is not None and scorer.float_miou is not None:
        lost = 100 * (scorer.float_miou - score.miou)
    return LayerCost(name, what, noise, score.labels_changed, lost, saved_ms)


def _kinds(model: ModelProto) -> dict[str, str]:
    """Return what each node of a folded graph computes, such as ``3x3, 16 to 64``."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    return {node.name: _kind(node, shapes) for node in model.graph.node}


def _kind(node: NodeProto, shapes: dict[str, list[int]]) -> str:
    """Return what a node computes; ``shapes`` are those of the constants, by name."""
    weight = shapes.get(node.input[1], []) if len(node.input) > 1 else []

    if node.op_type == "Conv" and len(weight) == 4:
        out, channels, height, width = weight
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        grouped = f" in {groups}" if groups > 1 else ""
        return f"{height}x{width}, {channels * groups} to {out}{grouped}"

    if node.op_type == "Gemm" and len(weight) == 2:
        rows, columns = weight
        if any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
            return f"product, {columns} to {rows}"
        return f"product, {rows} to {columns}"

    if node.op_type == "MatMul" and len(weight) == 2:
        rows, columns = weight
        return f"product, {rows} to {columns}"

    return "sum" if node.op_type == "Add" else node.op_type
