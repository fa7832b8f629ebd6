"""Fake quantization: a float module rounds where its INT8 form will, and learns weights and scales.

The graph is the one that ``edgeseg.quantize.qdq`` writes, read back: the Q/DQ pairs stand where
post-training quantization puts them, and a trained module is written by the same code.
"""

import math
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, numpy_helper
from torch import Tensor, fx, nn

from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import copied, is_op
from edgeseg.quantize.placement import Placement, scales, tensors_to_calibrate
from edgeseg.quantize.qdq import DEAD_SCALE, LEVELS, output_axis, write_qdq
from edgeseg.training.qat.torch_from_onnx import module_from_onnx

LOWEST = -128  # QuantizeLinear saturates there; the scale is set for -127..127

_TINY = 1e-12  # as quantize_weight has it
_SAME_EXPONENT = 1e-5  # a power of two whose logarithm went through float32 stays itself


class _RoundActivation(torch.autograd.Function):
    """Compute ``QuantizeLinear`` and ``DequantizeLinear`` in one, in float32.

    The step learns as LSQ's does (Esser et al. 2020). Inside the range the gradient g passes
    straight through. The step's gradient is, per value, the rounding error in steps inside the
    range and the limit outside (their equation 3): (y - x * inside) / step, whose sum with g is
    that of two products. It is scaled by 1 / sqrt(values * 127) (section 2.2).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor) -> Tensor:
        """Return values rounded to steps."""
        out = (x.float() / step).round_().clamp_(LOWEST, LEVELS).mul_(step)
        ctx.save_for_backward(x, step, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of the values and of the step."""
        x, step, out = ctx.saved_tensors
        is_inside = (x >= LOWEST * step) & (x <= LEVELS * step)
        passed = grad * is_inside
        slope = ((grad * out).sum() - (passed * x).sum()) / step
        return passed.to(x.dtype), slope / math.sqrt(x.numel() * LEVELS)


class _RoundWeight(torch.autograd.Function):
    """Round weights to steps; nothing is clipped, so the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        """Return weights rounded to steps of ``scale``."""
        return (weight / scale).round_().clamp_(-LEVELS, LEVELS).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the weights."""
        return grad, None


class ActivationQuantizer(nn.Module):
    """Stand for the Q/DQ pair of one scale.

    The logarithm of the scale is learned, so that steps are relative.

    Parameters
    ----------
    name : name of the group of tensors that share the scale.
    step : the scale to start from.
    exact : use the next power of two, as exact files do. The gradient passes straight through this
        rounding up (TQT: Jain et al. 2020, "Trained Quantization Thresholds", section 3).

    Attributes
    ----------
    log_step : the logarithm of the scale to base 2, a scalar parameter.

    Examples
    --------
    >>> quantizer = ActivationQuantizer("input", step=0.3)
    >>> quantizer(torch.tensor([0.2, 0.7, 100.0])).tolist()  # steps of 0.5, at most 127 of them
    [0.0, 0.5, 63.5]
    """

    def __init__(self, name: str, step: float, exact: bool = True) -> None:
        super().__init__()
        self.name = name
        self.exact = exact
        self.log_step = nn.Parameter(torch.tensor(math.log2(step)))

    def step(self) -> Tensor:
        """Return the scale in use, a scalar."""
        if not self.exact:
            return torch.exp2(self.log_step)

        # The second factor is 1; it carries the gradient.
        log = self.log_step.detach()
        power = torch.exp2((log - _SAME_EXPONENT).ceil())
        return power * torch.exp2(self.log_step - log)

    def forward(self, x: Tensor) -> Tensor:
        """Return values rounded as the pair rounds them, in float32.

        Parameters
        ----------
        x : values of any shape.
        """
        out: Tensor = _RoundActivation.apply(x, self.step())
        return out


class WeightQuantizer(nn.Module):
    """Hold the weights of a layer, and round them as ``quantize_weight`` will.

    Parameters
    ----------
    name : name of the initializer.
    weight : the weights.
    axis : axis of the output channels; each has a scale of its own.
    exact : scales are powers of two, as in exact files.

    Attributes
    ----------
    weight : the weights before rounding, a parameter.

    Examples
    --------
    >>> quantizer = WeightQuantizer("w", torch.tensor([[1.27, 0.014]]), axis=0, exact=False)
    >>> [round(value, 4) for value in quantizer()[0].tolist()]  # steps of 0.01
    [1.27, 0.01]
    """

    def __init__(self, name: str, weight: Tensor, axis: int, exact: bool = True) -> None:
        super().__init__()
        self.name = name
        self.exact = exact
        self.others = [other for other in range(weight.ndim) if other != axis]
        self.weight = nn.Parameter(weight)

    def forward(self) -> Tensor:
        """Return the rounded weights."""
        largest = self.weight.detach().abs().amax(self.others, keepdim=True)
        scale = torch.where(largest > _TINY, largest / LEVELS, DEAD_SCALE)

        if self.exact:
            # The next power of two; a mantissa of 0.5 is a power of two already.
            mantissa, exponent = torch.frexp(scale)
            exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
            scale = torch.ldexp(torch.ones_like(scale), exponent)

        out: Tensor = _RoundWeight.apply(self.weight, scale)
        return out


class Quantizer:
    """Turn a folded float graph into a module that rounds, and the trained module into a Q/DQ file.

    Parameters
    ----------
    model : the folded float model.
    placement : where the Q/DQ pairs stand.
    exact : scales are powers of two (``edgeseg.quantize.qdq``).
    """

    def __init__(self, model: ModelProto, placement: Placement, *, exact: bool = True) -> None:
        self.model = model
        self.placement = placement
        self.exact = exact
        self._parameters: dict[str, str] = {}

    def module(self, amax: dict[str, float]) -> fx.GraphModule:
        """Return the module to train: (N, 3, H, W) float32 -> logits, rounding in place.

        Parameters
        ----------
        amax : largest absolute value of each tensor of ``tensors_to_calibrate``.

        Raises
        ------
        GraphError : an operator has no PyTorch form.
        """
        # The ranges as they were found: the quantizers round scales up, and biases are rounded when
        # they are written.
        steps = scales(self.placement, amax, exact=False)
        written = write_qdq(self.model, self.placement, steps, exact=False)

        groups: dict[str, ActivationQuantizer] = {}
        for key in self.placement.sources:
            groups[key] = ActivationQuantizer(key, steps[key], self.exact)

        instead = self._replacements(written, groups)
        module, self._parameters = module_from_onnx(written, instead, short_gains=self.exact)
        return module

    def _replacements(
        self, written: ModelProto, groups: dict[str, ActivationQuantizer]
    ) -> dict[str, nn.Module | None]:
        """Return the modules that take the place of the Q/DQ pairs; None for no change."""
        computed = set(tensors_to_calibrate(self.placement))
        graph = Graph(written)
        layers = {node.name: node for node in self.model.graph.node}

        instead: dict[str, nn.Module | None] = {}
        for node in written.graph.node:
            if is_op(node, "QuantizeLinear"):
                # A tensor that is only moved has values on its scale's steps already: rounding it
                # again would change nothing.
                name = node.input[0]
                is_computed = name in computed
                instead[node.name] = groups[self.placement.scale_of[name]] if is_computed else None
            elif is_op(node, "DequantizeLinear"):
                # Without a producer it reads a layer's weights.
                is_activation = graph.producer.get(node.input[0]) is not None
                reader = graph.readers[node.output[0]][0]
                instead[node.name] = None if is_activation else self._weights(layers[reader.name])
        return instead

    def _weights(self, layer: NodeProto) -> WeightQuantizer:
        """Return the quantizer of a layer's weights."""
        name = layer.input[1]
        value = next(tensor for tensor in self.model.graph.initializer if tensor.name == name)
        weight = torch.from_numpy(numpy_helper.to_array(value).copy())
        return WeightQuantizer(name, weight, output_axis(layer), self.exact)

    def take_biases(self, module: fx.GraphModule, written: ModelProto) -> None:
        """Give a module the biases of its own file: there they are whole steps of the sums.

        Parameters
        ----------
        module : the module that ``module`` returned, or a copy; it is changed.
        written : what ``to_onnx`` returned for it.
        """
        graph = Graph(written)
        layers = {node.name: node for node in self.model.graph.node}
        for node in written.graph.node:
            if node.name not in self.placement.layers or len(node.input) < 3:
                continue
            bias = graph.array(node.input[2])
            path = self._parameters.get(layers[node.name].input[2])
            if bias is not None and path is not None:
                module.get_parameter(path).data.copy_(torch.from_numpy(np.array(bias)))

    def to_onnx(self, module: fx.GraphModule) -> ModelProto:
        """Return the Q/DQ model with the weights and scales of a module.

        Parameters
        ----------
        module : the module that ``module`` returned, or a copy.
        """
        # Collect the trained values.
        values: dict[str, Tensor] = {}
        for name, path in self._parameters.items():
            values[name] = module.get_parameter(path)
        steps: dict[str, float] = {}
        for part in module.modules():
            if isinstance(part, WeightQuantizer):
                values[part.name] = part.weight
            elif isinstance(part, ActivationQuantizer):
                steps[part.name] = float(part.step().detach())

        # Put them into a copy of the float model, and write its pairs.
        copy = copied(self.model)
        for tensor in copy.graph.initializer:
            if tensor.name in values:
                array = np.ascontiguousarray(values[tensor.name].detach().cpu().numpy())
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        per_tensor: dict[str, float] = {}
        for name in self.placement.tensors:
            per_tensor[name] = steps[self.placement.scale_of[name]]
        return write_qdq(copy, self.placement, per_tensor, exact=self.exact)
