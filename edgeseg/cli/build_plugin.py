"""Define ``build-plugin``: compile edgeseg's TensorRT plugin from its sources."""

import json
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import escape, stdout, waiting
from edgeseg.errors import InputError


@command("build-plugin")
def build_plugin(
    tensorrt_include: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that holds NvInferRuntime.h, if it is not in one of the usual places.",
        ),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Compute capabilities, such as 75,86. Default: a Jetson's own, elsewhere all.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The library to write."),
    ] = None,
) -> None:
    """Compile edgeseg's CUDA library for TensorRT: pooling with positions, unpooling, pictures.

    Needs nvcc (CUDA toolkit) and the headers of TensorRT, but no GPU.
    """
    from edgeseg.backends.tensorrt.plugin import build

    archs = parse_archs(arch) if arch is not None else []
    with waiting("compiling the TensorRT plugin"):
        path = build.build_plugin(tensorrt_include=tensorrt_include, archs=archs, out=output)

    facts = json.loads(build.facts_path(path).read_bytes())
    architectures = ", ".join(f"sm_{arch}" for arch in facts["architectures"])
    versions = f"TensorRT {facts['tensorrt']}, CUDA {facts['cuda']}, {architectures}"
    stdout().print(
        f"wrote {escape(str(path))} ({escape(versions)})", soft_wrap=True, highlight=False
    )


def parse_archs(text: str) -> list[str]:
    """Parse compute capabilities.

    Parameters
    ----------
    text : capabilities with commas between them: ``86``, ``8.6`` or ``sm_86``.

    Returns
    -------
    The capabilities as digits.

    Raises
    ------
    InputError : the text is not such a list.

    Examples
    --------
    >>> parse_archs("75,8.6,sm_89")
    ['75', '86', '89']
    """
    archs = [part.strip().removeprefix("sm_").replace(".", "") for part in text.split(",")]
    if not all(arch.isascii() and arch.isdecimal() for arch in archs):
        raise InputError(
            "--arch: not a list of compute capabilities",
            got=repr(text),
            expected="numbers such as 87 or 75,86,89",
        )
    return archs
