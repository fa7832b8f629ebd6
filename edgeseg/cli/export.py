"""Define ``export``: write a PyTorch model as an ONNX file, for Triton or for DeepStream."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import interchange
from edgeseg.cli.app import command
from edgeseg.cli.console import needs, tell_written, waiting
from edgeseg.cli.groups import option_groups
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import Json, SpecOptions
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.graph.network import Overrides

SERVERS_PANEL = "NVIDIA's servers"


@dataclass(frozen=True)
class ExportOptions:
    """Hold the options of the export to ONNX itself.

    Attributes
    ----------
    out : the file to write.
    arg : arguments of a PyTorch factory, ``NAME=VALUE`` each.
    weights : file with the weights of the factory's model.
    half : store the weights in FP16.
    """

    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="The ONNX file to write. NAME.pt writes a checkpoint with the spec instead.",
        ),
    ] = None
    arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="An argument of the factory. Repeat for more arguments."
        ),
    ] = None
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="State dict to load into the factory's model."),
    ] = None
    half: Annotated[
        bool, typer.Option("--half", help="Store the weights in FP16: half the file size.")
    ] = False

    def given(self) -> list[str]:
        """Return the options that were used."""
        values = {
            "--out": self.out,
            "--arg": self.arg,
            "--weights": self.weights,
            "--half": self.half,
        }
        return [option for option, value in values.items() if value]


@command()
@option_groups
def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A best.pt of edgeseg train, or a PyTorch model as package.module:factory. With "
            "--triton or --deepstream also an ONNX file or a model that ships with edgeseg; with "
            "--triton also a TensorRT engine.",
        ),
    ],
    export_options: ExportOptions,
    spec: SpecOptions,
    triton: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Add the model to this model repository of Triton.",
            rich_help_panel=SERVERS_PANEL,
        ),
    ] = None,
    deepstream: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write the model and its configuration for DeepStream's nvinfer.",
            rich_help_panel=SERVERS_PANEL,
        ),
    ] = None,
    json_file: Json = None,
) -> None:
    r"""Write a model as an ONNX file with its spec inside, and check it against PyTorch.

    Needs PyTorch: pip install "edgeseg\[train]". A model of your own needs --size, and --labels if
    its classes have names.
    """
    require_json(json_file, export_options.out)
    overrides = spec.overrides()

    # An ONNX file or an engine goes to the servers as it is.
    if triton or deepstream:
        exported = interchange.find_exported(model)
        if exported is not None:
            interchange.require_no_export_options(model, export_options.given())
            interchange.write_for_servers(exported, triton, deepstream, overrides)
            return

    with needs("train"), waiting(f"exporting {model}"):
        path = _export(model, export_options, overrides)
    write_report(json_file, {"onnx": str(path), "bytes": path.stat().st_size})
    tell_written(path, f"{path.stat().st_size / 1e6:.1f} MB")
    if triton or deepstream:
        interchange.write_for_servers(path, triton, deepstream, None)


def _export(model: str, options: ExportOptions, overrides: "Overrides") -> Path:
    """Write a PyTorch factory's model, or a checkpoint."""
    from edgeseg.export.user_module import is_factory

    if is_factory(model) and not Path(model).exists():
        return _export_factory(model, options, overrides)
    return _export_checkpoint(model, options, overrides)


def _export_checkpoint(checkpoint: str, options: ExportOptions, overrides: "Overrides") -> Path:
    """Write a checkpoint; refuse facts that it has inside."""
    from edgeseg.export.onnx_from_torch import export_checkpoint

    facts = [
        name for name, value in vars(overrides).items() if value is not None and name != "size"
    ]
    refused = [f"--{name}" for name in facts]
    refused += [option for option in options.given() if option in ("--arg", "--weights")]
    if refused:
        raise InputError(
            f"{checkpoint}: a checkpoint has its spec inside",
            got=", ".join(refused),
            expected="at most --size",
            hint="For a model of your own, give package.module:factory.",
        )
    return export_checkpoint(checkpoint, options.out, overrides.size, half=options.half)


def _export_factory(name: str, options: ExportOptions, overrides: "Overrides") -> Path:
    """Write the model that ``package.module:factory`` returns."""
    from edgeseg.export.onnx_from_torch import export_foreign
    from edgeseg.export.user_module import build_module, parse_arguments

    module = build_module(name, parse_arguments(options.arg or []), options.weights)
    factory = name.partition(":")[2]
    return export_foreign(module, factory, overrides, options.out, half=options.half)
