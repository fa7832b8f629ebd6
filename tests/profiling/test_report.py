"""The page of a report: every figure is the JSON's, and a browser asks for nothing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from commands import edgeseg
from linear_net import linear_net

from edgeseg.commands import compare
from edgeseg.data import open_dataset
from edgeseg.metrics.boundary import BoundaryTruth, boundary_scores
from edgeseg.profiling.report import Report, report
from edgeseg.profiling.report.verdict import verdict
from edgeseg.profiling.report.write import Extras
from edgeseg.video import open_source

DRIVE = "synthetic://?length=4&size=96x64"
CHROMIUM = Path("/usr/bin/chromium")
LARGEST = 15_000_000  # bytes of a page


class Figures(HTMLParser):
    """Read the elements that name their place in the JSON, and all addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self.addresses: list[str] = []
        self._open: tuple[str, str] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [str(given[name]) for name in ("src", "href") if name in given]
        path = given.get("data-path")
        if path is not None:
            self._open = (path, str(given["data-as"]))

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.found.append((*self._open, data))
            self._open = None


def expected(facts: Any, path: str, how: str) -> str:
    """A figure as the page should show it, written anew: the page's own code is on trial."""
    value = facts
    for key in path.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    if value is None:
        return "-"
    if how == "points":
        rounded = round(100 * value, 2)
        sign = {1: "+", -1: "\N{MINUS SIGN}", 0: ""}[(rounded > 0) - (rounded < 0)]
        return f"{sign}{abs(rounded):.2f}"
    if how == "percent":
        return format(100 * value, ".2f")
    if how == "megabytes":
        return format(value / 1_000_000, ".1f")
    return format(value, {"fixed": ".2f", "short": ".3g", "whole": ",.0f"}[how])


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two nets of one convolution each, with other weights."""
    from edgeseg.build.engine_from_onnx import build_engine
    from edgeseg.graph.network import Overrides, load_network

    root = tmp_path_factory.mktemp("nets")
    found: list[str] = []
    for seed, name in enumerate("ab"):
        path = linear_net(root / f"{name}.onnx", seed=seed)
        network = load_network(path, Overrides(labels="camvid-11"))
        found.append(str(build_engine(network, precision="fp32", out=root / f"{name}.engine")))
    return found


@pytest.fixture(scope="module")
def made(nets: list[str], tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report with the result of a profile."""
    path = tmp_path_factory.mktemp("profile") / "p.json"
    done = edgeseg("profile", nets[0], "--data", DRIVE, "--seconds", "0.2", "--json", path)
    assert done.returncode == 0, done.stderr
    return report(nets, open_dataset(DRIVE), extras=Extras.read([path]), rounds=1, command="a <b>")


def test_every_figure_is_the_jsons(made: Report) -> None:
    facts = json.loads(json.dumps(made.facts, allow_nan=False))
    figures = Figures(made.html).found
    wrong = [(path, shown) for path, how, shown in figures if shown != expected(facts, path, how)]
    assert wrong == []
    paths = {path for path, _, _ in figures}
    assert "/comparison/engines/1/miou_change_interval/0" in paths
    assert "/profiles/a@fp32/frames_per_s" in paths
    assert len(paths) > 150


def test_the_page_holds_the_json(made: Report) -> None:
    text = re.search(r'<script type="application/json" id="facts">(.*?)</script>', made.html)
    assert text is not None
    assert json.loads(text[1]) == json.loads(json.dumps(made.facts))


def test_no_other_number_is_in_a_table(made: Report) -> None:
    """A cell of a table with decimals names its place in the JSON."""
    for cell in re.findall(r"<td[^>]*>(.*?)</td>", made.html):
        left = re.sub(r"<(span|small)[^>]*data-path.*?</\1>", "", cell)
        assert not re.search(r"\d\.\d", left), cell


def test_scores_are_those_of_compare(made: Report, nets: list[str]) -> None:
    alone = compare([*nets], DRIVE, rounds=1).to_dict()
    for ours, theirs in zip(made.facts["comparison"]["engines"], alone["engines"], strict=True):
        for key in ("miou", "miou_change_interval", "boundary_f", "agreement", "per_class"):
            assert ours[key] == theirs[key]


def test_boundaries_worst_frames_and_maps(made: Report, nets: list[str]) -> None:
    from edgeseg.backends.load import load_engine

    data = open_dataset(DRIVE)
    samples = [data[index] for index in range(len(data))]
    with load_engine(Path(nets[0])) as one, load_engine(Path(nets[1])) as two:
        first = [one(sample.image) for sample in samples]
        other = [two(sample.image) for sample in samples]

    distance = 3
    counts = np.zeros((11, 4), np.int64)
    for sample, labels in zip(samples, other, strict=True):
        edges = BoundaryTruth(sample.mask, 11, 11, distance / np.hypot(*sample.mask.shape))
        counts += edges.counts(labels)
    found = made.facts["boundary_by_distance"]
    at = found["pixels"].index(distance)
    wanted = boundary_scores(data.labels.names, counts).mean_f_score
    assert found["engines"]["b@fp32"][at] == pytest.approx(wanted)

    lost = {
        s.name: int(((s.mask < 11) & (a == s.mask) & (b != s.mask)).sum())
        for s, a, b in zip(samples, first, other, strict=True)
    }
    frames = made.facts["worst_frames"]
    assert {frame["name"]: frame["pixels"] for frame in frames} == lost
    assert [frame["pixels"] for frame in frames] == sorted(lost.values(), reverse=True)
    share = np.mean([(a != b).mean() for a, b in zip(first, other, strict=True)])
    assert made.facts["disagreement"]["b@fp32"]["mean_share"] == pytest.approx(share, rel=1e-4)


def test_nothing_comes_from_elsewhere(made: Report) -> None:
    addresses = Figures(made.html).addresses
    assert addresses
    assert all(one.startswith(("data:image/", "#")) for one in addresses)
    assert "http://" not in made.html.replace("http://www.w3.org", "")
    assert "https://" not in made.html
    assert "a &lt;b&gt;" in made.html, "text from outside is escaped"
    assert len(made.html.encode()) < LARGEST


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium")
def test_a_browser_shows_it_at_three_widths(made: Report, tmp_path: Path) -> None:
    """No message of the console, no request, no sideways scrolling; keys move a slider."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = made.write(tmp_path / "report.html")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        messages: list[str] = []
        requests: list[str] = []
        for width in (360, 900, 1600):
            for scheme in ("light", "dark"):
                page = browser.new_page(
                    viewport={"width": width, "height": 800}, color_scheme=scheme
                )
                page.on("console", lambda message: messages.append(message.text))
                page.on("pageerror", lambda error: messages.append(str(error)))
                page.on("request", lambda request: requests.append(request.url))
                page.goto(path.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                shown = page.evaluate(
                    "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
                )
                assert shown == 0
                page.locator("input[type=range]").first.focus()
                page.keyboard.press("End")
                at = page.evaluate(
                    "document.querySelector('.stage').style.getPropertyValue('--at')"
                )
                assert at == "100%"
                page.close()
        browser.close()
    assert messages == []
    assert {url for url in requests if not url.startswith("data:")} == {path.as_uri()}


def test_command(nets: list[str], tmp_path: Path) -> None:
    out, facts = tmp_path / "r.html", tmp_path / "r.json"
    done = edgeseg(
        "report",
        nets[0],
        "--data",
        DRIVE,
        "--frames",
        "2",
        "--rounds",
        "1",
        "-o",
        out,
        "--json",
        facts,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(facts.read_text())["comparison"]["data"]["frames"] == 2
    assert "FP32 has an mIoU of" in done.stdout
    assert out.read_text().startswith("<!doctype html>")


def test_frames_without_labels(nets: list[str], tmp_path: Path) -> None:
    with open_source(DRIVE) as source:
        for frame in source:
            cv2.imwrite(str(tmp_path / f"{frame.name}.png"), frame.image)
    with open_source(str(tmp_path)) as source:
        made = report(nets, source, rounds=1)
    facts = json.loads(json.dumps(made.facts, allow_nan=False))
    for path, how, shown in Figures(made.html).found:
        assert shown == expected(facts, path, how)
    assert "of the labels" in facts["verdict"]
    assert "truth" not in {key for frame in facts["worst_frames"] for key in frame}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["p.json", "--data", DRIVE], "no engine to report on"),
        (["NET", "--data", DRIVE, "-o", "r.txt"], "ends in .html"),
        (["NET", "other.json", "--data", DRIVE], "not a result that a report can show"),
        (["NET", "absent.json", "--data", DRIVE], "cannot be read"),
        (["NET", "--data", "nonsense"], "no such data"),
    ],
)
def test_wrong_use_is_told(
    nets: list[str], tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "other.json").write_text('{"a": 1}')
    words = [nets[0] if word == "NET" else word for word in arguments]
    done = edgeseg("report", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("*.html"))


def engine(precision: str, change: float, ends: list[float], ratio: float) -> dict[str, Any]:
    row = {"iou_change": -0.019, "iou_change_interval": [-0.03, -0.01]}
    return {
        "id": f"net@{precision}",
        "name": "net",
        "precision": precision,
        "miou": 0.6,
        "miou_change": change,
        "miou_change_interval": ends,
        "latency_ratio": ratio,
        "per_class": {"Pole": row},
    }


def test_verdict() -> None:
    data = {"labelled": True, "frames": 100, "name": "drive"}
    first = engine("fp32", 0.0, [0.0, 0.0], 1.0)
    cases = (
        ((-0.001, [-0.002, -0.0005], 0.53), "INT8 costs 0.10 mIoU and saves 47 % of the time"),
        ((-0.001, [-0.002, 0.0005], 1.2), "which the choice of frames may explain) and takes 20 %"),
        ((0.004, [0.001, 0.006], 1.01), "INT8 gains 0.40 mIoU and takes the same time"),
    )
    for given, says in cases:
        text = verdict({"engines": [first, engine("int8", *given)], "data": data})
        assert text.startswith("Against FP32, INT8 ")
        assert says in text
        assert text.endswith("while Pole loses 1.90 points.")
