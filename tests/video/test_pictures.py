"""Pictures, folders of them, globs and lists: what is read, and what is left out."""

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import make_video, said

from edgeseg.errors import InputError
from edgeseg.video import expand_sources, open_source

FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="the program ffmpeg is not installed")


def ffmpeg(*arguments: str | Path) -> None:
    """Run FFmpeg's program on a second of pictures that all differ."""
    assert FFMPEG is not None
    bars = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1")
    subprocess.run([FFMPEG, "-v", "error", "-y", *bars, *map(str, arguments)], check=True)


def make_pictures(folder: Path, *names: str) -> None:
    """Pictures whose brightness is their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), np.full((48, 64, 3), number, np.uint8))


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    make_pictures(tmp_path, "one.jpg")
    (tmp_path / "._one.jpg").write_bytes(b"\0\5\x16\7 what macOS knows about one.jpg")
    with open_source(str(tmp_path), strict=True) as source:
        assert source.info.frames == 1
        assert [frame.name for frame in source] == ["one"]


def test_an_unreadable_picture_is_left_out_and_named(tmp_path: Path) -> None:
    make_pictures(tmp_path, "1.png", "3.png", "5.png")
    (tmp_path / "0.png").write_bytes(b"")  # the first one
    (tmp_path / "2.png").write_bytes(b"no picture")
    with open_source(str(tmp_path)) as source:
        frames = list(source)
    assert [(frame.index, frame.name) for frame in frames] == [(0, "1"), (1, "3"), (2, "5")]
    assert [line.partition(": ")[0] for line in source.skipped] == [
        str(tmp_path / "0.png"),
        str(tmp_path / "2.png"),
    ]
    assert "cannot be read as a picture" in source.skipped[0]

    with pytest.raises(InputError, match=r"0\.png: cannot be read as a picture"):
        open_source(str(tmp_path), strict=True)


def test_a_folder_without_a_readable_picture(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    message = said(str(tmp_path))
    assert f"{tmp_path}: none of 2 pictures can be read: got for the first: " in message


@needs_ffmpeg
def test_a_picture_that_moves_says_that_only_its_first_is_read(tmp_path: Path) -> None:
    still, moving = tmp_path / "still.png", tmp_path / "moving.png"
    ffmpeg("-frames:v", "1", still)
    ffmpeg("-f", "apng", moving)
    stills = [still]
    movings = [moving]
    for suffix in (".tif", ".webp"):
        images = [np.full((48, 64, 3), level, np.uint8) for level in (10, 200)]
        one, several = tmp_path / f"one{suffix}", tmp_path / f"several{suffix}"
        assert cv2.imwrite(str(one), images[0])
        stills.append(one)
        if suffix == ".tif":
            assert cv2.imwritemulti(str(several), images)
        else:
            if not hasattr(cv2, "imwriteanimation"):
                continue
            animation = cv2.Animation()
            animation.frames = images
            animation.durations = [100, 100]
            assert cv2.imwriteanimation(str(several), animation)
        movings.append(several)

    for path in stills:
        with open_source(str(path)) as source:
            assert (len(list(source)), source.notes) == (1, [])
    for path in movings:
        with open_source(str(path)) as source:
            assert len(list(source)) == 1
            assert len(source.notes) == 1
            assert f"{path}: only the first of its pictures is read" in source.notes[0]


# --- globs and lists ------------------------------------------------------------------------------


def test_a_glob_of_pictures_is_one_source(tmp_path: Path) -> None:
    make_pictures(tmp_path, "f10.png", "f2.png", "f1.jpg", ".hidden.png")
    (tmp_path / "notes.txt").write_text("no picture")
    for words in (
        [f"{tmp_path}/*"],
        [f"{tmp_path}/*.png", f"{tmp_path}/*.jpg"],
        [str(tmp_path / name) for name in ("f10.png", "f2.png", "f1.jpg")],  # by the shell
    ):
        (address,) = expand_sources(words)
        with open_source(address) as source:
            assert [frame.name for frame in source] == ["f1", "f2", "f10"]
            assert source.path == tmp_path
            assert source.info.frames == 3
    with open_source(f"{tmp_path}/*.png") as source:
        assert [frame.name for frame in source] == ["f2", "f10"]


def test_a_glob_of_videos_is_one_source_per_video(tmp_path: Path) -> None:
    for name in ("b10.mp4", "b2.mp4"):
        make_video(tmp_path / name)
    make_pictures(tmp_path, "p.png", "q.png")
    found = expand_sources(["0", f"{tmp_path}/*", "rtsp://camera/live?x=[1]"])
    assert [word.count("\0") for word in found] == [0, 1, 0, 0, 0]
    assert found[2:] == [
        str(tmp_path / "b2.mp4"),
        str(tmp_path / "b10.mp4"),
        "rtsp://camera/live?x=[1]",
    ]
    assert "matches several sources: got 2" in said(f"{tmp_path}/*.mp4")
    with open_source(f"{tmp_path}/b?.mp4") as source:
        assert (source.name, source.info.frames) == ("b2", 20)


def test_a_glob_searches_sub_folders_if_asked(tmp_path: Path) -> None:
    make_pictures(tmp_path / "a", "1.png")
    make_pictures(tmp_path / "b", "1.png", "2.png")
    with open_source(f"{tmp_path}/**/*.png") as source:
        names = [frame.name for frame in source]
    assert len(set(names)) == 3  # a/1 and b/1 have masks of their own
    assert names[-1] == "2"


def test_a_glob_that_matches_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="no video or picture matches: got nothing"):
        expand_sources([f"{tmp_path}/*.mp4"])
    assert "no video or picture matches: got 1 other files" in said(f"{tmp_path}/*")


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4").rename(tmp_path / "clip [1].mp4")
    assert expand_sources([str(path)]) == [str(path)]
    with open_source(str(path)) as source:
        assert source.name == "clip-1"
