"""Choose the form of a graph for the CPU: the fastest one that labels as the ONNX file does.

One network has several equal graphs, called forms. They differ in how the argmax is found, how
values are unpooled, whether INT8 activations are signed, and in the precision of the float parts of
an INT8 network. The processor decides which form is fast and which one OpenVINO computes correctly.
So this module compiles several forms, times them in turns, and compares them with the ONNX file
(``edgeseg.backends.proof``).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import onnx

from edgeseg.backends.base import AUTO, NATIVE, PLUGIN
from edgeseg.backends.openvino import probes, runtime
from edgeseg.backends.openvino.compiled import Compiled, settings, trial
from edgeseg.backends.openvino.extension import build as extension
from edgeseg.backends.proof import Reference, Verdict, failed, judge, least_agreement
from edgeseg.errors import EdgesegError
from edgeseg.facts import OpenVinoFacts
from edgeseg.graph.lowering import LoweringOptions, lower
from edgeseg.graph.network import Network
from edgeseg.graph.nodes import copied
from edgeseg.graph.passes.float_rounding import quantized_readers, round_in_float
from edgeseg.graph.passes.fold_batchnorm import name_nodes
from edgeseg.precision import INT8
from edgeseg.reporter import SILENT, Reporter

SEARCH, COMPARE = "search", "compare"  # ways to find the argmax
EXTENSION = "extension"  # the way to unpool that `unpool=plugin` means on this target
SIGNED, UNSIGNED = "signed", "unsigned"  # INT8 activations

# The float parts of an INT8 network run in BF16 only if surely this share of labels stays the same.
SAME_IN_BF16 = 0.999
# At most this many layers are computed in float because their INT8 is wrong. If more layers are
# wrong, the cause is not one wrong kernel.
MAX_REPAIRS = 6
# This share of equal labels is accepted if the differences come from many layers, and none of these
# layers is wrong.
SPREAD_AGREEMENT = 0.98


@dataclass(frozen=True)
class Form:
    """Describe one of the equal graphs of a network.

    Attributes
    ----------
    argmax : how the argmax is found, ``search`` or ``compare``.
    unpool : ``native`` or ``extension``.
    activations : ``signed`` or ``unsigned``, for an INT8 network.
    floats : precision of everything that is not INT8, ``fp32`` or ``bf16``.
    rounded : names of nodes that are computed in float and rounded as the file rounds.

    Examples
    --------
    >>> Form(floats="bf16").activations
    'signed'
    """

    argmax: str = SEARCH
    unpool: str = NATIVE
    activations: str = SIGNED
    floats: str = "fp32"
    rounded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """Hold the chosen form, compiled.

    Attributes
    ----------
    form : the form.
    compiled : the compiled graph, which returns labels.
    times : median milliseconds per frame of the forms that were timed, by name.
    verdict : result of the proof; ``None`` if there was none.
    """

    form: Form
    compiled: Compiled
    times: dict[str, float]
    verdict: Verdict | None = None


def graph_of(network: Network, form: Form, *, logits: bool = False) -> onnx.ModelProto:
    """Return the graph of a network in one form.

    Parameters
    ----------
    network : a float network or a Q/DQ network.
    form : the form.
    logits : make the logits the output instead of the labels.
    """
    if form.rounded:
        network = replace(network, model=round_in_float(network.model, form.rounded))
    options = LoweringOptions(
        scores=logits,
        compare=form.argmax == COMPARE,
        plugin=form.unpool == EXTENSION,
        unsigned=form.activations == UNSIGNED,
    )
    return lower(network, options).model


def default_form(precision: str) -> Form:
    """Return a form that this processor computes correctly, as far as small probes show.

    Parameters
    ----------
    precision : ``fp32``, ``bf16``, or an INT8 one.

    Examples
    --------
    >>> default_form("fp32").floats
    'fp32'
    """
    if precision in runtime.FLOATS:
        return Form(floats=precision)

    activations = SIGNED if probes.signed_int8_is_exact() else UNSIGNED
    return Form(activations=activations, floats=runtime.best_precision())


def compile_form(network: Network, form: Form, precision: str, *, logits: bool = False) -> Compiled:
    """Compile one form.

    Parameters
    ----------
    network : a float network or a Q/DQ network.
    form : the form.
    precision : ``fp32``, ``bf16``, or an INT8 one.
    logits : make the logits the output instead of the labels.

    Raises
    ------
    GraphError : OpenVINO cannot compile it.
    """
    graph = graph_of(network, form, logits=logits)
    return Compiled(graph, network.name, settings(precision, form.floats))


def choose(
    network: Network,
    precision: str,
    unpool: str = AUTO,
    known: Reference | None = None,
    reporter: Reporter = SILENT,
) -> Chosen:
    """Compile a network in the fastest form that labels as its ONNX file does.

    Parameters
    ----------
    network : a float network or a Q/DQ network.
    precision : ``fp32``, ``bf16``, or an INT8 one.
    unpool : ``auto``, ``native`` or ``plugin``, as in ``PlanOptions``.
    known : labels of the ONNX file for a few frames; ``None``: no proof.
    reporter : receives messages.

    Raises
    ------
    CheckFailedError : no form labels as the file does.
    GraphError : OpenVINO cannot compile the network.
    """
    if precision in runtime.FLOATS:
        chosen = _fastest(network, default_form(precision), precision, unpool, reporter)
        return _proven(network, precision, chosen, known, reporter)
    return _choose_int8(network, precision, unpool, known, reporter)


def _choose_int8(
    network: Network, precision: str, unpool: str, known: Reference | None, reporter: Reporter
) -> Chosen:
    """Compile a Q/DQ network with its float parts in BF16, else in FP32, else repaired."""
    network = named(network)
    first = default_form(precision)
    if known is None:
        # Without a reference it is unknown whether BF16 would change labels.
        return _fastest(network, replace(first, floats="fp32"), precision, unpool, reporter)
    least = least_agreement(network)

    # Float parts in BF16, if the processor computes it. One graph shows whether labels change. The
    # other graphs are compiled only if they do not.
    if first.floats != "fp32":
        compiled = compile_form(network, first, precision)
        if judge(known, compiled, INT8, least).is_surely(SAME_IN_BF16):
            chosen = _fastest(network, first, precision, unpool, reporter, compiled)
            verdict = judge(known, chosen.compiled, INT8, least)
            if verdict.passed and verdict.is_surely(SAME_IN_BF16):
                return replace(chosen, verdict=verdict)

    # Float parts in FP32.
    form = replace(first, floats="fp32")
    chosen = _fastest(network, form, precision, unpool, reporter)
    verdict = judge(known, chosen.compiled, INT8, least)
    if verdict.passed:
        return replace(chosen, verdict=verdict)
    return _repaired(network, precision, unpool, known, replace(chosen, verdict=verdict), reporter)


def _repaired(
    network: Network,
    precision: str,
    unpool: str,
    known: Reference,
    wrong: Chosen,
    reporter: Reporter,
) -> Chosen:
    """Find a form that labels correctly: with other activations, or with some layers in float."""
    least = least_agreement(network)
    assert wrong.verdict is not None
    runtimes = f"OpenVINO {runtime.library_version()}, {known.runtime}"
    reporter.info(
        f"the engine gives {100 * wrong.verdict.agreement:.2f} % of the file's labels: looking for "
        "the wrong layers"
    )

    # Compute the wrong layers in float, with either kind of activations.
    other = replace(
        wrong.form, activations=UNSIGNED if wrong.form.activations == SIGNED else SIGNED
    )
    for form in (wrong.form, other):
        layers = wrong_layers(network, form, precision, known, least)
        if layers is None:
            continue
        chosen = _fastest(
            network, replace(form, argmax=SEARCH, rounded=layers), precision, unpool, reporter
        )
        verdict = judge(known, chosen.compiled, INT8, least)
        if verdict.passed:
            if layers:
                reporter.info(
                    f"computed in float, rounded as the file rounds: {', '.join(layers)}; "
                    f"their INT8 gives other values than the file ({runtimes})"
                )
            return replace(chosen, verdict=verdict)

    # Accept small differences that no layer explains.
    if wrong.verdict.agreement >= SPREAD_AGREEMENT and known.lost_class(wrong.compiled) is None:
        reporter.warning(
            f"{100 * (1 - wrong.verdict.agreement):.2f} % of the labels are not the "
            f"file's, by rounding in many layers; no class is lost ({runtimes})"
        )
        return wrong
    raise failed(network.name, precision, wrong.verdict, runtimes.split(", "))


def _proven(
    network: Network, precision: str, chosen: Chosen, known: Reference | None, reporter: Reporter
) -> Chosen:
    """Add the verdict to a float engine; raise ``CheckFailedError`` if it labels wrongly."""
    if known is None:
        return chosen
    verdict = judge(known, chosen.compiled, precision)
    if not verdict.passed:
        raise failed(
            network.name,
            precision,
            verdict,
            [f"OpenVINO {runtime.library_version()}", known.runtime],
        )
    return replace(chosen, verdict=verdict)


def wrong_layers(
    network: Network, form: Form, precision: str, known: Reference, least: float
) -> tuple[str, ...] | None:
    """Find the nodes whose INT8 is wrong in ``form``, by bisection.

    Parameters
    ----------
    network : a Q/DQ network whose nodes have names.
    form : the form to repair.
    precision : an INT8 precision.
    known : labels of the ONNX file for a few frames.
    least : the share of labels that must be equal.

    Returns
    -------
    Names of nodes in graph order. With these nodes in float, the labels equal the file's. Empty if
    ``form`` is correct already. ``None`` if float does not help, or more than ``MAX_REPAIRS`` nodes
    need it.
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

    # The labels are right if the first ``high`` nodes, and those found, are in float. Each round of
    # bisection finds the last node that must be.
    high = len(names)
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
    """Return ``network`` if every node has a unique name, else a copy with unique names.

    Parameters
    ----------
    network : any network; it is not changed.
    """
    names = [node.name for node in network.model.graph.node]
    if all(names) and len(set(names)) == len(names):
        return network

    model = copied(network.model)
    name_nodes(model)
    return replace(network, model=model)


# -- The fastest of several forms ------------------------------------------------------------------


def _fastest(
    network: Network,
    form: Form,
    precision: str,
    unpool: str,
    reporter: Reporter,
    known: Compiled | None = None,
) -> Chosen:
    """Compile ``form`` with the fastest ways to find the argmax and to unpool.

    ``known`` is ``form`` compiled, if it is compiled already.
    """
    # Time both ways to find the argmax. A network that returns labels needs no argmax.
    forms = {SEARCH: form}
    compiled = {SEARCH: known or compile_form(network, form, precision)}
    if network.form != "labels":
        forms[COMPARE] = replace(form, argmax=COMPARE)
        compiled[COMPARE] = compile_form(network, forms[COMPARE], precision)
    times = trial(compiled) if len(compiled) > 1 else {}
    best = min(times, key=lambda name: times[name]) if times else SEARCH
    fastest = Chosen(forms[best], compiled[best], times)
    if not _unpools_by_extension(network, fastest.form, unpool, reporter):
        return fastest

    # Time both ways to unpool.
    by_extension = replace(fastest.form, unpool=EXTENSION)
    extended = compile_form(network, by_extension, precision)
    latency = trial({NATIVE: fastest.compiled, EXTENSION: extended})
    for way, milliseconds in latency.items():
        times[f"unpool_{way}"] = milliseconds
    if unpool == PLUGIN or latency[EXTENSION] < latency[NATIVE]:
        return Chosen(by_extension, extended, times)
    return fastest


def _unpools_by_extension(network: Network, form: Form, unpool: str, reporter: Reporter) -> bool:
    """Return True if the CPU extension can unpool in this network and can be loaded.

    ``reporter`` gets the reason if it cannot be loaded; if ``unpool`` is ``plugin``, the error is
    raised.
    """
    options = LoweringOptions(plugin=True, unsigned=form.activations == UNSIGNED)
    if unpool == NATIVE or not lower(network, options).uses_plugin:
        return False

    try:
        if not extension.why_not() and not extension.library_path().is_file():
            reporter.info("building the CPU extension, once: seconds")
        extension.load()
    except EdgesegError as error:
        if unpool == PLUGIN:
            raise
        reporter.info(f"unpooling by standard operators: {error}")
        return False
    return True


def facts(chosen: Chosen, config: dict[str, str]) -> OpenVinoFacts:
    """Return the form and its times, for the passport.

    Parameters
    ----------
    chosen : what ``choose`` returned.
    config : compile settings of OpenVINO.
    """
    form = chosen.form
    return OpenVinoFacts(
        config=config,
        argmax=form.argmax,
        unpool=form.unpool,
        activations=form.activations,
        floats=form.floats,
        rounded_in_float=form.rounded,
        latency_ms={name: round(milliseconds, 3) for name, milliseconds in chosen.times.items()},
    )
