"""Copy constants that OpenVINO needs for each node alone."""

from edgeseg.graph.graph import Graph
from edgeseg.graph.passes import PassContext


def unshare_slopes(graph: Graph, context: PassContext) -> None:
    """Give every ``PRelu`` slopes of its own: OpenVINO fuses one into its convolution only then.

    Exporters store equal constants once, and all slopes of a network may still have their initial
    value.

    Parameters
    ----------
    graph : the graph to edit.
    context : not used.
    """
    seen: set[str] = set()
    for node in graph.nodes("PRelu"):
        name = node.input[1]
        if name not in graph.constants:
            continue

        if name in seen:
            own = graph.constant(f"{name}/of/{node.output[0]}", graph.constants[name])
            graph.set_input(node, 1, own)
        seen.add(name)
