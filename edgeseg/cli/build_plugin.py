"""``build-plugin``: the TensorRT plugin, from its sources."""

import json
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, stdout, waiting
from edgeseg.errors import InputError


@app.command("build-plugin")
def build_plugin(
    tensorrt_include: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of NvInferRuntime.h, where it is not a usual one.")
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Compute capabilities, as 87 or 75,86. Default: a Jetson's own, else all."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="The library to write.")] = None,
) -> None:
    """Compile the TensorRT plugin for unpooling nets; needs nvcc and TensorRT's headers, no GPU."""
    from edgeseg.backends.tensorrt.plugin import build

    archs = parse_archs(arch) if arch is not None else []
    with waiting("compiling the TensorRT plugin"):
        path = build.build_plugin(tensorrt_include=tensorrt_include, archs=archs, out=output)
    facts = json.loads(build.facts_path(path).read_bytes())
    built = f"TensorRT {facts['tensorrt']}, CUDA {facts['cuda']}, sm_{', sm_'.join(facts['architectures'])}"
    stdout().print(f"{escape(str(path))}  ({escape(built)})", soft_wrap=True, highlight=False)


def parse_archs(text: str) -> list[str]:
    """``75,8.6,sm_89`` -> 75, 86, 89."""
    archs = [part.strip().removeprefix("sm_").replace(".", "") for part in text.split(",")]
    if not all(arch.isascii() and arch.isdecimal() for arch in archs):
        raise InputError("not a list of compute capabilities", got=repr(text), expected="such as 87 or 75,86,89")
    return archs
