"""Layers of a cpu engine: their times against the whole, and their work against the ONNX file."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.profiling.engine_record import LayerTable
from edgeseg.profiling.layers import profile_layers


@pytest.fixture(scope="module")
def table(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> LayerTable:
    out = tmp_path_factory.mktemp("engine") / "small.engine"
    engine = build_engine(small_onnx, precision="fp32", out=out)
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    return profile_layers(engine, [frame], calls=30)


def multiply_adds_of(path: Path) -> int:
    """Count those of all convolutions of a file, from the shapes that ONNX infers."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    weights = {one.name: numpy_helper.to_array(one).shape for one in graph.initializer}
    shapes = {
        info.name: [size.dim_value for size in info.type.tensor_type.shape.dim]
        for info in (*graph.value_info, *graph.input, *graph.output)
    }
    total = 0
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            image = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
            total += math.prod(image[2:]) * math.prod(weights[node.input[1]])
    return total


def test_multiply_adds_are_those_of_the_file(table: LayerTable, small_onnx: Path) -> None:
    assert sum(row.multiply_adds for row in table.rows) == multiply_adds_of(small_onnx)


def test_layers_sum_up_to_the_whole(table: LayerTable) -> None:
    """Within a tenth for nets of normal size; this one takes 2 ms, and calls take a part of it."""
    assert 0.5 * table.graph_ms < table.layers_ms <= 1.02 * table.graph_ms
    assert table.layers_ms == pytest.approx(sum(row.ms for row in table.rows))
    assert all(row.ms >= 0 for row in table.rows)


def test_bytes_are_inputs_weights_and_outputs(table: LayerTable) -> None:
    convolutions = [row for row in table.rows if row.multiply_adds]
    assert len(convolutions) > 50
    # The first convolution: 3x64x96 in, 13x32x48 out, 13x3x3x3 weights, in FP32.
    first = convolutions[0]
    assert first.multiply_adds == 32 * 48 * 13 * 27
    assert first.bytes == 4 * (3 * 64 * 96 + 13 * 32 * 48 + 13 * 27)
    assert {row.precision for row in convolutions} == {"fp32"}


def test_engines_of_other_targets_have_no_layers_here(tmp_path: Path, small_onnx: Path) -> None:
    from edgeseg.errors import EdgesegError

    (tmp_path / "x.engine").write_bytes(b"nothing")
    with pytest.raises(EdgesegError):
        profile_layers(tmp_path / "x.engine", [np.zeros((8, 8, 3), np.uint8)])
