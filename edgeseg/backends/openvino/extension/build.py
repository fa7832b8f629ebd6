"""Compile the extension, once for each OpenVINO, and load it into this process.

Each new library is tried in a process of its own before it gets its final name. A library that does
not fit this OpenVINO may crash; then it crashes that process, and not the caller's.
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

from edgeseg.children import python_command, run_child
from edgeseg.errors import EdgesegError, EngineError, MissingDependencyError, OutputError
from edgeseg.files import atomic_path, cache_folder, sha256_file, write_bytes, write_json
from edgeseg.trust import read_private, require_private_file, sha256_private

SOURCE = Path(__file__).resolve().with_name("unpooling.cpp")
SWITCH = "EDGESEG_CPU_EXTENSION"  # environment variable; 0 disables the extension
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-Wall", "-Wextra")
_TRIAL = (
    "from edgeseg.backends.openvino.extension.build import try_out\n"  # in a process of its own
    "try_out(sys.argv[1])"
)
_LIBRARIES = ("openvino", "openvino_onnx_frontend", "tbb")
_TRIED_SHAPE = (2, 11, 13, 24)  # (N, H, W, C): odd sides: pooling drops a row and a column
_BUILD_SECONDS = 300  # limit of the compiler
_TRY_SECONDS = 60  # limit of the process that tries the library
_RETRY_SECONDS = 24 * 3600  # a build that failed is not repeated before


def find_compiler() -> tuple[str, ...]:
    """Return the command of a C++ compiler, word by word; empty if there is none.

    ``$CXX`` is taken if it is set; otherwise the first of c++, g++ and clang++ on ``PATH``.
    """
    words = shlex.split(os.environ.get("CXX", ""))
    if words:
        program = shutil.which(words[0])
        return (os.path.abspath(program), *words[1:]) if program else ()

    for name in ("c++", "g++", "clang++"):
        program = shutil.which(name)
        if program:
            return (os.path.abspath(program),)
    return ()


def identity() -> str:
    """Return a hash of everything the library depends on: 16 hexadecimal digits.

    These are the source, the compiler's flags, OpenVINO's version and the machine's architecture.
    Libraries of the same hash are interchangeable.

    Examples
    --------
    >>> len(identity())
    16
    """
    from edgeseg.backends.openvino.runtime import library_version

    facts = [
        SOURCE.read_bytes(),
        repr(FLAGS).encode(),
        library_version().encode(),
        platform.machine().encode(),
    ]
    return hashlib.sha256(b"\0".join(facts)).hexdigest()[:16]


def library_path() -> Path:
    """Return the path of the library in edgeseg's cache; the file need not exist."""
    return cache_folder() / "extension" / f"libedgeseg_openvino-{identity()}.so"


def digest_path(library: Path) -> Path:
    """Return the path of the file that holds a library's digest.

    Parameters
    ----------
    library : path of the library.

    Examples
    --------
    >>> digest_path(Path("X.so")).name
    'X.so.sha256'
    """
    return library.with_name(library.name + ".sha256")


def is_intact(library: Path) -> bool:
    """Return True if a library is there and has the digest that was written when it was built.

    Parameters
    ----------
    library : path of the library.

    Raises
    ------
    OutputError : another user could have written the library or its digest.
    """
    require_private_file(library)
    try:
        facts = library.stat()
        wanted = read_private(digest_path(library)).decode("ascii", "replace").strip()
    except OSError:
        return False
    return _digest(library, facts.st_ino, facts.st_size, facts.st_mtime_ns) == wanted


@functools.lru_cache(maxsize=4)
def _digest(library: Path, inode: int, size: int, changed_ns: int) -> str:
    """Return the digest of a library, computed once for each state of its file."""
    return sha256_private(library)


def why_not() -> str:
    """Return in a few words why this machine cannot have the extension; ``""`` if it can."""
    if os.environ.get(SWITCH, "1").strip().lower() in ("0", "no", "off", "false"):
        return f"{SWITCH} is off"
    if sys.platform != "linux":
        return f"it is not built on {sys.platform}"
    if is_intact(library_path()):
        return ""

    compiler = find_compiler()
    if not compiler:
        named = os.environ.get("CXX")
        return f"$CXX is no program: {named}" if named else "no C++ compiler (apt install g++)"
    return _failed_before(compiler)


def _failed_before(compiler: tuple[str, ...]) -> str:
    """Return why this compiler failed to build this library today; ``""`` if it did not.

    Failures are forgotten after a day, because some causes go away, such as a full disk.
    """
    try:
        if time.time() - _failure_path().stat().st_mtime > _RETRY_SECONDS:
            return ""
        failure = json.loads(read_private(_failure_path()))
        return str(failure["reason"]) if tuple(failure["compiler"]) == compiler else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _failure_path() -> Path:
    """Return the path of the file that records a failed build."""
    return library_path().with_suffix(".failed.json")


def library() -> Path:
    """Return the library's path, and compile the library first if needed, which takes seconds.

    Raises
    ------
    MissingDependencyError : this machine cannot have the extension; ``why_not`` gives the reason.
    EngineError : the library does not compile, or does not work.
    """
    missing = why_not()
    if missing:
        raise MissingDependencyError("the CPU extension is not there", got=missing)

    # Check the library before anything loads it: loading runs its code.
    path = library_path()
    if not is_intact(path):
        _build(path)
    return path


@functools.cache
def load() -> Path:
    """Register the extension's operators with OpenVINO, once per process, and return its path.

    Raises
    ------
    MissingDependencyError : this machine cannot have the extension.
    EngineError : the library does not compile, does not work, or OpenVINO cannot load it.
    """
    from edgeseg.backends.openvino.runtime import core

    path = library()
    try:
        core().add_extension(str(path))
    except RuntimeError:
        # The file is incomplete, or another machine's in a shared cache: build it again.
        path.unlink(missing_ok=True)
        try:
            core().add_extension(str(library()))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:200]
            raise EngineError(f"{path}: OpenVINO cannot load it", got=reason) from error
    return path


def _build(path: Path) -> None:
    """Compile the library, and record a failure so that it is not tried again for a day."""
    try:
        _compile(path)
    except EngineError as error:
        with contextlib.suppress(OutputError):
            write_json(_failure_path(), {"compiler": find_compiler(), "reason": str(error)})
        raise


def _compile(path: Path) -> None:
    """Compile the library and try it out in another process, before it gets its final name."""
    with atomic_path(path) as made:
        _run([*_command(), "-o", str(made)], "compiling the CPU extension", _BUILD_SECONDS)

        _run(python_command(_TRIAL, str(made)), "trying the CPU extension", _TRY_SECONDS)

        # The digest comes first: a library without one counts as damaged.
        write_bytes(digest_path(path), f"{sha256_file(made)}\n".encode())


def _command() -> list[str]:
    """Return the compiler's command line; raise ``EngineError`` if OpenVINO has no headers."""
    import openvino

    home = Path(openvino.__file__).parent
    libs = home / "libs"
    libraries = []
    for name in _LIBRARIES:
        found = sorted(libs.glob(f"lib{name}.so*"))
        if not found or not (home / "include").is_dir():
            raise EngineError(
                "this OpenVINO has no headers or libraries to build against",
                got=str(home),
                expected=f"include/ and libs/lib{name}.so.*, as the package of PyPI has",
            )
        libraries.append(f"-l:{found[0].name}")

    include = ["-isystem", str(home / "include")]
    return [
        *find_compiler(),
        *FLAGS,
        *include,
        str(SOURCE),
        f"-L{libs}",
        *libraries,
        f"-Wl,-rpath,{libs}",
    ]


def _run(command: list[str], what: str, seconds: int) -> None:
    """Run a command; raise ``EngineError`` if it fails or takes more than ``seconds``."""
    try:
        done = run_child(command, timeout_s=seconds)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{what} took too long", got=f"more than {seconds} s") from error
    except OSError as error:
        # No such program; or its name is empty: an embedded Python has no `sys.executable`.
        raise EngineError(f"{what} failed", got=f"{command[0]}: {error}") from error
    if not done.returncode:
        return

    # Report the first line that names a cause. collect2 only repeats that ld failed; ld's own line,
    # before it, has the reason.
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    causes: list[str] = []
    for line in lines:
        names_cause = "error:" in line or "failed" in line
        if names_cause and not line.startswith("collect2"):
            causes.append(line)
    cause = causes[0] if causes else lines[-1]
    raise EngineError(f"{what} failed", got=cause.strip()[:300])


def try_out(path: str) -> None:
    """Pool and unpool with the library, and compare with numpy. Call it in a separate process.

    Parameters
    ----------
    path : the library's file.

    Raises
    ------
    EdgesegError : the library computes wrong values.
    """
    from onnx import TensorProto, helper

    from edgeseg.backends.openvino.runtime import core
    from edgeseg.graph.passes.unpool import extension as form
    from edgeseg.graph.passes.unpool.plugin import (
        DOMAIN,
        EXTRA,
        VERSION,
        pool_code_reference,
        unpool_reference,
    )

    # Build a graph that pools and unpools. ``extra``: the row and column that the pooling drops.
    extra = (_TRIED_SHAPE[1] % 2, _TRIED_SHAPE[2] % 2)
    pool = helper.make_node(form.POOL, ["x"], ["value", "code"], domain=DOMAIN)
    unpool = helper.make_node(form.UNPOOL, ["value", "code"], ["y"], domain=DOMAIN)
    for name, side in zip(EXTRA, extra, strict=True):
        unpool.attribute.append(helper.make_attribute(name, side))
    x_info = helper.make_tensor_value_info("x", TensorProto.INT8, _TRIED_SHAPE)
    y_info = helper.make_tensor_value_info("y", TensorProto.INT8, _TRIED_SHAPE)
    graph = helper.make_graph([pool, unpool], "g", [x_info], [y_info])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)

    # Run it on few different values, so that there are many ties.
    x = np.random.default_rng(0).integers(-3, 4, _TRIED_SHAPE, np.int8)
    plugin = core()
    plugin.add_extension(path)
    got = plugin.compile_model(plugin.read_model(model.SerializeToString()), "CPU")(x)[0]

    # Compare with numpy, which works on (N, C, H, W).
    value, code = pool_code_reference(x.transpose(0, 3, 1, 2))
    wanted = unpool_reference(value, code, *extra).transpose(0, 2, 3, 1)
    if not np.array_equal(got, wanted):
        raise EdgesegError("the CPU extension computes something else", got=path)
