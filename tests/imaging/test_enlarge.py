"""Smooth boundaries against interpolated scores, and what smoothing must not do."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.imaging.enlarge import smooth_boundaries
from edgeseg.imaging.preprocess import resize_labels

CLIP = Path(os.environ.get("EDGESEG_SHARED", "")) / "data/clips/highway_1280x720_25fps.mp4"
ZOO = Path(__file__).resolve().parents[2] / "edgeseg" / "zoo" / "enet-camvid.onnx"


def blobs(size: tuple[int, int], classes: int = 5, seed: int = 0) -> np.ndarray:
    """Return smooth scores: (classes, H, W)."""
    noise = np.random.default_rng(seed).normal(size=(classes, *size)).astype(np.float32)
    return np.stack([cv2.GaussianBlur(scores, (0, 0), size[0] / 20) for scores in noise])


def enlarged_scores(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the arg-max of scores that are enlarged by bilinear interpolation."""
    enlarged = [cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR) for one in scores]
    return np.asarray(np.stack(enlarged).argmax(axis=0), np.uint8)


def near_boundaries(labels: np.ndarray) -> np.ndarray:
    kernel = np.ones((7, 7), np.uint8)
    return np.asarray(cv2.dilate(labels, kernel) != cv2.erode(labels, kernel))


@pytest.mark.parametrize("size", [(720, 960), (719, 1283), (1080, 1920), (1440, 1920), (1280, 720)])
def test_smooth_labels_are_nearer_to_interpolated_scores(size: tuple[int, int]) -> None:
    scores = blobs((360, 480))
    labels = scores.argmax(axis=0).astype(np.uint8)
    wanted = enlarged_scores(scores, size)
    stairs = resize_labels(labels, size)
    smooth = smooth_boundaries(stairs, labels.shape)

    near = near_boundaries(stairs)
    wrong_before = (stairs != wanted)[near].mean()
    wrong_after = (smooth != wanted)[near].mean()
    assert wrong_after < 0.85 * wrong_before
    assert (smooth == stairs)[~near].all()


def test_smooth_labels_of_a_real_network_are_nearer_to_its_interpolated_scores() -> None:
    if not CLIP.is_file():
        pytest.skip("the highway clip is not under EDGESEG_SHARED")
    import onnxruntime

    from edgeseg.imaging.preprocess import to_input
    from edgeseg.spec import CAMVID_11, ModelSpec

    capture = cv2.VideoCapture(str(CLIP))
    frame = np.asarray(capture.read()[1], np.uint8)
    capture.release()
    spec = ModelSpec(architecture="enet", input_size=(360, 480), labels=CAMVID_11)
    network = onnxruntime.InferenceSession(str(ZOO), providers=["CPUExecutionProvider"])
    scores = network.run(None, {network.get_inputs()[0].name: to_input(frame, spec)})[0][0]

    size = frame.shape[:2]
    labels = scores.argmax(axis=0).astype(np.uint8)
    wanted = enlarged_scores(scores, size)
    stairs = resize_labels(labels, size)
    smooth = smooth_boundaries(stairs, labels.shape)
    one_hot = np.eye(len(CAMVID_11), dtype=np.float32)[labels].transpose(2, 0, 1)
    bilinear = enlarged_scores(one_hot, size)

    near = near_boundaries(stairs)
    right = [(guess == wanted)[near].mean() for guess in (stairs, bilinear, smooth)]
    assert right[0] < right[1] < right[2]
    assert right[2] > right[0] + 0.01


@pytest.mark.parametrize("size", [(720, 1280), (1440, 1920)])
def test_no_class_comes_from_nowhere(size: tuple[int, int]) -> None:
    labels = (2 * blobs((360, 480), classes=8).argmax(axis=0)).astype(np.uint8)
    smooth = smooth_boundaries(resize_labels(labels, size), labels.shape)
    assert set(np.unique(smooth)) <= set(np.unique(labels))


def test_a_pole_of_one_pixel_stays() -> None:
    labels = np.zeros((360, 480), np.uint8)
    labels[100:200, 240] = 2
    stairs = resize_labels(labels, (720, 1280))
    smooth = smooth_boundaries(stairs, labels.shape)
    assert (smooth == 2).sum() > 0.95 * (stairs == 2).sum()


@pytest.mark.parametrize("size", [(360, 480), (240, 320), (400, 500), (480, 640)])
def test_labels_that_were_not_enlarged_stay_as_they_are(size: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 5, size, np.uint8)
    assert smooth_boundaries(labels, (360, 480)) is labels


def test_the_given_labels_do_not_change() -> None:
    labels = resize_labels(blobs((36, 48)).argmax(axis=0).astype(np.uint8), (144, 192))
    before = labels.copy()
    assert (smooth_boundaries(labels, (36, 48)) != labels).any()
    np.testing.assert_array_equal(labels, before)
