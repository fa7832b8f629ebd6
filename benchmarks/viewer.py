"""Look at the live page as a browser does, without a browser: for the load that a viewer makes."""

import asyncio
import json
import threading

from edgeseg.video import PageSink

_POLL_S = 0.2  # how often a viewer without messages looks whether he may leave


class Viewer:
    """Look at a page until the block ends, from a thread of its own.

    Parameters
    ----------
    page : the page.

    Attributes
    ----------
    received : number of pictures so far.
    """

    def __init__(self, page: PageSink) -> None:
        self._url = f"ws://127.0.0.1:{page.port}/ws"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="viewer")
        self.received = 0

    def __enter__(self) -> "Viewer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        """Look until the block or the page ends."""
        from websockets.exceptions import ConnectionClosed

        try:
            asyncio.run(self._look())
        except (ConnectionClosed, OSError):
            return  # the page ended first

    async def _look(self) -> None:
        """Ask for the first source, and acknowledge each picture."""
        from websockets.asyncio.client import connect

        async with connect(self._url, max_size=None) as socket:
            facts = json.loads(await socket.recv())
            source = facts["sources"][0]
            chosen = {"sources": [source], "engines": facts["engines"][:1]}
            await socket.send(json.dumps(chosen))

            while not self._stop.is_set():
                try:
                    message = await asyncio.wait_for(socket.recv(), _POLL_S)
                except TimeoutError:
                    continue
                if isinstance(message, bytes):
                    self.received += 1
                    await socket.send(json.dumps({"ack": source}))
