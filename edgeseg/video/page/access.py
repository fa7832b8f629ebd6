"""The rules of who may see the live page: addresses, tokens, host names. No web library here."""

import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from edgeseg.errors import InputError

_TOKEN_BYTES = 18  # 144 bits: 24 characters
_LEAST_TOKEN = 8  # characters
_TOKEN = re.compile(r"[A-Za-z0-9._~-]+")  # these need no escape in a link, a header or a cookie


def new_token() -> str:
    """Return a new random token for ``PageSink``.

    Examples
    --------
    >>> len(new_token()), new_token() == new_token()
    (24, False)
    """
    return secrets.token_urlsafe(_TOKEN_BYTES)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on ``host``.

    Parameters
    ----------
    host : an address or a name.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: nobody knows who reaches it
        return False


def require_token(host: str, token: str | None) -> None:
    """Raise an error if a server on ``host`` needs a token, or ``token`` cannot be one.

    Parameters
    ----------
    host : the address that the server listens on.
    token : the token, None without one.

    Raises
    ------
    InputError : ``host`` can be reached from other machines and there is no token; the token is
        shorter than 8 characters, or has characters that a link must escape.

    Examples
    --------
    >>> require_token("127.0.0.1", None)
    >>> require_token("0.0.0.0", new_token())
    """
    if token is None:
        if not is_loopback(host):
            raise InputError(
                f"the live page on {host} can be seen by other machines",
                got="no token",
                expected="a `token`, such as new_token()",
                hint="Listen on 127.0.0.1 if only this machine looks at it.",
            )
        return

    if len(token) < _LEAST_TOKEN or not _TOKEN.fullmatch(token):
        raise InputError(
            "the `token` of the live page",
            got=f"{len(token)} characters",
            expected=f"at least {_LEAST_TOKEN} of letters, digits and . _ ~ -",
        )


@dataclass(frozen=True)
class Request:
    """Hold what the rules look at in a request.

    Attributes
    ----------
    headers : the headers, with names in lower case.
    query : the parameters of the address.
    cookies : the cookies.
    websocket : True for a request to open a WebSocket.
    """

    headers: Mapping[str, str]
    query: Mapping[str, str]
    cookies: Mapping[str, str]
    websocket: bool = False


@dataclass(frozen=True)
class Refusal:
    """Hold the answer to a request that is refused.

    Attributes
    ----------
    status : the HTTP status.
    reason : one line for people.
    """

    status: int
    reason: str


class Access:
    """Decide which requests may pass.

    A request to a loopback address must name this machine in its header ``Host``: a page of a
    stranger whose name was pointed at 127.0.0.1 (DNS rebinding) does not. A WebSocket must come
    from the page itself. If there is a token, every request must bring it.

    Parameters
    ----------
    host : the address that the server listens on.
    port : the port that the server listens on.
    token : the token; None lets everybody in who can reach the address.

    Attributes
    ----------
    cookie : name of the cookie that holds the token. It has the port in it, because browsers give
        cookies to all ports of a machine.

    Examples
    --------
    >>> access = Access("127.0.0.1", 8000, token=None)
    >>> access.refusal(Request({"host": "localhost:8000"}, {}, {})) is None
    True
    >>> access.refusal(Request({"host": "evil.example:8000"}, {}, {})).status
    421
    """

    def __init__(self, host: str, port: int, token: str | None) -> None:
        self.cookie = f"edgeseg_page_{port}"
        self._token = token
        self._names: frozenset[str] | None = None
        if is_loopback(host):
            self._names = frozenset({"localhost", "127.0.0.1", "::1", host.lower()})

    def refusal(self, request: Request) -> Refusal | None:
        """Return why a request is refused; None if it may pass.

        Parameters
        ----------
        request : the request.
        """
        host = request.headers.get("host", "")
        if self._names is not None and _name_of(host) not in self._names:
            return Refusal(421, "This server is not called so. Open the address that it printed.")

        if self._token is not None and not self._has_token(request):
            return Refusal(401, "This page needs its token. Open the link that edgeseg printed.")

        origin = request.headers.get("origin")
        if request.websocket and origin is not None and not _is_same_site(origin, host):
            return Refusal(403, "The stream is for the live page only.")
        return None

    def token_in_link(self, request: Request) -> str | None:
        """Return the token if a request brings it in its address; the answer then sets the cookie.

        Parameters
        ----------
        request : a request that may pass.
        """
        return self._token if "token" in request.query else None

    def _has_token(self, request: Request) -> bool:
        """Return whether the request brings the token.

        One place decides, the most explicit of those that are used: the address, the header
        ``Authorization``, the cookie.
        """
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if "token" in request.query:
            given = request.query["token"]
        elif scheme.lower() == "bearer":
            given = credentials.strip()
        else:
            given = request.cookies.get(self.cookie, "")

        token = self._token or ""
        return secrets.compare_digest(given.encode(), token.encode())


def _name_of(host: str) -> str:
    """Return the name in a header ``Host``, without the port and without brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_same_site(origin: str, host: str) -> bool:
    """Return whether a header ``Origin`` names the same host and port as the header ``Host``."""
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
