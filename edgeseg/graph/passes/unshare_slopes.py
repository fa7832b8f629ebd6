"""Copy constants that OpenVINO needs for each node alone."""

from onnx import ModelProto, TensorProto

from edgeseg.graph.graph import is_op


def unshare_slopes(model: ModelProto) -> None:
    """Give every ``PRelu`` slopes of its own, in place: OpenVINO fuses one into its convolution only then.

    Exporters store equal constants once, and all slopes of a network may still have their initial value.

    Parameters
    ----------
    model : the ONNX graph.
    """
    values = {t.name: t for t in model.graph.initializer}
    seen: set[str] = set()
    for node in model.graph.node:
        if not is_op(node, "PRelu") or node.input[1] not in values:
            continue

        name = node.input[1]
        if name in seen:
            copy = TensorProto()
            copy.CopyFrom(values[name])
            copy.name = f"{name}/of/{node.output[0]}"
            model.graph.initializer.append(copy)
            node.input[1] = copy.name
        seen.add(name)
