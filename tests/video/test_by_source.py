"""Check that each source has an output of its own."""

import numpy as np
import pytest

from edgeseg.errors import OutputError
from edgeseg.video import BySource, Frame, Output, Sink


class Kept(Sink):
    """Keep the frames' names, and what was called at the end."""

    def __init__(self, *, fails: bool = False) -> None:
        self.seen: list[str] = []
        self.fails = fails

    def write(self, output: Output) -> None:
        self.seen.append(output.frame.name)

    def finish(self) -> None:
        self.seen.append("finish")
        if self.fails:
            raise OutputError("the disk is full")

    def abort(self) -> None:
        self.seen.append("abort")


def output(source: int, name: str) -> Output:
    picture = np.zeros((2, 2, 3), np.uint8)
    return Output(Frame(0, picture, name, 0.0, source=source), picture[:, :, 0], picture)


def test_each_source_goes_to_its_sink() -> None:
    front, rear = Kept(), Kept()
    with BySource([front, rear]) as sink:
        for source, name in ((0, "a"), (1, "b"), (0, "c")):
            sink.write(output(source, name))
    assert front.seen == ["a", "c", "finish"]
    assert rear.seen == ["b", "finish"]


def test_all_are_finished_though_one_fails() -> None:
    front, rear = Kept(fails=True), Kept()
    with pytest.raises(OutputError, match="the disk is full"):
        BySource([front, rear]).finish()
    assert rear.seen == ["finish"]


def test_one_closed_window_closes_all() -> None:
    front, rear = Kept(), Kept()
    sink = BySource([front, rear])
    sink.write(output(0, "a"))
    assert not sink.closed
    rear.closed = True
    sink.write(output(1, "b"))
    closed: bool = sink.closed
    assert closed
    sink.abort()
    assert rear.seen[-1] == "abort"
