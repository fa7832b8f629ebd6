"""Post-training quantization: a float net and a calibration set to a Q/DQ net, its report included."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from onnx import ModelProto

from edgeseg.errors import InputError
from edgeseg.graph.graph import Graph, copied
from edgeseg.graph.network import Network
from edgeseg.graph.ops import is_quantized
from edgeseg.graph.outputs import fix_input
from edgeseg.graph.passes.fold_batchnorm import fold
from edgeseg.graph.passes.unpool.torch_scatter import raise_scatters
from edgeseg.imaging.preprocess import to_input
from edgeseg.quantize.calibration_set import CalibrationSet
from edgeseg.quantize.placement import Placement, place, scales, tensors_to_calibrate
from edgeseg.quantize.qdq import raise_opset, write_qdq
from edgeseg.quantize.ranges import Ranges, cached_ranges
from edgeseg.types import Float, Image

DEFAULT_METHOD = "mse"


@dataclass(frozen=True)
class Prepared:
    """A float net in the form quantization starts from, and the ranges of everything that can carry a Q/DQ pair.

    ``exact``: scales are powers of two (``edgeseg.quantize.qdq``).
    """

    network: Network
    ranges: Ranges
    from_cache: bool
    exact: bool = True

    def placement(self, keep_float: Collection[str] = (), *, reasons: dict[str, str] | None = None) -> Placement:
        """The placement with the layers and sums ``keep_float`` left in float."""
        return place(sized(self.network), keep_float, reasons=reasons)

    def quantized(self, placement: Placement) -> Network:
        """The net with the pairs of ``placement``."""
        model = write_qdq(self.network.model, placement, self.scales(placement), exact=self.exact)
        return replace(self.network, model=model)

    def scales(self, placement: Placement) -> dict[str, float]:
        """The scale of every tensor of ``placement`` that carries a pair."""
        return scales(placement, self.ranges.amax, exact=self.exact)


def folded(network: Network) -> Network:
    """``network`` folded (``fold``), its opset high enough. Raises ``InputError`` if it is quantized already."""
    if is_quantized(network.model):
        raise InputError(
            f"{network.name}: is quantized already",
            expected="a float net to calibrate",
            hint="Build it as it is, without `calib`; or give the float file.",
        )
    model = raise_opset(network.model)
    copy = copied(model)
    raise_scatters(Graph(copy))
    return replace(network, model=fold(copy))


def prepare(
    network: Network,
    calibration: CalibrationSet,
    method: str = DEFAULT_METHOD,
    *,
    ranges: Ranges | None = None,
    exact: bool = True,
    on_frame: Callable[[int], None] | None = None,
) -> Prepared:
    """Fold ``network`` and take its ranges over ``calibration`` by ``method``, from the cache where they are there.

    ``ranges``, if given, are used as they are. ``exact``: see ``Prepared``.
    """
    net = folded(network)
    if ranges is not None:
        return Prepared(net, ranges, from_cache=True, exact=exact)
    found, from_cache = cached_ranges(
        net.model,
        net.sha256,
        tensors_to_range(net),
        calibration,
        method,
        partial(network_input, network=net),
        on_frame=on_frame,
    )
    return Prepared(net, found, from_cache, exact)


def tensors_to_range(network: Network) -> tuple[str, ...]:
    """The tensors of a ``folded`` net whose ranges INT8 can need, whatever layers are left in float.

    That is what the full placement needs, and the branches of sums that it computes inside a convolution: they carry a
    pair of their own where that convolution stays in float. Raises ``InputError`` where no layer of it can run in INT8.
    """
    placement = place(sized(network))
    if not placement.layers:
        floats = "; ".join(f"{name} {reason}" for name, reason in placement.floats.items())
        raise InputError(
            f"{network.name}: no layer of it can run in INT8",
            got=floats[:300] or "no layers",
            expected="convolutions or matrix products between the image and the last layer",
            hint="Build it in float: `precision=auto`, without `calib`.",
        )
    sums = {name for node in network.model.graph.node if node.name in placement.sums for name in node.input}
    needed = tensors_to_calibrate(placement)
    return (*needed, *sorted(sums - set(placement.tensors)))


def network_input(frame: Image, network: Network) -> Float:
    """A frame of any size as the net's own input tensor, float32."""
    x = to_input(frame, network.spec)
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if network.channels_last else x


def sized(network: Network) -> ModelProto:
    """The net's graph with its input's size fixed, so that shapes can be told."""
    copy = copied(network.model)
    fix_input(copy, network.input, network.channels_last, network.spec.input_size)
    return copy
