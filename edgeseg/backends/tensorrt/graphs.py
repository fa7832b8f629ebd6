"""Make the graph that TensorRT compiles; the types in the graph are its precision."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto, TensorProto, helper

from edgeseg.backends.base import NATIVE, PLUGIN
from edgeseg.facts import TensorRTFacts
from edgeseg.graph.dynamic_run import check_runs
from edgeseg.graph.lowering import LoweringOptions, lower
from edgeseg.graph.network import Network
from edgeseg.graph.passes.dynamic_shapes import DynamicShapes
from edgeseg.graph.passes.fp16 import activations, halve_ends, to_fp16
from edgeseg.graph.passes.unpool.plugin import is_plugin
from edgeseg.imaging.preprocess import resize_frame
from edgeseg.reporter import Reporter
from edgeseg.types import Image

FP32, FP16 = "fp32", "fp16"

# Frames that show the range of activations if the caller has none.
_DRIVE = "synthetic://?length=8&seed=3"


def best_size(network: Network, dynamic: DynamicShapes | None) -> tuple[int, int]:
    """Return the size (H, W) that a plan is tuned for.

    Parameters
    ----------
    network : a float network or a Q/DQ network.
    dynamic : the open dimensions; ``None`` if none is.

    Returns
    -------
    The best of the dynamic sizes; without them, the network's own size.
    """
    if dynamic and dynamic.sizes:
        return dynamic.sizes[1]
    return network.spec.input_size


def graph_for(
    network: Network,
    precision: str,
    frames: Iterable[Image] | None,
    reporter: Reporter,
    *,
    plugin: bool = False,
    scores: bool = False,
    dynamic: DynamicShapes | None = None,
    kernels: bool = False,
) -> tuple[ModelProto, TensorRTFacts]:
    """Return the graph that TensorRT compiles: uint8 frame in, uint8 labels out.

    In FP16, and in layers that INT8 leaves in float, nodes stay in FP32 if FP16 cannot hold their
    values. ``frames`` are run in ONNX Runtime to find these nodes.

    Parameters
    ----------
    network : a float network or a Q/DQ network.
    precision : ``fp32``, ``fp16``, or an INT8 one.
    frames : examples of the frames that the engine will see, (H, W, 3) uint8 BGR. If there are
        none, frames of edgeseg's synthetic drive, noise, black and white are used.
    reporter : receives a message for every node that stays in FP32.
    plugin : unpool by edgeseg's CUDA library if the network has something to unpool.
    scores : return the logits as well, (1, classes, H, W) float32.
    dynamic : the open dimensions. The graph is then run at both ends of its sizes, and ``frames``
        at the best size.
    kernels : return only the network, from ``tensor`` to ``scores``; both are FP16 if the
        network's ends are.

    Returns
    -------
    The graph, and the facts about it for the passport.

    Raises
    ------
    GraphError : the graph cannot be made or run, or has no logits to return.
    """
    size = best_size(network, dynamic)
    options = LoweringOptions(for_openvino=False, dynamic=dynamic)
    native = lower(network, options).model
    if dynamic:
        check_runs(native, network.name, size, dynamic)

    # Choose what TensorRT compiles.
    model = native
    if kernels:
        bare = LoweringOptions(for_openvino=False, plugin=plugin, bare=True)
        model = lower(network, bare).model
    elif plugin or scores:
        model = lower(network, replace(options, plugin=plugin, both=scores)).model
    has_plugin = any(is_plugin(node) for node in model.graph.node)
    facts = TensorRTFacts(unpool=PLUGIN if has_plugin else NATIVE)
    if precision == FP32:
        return labels_by_floats(model), facts

    # Compute in FP16 what it can hold.
    given = [resize_frame(frame, size) for frame in frames or ()]
    seen = given or list(_any_frames(size))
    halved = to_fp16(model, _largest_activations(native, seen))
    if kernels:
        halve_ends(halved.model)
    for node, reason in halved.floats.items():
        reporter.info(f"{node} stays in FP32: {reason}")

    source = "calibration frames"
    if not given:
        source = "frames of the synthetic drive, noise, black and white"
    seen_facts = {"fp16_seen": f"{len(seen)} {source}", "fp32_nodes": tuple(halved.floats)}
    return labels_by_floats(halved.model), facts.model_copy(update=seen_facts)


def labels_by_floats(model: ModelProto) -> ModelProto:
    """Convert class ids to floats before they become bytes; change the graph in place.

    TensorRT promises conversions to UINT8 only from float and half (``DataType::kUINT8`` in
    NvInferRuntimeBase.h). Floats hold all class ids.

    Parameters
    ----------
    model : a lowered graph.

    Returns
    -------
    The same graph.
    """
    nodes = model.graph.node
    for place in reversed(range(len(nodes))):
        node = nodes[place]
        if node.op_type != "Cast":
            continue
        if helper.get_node_attr_value(node, "to") != TensorProto.UINT8:
            continue

        floats = f"{node.output[0]}/floats"
        to_float = helper.make_node("Cast", [node.input[0]], [floats], floats, to=TensorProto.FLOAT)
        nodes.insert(place, to_float)
        nodes[place + 1].input[0] = floats
    return model


def _largest_activations(native: ModelProto, frames: Sequence[Image]) -> dict[str, float]:
    """Return the largest absolute value of each activation over frames, by name.

    ``native`` is the graph of standard operators, which ONNX Runtime runs. A tensor that is in the
    graph with the plugin, too, has the same name there.
    """
    from edgeseg.quantize.histograms import collect

    inputs = (np.ascontiguousarray(frame)[None] for frame in frames)
    found = collect(native, activations(native), inputs)
    return dict(zip(found.tensors, map(float, found.largest), strict=True))


def _any_frames(size: tuple[int, int]) -> Iterator[Image]:
    """Yield (H, W, 3) uint8 frames: two of the synthetic drive, noise, black, white."""
    from edgeseg.data import open_dataset

    drive = open_dataset(_DRIVE, "train")
    for index in (0, len(drive) - 1):
        yield resize_frame(drive[index].image, size)
    yield np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for value in (0, 255):
        yield np.full((*size, 3), value, np.uint8)
