"""Compiling the extension, once for each OpenVINO, and loading it into this process.

A library that a compiler made is tried in a process of its own before it gets its name: one that does not fit this
OpenVINO may end a process, and then ends that one.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from edgeseg.artifact import atomic_path, write_json
from edgeseg.errors import EdgesegError, EngineError, MissingDependencyError, OutputError

SOURCE = Path(__file__).resolve().with_name("unpooling.cpp")
SWITCH = "EDGESEG_CPU_EXTENSION"  # the environment variable that, set to 0, leaves the extension out
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-Wall", "-Wextra")
_LIBRARIES = ("openvino", "openvino_onnx_frontend", "tbb")
_TRIED_SHAPE = (2, 11, 13, 24)
_BUILD_SECONDS, _TRY_SECONDS = 300, 60
_RETRY_SECONDS = 24 * 3600


def find_compiler() -> tuple[str, ...]:
    """A C++ compiler as the words of a command: ``$CXX``, or c++, g++ or clang++ on PATH; empty: none."""
    words = shlex.split(os.environ.get("CXX", ""))
    named = shutil.which(words[0]) if words else None
    if words:
        return (named, *words[1:]) if named else ()
    return next(((found,) for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), ())


def identity() -> str:
    """What the library is made of and for: the same here means that the same file serves."""
    from edgeseg.runtime.cpu import library_version

    facts = [SOURCE.read_bytes(), repr(FLAGS).encode(), library_version().encode(), platform.machine().encode()]
    return hashlib.sha256(b"\0".join(facts)).hexdigest()[:16]


def library_path() -> Path:
    """Where the library is looked for and built: edgeseg's cache."""
    from edgeseg.runtime.load import cache_folder

    return cache_folder() / "extension" / f"libedgeseg_openvino-{identity()}.so"


def why_not() -> str:
    """Why the extension cannot be had here, in a few words; ``""`` where it is built or can be."""
    if os.environ.get(SWITCH, "1").strip().lower() in ("0", "no", "off", "false"):
        return f"{SWITCH} is off"
    if sys.platform != "linux":
        return f"it is not built on {sys.platform}"
    if library_path().is_file():
        return ""
    compiler = find_compiler()
    if not compiler:
        named = os.environ.get("CXX")
        return f"$CXX is no program: {named}" if named else "no C++ compiler (apt install g++)"
    return _failed_before(compiler)


def _failed_before(compiler: tuple[str, ...]) -> str:
    """Why this compiler did not make this library today, ``""`` if it was not tried: a full disk is mended some day."""
    try:
        if time.time() - _failure_path().stat().st_mtime > _RETRY_SECONDS:
            return ""
        told = json.loads(_failure_path().read_bytes())
        return str(told["reason"]) if tuple(told["compiler"]) == compiler else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _failure_path() -> Path:
    return library_path().with_suffix(".failed.json")


def library() -> Path:
    """The library, compiled now (seconds) if it was not. Raises ``MissingDependencyError``, ``EngineError``."""
    missing = why_not()
    if missing:
        raise MissingDependencyError("the CPU extension is not there", got=missing)
    path = library_path()
    if not path.is_file():
        _build(path)
    return path


@functools.cache
def load() -> Path:
    """Make the extension's operators known to OpenVINO in this process, once. Raises what ``library`` does."""
    from edgeseg.runtime.cpu import core

    path = library()
    try:
        core().add_extension(str(path))
    except RuntimeError:  # cut off, or another machine's in a shared cache: made again
        path.unlink(missing_ok=True)
        try:
            core().add_extension(str(library()))
        except RuntimeError as error:
            told = str(error).strip().splitlines()[-1][:200]
            raise EngineError(f"{path}: OpenVINO cannot load it", got=told) from error
    return path


def _build(path: Path) -> None:
    try:
        _compile(path)
    except EngineError as error:  # for a day it is told, not tried, again
        with contextlib.suppress(OutputError):
            write_json(_failure_path(), {"compiler": find_compiler(), "reason": str(error)})
        raise


def _compile(path: Path) -> None:
    with atomic_path(path) as made:
        _run([*_command(), "-o", str(made)], "compiling the CPU extension", _BUILD_SECONDS)
        tried = [sys.executable, "-c", f"from edgeseg.extension.build import try_out; try_out({str(made)!r})"]
        _run(tried, "trying the CPU extension", _TRY_SECONDS)


def _command() -> list[str]:
    import openvino

    home = Path(openvino.__file__).parent
    libraries = []
    for name in _LIBRARIES:
        found = sorted((home / "libs").glob(f"lib{name}.so*"))
        if not found or not (home / "include").is_dir():
            raise EngineError(
                "this OpenVINO has no headers or libraries to build against", got=str(home),
                expected=f"include/ and libs/lib{name}.so.*, as the package of PyPI has",
            )  # fmt: skip
        libraries.append(f"-l:{found[0].name}")
    libs = home / "libs"
    include = ["-isystem", str(home / "include")]
    return [*find_compiler(), *FLAGS, *include, str(SOURCE), f"-L{libs}", *libraries, f"-Wl,-rpath,{libs}"]


def _run(command: list[str], what: str, seconds: int) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{what} took too long", got=f"more than {seconds} s") from error
    except (OSError, TypeError) as error:  # no program, or no name of one: an embedded Python has no executable
        raise EngineError(f"{what} failed", got=f"{command[0]}: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        # collect2 only repeats that ld failed; why, ld has said before.
        causes = [x for x in lines if ("error:" in x or "failed" in x) and not x.startswith("collect2")]
        raise EngineError(f"{what} failed", got=(causes or lines[-1:])[0].strip()[:300])


def try_out(path: str) -> None:
    """Pool and unpool numbers by the library at ``path`` and compare; called in a process of its own."""
    from onnx import TensorProto, helper

    from edgeseg.export.unpool import extension as form
    from edgeseg.export.unpool.plugin import DOMAIN, EXTRA, VERSION, pool_code_reference, unpool_reference
    from edgeseg.runtime.cpu import core

    extra = (_TRIED_SHAPE[1] % 2, _TRIED_SHAPE[2] % 2)
    nodes = [
        helper.make_node(form.POOL, ["x"], ["value", "code"], domain=DOMAIN),
        helper.make_node(form.UNPOOL, ["value", "code"], ["y"], domain=DOMAIN),
    ]
    nodes[1].attribute.extend(helper.make_attribute(name, side) for name, side in zip(EXTRA, extra, strict=True))
    ends = [helper.make_tensor_value_info(name, TensorProto.INT8, _TRIED_SHAPE) for name in "xy"]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=opsets, ir_version=9)
    x = np.random.default_rng(0).integers(-3, 4, _TRIED_SHAPE, np.int8)  # few values: many ties
    plugin = core()
    plugin.add_extension(path)
    got = plugin.compile_model(plugin.read_model(model.SerializeToString()), "CPU")(x)[0]
    value, code = pool_code_reference(x.transpose(0, 3, 1, 2))
    if not np.array_equal(got, unpool_reference(value, code, *extra).transpose(0, 2, 3, 1)):
        raise EdgesegError("the CPU extension computes something else", got=path)
