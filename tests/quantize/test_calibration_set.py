"""Calibration sets: which frames, how they are named and hashed, and what is said where there are
none.
"""

import inspect
import json
import shutil
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from commands import edgeseg
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from paths import ROOT
from reporting import Heard

from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.build.mixed_precision import AGREEMENT_FRAMES, run_with
from edgeseg.build.options import Quantization
from edgeseg.cli.build_engine import build_engine as build
from edgeseg.cli.calibrate import calibrate
from edgeseg.cli.sensitivity import sensitivity
from edgeseg.data import Sample, open_dataset
from edgeseg.errors import DataError, GraphError, InputError, MissingDependencyError, OutputError
from edgeseg.graph.network import Network, load_network
from edgeseg.imaging.preprocess import to_input
from edgeseg.passport import Passport
from edgeseg.profiling.plots import plot_report, require_picture
from edgeseg.quantize.calibration_check.check import check_set, settle
from edgeseg.quantize.calibration_check.report import SetReport, Verdict
from edgeseg.quantize.calibration_set import (
    CHOICES,
    CalibrationFrame,
    CalibrationSet,
    class_counts,
    frame_digest,
    load_set_recipe,
    positions,
    resolve_set,
    spread_ranks,
)
from edgeseg.quantize.frame_sources import SourceFrame, open_frame_source
from edgeseg.quantize.histograms import Statistics, collect, tensors_to_watch
from edgeseg.quantize.ptq import DEFAULT_METHOD, fold_network, plan_quantization
from edgeseg.quantize.ranges import read_ranges, write_ranges
from edgeseg.spec import CAMVID_11, METADATA_KEY, ModelSpec
from edgeseg.types import Image

DRIVE = "synthetic://?length=30&size=48x32&seed=3"
FITTING = "synthetic://?length=30&size=64x48&seed=3"  # of fragile_onnx's own size
SHORT = "synthetic://?length=4&size=64x48&seed=3"


def write_pictures(folder: Path, count: int, size: tuple[int, int] = (20, 30)) -> Path:
    """``1.png`` .. ``count.png``, each of one grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(1, count + 1):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((*size, 3), i, np.uint8))
    return folder


def write_video(path: Path, count: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for i in range(count):
        writer.write(np.full((48, 64, 3), 8 * i, np.uint8))
    writer.release()
    return path


def names(found: CalibrationSet) -> list[str]:
    return [frame.name for frame in found.frames]


# --- sources


def test_a_folder_in_natural_order(tmp_path: Path) -> None:
    found = resolve_set(str(write_pictures(tmp_path / "p", 12)))
    assert names(found) == [f"{i}.png" for i in range(1, 13)]
    assert [int(image[0, 0, 0]) for image in found.images()] == list(range(1, 13))
    assert (found.split, found.choose, found.labels) == (None, "spread", None)


def test_labelled_data_has_masks_and_a_split() -> None:
    found = resolve_set(DRIVE, count=4)
    dataset = open_dataset(DRIVE, "train")
    assert found.split == "train"
    for picture, frame in zip(found.pictures(), found.frames, strict=True):
        sample = dataset[list(dataset.names).index(frame.name)]
        np.testing.assert_array_equal(picture.image, sample.image)
        np.testing.assert_array_equal(picture.mask, sample.mask)
        assert frame.sha256 == frame_digest(sample.image)
        assert frame.size == (32, 48)
    assert set(names(resolve_set(DRIVE, split="val"))).isdisjoint(names(resolve_set(DRIVE)))


def test_a_video_by_frame_number(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 20)
    found = resolve_set(path, count=4)
    assert names(found) == ["000002", "000007", "000012", "000017"]
    assert [round(float(image.mean()) / 8) for image in found.images()] == [2, 7, 12, 17]


def test_a_video_shorter_than_its_container_says(tmp_path: Path) -> None:
    pool = open_frame_source(str(write_video(tmp_path / "v.mp4", 20)), None)
    pool._count = 60  # type: ignore[attr-defined]  # as a container's estimate can be
    assert len(list(pool.read([10, 30, 50]))) == 1
    assert pool.count() == 20


def test_one_picture(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    assert len(resolve_set(tmp_path / "1.png")) == 1


def test_camvid_by_its_address(camvid_root: Path) -> None:
    found = resolve_set(f"camvid:{camvid_root}")
    assert len(found) == 100
    assert {name.split("_")[0] for name in names(found)} == {"0001TP", "0006R0", "0016E5"}


def test_the_shipped_recipes(
    camvid_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = sorted((ROOT / "calibration" / "sets").glob("*.toml"))
    assert [path.stem for path in recipes] == ["camvid-train", "golden", "synthetic"]
    for path in recipes:
        assert load_set_recipe(path).about
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "camvid").symlink_to(camvid_root)
    monkeypatch.chdir(tmp_path)
    assert resolve_set(recipes[0]).digest == resolve_set(f"camvid:{camvid_root}").digest
    assert len(resolve_set(recipes[1])) == 24
    assert len(resolve_set(recipes[2], count=2)) == 2


def test_every_choice_is_used_by_resolve(tmp_path: Path) -> None:
    for choose in CHOICES:
        found = resolve_set(DRIVE, count=5, choose=choose)
        assert len(found) == len(set(names(found))) == 5
        assert list(found.indices) == sorted(found.indices)


# --- recipes


def test_a_recipe_and_what_is_given_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    write_pictures(home / "frames", 10)
    recipe = home / "set.toml"
    recipe.write_text(
        'about = "ten greys"\nsource = "frames"\ncount = 3\nchoose = "random"\nseed = 5\n'
    )
    beside = resolve_set(recipe)
    assert (len(beside), beside.choose, beside.seed) == (3, "random", 5)
    given_too = resolve_set(recipe, count=2, choose="first", seed=1)
    assert (names(given_too), given_too.seed) == (["1.png", "2.png"], 1)
    write_pictures(tmp_path / "elsewhere" / "frames", 2)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(resolve_set(recipe)) == 2  # the current folder goes before the recipe's own


def test_a_labelled_source_beside_its_recipe(tmp_path: Path, camvid_root: Path) -> None:
    (tmp_path / "camvid").symlink_to(camvid_root)
    (tmp_path / "set.toml").write_text('source = "camvid:camvid"\nsplit = "val"\ncount = 2\n')
    found = resolve_set(tmp_path / "set.toml")
    assert (found.split, len(found)) == ("val", 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('source = "x"\nframes = 3\n', "frames: Extra inputs"),
        ('source = "x"\ncount = 0\n', "count: "),
        ('source = "x"\nchoose = "best"\n', "choose: "),
        ('source = "x"\nseed = -1\n', "seed: "),
        ("count = 3\n", "source: Field required"),
        ("source = \n", "not a readable TOML"),
        ('source = "nowhere"\n', "no such calibration set"),
        ('source = "other.toml"\n', "a recipe within a recipe"),
    ],
)
def test_a_wrong_recipe_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "set.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        resolve_set(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


# --- errors


@pytest.mark.parametrize("text", [None, "", "  "])
def test_no_set_says_how_to_give_one(text: str | None) -> None:
    with pytest.raises(
        InputError, match=r"no calibration set given.*`calib=camvid:PATH`, a folder, a video, syn"
    ):
        resolve_set(text)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("nowhere", {}, "no such calibration set"),
        ("nowhere.toml", {}, "no such calibration set"),
        ("camvid:nowhere", {}, "no such folder"),
        ("rtsp://camera/1", {}, "the same frames every time"),
        ("0", {}, "the same frames every time"),
        (DRIVE, {"count": 0}, "got 0, expected 1 to 100,000"),
        (DRIVE, {"count": -3}, "got -3"),
        (DRIVE, {"seed": -1}, "seed"),
        (DRIVE, {"choose": "best"}, "expected spread, random, first, cover"),
        (DRIVE, {"split": "night"}, "unknown split"),
    ],
)
def test_what_cannot_be_a_set(text: str, options: dict[str, object], said: str) -> None:
    with pytest.raises((InputError, DataError), match=said) as caught:
        resolve_set(text, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="no pictures in this folder"):
        resolve_set(tmp_path)


def test_unlabelled_frames_have_no_split_and_no_classes(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    with pytest.raises(InputError, match="only a data set has splits"):
        resolve_set(tmp_path, split="train")
    with pytest.raises(InputError, match="cover` needs labels"):
        resolve_set(tmp_path, choose="cover")


def test_a_frame_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    (tmp_path / "2.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"2\.png: cannot be read"):
        resolve_set(tmp_path)


def test_a_video_cut_short(tmp_path: Path, clip: Path) -> None:
    whole = clip.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole)
    resolve_set(path, count=3)
    moov_first = whole.find(b"moov") < whole.find(b"mdat")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="ends after frame" if moov_first else "cannot be opened"):
        resolve_set(path, count=20)


def test_an_empty_data_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeseg.data.synthetic.SyntheticDataset.__len__", lambda self: 0)
    with pytest.raises(DataError, match="no frames to calibrate on"):
        resolve_set(DRIVE)


def test_frames_that_change_afterwards_are_noticed(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    found = resolve_set(tmp_path)
    cv2.imwrite(str(tmp_path / "2.png"), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(DataError, match=r"2\.png is no longer the one chosen"):
        list(found.images())


# --- identity


def test_the_digest_is_of_the_pixels_alone(tmp_path: Path) -> None:
    one = resolve_set(write_pictures(tmp_path / "a", 5))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "5.png").rename(tmp_path / "b" / "5x.png")
    two = resolve_set(tmp_path / "b")
    assert one.digest == two.digest
    assert names(one) != names(two)
    assert one.digest != resolve_set(tmp_path / "a", count=4).digest
    assert frame_digest(np.zeros((2, 3, 3), np.uint8)) != frame_digest(
        np.zeros((3, 2, 3), np.uint8)
    )


def test_the_same_words_give_the_same_set() -> None:
    for options in ({}, {"choose": "random", "seed": 7}, {"choose": "cover"}):
        sets = [resolve_set(DRIVE, count=6, **options) for _ in range(2)]
        assert sets[0].to_dict() == sets[1].to_dict()
        assert [a.tobytes() for a in sets[0].images()] == [b.tobytes() for b in sets[0].images()]
    assert resolve_set(DRIVE, count=6, choose="random", seed=8).digest != sets[0].digest


def test_to_dict_lists_names_and_hashes() -> None:
    found = resolve_set(DRIVE, count=3)
    listed = found.to_dict()
    assert listed["digest"] == found.digest
    assert listed["frames"] == [{"name": f.name, "sha256": f.sha256} for f in found.frames]


def test_one_frame_at_a_time() -> None:
    """No frame is alive any more when the one after the next is read."""
    alive: list[weakref.ref[np.ndarray]] = []
    held = []

    class Watched:
        split, labels = None, None

        def count(self) -> int:
            return 10

        def read(self, indices: list[int]) -> Iterator[SourceFrame]:
            for index in indices:
                held.append(sum(ref() is not None for ref in alive))
                image = np.full((4, 4, 3), index, np.uint8)
                alive.append(weakref.ref(image))
                yield SourceFrame(str(index), image)
                del image

    digests = [frame_digest(np.full((4, 4, 3), i, np.uint8)) for i in range(10)]
    frames = tuple(CalibrationFrame(str(i), digest, (4, 4)) for i, digest in enumerate(digests))
    found = CalibrationSet("x", None, "first", 0, frames, None, tuple(range(10)), Watched())  # type: ignore[arg-type]
    assert sum(int(image[0, 0, 0]) for image in found.images()) == 45
    assert max(held) <= 1


# --- which frames


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 3))
def test_positions_are_distinct_rising_and_in_range(total: int, count: int, seed: int) -> None:
    count = min(count, total)
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 50, (total, 4)) * (rng.random((total, 4)) < 0.2)
    for choose in CHOICES:
        found = positions(total, count, choose, seed, classes)
        assert len(found) == count
        assert list(found) == sorted(set(found))
        assert 0 <= found[0] <= found[-1] < total


@given(st.integers(1, 300), st.data())
def test_spread_is_even(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, total))
    found = np.array(positions(total, count, "spread"))
    gaps = np.diff(
        np.concatenate([[-found[0] - 1], found, [2 * total - found[-1] - 1]])
    )  # mirrored at both ends
    assert gaps.max() <= 2 * -(-total // count)
    assert set(positions(total, total, "spread")) == set(range(total))


@given(st.integers(1, 200))
@settings(max_examples=40)
def test_spread_ranks_are_a_permutation_with_even_prefixes(total: int) -> None:
    ranks = spread_ranks(total)
    assert sorted(ranks) == list(range(total))
    for count in (2, 4, 8, 16):
        if count <= total:
            places = np.array([p for p in range(total) if ranks[p] < count])
            assert (
                max(np.diff(np.concatenate([[-1], places, [total]]))) <= 2 * -(-total // count) + 1
            )


def test_subsets_are_nested() -> None:
    whole = resolve_set(DRIVE, count=13)
    kept: set[str] = set()
    for count in (1, 2, 4, 8, 13):
        part = whole.subset(count)
        assert len(part) == len(list(part.images())) == count
        assert kept <= set(names(part))
        kept = set(names(part))
    assert whole.subset(13).digest == whole.digest


def test_cover_shows_rare_classes() -> None:
    """A class in 3 of 300 frames, which an even spread of 20 misses, is in ``cover`` every time."""
    classes = np.zeros((300, 3), np.int64)
    classes[:, 0] = 1000
    classes[::2, 1] = 100
    classes[[41, 42, 200], 2] = [50, 60, 10]
    spread, cover = positions(300, 20, "spread"), positions(300, 20, "cover", classes=classes)
    assert not {41, 42, 200} & set(spread)
    assert {41, 42, 200} <= set(cover)
    assert np.diff([-1, *cover, 300]).max() < 60


def test_cover_counts_real_masks(camvid_root: Path) -> None:
    pool = open_frame_source(f"camvid:{camvid_root}", "val")
    counts = class_counts(pool)
    sample = open_dataset(f"camvid:{camvid_root}", "val")[7]
    assert counts.shape == (101, 11)
    assert counts[7].tolist() == [int((sample.mask == c).sum()) for c in range(11)]


def test_stretched_frames_are_told(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3, (90, 160))
    write_pictures(tmp_path / "more", 1, (60, 80))
    shutil.move(tmp_path / "more" / "1.png", tmp_path / "4.png")
    found = resolve_set(tmp_path)
    (said,) = found.aspect_warnings((360, 480))
    assert said.startswith(
        "3 of 4 frames are 90x160 (HxW), the network's input is 360x480: they are stretched by 33 %"
    )
    assert not resolve_set(tmp_path / "4.png").aspect_warnings((352, 480))


# --- is it fit?


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Eleven classes from one convolution, at 24x32, with its spec inside."""
    weights = np.random.default_rng(0).standard_normal((11, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node(
                "Conv", ["image", "w"], ["conv"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]
            ),
            helper.make_node("Relu", ["conv"], ["relu"]),
            helper.make_node("Add", ["relu", "conv"], ["out"]),
        ],
        "g",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 24, 32])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 11, 24, 32])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    spec = ModelSpec(architecture="tiny", input_size=(24, 32), labels=CAMVID_11)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    path = tmp_path_factory.mktemp("net") / "tiny.onnx"
    onnx.save(model, path)
    return load_network(path)


def state_of(report: SetReport, item: str) -> Verdict:
    return next(verdict for verdict in report.verdicts if verdict.item == item)


def test_a_drive_is_fit(network: Network) -> None:
    found = resolve_set("synthetic://?length=200&size=64x48&seed=3", count=40)
    heard = Heard()
    report = check_set(
        network,
        found,
        validation=open_dataset("synthetic://?length=5&size=64x48&seed=3"),
        reporter=heard,
    )
    assert {v.item: v.state for v in report.verdicts} == {
        "frames": "good",
        "classes": "good",
        "near-duplicates": "good",
        "overlap": "good",
        "settling": "good",
    }
    assert report.good
    assert heard.steps == [("calibrate", done, 40) for done in range(41)]
    assert json.loads(json.dumps(report.to_dict()))["good"] is True


def test_coverage_is_counted_from_the_labels(network: Network) -> None:
    found = resolve_set(DRIVE, count=6)
    masks = list[Image]()
    for picture in found.pictures():
        assert picture.mask is not None
        masks.append(picture.mask)
    report = check_set(network, found)
    assert report.coverage_from == "labels"
    for index, one in enumerate(report.coverage):
        pixels = [int((mask == index).sum()) for mask in masks]
        assert (one.pixels, one.frames) == (sum(pixels), sum(count >= 50 for count in pixels))
    assert sum(one.share for one in report.coverage) == pytest.approx(1)


def test_coverage_of_unlabelled_frames_is_predicted(network: Network, tmp_path: Path) -> None:
    found = resolve_set(write_pictures(tmp_path, 4))
    assert state_of(check_set(network, found), "classes").state == "not checked"
    report = check_set(
        network, found, engine_labels=lambda image: np.full(image.shape[:2], 3, np.uint8)
    )
    assert report.coverage_from == "predictions"
    assert {one.name: one.frames for one in report.coverage if one.frames} == {"Road": 4}
    verdict = state_of(report, "classes")
    assert verdict.state == "warning"
    assert "never seen: Sky, Building" in verdict.found
    assert verdict.advice


def test_repeats_are_counted_once_each(network: Network, tmp_path: Path) -> None:
    """Greys 0, 5 and 10: neighbours look alike, the ends do not.

    100 stands alone, and comes twice.
    """
    for name, grey in (("1", 0), ("2", 5), ("3", 10), ("4", 100), ("5", 100)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((24, 32, 3), grey, np.uint8))
    report = check_set(network, resolve_set(tmp_path))
    assert [(pair.one, pair.two, pair.difference) for pair in report.repeats] == [
        ("4.png", "5.png", 0.0),
        ("1.png", "2.png", 5.0),
        ("2.png", "3.png", 5.0),
    ]
    assert report.repeated == 2
    assert state_of(report, "near-duplicates").state == "warning"
    assert state_of(report, "settling").state != "good"


def test_overlap_with_what_is_scored_is_found(network: Network) -> None:
    val = open_dataset(DRIVE, "val")
    report = check_set(network, resolve_set(DRIVE, split="val", count=5), validation=val)
    assert len(report.identical) == 5
    assert state_of(report, "overlap").state == "warning"

    class Brighter:
        name, labels, names = val.name, val.labels, val.names

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Sample:
            sample = val[index]
            brighter = np.asarray(cv2.add(sample.image, np.full_like(sample.image, 2)), np.uint8)
            return Sample(sample.name, brighter, sample.mask)

    report = check_set(
        network, resolve_set(DRIVE, split="val", count=3, choose="first"), validation=Brighter()
    )
    assert not report.identical
    assert {(pair.one, pair.two) for pair in report.alike} >= {
        (name, name) for name in val.names[:3]
    }
    assert "look like one of synthetic/val" in state_of(report, "overlap").found
    assert (
        state_of(check_set(network, resolve_set(DRIVE, count=2)), "overlap").state == "not checked"
    )


def test_stages_are_the_statistics_of_subsets(network: Network) -> None:
    found = resolve_set(DRIVE, count=11)
    tensors = tensors_to_watch(network.model)
    stages = settle(network, found, tensors)
    assert list(stages) == [1, 2, 4, 8, 11]
    for count, statistics in stages.items():
        inputs = (to_input(image, network.spec) for image in found.subset(count).images())
        want = collect(network.model, tensors, inputs)
        assert statistics.frames == count
        np.testing.assert_array_equal(statistics.histogram, want.histogram)
        np.testing.assert_array_equal(statistics.largest, want.largest)


def test_the_score_is_asked_at_every_stage(network: Network, tmp_path: Path) -> None:
    asked = []

    def score(count: int, statistics: Statistics) -> float:
        asked.append((count, statistics.frames))
        return 0.6 - 0.1 / count

    report = check_set(network, resolve_set(DRIVE, count=10), score=score)
    assert asked == [(1, 1), (2, 2), (4, 4), (8, 8), (10, 10)]
    assert report.settling.scores[-1] == pytest.approx(0.59)
    assert state_of(report, "score").state == "warning"  # 57.5 with four of ten frames
    picture = cv2.imread(str(plot_report(report, tmp_path / "p.png")))
    assert picture is not None
    assert picture.shape[1] > 3 * 400


def test_one_frame_can_be_checked_and_drawn(network: Network, tmp_path: Path) -> None:
    report = check_set(network, resolve_set(DRIVE, count=1))
    assert not report.good
    assert plot_report(report, tmp_path / "one.svg").read_text().startswith("<?xml")


def test_a_plot_that_cannot_be_is_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match="not the name of a picture"):
        require_picture(tmp_path / "p.txt")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"edgeseg\[train\]"):
        require_picture(tmp_path / "p.png")


def test_a_net_that_gives_nothing_is_told(network: Network, tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.zeros((11, 3, 3, 3), np.float32), "w")
    )
    with pytest.raises(GraphError, match="every activation is zero"):
        check_set(
            replace(network, model=model), resolve_set(DRIVE, count=2), tensors=("conv", "relu")
        )


# --- the command


def test_the_command(fragile_onnx: Path, tmp_path: Path) -> None:
    out, facts, plot = tmp_path / "n.ranges.json", tmp_path / "f.json", tmp_path / "p.png"
    first = edgeseg(
        "calibrate",
        fragile_onnx,
        "--calib",
        DRIVE,
        "--count",
        4,
        "--method",
        "mse",
        "--check",
        "--data",
        SHORT,
        "--plot",
        plot,
        "-o",
        out,
        "--json",
        facts,
    )
    assert first.returncode == 0, first.stderr
    for said in ("part kept", "near-duplicates:", "warning  frames: 4 frames", "score: INT8 score"):
        assert said in first.stdout
    told = json.loads(facts.read_text())
    made = read_ranges(out)
    assert told["ranges"]["amax"] == made.amax
    assert made.set_digest == told["set"]["digest"] == resolve_set(DRIVE, count=4).digest
    assert made.network_sha256 == load_network(fragile_onnx).sha256
    assert set(made.amax) == set(fold_network(load_network(fragile_onnx)).tensors_to_range)
    assert told["check"]["frames"] == 4
    assert told["scored_on"].startswith(
        "mIoU on 4 of the 4 frames of synthetic/val, evenly spread (float "
    )
    assert told["scored_on"] in " ".join(first.stdout.split())
    assert plot.stat().st_size > 10_000
    again = edgeseg(
        "calibrate", fragile_onnx, "--calib", DRIVE, "--count", 4, "--method", "entropy"
    )
    assert again.returncode == 0, again.stderr
    assert "nothing was run" in again.stdout


def test_the_score_is_of_int8_with_the_ranges_of_the_stage(
    fragile_onnx: Path, tmp_path: Path
) -> None:
    """Without data: labels that stay, frame by frame, of nets quantized with the ranges of 1, 2 and
    3 frames.
    """
    facts = tmp_path / "f.json"
    done = edgeseg(
        "calibrate", fragile_onnx, "--calib", DRIVE, "--count", 3, "--check", "--json", facts
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(facts.read_text())
    assert (
        told["scored_on"]
        == "share of labels that stay as the float net's, on 3 of the 3 calibration frames"
    )
    whole, network = resolve_set(DRIVE, count=3), load_network(fragile_onnx)
    want = []
    for count in (1, 2, 3):
        made = plan_quantization(network, whole.subset(count))
        floats, rounded = (
            run_with(made.network, "fp32"),
            run_with(made.quantized(made.placement()), "int8"),
        )
        frames = list(whole.subset(AGREEMENT_FRAMES).images())
        want.append(np.mean([np.mean(floats(frame) == rounded(frame)) for frame in frames]))
    assert told["check"]["settling"]["scores"] == pytest.approx(want)


def test_ranges_of_a_file_are_built_with(fragile_onnx: Path, tmp_path: Path) -> None:
    """What calibrate writes, build-engine takes, tensor by tensor.

    A file of another net it leaves, and says so.
    """
    out = tmp_path / "n.ranges.json"
    done = edgeseg(
        "calibrate", fragile_onnx, "--calib", FITTING, "--count", 3, "--method", "minmax", "-o", out
    )
    assert done.returncode == 0, done.stderr
    chosen = resolve_set(FITTING, count=3)

    def built(options: Quantization) -> tuple[list[str], Passport]:
        said: list[str] = []
        engine = build_engine(
            fragile_onnx,
            precision="int8",
            calib=chosen,
            out=tmp_path / "n.engine",
            quantization=options,
            reporter=Heard(said),
        )
        return said, Passport.read(engine)

    said, passport = built(Quantization(ranges=out, keep_float=("fragile",)))
    assert said == []
    assert (passport.int8.method, passport.int8.ranges_from_cache) == ("minmax", True)
    foreign = read_ranges(out).model_copy(update={"network_sha256": "0" * 64})
    write_ranges(out, foreign)
    said, passport = built(Quantization(ranges=out, keep_float=("fragile",)))
    assert said[0].startswith(f"warning: {out}: belongs to another network")
    assert passport.int8.method == DEFAULT_METHOD


def test_ranges_of_a_net_whose_size_is_free(fragile_onnx: Path, tmp_path: Path) -> None:
    """Which layers run in INT8 depends on the size: here one whose map is a pixel, which only a
    known size tells.
    """
    model = onnx.load(fragile_onnx)
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], "hw", strict=True):
        dim.dim_param = name
    tail = next(place for place, node in enumerate(model.graph.node) if node.name == "tail")
    nodes = [
        helper.make_node(
            "AveragePool", ["added"], ["pooled"], "pool", kernel_shape=[48, 64], strides=[48, 64]
        ),
        helper.make_node(
            "Conv", ["pooled", "tail.weight", "tail.bias"], ["squeezed"], "squeeze", pads=[1] * 4
        ),
        helper.make_node("Sigmoid", ["squeezed"], ["gate"], "gate"),
        helper.make_node("Mul", ["added", "gate"], ["gated"], "gated"),
    ]
    for offset, node in enumerate(nodes):
        model.graph.node.insert(tail + offset, node)
    model.graph.node[tail + len(nodes)].input[0] = "gated"
    path, out = tmp_path / "free.onnx", tmp_path / "r.json"
    onnx.save(model, path)
    assert edgeseg("calibrate", path, "--calib", FITTING, "--count", 2, "-o", out).returncode == 0
    assert "pooled" not in read_ranges(out).amax
    said: list[str] = []
    options = Quantization(ranges=out, keep_float=("fragile",), least_agreement=0)
    chosen = resolve_set(FITTING, count=2)
    build_engine(path, precision="int8", calib=chosen, quantization=options, reporter=Heard(said))
    assert said == []


def test_a_net_that_is_quantized_is_refused(fragile_onnx: Path, tmp_path: Path) -> None:
    made = plan_quantization(load_network(fragile_onnx), resolve_set(DRIVE, count=1))
    path = tmp_path / "q.onnx"
    onnx.save(made.quantized(made.placement()).model, path)
    done = edgeseg("calibrate", path, "--calib", DRIVE)
    assert done.returncode == 2
    assert "is quantized already" in done.stderr


def test_the_cache_is_of_nets_folded_as_now(
    fragile_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path))
    network, chosen = load_network(fragile_onnx), resolve_set(DRIVE, count=1)
    assert not plan_quantization(network, chosen).from_cache
    assert plan_quantization(network, chosen).from_cache
    monkeypatch.setattr("edgeseg.graph.passes.fold_batchnorm.FOLD_VERSION", 0)
    assert not plan_quantization(network, chosen).from_cache


def test_the_commands_default_to_the_quantizers_method() -> None:
    for command in (calibrate, sensitivity, build):
        assert inspect.signature(command).parameters["method"].default.value == DEFAULT_METHOD


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["enet-camvid"], "no calibration set given: expected --calib camvid:PATH"),
        (["nowhere", "--calib", DRIVE], "no such model"),
        (["enet-camvid", "--calib", DRIVE, "--data", DRIVE], "--data works only with --check"),
        (["enet-camvid", "--calib", DRIVE, "--plot", "p.png"], "--plot works only with --check"),
        (["enet-camvid", "--calib", DRIVE, "-o", "ranges.txt"], "not the name of a JSON file"),
        (
            ["enet-camvid", "--calib", DRIVE, "--percentile", "101", "--method", "percentile"],
            "percentile: got 101",
        ),
        (
            ["enet-camvid", "--calib", DRIVE, "--percentile", "99"],
            "--percentile works only with --method percentile: got --method mse",
        ),
        (
            ["enet-camvid", "--calib", DRIVE, "--check", "--data", "camvid:nowhere"],
            "no such folder",
        ),
        (["enet-camvid", "--calib", DRIVE, "--count", "0"], "got 0, expected 1 to 100,000"),
    ],
)
def test_the_commands_errors_are_a_line(arguments: list[str], said: str) -> None:
    done = edgeseg("calibrate", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
