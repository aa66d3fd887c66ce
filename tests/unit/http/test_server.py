"""A port against slow, huge, broken and numerous clients, and against request smuggling, in raw bytes."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import select, socket, ssl
from gevent.event import Event

from esl_apps.http import connection
from esl_apps.http.connection import Bounds
from esl_apps.http.server import serve
from esl_apps.net import tls
from esl_apps.net.listening import listen
from tests.support import TLS
from tests.support.peer import eventually

#: Short deadlines for clients. The tests themselves wait up to 10 s.
SOON: dict[str, Any] = {
    "head": 0.6,
    "body": 0.6,
    "idle": 0.6,
    "handshake": 0.6,
    "linger": 0.6,
    "write": 0.6,
    "look": 0.05,
}
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
BIG = 8 * 1024 * 1024


class Application:
    """Answer in JSON with the request and the number of requests so far.

    ``/slow`` waits for ``go``, ``/big`` is 8 MB, ``/known`` is 304, ``/short`` has less than its length, ``/split``
    puts a line break into a header, and ``/fault``, ``/write`` and ``/oserror`` fail.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.slow = 0
        self.go = Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked += 1
        path = environ["PATH_INFO"]
        if path == "/fault":
            raise RuntimeError("a secret of the stack")
        if environ["REQUEST_METHOD"] == "HEAD":
            start_response("200 OK", [("content-length", "5")])
            return []
        if path == "/known":
            start_response("304 Not Modified", [])
            return []
        if path == "/split":
            start_response("200 OK", [("x-a", "b\r\nx-c: d")])
            return [b""]
        if path == "/write":
            start_response("200 OK", [])(b"x")
        if path == "/log":
            environ["wsgi.errors"].writelines(["told to ", "the log\n", "\n"])
            environ["wsgi.errors"].flush()
        if path == "/slow":
            self.slow += 1
            self.go.wait(20)
        if path == "/big":
            start_response("200 OK", [("content-length", str(BIG))])
            return iter([b"x" * 65536] * (BIG // 65536))
        if path in ("/short", "/oserror"):
            start_response("200 OK", [("content-length", "100")])
            return iter([b"x" * 10]) if path == "/short" else breaking()
        body = environ["wsgi.input"].read()
        shown = {name: value for name, value in environ.items() if isinstance(value, str)}
        data = json.dumps({"asked": self.asked, "environ": shown, "body": body.decode("latin-1")}).encode()
        start_response("200 OK", [("content-type", "application/json")])
        return [data]


def breaking() -> Iterator[bytes]:
    raise OSError("a secret of the disk")
    yield b""


class Port:
    """A port and its application, in this process."""

    def __init__(self, certificate: str | None = None, **bounds: Any) -> None:
        """:param certificate: its name among ``TLS``; None for a port without TLS."""
        self.application = Application()
        self.refused: list[int] = []
        context = None
        if certificate is not None:
            files = [str(TLS / f"{certificate}.{kind}") for kind in ("pem", "key")]
            context = tls.context(files[0], files[1], ssl.SSLContext)
        self.server = serve(
            ("127.0.0.1", 0), self.application, bounds=Bounds(**bounds), tls=context, on_refused=self.refused.append
        )
        self.number = self.server.address[1]

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.number), 10, (source, 0))

    def say(self, data: bytes) -> bytes:
        """Send data, close our direction, and return everything that comes back."""
        with self.connect() as sock, contextlib.suppress(ConnectionError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return rest(sock)
        return b""

    def wait_for_slow(self, count: int = 1) -> None:
        """Wait until the application has received this many ``/slow``."""
        eventually(lambda: self.application.slow == count)

    def close(self) -> None:
        self.server.stop(1)


def rest(sock: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError):
        while chunk := sock.recv(65536):
            found += chunk
    return found


def one(sock: socket.socket) -> bytes:
    """Receive one answer that has a length."""
    found = b""
    while b"\r\n\r\n" not in found:
        chunk = sock.recv(65536)
        assert chunk, found
        found += chunk
    head, _, begun = found.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
    while len(begun) < length:
        begun += sock.recv(65536)
    return head + b"\r\n\r\n" + begun


def body(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@contextlib.contextmanager
def a_port(certificate: str | None = None, **bounds: Any) -> Iterator[Port]:
    made = Port(certificate, **bounds)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def port() -> Iterator[Port]:
    with a_port(**SOON) as made:
        yield made


# Reading --------------------------------------------------------------------------------------------------


def test_request_reaches_the_application_as_sent(port: Port) -> None:
    answer = port.say(b"POST /a%20b?c=%20d HTTP/1.1\r\nHost: x\r\nX-A:  1 \r\nX-A: 2\r\nContent-Length: 3\r\n\r\nabc")
    asked = body(answer)
    environ = asked["environ"]
    assert (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]) == ("POST", "/a b", "c=%20d")
    assert (environ["HTTP_X_A"], environ["CONTENT_LENGTH"], asked["body"]) == ("1,2", "3", "abc")
    assert environ["REMOTE_ADDR"] == "127.0.0.1"


def test_requests_in_one_segment_are_all_answered(port: Port) -> None:
    first = b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    first += b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
    answers = port.say(first + b"\r\n" + GET.replace(b"/", b"/2", 1) + GET.replace(b"/", b"/3", 1))
    paths = re.findall(rb'"PATH_INFO": "(/\d)"', answers)
    assert paths == [b"/1", b"/2", b"/3"]
    assert b'"body": "abcde"' in answers


def test_request_expecting_100_continue_gets_it(port: Port) -> None:
    with port.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert body(one(sock))["body"] == "abc"


def test_connection_of_http_1_0_or_close_ends(port: Port) -> None:
    for head in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Close, x\r\n\r\n"):
        with port.connect() as sock:
            sock.sendall(head)
            answer = rest(sock)
        assert status(answer) == 200
        assert b"\r\nconnection: close\r\n" in answer
    with port.connect() as sock:
        for _ in range(2):
            sock.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"\r\nconnection: keep-alive\r\n" in one(sock)


def test_answer_says_how_long_an_idle_connection_is_kept() -> None:
    with a_port() as port, port.connect() as sock:
        for head in (GET, GET.replace(b"/", b"/fault", 1)):
            sock.sendall(head)
            answer = one(sock)
            hinted = b"\r\nconnection: keep-alive\r\nkeep-alive: timeout=29\r\n" in answer
            assert hinted is (status(answer) == 200)
            assert hinted is not (b"\r\nconnection: close\r\n" in answer)


def test_answer_without_a_body_keeps_the_connection(port: Port) -> None:
    with port.connect() as sock:
        sock.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + GET.replace(b"/", b"/known", 1) + GET)
        sock.shutdown(socket.SHUT_WR)
        answers = rest(sock)
    assert statuses(answers) == [200, 304, 200]
    assert b"content-length" not in answers.split(b"HTTP/1.1 ")[2]


#: Part of a body for one reader, a request of its own for another (request smuggling).
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def refused_files() -> list[Any]:
    """Return the bytes, the status and the code of each file in ``requests`` whose first request is refused."""
    found = []
    for file in sorted((Path(__file__).parent / "requests").glob("*.http")):
        first = (json.loads(file.with_suffix(".expected").read_text()) or [{}])[0]
        if "reason" in first:
            found.append(pytest.param(file.read_bytes(), first["status"], first["code"], id=file.stem))
    return found


@pytest.mark.parametrize(("data", "wanted", "code"), refused_files())
def test_refused_request_is_answered_once_and_not_served(port: Port, data: bytes, wanted: int, code: str) -> None:
    before = port.application.asked
    answer = port.say(data).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert status(answer) == wanted
    (error,) = body(answer)["errors"]
    assert error.keys() == {"field", "code", "message"}
    assert error["code"] == code
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not re.search(rb"(?i)server:|gevent|python|traceback", answer)
    assert port.application.asked == before


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\nHost: x\n\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", b"\x00" * 20])
def test_bytes_of_another_protocol_are_400_at_once(port: Port, data: bytes) -> None:
    with port.connect() as sock:
        sock.sendall(data)
        assert status(rest(sock)) == 400


def test_request_to_upgrade_is_answered_without_upgrading(port: Port) -> None:
    # pywsgi would give the application the bare socket, and a POST without a length would read the next request.
    with port.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        assert body(one(sock))["body"] == ""


def test_header_with_an_underscore_is_dropped(port: Port) -> None:
    answer = port.say(b"GET / HTTP/1.1\r\nHost: x\r\nX_Auth_Token: t\r\nContent_Length: 5\r\n\r\n")
    assert not {"HTTP_X_AUTH_TOKEN", "CONTENT_LENGTH"} & set(body(answer)["environ"])


def test_request_with_an_absolute_url_reaches_its_path(port: Port) -> None:
    assert body(port.say(b"GET http://h:1/p?q HTTP/1.1\r\nHost: h\r\n\r\n"))["environ"]["PATH_INFO"] == "/p"


# Sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"GET /" + b"a" * 8300 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /" + b"a" * 20_000_000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 20000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: aaaaaaaaaaaaaa\r\n" * 1_000_000, 431),
    ],
    ids=["line", "endless line", "header", "headers", "endless headers"],
)
def test_head_that_is_too_large_is_refused_early(port: Port, data: bytes, wanted: int) -> None:
    with port.connect() as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = sock.recv(1000)
    # The connection of a client that never reads may be reset before it sees the answer.
    assert not answer or status(answer) == wanted
    assert len(data) > 1_000_000 or answer


def test_request_line_of_the_maximum_length_is_read(port: Port) -> None:
    line = b"GET /" + b"a" * (8192 - 14) + b" HTTP/1.1"
    assert len(line) == 8192
    assert status(port.say(line + b"\r\nHost: x\r\n\r\n")) == 200


@pytest.mark.parametrize("declared", [65537, 99999999999])
def test_body_that_is_too_large_is_not_waited_for(port: Port, declared: int) -> None:
    with port.connect() as sock:
        sock.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {declared}\r\n\r\n".encode() + SMUGGLED)
        answer = rest(sock)
    assert b'"body": ""' in answer
    # The rest belongs to that body, whatever it looks like.
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in answer


def test_chunks_that_are_too_large_together_end_the_connection(port: Port) -> None:
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    with port.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 8)
        answer = rest(sock)
    assert body(answer)["environ"]["CONTENT_LENGTH"] == "65537"
    assert b"\r\nconnection: close\r\n" in answer


# Slow -----------------------------------------------------------------------------------------------------


def drip(sock: socket.socket, piece: bytes) -> float:
    """Send a piece every 50 ms until the port cuts us off. Return the seconds that it took."""
    began = time.monotonic()
    sock.settimeout(0.05)
    while time.monotonic() < began + 10:
        with contextlib.suppress(TimeoutError):
            sock.sendall(piece)
            if sock.recv(1000) is not None:
                break
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("begun", "piece"),
    [
        (b"GET / HTTP/1.1\r\nX: ", b"a"),
        (b"GET ", b"/"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n", b"a"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    ],
    ids=["header", "line", "body", "chunks", "trailers"],
)
def test_client_that_drips_is_cut_off(port: Port, begun: bytes, piece: bytes) -> None:
    with port.connect() as sock:
        sock.sendall(begun)
        with contextlib.suppress(ConnectionError):
            assert drip(sock, piece) < 8


def test_client_that_is_too_slow_gets_408(port: Port) -> None:
    for begun in (b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na"):
        with port.connect() as sock:
            sock.sendall(begun)
            answer = rest(sock)
        assert status(answer) == 408
        assert body(answer)["errors"][0]["code"] == "timeout"


def test_idle_connection_is_closed_without_an_answer(port: Port) -> None:
    with port.connect() as fresh, port.connect() as used:
        used.sendall(GET)
        assert status(one(used)) == 200
        assert rest(fresh) == rest(used) == b""


def test_client_that_does_not_read_is_cut_off(port: Port) -> None:
    # Those of earlier tests close first.
    eventually(lambda: port.server.connection_count == 0)
    with port.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.sendall(GET.replace(b"/", b"/big", 1))
        eventually(lambda: port.server.connection_count == 1)
        # The timeout of the write ends it; the client does nothing.
        eventually(lambda: port.server.connection_count == 0)


def test_application_that_is_slow_is_not_cut_off() -> None:
    with a_port(**SOON) as port, port.connect() as sock:
        sock.sendall(GET.replace(b"/", b"/slow", 1))
        port.wait_for_slow()
        # Longer than any deadline of a client.
        gevent.sleep(1)
        port.application.go.set()
        assert status(one(sock)) == 200


def test_large_answer_arrives_whole(port: Port) -> None:
    answer = port.say(GET.replace(b"/", b"/big", 1))
    assert len(answer.partition(b"\r\n\r\n")[2]) == BIG


# Faults ---------------------------------------------------------------------------------------------------


def test_answer_shorter_than_its_length_ends_the_connection(port: Port) -> None:
    # Otherwise the client would take the beginning of the next answer for the end of this one.
    with port.connect() as sock:
        sock.sendall(GET.replace(b"/", b"/short", 1) + GET)
        assert rest(sock).endswith(b"\r\n\r\n" + b"x" * 10)


@pytest.mark.parametrize("path", [b"/fault", b"/split", b"/write", b"/oserror"])
def test_failing_application_is_500_without_details(port: Port, path: bytes, caplog: pytest.LogCaptureFixture) -> None:
    answer = port.say(GET.replace(b"/", path, 1))
    assert status(answer) == 500
    assert body(answer) == {
        "errors": [{"field": "", "code": "internal", "message": "the request failed; its log says why"}]
    }
    assert not re.search(rb"(?i)server:|gevent|python|traceback|secret|x-c", answer)
    # Without what is said late of another test's connection.
    (record,) = [record for record in caplog.records if record.getMessage() == "http_request_failed"]
    assert record.exc_info is not None
    assert record.__dict__["path"] == path.decode()


def test_wsgi_errors_are_logged(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    assert status(port.say(GET.replace(b"/", b"/log", 1))) == 200
    assert [record.__dict__["reason"] for record in caplog.records] == ["told to", "the log"]


def test_refusals_are_all_counted_and_sparsely_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with a_port(**SOON) as port:
        for _ in range(40):
            port.say(b"\x00")
        assert port.refused == [400] * 40
    assert 0 < len(caplog.records) < 40


# Many -----------------------------------------------------------------------------------------------------


def test_address_past_its_connections_gets_429() -> None:
    with a_port(per_address=5) as port:
        held = [port.connect() for _ in range(5)]
        for sock in held:
            sock.sendall(GET)
            assert status(one(sock)) == 200
        with port.connect() as sixth:
            answer = rest(sixth)
        assert status(answer) == 429
        assert b"\r\nretry-after: 1\r\n" in answer
        with port.connect("127.0.0.2") as other:
            other.sendall(GET)
            assert status(one(other)) == 200
        held.pop().close()

        def again() -> bool:
            with port.connect() as sock:
                sock.sendall(GET)
                return sock.recv(12).endswith(b"200")

        eventually(again)
        for sock in held:
            sock.close()


def test_full_port_drops_the_longest_wait_of_the_top_address() -> None:
    with a_port(connections=10, per_address=8) as port:
        friend = port.connect("127.0.0.2")
        friend.sendall(GET)
        one(friend)
        hoard = [port.connect() for _ in range(8)]
        for sock in hoard:
            sock.sendall(b"GET / HTTP/1.1\r\nX: slow")
        more = [port.connect(f"127.0.0.{10 + n}") for n in range(4)]
        for sock in more:
            sock.sendall(GET)
            assert status(one(sock)) == 200
        friend.sendall(GET)
        assert status(one(friend)) == 200
        # Nine connections were open and ten may be. Three had to go, and none of the answered ones did.
        eventually(lambda: len(select.select(hoard, [], [], 0)[0]) == 3)
        for sock in [friend, *hoard, *more]:
            sock.close()


def test_port_full_of_busy_applications_answers_503() -> None:
    with a_port(connections=2) as port:
        busy = [port.connect() for _ in range(2)]
        for sock in busy:
            sock.sendall(GET.replace(b"/", b"/slow", 1))
        port.wait_for_slow(2)
        with port.connect() as third:
            answer = rest(third)
        assert status(answer) == 503
        assert b"\r\nretry-after: " in answer
        port.application.go.set()
        assert [status(one(sock)) for sock in busy] == [200, 200]
        for sock in busy:
            sock.close()


def test_slow_clients_do_not_delay_others() -> None:
    with a_port(connections=300, per_address=200) as port:
        slow = [port.connect() for _ in range(200)]
        for sock in slow:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        with port.connect("127.0.0.2") as sock:
            sock.sendall(GET)
            assert status(one(sock)) == 200
        for sock in slow:
            sock.close()
        eventually(lambda: port.server.connection_count == 0)


def test_serve_on_a_listening_socket_answers() -> None:
    """The workers of a node share one."""
    listener = listen(("127.0.0.1", 0), 10)
    server = serve(listener, Application())
    try:
        with socket.create_connection(listener.getsockname(), 10) as sock:
            sock.sendall(GET)
            assert status(one(sock)) == 200
    finally:
        server.stop(1)


# Rates ----------------------------------------------------------------------------------------------------


def statuses(answers: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+) ", answers)]


def test_requests_past_the_rate_are_429_and_end_it() -> None:
    with a_port(rate=0.001, burst=5000) as port:
        answers = port.say(GET * 50)
        assert statuses(answers) == [200] * 5 + [429]
        refused = answers[answers.rindex(b"HTTP/1.1 ") :]
        assert body(refused)["errors"] == [
            {"field": "", "code": "too_many", "message": "too many requests of this address"}
        ]
        assert re.search(rb"\r\nretry-after: (99\d|1000)\r\n", refused)
        assert b"\r\nconnection: close\r\n" in refused
        assert port.application.asked == 5
        assert port.refused == [429]


def test_request_past_the_rate_is_not_parsed() -> None:
    with a_port(rate=0.001, burst=2000) as port, port.connect() as sock:
        for _ in range(2):
            sock.sendall(GET)
            assert status(one(sock)) == 200
        # Bytes that are no request: the parser would answer 400.
        sock.sendall(b"\x00")
        assert status(rest(sock)) == 429


def test_connection_past_the_rate_of_requests_is_refused() -> None:
    with a_port(rate=0.001, burst=3000) as port:
        # A connection counts as a request, even if it sends none.
        for _ in range(2):
            with port.connect():
                pass
        assert [status(port.say(GET)) for _ in range(3)] == [200, 429, 429]
        with port.connect("127.0.0.2") as other:
            other.sendall(GET)
            assert status(one(other)) == 200


def test_rate_that_changes_is_for_open_connections_too() -> None:
    with a_port() as port, port.connect() as sock:
        for _ in range(20):
            sock.sendall(GET)
            assert status(one(sock)) == 200
        port.server.bounds = Bounds(rate=0.001, burst=1000)
        sock.sendall(GET * 2)
        assert statuses(rest(sock)) == [200, 429]


def test_tls_handshake_past_the_rate_is_refused() -> None:
    with a_port("one", rate=0.001, burst=2000) as port:
        for _ in range(2):
            trusting().wrap_socket(port.connect(), server_hostname="localhost").close()
        with pytest.raises(OSError), port.connect() as sock:
            trusting().wrap_socket(sock, server_hostname="localhost")


# Turns ----------------------------------------------------------------------------------------------------


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The turns that connections took; others are let in at each."""
    taken: list[Any] = []

    def take(peer: Any) -> None:
        taken.append(peer)
        gevent.sleep(0)

    monkeypatch.setattr(connection, "take_turn", take)
    return taken


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (GET * 300, 300),
        (CHUNKED + b"1\r\na\r\n" * 1000 + b"0\r\n\r\n", 1000),
        (GET.replace(b"/", b"/big", 1), BIG // 65536),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"a" * 60000, 60000 // 16384),
        (b"\x00" + b"a" * 200_000, 200_000 // 16384),
    ],
    ids=["requests", "chunks", "big answer", "body", "refused"],
)
def test_each_unit_of_work_takes_a_turn(port: Port, turns: list[Any], data: bytes, wanted: int) -> None:
    port.say(data)
    assert len(turns) >= wanted
    assert len(set(turns)) == 1


def test_each_step_of_a_tls_handshake_takes_a_turn(tls_port: Port, turns: list[Any]) -> None:
    with trusting().wrap_socket(tls_port.connect(), server_hostname="localhost") as sock:
        sock.sendall(GET)
        assert status(one(sock)) == 200
    # The client's two messages and its request.
    assert len(turns) >= 3


def test_flood_on_one_connection_lets_others_in(port: Port) -> None:
    count = 20_000
    before = port.application.asked
    with port.connect() as flood, port.connect("127.0.0.2") as other:
        sender = gevent.spawn(flood.sendall, GET * count)
        reader = gevent.spawn(rest, flood)
        eventually(lambda: port.application.asked > before)
        for _ in range(5):
            other.sendall(GET)
            assert status(one(other)) == 200
        # Without turns, the whole flood is answered first. With them, a pass of the loop has some 50 requests.
        assert port.application.asked - before < count / 2
        gevent.killall([sender, reader])


def test_slow_readers_give_way_on_a_full_port() -> None:
    with a_port(connections=10, per_address=8) as port:
        slow = [port.connect() for _ in range(8)]
        for sock in slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.sendall(GET.replace(b"/", b"/big", 1))
        eventually(lambda: port.application.asked == 8)
        # They wait to send the rest, on a busy machine a little later.
        eventually(lambda: sum(connection._writing for connection in port.server._open) == 8)
        honest = [port.connect(f"127.0.0.{10 + number}") for number in range(5)]
        for sock in honest:
            sock.sendall(GET)
            assert status(one(sock)) == 200
        # Sooner than the time for which a client may keep a part of an answer waiting.
        eventually(lambda: port.server.connection_count <= 10, within=15.0)
        for sock in [*slow, *honest]:
            sock.close()


# TLS ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_port() -> Iterator[Port]:
    with a_port("one", **SOON) as made:
        yield made


def trusting(name: str = "one") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(TLS / f"{name}.pem")
    return context


def test_tls_port_answers_over_tls(tls_port: Port) -> None:
    with trusting().wrap_socket(tls_port.connect(), server_hostname="localhost") as sock:
        for _ in range(2):
            sock.sendall(GET)
            answer = one(sock)
            assert body(answer)["environ"]["wsgi.url_scheme"] == "https"
        assert sock.version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_below_1_2_is_refused(tls_port: Port) -> None:
    context = trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError), tls_port.connect() as sock:
        context.wrap_socket(sock, server_hostname="localhost")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with context.wrap_socket(tls_port.connect(), server_hostname="localhost") as sock:
        assert sock.version() == "TLSv1.2"


def test_tls_handshake_that_stalls_is_cut_off(tls_port: Port) -> None:
    before = tls_port.server.connection_count
    stalled = [tls_port.connect() for _ in range(20)]
    for sock in stalled[:10]:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01")
    with trusting().wrap_socket(tls_port.connect(), server_hostname="localhost") as sock:
        sock.sendall(GET)
        assert status(one(sock)) == 200
    for sock in stalled:
        # Nothing, or the alert that OpenSSL sends.
        assert rest(sock)[:1] in (b"", b"\x15")
        sock.close()
    eventually(lambda: tls_port.server.connection_count <= before)


def test_tls_client_that_drips_is_cut_off(tls_port: Port) -> None:
    with trusting().wrap_socket(tls_port.connect(), server_hostname="localhost") as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert drip(sock, b"X") < 8


def test_tls_port_refuses_plain_http(tls_port: Port) -> None:
    with tls_port.connect() as sock:
        sock.sendall(GET)
        assert b"HTTP/1.1 200" not in rest(sock)
