"""Choose the form of a net's graph for the CPU: the fastest one that labels as the ONNX file does.

One net has several equal graphs: how the argmax is found, how values are unpooled, whether INT8 activations are signed,
and what the float parts of an INT8 net are computed in. Which one is fast, and which one OpenVINO computes rightly,
depends on the processor. So forms are tried: timed in turns, and compared with the file (``edgeseg.runtime.proof``).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import onnx

from edgeseg.errors import EdgesegError
from edgeseg.export.deploy import deploy
from edgeseg.export.float_rounding import quantized_readers, round_in_float
from edgeseg.export.network import Network
from edgeseg.export.unpool.extension import is_extension
from edgeseg.extension import build as extension
from edgeseg.quantize.fold import name_nodes
from edgeseg.runtime import cpu
from edgeseg.runtime.proof import Reference, Verdict, failed, judge, least_agreement
from edgeseg.runtime.target import AUTO, INT8, NATIVE, PLUGIN

SEARCH, COMPARE = "search", "compare"  # ways to find the argmax
SIGNED, UNSIGNED = "signed", "unsigned"  # INT8 activations

SAME_IN_BF16 = 0.999  # of the labels, surely: else the float parts of an INT8 net are computed in FP32
MAX_REPAIRS = 6  # layers computed in float because their INT8 is wrong; more are not one wrong kernel
SPREAD_AGREEMENT = 0.98  # what is accepted where differences come from everywhere, and from no layer

Say = Callable[[str], None]


@dataclass(frozen=True)
class Form:
    """One of the equal graphs of a net.

    Attributes
    ----------
    argmax : ``search`` or ``compare``.
    unpool : ``native`` or ``extension``.
    activations : ``signed`` or ``unsigned``, of an INT8 net.
    floats : the precision of what is not INT8, ``fp32`` or ``bf16``.
    rounded : nodes that are computed in float, rounded as the file rounds.
    """

    argmax: str = SEARCH
    unpool: str = NATIVE
    activations: str = SIGNED
    floats: str = "fp32"
    rounded: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, str]:
        """Return the form in words, for the passport."""
        told = {"argmax": self.argmax, "unpool": self.unpool, "floats": self.floats, "activations": self.activations}
        return told | ({"rounded_in_float": ", ".join(self.rounded)} if self.rounded else {})


@dataclass(frozen=True)
class Chosen:
    """A compiled form, the milliseconds of the forms it was chosen from, and the proof where there was one."""

    form: Form
    compiled: "cpu.Compiled"
    times: dict[str, float]
    verdict: Verdict | None = None


def graph_of(network: Network, form: Form, *, scores: bool = False) -> onnx.ModelProto:
    """Return the graph of ``network`` in ``form``: labels out, or ``scores``."""
    if form.rounded:
        network = replace(network, model=round_in_float(network.model, form.rounded))
    return deploy(
        network,
        scores=scores,
        compare=form.argmax == COMPARE,
        plugin=form.unpool == cpu.EXTENSION,
        unsigned=form.activations == UNSIGNED,
    )


def default_form(precision: str) -> Form:
    """Return a form that is right on this processor as far as its small probes tell."""
    if precision in cpu.FLOATS:
        return Form(floats=precision)
    return Form(activations=SIGNED if cpu.signed_int8_is_exact() else UNSIGNED, floats=cpu.best_precision())


def compile_form(network: Network, form: Form, precision: str, *, scores: bool = False) -> "cpu.Compiled":
    """Compile one form. Raises ``GraphError`` where OpenVINO cannot."""
    return cpu.Compiled(graph_of(network, form, scores=scores), network.name, cpu.settings(precision, form.floats))


def choose(
    network: Network, precision: str, unpool: str = AUTO, known: Reference | None = None, say: Say = lambda _: None
) -> Chosen:
    """Compile a net in the fastest form that labels as its file does.

    Parameters
    ----------
    network : a float net or a Q/DQ net.
    precision : ``fp32``, ``bf16``, or an INT8 one.
    unpool : ``auto``, ``native`` or ``plugin``, as ``PlanOptions`` has it.
    known : what the file gives for a few frames; without it nothing is proven.
    say : is told what is found on the way.

    Raises
    ------
    CheckFailedError : no form labels as the file does. GraphError : OpenVINO cannot compile the net.
    """
    if precision in cpu.FLOATS:
        chosen = _fastest(network, default_form(precision), precision, unpool, say)
        return _proven(network, precision, chosen, known, say)
    return _choose_int8(network, precision, unpool, known, say)


def _choose_int8(network: Network, precision: str, unpool: str, known: Reference | None, say: Say) -> Chosen:
    network = named(network)
    first = default_form(precision)
    if known is None:
        # Nothing tells whether BF16 would change labels.
        return _fastest(network, replace(first, floats="fp32"), precision, unpool, say)
    least = least_agreement(network)

    if first.floats != "fp32":
        chosen = _fastest(network, first, precision, unpool, say)
        verdict = judge(known, chosen.compiled, INT8, least)
        if verdict.passed and verdict.is_surely(SAME_IN_BF16):
            return replace(chosen, verdict=verdict)

    form = replace(first, floats="fp32")
    chosen = _fastest(network, form, precision, unpool, say)
    verdict = judge(known, chosen.compiled, INT8, least)
    if verdict.passed:
        return replace(chosen, verdict=verdict)
    return _repaired(network, precision, unpool, known, replace(chosen, verdict=verdict), say)


def _repaired(network: Network, precision: str, unpool: str, known: Reference, wrong: Chosen, say: Say) -> Chosen:
    """Find a form that is right where the first is not: other activations, or some layers in float."""
    least = least_agreement(network)
    assert wrong.verdict is not None
    runtimes = f"OpenVINO {cpu.library_version()}, {known.runtime}"
    say(f"the engine gives {100 * wrong.verdict.agreement:.2f} % of the file's labels: looking for the wrong layers")

    other = replace(wrong.form, activations=UNSIGNED if wrong.form.activations == SIGNED else SIGNED)
    for form in (wrong.form, other):
        layers = wrong_layers(network, form, precision, known, least)
        if layers is None:
            continue
        chosen = _fastest(network, replace(form, argmax=SEARCH, rounded=layers), precision, unpool, say)
        verdict = judge(known, chosen.compiled, INT8, least)
        if verdict.passed:
            if layers:
                say(
                    f"computed in float, rounded as the file rounds: {', '.join(layers)}; "
                    f"their INT8 gives other values than the file ({runtimes})"
                )
            return replace(chosen, verdict=verdict)

    if wrong.verdict.agreement >= SPREAD_AGREEMENT and known.lost_class(wrong.compiled) is None:
        say(
            f"warning: {100 * (1 - wrong.verdict.agreement):.2f} % of the labels are not the file's, by rounding in "
            f"many layers; no class is lost ({runtimes})"
        )
        return wrong
    raise failed(network.name, precision, wrong.verdict, runtimes.split(", "))


def _proven(network: Network, precision: str, chosen: Chosen, known: Reference | None, say: Say) -> Chosen:
    """Prove a float engine."""
    if known is None:
        return chosen
    verdict = judge(known, chosen.compiled, precision)
    if not verdict.passed:
        raise failed(network.name, precision, verdict, [f"OpenVINO {cpu.library_version()}", known.runtime])
    return replace(chosen, verdict=verdict)


def wrong_layers(
    network: Network, form: Form, precision: str, known: Reference, least: float
) -> tuple[str, ...] | None:
    """Find the nodes whose INT8 is wrong in ``form``, by bisection.

    Parameters
    ----------
    network : a Q/DQ net whose nodes have names.
    form : the form to repair.
    known, least : what the file gives, and the share of labels that must be equal.

    Returns
    -------
    Node names in graph order, with which in float the labels are the file's; empty if ``form`` is right already.
    ``None`` if that does not help, or takes more than ``MAX_REPAIRS`` nodes.
    """
    names = quantized_readers(network.model)
    plain = replace(form, argmax=SEARCH, unpool=NATIVE)

    def is_right(rounded: Iterable[str]) -> bool:
        wanted = set(rounded)
        tried = replace(plain, rounded=tuple(n for n in names if n in wanted))
        return judge(known, compile_form(network, tried, precision), INT8, least).passed

    found: list[str] = []
    if is_right(found):
        return ()
    if not is_right(names):
        return None

    high = len(names)  # with the first ``high`` nodes in float, and those found, the labels are right
    while len(found) < MAX_REPAIRS:
        low = 0
        while high - low > 1:
            middle = (low + high) // 2
            if is_right([*names[:middle], *found]):
                high = middle
            else:
                low = middle
        found.append(names[high - 1])
        if is_right(found):
            return tuple(n for n in names if n in found)
        high -= 1
    return None


def named(network: Network) -> Network:
    """Return a copy of ``network`` in which every node has a name of its own."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    name_nodes(model)
    return replace(network, model=model)


# -- the fastest of several forms --------------------------------------------------------------------------------------


def _fastest(network: Network, form: Form, precision: str, unpool: str, say: Say) -> Chosen:
    """Compile the fastest form of argmax, then of unpooling; what else ``form`` says stays."""
    forms = {SEARCH: form}
    if network.form != "labels":
        forms[COMPARE] = replace(form, argmax=COMPARE)
    compiled = {name: compile_form(network, one, precision) for name, one in forms.items()}
    times = cpu.trial(compiled) if len(compiled) > 1 else {}
    best = min(times, key=lambda name: times[name]) if times else SEARCH
    form, chosen = forms[best], compiled[best]

    if _unpools_by_extension(network, unpool, say):
        by_extension = replace(form, unpool=cpu.EXTENSION)
        ways = {NATIVE: chosen, cpu.EXTENSION: compile_form(network, by_extension, precision)}
        latency = cpu.trial(ways)
        times |= {f"unpool_{way}": milliseconds for way, milliseconds in latency.items()}
        if unpool == PLUGIN or latency[cpu.EXTENSION] < latency[NATIVE]:
            form, chosen = by_extension, ways[cpu.EXTENSION]
    return Chosen(form, chosen, times)


def _unpools_by_extension(network: Network, unpool: str, say: Say) -> bool:
    """Return whether the net has something to unpool that the extension can, and the extension is here.

    ``say`` is told why not. Raises ``EngineError`` where it is not here and ``unpool`` asks for it.
    """
    if unpool == NATIVE or not any(is_extension(node) for node in deploy(network, plugin=True).graph.node):
        return False
    try:
        if not extension.why_not() and not extension.library_path().is_file():
            say("building the CPU extension, once: seconds")
        extension.load()
    except EdgesegError as error:
        if unpool == PLUGIN:
            raise
        say(f"unpooling by standard operators: {error}")
        return False
    return True


def facts(chosen: Chosen) -> dict[str, Any]:
    """Return the form and its times, for the passport."""
    return chosen.form.to_dict() | {f"latency_ms_{key}": f"{value:.3f}" for key, value in chosen.times.items()}
