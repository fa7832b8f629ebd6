"""The thread that serves the live page, and the socket that it listens on."""

import asyncio
import contextlib
import errno
import os
import socket
import threading

import uvicorn

from edgeseg.errors import InputError, OutputError
from edgeseg.video.page.access import Access
from edgeseg.video.page.hub import Hub
from edgeseg.video.page.routes import application

_BACKLOG = 128
_PORTS_TRIED = 100  # when the next free port is looked for
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 2.0
_GOODBYE_S = 0.3  # for viewers to hear that the server stops, before their connections are cut
_LARGEST_MESSAGE = 8192  # bytes from a viewer: he only says what he looks at


class Server:
    """Serve the live page from a thread of its own until ``stop``.

    Parameters
    ----------
    hub : gives the results.
    access : decides which requests may pass.
    listening : the socket, from ``listen``. The server closes it.
    """

    def __init__(self, hub: Hub, access: Access, listening: socket.socket) -> None:
        self._hub = hub
        self._listening = listening
        config = uvicorn.Config(
            application(hub, access),
            http="h11",
            ws="websockets-sansio",
            ws_max_size=_LARGEST_MESSAGE,
            ws_per_message_deflate=False,  # everything large is compressed already
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._stop_soon: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="edgeseg-page", daemon=True)
        self._thread.start()
        self._started.wait(_START_TIMEOUT_S)

    def stop(self) -> None:
        """Say goodbye to the viewers, free the port, and end the thread; within two seconds."""
        loop, stop_soon = self._loop, self._stop_soon
        if loop is not None and stop_soon is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop closed in this moment
                loop.call_soon_threadsafe(stop_soon.set)
        self._thread.join(_STOP_TIMEOUT_S)
        self._hub.free()

    def _run(self) -> None:
        """Run the server's loop; the thread runs this."""
        try:
            asyncio.run(self._serve())
        finally:
            self._listening.close()
            self._started.set()

    async def _serve(self) -> None:
        """Serve until ``stop`` is called."""
        self._loop = asyncio.get_running_loop()
        self._stop_soon = asyncio.Event()
        self._hub.open(self._loop)
        serving = asyncio.create_task(self._server.serve([self._listening]))
        self._started.set()

        await self._stop_soon.wait()
        for listener in getattr(self._server, "servers", ()):  # none if it stops before it began
            listener.close()
        self._hub.close()
        await asyncio.sleep(_GOODBYE_S)
        self._server.should_exit = True
        self._cut()
        await serving

    def _cut(self) -> None:
        """Cut the connections that are still there: a viewer who does not read would hold them."""
        for connection in list(self._server.server_state.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Parameters
    ----------
    host : the address, or a name of this machine.
    port : the port; 0 chooses a free one.

    Raises
    ------
    InputError : ``host`` is no address of this machine, or ``port`` is out of range.
    OutputError : the port is in use, or only an administrator may use it.

    Examples
    --------
    >>> with listen("127.0.0.1", 0) as listening:
    ...     listening.getsockname()[1] > 0
    True
    """
    if not 0 <= port <= 65535:
        raise InputError("the port of the live page", got=port, expected="0 to 65535")
    try:
        return _bound(host, port)
    except socket.gaierror as error:
        raise InputError(
            "the host of the live page", got=host, expected="an address of this machine"
        ) from error
    except OSError as error:
        raise _explained(error, host, port) from error


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens, or raise ``OSError``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            # Not in the way of a restart: connections of the last run may still be closing.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _explained(error: OSError, host: str, port: int) -> InputError | OutputError:
    """Return the error for people."""
    if error.errno == errno.EADDRINUSE:
        free = _next_free(host, port)
        hint = f"Port {free} is free." if free is not None else "Port 0 chooses a free one."
        return OutputError(f"port {port} on {host} is in use by another program", hint=hint)
    if error.errno == errno.EACCES:
        return OutputError(
            f"port {port} on {host} is for administrators only", hint="Choose one above 1023."
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return InputError(
            "the host of the live page", got=host, expected="an address of this machine"
        )
    return OutputError(f"port {port} on {host} cannot be used", got=error.strerror)


def _next_free(host: str, port: int) -> int | None:
    """Return the next free port after ``port``; None if none of the next hundred is."""
    for candidate in range(port + 1, min(port + _PORTS_TRIED, 65535) + 1):
        try:
            _bound(host, candidate).close()
        except OSError:
            continue
        return candidate
    return None


def reachable(host: str) -> str:
    """Return an address that a browser can open for a server that listens on ``host``.

    Parameters
    ----------
    host : the address that the server listens on; all addresses of the machine for ``0.0.0.0``.

    Examples
    --------
    >>> reachable("127.0.0.1"), reachable("::1")
    ('127.0.0.1', '[::1]')
    """
    if host in ("", "0.0.0.0", "::"):
        # The address that packets to the outside would have; nothing is sent.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # an address for documentation, RFC 5737
                return str(probe.getsockname()[0])
            except OSError:  # no network
                return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
