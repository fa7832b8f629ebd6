"""An ONNX graph under rewriting: who makes a tensor, who reads it, its type, its sizes, its value where it is known."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from edgeseg.errors import GraphError

# A size or an integer of a shape computation: coefficient x symbols, as (2, ("batch",)); (7, ()) is the number 7.
Int = tuple[int, tuple[str, ...]]
Ints = npt.NDArray[np.object_]

_SMALL = 4096  # elements: larger initializers are weights, which no shape is computed from


def number(value: int) -> Int:
    """``value`` as an ``Int``."""
    return (int(value), ())


_LIKE_ITS_INPUT = ("GroupNormalization", "RMSNormalization")  # operators that ONNX's own inference may pass over


def infer_shapes(model: ModelProto) -> ModelProto:
    """A copy with the types and shapes of its tensors, as far as they can be told. Raises what ONNX raises."""
    known: set[str] = set()
    while True:
        model = shape_inference.infer_shapes(model, data_prop=True)
        values = {v.name: v for v in (*model.graph.input, *model.graph.value_info, *model.graph.output)}
        typed = {name for name, v in values.items() if v.type.tensor_type.elem_type}
        passed = [
            node for node in model.graph.node
            if node.op_type in _LIKE_ITS_INPUT and node.input[0] in typed and node.output[0] not in typed | known
        ]  # fmt: skip
        if not passed:
            return model
        for node in passed:
            known.add(node.output[0])
            old = next((v for v in model.graph.value_info if v.name == node.output[0]), None)
            value = model.graph.value_info.add() if old is None else old
            value.CopyFrom(values[node.input[0]])
            value.name = node.output[0]


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def ints_attribute(node: NodeProto, name: str, default: list[int]) -> list[int]:
    """A list attribute, ``default`` where it is absent or empty."""
    value = attributes(node).get(name)
    return [int(v) for v in value] if value else default


def is_op(node: NodeProto | None, *op_types: str) -> bool:
    """Whether ``node`` is one of the standard's operators named."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def title(node: NodeProto) -> str:
    """How an error names a node."""
    return f"{node.op_type} node {node.name or node.output[0]!r}"


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies a control-flow node runs."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def names_read(graph: GraphProto) -> Iterator[str]:
    """Every name that the nodes and outputs of ``graph`` read, those of its subgraphs included."""
    for node in graph.node:
        yield from (name for name in node.input if name)
        for body in subgraphs(node):
            yield from names_read(body)
    yield from (value.name for value in graph.output)


class Graph:
    """Lookups over ``model.graph`` and edits of it; call ``refresh`` after editing.

    ``shapes`` are sizes that are known better than inference can tell them, by tensor.
    """

    def __init__(self, model: ModelProto, shapes: Mapping[str, list[Int | None]] | None = None) -> None:
        self.model = model
        self.graph = model.graph
        self._shapes = shapes or {}
        self._used = set(names_read(self.graph)) | {o for n in self.graph.node for o in n.output}
        self._used |= {t.name for t in self.graph.initializer} | {n.name for n in self.graph.node}
        self._pool: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look again at who makes and reads what, and infer types and sizes anew."""
        self.producer = {o: n for n in self.graph.node for o in n.output if o}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in {*node.input, *(n for body in subgraphs(node) for n in names_read(body))}:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in self.graph.output}
        self._initializer = {t.name: t for t in self.graph.initializer}
        self._known: dict[str, Ints | None] = {}
        self._infer()

    # -- edits -------------------------------------------------------------------------------------------------------

    def unique(self, hint: str) -> str:
        name, count = hint, 1
        while name in self._used:
            name, count = f"{hint}_{count}", count + 1
        self._used.add(name)
        return name

    def constant(self, value: npt.NDArray[np.generic], hint: str) -> str:
        """The name of an initializer that holds ``value``; equal ones are stored once."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._pool:
            self._pool[key] = self.unique(f"unpool/{hint}")
            self.graph.initializer.append(numpy_helper.from_array(value, self._pool[key]))
        return self._pool[key]

    def replace(self, replacements: dict[int, list[NodeProto]]) -> None:
        """Put lists of nodes where single ones stood (keys are ``id``s), then drop what nothing reads any more."""
        nodes, orphans = [], []
        for node in self.graph.node:
            if id(node) in replacements:
                orphans += list(node.input)
                nodes += replacements[id(node)]
            else:
                nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        self._prune([*orphans, *self._pool.values()])

    def _prune(self, candidates: list[str]) -> None:
        """Remove the makers of ``candidates`` that became useless, and in turn what only they read."""
        while candidates:
            read = set(names_read(self.graph))
            loose = {name for name in candidates if name not in read}
            candidates = []
            for node in [n for n in self.graph.node if loose & set(n.output) and not read & set(n.output)]:
                candidates += list(node.input)
                self.graph.node.remove(node)
            for tensor in [t for t in self.graph.initializer if t.name in loose]:
                self.graph.initializer.remove(tensor)
        made = {o for n in self.graph.node for o in n.output} | {v.name for v in self.graph.input}
        kept = [v for v in self.graph.value_info if v.name in made]
        del self.graph.value_info[:]
        self.graph.value_info.extend(kept)

    # -- types and sizes ---------------------------------------------------------------------------------------------

    def _infer(self) -> None:
        """Run ONNX's inference on the graph without its weights, again as long as it lets us size more unpoolings."""
        bare = self._without_weights()
        self._read(bare)
        while True:
            # The standard's inference gives up where MaxUnpool's size is an input, even a constant one.
            sized = [n for n in self.graph.node if is_op(n, "MaxUnpool") and self._size_unpooling(bare.graph, n)]
            if not sized:
                return
            self._known.clear()
            self._read(bare)

    def _without_weights(self) -> ModelProto:
        bare = ModelProto()
        bare.ir_version = max(self.model.ir_version, 4)
        bare.opset_import.extend(self.model.opset_import)
        bare.functions.extend(self.model.functions)
        bare.graph.name = "bare"
        for field in ("node", "input", "output", "value_info"):
            getattr(bare.graph, field).extend(getattr(self.graph, field))
        inputs = {v.name for v in self.graph.input}
        for tensor in self.graph.initializer:
            if int(np.prod(tensor.dims)) <= _SMALL:
                bare.graph.initializer.append(tensor)
            elif tensor.name not in inputs:
                value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                bare.graph.input.append(value)
        return bare

    def _read(self, bare: ModelProto) -> None:
        try:
            bare.CopyFrom(shape_inference.infer_shapes(bare, data_prop=True))
        except shape_inference.InferenceError as error:
            raise GraphError(
                f"the ONNX file's graph {self.graph.name!r} contradicts itself", got=" ".join(str(error).split()),
                hint="Run onnx.checker.check_model(model, full_check=True) and export the net again.",
            ) from error  # fmt: skip
        self._type: dict[str, onnx.TypeProto.Tensor] = {}
        for value in (*bare.graph.value_info, *bare.graph.input, *bare.graph.output):
            self._type[value.name] = value.type.tensor_type

    def _size_unpooling(self, bare: GraphProto, node: NodeProto) -> bool:
        """Write the size of ``node``'s output down in ``bare`` where it can be told and was not known yet."""
        name, size = node.output[0], self.unpooled_shape(node)
        if size is None:
            return False
        before = self.shape(name) or [None] * len(size)
        dims = [_more_precise(b, s) for b, s in zip(before, size, strict=True)]
        if dims == before:
            return False
        stale = [v for v in (*bare.value_info, *bare.output) if v.name == name]
        for other in stale or [bare.value_info.add(name=name)]:
            kind = self.dtype(name) or self.dtype(node.input[0])
            written = [None if d is None else d[1][0] if d[1] else d[0] for d in dims]
            other.CopyFrom(helper.make_tensor_value_info(name, kind, written))
        return True

    def unpooled_shape(self, node: NodeProto) -> list[Int] | None:
        """The sizes of a ``MaxUnpool``'s output: its third input, or the reverse of ``MaxPool``'s formula."""
        if len(node.input) > 2 and node.input[2]:
            given = self.ints(node.input[2])
            return None if given is None else list(given.ravel())
        pooled = self.shape(node.input[0])
        if pooled is None or any(d is None for d in pooled):
            return None
        kernel = ints_attribute(node, "kernel_shape", [])
        strides = ints_attribute(node, "strides", [1] * len(kernel))
        pads = ints_attribute(node, "pads", [0] * 2 * len(kernel))
        size = [d for d in pooled if d is not None]
        for axis, (k, s) in enumerate(zip(kernel, strides, strict=True)):
            coefficient, symbols = size[2 + axis]
            trimmed = k - s - pads[axis] - pads[axis + len(kernel)]
            if symbols and trimmed:
                return None
            size[2 + axis] = (coefficient * s + trimmed, symbols)
        return size

    def dtype(self, name: str) -> int:
        """The ONNX element type of a tensor, 0 where unknown."""
        tensor = self._initializer.get(name)
        if tensor is not None:
            return int(tensor.data_type)
        return int(self._type[name].elem_type) if name in self._type else int(TensorProto.UNDEFINED)

    def shape(self, name: str) -> list[Int | None] | None:
        """The sizes of a tensor, symbols where they are symbols, ``None`` for what nobody told."""
        tensor = self._initializer.get(name)
        if tensor is not None:
            return [number(d) for d in tensor.dims]
        if name in self._shapes:
            return list(self._shapes[name])
        kind = self._type.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        return [
            number(d.dim_value) if d.HasField("dim_value") else (1, (d.dim_param,)) if d.dim_param else None
            for d in kind.shape.dim
        ]

    def known_shape(self, name: str) -> list[Int] | None:
        """As ``shape``, but ``None`` unless every size is a number or a symbol."""
        shape = self.shape(name)
        if shape is None:
            return None
        known = [d for d in shape if d is not None]
        return known if len(known) == len(shape) else None

    def static_shape(self, name: str) -> list[int] | None:
        """As ``shape``, but ``None`` unless every size is a number."""
        shape = self.known_shape(name)
        return None if shape is None or any(symbols for _, symbols in shape) else [size for size, _ in shape]

    def static_channels(self, name: str) -> int | None:
        """Dimension 1 of a four-dimensional tensor, ``None`` where it is unknown."""
        shape = self.shape(name)
        if shape is None or len(shape) != 4 or shape[1] is None or shape[1][1]:
            return None
        return shape[1][0]

    # -- values ------------------------------------------------------------------------------------------------------

    def array(self, name: str) -> npt.NDArray[np.generic] | None:
        """The value of an initializer or a ``Constant`` node, else ``None``."""
        tensor = self._initializer.get(name)
        if tensor is not None:
            # An initializer that is also an input is a default the caller may override.
            return None if name in {v.name for v in self.graph.input} else numpy_helper.to_array(tensor)
        node = self.producer.get(name)
        return None if node is None else self.constant_value(node)

    @staticmethod
    def constant_value(node: NodeProto) -> npt.NDArray[np.generic] | None:
        """What a ``Constant`` node holds; ``None`` for another node, and for text and sparse constants."""
        if is_op(node, "Constant") and len(node.attribute) == 1:
            ((kind, value),) = attributes(node).items()
            if kind == "value":
                return numpy_helper.to_array(value)
            if kind in ("value_int", "value_ints", "value_float", "value_floats"):
                return np.asarray(value, np.int64 if "int" in kind else np.float32)
        return None

    def ints(self, name: str) -> Ints | None:
        """The integers a shape computation yields, symbols included; ``None`` where that cannot be told."""
        if name not in self._known:
            self._known[name] = None  # a damaged, cyclic graph ends here
            self._known[name] = self._ints(name)
        return self._known[name]

    def _ints(self, name: str) -> Ints | None:
        value = self.array(name)
        if value is not None:
            if value.dtype.kind != "i" or value.size > _SMALL:
                return None
            return _filled(value.shape, [number(int(v)) for v in value.ravel()])
        node = self.producer.get(name)
        if node is None:
            return None
        if is_op(node, "Shape"):
            return self._shape_of(node)
        if is_op(node, "Cast", "CastLike") and self.dtype(name) in (TensorProto.INT32, TensorProto.INT64):
            cast = self.array(node.input[0])  # exporters write whole numbers as floats and cast them
            whole = cast is not None and cast.size <= _SMALL and bool(np.all(np.mod(cast.astype(np.float64), 1) == 0))
            return (
                _filled(cast.shape, [number(int(v)) for v in cast.ravel()])
                if whole and cast is not None
                else (self.ints(node.input[0]))
            )
        inputs = [self.ints(i) for i in node.input if i]
        known = [i for i in inputs if i is not None]
        if len(known) < len(inputs) or node.domain not in ("", "ai.onnx"):
            return None
        return _computed(node, known)

    def _shape_of(self, node: NodeProto) -> Ints | None:
        shape = self.known_shape(node.input[0])
        if shape is None:
            return None
        attrs = attributes(node)
        part = shape[slice(attrs.get("start", 0), attrs.get("end"))]
        return _filled((len(part),), part)


def _more_precise(before: Int | None, told: Int) -> Int | None:
    """The better known of two statements of one size; products of symbols cannot be written into an ONNX file."""
    if before is not None and (not before[1] or told[1]):
        return before
    return told if not told[1] or (told[0] == 1 and len(told[1]) == 1) else before


def _filled(shape: tuple[int, ...], items: list[Int]) -> Ints:
    out = np.empty(len(items), object)
    out[:] = items
    return out.reshape(shape)


def _numbers(values: Ints) -> list[int] | None:
    return None if any(symbols for _, symbols in values.ravel()) else [int(v) for v, _ in values.ravel()]


def _computed(node: NodeProto, inputs: list[Ints]) -> Ints | None:
    """What ``node`` makes of known integers, for the operators that exporters compute shapes with."""
    data, rest = inputs[0] if inputs else np.empty(0, object), [_numbers(i) for i in inputs[1:]]
    op = node.op_type
    if op == "Identity":
        return data
    if op in ("Squeeze", "Unsqueeze", "Reshape"):
        # Shape vectors have at most one axis longer than one: their order survives every change of rank.
        if op == "Reshape" and rest[0] not in ([], [-1], [1]):
            return None
        flat = data.ravel()
        scalar = flat.size == 1 and (op == "Squeeze" or rest == [[]])
        return flat.reshape(()) if scalar else flat
    if op == "Concat":
        return np.concatenate(inputs) if all(i.ndim == 1 for i in inputs) else None
    if op == "Gather" and rest[0] is not None and data.ndim == 1:
        index = np.asarray(rest[0]).reshape(inputs[1].shape)
        return np.asarray(data[index]) if inputs[1].ndim else _filled((), [data[int(index)]])
    if op == "Slice" and data.ndim == 1 and len(rest) >= 2:
        start, end, step = rest[0], rest[1], rest[3] if len(rest) > 3 else [1]
        return data[start[0] : end[0] : step[0]] if start and end and step else None
    if op in ("Mul", "Add", "Sub", "Div") and len(inputs) == 2:
        return _arithmetic(op, *inputs)
    return None


def _arithmetic(op: str, left: Ints, right: Ints) -> Ints | None:
    a, b = np.broadcast_arrays(left, right)
    items: list[Int] = []
    for (x, xs), (y, ys) in zip(a.ravel(), b.ravel(), strict=True):
        if op == "Mul":
            items.append((x * y, tuple(sorted((*xs, *ys)))))
        elif op in ("Add", "Sub") and xs == ys:
            total = x + y if op == "Add" else x - y
            items.append((total, xs if total else ()))
        elif op in ("Add", "Sub") and not y:
            items.append((x, xs))
        elif op == "Div" and y > 0 and not ys and x >= 0 and (not xs or x % y == 0):
            items.append((x // y, xs))
        else:
            return None
    return _filled(a.shape, items)
