"""Read the weights that lie in files beside an ONNX file, and hash every byte that is read.

A file names them, so they are looked at with care: they lie in the folder of the ONNX file or below
it, they are regular files, and no link leads out of the folder. All of them are checked before any
is opened.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from edgeseg.errors import GraphError

# Most bytes of all weights in external files together. Protobuf holds no larger graph.
MOST_BYTES = 2 << 30
_MISSING = b"missing"


def external_tensors(model: ModelProto) -> list[TensorProto]:
    """Return every tensor whose values lie in another file.

    Weights, attributes, sparse tensors, subgraphs and functions are searched.

    Parameters
    ----------
    model : the ONNX graph.
    """
    return [t for t in all_tensors(model) if t.data_location == TensorProto.EXTERNAL]


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of a file, those of attributes, subgraphs and functions as well.

    Parameters
    ----------
    model : the ONNX graph.
    """
    graphs: list[GraphProto] = [model.graph]
    graphs += [training.algorithm for training in model.training_info]
    graphs += [training.initialization for training in model.training_info]
    nodes: list[NodeProto] = []
    for function in model.functions:
        nodes.extend(function.node)
        for attribute in function.attribute_proto:
            yield from _tensors_of(attribute, graphs)

    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield sparse.values
                yield sparse.indices
            nodes.extend(graph.node)
            continue

        for attribute in nodes.pop().attribute:
            yield from _tensors_of(attribute, graphs)


def _tensors_of(attribute: AttributeProto, graphs: list[GraphProto]) -> Iterator[TensorProto]:
    """Yield the tensors of an attribute, and add its subgraphs to ``graphs``."""
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        yield sparse.values
        yield sparse.indices
    if attribute.HasField("g"):
        graphs.append(attribute.g)
    graphs.extend(attribute.graphs)


def digest_external(path: Path, model: ModelProto, digest: "hashlib._Hash") -> None:
    """Add the external files of a graph to a digest; a missing file counts as one.

    Parameters
    ----------
    path : the ONNX file.
    model : its graph, with its weights outside.
    digest : the hash to update.

    Raises
    ------
    GraphError : a file may not be read; ``check_locations`` refuses it.
    """
    for name in check_locations(path, external_tensors(model)):
        digest.update(_sha256(path.parent / name))


def load_external(path: Path, model: ModelProto, digest: "hashlib._Hash") -> None:
    """Put the external weights of a graph into it, in place, and add their files to a digest.

    Each file is read once: what is hashed is what is used.

    Parameters
    ----------
    path : the ONNX file.
    model : its graph.
    digest : the hash to update.

    Raises
    ------
    GraphError : a file is missing, damaged, too large or may not be read.
    """
    tensors = external_tensors(model)
    by_file: dict[str, list[TensorProto]] = {}
    for tensor in tensors:
        by_file.setdefault(_location(tensor), []).append(tensor)

    for name in check_locations(path, tensors):
        try:
            data = _read(path.parent / name)
        except OSError as error:
            raise _damaged(path, f"{name!r}: {error.strerror or error}") from error
        digest.update(hashlib.sha256(data).hexdigest().encode())
        for tensor in by_file[name]:
            _fill(tensor, data, path)


def check_locations(path: Path, tensors: list[TensorProto]) -> list[str]:
    """Check where external weights lie, without opening a file.

    Parameters
    ----------
    path : the ONNX file.
    tensors : tensors with external values.

    Returns
    -------
    The names of their files relative to the ONNX file, sorted.

    Raises
    ------
    GraphError : a name is absolute or leads out of the folder; a file is no regular file; or there
        are more bytes than ``MOST_BYTES``.
    """
    folder = os.path.realpath(path.parent)
    names = sorted({_location(tensor) for tensor in tensors})
    for name in names:
        reason = _why_refused(name, folder)
        if reason:
            raise GraphError(
                f"{path}: its weights are not read from {name!r}",
                got=reason,
                expected="a file in the folder of the ONNX file",
                hint="Export it again into one file or one folder.",
            )

    # Many tensors may name the same bytes.
    wanted = 0
    for tensor in tensors:
        _, length = _range(tensor, path)
        wanted += length or 0
    on_disk = sum(_size(path.parent / name) for name in names)
    if max(wanted, on_disk) > MOST_BYTES:
        raise GraphError(
            f"{path}: its external weights are too large",
            got=f"{max(wanted, on_disk):,} bytes",
            expected=f"at most {MOST_BYTES:,}",
        )
    return names


def _why_refused(name: str, folder: str) -> str:
    """Return why the file of a name is not read; ``""`` if it may be. It may be missing."""
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name:
        return "no file name"
    if PurePosixPath(name).is_absolute() or "\\" in name or ":" in parts[0]:
        return "an absolute or foreign path"
    if ".." in parts:
        return "a path with .. in it"

    full = os.path.join(folder, name)
    real = os.path.realpath(full)
    if os.path.commonpath([folder, real]) != folder:
        return "a link out of the folder"
    try:
        mode = os.stat(real).st_mode
    except (OSError, ValueError):
        return ""  # missing: reading says so
    return "" if stat.S_ISREG(mode) else "no regular file"


def _location(tensor: TensorProto) -> str:
    """Return the file name of a tensor's values; the last one counts, as in ONNX's own reader."""
    return _entries(tensor).get("location", "")


def _entries(tensor: TensorProto) -> dict[str, str]:
    """Return a tensor's entries about its external values."""
    return {entry.key: entry.value for entry in tensor.external_data}


def _range(tensor: TensorProto, path: Path) -> tuple[int, int | None]:
    """Return the offset and the length of a tensor's values; length ``None``: to the end."""
    entries = _entries(tensor)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else None
    except ValueError as error:
        raise _damaged(path, f"{tensor.name!r} has no whole numbers as its place") from error
    if offset < 0 or (length is not None and length < 0):
        raise _damaged(path, f"{tensor.name!r} begins or ends before its file")
    return offset, length


def _fill(tensor: TensorProto, data: bytes, path: Path) -> None:
    """Give a tensor its values, and make it an ordinary one."""
    offset, length = _range(tensor, path)
    end = len(data) if length is None else offset + length
    if end > len(data) or offset > end:
        raise _damaged(path, f"{tensor.name!r} ends at byte {end:,} of {len(data):,}")

    tensor.raw_data = data[offset:end]
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _read(path: Path) -> bytes:
    """Read a file whose place was checked, with its last part not followed if it became a link."""
    handle = os.open(os.path.realpath(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        return file.read(MOST_BYTES)


def _sha256(path: Path) -> bytes:
    """Return the digest of a file, in hex; ``missing`` if it is missing."""
    try:
        return hashlib.sha256(_read(path)).hexdigest().encode()
    except OSError:
        return _MISSING


def _size(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it is missing."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _damaged(path: Path, what: str) -> GraphError:
    """Return the error of a file with weights that cannot be used."""
    return GraphError(f"{path}: a file with its weights is missing or damaged", got=what)
