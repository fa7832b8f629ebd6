"""The page in a real browser: what a viewer does acts on the pixels that he sees."""

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest
from live_page import CAR, ENGINES, ROAD, Feed, Scenes, chromium

from edgeseg.spec import CAMVID_11
from edgeseg.video.page import PageSink, new_token

TOKEN = new_token()


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def feed(scenes: Scenes) -> Iterator[Feed]:
    with (
        PageSink(CAMVID_11, port=0, token=TOKEN, engines=ENGINES) as page,
        Feed(page, scenes) as running,
    ):
        yield running


@pytest.fixture
def view(browser: Any, feed: Feed) -> Iterator[Any]:
    """The page of a viewer, with frames; it must print no error."""
    feed.hold = False
    with opened(browser, feed.page.url) as page:
        yield page


@contextmanager
def opened(
    browser: Any, url: str, width: int = 1280, scheme: str = "light", *, refused: bool = False
) -> Iterator[Any]:
    """Open the page; with ``refused``, the browser may complain that the server is away."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(30_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(url)
    page.locator(".card").first.wait_for(state="hidden")
    yield page
    context.close()
    if refused:
        errors = [text for text in errors if "ERR_CONNECTION" not in text]
    assert errors == []


def pixels(page: Any) -> np.ndarray:
    """Return what the viewer sees, (H, W, 3) RGB."""
    address = page.locator(".view:visible").first.evaluate("(canvas) => canvas.toDataURL()")
    encoded = base64.b64decode(address.partition(",")[2])
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture[..., ::-1])


def until(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


def standing(feed: Feed, page: Any, scenes: Scenes) -> tuple[np.ndarray, np.ndarray]:
    """Hold the feed; return the picture of the camera (RGB) and the labels that are shown now."""
    feed.hold = True
    time.sleep(0.3)  # the feed may be in the middle of a result
    sample = scenes.samples[feed.index % len(scenes.samples)]
    camera = np.asarray(sample.image[..., ::-1])

    page.keyboard.press("5")  # the camera alone
    assert until(lambda: np.abs(pixels(page).astype(int) - camera).mean() < 6)
    page.keyboard.press("1")
    return camera, sample.mask


def middle_of(mask: np.ndarray, label: int) -> tuple[int, int]:
    """Return (x, y) of the pixel of a class that is farthest from the others."""
    inside = np.pad((mask == label).astype(np.uint8), 1)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    assert distance.max() >= 4
    return int(x), int(y)


def test_frames_advance(view: Any) -> None:
    def index() -> int:
        return int(view.locator(".view").get_attribute("aria-label").split(",")[1].split()[1])

    first = index()
    assert until(lambda: index() >= first + 5)
    assert until(lambda: view.locator("#fps").inner_text().endswith(".0") is False)
    assert view.locator("#age").inner_text().endswith(" ms")
    assert view.locator("#network").inner_text() == "12.5 ms"
    assert view.locator("#heat").inner_text() == "61 °C"
    assert "token" not in view.url


def test_opacity_and_modes_act(view: Any, feed: Feed, scenes: Scenes) -> None:
    camera, labels = standing(feed, view, scenes)
    x, y = middle_of(labels, ROAD)
    road = np.asarray(CAMVID_11.palette[ROAD])

    for opacity in (0.0, 0.5, 1.0):
        view.locator("#opacity").fill(str(round(opacity * 100)))
        expected = camera[y, x] * (1 - opacity) + road * opacity
        assert until(lambda e=expected: np.abs(pixels(view)[y, x] - e).max() < 24)  # type: ignore[misc]

    view.locator("#opacity").fill("0")
    view.keyboard.press("2")  # the mask does not look at the opacity
    assert until(lambda: np.abs(pixels(view)[y, x] - road).max() <= 2)
    view.keyboard.press("3")  # edges: the middle of the road is the camera's
    assert until(lambda: np.abs(pixels(view)[y, x] - camera[y, x].astype(int)).max() < 24)
    assert np.abs(pixels(view).astype(int) - camera).mean() > 1
    view.keyboard.press("4")
    assert until(lambda: pixels(view).shape[1] == 2 * camera.shape[1])


def test_classes_are_switched_in_the_legend(view: Any, feed: Feed, scenes: Scenes) -> None:
    _, labels = standing(feed, view, scenes)
    present = {CAMVID_11.names[i] for i in np.unique(labels) if (labels == i).mean() > 0.001}
    shown = view.locator("#legend li:visible span").all_inner_texts()
    assert present <= set(shown)
    share = (labels == ROAD).mean()
    text = view.locator('#legend [data-name="Road"] b').inner_text()
    assert abs(float(text.split()[0]) / 100 - share) < 0.006

    x, y = middle_of(labels, ROAD)
    view.keyboard.press("2")
    road = view.locator('#legend [data-name="Road"]')
    road.click()
    assert road.get_attribute("aria-pressed") == "false"
    ground = np.asarray([0x14, 0x18, 0x1B])
    assert until(lambda: np.abs(pixels(view)[y, x] - ground).max() <= 2)
    view.locator("#none").click()
    assert until(lambda: np.abs(pixels(view).astype(int) - ground).max() <= 2)
    view.locator("#all").click()
    palette = np.asarray(CAMVID_11.palette)
    assert until(lambda: np.array_equal(pixels(view), palette[labels]))


def test_hover_reads_the_class_and_its_share(view: Any, feed: Feed, scenes: Scenes) -> None:
    _, labels = standing(feed, view, scenes)
    box = view.locator(".view").bounding_box()
    height, width = labels.shape
    scale = min(box["width"] / width, box["height"] / height)
    left = box["x"] + (box["width"] - width * scale) / 2
    top = box["y"] + (box["height"] - height * scale) / 2
    for label in (ROAD, CAR, 0):
        x, y = middle_of(labels, label)
        view.mouse.move(left + (x + 0.5) * scale, top + (y + 0.5) * scale)
        text = view.locator("#tip").inner_text()
        assert text.startswith(CAMVID_11.names[label] + ", ")
        shown = float(text.split(", ")[1].split()[0]) / 100
        assert abs(shown - (labels == label).mean()) < 0.006
    view.mouse.move(5, 5)
    assert view.locator("#tip").is_hidden()


def test_engines_are_switched_and_compared(view: Any, feed: Feed, scenes: Scenes) -> None:
    _, labels = standing(feed, view, scenes)
    x, y = middle_of(labels, CAR)
    width = labels.shape[1]
    view.keyboard.press("2")
    car, road = (np.asarray(CAMVID_11.palette[i]) for i in (CAR, ROAD))

    def is_seen(colour: np.ndarray) -> bool:
        return bool(np.abs(pixels(view)[y, x] - colour).max() <= 2)

    assert until(lambda: is_seen(car))
    view.locator("#engine-a").select_option(ENGINES[1])  # it takes cars for road
    assert until(lambda: is_seen(road))
    assert feed.page.wanted_engines == {ENGINES[1]}
    view.locator("#engine-a").select_option(ENGINES[0])
    assert until(lambda: is_seen(car) and not feed.page.wanted_engines)

    # Both, with a divider: dragged to the right of the car, then to its left; then by keys.
    view.locator("#compare").check()
    slider = view.get_by_role("slider", name="Divider")
    assert until(lambda: "differ on" in view.locator("#difference").inner_text())
    box = view.locator(".view").bounding_box()
    scale = min(box["width"] / width, box["height"] / labels.shape[0])
    left = box["x"] + (box["width"] - width * scale) / 2
    for target, colour in ((min(width - 1, x + 12), car), (max(0, x - 12), road)):
        knob = slider.bounding_box()
        middle = (knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2)
        view.mouse.move(*middle)
        view.mouse.down()
        view.mouse.move(left + target * scale, middle[1], steps=3)
        view.mouse.up()
        assert until(lambda c=colour: is_seen(c))  # type: ignore[misc]
    slider.press("End")
    assert until(lambda: is_seen(car))
    slider.press("Home")
    assert until(lambda: is_seen(road))
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuenow") == "2"


def test_a_snapshot_has_picture_and_mask(view: Any, feed: Feed, scenes: Scenes) -> None:
    _, labels = standing(feed, view, scenes)
    with view.expect_download() as download:
        view.locator("#snapshot").click()
    name = download.value.suggested_filename
    assert name == f"camera0-{feed.index:06d}.png"
    sheet = cv2.imread(str(download.value.path()), cv2.IMREAD_COLOR)
    assert sheet is not None
    height, width = labels.shape
    assert sheet.shape[1] == 2 * width
    mask = sheet[:height, width:, ::-1]
    assert np.array_equal(mask, np.asarray(CAMVID_11.palette)[labels])


def test_keys_help_and_theme(view: Any) -> None:
    view.keyboard.press("?")
    assert view.locator("#help").is_visible()
    view.keyboard.press("Escape")
    assert view.locator("#help").is_hidden()

    def ground() -> str:
        return str(view.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = ground()
    view.keyboard.press("t")
    assert ground() != light
    view.locator("#modes [aria-checked=true]").focus()
    view.keyboard.press("ArrowRight")
    assert view.locator("#modes [aria-checked=true]").inner_text() == "Mask"
    unnamed = view.locator("button:visible").evaluate_all(
        "(all) => all.filter((one) => !one.textContent.trim() && !one.ariaLabel).length"
    )
    assert unnamed == 0


def test_pause_holds_the_picture(view: Any) -> None:
    view.keyboard.press("p")
    time.sleep(0.2)
    first = pixels(view)
    time.sleep(0.4)
    assert np.array_equal(pixels(view), first)
    view.keyboard.press("p")
    assert until(lambda: not np.array_equal(pixels(view), first))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(browser: Any, feed: Feed, scheme: str) -> None:
    feed.hold = False
    with opened(browser, feed.page.url, width=360, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        for name in ("#modes", "#opacity", "#legend", "#snapshot", "#curves"):
            box = page.locator(name).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
        page.locator("#compare").check()
        assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_nothing_moves_when_frames_come(view: Any) -> None:
    moved = view.evaluate(
        """() => new Promise((done) => {
          let sum = 0;
          new PerformanceObserver((list) => {
            for (const entry of list.getEntries()) sum += entry.value;
          }).observe({ type: "layout-shift", buffered: true });
          setTimeout(() => done(sum), 700);
        })"""
    )
    assert moved < 0.02


def test_the_page_asks_nobody_else(browser: Any, feed: Feed) -> None:
    feed.hold = False
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(feed.page.url)
    page.locator(".card").first.wait_for(state="hidden")
    context.close()
    assert len(asked) >= 8
    assert all(url.startswith(f"http://127.0.0.1:{feed.page.port}/") for url in asked)


def test_a_lost_source_tiles_and_a_restart(browser: Any, scenes: Scenes) -> None:
    page = PageSink(CAMVID_11, port=0, sources=["front", "rear"])
    with Feed(page, scenes, sources=2) as feed, opened(browser, page.url, refused=True) as view:
        assert view.locator(".tile:visible").count() == 2
        view.locator("#sources").get_by_text("rear").click()
        assert view.locator(".tile:visible b").all_inner_texts() == ["rear"]

        feed.lost_s = 12.2
        card = view.locator(".tile:visible .card")
        assert until(lambda: "No signal, 12 s" in card.inner_text())
        feed.lost_s = None
        assert until(card.is_hidden)

        # The server goes and comes back: the page connects again by itself.
        page.finish()
        state = view.locator("#state")
        view.locator('#state[data-state="lost"]').wait_for()
        page = feed.page = PageSink(CAMVID_11, port=page.port, sources=["front", "rear"])
        view.locator('#state[data-state="live"]').wait_for()
        view.locator(".tile:visible .card").wait_for(state="hidden")
        assert state.inner_text() == "Live"
        assert view.locator(".tile:visible b").all_inner_texts() == ["rear"]
    page.finish()
