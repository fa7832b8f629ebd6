"""Weights in other files: their places are checked before anything is opened, all bytes hashed."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import EdgesegError, GraphError, InputError
from edgeseg.graph.external_data import all_tensors
from edgeseg.graph.onnx_file import digest_onnx, read_onnx

_opened: list[str] | None = None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else "")


sys.addaudithook(_watch)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    global _opened
    _opened = []
    yield _opened
    _opened = None


def outside(name: str, values: list[float], location: str) -> TensorProto:
    """A float tensor whose values lie in another file."""
    tensor = numpy_helper.from_array(np.array(values, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(4 * len(values)))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def net(place: str, location: str) -> onnx.ModelProto:
    """A graph with one external tensor: as a weight, a ``Constant``, or in a subgraph."""
    tensor = outside("w", [1.0, 2.0, 3.0], location)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    add = helper.make_node("Add", ["x", "w"], ["y"])
    if place == "weight":
        graph = helper.make_graph([add], "g", [x], [y], [tensor])
    elif place == "constant":
        graph = helper.make_graph([constant, add], "g", [x], [y])
    else:
        inner = helper.make_node("Add", ["x", "w"], ["z"])
        z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [3])
        weights = [tensor] if place == "weight of a subgraph" else []
        nodes = [inner] if weights else [constant, inner]
        body = helper.make_graph(nodes, "b", [], [z], weights)
        true = numpy_helper.from_array(np.array(True), "true")
        branch = helper.make_node("If", ["true"], ["y"], then_branch=body, else_branch=body)
        graph = helper.make_graph([branch], "g", [x], [y], [true])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


PLACES = ("weight", "constant", "weight of a subgraph", "constant of a subgraph")


def saved(folder: Path, place: str, location: str = "w.bin") -> Path:
    path = folder / "net.onnx"
    path.write_bytes(net(place, location).SerializeToString())
    return path


@pytest.mark.parametrize("place", PLACES)
def test_every_byte_that_is_read_is_hashed(tmp_path: Path, place: str) -> None:
    path = saved(tmp_path, place)
    (tmp_path / "w.bin").write_bytes(np.array([1, 2, 3], np.float32).tobytes())
    model, before = read_onnx(path)
    assert before == digest_onnx(path)
    found = [numpy_helper.to_array(t) for t in all_tensors(model) if t.name == "w"]
    for values in found:
        np.testing.assert_array_equal(values, [1, 2, 3])
    assert found

    (tmp_path / "w.bin").write_bytes(np.array([1, 2, 4], np.float32).tobytes())
    assert digest_onnx(path) != before
    assert read_onnx(path)[1] == digest_onnx(path)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["absolute", "parent", "link", "linked folder", "pipe", "folder"])
def test_files_elsewhere_are_not_opened(
    tmp_path: Path, place: str, kind: str, opened: list[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(12))
    folder = tmp_path / "nets"
    folder.mkdir()
    name = {"absolute": str(secret), "parent": "../secret", "linked folder": "up/secret"}
    location = name.get(kind, "w.bin")
    if kind == "link":
        (folder / "w.bin").symlink_to(secret)
    elif kind == "linked folder":
        (folder / "up").symlink_to(tmp_path)
    elif kind == "pipe":
        os.mkfifo(folder / "w.bin")
    elif kind == "folder":
        (folder / "w.bin").mkdir()

    path = saved(folder, place, location)
    opened.clear()
    for read in (digest_onnx, read_onnx):
        with pytest.raises(GraphError, match="its weights are not read from") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert {Path(name).name for name in opened} <= {"net.onnx"}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("offset", "4", "ends at byte 16 of 12"),
        ("offset", "-4", "begins or ends before"),
        ("length", "x", "no whole numbers"),
        ("length", str(10**18), "too large"),
    ],
)
def test_a_wrong_place_in_the_file_is_one_line(
    tmp_path: Path, key: str, value: str, says: str
) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(12))
    model = net("weight", "w.bin")
    for entry in model.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = value
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match=says):
        read_onnx(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"missing or damaged: got 'w.bin': No such file"):
        read_onnx(saved(tmp_path, "constant"))


def test_an_unreadable_onnx_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").symlink_to("/proc/self/mem")
    with pytest.raises(InputError, match="the ONNX file cannot be read") as caught:
        read_onnx(tmp_path / "net.onnx")
    assert isinstance(caught.value, EdgesegError)
