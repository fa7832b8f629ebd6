"""Every registered net: its size, its shapes, its gradient; and the one-byte pooling under them."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from edgeseg.errors import InputError  # noqa: E402
from edgeseg.models import REGISTRY, Architecture, create, register  # noqa: E402
from edgeseg.models.pooling import max_pool_code, max_unpool_code  # noqa: E402
from edgeseg.models.pretrained import load_encoder, load_vgg16  # noqa: E402
from edgeseg.models.pspnet import pool_to_bins  # noqa: E402
from edgeseg.models.summary import summarise  # noqa: E402
from edgeseg.training.segmenter import enlarged  # noqa: E402

# name: (classes, parameters of the source, in millions where it rounds), and two input sizes it takes, one odd
NETS: dict[str, tuple[int, float, list[tuple[int, int]]]] = {
    "enet": (11, 0.36, [(64, 96), (72, 40)]),  # its own multiples of 8
    "fcn": (21, 5.500245, [(64, 96), (75, 61)]),
    "fcn-dropout": (21, 5.500245, [(64, 96), (75, 61)]),
    "fcn-resnet34": (21, 25.214357, [(64, 96), (75, 61)]),
    "pspnet": (19, 51.44, [(64, 96), (75, 61)]),
    "r2unet": (19, 39.09, [(64, 96), (75, 61)]),
    "segnet": (11, 29.45, [(64, 96), (75, 61)]),
    "segnet-light": (101, 11.604005, [(64, 96), (75, 61)]),
    "unet": (19, 31.04, [(64, 96), (75, 61)]),
    "unet-resnet34": (32, 41.23, [(64, 96), (75, 61)]),
}


@pytest.fixture(params=sorted(NETS))
def net_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_table_is_complete() -> None:
    assert set(NETS) == set(REGISTRY)


def test_parameters_are_the_published_ones(net_name: str) -> None:
    classes, millions, _ = NETS[net_name]
    with torch.device("meta"):
        count = sum(p.numel() for p in create(net_name, classes).parameters())
    digits = len(f"{millions}".split(".")[1])
    assert round(count / 1e6, digits) == millions


def test_the_light_segnets_convolutions_are_the_reports() -> None:
    with torch.device("meta"):
        net = create("segnet-light", 101)
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sum(p.numel() for m in convolutions for p in m.parameters()) == 11_602_085
    assert isinstance(net.encoder, torch.nn.Module)
    assert sum(p.numel() for p in net.encoder.parameters()) == 7_635_264


def test_the_fcn_is_its_table() -> None:
    """Every 3x3 convolution with its bias, every normalisation's two vectors, the 1x1 classifier; by hand."""
    down, up = (3, 32, 64, 128, 256, 512), (512, 512, 256, 128, 64, 32)
    blocks = sum(9 * a * b + b + 2 * b for sizes in (down, up) for a, b in pairwise(sizes))
    with torch.device("meta"):
        net = create("fcn", 21)
    assert sum(p.numel() for p in net.parameters()) == blocks + 32 * 21 + 21


def test_output_has_the_input_size(net_name: str) -> None:
    net, divided = create(net_name, 5).eval(), REGISTRY[net_name].output_stride
    for size in NETS[net_name][2]:
        with torch.inference_mode():
            batch, classes, *out = net(torch.randn(2, 3, *size)).shape
        assert (batch, classes) == (2, 5)
        assert all(abs(divided * got - side) < divided for got, side in zip(out, size, strict=True))


@pytest.mark.parametrize("name", ["segnet-light", "pspnet", "fcn"])
def test_variants_are_arguments(name: str) -> None:
    variants: dict[str, dict[str, Any]] = {
        "segnet-light": {"upsampling": "positions", "relu": True}, "pspnet": {"stem": "plain"},
        "fcn": {"encoder": "resnet34"},
    }  # fmt: skip
    variant = variants[name]
    plain, other = create(name, 5), create(name, 5, **variant)
    assert [p.shape for p in plain.parameters()] != [p.shape for p in other.parameters()] or name == "segnet-light"
    with torch.inference_mode():
        assert other.eval()(torch.randn(1, 3, 50, 70)).shape[:2] == (1, 5)
    with pytest.raises(InputError, match=r"no such argument.*expected"):
        create(name, 5, nonsense=1)
    with pytest.raises(InputError, match="out of its range"):
        create(name, 5, **{next(iter(variant)): "nonsense"})


def test_pooling_to_bins_is_pytorchs() -> None:
    for height, width in ((12, 18), (9, 11), (7, 60)):
        x = torch.randn(2, 3, height, width)
        for bins in (1, 2, 3, 6):
            torch.testing.assert_close(pool_to_bins(x, bins), F.adaptive_avg_pool2d(x, bins))


def test_a_step_lowers_the_loss(net_name: str) -> None:
    torch.manual_seed(0)
    net = create(net_name, 3).train()
    x, y = torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    losses = []
    for _ in range(4):
        outputs = net(x)
        logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
        loss = F.cross_entropy(enlarged(logits, y.shape[1:]), y)
        if auxiliary is not None:
            assert isinstance(net.auxiliary_weight, float)
            loss = loss + net.auxiliary_weight * F.cross_entropy(enlarged(auxiliary, y.shape[1:]), y)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
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
    with pytest.raises(InputError, match="one of segnet, segnet-light, enet"):
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
    reference = F.max_unpool2d(want * 2, index, (2, 2), output_size=x.shape[2:])
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


@pytest.mark.parametrize(
    ("name", "arguments", "depth"),
    [("fcn-resnet34", {}, 34), ("unet-resnet34", {}, 34), ("pspnet", {"stem": "plain"}, 50)],
)
def test_torchvisions_resnets_land_in_the_encoder(
    name: str, arguments: dict[str, str], depth: int, tmp_path: Path
) -> None:
    import torchvision

    torch.manual_seed(0)
    state = getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict()
    torch.save(state, tmp_path / "r.pth")
    net = create(name, 3, **arguments)
    load_encoder(net, tmp_path / "r.pth")
    assert isinstance(net.encoder, torch.nn.Module)
    for key, value in net.encoder.state_dict().items():
        assert torch.equal(value, state[key])
    with pytest.raises(InputError, match="not the weights of this encoder"):
        load_encoder(create("pspnet", 3), tmp_path / "r.pth")
    with pytest.raises(InputError, match="no encoder with pretrained weights"):
        load_encoder(create("unet", 3), tmp_path / "r.pth")
