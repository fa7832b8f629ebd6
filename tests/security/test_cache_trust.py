"""What another user could have written is refused before it is opened or loaded."""

import os
from pathlib import Path

import pytest
from tiny_net import tiny_net

from edgeseg.backends.openvino.extension import build as extension
from edgeseg.build.engine_cache import resolve_engine
from edgeseg.errors import OutputError
from edgeseg.files import cache_folder, sha256_file
from edgeseg.trust import read_private, require_private_folder

STRANGER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "above" / "cache"))
    return tmp_path / "above" / "cache"


def test_the_folder_is_made_for_this_user_alone(cache: Path) -> None:
    before = os.umask(0)
    try:
        assert cache_folder() == cache
    finally:
        os.umask(before)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert cache.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("where", ["cache", "above"])
def test_a_folder_that_everybody_can_write_is_refused(cache: Path, where: str) -> None:
    cache.mkdir(parents=True)
    open_folder = cache if where == "cache" else cache.parent
    open_folder.chmod(0o777)
    with pytest.raises(OutputError, match=f"{open_folder} can be written by everybody") as caught:
        cache_folder()
    assert "\n" not in str(caught.value)
    assert "EDGESEG_CACHE" in str(caught.value)


def test_a_sticky_folder_above_is_no_danger_but_the_cache_itself_is(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.parent.chmod(0o1777)
    assert cache_folder() == cache
    cache.chmod(0o1777)
    with pytest.raises(OutputError, match="can be written by everybody"):
        cache_folder()


@needs_root
def test_a_folder_of_another_user_is_refused(cache: Path) -> None:
    cache.mkdir(parents=True)
    os.chown(cache, STRANGER, -1)
    with pytest.raises(OutputError, match=f"belongs to another user .uid {STRANGER}"):
        cache_folder()


def test_a_link_to_an_unsafe_folder_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    target.chmod(0o777)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OutputError, match="can be written by everybody"):
        require_private_folder(tmp_path / "link")


def test_a_pipe_in_the_cache_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(OutputError, match="no regular file"):
        read_private(tmp_path / "x.json")


@pytest.mark.parametrize("suffix", [".engine", ".engine.json"])
def test_an_engine_of_the_cache_that_others_can_write_is_refused(
    tmp_path: Path, cache: Path, suffix: str
) -> None:
    small_onnx = tiny_net(tmp_path)
    resolve_engine(small_onnx, precision="fp32").close()
    (file,) = cache.glob(f"*{suffix}")
    file.chmod(0o666)
    with pytest.raises(OutputError, match="a file that can be written by everybody"):
        resolve_engine(small_onnx, precision="fp32")
    file.chmod(0o644)
    resolve_engine(small_onnx, precision="fp32").close()

    if os.geteuid() == 0:
        os.chown(file, STRANGER, -1)
        with pytest.raises(OutputError, match="belongs to another user"):
            resolve_engine(small_onnx, precision="fp32")


def test_a_library_is_not_loaded_without_its_digest(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(extension.SWITCH, "1")
    monkeypatch.setenv("CXX", "no-such-compiler")
    library = extension.library_path()
    library.parent.mkdir(parents=True)
    library.write_bytes(b"\x7fELF planted")
    assert "CXX" in extension.why_not()  # it would have to be built

    extension.digest_path(library).write_text(sha256_file(library))
    assert extension.why_not() == ""
    library.write_bytes(b"\x7fELF another")
    assert "CXX" in extension.why_not()

    library.chmod(0o666)
    with pytest.raises(OutputError, match="can be written by everybody"):
        extension.why_not()
