"""Read and write the file of an OpenVINO engine, and run it."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeseg.backends.engine import Engine
from edgeseg.backends.openvino import session
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


def pack(labels: bytes, scores: bytes | None) -> bytes:
    """Return the content of an engine file.

    Parameters
    ----------
    labels : blob of the graph that returns labels.
    scores : blob of the graph that returns logits; ``None`` if the network has none.

    Examples
    --------
    >>> labels, scores = unpack(pack(b"label blob", b"logit blob"), "net")
    >>> labels, scores()
    (b'label blob', b'logit blob')
    """
    difference = b"" if scores is None else zlib.compress(_xor(scores, labels), 1)
    lengths = _LENGTH.pack(len(labels), len(scores or b""))
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
    if the network has no logits. It is a function because logits are seldom used.

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

    length, scores_length = _LENGTH.unpack_from(data, len(_MAGIC))
    labels = data[start : start + length]
    difference = data[start + length :]
    if not difference:
        return labels, None

    def scores() -> bytes:
        return _xor(zlib.decompress(difference), labels)[:scores_length]

    return labels, scores


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
        blob, self._scores_blob = unpack(data, passport.name)
        self._request = _open(passport, blob)
        self._scores_request: Any = None  # opened by the first call of `logits`
        self.capabilities = frozenset() if self._scores_blob is None else frozenset({LOGITS})

    def _labels(self, frame: Image) -> Image:
        """Return the label map of a frame; a copy, since OpenVINO reuses its output."""
        self._request.infer({0: frame[None]}, share_inputs=True)
        return np.array(self._request.get_output_tensor(0).data[0], np.uint8)

    def _logits(self, frame: Image) -> Float:
        """Return the logits of a frame; their graph is opened by the first call."""
        if self._scores_request is None:
            assert self._scores_blob is not None  # `logits` asks the capabilities first
            self._scores_request = _open(self.passport, self._scores_blob())

        self._scores_request.infer({0: frame[None]}, share_inputs=True)
        channels_last = self._scores_request.get_output_tensor(0).data[0]
        return np.ascontiguousarray(channels_last.transpose(2, 0, 1), np.float32)

    def _release(self) -> None:
        """Drop both infer requests: OpenVINO frees a compiled graph with its last request."""
        self._request = None
        self._scores_request = None
        self._scores_blob = None


def _open(passport: Passport, blob: bytes) -> Any:
    """Return an infer request for a blob; raise ``EngineError`` if OpenVINO cannot open it."""
    try:
        compiled = session.core().import_model(io.BytesIO(blob), "CPU", passport.openvino.config)
    except RuntimeError as error:
        raise EngineError(
            f"{passport.name}: OpenVINO cannot open the engine",
            got=str(error).strip().splitlines()[-1][:200],
            hint="Build it again: `build_engine(NAME.onnx)`.",
        ) from error
    return compiled.create_infer_request()
