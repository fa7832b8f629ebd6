"""The sink that shows a run on a page in the browser."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import ClassVar

from edgeseg.errors import InputError, MissingDependencyError
from edgeseg.reporter import SILENT, Reporter
from edgeseg.spec import LabelSpace
from edgeseg.video.page.access import Access, is_loopback, require_token
from edgeseg.video.page.hub import Hub
from edgeseg.video.sinks import Output, Sink

_PACKAGES = ("starlette", "uvicorn", "websockets")


class PageSink(Sink):
    """Serve a page on which every viewer arranges the picture for himself.

    ``write`` keeps the newest result of each source and returns; a thread of its own serves.
    A frame is encoded once for all viewers, and only if somebody looks. A slow viewer skips frames.

    Beside the page there are ``/stream.mjpg`` and ``/snapshot.jpg`` (the drawn overlay),
    ``/metrics`` (for Prometheus) and ``/healthz`` (200 while frames arrive, else 503).

    Parameters
    ----------
    labels : the classes and their colours.
    host : the address to listen on. Any other than this machine's own (``127.0.0.1``) needs a
        token.
    port : the port; 0 chooses a free one.
    token : the token that every request must bring; see ``new_token``.
    sources : names of the sources, in the order of ``Frame.source``.
    engines : names of the engines: first that of ``Output.labels``, then those of
        ``Output.others``. Viewers choose among them.
    reporter : receives the address of the page.

    Attributes
    ----------
    url : the address of the page, with the token: the link to give to viewers.
    port : the port that it listens on.

    Raises
    ------
    InputError : ``host`` needs a token or is no address of this machine; two sources or two engines
        have one name.
    OutputError : the port is in use; the error names a free one.
    MissingDependencyError : the extra ``web`` is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from edgeseg.spec import CAMVID_11
    >>> from edgeseg.video.frames import Frame
    >>> frame = Frame(0, np.zeros((48, 64, 3), np.uint8), "000000", timestamp_s=0.0)
    >>> with PageSink(CAMVID_11, port=0, sources=["front"], engines=["enet fp32"]) as page:
    ...     page.write(Output(frame, np.zeros((48, 64), np.uint8), picture=None))
    """

    needs_picture: ClassVar[bool] = False

    def __init__(
        self,
        labels: LabelSpace,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        sources: Sequence[str] = ("camera0",),
        engines: Sequence[str] = ("engine",),
        reporter: Reporter = SILENT,
    ) -> None:
        _require_packages()
        from edgeseg.video.page.server import Server, listen, reachable

        _require_names("source", sources)
        _require_names("engine", engines)
        require_token(host, token)

        self._hub = Hub(labels, sources, engines)
        self._hub.on_wanted = self._want

        listening = listen(host, port)
        self.port: int = listening.getsockname()[1]
        query = "" if token is None else f"?token={token}"
        self.url = f"http://{reachable(host)}:{self.port}/{query}"
        self._server: Server | None = Server(self._hub, Access(host, self.port, token), listening)

        whose = "" if is_loopback(host) else ", for everybody who has this link"
        reporter.info(f"live page: {self.url}{whose}")

    def write(self, output: Output) -> None:
        """Make a result the newest of its source; this never waits for a viewer."""
        if self._server is not None:
            self._hub.publish(output)

    def finish(self) -> None:
        """Say goodbye to the viewers, and free the port."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def abort(self) -> None:
        """Say goodbye to the viewers, and free the port."""
        self.finish()

    def __enter__(self) -> "PageSink":
        return self

    def _want(self, names: frozenset[str]) -> None:
        """Take the names of the further engines that viewers look at now."""
        self.wanted_engines = names


def _require_packages() -> None:
    """Raise ``MissingDependencyError`` unless the extra ``web`` is installed."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"the live page needs {', '.join(missing)}, not installed here",
            hint="pip install 'edgeseg[web]'",
        )


def _require_names(kind: str, names: Sequence[str]) -> None:
    """Raise ``InputError`` unless there is a name, and each stands once."""
    if not names or len(set(names)) != len(names):
        raise InputError(
            f"the {kind}s of the live page",
            got=", ".join(names) or "none",
            expected=f"one {kind} or more, each with a name of its own",
        )
