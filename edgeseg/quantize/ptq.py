"""Quantize a trained network without training: find ranges, then write Q/DQ pairs.

``plan_quantization`` does what depends only on the network and the calibration set, once. The plan
is handed to whoever needs it: the build, the search for layers to keep in float, the sensitivity
report and fine-tuning.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edgeseg.errors import InputError
from edgeseg.graph.graph import Graph
from edgeseg.graph.network import Network
from edgeseg.graph.nodes import copied
from edgeseg.graph.ops import is_quantized
from edgeseg.graph.outputs import fix_input
from edgeseg.graph.passes.fold_batchnorm import fold_in_place
from edgeseg.graph.passes.unpool.torch_scatter import raise_scatters
from edgeseg.imaging.preprocess import to_input
from edgeseg.quantize.calibration_set import CalibrationSet
from edgeseg.quantize.placement import Placement, place_graph, scales, tensors_to_calibrate
from edgeseg.quantize.qdq import raise_opset, write_qdq
from edgeseg.quantize.ranges import RangeOptions, Ranges, cached_ranges
from edgeseg.reporter import SILENT, Reporter
from edgeseg.types import Float, Image

DEFAULT_METHOD = "mse"


@dataclass(frozen=True)
class FoldedNetwork:
    """Hold a float network, folded for quantization, and what runs in INT8 at most.

    Attributes
    ----------
    network : the network, its normalisation folded into weights (``fold_batchnorm.fold``).
    graph : its graph with a fixed input size, so that shapes are known; it is only read.
    full : the placement with no layer kept in float on request.
    """

    network: Network
    graph: Graph
    full: Placement

    @property
    def tensors_to_range(self) -> tuple[str, ...]:
        """Return the tensors whose ranges INT8 can need, whatever layers stay in float.

        These are the tensors of the full placement, and the branches of the sums that it computes
        inside a convolution: they have a Q/DQ pair of their own if that convolution stays in float.
        """
        branches: set[str] = set()
        for node in self.network.model.graph.node:
            if node.name in self.full.sums:
                branches.update(node.input)

        needed = tensors_to_calibrate(self.full)
        return (*needed, *sorted(branches - set(self.full.tensors)))


@dataclass(frozen=True)
class QuantizationPlan:
    """Hold all that is needed to quantize a network: the folded graph, placements and ranges.

    Attributes
    ----------
    folded : the folded network with its full placement.
    ranges : the range of every tensor that can carry a Q/DQ pair.
    from_cache : True if the ranges come from the cache or from a file, not from frames run now.
    exact : use powers of two as scales, which every runtime computes alike
        (``edgeseg.quantize.qdq``).
    """

    folded: FoldedNetwork
    ranges: Ranges
    from_cache: bool
    exact: bool = True

    @property
    def network(self) -> Network:
        """Return the folded float network."""
        return self.folded.network

    def placement(
        self, keep_float: Collection[str] = (), *, reasons: dict[str, str] | None = None
    ) -> Placement:
        """Return what runs in INT8 if some layers and sums stay in float.

        Parameters
        ----------
        keep_float : names of the layers and sums that stay in float.
        reasons : why they do, by name.

        Raises
        ------
        InputError : a name is not a layer or sum of the network.
        """
        if not keep_float:
            return self.folded.full
        return place_graph(self.folded.graph, keep_float, reasons=reasons)

    def quantized(self, placement: Placement) -> Network:
        """Return the network with the Q/DQ pairs of a placement.

        Parameters
        ----------
        placement : one of this plan's placements.
        """
        model = write_qdq(self.network.model, placement, self.scales(placement), exact=self.exact)
        return replace(self.network, model=model)

    def scales(self, placement: Placement) -> dict[str, float]:
        """Return the scale of every tensor of a placement that carries a pair.

        Parameters
        ----------
        placement : one of this plan's placements.
        """
        return scales(placement, self.ranges.amax, exact=self.exact)


def fold_network(network: Network) -> FoldedNetwork:
    """Fold a float network, raise its opset if INT8 needs a later one, and place INT8.

    Parameters
    ----------
    network : a float network; it is not changed.

    Raises
    ------
    InputError : the network is quantized already, or none of its layers can run in INT8.
    """
    if is_quantized(network.model):
        raise InputError(
            f"{network.name}: is quantized already",
            expected="a float net to calibrate",
            hint="Build it as it is, without `calib`; or give the float file.",
        )

    # Fold a copy.
    copy = copied(raise_opset(network.model))
    raise_scatters(Graph(copy))
    folded = replace(network, model=fold_in_place(copy))

    # Place INT8 in a copy whose shapes are known.
    sized = copied(folded.model)
    fix_input(sized, folded.input, folded.channels_last, folded.spec.input_size)
    graph = Graph(sized)
    full = place_graph(graph)

    if not full.layers:
        floats = "; ".join(f"{name} {reason}" for name, reason in full.floats.items())
        raise InputError(
            f"{network.name}: no layer of it can run in INT8",
            got=floats[:300] or "no layers",
            expected="convolutions or matrix products between the image and the last layer",
            hint="Build it in float: `precision=auto`, without `calib`.",
        )
    return FoldedNetwork(folded, graph, full)


def plan_quantization(
    network: Network | FoldedNetwork,
    calibration: CalibrationSet,
    method: str = DEFAULT_METHOD,
    *,
    ranges: Ranges | None = None,
    exact: bool = True,
    reporter: Reporter = SILENT,
) -> QuantizationPlan:
    """Fold a network and find its ranges on a calibration set.

    Statistics are read from the cache if the same network has seen the same frames before.

    Parameters
    ----------
    network : a float network, folded or not.
    calibration : the calibration set.
    method : how a range is taken from a histogram, one of ``edgeseg.quantize.ranges.METHODS``.
    ranges : ranges to use as they are, instead of finding them.
    exact : use powers of two as scales.
    reporter : receives the progress over the frames.

    Raises
    ------
    InputError : the network is quantized already, or none of its layers can run in INT8.
    GraphError : an activation is not finite on a frame.
    """
    folded = network if isinstance(network, FoldedNetwork) else fold_network(network)
    if ranges is not None:
        return QuantizationPlan(folded, ranges, from_cache=True, exact=exact)

    found, from_cache = cached_ranges(
        folded.network.model,
        folded.network.sha256,
        folded.tensors_to_range,
        calibration,
        RangeOptions(method),
        partial(network_input, folded.network),
        reporter=reporter,
    )
    return QuantizationPlan(folded, found, from_cache, exact)


def network_input(network: Network, frame: Image) -> Float:
    """Return a frame as the network's own input tensor, float32.

    Parameters
    ----------
    network : the network.
    frame : (H, W, 3) uint8 BGR, of any size.

    Returns
    -------
    (1, 3, H, W), or (1, H, W, 3) if the network is channels-last; H and W are the spec's.
    """
    tensor = to_input(frame, network.spec)
    if network.channels_last:
        tensor = tensor.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(tensor)
