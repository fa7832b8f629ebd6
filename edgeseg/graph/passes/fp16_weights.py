"""Store weights in FP16 in the file, and compute with them in FP32: half the size, the same graph.

The file stays standard ONNX: each weight is an FP16 initializer behind a ``Cast``, which every runtime folds.
"""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeseg.graph.graph import attributes, copied, is_op, names_read, subgraphs

_STORED = "/half"
_LARGEST = float(np.finfo(np.float16).max)


def store_fp16_weights(model: ModelProto) -> ModelProto:
    """Return a copy of a graph whose FP32 matrices and kernels are stored in FP16; their values are rounded to FP16.

    Vectors stay as they are, and so do tensors with a value beyond FP16.

    Parameters
    ----------
    model : the ONNX graph; it is not changed.
    """
    copy = copied(model)
    casts = []
    for tensor in copy.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        value = numpy_helper.to_array(tensor)
        if not np.all(np.abs(value) <= _LARGEST):
            continue

        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), name + _STORED))
        casts.append(helper.make_node("Cast", [name + _STORED], [name], f"{name}/widen", to=TensorProto.FLOAT))

    nodes = [*casts, *copy.graph.node]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def restore_fp32_weights(model: ModelProto) -> None:
    """Fold every ``Cast`` of an FP16 initializer to FP32 into the initializer, in place.

    This is done for the files of every exporter.

    Parameters
    ----------
    model : the ONNX graph.
    """
    # 1. Fold the casts; ``kept`` are the other nodes.
    tensors = {t.name: t for t in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        source = tensors.get(node.input[0]) if is_op(node, "Cast") and len(node.input) == 1 else None
        if source is None or attributes(node)["to"] != TensorProto.FLOAT or source.data_type != TensorProto.FLOAT16:
            kept.append(node)
            continue
        value = numpy_helper.to_array(source).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    if len(kept) == len(model.graph.node):
        return

    # 2. Find what is still read.
    read = {output.name for output in model.graph.output}
    for node in kept:
        read |= set(node.input)
        for body in subgraphs(node):
            read |= set(names_read(body))

    # 3. Remove the casts and the FP16 initializers.
    nodes = [n.SerializeToString() for n in kept]
    del model.graph.node[:]
    for data in nodes:
        model.graph.node.add().ParseFromString(data)
    unread = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16 and t.name not in read]
    for tensor in unread:
        model.graph.initializer.remove(tensor)
