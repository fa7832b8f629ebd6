"""The routes of the live page: its files, the stream, pictures and what machines read."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from edgeseg.video.page.access import Access
from edgeseg.video.page.gate import Gate
from edgeseg.video.page.hub import Hub, Listener
from edgeseg.video.page.metrics import health, metrics_text

# Everything that the page consists of: a client asks for one of these paths or gets 404.
_STATIC = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/stream.js": ("stream.js", "text/javascript"),
    "/tile.js": ("tile.js", "text/javascript"),
    "/panel.js": ("panel.js", "text/javascript"),
    "/curves.js": ("curves.js", "text/javascript"),
    "/snapshot.js": ("snapshot.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

_MOST_LISTENERS = 64  # connections at a time; each may hold two messages
_IN_FLIGHT = 2  # messages of a source that a viewer has not acknowledged
_MOST_ENGINES = 2  # that one viewer compares
_TRY_LATER = 1013  # WebSocket close code
_RESTART = 1012
_BOUNDARY = "edgeseg-frame"


def application(hub: Hub, access: Access) -> Gate:
    """Return the ASGI application of the live page.

    Parameters
    ----------
    hub : gives the results.
    access : decides which requests may pass.
    """
    pages = _Pages(hub)
    routes: list[BaseRoute] = [Route(path, pages.static) for path in _STATIC]
    routes += [
        Route("/snapshot.jpg", pages.snapshot),
        Route("/stream.mjpg", pages.mjpeg),
        Route("/metrics", pages.metrics),
        Route("/healthz", pages.health),
        WebSocketRoute("/ws", pages.stream),
    ]
    return Gate(Starlette(routes=routes), access)


class _Pages:
    """Answer the requests; all methods run in the server's loop."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        folder = files("edgeseg.video.page") / "static"
        self._files = {name: (folder / name).read_bytes() for name, _ in _STATIC.values()}
        # A page that reconnects to a server with other files loads itself anew.
        self._build = hashlib.sha256(b"".join(self._files.values())).hexdigest()[:12]

    async def static(self, request: Request) -> Response:
        """Return a file of the page."""
        name, kind = _STATIC[request.url.path]
        return Response(self._files[name], media_type=kind)

    async def metrics(self, request: Request) -> Response:
        """Return the metrics."""
        return PlainTextResponse(
            metrics_text(self._hub), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    async def health(self, request: Request) -> Response:
        """Return 200 while frames arrive, else 503 with the reason."""
        healthy, text = health(self._hub)
        return PlainTextResponse(f"{text}\n", 200 if healthy else 503)

    async def snapshot(self, request: Request) -> Response:
        """Return the newest overlay of a source."""
        source, refusal = self._source_of(request)
        if refusal is not None:
            return refusal

        shot = self._hub.newest(source)
        if shot is None:
            return PlainTextResponse(f"{source}: no frame yet\n", 503)
        return Response(await self._hub.overlay(shot), media_type="image/jpeg")

    async def mjpeg(self, request: Request) -> Response:
        """Return the overlays of a source, one after the other."""
        source, refusal = self._source_of(request)
        if refusal is not None:
            return refusal
        if self._hub.listeners >= _MOST_LISTENERS:
            return PlainTextResponse("too many viewers\n", 503)

        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        if request.method == "HEAD":
            return Response(media_type=kind)
        return StreamingResponse(self._overlays(source), media_type=kind)

    def _source_of(self, request: Request) -> tuple[str, Response | None]:
        """Return the source that a request names, the first if it names none; or a refusal."""
        source = request.query_params.get("source", self._hub.sources[0])
        if source in self._hub.sources:
            return source, None
        known = ", ".join(self._hub.sources)
        return source, PlainTextResponse(f"no such source; there are: {known}\n", 404)

    async def _overlays(self, source: str) -> AsyncIterator[bytes]:
        """Yield the parts of a multipart answer; the server takes one when the last is sent."""
        listener = Listener()
        self._hub.join(listener)
        seen = 0
        try:
            while not self._hub.closing:
                shot = self._hub.newest(source)
                if shot is None or shot.serial == seen:
                    await listener.event.wait()
                    listener.event.clear()
                    continue

                seen = shot.serial
                picture = await self._hub.overlay(shot)
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
                head += f"Content-Length: {len(picture)}\r\n\r\n"
                yield head.encode() + picture + b"\r\n"
        finally:
            self._hub.leave(listener)

    async def stream(self, socket: WebSocket) -> None:
        """Serve one viewer until he leaves or the server stops."""
        await socket.accept()
        if self._hub.listeners >= _MOST_LISTENERS:
            await socket.close(_TRY_LATER, "too many viewers")
            return

        viewer = _Viewer(self._hub, socket)
        self._hub.join(viewer)
        tasks: list[asyncio.Task[None]] = []
        try:
            await socket.send_text(json.dumps({**self._hub.facts(), "build": self._build}))
            tasks = [asyncio.create_task(viewer.send()), asyncio.create_task(viewer.receive())]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.leave(viewer)
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)

        for end in ends:
            # Starlette raises RuntimeError if the viewer left in the middle of a message.
            if isinstance(end, Exception) and not isinstance(
                end, WebSocketDisconnect | RuntimeError
            ):
                raise end


class _Viewer(Listener):
    """Send one viewer the newest results that he is ready for.

    He is ready for a source if he has acknowledged all but one of its messages. A slow viewer so
    has two messages in memory, and gets fewer frames.
    """

    def __init__(self, hub: Hub, socket: WebSocket) -> None:
        super().__init__()
        self._hub = hub
        self._socket = socket
        self._seen: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._in_flight: Counter[str] = Counter()

    async def send(self) -> None:
        """Send results until the server stops."""
        while not self._hub.closing:
            self.event.clear()
            sent = False
            for source in self.sources:
                sent = await self._send_newest(source) or sent
            if not sent:
                await self.event.wait()
        await self._socket.close(_RESTART, "the server stops")

    async def _send_newest(self, source: str) -> bool:
        """Send the newest result of a source if the viewer is ready for it and has not seen it."""
        shot = self._hub.newest(source)
        if shot is None or self._in_flight[source] >= _IN_FLIGHT:
            return False

        engines = self.engines
        if self._seen.get(source) == (shot.serial, engines):
            return False

        message = await self._hub.message(shot, engines)
        self._seen[source] = shot.serial, engines
        self._in_flight[source] += 1
        await self._socket.send_bytes(message)
        return True

    async def receive(self) -> None:
        """Take what the viewer says until he leaves."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await self._hear(_parsed(message.get("text")))

    async def _hear(self, said: dict[str, Any]) -> None:
        """Act on one message of the viewer; ignore what is none."""
        acknowledged = said.get("ack")
        if isinstance(acknowledged, str) and self._in_flight[acknowledged] > 0:
            self._in_flight[acknowledged] -= 1
            self.event.set()

        if "sources" in said:
            self.sources = _chosen(said.get("sources"), self._hub.sources)
            engines = _chosen(said.get("engines"), self._hub.engines)
            self.engines = engines[:_MOST_ENGINES] or self._hub.engines[:1]
            self._hub.tell_wanted()
            self.event.set()

        if isinstance(said.get("ping"), int | float):
            await self._socket.send_text(json.dumps({"type": "pong", "ping": said["ping"]}))


def _parsed(text: str | None) -> dict[str, Any]:
    """Return a viewer's message; an empty one if it is not JSON of an object."""
    try:
        said = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _chosen(names: object, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of a viewer's names that are known, each once, in his order."""
    if not isinstance(names, list):
        return ()
    texts = [name for name in names if isinstance(name, str)]
    return tuple(dict.fromkeys(name for name in texts if name in known))
