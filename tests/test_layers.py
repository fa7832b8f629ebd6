"""Which room of the house may import which: every arrow goes down, lazy imports counted.

The rooms are those of `docs/architecture.md`. A room that is not in the table, an import that goes
up or sideways, and two files that import each other are each an error here, with the names.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "edgeseg"

# Contracts: files beside the package's folders that import no stage.
CONTRACTS = (
    "version",
    "errors",
    "types",
    "precision",
    "spec",
    "files",
    "trust",
    "children",
    "cores",
    "offline",
    "passport",
    "facts",
    "reporter",
    "capabilities",
)

# Each room, and the rooms it stands on. Contracts are open to all.
STANDS_ON: dict[str, tuple[str, ...]] = {
    "imaging": (),
    "data": ("imaging",),
    "metrics": ("imaging", "data"),
    "models": (),
    "video": ("imaging", "data"),
    "graph": ("imaging",),
    "quantize": ("imaging", "data", "metrics", "video", "graph"),
    "zoo": (),
    "backends": ("imaging", "data", "graph", "quantize"),
    "build": ("imaging", "data", "metrics", "graph", "quantize", "backends", "zoo"),
    "profiling": ("imaging", "data", "metrics", "video", "graph", "quantize", "backends", "build"),
    "serving": ("imaging", "graph", "quantize", "backends", "zoo"),
    # These two need torch.
    "export": ("imaging", "data", "models", "graph"),
    "training": ("imaging", "data", "metrics", "models", "graph", "quantize", "export"),
}

# Programs above all rooms: they import what they need, and only the command line imports them.
PROGRAMS = ("cli", "commands", "doctor", "pipeline", "__main__", "pytest_plugin")

# `import edgeseg` gives the public names of all rooms; it loads them when they are asked for.
FACE = "edgeseg"


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = list(path.relative_to(ROOT.parent).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Yield the modules of the package that a module imports: at its top, inside functions, and for
    types alone.
    """
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == FACE)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == FACE:
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield inside if inside in MODULES else str(node.module)


def room(name: str) -> str:
    """Return the room a module is in: the folder, or the file beside the folders."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else FACE


ARROWS = [(name, target) for name in MODULES for target in imports(name) if target != name]


def test_every_room_is_in_the_table() -> None:
    known = {FACE, *CONTRACTS, *STANDS_ON, *PROGRAMS}
    assert {room(name) for name in MODULES} <= known
    assert {room(name) for name in MODULES} >= set(STANDS_ON), "a room of the table is gone"


@pytest.mark.parametrize("upper", STANDS_ON)
def test_a_room_imports_only_what_it_stands_on(upper: str) -> None:
    allowed = {upper, *CONTRACTS, *STANDS_ON[upper]}
    wrong = [
        f"{name} -> {target}"
        for name, target in ARROWS
        if room(name) == upper and room(target) not in allowed
    ]
    assert wrong == []


def test_contracts_import_contracts_alone() -> None:
    wrong = [
        f"{name} -> {target}"
        for name, target in ARROWS
        if room(name) in CONTRACTS and room(target) not in CONTRACTS
    ]
    assert wrong == []


def test_only_the_command_line_and_the_face_import_programs() -> None:
    above = {FACE, *PROGRAMS}
    wrong = [
        f"{name} -> {target}"
        for name, target in ARROWS
        if room(target) in PROGRAMS and room(name) not in above
    ]
    assert wrong == []


def test_the_table_has_no_circle() -> None:
    """A room stands on rooms that are named before it, or that stand on nothing above."""
    done: set[str] = set()
    left = dict(STANDS_ON)
    while left:
        ready = [name for name, below in left.items() if set(below) <= done]
        assert ready, f"rooms in a circle: {sorted(left)}"
        done |= set(ready)
        left = {name: below for name, below in left.items() if name not in ready}


def circles(arrows: list[tuple[str, str]]) -> list[list[str]]:
    """Return the groups of modules that reach each other (Tarjan 1972)."""
    targets: dict[str, list[str]] = {name: [] for name in MODULES}
    for name, target in arrows:
        targets[name].append(target)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in targets[name]:
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for name in targets:
        if name not in index:
            visit(name)
    return found


def test_no_files_import_each_other() -> None:
    """Lazy imports counted: one that only breaks a circle hides it.

    The package's face is left out: it imports none.
    """
    arrows = [(name, target) for name, target in ARROWS if name != FACE]
    assert circles(arrows) == []


def messages() -> Iterator[tuple[str, int, str]]:
    """Yield module, line and text of every string below the command line that is no docstring."""
    for name, path in MODULES.items():
        if room(name) in ("cli", "pytest_plugin"):  # the second has options of pytest
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in docstrings
            ):
                yield name, node.lineno, node.value


# Options of other programs: of nvcc, trtexec, venv, docker, curl, tritonserver.
OTHER_PROGRAMS = re.compile(
    r"--(fmad|no-undefined|list-gpu-arch|version|threads|version-script|onnx|saveEngine|skipInference|stronglyTyped|"
    r"memPoolSize|builderOptimizationLevel|timingCacheFile|computeCapabilities|loadEngine|useCudaGraph|noDataTransfers|noTF32|"
    r"shapes|dynamicPlugins|setPluginsToSerialize|versionCompatible|system-site-packages|device|gpus|runtime|rm|"
    r"model-repository|backend-config|data-binary|int8 (nor )?--fp16)(?![\w-])"
)


def test_messages_below_the_command_line_name_no_options() -> None:
    """A library's error names parameters, in backticks.

    `edgeseg/cli/spelling.py` makes options of them.
    """
    wrong = [
        f"{name}:{line}: {text}"
        for name, line, text in messages()
        if re.search(r"(?<!-)--[a-z]", OTHER_PROGRAMS.sub("", text))
    ]
    assert wrong == []
