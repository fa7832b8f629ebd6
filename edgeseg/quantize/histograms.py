"""Streamed statistics of activations: a float net is run on frames, and of every tensor a histogram is kept, no values.

Memory does not grow with the number of frames. A histogram is over |x|, has ``BINS`` bins of equal width, and its range
is the smallest power of two above the largest |x|: when a larger one comes, neighbouring bins are merged. Scaling by a
power of two is exact in floating point, so the result is bit for bit that of one pass over all values at once, in any
order of the frames.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from edgeseg.errors import GraphError, InputError
from edgeseg.graph.graph import copied, infer_shapes
from edgeseg.types import Float, Image, Vector

Counts = npt.NDArray[np.int64]

BINS = 4096
_CHUNK = 1 << 16  # values at a time: 256 KiB of float32 stay in the second-level cache
_SMALLEST_TOP = 2.0**-100  # keeps BINS / top inside float32
# Of activations held at once; a SegNet of 352x480 has 0.7 GB of them. Not smaller: every group has its own copy of the
# weights and runs the net from its beginning, so many small groups take more memory and time than one.
_GROUP_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Statistics:
    """What was seen of ``tensors``, one row each.

    ``minimum``, ``maximum``, ``top`` (tensors,) float64: the extremes, exact, and the histogram's range (0: no value
    but zero came). ``elements``, ``zeros`` (tensors,) int64: all values, and those exactly zero. ``histogram``
    (tensors, BINS) int64: bin ``b`` counts values other than zero with ``b <= |x| * BINS / top < b + 1``.
    """

    tensors: tuple[str, ...]
    frames: int
    minimum: Vector
    maximum: Vector
    top: Vector
    elements: Counts
    zeros: Counts
    histogram: Counts

    @property
    def largest(self) -> Vector:
        """Largest |x| of every tensor, (tensors,) float64."""
        return np.maximum(np.abs(self.minimum), np.abs(self.maximum))

    def merged(self, other: "Statistics") -> "Statistics":
        """The statistics of both sets of frames together; exact."""
        assert self.tensors == other.tensors
        rows = []
        for one, two in zip(_tallies(self), _tallies(other), strict=True):
            top = max(one.top, two.top)
            one.widen(top)
            two.widen(top)
            one.histogram += two.histogram
            one.zeros, one.elements = one.zeros + two.zeros, one.elements + two.elements
            one.minimum, one.maximum = min(one.minimum, two.minimum), max(one.maximum, two.maximum)
            rows.append(one)
        return _statistics(self.tensors, rows, self.frames + other.frames)


class Tally:
    """The statistics of one tensor while it is watched; see ``Statistics`` for the fields."""

    def __init__(self) -> None:
        self.minimum, self.maximum, self.top = np.inf, -np.inf, 0.0
        self.elements = self.zeros = 0
        self.histogram: Counts = np.zeros(BINS, np.int64)

    def add(self, values: Float) -> None:
        """Count an array of any shape. Raises ``ValueError`` where it holds NaN or infinity."""
        flat = values.reshape(-1)
        magnitude, bins = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.intp)
        for start in range(0, flat.size, _CHUNK):
            chunk = flat[start : start + _CHUNK]
            low, high = float(chunk.min()), float(chunk.max())
            largest = max(-low, high)  # NaN in one is NaN in both
            if not largest < np.inf:
                raise ValueError("NaN" if largest != largest else "infinity")
            self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
            self.elements += chunk.size
            zeros = chunk.size - int(np.count_nonzero(chunk))
            self.zeros += zeros
            if largest == 0.0:
                continue
            self.widen(_power_above(largest))
            size, place = magnitude[: chunk.size], bins[: chunk.size]
            np.abs(chunk, out=size)
            size *= np.float32(BINS / self.top)
            place[:] = size
            self.histogram += np.bincount(place, minlength=BINS)
            self.histogram[0] -= zeros

    def widen(self, top: float) -> None:
        """Merge neighbouring bins until the range is ``top``, a power of two; a wider one stays."""
        if self.top == 0.0:
            self.top = top
        while self.top < top:
            pairs = self.histogram.reshape(-1, 2).sum(axis=1)
            self.histogram = np.concatenate([pairs, np.zeros_like(pairs)])
            self.top *= 2


def _power_above(value: float) -> float:
    """The smallest power of two above ``value`` (but never so small that the bins' scale leaves float32)."""
    return max(float(np.ldexp(1.0, int(np.frexp(value)[1]))), _SMALLEST_TOP)


def _tallies(statistics: Statistics) -> list[Tally]:
    made = []
    for row in range(len(statistics.tensors)):
        tally = Tally()
        tally.minimum, tally.maximum = float(statistics.minimum[row]), float(statistics.maximum[row])
        tally.top, tally.histogram = float(statistics.top[row]), statistics.histogram[row].copy()
        tally.elements, tally.zeros = int(statistics.elements[row]), int(statistics.zeros[row])
        made.append(tally)
    return made


def _statistics(tensors: Sequence[str], tallies: Sequence[Tally], frames: int) -> Statistics:
    return Statistics(
        tuple(tensors),
        frames,
        minimum=np.array([t.minimum for t in tallies], np.float64),
        maximum=np.array([t.maximum for t in tallies], np.float64),
        top=np.array([t.top for t in tallies], np.float64),
        elements=np.array([t.elements for t in tallies], np.int64),
        zeros=np.array([t.zeros for t in tallies], np.int64),
        histogram=np.array([t.histogram for t in tallies], np.int64).reshape(-1, BINS),
    )


def collect(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    inputs: Iterable[Float | Image],
    *,
    on_frame: Callable[[int], None] | None = None,
) -> Statistics:
    """Run ``model`` on ``inputs`` in ONNX Runtime and keep the statistics of ``tensors``.

    Parameters
    ----------
    model : a float net with one image input; standard ``MaxPool`` with indices and ``MaxUnpool`` are fine.
    tensors : names of float activations; the image input may be one of them.
    inputs : what ``preprocess.to_input`` gives, one frame at a time: (1, 3, H, W) float32, or (1, H, W, 3);
        of a deployed graph (1, H, W, 3) uint8.
    on_frame : called with the number of frames done.

    Raises
    ------
    GraphError : a name the net lacks, an activation that is not float, or one that is NaN or infinite (it is named).
    InputError : no frames.
    """
    return collect_parts(model, tensors, inputs, lambda _: 0, on_frame=on_frame)[0]


def collect_parts(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    inputs: Iterable[Float | Image],
    part_of: Callable[[int], int],
    *,
    on_frame: Callable[[int], None] | None = None,
) -> list[Statistics]:
    """As ``collect``, with frame ``i`` (from 0) counted into part ``part_of(i)``: ``merged`` gives any sum of parts."""
    names = list(dict.fromkeys(tensors))
    runner: _Runner | None = None
    parts: dict[int, dict[str, Tally]] = {}
    frames: dict[int, int] = {}
    for index, image in enumerate(inputs):
        runner = runner or _Runner(model, names, image)
        part = part_of(index)
        tallies = parts.setdefault(part, {name: Tally() for name in names})
        frames[part] = frames.get(part, 0) + 1
        for name, values in runner(image):
            try:
                tallies[name].add(values)
            except ValueError as error:
                raise GraphError(
                    f"activation {name!r} holds {error} on calibration frame {index + 1}",
                    expected="finite numbers",
                    hint="The float net itself is at fault: check its weights and its `mean`, `std` and `scale`.",
                ) from error
        if on_frame:
            on_frame(index + 1)
    if not parts:
        raise InputError("no frames to calibrate on", expected="at least one")
    return [_statistics(names, [parts[p][n] for n in names], frames[p]) for p in sorted(parts)]


class _Runner:
    """The net with the tensors as its outputs; in groups, each a session of its own, where they would fill memory."""

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str], image: Float | Image) -> None:
        constants = {t.name for t in model.graph.initializer}
        sources = [i for i in model.graph.input if i.name not in constants]
        if len(sources) != 1:
            raise GraphError("a net with one image input is needed", got=f"{len(sources)} inputs")
        self._input = sources[0].name
        self._dtype = helper.tensor_dtype_to_np_dtype(sources[0].type.tensor_type.elem_type)
        model = _for_shape(model, self._input, image.shape)
        self._watch_input = self._input in tensors
        order = {name: place for place, node in enumerate(model.graph.node) for name in node.output}
        unknown = [name for name in tensors if name not in order and name != self._input]
        if unknown:
            raise GraphError("the net has no such activation", got=", ".join(map(repr, unknown[:3])))
        inner = sorted((name for name in tensors if name != self._input), key=order.__getitem__)
        sizes = _bytes_of(model, self._input, image.shape)
        self._sessions = [(group, _session(model, group)) for group in _groups(inner, sizes)]

    def __call__(self, image: Float | Image) -> "Iterable[tuple[str, Float]]":
        if self._watch_input:
            yield self._input, np.asarray(image, np.float32)
        for group, session in self._sessions:
            try:
                outputs = session.run(None, {self._input: image.astype(self._dtype, copy=False)})
            except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
                raise _cannot_run(error) from error
            for place, name in enumerate(group):
                values, outputs[place] = outputs[place], None  # let go of each as it is counted
                if values.dtype not in (np.float32, np.float16, np.float64):
                    raise GraphError(f"activation {name!r} has no range to calibrate", got=values.dtype)
                yield name, np.asarray(values, np.float32)


def _for_shape(model: onnx.ModelProto, source: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """``model``, or a copy that takes images of ``shape`` where the file says another batch or size."""
    dims = next(i for i in model.graph.input if i.name == source).type.tensor_type.shape.dim
    if all(not dim.dim_value or dim.dim_value == length for dim, length in zip(dims, shape, strict=False)):
        return model
    return _sized(model, source, shape)


def _sized(model: onnx.ModelProto, source: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A copy that takes images of ``shape``."""
    copy = copied(model)
    dims = next(i for i in copy.graph.input if i.name == source).type.tensor_type.shape.dim
    for dim, length in zip(dims, shape, strict=False):
        dim.dim_value = length
    del copy.graph.value_info[:]
    return copy


def _bytes_of(model: onnx.ModelProto, source: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Size of every activation as float32 for an input of ``shape``; those that inference cannot tell are left out."""
    copy = _sized(model, source, shape)
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        copy = infer_shapes(copy)
    except Exception:  # an odd operator may defeat inference: the groups are then formed without sizes
        return {}
    found = {}
    for value in [*copy.graph.value_info, *copy.graph.output]:
        lengths = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if lengths and all(lengths):
            found[value.name] = 4 * int(np.prod(lengths))
    return found


def _groups(tensors: Sequence[str], sizes: dict[str, int]) -> list[list[str]]:
    """Consecutive tensors whose sizes sum to at most ``_GROUP_BYTES``; an unknown size counts as the largest known."""
    unknown = max(sizes.values(), default=0)
    groups: list[list[str]] = []
    filled = 0
    for name in tensors:
        size = sizes.get(name, unknown)
        if not groups or filled + size > _GROUP_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def _session(model: onnx.ModelProto, outputs: Sequence[str]) -> Any:
    """ONNX Runtime on ``model`` with only ``outputs``: what they do not need is not computed."""
    import onnxruntime

    copy = copied(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.enable_cpu_mem_arena = False  # an arena keeps a group's activations while the next group runs
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise _cannot_run(error) from error


def _cannot_run(error: Exception) -> GraphError:
    told = " ".join(line.strip() for line in str(error).splitlines())
    return GraphError("ONNX Runtime cannot run the float net", got=told[:300])


# Operators whose inputs an INT8 graph may quantize, and how many of their inputs are activations.
_WATCHED = {
    "Conv": 1, "ConvTranspose": 1, "Gemm": 2, "MatMul": 2, "Add": 2, "Concat": None, "MaxPool": 1, "MaxUnpool": 1
}  # fmt: skip
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}


def tensors_to_watch(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the float activations that feed what an INT8 graph may quantize, in the order of the graph."""
    fixed = {tensor.name for tensor in model.graph.initializer} | {""}
    kinds = _element_types(model)
    found: dict[str, None] = {}
    for node in model.graph.node:
        if all(name in fixed for name in node.input):  # weights behind an Identity or a Transpose are no activations
            fixed.update(node.output)
            continue
        for name in node.input[: _WATCHED.get(node.op_type, 0)]:
            if name not in fixed and kinds.get(name, onnx.TensorProto.FLOAT) in _FLOATS:
                found[name] = None
    return tuple(found)


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types as far as inference can tell."""
    with contextlib.suppress(Exception):  # an odd operator may defeat inference: what is no float is said later
        model = infer_shapes(model)
    values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return {v.name: v.type.tensor_type.elem_type for v in values if v.type.tensor_type.elem_type}
