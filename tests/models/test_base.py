"""What every registered model must do: a new model is tested here by its registry entry alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from edgeseg.errors import InputError  # noqa: E402
from edgeseg.models import REGISTRY, create  # noqa: E402
from edgeseg.models.base import SegmentationModel  # noqa: E402
from edgeseg.models.pretrained import load_encoder  # noqa: E402

CLASSES = 5


@pytest.fixture(scope="module", params=list(REGISTRY))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> SegmentationModel:
    """Return the model with the weights of a seed; tests set its mode."""
    torch.manual_seed(0)
    return create(name, CLASSES)


def sizes(model: SegmentationModel) -> list[tuple[int, int]]:
    """Return sizes that the model takes: an even one, an odd one if it takes any, the smallest."""
    other = (75, 61) if model.stride == 1 else (model.stride * 9, model.stride * 5)
    least = max(model.min_side, model.stride)
    return [(64, 96), other, (least, least)]


def logits_shape(
    model: SegmentationModel, size: tuple[int, int], frames: int
) -> list[tuple[int, ...]]:
    """Return the shapes of logits: sides divided by the output stride, rounded down or up."""
    k = model.output_stride
    down = tuple(side // k for side in size)
    up = tuple(-(-side // k) for side in size)
    return [(frames, CLASSES, *down), (frames, CLASSES, *up)]


def test_logits_have_the_size_of_the_input(model: SegmentationModel) -> None:
    model.eval()
    for size in sizes(model):
        with torch.inference_mode():
            logits = model(torch.randn(2, 3, *size))
        assert isinstance(logits, Tensor)
        assert logits.dtype == torch.float32
        assert tuple(logits.shape) in logits_shape(model, size, frames=2)


def test_training_adds_auxiliary_logits_if_the_class_says_so(model: SegmentationModel) -> None:
    outputs = model.train()(torch.randn(2, 3, 64, 96))
    if model.auxiliary_weight is None:
        outputs = (outputs,)
    else:
        assert 0 < model.auxiliary_weight < 1
        assert len(outputs) == 2
    for logits in outputs:
        assert tuple(logits.shape) in logits_shape(model, (64, 96), frames=2)


def test_sizes_that_do_not_fit_are_refused_with_one_that_fits(model: SegmentationModel) -> None:
    model.eval()
    least = max(model.min_side, model.stride)
    for height in (least - 1, model.stride * 9 + 1, model.stride * 9 + 2):
        if height >= least and height % model.stride == 0:
            continue
        fits = max(least, -(-height // model.stride) * model.stride)
        with pytest.raises(InputError, match=f"got {height}x64 .*for example {fits}x64"):
            model(torch.randn(1, 3, height, 64))


def test_a_seed_gives_the_weights(name: str, model: SegmentationModel) -> None:
    torch.manual_seed(0)
    again = create(name, CLASSES)
    ours = dict(model.named_parameters())
    assert list(ours) == [key for key, _ in again.named_parameters()]
    for key, value in again.named_parameters():
        assert torch.equal(ours[key], value), key


def test_the_state_dict_is_the_whole_model(
    name: str, model: SegmentationModel, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other = create(name, CLASSES)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(other.eval()(x), model.eval()(x))


def test_the_classifiers_bias_shifts_the_logits(model: SegmentationModel) -> None:
    """Training builds the class prior into a model that way."""
    x = torch.randn(1, 3, 64, 64)
    bias = model.classifier.bias
    assert bias is not None
    assert bias.shape == (CLASSES,)
    with torch.inference_mode():
        before = model.eval()(x)
        bias[2] += 3
        after = model(x)
        bias[2] -= 3
    shift = torch.tensor([0.0, 0, 3, 0, 0]).view(1, CLASSES, 1, 1)
    torch.testing.assert_close(after, before + shift, rtol=1e-4, atol=1e-4)


def gradient_nodes(logits: Tensor) -> Iterator[str]:
    """Yield the name of every operation that logits were computed by."""
    seen: set[Any] = set()
    left: list[Any] = [logits.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node.name()
            left += [following for following, _ in node.next_functions]


def test_it_unpools_if_the_model_says_so(model: SegmentationModel) -> None:
    logits = model.eval()(torch.randn(1, 3, 64, 64))
    assert any("MaxUnpoolCode" in node for node in gradient_nodes(logits)) == model.unpools


def test_pretrained_weights_are_of_the_encoder_or_refused(name: str, tmp_path: Path) -> None:
    assert REGISTRY[name].pretrained in (None, "vgg16", "resnet34", "resnet50")
    with torch.device("meta"):
        model = create(name, CLASSES)
    assert model.pretrained == REGISTRY[name].pretrained
    if model.pretrained is None:
        with pytest.raises(InputError, match="no encoder with pretrained weights"):
            load_encoder(model, "torchvision")
    else:
        assert isinstance(model.encoder, nn.Module)
        with pytest.raises(InputError, match=f"no such {model.pretrained} weight file"):
            load_encoder(model, tmp_path / "absent.pth")


def test_a_step_lowers_the_loss(name: str) -> None:
    from edgeseg.training.segmenter import enlarged

    torch.manual_seed(0)
    model = create(name, 3).train()
    x = torch.randn(2, 3, 48, 48)
    y = torch.bucketize(
        x[:, 0].contiguous(), torch.tensor([-0.4, 0.4])
    )  # what can be learnt from the image
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        outputs = model(x)
        if model.auxiliary_weight is None:
            loss = F.cross_entropy(enlarged(outputs, y.shape[1:]), y)
        else:
            logits, auxiliary = outputs
            loss = F.cross_entropy(enlarged(logits, y.shape[1:]), y)
            loss = loss + model.auxiliary_weight * F.cross_entropy(
                enlarged(auxiliary, y.shape[1:]), y
            )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        assert all(
            p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters()
        )
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[1:]) < losses[0]
