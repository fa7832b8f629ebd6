"""What every engine shares: the checks before a call, and its end."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from edgeseg.backends import engine as engine_module
from edgeseg.backends.engine import Engine
from edgeseg.capabilities import LOGITS
from edgeseg.errors import EngineError, InputError
from edgeseg.passport import Passport
from edgeseg.spec import CAMVID_11, ModelSpec
from edgeseg.types import Float, Image

SIZE = (8, 12)
FRAME = np.full((16, 24, 3), 7, np.uint8)


def passport() -> Passport:
    spec = ModelSpec(architecture="test", input_size=SIZE, labels=CAMVID_11)
    return Passport(
        name="net",
        target="cpu",
        precision="fp32",
        spec=spec,
        onnx_sha256="",
        engine_sha256="",
        edgeseg="0",
        library="none",
        library_version="0",
        device="fake",
        build_seconds=0,
        built_at="",
    )


class Brightness(Engine):
    """Label pixels with the blue value; count calls of ``_release``."""

    capabilities = frozenset({LOGITS})

    def __init__(self, during: Callable[[], object] = lambda: None) -> None:
        super().__init__(passport())
        self.released = 0
        self.during = during

    def _labels(self, frame: Image) -> Image:
        self.during()
        return np.array(frame[:, :, 0])

    def _logits(self, frame: Image) -> Float:
        return np.zeros((len(self.spec.labels), *frame.shape[:2]), np.float32)

    def _release(self) -> None:
        self.released += 1


def pause(begun: threading.Event, go_on: threading.Event) -> Callable[[], object]:
    """Return a function that says that it began, and waits until it may go on."""

    def call() -> None:
        begun.set()
        go_on.wait(10)

    return call


def test_the_end_of_a_block_closes_the_engine() -> None:
    with Brightness() as engine:
        np.testing.assert_array_equal(engine(FRAME), FRAME[:, :, 0])
        assert engine.released == 0
    assert engine.released == 1


def test_an_error_in_the_block_closes_the_engine_and_is_raised() -> None:
    engine = Brightness()
    with pytest.raises(ZeroDivisionError), engine:
        raise ZeroDivisionError
    assert engine.released == 1


def test_closing_twice_releases_once() -> None:
    engine = Brightness()
    engine.close()
    engine.close()
    assert engine.released == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda engine: engine(FRAME),
        lambda engine: engine(np.stack([FRAME, FRAME])),
        lambda engine: engine.logits(FRAME),
    ],
    ids=["frame", "batch", "logits"],
)
def test_a_closed_engine_refuses_calls(call: Callable[[Engine], object]) -> None:
    engine = Brightness()
    call(engine)
    engine.close()
    with pytest.raises(
        EngineError, match=r"^net: the engine is closed\. Open it again with `load_engine`\.$"
    ):
        call(engine)
    assert engine.spec.input_size == SIZE  # the facts stay


def test_close_waits_for_a_call_of_another_thread() -> None:
    begun = threading.Event()
    go_on = threading.Event()
    engine = Brightness(pause(begun, go_on))
    labels: list[Image] = []
    caller = threading.Thread(target=lambda: labels.append(engine(FRAME)))
    caller.start()
    begun.wait(10)
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    assert engine.released == 0

    go_on.set()
    caller.join()
    closer.join()
    assert engine.released == 1
    np.testing.assert_array_equal(labels[0], FRAME[:, :, 0])


def test_close_does_not_wait_for_ever_and_frees_nothing_under_a_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_module, "CLOSE_TIMEOUT_S", 0.01)
    begun = threading.Event()
    go_on = threading.Event()
    engine = Brightness(pause(begun, go_on))
    caller = threading.Thread(target=engine, args=(FRAME,))
    caller.start()
    begun.wait(10)
    engine.close()
    assert engine.released == 0

    go_on.set()
    caller.join()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine(FRAME)


def test_an_engine_without_logits_says_so() -> None:
    engine = Brightness()
    engine.capabilities = frozenset()
    with pytest.raises(EngineError, match="net: this net gives a label map, no scores"):
        engine.logits(FRAME)
    assert Engine.capabilities == frozenset()


def test_what_is_no_frame_is_refused() -> None:
    engine = Brightness()
    with pytest.raises(InputError, match="an empty batch"):
        engine(np.zeros((0, 4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="not a frame"):
        engine(np.zeros((4, 4), np.uint8))
