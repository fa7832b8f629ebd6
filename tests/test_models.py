"""Every registered net: its size, its shapes, its gradient; and the one-byte pooling under them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from edgeseg.errors import InputError  # noqa: E402
from edgeseg.models import REGISTRY, Architecture, create, register  # noqa: E402
from edgeseg.models.pooling import max_pool_code, max_unpool_code  # noqa: E402
from edgeseg.models.pretrained import load_vgg16  # noqa: E402
from edgeseg.models.summary import summarise  # noqa: E402

# name: parameters in millions with 11 classes, the published figure, and two input sizes it takes
NETS = {"enet": (0.36, 0.005, [(64, 96), (72, 40)]), "segnet": (29.45, 0.01, [(64, 96), (75, 61)])}


@pytest.fixture(params=sorted(NETS))
def net_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_table_is_complete() -> None:
    assert set(NETS) == set(REGISTRY)


def test_parameters_are_the_published_ones(net_name: str) -> None:
    millions, tolerance, _ = NETS[net_name]
    with torch.device("meta"):
        count = sum(p.numel() for p in create(net_name, 11).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=tolerance)


def test_output_has_the_input_size(net_name: str) -> None:
    net = create(net_name, 5).eval()
    for size in NETS[net_name][2]:
        with torch.inference_mode():
            assert net(torch.randn(2, 3, *size)).shape == (2, 5, *size)


def test_a_step_lowers_the_loss(net_name: str) -> None:
    torch.manual_seed(0)
    net = create(net_name, 3).train()
    x, y = torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in net.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_summary_counts_what_the_net_has() -> None:
    rows = {row.architecture.name: row for row in summarise(11, (90, 120))}
    assert rows["enet"].size == (96, 120)
    assert rows["segnet"].size == (90, 120)
    # SegNet's first convolution alone: 3 -> 64 channels, 3x3, on 90x120 pixels; the whole is far more.
    assert rows["segnet"].multiply_adds > 90 * 120 * 64 * 3 * 9 * 10


def test_registry_refuses_duplicates_and_names_its_choices() -> None:
    with pytest.raises(ValueError, match="twice"):
        register(Architecture("enet", "x:Y", 1, ""))
    with pytest.raises(InputError, match="enet, segnet"):
        create("u-net", 3)


# Few distinct values make ties common: after ReLU most windows are all zero.
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 4), st.integers(2, 9), st.integers(2, 9), st.booleans())
def test_pooling_is_pytorchs(seed: int, n: int, c: int, h: int, w: int, channels_last: bool) -> None:
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
    reference = F.max_unpool2d(want * 2, index, 2, output_size=x.shape[2:])
    assert torch.equal(out, reference)
    weight = torch.from_numpy(rng.normal(size=out.shape).astype(np.float32))
    (out * weight).sum().backward()
    (reference * weight).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_vgg16_weights_land_in_the_encoder(tmp_path: object) -> None:
    net = create("segnet", 3)
    convolutions = net.encoder_convolutions()  # type: ignore[operator]
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    state = {}
    for number, conv in zip(numbers, convolutions, strict=True):
        state[f"features.{number}.weight"] = torch.full_like(conv.weight, float(number))
        state[f"features.{number}.bias"] = torch.full_like(conv.bias, float(number) + 0.5)
    path = f"{tmp_path}/vgg.pth"
    torch.save(state, path)
    load_vgg16(convolutions, path)
    for number, conv in zip(numbers, convolutions, strict=True):
        assert conv.weight[0, 0, 0, 0].item() == number
        assert conv.bias[0].item() == number + 0.5


@pytest.mark.parametrize("content", ["text", "other"])
def test_wrong_encoder_weights_are_refused(tmp_path: object, content: str) -> None:
    path = f"{tmp_path}/w.pth"
    if content == "text":
        with open(path, "w") as file:
            file.write("not weights")
    else:
        torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(InputError, match=r"state dict|convolutions"):
        load_vgg16(create("segnet", 3).encoder_convolutions(), path)  # type: ignore[operator]
    with pytest.raises(InputError, match="no such"):
        load_vgg16([], f"{tmp_path}/absent.pth")
