"""Published weights land in the layers they belong to; other files are refused."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from edgeseg.errors import InputError  # noqa: E402
from edgeseg.models import create  # noqa: E402
from edgeseg.models.pretrained import encoder_convolutions, load_encoder, load_vgg16  # noqa: E402


def test_vgg16_weights_land_in_the_encoder(tmp_path: Path) -> None:
    net = create("segnet", 3)
    convolutions = encoder_convolutions(net)
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    state = {}
    for number, conv in zip(numbers, convolutions, strict=True):
        state[f"features.{number}.weight"] = torch.full_like(conv.weight, float(number))
        state[f"features.{number}.bias"] = torch.full_like(conv.bias, float(number) + 0.5)
    path = tmp_path / "vgg.pth"
    torch.save(state, path)
    load_vgg16(convolutions, path)
    for number, conv in zip(numbers, convolutions, strict=True):
        assert conv.weight[0, 0, 0, 0].item() == number
        assert conv.bias is not None
        assert conv.bias[0].item() == number + 0.5


@pytest.mark.parametrize("content", ["text", "other"])
def test_wrong_encoder_weights_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "w.pth"
    if content == "text":
        path.write_text("not weights")
    else:
        torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(InputError, match=r"state dict|convolutions"):
        load_vgg16(encoder_convolutions(create("segnet", 3)), path)
    with pytest.raises(InputError, match="no such"):
        load_vgg16([], tmp_path / "absent.pth")


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
    for key, value in net.encoder.state_dict().items():
        assert torch.equal(value, state[key])
    with pytest.raises(InputError, match="not the weights of this encoder"):
        load_encoder(create("pspnet", 3), tmp_path / "r.pth")
    with pytest.raises(InputError, match="no encoder with pretrained weights"):
        load_encoder(create("unet", 3), tmp_path / "r.pth")
