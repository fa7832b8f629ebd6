"""Lowered graphs and single passes, in one call."""

from typing import Any

from onnx import ModelProto

from edgeseg.graph import lowering
from edgeseg.graph.graph import copied
from edgeseg.graph.network import Network
from edgeseg.graph.passes import qdq_propagation, unpool
from edgeseg.graph.passes import unsigned_activations as unsigned


def deploy(network: Network, **options: Any) -> ModelProto:
    """Return the graph of ``network``, lowered as ``LoweringOptions(**options)`` says."""
    return lowering.lower(network, lowering.LoweringOptions(**options)).model


def deploy_bare(network: Network, *, plugin: bool = False) -> ModelProto:
    """Return the graph for TensorRT without what stands before and after it."""
    return deploy(network, for_openvino=False, plugin=plugin, bare=True)


# Passes edit in place; these edit a copy.


def lower_unpooling(model: ModelProto, **options: Any) -> ModelProto:
    return unpool.lower_unpooling(copied(model), **options)


def propagate_qdq(model: ModelProto, **options: Any) -> ModelProto:
    return qdq_propagation.propagate_qdq(copied(model), **options)


def dequantize_early(model: ModelProto) -> ModelProto:
    return qdq_propagation.dequantize_early(copied(model))


def unsigned_activations(model: ModelProto) -> ModelProto:
    return unsigned.unsigned_activations(copied(model))


def round_behind_gains(model: ModelProto) -> ModelProto:
    return unsigned.round_behind_gains(copied(model))
