"""A net for NVIDIA DeepStream's ``nvinfer`` element: the ONNX file that fits it, and the configuration that fits both.

What nvinfer does is fixed (its documentation and the sources DeepStream ships, ``libs/nvdsinfer``):

- It scales a frame to the net and feeds planar float32: ``net-scale-factor * (pixel - offsets[channel])``, RGB or BGR.
  One factor for all channels: what a spec's three standard deviations need beyond that goes into the graph.
- Of a segmentation net (``network-type=2``) it reads one (classes, H, W) float32 output, and takes for each pixel the
  first class of the highest value among those above ``segmentation-threshold`` and above -1, or none. The threshold may
  not be negative. Logits do not fit that; probabilities do: the graph ends in a softmax.
- Its GLib key file knows no comment behind a value.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeseg.errors import GraphError, InputError
from edgeseg.export.append import PREFIX, Appender
from edgeseg.export.deploy import full_size, without_names
from edgeseg.export.folder import require_ours, write_folder
from edgeseg.export.network import Network, fix_input
from edgeseg.export.triton import safe_name
from edgeseg.export.unpool import lower_unpooling
from edgeseg.preprocess import coefficients
from edgeseg.spec import METADATA_KEY, ModelSpec

_INPUT, _OUTPUT = "image", "scores"
_CONFIG = "config_infer.txt"
_SOFTMAX_OF_ONE_AXIS = 13  # the first opset whose Softmax is over one axis; before, over all from that axis on
_MODES = {"fp16": 2, "int8": 1}  # of nvinfer's network-mode


@dataclass(frozen=True)
class Feeding:
    """What nvinfer is told: ``factor * (pixel - offsets[c])``; the graph multiplies channel c by ``gains[c]``."""

    factor: float
    offsets: tuple[float, float, float]
    gains: tuple[float, float, float]


def feeding(spec: ModelSpec) -> Feeding:
    """Split a spec's ``gain * pixel + offset`` a channel between nvinfer and the graph."""
    gain, offset = (values.astype(float) for values in coefficients(spec))
    zero = [float(x) for x in -offset / gain]  # the pixel that becomes 0
    gains = [float(x) for x in gain / gain[0]]
    return Feeding(float(gain[0]), (zero[0], zero[1], zero[2]), (gains[0], gains[1], gains[2]))


def deepstream_from_network(network: Network, folder: str | Path) -> Path:
    """Write ``folder`` for nvinfer: the ONNX file, its configuration, the labels, and how to run it.

    Raises ``OutputError`` where the folder holds other files; engines that nvinfer built from an earlier file are
    removed, because it would go on using them.
    """
    from edgeseg.quantize.placement import is_quantized

    folder = Path(folder)
    name = safe_name(network.name)
    names = (f"{name}.onnx", _CONFIG, "labels.txt", "README.txt")
    leftovers = rf"{re.escape(name)}\.onnx_b\d+_gpu\d+_\w+\.engine"
    require_ours(folder, names, leftovers)
    mode = "int8" if is_quantized(network.model) else "fp16"
    files = {
        f"{name}.onnx": nvinfer_graph(network).SerializeToString(),
        _CONFIG: config_text(name, network.spec, mode).encode(),
        "labels.txt": "".join(f"{label}\n" for label in network.spec.labels.names).encode(),
        "README.txt": _readme(name, network.spec, mode).encode(),
    }
    return write_folder(folder, files, leftovers)


def refuse_engine(engine: str | Path) -> None:
    """Raise ``InputError``: an engine takes bytes, height x width x channel, which nvinfer does not feed."""
    raise InputError(
        f"{engine}: nvinfer feeds planar floats, and an engine of edgeseg takes the frame's bytes",
        hint="Give the ONNX file it was built from; nvinfer builds its own engine.",
    )


def nvinfer_graph(network: Network) -> onnx.ModelProto:
    """``image`` (1, 3, H, W) float32 as nvinfer feeds it -> ``scores`` (1, classes, H, W) float32 in 0..1.

    H, W are ``spec.input_size``; unpooling is lowered to standard operators; the spec is in the metadata.
    """
    network = without_names(network, (_INPUT, _OUTPUT))
    model = network.model
    fix_input(model, network.input, network.channels_last, network.spec.input_size)
    model = lower_unpooling(model)
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # raised as several types, all of them about the graph
        raise GraphError(f"{network.name}: its shapes do not fit together", got=str(error).splitlines()[0]) from error
    graph = Appender(model)
    _attach_image(graph, network)
    _attach_scores(graph, network)
    helper.set_model_props(model, {METADATA_KEY: network.spec.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


def _attach_image(graph: Appender, network: Network) -> None:
    """``image`` -> the net's own input tensor: the gains that one factor cannot express, its layout, its type."""
    height, width = network.spec.input_size
    value = next(i for i in graph.graph.input if i.name == network.input)
    element = value.type.tensor_type.elem_type
    gains = feeding(network.spec).gains
    steps: list[tuple[str, list[str], dict[str, object]]] = []
    if element != TensorProto.FLOAT and not _is_float(element):  # it counts in bytes: the feeding is 1 * (pixel - 0)
        steps.append(("Cast", [], {"to": element}))
    else:
        if any(gain != 1 for gain in gains):
            steps.append(("Mul", [graph.constant("gains", np.array(gains, np.float32).reshape(1, 3, 1, 1))], {}))
        if element != TensorProto.FLOAT:
            steps.append(("Cast", [], {"to": element}))
    if network.channels_last:
        steps.append(("Transpose", [], {"perm": [0, 2, 3, 1]}))
    if not steps:
        steps.append(("Identity", [], {}))
    x = _INPUT
    for place, (kind, others, options) in enumerate(steps):
        out = network.input if place == len(steps) - 1 else f"{PREFIX}image{place}"
        x = graph.node(kind, [x, *others], out, first=True, **options)
    nodes = [*graph.before, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    kept = [i for i in graph.graph.input if i.name != network.input]
    del graph.graph.input[:]
    graph.graph.input.append(helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, [1, 3, height, width]))
    graph.graph.input.extend(kept)


def _is_float(element: int) -> bool:
    return element in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def _attach_scores(graph: Appender, network: Network) -> None:
    """The net's output -> ``scores``: probabilities at the input's size, or 1 at the class of a net's label map."""
    height, width = network.spec.input_size
    classes = len(network.spec.labels)
    output = next(v for v in graph.graph.output if v.name == network.output)
    shape = [d.dim_value for d in output.type.tensor_type.shape.dim]
    del graph.graph.output[:]
    if network.form == "labels":
        flat = graph.constant("map_shape", np.array([1, 1, height, width], np.int64))
        x = graph.node("Reshape", [network.output, flat], PREFIX + "map")
        x = graph.node("Cast", [x], PREFIX + "ids", to=TensorProto.INT64)
        ids = graph.constant("class_ids", np.arange(classes, dtype=np.int64).reshape(1, classes, 1, 1))
        x = graph.node("Equal", [x, ids], PREFIX + "is_class")
        graph.node("Cast", [x], _OUTPUT, to=TensorProto.FLOAT)
    else:
        x, nhwc = full_size(graph, network, shape)
        x = graph.node("Cast", [x], PREFIX + "logits", to=TensorProto.FLOAT)
        _softmax(graph, x, nhwc)
    dims = [1, classes, height, width]
    graph.graph.output.append(helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, dims))


def _softmax(graph: Appender, x: str, nhwc: bool) -> None:
    """Probabilities over the classes, planes of them. The softmax of an old opset is right on the last axis alone."""
    if not nhwc and graph.opset >= _SOFTMAX_OF_ONE_AXIS:
        graph.node("Softmax", [x], _OUTPUT, axis=1)
        return
    x = x if nhwc else graph.node("Transpose", [x], PREFIX + "pixels", perm=[0, 2, 3, 1])
    x = graph.node("Softmax", [x], PREFIX + "shares", axis=3)
    graph.node("Transpose", [x], _OUTPUT, perm=[0, 3, 1, 2])


def engine_name(name: str, mode: str) -> str:
    """What nvinfer calls the engine that it builds of ``NAME.onnx`` for one frame at a time on GPU 0."""
    return f"{name}.onnx_b1_gpu0_{mode}.engine"


def config_text(name: str, spec: ModelSpec, mode: str) -> str:
    """The configuration of nvinfer. ``mode`` is ``fp16``, or ``int8`` for a Q/DQ file."""
    height, width = spec.input_size
    feed = feeding(spec)
    offsets = ";".join(map(repr, feed.offsets))
    built = "Built from the ONNX file where it is not there"
    built += ", but not from a Q/DQ file: see README.txt." if mode == "int8" else "."
    return f"""# Written by edgeseg export --deepstream. Paths are relative to this file.
[property]
gpu-id=0
gie-unique-id=1
process-mode=1
onnx-file={name}.onnx
# {built}
model-engine-file={engine_name(name, mode)}
labelfile-path=labels.txt
# One frame at a time: the graph has no batch.
batch-size=1
# 0 is FP32, 1 INT8, 2 FP16
network-mode={_MODES[mode]}
# The frame as the net wants it: factor * (pixel - offset), planes in this order (0 is RGB, 1 is BGR), stretched.
net-scale-factor={feed.factor!r}
offsets={offsets}
model-color-format={0 if spec.colour == "rgb" else 1}
maintain-aspect-ratio=0
infer-dims=3;{height};{width}
# Segmentation; the output is (classes, height, width), probabilities.
network-type=2
num-detected-classes={len(spec.labels)}
output-blob-names={_OUTPUT}
segmentation-output-order=0
# Raise it, and pixels of which the net is less sure than this have no class (-1).
segmentation-threshold=0.0
"""


def _readme(name: str, spec: ModelSpec, mode: str) -> str:
    height, width = spec.input_size
    build = f"""\
The file is quantized (Q/DQ). nvinfer sets INT8 only where it is given a calibration table, and such a file needs none.
Build its engine first, on the machine it will run on:

  trtexec --onnx={name}.onnx --saveEngine={engine_name(name, mode)} --int8 --fp16

(TensorRT 11 has neither --int8 nor --fp16: leave them out there.)
"""
    wait = "nvinfer builds the engine from the ONNX file at the first start: that takes minutes, once.\n"
    return f"""{name}: a net for DeepStream's nvinfer, written by edgeseg export --deepstream.

{_CONFIG} is the element's configuration; labels.txt has a class a line, line i (from 0) for id i.

{build if mode == "int8" else wait}
A video with its classes in colours, from this folder:

  gst-launch-1.0 uridecodebin uri=file:///PATH/drive.mp4 ! m.sink_0 \\
    nvstreammux name=m batch-size=1 width={width} height={height} ! \\
    nvinfer config-file-path={_CONFIG} ! nvsegvisual batch-size=1 width={width} height={height} ! \\
    nvvideoconvert ! nv3dsink

(nv3dsink is Jetson's; on a PC: nveglglessink.)

In a program of yours the label map is in NvDsInferSegmentationMeta: class_map (height x width int32, -1 where no class
is above segmentation-threshold) and class_probabilities_map.

The normalisation is in {_CONFIG} and, for what one factor cannot express, in the graph: change neither. Labels
are those of edgeseg where frames come in at {width}x{height}; other sizes nvinfer scales with a filter of its own.
Engines are made for one TensorRT and one GPU: delete *.engine after changing either.
"""
