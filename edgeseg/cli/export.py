"""``export``: a checkpoint or a PyTorch module to an ONNX file, Triton or DeepStream."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, needs, stdout, waiting
from edgeseg.cli.options import (
    Json,
    require_json,
    spec_flags,
    write_report,
)

if TYPE_CHECKING:
    from edgeseg.graph.network import Overrides


@app.command()
@spec_flags
def export(
    net: Annotated[
        str,
        typer.Argument(
            metavar="NET",
            help="A best.pt of edgeseg train, or a PyTorch net: package.module:factory. With --triton or --deepstream "
            "also an ONNX file, a net that ships or, for Triton, a TensorRT engine.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The ONNX file to write; a checkpoint again, if NAME.pt.")
    ] = None,
    arg: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An argument of the factory; may be repeated.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="State dict to load into the factory's net.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store the weights in FP16: half the file.")] = False,
    triton: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Put the net into this model repository of Triton.")
    ] = None,
    deepstream: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the net for DeepStream's nvinfer into this folder.")
    ] = None,
    *,
    overrides: "Overrides",
    json_file: Json = None,
) -> None:
    """Write a net as an ONNX file with its spec inside, checked against PyTorch.

    A net that is not edgeseg's needs --size, and --labels where its classes have names.
    """
    from edgeseg.cli import interchange

    require_json(json_file, out)
    path = interchange.finished(net) if triton or deepstream else None
    if path is not None:
        flags = {"--out": out, "--arg": arg, "--weights": weights, "--half": half}
        interchange.require_nothing_to_export(net, flags)
        interchange.hand_over(path, triton, deepstream, overrides)
        return
    with needs("train"), waiting(f"exporting {net}"):
        from edgeseg.export.user_module import is_factory

        if is_factory(net) and not Path(net).exists():
            path = _export_foreign(net, arg or [], weights, out, overrides, half)
        else:
            path = _export_checkpoint(net, arg, weights, out, overrides, half)
    write_report(json_file, {"onnx": str(path), "bytes": path.stat().st_size})
    stdout().print(f"wrote {escape(str(path))} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)
    if triton or deepstream:
        interchange.hand_over(path, triton, deepstream, None)


def _export_checkpoint(
    net: str, arg: list[str] | None, weights: Path | None, out: Path | None, overrides: "Overrides", half: bool
) -> Path:
    from edgeseg.errors import InputError
    from edgeseg.export.onnx_from_torch import export_checkpoint

    given = {k: v for k, v in vars(overrides).items() if v is not None and k != "size"}
    if given or arg or weights:
        raise InputError(
            f"{net}: a checkpoint has its spec inside", got=f"--{next(iter(given), 'arg' if arg else 'weights')}",
            expected="at most --size", hint="For a net of your own give package.module:factory.",
        )  # fmt: skip
    return export_checkpoint(net, out, overrides.size, half=half)


def _export_foreign(
    name: str, arg: list[str], weights: Path | None, out: Path | None, overrides: "Overrides", half: bool
) -> Path:
    from edgeseg.export.onnx_from_torch import export_foreign
    from edgeseg.export.user_module import build_module, parse_arguments

    module = build_module(name, parse_arguments(arg), weights)
    return export_foreign(module, name.partition(":")[2], overrides, out, half=half)
