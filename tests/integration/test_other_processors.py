"""INT8 where OpenVINO computes it otherwise: what libraries choose on other processors, by hiding
instruction sets.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import processors
import pytest
from lowered import deploy
from reporting import Heard

from edgeseg.backends.load import load_engine
from edgeseg.backends.openvino import probes
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.build.options import Quantization
from edgeseg.doctor import examine
from edgeseg.errors import EngineError
from edgeseg.graph.network import load_network
from edgeseg.passport import Passport

WITH_VNNI = ("avx2-vnni", "avx512-vnni", "avx512-bf16")
SET = "synthetic://?length=4&size=96x64&seed=1"
PROBE = """
from edgeseg.backends.openvino import probes, runtime
print(probes.int8_is_exact(), *runtime.device().features)
"""
LABEL = """
import json, sys, numpy, edgeseg
engine = edgeseg.load_engine(edgeseg.build_engine(sys.argv[1], precision="int8", out=sys.argv[2]))
frames = numpy.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), numpy.uint8)
numpy.save(sys.argv[3], numpy.stack([engine(frame) for frame in frames]))
print(engine.passport.openvino.model_dump_json())
"""


@pytest.mark.parametrize(
    ("processor", "exact"),
    [("avx2", False), ("avx512", False), *((kind, True) for kind in WITH_VNNI)],
)
def test_where_int8_saturates(processor: str, exact: bool) -> None:
    told, *features = processors.run_on(processor, PROBE).split()
    assert ("BF16" in features) == (processor == "avx512-bf16")
    assert "INT8" in features  # whatever OpenVINO says of itself
    assert told == str(exact)


@pytest.fixture(scope="module")
def quantized(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized")
    build_engine(
        small_onnx,
        precision="int8",
        calib=SET,
        out=folder / "e.engine",
        quantization=Quantization(least_agreement=0, save_onnx=folder / "q.onnx"),
    )
    return folder / "q.onnx"


@pytest.mark.parametrize(
    ("processor", "exact"), [("avx2", False), ("avx512", False), *((k, True) for k in WITH_VNNI)]
)
def test_the_labels_are_the_files_on_every_processor(
    processor: str, exact: bool, quantized: Path, tmp_path: Path
) -> None:
    """Engines built on each kind of processor against the file in ONNX Runtime, which has no such
    kinds.
    """
    out = tmp_path / "labels.npy"
    passport = json.loads(
        processors.run_on(processor, LABEL, quantized, tmp_path / "n.engine", out)
    )
    assert ("LP_TRANSFORMS_MODE" in passport["config"]) == (not exact)
    if exact:
        assert passport["activations"] == "unsigned"
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), np.uint8)
    session = onnxruntime.InferenceSession(
        deploy(load_network(quantized), for_openvino=False).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    want = [session.run(None, {"frame": frame[None]})[0][0] for frame in frames]
    assert np.mean(np.load(out) == np.stack(want)) >= 0.999


# -- what is said, wherever this runs --------------------------------------------------------------


@pytest.fixture
def saturating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "int8_is_exact", lambda: False)


@pytest.mark.usefixtures("saturating")
def test_it_is_said_and_float_is_left_alone(
    quantized: Path, small_onnx: Path, tmp_path: Path
) -> None:
    heard: list[str] = []
    passport = Passport.read(
        build_engine(quantized, precision="int8", out=tmp_path / "a.engine", reporter=Heard(heard))
    )
    assert passport.openvino.config["LP_TRANSFORMS_MODE"] == "NO"
    assert any("INT8 is not exact on this processor (no VNNI)" in line for line in heard)
    heard.clear()
    passport = Passport.read(
        build_engine(small_onnx, precision="fp32", out=tmp_path / "b.engine", reporter=Heard(heard))
    )
    assert "LP_TRANSFORMS_MODE" not in passport.openvino.config
    assert not heard
    assert any("no VNNI: INT8 models are computed in float" in row.found for row in examine())


def test_an_engine_for_bytes_is_refused_without_vnni(
    quantized: Path, small_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not probes.int8_is_exact():
        pytest.skip("this processor has no VNNI")
    engines = {
        "int8": build_engine(quantized, precision="int8", out=tmp_path / "a.engine"),
        "fp32": build_engine(small_onnx, precision="fp32", out=tmp_path / "b.engine"),
    }
    frame = np.zeros((64, 96, 3), np.uint8)
    for path in engines.values():
        load_engine(path)(frame)
    monkeypatch.setattr(probes, "int8_is_exact", lambda: False)
    load_engine(engines["fp32"])(frame)
    with pytest.raises(EngineError, match=r"this processor lacks VNNI.*Build it again"):
        load_engine(engines["int8"])


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (None, "amx_int8 avx512_bf16 avx512_fp16 avx512_vnni avx512bw avx_vnni avx2"),
        ("avx512-bf16", "avx512_bf16 avx512_vnni avx512bw avx2"),
        ("avx512-vnni", "avx512_vnni avx512bw avx2"),
        ("avx512", "avx512bw avx2"),
        ("avx2-vnni", "avx_vnni avx2"),
        ("avx2", "avx2"),
    ],
)
def test_hidden_features_are_not_the_hosts(kind: str | None, kept: str) -> None:
    """A whole run on another processor must not think that it has what is hidden from it."""
    everything = frozenset(
        ["amx_int8", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx512bw", "avx_vnni", "avx2"]
    )
    assert processors.without_hidden(everything, kind) == frozenset(kept.split())


def test_compilers_run_beside_a_hidden_processor() -> None:
    """Compilers have a handler of their own for the fault that hides instruction sets."""
    code = (
        "import subprocess; print(subprocess.run(['gcc', '-x', 'c', '-E', '/dev/null']).returncode)"
    )
    assert processors.run_on(processors.WITHOUT_AMX, code).splitlines()[-1] == "0"
