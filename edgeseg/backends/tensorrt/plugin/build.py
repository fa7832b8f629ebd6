"""Building ``libedgeseg_plugin.so`` with nvcc, and finding the one that was built.

Nothing of TensorRT is linked: its headers are enough. A small JSON beside the library says what it was built from.
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

from edgeseg.errors import EngineError, InputError, MissingDependencyError, OutputError
from edgeseg.files import atomic_path, cache_folder, sha256_file, write_json

SOURCES = Path(__file__).resolve().parent
LIBRARY = "libedgeseg_plugin.so"
# Turing to Blackwell, by compute capability; Orin is 87, Thor 110.
ARCHITECTURES = ("75", "80", "86", "87", "89", "90", "100", "110", "120", "121")
OLDEST_TENSORRT = (10, 0, 0)  # the first with IPluginV3
# --fmad=false: the device rounds as the host and NumPy do; these kernels wait for memory anyway.
FLAGS = ("-std=c++17", "-O3", "--fmad=false", "-cudart", "static", "-Xcompiler", "-fPIC,-fvisibility=hidden")
LINK_FLAGS = ("-shared", "-Xlinker", "--no-undefined")
EXPORTS = SOURCES / "exports.map"
STRICT = ("-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror")

_NVCC_HINT = "sudo apt install cuda-nvcc-12-6 cuda-cudart-dev-12-6 (or your CUDA's number), from NVIDIA's apt source."
_HEADERS_HINT = (
    "sudo apt install libnvinfer-headers-dev; or give the folder of NvInferRuntime.h: "
    "`build_plugin(tensorrt_include=DIR)`."
)


def source_files() -> list[Path]:
    """What nvcc compiles, as ``sources.txt`` lists it; CMake reads the same list."""
    return [SOURCES / line for line in (SOURCES / "sources.txt").read_text().split()]


def sources_sha256() -> str:
    """One hash of everything the library is made from, the flags included."""
    digest = hashlib.sha256(repr((FLAGS, LINK_FLAGS)).encode())
    headers = [*SOURCES.glob("src/*.h"), *SOURCES.glob("include/*.h")]
    for path in sorted({*source_files(), *headers, EXPORTS}):
        digest.update(f"{path.relative_to(SOURCES)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def find_nvcc() -> Path:
    """CUDA's compiler. Raises ``MissingDependencyError``.

    On PATH, in ``$CUDA_HOME``, in /usr/local/cuda, which is the version the system is set to, or else the newest there.
    """
    homes = [Path(home) for name in ("CUDA_HOME", "CUDA_PATH") if (home := os.environ.get(name))]
    homes += [Path("/usr/local/cuda")]
    homes += sorted(Path("/usr/local").glob("cuda*"), key=_by_number, reverse=True)
    on_path = shutil.which("nvcc")
    for nvcc in [*([Path(on_path)] if on_path else []), *(home / "bin" / "nvcc" for home in homes)]:
        if os.access(nvcc, os.X_OK):
            return nvcc
    raise MissingDependencyError(
        "nvcc, CUDA's compiler, was not found", expected="it on PATH, in $CUDA_HOME/bin or in /usr/local/cuda*/bin",
        hint=_NVCC_HINT,
    )  # fmt: skip


def _by_number(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", path.name))


def find_tensorrt_include(given: Path | None = None) -> Path:
    """The folder of TensorRT's headers: the one given, ``$TENSORRT_INCLUDE``, or where packages put them.

    Raises ``InputError`` where a folder that was named has none, ``MissingDependencyError`` where none is found.
    """
    named = given or (Path(os.environ["TENSORRT_INCLUDE"]) if os.environ.get("TENSORRT_INCLUDE") else None)
    if named is not None:
        if not (named / "NvInferRuntime.h").is_file():
            raise InputError(
                f"{named}: no TensorRT headers", expected="a folder with NvInferRuntime.h", hint=_HEADERS_HINT
            )
        return named
    usual = [*sorted(Path("/usr/include").glob("*-linux-gnu")), Path("/usr/include"), Path("/usr/local/include")]
    usual.append(Path("/usr/local/tensorrt/include"))
    for folder in usual:
        if (folder / "NvInferRuntime.h").is_file():
            return folder
    raise MissingDependencyError("TensorRT's headers were not found", hint=_HEADERS_HINT)


def tensorrt_version(include: Path) -> str:
    """The version its headers say, such as ``10.3.0``. Raises ``EngineError`` for one without ``IPluginV3``."""
    path = include / "NvInferVersion.h"
    defined: dict[str, str] = dict(re.findall(r"^#define\s+(\w+)\s+(\w+)", path.read_text(errors="replace"), re.M))
    numbers: list[int] = []
    for part in ("MAJOR", "MINOR", "PATCH"):
        value = defined.get(f"NV_TENSORRT_{part}", "")
        value = defined.get(value, value)  # newer headers name it twice
        if not value.isdecimal():
            raise EngineError(f"{path}: does not say TensorRT's version", expected=f"#define NV_TENSORRT_{part} NUMBER")
        numbers.append(int(value))
    version = ".".join(map(str, numbers))
    if tuple(numbers) < OLDEST_TENSORRT:
        raise EngineError(
            f"{include}: TensorRT's headers are too old for the plugin", got=version,
            expected="10.0 or newer", hint="JetPack 6.1 and newer have it.",
        )  # fmt: skip
    return version


def architectures(nvcc: Path) -> list[str]:
    """Those of ``ARCHITECTURES`` that this nvcc compiles for."""
    known = set(re.findall(r"compute_(\d+)$", _run([str(nvcc), "--list-gpu-arch"]).stdout, re.M))
    return [arch for arch in ARCHITECTURES if arch in known]


def cuda_version(nvcc: Path) -> str:
    """CUDA's version, such as ``12.6``."""
    found = re.search(r"release (\d+\.\d+)", _run([str(nvcc), "--version"]).stdout)
    if found is None:
        raise EngineError(f"{nvcc}: does not say its version", expected="'release NUMBER' in its --version")
    return found[1]


def compile_command(
    nvcc: Path, include: Path, archs: Sequence[str], out: Path, *, strict: bool = False, threads: int = 1
) -> list[str]:
    """The call that builds the library for ``archs``, and as PTX of the highest for what comes after it."""
    highest = max(archs, key=int)
    targets = [("sm", arch) for arch in archs] + [("compute", highest)]
    flags = [f"-gencode=arch=compute_{arch},code={kind}_{arch}" for kind, arch in targets]
    return [
        str(nvcc), *FLAGS, *LINK_FLAGS, *(STRICT if strict else ()), *flags, f"--threads={threads}",
        "-Xlinker", f"--version-script={EXPORTS}",
        f"-I{SOURCES / 'include'}", f"-I{SOURCES / 'src'}", "-isystem", str(include),
        *map(str, source_files()), "-o", str(out),
    ]  # fmt: skip


def build_plugin(
    *, tensorrt_include: Path | None = None, archs: Sequence[str] = (), out: Path | None = None, strict: bool = False
) -> Path:
    """Compile the plugin and write it, whole or not at all, with its JSON beside it.

    Parameters
    ----------
    tensorrt_include : folder of NvInferRuntime.h; found where None.
    archs : compute capabilities without the point (``87``); where empty, a Jetson's own, and elsewhere those
        this nvcc knows of ``ARCHITECTURES``.
    out : the library's path; in edgeseg's cache where None.
    strict : take warnings as errors.

    Raises ``MissingDependencyError`` for what is not installed, ``InputError`` for an unknown architecture,
    ``EngineError`` where the compiler refuses.
    """
    nvcc, include = find_nvcc(), find_tensorrt_include(tensorrt_include)
    version = tensorrt_version(include)
    wanted = _checked(list(archs), nvcc) if archs else _its_own(nvcc) or architectures(nvcc)
    final = out or default_path()
    if final.suffix != ".so":
        raise OutputError(f"{final}: not the name of a library", expected="a name that ends in .so")
    with atomic_path(final) as temporary:
        threads = len(os.sched_getaffinity(0))
        _run(compile_command(nvcc, include, wanted, temporary, strict=strict, threads=threads))
        facts = {
            "sources_sha256": sources_sha256(),
            "library_sha256": sha256_file(temporary),
            "cuda": cuda_version(nvcc),
            "tensorrt": version,
            "architectures": wanted,
        }
        # Before the rename: a library that is there has its JSON. A JSON alone is of no library, and is not believed.
        write_json(facts_path(final), facts)
    return final


def _its_own(nvcc: Path) -> list[str]:
    """On a Jetson its compute capability: what is built stays there, and its few cores have little memory for others.

    Empty elsewhere, and where this nvcc does not know it.
    """
    from edgeseg.backends.tensorrt import cuda

    if not cuda.has_gpu() or not cuda.is_integrated():
        return []
    return [arch for arch in architectures(nvcc) if arch == str(cuda.device()[1])]


def _checked(archs: list[str], nvcc: Path) -> list[str]:
    known = set(re.findall(r"compute_(\d+)$", _run([str(nvcc), "--list-gpu-arch"]).stdout, re.M))
    if unknown := [arch for arch in archs if arch not in known]:
        raise InputError(
            f"{nvcc} does not compile for {', '.join(unknown)}",
            expected=f"some of {','.join(sorted(known, key=int))}, such as `archs=87` on Jetson Orin",
        )
    return sorted(set(archs), key=int)


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        first = next((line for line in said if "error" in line.lower() or "fatal" in line.lower()), said[0])
        raise EngineError(
            f"{Path(command[0]).name} failed", got=first.strip(), hint=f"The whole call: {' '.join(command)}"
        )
    return done


def default_path() -> Path:
    """Where the library is built where no other place is asked for, and looked for first."""
    return cache_folder() / "plugin" / LIBRARY


def installed_path() -> Path:
    """Where it is looked for next: in the Python environment, for all who use that."""
    return Path(sys.prefix) / "share" / "edgeseg" / LIBRARY


def facts_path(library: Path) -> Path:
    """The JSON beside a library: ``X.so`` has it at ``X.so.json``."""
    return library.with_name(library.name + ".json")


def plugin_library(path: Path | None = None, *, tensorrt: str | None = None) -> Path:
    """The library that was built, if it is whole and made from these sources.

    Parameters
    ----------
    path : where it is. Where None: in edgeseg's cache, or in the Python environment.
    tensorrt : version of the TensorRT that will load it. Its major must be that of the headers: between 10 and 11 the
        objects that TensorRT and a plugin hand each other have changed.

    Raises ``MissingDependencyError`` where there is none, ``EngineError`` where it is damaged, out of date, or made for
    another TensorRT.
    """
    if path is None and installed_path().is_file():
        try:
            return plugin_library(default_path(), tensorrt=tensorrt)
        except (MissingDependencyError, EngineError):
            return plugin_library(installed_path(), tensorrt=tensorrt)
    library = path or default_path()
    out = [] if library == default_path() else [f"out={path}"]
    again = f"`build_plugin({', '.join(out)})`"
    if not library.is_file():
        raise MissingDependencyError(
            "the TensorRT plugin is not built", expected=str(library), hint=f"Build it: {again}."
        )
    try:
        facts = json.loads(facts_path(library).read_bytes())
        of_sources, of_library, of_tensorrt = (facts[key] for key in ("sources_sha256", "library_sha256", "tensorrt"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{library}: nothing says what it was built from", expected=f"{facts_path(library).name} beside it",
            hint=f"Build it again: {again}.",
        ) from error  # fmt: skip
    if of_library != sha256_file(library):
        raise EngineError(f"{library}: is not the library its JSON describes", hint=f"Build it again: {again}.")
    if of_sources != sources_sha256():
        raise EngineError(
            f"{library}: was built from other sources than this edgeseg has", hint=f"Build it again: {again}."
        )
    if tensorrt is not None and tensorrt.split(".")[0] != str(of_tensorrt).split(".")[0]:
        raise EngineError(
            f"{library}: was built with the headers of another TensorRT", got=of_tensorrt, expected=tensorrt,
            hint="Build it again with that version's headers: "
            f"`build_plugin({', '.join([*out, 'tensorrt_include=DIR'])})`.",
        )  # fmt: skip
    return library
