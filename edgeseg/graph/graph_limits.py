"""Check that an ONNX graph can be walked, before anything walks it.

A file of a few kilobytes can describe a graph that never ends: tensors that depend on themselves,
functions that call themselves, or call others that call others. Such files are refused here, with
the name of the tensor or function.
"""

from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from edgeseg.errors import GraphError

MOST_NODES = 1_000_000  # with functions and subgraphs written out
DEEPEST = 32  # subgraphs within subgraphs, functions within functions
OLDEST_OPSET = 1
_DOMAINS = ("", "ai.onnx")  # both are names of the standard operators

_Function = tuple[str, str, str]  # domain, name, overload


def check_graph(model: ModelProto, path: Path) -> None:
    """Check that a graph is finite and written in an opset that is known.

    Parameters
    ----------
    model : the ONNX graph, as it was read.
    path : its file, for the error.

    Raises
    ------
    GraphError : a tensor depends on itself or is written twice; a function calls itself; subgraphs
        are nested too deeply; there are too many nodes; or the opset does not exist.
    """
    _check_opset(model, path)

    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    written_out = _check_functions(functions, path)
    total = _check_body(model.graph.node, path, 0)
    total += _calls(model.graph.node, written_out, path)
    _require_few(total, path)


def _check_opset(model: ModelProto, path: Path) -> None:
    """Raise ``GraphError`` for an opset of the standard operators that does not exist."""
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in _DOMAINS and not OLDEST_OPSET <= opset.version <= newest:
            raise GraphError(
                f"{path}: its opset is not known",
                got=opset.version,
                expected=f"{OLDEST_OPSET} to {newest}",
                hint="Export it again with a lower opset; or update onnx.",
            )


def _check_functions(functions: dict[_Function, FunctionProto], path: Path) -> dict[_Function, int]:
    """Check the functions of a file; return how many nodes each has when it is written out."""
    written_out: dict[_Function, int] = {}
    for key, function in functions.items():
        _check_body(function.node, path, 0)
        if key not in written_out:
            _count(key, functions, written_out, path)
    return written_out


def _count(
    first: _Function,
    functions: dict[_Function, FunctionProto],
    written_out: dict[_Function, int],
    path: Path,
) -> None:
    """Count the nodes of a function and of all that it calls, without recursion."""
    stack = [first]
    active = {first}
    while stack:
        key = stack[-1]
        called = [c for c in _called(functions[key].node) if c in functions]
        waiting = [c for c in called if c not in written_out]
        if waiting:
            following = waiting[0]
            if following in active or len(stack) > DEEPEST:
                reason = "calls itself" if following in active else "is nested too deeply"
                raise GraphError(f"{path}: function {following[1]!r} {reason}")
            stack.append(following)
            active.add(following)
            continue

        total = len(functions[key].node) + sum(written_out[c] for c in called)
        _require_few(total, path)
        written_out[key] = total
        active.discard(stack.pop())


def _calls(nodes: Iterable[NodeProto], written_out: dict[_Function, int], path: Path) -> int:
    """Return the number of nodes of the functions that a graph calls, written out."""
    total = sum(written_out.get(called, 0) for called in _called(nodes))
    _require_few(total, path)
    return total


def _called(nodes: Iterable[NodeProto]) -> list[_Function]:
    """Return what nodes may call as a function, those of subgraphs as well."""
    called: list[_Function] = []
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        called.append((node.domain, node.op_type, node.overload))
        for body in _bodies(node):
            waiting.extend(body.node)
    return called


def _bodies(node: NodeProto) -> list[GraphProto]:
    """Return the subgraphs of a node."""
    bodies: list[GraphProto] = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            bodies.append(attribute.g)
        bodies.extend(attribute.graphs)
    return bodies


def _check_body(nodes: Iterable[NodeProto], path: Path, depth: int) -> int:
    """Check a graph and its subgraphs; return the number of nodes. ``depth``: graphs around it."""
    if depth > DEEPEST:
        raise GraphError(
            f"{path}: graphs are nested too deeply", expected=f"at most {DEEPEST} in each other"
        )

    # Who writes each tensor, and how many nodes there are.
    nodes = list(nodes)
    total = len(nodes)
    writer: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in writer:
                raise GraphError(f"{path}: two nodes write tensor {name!r}")
            writer[name] = place
        for body in _bodies(node):
            total += _check_body(body.node, path, depth + 1)
    _require_few(total, path)

    _check_order(nodes, writer, path)
    return total


def _check_order(nodes: list[NodeProto], writer: dict[str, int], path: Path) -> None:
    """Raise ``GraphError`` if a tensor depends on itself; Kahn's algorithm."""
    # Most files list nodes in order: then there is nothing to sort.
    waits: list[set[int]] = []
    in_order = True
    for place, node in enumerate(nodes):
        before = {writer[name] for name in _read(node) if name in writer}
        in_order = in_order and (not before or max(before) < place)
        waits.append(before)
    if in_order:
        return

    readers: dict[int, list[int]] = {}
    for place, before in enumerate(waits):
        for one in before:
            readers.setdefault(one, []).append(place)
    ready = [place for place, before in enumerate(waits) if not before]
    missing = [len(before) for before in waits]
    done = 0
    while ready:
        place = ready.pop()
        done += 1
        for reader in readers.get(place, []):
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)

    if done < len(nodes):
        place = next(place for place, count in enumerate(missing) if count)
        name = next(filter(None, nodes[place].output), nodes[place].name)
        raise GraphError(
            f"{path}: tensor {name!r} depends on itself",
            expected="a graph without cycles",
            hint="Export it again.",
        )


def _read(node: NodeProto) -> set[str]:
    """Return the names of the tensors that a node and its subgraphs read."""
    names = set(node.input)
    waiting = _bodies(node)
    while waiting:
        body = waiting.pop()
        own = {value.name for value in body.input} | {t.name for t in body.initializer}
        inside = {value.name for value in body.output}
        for one in body.node:
            inside.update(one.input)
            own.update(one.output)
            waiting.extend(_bodies(one))
        names |= inside - own
    names.discard("")
    return names


def _require_few(total: int, path: Path) -> None:
    """Raise ``GraphError`` if a graph has too many nodes."""
    if total > MOST_NODES:
        raise GraphError(
            f"{path}: too many nodes", got=f"{total:,}", expected=f"at most {MOST_NODES:,}"
        )
