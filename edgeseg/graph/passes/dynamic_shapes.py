"""Leave the batch, or height and width, of a deployed graph open.

It is checked that the network follows them.

ONNX's own inference has no arithmetic of symbols: half of ``height`` is unknown to it, and
unpooling is lowered well only if sizes are known. So shapes are inferred for a few sizes of the
frame. If a size of a tensor is the same multiple of the frame's size each time, that multiple is
the result. The sides of frames are multiples of a ``step``, so that pooling divides them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
from onnx import NodeProto

from edgeseg.errors import GraphError, InputError
from edgeseg.graph.graph import Graph
from edgeseg.graph.network import Network
from edgeseg.graph.nodes import copied, is_op, title
from edgeseg.graph.outputs import fix_input
from edgeseg.graph.sizes import Int, number

Shapes = dict[str, list[Int | None]]
Size = tuple[int, int]

BATCH, HEIGHT, WIDTH = "batch", "height", "width"
_MOST_STEPS = 64  # no network is known whose pooling divides by more
_SMALLEST_UNITS = 8  # for smaller numbers, rounding may look like a multiple


@dataclass(frozen=True)
class DynamicShapes:
    """Choose which dimensions of ``frame`` are open.

    Attributes
    ----------
    batch : True if the batch is open.
    sizes : three (H, W), least, best and largest, if height and width are open; else empty.
    step : the sides of all frames are multiples of this number.

    Examples
    --------
    >>> DynamicShapes(batch=True).dims((360, 480))
    ['batch', 360, 480]
    >>> bool(DynamicShapes())
    False
    """

    batch: bool = False
    sizes: tuple[Size, ...] = ()
    step: int = 1

    def __bool__(self) -> bool:
        return self.batch or bool(self.sizes)

    def dims(self, size: Size) -> list[int | str]:
        """Return batch, height and width of a graph's input.

        Each is a name if the dimension is open, else a number.

        Parameters
        ----------
        size : height and width of the frame if they are fixed.
        """
        batch = BATCH if self.batch else 1
        sides = (HEIGHT, WIDTH) if self.sizes else size
        return [batch, *sides]

    def full_size(self, size: Size) -> list[Int]:
        """Return height and width of ``frame`` as ``infer_dynamic_shapes`` writes them.

        Parameters
        ----------
        size : height and width of the frame if they are fixed.

        Examples
        --------
        >>> DynamicShapes(sizes=((180, 240), (360, 480), (720, 960)), step=4).full_size((360, 480))
        [(4, ('height/4',)), (4, ('width/4',))]
        """
        if not self.sizes:
            return [number(side) for side in size]
        return [(self.step, (symbol,)) for symbol in _units(self)]


def resolve_dynamic_shapes(network: Network, batch: bool, sizes: Sequence[Size]) -> DynamicShapes:
    """Find the smallest step for which a network follows its input's size.

    Parameters
    ----------
    network : the network to deploy.
    batch : True to leave the batch open.
    sizes : least, best and largest (H, W); empty if height and width are fixed.

    Raises
    ------
    InputError : a size is no multiple of the step, or the network's own size is not between the
        sizes.
    GraphError : the network has a batch or a size of its own; the error names the node.
    """
    # Without open sizes there is no step to find.
    if not sizes:
        dynamic = DynamicShapes(batch)
        if batch:
            _require_follows(
                network, dynamic, infer_dynamic_shapes(network.model, network, dynamic)
            )
        return dynamic

    # Try the stride, then its doubles.
    stride = network.spec.stride
    _check_sizes(network, sizes, stride)
    usable = stride  # the largest step so far that divides all sizes
    doubles = [stride << doubled for doubled in range(_MOST_STEPS.bit_length())]
    steps = [step for step in doubles if step <= _MOST_STEPS]
    for step in steps or [stride]:
        dynamic = DynamicShapes(batch, tuple(sizes), step)
        shapes = infer_dynamic_shapes(network.model, network, dynamic)
        if _follows(network, dynamic, shapes) and _pools_fit(network, shapes):
            _check_sizes(network, sizes, step)
            return dynamic
        sides = [*network.spec.input_size]
        for size in sizes:
            sides += size
        if all(side % step == 0 for side in sides):
            usable = step

    # Inference cannot prove that the network follows; a run will show it (``dynamic_run``).
    dynamic = DynamicShapes(batch, tuple(sizes), usable)
    _require_follows(network, dynamic, infer_dynamic_shapes(network.model, network, dynamic))
    return dynamic


def open_dimensions(model: onnx.ModelProto, network: Network, dynamic: DynamicShapes) -> None:
    """Open the dynamic dimensions of the input, in place; inferred shapes are dropped.

    Parameters
    ----------
    model : the ONNX graph.
    network : the network that the graph belongs to.
    dynamic : the dimensions to open.
    """
    size = None if dynamic.sizes else network.spec.input_size
    fix_input(model, network.input, network.channels_last, size)
    value = next(i for i in model.graph.input if i.name == network.input)
    for axis, name in zip(_axes(network), dynamic.dims(network.spec.input_size), strict=True):
        if isinstance(name, str):
            value.type.tensor_type.shape.dim[axis].dim_param = name

    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()


def infer_dynamic_shapes(
    model: onnx.ModelProto, network: Network, dynamic: DynamicShapes
) -> Shapes:
    """Infer the sizes of every tensor as numbers or as multiples of the open dimensions.

    Parameters
    ----------
    model : the ONNX graph; it is not changed.
    network : the network that the graph belongs to.
    dynamic : the open dimensions.

    Returns
    -------
    For each tensor by name its sizes: ``(7, ())`` for a number, ``(2, ("height/8",))`` for a
    multiple, ``None`` if unknown. The symbols are ``batch``, and ``height/STEP`` and
    ``width/STEP``.
    """
    # 1. Infer all shapes for a few sizes of the frame.
    probes = list(_probes(network, dynamic))
    seen = [_inferred(model, network, probe) for probe in probes]

    # 2. List the symbols, each with its value in every probe.
    symbols: list[tuple[str, list[int]]] = []
    if dynamic.batch:
        symbols.append((BATCH, [probe[0] for probe in probes]))
    if dynamic.sizes:
        for axis, symbol in enumerate(_units(dynamic), 1):
            symbols.append((symbol, [probe[axis] // dynamic.step for probe in probes]))

    # 3. Find the symbol that a size is a multiple of.
    found: Shapes = {}
    for name, first in seen[0].items():
        columns = zip(*(shapes.get(name, []) for shapes in seen), strict=False)
        dims = [_multiple(column, symbols) for column in columns]
        if len(dims) == len(first):
            found[name] = dims
    return found


def _units(dynamic: DynamicShapes) -> tuple[str, str]:
    """Return the symbols of height and width."""
    return f"{HEIGHT}/{dynamic.step}", f"{WIDTH}/{dynamic.step}"


def _axes(network: Network) -> tuple[int, int, int]:
    """Return the axes of batch, height and width of the network's input."""
    return (0, 1, 2) if network.channels_last else (0, 2, 3)


def _probes(network: Network, dynamic: DynamicShapes) -> Iterator[tuple[int, int, int]]:
    """Yield three (N, H, W) to infer shapes for; each open dimension grows in another ratio."""
    batches = (2, 3, 5) if dynamic.batch else (1, 1, 1)
    if not dynamic.sizes:
        yield from ((n, *network.spec.input_size) for n in batches)
        return

    high, wide = (max(side // dynamic.step, _SMALLEST_UNITS) for side in dynamic.sizes[1])
    for n, rows, columns in zip(batches, (0, 1, 3), (2, 7, 12), strict=True):
        yield n, (high + rows) * dynamic.step, (wide + columns) * dynamic.step


def _inferred(
    model: onnx.ModelProto, network: Network, probe: tuple[int, int, int]
) -> dict[str, list[int | None]]:
    """Return the sizes of every tensor for an input of (N, H, W) ``probe``.

    Unknown sizes are ``None``. ONNX's own inference finds them, and ``Graph`` those of unpooling.
    """
    # 1. Set the input's shape to the probe.
    copy = copied(model)
    open_dimensions(copy, network, DynamicShapes(batch=True, sizes=(probe[1:],) * 3))
    value = next(i for i in copy.graph.input if i.name == network.input)
    for axis, side in zip(_axes(network), probe, strict=True):
        value.type.tensor_type.shape.dim[axis].dim_value = side

    # 2. Infer.
    try:
        graph = Graph(copy)
    except GraphError:  # a size that is written in the file contradicts this one
        return {network.input: [None] * 4}

    # 3. Collect the sizes that are numbers.
    names = [network.input]
    for node in copy.graph.node:
        names += [name for name in node.output if name]
    shapes = {name: graph.shape(name) for name in names}
    sizes: dict[str, list[int | None]] = {}
    for name, shape in shapes.items():
        if shape is not None:
            sizes[name] = [None if dim is None or dim[1] else dim[0] for dim in shape]
    return sizes


def _multiple(
    column: Sequence[int | None], symbols: Sequence[tuple[str, Sequence[int]]]
) -> Int | None:
    """Return one size, given for every probe, as a number or a multiple of a symbol.

    The result is ``None`` if it is neither.
    """
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


# -- does the network follow? ----------------------------------------------------------------------


def _check_sizes(network: Network, sizes: Sequence[Size], step: int) -> None:
    """Raise ``InputError`` unless all sizes are multiples of ``step``.

    The network's own size must be between them.
    """
    own = network.spec.input_size
    for size in (own, *sizes):
        if any(side % step for side in size):
            fits = tuple(max(round(side / step), 1) * step for side in size)
            hint = (
                f"Give multiples of {step} as `size` and `sizes`."
                if size == own
                else f"Give {by_text(fits)} instead."
            )
            raise InputError(
                f"{network.name}: the sizes of a range (HxW) must be multiples of {step}",
                got=by_text(size),
                hint=hint,
            )

    least, _, largest = sizes
    if not all(low <= side <= high for low, side, high in zip(least, own, largest, strict=True)):
        raise InputError(
            f"{network.name}: its own size is not in the range, "
            "and frames of other sizes are resized to it",
            got=by_text(own),
            expected=f"{by_text(least)} to {by_text(largest)} (HxW)",
            hint="Widen `sizes`, or give a `size` inside them.",
        )


def by_text(size: Sequence[int]) -> str:
    """Return a size as text.

    Parameters
    ----------
    size : height and width.

    Examples
    --------
    >>> by_text((360, 480))
    '360x480'
    """
    return "x".join(map(str, size))


def _wanted(network: Network, dynamic: DynamicShapes) -> dict[int, str]:
    """Return the symbols that axes of the network's output must follow, by axis."""
    wanted: dict[int, str] = {}
    if dynamic.batch:
        wanted[0] = BATCH
    if dynamic.sizes:
        sides = (1, 2) if network.form != "nchw" else (2, 3)
        wanted |= dict(zip(sides, _units(dynamic), strict=True))
    return wanted


def _output_dims(network: Network, shapes: Shapes) -> list[Int | None] | None:
    """Return the sizes of the network's output; a label map loses its axis of one channel."""
    dims = shapes.get(network.output)
    if dims is not None and network.form == "labels" and len(dims) == 4:
        return dims[:3] if dims[3] == number(1) else [dims[0], *dims[2:]]
    return dims


def _follows(network: Network, dynamic: DynamicShapes, shapes: Shapes) -> bool:
    """Return True if the network's output is known to follow every open dimension."""
    dims = _output_dims(network, shapes)
    if dims is None:
        return False

    for axis, symbol in _wanted(network, dynamic).items():
        size = dims[axis]
        if size is None or size[1] != (symbol,):
            return False
    return True


def _require_follows(network: Network, dynamic: DynamicShapes, shapes: Shapes) -> None:
    """Raise ``GraphError`` if the network's output is known not to follow its input."""
    dims = _output_dims(network, shapes)
    for axis, symbol in _wanted(network, dynamic).items():
        size = dims[axis] if dims is not None else None
        if size is not None and size[1] == ():
            raise _stuck(network, symbol, f"an output of {size[0]} whatever comes in", shapes)
        if size is None and any(
            _contradicts(node, network, shapes) for node in network.model.graph.node
        ):
            raise _stuck(network, symbol, "sizes that contradict each other", shapes)


def _stuck(network: Network, symbol: str, otherwise: str, shapes: Shapes) -> GraphError:
    """Return the error for a network that does not follow.

    It names the first node whose output does not change with its input, or gives the text
    ``otherwise``.
    """
    batch = symbol == BATCH
    axes = (0,) if batch else _axes(network)[1:]
    nodes = network.model.graph.node
    culprit = next(
        (n for n in nodes if _stops(n, axes, shapes) or _contradicts(n, network, shapes)), None
    )
    own = "batch" if batch else "input size"
    return GraphError(
        f"{network.name}: does not follow a dynamic {own}",
        got=otherwise if culprit is None else f"{title(culprit)}, whose size is fixed",
        hint=follow_advice(batch),
    )


def follow_advice(batch: bool) -> str:
    """Return the hint for a network that does not follow its frames.

    Parameters
    ----------
    batch : True if it does not follow the batch, False if it does not follow the size.
    """
    if batch:
        again = "Export the net with a dynamic batch: `export(CHECKPOINT)`"
    else:
        again = "Build a plan for each size: `export(CHECKPOINT, size=HEIGHTxWIDTH)`"
    return f"{again}; or leave `{'batch' if batch else 'sizes'}` out."


def _stops(node: NodeProto, axes: Sequence[int], shapes: Shapes) -> bool:
    """Return True if a node reads sizes that change along ``axes`` and writes fixed ones.

    Nodes whose output has one pixel do not count: they pool the whole plane.
    """
    if is_op(node, "Shape") or not node.input:
        return False
    read = shapes.get(node.input[0])
    written = shapes.get(node.output[0])
    if read is None or written is None or len(read) < 4 or len(written) < 4:
        return False

    sizes_written = [written[axis] for axis in axes]
    sizes_read = [read[axis] for axis in axes]
    fixed = [size for size in sizes_written if size is not None and not size[1]]
    changing = [size for size in sizes_read if size is None or size[1]]
    if not fixed or not changing:
        return False
    return axes == (0,) or any(size[0] > 1 for size in fixed)


def _contradicts(node: NodeProto, network: Network, shapes: Shapes) -> bool:
    """Return True if a ``Reshape`` to constant sizes cannot hold what it reads.

    Inference then finds no size.
    """
    constants = {t.name for t in network.model.graph.initializer}
    constants |= {n.output[0] for n in network.model.graph.node if is_op(n, "Constant")}
    if not is_op(node, "Reshape") or node.input[1] not in constants:
        return False

    read = shapes.get(node.input[0], [None])
    written = shapes.get(node.output[0], [])
    return None not in read and all(size is None for size in written)


def _pools_fit(network: Network, shapes: Shapes) -> bool:
    """Return True if every size that unpooling depends on is known."""
    for node in network.model.graph.node:
        gives_indices = is_op(node, "MaxPool") and len(node.output) > 1 and node.output[1]
        if not is_op(node, "MaxUnpool") and not gives_indices:
            continue
        for name in (node.input[0], node.output[0]):
            dims = shapes.get(name)
            if dims is None or None in dims:
                return False
    return True
