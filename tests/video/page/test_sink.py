"""The sink and its server, without a browser: what it sends, how it ends, what it costs."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import ExitStack

import cv2
import numpy as np
import pytest
from live_page import (
    ENGINES,
    ROAD,
    Feed,
    Scenes,
    get,
    metric,
    received,
    second_opinion,
    until,
    watch,
)
from reporting import Heard

from edgeseg.errors import InputError, MissingDependencyError, OutputError
from edgeseg.spec import CAMVID_11
from edgeseg.video.page import PageSink, new_token
from edgeseg.video.page.protocol import plane_of, unpack


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes()


@pytest.fixture
def page() -> Iterator[PageSink]:
    with PageSink(CAMVID_11, port=0, engines=ENGINES) as sink:
        yield sink


def test_a_message_holds_frame_and_labels(page: PageSink, scenes: Scenes) -> None:
    page.write(scenes.output(4))
    with watch(page, ENGINES[0]) as viewer:
        header, (picture, plane) = unpack(received(viewer))
    sample = scenes.samples[4]
    assert header["source"] == "camera0"
    assert header["index"] == 4
    assert header["network_ms"] == 12.5
    assert 0 <= header["age_ms"] < 5000
    assert header["lost_s"] is None
    assert [facts["engine"] for facts in header["planes"]] == [ENGINES[0]]

    labels = np.frombuffer(zlib.decompress(plane), np.uint8).reshape(sample.mask.shape)
    assert np.array_equal(labels, sample.mask)
    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert np.abs(decoded.astype(int) - sample.image).mean() < 6


@pytest.mark.parametrize(("size", "step"), [((720, 1280), 2), ((1080, 1920), 3), ((361, 481), 1)])
def test_large_label_maps_are_reduced(size: tuple[int, int], step: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 11, size, np.uint8)
    plane, found = plane_of(labels)
    assert found == step
    assert max(plane.shape) <= 720
    assert plane[5, 7] == labels[5 * step + step // 2, 7 * step + step // 2]


def test_further_engines_run_only_while_somebody_looks(page: PageSink, scenes: Scenes) -> None:
    assert page.wanted_engines == frozenset()
    with watch(page, *ENGINES) as viewer:
        assert until(lambda: page.wanted_engines == {ENGINES[1]})
        page.write(scenes.output(0, engines=page.wanted_engines))
        header, parts = unpack(received(viewer))
        assert [facts["engine"] for facts in header["planes"]] == list(ENGINES)
        other = np.frombuffer(zlib.decompress(parts[2]), np.uint8)
        assert np.array_equal(other, second_opinion(scenes.samples[0].mask).ravel())

        viewer.send(json.dumps({"sources": [], "engines": list(ENGINES)}))  # a hidden page
        assert until(lambda: page.wanted_engines == frozenset())
        viewer.send(json.dumps({"sources": ["camera0"], "engines": list(ENGINES)}))
        assert until(lambda: page.wanted_engines == {ENGINES[1]})
    assert until(lambda: page.wanted_engines == frozenset())


def test_no_viewer_no_encoding_and_one_encoding_for_all(page: PageSink, scenes: Scenes) -> None:
    for index in range(20):
        page.write(scenes.output(index))
    assert metric(page, "page_encoded_total") == 0

    with ExitStack() as stack:
        viewers = [stack.enter_context(watch(page, ENGINES[0])) for _ in range(5)]
        for index in range(10):
            page.write(scenes.output(index))
            for viewer in viewers:
                while unpack(received(viewer))[0]["index"] != index:
                    viewer.send('{"ack": "camera0"}')
                viewer.send('{"ack": "camera0"}')
        assert metric(page, "page_viewers") == 5
        # One each, and at most one for the frame that was there when they came.
        assert 10 <= metric(page, "page_encoded_total") <= 11
        assert metric(page, "page_drawn_total") == 0


def test_a_viewer_who_does_not_acknowledge_gets_two_frames(page: PageSink, scenes: Scenes) -> None:
    with Feed(page, scenes) as feed, watch(page, ENGINES[0]) as viewer:
        first = [unpack(received(viewer))[0] for _ in range(2)]
        with pytest.raises(TimeoutError):
            viewer.recv(timeout=0.4)
        viewer.send('{"ack": "camera0"}')
        newest = unpack(received(viewer))[0]
        assert newest["index"] >= first[1]["index"] + 3  # it skipped those in between
        assert newest["index"] >= feed.index - 2


def test_plain_pictures(page: PageSink, scenes: Scenes) -> None:
    with pytest.raises(urllib.error.HTTPError, match="503"):
        get(page, "/snapshot.jpg")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(page, "/snapshot.jpg?source=nobody")

    with Feed(page, scenes):
        until(lambda: b"frames_total" in get(page, "/metrics"))
        picture = cv2.imdecode(
            np.frombuffer(get(page, "/snapshot.jpg?source=camera0"), np.uint8), cv2.IMREAD_COLOR
        )
        assert picture is not None
        assert picture.shape == scenes.samples[0].image.shape
        drawn = metric(page, "page_drawn_total")

        with urllib.request.urlopen(f"{page.url}stream.mjpg", timeout=5) as stream:
            text = stream.read(60_000)
        assert text.count(b"--edgeseg-frame\r\nContent-Type: image/jpeg") >= 3
        assert until(lambda: metric(page, "page_viewers") == 0)
        during = metric(page, "page_drawn_total")
        assert during > drawn
        time.sleep(0.3)
        assert metric(page, "page_drawn_total") == during  # nobody reads: nothing is drawn


def test_metrics_and_health(scenes: Scenes) -> None:
    with PageSink(CAMVID_11, port=0, sources=["front", 'the "rear"']) as page:
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            get(page, "/healthz")
        assert b"front: no frame yet" in refused.value.read()
        refused.value.close()

        for index in range(3):
            for source in range(2):
                page.write(scenes.output(index, source=source))
        assert get(page, "/healthz") == b"ok\n"
        text = get(page, "/metrics").decode()
        assert 'edgeseg_frames_total{source="front"} 3' in text
        assert 'edgeseg_dropped_frames_total{source="front"} 3' in text
        assert 'edgeseg_network_seconds{source="the \\"rear\\""} 0.0125' in text
        assert 'edgeseg_temperature_celsius{source="front"} 61' in text
        assert "power_watts" not in text  # not known
        share = float(re.findall(r'share_ratio{source="front",class="Road"} (\S+)', text)[0])
        assert share == pytest.approx((scenes.samples[2].mask == ROAD).mean())
        # The format: a line of help and one of type before the samples, numbers behind them.
        for line in text.splitlines():
            assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|edgeseg_\w+({.*})? -?[\d.e+-]+", line), line

        page.write(scenes.output(3, lost_s=12.4))
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            get(page, "/healthz")
        assert refused.value.read() == b"front: no signal for 12 s\n"
        refused.value.close()
        assert 'source_up{source="front"} 0' in get(page, "/metrics").decode()


def test_the_port_is_in_use(page: PageSink) -> None:
    with pytest.raises(OutputError, match=rf"port {page.port} on 127.0.0.1 is in use") as refused:
        PageSink(CAMVID_11, port=page.port)
    found = re.search(r"Port (\d+) is free", str(refused.value))
    assert found
    with PageSink(CAMVID_11, port=int(found[1])) as other:
        assert other.port == int(found[1])


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="0 to 65535"):
        PageSink(CAMVID_11, port=70000)
    with pytest.raises(InputError, match="address of this machine"):
        PageSink(CAMVID_11, host="203.0.113.9", port=0, token=new_token())
    with pytest.raises(InputError, match="each with a name of its own"):
        PageSink(CAMVID_11, port=0, sources=["a", "a"])
    with pytest.raises(InputError, match="one engine or more"):
        PageSink(CAMVID_11, port=0, engines=[])


def test_other_machines_get_a_link_that_works() -> None:
    token, heard = new_token(), Heard()
    with PageSink(CAMVID_11, host="0.0.0.0", port=0, token=token, reporter=heard) as page:
        assert heard.lines == [f"live page: {page.url}, for everybody who has this link"]
        assert "0.0.0.0" not in page.url
        with urllib.request.urlopen(page.url, timeout=5) as answer:
            assert answer.status == 200


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeseg.video.page.sink.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=re.escape("pip install 'edgeseg[web]'")):
        PageSink(CAMVID_11, port=0)


def test_the_import_needs_no_extra() -> None:
    code = (
        "import sys, edgeseg.video.page; "
        "sys.exit(bool({'starlette', 'uvicorn', 'websockets'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
