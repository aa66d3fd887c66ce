"""The server that FreeSWITCH's ``socket`` application connects to: admission, refusals, and draining."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable

import gevent
import pytest
from gevent import socket

from esl_apps.esl import server as server_module
from esl_apps.esl import session as session_module
from esl_apps.esl.server import OutboundServer
from esl_apps.esl.session import OutboundSession
from esl_apps.esl.wire import Event
from esl_apps.net.listening import listen
from tests.support.commands import application
from tests.support.peer import (
    UUID,
    Peer,
    app_uuid,
    channel_data,
    complete,
    dial,
    event,
    eventually,
    linger_notice,
    reply,
)

Serve = Callable[..., OutboundServer]


def hold(session: OutboundSession) -> None:
    """Keep the call until the caller hangs up."""
    session.connect()
    session.wait(lambda: False, None)


def connects(peer: Peer) -> None:
    peer.expect("connect")
    peer.expect("linger 5")
    peer.say(channel_data(), reply("+OK will linger 5 seconds"))


def is_hung_up_with(peer: Peer, cause: str) -> None:
    """Check that the peer's caller is connected, hung up with a cause, and only then left."""
    connects(peer)
    assert application(peer.expect("sendmsg")) == ("hangup", cause)
    peer.say(reply(), linger_notice())
    peer.expect("exit")
    peer.expect_end()


def caller_leaves(peer: Peer) -> None:
    peer.say(event("CHANNEL_HANGUP"), linger_notice())
    peer.expect("exit")
    peer.expect_end()
    peer.close()


# Calls ------------------------------------------------------------------------------------------------


def test_server_runs_the_application_and_leaves(serve: Serve) -> None:
    heard: list[str] = []

    def application(session: OutboundSession) -> None:
        session.connect()
        heard.append(session.answer().get("Application") or "")

    peer = dial(serve(application).bound_port)
    connects(peer)
    peer.say(reply(), complete("answer", app_uuid(peer.expect("sendmsg"))))
    peer.expect("exit")
    peer.expect_end()
    assert heard == ["answer"]


def test_server_application_ends_with_the_hangup(serve: Serve) -> None:
    server = serve(hold)
    peer = dial(server.bound_port)
    connects(peer)
    assert server.connection_count == 1
    caller_leaves(peer)
    assert server.connection_count == 0


def test_server_application_with_a_fault_hangs_up(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def application(session: OutboundSession) -> None:
        session.connect()
        raise ZeroDivisionError

    peer = dial(serve(application).bound_port)
    with caplog.at_level(logging.ERROR):
        is_hung_up_with(peer, "NORMAL_TEMPORARY_FAILURE")
    assert "ZeroDivisionError" in caplog.text


def test_server_fault_before_connect_strands_no_caller(serve: Serve) -> None:
    """Closing before ``connect`` would park the channel for ever (hazard 10)."""

    def application(_session: OutboundSession) -> None:
        raise ZeroDivisionError

    is_hung_up_with(dial(serve(application).bound_port), "NORMAL_TEMPORARY_FAILURE")


def test_server_call_with_a_fault_frees_its_place(serve: Serve) -> None:
    def application(session: OutboundSession) -> None:
        session.connect()
        raise ZeroDivisionError

    server = serve(application, max_connections=1)
    for _ in range(3):
        is_hung_up_with(dial(server.bound_port), "NORMAL_TEMPORARY_FAILURE")
    assert server.connection_count == 0


@pytest.mark.parametrize("garbage", [b"nonsense\n\n", b"Content-Length: x\n\n", b"\xff" * 100 + b"\n\n"])
def test_server_closes_a_connection_of_another_protocol(serve: Serve, garbage: bytes) -> None:
    server = serve(hold)
    good, bad = dial(server.bound_port), dial(server.bound_port)
    connects(good)
    bad.expect("connect")
    bad.say(garbage)
    bad.expect("linger")
    bad.expect_end()
    assert server.connection_count == 1
    caller_leaves(good)


def test_server_on_an_address_in_use_raises(serve: Serve) -> None:
    port = serve(hold).bound_port
    with pytest.raises(OSError, match="Address already in use"):
        OutboundServer(("127.0.0.1", port), hold, 1)


def test_server_accepts_on_its_own_and_a_shared_port(serve: Serve) -> None:
    shared = listen(("127.0.0.1", 0), 16)
    port = shared.getsockname()[1]
    counts: dict[str, list[int]] = {"first": [], "second": []}
    first = serve(hold, shared=shared, on_count=counts["first"].append)
    second = serve(hold, shared=socket.socket(fileno=os.dup(shared.fileno())), on_count=counts["second"].append)
    peers = [dial(port) for _ in range(8)]
    for peer in peers:
        connects(peer)
    assert first.connection_count + second.connection_count == 8
    own = dial(second.bound_port)
    connects(own)
    assert max(counts["second"]) > 0
    # A draining server leaves the port to the other.
    first.stop()
    late = dial(port)
    connects(late)
    for peer in (*peers, own, late):
        caller_leaves(peer)
    second.stop()
    with pytest.raises(OSError, match="refused"):
        dial(port)


def test_server_reports_its_call_count(serve: Serve) -> None:
    counts: list[int] = []
    server = serve(hold, on_count=counts.append)
    peers = [dial(server.bound_port) for _ in range(2)]
    for peer in peers:
        connects(peer)
    for peer in peers:
        caller_leaves(peer)
    assert counts == [1, 2, 1, 0]


# Full -------------------------------------------------------------------------------------------------


def test_server_call_too_many_is_hung_up_with_a_cause(serve: Serve) -> None:
    server = serve(hold, max_connections=1)
    first = dial(server.bound_port)
    connects(first)
    is_hung_up_with(dial(server.bound_port), "SWITCH_CONGESTION")
    assert server.connection_count == 1
    caller_leaves(first)


def test_server_gives_a_freed_place_again(serve: Serve) -> None:
    server = serve(hold, max_connections=1)
    for _ in range(3):
        peer = dial(server.bound_port)
        connects(peer)
        caller_leaves(peer)


def test_server_does_not_wait_for_a_refused_caller_who_left(serve: Serve) -> None:
    server = serve(hold, max_connections=0)
    peer = dial(server.bound_port)
    peer.expect("connect")
    peer.say(channel_data({"Answer-State": "hangup"}), reply())
    peer.expect("linger")
    peer.expect("exit")
    peer.expect_end()


def test_server_leaves_the_hangup_for_a_stopped_switch(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "FIRST_TIMEOUT", 0.05)
    peer = dial(serve(hold, max_connections=0).bound_port)
    gevent.sleep(0.1)
    peer.expect("connect")
    peer.expect("linger")
    assert peer.expect("sendmsg").endswith("\n\nSWITCH_CONGESTION")
    peer.expect_end()


# Strangers ----------------------------------------------------------------------------------------


def test_server_gives_a_strangers_place_to_the_next(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "STRANGERS", 3)
    server = serve(lambda session: hold(session))
    strangers = [dial(server.bound_port) for _ in range(3)]
    for peer in strangers:
        peer.expect("connect")
    peer = dial(server.bound_port)
    connects(peer)
    assert list(strangers[0].commands()) == ["linger 5"]
    assert not any(stranger.readable() for stranger in strangers[2:])


def test_server_call_makes_no_place_for_strangers(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "STRANGERS", 1)
    server = serve(hold)
    calls = []
    for _ in range(3):
        calls.append(dial(server.bound_port))
        connects(calls[-1])
        eventually(lambda: server._strangers == {})
    eventually(lambda: server.connection_count == 3)
    assert server.connection_count == 3


@pytest.mark.parametrize("uuid", ["5", "all", "a84b4c76e66710@pc33.atlanta.com", f"{UUID} x"])
@pytest.mark.parametrize("places", [0, 10])
def test_server_channel_that_cannot_be_named_is_hung_up(serve: Serve, uuid: str, places: int) -> None:
    server = serve(lambda session: session.connect() and None, max_connections=places)
    peer = dial(server.bound_port)
    peer.expect("connect")
    peer.expect("linger 5")
    peer.say(channel_data({"Unique-ID": uuid}), reply())
    assert "execute-app-name: hangup" in peer.expect("sendmsg")
    peer.say(reply(), linger_notice())
    peer.expect("exit")
    peer.expect_end()


def test_server_silent_stranger_has_five_seconds(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    assert session_module.FIRST_TIMEOUT == 5
    monkeypatch.setattr(session_module, "FIRST_TIMEOUT", 0.05)
    server = serve(lambda session: session.connect() and None)
    peer = dial(server.bound_port)
    assert list(peer.commands())[:2] == ["connect", "linger 5"]
    assert server.connection_count == 0


def test_server_stranger_has_128_kb(serve: Serve) -> None:
    server = serve(lambda session: session.connect() and None)
    peer = dial(server.bound_port)
    peer.say(b"Content-Type: command/reply\nContent-Length: %d\n\n" % (session_module.FIRST_FRAME + 1) + b"x")
    assert list(peer.commands()) == ["connect", "linger 5"]
    known = dial(server.bound_port)
    known.expect("connect")
    known.say(channel_data({"variable_sip_h_X-Long": "x" * 100_000}), reply())
    assert "exit" in list(known.commands())


# Draining ---------------------------------------------------------------------------------------------


def test_server_draining_refuses_connections_and_keeps_calls(serve: Serve) -> None:
    server = serve(hold)
    peer = dial(server.bound_port)
    connects(peer)
    server.close_listener()
    # This makes the switch try its next node.
    with pytest.raises(ConnectionRefusedError):
        dial(server.bound_port)
    assert server.connection_count == 1
    caller_leaves(peer)
    assert server.connection_count == 0


def test_server_draining_serves_what_waits_to_be_accepted(serve: Serve) -> None:
    """To FreeSWITCH these are connected, so a reset would strand their callers (hazard 10)."""
    server = serve(hold)
    waiting = []
    for _ in range(250):
        # Nothing here yields to the server.
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", server.bound_port))
        sock.setblocking(True)
        waiting.append(Peer(sock))
    server.close_listener()
    for peer in waiting:
        is_hung_up_with(peer, "SWITCH_CONGESTION")


def test_server_draining_twice_does_nothing_more(serve: Serve) -> None:
    server = serve(hold)
    server.close_listener()
    server.close_listener()
    server.stop()


# Nothing left -----------------------------------------------------------------------------------------


def census() -> dict[str, int]:
    gevent.sleep(0.02)
    gc.collect()
    kinds = {"greenlets": gevent.Greenlet, "sessions": OutboundSession, "frames": Event}
    counts = dict.fromkeys(kinds, 0)
    for one in gc.get_objects():
        for name, kind in kinds.items():
            counts[name] += isinstance(one, kind)
    return {**counts, "descriptors": len(os.listdir("/proc/self/fd"))}


def test_server_after_a_thousand_calls_holds_nothing(serve: Serve) -> None:
    def application(session: OutboundSession) -> None:
        session.connect(events="CHANNEL_HANGUP")
        session.register_handle("CHANNEL_ANSWER", lambda _event: session.uuid)
        session.answer()
        session.wait(lambda: False, 5)

    def call(ending: int) -> None:
        peer = dial(server.bound_port)
        connects(peer)
        peer.expect("filter")
        peer.expect("event")
        peer.say(reply(), reply())
        peer.say(reply(), event("CHANNEL_ANSWER"), complete("answer", app_uuid(peer.expect("sendmsg"))))
        # A hang-up, a bare FIN, and garbage.
        if ending == 0:
            peer.say(event("CHANNEL_HANGUP"), linger_notice())
            peer.expect("exit")
        elif ending == 1:
            peer.sock.shutdown(socket.SHUT_WR)
        else:
            peer.say(b"nonsense" * 10 + b"\n\n")
        peer.expect_end()
        peer.close()

    server = serve(application)
    gevent.joinall([gevent.spawn(call, ending) for ending in range(3)], raise_error=True)
    before = census()
    for _ in range(20):
        gevent.joinall([gevent.spawn(call, i % 3) for i in range(50)], raise_error=True)
    after = census()
    assert server.connection_count == 0
    assert {name: count for name, count in after.items() if count > before[name]} == {}
