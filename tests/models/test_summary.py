"""The costs are counted on the models themselves."""

import pytest

torch = pytest.importorskip("torch")

from edgeseg.models import REGISTRY  # noqa: E402
from edgeseg.models.summary import summarise  # noqa: E402


def test_summary_counts_what_the_net_has() -> None:
    rows = {row.architecture.name: row for row in summarise(11, (90, 120))}
    assert list(rows) == list(REGISTRY)
    assert rows["enet"].size == (96, 120)
    assert rows["segnet"].size == (90, 120)
    # SegNet's first convolution alone: 3 -> 64 channels, 3x3, on 90x120 pixels. The whole is far
    # more.
    assert rows["segnet"].multiply_adds > 90 * 120 * 64 * 3 * 9 * 10
