"""Run every example on the synthetic drive, with a small engine."""

import csv
import json
import re
import runpy
import socket
import sys
import threading
import urllib.request
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from paths import ROOT
from small_net import save_small_net

import edgeseg
from edgeseg.spec import CAMVID_11
from edgeseg.video import open_source

EXAMPLES = ROOT / "examples"
DRIVE = "synthetic://?length=4&size=96x64"


@pytest.fixture(scope="module")
def small_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small net for CamVid's classes, with random weights."""
    folder = tmp_path_factory.mktemp("engine")
    return edgeseg.build_engine(save_small_net(folder / "small.onnx"), precision="fp32")


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    """Run an example as a program, in this process."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_every_example_has_a_test_and_a_line_in_the_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"({path.name})" in readme
        assert f'"{path.name}"' in tests


def test_label_folder(
    small_engine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    with open_source(DRIVE) as source:
        frames = [np.asarray(frame.pixels) for frame in source]
    cv2.imwrite(str(photos / "street.png"), frames[0])
    (photos / "broken.jpg").write_bytes(b"not a picture")
    (photos / "notes.txt").write_text("nothing")

    run(monkeypatch, "label_folder.py", photos, tmp_path / "masks", "--engine", small_engine)

    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["street.png"]
    colours = cv2.imread(str(tmp_path / "masks" / "street.png"))
    assert colours is not None
    assert colours.shape == (64, 96, 3)
    with edgeseg.load_engine(small_engine) as engine:
        palette = np.array(CAMVID_11.palette, np.uint8)[:, ::-1]  # RGB to BGR
        np.testing.assert_array_equal(colours, palette[engine(frames[0])])
    assert "broken.jpg: not a picture" in capsys.readouterr().out


def test_camera_page(
    small_engine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("starlette", reason="the extra web is not installed")
    out = tmp_path / "out.mp4"
    options = ("--engine", small_engine, "--port", 0, "--frames", 3, "--out", out)
    run(monkeypatch, "camera_page.py", DRIVE, *options)

    printed = capsys.readouterr().out
    assert re.search(r"look at http://127\.0\.0\.1:\d+/", printed)
    assert "3 frames" in printed
    assert out.stat().st_size > 0
    url = re.findall(r"http://\S+", printed)[0]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)


def test_compare_engines(
    small_engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (small_engine, small_engine, DRIVE, "--frames", 2)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "compare_engines.py", *arguments)
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "100.00 % equal labels" in printed
    assert printed.count("+0.00") + printed.count("nan") // 3 >= 1

    # A budget below zero cannot be kept: the program says which classes and fails.
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "compare_engines.py", *arguments, "--max-drop", -1)
    assert ended.value.code == 1
    assert "lost more than" in capsys.readouterr().out


def test_class_areas(small_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "areas.csv"
    run(monkeypatch, "class_areas.py", DRIVE, out, "--engine", small_engine)
    check_areas(out)


def check_areas(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert list(rows[0]) == ["time_s", *CAMVID_11.names]
    for row in rows:
        assert sum(float(row[name]) for name in CAMVID_11.names) == pytest.approx(1, abs=1e-4)
    return rows


class Broker:
    """The part of MQTT 3.1.1 that takes a client's messages, without acknowledgements."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        with self._listening, self._listening.accept()[0] as client:
            stream = client.makefile("rb")
            while head := stream.read(1):
                body = stream.read(self._length(stream))
                kind = head[0] >> 4
                if kind == 1:  # CONNECT
                    client.sendall(bytes([0x20, 2, 0, 0]))
                elif kind == 3:  # PUBLISH
                    end = 2 + int.from_bytes(body[:2], "big")
                    self.messages.append((body[2:end].decode(), body[end:]))
                elif kind == 14:  # DISCONNECT
                    return

    @staticmethod
    def _length(stream: Any) -> int:
        value = shift = 0
        while True:
            byte = int(stream.read(1)[0])
            value |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                return value


def test_class_areas_by_mqtt(
    small_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    broker = Broker()
    out = tmp_path / "areas.csv"
    options = ("--engine", small_engine, "--mqtt", "127.0.0.1", "--port", broker.port)
    run(monkeypatch, "class_areas.py", DRIVE, out, *options)
    broker.thread.join(timeout=10)

    rows = check_areas(out)
    assert [topic for topic, _ in broker.messages] == ["edgeseg/areas"] * 4
    for row, (_, message) in zip(rows, broker.messages, strict=True):
        assert json.loads(message) == {name: float(row[name]) for name in CAMVID_11.names}


def test_ros2_node_without_ros(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with pytest.raises(SystemExit, match="needs ROS 2"):
        run(monkeypatch, "ros2_node.py")


class FakeNode:
    """What the example uses of a node of ROS 2."""

    parameters: dict[str, str]

    def __init__(self, name: str) -> None:
        self.published: list[Any] = []
        self.errors: list[str] = []

    def declare_parameter(self, name: str, value: str) -> Any:
        return SimpleNamespace(value=self.parameters.get(name, value))

    def create_publisher(self, kind: Any, topic: str, depth: int) -> Any:
        return SimpleNamespace(publish=self.published.append)

    def create_subscription(self, kind: Any, topic: str, call: Any, profile: Any) -> None: ...

    def get_logger(self) -> Any:
        return SimpleNamespace(error=self.errors.append)


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8"])
def test_ros2_node_labels_pictures(
    encoding: str, small_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ROS 2 is not on PyPI: a stand-in has the names that the example imports."""
    modules = {
        name: ModuleType(name)
        for name in ("rclpy", "rclpy.node", "rclpy.qos", "sensor_msgs", "sensor_msgs.msg")
    }
    monkeypatch.setattr(FakeNode, "parameters", {"engine": str(small_engine)}, raising=False)
    modules["rclpy.node"].__dict__["Node"] = FakeNode
    modules["rclpy.qos"].__dict__["qos_profile_sensor_data"] = None
    modules["sensor_msgs.msg"].__dict__["Image"] = SimpleNamespace
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    node = runpy.run_path(str(EXAMPLES / "ros2_node.py"))["Segmenter"]()

    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    sent = frame if encoding == "bgr8" else frame[:, :, ::-1]
    padded = np.zeros((20, 96), np.uint8)  # rows of a message may be longer than the picture's
    padded[:, :90] = sent.reshape(20, 90)
    message = SimpleNamespace(
        header="stamp", encoding=encoding, height=20, width=30, step=96, data=padded.tobytes()
    )
    node.label(message)

    (answer,) = node.published
    assert (answer.header, answer.encoding, answer.step) == ("stamp", "mono8", 30)
    with edgeseg.load_engine(small_engine) as engine:
        assert answer.data == engine(frame).tobytes()

    node.label(SimpleNamespace(encoding="mono16"))
    assert node.errors == ["got mono16, expected bgr8 or rgb8"]
