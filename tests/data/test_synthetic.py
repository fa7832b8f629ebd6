"""The synthetic drive: the same every time, exact in its labels, continuous in time, the same scene
at every size.
"""

from itertools import combinations, pairwise

import numpy as np
import pytest

from edgeseg.data import Sample, open_dataset
from edgeseg.data.synthetic import SyntheticDataset, SyntheticDrive, parse_address
from edgeseg.data.synthetic.draw import Camera, Face, Light, Texture, View
from edgeseg.errors import DataError, InputError
from edgeseg.spec import CAMVID_11
from edgeseg.types import Image

SMALL = (120, 160)
FOREVER = 10**7


def test_the_same_drive_is_the_same_every_time_and_another_seed_is_another() -> None:
    one, again = (SyntheticDrive(30, SMALL, seed=4).frame(17) for _ in range(2))
    assert one.name == "synthetic_4_000017"
    assert np.array_equal(one.image, again.image)
    assert np.array_equal(one.mask, again.mask)
    other = SyntheticDrive(30, SMALL, seed=5).frame(17)
    assert (other.mask != one.mask).mean() > 0.1


def test_random_access_equals_iteration() -> None:
    drive = SyntheticDrive(8, SMALL, seed=2)
    backwards = [drive.frame(i) for i in reversed(range(8))][::-1]
    for sample, expected in zip(drive, backwards, strict=True):
        assert sample.name == expected.name
        assert np.array_equal(sample.image, expected.image)
        assert np.array_equal(sample.mask, expected.mask)


def test_a_frame_depends_on_its_time_not_on_the_length() -> None:
    assert np.array_equal(
        SyntheticDrive(11, SMALL).frame(10).image, SyntheticDrive(500, SMALL).frame(10).image
    )
    half_rate = SyntheticDrive(11, SMALL, fps=7.5).frame(5)
    assert np.array_equal(half_rate.mask, SyntheticDrive(11, SMALL, fps=15).frame(10).mask)


@pytest.mark.parametrize("i", [-1, 3])
def test_no_frame_outside_the_drive(i: int) -> None:
    with pytest.raises(IndexError, match=f"frame {i} of a drive of 3"):
        SyntheticDrive(3, SMALL).frame(i)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_class_has_a_sensible_share_of_a_minute_fragment(seed: int) -> None:
    drive = SyntheticDrive(60, (180, 240), seed)
    counts = np.sum(
        [np.bincount(drive.frame(i).mask.ravel(), minlength=12) for i in range(0, 60, 6)], axis=0
    )
    share = dict(
        zip((*CAMVID_11.names, "Unlabelled"), (counts / counts.sum()).tolist(), strict=True)
    )
    assert share["Unlabelled"] == 0
    # bounds about CamVid's own shares (17, 24, 1, 32, 5, 9, 1, 1, 6, 0.6, 0.3 per cent)
    least = {
        "Sky": 0.05,
        "Building": 0.05,
        "Road": 0.2,
        "Tree": 0.01,
        "Car": 0.01,
        "Pavement": 0.004,
        "Pole": 0.003,
    }
    most = {"Sky": 0.3, "Building": 0.5, "Road": 0.5, "Tree": 0.4, "Car": 0.25, "Pavement": 0.15}
    for name in CAMVID_11.names:
        assert least.get(name, 0.001) < share[name] < most.get(name, 0.06), (name, share)


@pytest.mark.parametrize("size", [(16, 16), (17, 301), (241, 37), (99, 133), (270, 480)])
def test_any_size(size: tuple[int, int]) -> None:
    sample = SyntheticDrive(5, size, seed=3).frame(4)
    assert sample.image.shape == (*size, 3)
    assert sample.mask.shape == size
    assert sample.image.dtype == sample.mask.dtype == np.uint8
    assert sample.mask.max() <= 10
    assert sample.image.flags.c_contiguous
    assert sample.mask.flags.c_contiguous
    seen = {CAMVID_11.names[k] for k in np.unique(sample.mask)}
    assert seen >= ({"Road", "Sky", "Building"} if size[1] < 3 * size[0] else {"Road", "Building"})
    assert sample.image.std() > 15


def test_full_hd_and_the_far_future() -> None:
    sample = SyntheticDrive(FOREVER, (1080, 1920), seed=1).frame(100_000)
    assert sample.image.shape == (1080, 1920, 3)
    assert len(np.unique(sample.mask)) >= 7


@pytest.mark.parametrize("seed", [0, 3])
def test_a_larger_size_shows_the_same_scene(seed: int) -> None:
    small, large = (SyntheticDrive(100, size, seed).frame(90) for size in ((180, 240), (360, 480)))
    assert (large.mask[::2, ::2] == small.mask).mean() > 0.9
    shrunk = large.image.reshape(180, 2, 240, 2, 3).mean((1, 3))
    assert np.abs(shrunk - small.image).mean() < 9
    moved = SyntheticDrive(100, (180, 240), seed).frame(
        60
    )  # the bounds above are not met by just any street
    assert (large.mask[::2, ::2] == moved.mask).mean() < 0.9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_time_is_continuous(seed: int) -> None:
    drive = SyntheticDrive(FOREVER, SMALL, seed)
    masks = [drive.frame(i).mask for i in range(300, 312)]
    agree = [(a == b).mean() for a, b in pairwise(masks)]
    assert min(agree) > 0.8
    assert max(agree) < 1
    assert (drive.frame(350).mask != masks[0]).mean() > 0.08


def test_brightness_drifts_slowly() -> None:
    drive = SyntheticDrive(FOREVER, (48, 64), seed=1)
    levels = np.array([drive.frame(i).image.mean() for i in range(0, 450, 5)])
    assert np.ptp(levels) > 8
    steps = np.abs(
        [drive.frame(i + 1).image.mean() - drive.frame(i).image.mean() for i in range(0, 100, 9)]
    )
    assert steps.max() < 8


def features(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    rows = np.repeat(
        np.linspace(0, 255, sample.mask.shape[0])[:, None], sample.mask.shape[1], axis=1
    )
    return np.concatenate(
        [sample.image.reshape(-1, 3), rows.reshape(-1, 1)], axis=1
    ), sample.mask.ravel()


def test_what_is_learnt_on_one_street_holds_on_another() -> None:
    """The nearest mean of colour and row, learnt on seeds 0 and 1, finds classes on seed 2."""
    learn: list[tuple[np.ndarray, np.ndarray]] = []
    for seed in (0, 1):
        drive = SyntheticDrive(200, (60, 80), seed)
        learn += [features(drive.frame(i)) for i in range(0, 200, 20)]
    x = np.concatenate([a for a, _ in learn])
    y = np.concatenate([b for _, b in learn])
    large = [0, 1, 3, 5]  # sky, building, road, tree
    means = np.stack([x[y == k].mean(0) for k in large])
    right = 0
    total = 0
    for i in range(0, 200, 20):
        x, y = features(SyntheticDrive(200, (60, 80), seed=2).frame(i))
        x, y = x[np.isin(y, large)], y[np.isin(y, large)]
        guess = np.array(large)[((x[:, None] - means) ** 2).sum(-1).argmin(1)]
        right, total = right + (guess == y).sum(), total + len(y)
    assert right / total > 0.75  # always saying road is right for about 45 per cent


def test_labels_lie_where_the_pixels_are() -> None:
    """Shifting the mask against the image blurs what the classes look like: the spread within
    classes grows.
    """

    def spread(image: Image, mask: Image) -> float:
        values = image.astype(float).mean(-1)
        return float(
            sum(values[mask == k].var() * (mask == k).sum() for k in np.unique(mask)) / mask.size
        )

    for seed in (0, 1, 2):
        sample = SyntheticDrive(50, (180, 240), seed).frame(20)
        right = spread(sample.image, sample.mask)
        for axis, step in ((0, 3), (0, -3), (1, 3), (1, -3)):
            assert spread(sample.image, np.roll(sample.mask, step, axis)) > right * 1.03


def test_a_face_owns_exactly_the_pixels_it_colours() -> None:
    light = Light(np.array([0.0, 1.0, 0.0]), np.zeros(3), np.ones(3), np.zeros(3))
    view = View(Camera((90, 120), np.array([0.0, 1.5, 0.0]), 0.1, 100.0, (59.5, 44.5)), light)
    white = Texture.of(np.full((64, 64, 4), 255, np.uint8), 1.0, 1.0)
    outline = np.array([[0.0, 0.0], [1.0, 0.0], [0.7, 1.0], [0.2, 0.8]])
    face = Face(
        np.array([-1.0, 0.2, 3.0]),
        np.array([2.0, 0, 5.0]),
        np.array([0, 2.0, 0]),
        outline,
        white,
        7,
        np.ones(3),
    )
    view.face(face)
    view.render()
    owned = view.canvas[..., 3] == 7
    assert 300 < owned.sum() < owned.size / 2
    assert np.array_equal(owned, view.canvas[..., 0] > 0)


def upright(left: float, right: float, depth: float, texture: Texture, label: int) -> Face:
    """Return a wall across the road, 3 m high."""
    origin = np.array([left, 0.0, depth])
    across = np.array([right - left, 0.0, 0.0])
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    return Face(origin, across, np.array([0.0, 3.0, 0.0]), square, texture, label, np.ones(3))


def test_what_stands_behind_an_opaque_face_is_dropped_and_nothing_else_is() -> None:
    light = Light(np.array([0.0, 1.0, 0.0]), np.zeros(3), np.ones(3), np.zeros(3))
    camera = Camera((90, 120), np.array([0.0, 1.5, 0.0]), 0.0, 100.0, (59.5, 44.5))
    wall = Texture.of(np.full((64, 64, 4), 255, np.uint8), 1.0, 1.0)
    glass = Texture.of(np.full((64, 64, 4), 120, np.uint8), 1.0, 1.0)
    near = upright(-2.0, 2.0, 6.0, wall, 1)
    window = upright(-2.0, 2.0, 6.0, glass, 1)
    hidden = upright(-2.0, 2.0, 12.0, wall, 2)
    wider = upright(-6.0, 2.0, 12.0, wall, 3)

    def labels(*faces: Face) -> tuple[np.ndarray, int]:
        """Draw faces, the nearest first; return the labels, and how many faces were kept."""
        view = View(camera, light)
        for face in faces:
            view.face(face)
        kept = len(view._strokes)
        view.render()
        return view.canvas[..., 3], kept

    alone, _ = labels(near)
    both, kept = labels(near, hidden)
    assert kept == 1
    assert np.array_equal(alone, both)
    beside, kept = labels(near, wider)
    assert kept == 2
    assert set(np.unique(beside)) == {0, 1, 3}
    assert np.array_equal(beside == 1, alone == 1)
    assert labels(window, hidden)[1] == 2  # glass hides nothing
    assert View(camera, light).boxes(np.array([[0.0, 0.2, 1.0, 2.0]])) == [None]  # around the eye


@pytest.mark.parametrize("seed", [3, 8])
def test_dropping_what_is_hidden_changes_no_pixel(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = SyntheticDrive(FOREVER, (240, 320), seed)
    quick = drive.frame(77)
    with monkeypatch.context() as patch:
        patch.setattr(View, "hides_box", lambda view, box: False)
        slow = drive.frame(77)
    assert np.array_equal(quick.mask, slow.mask)
    assert np.array_equal(quick.image, slow.image)


def test_addresses() -> None:
    plain = parse_address("synthetic://")
    assert (len(plain), plain.size, plain.seed, plain.fps) == (300, (360, 480), 0, 15.0)
    assert plain.labels is CAMVID_11
    full = parse_address("synthetic://?length=90&size=64x48&seed=3&fps=7.5")
    assert (len(full), full.size, full.seed, full.fps) == (90, (48, 64), 3, 7.5)
    assert full.frame(0).image.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("camera://0", "such as synthetic://"),
        ("synthetic://street", "such as synthetic://"),
        (
            "synthetic://?lenght=9",
            "unknown key: got 'lenght', expected one of length, size, seed, fps",
        ),
        ("synthetic://?length=many", "length: got 'many', expected a whole number"),
        ("synthetic://?length=2.5", "length: got '2.5', expected a whole number"),
        ("synthetic://?length=0", "length: got 0, expected 1 to"),
        ("synthetic://?length=", "length: got '', expected a whole number"),
        ("synthetic://?size=480", "size: got '480', expected WIDTHxHEIGHT"),
        ("synthetic://?size=8x480", "size: got 8x480, expected width and height of 16..4096"),
        ("synthetic://?size=480x9999", "got 480x9999"),
        ("synthetic://?seed=-1", "seed: got -1, expected 0 or more"),
        ("synthetic://?fps=0", "fps: got 0.0, expected more than 0"),
        ("synthetic://?fps=nan", "fps: got nan"),
        ("synthetic://?seed", "such as synthetic://"),
        ("synthetic://?seed=1&seed=2", "got seed twice"),
    ],
)
def test_bad_addresses_say_what_got_and_expected(address: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_address(address)
    assert message in str(caught.value)


def test_the_dataset_is_found_by_its_address_and_its_splits_share_no_street() -> None:
    splits = {name: open_dataset("synthetic:", name) for name in ("train", "val", "test")}
    assert [len(data) for data in splits.values()] == [200, 60, 60]
    assert all(data.name == f"synthetic/{name}" for name, data in splits.items())
    streets = [{name.split("_")[1] for name in data.names} for data in splits.values()]
    assert not any(a & b for a, b in combinations(streets, 2))
    other = SyntheticDataset("//?seed=1", "train")
    assert not {name.split("_")[1] for name in other.names} & set[str]().union(*streets)


def test_the_dataset_reads_its_address() -> None:
    data = SyntheticDataset("//?length=30&size=64x48", "val")
    assert len(data) == len(set(data.names)) == 30
    assert data.labels is CAMVID_11
    sample = data[29]
    assert sample.name == data.names[29]
    assert sample.image.shape == (48, 64, 3)
    assert data[-1].name == sample.name
    assert (data[0].mask != data[1].mask).mean() > 0.04  # neighbours differ: they are frames apart
    with pytest.raises(IndexError):
        data[30]


@pytest.mark.parametrize(
    ("path", "split", "kind", "message"),
    [
        ("", "holdout", DataError, "got 'holdout', expected one of train, val, test"),
        ("//?colour=red", "val", InputError, "unknown key: got 'colour'"),
        ("/data/CamVid", "val", InputError, "not the address of a synthetic drive"),
        ("//?length=99999999", "val", InputError, "length: got 99999999"),
    ],
)
def test_bad_dataset_addresses(path: str, split: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        SyntheticDataset(path, split)
    assert message in str(caught.value)
