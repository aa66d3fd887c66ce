"""Posts to receivers that behave badly: each is bounded in time, size and where it goes."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import ssl as gevent_ssl
from gevent.server import StreamServer
from hypothesis import given
from hypothesis import strategies as st

from esl_apps.net import post as module
from esl_apps.net.destination import Destination, read_url
from esl_apps.net.post import Answer, Failed, Poster, context
from esl_apps.net.resolver import Resolver
from esl_apps.net.stream import Stream
from tests.support import ROOT
from tests.support.receiver import OK, Receiver, answer, hang, reset

TLS = ROOT / "tests" / "support" / "tls"


class Names:
    """A resolver with the addresses that a test gives it, one list for each look-up."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def addresses(self, _host: str, _port: int, _timeout: float) -> list[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(*acts: Any, **more: Any) -> Receiver:
        made.append(Receiver(*acts, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def poster(to: Receiver, **more: Any) -> Poster:
    return Poster(
        read_url(to.url), more.pop("resolver", Resolver(1)), **{"allow_private": True, "patience": 5.0, **more}
    )


def failure(made: Poster) -> Failed:
    with pytest.raises(Failed) as failed:
        made.post([], b"{}")
    return failed.value


# Requests -------------------------------------------------------------------------------------------------


def test_post_carries_body_headers_and_path(receiver: Any) -> None:
    to = receiver()
    assert poster(to).post([("webhook-id", "cdr_1")], b'{"a":1}') == Answer(200, None)
    (post,) = to.posts
    assert (post.path, post.body, post.id) == ("/hook", b'{"a":1}', "cdr_1")
    assert post.headers["host"] == f"127.0.0.1:{to.port}"
    assert post.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "reply",
    [
        OK,
        answer(204),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_connection_is_used_again(receiver: Any, reply: bytes) -> None:
    to = receiver(*[reply] * 3)
    made = poster(to)
    assert [made.post([], b"{}").status // 100 for _ in range(3)] == [2, 2, 2]
    assert to.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n",
        # Another answer, to a request that was not sent yet.
        OK + b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_connection_is_not_used_again_but_the_status_counts(receiver: Any, reply: bytes) -> None:
    to = receiver(reply)
    made = poster(to)
    assert made.post([], b"{}").status == 200
    assert made.post([], b"{}").status == 200
    assert to.connections == 2


def test_connection_that_was_closed_meanwhile_is_made_again(receiver: Any) -> None:
    to = receiver()
    made = poster(to)
    made.post([], b"{}")
    made._sock._stream.shutdown(2)
    assert made.post([], b"{}").status == 200
    assert len(to.posts) == 2


def test_answer_to_no_request_is_not_taken(receiver: Any) -> None:
    """Proxies close idle connections with a 408."""
    to = receiver(lambda sock: (sock.sendall(OK), gevent.spawn_later(0.01, sock.sendall, answer(408))))
    made = poster(to)
    assert made.post([], b"{}").status == 200
    gevent.sleep(0.05)
    assert made.post([], b"{}").status == 200


def test_body_that_never_comes_does_not_take_the_status_back(receiver: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_BODY_PATIENCE", 0.05)
    to = receiver(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
    made = poster(to)
    assert made.post([], b"{}").status == 200
    assert made.post([], b"{}").status == 200


# Refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_an_answer_and_is_not_followed(receiver: Any, status: int) -> None:
    elsewhere = receiver()
    to = receiver(answer(status, f"location: {elsewhere.url}"))
    assert poster(to).post([], b"{}").status == status
    assert elsewhere.posts == []


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (reset, "broken"),
        (lambda sock: sock.close(), "broken"),
        (b"HTTP/1.1 2", "timeout"),
        (b"SSH-2.0-OpenSSH\r\n\r\n\r\n", "answer"),
        (b"HTTP/2 200\r\n\r\n", "answer"),
        (b"HTTP/1.1 99 x\r\n\r\n", "answer"),
        (b"HTTP/1.1 2000 x\r\n\r\n", "answer"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "answer"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 40_000, "answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, "answer"),
        (hang, "timeout"),
    ],
)
def test_receiver_without_an_answer_fails(receiver: Any, act: Any, kind: str) -> None:
    to = receiver(act)
    assert failure(poster(to, patience=0.2)).kind == kind


def test_endless_answer_is_cut_off(receiver: Any) -> None:
    sent = [0]

    def flood(sock: Any) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            sent[0] += sock.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    to = receiver(flood)
    assert poster(to).post([], b"{}").status == 200
    assert sent[0] < 8_000_000


def test_slow_drip_ends_with_its_time(receiver: Any) -> None:
    def drip(sock: Any) -> None:
        for letter in "HTTP/1.1 200 OK":
            sock.sendall(letter.encode())
            gevent.sleep(0.05)

    began = time.monotonic()
    assert failure(poster(receiver(drip), patience=0.2)).kind == "timeout"
    assert time.monotonic() - began < 10


def test_retry_after_is_told(receiver: Any) -> None:
    to = receiver(answer(503, "Retry-After: 120"), answer(429, "retry-after: Wed, 21 Oct 2026 07:28:00 GMT"))
    assert poster(to).post([], b"{}") == Answer(503, 120.0)
    assert poster(to).post([], b"{}") == Answer(429, None)


def test_closed_port_says_so(receiver: Any) -> None:
    to = receiver()
    to.close()
    failed = failure(poster(to))
    assert failed.kind == "connect"
    assert "refused" in str(failed)


# Where it goes --------------------------------------------------------------------------------------------


def to_name(port: int) -> Destination:
    return Destination(False, "hook.example.com", port, "/hook")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"])
def test_loopback_is_refused_in_every_spelling(receiver: Any, host: str) -> None:
    to = receiver()
    failed = failure(Poster(read_url(f"http://{host}:{to.port}/hook"), Resolver(1)))
    assert failed.kind == "address"
    assert "loopback" in str(failed)
    assert to.connections == 0


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1"])
def test_number_as_host_is_refused_after_its_look_up(receiver: Any, host: str) -> None:
    """``read_url`` refuses it first. Here it got past."""
    to = receiver()
    failed = failure(Poster(Destination(False, host, to.port, "/"), Resolver(1)))
    assert failed.kind == "address"
    assert to.connections == 0


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "fd00::1"])
def test_name_with_a_private_address_is_refused(receiver: Any, address: str) -> None:
    to = receiver()
    names = Names(["93.184.216.34", address])
    assert failure(Poster(to_name(to.port), names)).kind == "address"  # type: ignore[arg-type]


def test_name_is_looked_up_once_for_a_connection(receiver: Any, monkeypatch: Any) -> None:
    """DNS rebinding: public when judged, private when connected to. The address that was judged is used."""
    to = receiver()
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    # The first answer passes for public.
    judged: list[list[str]] = []

    def judge(found: list[str]) -> str:
        judged.append(list(found))
        return ""

    monkeypatch.setattr(module, "first_unfit", judge)
    assert Poster(to_name(to.port), names).post([], b"{}").status == 200  # type: ignore[arg-type]
    assert names.asked == 1
    assert judged == [["127.0.0.1"], ["127.0.0.1"]]
    assert to.posts[0].headers["host"] == f"hook.example.com:{to.port}"


def test_name_is_judged_again_at_each_connection(receiver: Any, monkeypatch: Any) -> None:
    to = receiver(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    monkeypatch.setattr(module, "first_unfit", lambda found: "10.0.0.1 is private" if "10.0.0.1" in found else "")
    made = Poster(to_name(to.port), names)  # type: ignore[arg-type]
    assert made.post([], b"{}").status == 200
    assert failure(made).kind == "address"


def test_address_that_a_connection_ended_at_is_judged(receiver: Any, monkeypatch: Any) -> None:
    to = receiver()
    answers = iter(["", "127.0.0.1 is loopback"])
    monkeypatch.setattr(module, "first_unfit", lambda _found: next(answers))
    assert failure(Poster(to_name(to.port), Names(["127.0.0.1"]))).kind == "address"  # type: ignore[arg-type]
    assert to.posts == []


def test_next_address_is_tried(receiver: Any) -> None:
    to = receiver()
    names = Names(["::1", "127.0.0.1"])
    made = Poster(to_name(to.port), names, allow_private=True)  # type: ignore[arg-type]
    assert made.post([], b"{}").status == 200


def drip(sock: Any) -> None:
    """Read a little at a time."""
    while sock.recv(65536):
        gevent.sleep(0.01)


def test_body_that_is_read_a_little_at_a_time_is_given_up() -> None:
    server = StreamServer(("127.0.0.1", 0), lambda sock, _address: drip(sock))
    server.start()
    assert server.server_port is not None
    to = Destination(False, "127.0.0.1", server.server_port, "/")
    made = Poster(to, Resolver(1), allow_private=True, patience=0.3)
    began = time.monotonic()
    with pytest.raises(Failed) as failed:
        made.post([], b"x" * 30_000_000)
    assert failed.value.kind == "timeout"
    assert time.monotonic() - began < 10
    server.stop(timeout=0.01)


def test_post_that_begins_past_its_deadline_is_late() -> None:
    """Its own timer and the stream's are due at once."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    line = module._Line(Stream(ours), time.monotonic() - 1)
    with pytest.raises(Failed) as failed:
        line.send(b"x" * 30_000_000)
    assert failed.value.kind == "timeout"
    line.close()
    theirs.close()


# TLS ------------------------------------------------------------------------------------------------------


def server_tls() -> Any:
    made = gevent_ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(TLS / "one.pem", TLS / "one.key")
    return made


def trusting() -> Any:
    made = gevent_ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(TLS / "one.pem")
    return made


def test_post_over_tls_uses_its_connection_again(receiver: Any) -> None:
    to = receiver(tls=server_tls())
    made = poster(to, tls=trusting)
    assert [made.post([], b"{}").status for _ in range(3)] == [200, 200, 200]
    assert to.connections == 1
    made.close()


def test_certificate_of_an_unknown_authority_is_refused(receiver: Any) -> None:
    failed = failure(poster(receiver(tls=server_tls()), tls=context))
    assert failed.kind == "tls"
    assert "certificate" in str(failed)


def test_certificate_of_another_name_is_refused(receiver: Any) -> None:
    to = receiver(tls=server_tls())
    other = Destination(True, "other.example.com", to.port, "/")
    names: Any = Names(["127.0.0.1"])
    failed = failure(Poster(other, names, allow_private=True, tls=trusting))
    assert failed.kind == "tls"


def test_http_where_tls_was_expected_is_refused(receiver: Any) -> None:
    to = receiver()
    names: Any = Names(["127.0.0.1"])
    failed = failure(Poster(Destination(True, "127.0.0.1", to.port, "/"), names, allow_private=True, patience=0.3))
    assert failed.kind in ("tls", "broken", "timeout")


def test_old_tls_is_refused() -> None:
    assert context().minimum_version == ssl.TLSVersion.TLSv1_2
    assert context().verify_mode == ssl.CERT_REQUIRED
    assert context().check_hostname


def test_connection_can_be_tried_without_a_post(receiver: Any) -> None:
    to = receiver()
    assert poster(to).try_connection() == "127.0.0.1"
    assert to.posts == []


# Any bytes ------------------------------------------------------------------------------------------------


class Wire:
    """A socket that has these bytes, then the end."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    def sendall(self, _data: bytes) -> None:
        pass

    def recv(self, _most: int) -> bytes:
        return self._parts.pop(0) if self._parts else b""

    def close(self) -> None:
        pass


_PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 C\r\n\r\n",
        b"\r\n",
        b"content-length: 3\r\n",
        b"transfer-encoding: chunked\r\n",
        b"3\r\n",
        b"abc",
        b"0\r\n\r\n",
        b"connection: close\r\n",
        b":",
        b"\0\xff",
        b"HTTP/1.1 410 Gone\r\n",
    ]
)


@given(st.lists(_PIECES | st.binary(min_size=1, max_size=20), max_size=12))
def test_any_bytes_are_an_answer_or_a_failure(parts: list[bytes]) -> None:
    names: Any = Names(["127.0.0.1"])
    made: Any = Poster(to_name(80), names, patience=1)
    made._sock = made._line = Wire(list(parts))
    made._is_clean = lambda _line: True
    made._connect = lambda _until: setattr(made, "_sock", Wire([]))
    try:
        assert 200 <= made.post([], b"{}").status < 600
    except Failed:
        assert made._sock is None


def test_post_to_a_receiver_of_endless_tickets_fails(receiver: Any) -> None:
    tls = server_tls()
    tls.num_tickets = 3000
    failed = failure(poster(receiver(tls=tls), tls=trusting))
    assert failed.kind == "broken"


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"1;" + b"a" * 120 + b"\r\nx\r\n"], ids=["tiny", "extended"])
def test_post_takes_a_turn_for_each_part_of_an_answer(
    receiver: Any, monkeypatch: pytest.MonkeyPatch, chunk: bytes
) -> None:
    """A receiver that answers each post with 64 KB in chunks of one byte kept the event loop for 100 ms."""
    turns: list[object] = []
    monkeypatch.setattr(module, "take_turn", turns.append)
    monkeypatch.setattr(module, "_BODY_PATIENCE", 60.0)
    chunks = chunk * 65_000
    to = receiver(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert poster(to, patience=60.0).post([], b"{}") == Answer(200, None)
    assert len(turns) >= len(chunks) // module._READ
    assert set(turns) == {"127.0.0.1"}
