"""Fake quantization: a float net that rounds where its INT8 form will, and whose weights and scales can be trained.

The graph is the one ``edgeseg.quantize.qdq`` writes, read back: the pairs stand where post-training quantization puts
them by construction, and a trained net is written by the same code.
"""

import math
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, numpy_helper
from torch import Tensor, fx, nn

from edgeseg.graph.graph import Graph, copied, is_op
from edgeseg.quantize.placement import Placement, scales, tensors_to_calibrate
from edgeseg.quantize.qdq import DEAD_SCALE, LEVELS, output_axis, write_qdq
from edgeseg.training.qat.torch_from_onnx import module_from_onnx

LOWEST = -128  # QuantizeLinear saturates there; the scale is set for -127..127
_TINY = 1e-12  # as quantize_weight has it
_SAME_EXPONENT = 1e-5  # a power of two whose logarithm went through float32 is still itself


class _RoundActivation(torch.autograd.Function):
    """``QuantizeLinear`` and ``DequantizeLinear`` in one, in float32; the step learns as LSQ's (Esser et al. 2020).

    Inside the range the gradient g passes straight through. The step's is, value by value, the rounding error in steps
    there and the limit outside (their equation 3): (y - x * inside) / step, whose sum with g is that of two products.
    It is scaled by 1 / sqrt(values * 127) (section 2.2).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor) -> Tensor:
        out = (x.float() / step).round_().clamp_(LOWEST, LEVELS).mul_(step)
        ctx.save_for_backward(x, step, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, step, out = ctx.saved_tensors
        passed = grad * ((x >= LOWEST * step) & (x <= LEVELS * step))
        slope = ((grad * out).sum() - (passed * x).sum()) / step
        return passed.to(x.dtype), slope / math.sqrt(x.numel() * LEVELS)


class _RoundWeight(torch.autograd.Function):
    """Weights on ``scale``'s steps; nothing is clipped, so the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        return (weight / scale).round_().clamp_(-LEVELS, LEVELS).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class ActivationQuantizer(nn.Module):
    """The pair of one scale, ``name`` its group; the scale is learned by its logarithm, so that steps are relative.

    ``exact``: what is used is the next power of two, and the gradient passes straight through that rounding up. (TQT,
    Jain et al. 2020, "Trained Quantization Thresholds", section 3.)
    """

    def __init__(self, name: str, step: float, exact: bool = True) -> None:
        super().__init__()
        self.name, self.exact = name, exact
        self.log_step = nn.Parameter(torch.tensor(math.log2(step)))

    def step(self) -> Tensor:
        """The scale in use, a scalar."""
        if not self.exact:
            return torch.exp2(self.log_step)
        log = self.log_step.detach()
        return torch.exp2((log - _SAME_EXPONENT).ceil()) * torch.exp2(self.log_step - log)  # the second factor is 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _RoundActivation.apply(x, self.step())
        return out


class WeightQuantizer(nn.Module):
    """A layer's weights, initializer ``name``, on the scales that ``quantize_weight`` will give them."""

    def __init__(self, name: str, weight: Tensor, axis: int, exact: bool = True) -> None:
        super().__init__()
        self.name, self.others, self.exact = name, [i for i in range(weight.ndim) if i != axis], exact
        self.weight = nn.Parameter(weight)

    def forward(self) -> Tensor:
        largest = self.weight.detach().abs().amax(self.others, keepdim=True)
        scale = torch.where(largest > _TINY, largest / LEVELS, DEAD_SCALE)
        if self.exact:
            mantissa, exponent = torch.frexp(scale)
            scale = torch.ldexp(torch.ones_like(scale), torch.where(mantissa == 0.5, exponent - 1, exponent))
        out: Tensor = _RoundWeight.apply(self.weight, scale)
        return out


class Quantizer:
    """Between a folded float net with the pairs of ``placement`` and the module that trains it.

    ``exact``: scales are powers of two (``edgeseg.quantize.qdq``).
    """

    def __init__(self, model: ModelProto, placement: Placement, *, exact: bool = True) -> None:
        self.model, self.placement, self.exact = model, placement, exact
        self._parameters: dict[str, str] = {}

    def module(self, amax: dict[str, float]) -> fx.GraphModule:
        """The net, (N, 3, H, W) float -> logits, rounding in place; ``amax`` is of ``tensors_to_calibrate``."""
        # The ranges as they were found: rounding up is the quantizers' business, and biases round when written.
        steps = scales(self.placement, amax, exact=False)
        written = write_qdq(self.model, self.placement, steps, exact=False)
        groups = {key: ActivationQuantizer(key, steps[key], self.exact) for key in self.placement.sources}
        computed = set(tensors_to_calibrate(self.placement))
        graph, layers = Graph(written), {node.name: node for node in self.model.graph.node}
        instead: dict[str, nn.Module | None] = {}
        for node in written.graph.node:
            if is_op(node, "QuantizeLinear"):
                # What a move gives is on its scale's steps already: rounding it again would change nothing.
                name = node.input[0]
                instead[node.name] = groups[self.placement.scale_of[name]] if name in computed else None
            elif is_op(node, "DequantizeLinear"):
                made = graph.producer.get(node.input[0])
                reader = graph.readers[node.output[0]][0]
                instead[node.name] = None if made is not None else self._weights(layers[reader.name])
        module, self._parameters = module_from_onnx(written, instead, short_gains=self.exact)
        return module

    def _weights(self, layer: NodeProto) -> WeightQuantizer:
        name = layer.input[1]
        value = next(t for t in self.model.graph.initializer if t.name == name)
        weight = torch.from_numpy(numpy_helper.to_array(value).copy())
        return WeightQuantizer(name, weight, output_axis(layer), self.exact)

    def take_biases(self, module: fx.GraphModule, written: ModelProto) -> None:
        """Give ``module`` the biases of ``written``, its own file: there they are whole steps of the sums."""
        graph, layers = Graph(written), {node.name: node for node in self.model.graph.node}
        for node in written.graph.node:
            if node.name in self.placement.layers and len(node.input) > 2:
                bias = graph.array(node.input[2])
                path = self._parameters.get(layers[node.name].input[2])
                if bias is not None and path is not None:
                    module.get_parameter(path).data.copy_(torch.from_numpy(np.array(bias)))

    def to_onnx(self, module: fx.GraphModule) -> ModelProto:
        """The Q/DQ net with the weights and scales of ``module`` (one that ``module()`` gave, or a copy)."""
        values = {name: module.get_parameter(path) for name, path in self._parameters.items()}
        steps: dict[str, float] = {}
        for part in module.modules():
            if isinstance(part, WeightQuantizer):
                values[part.name] = part.weight
            elif isinstance(part, ActivationQuantizer):
                steps[part.name] = float(part.step().detach())
        copy = copied(self.model)
        for tensor in copy.graph.initializer:
            if tensor.name in values:
                array = np.ascontiguousarray(values[tensor.name].detach().cpu().numpy())
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        per_tensor = {name: steps[self.placement.scale_of[name]] for name in self.placement.tensors}
        return write_qdq(copy, self.placement, per_tensor, exact=self.exact)
