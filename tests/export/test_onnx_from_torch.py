"""A checkpoint to ONNX: the standard's operators, the spec inside, the same numbers as PyTorch."""

import re
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from commands import edgeseg
from onnx import numpy_helper

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgeseg.backends.load import load_engine  # noqa: E402
from edgeseg.backends.openvino import runtime  # noqa: E402
from edgeseg.build.engine_from_onnx import build_engine  # noqa: E402
from edgeseg.cli import app  # noqa: E402
from edgeseg.errors import GraphError, InputError  # noqa: E402
from edgeseg.export.onnx_from_torch import check_against, export_checkpoint, export_module  # noqa: E402
from edgeseg.graph.network import load_network  # noqa: E402
from edgeseg.imaging.preprocess import to_input  # noqa: E402
from edgeseg.models import architecture, create  # noqa: E402
from edgeseg.models.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from edgeseg.spec import CAMVID_11, METADATA_KEY, ModelSpec  # noqa: E402

CASES = [("enet", (64, 96), 2), ("segnet", (75, 61), 5)]


def settled(name: str, size: tuple[int, int]) -> nn.Module:
    torch.manual_seed(1)
    net = create(name, 11).train()
    with torch.no_grad():
        net(torch.randn(2, 3, *size))
    return net.eval()


@pytest.fixture(scope="module", params=CASES, ids=lambda c: c[0])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[nn.Module, Path, int]:
    name, size, pools = request.param
    net = settled(name, size)
    spec = ModelSpec(
        architecture=name, input_size=size, stride=architecture(name).stride, labels=CAMVID_11
    )
    return net, export_module(net, spec, tmp_path_factory.mktemp("x") / f"{name}.onnx"), pools


def test_file_is_standard_onnx(exported: tuple[nn.Module, Path, int]) -> None:
    _, path, pools = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    kinds = Counter(n.op_type for n in model.graph.node)
    assert kinds["MaxUnpool"] == pools
    assert sum(n.op_type == "MaxPool" and len(n.output) == 2 for n in model.graph.node) == pools
    assert not set(kinds) & {"ScatterElements", "ScatterND", "GatherND", "Dropout"}
    assert {n.domain for n in model.graph.node} == {""}
    assert any(p.key == METADATA_KEY for p in model.metadata_props)
    network = load_network(path)
    assert network.assumed == ()
    assert network.spec.labels == CAMVID_11


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_runtime_gives_pytorchs_numbers(
    exported: tuple[nn.Module, Path, int], batch: int
) -> None:
    net, path, _ = exported
    size = load_network(path).spec.input_size
    x = np.random.default_rng(batch).normal(size=(batch, 3, *size)).astype(np.float32)
    (got,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
        None, {"image": x}
    )
    with torch.inference_mode():
        want = net(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, want, atol=1e-4 * np.ptp(want))


def test_engine_gives_pytorchs_labels(
    exported: tuple[nn.Module, Path, int], tmp_path: Path
) -> None:
    net, path, _ = exported
    engine = load_engine(build_engine(path, precision="fp32", out=tmp_path / "e.engine"))
    image = np.random.default_rng(0).integers(0, 256, (*engine.spec.input_size, 3), np.uint8)
    with torch.inference_mode():
        want = net(torch.from_numpy(to_input(image, engine.spec))).numpy()[0]
    np.testing.assert_allclose(engine.logits(image), want, atol=1e-3 * np.ptp(want))
    assert (engine(image) == want.argmax(0)).mean() >= 0.9995
    if "BF16" in runtime.device().features:
        half = load_engine(build_engine(path, precision="bf16", out=tmp_path / "h.engine"))
        assert np.abs(half.logits(image) - want).mean() < 0.02 * np.ptp(want)


def test_a_net_that_changed_on_the_way_is_noticed(exported: tuple[nn.Module, Path, int]) -> None:
    net, path, _ = exported
    other = settled(load_network(path).spec.architecture, (64, 64))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    with pytest.raises(GraphError, match="disagree"):
        check_against(other, onnx.load(path), load_network(path).spec)
    assert check_against(net, onnx.load(path), load_network(path).spec) < 1e-4


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    net = settled("enet", (64, 96))
    spec = ModelSpec(architecture="enet", input_size=(64, 96), stride=8, labels=CAMVID_11)
    path = save_checkpoint(
        tmp_path / "run" / "best.pt", net, spec, {"val_miou": 0.5, "recipe": "{}"}
    )
    again, spec_again, notes = load_checkpoint(path)
    assert spec_again == spec
    assert notes["val_miou"] == 0.5
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), net(x))
    onnx_path = export_checkpoint(path)
    assert onnx_path == tmp_path / "run" / "run.onnx"
    assert any(p.key == "edgeseg.val_miou" for p in onnx.load(onnx_path).metadata_props)


@pytest.mark.parametrize("fault", ["missing", "text", "other", "weights"])
def test_bad_checkpoints_are_said(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "best.pt"
    if fault == "text":
        path.write_text("no checkpoint")
    elif fault == "other":
        torch.save({"a": 1}, path)
    elif fault == "weights":
        spec = ModelSpec(architecture="enet", input_size=(64, 96), labels=CAMVID_11)
        save_checkpoint(path, torch.nn.Linear(2, 2), spec, {})
    with (
        warnings.catch_warnings(),
        pytest.raises(InputError, match=r"checkpoint|weights do not fit"),
    ):
        load_checkpoint(path)


# -- nets that are not edgeseg's -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "factory", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]
)
def test_torchvisions_own_nets_are_exported(factory: str, tmp_path: Path) -> None:
    """With weights of a file, without their auxiliary heads.

    The engine labels as the module does.
    """
    import torchvision

    torch.manual_seed(0)
    arguments = {"weights": None, "weights_backbone": None, "num_classes": 21}
    net = getattr(torchvision.models.segmentation, factory)(**arguments).eval()
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "w.pth"
    )
    words: list[str] = []
    for key, value in arguments.items():
        words += ["--arg", f"{key}={value}"]
    done = edgeseg(
        "export",
        f"torchvision.models.segmentation:{factory}",
        "--size",
        "96x128",
        "--labels",
        "voc-21",
        *words,
        "--weights",
        tmp_path / "w.pth",
        "-o",
        tmp_path / "n.onnx",
    )
    assert done.returncode == 0, done.stderr
    network = load_network(tmp_path / "n.onnx")
    assert (network.spec.labels.name, network.spec.input_size, network.assumed) == (
        "voc-21",
        (96, 128),
        (),
    )
    engine = load_engine(
        build_engine(tmp_path / "n.onnx", precision="fp32", out=tmp_path / "e.engine")
    )
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    with torch.inference_mode():
        want = net(torch.from_numpy(to_input(image, engine.spec)))["out"][0].argmax(0).numpy()
    assert (engine(image) == want).mean() >= 0.999


def test_a_module_beside_the_user_is_found(tmp_path: Path) -> None:
    """By the installed program too, which does not look into the current folder by itself."""
    program = Path(sys.executable).with_name("edgeseg")
    if not program.is_file():
        pytest.skip("edgeseg is not installed as a program")
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\ndef net(classes):\n    return nn.Conv2d(3, classes, 3, padding=1)\n"
    )
    command = [
        str(program),
        "export",
        "my_nets:net",
        "--arg",
        "classes=5",
        "--size",
        "32x48",
        "-o",
        "n.onnx",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(load_network(tmp_path / "n.onnx").spec.labels) == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.at.all:net", "--size", "64x64"], "no such Python module"),
        (["torchvision.models.segmentation:nothing", "--size", "64x64"], "has no nothing"),
        (["torchvision.models:resnet18", "--size", "64x64"], "gives no scores a class and pixel"),
        (
            ["torch.nn:Linear", "--arg", "in_features=3", "--size", "64x64"],
            "does not take these arguments",
        ),
        (["collections:OrderedDict", "--size", "64x64"], "makes no torch.nn.Module"),
        (["torch.nn:Conv2d", "--arg", "nonsense", "--size", "64x64"], "not an argument"),
        (["torch.nn:Identity"], "needs an input size"),
        (
            ["torch.nn:ReLU", "--labels", "voc-21", "--size", "64x64"],
            "classes are not those of voc-21",
        ),
        (["torch.nn:ReLU", "--weights", "absent.pth", "--size", "64x64"], "no such weight file"),
        (["absent.pt"], "no such checkpoint"),
    ],
)
def test_what_is_no_net_is_said(arguments: list[str], says: str, tmp_path: Path) -> None:
    from edgeseg.errors import EdgesegError

    with pytest.raises(EdgesegError, match=re.escape(says)):
        app([*["export"], *arguments, "-o", str(tmp_path / "n.onnx")], standalone_mode=False)
    assert not (tmp_path / "n.onnx").exists()


def test_a_checkpoint_at_another_size(tmp_path: Path) -> None:
    net = settled("enet", (64, 96))
    spec = ModelSpec(architecture="enet", input_size=(64, 96), stride=8, labels=CAMVID_11)
    save_checkpoint(tmp_path / "best.pt", net, spec, {"recipe": "{}"})
    assert load_network(export_checkpoint(tmp_path / "best.pt", size=(72, 40))).spec.input_size == (
        72,
        40,
    )
    with pytest.raises(InputError, match=r"divisible by 8: got \[70, 40\], expected \[72, 40\]"):
        export_checkpoint(tmp_path / "best.pt", size=(70, 40))
    half = load_network(
        export_checkpoint(tmp_path / "best.pt", tmp_path / "h.onnx", half=True)
    ).model
    again = export_checkpoint(tmp_path / "best.pt", tmp_path / "again.pt", (72, 40), half=True)
    assert again.stat().st_size < 0.75 * (tmp_path / "best.pt").stat().st_size
    slim, its_spec, _ = load_checkpoint(again)
    assert its_spec.input_size == (72, 40)
    for mine, theirs in zip(slim.state_dict().values(), net.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    matrices = [numpy_helper.to_array(t) for t in half.graph.initializer if len(t.dims) > 1]
    assert len(matrices) > 50
    assert all(np.array_equal(m, m.astype(np.float16)) for m in matrices)
    with pytest.raises(InputError, match="has its spec inside"):
        app(["export", str(tmp_path / "best.pt"), "--scale", "1"], standalone_mode=False)
