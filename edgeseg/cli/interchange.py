"""Write a model for NVIDIA's servers: what ``export --triton`` and ``export --deepstream`` do."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.cli.console import escape, stdout, tell_assumed, waiting
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.graph.network import Overrides


def find_exported(name: str) -> Path | None:
    """Return the ONNX file or engine of a name; ``None`` if it has to be exported first.

    Parameters
    ----------
    name : a file, a PyTorch factory, or a model that ships with edgeseg.

    Examples
    --------
    >>> find_exported("net.onnx")
    PosixPath('net.onnx')
    >>> find_exported("my_models:UNet")
    """
    path = Path(name)
    if path.suffix.lower() in (".onnx", ".engine"):
        return path
    if path.exists():
        return None

    from edgeseg.zoo import zoo

    return zoo().get(name)


def require_no_export_options(name: str, options: list[str]) -> None:
    """Raise ``InputError`` if options of the export were given for a file that needs no export.

    Parameters
    ----------
    name : the file, for the error.
    options : the options of the export that were given.
    """
    if options:
        raise InputError(
            f"{name}: needs no export", got=", ".join(options), hint="Leave these options out."
        )


def write_for_servers(
    path: Path, triton: Path | None, deepstream: Path | None, overrides: "Overrides | None"
) -> None:
    """Write the folders for Triton and DeepStream, and print what to do next.

    Parameters
    ----------
    path : an ONNX file or, for Triton, an engine.
    triton : model repository of Triton; None to write none.
    deepstream : folder for DeepStream; None to write none.
    overrides : facts of an ONNX file without a spec; None if it has one.

    Raises
    ------
    InputError : the file is of another kind, or facts are given for an engine.
    """
    suffix = path.suffix.lower()
    if suffix == ".engine":
        _write_engine(path, triton, deepstream, overrides)
    elif suffix == ".onnx":
        _write_onnx(path, triton, deepstream, overrides)
    else:
        raise InputError(f"{path}: not an ONNX file", hint="Give -o NAME.onnx, or leave -o out.")


def _write_engine(
    path: Path, triton: Path | None, deepstream: Path | None, overrides: "Overrides | None"
) -> None:
    """Write the folder of an engine; only Triton takes one."""
    from edgeseg.serving.deepstream import refuse_engine
    from edgeseg.serving.triton import triton_from_engine

    if deepstream:
        refuse_engine(path)
    if overrides is not None and (overrides.given() or overrides.labels):
        raise InputError(
            f"{path}: an engine has its spec compiled in",
            hint="Give --size, --mean and the like to edgeseg build-engine.",
        )
    if triton:
        _tell_next(triton_from_engine(path, triton), _triton_command(triton))


def _write_onnx(
    path: Path, triton: Path | None, deepstream: Path | None, overrides: "Overrides | None"
) -> None:
    """Write the folders of an ONNX file."""
    from edgeseg.graph.network import load_network
    from edgeseg.serving.deepstream import deepstream_from_network
    from edgeseg.serving.triton import triton_from_network

    with waiting(f"reading {path}"):
        network = load_network(path, overrides)
    tell_assumed(network.assumed)

    if triton:
        _tell_next(triton_from_network(network, triton), _triton_command(triton))
    if deepstream:
        folder = deepstream_from_network(network, deepstream)
        _tell_next(folder, f"follow {folder / 'README.txt'} on the machine that runs DeepStream")


def _triton_command(repository: Path) -> str:
    """Return the command that serves a model repository."""
    return f"tritonserver --model-repository={repository}"


def _tell_next(folder: Path, step: str) -> None:
    """Print which folder was written, and the next step."""
    stdout().print(
        f"wrote {escape(str(folder))}; next: {escape(step)}", soft_wrap=True, highlight=False
    )
