"""What INT8 does to each layer on its own: its rounding noise, what it costs in labels, what it saves in time.

Noise is cheap and told of every layer (``edgeseg.quantize.noise``); cost is scored, one layer at a time, for the
noisiest of them: that layer in INT8, all else in full precision. Time is measured on this machine, layer by layer.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from onnx import ModelProto, NodeProto

from edgeseg.data import Dataset
from edgeseg.errors import DataError
from edgeseg.evaluation import check_labels, evaluate
from edgeseg.export.network import Network
from edgeseg.preprocess import Image
from edgeseg.profiling.frames import Hashes, Item, spread
from edgeseg.profiling.machine import describe_machine
from edgeseg.quantize.choose import layer_noise, paying_layers, run_with
from edgeseg.quantize.placement import Placement
from edgeseg.quantize.ptq import Prepared
from edgeseg.quantize.sets import CalibrationSet

DEFAULT_LAYERS, DEFAULT_FRAMES = 16, 12
# Of what is not on trial. In the fastest float precision (BF16) the rest would change more labels than the layer does.
EXACT = "fp32"
FIXED_STEPS = 4  # noise, the float net, the whole net in INT8, time


@dataclass(frozen=True)
class Score:
    """``labels_changed``: share of pixels (0..1) labelled otherwise than by the float net. ``miou``: 0..1, of data."""

    labels_changed: float
    miou: float | None = None


class Scorer:
    """Scores nets against a float one: on ``count`` frames of labelled data, or of the calibration set without it.

    The frames are spread evenly. The float net's label maps are kept, (H, W) uint8 each. ``facts`` says which frames
    they are, with hashes. Raises ``DataError`` where the data has other labels than the net, or none on these frames.
    """

    def __init__(self, reference: Network, calibration: CalibrationSet, dataset: Dataset | None, count: int) -> None:
        self.labels, self.dataset = reference.spec.labels, dataset
        self.frames = calibration.subset(count)
        self.indices: list[int] = []
        if dataset is None:
            self.on = f"{len(self.frames)} of the {len(calibration)} calibration frames"
            self.facts: dict[str, Any] = {"labelled": False, "frames": len(self.frames), "digest": self.frames.digest}
        else:
            check_labels(self.labels, dataset.labels, dataset.name)
            self.indices = spread(len(dataset), count)
            self.on = f"{len(self.indices)} of the {len(dataset)} frames of {dataset.name}"
            self.facts = {"labelled": True, "name": dataset.name, **_hashed(dataset, self.indices)}
        self._reference: list[Image] = []
        label = run_with(reference, EXACT)

        def kept(frame: Image) -> Image:
            self._reference.append(label(frame))
            return self._reference[-1]

        self.float_miou = self._run(kept)
        if self.float_miou is not None and self.float_miou != self.float_miou:
            raise DataError(f"{self.on}: nothing to score", got="void in every pixel", hint="Score more frames.")

    def __call__(self, network: Network, precision: str = EXACT) -> Score:
        """Score a net; ``precision`` is that of its float parts (``int8``: the fastest there is)."""
        label = run_with(network, precision)
        changed: list[float] = []

        def watched(frame: Image) -> Image:
            found = label(frame)
            changed.append(float((found != self._reference[len(changed)]).mean()))
            return found

        miou = self._run(watched)
        return Score(sum(changed) / len(changed), miou)

    def _run(self, label: Callable[[Image], Image]) -> float | None:
        """Label every frame; mean IoU (0..1) where they have labels."""
        if self.dataset is not None:
            return evaluate(label, self.dataset, labels=self.labels, indices=self.indices).mean_iou
        for frame in self.frames.images():
            label(frame)
        return None


def _hashed(dataset: Dataset, indices: list[int]) -> dict[str, Any]:
    hashes = Hashes()
    for sample in (dataset[index] for index in indices):
        hashes.add(Item(sample.name, sample.image, sample.mask))
    found = {"frames": len(indices), "facts_sha256": hashes.facts_sha256, "pixels_sha256": hashes.pixels_sha256}
    return {**found, "indices": indices}


@dataclass(frozen=True)
class LayerCost:
    """One layer or sum, or all of them. ``what`` it computes; ``noise``: rounding noise power over signal power there.

    ``labels_changed`` (0..1) and ``miou_points`` lost (less than 0: gained) are what it costs alone in INT8: ``None``
    where it was not scored, or there were no labels. ``saved_ms`` is what INT8 saves in it here (less than 0: costs);
    ``None`` for a sum, which is computed inside the convolution in front of it.
    """

    name: str
    what: str
    noise: float | None
    labels_changed: float | None = None
    miou_points: float | None = None
    saved_ms: float | None = None

    @property
    def rank(self) -> tuple[float, ...]:
        """Rises from the costliest: points of mIoU, labels changed, noise; what was not scored comes last."""
        points = 0.0 if self.miou_points is None else self.miou_points
        scored = self.labels_changed is not None
        return (not scored, -points, -(self.labels_changed or 0.0), -(self.noise or 0.0))


@dataclass(frozen=True)
class Sensitivity:
    """What INT8 does to a net, layer by layer, the costliest first.

    ``int8`` is all of them in INT8. ``floats`` says of the layers that always stay in float why.
    ``scored_on`` are the frames in words, ``data`` their hashes.
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
        """Those whose cost was scored, the costliest first."""
        return tuple(layer for layer in self.layers if layer.labels_changed is not None)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def count_steps(prepared: Prepared, layers: int = DEFAULT_LAYERS) -> int:
    """How often ``sensitivity`` calls ``on_step``."""
    placement = prepared.placement()
    total = len(placement.layers) + len(placement.sums)
    return FIXED_STEPS + (min(layers, total) if layers else total)


def sensitivity(
    prepared: Prepared,
    calibration: CalibrationSet,
    dataset: Dataset | None = None,
    *,
    frames: int = DEFAULT_FRAMES,
    layers: int = DEFAULT_LAYERS,
    on_step: Callable[[], None] = lambda: None,
) -> Sensitivity:
    """Noise and time of every layer and sum; cost of the ``layers`` noisiest (0: of all), on ``frames`` frames.

    Raises what ``Scorer`` does.
    """
    machine = describe_machine()
    full = prepared.placement()
    noise = layer_noise(prepared, full, calibration)
    on_step()
    scorer = Scorer(prepared.network, calibration, dataset, frames)
    on_step()
    quantized = prepared.quantized(full)
    whole = scorer(quantized)
    on_step()
    saved = paying_layers(prepared.network, quantized, full)
    on_step()
    scores: dict[str, Score] = {}
    ranked = sorted(noise, key=lambda name: -noise[name])
    for name in ranked[: layers or None]:
        scores[name] = scorer(prepared.quantized(alone(prepared, full, name)))
        on_step()
    kinds = _kinds(prepared.network.model)
    found = [_cost(name, kinds[name], noise[name], scores.get(name), scorer, saved.get(name)) for name in ranked]
    return Sensitivity(
        network=prepared.network.name,
        network_sha256=prepared.network.sha256,
        calibration=calibration.to_dict(),
        method=prepared.ranges.method,
        scored_on=scorer.on,
        data=scorer.facts,
        float_miou=scorer.float_miou,
        int8=_cost("all", "", None, whole, scorer, sum(saved.values())),
        layers=tuple(sorted(found, key=lambda layer: layer.rank)),
        floats=full.floats,
        machine=machine,
    )


def alone(prepared: Prepared, full: Placement, name: str) -> Placement:
    """The placement with the layer or sum ``name`` of the ``full`` one in INT8 and all else in float.

    In a net a sum runs in INT8 only in front of a layer that does. Alone, its branches are rounded to the scales they
    have in the full placement, and that is all.
    """
    others = [other for other in (*full.layers, *full.sums) if other != name]
    reasons = dict.fromkeys(others, f"{name} is on trial")
    placement = prepared.placement(others, reasons=reasons)
    if name not in full.sums:
        return placement
    branches = next(node.input for node in prepared.network.model.graph.node if node.name == name)
    tensors = tuple(tensor for tensor in full.tensors if tensor in branches)
    scale_of = {tensor: full.scale_of[tensor] for tensor in tensors}
    sources = {key: full.sources[key] for key in scale_of.values()}
    return Placement((), (name,), (), tensors, scale_of, sources, placement.floats)


def _cost(
    name: str, what: str, noise: float | None, score: Score | None, scorer: Scorer, saved_ms: float | None
) -> LayerCost:
    if score is None:
        return LayerCost(name, what, noise, saved_ms=saved_ms)
    lost = None
    if score.miou is not None and scorer.float_miou is not None:
        lost = 100 * (scorer.float_miou - score.miou)
    return LayerCost(name, what, noise, score.labels_changed, lost, saved_ms)


def _kinds(model: ModelProto) -> dict[str, str]:
    """What every node of a folded net computes, in a few words: ``3x3, 16 to 64``."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    return {node.name: _kind(node, shapes) for node in model.graph.node}


def _kind(node: NodeProto, shapes: dict[str, list[int]]) -> str:
    weight = shapes.get(node.input[1], []) if len(node.input) > 1 else []
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if node.op_type == "Conv" and len(weight) == 4:
        out, channels, height, width = weight
        return f"{height}x{width}, {channels * groups} to {out}" + (f" in {groups}" if groups > 1 else "")
    if node.op_type == "Gemm" and len(weight) == 2:
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        return "product, {} to {}".format(*(reversed(weight) if turned else weight))
    if node.op_type == "MatMul" and len(weight) == 2:
        return "product, {} to {}".format(*weight)
    return "sum" if node.op_type == "Add" else node.op_type
