"""Leaving the batch, or height and width, of a deployed graph open: what follows them, and what does not.

ONNX's own inference knows no arithmetic of symbols: half of ``height`` is unknown to it, and unpooling is lowered well
only where sizes are known. So they are inferred for a few numbers, and a size that is the same multiple of one of them
each time is that multiple. Frames have sides that are multiples of a ``step``, so that pooling divides them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto

from edgeseg.errors import GraphError, InputError
from edgeseg.export.graph import Graph, Int, is_op, number, title
from edgeseg.export.network import Network, fix_input

Shapes = dict[str, list[Int | None]]
Size = tuple[int, int]

BATCH, HEIGHT, WIDTH = "batch", "height", "width"
_MOST_STEPS = 64  # no net is known whose pooling divides by more
_SMALLEST_UNITS = 8  # below, rounding may look like a multiple
_SAME_LABELS = 0.9  # of a frame, alone and in a batch: sums in another order move labels that nearly tie


@dataclass(frozen=True)
class Free:
    """What of ``frame`` is open: the batch, and with ``sizes``, three (H, W) (least, best, largest), height and width.

    A graph is made for sides that are multiples of ``step``.
    """

    batch: bool = False
    sizes: tuple[Size, ...] = ()
    step: int = 1

    def __bool__(self) -> bool:
        return self.batch or bool(self.sizes)

    def dims(self, size: Size) -> list[int | str]:
        """Batch, height and width as a graph's input says them: names of what is free, else one frame of ``size``."""
        return [BATCH if self.batch else 1, *((HEIGHT, WIDTH) if self.sizes else size)]

    def full_size(self, size: Size) -> list[Int]:
        """Height and width of ``frame`` in ``free_shapes``."""
        return [(self.step, (s,)) for s in _units(self)] if self.sizes else [number(side) for side in size]


def settle(network: Network, batch: bool, sizes: Sequence[Size]) -> Free:
    """What is free, and the smallest step for which ``network`` follows its input's size.

    Raises ``InputError`` for sizes that are no multiples of it, or between which the net's own size is not, and
    ``GraphError`` where the net has a batch or a size of its own, naming the node.
    """
    if not sizes:
        free = Free(batch)
        if batch:
            _require_follows(network, free, free_shapes(network.model, network, free))
        return free
    _check_sizes(network, sizes, network.spec.stride)
    stride, usable = network.spec.stride, network.spec.stride
    steps = [stride << doubled for doubled in range(_MOST_STEPS.bit_length()) if stride << doubled <= _MOST_STEPS]
    for step in steps or [stride]:
        free = Free(batch, tuple(sizes), step)
        shapes = free_shapes(network.model, network, free)
        if _follows(network, free, shapes) and _pools_fit(network, shapes):
            _check_sizes(network, sizes, step)
            return free
        if all(side % step == 0 for size in (network.spec.input_size, *sizes) for side in size):
            usable = step
    free = Free(batch, tuple(sizes), usable)  # what inference cannot tell, running it will
    _require_follows(network, free, free_shapes(network.model, network, free))
    return free


def leave_free(model: onnx.ModelProto, network: Network, free: Free) -> None:
    """Set the input's shape to ``free``, in place; inferred shapes are dropped."""
    fix_input(model, network.input, network.channels_last, None if free.sizes else network.spec.input_size)
    value = next(i for i in model.graph.input if i.name == network.input)
    for axis, name in zip(_axes(network), free.dims(network.spec.input_size), strict=True):
        if isinstance(name, str):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()


def free_shapes(model: onnx.ModelProto, network: Network, free: Free) -> Shapes:
    """The sizes of every tensor of ``model``: numbers, multiples of what is free, or ``None``.

    Symbols are ``batch``, and ``height/STEP`` and ``width/STEP``.
    """
    probes = list(_probes(network, free))
    seen = [_inferred(model, network, probe) for probe in probes]
    symbols = [*([(BATCH, [p[0] for p in probes])] if free.batch else [])]
    if free.sizes:
        symbols += [(s, [p[axis] // free.step for p in probes]) for axis, s in enumerate(_units(free), 1)]
    found: Shapes = {}
    for name, first in seen[0].items():
        columns = zip(*(s.get(name, []) for s in seen), strict=False)
        dims = [_multiple(column, symbols) for column in columns]
        if len(dims) == len(first):
            found[name] = dims
    return found


def _units(free: Free) -> tuple[str, str]:
    return f"{HEIGHT}/{free.step}", f"{WIDTH}/{free.step}"


def _axes(network: Network) -> tuple[int, int, int]:
    """Batch, height and width of the net's input."""
    return (0, 1, 2) if network.channels_last else (0, 2, 3)


def _probes(network: Network, free: Free) -> Iterator[tuple[int, int, int]]:
    """Three (N, H, W) to infer shapes for, each free one in a ratio of its own."""
    batches = (2, 3, 5) if free.batch else (1, 1, 1)
    if not free.sizes:
        yield from ((n, *network.spec.input_size) for n in batches)
        return
    high, wide = (max(side // free.step, _SMALLEST_UNITS) for side in free.sizes[1])
    for n, rows, columns in zip(batches, (0, 1, 3), (2, 7, 12), strict=True):
        yield n, (high + rows) * free.step, (wide + columns) * free.step


def _inferred(model: onnx.ModelProto, network: Network, probe: tuple[int, int, int]) -> dict[str, list[int | None]]:
    """What ONNX's inference, and ours of unpooling, tell of every tensor for an input of (N, H, W) ``probe``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    leave_free(copy, network, Free(batch=True, sizes=(probe[1:],) * 3))
    value = next(i for i in copy.graph.input if i.name == network.input)
    for axis, side in zip(_axes(network), probe, strict=True):
        value.type.tensor_type.shape.dim[axis].dim_value = side
    try:
        graph = Graph(copy)
    except GraphError:  # a size that the file has written down contradicts this one
        return {network.input: [None] * 4}
    names = [network.input, *(name for node in copy.graph.node for name in node.output if name)]
    shapes = {name: graph.shape(name) for name in names}
    return {n: [None if d is None or d[1] else d[0] for d in s] for n, s in shapes.items() if s is not None}


def _multiple(column: Sequence[int | None], symbols: Sequence[tuple[str, Sequence[int]]]) -> Int | None:
    """One size, seen at every probe, as a number or a multiple of a symbol."""
    seen = [size for size in column if size is not None]
    if len(seen) < len(column):
        return None
    if len(set(seen)) == 1:
        return number(seen[0])
    for symbol, values in symbols:
        factor = seen[0] // values[0]
        if factor and all(size == factor * value for size, value in zip(seen, values, strict=True)):
            return factor, (symbol,)
    return None


# -- does the net follow? ----------------------------------------------------------------------------------------------


def _check_sizes(network: Network, sizes: Sequence[Size], step: int) -> None:
    """Raise ``InputError`` unless all are multiples of ``step`` and the net's own size lies between them."""
    own = network.spec.input_size
    for size in (own, *sizes):
        if any(side % step for side in size):
            fits = tuple(max(round(side / step), 1) * step for side in size)
            hint = "Give --size and --sizes of such." if size == own else f"Give {_by(fits)} instead."
            raise InputError(
                f"{network.name}: a range of sizes must be one of multiples of {step}", got=_by(size), hint=hint
            )
    least, _, largest = sizes
    if not all(low <= side <= high for low, side, high in zip(least, own, largest, strict=True)):
        raise InputError(
            f"{network.name}: its own size is not in the range, and frames of other sizes are resized to it",
            got=_by(own), expected=f"{_by(least)} to {_by(largest)}",
            hint="Widen --sizes, or give a --size inside them.",
        )  # fmt: skip


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _wanted(network: Network, free: Free) -> dict[int, str]:
    """Which axes of the net's output must change with what: axis -> symbol."""
    height, width = (1, 2) if network.form != "nchw" else (2, 3)
    wanted = {0: BATCH} if free.batch else {}
    return wanted | (dict(zip((height, width), _units(free), strict=True)) if free.sizes else {})


def _output_dims(network: Network, shapes: Shapes) -> list[Int | None] | None:
    """The sizes of the net's output; of a label map without its axis of one channel."""
    dims = shapes.get(network.output)
    if dims is not None and network.form == "labels" and len(dims) == 4:
        return dims[:3] if dims[3] == number(1) else [dims[0], *dims[2:]]
    return dims


def _follows(network: Network, free: Free, shapes: Shapes) -> bool:
    dims = _output_dims(network, shapes)
    return dims is not None and all(
        (d := dims[axis]) is not None and d[1] == (symbol,) for axis, symbol in _wanted(network, free).items()
    )


def _require_follows(network: Network, free: Free, shapes: Shapes) -> None:
    """Raise ``GraphError`` where the net's output is known to have a batch or a size of its own."""
    dims = _output_dims(network, shapes)
    for axis, symbol in _wanted(network, free).items():
        size = dims[axis] if dims is not None else None
        if size is not None and size[1] == ():
            raise _stuck(network, symbol, f"an output of {size[0]} whatever comes in", shapes)
        if size is None and any(_contradicts(node, network, shapes) for node in network.model.graph.node):
            raise _stuck(network, symbol, "sizes that contradict each other", shapes)


def _stuck(network: Network, symbol: str, otherwise: str, shapes: Shapes) -> GraphError:
    """The error that names the first node whose output does not change with what it reads, or says ``otherwise``."""
    batch = symbol == BATCH
    axes = (0,) if batch else _axes(network)[1:]
    nodes = network.model.graph.node
    culprit = next((n for n in nodes if _stops(n, axes, shapes) or _contradicts(n, network, shapes)), None)
    own = "batch" if batch else "input size"
    return GraphError(
        f"{network.name}: does not follow a free {own}",
        got=otherwise if culprit is None else f"{title(culprit)}, whose size is fixed",
        hint=_advice(batch),
    )


def _advice(batch: bool) -> str:
    again = (
        "Export the net with a free batch: edgeseg export CHECKPOINT"
        if batch
        else "Build a plan for each size: edgeseg export CHECKPOINT --size"
    )
    return f"{again}; or leave --{'batch' if batch else 'sizes'} out."


def _stops(node: NodeProto, axes: Sequence[int], shapes: Shapes) -> bool:
    """Whether a node reads sizes that change along ``axes`` and writes ones that do not; of one pixel is no such."""
    if is_op(node, "Shape") or not node.input:
        return False
    read, written = shapes.get(node.input[0]), shapes.get(node.output[0])
    if read is None or written is None or len(read) < 4 or len(written) < 4:
        return False
    fixed = [d for axis in axes if (d := written[axis]) is not None and not d[1]]
    changing = [d for axis in axes if (d := read[axis]) is None or d[1]]
    return bool(fixed) and bool(changing) and (axes == (0,) or any(d[0] > 1 for d in fixed))


def _contradicts(node: NodeProto, network: Network, shapes: Shapes) -> bool:
    """Whether a reshaping to numbers of the file has no room for what it reads: inference then tells no size of it."""
    constants = {t.name for t in network.model.graph.initializer}
    constants |= {n.output[0] for n in network.model.graph.node if is_op(n, "Constant")}
    if not is_op(node, "Reshape") or node.input[1] not in constants:
        return False
    read, written = shapes.get(node.input[0], [None]), shapes.get(node.output[0], [])
    return None not in read and all(size is None for size in written)


def _pools_fit(network: Network, shapes: Shapes) -> bool:
    """Whether every size that unpooling depends on is known."""
    for node in network.model.graph.node:
        if is_op(node, "MaxUnpool") or (is_op(node, "MaxPool") and len(node.output) > 1 and node.output[1]):
            for name in (node.input[0], node.output[0]):
                dims = shapes.get(name)
                if dims is None or None in dims:
                    return False
    return True


# -- a real check ------------------------------------------------------------------------------------------------------


def check_runs(model: onnx.ModelProto, name: str, size: Size, free: Free) -> None:
    """Run a deployed graph at its least, best and largest size, and two frames at once where its batch is free.

    Raises ``GraphError`` where that fails, or gives label maps of other sizes or other labels than a frame alone.
    """
    session = _session(model, name)
    for shape in dict.fromkeys(free.sizes or (size,)):
        _labels(session, name, np.zeros((1, *shape, 3), np.uint8), free)
    if free.batch:
        smallest = free.sizes[0] if free.sizes else size
        frames = np.random.default_rng(0).integers(0, 256, (2, *smallest, 3), np.uint8)
        both = _labels(session, name, frames, free)
        alone = np.concatenate([_labels(session, name, frame[None], free) for frame in frames])
        same = float((both == alone).mean())
        if same < _SAME_LABELS:
            raise GraphError(
                f"{name}: mixes the frames of a batch", got=f"{100 * same:.1f} % of labels as for a frame alone",
                hint=_advice(True),
            )  # fmt: skip


def _session(model: onnx.ModelProto, name: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise GraphError(
            f"{name}: ONNX Runtime cannot open the graph", got=str(error).splitlines()[0][:300], hint=_advice(False)
        ) from error


def _labels(session: Any, name: str, frames: npt.NDArray[np.uint8], free: Free) -> npt.NDArray[np.uint8]:
    """(N, H, W, 3) -> (N, H, W), checked."""
    at = f"{len(frames)} frame{'s' if len(frames) > 1 else ''} of {_by(frames.shape[1:3])}"
    hint = _advice(len(frames) > 1 or not free.sizes)
    try:
        (labels,) = session.run(["labels"], {"frame": frames})
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        reason = " ".join(str(error).split())[:300]
        raise GraphError(f"{name}: cannot take {at}", got=reason, hint=hint) from error
    if labels.shape != frames.shape[:3]:
        raise GraphError(f"{name}: cannot take {at}", got=f"labels of {labels.shape}", expected=frames.shape[:3],
                         hint=hint)  # fmt: skip
    return np.asarray(labels, np.uint8)
