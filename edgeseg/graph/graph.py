"""Look up and edit an ONNX graph: makers and readers of a tensor, its type, sizes and value."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, shape_inference

from edgeseg.errors import GraphError
from edgeseg.graph.editor import Editor
from edgeseg.graph.nodes import attributes, ints_attribute, is_op
from edgeseg.graph.sizes import (
    Int,
    Ints,
    as_dimension,
    computed,
    filled,
    more_precise,
    number,
    of_dimension,
)

Shapes = Mapping[str, list[Int | None]]  # the sizes of tensors, by name

_SMALL = 4096  # elements: larger initializers are weights, which no shape is computed from
_RESHAPE_OPSET = 5  # the first whose Reshape reads its sizes from an input
_ALLOWZERO_OPSET = 14  # the first whose Reshape has the attribute `allowzero`

# Operators that ONNX's own inference may pass over; their output is like their input.
_LIKE_ITS_INPUT = ("GroupNormalization", "RMSNormalization")


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
        graph = model.graph
        values = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
        typed = {name for name, v in values.items() if v.type.tensor_type.elem_type}

        # Nodes that inference passed over although it knows their input.
        passed: list[NodeProto] = []
        for node in graph.node:
            missing = node.op_type in _LIKE_ITS_INPUT and node.output[0] not in typed | known
            if missing and node.input[0] in typed:
                passed.append(node)
        if not passed:
            return model

        # Their output is like their input. Then infer again.
        for node in passed:
            known.add(node.output[0])
            old = next((v for v in graph.value_info if v.name == node.output[0]), None)
            value = graph.value_info.add() if old is None else old
            value.CopyFrom(values[node.input[0]])
            value.name = node.output[0]


class Graph(Editor):
    """Look up and edit the graph of a model.

    Types and sizes are inferred at the first question for one. Edits keep those that are known; if
    a question comes for a tensor that was added since, all are inferred again. A pass that gives a
    tensor another type or other sizes calls ``forget_inferred``.

    Parameters
    ----------
    model : the ONNX graph, which is edited in place.
    shapes : sizes of tensors, by name, that are better than what inference finds.

    Attributes
    ----------
    model, graph, opset, producer, readers, constants, inputs, outputs : see ``Editor``.

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

    def __init__(self, model: ModelProto, shapes: Shapes | None = None) -> None:
        self._shapes = shapes or {}
        self._keeps_types = False
        super().__init__(model)

    def refresh(self) -> None:
        """Build the indexes again, and forget inferred types and sizes."""
        super().refresh()
        self.forget_inferred()

    def forget_inferred(self) -> None:
        """Forget inferred types and sizes; the next question infers them again."""
        self._known: dict[str, Ints | None] = {}
        self._inferred: dict[str, onnx.TypeProto.Tensor] | None = None

    @contextmanager
    def keeping_types(self) -> Iterator[None]:
        """Infer nothing again inside the ``with`` block: added tensors have no known type.

        For passes during which the graph is not valid, as while two nodes make one tensor.
        """
        self._keeps_types = True
        try:
            yield
        finally:
            self._keeps_types = False

    def assume_like(self, name: str, known: str) -> None:
        """Take the type and sizes of a new tensor from another one, instead of inferring them.

        Parameters
        ----------
        name : the new tensor.
        known : the tensor that has the same type and sizes.
        """
        kind = self._type(known)
        if kind is not None and self._inferred is not None:
            self._inferred[name] = kind

    # -- inference ---------------------------------------------------------------------------------

    def _type(self, name: str) -> onnx.TypeProto.Tensor | None:
        """Return the type and sizes of a tensor, ``None`` if unknown."""
        if self._inferred is None:
            self._infer()
        elif self._is_new(name) and not self._keeps_types:
            self._known.clear()
            self._infer()
        assert self._inferred is not None
        return self._inferred.get(name)

    def _is_new(self, name: str) -> bool:
        """Return True if a tensor may have been added since the last inference."""
        known = self._inferred or {}
        return self._edited and name not in known and name in self.producer

    def _infer(self) -> None:
        """Run ONNX's inference on the graph without its weights.

        Run it again as long as the sizes of more unpoolings become known.
        """
        self._edited = False
        unpools = self.nodes("MaxUnpool")
        bare = self._read(self._without_weights())
        while True:
            sized = [node for node in unpools if self._size_unpooling(bare.graph, node)]
            if not sized:
                return
            self._known.clear()
            bare = self._read(bare)

    def _without_weights(self) -> ModelProto:
        """Return a copy for inference.

        Large initializers are inputs in it: no shape depends on them. The standard's inference
        gives up if the size of a ``MaxUnpool`` is an input, even a constant one. So a ``Reshape``
        stands for it, which has the same type and sizes.
        """
        bare = ModelProto()
        bare.ir_version = max(self.model.ir_version, 4)
        bare.opset_import.extend(self.model.opset_import)
        bare.functions.extend(self.model.functions)
        bare.graph.name = "bare"
        for field in ("node", "input", "output", "value_info"):
            getattr(bare.graph, field).extend(getattr(self.graph, field))

        for node in bare.graph.node:
            if is_op(node, "MaxUnpool") and self.opset >= _RESHAPE_OPSET:
                _stand_in(node, self.opset)

        for tensor in self.graph.initializer:
            if int(np.prod(tensor.dims)) <= _SMALL:
                bare.graph.initializer.append(tensor)
            elif tensor.name not in self.inputs:
                dims = list(tensor.dims)
                value = helper.make_tensor_value_info(tensor.name, tensor.data_type, dims)
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
                hint="Run onnx.checker.check_model(model, full_check=True) and export again.",
            ) from error

        self._bare = bare  # owns what the table below refers to
        self._inferred = {}
        for value in (*bare.graph.value_info, *bare.graph.input, *bare.graph.output):
            self._inferred[value.name] = value.type.tensor_type
        return bare

    def _size_unpooling(self, bare: GraphProto, node: NodeProto) -> bool:
        """Write the size of an unpooling's output into ``bare``; return True if it was unknown."""
        name = node.output[0]
        size = self.unpooled_shape(node)
        if size is None:
            return False
        before = self.shape(name) or [None] * len(size)
        dims = [more_precise(b, s) for b, s in zip(before, size, strict=True)]
        if dims == before:
            return False

        stale = [v for v in (*bare.value_info, *bare.output) if v.name == name]
        for other in stale or [bare.value_info.add(name=name)]:
            kind = self.dtype(name) or self.dtype(node.input[0])
            written = [as_dimension(d) for d in dims]
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

    # -- types and sizes ---------------------------------------------------------------------------

    def dtype(self, name: str) -> int:
        """Return the ONNX element type of a tensor, 0 if unknown.

        Parameters
        ----------
        name : the tensor's name.
        """
        tensor = self.constants.get(name)
        if tensor is not None:
            return int(tensor.data_type)
        kind = self._type(name)
        return int(TensorProto.UNDEFINED) if kind is None else int(kind.elem_type)

    def shape(self, name: str) -> list[Int | None] | None:
        """Return the sizes of a tensor, each a number, a symbol, or ``None`` if unknown.

        The result is ``None`` if not even the rank is known.

        Parameters
        ----------
        name : the tensor's name.
        """
        tensor = self.constants.get(name)
        if tensor is not None:
            return [number(d) for d in tensor.dims]
        if name in self._shapes:
            return list(self._shapes[name])
        kind = self._type(name)
        if kind is None or not kind.HasField("shape"):
            return None
        return [of_dimension(dim) for dim in kind.shape.dim]

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

    # -- values of shape computations --------------------------------------------------------------

    def ints(self, name: str) -> Ints | None:
        """Return the integers, symbols included, that a shape computation gives.

        Parameters
        ----------
        name : the tensor's name.

        Returns
        -------
        The values; ``None`` if they are unknown.
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
            return filled(value.shape, [number(int(v)) for v in value.ravel()])

        # The shape of a tensor, or a cast.
        node = self.producer.get(name)
        if node is None:
            return None
        if is_op(node, "Shape"):
            return self._shape_of(node)
        integers = (TensorProto.INT32, TensorProto.INT64)
        if is_op(node, "Cast", "CastLike") and self.dtype(name) in integers:
            # Exporters write whole numbers as floats and cast them.
            floats = self.array(node.input[0])
            if floats is not None and _are_whole(floats):
                return filled(floats.shape, [number(int(v)) for v in floats.ravel()])
            return self.ints(node.input[0])

        # Arithmetic of what is known.
        inputs = [self.ints(i) for i in node.input if i]
        known = [i for i in inputs if i is not None]
        if len(known) < len(inputs) or node.domain not in ("", "ai.onnx"):
            return None
        return computed(node, known)

    def _shape_of(self, node: NodeProto) -> Ints | None:
        """Return the result of a ``Shape`` node."""
        shape = self.known_shape(node.input[0])
        if shape is None:
            return None
        attrs = attributes(node)
        part = shape[slice(attrs.get("start", 0), attrs.get("end"))]
        return filled((len(part),), part)


def _stand_in(node: NodeProto, opset: int) -> None:
    """Make a ``MaxUnpool`` with its size as an input a ``Reshape`` to that size, in place."""
    if len(node.input) < 3 or not node.input[2]:
        return
    del node.input[1]
    del node.attribute[:]
    node.op_type = "Reshape"
    if opset >= _ALLOWZERO_OPSET:
        node.attribute.append(helper.make_attribute("allowzero", 1))


def _are_whole(values: npt.NDArray[np.generic]) -> bool:
    """Return True if few values are given and all are whole numbers."""
    return values.size <= _SMALL and bool(np.all(np.mod(values.astype(np.float64), 1) == 0))
