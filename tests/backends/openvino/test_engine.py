"""The OpenVINO engine: its file, what it can do, and its end."""

import numpy as np
import pytest
from onnx_tools import make, node

from edgeseg.backends.openvino import forms
from edgeseg.backends.openvino.compiled import settings
from edgeseg.backends.openvino.engine import OpenVinoEngine, pack, unpack
from edgeseg.capabilities import LOGITS
from edgeseg.errors import EngineError
from edgeseg.facts import OpenVinoFacts
from edgeseg.graph.network import Network
from edgeseg.passport import Passport
from edgeseg.spec import ModelSpec, generic_space

SIZE = (8, 12)
CLASSES = 3


def network(*, gives_labels: bool = False) -> Network:
    """A network of one 1x1 convolution; its logits, or its label map, are the output."""
    weight = np.random.default_rng(0).normal(size=(CLASSES, 3, 1, 1)).astype(np.float32)
    nodes = [node("Conv", "image weight", "logits")]
    if gives_labels:
        nodes.append(node("ArgMax", "logits", "out", axis=1, keepdims=0))
    model = make(
        nodes, {"image": [1, 3, *SIZE]}, "out" if gives_labels else "logits", weight=weight
    )
    spec = ModelSpec(architecture="test", input_size=SIZE, labels=generic_space(CLASSES))
    output, form = ("out", "labels") if gives_labels else ("logits", "nchw")
    return Network("net", model, spec, "", (), "image", output, form, False)


def opened(given: Network) -> OpenVinoEngine:
    form = forms.default_form("fp32")
    labels = forms.compile_form(given, form, "fp32").blob()
    logits = (
        None
        if given.form == "labels"
        else forms.compile_form(given, form, "fp32", logits=True).blob()
    )
    passport = Passport(
        name=given.name,
        target="cpu",
        precision="fp32",
        spec=given.spec,
        onnx_sha256="",
        engine_sha256="",
        edgeseg="0",
        library="openvino",
        library_version="0",
        device="here",
        facts=OpenVinoFacts(config=settings("fp32")),
        build_seconds=0,
        built_at="",
    )
    return OpenVinoEngine(passport, pack(labels, logits))


def frame() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)


def test_an_engine_with_logits() -> None:
    with opened(network()) as engine:
        assert engine.capabilities == {LOGITS}
        logits = engine.logits(frame())
        assert (logits.shape, logits.dtype) == ((CLASSES, *SIZE), np.dtype(np.float32))
        np.testing.assert_array_equal(engine(frame()), logits.argmax(0))


def test_an_engine_without_logits() -> None:
    engine = opened(network(gives_labels=True))
    assert engine.capabilities == frozenset()
    np.testing.assert_array_equal(engine(frame()), opened(network())(frame()))
    with pytest.raises(EngineError, match="net: this net gives a label map, no scores"):
        engine.logits(frame())


@pytest.mark.parametrize("used", [False, True])
def test_a_closed_engine_holds_nothing_and_refuses_calls(used: bool) -> None:
    engine = opened(network())
    if used:
        engine.logits(frame())
    engine.close()
    engine.close()
    held = vars(engine)
    assert held["_labels_request"] is None
    assert held["_logits_blob"] is None
    assert "_logits_request" not in held
    for call in (engine, engine.logits):
        with pytest.raises(EngineError, match="net: the engine is closed"):
            call(frame())


def test_the_file_keeps_both_blobs() -> None:
    for labels, logits in (
        (b"labels", b"labels and logits"),
        (b"longer than", b"short"),
        (b"x", None),
    ):
        found, found_logits = unpack(pack(labels, logits), "net")
        assert found == labels
        assert (None if found_logits is None else found_logits()) == logits


def test_a_blob_of_another_length_than_the_file_states_is_refused() -> None:
    data = bytearray(pack(b"labels", b"logits"))
    data[len(b"edgeseg cpu engine 1\n") + 8] += 1  # the length of the logits' blob, low byte
    _, logits = unpack(bytes(data), "net")
    assert logits is not None
    with pytest.raises(
        EngineError, match=r"net: the engine file is damaged: got .* 6 bytes .*expected 7 bytes"
    ):
        logits()


@pytest.mark.parametrize(
    "data", [b"", b"edgeseg cpu engine 1\n", b"something else, and long enough for a head"]
)
def test_what_is_no_engine_file_is_refused(data: bytes) -> None:
    with pytest.raises(
        EngineError, match=r"net: not an edgeseg engine for the cpu target\. Build it"
    ):
        unpack(data, "net")


def test_a_blob_that_openvino_does_not_open_is_told() -> None:
    passport = opened(network()).passport
    with pytest.raises(
        EngineError, match=r"net: OpenVINO cannot open the engine: got .*Build it again"
    ):
        OpenVinoEngine(passport, pack(b"no blob", None))
