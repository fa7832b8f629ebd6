"""Every net of the registry, all the way: a step of training, ONNX, engines in FP32 and INT8, QAT,
TensorRT.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import processors
import pytest

from edgeseg.reporter import SILENT

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from onnx_tools import assert_builds  # noqa: E402
from registry_nets import odd_onnx, odd_size  # noqa: E402
from torch import nn  # noqa: E402

from edgeseg.backends.load import load_engine  # noqa: E402
from edgeseg.backends.proof import reference  # noqa: E402
from edgeseg.backends.tensorrt.graphs import graph_for  # noqa: E402
from edgeseg.build.engine_from_onnx import build_engine  # noqa: E402
from edgeseg.build.options import Quantization  # noqa: E402
from edgeseg.data import open_dataset  # noqa: E402
from edgeseg.errors import InputError  # noqa: E402
from edgeseg.export.onnx_from_torch import export_module  # noqa: E402
from edgeseg.graph.network import Overrides, load_network  # noqa: E402
from edgeseg.imaging.preprocess import to_input  # noqa: E402
from edgeseg.models import REGISTRY, create  # noqa: E402
from edgeseg.quantize.calibration_set import resolve_set  # noqa: E402
from edgeseg.quantize.ptq import plan_quantization  # noqa: E402
from edgeseg.spec import CAMVID_11, ModelSpec  # noqa: E402
from edgeseg.training.qat.fake_quant import Quantizer  # noqa: E402
from edgeseg.training.segmenter import enlarged  # noqa: E402

pytestmark = pytest.mark.slow

SIZE = (64, 96)
DRIVE = "synthetic://?length=8&size=96x64&seed=1"
STEPS = 6


@dataclass(frozen=True)
class Case:
    """A net trained for a moment, its ONNX file, frames, and the losses on the way."""

    name: str
    net: nn.Module
    spec: ModelSpec
    path: Path
    frames: list[np.ndarray]
    losses: list[float]

    def labels(self, frame: np.ndarray) -> np.ndarray:
        """PyTorch's."""
        with torch.inference_mode():
            logits = self.net(torch.from_numpy(to_input(frame, self.spec)))
        return np.asarray(enlarged(logits, SIZE).argmax(1)[0])


@pytest.fixture(scope="module", params=list(REGISTRY))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name = request.param
    torch.manual_seed(0)
    net = create(name, 11).train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5  # six steps: statistics of the last few
    spec = ModelSpec(
        architecture=name, input_size=SIZE, stride=REGISTRY[name].stride, labels=CAMVID_11
    )
    data = open_dataset(DRIVE, "train")
    frames = [data[i].image for i in range(len(data))]
    x = torch.from_numpy(np.concatenate([to_input(f, spec) for f in frames[:2]]))
    y = torch.from_numpy(np.stack([data[i].mask for i in range(2)])).long()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        outputs = net(x)
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        loss = F.cross_entropy(enlarged(logits, y.shape[1:]), y, ignore_index=11)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    path = export_module(net, spec, tmp_path_factory.mktemp("net") / f"{name}.onnx")
    return Case(name, net.eval(), spec, path, frames, losses)


def test_training_lowers_the_loss(case: Case) -> None:
    assert case.losses[-1] < 0.97 * case.losses[0]


def test_onnx_runtime_gives_pytorchs_numbers(case: Case) -> None:
    onnx.checker.check_model(onnx.load(case.path), full_check=True)
    x = np.concatenate([to_input(f, case.spec) for f in case.frames[:3]])
    (got,) = onnxruntime.InferenceSession(str(case.path), providers=["CPUExecutionProvider"]).run(
        None, {"image": x}
    )
    with torch.inference_mode():
        want = case.net(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, want, atol=2e-4 * np.ptp(want))


@pytest.mark.parametrize("name", list(REGISTRY))
def test_an_odd_size_is_exported_as_well(name: str) -> None:
    """The export checks itself against PyTorch.

    A file of one size says so when it is asked for another.
    """
    path = odd_onnx(name)
    assert load_network(path).spec.input_size == odd_size(name)
    if name == "segnet":  # asks every map for its size when it runs
        assert load_network(path, Overrides(size=(91, 140))).spec.input_size == (91, 140)
        return
    with pytest.raises(InputError, match=r"75x61|multiples of 8"):
        load_network(path, Overrides(size=(91, 140)))


def test_the_fp32_engine_gives_pytorchs_labels(case: Case, tmp_path: Path) -> None:
    engine = load_engine(build_engine(case.path, precision="fp32", out=tmp_path / "e.engine"))
    same = [float((engine(f) == case.labels(f)).mean()) for f in case.frames]
    assert np.mean(same) >= 0.9995


def test_int8_is_what_was_quantized(case: Case, tmp_path: Path, tensorrt_rtx: ModuleType) -> None:
    """The engine against the float net; the module that is fine-tuned against the engine.

    TensorRT takes the file.
    """
    frames = resolve_set(DRIVE, count=4)
    made = build_engine(
        case.path,
        precision="int8",
        calib=frames,
        out=tmp_path / "e.engine",
        quantization=Quantization(least_agreement=0, save_onnx=tmp_path / "q.onnx"),
    )
    engine = load_engine(made)
    known = reference(load_network(tmp_path / "q.onnx"), case.frames)
    assert known is not None
    assert known.agreement(engine) >= 0.999, (processors.name(), engine.passport.openvino)
    assert not engine.passport.openvino.rounded_in_float
    if "amx_int8" in processors.host_features() and not processors.why_not(processors.WITHOUT_AMX):
        (found,) = processors.same_labels(
            processors.WITHOUT_AMX, [tmp_path / "q.onnx"], case.frames, tmp_path
        )
        assert found["same"] >= 0.999, processors.WITHOUT_AMX
        assert not found["repaired"]
    assert (engine.passport.int8.int8_layers or 0) >= 5
    prepared = plan_quantization(load_network(case.path), frames)
    quantizer = Quantizer(prepared.network.model, prepared.placement())
    module = quantizer.module(prepared.ranges.amax)
    quantizer.take_biases(module, quantizer.to_onnx(module))
    agree, trained = [], []
    for frame in case.frames[::2]:
        got = engine(frame)
        with torch.inference_mode():
            rounded = module(torch.from_numpy(to_input(frame, case.spec)))
        agree.append(float((got == case.labels(frame)).mean()))
        trained.append(float((enlarged(rounded, SIZE).argmax(1)[0].numpy() == got).mean()))
    # ENet gives next to nothing after six steps: its scores all but tie.
    assert np.mean(agree) >= (0.7 if case.name == "enet" else 0.93)
    # R2U-Net's layers are applied several times: the file has a bias for each step size, the module
    # has one.
    assert np.mean(trained) >= (0.95 if case.name == "r2unet" else 0.99)
    for source, precision in (
        (case.path, "fp32"),
        (case.path, "fp16"),
        (tmp_path / "q.onnx", "int8"),
    ):
        graph, _ = graph_for(load_network(source), precision, case.frames[:2], SILENT)
        # TensorRT-RTX has no FP32 matrix product for Turing, and PSPNet's pyramid is one.
        assert_builds(tensorrt_rtx, graph, turing=(case.name, precision) != ("pspnet", "fp32"))
