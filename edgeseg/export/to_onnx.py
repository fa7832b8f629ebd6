"""A PyTorch net to an ONNX file with its spec inside, checked against PyTorch before it gets its name.

Pooling with positions and unpooling are written as the ONNX standard's own ``MaxPool`` with ``Indices`` and
``MaxUnpool``, so that any tool can read the file; ``edgeseg.export.unpool`` lowers them at build time.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnxscript import opset18 as op
from pydantic import ValidationError
from torch import nn

import edgeseg.models.pooling  # noqa: F401  registers the two operators, whatever net is exported
from edgeseg.artifact import write_bytes
from edgeseg.errors import GraphError, InputError
from edgeseg.export.halves import store_halves
from edgeseg.export.network import Overrides, read_labels
from edgeseg.spec import METADATA_KEY, ModelSpec, check_input_size, first_problem, generic_space
from edgeseg.training.checkpoint import load_checkpoint, save_checkpoint

OPSET = 18  # TensorRT 10.3 (JetPack 6) reads 17 to 20
# What float32 sums in another order may differ by: relative to the logits' own range, and in the labels they give.
TOLERANCE = 1e-4
SAME_LABELS = 0.999


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path | None = None,
    size: tuple[int, int] | None = None,
    *,
    half: bool = False,
) -> Path:
    """Write ``checkpoint``'s net to ``out`` (default: its folder's name, ``.onnx``) and return the path.

    ``size`` (H, W) is its input's instead of the one it was trained at. ``half`` stores the weights in FP16. Where
    ``out`` ends in ``.pt`` it is a checkpoint again, at that size, with those weights.
    """
    checkpoint = Path(checkpoint)
    net, spec, notes = load_checkpoint(checkpoint)
    if size is not None:
        spec = spec.replace(input_size=size)
        check_input_size(spec)
    path = Path(out) if out else checkpoint.with_name(f"{checkpoint.resolve().parent.name}.onnx")
    if path.suffix == ".pt":
        return save_checkpoint(path, net, spec, notes, half=half)
    info = {f"edgeseg.{k}": str(v) for k, v in notes.items() if k != "recipe"}
    return export_module(net, spec, path, info, half=half)


def export_foreign(
    net: nn.Module, name: str, overrides: Overrides, out: str | Path | None = None, *, half: bool = False
) -> Path:
    """Write a user's ``net`` with the spec that ``overrides`` give: its size, and what differs from ImageNet's habits.

    Its number of classes is found by running it. Raises ``InputError`` where it is no segmentation of frames of that
    size.
    """
    if out is not None and Path(out).suffix == ".pt":
        raise InputError(f"{name}: only edgeseg's own nets become checkpoints", got=str(out), expected="NAME.onnx")
    if overrides.size is None:
        raise InputError("a net that is not edgeseg's needs an input size", hint="Give --size HEIGHTxWIDTH.")
    frame = torch.zeros(1, 3, *overrides.size)
    try:
        with torch.inference_mode():
            logits = net.eval()(frame)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"{name} does not take a frame of {overrides.size[0]}x{overrides.size[1]}", got=str(error).splitlines()[0],
            expected="a module that maps (1, 3, H, W) to (1, classes, h, w)",
        ) from error  # fmt: skip
    if not isinstance(logits, torch.Tensor) or logits.ndim != 4 or logits.shape[1] < 2:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(f"{name} gives no scores a class and pixel", got=got, expected="(1, classes, h, w)")
    labels = read_labels(overrides.labels) if overrides.labels else generic_space(int(logits.shape[1]))
    if len(labels) != logits.shape[1]:
        raise InputError(
            f"{name}: its classes are not those of {labels.name}", got=int(logits.shape[1]), expected=len(labels)
        )
    facts: dict[str, Any] = {"architecture": name, "labels": labels, **overrides.given()}
    try:
        spec = ModelSpec(**facts)
    except ValidationError as error:
        raise InputError(f"{name}: the facts given make no spec", got=first_problem(error)) from error
    return export_module(net, spec, Path(out) if out else Path(f"{name}.onnx"), half=half)


def export_module(
    net: nn.Module, spec: ModelSpec, path: Path, info: dict[str, str] | None = None, *, half: bool = False
) -> Path:
    """Write ``net`` ((N, 3, H, W) -> (N, classes, h, w)) as ONNX with a free batch size, spec inside, checked.

    ``half`` then stores its weights in FP16.
    """
    net = net.eval()
    model = simplify(_translate(net, spec))
    for key, value in {METADATA_KEY: spec.to_json(), **(info or {})}.items():
        model.metadata_props.add(key=key, value=value)
    model.producer_name = "edgeseg"
    onnx.checker.check_model(model, full_check=True)
    check_against(net, model, spec)
    return write_bytes(path, (store_halves(model) if half else model).SerializeToString())


def _pool_to_onnx(x: Any) -> Any:
    return op.MaxPool(x, kernel_shape=[2, 2], strides=[2, 2])


def _unpool_to_onnx(values: Any, index: Any, like: Any) -> Any:
    return op.MaxUnpool(values, index, op.Shape(like), kernel_shape=[2, 2], strides=[2, 2])


def _translate(net: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    table: dict[Callable[..., Any], Callable[..., Any]] = {
        torch.ops.edgeseg.max_pool_positions.default: _pool_to_onnx,
        torch.ops.edgeseg.max_unpool_positions.default: _unpool_to_onnx,
    }
    example = torch.zeros(2, 3, *spec.input_size)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        _quiet("torch.onnx", "onnxscript", "onnx_ir"),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=table,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _quiet(*names: str) -> Any:
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnx-simplifier: constants folded, batch normalisation folded into convolutions."""
    import onnxsim

    simple, ok = onnxsim.simplify(model)
    if not ok:
        raise GraphError("onnx-simplifier changed what the net computes", hint="Report it with the checkpoint.")
    return cast(onnx.ModelProto, simple)


def check_against(net: nn.Module, model: onnx.ModelProto, spec: ModelSpec) -> float:
    """The difference between PyTorch and ONNX Runtime on noise; raises ``GraphError`` where it is more than rounding.

    It is the 99th percentile over all logits, relative to their range. Not the largest: where two values of a window
    all but tie, rounding alone may put the maximum at the other, and unpooling then moves it by a pixel.
    """
    import onnxruntime

    image = np.random.default_rng(0).normal(size=(2, 3, *spec.input_size)).astype(np.float32)
    with torch.inference_mode():
        want = net(torch.from_numpy(image)).numpy()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: image})
    difference = float(np.quantile(np.abs(got - want), 0.99) / max(float(np.ptp(want)), 1e-6))
    same_labels = float((got.argmax(1) == want.argmax(1)).mean())
    if not difference <= TOLERANCE or same_labels < SAME_LABELS:
        raise GraphError(
            "the ONNX file and PyTorch disagree",
            got=f"{difference:.1e} of the logits' range and {100 * same_labels:.2f} % of labels the same",
            expected=f"at most {TOLERANCE:.0e} and at least {100 * SAME_LABELS:.1f} %",
        )
    return difference
