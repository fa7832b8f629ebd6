"""The gate in front of all routes: it refuses requests, and gives every answer its headers."""

from http.cookies import SimpleCookie

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeseg.video.page.access import Access, Request

_COOKIE_AGE_S = 30 * 24 * 3600

# Everything comes from this server alone, and no other page may use it.
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Gate:
    """Pass a request on only if the rules of ``Access`` allow it.

    Parameters
    ----------
    app : the application behind the gate.
    access : the rules.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI defines it."""
        connection = HTTPConnection(scope)
        request = Request(
            headers=connection.headers,
            query=connection.query_params,
            cookies=connection.cookies,
            websocket=scope["type"] == "websocket",
        )

        headers = dict(_HEADERS)
        refusal = self._access.refusal(request)
        if refusal is not None:
            if refusal.status == 401:
                headers["www-authenticate"] = "Bearer"
            await _refuse(refusal.status, refusal.reason, headers, scope, receive, send)
            return

        token = self._access.token_in_link(request)
        if token is not None:
            headers["set-cookie"] = _cookie(self._access.cookie, token)
        await self._app(scope, receive, _with_headers(send, headers))


async def _refuse(
    status: int,
    reason: str,
    headers: dict[str, str],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Send a refusal; a request for a WebSocket gets it as a plain HTTP answer."""
    response = PlainTextResponse(f"{reason}\n", status, headers)
    if scope["type"] == "http":
        await response(scope, receive, send)
        return

    start = "websocket.http.response.start"
    body = "websocket.http.response.body"
    await send({"type": start, "status": status, "headers": response.raw_headers})
    await send({"type": body, "body": bytes(response.body), "more_body": False})


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    """Return a ``send`` that adds headers to the start of the answer."""
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def sending(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
            message = {**message, "headers": [*message.get("headers", ()), *pairs]}
        await send(message)

    return sending


def _cookie(name: str, token: str) -> str:
    """Return the value of a header that stores the token for later requests."""
    cookie: SimpleCookie = SimpleCookie({name: token})
    morsel = cookie[name]
    morsel["path"] = "/"
    morsel["max-age"] = _COOKIE_AGE_S
    morsel["httponly"] = True
    morsel["samesite"] = "Strict"
    return morsel.OutputString()
