"""Edit the nodes and constants of an ONNX graph, with indexes that stay true."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.graph.nodes import (
    constant_value,
    is_op,
    names_read,
    names_read_inside,
    opset_of,
    rename_reads,
    subgraphs,
)

PREFIX = "edgeseg/"  # starts the names of nodes and tensors that edgeseg adds; no exporter uses it


class Editor:
    """Hold a graph with its indexes: who makes and who reads a tensor, constants, free names.

    Every method that edits the graph updates the indexes. ``edgeseg.graph.graph.Graph`` adds the
    types and sizes of tensors.

    Parameters
    ----------
    model : the ONNX graph, which is edited in place.

    Attributes
    ----------
    model : the same model.
    graph : ``model.graph``.
    opset : the version of ONNX's own operators, 0 if the file names none.
    producer : the node that makes a tensor, by the tensor's name.
    readers : the nodes that read a tensor, by its name; a node counts if its subgraphs read it.
    constants : the initializers, by name.
    inputs : the names of the graph's inputs.
    outputs : the names of the graph's outputs.

    Examples
    --------
    >>> model = onnx.ModelProto(opset_import=[helper.make_opsetid("", 17)])
    >>> graph = Editor(model)
    >>> graph.node("Relu", ["x"], PREFIX + "positive")
    'edgeseg/positive'
    >>> graph.producer["edgeseg/positive"].op_type, len(graph.readers["x"])
    ('Relu', 1)
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._used: set[str] = set()
        self.refresh()

        # Every name is taken that anything in the file has.
        self._used |= set(names_read(self.graph)) | {*self.producer, *self.constants}
        self._used |= {node.name for node in self.graph.node}

    def refresh(self) -> None:
        """Build the indexes again, after an edit by other means than the methods of this class."""
        self.graph = self.model.graph
        self.opset = opset_of(self.model)
        self.inputs = {value.name for value in self.graph.input}
        self.outputs = {value.name for value in self.graph.output}
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}

        self.producer: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            self._enter(node)

        self._front = 0  # how many nodes were added with `first`
        self._place_hint = 0
        self._edited = False  # True if there may be tensors that were never looked at

    # -- look-ups ----------------------------------------------------------------------------------

    def nodes(self, *op_types: str) -> list[NodeProto]:
        """Return the nodes in graph order, in a list that stays as it is during edits.

        Parameters
        ----------
        op_types : the operators to choose; by default all.
        """
        return [node for node in self.graph.node if not op_types or is_op(node, *op_types)]

    def array(self, name: str) -> npt.NDArray[np.generic] | None:
        """Return the value of an initializer or a ``Constant`` node, else ``None``.

        Parameters
        ----------
        name : the tensor's name.
        """
        tensor = self.constants.get(name)
        if tensor is not None:
            # An initializer that is also an input is a default that the caller may override.
            return None if name in self.inputs else numpy_helper.to_array(tensor)
        node = self.producer.get(name)
        return None if node is None else constant_value(node)

    def is_read(self, name: str) -> bool:
        """Return True if a node reads a tensor, or the graph gives it.

        Parameters
        ----------
        name : the tensor's name.
        """
        return bool(self.readers.get(name)) or name in self.outputs

    def is_pinned(self, name: str) -> bool:
        """Return True if a tensor must keep its name: the graph gives it, or a subgraph reads it.

        Parameters
        ----------
        name : the tensor's name.
        """
        if name in self.outputs:
            return True
        return any(name in names_read_inside(node) for node in self.readers.get(name, []))

    # -- names and constants -----------------------------------------------------------------------

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

    def constant(self, name: str, value: npt.ArrayLike | TensorProto) -> str:
        """Add an initializer unless there is one of its name; return the name.

        Parameters
        ----------
        name : the name.
        value : the value, as a numpy array or scalar, or as a tensor to copy.
        """
        if name not in self.constants:
            tensor = self.graph.initializer.add()
            if isinstance(value, TensorProto):
                tensor.CopyFrom(value)
                tensor.name = name
            else:
                tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), name))
            self.constants[name] = tensor
            self._used.add(name)
        return name

    def new_constant(self, hint: str, value: npt.ArrayLike) -> str:
        """Add an initializer under a new name; return the name.

        Parameters
        ----------
        hint : the name to use if it is free.
        value : the value, as a numpy array or scalar.
        """
        return self.constant(self.unique(hint), value)

    def shared_constant(self, hint: str, value: npt.NDArray[np.generic]) -> str:
        """Return the name of an initializer with a value; equal values are stored once.

        Only values that this method has stored before are found again.

        Parameters
        ----------
        hint : the name to use if the value is new and the name free.
        value : the value.
        """
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._shared:
            self._shared[key] = self.new_constant(hint, value)
        return self._shared[key]

    def hoist_constants(self) -> None:
        """Make initializers of the ``Constant`` nodes that hold numbers."""
        for node in self.nodes("Constant"):
            value = constant_value(node)
            if value is not None:
                self.remove(node)
                self.constant(node.output[0], value)

    # -- edits -------------------------------------------------------------------------------------

    def node(
        self,
        op_type: str,
        inputs: Iterable[str],
        output: str,
        *,
        name: str = "",
        before: NodeProto | None = None,
        first: bool = False,
        **attributes: Any,
    ) -> str:
        """Make a node with one output and add it; return the name of the output.

        Parameters
        ----------
        op_type : the operator.
        inputs : the names of its inputs.
        output : the name of its output.
        name : the node's name; by default its output's, behind ``PREFIX``.
        before, first : where the node goes; see ``add``.
        attributes : the attributes of the operator.
        """
        name = name or PREFIX + output.removeprefix(PREFIX)
        made = helper.make_node(op_type, list(inputs), [output], name=name, **attributes)
        self.add(made, before=before, first=first)
        return output

    def add(
        self,
        node: NodeProto,
        *,
        before: NodeProto | None = None,
        after: NodeProto | None = None,
        first: bool = False,
    ) -> NodeProto:
        """Add a copy of a node, by default at the end; return the copy, which is part of the graph.

        Parameters
        ----------
        node : the node to add.
        before : the node of the graph that it goes in front of.
        after : the node of the graph that it goes behind.
        first : True to put it in front of all nodes but those that were added with ``first``.
        """
        nodes = self.graph.node
        place = len(nodes)
        if first:
            place = self._front
        elif before is not None:
            place = self._place(before)
        elif after is not None:
            place = self._place(after) + 1

        self._front += first or place < self._front
        nodes.insert(place, node)
        made: NodeProto = nodes[place]
        self._enter(made)
        self._used |= {made.name, *made.output}
        self._edited = True
        return made

    def remove(self, node: NodeProto) -> None:
        """Remove a node; its protobuf object stays readable.

        Parameters
        ----------
        node : a node of the graph.
        """
        place = self._place(node)
        self._leave_readers(node, {*node.input, *names_read_inside(node)})
        for name in node.output:
            if self.producer.get(name) is node:
                del self.producer[name]
        self._front -= place < self._front
        del self.graph.node[place]

    def set_input(self, node: NodeProto, place: int, name: str) -> None:
        """Let a node read another tensor.

        Parameters
        ----------
        node : a node of the graph.
        place : the number of its input; inputs in front of it that the node does not have are
            added, empty.
        name : the name of the tensor to read.
        """
        inputs = list(node.input)
        inputs += [""] * (place + 1 - len(inputs))
        inputs[place] = name
        self.set_inputs(node, inputs)

    def set_inputs(self, node: NodeProto, names: Iterable[str]) -> None:
        """Let a node read other tensors.

        Parameters
        ----------
        node : a node of the graph.
        names : the names of all its inputs.
        """
        before = {*node.input}
        names = list(names)
        del node.input[:]
        node.input.extend(names)

        # Subgraphs may read the same tensors.
        inside = set(names_read_inside(node))
        self._leave_readers(node, before - {*names} - inside)
        for name in dict.fromkeys(names):
            if name and name not in before | inside:
                self.readers.setdefault(name, []).append(node)

    def set_output(self, node: NodeProto, place: int, name: str) -> None:
        """Let a node write another tensor.

        Parameters
        ----------
        node : a node of the graph.
        place : the number of its output.
        name : the name of the tensor to write.
        """
        old = node.output[place]
        if self.producer.get(old) is node:
            del self.producer[old]
        node.output[place] = name
        self.producer[name] = node
        self._used.add(name)
        self._edited = True

    def read_instead(self, new: str, old: str, nodes: Iterable[NodeProto] | None = None) -> None:
        """Let nodes and their subgraphs read one tensor instead of another.

        Parameters
        ----------
        new : the name of the tensor to read.
        old : the name of the tensor that they read so far.
        nodes : the nodes to change; by default all that read ``old``.
        """
        for node in list(self.readers.get(old, []) if nodes is None else nodes):
            for body in subgraphs(node):
                rename_reads(body, {old: new})
            self._leave_readers(node, {old})
            for place, name in enumerate(node.input):
                if name == old:
                    node.input[place] = new
            if not any(reader is node for reader in self.readers.get(new, [])):
                self.readers.setdefault(new, []).append(node)

    def replace_input(self, name: str, value: onnx.ValueInfoProto) -> None:
        """Put another input in front of all inputs, and remove one.

        Parameters
        ----------
        name : the name of the input to remove.
        value : the new input.
        """
        kept = [i for i in self.graph.input if i.name != name]
        del self.graph.input[:]
        self.graph.input.extend([value, *kept])
        self.inputs = {i.name for i in self.graph.input}

    def clear_outputs(self) -> None:
        """Let the graph give nothing; the tensors stay."""
        del self.graph.output[:]
        self.outputs = set()

    def add_output(self, name: str, elem_type: int, dims: Sequence[int | str]) -> None:
        """Let the graph give one more tensor.

        Parameters
        ----------
        name : the tensor's name.
        elem_type : its ONNX element type.
        dims : its sizes, each a number or a symbol.
        """
        self.graph.output.append(helper.make_tensor_value_info(name, elem_type, dims))
        self.outputs.add(name)

    def sort(self) -> None:
        """Order nodes so that each comes after the nodes it reads; otherwise the order stays."""
        nodes = self.graph.node
        maker: dict[str, int] = {}
        for place, node in enumerate(nodes):
            maker |= {name: place for name in node.output if name}

        # Depth first, without recursion: a node is done once all makers of its inputs are.
        ordered: dict[int, int] = {}  # place before -> place after
        for root in range(len(nodes)):
            stack = [root]
            while stack:
                place = stack[-1]
                makers = [maker[name] for name in _reads(nodes[place]) if name in maker]
                before = [other for other in makers if other not in ordered and other != place]
                if place in ordered or not before:
                    stack.pop()
                    ordered.setdefault(place, len(ordered))
                else:
                    stack += before

        places = {id(node): ordered[place] for place, node in enumerate(self.nodes())}
        nodes.sort(key=lambda node: places[id(node)])

    # -- cleaning ----------------------------------------------------------------------------------

    def prune(self, names: Iterable[str]) -> None:
        """Remove tensors that nothing reads any more, and in turn what only their makers read.

        Parameters
        ----------
        names : the tensors that may have become unread; shared constants are always looked at.
        """
        candidates = [*names, *self._shared.values()]
        while candidates:
            name = candidates.pop()
            if self.is_read(name):
                continue
            node = self.producer.get(name)
            if node is not None and not any(self.is_read(made) for made in node.output):
                candidates += node.input
                self.remove(node)
            if name in self.constants:
                self.remove_constants({name})

        # Forget the types of tensors that are gone.
        stated = [value.name for value in self.graph.value_info]
        made = self.producer.keys() | self.inputs
        self.drop_types([name for name in stated if name not in made])

    def drop_unread(self, *op_types: str) -> None:
        """Remove nodes whose first output nothing reads, and in turn the nodes that only they read.

        Parameters
        ----------
        op_types : the operators to remove.
        """
        loose = self.nodes(*op_types)
        while loose:
            loose = [node for node in self.nodes(*op_types) if not self.is_read(node.output[0])]
            for node in loose:
                self.remove(node)

    def drop_unread_constants(self) -> None:
        """Remove the initializers that nothing reads."""
        self.remove_constants({name for name in self.constants if not self.is_read(name)})

    def remove_constants(self, names: set[str]) -> None:
        """Remove initializers.

        Parameters
        ----------
        names : the names of the initializers.
        """
        tensors = self.graph.initializer
        for place in reversed(range(len(tensors))):
            if tensors[place].name in names:
                del tensors[place]
        for name in names:
            self.constants.pop(name, None)
        self._shared = {key: name for key, name in self._shared.items() if name not in names}

    def drop_types(self, names: Iterable[str] | None = None) -> None:
        """Remove the types and sizes that the file states for tensors inside the graph.

        Parameters
        ----------
        names : the tensors; by default all.
        """
        dropped = None if names is None else set(names)
        values = self.graph.value_info
        for place in reversed(range(len(values))):
            if dropped is None or values[place].name in dropped:
                del values[place]

    # -- upkeep of the indexes ---------------------------------------------------------------------

    def _enter(self, node: NodeProto) -> None:
        """Index a node of the graph."""
        for name in node.output:
            if name:
                self.producer[name] = node
        for name in dict.fromkeys(_reads(node)):
            self.readers.setdefault(name, []).append(node)

    def _leave_readers(self, node: NodeProto, names: set[str]) -> None:
        """Remove a node from the readers of some tensors."""
        for name in names:
            if name in self.readers:
                kept = [reader for reader in self.readers[name] if reader is not node]
                self.readers[name] = kept

    def _place(self, node: NodeProto) -> int:
        """Return the place of a node in the graph; the search starts at the last one found."""
        nodes = self.graph.node
        for step in range(len(nodes)):
            place = (self._place_hint + step) % len(nodes)
            if nodes[place] is node:
                self._place_hint = place
                return place
        raise ValueError(f"node {node.name!r} is not part of the graph")


def _reads(node: NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, with those of its subgraphs."""
    yield from (name for name in node.input if name)
    yield from names_read_inside(node)
