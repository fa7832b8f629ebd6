"""PSPNet has the published parameters, and its bins are PyTorch's."""

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from model_tools import parameters  # noqa: E402

from edgeseg.models.pspnet import pool_to_bins  # noqa: E402


def test_parameters_are_the_published_ones() -> None:
    assert round(parameters("pspnet", 19) / 1e6, 2) == 51.44


def test_pooling_to_bins_is_pytorchs() -> None:
    for height, width in ((12, 18), (9, 11), (7, 60)):
        x = torch.randn(2, 3, height, width)
        for bins in (1, 2, 3, 6):
            torch.testing.assert_close(pool_to_bins(x, bins), F.adaptive_avg_pool2d(x, bins))
