"""Ask a server why a network address gives no video: FFmpeg keeps the reason to itself."""

import base64
import http.client
import socket
import urllib.error
import urllib.request
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

_TIMEOUT_S = 3.0
_RTSP_PORT = 554


def failure_reason(uri: str) -> str | None:
    """Return why a network address cannot be opened.

    Parameters
    ----------
    uri : the address. Its user and password go to an HTTP server, and are never part of the reason.

    Returns
    -------
    The reason, such as ``HTTP 404 Not Found`` or ``connection refused``; None if the server gives
    no reason, or if the protocol is neither HTTP nor RTSP.
    """
    try:
        parts = urlsplit(uri)
        if parts.scheme in ("http", "https"):
            return _http_reason(parts)
        if parts.scheme in ("rtsp", "rtspt", "rtspu"):
            return _rtsp_reason(parts)
    except OSError as error:
        return _in_words(error)
    except (ValueError, http.client.HTTPException):  # no valid address, or no HTTP server
        return None
    return None


def _without_user(parts: SplitResult) -> str:
    """Return an address without user and password."""
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, place, parts.path, parts.query, ""))


def _http_reason(parts: SplitResult) -> str | None:
    """Return the status of an HTTP server, or the type of its answer if that is a text."""
    request = urllib.request.Request(_without_user(parts), headers={"Range": "bytes=0-0"})
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        token = base64.b64encode(pair.encode()).decode()
        request.add_header("Authorization", f"Basic {token}")

    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            kind: str = answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        with error:
            return f"HTTP {error.code} {error.reason}"
    except urllib.error.URLError as error:
        return _in_words(error.reason) if isinstance(error.reason, OSError) else str(error.reason)
    return f"an answer of type {kind}" if kind.startswith("text/") else None


def _rtsp_reason(parts: SplitResult) -> str | None:
    """Return the status of an RTSP server if it is an error."""
    place = (parts.hostname or "", parts.port or _RTSP_PORT)
    with socket.create_connection(place, timeout=_TIMEOUT_S) as connection:
        lines = (f"DESCRIBE {_without_user(parts)} RTSP/1.0", "CSeq: 1", "Accept: application/sdp")
        connection.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        answer = connection.recv(1024).decode(errors="replace")

    protocol, _, status = answer.partition("\r\n")[0].partition(" ")
    if not protocol.startswith("RTSP/") or status.startswith("200"):
        return None

    # The request has no password. If the address has one, it may be right all the same.
    if status.startswith("401") and parts.username is not None:
        return None
    return f"RTSP {status}"


def _in_words(error: OSError) -> str:
    """Return the reason of a connection that failed."""
    if isinstance(error, socket.gaierror):
        offline = error.errno == socket.EAI_AGAIN
        return "no answer from a name server" if offline else "no host of this name"
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT_S:g} s"
    return (error.strerror or str(error) or type(error).__name__).lower()
