"""One byte per window gives the values and the gradients of PyTorch's own pooling."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from edgeseg.models.pooling import max_pool_code, max_unpool_code  # noqa: E402


# Few distinct values make ties common: after ReLU most windows are all zero.
@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(2, 9),
    st.integers(2, 9),
    st.booleans(),
)
def test_pooling_is_pytorchs(
    seed: int, n: int, c: int, h: int, w: int, channels_last: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.integers(-1, 2, (n, c, h, w)).astype(np.float32))
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    values, code = max_pool_code(ours)
    want, index = F.max_pool2d(theirs, 2, return_indices=True)
    assert code.dtype == torch.uint8
    assert torch.equal(values, want)
    out = max_unpool_code(values * 2, code, ours)
    reference = F.max_unpool2d(want * 2, index, (2, 2), output_size=x.shape[2:])
    assert torch.equal(out, reference)
    weight = torch.from_numpy(rng.normal(size=out.shape).astype(np.float32))
    (out * weight).sum().backward()
    (reference * weight).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)
