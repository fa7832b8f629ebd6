"""What ``export --triton`` and ``--deepstream`` do: hand a net to NVIDIA's servers, in the form those take."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.cli.console import escape, stdout, tell_assumed, waiting
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.graph.network import Overrides


def finished(net: str) -> Path | None:
    """The ONNX file or engine that ``net`` is or, for a net that ships, has; ``None`` where it is still to export."""
    path = Path(net)
    if path.suffix.lower() in (".onnx", ".engine"):
        return path
    if path.exists():
        return None
    from edgeseg.zoo import zoo

    return zoo().get(net)


def require_nothing_to_export(net: str, flags: Mapping[str, object]) -> None:
    """Raise ``InputError`` for a flag of the export itself, given with a net that needs none."""
    for flag, value in flags.items():
        if value:
            raise InputError(f"{net}: is exported already", got=flag, hint="Leave the flag out.")


def hand_over(path: Path, triton: Path | None, deepstream: Path | None, overrides: "Overrides | None") -> None:
    """Write the folders asked for from an ONNX file or, for Triton, an engine; say what is next."""
    if path.suffix.lower() == ".engine":
        from edgeseg.serving.deepstream import refuse_engine
        from edgeseg.serving.triton import triton_from_engine

        if deepstream:
            refuse_engine(path)
        if overrides is not None and (overrides.given() or overrides.labels):
            raise InputError(f"{path}: an engine has its spec compiled in", hint="Give those flags to build-engine.")
        if triton:
            _tell(triton_from_engine(path, triton), f"tritonserver --model-repository={triton}")
        return
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: not an ONNX file", hint="Give -o NAME.onnx, or leave -o out.")
    from edgeseg.graph.network import load_network
    from edgeseg.serving.deepstream import deepstream_from_network
    from edgeseg.serving.triton import triton_from_network

    with waiting(f"reading {path}"):
        network = load_network(path, overrides)
    tell_assumed(network.assumed)
    if triton:
        _tell(triton_from_network(network, triton), f"tritonserver --model-repository={triton}")
    if deepstream:
        folder = deepstream_from_network(network, deepstream)
        _tell(folder, f"the lines of {folder / 'README.txt'}, where DeepStream is")


def _tell(folder: Path, following: str) -> None:
    stdout().print(f"wrote {escape(str(folder))}; next: {escape(following)}", soft_wrap=True, highlight=False)
