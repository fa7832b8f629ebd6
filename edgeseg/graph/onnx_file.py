"""Read ONNX files, with the weights that lie beside them, and compute a digest over both."""

import hashlib
from pathlib import Path

import onnx

from edgeseg.errors import GraphError, InputError
from edgeseg.files import sha256_file
from edgeseg.graph.passes.canonicalize import canonicalize


def digest_onnx(path: Path, data: bytes | None = None) -> str:
    """Return the SHA-256 of an ONNX file and of the files that hold its weights, as hex digits.

    Parameters
    ----------
    path : the ONNX file.
    data : its bytes, if they are read already.
    """
    data = path.read_bytes() if data is None else data
    digest = hashlib.sha256(data)
    for name in _external_files(data):
        external = path.parent / name
        digest.update(sha256_file(external).encode() if external.is_file() else b"missing")
    return digest.hexdigest()


def _external_files(data: bytes) -> list[str]:
    """Return the names of the files that hold weights.

    ``torch.onnx.export`` writes one for large models.
    """
    if b"location" not in data:  # the key every external tensor has: most files need no parsing
        return []
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # not ONNX: read_onnx says so
        return []

    locations: set[str] = set()
    for tensor in model.graph.initializer:
        locations |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    return sorted(locations)


def read_onnx(path: str | Path) -> tuple[onnx.ModelProto, str]:
    """Read an ONNX file, with its external weights, in canonical form.

    Parameters
    ----------
    path : the ONNX file.

    Returns
    -------
    The graph after ``canonicalize``, and the file's ``digest_onnx``.

    Raises
    ------
    InputError : there is no such file.
    GraphError : the file is no ONNX graph, or a file with its weights is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such ONNX file", got=repr(str(path)))

    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own exception types vary with its backend
        raise GraphError(
            f"{path}: not an ONNX file",
            got=_looks_like(data),
            expected="a serialized ONNX model",
            hint="Export it again: `export(CHECKPOINT)`, or torch.onnx.export.",
        ) from error
    if not model.graph.node or not model.opset_import:
        raise GraphError(
            f"{path}: not an ONNX network", got=_looks_like(data), expected="a graph with nodes"
        )

    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise GraphError(
            f"{path}: a file with its weights is missing or damaged", got=str(error)
        ) from error

    return canonicalize(model), digest_onnx(path, data)


def _looks_like(data: bytes) -> str:
    """Describe bytes that are no ONNX graph, for the error."""
    if not data:
        return "an empty file"
    try:
        data[:512].decode("ascii")
    except UnicodeDecodeError:
        return f"{len(data):,} bytes that do not parse (truncated?)"
    return "a text file"
