"""Read ONNX files, with the weights that lie beside them, and compute a digest over both."""

import hashlib
from pathlib import Path

import onnx

from edgeseg.errors import GraphError, InputError
from edgeseg.graph.external_data import digest_external, load_external
from edgeseg.graph.finite_weights import check_finite
from edgeseg.graph.graph_limits import check_graph
from edgeseg.graph.passes.canonicalize import canonicalize

_EXTERNAL = b"location"  # the key that every external tensor has


def digest_onnx(path: Path, data: bytes | None = None) -> str:
    """Return the SHA-256 of an ONNX file and of the files that hold its weights, as hex digits.

    Parameters
    ----------
    path : the ONNX file.
    data : its bytes, if they are read already.

    Raises
    ------
    OSError : the file cannot be read.
    GraphError : the file names weights outside of its folder.
    """
    data = path.read_bytes() if data is None else data
    digest = hashlib.sha256(data)
    if _EXTERNAL in data:  # most files have none, and need no parsing
        try:
            model = onnx.load_model_from_string(data)
        except Exception:  # not ONNX: read_onnx says so
            return digest.hexdigest()
        digest_external(path, model, digest)
    return digest.hexdigest()


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
    InputError : there is no such file, or it cannot be read.
    GraphError : the file is no ONNX graph, its graph has no end, a weight is not a number, or a
        file with its weights is missing, damaged or outside of the folder.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such ONNX file", got=repr(str(path)))

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: the ONNX file cannot be read", got=error.strerror or str(error)
        ) from error
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

    # What can be wrong is found before anything walks the graph or opens another file.
    check_graph(model, path)
    digest = hashlib.sha256(data)
    load_external(path, model, digest)
    check_finite(model, path)
    return canonicalize(model), digest.hexdigest()


def _looks_like(data: bytes) -> str:
    """Describe bytes that are no ONNX graph, for the error."""
    if not data:
        return "an empty file"
    try:
        data[:512].decode("ascii")
    except UnicodeDecodeError:
        return f"{len(data):,} bytes that do not parse (truncated?)"
    return "a text file"
