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
_MAGIC = b"edgeseg cpu engine 1\n"
_LENGTH = struct.Struct("<QQ")


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

    labels_length, logits_length = _LENGTH.unpack_from(data, len(_MAGIC))
    labels = data[start : start + labels_length]
    difference = data[start + labels_length :]
    if not difference:
        return labels, None

    def logits() -> bytes:
        blob = _xor(zlib.decompress(difference), labels)
        if len(blob) != logits_length:
            raise EngineError(
                f"{name}: the engine file is damaged",
                got=f"a graph of {len(blob)} bytes for the logits",
                expected=f"{logits_length} bytes",
                hint="Build it again: `build_engine(NAME.onnx)`.",
            )
        return blob

    return labels, logits


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
