"""Small nets and engines made once a run, and where the real data is."""

import os

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Several processes at a time, each on cores of its own: most libraries here take every core they see, and threads
    # that wait for each other then take turns spinning. Before anything is imported that asks how many there are.
    _cores = sorted(os.sched_getaffinity(0))
    _share = max(1, len(_cores) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    _first = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) * _share % len(_cores)
    os.sched_setaffinity(0, _cores[_first : _first + _share])
    os.environ.setdefault("OMP_NUM_THREADS", str(_share))

import contextlib
import importlib
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
os.environ.setdefault("EDGESEG_TARGET", "cpu")  # what the tests are about where they name no target, GPU or not
# The same for all, whether they have a compiler or not; tests/test_extension.py switches it on.
os.environ.setdefault("EDGESEG_CPU_EXTENSION", "0")

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("EDGESEG_SHARED", ROOT.parent / "shared"))


# Files that take longest, first: several processes then end at about the same time (with --no-loadscope-reorder).
LONGEST = (
    "test_every_net", "test_without_amx", "test_training_features", "test_zoo", "test_export", "test_qat",
    "test_training", "test_tensorrt", "test_int8_patterns", "test_proof", "test_int8_build", "test_golden_ranges",
    "test_int8_runtimes", "test_jetson", "test_cli", "test_interchange",
)  # fmt: skip


def pytest_report_header() -> str:
    import processors

    return f"INT8 on {processors.name()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines built on the fly by a test belong to the test run, not to the user's cache."""
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def camvid_root() -> Path:
    root = SHARED / "data" / "camvid"
    if not (root / "val").is_dir():
        pytest.skip("CamVid is not here (EDGESEG_SHARED/data/camvid)")
    return root


@pytest.fixture(scope="session")
def clip() -> Path:
    path = SHARED / "data" / "clips" / "camseq01_480x360_15fps.mp4"
    if not path.is_file():
        pytest.skip("the driving clip is not here (EDGESEG_SHARED/data/clips)")
    return path


@pytest.fixture(scope="session")
def small_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ENet with random weights at 64x96, exported by edgeseg."""
    torch = pytest.importorskip("torch")
    from edgeseg.export.to_onnx import export_module
    from edgeseg.models import create
    from edgeseg.spec import CAMVID_11, ModelSpec

    torch.manual_seed(0)
    net = create("enet", 11)
    with warnings.catch_warnings(), torch.no_grad():
        net.train()
        net(torch.randn(4, 3, 64, 96))
    spec = ModelSpec(architecture="enet", input_size=(64, 96), stride=8, labels=CAMVID_11)
    return export_module(net, spec, tmp_path_factory.mktemp("net") / "small.onnx")


FRAGILE_DRIVE = "synthetic://?length=30&size=64x48&seed=3"  # what fragile_onnx was made for: labels, and its size
_FRAGILE_LAYERS = {"stem": (3, 12, 3), "fragile": (12, 12, 3), "body": (12, 12, 3), "tail": (12, 12, 3)}


@pytest.fixture(scope="session")
def fragile_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net at 48x64 that plain INT8 breaks in one layer, ``fragile``: its input has a channel 100 times the others.

    That channel alone decides the step, and the eleven that the layer reads fall into a step or two. Five layers: stem,
    fragile, body, tail and scores (which stays in float), and ``sum`` of what the second and third give. The last is
    solved for on the synthetic drive, so that there is mIoU to lose. On ``FRAGILE_DRIVE``, plain INT8 changes 20 % of
    the labels and costs 6 of 15 points; with ``fragile`` in float 1 % and nothing.
    """
    rng = np.random.default_rng(0)
    weights: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, (channels, out, side) in _FRAGILE_LAYERS.items():
        scale = np.sqrt(2 / (channels * side * side))
        weights[name] = (scale * rng.standard_normal((out, channels, side, side)), 0.1 * rng.standard_normal(out))
    weights["stem"][0][0] = 100 * np.abs(weights["stem"][0][1])
    weights["stem"][1][0] = 100
    weights["fragile"][0][:, 0] = 0
    weights["scores"] = (np.zeros((11, 12, 1, 1)), np.zeros(11))
    weights["scores"] = _solved(_fragile_model(weights, "tail_relu"))
    path = tmp_path_factory.mktemp("net") / "fragile.onnx"
    onnx.save(_fragile_model(weights, "logits"), path)
    return path


def _fragile_model(weights: dict[str, tuple[np.ndarray, np.ndarray]], output: str) -> onnx.ModelProto:
    from edgeseg.spec import CAMVID_11, METADATA_KEY, ModelSpec

    def layer(name: str, x: str, out: str) -> onnx.NodeProto:
        side = weights[name][0].shape[-1]
        sizes = {"kernel_shape": [side] * 2, "pads": [side // 2] * 4}
        return helper.make_node("Conv", [x, f"{name}.weight", f"{name}.bias"], [out], name, **sizes)

    nodes = []
    for name, x in (("stem", "image"), ("fragile", "stem_relu"), ("body", "fragile_relu"), ("tail", "added")):
        nodes += [layer(name, x, f"{name}_out"), helper.make_node("Relu", [f"{name}_out"], [f"{name}_relu"])]
    nodes.insert(6, helper.make_node("Add", ["fragile_relu", "body_relu"], ["added"], "sum"))
    nodes.append(layer("scores", "tail_relu", "logits"))
    tensors = [
        numpy_helper.from_array(value.astype(np.float32), f"{name}.{kind}")
        for name, pair in weights.items()
        for kind, value in zip(("weight", "bias"), pair, strict=True)
    ]
    shape = [1, weights["scores" if output == "logits" else "tail"][0].shape[0], 48, 64]
    ends = [helper.make_tensor_value_info(n, 1, s) for n, s in (("image", [1, 3, 48, 64]), (output, shape))]
    graph = helper.make_graph(nodes, "fragile", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    spec = ModelSpec(architecture="fragile", input_size=(48, 64), labels=CAMVID_11)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    return model


def _solved(trunk: onnx.ModelProto) -> tuple[np.ndarray, np.ndarray]:
    """Weights (11, C, 1, 1) and bias (11,) of the last layer: least squares from the trunk's output to the classes."""
    import onnxruntime

    from edgeseg.data import open_dataset
    from edgeseg.preprocess import to_input
    from edgeseg.spec import METADATA_KEY, ModelSpec

    spec = ModelSpec.parse(next(p.value for p in trunk.metadata_props if p.key == METADATA_KEY), "fragile")
    session = onnxruntime.InferenceSession(trunk.SerializeToString(), providers=["CPUExecutionProvider"])
    data = open_dataset(FRAGILE_DRIVE, "train")
    features, truth = [], []
    for index in range(0, len(data), 5):
        maps = session.run(None, {"image": to_input(data[index].image, spec)})[0][0]
        features.append(maps.reshape(len(maps), -1).T.astype(np.float64))
        truth.append(data[index].mask.ravel())
    x, y = np.concatenate(features), np.concatenate(truth)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)[y < 11]
    solution = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ np.eye(11)[y[y < 11]])
    return solution[:-1].T[:, :, None, None], solution[-1]


@pytest.fixture(scope="session")
def tensorrt_rtx() -> ModuleType:
    """TensorRT-RTX's builder: it needs no GPU. Its two base wheels alone are imported under another name."""
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    pytest.skip("TensorRT-RTX's wheels are not installed (tensorrt-rtx-cu13-libs, tensorrt-rtx-cu13-bindings)")
