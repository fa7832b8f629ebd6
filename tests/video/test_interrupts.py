"""Check that Ctrl-C and SIGTERM wait for the end of a frame, and that a run then ends in order."""

import os
import signal
import threading

import pytest

from edgeseg.video.interrupts import STOP_SIGNALS, Terminated, held_back, sigterm_stops


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_raised_after_the_block(number: signal.Signals) -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt), sigterm_stops():  # noqa: PT012 - the block is the point
        with held_back():
            os.kill(os.getpid(), number)
            steps.append("the frame is whole")
        steps.append("never reached")
    assert steps == ["the frame is whole"]


def test_sigterm_is_told_from_ctrl_c() -> None:
    with pytest.raises(Terminated), sigterm_stops():
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt) as caught, sigterm_stops():
        os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(caught.value, Terminated)


def test_the_handlers_before_come_back() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with sigterm_stops(), held_back():
        assert [signal.getsignal(number) for number in STOP_SIGNALS] != before
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_are_left_alone() -> None:
    ran: list[bool] = []

    def body() -> None:
        with sigterm_stops(), held_back():
            ran.append(True)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert ran == [True]
