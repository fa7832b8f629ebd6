"""Build ``libedgeseg_plugin.so`` with nvcc, and find the library that was built.

The library links nothing of TensorRT; TensorRT's headers are enough. A small JSON file beside the
library says what it was built from.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edgeseg.children import run_child
from edgeseg.cores import usable_cores
from edgeseg.errors import EngineError, InputError, MissingDependencyError, OutputError
from edgeseg.files import atomic_path, cache_folder, sha256_file, write_json
from edgeseg.trust import require_private_file

SOURCES = Path(__file__).resolve().parent
LIBRARY = "libedgeseg_plugin.so"

# Turing to Blackwell, by compute capability; Orin is 87, Thor 110.
ARCHITECTURES = ("75", "80", "86", "87", "89", "90", "100", "110", "120", "121")

OLDEST_TENSORRT = (10, 0, 0)  # the first with IPluginV3

# With --fmad=false the device rounds as the host and NumPy do. It costs no time, because these
# kernels wait for memory.
FLAGS = (
    "-std=c++17",
    "-O3",
    "--fmad=false",
    "-cudart",
    "static",
    "-Xcompiler",
    "-fPIC,-fvisibility=hidden",
)
LINK_FLAGS = ("-shared", "-Xlinker", "--no-undefined")
EXPORTS = SOURCES / "exports.map"
STRICT = ("-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror")

_CUDA = "cuda-nvcc-12-6 cuda-cudart-dev-12-6 (or your CUDA's number)"
_NVCC_HINT = f"sudo apt install {_CUDA}, from NVIDIA's apt source."
_HEADERS_HINT = (
    "sudo apt install libnvinfer-headers-dev; or give the folder of NvInferRuntime.h: "
    "`build_plugin(tensorrt_include=DIR)`."
)

# Keys of the JSON file beside the library.
_SOURCES_SHA256, _LIBRARY_SHA256, _TENSORRT = "sources_sha256", "library_sha256", "tensorrt"


# -- what is compiled, and with what ---------------------------------------------------------------


def source_files() -> list[Path]:
    """Return the files that nvcc compiles, as ``sources.txt`` lists them; CMake reads it, too.

    Examples
    --------
    >>> all(path.is_file() for path in source_files())
    True
    """
    return [SOURCES / line for line in (SOURCES / "sources.txt").read_text().split()]


def sources_sha256() -> str:
    """Return one hash of everything that the library is made from, with the flags."""
    digest = hashlib.sha256(repr((FLAGS, LINK_FLAGS)).encode())
    headers = [*SOURCES.glob("src/*.h"), *SOURCES.glob("include/*.h")]
    for path in sorted({*source_files(), *headers, EXPORTS}):
        digest.update(f"{path.relative_to(SOURCES)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def find_nvcc() -> Path:
    """Return CUDA's compiler.

    It is searched on PATH, in ``$CUDA_HOME`` and ``$CUDA_PATH``, in /usr/local/cuda (the version
    that the system is set to), and last in the newest /usr/local/cuda*.

    Raises
    ------
    MissingDependencyError : there is no nvcc.
    """
    candidates: list[Path] = []
    on_path = shutil.which("nvcc")
    if on_path:
        candidates.append(Path(on_path))

    homes: list[Path] = []
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            homes.append(Path(os.environ[name]))
    homes.append(Path("/usr/local/cuda"))
    homes += sorted(Path("/usr/local").glob("cuda*"), key=_version_numbers, reverse=True)
    candidates += [home / "bin" / "nvcc" for home in homes]

    for nvcc in candidates:
        if os.access(nvcc, os.X_OK):
            return nvcc
    raise MissingDependencyError(
        "nvcc, CUDA's compiler, was not found",
        expected="it on PATH, in $CUDA_HOME/bin or in /usr/local/cuda*/bin",
        hint=_NVCC_HINT,
    )


def _version_numbers(path: Path) -> tuple[int, ...]:
    """Return the numbers in a folder's name: (12, 6) for ``cuda-12.6``."""
    return tuple(int(number) for number in re.findall(r"\d+", path.name))


def find_tensorrt_include(given: Path | None = None) -> Path:
    """Return the folder of TensorRT's headers.

    Parameters
    ----------
    given : the folder; by default ``$TENSORRT_INCLUDE``, or else the folders where packages put
        the headers.

    Raises
    ------
    InputError : the given folder, or the one of ``$TENSORRT_INCLUDE``, has no headers.
    MissingDependencyError : the headers were not found.
    """
    named = given
    if named is None and os.environ.get("TENSORRT_INCLUDE"):
        named = Path(os.environ["TENSORRT_INCLUDE"])
    if named is not None:
        if not _has_headers(named):
            raise InputError(
                f"{named}: no TensorRT headers",
                expected="a folder with NvInferRuntime.h",
                hint=_HEADERS_HINT,
            )
        return named

    usual = [
        *sorted(Path("/usr/include").glob("*-linux-gnu")),
        Path("/usr/include"),
        Path("/usr/local/include"),
        Path("/usr/local/tensorrt/include"),
    ]
    for folder in usual:
        if _has_headers(folder):
            return folder
    raise MissingDependencyError("TensorRT's headers were not found", hint=_HEADERS_HINT)


def _has_headers(folder: Path) -> bool:
    """Return True if a folder has TensorRT's headers."""
    return (folder / "NvInferRuntime.h").is_file()


def tensorrt_version(include: Path) -> str:
    """Return the version in TensorRT's headers, such as ``10.3.0``.

    Parameters
    ----------
    include : folder of the headers.

    Raises
    ------
    EngineError : the headers do not say their version, or are too old: without ``IPluginV3``.
    """
    path = include / "NvInferVersion.h"
    text = path.read_text(errors="replace")
    defined: dict[str, str] = dict(re.findall(r"^#define\s+(\w+)\s+(\w+)", text, re.M))

    numbers: list[int] = []
    for part in ("MAJOR", "MINOR", "PATCH"):
        value = defined.get(f"NV_TENSORRT_{part}", "")
        value = defined.get(value, value)  # newer headers define it by another macro
        if not value.isdecimal():
            raise EngineError(
                f"{path}: does not say TensorRT's version",
                expected=f"#define NV_TENSORRT_{part} NUMBER",
            )
        numbers.append(int(value))

    version = ".".join(map(str, numbers))
    if tuple(numbers) < OLDEST_TENSORRT:
        raise EngineError(
            f"{include}: TensorRT's headers are too old for the plugin",
            got=version,
            expected="10.0 or newer",
            hint="JetPack 6.1 and newer have it.",
        )
    return version


def _known_architectures(nvcc: Path) -> set[str]:
    """Return the compute capabilities that nvcc compiles for, without the point."""
    listed = _run([str(nvcc), "--list-gpu-arch"]).stdout
    return set(re.findall(r"compute_(\d+)$", listed, re.M))


def architectures(nvcc: Path) -> list[str]:
    """Return those of ``ARCHITECTURES`` that nvcc compiles for.

    Parameters
    ----------
    nvcc : CUDA's compiler.

    Raises
    ------
    EngineError : nvcc fails.
    """
    known = _known_architectures(nvcc)
    return [arch for arch in ARCHITECTURES if arch in known]


def cuda_version(nvcc: Path) -> str:
    """Return CUDA's version, such as ``12.6``.

    Parameters
    ----------
    nvcc : CUDA's compiler.

    Raises
    ------
    EngineError : nvcc fails, or does not say its version.
    """
    found = re.search(r"release (\d+\.\d+)", _run([str(nvcc), "--version"]).stdout)
    if found is None:
        expected = "'release NUMBER' in its --version"
        raise EngineError(f"{nvcc}: does not say its version", expected=expected)
    return found[1]


# -- the build -------------------------------------------------------------------------------------


def compile_command(
    nvcc: Path,
    include: Path,
    archs: Sequence[str],
    out: Path,
    *,
    strict: bool = False,
    threads: int = 1,
) -> list[str]:
    """Return the command that builds the library.

    Parameters
    ----------
    nvcc : CUDA's compiler.
    include : folder of TensorRT's headers.
    archs : compute capabilities without the point. The library also holds PTX of the highest one,
        for later GPUs.
    out : the library to write.
    strict : make warnings errors.
    threads : number of architectures to compile at once.

    Examples
    --------
    >>> command = compile_command(Path("nvcc"), Path("include"), ["87"], Path("a.so"))
    >>> [word for word in command if word.startswith("-gencode")]
    ['-gencode=arch=compute_87,code=sm_87', '-gencode=arch=compute_87,code=compute_87']
    """
    highest = max(archs, key=int)
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    targets.append(f"-gencode=arch=compute_{highest},code=compute_{highest}")
    return [
        str(nvcc),
        *FLAGS,
        *LINK_FLAGS,
        *(STRICT if strict else ()),
        *targets,
        f"--threads={threads}",
        "-Xlinker",
        f"--version-script={EXPORTS}",
        f"-I{SOURCES / 'include'}",
        f"-I{SOURCES / 'src'}",
        "-isystem",
        str(include),
        *map(str, source_files()),
        "-o",
        str(out),
    ]


def build_plugin(
    *,
    tensorrt_include: Path | None = None,
    archs: Sequence[str] = (),
    out: Path | None = None,
    strict: bool = False,
) -> Path:
    """Compile the plugin, and write it completely or not at all, with its JSON file beside it.

    Parameters
    ----------
    tensorrt_include : folder of NvInferRuntime.h; ``find_tensorrt_include`` finds it by default.
    archs : compute capabilities without the point (``87``). If empty: on a Jetson its own,
        elsewhere those of ``ARCHITECTURES`` that this nvcc knows.
    out : path of the library; by default in edgeseg's cache.
    strict : make warnings errors.

    Returns
    -------
    The path of the library.

    Raises
    ------
    MissingDependencyError : nvcc or the headers are not installed.
    InputError : nvcc does not know an architecture, or the given folder has no headers.
    OutputError : ``out`` is not the name of a library.
    EngineError : the compiler fails, or the headers are too old.
    """
    nvcc = find_nvcc().absolute()
    include = find_tensorrt_include(tensorrt_include).absolute()
    version = tensorrt_version(include)
    wanted = _wanted_architectures(archs, nvcc)
    final = (out or default_path()).absolute()  # nvcc runs in another folder
    if final.suffix != ".so":
        expected = "a name that ends in .so"
        raise OutputError(f"{final}: not the name of a library", expected=expected)

    with atomic_path(final) as temporary:
        threads = usable_cores()
        _run(compile_command(nvcc, include, wanted, temporary, strict=strict, threads=threads))
        facts = {
            _SOURCES_SHA256: sources_sha256(),
            _LIBRARY_SHA256: sha256_file(temporary),
            "cuda": cuda_version(nvcc),
            _TENSORRT: version,
            "architectures": wanted,
        }
        # Write the JSON file before the library gets its name, so that no library is without one. A
        # JSON file without its library does no harm: the hash shows that it does not belong.
        write_json(facts_path(final), facts)
    return final


def _wanted_architectures(archs: Sequence[str], nvcc: Path) -> list[str]:
    """Return the compute capabilities to compile for; raise ``InputError`` for unknown ones."""
    if not archs:
        return _jetson_architecture(nvcc) or architectures(nvcc)

    known = _known_architectures(nvcc)
    unknown = [arch for arch in archs if arch not in known]
    if unknown:
        listed = ",".join(sorted(known, key=int))
        raise InputError(
            f"{nvcc} does not compile for {', '.join(unknown)}",
            expected=f"some of {listed}, such as `archs=87` on Jetson Orin",
        )
    return sorted(set(archs), key=int)


def _jetson_architecture(nvcc: Path) -> list[str]:
    """Return a Jetson's own compute capability; empty elsewhere, or if nvcc does not know it.

    A library that is built on a Jetson stays there, and its few cores have little memory to compile
    for others.
    """
    from edgeseg.backends.tensorrt import cuda

    if not cuda.has_gpu() or not cuda.is_integrated():
        return []
    return [arch for arch in architectures(nvcc) if arch == str(cuda.device()[1])]


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command; raise ``EngineError`` with its first error line if it fails."""
    done = run_child(command)
    if not done.returncode:
        return done

    lines = (done.stderr or done.stdout).strip().splitlines()
    if not lines:
        lines = [f"exit code {done.returncode}"]
    errors = [line for line in lines if re.search("error|fatal", line, re.I)]
    raise EngineError(
        f"{Path(command[0]).name} failed",
        got=(errors or lines)[0].strip(),
        hint=f"The whole call: {' '.join(command)}",
    )


# -- the library that was built --------------------------------------------------------------------


def default_path() -> Path:
    """Return the path in edgeseg's cache: the default of a build, and searched first."""
    return cache_folder() / "plugin" / LIBRARY


def installed_path() -> Path:
    """Return the path in the Python environment, for all its users; it is searched second."""
    return Path(sys.prefix) / "share" / "edgeseg" / LIBRARY


def facts_path(library: Path) -> Path:
    """Return the path of the JSON file beside a library.

    Parameters
    ----------
    library : path of the library.

    Examples
    --------
    >>> facts_path(Path("X.so")).name
    'X.so.json'
    """
    return library.with_name(library.name + ".json")


def plugin_library(path: Path | None = None, *, tensorrt: str | None = None) -> Path:
    """Return the path of the library that was built, if it is intact and made from these sources.

    Parameters
    ----------
    path : path of the library; by default in edgeseg's cache, or else in the Python environment.
    tensorrt : version of the TensorRT that will load it. Its major must be the one of the headers:
        from 10 to 11 the objects changed that TensorRT and a plugin exchange. ``None``: any.

    Raises
    ------
    MissingDependencyError : there is no library.
    EngineError : it is damaged, out of date, or made for another TensorRT.
    """
    if path is None and installed_path().is_file():
        try:
            return plugin_library(default_path(), tensorrt=tensorrt)
        except (MissingDependencyError, EngineError):
            return plugin_library(installed_path(), tensorrt=tensorrt)

    library = path or default_path()
    out = [] if library == default_path() else [f"out={path}"]
    call = f"`build_plugin({', '.join(out)})`"
    if not library.is_file():
        raise MissingDependencyError(
            "the TensorRT plugin is not built", expected=str(library), hint=f"Build it: {call}."
        )

    # The library's code runs when it is loaded: nobody else may have written it.
    if library == default_path():
        require_private_file(library)
        require_private_file(facts_path(library))

    again = f"Build it again: {call}."
    facts = _read_facts(library, again)
    if facts[_LIBRARY_SHA256] != sha256_file(library):
        raise EngineError(f"{library}: is not the library its JSON describes", hint=again)
    if facts[_SOURCES_SHA256] != sources_sha256():
        what = f"{library}: was built from other sources than this edgeseg has"
        raise EngineError(what, hint=again)

    built_with = str(facts[_TENSORRT])
    if tensorrt is not None and tensorrt.split(".")[0] != built_with.split(".")[0]:
        call = f"`build_plugin({', '.join([*out, 'tensorrt_include=DIR'])})`"
        raise EngineError(
            f"{library}: was built with the headers of another TensorRT",
            got=built_with,
            expected=tensorrt,
            hint=f"Build it again with that version's headers: {call}.",
        )
    return library


def _read_facts(library: Path, again: str) -> dict[str, object]:
    """Return the needed facts of a library's JSON file; raise ``EngineError`` if it has none."""
    try:
        facts = json.loads(facts_path(library).read_bytes())
        return {key: facts[key] for key in (_SOURCES_SHA256, _LIBRARY_SHA256, _TENSORRT)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{library}: nothing says what it was built from",
            expected=f"{facts_path(library).name} beside it",
            hint=again,
        ) from error
