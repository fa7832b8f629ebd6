"""Look up and edit an ONNX graph: the maker of a tensor, its readers, type, sizes, and its value if known."""

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
    """Return an integer as an ``Int``.

    Parameters
    ----------
    value : the integer.

    Examples
    --------
    >>> number(7)
    (7, ())
    """
    return (int(value), ())


_LIKE_ITS_INPUT = ("GroupNormalization", "RMSNormalization")  # operators that ONNX's own inference may pass over


def infer_shapes(model: ModelProto) -> ModelProto:
    """Return a copy with the types and shapes of its tensors, as far as they can be inferred.

    Parameters
    ----------
    model : the ONNX graph; it is not changed.

    Raises
    ------
    Exception : whatever ONNX's own inference raises.
    """
    known: set[str] = set()
    while True:
        model = shape_inference.infer_shapes(model, data_prop=True)
        values = {v.name: v for v in (*model.graph.input, *model.graph.value_info, *model.graph.output)}
        typed = {name for name, v in values.items() if v.type.tensor_type.elem_type}

        # Nodes that inference passed over although it knows their input.
        passed: list[NodeProto] = []
        for node in model.graph.node:
            missing = node.op_type in _LIKE_ITS_INPUT and node.output[0] not in typed | known
            if missing and node.input[0] in typed:
                passed.append(node)
        if not passed:
            return model

        # Their output is like their input. Then infer again.
        for node in passed:
            known.add(node.output[0])
            old = next((v for v in model.graph.value_info if v.name == node.output[0]), None)
            value = model.graph.value_info.add() if old is None else old
            value.CopyFrom(values[node.input[0]])
            value.name = node.output[0]


def copied(model: ModelProto) -> ModelProto:
    """Return a copy of an ONNX graph that can be edited.

    Parameters
    ----------
    model : the graph to copy.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values, by name.

    Parameters
    ----------
    node : the node.

    Examples
    --------
    >>> attributes(helper.make_node("Softmax", ["x"], ["y"], axis=1))
    {'axis': 1}
    """
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def ints_attribute(node: NodeProto, name: str, default: list[int]) -> list[int]:
    """Return an attribute that is a list of integers.

    Parameters
    ----------
    node : the node.
    name : the attribute's name.
    default : the result if the attribute is absent or empty.

    Examples
    --------
    >>> ints_attribute(helper.make_node("MaxPool", ["x"], ["y"], strides=[2, 2]), "strides", [1, 1])
    [2, 2]
    """
    value = attributes(node).get(name)
    return [int(v) for v in value] if value else default


def is_op(node: NodeProto | None, *op_types: str) -> bool:
    """Return True if a node is one of the named operators of the ONNX standard.

    Parameters
    ----------
    node : the node; ``None`` is no operator.
    op_types : the names of the operators.

    Examples
    --------
    >>> is_op(helper.make_node("Relu", ["x"], ["y"]), "Relu", "Clip")
    True
    >>> is_op(None, "Relu")
    False
    """
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def title(node: NodeProto) -> str:
    """Return the words that an error uses for a node.

    Parameters
    ----------
    node : the node.

    Examples
    --------
    >>> title(helper.make_node("Relu", ["x"], ["y"]))
    "Relu node 'y'"
    """
    return f"{node.op_type} node {node.name or node.output[0]!r}"


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the bodies that a control-flow node runs.

    Parameters
    ----------
    node : any node; most have none.
    """
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def names_read(graph: GraphProto) -> Iterator[str]:
    """Yield every name that the nodes and outputs of a graph read, with those of its subgraphs.

    Parameters
    ----------
    graph : the graph.
    """
    for node in graph.node:
        yield from (name for name in node.input if name)
        for body in subgraphs(node):
            yield from names_read(body)
    yield from (value.name for value in graph.output)


class Graph:
    """Look up and edit the graph of a model; call ``refresh`` after an edit.

    Parameters
    ----------
    model : the ONNX graph, which is edited in place.
    shapes : sizes of tensors, by name, that are better than what inference finds.

    Attributes
    ----------
    model : the same model.
    graph : ``model.graph``.
    producer : the node that makes a tensor, by the tensor's name.
    readers : the nodes that read a tensor, by its name; a node counts if its subgraphs read it.
    outputs : the names of the graph's outputs.

    Examples
    --------
    >>> image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    >>> result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    >>> relu = helper.make_node("Relu", ["x"], ["y"])
    >>> model = helper.make_model(helper.make_graph([relu], "small", [image], [result]))
    >>> graph = Graph(model)
    >>> graph.producer["y"].op_type, graph.static_shape("y")
    ('Relu', [1, 3, 8, 8])
    """

    def __init__(self, model: ModelProto, shapes: Mapping[str, list[Int | None]] | None = None) -> None:
        self.model = model
        self.graph = model.graph
        self._shapes = shapes or {}
        self._used = set(names_read(self.graph))
        for node in self.graph.node:
            self._used |= {node.name, *node.output}
        self._used |= {tensor.name for tensor in self.graph.initializer}
        self._pool: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Find the makers and readers of all tensors again, and forget inferred types and sizes."""
        self.producer = {}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in node.output:
                if name:
                    self.producer[name] = node

            read = set(node.input)
            for body in subgraphs(node):
                read |= set(names_read(body))
            for name in read:
                self.readers.setdefault(name, []).append(node)

        self.outputs = {value.name for value in self.graph.output}
        self._initializer = {t.name: t for t in self.graph.initializer}
        self._known: dict[str, Ints | None] = {}
        self._inferred: dict[str, onnx.TypeProto.Tensor] | None = None

    # -- edits -------------------------------------------------------------------------------------------------------

    def unique(self, hint: str) -> str:
        """Return a name that nothing in the graph has yet, and reserve it.

        Parameters
        ----------
        hint : the name to use if it is free; else a number is added.
        """
        name = hint
        count = 1
        while name in self._used:
            name = f"{hint}_{count}"
            count += 1
        self._used.add(name)
        return name

    def constant(self, value: npt.NDArray[np.generic], hint: str) -> str:
        """Return the name of an initializer that holds a value; equal values are stored once.

        Parameters
        ----------
        value : the value.
        hint : the end of the name if the initializer is new.
        """
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._pool:
            self._pool[key] = self.unique(f"unpool/{hint}")
            self.graph.initializer.append(numpy_helper.from_array(value, self._pool[key]))
        return self._pool[key]

    def replace(self, replacements: dict[int, list[NodeProto]]) -> None:
        """Replace single nodes by lists of nodes, then remove what nothing reads any more.

        Parameters
        ----------
        replacements : the new nodes, by the ``id`` of the node that they replace.
        """
        nodes: list[NodeProto] = []
        orphans: list[str] = []
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
        """Remove the makers of ``candidates`` that nothing reads any more, and in turn what only they read."""
        while candidates:
            read = set(names_read(self.graph))
            loose = {name for name in candidates if name not in read}
            candidates = []
            for node in list(self.graph.node):
                made_here = set(node.output)
                if loose & made_here and not read & made_here:
                    candidates += list(node.input)
                    self.graph.node.remove(node)
            for tensor in [t for t in self.graph.initializer if t.name in loose]:
                self.graph.initializer.remove(tensor)

        # Forget the types of tensors that are gone.
        made = {value.name for value in self.graph.input}
        for node in self.graph.node:
            made |= set(node.output)
        kept = [v for v in self.graph.value_info if v.name in made]
        del self.graph.value_info[:]
        self.graph.value_info.extend(kept)

    # -- types and sizes ---------------------------------------------------------------------------------------------

    @property
    def _type(self) -> dict[str, onnx.TypeProto.Tensor]:
        """Return the types and sizes of tensors by name; they are inferred at the first use."""
        if self._inferred is None:
            self._infer()
        assert self._inferred is not None
        return self._inferred

    def _infer(self) -> None:
        """Run ONNX's inference on the graph without its weights.

        Run it again as long as the sizes of more unpoolings become known.
        """
        bare = self._read(self._without_weights())
        unpools = [n for n in self.graph.node if is_op(n, "MaxUnpool")]
        while True:
            # The standard's inference gives up if MaxUnpool's size is an input, even a constant one.
            sized = [node for node in unpools if self._size_unpooling(bare.graph, node)]
            if not sized:
                return
            self._known.clear()
            bare = self._read(bare)

    def _without_weights(self) -> ModelProto:
        """Return a copy for inference, in which large initializers are inputs: no shape depends on them."""
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

    def _read(self, bare: ModelProto) -> ModelProto:
        """Infer types and sizes; return the model that holds them."""
        try:
            bare = shape_inference.infer_shapes(bare, data_prop=True)
        except shape_inference.InferenceError as error:
            raise GraphError(
                f"the ONNX file's graph {self.graph.name!r} contradicts itself",
                got=" ".join(str(error).split()),
                hint="Run onnx.checker.check_model(model, full_check=True) and export the net again.",
            ) from error

        self._bare = bare  # owns what the table below refers to
        self._inferred = {}
        for value in (*bare.graph.value_info, *bare.graph.input, *bare.graph.output):
            self._inferred[value.name] = value.type.tensor_type
        return bare

    def _size_unpooling(self, bare: GraphProto, node: NodeProto) -> bool:
        """Write the size of an unpooling's output into ``bare``; return True if it was not known before."""
        name = node.output[0]
        size = self.unpooled_shape(node)
        if size is None:
            return False
        before = self.shape(name) or [None] * len(size)
        dims = [_more_precise(b, s) for b, s in zip(before, size, strict=True)]
        if dims == before:
            return False

        stale = [v for v in (*bare.value_info, *bare.output) if v.name == name]
        for other in stale or [bare.value_info.add(name=name)]:
            kind = self.dtype(name) or self.dtype(node.input[0])
            written = [_as_dimension(d) for d in dims]
            other.CopyFrom(helper.make_tensor_value_info(name, kind, written))
        return True

    def unpooled_shape(self, node: NodeProto) -> list[Int] | None:
        """Return the sizes of a ``MaxUnpool``'s output; ``None`` if they are unknown.

        They are its third input, or the reverse of ``MaxPool``'s formula.

        Parameters
        ----------
        node : a ``MaxUnpool`` node.
        """
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
        for axis, (side, stride) in enumerate(zip(kernel, strides, strict=True)):
            coefficient, symbols = size[2 + axis]
            trimmed = side - stride - pads[axis] - pads[axis + len(kernel)]
            if symbols and trimmed:
                return None
            size[2 + axis] = (coefficient * stride + trimmed, symbols)
        return size

    def dtype(self, name: str) -> int:
        """Return the ONNX element type of a tensor, 0 if unknown.

        Parameters
        ----------
        name : the tensor's name.
        """
        tensor = self._initializer.get(name)
        if tensor is not None:
            return int(tensor.data_type)
        return int(self._type[name].elem_type) if name in self._type else int(TensorProto.UNDEFINED)

    def shape(self, name: str) -> list[Int | None] | None:
        """Return the sizes of a tensor, each a number, a symbol, or ``None`` if unknown.

        The result is ``None`` if not even the rank is known.

        Parameters
        ----------
        name : the tensor's name.
        """
        tensor = self._initializer.get(name)
        if tensor is not None:
            return [number(d) for d in tensor.dims]
        if name in self._shapes:
            return list(self._shapes[name])
        kind = self._type.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        return [_of_dimension(dim) for dim in kind.shape.dim]

    def known_shape(self, name: str) -> list[Int] | None:
        """Return ``shape``, or ``None`` unless every size is a number or a symbol.

        Parameters
        ----------
        name : the tensor's name.
        """
        shape = self.shape(name)
        if shape is None:
            return None
        known = [d for d in shape if d is not None]
        return known if len(known) == len(shape) else None

    def static_shape(self, name: str) -> list[int] | None:
        """Return ``shape`` in numbers, or ``None`` unless every size is a number.

        Parameters
        ----------
        name : the tensor's name.
        """
        shape = self.known_shape(name)
        if shape is None or any(symbols for _, symbols in shape):
            return None
        return [size for size, _ in shape]

    def static_channels(self, name: str) -> int | None:
        """Return dimension 1 of a four-dimensional tensor, or ``None`` if it is unknown.

        Parameters
        ----------
        name : the tensor's name.
        """
        shape = self.shape(name)
        if shape is None or len(shape) != 4 or shape[1] is None or shape[1][1]:
            return None
        return shape[1][0]

    # -- values ------------------------------------------------------------------------------------------------------

    def array(self, name: str) -> npt.NDArray[np.generic] | None:
        """Return the value of an initializer or a ``Constant`` node, else ``None``.

        Parameters
        ----------
        name : the tensor's name.
        """
        tensor = self._initializer.get(name)
        if tensor is not None:
            # An initializer that is also an input is a default that the caller may override.
            is_default = name in {value.name for value in self.graph.input}
            return None if is_default else numpy_helper.to_array(tensor)
        node = self.producer.get(name)
        return None if node is None else self.constant_value(node)

    @staticmethod
    def constant_value(node: NodeProto) -> npt.NDArray[np.generic] | None:
        """Return the value of a ``Constant`` node, or ``None`` for another node, for text and for sparse constants.

        Parameters
        ----------
        node : any node.

        Examples
        --------
        >>> Graph.constant_value(helper.make_node("Constant", [], ["c"], value_ints=[1, 2])).tolist()
        [1, 2]
        """
        if is_op(node, "Constant") and len(node.attribute) == 1:
            ((kind, value),) = attributes(node).items()
            if kind == "value":
                return numpy_helper.to_array(value)
            if kind in ("value_int", "value_ints", "value_float", "value_floats"):
                return np.asarray(value, np.int64 if "int" in kind else np.float32)
        return None

    def ints(self, name: str) -> Ints | None:
        """Return the integers, symbols included, that a shape computation gives; ``None`` if unknown.

        Parameters
        ----------
        name : the tensor's name.
        """
        if name not in self._known:
            self._known[name] = None  # a damaged, cyclic graph ends here
            self._known[name] = self._ints(name)
        return self._known[name]

    def _ints(self, name: str) -> Ints | None:
        """Compute ``ints``."""
        # A constant.
        value = self.array(name)
        if value is not None:
            if value.dtype.kind != "i" or value.size > _SMALL:
                return None
            return _filled(value.shape, [number(int(v)) for v in value.ravel()])

        # The shape of a tensor, or a cast.
        node = self.producer.get(name)
        if node is None:
            return None
        if is_op(node, "Shape"):
            return self._shape_of(node)
        if is_op(node, "Cast", "CastLike") and self.dtype(name) in (TensorProto.INT32, TensorProto.INT64):
            floats = self.array(node.input[0])  # exporters write whole numbers as floats and cast them
            if floats is not None and _are_whole(floats):
                return _filled(floats.shape, [number(int(v)) for v in floats.ravel()])
            return self.ints(node.input[0])

        # Arithmetic of what is known.
        inputs = [self.ints(i) for i in node.input if i]
        known = [i for i in inputs if i is not None]
        if len(known) < len(inputs) or node.domain not in ("", "ai.onnx"):
            return None
        return _computed(node, known)

    def _shape_of(self, node: NodeProto) -> Ints | None:
        """Return the result of a ``Shape`` node."""
        shape = self.known_shape(node.input[0])
        if shape is None:
            return None
        attrs = attributes(node)
        part = shape[slice(attrs.get("start", 0), attrs.get("end"))]
        return _filled((len(part),), part)


def _are_whole(values: npt.NDArray[np.generic]) -> bool:
    """Return True if few values are given and all are whole numbers."""
    return values.size <= _SMALL and bool(np.all(np.mod(values.astype(np.float64), 1) == 0))


def _of_dimension(dim: onnx.TensorShapeProto.Dimension) -> Int | None:
    """Return a dimension of an ONNX file as a number, a symbol, or ``None`` if it is unknown."""
    if dim.HasField("dim_value"):
        return number(dim.dim_value)
    if dim.dim_param:
        return 1, (dim.dim_param,)
    return None


def _as_dimension(size: Int | None) -> int | str | None:
    """Return a size as a dimension of an ONNX file: a number, a symbol, or ``None``."""
    if size is None:
        return None
    coefficient, symbols = size
    return symbols[0] if symbols else coefficient


def _more_precise(before: Int | None, new: Int) -> Int | None:
    """Return the more precise of two values of one size.

    A symbol with a coefficient, or a product of symbols, cannot be written into an ONNX file.
    """
    if before is not None and (not before[1] or new[1]):
        return before
    can_be_written = not new[1] or (new[0] == 1 and len(new[1]) == 1)
    return new if can_be_written else before


def _filled(shape: tuple[int, ...], items: list[Int]) -> Ints:
    """Return an array of objects with the given shape."""
    out = np.empty(len(items), object)
    out[:] = items
    return out.reshape(shape)


def _numbers(values: Ints) -> list[int] | None:
    """Return the values as integers, or ``None`` if one is a symbol."""
    if any(symbols for _, symbols in values.ravel()):
        return None
    return [int(value) for value, _ in values.ravel()]


def _computed(node: NodeProto, inputs: list[Ints]) -> Ints | None:
    """Return what a node computes from known integers, for the operators that exporters use on shapes."""
    data = inputs[0] if inputs else np.empty(0, object)
    rest = [_numbers(i) for i in inputs[1:]]
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
        start = rest[0]
        end = rest[1]
        step = rest[3] if len(rest) > 3 else [1]
        return data[start[0] : end[0] : step[0]] if start and end and step else None

    if op in ("Mul", "Add", "Sub", "Div") and len(inputs) == 2:
        return _arithmetic(op, *inputs)
    return None


def _arithmetic(op: str, left: Ints, right: Ints) -> Ints | None:
    """Return the result of an operator on integers with symbols; ``None`` if it cannot be written as one."""
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
