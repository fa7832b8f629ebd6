"""Write an ONNX file and a configuration for the ``nvinfer`` element of NVIDIA DeepStream.

nvinfer works in a fixed way (see its documentation, and the sources that DeepStream ships in
``libs/nvdsinfer``):

- It scales a frame to the network's size and feeds planar float32, RGB or BGR:
  ``net-scale-factor * (pixel - offsets[channel])``. All channels share one factor. If a spec's
  three standard deviations differ, the graph applies the rest.
- From a segmentation network (``network-type=2``) it reads one (classes, H, W) float32 output. For
each pixel
  it takes the first class with the highest value among those above ``segmentation-threshold`` and
  above -1, or none. The threshold must not be negative. Logits do not fit that, but probabilities
  do: so the graph ends with a softmax.
- Its configuration is a GLib key file, which allows no comment behind a value.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeseg.errors import GraphError, InputError
from edgeseg.graph.attach_output import full_size
from edgeseg.graph.editor import PREFIX
from edgeseg.graph.graph import Graph
from edgeseg.graph.network import Network
from edgeseg.graph.outputs import fix_input
from edgeseg.graph.passes import PassContext
from edgeseg.graph.passes.unpool import lower_unpooling
from edgeseg.graph.renaming import without_names
from edgeseg.imaging.preprocess import coefficients
from edgeseg.serving.folder import require_ours, write_folder
from edgeseg.serving.triton import safe_name
from edgeseg.spec import METADATA_KEY, ModelSpec

_INPUT = "image"
_OUTPUT = "scores"
_CONFIG = "config_infer.txt"
_SOFTMAX_OF_ONE_AXIS = 13  # first opset whose Softmax is over one axis; before: all axes from it on
_MODES = {"fp16": 2, "int8": 1}  # values of nvinfer's network-mode


@dataclass(frozen=True)
class Feeding:
    """Hold how a frame is normalised between nvinfer and the graph.

    nvinfer feeds ``factor * (pixel - offsets[c])``; the graph multiplies channel ``c`` by
    ``gains[c]``.

    Attributes
    ----------
    factor : nvinfer's factor for all channels.
    offsets : one value per channel, for pixels of 0..255, in the model's colour order.
    gains : one factor per channel; 1 for the first.
    """

    factor: float
    offsets: tuple[float, float, float]
    gains: tuple[float, float, float]


def feeding(spec: ModelSpec) -> Feeding:
    """Split a spec's ``gain * pixel + offset`` per channel between nvinfer and the graph.

    Parameters
    ----------
    spec : the model's spec.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> spec = ModelSpec(
    ...     architecture="enet",
    ...     input_size=(360, 480),
    ...     labels=CAMVID_11,
    ...     scale=1.0,
    ...     mean=(100.0, 110.0, 120.0),
    ...     std=(2.0, 2.0, 4.0),
    ... )
    >>> feeding(spec)
    Feeding(factor=0.5, offsets=(100.0, 110.0, 120.0), gains=(1.0, 1.0, 0.5))
    """
    gain, offset = (values.astype(float) for values in coefficients(spec))
    zeros = [float(value) for value in -offset / gain]  # the pixel value that becomes 0
    gains = [float(value) for value in gain / gain[0]]
    return Feeding(
        factor=float(gain[0]),
        offsets=(zeros[0], zeros[1], zeros[2]),
        gains=(gains[0], gains[1], gains[2]),
    )


def deepstream_from_network(network: Network, folder: str | Path) -> Path:
    """Write a folder for nvinfer: the ONNX file, its configuration, the labels, and how to run it.

    Engines that nvinfer built from an earlier file are removed, because it would continue to use
    them.

    Parameters
    ----------
    network : a float network or a Q/DQ network.
    folder : the folder to write.

    Returns
    -------
    The folder.

    Raises
    ------
    GraphError : the network has no form that nvinfer can run.
    OutputError : the folder holds other files, or cannot be written.
    """
    from edgeseg.graph.ops import is_quantized

    # Check the folder before the work.
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
    """Raise ``InputError``: an engine takes bytes (H, W, 3), but nvinfer feeds planar floats.

    Parameters
    ----------
    engine : the engine file, for the error.
    """
    raise InputError(
        f"{engine}: nvinfer feeds planar floats, and an engine of edgeseg takes the frame's bytes",
        hint="Give the ONNX file it was built from; nvinfer builds its own engine.",
    )


def nvinfer_graph(network: Network) -> onnx.ModelProto:
    """Return a network's graph for nvinfer.

    Its input ``image`` is (1, 3, H, W) float32 as nvinfer feeds it; its output ``scores`` holds
    probabilities, (1, classes, H, W) float32 in 0..1. H and W are ``spec.input_size``. Unpooling is
    lowered to standard operators, and the spec is in the metadata.

    Parameters
    ----------
    network : a float network or a Q/DQ network.

    Raises
    ------
    GraphError : the shapes of the graph do not fit together, or it cannot be lowered.
    """
    network = without_names(network, (_INPUT, _OUTPUT))

    # Fix the input's size, and lower unpooling.
    model = network.model
    fix_input(model, network.input, network.channels_last, network.spec.input_size)
    graph = Graph(model)
    lower_unpooling(graph, PassContext())
    try:
        model = onnx.shape_inference.infer_shapes(graph.model, data_prop=True)
    except Exception as error:  # onnx raises several types, all of them about the graph
        raise GraphError(
            f"{network.name}: its shapes do not fit together", got=str(error).splitlines()[0]
        ) from error

    # Attach nvinfer's input and output.
    graph = Graph(model)
    _attach_image(graph, network)
    _attach_scores(graph, network)
    helper.set_model_props(model, {METADATA_KEY: network.spec.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


def _attach_image(graph: Graph, network: Network) -> None:
    """Connect ``image`` to the network's own input: apply gains, convert type and layout."""
    height, width = network.spec.input_size
    own_input = next(value for value in graph.graph.input if value.name == network.input)
    element = own_input.type.tensor_type.elem_type
    gains = feeding(network.spec).gains

    # List the nodes: operator, further inputs, attributes.
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    if element != TensorProto.FLOAT and not _is_float(element):
        # The input takes bytes: the feeding is 1 * (pixel - 0).
        steps.append(("Cast", [], {"to": element}))
    else:
        if any(gain != 1 for gain in gains):
            factors = np.array(gains, np.float32).reshape(1, 3, 1, 1)
            steps.append(("Mul", [graph.constant(PREFIX + "gains", factors)], {}))
        if element != TensorProto.FLOAT:
            steps.append(("Cast", [], {"to": element}))
    if network.channels_last:
        steps.append(("Transpose", [], {"perm": [0, 2, 3, 1]}))
    if not steps:
        steps.append(("Identity", [], {}))

    # Chain them from `image` to the network's input.
    x = _INPUT
    for place, (kind, others, options) in enumerate(steps):
        out = network.input if place == len(steps) - 1 else f"{PREFIX}image{place}"
        x = graph.node(kind, [x, *others], out, first=True, **options)

    # Replace the input.
    image = helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, [1, 3, height, width])
    graph.replace_input(network.input, image)


def _is_float(element: int) -> bool:
    """Return True for a floating-point element type of ONNX."""
    return element in (
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.DOUBLE,
    )


def _attach_scores(graph: Graph, network: Network) -> None:
    """Connect the network's output to ``scores``: probabilities at the input's size.

    If the network returns a label map, the probability is 1 for the label's class and 0 for all
    others.
    """
    height, width = network.spec.input_size
    classes = len(network.spec.labels)
    output = next(value for value in graph.graph.output if value.name == network.output)
    shape = [dim.dim_value for dim in output.type.tensor_type.shape.dim]

    graph.clear_outputs()
    if network.form == "labels":
        flat = graph.constant(PREFIX + "map_shape", np.array([1, 1, height, width], np.int64))
        x = graph.node("Reshape", [network.output, flat], PREFIX + "map")
        x = graph.node("Cast", [x], PREFIX + "ids", to=TensorProto.INT64)
        ids = graph.constant(
            PREFIX + "class_ids", np.arange(classes, dtype=np.int64).reshape(1, classes, 1, 1)
        )
        x = graph.node("Equal", [x, ids], PREFIX + "is_class")
        graph.node("Cast", [x], _OUTPUT, to=TensorProto.FLOAT)
    else:
        x, nhwc = full_size(graph, network, shape)
        x = graph.node("Cast", [x], PREFIX + "logits", to=TensorProto.FLOAT)
        _softmax(graph, x, nhwc)

    graph.add_output(_OUTPUT, TensorProto.FLOAT, [1, classes, height, width])


def _softmax(graph: Graph, x: str, nhwc: bool) -> None:
    """Append a softmax over the classes. In an old opset it works on the last axis only."""
    if not nhwc and graph.opset >= _SOFTMAX_OF_ONE_AXIS:
        graph.node("Softmax", [x], _OUTPUT, axis=1)
        return

    x = x if nhwc else graph.node("Transpose", [x], PREFIX + "pixels", perm=[0, 2, 3, 1])
    x = graph.node("Softmax", [x], PREFIX + "shares", axis=3)
    graph.node("Transpose", [x], _OUTPUT, perm=[0, 3, 1, 2])


def engine_name(name: str, mode: str) -> str:
    """Return the name nvinfer gives to the engine that it builds from ``NAME.onnx``.

    The engine is for one frame at a time, on GPU 0.

    Parameters
    ----------
    name : the ONNX file's name without its suffix.
    mode : ``fp16`` or ``int8``.

    Examples
    --------
    >>> engine_name("enet", "fp16")
    'enet.onnx_b1_gpu0_fp16.engine'
    """
    return f"{name}.onnx_b1_gpu0_{mode}.engine"


def config_text(name: str, spec: ModelSpec, mode: str) -> str:
    """Return the text of nvinfer's configuration.

    Parameters
    ----------
    name : the ONNX file's name without its suffix.
    spec : the model's spec.
    mode : ``fp16``, or ``int8`` for a Q/DQ file.
    """
    height, width = spec.input_size
    feed = feeding(spec)
    offsets = ";".join(map(repr, feed.offsets))
    built = "Built from the ONNX file where it is not there"
    built += ", but not from a Q/DQ file: see README.txt." if mode == "int8" else "."
    return f"""# Written by edgeseg export. Paths are relative to this file.
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
# The frame as the net wants it: factor * (pixel - offset), planes in this order (0 is RGB,
# 1 is BGR), stretched.
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
    """Return the text of ``README.txt``: how to build the engine and how to run it."""
    height, width = spec.input_size
    build = f"""\
The file is quantized (Q/DQ) and needs no calibration table, but nvinfer sets INT8 only if it is
given one. So build the engine first, on the machine it will run on:

  trtexec --onnx={name}.onnx --saveEngine={engine_name(name, mode)} --int8 --fp16

(TensorRT 11 has neither --int8 nor --fp16: leave them out there.)
"""
    wait = (
        "nvinfer builds the engine from the ONNX file at the first start. "
        "This takes minutes, once.\n"
    )
    return f"""{name}: a net for DeepStream's nvinfer, written by edgeseg export.

{_CONFIG} is the element's configuration. labels.txt has one class per line: line i,
from 0, is for id i.

{build if mode == "int8" else wait}
A video with its classes in colours, from this folder:

  gst-launch-1.0 uridecodebin uri=file:///PATH/drive.mp4 ! m.sink_0 \\
    nvstreammux name=m batch-size=1 width={width} height={height} ! \\
    nvinfer config-file-path={_CONFIG} ! nvsegvisual batch-size=1 width={width} height={height} ! \\
    nvvideoconvert ! nv3dsink

(nv3dsink is Jetson's; on a PC: nveglglessink.)

In your own program the label map is in NvDsInferSegmentationMeta: class_map (height x width int32,
-1 where no class is above segmentation-threshold) and class_probabilities_map.

The normalisation is in {_CONFIG} and, for what one factor cannot express, in the graph:
change neither. Labels are those of edgeseg if frames come in as {width}x{height} video;
nvinfer scales other sizes with a filter of its own.
Engines are made for one TensorRT and one GPU: delete *.engine after changing either.
"""
