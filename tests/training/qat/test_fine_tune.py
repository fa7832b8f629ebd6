"""Quantization-aware training: the float module, its rounding, a real run, the file it writes."""

import json
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from reporting import Heard

from edgeseg.reporter import SILENT

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from edgeseg.backends.load import load_engine  # noqa: E402
from edgeseg.build.engine_from_onnx import build_engine  # noqa: E402
from edgeseg.data import open_dataset  # noqa: E402
from edgeseg.errors import EdgesegError, GraphError, InputError  # noqa: E402
from edgeseg.export.onnx_from_torch import export_checkpoint, export_module  # noqa: E402
from edgeseg.graph.network import Network, load_network  # noqa: E402
from edgeseg.imaging.preprocess import to_input  # noqa: E402
from edgeseg.metrics.confusion import confusion_matrix, scores  # noqa: E402
from edgeseg.metrics.evaluate import evaluate  # noqa: E402
from edgeseg.models import REGISTRY, create  # noqa: E402
from edgeseg.models.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from edgeseg.quantize.calibration_set import resolve_set  # noqa: E402
from edgeseg.quantize.placement import power_of_two  # noqa: E402
from edgeseg.quantize.ptq import QuantizationPlan, plan_quantization  # noqa: E402
from edgeseg.quantize.qdq import quantize_weight  # noqa: E402
from edgeseg.spec import CAMVID_11, METADATA_KEY, VOC_21, ModelSpec  # noqa: E402
from edgeseg.training.fit import train  # noqa: E402
from edgeseg.training.qat.fake_quant import ActivationQuantizer, Quantizer, WeightQuantizer  # noqa: E402
from edgeseg.training.qat.fine_tune import Tuned, Tuning, soft_cross_entropy, tune  # noqa: E402
from edgeseg.training.qat.torch_from_onnx import module_from_onnx  # noqa: E402
from edgeseg.training.recipe import Recipe  # noqa: E402

DRIVE = "synthetic://?length=24&size=96x64&seed=1"
RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "model": {"architecture": "enet", "input_size": (64, 96)},
        "data": {"address": DRIVE},
        "augment": {"scale": (0.8, 1.25)},
        "loss": {"class_weights": "median", "weight_power": 0.5, "prior_correction": 0.5},
        "optim": {"lr": 8e-3},
        "fit": {"epochs": 4, "batch": 4, "workers": 0, "validate_every": 4},
    }
)


def run_ort(model: ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (out,) = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(out)


# -- the float net as a module ---------------------------------------------------------------

SIZES = {"enet": (64, 96), "segnet": (75, 61)}


@pytest.fixture(scope="module", params=["enet", "segnet"])
def prepared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> QuantizationPlan:
    """Every registered net, its normalisation no identity, exported and calibrated as for PTQ."""
    name, size = request.param, SIZES[request.param]
    torch.manual_seed(0)
    net = create(name, 11)
    with warnings.catch_warnings(), torch.no_grad():
        net.train()(torch.randn(4, 3, *size))
    spec = ModelSpec(
        architecture=name, input_size=size, stride=REGISTRY[name].stride, labels=CAMVID_11
    )
    path = export_module(net, spec, tmp_path_factory.mktemp("net") / f"{name}.onnx")
    return plan_quantization(load_network(path), resolve_set(DRIVE, count=3))


def test_the_module_computes_what_the_file_does(prepared: QuantizationPlan) -> None:
    module, parameters = module_from_onnx(prepared.network.model)
    x = (
        np.random.default_rng(0)
        .normal(size=(2, 3, *prepared.network.spec.input_size))
        .astype(np.float32)
    )
    with torch.inference_mode():
        got = module(torch.from_numpy(x)).numpy()
    want = run_ort(prepared.network.model, x)
    assert np.quantile(np.abs(got - want), 0.99) <= 1e-4 * np.ptp(want)
    floats = {
        t.name
        for t in prepared.network.model.graph.initializer
        if t.data_type == TensorProto.FLOAT and t.dims
    }
    assert set(parameters) == floats  # all of them are trained


def test_a_rounding_net_learns_in_every_part(prepared: QuantizationPlan) -> None:
    module = Quantizer(prepared.network.model, prepared.placement()).module(prepared.ranges.amax)
    x = torch.randn(2, 3, *prepared.network.spec.input_size)
    with torch.autocast("cpu", torch.bfloat16):
        logits = module(x)
    logits.float().square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    assert sum(isinstance(m, WeightQuantizer) for m in module.modules()) == len(
        prepared.placement().layers
    )
    assert sum(isinstance(m, ActivationQuantizer) for m in module.modules()) == len(
        prepared.placement().sources
    )


def canonical(model: ModelProto) -> tuple[list[Any], Counter[int]]:
    """Return the graph without its names, then how scales are shared.

    The graph is operators, attributes, readers and constants. Tensors are numbered in the order in
    which they are computed; a constant is its type and shape. The counter holds how many scales
    serve one pair, how many two, ...
    """
    numbers = {value.name: place for place, value in enumerate(model.graph.input)}
    constants = {t.name: (t.data_type, tuple(t.dims)) for t in model.graph.initializer}

    users: Counter[str] = Counter()
    nodes = []
    for node in model.graph.node:
        inputs: list[Any] = []
        for name in node.input:
            if not name:
                inputs.append(None)
            else:
                inputs.append(numbers[name] if name in numbers else constants[name])
        attrs = sorted((a.name, str(helper.get_attribute_value(a))) for a in node.attribute)
        nodes.append((node.op_type, inputs, attrs))

        if node.op_type == "QuantizeLinear":
            users[node.input[1]] += 1
        for name in node.output:
            numbers[name] = len(numbers)
    return nodes, Counter(users.values())


def test_pairs_stand_where_post_training_quantization_puts_them(prepared: QuantizationPlan) -> None:
    ptq = prepared.quantized(prepared.placement()).model
    quantizer = Quantizer(prepared.network.model, prepared.placement())
    module = quantizer.module(prepared.ranges.amax)
    assert quantizer.to_onnx(module).graph == ptq.graph or _same_values(
        quantizer.to_onnx(module), ptq
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1 + 0.01 * torch.rand_like(parameter))
    assert canonical(quantizer.to_onnx(module)) == canonical(ptq)


def _same_values(one: ModelProto, other: ModelProto) -> bool:
    """Whether two files have the same constants: scales go through a logarithm and back."""
    pairs = zip(one.graph.initializer, other.graph.initializer, strict=True)
    return all(
        np.allclose(numpy_helper.to_array(a), numpy_helper.to_array(b), rtol=1e-6, atol=0)
        for a, b in pairs
    )


def test_what_cannot_be_trained_is_named() -> None:
    ends = [helper.make_tensor_value_info(name, 1, ["n", 3, 4, 4]) for name in ("x", "y")]
    for node, says in [
        (helper.make_node("Erf", ["x"], ["y"], "odd"), "Erf node 'odd'"),
        (
            helper.make_node("MaxPool", ["x"], ["y"], "p", kernel_shape=[3, 3], pads=[0, 0, 1, 1]),
            "both sides",
        ),
        (
            helper.make_node(
                "MaxPool", ["x"], ["y", "i"], "p", kernel_shape=[3, 3], strides=[2, 2]
            ),
            "2x2",
        ),
    ]:
        model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
        with pytest.raises(GraphError, match=says) as caught:
            module_from_onnx(model)
        assert "\n" not in str(caught.value)


# -- rounding --------------------------------------------------------------------------------


def one_pair(step: float) -> ModelProto:
    ends = [helper.make_tensor_value_info(name, 1, ["n"]) for name in ("x", "y")]
    constants = [
        numpy_helper.from_array(np.float32(step), "s"),
        numpy_helper.from_array(np.int8(0), "z"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "pair", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_rounding_is_onnx_runtimes() -> None:
    """Ties, both ends of the range and beyond, a step that no power of two is."""
    quantizer = ActivationQuantizer("t", 0.037, exact=False)
    step = float(quantizer.step().detach())
    halves = np.arange(-270, 271, dtype=np.float32) / 2 * np.float32(step)
    x = np.concatenate([halves, np.random.default_rng(0).normal(size=5000).astype(np.float32) * 3])
    got = quantizer(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_array_equal(got, run_ort(one_pair(step), x))
    with torch.autocast("cpu", torch.bfloat16):
        half = torch.from_numpy(x).bfloat16()
        out = quantizer(half)
    assert out.dtype == torch.float32
    np.testing.assert_array_equal(
        out.detach().numpy(), run_ort(one_pair(step), half.float().numpy())
    )


def test_the_step_learns_as_lsq_has_it() -> None:
    """Compare with the function written for autograd, rounding as identity (LSQ, eq. 2-3)."""
    torch.manual_seed(0)
    quantizer = ActivationQuantizer("t", 0.7, exact=False)
    x = (60 * torch.randn(2, 4, 9, 7)).requires_grad_()
    weight = torch.randn(2, 4, 9, 7)
    (quantizer(x) * weight).sum().backward()
    plain, log_step = (
        x.detach().clone().requires_grad_(),
        quantizer.log_step.detach().clone().requires_grad_(),
    )
    step = torch.exp2(log_step)
    clipped = (plain / step).clamp(-128, 127)
    (((clipped.round() - clipped).detach() + clipped) * step * weight).sum().backward()
    torch.testing.assert_close(x.grad, plain.grad)
    assert quantizer.log_step.grad is not None
    assert log_step.grad is not None
    assert float(quantizer.log_step.grad) == pytest.approx(
        float(log_step.grad) / (x.numel() * 127) ** 0.5, rel=1e-4
    )
    assert 0.01 < float((x.detach().abs() > 127 * step).float().mean()) < 0.5  # some were clipped


@pytest.mark.parametrize("step", [0.5, 0.7, 1.0, 2.0**-30])
def test_an_exact_step_is_the_next_power_of_two_and_learns_as_if_it_were_not_rounded_up(
    step: float,
) -> None:
    exact, at_it = (
        ActivationQuantizer("t", step),
        ActivationQuantizer("t", power_of_two(step), exact=False),
    )
    assert (
        float(exact.step().detach())
        == power_of_two(step)
        == pytest.approx(float(at_it.step().detach()), rel=1e-6)
    )
    x, weight = 60 * torch.randn(2, 4, 9, 7) * step, torch.randn(2, 4, 9, 7)
    for quantizer in (exact, at_it):
        (quantizer(x) * weight).sum().backward()
    assert exact.log_step.grad is not None
    assert at_it.log_step.grad is not None
    assert float(exact.log_step.grad) == pytest.approx(float(at_it.log_step.grad), rel=1e-3)
    assert float(exact.log_step.grad) != 0


@pytest.mark.parametrize("exact", [True, False])
def test_weights_are_rounded_as_they_are_written(exact: bool) -> None:
    weight = torch.randn(5, 3, 3, 3)
    weight[2] = 0
    quantizer = WeightQuantizer("w", weight, 0, exact)
    out = quantizer()
    steps, scale = quantize_weight(weight.numpy(), 0, exact=exact)
    np.testing.assert_array_equal(out.detach().numpy(), steps * scale.reshape(-1, 1, 1, 1))
    out.square().sum().backward()
    torch.testing.assert_close(quantizer.weight.grad, 2 * out.detach())


def test_distillation_is_least_where_the_scores_agree() -> None:
    torch.manual_seed(0)
    wanted = torch.randn(1, 5, 4, 4)
    assert float(soft_cross_entropy(wanted + 3.0, wanted)) == pytest.approx(0, abs=1e-6)
    worse = [
        float(soft_cross_entropy(wanted + d * torch.randn(1, 5, 4, 4), wanted)) for d in (0.1, 1.0)
    ]
    assert 0 < worse[0] < worse[1]


# -- a run -----------------------------------------------------------------------------------


class Run:
    """A checkpoint trained for seconds, fine-tuned for seconds; what was said, what came of it."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint = train(RECIPE, folder / "tiny", reporter=SILENT)
        self.lines: list[str] = []
        self.tuned: Tuned = tune(
            self.checkpoint, tuning=Tuning(epochs=2, distill=0.5), reporter=Heard(self.lines)
        )
        self.model = onnx.load(self.tuned.path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice
        return Run(tmp_path_factory.mktemp("qat"))


@pytest.mark.slow
def test_the_run_says_how_it_goes(run: Run) -> None:
    assert run.tuned.path == run.checkpoint.with_name("tiny.qat.onnx")
    assert run.lines[0].startswith(f"val mIoU {run.tuned.float_miou:.4f} in float")
    assert [line.split()[1] for line in run.lines[1:]] == ["6/12", "12/12"]
    after = [float(line.split("  mIoU ")[1].split()[0]) for line in run.lines[1:]]
    best = [run.tuned.calibrated_miou, *after]
    assert run.tuned.miou == pytest.approx(max(best), abs=1e-4)
    assert run.tuned.epoch == int(np.argmax(best))
    assert run.tuned.float_miou == pytest.approx(
        load_checkpoint(run.checkpoint)[2]["val_miou"], abs=1e-6
    )


@pytest.mark.slow
def test_the_file_is_what_it_should_be(run: Run) -> None:
    onnx.checker.check_model(run.model, full_check=True)
    facts = {p.key: p.value for p in run.model.metadata_props}
    assert ModelSpec.parse(facts[METADATA_KEY], "file") == load_checkpoint(run.checkpoint)[1]
    told = json.loads(facts["edgeseg.int8"])
    assert told["method"] == "qat"
    assert told["val_miou_float"] == run.tuned.float_miou
    assert float(facts["edgeseg.val_miou"]) == run.tuned.miou
    assert [o.version for o in run.model.opset_import if o.domain == ""] == [18]
    constants = {t.name: numpy_helper.to_array(t) for t in run.model.graph.initializer}
    kinds = Counter(node.op_type for node in run.model.graph.node)
    assert kinds["MaxUnpool"] == 2
    for node in run.model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert constants[node.input[2]].dtype == np.int8
            assert not constants[node.input[2]].any()
    assert run.tuned.layers == (86, 89)


@pytest.mark.slow
def test_pairs_stand_where_they_do_in_the_float_export(run: Run, tmp_path: Path) -> None:
    """Compare the file with post-training quantization of what ``edgeseg export`` writes."""
    network = load_network(export_checkpoint(run.checkpoint, tmp_path / "float.onnx"))
    prepared = plan_quantization(network, resolve_set(DRIVE, count=3))
    assert canonical(run.model) == canonical(prepared.quantized(prepared.placement()).model)


@pytest.mark.slow
def test_the_file_gives_the_labels_of_the_net(run: Run) -> None:
    assert run.tuned.same_labels >= 0.999


@pytest.mark.slow
def test_the_file_scores_what_the_run_says(run: Run) -> None:
    network: Network = load_network(run.tuned.path)
    matrix = np.zeros((11, 11), np.int64)
    for sample in iter_samples("val"):
        labels = (
            run_ort(network.model, to_input(sample.image, network.spec))
            .argmax(1)[0]
            .astype(np.uint8)
        )
        matrix += confusion_matrix(sample.mask, labels, 11, CAMVID_11.ignore_id)
    assert scores(CAMVID_11.names, matrix).mean_iou == pytest.approx(run.tuned.miou, abs=2e-3)


@pytest.mark.slow
def test_the_file_builds_as_it_is(run: Run, tmp_path: Path) -> None:
    engine = load_engine(
        build_engine(run.tuned.path, precision="int8", out=tmp_path / "tiny.engine")
    )
    assert engine.passport.precision == "int8"
    assert engine.passport.int8.int8_layers == run.tuned.layers[0]
    assert evaluate(engine, open_dataset(DRIVE, "val")).mean_iou == pytest.approx(
        run.tuned.miou, abs=0.01
    )


def iter_samples(split: str) -> Any:
    data = open_dataset(DRIVE, split)
    return (data[i] for i in range(len(data)))


# -- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notes", "tuning", "out", "says"),
    [
        ({}, Tuning(), None, "no recipe"),
        ({"recipe": "{}"}, Tuning(), None, "cannot be read"),
        ({"recipe": RECIPE.model_dump_json()}, Tuning(distill=-1), None, "distillation"),
        ({"recipe": RECIPE.model_dump_json()}, Tuning(lr=-1), None, r"optim\.lr"),
        ({"recipe": RECIPE.model_dump_json()}, Tuning(batch=100), None, "fewer frames"),
        ({"recipe": RECIPE.model_dump_json()}, Tuning(), "net.pt", "not the name of an ONNX file"),
        ({"recipe": RECIPE.model_dump_json()}, Tuning(data="nowhere"), None, "READER:PATH"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    tmp_path: Path, notes: dict[str, Any], tuning: Tuning, out: str | None, says: str
) -> None:
    spec = ModelSpec(architecture="enet", input_size=(64, 96), stride=8, labels=CAMVID_11)
    path = save_checkpoint(tmp_path / "best.pt", create("enet", 11), spec, notes)
    with pytest.raises(EdgesegError, match=says) as caught:
        tune(path, tmp_path / out if out else None, tuning)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


def test_labels_of_another_kind_are_refused(tmp_path: Path) -> None:
    spec = ModelSpec(architecture="enet", input_size=(64, 96), stride=8, labels=VOC_21)
    notes = {"recipe": RECIPE.model_dump_json()}
    path = save_checkpoint(tmp_path / "best.pt", create("enet", 21), spec, notes)
    with pytest.raises(EdgesegError, match="21"):
        tune(path)


def test_the_command_fails_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgeseg", "qat", str(tmp_path / "absent.pt")]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == InputError.exit_code
    assert done.stderr.count("\n") == 1
    assert "no such checkpoint" in done.stderr
