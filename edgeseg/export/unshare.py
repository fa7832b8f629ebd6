"""Constants that OpenVINO wants for each node alone."""

from onnx import ModelProto, TensorProto

from edgeseg.export.graph import is_op


def unshare_slopes(model: ModelProto) -> None:
    """Give every ``PRelu`` slopes of its own, in place: OpenVINO fuses one into its convolution only then.

    Exporters store equal constants once, and all slopes of a net may still be what they were initialised with.
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
