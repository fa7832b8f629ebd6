"""Weights stored in FP16: half the file, the numbers of FP16 weights, in every reader."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

from edgeseg.graph.network import load_network
from edgeseg.graph.passes.fp16_weights import store_fp16_weights


def test_a_file_of_halves_is_the_same_net(small_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(small_onnx)
    onnx.save(store_fp16_weights(model), tmp_path / "h.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "h.onnx"), full_check=True)
    network = load_network(tmp_path / "h.onnx")
    kept = {t.name: numpy_helper.to_array(t) for t in network.model.graph.initializer}
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        want = (
            value.astype(np.float16).astype(np.float32)
            if tensor.data_type == 1 and value.ndim > 1
            else value
        )
        np.testing.assert_array_equal(kept[tensor.name], want)
    assert len(kept) == len(model.graph.initializer)
    assert [n.op_type for n in network.model.graph.node] == [n.op_type for n in model.graph.node]
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 96)).astype(np.float32)
    (ours,), (theirs,) = (
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(
            None, {"image": x}
        )
        for data in (network.model.SerializeToString(), str(tmp_path / "h.onnx"))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.ptp(theirs))


def test_what_does_not_fit_into_a_half_stays(small_onnx: Path) -> None:
    model = onnx.load(small_onnx)
    large = next(
        t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) > 1
    )
    value = numpy_helper.to_array(large).copy()
    value.flat[0] = 1e6
    large.CopyFrom(numpy_helper.from_array(value, large.name))
    stored = {t.name: t for t in store_fp16_weights(model).graph.initializer}
    assert stored[large.name].data_type == TensorProto.FLOAT
    assert sum(t.data_type == TensorProto.FLOAT16 for t in stored.values()) > 20
