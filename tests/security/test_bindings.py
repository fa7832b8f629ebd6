"""Engines and passports belong to each other, and change places in one step."""

import contextlib
import json
import os
import random
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_net import tiny_net

from edgeseg.backends.load import load_engine
from edgeseg.backends.openvino.engine import pack, seal, seal_of, unpack
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.errors import EngineError
from edgeseg.files import sha256_file
from edgeseg.passport import FORMAT, Passport
from edgeseg.spec import ModelSpec

FRAME = np.full((16, 24, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    return build_engine(tiny_net(folder), precision="fp32", out=folder / "e.engine")


@pytest.fixture
def engine(original: Path, tmp_path: Path) -> Path:
    """A copy of an engine and its passport, to damage."""
    copy = tmp_path / original.name
    shutil.copyfile(original, copy)
    shutil.copyfile(Passport.path_for(original), Passport.path_for(copy))
    return copy


def changed(passport: Passport, **values: Any) -> str:
    return passport.model_copy(update=values).model_dump_json()


def test_every_changed_byte_of_a_passport_is_noticed_or_harmless(engine: Path) -> None:
    path = Passport.path_for(engine)
    text = path.read_bytes()
    whole = Passport.read(engine)
    draw = random.Random(0)
    for _ in range(400):
        place = draw.randrange(len(text))
        damaged = bytearray(text)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(EngineError):
            assert Passport.read(engine) == whole  # a blank between two values


def test_a_changed_mean_is_refused(engine: Path) -> None:
    path = Passport.path_for(engine)
    path.write_text(path.read_text().replace("0.485", "0.486"))
    with pytest.raises(EngineError, match="its digest is another"):
        load_engine(engine)


def test_a_whole_passport_of_another_build_is_refused(engine: Path) -> None:
    """Its digest is right and it names the engine, but the engine holds another's digest."""
    passport = Passport.read(engine)
    spec = passport.spec.replace(mean=(0.1, 0.1, 0.1))
    Passport.path_for(engine).write_text(changed(passport, spec=spec))
    assert Passport.read(engine).spec == spec
    with pytest.raises(EngineError, match="was built with another passport"):
        load_engine(engine)


def test_an_engine_without_a_digest_of_its_own_opens(engine: Path) -> None:
    """As earlier versions wrote it, with a passport of format 2."""
    assert seal_of(engine.read_bytes()) == Passport.read_with_digest(engine)[1]
    data = engine.read_bytes()[:-82]
    assert seal_of(data) == ""
    engine.write_bytes(data)
    path = Passport.path_for(engine)
    values = json.loads(path.read_text())
    del values["passport_sha256"]
    values |= {"format": 2, "engine_sha256": sha256_file(engine)}
    path.write_text(json.dumps(values))
    assert Passport.read(engine).format == FORMAT
    with load_engine(engine) as opened:
        assert opened(FRAME).shape == (16, 24)


def test_a_passport_of_this_format_needs_its_digest(engine: Path) -> None:
    path = Passport.path_for(engine)
    values = json.loads(path.read_text())
    del values["passport_sha256"]
    path.write_text(json.dumps(values))
    with pytest.raises(EngineError, match="its digest is another"):
        Passport.read(engine)


@pytest.mark.parametrize(
    "setting", [("CACHE_DIR", "made"), ("NUM_STREAMS", "100"), ("PERF_COUNT", "YES")]
)
def test_settings_that_are_not_edgesegs_are_refused(
    engine: Path, setting: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(engine.parent)
    engine.write_bytes(engine.read_bytes()[:-82])  # no digest of the passport inside
    passport = Passport.read(engine)
    name, value = setting
    facts = passport.openvino.model_copy(
        update={"config": {**passport.openvino.config, name: value}}
    )
    text = changed(passport, facts=facts, engine_sha256=sha256_file(engine))
    Passport.path_for(engine).write_text(text)
    with pytest.raises(EngineError, match=f"{name}={value}"):
        load_engine(engine)
    assert not (engine.parent / "made").exists()


# -- packed parts ----------------------------------------------------------------------------------


def test_a_graph_that_unfolds_to_more_than_it_says_takes_no_memory() -> None:
    bomb = zlib.compress(bytes(50 << 20), 9)
    header = b"edgeseg cpu engine 1\n" + struct.pack("<QQ", 4, 100)
    _, logits = unpack(header + b"abcd" + bomb, "net")
    assert logits is not None
    with pytest.raises(EngineError, match="more than 100 bytes for the logits, expected 100"):
        logits()


def test_a_graph_that_says_it_is_huge_is_refused() -> None:
    header = b"edgeseg cpu engine 1\n" + struct.pack("<QQ", 4, 13 << 30)
    with pytest.raises(EngineError, match=r"damaged: got a graph of 13958643712 bytes"):
        unpack(header + b"abcd" + zlib.compress(b"x"), "net")


@pytest.mark.parametrize("rest", [b"no zlib", zlib.compress(b"logits!")[:-3]])
def test_damaged_parts_are_one_line(rest: bytes) -> None:
    header = b"edgeseg cpu engine 1\n" + struct.pack("<QQ", 4, 7)
    _, logits = unpack(header + b"abcd" + rest, "net")
    assert logits is not None
    with pytest.raises(EngineError, match="the engine file is damaged"):
        logits()
    with pytest.raises(EngineError, match="got a graph of 2 bytes, expected 4 bytes"):
        unpack(header + b"ab", "net")


def test_a_digest_does_not_reach_the_graphs() -> None:
    data = seal(pack(b"labels", b"logits"), 64 * "0")
    labels, logits = unpack(data, "net")
    assert logits is not None
    assert (labels, logits()) == (b"labels", b"logits")
    assert unpack(seal(pack(b"labels", None), 64 * "0"), "net") == (b"labels", None)


# -- one commit point ------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_kill_between_two_renames_leaves_a_pair_that_opens(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends before the rename of that number: the old pair or the new one opens."""
    out = build_engine(tiny_net(tmp_path), precision="fp32", out=tmp_path / "e.engine")
    spec = _bgr(tmp_path)

    replace = os.replace
    done = 0

    class Killed(BaseException):
        pass

    def dying(source: Any, target: Any) -> None:
        nonlocal done
        done += 1
        if done == step:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        try:
            build_engine(spec, precision="fp32", out=out)
            assert step == 3
        except Killed:
            assert step < 3

    after = Passport.read(out)
    is_new = after.spec.colour == "bgr"
    assert is_new == (step > 1)
    with load_engine(out) as opened:
        assert opened.spec.colour == ("bgr" if is_new else "rgb")
    if is_new:
        assert not Passport.next_path_for(out).exists()


def _bgr(folder: Path) -> Any:
    """The same net with another spec."""
    from edgeseg.graph.network import Overrides, load_network

    return load_network(folder / "tiny.onnx", Overrides(colour="bgr"))


def test_two_writers_at_once_leave_a_pair(tmp_path: Path) -> None:
    """A reader finished the rename for the writer, or another writer took the waiting passport."""
    from edgeseg.passport import commit

    out = build_engine(tiny_net(tmp_path), precision="fp32", out=tmp_path / "e.engine")
    passport = Passport.read(out)
    temporary = tmp_path / "t.engine"
    shutil.copyfile(out, temporary)
    replace = os.replace

    def stolen(source: Any, target: Any) -> None:
        replace(source, target)
        Passport.next_path_for(out).unlink(missing_ok=True)

    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(os, "replace", stolen)
        commit(temporary, out, passport)
    load_engine(out).close()


def test_an_unreadable_onnx_file_beside_an_engine_does_not_matter(engine: Path) -> None:
    source = engine.with_name("tiny.onnx")
    source.symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error"):
        source.read_bytes()
    load_engine(engine).close()
    source.unlink()
    source.write_bytes(b"another")
    with pytest.raises(EngineError, match=r"tiny\.onnx has changed since it was built"):
        load_engine(engine)


def test_an_unreadable_label_is_not_called_damaged(tmp_path: Path) -> None:
    from edgeseg.data.folder import read_raw
    from edgeseg.errors import DataError

    (tmp_path / "a.png").symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match="Input/output error"):
        read_raw(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(DataError, match="damaged"):
        read_raw(tmp_path / "b.png")


def test_spec_is_a_part_of_the_digest(original: Path) -> None:
    passport = Passport.read(original)
    assert isinstance(passport.spec, ModelSpec)
    other = passport.model_copy(update={"spec": passport.spec.replace(std=(1.0, 1.0, 1.0))})
    assert other.sha256 != passport.sha256
