"""Prove an engine: does it label frames as its ONNX file does in ONNX Runtime?

A compiler can be wrong for one network on one kind of processor and right everywhere else. So every
build labels a few frames twice: once with the ONNX file in ONNX Runtime (without fused kernels:
each operator as the standard defines it), and once with the engine.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.errors import CheckFailedError, GraphError
from edgeseg.graph.lowering import LoweringOptions, lower
from edgeseg.graph.network import Network
from edgeseg.imaging.preprocess import resize_frame
from edgeseg.types import Float, Image

# How many frames prove an engine. A network with a small input needs more of them, until they have
# PROOF_PIXELS pixels or there are MOST_FRAMES.
PROOF_FRAMES = 2
MOST_FRAMES = 8
PROOF_PIXELS = 200_000
_DRIVE = "synthetic://?length=8&size=480x360&seed=3"  # the frames if the caller gives none

# INT8: the least share of labels that equal the file's. Sums of integers are exact. With scales
# that are powers of two everything else is exact, too, except layers left in float.
SAME_LABELS_INT8 = 0.999
SAME_LABELS_INT8_ANY_SCALE = 0.995
# INT8 with float parts in FP16, as TensorRT computes them: their rounding changes labels, but it
# loses no class.
SAME_LABELS_BESIDE_FP16 = 0.98

LOST_IOU = 0.9  # a class is lost if the IoU of its pixels in both label maps is lower
_SEEN_SHARE = 0.001  # classes with a smaller share of the pixels are not judged

# Float: a pixel is wrong if the file's logit of the engine's class is further below the highest
# logit than rounding explains. ROUNDING is that distance, in standard deviations of the logits;
# WRONG_PIXELS is the largest share of wrong pixels.
ROUNDING = {"fp32": 0.01, "fp16": 0.25, "bf16": 0.25}
WRONG_PIXELS = {"fp32": 0.001, "fp16": 0.01, "bf16": 0.01}
# Networks that return labels have no logits to compare: the least share of equal labels.
SAME_LABELS_FLOAT = {"fp32": 0.99, "fp16": 0.9, "bf16": 0.9}


@dataclass(frozen=True)
class Reference:
    """Hold the labels and logits of the ONNX file for a few frames.

    Attributes
    ----------
    frames : (H, W, 3) uint8 BGR each, at the network's input size.
    labels : (H, W) uint8 each, from ONNX Runtime.
    scores : logits, (classes, H, W) float32 each; empty if the network returns labels.
    runtime : name and version of the runtime.

    Examples
    --------
    >>> frame = np.zeros((2, 4, 3), np.uint8)
    >>> wanted = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
    >>> known = Reference((frame,), (wanted,), (), "ONNX Runtime")
    >>> known.agreement(lambda frame: np.zeros((2, 4), np.uint8))
    0.5
    >>> known.lost_class(lambda frame: np.zeros((2, 4), np.uint8))
    0
    """

    frames: tuple[Image, ...]
    labels: tuple[Image, ...]
    scores: tuple[Float, ...]
    runtime: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the passport."""
        return {"frames": len(self.frames), "against": self.runtime}

    def agreement(self, label: Callable[[Image], Image]) -> float:
        """Return the share of all pixels that ``label`` gives the same class as the file.

        Parameters
        ----------
        label : function from (H, W, 3) uint8 BGR to (H, W) uint8.
        """
        shares = []
        for frame, wanted in zip(self.frames, self.labels, strict=True):
            found = np.asarray(label(frame))
            shares.append(np.mean(found == wanted))
        return float(np.mean(shares))

    def lost_class(self, label: Callable[[Image], Image]) -> int | None:
        """Return the id of a class that ``label`` finds elsewhere than the file; ``None`` if none.

        A class is lost if its IoU between both is below ``LOST_IOU``. Classes with less than 0.1 %
        of the file's pixels are not judged.

        Parameters
        ----------
        label : function from (H, W, 3) uint8 BGR to (H, W) uint8.
        """
        # Count the pixels of each class: in both label maps, in the file's, in ours.
        both = np.zeros(256, np.int64)
        theirs = np.zeros(256, np.int64)
        ours = np.zeros(256, np.int64)
        for frame, wanted in zip(self.frames, self.labels, strict=True):
            found = np.asarray(label(frame))
            both += np.bincount(wanted[wanted == found], minlength=256)
            theirs += np.bincount(wanted.ravel(), minlength=256)
            ours += np.bincount(found.ravel(), minlength=256)

        seen = np.flatnonzero(theirs > _SEEN_SHARE * theirs.sum())
        for class_id in seen.tolist():
            union = theirs[class_id] + ours[class_id] - both[class_id]
            if both[class_id] < LOST_IOU * union:
                return int(class_id)
        return None

    def wrong_pixels(self, label: Callable[[Image], Image], rounding: float) -> float:
        """Return the share of pixels whose class rounding does not explain.

        Parameters
        ----------
        label : function from (H, W, 3) uint8 BGR to (H, W) uint8.
        rounding : how far the logit of the chosen class may be below the highest one, in standard
            deviations of all logits.
        """
        shares = []
        for frame, logits in zip(self.frames, self.scores, strict=True):
            found = np.asarray(label(frame))
            allowed = rounding * float(np.std(logits))
            if int(found.max()) >= len(logits):
                return 1.0

            chosen = np.take_along_axis(logits, found[None].astype(np.int64), axis=0)[0]
            with np.errstate(invalid="ignore"):
                wrong = logits.max(axis=0) - chosen > allowed
                shares.append(float(np.mean(wrong)))
        return float(np.mean(shares))


def reference(network: Network, frames: Iterable[Image] | None) -> Reference | None:
    """Label frames with the ONNX file itself, in ONNX Runtime.

    Parameters
    ----------
    network : a float network or a Q/DQ network.
    frames : (H, W, 3) uint8 BGR, of any size; ``frames_needed`` of them are used. ``None``: frames
        of the synthetic drive.

    Returns
    -------
    The reference, or ``None`` if ONNX Runtime cannot run the file.

    Raises
    ------
    GraphError : the network gives NaN on a frame.
    """
    import onnxruntime

    # Choose the frames and resize them to the network's input.
    size = network.spec.input_size
    chosen: list[Image] = []
    if frames is not None:
        chosen = list(itertools.islice(frames, frames_needed(size)))
    fitted = tuple(
        np.ascontiguousarray(resize_frame(f, size)) for f in chosen or synthetic_frames()
    )

    # Build a graph with labels and, if the network has them, logits.
    has_logits = network.form != "labels"
    model = lower(network, LoweringOptions(for_openvino=False, both=has_logits)).model
    outputs = ["labels", "scores"] if has_logits else ["labels"]

    # Run it without any optimization, and without log messages.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found = [session.run(outputs, {"frame": frame[None]}) for frame in fitted]
    except Exception:  # ONNX Runtime's exceptions share no base but Exception
        return None

    logits: tuple[Float, ...] = ()
    if has_logits:
        logits = tuple(np.asarray(one[1][0], np.float32) for one in found)
        _require_numbers(network, logits)
    return Reference(
        frames=fitted,
        labels=tuple(np.asarray(one[0][0], np.uint8) for one in found),
        scores=logits,
        runtime=f"ONNX Runtime {onnxruntime.__version__}",
    )


def _require_numbers(network: Network, logits: Iterable[Float]) -> None:
    """Raise ``GraphError`` if the network gives NaN on a frame: its labels mean nothing there."""
    for frame, scores in enumerate(logits):
        if np.isnan(scores).any():
            raise GraphError(
                f"{network.name}: gives scores that are not numbers",
                got=f"NaN in {np.isnan(scores).mean():.1%} of the scores of trial frame {frame}",
                hint="Check `mean`, `std` and `scale`; or export an earlier checkpoint.",
            )


def frames_needed(size: tuple[int, int]) -> int:
    """Return how many frames prove an engine: few labels prove little.

    Parameters
    ----------
    size : (H, W) of the network's input.

    Examples
    --------
    >>> frames_needed((360, 480)), frames_needed((180, 240)), frames_needed((32, 32))
    (2, 5, 8)
    """
    wanted = -(-PROOF_PIXELS // (size[0] * size[1]))  # rounded up
    return min(max(wanted, PROOF_FRAMES), MOST_FRAMES)


@functools.cache
def synthetic_frames() -> tuple[Image, ...]:
    """Return two frames of the synthetic drive, (360, 480, 3) uint8 BGR, far apart."""
    from edgeseg.data import open_dataset

    drive = open_dataset(_DRIVE, "train")
    last = len(drive) - 1
    return tuple(drive[index].image for index in (0, last))


def least_agreement(network: Network) -> float:
    """Return the least share of labels that an INT8 engine must have in common with its file.

    Parameters
    ----------
    network : a Q/DQ network.
    """
    if has_power_of_two_scales(network):
        return SAME_LABELS_INT8
    return SAME_LABELS_INT8_ANY_SCALE


def has_power_of_two_scales(network: Network) -> bool:
    """Return True if every scale of a Q/DQ network is a power of two.

    Parameters
    ----------
    network : a Q/DQ network.
    """
    from onnx import numpy_helper

    graph = network.model.graph
    qdq = ("QuantizeLinear", "DequantizeLinear")
    names = {node.input[1] for node in graph.node if node.op_type in qdq}
    scales = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in names]

    # The mantissa of a power of two is 0.5.
    return all(bool(np.all(np.frexp(scale)[0] == 0.5)) for scale in scales)


@dataclass(frozen=True)
class Verdict:
    """Hold the result of comparing an engine with its ONNX file.

    Attributes
    ----------
    passed : True if the engine labels as its file does.
    agreement : share of equal labels, 0 to 1.
    pixels : number of labels compared.
    least_agreement : the share that was required; ``None`` if logits were compared.
    wrong_pixels : share that ``Reference.wrong_pixels`` returned; ``None`` if labels were compared.

    Examples
    --------
    >>> Verdict(True, agreement=1.0, pixels=100_000).is_surely(0.999)
    True
    >>> Verdict(True, agreement=1.0, pixels=1_000).is_surely(0.999)  # too few pixels to be sure
    False
    """

    passed: bool
    agreement: float
    pixels: int
    least_agreement: float | None = None
    wrong_pixels: float | None = None

    def is_surely(self, least: float) -> bool:
        """Return True if the agreement is very likely at least ``least`` on other frames, too.

        The check adds three standard deviations (of a Poisson distribution) to the number of labels
        that differ.

        Parameters
        ----------
        least : share of equal labels, 0 to 1.
        """
        different = round((1 - self.agreement) * self.pixels)
        at_most = different + 3 * different**0.5 + 3
        return bool(at_most <= (1 - least) * self.pixels)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the passport."""
        facts = {
            "agreement": self.agreement,
            "least_agreement": self.least_agreement,
            "wrong_pixels": self.wrong_pixels,
        }
        return {key: round(value, 6) for key, value in facts.items() if value is not None}


def judge(
    known: Reference, label: Callable[[Image], Image], precision: str, least: float | None = None
) -> Verdict:
    """Compare an engine's labels with the file's.

    Parameters
    ----------
    known : labels and logits of the file.
    label : the engine: function from (H, W, 3) uint8 BGR at the network's size to (H, W) uint8.
    precision : ``fp32``, ``bf16``, ``fp16``, or an INT8 one.
    least : for INT8, the least share of equal labels.

    Examples
    --------
    >>> labels = np.array([[0, 1]], np.uint8)
    >>> known = Reference((np.zeros((1, 2, 3), np.uint8),), (labels,), (), "ONNX Runtime")
    >>> judge(known, lambda frame: labels, "int8", least=0.999).passed
    True
    """
    # Run the engine once per frame; the steps below read the kept labels.
    labels = {id(frame): np.array(label(frame)) for frame in known.frames}

    def once(frame: Image) -> Image:
        return labels[id(frame)]

    agreement = known.agreement(once)
    pixels = sum(wanted.size for wanted in known.labels)

    # INT8: compare labels.
    if precision not in ROUNDING:
        assert least is not None
        passed = agreement >= least and known.lost_class(once) is None
        return Verdict(passed, agreement, pixels, least)

    # Float without logits: compare labels, less strictly.
    if not known.scores:
        least = SAME_LABELS_FLOAT[precision]
        return Verdict(agreement >= least, agreement, pixels, least)

    # Float: compare logits.
    wrong = known.wrong_pixels(once, ROUNDING[precision])
    return Verdict(wrong <= WRONG_PIXELS[precision], agreement, pixels, wrong_pixels=wrong)


def failed(
    name: str, precision: str, verdict: Verdict, runtimes: Sequence[str]
) -> CheckFailedError:
    """Return the error for an engine whose labels differ too much from its file's.

    Parameters
    ----------
    name : the network's name.
    precision : the engine's precision.
    verdict : the result of ``judge``.
    runtimes : names and versions of both runtimes.

    Examples
    --------
    >>> print(failed("net", "int8", Verdict(False, 0.5, 100, 0.999), ["A 1", "B 2"]).got)
    50.00 % of the labels equal
    """
    got = f"{100 * verdict.agreement:.2f} % of the labels equal"
    expected = None
    if verdict.least_agreement is not None:
        expected = f"at least {100 * verdict.least_agreement:g} %, and no class lost"
    elif verdict.wrong_pixels is not None:
        got += f", {100 * verdict.wrong_pixels:.2f} % of the pixels beyond rounding"
        expected = f"at most {100 * WRONG_PIXELS[precision]:g} % beyond rounding"
    return CheckFailedError(
        f"{name}: the {precision} engine does not label as the ONNX file does "
        f"({', '.join(runtimes)})",
        got=got,
        expected=expected,
        hint="Try another precision or another version of the runtime. Without the proof it is "
        "built all the same.",
    )
