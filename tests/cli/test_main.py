"""Run the commands as people do: exit codes, one clear line per error, complete files or none."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from commands import edgeseg, edgeseg_process
from paths import ROOT


def test_help_lists_every_command() -> None:
    done = edgeseg_process("--help")
    assert done.returncode == 0
    listed = re.findall(r"^\W*([a-z-]+) {2,}[A-Z]", done.stdout.split("Commands")[1], re.M)
    order = [
        "models",
        "train",
        "lr-find",
        "export",
        "qat",
        "make",
        "calibrate",
        "sensitivity",
        "build-engine",
        "segment",
        "demo",
        "evaluate",
        "compare",
        "doctor",
    ]
    assert [command for command in listed if command in order] == order


def test_models_lists_the_registry() -> None:
    pytest.importorskip("torch")
    done = edgeseg("models", "--size", "360x480")
    assert done.returncode == 0
    assert "enet" in done.stdout
    assert "29.4" in done.stdout


def test_build_evaluate_segment(small_onnx: Path, tmp_path: Path) -> None:
    engine = tmp_path / "n.engine"
    built = edgeseg_process("build-engine", small_onnx, "-o", engine, "--precision", "fp32")
    assert built.returncode == 0, built.stderr
    assert "input 64x96 (HxW)" in built.stdout
    assert engine.exists()
    assert (tmp_path / "n.engine.json").exists()

    scores = tmp_path / "s.json"
    scored = edgeseg_process(
        "evaluate", engine, "synthetic://?length=4&size=96x64", "--json", scores
    )
    assert scored.returncode == 0, scored.stderr
    result = json.loads(scores.read_text())
    assert result["frames"] == 4
    assert 0 <= result["miou"] <= 1
    assert sum(map(sum, result["confusion_matrix"])) == result["pixels"] == 4 * 96 * 64

    video, masks, facts = tmp_path / "o.mp4", tmp_path / "masks", tmp_path / "f.json"
    source = "synthetic://?length=7&size=96x64&fps=12"
    done = edgeseg_process(
        "segment", engine, source, "-o", video, "--masks", masks, "--json", facts
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(facts.read_text())
    assert summary["frames_in"] == summary["frames_out"] == 7
    assert set(summary["latency_ms"]) == {"read", "network", "draw", "write"}
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 7
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12, abs=0.01)
    assert (capture.get(cv2.CAP_PROP_FRAME_HEIGHT), capture.get(cv2.CAP_PROP_FRAME_WIDTH)) == (
        64,
        96,
    )
    assert len(list(masks.glob("*.png"))) == 7


def test_picture_in_picture_out(small_onnx: Path, tmp_path: Path) -> None:
    picture = tmp_path / "in.png"
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    done = edgeseg("segment", small_onnx, picture, "-o", tmp_path / "out.png")
    assert done.returncode == 0, done.stderr
    painted = cv2.imread(str(tmp_path / "out.png"))
    assert painted is not None
    assert painted.shape == (50, 70, 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["segment", "NET", "absent.mp4", "-o", "o.mp4"], "absent.mp4"),
        (["segment", "absent", "synthetic://", "-o", "o.mp4"], "no such engine"),
        (["segment", "NET", "synthetic://"], "nothing to do"),
        (["segment", "NET", "synthetic://?speed=3", "-o", "o.mp4"], "speed"),
        (["segment", "NET", "synthetic://?length=2", "-o", "o.xyz"], "unknown kind of video"),
        (["segment", "NET", "synthetic://?length=2", "-o", "FILE/o.mp4"], "cannot be written"),
        (["segment", "NET", "text.mp4", "-o", "o.mp4"], "text.mp4"),
        (["segment", "NET", "broken.mp4", "-o", "o.mp4"], "broken.mp4"),
        (["evaluate", "NET", "camvid:absent"], "no such folder"),
        (["evaluate", "NET", "nonsense"], "READER:PATH"),
        (["evaluate", "NET", "synthetic://", "--split", "night"], "night"),
        (["evaluate", "NET", "synthetic://", "--labels", "voc-21"], "disagree"),
        (["build-engine", "text.onnx"], "a text file"),
        (["build-engine", "absent.onnx"], "no such ONNX file"),
        (["build-engine", "NET", "--size", "12"], "HEIGHTxWIDTH"),
        (["build-engine", "NET", "-o", "FILE/x.engine"], "cannot be written"),
        (["build-engine", "NET", "--size", "36x48"], "--size 40x48"),
        (["build-engine", "NET", "--size", "²x5"], "HEIGHTxWIDTH"),
        (["build-engine", ""], "no such ONNX file"),
        (["build-engine", "[/x].onnx"], "[/x].onnx"),
        (["build-engine", "NET", "-o", "a" * 300 + ".engine"], "too long"),
        (["segment", "a" * 300, "synthetic://?length=2", "-o", "o.mp4"], "too long"),
        (["segment", "NET", "p.png", "--std", "0", "0", "0", "-o", "o.png"], "must be positive"),
        (["segment", "NET", "p.png", "--mean", "nan", "0", "0", "-o", "o.png"], "mean"),
        (["segment", "NET", "p.png", "--masks", "."], "would replace p.png"),
        (["segment", "NET", "p.png", "--json", "p.png"], "JSON"),
        (["segment", "NET", "", "-o", "o.png"], "no source"),
        (["segment", "NET", "~nobody-at-all/x.png", "-o", "o.png"], "no such video"),
        (["segment", "NET", "synthetic://?length=99999999999999999999", "-o", "o.mp4"], "10000000"),
        (["evaluate", "NET", "synthetic://", "--json", "p.png"], "JSON"),
        (["train", "absent.toml"], "no such recipe"),
        (["train", "."], "no such recipe"),
        (["export", "absent.pt"], "no such checkpoint"),
        (["segmen", "NET"], "segmen"),
        (["--nope"], "--nope"),
        (["segment", "NET"], "SOURCE"),
        (["segment", "NET", "p.png", "--nope"], "segment --help"),
        (["segment", "NET", "p.png", "--alpha", "2"], "--alpha"),
        (["build-engine", "NET", "--mean", "1"], "--mean"),
        (["build-engine", "NET", "--precision", "int3"], "bf16"),
        (["build-engine", "NET", "--precision", "fp23"], "Did you mean 'fp32'?"),
        (["build-engine", "NET", "--target", "tensort"], "Did you mean 'tensorrt'?"),
        (["compare", "NET", "--data", "camvdi:/x"], "Did you mean 'camvid'?"),
        (["calibrate", "NET", "--calib", "camvdi:/x"], "Did you mean 'camvid'?"),
        (
            ["segment", "NET", "p.png", "-o", "o.png", "--labels", "voc-12"],
            "Did you mean 'voc-21'?",
        ),
        (["calibrate", "enet-canvid", "--calib", "synthetic://"], "Did you mean 'enet-camvid'?"),
    ],
    ids=lambda value: "-".join(value)[:60] if isinstance(value, list) else "",
)
def test_errors(small_onnx: Path, tmp_path: Path, arguments: list[str], says: str) -> None:
    """The exit code is 2, one line on standard error names the problem, and no file is written."""
    (tmp_path / "text.onnx").write_text("not a network")
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "FILE").touch()
    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((64, 96, 3), np.uint8))
    _broken_video(tmp_path / "broken.mp4")
    before = sorted(tmp_path.rglob("*"))
    picture = (tmp_path / "p.png").read_bytes()
    done = edgeseg(*[str(small_onnx) if a == "NET" else a for a in arguments], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "p.png").read_bytes() == picture


def _broken_video(path: Path) -> None:
    """Write the first half of an AVI: its header promises more frames than there are."""
    writer = cv2.VideoWriter(
        str(path.with_suffix(".avi")), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64)
    )
    for i in range(30):
        writer.write(np.random.default_rng(i).integers(0, 256, (64, 96, 3), np.uint8))
    writer.release()
    data = path.with_suffix(".avi").read_bytes()
    path.with_suffix(".avi").unlink()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_recordings_are_kept(
    small_onnx: Path, tmp_path: Path, how: signal.Signals
) -> None:
    out = tmp_path / "o.mp4"
    command = [
        sys.executable,
        "-m",
        "edgeseg",
        "segment",
        str(small_onnx),
        "synthetic://?length=100000&size=96x64",
    ]
    # Tests that run in the background may ignore SIGINT, and so would their child processes.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*command, "-o", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, heard)
    with process:
        for _ in range(400):
            time.sleep(0.05)
            if any(p.stat().st_size > 2000 for p in tmp_path.glob(".o-*.mp4")):
                break
        process.send_signal(how)
        try:
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, stderr
    assert "interrupted" in stdout
    assert cv2.VideoCapture(str(out)).get(cv2.CAP_PROP_FRAME_COUNT) > 0
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"]


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeseg import cli, doctor

    def broken() -> list[doctor.Finding]:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(doctor, "examine", broken)
    monkeypatch.setattr(sys, "argv", ["edgeseg", "doctor"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 1, "aborted"),
        (typer.Exit(3), 3, ""),
    ],
    ids=["ctrl-c", "abort", "exit"],
)
def test_exit_codes(
    raised: BaseException,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from edgeseg import cli, doctor

    def stops() -> list[doctor.Finding]:
        raise raised

    monkeypatch.setattr(doctor, "examine", stops)
    monkeypatch.setattr(sys, "argv", ["edgeseg", "doctor"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == code
    assert capsys.readouterr().err.strip() == says


def test_doctor_names_what_is_missing() -> None:
    done = edgeseg_process("doctor")
    assert "cpu target" in done.stdout
    assert "OpenVINO" in done.stdout


def test_make_targets_are_the_readmes() -> None:
    """The two commands of the README exist, and CI runs the second one."""
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert f"\n{target}:" in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text()
