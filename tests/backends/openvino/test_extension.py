"""The OpenVINO extension: what it computes, against the reference; when it is built and used."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import edgeseg
from lowered import deploy
from onnx import TensorProto, helper
from onnx_tools import kinds
from reporting import Heard

from edgeseg.backends.base import PlanOptions
from edgeseg.backends.load import load_engine
from edgeseg.backends.openvino import backend, runtime
from edgeseg.backends.openvino.extension import build as extension
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.build.options import Quantization
from edgeseg.errors import EngineError, GraphError, InputError, MissingDependencyError
from edgeseg.graph.network import load_network
from edgeseg.graph.passes.unpool.extension import POOL, UNPOOL
from edgeseg.graph.passes.unpool.plugin import (
    DOMAIN,
    EXTRA,
    VERSION,
    pool_code_reference,
    unpool_reference,
)
from edgeseg.passport import Passport
from edgeseg.reporter import SILENT

SET = "synthetic://?length=4&size=96x64&seed=1"


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(extension.SWITCH, "1")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, in this process."""
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # the fixtures of a module come before those of a test
        patch.setenv("EDGESEG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv(extension.SWITCH, "1")
        if missing := extension.why_not():
            pytest.skip(missing)
        return extension.load()


@pytest.fixture(scope="module")
def int8_onnx(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ENet at 64x96 in INT8: two poolings with positions, two unpoolings."""
    folder = tmp_path_factory.mktemp("int8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESEG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        quantized = folder / "small.int8.onnx"
        build_engine(
            small_onnx,
            precision="int8",
            calib=SET,
            out=folder / "n.engine",
            quantization=Quantization(least_agreement=0, save_onnx=quantized),
        )
    return quantized


def built(path: Path, folder: Path, unpool: str, heard: list[str] | None = None) -> Path:
    reporter = SILENT if heard is None else Heard(heard)
    return build_engine(
        path, out=folder / f"{unpool}.engine", plan=PlanOptions(unpool=unpool), reporter=reporter
    )


# -- what it computes ------------------------------------------------------------------------------


def run(
    kind: str, outputs: int, attributes: dict[str, int], *inputs: np.ndarray
) -> list[np.ndarray]:
    """One operator on channels-last INT8 tensors."""
    names = [f"x{place}" for place in range(len(inputs))]
    made = helper.make_node(kind, names, [f"y{place}" for place in range(outputs)], domain=DOMAIN)
    made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    ends = [
        helper.make_tensor_value_info(n, TensorProto.INT8, x.shape)
        for n, x in zip(names, inputs, strict=True)
    ]
    results = [
        helper.make_tensor_value_info(name, TensorProto.INT8, [None] * 4) for name in made.output
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(
        helper.make_graph([made], "g", ends, results), opset_imports=opsets, ir_version=9
    )
    core = runtime.core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU")
    found = compiled(list(inputs))
    return [np.array(found[place]) for place in range(outputs)]


SIZES = [
    (1, 2, 2, 1),
    (2, 1, 4, 3),
    (1, 4, 1, 3),
    (1, 8, 6, 3),
    (2, 7, 9, 16),
    (3, 12, 5, 17),
    (1, 5, 4, 64),
    (1, 3, 3, 130),
    (2, 64, 96, 64),
]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", SIZES, ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("few", [True, False], ids=["ties", "all values"])
def test_pooling_and_unpooling_are_the_references(shape: tuple[int, ...], few: bool) -> None:
    draw = np.random.default_rng(sum(shape))
    x = draw.integers(*((-1, 2) if few else (-128, 128)), shape).astype(np.int8)
    value, code = run(POOL, 2, {}, x)
    planes = pool_code_reference(x.transpose(0, 3, 1, 2))
    for got, want in zip((value, code), planes, strict=True):
        np.testing.assert_array_equal(got, want.transpose(0, 2, 3, 1))
    extra = (shape[1] % 2, shape[2] % 2)
    other = draw.integers(-128, 128, value.shape).astype(np.int8)
    (got,) = run(UNPOOL, 1, dict(zip(EXTRA, extra, strict=True)), other, code)
    want = unpool_reference(other.transpose(0, 3, 1, 2), planes[1], *extra).transpose(0, 2, 3, 1)
    assert got.shape == shape
    np.testing.assert_array_equal(got, want)


def test_the_library_is_tried_before_it_is_used(library: Path) -> None:
    extension.try_out(str(library))


@pytest.mark.usefixtures("library")
def test_a_code_for_every_value_is_asked_for() -> None:
    value, code = np.zeros((1, 4, 4, 8), np.int8), np.zeros((1, 4, 2, 8), np.int8)
    with pytest.raises(RuntimeError, match="a code for every value"):
        run(UNPOOL, 1, dict.fromkeys(EXTRA, 0), value, code)


# -- in a net --------------------------------------------------------------------------------------


def test_int8_tensors_are_unpooled_by_it_and_float_ones_are_not(
    small_onnx: Path, int8_onnx: Path
) -> None:
    floats, rounded = (deploy(load_network(path), plugin=True) for path in (small_onnx, int8_onnx))
    assert not {POOL, UNPOOL} & kinds(floats).keys()
    assert (kinds(rounded)[POOL], kinds(rounded)[UNPOOL]) == (2, 2)
    shapes = onnx.shape_inference.infer_shapes(rounded, strict_mode=True)
    assert {v.name for v in shapes.graph.value_info} >= {
        n.output[0] for n in rounded.graph.node if n.op_type == UNPOOL
    }


@pytest.mark.usefixtures("library")
def test_engines_label_alike_with_it_and_without(int8_onnx: Path, tmp_path: Path) -> None:
    ways = {"native": "native", "plugin": "extension"}
    opened = {way: load_engine(built(int8_onnx, tmp_path, way)) for way in ways}
    for way, engine in opened.items():
        assert engine.passport.openvino.unpool == ways[way]
    # Each took the argmax that was faster here. Behind one of the two, the last layers are computed
    # in BF16.
    alike = len({engine.passport.openvino.argmax for engine in opened.values()}) == 1
    for seed in range(3):
        frame = np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8)
        scores = [engine.logits(frame) for engine in opened.values()]
        np.testing.assert_array_equal(scores[0], scores[1])
        native, own = (engine(frame) for engine in opened.values())
        assert np.mean(native == own) >= (1 if alike else 0.97)
        assert len(np.unique(native)) > 2


@pytest.mark.usefixtures("library")
def test_the_faster_way_is_taken_and_told(int8_onnx: Path, tmp_path: Path) -> None:
    facts = Passport.read(built(int8_onnx, tmp_path, "auto")).openvino
    native, own = (facts.latency_ms[f"unpool_{way}"] for way in ("native", "extension"))
    assert facts.unpool == ("extension" if own < native else "native")


@pytest.mark.usefixtures("library")
def test_another_process_opens_the_engine(int8_onnx: Path, tmp_path: Path) -> None:
    engine = built(int8_onnx, tmp_path, "plugin")
    code = (
        f"import numpy, edgeseg; engine = edgeseg.load_engine({str(engine)!r}); "
        "print(engine(numpy.zeros((9, 9, 3), numpy.uint8)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(9, 9)"


# -- where it cannot be had ------------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A cache of its own, and nothing loaded that the code knows of."""
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "cache"))
    extension.load.cache_clear()
    return monkeypatch


def without_compiler(patch: pytest.MonkeyPatch) -> str:
    patch.delenv("CXX", raising=False)
    patch.setenv("PATH", "/nowhere")
    return "no C.. compiler"


def with_a_wrong_name(patch: pytest.MonkeyPatch) -> str:
    patch.setenv("CXX", "no-such-compiler -O3")
    return "CXX is no program: no-such-compiler -O3"


def switched_off(patch: pytest.MonkeyPatch) -> str:
    patch.setenv(extension.SWITCH, "0")
    return f"{extension.SWITCH} is off"


def with_a_broken_compiler(patch: pytest.MonkeyPatch) -> str:
    patch.setenv("CXX", "false")
    return "compiling the CPU extension failed"


@pytest.mark.skipif(sys.platform != "linux", reason="the extension is built on Linux")
@pytest.mark.parametrize(
    "lacks", [without_compiler, with_a_wrong_name, switched_off, with_a_broken_compiler]
)
def test_without_it_standard_operators_unpool_and_the_reason_is_said(
    fresh: pytest.MonkeyPatch, int8_onnx: Path, tmp_path: Path, lacks: object
) -> None:
    reason = lacks(fresh)  # type: ignore[operator]
    heard: list[str] = []
    assert Passport.read(built(int8_onnx, tmp_path, "auto", heard)).openvino.unpool == "native"
    assert [
        line
        for line in heard
        if "unpooling by standard operators" in line and re.search(reason, line)
    ], heard
    with pytest.raises((MissingDependencyError, EngineError), match=reason):
        built(int8_onnx, tmp_path, "plugin")
    assert not (tmp_path / "plugin.engine").exists()
    assert not list((tmp_path / "cache").rglob("*.so"))


@pytest.mark.skipif(sys.platform != "linux", reason="the extension is built on Linux")
def test_a_compiler_that_failed_is_not_tried_again(fresh: pytest.MonkeyPatch) -> None:
    with_a_broken_compiler(fresh)
    before = backend.OpenVinoBackend().fingerprint()
    with pytest.raises(EngineError, match="compiling the CPU extension failed"):
        extension.library()
    assert "compiling the CPU extension failed" in extension.why_not()
    assert (
        backend.OpenVinoBackend().fingerprint() != before
    )  # an engine without it is not taken for one with it
    fresh.setenv("CXX", "true")
    assert extension.why_not() == ""


@pytest.mark.usefixtures("library")
def test_a_damaged_library_is_made_again(fresh: pytest.MonkeyPatch) -> None:
    extension.library_path().parent.mkdir(parents=True)
    extension.library_path().write_bytes(b"cut off")
    assert extension.load().stat().st_size > 10_000


def test_a_compiler_may_have_arguments(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("CXX", f"{sys.executable} -m 'a b'")
    assert extension.find_compiler() == (sys.executable, "-m", "a b")


@pytest.mark.usefixtures("library")
def test_an_engine_that_needs_it_says_so_where_it_is_not(
    fresh: pytest.MonkeyPatch, int8_onnx: Path, tmp_path: Path
) -> None:
    engine = built(int8_onnx, tmp_path, "plugin")
    extension.library_path().unlink()
    extension.load.cache_clear()
    reason = without_compiler(fresh)
    with pytest.raises(EngineError, match=f"CPU extension.*{reason}.*, unpool=native") as caught:
        load_engine(engine)
    assert "\n" not in str(caught.value)


def test_a_wrong_way_to_unpool_is_refused(int8_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"does not support `unpool=sideways`: expected auto or native or plugin"
    ):
        built(int8_onnx, tmp_path, "sideways")
    done = edgeseg("build-engine", int8_onnx, "--unpool", "native", "-o", tmp_path / "c.engine")
    assert done.returncode == 0, done.stderr
    assert Passport.read(tmp_path / "c.engine").openvino.unpool == "native"


def test_a_graph_with_it_is_refused_by_an_openvino_that_lacks_it(int8_onnx: Path) -> None:
    """In a process that has not loaded it: one line that names the operators, as for any other."""
    code = (
        "import sys; from pathlib import Path\n"
        "from edgeseg.graph.lowering import LoweringOptions, lower; from edgeseg.graph.network "
        "import load_network\n"
        "from edgeseg.backends.openvino.compiled import Compiled, settings\n"
        f"graph = lower(load_network(Path({str(int8_onnx)!r})), "
        "LoweringOptions(plugin=True)).model\n"
        "Compiled(graph, 'net', settings('int8'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}
    )
    assert GraphError.__name__ in done.stderr
    assert POOL in done.stderr.splitlines()[-1]
