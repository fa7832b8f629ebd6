"""Lower a network to the graph that a target compiles: frame in, label map out.

The lowered graph takes ``frame`` (1, H, W, 3) uint8 BGR and gives ``labels`` (1, H, W) uint8, or
the logits that the labels are the argmax of (``LoweringOptions``). H, W are ``spec.input_size``;
batch and size may be left dynamic.

``OPENVINO_PASSES`` and ``TENSORRT_PASSES`` list the passes that rewrite the network's own graph, in
their order.
"""

from dataclasses import dataclass, replace

import onnx

from edgeseg.errors import GraphError
from edgeseg.graph.attach_input import attach_frame, attach_tensor
from edgeseg.graph.attach_output import attach_both, attach_logits, attach_output, require_scores
from edgeseg.graph.graph import Graph, infer_shapes
from edgeseg.graph.network import Network
from edgeseg.graph.nodes import copied
from edgeseg.graph.outputs import fix_input
from edgeseg.graph.passes import Pass, PassContext
from edgeseg.graph.passes.average_pools import convolve_averages
from edgeseg.graph.passes.dynamic_shapes import (
    DynamicShapes,
    Shapes,
    infer_dynamic_shapes,
    open_dimensions,
)
from edgeseg.graph.passes.float_biases import float_biases
from edgeseg.graph.passes.qdq_propagation import dequantize_early, propagate_qdq
from edgeseg.graph.passes.unpool import lower_unpooling
from edgeseg.graph.passes.unpool.extension import is_extension
from edgeseg.graph.passes.unpool.plugin import is_plugin
from edgeseg.graph.passes.unshare_slopes import unshare_slopes
from edgeseg.graph.passes.unsigned_activations import unsigned_activations
from edgeseg.graph.passes.whole_steps import round_behind_gains
from edgeseg.graph.renaming import renamed_ends, without_names

_OURS = ("frame", "labels", "scores", "tensor")
_KEPT_BODIES = 3  # with each network: one native, one with own operators, one for ONNX Runtime

OPENVINO_PASSES: tuple[Pass, ...] = (
    propagate_qdq,  # INT8 tensors pass through operators that only move values
    lower_unpooling,  # on INT8 tensors where they pass
    dequantize_early,  # behind the reshapes that unpooling writes
    unsigned_activations,  # INT8 in the form that OpenVINO computes fast and right
    convolve_averages,
    round_behind_gains,
    unshare_slopes,
)
TENSORRT_PASSES: tuple[Pass, ...] = (
    float_biases,
    propagate_qdq,  # only into the plugin's operators
    lower_unpooling,
)


@dataclass(frozen=True)
class LoweringOptions:
    """Choose what a network is lowered to.

    Attributes
    ----------
    for_openvino : write the form that is fastest there: bytes are transposed, gathered and pooled
        (TensorRT does none of it on uint8), and INT8 tensors are moved as they are.
    scores : give ``scores`` (1, H, W, classes) float32, the logits, instead of ``labels``.
    both : give ``labels`` and ``scores`` (1, classes, H, W) float32, channels first as TensorRT
        computes them.
    compare : for OpenVINO, find the argmax by comparing planes instead of by a search. The labels
        are the same, except if logits tie once they are rounded to BF16. Which of the two is faster
        depends on precision and processor.
    plugin : unpool by edgeseg's own operators where they fit: the OpenVINO extension's or the
        TensorRT plugin's.
    unsigned : for OpenVINO, store INT8 activations as UINT8 if that is exact
        (``passes.unsigned_activations``).
    dynamic : leave batch or size open (``resolve_dynamic_shapes``); not for OpenVINO.
    bare : leave images to the code that runs the network: ``tensor`` (1, 3, H, W) float32 in,
        resized and normalised, in the spec's colour order; ``scores`` (1, classes, H, W) float32
        out. For TensorRT.

    Examples
    --------
    >>> LoweringOptions(scores=True, unsigned=True).body == LoweringOptions(unsigned=True)
    True
    """

    for_openvino: bool = True
    scores: bool = False
    both: bool = False
    compare: bool = False
    plugin: bool = False
    unsigned: bool = False
    dynamic: DynamicShapes | None = None
    bare: bool = False

    @property
    def body(self) -> "LoweringOptions":
        """Return these options without the ones that only concern the outputs."""
        return replace(self, scores=False, both=False, compare=False)


@dataclass(frozen=True)
class Lowered:
    """Hold a graph that a target can compile, and facts about it.

    Attributes
    ----------
    model : the graph.
    uses_plugin : True if it has operators of the TensorRT plugin or of the OpenVINO extension.
    """

    model: onnx.ModelProto
    uses_plugin: bool


def lower(network: Network, options: LoweringOptions | None = None) -> Lowered:
    """Lower a network to the graph that a target compiles.

    Unpooling gets the target's operators, preprocessing goes in front and the argmax behind. The
    body is lowered once for each kind of body and kept with ``network``: another output costs a
    copy.

    Parameters
    ----------
    network : a float network or a Q/DQ network.
    options : what to lower it to; labels for OpenVINO unless given.

    Raises
    ------
    GraphError : an operator or a size has no form that the target takes; or the options need logits
        and the network gives labels.
    """
    options = options or LoweringOptions()
    assert not (options.dynamic and options.for_openvino)
    assert not (options.bare and options.for_openvino)
    if options.bare:
        require_scores(network, "kernels")

    # The body: from the frame to the network's own output.
    body, shapes = _body(network, options.body)
    renamed = renamed_ends(network, _OURS)
    graph = Graph(copied(body))
    dynamic = options.dynamic or DynamicShapes()
    dims = shapes.get(renamed.output, []) if shapes else None

    # The output.
    if options.bare:
        attach_logits(graph, renamed)
    elif options.both:
        attach_both(graph, renamed, dynamic, dims)
    else:
        attach_output(
            graph,
            renamed,
            dynamic,
            dims,
            scores=options.scores,
            compare=options.compare and options.for_openvino,
            last_axis=options.for_openvino,
        )
    del graph.model.metadata_props[:]

    uses_plugin = any(is_plugin(node) or is_extension(node) for node in graph.nodes())
    return Lowered(graph.model, uses_plugin)


def _body(network: Network, options: LoweringOptions) -> tuple[onnx.ModelProto, Shapes | None]:
    """Return the graph from the frame to the network's own output.

    Return also the sizes of its tensors if some are dynamic.
    """
    if options in network.lowered:
        return network.lowered[options]

    named = without_names(network, _OURS)
    graph, shapes = _lowered_body(named, options)
    if options.bare:
        attach_tensor(graph, named)
    else:
        attach_frame(graph, named, options.for_openvino, options.dynamic or DynamicShapes())

    while len(network.lowered) >= _KEPT_BODIES:
        network.lowered.pop(next(iter(network.lowered)))
    network.lowered[options] = (graph.model, shapes)
    return graph.model, shapes


def _lowered_body(network: Network, options: LoweringOptions) -> tuple[Graph, Shapes | None]:
    """Lower the network's own graph in place; also return its tensors' sizes if dynamic."""
    # 1. Set the size of the input.
    model = network.model
    shapes: Shapes | None = None
    if options.dynamic:
        open_dimensions(model, network, options.dynamic)
        shapes = infer_dynamic_shapes(model, network, options.dynamic)
    else:
        fix_input(model, network.input, network.channels_last, network.spec.input_size)

    # 2. Rewrite the graph.
    graph = Graph(model, shapes)
    context = PassContext(options.for_openvino, options.plugin, options.unsigned)
    for rewrite in OPENVINO_PASSES if options.for_openvino else TENSORRT_PASSES:
        rewrite(graph, context)

    # 3. Infer the shapes of the result.
    try:
        model = infer_shapes(graph.model)
    except Exception as error:  # raised as several types, all of them about the graph
        reason = str(error).splitlines()[0]
        raise GraphError(f"{network.name}: its shapes do not fit together", got=reason) from error
    return Graph(model), shapes
