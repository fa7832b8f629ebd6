"""Rename the tensors of a network, to make room for the names of a lowered graph."""

from dataclasses import replace

import onnx

from edgeseg.graph.editor import PREFIX
from edgeseg.graph.network import Network
from edgeseg.graph.nodes import copied, subgraphs


def without_names(network: Network, names: tuple[str, ...]) -> Network:
    """Return a copy of a network in which no tensor has one of some names.

    Parameters
    ----------
    network : the network to copy.
    names : the names that the new graph needs for its inputs and outputs.
    """
    model = copied(network.model)
    _rename(model.graph, {name: _own_name(name, names) for name in names})
    return replace(renamed_ends(network, names), model=model)


def renamed_ends(network: Network, names: tuple[str, ...]) -> Network:
    """Return a network whose input and output have the names that ``without_names`` gives them.

    Its graph is not renamed.

    Parameters
    ----------
    network : the network.
    names : the names that the new graph needs for its inputs and outputs.
    """
    source = _own_name(network.input, names)
    output = _own_name(network.output, names)
    return replace(network, input=source, output=output)


def _own_name(name: str, names: tuple[str, ...]) -> str:
    """Return the name of a tensor, with a prefix if it is one of ``names``."""
    return f"{PREFIX}net/{name}" if name in names else name


def _rename(graph: onnx.GraphProto, new: dict[str, str]) -> None:
    """Rename tensors of a graph and its subgraphs, in place; ``new`` maps old names to new ones."""
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name in new:
                    names[place] = new[name]
        for body in subgraphs(node):
            _rename(body, new)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new.get(value.name, value.name)
