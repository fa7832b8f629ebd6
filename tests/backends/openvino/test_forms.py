"""The forms of a graph on the CPU: equal labels, the fastest form, the search for wrong layers."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from lowered import deploy
from onnx_tools import kinds, make, node, run_ort

from edgeseg.backends.base import NATIVE
from edgeseg.backends.openvino import forms, probes, runtime
from edgeseg.backends.openvino.forms import COMPARE, SEARCH, SIGNED, UNSIGNED, Form
from edgeseg.backends.proof import Reference
from edgeseg.errors import CheckFailedError
from edgeseg.graph.network import Network
from edgeseg.spec import ModelSpec, generic_space

SIZE = (16, 24)
CLASSES = 4


def network(seed: int = 0) -> Network:
    weight = np.random.default_rng(seed).normal(size=(CLASSES, 3, 3, 3)).astype(np.float32)
    conv = node("Conv", "image weight", "out", "head", pads=[1, 1, 1, 1])
    model = make([conv], {"image": [1, 3, *SIZE]}, "out", weight=weight)
    spec = ModelSpec(architecture="test", input_size=SIZE, labels=generic_space(CLASSES))
    return Network("net", model, spec, "", (), "image", "out", "nchw", False)


def frames(count: int = 2) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(1)
    return tuple(rng.integers(0, 256, (*SIZE, 3), np.uint8) for _ in range(count))


def labels_by_ort(given: Network, frame: np.ndarray) -> np.ndarray:
    return np.asarray(run_ort(deploy(given, for_openvino=False), frame=frame[None])[0][0])


def reference(given: Network) -> Reference:
    """What ONNX Runtime finds."""
    labels = tuple(labels_by_ort(given, frame) for frame in frames())
    return Reference(frames(), labels, (), "ONNX Runtime")


# -- one form --------------------------------------------------------------------------------------


def test_the_passport_says_which_form_it_is() -> None:
    compiled: Any = None
    form = Form(argmax=COMPARE, activations=UNSIGNED, rounded=("a", "b"))
    facts = forms.facts(forms.Chosen(form, compiled, {"compare": 1.23456}), {"NUM_STREAMS": "1"})
    assert (facts.argmax, facts.unpool, facts.activations, facts.floats) == (
        "compare",
        "native",
        "unsigned",
        "fp32",
    )
    assert facts.rounded_in_float == ("a", "b")
    assert (facts.latency_ms, facts.config) == ({"compare": 1.235}, {"NUM_STREAMS": "1"})


@pytest.mark.parametrize(("is_exact", "activations"), [(True, SIGNED), (False, UNSIGNED)])
def test_the_default_form_is_what_the_processor_computes(
    monkeypatch: pytest.MonkeyPatch, is_exact: bool, activations: str
) -> None:
    monkeypatch.setattr(probes, "signed_int8_is_exact", lambda: is_exact)
    monkeypatch.setattr(runtime, "best_precision", lambda: "bf16")
    assert forms.default_form("int8") == Form(activations=activations, floats="bf16")
    assert forms.default_form("bf16") == Form(floats="bf16")
    assert forms.default_form("fp32") == Form()


def test_graphs_of_a_form() -> None:
    search = forms.graph_of(network(), Form())
    compare = forms.graph_of(network(), Form(argmax=COMPARE))
    scores = forms.graph_of(network(), Form(), logits=True)
    for model in (search, compare, scores):
        onnx.checker.check_model(model, full_check=True)
    assert [graph.graph.output[0].name for graph in (search, compare, scores)] == [
        "labels",
        "labels",
        "scores",
    ]
    assert kinds(search) != kinds(compare)
    for frame in frames():
        (found,) = run_ort(scores, frame=frame[None])
        np.testing.assert_array_equal(found[0].argmax(-1), labels_by_ort(network(), frame))


@pytest.mark.parametrize("argmax", [SEARCH, COMPARE])
def test_every_form_gives_the_files_labels(argmax: str) -> None:
    compiled = forms.compile_form(network(), Form(argmax=argmax), "fp32")
    for frame in frames():
        np.testing.assert_array_equal(compiled(frame), labels_by_ort(network(), frame))


# -- the fastest form ------------------------------------------------------------------------------


@pytest.mark.parametrize("faster", [SEARCH, COMPARE])
def test_the_faster_form_is_chosen(monkeypatch: pytest.MonkeyPatch, faster: str) -> None:
    def trial(compiled: dict[str, Any]) -> dict[str, float]:
        return {name: 1.0 if name == faster else 2.0 for name in compiled}

    monkeypatch.setattr(forms, "trial", trial)
    chosen = forms.choose(network(), "fp32")
    assert (chosen.form, chosen.verdict) == (Form(argmax=faster), None)
    assert chosen.times == {
        SEARCH: 1.0 if faster == SEARCH else 2.0,
        COMPARE: 1.0 if faster == COMPARE else 2.0,
    }


def test_a_form_that_is_right_is_proven() -> None:
    chosen = forms.choose(network(), "fp32", NATIVE, reference(network()))
    assert chosen.verdict is not None
    assert chosen.verdict.passed
    assert chosen.verdict.agreement == 1


def test_a_form_that_is_wrong_is_refused() -> None:
    with pytest.raises(CheckFailedError, match=r"net.* % of the labels equal"):
        forms.choose(network(), "fp32", NATIVE, reference(network(seed=9)))


# -- names, and the search for wrong layers --------------------------------------------------------


def test_nodes_get_names_of_their_own() -> None:
    given = network()
    assert forms.named(given) is given
    twice = make(
        [
            node("Relu", "image", "a", "same"),
            node("Neg", "a", "b", "same"),
            node("Abs", "b", "out", ""),
        ],
        {"image": [1, 3, *SIZE]},
        "out",
    )
    before = twice.SerializeToString()
    names = [one.name for one in forms.named(replace(given, model=twice)).model.graph.node]
    assert len(set(names)) == 3
    assert all(names)
    assert twice.SerializeToString() == before


NODES = [f"n{place}" for place in range(9)]


@pytest.mark.parametrize(
    "wrong",
    [(), ("n0",), ("n8",), ("n3", "n4"), ("n0", "n5", "n8"), tuple(NODES[: forms.MAX_REPAIRS])],
    ids=str,
)
def test_the_wrong_layers_are_found(
    monkeypatch: pytest.MonkeyPatch, wrong: tuple[str, ...]
) -> None:
    compiled = forms_that_are_wrong(monkeypatch, wrong)
    assert (
        forms.wrong_layers(network(), Form(argmax=COMPARE), "int8", reference(network()), 0.99)
        == wrong
    )
    assert all(form.argmax == SEARCH for form in compiled)
    assert len(compiled) <= 2 + len(wrong) * 6  # bisection, not one by one


@pytest.mark.parametrize("wrong", [tuple(NODES[: forms.MAX_REPAIRS + 1]), ("not a node",)])
def test_too_many_wrong_layers_are_no_answer(
    monkeypatch: pytest.MonkeyPatch, wrong: tuple[str, ...]
) -> None:
    forms_that_are_wrong(monkeypatch, wrong)
    assert forms.wrong_layers(network(), Form(), "int8", reference(network()), 0.99) is None


def test_any_two_wrong_layers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in itertools.combinations(NODES, 2):
        forms_that_are_wrong(monkeypatch, wrong)
        assert forms.wrong_layers(network(), Form(), "int8", reference(network()), 0.99) == wrong


def forms_that_are_wrong(monkeypatch: pytest.MonkeyPatch, wrong: Sequence[str]) -> list[Form]:
    """Labels are right if all of ``wrong`` are in float; return the list of compiled forms."""
    compiled: list[Form] = []

    def compile_form(given: Network, form: Form, precision: str) -> Form:
        compiled.append(form)
        return form

    def judge(known: Reference, form: Form, precision: str, least: float) -> Any:
        return SimpleNamespace(passed=set(wrong) <= set(form.rounded))

    monkeypatch.setattr(forms, "quantized_readers", lambda model: NODES)
    monkeypatch.setattr(forms, "compile_form", compile_form)
    monkeypatch.setattr(forms, "judge", judge)
    return compiled
