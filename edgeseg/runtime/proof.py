"""Prove an engine: does it label frames as its ONNX file does in ONNX Runtime?

A compiler can be wrong for one net on one kind of processor and right everywhere else. So every build labels a few
frames twice: by the file in ONNX Runtime (no fused kernels: each operator as the standard has it), and by the engine.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.errors import CheckFailedError
from edgeseg.export.deploy import deploy
from edgeseg.export.network import Network
from edgeseg.preprocess import resize_frame

Image = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]

PROOF_FRAMES = 2  # at least; more of a small net's, up to MOST_FRAMES or PROOF_PIXELS
MOST_FRAMES = 8
PROOF_PIXELS = 200_000
_DRIVE = "synthetic://?length=8&size=480x360&seed=3"  # frames to look at where there are no others

# INT8: the least share of labels that are the file's. Sums of integers are exact; with scales that are powers of two so
# is the rest, but for layers left in float.
SAME_LABELS_INT8 = 0.999
SAME_LABELS_INT8_ANY_SCALE = 0.995
# INT8 whose float parts are FP16, as TensorRT has them: their rounding changes labels, but no class.
SAME_LABELS_BESIDE_FP16 = 0.98

LOST_IOU = 0.9  # a class is lost if the IoU of its pixels in both label maps is below
_SEEN_SHARE = 0.001  # of the pixels: classes with fewer are not judged

# Float: a label counts as another one only if the file's own score of it is below the highest by more than rounding
# explains, in standard deviations of the scores; the largest share of such pixels.
ROUNDING = {"fp32": 0.01, "fp16": 0.25, "bf16": 0.25}
WRONG_PIXELS = {"fp32": 0.001, "fp16": 0.01, "bf16": 0.01}
# Nets that give labels have no scores to compare: the least share of equal labels.
SAME_LABELS_FLOAT = {"fp32": 0.99, "fp16": 0.9, "bf16": 0.9}


@dataclass(frozen=True)
class Reference:
    """What the file gives for a few frames.

    Attributes
    ----------
    frames : (H, W, 3) uint8 BGR, at the net's input size.
    labels : (H, W) uint8 each, from ONNX Runtime.
    scores : (classes, H, W) float32 each; empty for a net that gives labels.
    runtime : name and version of the runtime.
    """

    frames: tuple[Image, ...]
    labels: tuple[Image, ...]
    scores: tuple[Float, ...]
    runtime: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the passport."""
        return {"frames": len(self.frames), "against": self.runtime}

    def agreement(self, label: Callable[[Image], Image]) -> float:
        """Return the share of all pixels that ``label`` gives the file's class."""
        same = [np.mean(np.asarray(label(f)) == want) for f, want in zip(self.frames, self.labels, strict=True)]
        return float(np.mean(same))

    def lost_class(self, label: Callable[[Image], Image]) -> int | None:
        """Return the id of a class that ``label`` puts elsewhere than the file does; ``None`` if there is none.

        Classes with less than 0.1 % of the file's pixels are not judged.
        """
        both, theirs, ours = (np.zeros(256, np.int64) for _ in range(3))
        for frame, want in zip(self.frames, self.labels, strict=True):
            found = np.asarray(label(frame))
            both += np.bincount(want[want == found], minlength=256)
            theirs += np.bincount(want.ravel(), minlength=256)
            ours += np.bincount(found.ravel(), minlength=256)
        for c in np.flatnonzero(theirs > _SEEN_SHARE * theirs.sum()).tolist():
            if both[c] < LOST_IOU * (theirs[c] + ours[c] - both[c]):
                return int(c)
        return None

    def wrong_pixels(self, label: Callable[[Image], Image], rounding: float) -> float:
        """Return the share of pixels whose class rounding does not explain.

        Parameters
        ----------
        label : (H, W, 3) uint8 -> (H, W) uint8.
        rounding : how far below the highest score another one may be, in standard deviations of all scores.
        """
        shares = []
        for frame, scores in zip(self.frames, self.scores, strict=True):
            found = np.asarray(label(frame))
            allowed = rounding * float(np.std(scores))
            if int(found.max()) >= len(scores):
                return 1.0
            chosen = np.take_along_axis(scores, found[None].astype(np.int64), axis=0)[0]
            with np.errstate(invalid="ignore"):
                shares.append(float(np.mean(scores.max(axis=0) - chosen > allowed)))
        return float(np.mean(shares))


def reference(network: Network, frames: Iterable[Image] | None) -> Reference | None:
    """Label frames by the file itself, in ONNX Runtime.

    Parameters
    ----------
    network : a float net or a Q/DQ net.
    frames : of any size, (H, W, 3) uint8 BGR; as many are used as ``frames_needed`` says. ``None``: frames of the
        synthetic drive.

    Returns
    -------
    The reference, or ``None`` if ONNX Runtime cannot run the file.
    """
    import onnxruntime

    size = network.spec.input_size
    chosen = list(itertools.islice(frames, frames_needed(size))) if frames is not None else []
    fitted = tuple(np.ascontiguousarray(resize_frame(f, size)) for f in chosen or synthetic_frames())
    has_scores = network.form != "labels"
    model = deploy(network, for_openvino=False, both=has_scores)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        outputs = ["labels", "scores"] if has_scores else ["labels"]
        found = [session.run(outputs, {"frame": frame[None]}) for frame in fitted]
    except Exception:  # ONNX Runtime's exceptions share no base but Exception
        return None
    return Reference(
        frames=fitted,
        labels=tuple(np.asarray(one[0][0], np.uint8) for one in found),
        scores=tuple(np.asarray(one[1][0], np.float32) for one in found) if has_scores else (),
        runtime=f"ONNX Runtime {onnxruntime.__version__}",
    )


def frames_needed(size: tuple[int, int]) -> int:
    """Return how many frames prove a net of input ``size`` (H, W): few labels prove little."""
    wanted = -(-PROOF_PIXELS // (size[0] * size[1]))
    return min(max(wanted, PROOF_FRAMES), MOST_FRAMES)


@functools.cache
def synthetic_frames() -> tuple[Image, ...]:
    """Return two frames of the synthetic drive, (360, 480, 3) uint8 BGR, far apart."""
    from edgeseg.data import open_dataset

    drive = open_dataset(_DRIVE, "train")
    return tuple(drive[index].image for index in (0, len(drive) - 1))


def least_agreement(network: Network) -> float:
    """Return the least share of labels that an INT8 engine must have in common with its file."""
    return SAME_LABELS_INT8 if has_power_of_two_scales(network) else SAME_LABELS_INT8_ANY_SCALE


def has_power_of_two_scales(network: Network) -> bool:
    """Return whether every scale of a Q/DQ net is a power of two."""
    from onnx import numpy_helper

    names = {n.input[1] for n in network.model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}
    scales = [numpy_helper.to_array(t) for t in network.model.graph.initializer if t.name in names]
    return all(bool(np.all(np.frexp(s)[0] == 0.5)) for s in scales)


@dataclass(frozen=True)
class Verdict:
    """Whether an engine labels as its file does.

    ``agreement`` is the share of equal labels; ``wrong_pixels`` is as ``Reference`` has it.
    """

    passed: bool
    agreement: float
    pixels: int
    least_agreement: float | None = None
    wrong_pixels: float | None = None

    def is_surely(self, least: float) -> bool:
        """Return whether the agreement is at least ``least`` on other frames, too, as far as these can tell.

        The number of different labels is taken three of its deviations (of a Poisson distribution) too high.
        """
        different = round((1 - self.agreement) * self.pixels)
        return bool(different + 3 * different**0.5 + 3 <= (1 - least) * self.pixels)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the passport."""
        facts = {
            "agreement": self.agreement,
            "least_agreement": self.least_agreement,
            "wrong_pixels": self.wrong_pixels,
        }
        return {key: round(value, 6) for key, value in facts.items() if value is not None}


def judge(known: Reference, label: Callable[[Image], Image], precision: str, least: float | None = None) -> Verdict:
    """Compare an engine's labels with the file's.

    Parameters
    ----------
    known : what the file gives.
    label : the engine, (H, W, 3) uint8 BGR at the net's size -> (H, W) uint8.
    precision : ``fp32``, ``bf16``, ``fp16``, or an INT8 one.
    least : of INT8, the least share of equal labels.
    """
    labels = {id(frame): np.array(label(frame)) for frame in known.frames}

    def once(frame: Image) -> Image:
        return labels[id(frame)]

    agreement = known.agreement(once)
    pixels = sum(want.size for want in known.labels)
    if precision not in ROUNDING:
        assert least is not None
        return Verdict(agreement >= least and known.lost_class(once) is None, agreement, pixels, least)
    if not known.scores:
        least = SAME_LABELS_FLOAT[precision]
        return Verdict(agreement >= least, agreement, pixels, least)
    wrong = known.wrong_pixels(once, ROUNDING[precision])
    return Verdict(wrong <= WRONG_PIXELS[precision], agreement, pixels, wrong_pixels=wrong)


def failed(name: str, precision: str, verdict: Verdict, runtimes: Sequence[str]) -> CheckFailedError:
    """Return the error of an engine that labels otherwise than its file."""
    got, expected = f"{100 * verdict.agreement:.2f} % of the labels equal", None
    if verdict.least_agreement is not None:
        expected = f"at least {100 * verdict.least_agreement:g} %, and no class lost"
    elif verdict.wrong_pixels is not None:
        got += f", {100 * verdict.wrong_pixels:.2f} % of the pixels beyond rounding"
        expected = f"at most {100 * WRONG_PIXELS[precision]:g} % beyond rounding"
    return CheckFailedError(
        f"{name}: the {precision} engine does not label as the ONNX file does ({', '.join(runtimes)})",
        got=got,
        expected=expected,
        hint="Try another precision or another version of the runtime. Without the proof it is built all the same.",
    )
