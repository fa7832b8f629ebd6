"""Memory is used again if, and only if, nobody holds it."""

import threading

import numpy as np
import pytest

from edgeseg.video.buffers import Buffers

SHAPE = (48, 64, 3)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_what_is_dropped_is_used_again() -> None:
    buffers = Buffers()
    addresses = {address(buffers.take(SHAPE)) for _ in range(20)}
    assert len(addresses) == 1


@pytest.mark.parametrize(
    "hold", [lambda a: a, lambda a: a[1:, ::2], memoryview, lambda a: {"x": a}]
)
def test_what_is_held_in_any_way_is_not_used_again(hold: object) -> None:
    buffers = Buffers()
    taken = buffers.take(SHAPE)
    place = address(taken)
    held = hold(taken)  # type: ignore[operator]
    del taken
    others = [buffers.take(SHAPE) for _ in range(20)]
    assert place not in {address(other) for other in others}
    assert len({address(other) for other in others}) == 20

    del held
    assert len({address(buffers.take(SHAPE)) for _ in range(3)}) == 1


def test_another_shape_is_other_memory() -> None:
    buffers = Buffers()
    first = address(buffers.take(SHAPE))
    assert buffers.take((24, 64, 3)).shape == (24, 64, 3)
    assert address(buffers.take(SHAPE)) == first


def test_few_arrays_are_kept() -> None:
    import weakref

    buffers = Buffers()
    kept = [buffers.take((height, 8, 3)) for height in range(1, 40)]
    gone = [weakref.ref(array) for array in kept]
    kept.clear()
    assert sum(reference() is not None for reference in gone) <= 8


def test_a_picture_that_another_thread_reads_does_not_change() -> None:
    buffers = Buffers()
    wrong: list[int] = []
    waiting: list[np.ndarray] = []
    done = threading.Event()

    def read() -> None:
        while not (done.is_set() and not waiting):
            if waiting:
                picture = waiting.pop(0)
                first = int(picture[0, 0, 0])
                for _ in range(20):
                    if (picture != first).any():
                        wrong.append(first)

    reader = threading.Thread(target=read)
    reader.start()
    for index in range(400):
        picture = buffers.take(SHAPE)
        picture[:] = index % 256
        waiting.append(picture)
    done.set()
    reader.join()
    assert wrong == []
