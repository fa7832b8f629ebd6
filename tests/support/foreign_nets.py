"""Four small nets as other people's exporters write them, weights random but of a trained net's
scale.

Batch normalisation stands on its own, nodes have names, and the scores are centred on noise, so
that labels differ.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CLASSES = 6
SIZE = (64, 96)


class Builder:
    """Appends operators to a graph; every method returns the name of what its operator gives."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.channels = {"image": 3}

    def op(self, kind: str, *inputs: str, channels: int | None = None, **attributes: Any) -> str:
        out = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, list(inputs), [out], f"/{out}/{kind}", **attributes)
        )
        self.channels[out] = channels or self.channels[inputs[0]]
        return out

    def constant(self, hint: str, value: object) -> str:
        name = f"{hint}_{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def normal(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> np.ndarray:
        return self.random.normal(mean, scale, shape).astype(np.float32)

    def conv(
        self,
        x: str,
        out: int,
        kernel: int = 3,
        stride: int = 1,
        group: int = 1,
        bn: bool = True,
        act: str = "Relu",
    ) -> str:
        fan = self.channels[x] // group * kernel**2
        weight = self.constant(
            "weight", self.normal(out, self.channels[x] // group, kernel, kernel, scale=fan**-0.5)
        )
        pads = [0 if kernel == stride else kernel // 2] * 4
        geometry = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": pads,
            "group": group,
        }
        bias = [] if bn else [self.constant("bias", self.normal(out, scale=0.1))]
        x = self.op("Conv", x, weight, *bias, channels=out, **geometry)
        return self.activate(self.normalised(x) if bn else x, act)

    def normalised(self, x: str) -> str:
        c = self.channels[x]
        gain, var = self.random.uniform(0.8, 1.8, c), self.random.uniform(0.6, 1.4, c)
        facts = gain, self.normal(c, scale=0.3), self.normal(c, scale=0.2), var
        names = [self.constant("bn", np.asarray(v, np.float32)) for v in facts]
        return self.op("BatchNormalization", x, *names, epsilon=1e-5)

    def activate(self, x: str, act: str) -> str:
        if act == "Relu6":
            limits = [self.constant("limit", np.float32(v)) for v in (0, 6)]
            return self.op("Clip", x, *limits)
        return self.op(act, x) if act else x

    def upsampled(self, x: str, factor: int, mode: str) -> str:
        scales = self.constant("scales", np.array([1, 1, factor, factor], np.float32))
        how = "asymmetric" if mode == "nearest" else "half_pixel"
        options: dict[str, Any] = {"nearest_mode": "floor"} if mode == "nearest" else {}
        return self.op(
            "Resize", x, "", scales, mode=mode, coordinate_transformation_mode=how, **options
        )

    def model(self, scores: str, opset: int = 17) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "foreign",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *SIZE])],
            [helper.make_tensor_value_info(scores, TensorProto.FLOAT, [1, CLASSES, *SIZE])],
            [numpy_helper.from_array(v, k) for k, v in self.constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9
        )
        return centred(model, next(n for n in reversed(self.nodes) if n.op_type == "Conv"))


def centred(model: onnx.ModelProto, last: onnx.NodeProto) -> onnx.ModelProto:
    """Give the last convolution weights with which every class's scores have mean 0 and deviation 1
    on noise.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(
        helper.make_tensor_value_info(last.output[0], TensorProto.FLOAT, None)
    )
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    coarse = (
        np.random.default_rng(0)
        .normal(size=(1, 3, SIZE[0] // 8, SIZE[1] // 8))
        .repeat(8, 2)
        .repeat(8, 3)
    )
    scores = session.run([last.output[0]], {"image": coarse.astype(np.float32)})[0]
    mean, deviation = scores.mean(axis=(0, 2, 3)), scores.std(axis=(0, 2, 3))
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if tensor.name == last.input[1]:
            tensor.CopyFrom(
                numpy_helper.from_array(value / deviation[:, None, None, None], tensor.name)
            )
        elif tensor.name == last.input[2]:
            tensor.CopyFrom(numpy_helper.from_array((value - mean) / deviation, tensor.name))
    return model


def unet() -> onnx.ModelProto:
    """Ronneberger et al.

    2015, three levels: double convolutions, concatenated skips, 2x2 transposed convolutions.
    """
    b = Builder(1)

    def double(x: str, out: int) -> str:
        return b.conv(b.conv(x, out), out)

    skips, x = [], "image"
    for out in (8, 16):
        skips.append(double(x, out))
        x = b.op("MaxPool", skips[-1], kernel_shape=[2, 2], strides=[2, 2])
    x = double(x, 32)
    for skip in reversed(skips):
        out = b.channels[skip]
        weight = b.constant("up", b.normal(b.channels[x], out, 2, 2, scale=b.channels[x] ** -0.5))
        bias = b.constant("up_bias", b.normal(out, scale=0.1))
        x = b.op(
            "ConvTranspose", x, weight, bias, channels=out, kernel_shape=[2, 2], strides=[2, 2]
        )
        x = double(b.op("Concat", skip, x, axis=1, channels=2 * out), out)
    return b.model(b.conv(x, CLASSES, 1, bn=False, act=""))


def mobilenet() -> onnx.ModelProto:
    """Inverted residuals (Sandler et al. 2018): depthwise, Clip(0, 6), linear sums.

    Bilinear in the middle and last.
    """
    b = Builder(2)

    def inverted(x: str, out: int, stride: int) -> str:
        wide = 3 * b.channels[x]
        y = b.conv(x, wide, 1, act="Relu6")
        y = b.conv(y, wide, 3, stride, group=wide, act="Relu6")
        y = b.conv(y, out, 1, act="")
        return b.op("Add", x, y) if stride == 1 and out == b.channels[x] else y

    x = b.conv("image", 8, 3, 2, act="Relu6")
    skip = x = inverted(inverted(x, 12, 1), 12, 1)
    for out, stride in ((16, 2), (16, 1), (16, 1)):
        x = inverted(x, out, stride)
    x = b.upsampled(b.conv(x, 12, 1, act="Relu6"), 2, "linear")
    x = b.conv(b.op("Concat", x, skip, axis=1, channels=24), 16, act="Relu6")
    return b.model(b.upsampled(b.conv(x, CLASSES, 1, bn=False, act=""), 2, "linear"))


def residual() -> onnx.ModelProto:
    """Basic blocks with squeeze-and-excitation and HardSwish.

    A decoder of nearest upsampling and sums.
    """
    b = Builder(3)

    def excited(x: str) -> str:
        c = b.channels[x]
        gate = b.conv(b.op("GlobalAveragePool", x), c // 2, 1, bn=False)
        gate = b.op("HardSigmoid", b.conv(gate, c, 1, bn=False, act=""), alpha=1 / 6, beta=0.5)
        return b.op("Mul", x, gate)

    def block(x: str, out: int, stride: int, excite: bool) -> str:
        y = b.conv(b.conv(x, out, 3, stride, act="HardSwish"), out, act="")
        y = excited(y) if excite else y
        short = x if stride == 1 and out == b.channels[x] else b.conv(x, out, 1, stride, act="")
        return b.op("HardSwish", b.op("Add", y, short))

    fine = block(b.conv("image", 12, 3, 2, act="HardSwish"), 12, 1, excite=False)
    x = block(block(fine, 24, 2, excite=False), 24, 1, excite=True)
    x = b.upsampled(b.conv(x, 12, 1, act=""), 2, "nearest")
    x = b.conv(b.op("Relu", b.op("Add", x, b.conv(fine, 12, 1, act=""))), 12)
    return b.model(b.conv(b.upsampled(x, 2, "nearest"), CLASSES, 3, bn=False, act=""))


def perceptron() -> onnx.ModelProto:
    """Matrix products over pixels, as in transformers: MatMul with its bias added, then Gemm,
    either way round.
    """
    b = Builder(4)
    x = b.conv("image", 16, 4, 4)
    height, width = SIZE[0] // 4, SIZE[1] // 4
    x = b.op(
        "Transpose", b.op("Reshape", x, b.constant("shape", np.array([1, 16, -1]))), perm=[0, 2, 1]
    )
    for out in (32, 16):
        x = b.op(
            "MatMul",
            x,
            b.constant("matrix", b.normal(b.channels[x], out, scale=b.channels[x] ** -0.5)),
            channels=out,
        )
        x = b.op("Relu", b.op("Add", x, b.constant("bias", b.normal(out, scale=0.1))))
    x = b.op("Reshape", x, b.constant("shape", np.array([-1, 16])))
    for transposed in (0, 1):
        weight, bias = b.normal(16, 16, scale=0.25), b.constant("bias", b.normal(16, scale=0.1))
        x = b.op("Relu", b.op("Gemm", x, b.constant("matrix", weight), bias, transB=transposed))
    x = b.op(
        "Reshape",
        b.op("Transpose", x, perm=[1, 0]),
        b.constant("shape", np.array([1, 16, height, width])),
    )
    return b.model(b.upsampled(b.conv(b.conv(x, 16), CLASSES, 1, bn=False, act=""), 4, "linear"))


NETS: dict[str, Callable[[], onnx.ModelProto]] = {
    "unet": unet,
    "mobilenet": mobilenet,
    "residual": residual,
    "perceptron": perceptron,
}


def write(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    onnx.save(NETS[name](), path)
    return path
