"""Collect statistics of activations: run a float graph on frames and keep a histogram per tensor.

Values are not kept, so memory does not grow with the number of frames. A histogram is over |x| and
has ``BINS`` bins of equal width. Its range is the smallest power of two above the largest |x|. If a
larger value comes, neighbouring bins are merged. Scaling by a power of two is exact in floating
point, so the result is bit for bit that of one pass over all values at once, in any order of the
frames.
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
from edgeseg.graph.graph import infer_shapes
from edgeseg.graph.nodes import copied
from edgeseg.reporter import SILENT, Reporter, track
from edgeseg.types import Float, Image, Vector

Counts = npt.NDArray[np.int64]

BINS = 4096
# Values that are counted at a time: 256 KiB of float32 stay in the second-level cache.
_CHUNK = 1 << 16
# Smallest range of a histogram: it keeps BINS / top inside float32.
_SMALLEST_TOP = 2.0**-100
# Bytes of activations that are held at once; a SegNet of 352x480 has 0.7 GB of them. It is not
# smaller because every group has its own copy of the weights and runs the graph from its beginning:
# many small groups take more memory and time than one.
_GROUP_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Statistics:
    """Hold the statistics of some tensors, one row per tensor.

    Attributes
    ----------
    tensors : names of the tensors.
    frames : number of frames.
    minimum, maximum : (tensors,) float64, the exact extremes.
    top : (tensors,) float64, the range of the histogram; 0 if all values were zero.
    elements : (tensors,) int64, the number of values.
    zeros : (tensors,) int64, the number of values that are exactly zero.
    histogram : (tensors, BINS) int64; bin ``b`` counts the values other than zero with
        ``b <= |x| * BINS / top < b + 1``.
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
        """Return the largest |x| of every tensor, (tensors,) float64."""
        return np.maximum(np.abs(self.minimum), np.abs(self.maximum))

    def merged(self, other: "Statistics") -> "Statistics":
        """Return the exact statistics of both sets of frames together.

        Parameters
        ----------
        other : statistics of the same tensors on other frames.
        """
        assert self.tensors == other.tensors
        rows = []
        for one, two in zip(_tallies(self), _tallies(other), strict=True):
            # Bring both histograms to one range.
            top = max(one.top, two.top)
            one.widen(top)
            two.widen(top)

            one.histogram += two.histogram
            one.zeros += two.zeros
            one.elements += two.elements
            one.minimum = min(one.minimum, two.minimum)
            one.maximum = max(one.maximum, two.maximum)
            rows.append(one)
        return _statistics(self.tensors, rows, self.frames + other.frames)


class Tally:
    """Count the values of one tensor; the attributes are those of ``Statistics``, for one tensor.

    Attributes
    ----------
    minimum, maximum : the extremes; infinite before the first value.
    top : range of the histogram; 0 if all values were zero.
    elements : number of values.
    zeros : number of values that are exactly zero.
    histogram : (BINS,) int64.

    Examples
    --------
    >>> tally = Tally()
    >>> tally.add(np.array([-0.5, 0.0, 3.0], np.float32))
    >>> tally.minimum, tally.maximum, tally.top, tally.zeros
    (-0.5, 3.0, 4.0, 1)
    """

    def __init__(self) -> None:
        self.minimum = np.inf
        self.maximum = -np.inf
        self.top = 0.0
        self.elements = 0
        self.zeros = 0
        self.histogram: Counts = np.zeros(BINS, np.int64)

    def add(self, values: Float) -> None:
        """Count an array.

        Parameters
        ----------
        values : float32 of any shape.

        Raises
        ------
        ValueError : a value is NaN or infinite.
        """
        flat = values.reshape(-1)
        magnitude = np.empty(_CHUNK, np.float32)
        bins = np.empty(_CHUNK, np.intp)
        for start in range(0, flat.size, _CHUNK):
            chunk = flat[start : start + _CHUNK]

            # Extremes. If the chunk holds a NaN, both of them are NaN.
            low = float(chunk.min())
            high = float(chunk.max())
            largest = max(-low, high)
            if not largest < np.inf:
                raise ValueError("NaN" if largest != largest else "infinity")
            self.minimum = min(self.minimum, low)
            self.maximum = max(self.maximum, high)

            # Numbers of values and of zeros.
            self.elements += chunk.size
            zeros = chunk.size - int(np.count_nonzero(chunk))
            self.zeros += zeros
            if largest == 0.0:
                continue

            # Histogram. Zeros fall into bin 0 and are taken out again.
            self.widen(_power_above(largest))
            size = magnitude[: chunk.size]
            place = bins[: chunk.size]
            np.abs(chunk, out=size)
            size *= np.float32(BINS / self.top)
            place[:] = size
            self.histogram += np.bincount(place, minlength=BINS)
            self.histogram[0] -= zeros

    def widen(self, top: float) -> None:
        """Merge neighbouring bins until the histogram's range is ``top``, if it is smaller.

        Parameters
        ----------
        top : a power of two.
        """
        if self.top == 0.0:
            self.top = top
        while self.top < top:
            pairs = self.histogram.reshape(-1, 2).sum(axis=1)
            self.histogram = np.concatenate([pairs, np.zeros_like(pairs)])
            self.top *= 2


def _power_above(value: float) -> float:
    """Return the smallest power of two above ``value``, but at least ``_SMALLEST_TOP``."""
    _, exponent = np.frexp(value)
    return max(float(np.ldexp(1.0, int(exponent))), _SMALLEST_TOP)


def _tallies(statistics: Statistics) -> list[Tally]:
    """Return a tally per tensor, which can be changed."""
    made = []
    for row in range(len(statistics.tensors)):
        tally = Tally()
        tally.minimum = float(statistics.minimum[row])
        tally.maximum = float(statistics.maximum[row])
        tally.top = float(statistics.top[row])
        tally.elements = int(statistics.elements[row])
        tally.zeros = int(statistics.zeros[row])
        tally.histogram = statistics.histogram[row].copy()
        made.append(tally)
    return made


def _statistics(tensors: Sequence[str], tallies: Sequence[Tally], frames: int) -> Statistics:
    """Return the statistics of some tensors, given one tally per tensor."""
    return Statistics(
        tuple(tensors),
        frames,
        minimum=np.array([tally.minimum for tally in tallies], np.float64),
        maximum=np.array([tally.maximum for tally in tallies], np.float64),
        top=np.array([tally.top for tally in tallies], np.float64),
        elements=np.array([tally.elements for tally in tallies], np.int64),
        zeros=np.array([tally.zeros for tally in tallies], np.int64),
        histogram=np.array([tally.histogram for tally in tallies], np.int64).reshape(-1, BINS),
    )


def collect(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    inputs: Iterable[Float | Image],
    *,
    total: int | None = None,
    reporter: Reporter = SILENT,
) -> Statistics:
    """Run a graph in ONNX Runtime and keep the statistics of some tensors.

    Parameters
    ----------
    model : a float graph with one image input. The standard operators ``MaxPool`` with indices and
        ``MaxUnpool`` may be in it.
    tensors : names of float activations; the image input may be one of them.
    inputs : one frame at a time, as ``preprocess.to_input`` returns it: (1, 3, H, W) float32, or
        (1, H, W, 3) float32 for a channels-last graph; (1, H, W, 3) uint8 for a deployed graph.
    total : number of inputs, for the progress; ``None`` if it is not known.
    reporter : receives the progress over the frames.

    Raises
    ------
    GraphError : the graph has no such activation, or an activation is not of a float type or holds
        NaN or infinity; the error names it.
    InputError : there are no frames.

    Examples
    --------
    >>> model = onnx.parser.parse_model('''
    ...     <ir_version: 9, opset_import: ["" : 17]>
    ...     g (float[1, 3, 2, 2] image) => (float[1, 3, 2, 2] out) { out = Relu(image) }''')
    >>> found = collect(model, ["out"], [np.full((1, 3, 2, 2), 2.0, np.float32)])
    >>> found.frames, found.elements.tolist(), found.largest.tolist()
    (1, [12], [2.0])
    """
    parts = collect_parts(model, tensors, inputs, lambda _: 0, total=total, reporter=reporter)
    return parts[0]


def collect_parts(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    inputs: Iterable[Float | Image],
    part_of: Callable[[int], int],
    *,
    total: int | None = None,
    reporter: Reporter = SILENT,
) -> list[Statistics]:
    """Run a graph as ``collect`` does, and keep separate statistics for parts of the frames.

    ``Statistics.merged`` adds parts.

    Parameters
    ----------
    model, tensors, inputs, total, reporter : as for ``collect``.
    part_of : returns the part that a frame belongs to; its argument is the frame's number, from 0.

    Returns
    -------
    The statistics of each part that has frames, in rising order of the parts.

    Raises
    ------
    GraphError : the graph has no such activation, or an activation is not of a float type or holds
        NaN or infinity; the error names it.
    InputError : there are no frames.
    """
    names = list(dict.fromkeys(tensors))
    runner: _Runner | None = None
    parts: dict[int, dict[str, Tally]] = {}
    frames: dict[int, int] = {}
    for index, image in enumerate(track(inputs, "calibrate", reporter, total)):
        if runner is None:
            runner = _Runner(model, names, image)  # it needs the first frame's shape
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
                    hint="Check the float network's weights, and `mean`, `std` and `scale`.",
                ) from error
    if not parts:
        raise InputError("no frames to calibrate on", expected="at least one")

    collected = []
    for part in sorted(parts):
        tallies = parts[part]
        collected.append(_statistics(names, [tallies[name] for name in names], frames[part]))
    return collected


class _Runner:
    """Run a graph with some tensors as its outputs.

    Tensors that would fill the memory are divided into groups, each with a session of its own.
    """

    def __init__(
        self, model: onnx.ModelProto, tensors: Sequence[str], image: Float | Image
    ) -> None:
        # The image input.
        constants = {tensor.name for tensor in model.graph.initializer}
        sources = [source for source in model.graph.input if source.name not in constants]
        if len(sources) != 1:
            raise GraphError("a graph with one image input is needed", got=f"{len(sources)} inputs")
        self._input = sources[0].name
        self._dtype = helper.tensor_dtype_to_np_dtype(sources[0].type.tensor_type.elem_type)
        self._watch_input = self._input in tensors

        # The other tensors, in the order of the graph.
        model = _for_shape(model, self._input, image.shape)
        order: dict[str, int] = {}
        for place, node in enumerate(model.graph.node):
            order.update(dict.fromkeys(node.output, place))
        inner = [name for name in tensors if name != self._input]
        unknown = [name for name in inner if name not in order]
        if unknown:
            raise GraphError(
                "the graph has no such activation", got=", ".join(map(repr, unknown[:3]))
            )
        inner.sort(key=order.__getitem__)

        # One session per group.
        sizes = _bytes_of(model, self._input, image.shape)
        self._sessions = [(group, _session(model, group)) for group in _groups(inner, sizes)]

    def __call__(self, image: Float | Image) -> "Iterable[tuple[str, Float]]":
        """Run the graph on one input and yield the name and the values of each tensor."""
        if self._watch_input:
            yield self._input, np.asarray(image, np.float32)
        for group, session in self._sessions:
            try:
                outputs = session.run(None, {self._input: image.astype(self._dtype, copy=False)})
            except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
                raise _cannot_run(error) from error
            for place, name in enumerate(group):
                values = outputs[place]
                outputs[place] = None  # free each one as soon as it is counted
                if values.dtype not in (np.float32, np.float16, np.float64):
                    raise GraphError(
                        f"activation {name!r} cannot be calibrated",
                        got=values.dtype,
                        expected="a float type",
                    )
                yield name, np.asarray(values, np.float32)


def _for_shape(model: onnx.ModelProto, source: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return the model, or a resized copy if its input has another batch or size than ``shape``."""
    for dim, length in zip(_dims(model, source), shape, strict=False):
        if dim.dim_value and dim.dim_value != length:
            return _sized(model, source, shape)
    return model


def _dims(model: onnx.ModelProto, source: str) -> Sequence[onnx.TensorShapeProto.Dimension]:
    """Return the dimensions of an input, which can be changed in place."""
    value = next(value for value in model.graph.input if value.name == source)
    dims: Sequence[onnx.TensorShapeProto.Dimension] = value.type.tensor_type.shape.dim
    return dims


def _sized(model: onnx.ModelProto, source: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return a copy whose input has a shape."""
    copy = copied(model)
    for dim, length in zip(_dims(copy, source), shape, strict=False):
        dim.dim_value = length
    del copy.graph.value_info[:]
    return copy


def _bytes_of(model: onnx.ModelProto, source: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Return the bytes of each activation as float32, for an input of ``shape``.

    Activations whose shape cannot be inferred are left out.
    """
    copy = _sized(model, source, shape)
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        copy = infer_shapes(copy)
    except Exception:  # some operators make inference fail: then groups are formed without sizes
        return {}

    found = {}
    for value in [*copy.graph.value_info, *copy.graph.output]:
        lengths = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if lengths and all(lengths):
            found[value.name] = 4 * int(np.prod(lengths))
    return found


def _groups(tensors: Sequence[str], sizes: dict[str, int]) -> list[list[str]]:
    """Divide tensors into groups of consecutive ones, each of at most ``_GROUP_BYTES``.

    An unknown size counts as the largest known one.
    """
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
    """Return an ONNX Runtime session with the given outputs; it computes only what they need."""
    import onnxruntime

    copy = copied(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # only errors
    options.enable_cpu_mem_arena = (
        False  # an arena keeps a group's activations while the next group runs
    )
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(
            copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise _cannot_run(error) from error


def _cannot_run(error: Exception) -> GraphError:
    """Return the error for a graph that ONNX Runtime refuses."""
    text = " ".join(line.strip() for line in str(error).splitlines())
    return GraphError("ONNX Runtime cannot run the float graph", got=text[:300])


# Operators whose inputs an INT8 graph may quantize, and how many of their inputs are activations;
# ``None``: all of them.
_WATCHED = {
    "Conv": 1,
    "ConvTranspose": 1,
    "Gemm": 2,
    "MatMul": 2,
    "Add": 2,
    "Concat": None,
    "MaxPool": 1,
    "MaxUnpool": 1,
}
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}


def tensors_to_watch(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the float activations that an INT8 graph may quantize, in graph order.

    Parameters
    ----------
    model : a float graph.

    Examples
    --------
    >>> graph = onnx.parser.parse_graph('''
    ...     g (float[1, 3, 8, 8] image, float[4, 3, 1, 1] w) => (float[1, 4, 8, 8] out) {
    ...         x = Conv(image, w)
    ...         y = Relu(x)
    ...         out = Add(x, y)
    ...     }''')
    >>> tensors_to_watch(helper.make_model(graph))
    ('image', 'x', 'y')
    """
    fixed = {tensor.name for tensor in model.graph.initializer} | {""}
    kinds = _element_types(model)
    found: dict[str, None] = {}
    for node in model.graph.node:
        # Weights behind an Identity or a Transpose are not activations.
        if all(name in fixed for name in node.input):
            fixed.update(node.output)
            continue
        for name in node.input[: _WATCHED.get(node.op_type, 0)]:
            if name not in fixed and kinds.get(name, onnx.TensorProto.FLOAT) in _FLOATS:
                found[name] = None
    return tuple(found)


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of each tensor, where inference finds it."""
    # Some operators make inference fail. Then ``_Runner`` reports tensors that are not float.
    with contextlib.suppress(Exception):
        model = infer_shapes(model)

    found: dict[str, int] = {}
    for value in [*model.graph.input, *model.graph.value_info, *model.graph.output]:
        kind = value.type.tensor_type.elem_type
        if kind:
            found[value.name] = kind
    return found
