"""Give each source an output of its own."""

from collections.abc import Sequence

from edgeseg.video.sinks import Output, Sink


class BySource(Sink):
    """Hand the results of each source to a sink of its own.

    Parameters
    ----------
    sinks : one sink per source, in the order of ``Frame.source``. All need pictures, such as videos
        and windows.

    Examples
    --------
    >>> import numpy as np
    >>> from edgeseg.video.frames import Frame
    >>> class Names(Sink):
    ...     def __init__(self, source: str) -> None:
    ...         self.source = source
    ...     def write(self, output: Output) -> None:
    ...         print(self.source, output.frame.name)
    >>> picture = np.zeros((2, 2, 3), np.uint8)
    >>> frame = Frame(0, picture, "000007", timestamp_s=0.0, source=1)
    >>> with BySource([Names("front"), Names("rear")]) as sink:
    ...     sink.write(Output(frame, np.zeros((2, 2), np.uint8), picture))
    rear 000007
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def write(self, output: Output) -> None:
        """Write one result to the sink of its source."""
        sink = self._sinks[output.frame.source]
        sink.write(output)
        self.closed = self.closed or sink.closed

    def finish(self) -> None:
        """Finish every sink, also if one of them fails."""
        errors: list[Exception] = []
        for sink in self._sinks:
            try:
                sink.finish()
            except Exception as error:  # the others are to be whole
                errors.append(error)
        if errors:
            raise errors[0]

    def abort(self) -> None:
        """Abort every sink."""
        for sink in self._sinks:
            sink.abort()
