"""Losses, rates, stages, several processes, killed runs, the range test, ``make``."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import edgeseg
from reporting import Heard

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from tiny_recipe import TINY, tiny  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from edgeseg.data import open_dataset  # noqa: E402
from edgeseg.errors import InputError  # noqa: E402
from edgeseg.models import create  # noqa: E402
from edgeseg.models.checkpoint import load_checkpoint  # noqa: E402
from edgeseg.training import data as training_data  # noqa: E402
from edgeseg.training.augment import Augment  # noqa: E402
from edgeseg.training.data import choose  # noqa: E402
from edgeseg.training.fit import train  # noqa: E402
from edgeseg.training.history import History  # noqa: E402
from edgeseg.training.lr_find import find_lr, suggested  # noqa: E402
from edgeseg.training.objective import confusion, objective  # noqa: E402
from edgeseg.training.optimizer import make_optimizer, parameter_groups  # noqa: E402
from edgeseg.training.recipe import (  # noqa: E402
    AugmentSection,
    LossSection,
    OptimSection,
    Recipe,
)
from edgeseg.training.schedule import lr_factor  # noqa: E402

# -- losses ----------------------------------------------------------------------------------


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    masks = torch.randint(0, 3, (2, 5, 7), dtype=torch.uint8)
    masks[0, :2] = 11
    return torch.randn(2, 3, 5, 7), masks, torch.tensor([0.5, 1.0, 3.0])


def by_hand(logits: Tensor, masks: Tensor, weights: Tensor, gamma: float) -> float:
    """Weighted focal cross-entropy, pixel by pixel in double precision."""
    total = norm = 0.0
    chances = logits.double().softmax(1)
    for n, row, column in np.ndindex(*masks.shape):
        label = int(masks[n, row, column])
        if label != 11:
            chance, weight = float(chances[n, label, row, column]), float(weights[label])
            total -= weight * (1 - chance) ** gamma * np.log(chance)
            norm += weight
    return total / norm


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_cross_entropy_and_focal_loss(gamma: float) -> None:
    logits, masks, weights = batch()
    got = objective(logits, masks, weights, ignore_id=11, config=LossSection(focal_gamma=gamma))
    assert float(got) == pytest.approx(by_hand(logits, masks, weights, gamma), rel=1e-5)


def test_dice_is_the_share_that_is_not_shared() -> None:
    logits, masks, weights = batch()
    plain = objective(logits, masks, weights, ignore_id=11, config=LossSection())
    both = objective(logits, masks, weights, ignore_id=11, config=LossSection(dice=0.5))
    chance, valid = logits.softmax(1), masks != 11
    dice = []
    for label in range(3):
        ours, theirs = chance[:, label][valid], (masks[valid] == label).float()
        dice.append(float(2 * (ours * theirs).sum() / (ours.sum() + theirs.sum())))
    assert float(both - plain) == pytest.approx(0.5 * (1 - np.mean(dice)), rel=1e-4)


def test_confusion_is_the_metrics_own() -> None:
    from edgeseg.metrics.confusion import confusion_matrix

    logits, masks, _ = batch()
    want = sum(
        confusion_matrix(t, g, 3, 11)
        for t, g in zip(masks.numpy(), logits.argmax(1).byte().numpy(), strict=True)
    )
    np.testing.assert_array_equal(confusion(logits, masks, 11).numpy(), want)


# -- rates -----------------------------------------------------------------------------------


def test_the_cosine_falls_to_zero() -> None:
    factor = lr_factor(OptimSection(lr=1, schedule="cosine"), 100)
    assert [factor(0), factor(50), factor(100)] == pytest.approx([1, 0.5, 0], abs=1e-9)


def test_early_layers_learn_slower() -> None:
    net = create("unet-resnet34", 3)
    groups = parameter_groups(
        net, OptimSection(lr=1e-2, encoder_lr_first=0.01, encoder_lr_factor=1.0)
    )
    rates = [group["lr"] for group in groups]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[-1] == pytest.approx(1e-2)
    assert rates == sorted(rates)
    ratios = np.diff(np.log(rates[:-1]))
    np.testing.assert_allclose(ratios, ratios[0])
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    assert isinstance(net.encoder, nn.Module)
    assert isinstance(net.encoder.conv1, nn.Module)
    assert isinstance(net.classifier, nn.Module)
    assert groups[0]["params"][0] is net.encoder.conv1.weight
    assert any(p is net.classifier.weight for p in groups[-1]["params"])
    whole = parameter_groups(net, OptimSection(lr=1e-2, encoder_lr_factor=0.1))
    assert [group["lr"] for group in whole] == pytest.approx([1e-3, 1e-2])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adadelta"])
def test_optimizers_by_name(name: str) -> None:
    config = OptimSection(lr=0.1, optimizer=name)  # type: ignore[arg-type]
    made = make_optimizer(parameter_groups(torch.nn.Linear(2, 2), config), config)
    assert type(made).__name__.lower() == name


# -- augmentation ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        AugmentSection(resized_crop=1.0, area=(0.3, 0.9)),
        AugmentSection(skew_degrees=15, crop=(50, 70)),
        AugmentSection(base=80, crop=(64, 64), scale=(0.5, 2)),
    ],
    ids=["resized crop", "skew", "base"],
)
def test_image_and_mask_stay_together(config: AugmentSection) -> None:
    mask = (np.add.outer(np.arange(90), np.arange(120)) // 20 % 11).astype(np.uint8)
    image = np.repeat((mask * 20 + 20)[..., None], 3, axis=2).astype(np.uint8)
    size = config.crop or (90, 120)
    augment = Augment(config, size, 11, np.ones(256))
    for seed in range(15):
        warped, labels = augment(image, mask, np.random.default_rng(seed))
        assert warped.shape == (*size, 3)
        inside = labels != 11
        assert inside.mean() > 0.2
        agree = np.abs(warped[..., 0].astype(int) - (labels.astype(int) * 20 + 20)) <= 12
        assert agree[inside].mean() > 0.7


def test_a_resized_crop_enlarges() -> None:
    """A quarter of the area, of the same aspect, is some quarter of the frame at twice the size."""
    mask = np.zeros((80, 80), np.uint8)
    mask[::2] = 1  # rows two high when enlarged twice
    config = AugmentSection(flip=0, resized_crop=1.0, area=(0.25, 0.25), ratio=1.0)
    _, labels = Augment(config, (80, 80), 11, np.ones(256))(
        np.zeros((80, 80, 3), np.uint8), mask, np.random.default_rng(0)
    )
    changes = (np.diff(labels[:, 40].astype(int)) != 0).sum()
    assert 38 <= changes <= 41
    assert 11 not in labels


def test_data_that_does_not_fit_is_read_when_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    drive = open_dataset("synthetic://?length=6&size=96x64&seed=1", "train")
    held = choose(drive, ())
    monkeypatch.setattr(training_data, "MEMORY_LIMIT", 1000)
    read = choose(drive, ())
    assert read._held is None
    assert held._held is not None
    assert read.names == held.names
    np.testing.assert_array_equal(read[3].image, held[3].image)


# -- whole runs ------------------------------------------------------------------------------


def weights(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=False)["state_dict"]
    return state


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """SIGKILL inside an epoch; even with dropout, flips and crops the weights are the same."""
    (tmp_path / "recipe.toml").write_text(TINY.replace("batch = 4", "batch = 2"))
    whole = edgeseg("train", tmp_path / "recipe.toml", "-o", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "edgeseg",
        "train",
        tmp_path / "recipe.toml",
        "-o",
        tmp_path / "killed",
    ]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = tmp_path / "killed" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert last.exists(), "no checkpoint within two minutes"
    time.sleep(0.4)
    assert running.poll() is None, "the run had ended before it was killed"
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "killed" / "best.json").exists(), (
        "the run had ended before it was killed"
    )
    resumed = edgeseg("train", tmp_path / "recipe.toml", "-o", tmp_path / "killed", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = weights(last), weights(tmp_path / "whole" / "last.ckpt")
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key
    assert (tmp_path / "killed" / "history.csv").read_text() == (
        tmp_path / "whole" / "history.csv"
    ).read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_stages_go_on_from_each_other(tmp_path: Path) -> None:
    recipe = tiny(tmp_path, fit__epochs=1, model__architecture="fcn-resnet34")
    stages = [
        {"name": "frozen", "set": {"model.freeze_encoder_epochs": 1, "model.input_size": [32, 48]}},
        {"name": "whole", "set": {"optim.lr": 1e-3, "optim.encoder_lr_first": 0.1}},
    ]
    recipe = Recipe.model_validate({**recipe.model_dump(), "stage": stages})
    said: list[str] = []
    best = train(recipe, tmp_path / "run", reporter=Heard(said))
    first, last = (
        load_checkpoint(tmp_path / "run" / name / "best.pt") for name in ("frozen", "whole")
    )
    assert (first[1].input_size, last[1].input_size) == ((32, 48), (64, 96))
    assert load_checkpoint(best)[2] == last[2]
    started = json.loads(last[2]["recipe"])["model"]["init"]
    assert started == str(tmp_path / "run" / "frozen" / "best.pt")
    rows = History.read_csv(tmp_path / "run" / "history.csv").rows
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"val_loss", "train_miou", "train_pixel_accuracy"} <= rows[0].keys()
    assert cv2.imread(str(tmp_path / "run" / "curves.png")) is not None
    # Nothing is trained twice: with the second stage lost, only it is run.
    before = (tmp_path / "run" / "frozen" / "best.pt").stat().st_mtime_ns
    (tmp_path / "run" / "whole" / "best.json").unlink()
    said.clear()
    train(recipe, tmp_path / "run", resume=True, reporter=Heard(said))
    assert said[0] == "stage frozen: done before"
    assert (tmp_path / "run" / "frozen" / "best.pt").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ({"name": "a", "set": {"nonsense.lr": 1}}, "no section.key"),
        ({"name": "a", "set": {"optim.lr": -1}}, "greater than 0"),
        ({"name": "a", "set": {"optim.rate": 1}}, "Extra inputs|not permitted"),
    ],
)
def test_impossible_stages_are_refused(tmp_path: Path, stage: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Recipe.model_validate({**tiny(tmp_path).model_dump(), "stage": [stage]})


SCRIPT = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch
from torch import nn
import edgeseg.models as models
from edgeseg.models.base import SegmentationModel
from edgeseg.reporter import SILENT
from edgeseg.training.recipe import load_recipe
from edgeseg.training.fit import train

class Plain(SegmentationModel):
    # No batch normalisation: its statistics are each process's own on a CPU.
    def __init__(self, classes):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.classifier = nn.Conv2d(8, classes, 1)
    def compute(self, x):
        return self.classifier(self.encoder(x))

sys.modules["plain"] = type(sys)("plain")
sys.modules["plain"].Plain = Plain
models.register(models.Architecture("plain", "plain:Plain", ""))
train(load_recipe(sys.argv[1]), Path(sys.argv[2]), reporter=SILENT)
"""


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    """The same batches, loss and gradient; void and class weights make parts weigh unequally."""
    text = TINY.replace('"enet"', '"plain"').replace(
        "[optim]", '[loss]\nclass_weights = "median"\n[optim]\noptimizer = "sgd"'
    )
    (tmp_path / "recipe.toml").write_text(
        text.replace("epochs = 4", "epochs = 2").replace("lr = 5e-3", "lr = 0.1")
    )
    (tmp_path / "run.py").write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for out, launcher in (
        ("one", []),
        ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]),
    ):
        command = [
            sys.executable,
            *launcher,
            tmp_path / "run.py",
            tmp_path / "recipe.toml",
            tmp_path / out,
        ]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, env=environment, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (weights(tmp_path / out / "last.ckpt") for out in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=2e-5)
    first, second = (
        History.read_csv(tmp_path / out / "history.csv").rows for out in ("one", "two")
    )
    assert first[1]["loss"] < first[0]["loss"] - 0.05  # there was something to learn alike
    for a, b in zip(first, second, strict=True):
        assert a["step"] == b["step"]
        for key in ("loss", "val_loss", "miou", "pixel_accuracy", "train_pixel_accuracy"):
            assert a[key] == pytest.approx(b[key], rel=2e-3, abs=1e-4), key


# -- the range test, and make ----------------------------------------------------------------


def test_the_suggestion_is_the_steepest_fall() -> None:
    rates = list(np.geomspace(1e-5, 1, 50))
    losses = [2 - 1 / (1 + (1e-3 / r) ** 3) + (10 * max(0.0, r - 0.1)) for r in rates]
    assert suggested(rates, losses) == pytest.approx(1e-3, rel=0.3)


@pytest.mark.filterwarnings("ignore")
def test_range_test_on_a_net(tmp_path: Path) -> None:
    test = find_lr(tiny(tmp_path), low=1e-5, high=10.0, steps=30)
    assert len(test.rates) == len(test.losses) >= 10
    assert 1e-5 < test.suggested < 10
    assert min(test.losses) < test.losses[0]
    done = edgeseg("lr-find", tmp_path / "recipe.toml", "--low", "1", "--high", "0.1")
    assert done.returncode == 2
    assert "the rates do not rise" in done.stderr


@pytest.mark.slow
def test_make_does_everything_once(tmp_path: Path) -> None:
    tiny(tmp_path)
    # Six epochs and post-training quantization: a model with less training may lose more labels
    # than INT8 may cost.
    (tmp_path / "recipe.toml").write_text(TINY.replace("epochs = 4", "epochs = 6"))
    command = (
        "make",
        tmp_path / "recipe.toml",
        "-o",
        tmp_path / "out",
        "--qat-epochs",
        1,
        "--rounds",
        1,
    )
    first = edgeseg(*command)
    assert first.returncode == 0, first.stderr
    assert "up to date" not in first.stdout
    facts = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["precision"] for row in facts["engines"]][0::2][0] == "fp32"
    assert facts["engines"][-1]["precision"] == "int8"
    assert all(0 < row["miou"] < 1 for row in facts["engines"])
    again = edgeseg(*command)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("up to date") == len(
        json.loads((tmp_path / "out" / "make.json").read_text())
    )
    # A lost engine is built again, from the same file; what compares it follows only if it differs.
    next((tmp_path / "out").glob("*.fp32.cpu.engine")).unlink()
    third = edgeseg(*command)
    assert third.returncode == 0, third.stderr
    assert "build fp32 ..." in third.stdout
    assert "train: up to date" in third.stdout
    # Another recipe does not overwrite the run.
    (tmp_path / "recipe.toml").write_text(TINY.replace("epochs = 4", "epochs = 3"))
    other = edgeseg(*command)
    assert other.returncode == 2
    assert "holds a run of another recipe" in other.stderr


def test_a_recipe_that_starts_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such checkpoint"):
        train(tiny(tmp_path, model__init="nowhere.pt"), tmp_path / "x")
