"""Flicker of made clips whose answer is known, with and without noise, and of the real clip."""

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import edgeseg
from paths import SHARED

from edgeseg.data import open_dataset
from edgeseg.errors import DataError
from edgeseg.metrics.flicker import ClipFlicker, Flicker, FlickerMeter, is_next, measure_flicker
from edgeseg.spec import CAMVID_11
from edgeseg.types import Image

SIZE = (240, 320)
ROAD, CAR = 3, 8
CAMSEQ = SHARED / "data" / "camvid"


def scene(shift: int = 0, noise: float = 0, seed: int = 0) -> tuple[Image, Image]:
    """Return a grey road with a textured car ``shift`` pixels along it, and the true labels."""
    frame = np.full((*SIZE, 3), 90, np.uint8)
    labels = np.full(SIZE, ROAD, np.uint8)
    texture = np.random.default_rng(7).integers(150, 256, (60, 80, 3))
    frame[100:160, 40 + shift : 120 + shift] = texture
    labels[100:160, 40 + shift : 120 + shift] = CAR

    rng = np.random.default_rng(seed)
    frame = np.clip(np.rint(frame + rng.normal(0, noise, frame.shape)), 0, 255).astype(np.uint8)
    return frame, labels


def flipped(labels: Image, percent: int, seed: int) -> Image:
    """Return labels of which exactly ``percent`` % are another class."""
    out = np.array(labels)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(out.size)[: out.size * percent // 100]
    out.flat[chosen] = (out.flat[chosen] + 1) % len(CAMVID_11)
    return out


@pytest.mark.parametrize("percent", [0, 1, 5, 20, 100])
def test_flips_in_a_static_scene_are_counted_exactly(percent: int) -> None:
    meter = FlickerMeter(CAMVID_11)
    frame, labels = scene()
    assert meter.add(frame, labels) is None
    assert meter.add(frame, flipped(labels, percent, 1)) == percent / 100
    assert meter.overall == percent / 100
    assert meter.flicker.still_share == 1


@pytest.mark.parametrize("noise", [2, 5])
def test_noise_changes_nothing(noise: float) -> None:
    meter = FlickerMeter(CAMVID_11)
    for index in range(6):
        frame, labels = scene(noise=noise, seed=index)
        meter.add(frame, flipped(labels, 5 * (index % 2), 1))
    assert meter.overall == pytest.approx(0.05, abs=0.001)
    assert meter.flicker.still_share > 0.97


@pytest.mark.parametrize("noise", [0, 3])
@pytest.mark.parametrize("step", [1, 2, 7])
def test_a_moving_object_with_perfect_labels_does_not_flicker(step: int, noise: float) -> None:
    meter = FlickerMeter(CAMVID_11)
    for index in range(8):
        meter.add(*scene(shift=step * index, noise=noise, seed=index))
    assert meter.overall == 0
    assert meter.flicker.still_share > 0.7


def test_a_class_is_charged_for_the_labels_it_loses() -> None:
    meter = FlickerMeter(CAMVID_11)
    frame, labels = scene()
    other = labels.copy()
    other[100:130, 40:120] = ROAD  # half of the car is lost for one frame
    for found in (labels, other, labels):
        meter.add(frame, found)

    assert meter.by_class["Car"] == 2400 / (4800 + 2400)
    road = SIZE[0] * SIZE[1] - 4800
    assert meter.by_class["Road"] == 2400 / (road + road + 2400)
    assert meter.by_class["Sky"] is None
    assert meter.flicker.changed.sum() == 4800


def test_void_pixels_are_left_out() -> None:
    meter = FlickerMeter(CAMVID_11)
    frame, labels = scene()
    void = labels.copy()
    void[:120] = CAMVID_11.ignore_id
    void[120, :10] = ROAD + 1
    meter.add(frame, labels)
    assert meter.add(frame, void) == 10 / (120 * 320)
    assert meter.add(frame, labels) == 10 / (120 * 320)


def test_a_cut_a_size_change_and_a_restart_are_no_flicker() -> None:
    meter = FlickerMeter(CAMVID_11)
    frame, labels = scene()
    meter.add(frame, labels)
    assert meter.add(255 - frame, flipped(labels, 100, 0)) is None
    assert meter.add(frame[:100, :100], labels[:100, :100]) is None
    meter.restart()
    assert meter.add(frame[:100, :100], labels[:100, :100]) is None
    assert meter.overall is None
    assert meter.flicker.pairs == 0


def test_labels_of_another_size_are_an_error() -> None:
    frame, labels = scene()
    with pytest.raises(DataError, match="differ in size"):
        FlickerMeter(CAMVID_11).add(frame, labels[1:])


def test_it_agrees_with_a_count_by_hand() -> None:
    rng = np.random.default_rng(3)
    frame, _ = scene()
    maps = [rng.integers(0, 13, SIZE).astype(np.uint8) for _ in range(3)]
    meter = FlickerMeter(CAMVID_11)
    for labels in maps:
        meter.add(frame, labels)

    for index, name in enumerate(CAMVID_11.names):
        still, changed = 0, 0
        for before, after in itertools.pairwise(maps):
            mine = (before == index) & (after < 11)
            still += int(mine.sum())
            changed += int((mine & (after != before)).sum())
        assert meter.by_class[name] == changed / still
    assert meter.flicker.to_dict()["per_class"] == meter.by_class


def test_names_tell_what_follows_what() -> None:
    assert is_next("000007", "000008")
    assert is_next("0016E5_07959", "0016E5_07961")
    assert not is_next("0016E5_07959", "0001TP_07961")
    assert not is_next("0001TP_006690", "0001TP_006720")
    assert not is_next("000008", "000008")
    assert not is_next("aachen_000000_000019", "aachen_000001_000019")
    assert not is_next("left", "right")


def test_a_clip_with_a_gap_is_measured_around_it() -> None:
    clip = ClipFlicker(CAMVID_11)
    frame, labels = scene()
    names = ("a_1", "a_2", "a_3", "b_1", "b_2")
    for name in names:
        clip.add(name, frame, labels if name < "b" else flipped(labels, 100, 0))
    assert clip.reason == ""
    assert clip.result is not None
    assert clip.result.pairs == 3
    assert clip.result.overall == 0


def test_what_cannot_be_measured_says_why() -> None:
    frame, labels = scene()
    clip = ClipFlicker(CAMVID_11)
    clip.add("a_1", frame, labels)
    assert clip.result is None
    assert clip.reason == "there is only one frame"
    clip.add("a_31", frame, labels)
    assert clip.reason == "the frames are not consecutive: a_31 follows a_1"

    restless = ClipFlicker(CAMVID_11)
    for index in range(3):
        restless.add(f"a_{index}", np.full_like(frame, 38 * index), labels)
    assert restless.result is None
    assert restless.reason == "no pixel keeps its colour from one frame to the next"


def test_measure_flicker_runs_the_engine_on_each_frame() -> None:
    frame, labels = scene()
    results = iter([labels, flipped(labels, 5, 0), labels])
    frames = [(str(index), frame) for index in range(3)]
    clip = measure_flicker(lambda image: next(results), frames, CAMVID_11)
    assert clip.frames == 3
    assert clip.result is not None
    assert clip.result.overall == 0.05


def test_no_pixel_no_share() -> None:
    nothing = Flicker(
        ("a",), np.zeros(1, np.int64), np.zeros(1, np.int64), pixels=0, pairs=0
    ).to_dict()
    assert nothing == {"flicker": None, "still_share": None, "pairs": 0, "per_class": {"a": None}}


@pytest.mark.skipif(not CAMSEQ.is_dir(), reason="CamSeq01 is not here: EDGESEG_SHARED")
def test_the_ground_truth_of_the_real_clip_flickers_little() -> None:
    data = open_dataset(f"camvid:{CAMSEQ}", "val")
    truth = ClipFlicker(data.labels)
    random = ClipFlicker(data.labels)
    for index in range(12):
        sample = data[index]
        truth.add(sample.name, sample.image, sample.mask)
        random.add(sample.name, sample.image, flipped(sample.mask % 11, 10, index))

    assert truth.result is not None
    assert random.result is not None
    assert 0.1 < truth.result.still_share < 0.6
    assert truth.result.overall < 0.01
    assert random.result.overall == pytest.approx(0.19, abs=0.01)  # 10 % before, 10 % after


@pytest.mark.skipif(not CAMSEQ.is_dir(), reason="CamSeq01 is not here: EDGESEG_SHARED")
def test_annotated_frames_a_second_apart_are_not_measured() -> None:
    data = open_dataset(f"camvid:{CAMSEQ}", "train")
    clip = ClipFlicker(data.labels)
    for index in range(4):
        sample = data[index]
        clip.add(sample.name, sample.image, sample.mask)
    assert clip.result is None
    assert "not consecutive" in clip.reason


def test_evaluate_prints_the_flicker_of_a_video_alone(tmp_path: Path) -> None:
    video = tmp_path / "still.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    for _ in range(4):
        writer.write(scene()[0])
    writer.release()

    facts = tmp_path / "facts.json"
    done = edgeseg("evaluate", "enet-camvid", video, "--precision", "fp32", "--json", facts)
    assert done.returncode == 0, done.stderr
    assert "flicker 0.00 %, measured on the still pixels, 100.00 %" in done.stdout
    assert "mIoU" not in done.stdout.splitlines()[1]
    saved = json.loads(facts.read_text())
    assert saved["frames"] == 4
    assert saved["flicker"]["pairs"] == 3
    assert saved["flicker_unmeasured"] is None
    assert "miou" not in saved
