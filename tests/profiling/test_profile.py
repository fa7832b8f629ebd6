"""``edgeseg profile``: rule of the warm-up, turns, figures, file, and the whole command."""

import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from commands import edgeseg

from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.errors import InputError
from edgeseg.profiling import timing
from edgeseg.profiling.machine_state import CpuLoad, StateWatch, read_state, throttle_events
from edgeseg.profiling.profile import ProfileOptions, latency_figures, profile
from edgeseg.profiling.results import read_result
from edgeseg.profiling.workload import open_workload

DRIVE = "synthetic://?length=6&size=96x64&seed=1"
FRAME = np.zeros((2, 2, 3), np.uint8)


@pytest.fixture(scope="module")
def engine(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("engine") / "small.engine"
    return build_engine(small_onnx, precision="fp32", out=out)


class Clock:
    """Time that passes only while an engine runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def engine(self, *seconds: float) -> Any:
        """A call that takes these seconds in turn, and the last of them from then on."""
        left = list(seconds)

        def call(frame: Any) -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_the_warm_up_ends_when_times_settle() -> None:
    clock = Clock()
    warm = timing.warm_up(clock.engine(*[0.5] * 5, *[0.2] * 5, 0.1), [FRAME], clock)
    assert warm.settled
    # Windows of 5 calls: 0.5, 0.2, then three of 0.1.
    assert warm.calls == 25
    assert warm.seconds == pytest.approx(2.5 + 1.0 + 1.5)


def test_the_warm_up_ends_at_its_limit_if_times_never_settle() -> None:
    clock = Clock()
    warm = timing.warm_up(clock.engine(*[0.1 * 1.1**n for n in range(400)]), [FRAME], clock)
    assert not warm.settled
    assert warm.seconds >= timing.LIMIT_S


def test_engines_take_turns_that_rotate() -> None:
    clock = Clock()
    order: list[str] = []

    def named(name: str) -> Any:
        def call(frame: Any) -> None:
            clock.now += 0.25
            order.append(name)

        return call

    calls = [named("a"), named("b")]
    first, second = timing.take_turns(calls, [FRAME], 2.0, clock=clock)
    # Round 1 is a, b; round 2 starts with the next engine: b, a. Each turn has 1 + 4 calls.
    assert "".join(order) == "a" * 5 + "b" * 10 + "a" * 5
    assert len(first.starts_s) == len(second.starts_s) == 8
    assert [round(end - start, 6) for start, end in first.turns] == [1.0, 1.0]
    assert order.count("a") == 10  # a call before each turn is not counted


def test_figures_are_numpys_and_the_histogram_has_every_call() -> None:
    times = np.random.default_rng(0).gamma(3, 4, 1000)
    figures = latency_figures(times)
    assert figures.ms_p90 == np.percentile(times, 90)
    assert figures.ms_p99 == np.percentile(times, 99)
    assert sum(figures.histogram_counts) == figures.calls == 1000
    assert figures.histogram_counts[-1] == 10
    lines = timing.text_bars(figures.histogram_edges_ms, figures.histogram_counts)
    assert len(lines) == 11
    assert sum(int(line.split()[-1]) for line in lines) == 1000


def test_the_state_of_a_machine_is_read_and_what_is_absent_is_told(tmp_path: Path) -> None:
    cpu = tmp_path / "sys/devices/system/cpu"
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    files = {
        cpu / "cpu0/cpufreq/scaling_cur_freq": "1510400",
        cpu / "cpu10/cpufreq/scaling_cur_freq": "2201600",
        cpu / "cpu2/cpufreq/scaling_cur_freq": "729600",
        cpu / "cpu0/cpufreq/scaling_governor": "schedutil",
        cpu / "cpu0/thermal_throttle/core_throttle_count": "4",
        zone / "type": "tj-thermal",
        zone / "temp": "61500",
        tmp_path / "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
        tmp_path / "sys/class/thermal/cooling_device0/cur_state": "3",
        tmp_path / "sys/class/thermal/cooling_device1/type": "pwm-fan",
        tmp_path / "sys/class/thermal/cooling_device1/cur_state": "2",
        tmp_path / "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    before = read_state(tmp_path)
    assert before["cpu_mhz"] == [1510.4, 729.6, 2201.6]  # by number of the core
    assert before["governors"] == ["schedutil"]
    assert before["gpu_mhz"] == {"17000000.gpu": 1020.0}
    assert before["temperatures_c"] == {"tj-thermal": 61.5}
    assert before["throttle_flags"] == ["cpufreq-cpu0 level 3"]
    assert before["absent"] == {}

    (cpu / "cpu0/thermal_throttle/core_throttle_count").write_text("9\n")
    assert throttle_events(before, read_state(tmp_path)) == {"core thermal": 5}
    with StateWatch(tmp_path, every_s=0.01) as watch:
        pass
    assert watch.summary()["temperatures_c_max"] == {"tj-thermal": 61.5}
    assert "temperatures_c" in read_state(tmp_path / "nothing")["absent"]


def test_load_of_cores(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    stat = tmp_path / "proc/stat"
    stat.write_text("cpu 0 0 0 0\ncpu0 100 0 0 100 0 0 0 0 0 0\ncpu1 0 0 0 50 0 0 0 0 0 0\n")
    load = CpuLoad(tmp_path)
    stat.write_text("cpu 0 0 0 0\ncpu0 175 0 0 125 0 0 0 0 0 0\ncpu1 0 0 0 90 10 0 0 0 0 0\n")
    assert load.percent() == [75.0, 0.0]


def test_a_profile_of_two_engines_in_python(engine: Path, small_onnx: Path, tmp_path: Path) -> None:
    work = open_workload(DRIVE, split="train", frames=3)
    options = ProfileOptions(seconds=0.4, throughput_s=0.1)
    result = profile([engine, f"{small_onnx}@fp32"], work, options)
    assert [record.engine.id for record in result.engines] == ["small@fp32", "small@fp32#2"]
    for record in result.engines:
        latency = record.latency
        assert (
            latency.ms_min <= latency.ms_p50 <= latency.ms_p90 <= latency.ms_p99 <= latency.ms_max
        )
        assert record.stages is not None
        assert record.stages.network_ms > record.stages.postprocess_ms
        assert record.start.open_ms is not None
        assert [row.in_flight for row in record.throughput] == [1, 2, 4]
        assert record.miou is not None
        assert len(record.engine.onnx_sha256) == 64
    assert result.data.scored_frames == 3

    path = result.write(tmp_path / "r.json")
    read = read_result(path)
    assert read.to_dict() == json.loads(path.read_text())
    assert read.engines[0].engine == result.engines[0].engine


def test_other_files_are_no_results(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for text, said in (
        ('{"kind": "edgeseg comparison"}', "is no result of a measurement"),
        ("[1", "is no JSON"),
        ('{"kind": "edgeseg result", "format": 99}', "another version of the schema: got 99"),
        (
            '{"kind": "edgeseg result", "format": 1, "machine": 3}',
            "measurement: got Field required",
        ),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=re.escape(said)):
            read_result(path)


@pytest.mark.parametrize("width", [80, 120])
def test_the_command(engine: Path, tmp_path: Path, width: int) -> None:
    json_file = tmp_path / "p.json"
    arguments = ["--source", DRIVE, "--seconds", 0.3, "--json", json_file]
    if width == 120:
        pytest.importorskip("matplotlib")
        arguments += ["--layers", "--soak", "0.6s", "--plots", tmp_path / "plots"]
    done = edgeseg("profile", engine, *arguments, env={**os.environ, "COLUMNS": str(width)})
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines() if "wrote" not in line) <= width
    for text in ("p50", "FPS", "small", "no power from rapl|power of"):
        assert re.search(text, done.stdout), text
    result = read_result(json_file)
    assert result.command.startswith("edgeseg profile")
    if width == 120:
        assert result.engines[0].soak is not None
        assert result.engines[0].layers is not None
        names = sorted(path.name for path in (tmp_path / "plots").iterdir())
        assert names == ["latency.png", "roofline.png", "soak.png"]


def test_the_command_says_what_is_wrong(engine: Path, tmp_path: Path) -> None:
    def said(*arguments: object) -> str:
        done = edgeseg("profile", *arguments)
        assert done.returncode == 2, done.stdout
        assert "Traceback" not in done.stderr
        return str(done.stderr)

    assert "no such engine" in said("nothing", "--source", DRIVE)
    assert "no duration" in said(engine, "--soak", "long", "--source", DRIVE)
    assert "no power modes" in said(engine, "--source", DRIVE, "--power-modes", "15W", "--yes")
    assert "do not go together" in said(engine, "--soak", "0.6s", "--power-modes", "15W")
    picture = tmp_path / "one.png"
    picture.write_bytes(cv2.imencode(".png", np.zeros((64, 96, 3), np.uint8))[1].tobytes())
    assert f"Give it as --source {picture}" in said(engine, "--data", picture)
    assert "not the name of a JSON file" in said(engine, "--json", tmp_path / "r.txt")
