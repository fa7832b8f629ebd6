"""``edgeseg build-plugin``: what it finds, says and writes; and the library, with nvcc and
TensorRT's headers.

The headers are those of the folders in EDGESEG_TENSORRT_INCLUDES (a list with colons), or the
system's.
EDGESEG_PLUGIN_ARCHS is what is compiled for: a list with commas, or `all`; without it, one
architecture.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import edgeseg
from plugin_host import SANITIZERS, WARNINGS

from benchmarks.gpu import bandwidth, pictures
from edgeseg.backends.tensorrt import cuda
from edgeseg.backends.tensorrt.plugin import build
from edgeseg.cli.build_plugin import parse_archs
from edgeseg.errors import (
    EdgesegError,
    EngineError,
    InputError,
    MissingDependencyError,
    OutputError,
)

EXPORTED = {
    "getCreators",
    "setLoggerFinder",
    "edgeseg_plugin_version",
    "edgeseg_plugin_build",
    "edgeseg_preprocess",
    "edgeseg_overlay_scores",
    "edgeseg_overlay_labels",
}
ALL = ["75", "87", "90"]  # of ARCHITECTURES, those FAKE_NVCC knows
NO_DEVICE = 77  # the exit code of tests/gpu.cu

# Answers as nvcc does; "compiles" by writing its arguments, or fails.
FAKE_NVCC = """#!/bin/sh
case "$*" in
  --list-gpu-arch) printf 'compute_75\\ncompute_87\\ncompute_88\\ncompute_90\\n'; exit ;;
  --version) echo 'Cuda compilation tools, release 12.6, V12.6.1'; exit ;;
esac
if [ -n "$FAKE_NVCC_FAILS" ]; then echo 'kernels.cu(3): error: no such thing' >&2; exit 2; fi
out=; arguments="$*"
while [ $# -gt 0 ]; do if [ "$1" = -o ]; then out="$2"; fi; shift; done
echo "$arguments" > "$out"
"""


def write_headers(
    folder: Path, version: tuple[int, int, int] = (10, 3, 0), *, twice: bool = False
) -> Path:
    """What stands for TensorRT's headers: a version, named as 10.3 does or, `twice`, as newer ones
    do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "NvInferRuntime.h").write_text("")
    lines = []
    for part, number in zip(("MAJOR", "MINOR", "PATCH"), version, strict=True):
        if twice:
            lines += [
                f"#define TRT_{part}_ENTERPRISE {number}",
                f"#define NV_TENSORRT_{part} TRT_{part}_ENTERPRISE //!",
            ]
        else:
            lines.append(f"#define NV_TENSORRT_{part} {number} //!< a comment")
    (folder / "NvInferVersion.h").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a stand-in for nvcc and for the headers; returns the headers' folder."""
    nvcc = tmp_path / "cuda" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(FAKE_NVCC)
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{nvcc.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "cache"))
    return write_headers(tmp_path / "include")


def test_a_built_library_is_found_until_something_changes(
    toolchain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingDependencyError, match=r"not built.*`build_plugin\(\)`"):
        build.plugin_library()
    path = build.build_plugin(tensorrt_include=toolchain)
    assert path == build.plugin_library() == build.default_path()
    facts = json.loads(build.facts_path(path).read_bytes())
    assert (facts["tensorrt"], facts["cuda"], facts["architectures"]) == (
        "10.3.0",
        "12.6",
        ["75", "87", "90"],
    )
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f"{path.name}.json"]
    call = path.read_text()
    assert "arch=compute_87,code=sm_87" in call
    assert "arch=compute_90,code=compute_90" in call

    assert build.plugin_library(tensorrt="10.16.2") == path
    with pytest.raises(
        EngineError,
        match=r"another TensorRT: got 10.3.0, expected 11.1.0.*`build_plugin\(tensorrt_inc",
    ):
        build.plugin_library(tensorrt="11.1.0")
    with monkeypatch.context() as other:
        other.setattr(build, "sources_sha256", lambda: "another")
        with pytest.raises(EngineError, match="other sources"):
            build.plugin_library()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        EngineError, match=r"not the library its JSON describes.*`build_plugin\(\)`"
    ):
        build.plugin_library()
    build.facts_path(path).write_text("{")
    with pytest.raises(EngineError, match="nothing says what it was built from"):
        build.plugin_library()


def test_a_library_of_the_environment_is_found(
    toolchain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed for everybody: used where the cache has none, or none that fits."""
    installed = tmp_path / "share" / "edgeseg" / build.LIBRARY
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert build.build_plugin(tensorrt_include=toolchain, out=build.installed_path()) == installed
    assert build.plugin_library() == installed
    cached = build.build_plugin(tensorrt_include=toolchain)
    assert build.plugin_library() == cached
    cached.write_bytes(b"damaged")
    assert build.plugin_library() == installed
    installed.write_bytes(b"damaged")
    with pytest.raises(
        EngineError, match=rf"{installed}: is not the library.*`build_plugin\(out={installed}\)`"
    ):
        build.plugin_library()


def test_a_failed_build_leaves_the_library_before(
    toolchain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build.build_plugin(tensorrt_include=toolchain)
    before = path.read_bytes()
    monkeypatch.setenv("FAKE_NVCC_FAILS", "1")
    with pytest.raises(
        EngineError, match=r"nvcc failed: got kernels.cu\(3\): error: no such thing"
    ):
        build.build_plugin(tensorrt_include=toolchain)
    assert path.read_bytes() == before
    assert build.plugin_library() == path


def test_the_command(toolchain: Path, tmp_path: Path) -> None:
    out = tmp_path / "here.so"
    done = edgeseg(
        "build-plugin", "--tensorrt-include", toolchain, "--arch", "8.7,sm_75", "-o", out
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"wrote {out} (TensorRT 10.3.0, CUDA 12.6, sm_75, sm_87)"
    done = edgeseg("build-plugin", "--tensorrt-include", toolchain, "--arch", "33", "-o", out)
    assert done.returncode == 2
    assert "does not compile for 33: expected some of 75,87,88,90" in done.stderr


def test_a_jetson_builds_for_itself(toolchain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "has_gpu", lambda: True)
    for integrated, capability, archs in ((True, 87, ["87"]), (True, 999, ALL), (False, 87, ALL)):
        monkeypatch.setattr(cuda, "is_integrated", lambda integrated=integrated: integrated)
        monkeypatch.setattr(cuda, "device", lambda capability=capability: ("Orin", capability))
        path = build.build_plugin(tensorrt_include=toolchain)
        assert json.loads(build.facts_path(path).read_bytes())["architectures"] == archs


def test_what_is_missing_is_named(
    toolchain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"no TensorRT headers.*libnvinfer-headers-dev"):
        build.find_tensorrt_include(tmp_path)
    monkeypatch.setenv("TENSORRT_INCLUDE", str(toolchain))
    assert build.find_tensorrt_include() == toolchain
    monkeypatch.delenv("TENSORRT_INCLUDE")
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    with pytest.raises(MissingDependencyError, match="libnvinfer-headers-dev"):
        build.find_tensorrt_include()
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"nvcc.*cuda-nvcc-12-6"):
        build.find_nvcc()


def test_the_systems_cuda_is_taken_before_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer toolkit beside it links a runtime that the driver may refuse."""
    there = {Path(f"/usr/local/{name}/bin/nvcc") for name in ("cuda", "cuda-12.6", "cuda-13.2")}
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(os, "access", lambda path, mode: path in there)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [path.parent.parent for path in there])
    assert build.find_nvcc() == Path("/usr/local/cuda/bin/nvcc")
    there.remove(Path("/usr/local/cuda/bin/nvcc"))
    assert build.find_nvcc() == Path("/usr/local/cuda-13.2/bin/nvcc")


def test_nvcc_is_found_in_cuda_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(FAKE_NVCC)
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert build.find_nvcc() == nvcc


def test_versions_are_read_from_the_headers(tmp_path: Path) -> None:
    assert build.tensorrt_version(write_headers(tmp_path / "a", (10, 3, 0))) == "10.3.0"
    assert build.tensorrt_version(write_headers(tmp_path / "b", (11, 1, 0), twice=True)) == "11.1.0"
    with pytest.raises(EngineError, match=r"too old for the plugin: got 8.6.1, expected 10.0"):
        build.tensorrt_version(write_headers(tmp_path / "c", (8, 6, 1)))
    (tmp_path / "c" / "NvInferVersion.h").write_text("")
    with pytest.raises(EngineError, match="does not say TensorRT's version"):
        build.tensorrt_version(tmp_path / "c")


@pytest.mark.parametrize("text", ["", "87,", "orin", "sm_", "8.7a", "-87"])
def test_a_bad_list_of_architectures(text: str) -> None:
    with pytest.raises(InputError, match="not a list of compute capabilities"):
        parse_archs(text)


def test_another_name_than_a_librarys_is_refused(toolchain: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not the name of a library"):
        build.build_plugin(tensorrt_include=toolchain, out=tmp_path / "plugin.txt")


def test_every_source_is_in_the_package_and_listed() -> None:
    assert {path.name for path in build.source_files()} == {
        path.name for path in build.SOURCES.glob("src/*.c*")
    }
    assert all(path.is_file() for path in build.source_files())


# ---- with nvcc and TensorRT's headers ----


def _header_folders() -> list[Path]:
    if listed := os.environ.get("EDGESEG_TENSORRT_INCLUDES"):
        return [Path(folder) for folder in listed.split(":")]
    try:
        return [build.find_tensorrt_include()]
    except EdgesegError:
        return []


_HEADERS: list[Any] = _header_folders() or [
    pytest.param(
        None, marks=pytest.mark.skip("TensorRT's headers are not here (EDGESEG_TENSORRT_INCLUDES)")
    )
]


def _archs(nvcc: Path) -> list[str]:
    known = build.architectures(nvcc)
    asked = os.environ.get("EDGESEG_PLUGIN_ARCHS", "87")
    return (
        known
        if asked == "all"
        else [arch for arch in asked.split(",") if arch in known] or known[:1]
    )


@pytest.fixture(scope="module")
def nvcc() -> Path:
    try:
        return build.find_nvcc()
    except MissingDependencyError:
        pytest.skip("nvcc is not here")


def _compile(nvcc: Path, include: Path, source: str, out: Path, *flags: str) -> Path:
    """A program of ``backends/tensorrt/plugin/tests``; nvcc knows where CUDA's headers are."""
    folders = [f"-I{build.SOURCES / part}" for part in ("include", "src", "tests")]
    warnings = ["-Werror", "all-warnings", "-Xcompiler", ",".join(WARNINGS)]
    command = [str(nvcc), "-std=c++17", *warnings, *flags, *folders, "-isystem", str(include)]
    done = subprocess.run(
        [*command, str(build.SOURCES / "tests" / source), "-o", str(out), "-ldl"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
@pytest.mark.parametrize("include", _HEADERS, ids=str)
def test_the_library_without_tensorrt(nvcc: Path, include: Path, tmp_path: Path) -> None:
    """Compiles with warnings as errors, exports what it should, needs no library of NVIDIA's, and
    passes the driver.
    """
    library = build.build_plugin(
        tensorrt_include=include,
        archs=_archs(nvcc),
        out=tmp_path / "libedgeseg_plugin.so",
        strict=True,
    )
    assert build.plugin_library(library) == library
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[-1] for line in symbols.splitlines()} == EXPORTED
    dynamic = subprocess.run(
        ["readelf", "-d", library], capture_output=True, text=True, check=True
    ).stdout
    needed = [line for line in dynamic.splitlines() if "NEEDED" in line]
    assert needed
    assert not [line for line in needed if "nvinfer" in line or "cuda" in line]

    sanitizers = ["-cudart", "none", "-Xcompiler", ",".join(SANITIZERS)]
    driver = _compile(nvcc, include, "driver.cpp", tmp_path / "driver", "-O1", "-g", *sanitizers)
    done = subprocess.run([driver, library], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" checks, 0 failed\n")


def _on_the_cpu(
    nvcc: Path, include: Path, folder: Path, device: Path
) -> "subprocess.CompletedProcess[str]":
    """``tests/gpu.cu`` and the library, whole but for the kernels' launches, on a device that is
    the processor.
    """
    folders = [f"-I{build.SOURCES / part}" for part in ("include", "src", "tests")]
    host = ",".join([*WARNINGS, *SANITIZERS, "-ffp-contract=off"])
    flags = [
        "-std=c++17",
        "-O1",
        "-g",
        "-cudart",
        "none",
        "-x",
        "c++",
        *folders,
        "-isystem",
        str(include),
    ]
    program, library = folder / "gpu", folder / "libedgeseg_plugin.so"
    sources = [
        build.SOURCES / "src" / "plugins.cpp",
        build.SOURCES / "host" / "library.cpp",
        device,
    ]
    for words in (
        ["-Xcompiler", host, build.SOURCES / "tests" / "gpu.cu", device, "-ldl", "-o", program],
        ["-Xcompiler", f"{host},-fPIC", "-shared", *sources, "-o", library],
    ):
        compiled = subprocess.run(
            [str(nvcc), *flags, *map(str, words)], capture_output=True, text=True
        )
        assert compiled.returncode == 0, compiled.stderr
    return subprocess.run([program, library, "--brief"], capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("include", _HEADERS, ids=str)
def test_the_devices_program_finds_what_is_there(nvcc: Path, include: Path, tmp_path: Path) -> None:
    """It compares and measures under sanitizers, and ``benchmarks.gpu`` reads every line of it."""
    done = _on_the_cpu(nvcc, include, tmp_path, build.SOURCES / "host" / "device.cpp")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if " copy " in line]
    assert (
        len(bandwidth(done.stdout)) + len(pictures(done.stdout)) == len(lines) - 1
    )  # the first one says what it is
    assert len({row["form"] for row in bandwidth(done.stdout)}) >= 4
    kernels = {"preprocess bgr", "preprocess nv12", "overlay bgr", "overlay nv12"}
    assert {row["kernel"] for row in pictures(done.stdout)} == kernels


@pytest.mark.slow
@pytest.mark.parametrize("include", _HEADERS[:1], ids=str)
def test_the_devices_program_finds_what_is_wrong(nvcc: Path, include: Path, tmp_path: Path) -> None:
    device = tmp_path / "device.cpp"
    whole = (build.SOURCES / "host" / "device.cpp").read_text()
    device.write_text(
        whole.replace("return max_unpool(call, EachItem{});", "return call.windows.n < 3 ? 0 : 1;")
    )
    done = _on_the_cpu(nvcc, include, tmp_path, device)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED: unpooled, fp32 linear, 1x1x2x2" in done.stdout
    assert "FAILED: enqueue, fp16 linear, 3x33x8x16" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("include", _HEADERS[:1], ids=str)
def test_on_a_device(nvcc: Path, include: Path, tmp_path: Path) -> None:
    """Compiled wherever nvcc is; runs where there is a device: the same bits as on the host."""
    archs = _archs(nvcc)
    targets = [f"-gencode=arch=compute_{arch},code=[sm_{arch},compute_{arch}]" for arch in archs]
    flags = ["-O2", "--fmad=false", "-Xcompiler", "-ffp-contract=off", *targets]
    program = _compile(nvcc, include, "gpu.cu", tmp_path / "gpu", *flags)
    library = tmp_path / "libedgeseg_plugin.so"
    if subprocess.run([program, library], capture_output=True).returncode == NO_DEVICE:
        pytest.skip("compiled; no CUDA device to run it")
    build.build_plugin(tensorrt_include=include, archs=archs, out=library, strict=True)
    done = subprocess.run([program, library], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
