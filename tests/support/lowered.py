"""Lowered graphs and single passes, in one call."""

from typing import Any

from onnx import ModelProto

from edgeseg.graph import lowering
from edgeseg.graph.graph import Graph
from edgeseg.graph.network import Network
from edgeseg.graph.nodes import copied
from edgeseg.graph.passes import (
    Pass,
    PassContext,
    average_pools,
    qdq_propagation,
    unpool,
    whole_steps,
)
from edgeseg.graph.passes import unsigned_activations as unsigned


def deploy(network: Network, **options: Any) -> ModelProto:
    """Return the graph of ``network``, lowered as ``LoweringOptions(**options)`` says."""
    return lowering.lower(network, lowering.LoweringOptions(**options)).model


def deploy_bare(network: Network, *, plugin: bool = False) -> ModelProto:
    """Return the graph for TensorRT without what stands before and after it."""
    return deploy(network, for_openvino=False, plugin=plugin, bare=True)


# Passes edit a graph in place; these edit a copy of a model.


def lower_unpooling(
    model: ModelProto, *, plugin: bool = False, extension: bool = False, shapes: Any = None
) -> ModelProto:
    context = PassContext(for_openvino=extension, own_operators=plugin or extension)
    return edited(unpool.lower_unpooling, model, context, shapes)


def propagate_qdq(model: ModelProto) -> ModelProto:
    return edited(qdq_propagation.propagate_qdq, model, PassContext(for_openvino=True))


def dequantize_early(model: ModelProto) -> ModelProto:
    return edited(qdq_propagation.dequantize_early, model, PassContext(for_openvino=True))


def unsigned_activations(model: ModelProto) -> ModelProto:
    context = PassContext(for_openvino=True, unsigned=True)
    shifted = edited(unsigned.unsigned_activations, model, context)
    return edited(average_pools.convolve_averages, shifted, context)


def round_behind_gains(model: ModelProto) -> ModelProto:
    return edited(whole_steps.round_behind_gains, model, PassContext(for_openvino=True))


def edited(
    rewrite: Pass, model: ModelProto, context: PassContext, shapes: Any = None
) -> ModelProto:
    """Return a copy of ``model`` that one pass has rewritten."""
    graph = Graph(copied(model), shapes)
    rewrite(graph, context)
    return graph.model
