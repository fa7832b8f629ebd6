"""Ask a server why a network address gives no video: FFmpeg keeps the reason to itself."""

import base64
import hashlib
import http.client
import re
import socket
import urllib.error
import urllib.request
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

_TIMEOUT_S = 3.0
_LOOK_TIMEOUT_S = 0.5  # to see whether a server is back
_RTSP_PORT = 554


def failure_reason(uri: str) -> str | None:
    """Return why a network address cannot be opened.

    Parameters
    ----------
    uri : the address. Its user and password go to its server only, and are never part of the
        reason.

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


def is_listening(uri: str) -> bool:
    """Return whether a server accepts connections at an RTSP address.

    Parameters
    ----------
    uri : the address.
    """
    try:
        parts = urlsplit(uri)
        place = (parts.hostname or "", parts.port or _RTSP_PORT)
        with socket.create_connection(place, timeout=_LOOK_TIMEOUT_S):
            return True
    except (OSError, ValueError):
        return False


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
        answer = _describe(connection, parts, number=1)
        is_refused = _status(answer).startswith("401")
        if is_refused and parts.username is not None:
            # The address has a password. If it cannot be tried, it may be right all the same.
            permit = _authorization(parts, answer)
            if permit is None:
                return None
            answer = _describe(connection, parts, number=2, permit=permit)

    status = _status(answer)
    if not status or status.startswith("200"):
        return None
    if status.startswith("401") and parts.username is not None:
        return f"RTSP {status}: wrong user or password"
    return f"RTSP {status}"


def _describe(
    connection: socket.socket, parts: SplitResult, number: int, permit: str | None = None
) -> str:
    """Ask an RTSP server what an address has; return the beginning of its answer."""
    lines = [f"DESCRIBE {_without_user(parts)} RTSP/1.0", f"CSeq: {number}"]
    lines.append("Accept: application/sdp")
    if permit is not None:
        lines.append(f"Authorization: {permit}")
    connection.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    return connection.recv(4096).decode(errors="replace")


def _status(answer: str) -> str:
    """Return the status of an RTSP answer, such as ``404 Not Found``; empty if it is none."""
    protocol, _, status = answer.partition("\r\n")[0].partition(" ")
    return status if protocol.startswith("RTSP/") else ""


def _authorization(parts: SplitResult, answer: str) -> str | None:
    """Return the header with user and password in the form that a server asked for.

    The forms are Basic and Digest (RFC 2617, without ``qop``, as RTSP servers use it). Return None
    if it asked for neither.
    """
    user = unquote(parts.username or "")
    password = unquote(parts.password or "")
    asked = re.search(r"(?im)^WWW-Authenticate:\s*(Digest|Basic)\b(.*)$", answer)
    if asked is None:
        return None
    if asked[1].lower() == "basic":
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    fields = dict(re.findall(r'(\w+)="([^"]*)"', asked[2]))
    realm = fields.get("realm", "")
    nonce = fields.get("nonce", "")
    uri = _without_user(parts)
    response = _md5(f"{_md5(f'{user}:{realm}:{password}')}:{nonce}:{_md5(f'DESCRIBE:{uri}')}")
    return (
        f'Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", '
        f'response="{response}"'
    )


def _md5(text: str) -> str:
    """Return a digest as RTSP uses it: not for safety, but because the server asks for it."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _in_words(error: OSError) -> str:
    """Return the reason of a connection that failed."""
    if isinstance(error, socket.gaierror):
        offline = error.errno == socket.EAI_AGAIN
        return "no answer from a name server" if offline else "no host of this name"
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT_S:g} s"
    return (error.strerror or str(error) or type(error).__name__).lower()
