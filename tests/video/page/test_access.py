"""Who may see the page: rules alone, and every route of a real server."""

import http.client
import json
import socket
from collections.abc import Iterator
from importlib.resources import files

import pytest
import websockets
from live_page import Scenes
from websockets.sync.client import connect

from edgeseg.errors import InputError
from edgeseg.spec import CAMVID_11
from edgeseg.video.page import PageSink
from edgeseg.video.page.access import Access, Request, is_loopback, new_token, require_token
from edgeseg.video.page.routes import _STATIC

TOKEN = new_token()
ROUTES = (*_STATIC, "/metrics", "/healthz", "/snapshot.jpg", "/stream.mjpg", "/nothing")
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def closed() -> Iterator[PageSink]:
    """A page that needs a token."""
    with PageSink(CAMVID_11, port=0, token=TOKEN) as page:
        page.write(Scenes(1).output(0))
        yield page


@pytest.fixture(scope="module")
def open_page() -> Iterator[PageSink]:
    """A page on loopback without a token."""
    with PageSink(CAMVID_11, port=0) as page:
        page.write(Scenes(1).output(0))
        yield page


def get(page: PageSink, path: str, **headers: str) -> Answer:
    """Return status, headers and the start of the body."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, answer.read(200)
    finally:
        connection.close()


def websocket_status(page: PageSink, path: str = "/ws", **headers: str) -> int:
    """Return the status of the answer to a request to open a WebSocket: 101 if it is granted."""
    try:
        with connect(
            f"ws://127.0.0.1:{page.port}{path}", additional_headers=headers, proxy=None
        ) as socket:
            assert json.loads(socket.recv(timeout=5))["type"] == "hello"
            return 101
    except websockets.exceptions.InvalidStatus as refused:
        return int(refused.response.status_code)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("robot.local", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_other_hosts_need_a_token() -> None:
    with pytest.raises(InputError, match="no token"):
        PageSink(CAMVID_11, host="0.0.0.0", port=0)
    require_token("0.0.0.0", TOKEN)


@pytest.mark.parametrize("token", ["", "short", "with space in it", 'quote"quote"', "äöüäöüäöü"])
def test_tokens_that_a_link_cannot_hold(token: str) -> None:
    with pytest.raises(InputError, match="letters, digits"):
        require_token("127.0.0.1", token)


@pytest.mark.parametrize("path", ROUTES)
def test_a_wrong_token_gets_401_on_every_route(closed: PageSink, path: str) -> None:
    wrong = TOKEN[:-1] + ("a" if TOKEN[-1] != "a" else "b")
    cookie = Access("127.0.0.1", closed.port, TOKEN).cookie
    assert get(closed, path)[0] == 401
    assert get(closed, f"{path}?token={wrong}")[0] == 401
    assert get(closed, f"{path}?token=")[0] == 401
    assert get(closed, path, Authorization=f"Bearer {wrong}")[0] == 401
    assert get(closed, path, Cookie=f"{cookie}={wrong}")[0] == 401
    # An old link does not pass because an older one left its cookie.
    assert get(closed, f"{path}?token={wrong}", Cookie=f"{cookie}={TOKEN}")[0] == 401


@pytest.mark.parametrize("path", ROUTES)
def test_the_token_opens_every_route(closed: PageSink, path: str) -> None:
    expected = 404 if path == "/nothing" else 200
    status, headers, _ = get(closed, f"{path}?token={TOKEN}")
    assert status == expected
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=Strict" in headers["set-cookie"]

    cookie = headers["set-cookie"].partition(";")[0]
    assert get(closed, path, Cookie=cookie)[0] == expected
    status, headers, _ = get(closed, path, Authorization=f"Bearer {TOKEN}")
    assert status == expected
    assert "set-cookie" not in headers


def test_the_websocket_needs_the_token(closed: PageSink) -> None:
    assert websocket_status(closed) == 401
    assert websocket_status(closed, "/ws?token=wrong-wrong") == 401
    assert websocket_status(closed, f"/ws?token={TOKEN}") == 101
    assert websocket_status(closed, Authorization=f"Bearer {TOKEN}") == 101


def test_the_link_has_the_token(closed: PageSink) -> None:
    assert closed.url == f"http://127.0.0.1:{closed.port}/?token={TOKEN}"


@pytest.mark.parametrize("path", ROUTES)
def test_a_strangers_name_for_this_machine_is_refused(open_page: PageSink, path: str) -> None:
    """DNS rebinding: a page of evil.example asks its own name, which points here."""
    assert get(open_page, path, Host=f"evil.example:{open_page.port}")[0] == 421
    assert get(open_page, path, Host="localhost.evil.example")[0] == 421
    expected = 404 if path == "/nothing" else 200
    for name in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST"):
        assert get(open_page, path, Host=f"{name}:{open_page.port}")[0] == expected


def test_a_websocket_of_another_site_is_refused(open_page: PageSink) -> None:
    own = f"127.0.0.1:{open_page.port}"
    assert websocket_status(open_page, Origin=f"http://{own}") == 101
    assert websocket_status(open_page) == 101  # a program, not a page
    assert websocket_status(open_page, Origin="http://evil.example") == 403
    assert websocket_status(open_page, Origin="null") == 403
    assert websocket_status(open_page, Origin=f"http://127.0.0.1:{open_page.port + 1}") == 403


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/static/page.js",
        "/%2e%2e/sink.py",
        "/page.js/../sink.py",
        "//etc/passwd",
        "/page.js%00",
        "/index.html",
        "/.env",
        "/sink.py",
    ],
)
def test_no_path_reaches_a_file(open_page: PageSink, path: str) -> None:
    status, _, body = get(open_page, path)
    assert status == 404
    assert b"import" not in body


@pytest.mark.parametrize("path", ROUTES)
def test_answers_have_the_headers_that_protect_them(closed: PageSink, path: str) -> None:
    for asked in (path, f"{path}?token={TOKEN}"):
        _, headers, _ = get(closed, asked)
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers


def test_only_reading_is_allowed(open_page: PageSink) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", open_page.port, timeout=5)
    connection.request("POST", "/metrics", body=b"x")
    assert connection.getresponse().status == 405
    connection.close()


def test_garbage_neither_ends_the_server_nor_prints(
    open_page: PageSink, capfd: pytest.CaptureFixture[str]
) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 4096):
        with socket.create_connection(("127.0.0.1", open_page.port), 5) as raw:
            raw.sendall(garbage)
            raw.settimeout(5)
            raw.recv(4096)
    with connect(f"ws://127.0.0.1:{open_page.port}/ws", proxy=None) as said:
        for message in ("no json", "[]", '{"sources": 3}', '{"ack": []}', "[" * 5000, b"\xff"):
            said.send(message)
        said.send(json.dumps({"ping": 1}))
        said.recv(timeout=5)
        assert json.loads(said.recv(timeout=5)) == {"type": "pong", "ping": 1}
    assert get(open_page, "/")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_rules_without_a_server() -> None:
    access = Access("192.168.1.4", 8000, TOKEN)
    named = Request({"host": "robot.local:8000"}, {"token": TOKEN}, {})
    assert access.refusal(named) is None
    assert access.token_in_link(named) == TOKEN
    refusal = access.refusal(Request({"host": "robot.local:8000"}, {"token": "é\udcff"[:1]}, {}))
    assert refusal is not None
    assert refusal.status == 401


def test_every_file_of_the_page_has_a_route() -> None:
    folder = files("edgeseg.video.page") / "static"
    assert {path.name for path in folder.iterdir()} == {name for name, _ in _STATIC.values()}
