"""Small nets and engines made once a run, and where the real data is."""

import os

from paths import SHARED

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Several processes at a time, each on cores of its own: most libraries here take every core
    # they see, and threads that wait for each other then take turns spinning. Before anything is
    # imported that asks how many there are.
    _cores = sorted(os.sched_getaffinity(0))
    _share = max(1, len(_cores) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    _first = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) * _share % len(_cores)
    os.sched_setaffinity(0, _cores[_first : _first + _share])
    os.environ.setdefault("OMP_NUM_THREADS", str(_share))

import contextlib
import gc
import importlib
import shutil
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

import once
import pytest
from paths import TESTS

os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
os.environ.setdefault(
    "EDGESEG_TARGET", "cpu"
)  # what the tests are about where they name no target, GPU or not
# The same for all, whether they have a compiler or not; tests/backends/openvino/test_extension.py
# switches it on.
os.environ.setdefault("EDGESEG_CPU_EXTENSION", "0")


# Files that take longest, first: several processes then end at about the same time (with
# --no-loadscope-reorder).
LONGEST = (
    "integration/test_every_net",
    "integration/test_lowered_graphs",
    "integration/test_without_amx",
    "training/test_features",
    "zoo/test_zoo",
    "export/test_onnx_from_torch",
    "training/qat/test_fine_tune",
    "training/test_fit",
    "backends/tensorrt/test_backend",
    "integration/test_int8_patterns",
    "backends/test_proof",
    "build/test_int8",
    "integration/test_golden_ranges",
    "integration/test_int8_runtimes",
    "jetson/test_jetson",
    "cli/test_main",
    "serving/test_servers",
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of `once.made_once`; the processes that this one starts inherit its name."""
    if once.FOLDER in os.environ:
        return

    folder = tempfile.mkdtemp(prefix="edgeseg-tests-")
    os.environ[once.FOLDER] = folder

    def remove() -> None:
        del os.environ[once.FOLDER]
        shutil.rmtree(folder, ignore_errors=True)

    config.add_cleanup(remove)


def pytest_report_header() -> str:
    import processors

    return f"INT8 on {processors.name()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: index for index, name in enumerate(LONGEST)}

    def rank(item: pytest.Item) -> int:
        if not item.path.is_relative_to(TESTS):
            return len(place)  # a doctest of the package
        return place.get(str(item.path.relative_to(TESTS).with_suffix("")), len(place))

    items.sort(key=rank)


def pytest_collection_finish() -> None:
    """Leave the many objects of imported libraries out of every later garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _private_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("net") / "small.onnx"
    shutil.copy(once.made_once("small.onnx", _export_small), path)
    return path


def _export_small(path: Path) -> None:
    import torch

    from edgeseg.export.onnx_from_torch import export_module
    from edgeseg.models import create
    from edgeseg.spec import CAMVID_11, ModelSpec

    torch.manual_seed(0)
    net = create("enet", 11)
    with warnings.catch_warnings(), torch.no_grad():
        net.train()
        net(torch.randn(4, 3, 64, 96))
    spec = ModelSpec(architecture="enet", input_size=(64, 96), stride=8, labels=CAMVID_11)
    export_module(net, spec, path)


@pytest.fixture(scope="session")
def fragile_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net at 48x64 that plain INT8 breaks in one layer (`support/fragile_net.py`)."""
    from fragile_net import save_fragile_net

    return save_fragile_net(tmp_path_factory.mktemp("net") / "fragile.onnx")


@pytest.fixture(scope="session")
def tensorrt_rtx() -> ModuleType:
    """TensorRT-RTX's builder: it needs no GPU.

    Its two base wheels alone are imported under another name.
    """
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    pytest.skip(
        "TensorRT-RTX's wheels are not installed (tensorrt-rtx-cu13-libs, "
        "tensorrt-rtx-cu13-bindings)"
    )
