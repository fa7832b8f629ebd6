"""The demo draws its drive ahead, and says what is wrong before it draws."""

from pathlib import Path

import pytest
from commands import edgeseg

SMALL = "synthetic://?length=6&size=96x64&seed=4&fps=15"


def test_the_demo_ends_in_a_video_a_table_and_the_next_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeseg.video.sources import open_source

    monkeypatch.setattr("edgeseg.cli.demo.DEMO_DATA", SMALL)
    out = tmp_path / "demo.mp4"
    done = edgeseg("demo", "-o", out, "--data", SMALL, "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert "drew 6 frames" in done.stdout
    assert "enet-camvid on synthetic/val, 6 frames" in done.stdout
    assert "edgeseg segment enet-camvid 0 --show" in done.stdout
    assert len(list(open_source(str(out)))) == 6
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "demo.avi2"], "unknown kind of video: got .avi2"),
        (["-o", "."], "no suffix"),
        (["-o", "taken/demo.mp4"], "taken/demo.mp4"),
        (["--data", "camvid:absent"], "absent"),
        (["--data", SMALL, "--split", "vall"], "vall"),
    ],
)
def test_what_is_wrong_is_told_before_the_drive_is_drawn(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(path: Path) -> None:
        raise AssertionError("drawn before the options were looked at")

    monkeypatch.setattr("edgeseg.cli.demo._draw_drive", draw)
    (tmp_path / "taken").write_text("a file, no folder")
    done = edgeseg("demo", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_full_disk_for_temporary_files_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("edgeseg.cli.demo.DEMO_DATA", SMALL)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr("edgeseg.video.video_file.DISK_MIN_BYTES", 1 << 60)
    done = edgeseg("demo", "-o", tmp_path / "demo.mp4")
    assert done.returncode == 2, done.stdout
    assert "the disk is full" in done.stderr
    assert "TMPDIR" in done.stderr
    assert "kept" not in done.stderr
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "demo.mp4").exists()
