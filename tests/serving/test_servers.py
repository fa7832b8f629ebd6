"""What other servers are handed: Triton's model repository and DeepStream's nvinfer, read as those
read them.
"""

import ast
import configparser
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from commands import edgeseg
from google.protobuf import (  # type: ignore[import-untyped]  # its stubs are a package of their own
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)
from lowered import deploy
from onnx import TensorProto, helper, numpy_helper
from onnx_tools import rtx_log

from edgeseg.build.engine_cache import resolve_engine
from edgeseg.data import open_dataset
from edgeseg.errors import EngineError, InputError, OutputError
from edgeseg.facts import LABELS, LABELS_AND_SCORES, TensorRTFacts
from edgeseg.files import sha256_bytes
from edgeseg.graph.network import Overrides, load_network
from edgeseg.imaging.preprocess import to_input
from edgeseg.passport import Passport
from edgeseg.serving.deepstream import deepstream_from_network, feeding, nvinfer_graph
from edgeseg.serving.folder import write_folder
from edgeseg.serving.triton import (
    config_text,
    quoted,
    safe_name,
    triton_from_engine,
    triton_from_network,
)
from edgeseg.spec import CAMVID_11, ModelSpec
from edgeseg.zoo import zoo, zoo_int8

SPECS = {
    "as shipped": Overrides(),
    "bgr": Overrides(colour="bgr"),
    "one std": Overrides(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    "bytes": Overrides(scale=1.0, mean=(103.5, 116.3, 123.7), std=(57.4, 57.1, 58.4), colour="bgr"),
}


def session(model: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """Frames of the synthetic drive at the shipped net's size, (360, 480, 3) uint8 BGR."""
    data = open_dataset("synthetic://?length=12&size=480x360&seed=7", "train")
    return [data[i].image for i in (0, 3)]


# -- Triton ----------------------------------------------------------------------------------------

# The fields of Triton's model_config.proto that are used, by number: (name, number, type, message
# or enum, repeated).
_FIELD = descriptor_pb2.FieldDescriptorProto
_STRING, _INT32, _INT64 = _FIELD.TYPE_STRING, _FIELD.TYPE_INT32, _FIELD.TYPE_INT64
_MESSAGES: dict[str, list[tuple[str, int, int, str, bool]]] = {
    "ModelInput": [
        ("name", 1, _STRING, "", False),
        ("data_type", 2, _FIELD.TYPE_ENUM, "DataType", False),
        ("dims", 4, _INT64, "", True),
    ],
    "ModelOutput": [
        ("name", 1, _STRING, "", False),
        ("data_type", 2, _FIELD.TYPE_ENUM, "DataType", False),
        ("dims", 3, _INT64, "", True),
        ("label_filename", 4, _STRING, "", False),
    ],
    "ModelInstanceGroup": [
        ("count", 2, _INT32, "", False),
        ("kind", 4, _FIELD.TYPE_ENUM, "Kind", False),
    ],
    "ModelParameter": [("string_value", 1, _STRING, "", False)],
    "ParametersEntry": [
        ("key", 1, _STRING, "", False),
        ("value", 2, _FIELD.TYPE_MESSAGE, "ModelParameter", False),
    ],
    "ModelConfig": [
        ("name", 1, _STRING, "", False),
        ("platform", 2, _STRING, "", False),
        ("max_batch_size", 4, _INT32, "", False),
        ("input", 5, _FIELD.TYPE_MESSAGE, "ModelInput", True),
        ("output", 6, _FIELD.TYPE_MESSAGE, "ModelOutput", True),
        ("instance_group", 7, _FIELD.TYPE_MESSAGE, "ModelInstanceGroup", True),
        ("parameters", 14, _FIELD.TYPE_MESSAGE, "ParametersEntry", True),
    ],
}
_ENUMS = {
    "DataType": {"TYPE_INVALID": 0, "TYPE_UINT8": 2},
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3},
}


def parse_config(text: str) -> Any:
    """``text`` by protobuf's own parser, as ``ModelConfig``.

    A field or a name that is not there is an error.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="model_config.proto", package="inference", syntax="proto3"
    )
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, type_name, repeated in fields:
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, type=kind, label=label)
            if type_name:
                added.type_name = f".inference.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))()
    return text_format.Parse(text, made)


def test_triton_repository_is_what_its_configuration_says(
    frames: list[np.ndarray], tmp_path: Path
) -> None:
    network = load_network(zoo()["enet-camvid"])
    folder = triton_from_network(network, tmp_path / "models")
    assert folder == tmp_path / "models" / "enet-camvid"
    config = parse_config((folder / "config.pbtxt").read_text())
    assert (config.name, config.platform, config.max_batch_size) == (
        "enet-camvid",
        "onnxruntime_onnx",
        0,
    )
    model = session(folder / "1" / "model.onnx")
    types = {"tensor(uint8)": 2}
    for said, there in ((config.input, model.get_inputs()), (config.output, model.get_outputs())):
        assert [(v.name, v.data_type, list(v.dims)) for v in said] == [
            (v.name, types[v.type], v.shape) for v in there
        ]
    assert [group.kind for group in config.instance_group] == [0]
    facts = {entry.key: entry.value.string_value for entry in config.parameters}
    assert ModelSpec.parse(facts["edgeseg.spec"], "config") == network.spec
    assert (folder / "labels.txt").read_text().splitlines() == list(network.spec.labels.names)
    reference = session(deploy(network, for_openvino=False))
    for frame in frames:
        (want,) = reference.run(None, {"frame": frame[None]})
        (got,) = model.run(["labels"], {"frame": frame[None]})
        np.testing.assert_array_equal(got, want)
        assert len(np.unique(got)) > 3


def test_triton_readme_shows_python_that_parses(tmp_path: Path) -> None:
    folder = triton_from_network(load_network(zoo()["enet-camvid"]), tmp_path)
    text = (folder / "README.txt").read_text()
    code = text.split("From Python")[1].split("\n\n", 1)[1]
    names = {
        n.attr for n in ast.walk(ast.parse("if True:\n" + code)) if isinstance(n, ast.Attribute)
    }
    assert {"InferenceServerClient", "InferInput", "as_numpy"} <= names
    assert str(360 * 480 * 3) in text


@pytest.mark.parametrize("text", ['plain "quoted" \\ back', "tab\tline\nname: \u00e9\u4e2d", ""])
def test_strings_of_the_configuration_come_back(text: str) -> None:
    spec = ModelSpec(architecture="x", input_size=(2, 3), labels=CAMVID_11)
    config = parse_config(config_text("n", "tensorrt_plan", spec, {"key": text}))
    assert config.parameters[0].value.string_value == text
    assert quoted(text).isascii()
    assert config.instance_group[0].kind == 1


@pytest.mark.parametrize(
    ("name", "safe"),
    [("enet-camvid", "enet-camvid"), ("my net/2", "my_net_2"), ("..", "net"), ("a.b", "a.b")],
)
def test_names_are_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def _engine(folder: Path, target: str = "tensorrt", data: bytes = b"a plan", **facts: Any) -> Path:
    path = folder / "net.fp16.tensorrt.engine"
    path.write_bytes(data)
    passport = Passport(
        name="net",
        target=target,
        precision="fp16",
        spec=ModelSpec(architecture="x", input_size=(4, 6), labels=CAMVID_11),
        onnx_sha256="0" * 64,
        engine_sha256=sha256_bytes(b"a plan"),
        edgeseg="0",
        library="TensorRT",
        library_version="10.3.0",
        device="Orin",
        facts=TensorRTFacts(**facts),
        build_seconds=1,
        built_at="2026-11-01",
    )
    Passport.path_for(path).write_text(passport.model_dump_json())
    return path


def test_triton_takes_a_tensorrt_engine_as_it_is(tmp_path: Path) -> None:
    done = edgeseg("export", _engine(tmp_path), "--triton", tmp_path / "models")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / "net"
    assert (folder / "1" / "model.plan").read_bytes() == b"a plan"
    config = parse_config((folder / "config.pbtxt").read_text())
    assert config.platform == "tensorrt_plan"
    assert [list(v.dims) for v in (*config.input, *config.output)] == [[1, 4, 6, 3], [1, 4, 6]]
    facts = {entry.key: entry.value.string_value for entry in config.parameters}
    assert facts["edgeseg.built_with"] == "TensorRT 10.3.0"
    assert "tritonserver --model-repository" in done.stdout


def test_triton_refuses_other_engines(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="got cpu, expected tensorrt"):
        triton_from_engine(_engine(tmp_path, "cpu"), tmp_path / "models")
    with pytest.raises(EngineError, match="is not the engine its passport describes"):
        triton_from_engine(_engine(tmp_path, data=b"other"), tmp_path / "models")
    plugin: dict[str, Any] = {"plugin": "libedgeseg_plugin.so"}
    with pytest.raises(
        EngineError, match=r"by edgeseg's plugin.*`unpool=native`, or with `version_compatible`"
    ):
        triton_from_engine(_engine(tmp_path, **plugin), tmp_path / "models")
    assert not (tmp_path / "models").exists()
    triton_from_engine(_engine(tmp_path, **plugin, version_compatible=True), tmp_path / "models")


def test_a_raw_answer_is_told_of_where_it_is_the_label_map_alone(tmp_path: Path) -> None:
    """With scores as well, the last bytes of the answer are not it."""
    told = []
    for outputs in (LABELS, LABELS_AND_SCORES):
        folder = triton_from_engine(_engine(tmp_path, outputs=outputs), tmp_path / outputs)
        told.append("--data-binary" in (folder / "README.txt").read_text())
    assert told == [True, False]


# -- DeepStream ------------------------------------------------------------------------------------


@dataclass
class Nvinfer:
    """nvinfer's arithmetic in NumPy, from what its configuration says: documented preprocessing,
    argmax of the parser.

    ``property``: the group of the key file; the model beside it is run by ONNX Runtime.
    """

    folder: Path

    def __post_init__(self) -> None:
        parser = configparser.ConfigParser(
            inline_comment_prefixes=None, comment_prefixes=("#",), delimiters=("=",)
        )
        parser.read(self.folder / "config_infer.txt")
        assert parser.sections() == ["property"]
        self.property = dict(parser["property"])
        self.session = session(self.folder / self.property["onnx-file"])

    def feed(self, frame: np.ndarray) -> np.ndarray:
        channels, height, width = map(int, self.property["infer-dims"].split(";"))
        assert frame.shape == (
            height,
            width,
            channels,
        )  # it scales with a filter of its own: not emulated
        planes = frame[:, :, ::-1] if int(self.property["model-color-format"]) == 0 else frame
        factor = np.float32(self.property["net-scale-factor"])
        offsets = np.array(self.property["offsets"].split(";"), np.float32)
        return np.ascontiguousarray(
            (factor * (planes.astype(np.float32) - offsets)).transpose(2, 0, 1)[None]
        )

    def labels(self, frame: np.ndarray) -> np.ndarray:
        (given,) = self.session.get_inputs()
        assert given.type == "tensor(float)"
        (scores,) = self.session.run(
            [self.property["output-blob-names"]], {given.name: self.feed(frame)}
        )
        assert self.property["segmentation-output-order"] == "0"
        assert scores.dtype == np.float32
        assert scores.shape[1] == int(self.property["num-detected-classes"])
        threshold = np.float32(self.property["segmentation-threshold"])
        assert threshold >= 0
        best = np.full(scores.shape[2:], -1, np.float32)
        found = np.full(scores.shape[2:], -1, np.int32)
        for number, plane in enumerate(scores[0]):
            wins = (plane > best) & (plane > threshold)
            best, found = np.where(wins, plane, best), np.where(wins, number, found)
        return found


@pytest.mark.parametrize("overrides", SPECS.values(), ids=SPECS.keys())
def test_nvinfer_gives_edgesegs_labels(
    overrides: Overrides, frames: list[np.ndarray], tmp_path: Path
) -> None:
    network = load_network(zoo()["enet-camvid"], overrides)
    nvinfer = Nvinfer(deepstream_from_network(network, tmp_path / "ds"))
    reference = session(deploy(network, for_openvino=False))
    assert nvinfer.property["model-color-format"] == ("1" if network.spec.colour == "bgr" else "0")
    for frame in frames:
        (want,) = reference.run(None, {"frame": frame[None]})
        got = nvinfer.labels(frame)
        # Other roundings of the same sums: a pixel between two classes may tip.
        assert (got == want[0]).mean() >= 0.9999
        assert len(np.unique(got)) > 3


def test_nvinfer_and_the_cpu_engine_agree(frames: list[np.ndarray], tmp_path: Path) -> None:
    nvinfer = Nvinfer(deepstream_from_network(load_network(zoo()["enet-camvid"]), tmp_path / "ds"))
    engine = resolve_engine("enet-camvid", precision="fp32")
    assert (nvinfer.labels(frames[1]) == engine(frames[1])).mean() >= 0.999


def test_what_nvinfer_feeds_and_the_graph_multiplies_is_the_contract(
    frames: list[np.ndarray], tmp_path: Path
) -> None:
    for place, overrides in enumerate(SPECS.values()):
        network = load_network(zoo()["enet-camvid"], overrides)
        nvinfer = Nvinfer(deepstream_from_network(network, tmp_path / str(place)))
        gains = np.array(feeding(network.spec).gains, np.float32).reshape(1, 3, 1, 1)
        want = to_input(frames[0], network.spec)
        np.testing.assert_allclose(nvinfer.feed(frames[0]) * gains, want, rtol=1e-5, atol=1e-5)
        multiplies = [
            n
            for n in nvinfer_graph(network).graph.node
            if n.op_type == "Mul" and "image" in n.input
        ]
        assert bool(multiplies) == (len(set(network.spec.std)) > 1)


def test_deepstream_configuration_is_what_nvinfer_reads(tmp_path: Path) -> None:
    folder = deepstream_from_network(load_network(zoo()["enet-camvid"]), tmp_path / "ds")
    facts = Nvinfer(folder).property
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.txt",
        "config_infer.txt",
        "enet-camvid.onnx",
        "labels.txt",
    ]
    assert facts["network-type"] == "2"
    assert facts["network-mode"] == "2"
    assert facts["batch-size"] == "1"
    assert facts["maintain-aspect-ratio"] == "0"
    assert facts["infer-dims"] == "3;360;480"
    assert facts["model-engine-file"] == "enet-camvid.onnx_b1_gpu0_fp16.engine"
    assert not any(
        "#" in value for value in facts.values()
    )  # GLib's key files know no comment behind a value
    model = onnx.load(folder / "enet-camvid.onnx")
    assert not {"MaxUnpool", "ArgMax"} & {n.op_type for n in model.graph.node}
    assert "nvsegvisual batch-size=1 width=480 height=360" in (folder / "README.txt").read_text()


def test_quantized_file_says_how_its_engine_is_built(
    frames: list[np.ndarray], tmp_path: Path
) -> None:
    path = zoo_int8("enet-camvid")
    assert path is not None
    network = load_network(path)
    nvinfer = Nvinfer(deepstream_from_network(network, tmp_path))
    assert nvinfer.property["network-mode"] == "1"
    assert nvinfer.property["model-engine-file"] == "enet-camvid.int8.onnx_b1_gpu0_int8.engine"
    assert (
        "--saveEngine=enet-camvid.int8.onnx_b1_gpu0_int8.engine"
        in (tmp_path / "README.txt").read_text()
    )
    (want,) = session(deploy(network, for_openvino=False)).run(None, {"frame": frames[0][None]})
    assert (nvinfer.labels(frames[0]) == want[0]).mean() >= 0.999


def one_layer(kind: str) -> onnx.ModelProto:
    """A convolution to 11 classes, (24, 36) in, in one of the forms that files have."""
    size, weight = [24, 36], np.random.default_rng(1).normal(size=(11, 3, 3, 3))
    element = TensorProto.FLOAT16 if kind == "halves" else TensorProto.FLOAT
    source, result = ("scores", "image") if kind == "names" else ("x", "y")
    stride = 2 if kind == "half size" else 1
    out = [1, 11, *(side // stride for side in size)]
    nodes, last = [], "planes"
    given = source
    if kind == "nhwc":
        nodes.append(helper.make_node("Transpose", [source], ["nchw"], perm=[0, 3, 1, 2]))
        given = "nchw"
    nodes.append(
        helper.make_node("Conv", [given, "weight"], [last], pads=[1] * 4, strides=[stride] * 2)
    )
    kind_out = element
    if kind == "nhwc":
        nodes.append(helper.make_node("Transpose", [last], [result], perm=[0, 2, 3, 1]))
        out = [1, *size, 11]
    elif kind == "labels":
        nodes.append(helper.make_node("ArgMax", [last], [result], axis=1, keepdims=0))
        out, kind_out = [1, *size], TensorProto.INT64
    else:
        nodes.append(helper.make_node("Relu", [last], [result]))
    shape = [1, *size, 3] if kind == "nhwc" else [1, 3, *size]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(source, element, shape)],
        [helper.make_tensor_value_info(result, kind_out, out)],
        [
            numpy_helper.from_array(
                weight.astype(np.float16 if kind == "halves" else np.float32), "weight"
            )
        ],
    )
    opset = helper.make_opsetid("", 11 if kind == "old opset" else 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)


@pytest.mark.parametrize("kind", ["nhwc", "old opset", "half size", "labels", "halves", "names"])
def test_nets_of_other_forms(kind: str, tmp_path: Path) -> None:
    """Channels last, a softmax of before opset 13, scores to be enlarged, a label map, FP16, our
    names in the net.
    """
    path = tmp_path / "net.onnx"
    onnx.save(one_layer(kind), path)
    network = load_network(
        path, Overrides(labels="camvid-11", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    )
    frame = np.random.default_rng(0).integers(0, 256, (*network.spec.input_size, 3), np.uint8)
    nvinfer = Nvinfer(deepstream_from_network(network, tmp_path / "ds"))
    (want,) = session(deploy(network, for_openvino=False)).run(None, {"frame": frame[None]})
    got = nvinfer.labels(frame)
    assert (got == want[0]).mean() >= (0.99 if kind == "halves" else 0.999)
    assert len(np.unique(got)) > 3


def test_tensorrt_rtx_builds_what_deepstream_gets(tensorrt_rtx: ModuleType, tmp_path: Path) -> None:
    trt = tensorrt_rtx
    path = zoo_int8("enet-camvid")
    assert path is not None
    for source in (zoo()["enet-camvid"], path):
        builder = trt.Builder(rtx_log().logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, rtx_log().logger)
        graph = nvinfer_graph(load_network(source))
        assert parser.parse(graph.SerializeToString()), [
            parser.get_error(i).desc() for i in range(parser.num_errors)
        ]
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        assert builder.build_serialized_network(network, config) is not None


# -- folders and the command -----------------------------------------------------------------------


def test_folders_are_replaced_whole_and_others_files_kept(tmp_path: Path) -> None:
    network = load_network(zoo()["enet-camvid"])
    folder = deepstream_from_network(network, tmp_path / "ds")
    stale = folder / "enet-camvid.onnx_b1_gpu0_fp16.engine"
    stale.write_bytes(b"of an earlier file")
    (folder / "labels.txt").write_text("old\n")
    assert deepstream_from_network(network, folder) == folder
    assert not stale.exists()
    assert (folder / "labels.txt").read_text().startswith("Sky\n")
    mine = folder / "notes.txt"
    mine.write_text("mine")
    with pytest.raises(OutputError, match=r"got notes\.txt"):
        deepstream_from_network(network, folder)
    assert mine.read_text() == "mine"
    (tmp_path / "models" / "other" / "1").mkdir(parents=True)
    triton_from_network(network, tmp_path / "models")
    triton_from_network(network, tmp_path / "models")
    (tmp_path / "models" / "enet-camvid" / "2").mkdir()
    with pytest.raises(OutputError, match="got 2"):
        triton_from_network(network, tmp_path / "models")
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["enet-camvid", "other"]


def test_a_folder_that_cannot_be_put_in_place_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    write_folder(tmp_path / "f", {"a": b"1"})
    rename, calls = os.rename, []

    def fail(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_folder(tmp_path / "f", {"a": b"2"})
    assert (tmp_path / "f" / "a").read_bytes() == b"1"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        write_folder(tmp_path / "file", {"a": b""})


def test_export_hands_over_with_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'lightning', 'torchvision'):\n"
        "    sys.modules[name] = None\n"
        f"sys.argv = ['edgeseg', 'export', 'enet-camvid', '--triton', {str(tmp_path / 'm')!r}, "
        f"'--deepstream', {str(tmp_path / 'd')!r}]\n"
        "from edgeseg.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^wrote .*; next: ", done.stdout, re.M)) == 2
    assert (tmp_path / "m" / "enet-camvid" / "config.pbtxt").is_file()
    assert (tmp_path / "d" / "config_infer.txt").is_file()


def test_a_checkpoint_is_exported_first(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from edgeseg.models import create
    from edgeseg.models.checkpoint import save_checkpoint

    torch.manual_seed(0)
    spec = ModelSpec(architecture="enet", input_size=(64, 96), stride=8, labels=CAMVID_11)
    checkpoint = save_checkpoint(tmp_path / "best.pt", create("enet", 11), spec, {})
    done = edgeseg(
        "export",
        checkpoint,
        "-o",
        tmp_path / "net.onnx",
        "--triton",
        tmp_path / "m",
        "--size",
        "72x104",
    )
    assert done.returncode == 0, done.stderr
    config = parse_config((tmp_path / "m" / "net" / "config.pbtxt").read_text())
    assert list(config.input[0].dims) == [1, 72, 104, 3]
    assert load_network(tmp_path / "net.onnx").spec.input_size == (72, 104)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["enet-camvid", "--triton", "m", "--half"], "needs no export: got --half"),
        (["enet-camvid", "--deepstream", "d", "-o", "x.onnx"], "got --out"),
        (["no.onnx", "--triton", "m"], "no such ONNX file"),
        (["no.engine", "--triton", "m"], "no such engine"),
        (["no.engine", "--deepstream", "d"], "nvinfer feeds planar floats"),
    ],
)
def test_what_cannot_be_handed_over_is_said(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    done = edgeseg("export", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_engine_has_its_spec(tmp_path: Path) -> None:
    done = edgeseg("export", _engine(tmp_path), "--triton", tmp_path / "m", "--size", "64x96")
    assert done.returncode == 2
    assert "has its spec compiled in" in done.stderr
    with pytest.raises(InputError, match="no such ONNX file"):
        load_network(tmp_path / "no.onnx")
    assert (
        json.loads(Passport.path_for(tmp_path / "net.fp16.tensorrt.engine").read_text())["name"]
        == "net"
    )
