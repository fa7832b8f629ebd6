"""Store weights in FP16 in the file, and compute with them in FP32: half the size, the same graph.

The file stays standard ONNX: each weight is an FP16 initializer behind a ``Cast``, which every
runtime folds.
"""

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import attributes, copied

_STORED = "/half"
_LARGEST = float(np.finfo(np.float16).max)


def store_fp16_weights(model: ModelProto) -> ModelProto:
    """Return a copy of a graph whose FP32 matrices and kernels are stored in FP16.

    Their values are rounded to FP16. Vectors stay as they are, and so do tensors with a value
    beyond FP16.

    Parameters
    ----------
    model : the ONNX graph; it is not changed.
    """
    copy = copied(model)
    graph = Graph(copy)
    for tensor in list(copy.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        value = numpy_helper.to_array(tensor)
        if not np.all(np.abs(value) <= _LARGEST):
            continue

        name = tensor.name
        stored = name + _STORED
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), stored))
        graph.node("Cast", [stored], name, name=f"{name}/widen", first=True, to=TensorProto.FLOAT)
    return copy


def restore_fp32_weights(model: ModelProto) -> None:
    """Fold every ``Cast`` of an FP16 initializer to FP32 into the initializer, in place.

    This is done for the files of every exporter.

    Parameters
    ----------
    model : the ONNX graph.
    """
    # 1. Fold the casts.
    graph = Graph(model)
    folded = 0
    for node in graph.nodes("Cast"):
        source = graph.constants.get(node.input[0])
        to_float = attributes(node)["to"] == TensorProto.FLOAT
        if source is None or source.data_type != TensorProto.FLOAT16 or not to_float:
            continue
        graph.remove(node)
        graph.constant(node.output[0], numpy_helper.to_array(source).astype(np.float32))
        folded += 1
    if not folded:
        return

    # 2. Remove the FP16 initializers that nothing reads any more.
    halves = [t.name for t in graph.constants.values() if t.data_type == TensorProto.FLOAT16]
    graph.remove_constants({name for name in halves if not graph.is_read(name)})
