"""Small nets and engines made once a run, and where the real data is."""

import contextlib
import importlib
import os
import warnings
from pathlib import Path
from types import ModuleType

import pytest

os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("EDGESEG_SHARED", ROOT.parent / "shared"))


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


@pytest.fixture(scope="session")
def tensorrt_rtx() -> ModuleType:
    """TensorRT-RTX's builder: it needs no GPU. Its two base wheels alone are imported under another name."""
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    pytest.skip("TensorRT-RTX's wheels are not installed (tensorrt-rtx-cu13-libs, tensorrt-rtx-cu13-bindings)")
