"""Read and write the file of an OpenVINO engine, and run it."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from edgeseg.backends.engine import Engine
from edgeseg.backends.openvino.runtime import core, infer
from edgeseg.capabilities import LOGITS
from edgeseg.errors import EngineError
from edgeseg.passport import Passport
from edgeseg.types import Float, Image

# The engine file holds a magic, the lengths of both blobs, the blob of the graph that returns
# labels, and the blob of the graph that returns logits as its compressed difference from the first
# one. Both blobs hold the same weights at the same place, so the difference compresses to almost
# nothing. One graph with both outputs would cost every frame a reordering of the logits.
#
# At the end lies the digest of the passport that belongs to the engine. Files of earlier versions
# have none.
_MAGIC = b"edgeseg cpu engine 1\n"
_LENGTH = struct.Struct("<QQ")
_SEAL = b"\nedgeseg passport "
_SEAL_BYTES = len(_SEAL) + 64

# The blobs of labels and of logits hold the same weights, so they are of about one size.
_MOST_UNFOLDED = 2  # times the blob of the labels
_MOST_MORE = 64 << 20  # bytes above that


def pack(labels: bytes, logits: bytes | None) -> bytes:
    """Return the content of an engine file.

    Parameters
    ----------
    labels : blob of the graph that returns labels.
    logits : blob of the graph that returns logits; ``None`` if the network has none.

    Examples
    --------
    >>> labels, logits = unpack(pack(b"label blob", b"logit blob"), "net")
    >>> labels, logits()
    (b'label blob', b'logit blob')
    """
    difference = b"" if logits is None else zlib.compress(_xor(logits, labels), 1)
    lengths = _LENGTH.pack(len(labels), len(logits or b""))
    return b"".join([_MAGIC, lengths, labels, difference])


def seal(data: bytes, digest: str) -> bytes:
    """Return the content of an engine file with the digest of its passport at its end.

    Parameters
    ----------
    data : content without a digest, from ``pack``.
    digest : SHA-256 in hex.

    Examples
    --------
    >>> seal_of(seal(b"engine", 64 * "a")) == 64 * "a"
    True
    """
    return b"".join([data, _SEAL, digest.encode("ascii")])


def seal_of(data: bytes) -> str:
    """Return the digest at the end of an engine file; ``""`` if it has none.

    Parameters
    ----------
    data : content of the engine file.

    Examples
    --------
    >>> seal_of(b"engine")
    ''
    """
    end = data[-_SEAL_BYTES:]
    if not end.startswith(_SEAL):
        return ""
    return end[len(_SEAL) :].decode("ascii", "replace")


def unpack(data: bytes, name: str) -> tuple[bytes, Callable[[], bytes] | None]:
    """Split the content of an engine file into its blobs.

    Parameters
    ----------
    data : content of the engine file.
    name : the network's name, for the error.

    Returns
    -------
    The labels' blob, and a function that returns the logits' blob; ``None`` instead of the function
    if the network has no logits. It is a function because logits are seldom used. It raises
    ``EngineError`` if the blob has another length than the file states.

    Raises
    ------
    EngineError : not an engine file of the cpu target.

    Examples
    --------
    >>> unpack(pack(b"label blob", None), "net")
    (b'label blob', None)
    """
    start = len(_MAGIC) + _LENGTH.size
    if not data.startswith(_MAGIC) or len(data) < start:
        raise EngineError(
            f"{name}: not an edgeseg engine for the cpu target", hint="Build it: `build_engine()`."
        )

    end = len(data) - _SEAL_BYTES if seal_of(data) else len(data)
    labels_length, logits_length = _LENGTH.unpack_from(data, len(_MAGIC))
    labels = data[start : min(start + labels_length, end)]
    if len(labels) != labels_length:
        raise _damaged(name, f"a graph of {len(labels)} bytes", f"{labels_length} bytes")
    difference = data[start + labels_length : end]
    if not difference:
        return labels, None

    most = _MOST_UNFOLDED * labels_length + _MOST_MORE
    if logits_length > most:
        raise _damaged(name, f"a graph of {logits_length} bytes", f"at most {most} bytes")

    def logits() -> bytes:
        return _xor(_unfold(difference, logits_length, name), labels)

    return labels, logits


def _unfold(packed: bytes, length: int, name: str) -> bytes:
    """Decompress a graph of a known length; it takes no more memory than that."""
    unfolding = zlib.decompressobj()
    try:
        graph = unfolding.decompress(packed, length + 1)
    except zlib.error as error:
        raise _damaged(name, str(error), "a compressed graph") from error
    if len(graph) != length or not unfolding.eof:
        found = f"{len(graph)} bytes" if len(graph) <= length else f"more than {length} bytes"
        raise _damaged(name, f"a graph of {found} for the logits", f"{length} bytes")
    return graph


def _damaged(name: str, got: str, expected: str) -> EngineError:
    """Return the error for an engine file whose parts do not have the lengths that it says."""
    return EngineError(
        f"{name}: the engine file is damaged",
        got=got,
        expected=expected,
        hint="Build it again: `build_engine(NAME.onnx)`.",
    )


def _xor(data: bytes, other: bytes) -> bytes:
    """Return ``data`` XORed with ``other`` as far as both reach; applied twice it undoes itself."""
    out = np.frombuffer(data, np.uint8).copy()
    overlap = min(len(out), len(other))
    out[:overlap] ^= np.frombuffer(other, np.uint8)[:overlap]
    return bytes(out)


class OpenVinoEngine(Engine):
    """Run an OpenVINO engine.

    Parameters
    ----------
    passport : the engine's passport.
    data : content of the engine file.

    Attributes
    ----------
    capabilities : ``LOGITS`` if the file holds a graph that returns logits.

    Raises
    ------
    EngineError : ``data`` is no engine of the cpu target, or OpenVINO cannot open it.
    """

    def __init__(self, passport: Passport, data: bytes) -> None:
        super().__init__(passport)
        blob, self._logits_blob = unpack(data, passport.name)
        self._labels_request = _open(passport, blob)
        self.capabilities = frozenset() if self._logits_blob is None else frozenset({LOGITS})

    def _labels(self, frame: Image) -> Image:
        """Return the label map of a frame; a copy, since OpenVINO reuses its output."""
        return np.array(infer(self._labels_request, frame), np.uint8)

    def _logits(self, frame: Image) -> Float:
        """Return the logits of a frame; their graph is opened by the first call."""
        channels_last = infer(self._logits_request, frame)
        return np.ascontiguousarray(channels_last.transpose(2, 0, 1), np.float32)

    @cached_property
    def _logits_request(self) -> Any:
        """Return the infer request of the graph that returns logits.

        Only ``_logits`` reads it, and its caller has the turn, so the graph is opened once.
        """
        if self._logits_blob is None:
            raise self._no_logits()
        return _open(self.passport, self._logits_blob())

    def _release(self) -> None:
        """Drop both infer requests: OpenVINO frees a compiled graph with its last request."""
        self._labels_request = None
        self._logits_blob = None
        self.__dict__.pop("_logits_request", None)  # it is there only if it was opened


def _open(passport: Passport, blob: bytes) -> Any:
    """Return an infer request for a blob; raise ``EngineError`` if OpenVINO cannot open it."""
    try:
        compiled = core().import_model(io.BytesIO(blob), "CPU", passport.openvino.config)
    except RuntimeError as error:
        raise EngineError(
            f"{passport.name}: OpenVINO cannot open the engine",
            got=str(error).strip().splitlines()[-1][:200],
            hint="Build it again: `build_engine(NAME.onnx)`.",
        ) from error
    return compiled.create_infer_request()
