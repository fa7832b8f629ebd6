"""Passports of TensorRT plans that no TensorRT built."""

from typing import Any

from edgeseg.facts import TensorRTFacts
from edgeseg.graph.network import Network
from edgeseg.passport import Passport


def plan_passport(network: Network, target: str = "tensorrt-rtx", **facts: Any) -> Passport:
    """Return the passport of an FP32 plan of ``network``; ``facts`` are its ``TensorRTFacts``."""
    return Passport(
        name=network.name,
        target=target,
        precision="fp32",
        spec=network.spec,
        onnx_sha256=network.sha256,
        engine_sha256="",
        edgeseg="0",
        library=target,
        library_version="10.7.0",
        device="fake",
        facts=TensorRTFacts(**facts),
        build_seconds=0,
        built_at="",
    )
