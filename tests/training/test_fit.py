"""Recipes, augmentation, losses, schedules, and a real training run on the synthetic drive."""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from commands import edgeseg
from paths import ROOT

from edgeseg.reporter import SILENT

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from tiny_recipe import TINY, tiny, write  # noqa: E402

from edgeseg.backends.load import load_engine  # noqa: E402
from edgeseg.build.engine_from_onnx import build_engine  # noqa: E402
from edgeseg.data import Sample, open_dataset  # noqa: E402
from edgeseg.errors import DataError, InputError  # noqa: E402
from edgeseg.export.onnx_from_torch import export_checkpoint  # noqa: E402
from edgeseg.metrics.evaluate import check_labels, evaluate  # noqa: E402
from edgeseg.models import create  # noqa: E402
from edgeseg.models.checkpoint import load_checkpoint  # noqa: E402
from edgeseg.spec import CAMVID_11, VOC_21  # noqa: E402
from edgeseg.training.augment import Augment, paste_classes  # noqa: E402
from edgeseg.training.data import DriveSampler  # noqa: E402
from edgeseg.training.fit import spec_of, train  # noqa: E402
from edgeseg.training.loss import class_weights, prior_shift  # noqa: E402
from edgeseg.training.objective import cross_entropy  # noqa: E402
from edgeseg.training.recipe import AugmentSection, OptimSection, Recipe, load_recipe, with_changes  # noqa: E402
from edgeseg.training.schedule import lr_factor  # noqa: E402
from edgeseg.training.segmenter import Segmenter, freeze_encoder, shifted  # noqa: E402

RECIPES = sorted((ROOT / "engines").glob("*.toml"))

LONGER = {
    "augment__brightness": 0.2,
    "loss__class_weights": "median",
    "loss__weight_power": 0.5,
    "optim__lr": 8e-3,
    "fit__epochs": 8,
    "fit__validate_every": 4,
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("epochs = 4", "epochs = 0", "fit.epochs"),
        ("flip = 0.5", "flop = 0.5", "augment.flop"),
        ("lr = 5e-3", "", "optim.lr"),
        ("[optim]", "[loss]\nclass_weights = 'meridian'\n[optim]", "class_weights"),
        ("[fit]", "[fit", "TOML"),
    ],
)
def test_bad_recipes_name_the_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_recipe(write(tmp_path, TINY.replace(old, new)))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such recipe"):
        load_recipe(tmp_path / "absent.toml")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A short but real run: 24 synthetic frames, eight epochs, interrupted and resumed half-way."""
    folder = tmp_path_factory.mktemp("run")
    recipe = tiny(folder, **LONGER)
    out = folder / "tiny"
    train(with_changes(recipe, {"fit.epochs": 4}), out, reporter=SILENT)
    train(recipe, out, resume=True, reporter=SILENT)
    return recipe, out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
class TestRun:
    def test_leaves_what_it_says(self, run: tuple[Recipe, Path]) -> None:
        _, out = run
        for name in (
            "best.pt",
            "last.ckpt",
            "history.csv",
            "curves.png",
            "panel.png",
            "recipe.json",
            "best.json",
        ):
            assert (out / name).stat().st_size > 0, name
        panel = cv2.imread(str(out / "panel.png"))
        assert panel is not None
        assert panel.shape[1] == 3 * 96

    def test_resumed_history_is_whole_and_loss_fell(self, run: tuple[Recipe, Path]) -> None:
        rows = list(csv.DictReader((run[1] / "history.csv").open()))
        assert [int(r["epoch"]) for r in rows] == [4, 8]
        assert [int(r["step"]) for r in rows] == [24, 48]
        assert float(rows[1]["loss"]) < float(rows[0]["loss"])

    def test_best_is_the_best_of_the_history(self, run: tuple[Recipe, Path]) -> None:
        rows = list(csv.DictReader((run[1] / "history.csv").open()))
        best = json.loads((run[1] / "best.json").read_text())
        assert best["val_miou"] == pytest.approx(max(float(r["miou"]) for r in rows))

    def test_checkpoint_to_engine_scores_what_training_said(
        self, run: tuple[Recipe, Path], tmp_path: Path
    ) -> None:
        recipe, out = run
        engine = load_engine(
            build_engine(export_checkpoint(out / "best.pt", tmp_path / "n.onnx"), precision="fp32")
        )
        result = evaluate(engine, open_dataset(recipe.data.address, "val"))
        assert result.mean_iou == pytest.approx(
            load_checkpoint(out / "best.pt")[2]["val_miou"], abs=2e-3
        )
        assert result.pixel_accuracy > 0.5  # more than any one class has

    def test_a_run_is_not_overwritten(self, run: tuple[Recipe, Path]) -> None:
        with pytest.raises(InputError, match="`resume`"):
            train(run[0], run[1], reporter=SILENT)


@pytest.mark.filterwarnings("ignore")
def test_early_stopping_ends_a_run_that_gets_no_better(tmp_path: Path) -> None:
    recipe = tiny(tmp_path, **LONGER)
    lost = {
        "optim.lr": 1e4,
        "optim.schedule": "constant",
        "fit.validate_every": 1,
        "fit.patience": 2,
        "fit.epochs": 9,
    }
    with pytest.raises(InputError, match=r"weights that are not numbers.*The training failed"):
        train(with_changes(recipe, lost), tmp_path / "lost", reporter=SILENT)
    rows = list(csv.DictReader((tmp_path / "lost" / "history.csv").open()))
    assert 3 <= len(rows) < 9


def test_encoder_is_frozen_then_not(tmp_path: Path) -> None:
    recipe = tiny(tmp_path, model__architecture="segnet", model__freeze_encoder_epochs=2)
    spec = spec_of(recipe, CAMVID_11)
    module = Segmenter(recipe, spec, torch.ones(11), tmp_path, 10)
    for epoch, trains in ((0, False), (1, False), (2, True)):
        freeze_encoder(module.net, frozen=epoch < recipe.model.freeze_encoder_epochs)
        assert isinstance(module.net.encoder, torch.nn.Module)
        assert isinstance(module.net.decoder, torch.nn.Module)
        assert all(p.requires_grad == trains for p in module.net.encoder.parameters())
        assert all(p.requires_grad for p in module.net.decoder.parameters())


def test_the_prior_is_taken_back_in_the_saved_net(tmp_path: Path) -> None:
    """Folding the shift into the bias gives the scores that validation saw."""
    torch.manual_seed(0)
    net = create("enet", 11).eval()
    shift = torch.from_numpy(prior_shift(np.linspace(0.5, 4, 11).astype(np.float32), 0.5))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = net(x)
    with shifted(net, shift), torch.inference_mode():
        inside = net(x)
    with torch.inference_mode():
        torch.testing.assert_close(inside, before + shift.view(1, -1, 1, 1))
        torch.testing.assert_close(net(x), before)
    assert shift[0] > 0 > shift[-1]


@pytest.mark.filterwarnings("ignore")
def test_training_refuses_what_cannot_work(tmp_path: Path) -> None:
    recipe = tiny(tmp_path)
    with pytest.raises(InputError, match=r"divisible by 8.*72"):
        train(with_changes(recipe, {"model.input_size": (70, 96)}), tmp_path / "a")
    with pytest.raises(DataError, match="fewer frames"):
        train(with_changes(recipe, {"fit.batch": 100}), tmp_path / "b")
    with pytest.raises(InputError, match="no encoder"):
        train(with_changes(recipe, {"model.encoder": "torchvision"}), tmp_path / "c")
    with pytest.raises(DataError, match="no frame of drives"):
        train(with_changes(recipe, {"data.drives": ("nowhere",)}), tmp_path / "d")


def sample(size: tuple[int, int] = (90, 120)) -> Sample:
    mask = (np.add.outer(np.arange(size[0]), np.arange(size[1])) // 20 % 11).astype(np.uint8)
    # Each class has its own grey, so that image and mask can be compared after any warp.
    image = np.repeat((mask * 20 + 20)[..., None], 3, axis=2).astype(np.uint8)
    return Sample("0001TP_1", image, mask)


def test_image_and_mask_are_warped_alike() -> None:
    config = AugmentSection(
        crop=(64, 80), flip=0.5, scale=(0.8, 2.0), aspect=1.3, rotate_degrees=8, rare_crop=0.5
    )
    augment = Augment(config, (64, 80), 11, np.ones(256))
    s = sample()
    for seed in range(20):
        image, mask = augment(s.image, s.mask, np.random.default_rng(seed))
        assert image.shape == (64, 80, 3)
        assert mask.shape == (64, 80)
        inside = mask != 11
        assert inside.mean() > 0.3
        agree = np.abs(image[..., 0].astype(int) - (mask.astype(int) * 20 + 20)) <= 10
        assert agree[inside].mean() > 0.8  # all but class borders, where the image is interpolated


def test_no_augmentation_is_the_plain_frame() -> None:
    s = sample()
    image, mask = Augment(AugmentSection(flip=0), (90, 120), 11, np.ones(256))(
        s.image, s.mask, np.random.default_rng(0)
    )
    np.testing.assert_array_equal(mask, s.mask)
    assert np.abs(image.astype(int) - s.image).max() <= 1


def test_colour_changes_the_image_and_never_the_mask() -> None:
    config = AugmentSection(
        flip=0,
        brightness=0.3,
        contrast=0.3,
        gamma=1.5,
        temperature=0.2,
        saturation=0.5,
        hue_degrees=20,
        shade=0.4,
        grey=0.2,
        blur=0.5,
        noise=5,
    )
    augment, s = Augment(config, (90, 120), 11, np.ones(256)), sample()
    means = []
    for seed in range(30):
        image, mask = augment(s.image, s.mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(mask, s.mask)
        again, _ = augment(s.image, s.mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(image, again)
        means.append(image.mean())
    assert np.std(means) > 5


def test_noise_is_alike_in_every_channel() -> None:
    grey = np.full((90, 120, 3), 128, np.uint8)
    augment = Augment(AugmentSection(flip=0, noise=6), (90, 120), 11, np.ones(256))
    spread = []
    for seed in range(20):
        image, _ = augment(grey, np.zeros((90, 120), np.uint8), np.random.default_rng(seed))
        # Nothing but noise, around the grey that was there.
        assert np.abs(image.mean((0, 1)) - 128).max() < 1
        spread.append(image.std((0, 1)))
    assert np.abs(spread - np.mean(spread, axis=1, keepdims=True)).max() < 0.3
    assert np.mean(spread) > 1


def test_pasted_classes_bring_their_labels() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = np.full((8, 8, 3), 10, np.uint8), np.full((8, 8, 3), 200, np.uint8)
    mask, other = np.zeros((8, 8), np.uint8), np.repeat(np.arange(1, 9, dtype=np.uint8)[None], 8, 0)
    other[0] = CAMVID_11.ignore_id
    image, labels = paste_classes(ours, mask, theirs, other, CAMVID_11.ignore_id, rng)
    assert (labels != 0).sum() == 4 * 7  # half of eight classes; void is never pasted
    np.testing.assert_array_equal(image[..., 0] == 200, labels != 0)


def test_rare_crops_find_the_rare_class() -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[150:154, 20:24] = 10
    image = np.zeros((200, 300, 3), np.uint8)
    rare = np.zeros(256)
    rare[10] = 1

    def share(probability: float) -> float:
        augment = Augment(
            AugmentSection(crop=(60, 80), flip=0, rare_crop=probability), (60, 80), 11, rare
        )
        found = [10 in augment(image, mask, np.random.default_rng(i))[1] for i in range(100)]
        return float(np.mean(found))

    assert share(1.0) > 0.9 > 0.5 > share(0.0)


@pytest.mark.parametrize("kind", ["inverse", "median", "log"])
def test_class_weights(kind: str) -> None:
    counts = np.array([[800, 150, 50, 0], [1000, 500, 100, 0]])
    weights = class_weights(counts, kind, 1.0)
    share = counts[0] / counts[0].sum()
    assert (weights * share).sum() == pytest.approx(1, abs=1e-5)
    assert weights[3] == 0
    ratio = weights[1] / weights[0]
    want = {
        "inverse": 800 / 150,
        "median": (800 / 1000) / (150 / 500),
        "log": np.log(1.02 + 0.8) / np.log(1.02 + 0.15),
    }[kind]
    assert ratio == pytest.approx(want, rel=1e-4)
    np.testing.assert_allclose(class_weights(counts, kind, 0.0)[:3], 1)


def test_schedules() -> None:
    poly = lr_factor(OptimSection(lr=1, schedule="poly", power=0.9), 100)
    assert [poly(0), poly(50), poly(100)] == pytest.approx([1, 0.5**0.9, 0])
    cycle = lr_factor(OptimSection(lr=1, schedule="onecycle", warmup=0.1), 100)
    assert [cycle(0), cycle(10), cycle(55), cycle(100)] == pytest.approx(
        [0.04, 1, 0.5, 1e-4], abs=1e-3
    )
    assert lr_factor(OptimSection(lr=1, schedule="constant"), 100)(77) == 1


def test_void_pixels_teach_nothing() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4), dtype=torch.uint8)
    masks[0, 0] = 11
    options: dict[str, Any] = {"ignore_id": 11, "label_smoothing": 0.1}
    before = cross_entropy(logits, masks, torch.ones(3), **options)
    logits[0, :, 0] = 100.0
    assert float(before) == pytest.approx(
        float(cross_entropy(logits, masks, torch.ones(3), **options))
    )


def test_drive_sampler() -> None:
    names = [f"{'A' if i < 10 else 'B'}_{i}" for i in range(100)]
    plain, balanced = DriveSampler(names, 0.0, 1), DriveSampler(names, 1.0, 1)
    assert sorted(i for i, _ in plain) == list(range(100))
    assert 45 <= sum(i < 10 for i, _ in balanced) <= 55
    first = list(plain)
    plain.set_epoch(1)
    second = list(plain)
    assert first != second
    assert {d for _, d in first}.isdisjoint({d for _, d in second})
    plain.set_epoch(0)
    assert list(plain) == first


def test_label_spaces_must_agree() -> None:
    with pytest.raises(DataError, match="21 classes"):
        check_labels(VOC_21, CAMVID_11, "camvid/val")


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """Where files may only be half as large as last.ckpt is, the next one cannot be written."""
    import resource

    path = write(tmp_path, TINY.replace("epochs = 4", "epochs = 1"))
    assert edgeseg("train", path, "-o", tmp_path / "run").returncode == 0
    kept = {name: (tmp_path / "run" / name).read_bytes() for name in ("last.ckpt", "best.pt")}
    path.write_text(TINY.replace("epochs = 4", "epochs = 2"))
    limit = len(kept["last.ckpt"]) // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        done = edgeseg("train", path, "-o", tmp_path / "run", "--resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.returncode == 2, done.stderr
    assert "last.ckpt: cannot be written: got File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == kept["last.ckpt"]
    assert not list((tmp_path / "run").glob(".*"))
    assert edgeseg("train", path, "-o", tmp_path / "run", "--resume").returncode == 0
