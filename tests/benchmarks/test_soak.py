"""Run the whole pipeline for 20,000 frames, and the benchmark of live outputs for a moment."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

from benchmarks import live


def test_the_pipeline_does_not_grow(tmp_path: Path) -> None:
    """With an mp4 that is split, the page and one viewer; the long run is `benchmarks.soak`.

    In a process of its own: what other tests left behind would be counted, too.
    """
    report = tmp_path / "soak.json"
    command = [sys.executable, "-m", "benchmarks.soak", "--frames", "20000", "--json", str(report)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=300)
    result = json.loads(report.read_text())
    assert result["frames"] == 20_000
    assert result["viewer_messages"] > 10
    assert result["rss_growth_mb"] < 10
    assert result["descriptor_growth"] <= 0
    assert result["thread_growth"] <= 0
    assert result["descriptors_left"] <= 0
    assert result["videos"] == 2  # 667 s in files of 600


def test_every_output_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeseg.build.engine_cache import resolve_engine

    monkeypatch.setattr(live, "DRAWN", 2)
    with resolve_engine("enet-camvid", precision="fp32") as engine:
        rows = live.measure(engine, (96, 128), tmp_path, rounds=1, seconds=0.5)
    assert [row["output"] for row in rows] == [
        "engine alone", "json", "masks", "mp4", "page, one viewer",
    ]  # fmt: skip
    assert rows[0]["share"] == 1.0
    assert all(row["fps"] > 0 for row in rows)
