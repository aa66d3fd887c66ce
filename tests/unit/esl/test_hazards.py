"""Hazards 1 to 14 of ``docs/explanation/hazards.rst``, on the wire.

Most tests have two parts: what the unmodified greenswitch 0.0.19, or naive code, does with some bytes, and what this
package does with them. The other end of the wire is a socket that the test writes to (``line``, ``their_line``), or a
scripted switch. Tests that need the sandbox are in ``tests/behaviour/test_hazards.py``.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event as Flag
from greenswitch import esl as greenswitch

from esl_apps.core.call import CallEnded, Leg
from esl_apps.core.number_text import presented
from esl_apps.esl import switch as switch_module
from esl_apps.esl import wire
from esl_apps.esl.answers import ReplyError
from esl_apps.esl.channel import Channel
from esl_apps.esl.server import OutboundServer
from esl_apps.esl.session import Gone, OutboundSession
from esl_apps.esl.switch import Switch
from esl_apps.esl.wire import Event, Framer
from tests.support.captures import recorded
from tests.support.esl_servers import NaiveServer
from tests.support.peer import (
    OTHER_UUID,
    UUID,
    FakeSwitch,
    Peer,
    app_uuid,
    channel_data,
    complete,
    dial,
    event,
    eventually,
    raw_event,
    reply,
)
from tests.support.ports import free_port

Line = tuple[OutboundSession, Peer]
TheirLine = tuple[greenswitch.OutboundSession, Peer]
Serve = Callable[..., OutboundServer]
ServeNaively = Callable[[Callable[[Peer], None]], NaiveServer]


def as_greenswitch_reads(block: bytes) -> dict[str, str]:
    return dict(greenswitch.ESLEvent(block.decode()).headers)


def as_we_read(frame: bytes) -> Event:
    (found,) = Framer().feed(frame)
    return found


def never_returns(waiting: gevent.Greenlet[..., object], within: float = 0.05) -> bool:
    """Whether a greenlet still waits after everything it could wait for has come."""
    try:
        waiting.get(timeout=within)
    except gevent.Timeout:
        return True
    finally:
        waiting.kill()
    return False


def dial_once_up(port: int) -> Peer:
    """Connect to a server that has yet to listen."""
    with gevent.Timeout(10):
        while True:
            try:
                return dial(port)
            except ConnectionRefusedError:
                gevent.idle()


@contextmanager
def no_tracebacks() -> Iterator[None]:
    """Hide the stack that a dying reader prints, in tests that are about its death."""
    hub = gevent.get_hub()
    stream, hub.exception_stream = hub.exception_stream, None
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        hub.exception_stream = stream


# 1. Header forging ------------------------------------------------------------------------------------

HOSTILE = recorded("outbound-hostile-caller-id")[0]
"""A real FreeSWITCH's answer to ``connect``, for an INVITE from
``sip:27820001234%0ACaller-Caller-ID-Number%3A%2027999999999@…``."""


def test_hazard_01_caller_cannot_write_their_caller_id() -> None:
    assert as_greenswitch_reads(HOSTILE)["Caller-Caller-ID-Number"].startswith("27999999999")

    channel = as_we_read(HOSTILE)
    number = channel.get("Caller-Caller-ID-Number")
    assert number == "27820001234\nCaller-Caller-ID-Number: 27999999999"
    # A number with anything but digits and + isn't a number.
    assert presented(number) is None


def test_hazard_01_raw_bytes_are_kept() -> None:
    channel = as_we_read(HOSTILE)
    assert channel.raw(b"Caller-Caller-ID-Number") == b"27820001234%0ACaller-Caller-ID-Number%3A%2027999999999"


def test_hazard_01_escape_written_by_the_caller_forges_nothing() -> None:
    """FreeSWITCH passes an upper-case ``%XX`` that the caller wrote unchanged, so decoding it decodes the caller's."""
    written_by_caller = b"Event-Name: CHANNEL_DATA\nCaller-Caller-ID-Name: x%0AUnique-ID: forged\n"
    assert as_greenswitch_reads(written_by_caller + b"\n")["Unique-ID"] == "forged"

    assert as_we_read(raw_event(written_by_caller + f"Unique-ID: {UUID}\n\n".encode())).get("Unique-ID") == UUID


def test_hazard_01_sip_header_cannot_type_a_pin() -> None:
    typed = event("CHANNEL_EXECUTE_COMPLETE", {"variable_sip_h_X-A": "a\nvariable_digits: 6666"})
    assert as_greenswitch_reads(as_we_read(typed).block)["variable_digits"] == "6666"

    assert as_we_read(typed).var("digits") is None


def test_hazard_01_sip_header_cannot_press_a_key() -> None:
    pressed = event("CHANNEL_PROGRESS", {"variable_sip_h_X-A": "a\nEvent-Name: DTMF\nDTMF-Digit: 6"})
    forged = as_greenswitch_reads(as_we_read(pressed).block)
    assert (forged["Event-Name"], forged["DTMF-Digit"]) == ("DTMF", "6")

    ours = as_we_read(pressed)
    assert (ours.name, ours.get("Event-Name"), ours.get("DTMF-Digit")) == (
        b"CHANNEL_PROGRESS",
        "CHANNEL_PROGRESS",
        None,
    )


def test_hazard_01_forged_hangup_ends_no_call(line: Line) -> None:
    forged = {"Caller-Caller-ID-Name": f"x\nEvent-Name: CHANNEL_HANGUP\nUnique-ID: {UUID}"}
    frame = event("CHANNEL_PROGRESS", forged, uuid=OTHER_UUID)
    theirs = as_greenswitch_reads(as_we_read(frame).block)
    assert (theirs["Event-Name"], theirs["Unique-ID"]) == ("CHANNEL_HANGUP", UUID)

    session, peer = line
    heard: list[Event] = []
    session.register_handle("CHANNEL_PROGRESS", heard.append)
    peer.say(frame)
    assert session.wait(lambda: bool(heard), 5)
    assert not session.hung_up


# 2. Completion ----------------------------------------------------------------------------------------


def test_hazard_02_of_two_playbacks_the_right_one_wakes(line: Line, their_line: TheirLine) -> None:
    session, peer = their_line
    playing = gevent.spawn(session.playback, "long.wav")
    peer.expect("sendmsg")
    peer.say(reply(), complete("playback", "another playback's"))
    assert playing.get(timeout=10).headers["Application-UUID"] == "another playback's"

    ours, peer = line
    first, second = ours.execute("playback", "short.wav"), ours.execute("playback", "long.wav")
    uuids = [app_uuid(peer.expect("sendmsg")) for _ in range(2)]
    peer.say(reply(), reply(), complete("playback", uuids[0]))
    ours.finish(first, 1)
    assert not second.done


def test_hazard_02_late_completion_of_the_dialplan_wakes_none(line: Line, their_line: TheirLine) -> None:
    session, peer = their_line
    answering = gevent.spawn(session.call_command, "answer", block=True)
    peer.expect("sendmsg")
    peer.say(reply(), complete("answer", "the dialplan's, from before socket"))
    assert answering.get(timeout=10) is not None

    ours, peer = line
    completion = ours.execute("answer")
    peer.say(reply(), complete("answer", "the dialplan's, from before socket"))
    with pytest.raises(TimeoutError):
        ours.finish(completion, 0.02)


def test_hazard_02_nested_application_does_not_hide_an_end(line: Line, their_line: TheirLine) -> None:
    """Applications that run inside a bridge overwrite ``variable_current_application``."""
    session, peer = their_line
    bridging = gevent.spawn(session.bridge, "user/1000")
    peer.expect("sendmsg")
    peer.say(reply(), complete("bridge", "x", {"variable_current_application": "playback"}))
    assert never_returns(bridging)

    ours, peer = line
    completion = ours.execute("bridge", "user/1000")
    uuid = app_uuid(peer.expect("sendmsg"))
    peer.say(reply(), complete("bridge", uuid, {"variable_current_application": "playback"}))
    assert ours.finish(completion, 1).get("Application") == "bridge"


def test_hazard_02_completion_of_another_channel_wakes_none(line: Line) -> None:
    """A naive match is by ``Application-UUID`` only. A B-leg with a session of its own also counts from 1."""
    session, peer = line
    completion = session.execute("playback", "x")
    uuid = app_uuid(peer.expect("sendmsg"))
    peer.say(reply(), complete("playback", uuid, uuid=OTHER_UUID))
    with pytest.raises(TimeoutError):
        session.finish(completion, 0.02)


def test_hazard_02_error_fails_the_waiter_with_its_text(line: Line, their_line: TheirLine) -> None:
    session, peer = their_line
    bridging = gevent.spawn(session.bridge, "user/1000")
    peer.expect("sendmsg")
    peer.say(reply("-ERR invalid session id"))
    assert never_returns(bridging)

    ours, peer = line
    peer.say(reply("-ERR invalid session id"))
    with pytest.raises(ReplyError, match="invalid session id"):
        ours.bridge("user/1000")


def test_hazard_02_hangup_fails_the_waiter(line: Line, their_line: TheirLine) -> None:
    session, peer = their_line
    playing = gevent.spawn(session.playback, "x")
    peer.expect("sendmsg")
    with no_tracebacks():
        peer.say(reply(), event("CHANNEL_HANGUP"))
        assert never_returns(playing)

    ours, peer = line
    peer.say(reply(), event("CHANNEL_HANGUP"))
    with pytest.raises(Gone, match="hung up"):
        ours.playback("x")


def test_hazard_02_reply_without_its_waiter_takes_its_turn(line: Line) -> None:
    """Naive code drops the waiter that gave up, and gives each command the reply of the one before."""
    session, peer = line
    with pytest.raises(TimeoutError):
        session.send("api slow", timeout=0.02)
    peer.say(reply("+OK slow"), reply("+OK quick"))
    assert session.send("api quick").data == "+OK quick"


def test_hazard_02_completion_without_its_waiter_is_dropped(line: Line) -> None:
    session, peer = line
    slow = session.execute("playback", "slow")
    uuid = app_uuid(peer.expect("sendmsg"))
    peer.say(reply())
    with pytest.raises(TimeoutError):
        session.finish(slow, 0.02)
    quick = session.execute("playback", "quick")
    peer.say(complete("playback", uuid), reply(), complete("playback", app_uuid(peer.expect("sendmsg"))))
    session.finish(quick, 1)
    assert not slow.done


# 3. Waits without end ---------------------------------------------------------------------------------


def test_hazard_03_bare_fin_releases_the_waiter(line: Line, their_line: TheirLine) -> None:
    session, peer = their_line
    asking = gevent.spawn(session.send, "api status")
    peer.expect("api status")
    peer.close()
    assert never_returns(asking)

    ours, peer = line
    peer.close()
    with pytest.raises(Gone, match="the switch closed the socket"):
        ours.wait(lambda: False, None)


def test_hazard_03_wait_for_a_silent_switch_ends(line: Line, their_line: TheirLine) -> None:
    session, peer = their_line
    asking = gevent.spawn(session.send, "api status")
    peer.expect("api status")
    assert never_returns(asking)

    ours, _peer = line
    with pytest.raises(TimeoutError):
        ours.send("api status", timeout=0.02)


def test_hazard_03_leaving_takes_no_second(line: Line, their_line: TheirLine) -> None:
    session, peer = their_line

    def part() -> None:
        peer.expect("exit")
        peer.say(reply("+OK bye"))
        peer.close()

    gevent.spawn(part)
    started = time.monotonic()
    session.stop()
    assert time.monotonic() - started > 0.3

    others: list[bool] = []
    gevent.spawn(others.append, True)
    line[0].stop()
    assert others == []  # it didn't wait at all


def running_timers() -> int:
    """Count the timers of gevent and of the loop below it."""
    kind: Any = type(gevent.get_hub().loop.timer(1))
    found: list[Any] = gc.get_objects()
    return sum(
        (isinstance(one, gevent.Timeout) and one.pending) or (isinstance(one, kind) and one.active) for one in found
    )


def test_hazard_03_idle_session_has_no_timer() -> None:
    """With 2,000 idle calls, a timer of one second each takes a tenth of a core."""
    before = running_timers()
    naive, naive_end = socket.socketpair()
    session = greenswitch.OutboundSession(("test", 0), naive)
    gevent.sleep(0)
    assert running_timers() > before
    gevent.killall([session._receive_events_greenlet, session._process_events_greenlet])

    ours, our_end = socket.socketpair()
    waiting = gevent.spawn(OutboundSession(("test", 0), ours).wait, lambda: False, None)
    gevent.sleep(0)
    assert running_timers() == before
    waiting.kill()
    for sock in (naive, naive_end, ours, our_end):
        sock.close()


def test_hazard_03_session_has_no_greenlet(line: Line, their_line: TheirLine) -> None:
    """The greenlet of the flow that waits also reads."""
    theirs = [one for one in vars(their_line[0]).values() if isinstance(one, gevent.Greenlet)]
    assert len(theirs) == 2

    ours = [one for one in vars(line[0]).values() if isinstance(one, gevent.Greenlet)]
    assert ours == []


def test_hazard_03_call_is_accepted_without_a_pause(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """greenswitch looks for calls every 100 ms."""
    server = serve(OutboundSession.connect)
    awake = Flag()
    monkeypatch.setattr(gevent, "sleep", lambda _seconds: awake.wait())
    port = free_port()
    naive = gevent.spawn(greenswitch.OutboundESLServer("127.0.0.1", port, application=object).listen)
    theirs = dial_once_up(port)
    assert never_returns(gevent.spawn(theirs.command))
    naive.kill()
    theirs.close()

    ours = dial(server.bound_port)
    ours.expect("connect")
    ours.close()


def test_hazard_03_silent_peer_holds_a_connection_for_a_while(
    fake_switch: FakeSwitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_switch.hello = b""
    naive = greenswitch.InboundESL(*fake_switch.address, "secret", timeout=0.05)
    assert never_returns(gevent.spawn(naive.connect))
    gevent.killall([naive._receive_events_greenlet, naive._process_events_greenlet])

    monkeypatch.setattr(switch_module, "CONNECT_TIMEOUT", 0.05)
    switch = Switch("fs1", fake_switch.address, "secret")
    switch.start()
    eventually(lambda: switch.last_error == "timed out")
    switch.stop()


# 4. A newline is a second command ---------------------------------------------------------------------


def test_hazard_04_newline_in_an_argument_is_refused(line: Line, their_line: TheirLine) -> None:
    session, peer = their_line
    gevent.spawn(session.call_command, "bridge", "user/1000\n\napi hupall NORMAL_CLEARING")
    assert peer.command().endswith("execute-app-arg: user/1000")
    assert peer.command() == "api hupall NORMAL_CLEARING"

    ours, peer = line
    for arg in ("user/1000\n\napi hupall", "user/1000\nexecute-app-name: system", "user/1000\rx"):
        with pytest.raises(ValueError, match="line break"):
            ours.execute("bridge", arg)
    assert peer.pending() == []


def test_hazard_04_refused_command_leaves_no_waiter(line: Line) -> None:
    session, peer = line
    for refused in (
        lambda: session.send("a\nb"),
        lambda: session.post("good", "a\nb"),
        lambda: session.execute("a\nb"),
        lambda: session.multiset({"a": "b\nc"}),
    ):
        with pytest.raises(ValueError, match="line break"):
            refused()
    peer.say(reply("+OK mine"))
    assert session.send("x").data == "+OK mine"
    assert peer.pending() == ["x"]


def test_hazard_04_long_command_arrives_whole(line: Line, their_line: TheirLine) -> None:
    """The command is larger than the socket's buffer."""
    long = "x" * 5_000_000
    session, peer = their_line
    asking = gevent.spawn(session.send, long)
    gevent.sleep(0.05)
    received = len(peer.sock.recv(10_000_000))
    while select_readable(peer):
        received += len(peer.sock.recv(10_000_000))
    assert received < len(long)
    asking.kill()

    ours, peer = line
    reading = gevent.spawn(peer.command)
    ours.post(long)
    assert reading.get(timeout=5) == long


def select_readable(peer: Peer) -> bool:
    gevent.sleep(0.01)
    return peer.readable()


# 5. Bytes that aren't an event socket's ---------------------------------------------------------------

FAULTS = {
    "no Content-Type": b"Content-Length: 3\n\nabc",
    "no length": b"Content-Length: three\nContent-Type: text/event-plain\n\nabc",
    "nonsense": b"\xff\xfe\xfd" * 20 + b"\n\n",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_hazard_05_fault_fails_the_waiter(line: Line, their_line: TheirLine, fault: str) -> None:
    session, peer = their_line
    asking = gevent.spawn(session.send, "api status")
    peer.expect("api status")
    with no_tracebacks():
        peer.say(FAULTS[fault])
        assert never_returns(asking)

    ours, peer = line
    peer.say(FAULTS[fault])
    with pytest.raises(Gone, match="framing"):
        ours.send("api status")


def test_hazard_05_text_that_is_not_utf8_is_not_a_fault(line: Line, their_line: TheirLine) -> None:
    latin1 = raw_event(b"Event-Name: CHANNEL_ANSWER\nUnique-ID: other\nCaller-Caller-ID-Name: Ren\xe9\n\n")
    session, peer = their_line
    asking = gevent.spawn(session.send, "api status")
    peer.expect("api status")
    with no_tracebacks():
        peer.say(latin1, reply("+OK"))
        assert never_returns(asking)

    ours, peer = line
    names: list[str | None] = []
    ours.register_handle("CHANNEL_ANSWER", lambda one: names.append(one.get("Caller-Caller-ID-Name")))
    peer.say(latin1, reply("+OK"))
    assert ours.send("api status").ok
    assert names == ["Ren\ufffd"]


@pytest.mark.parametrize("fault", FAULTS)
def test_hazard_05_fault_touches_no_other_call(serve: Serve, fault: str) -> None:
    def application(session: OutboundSession) -> None:
        session.connect()
        session.answer()
        session.wait(lambda: False, None)

    server = serve(application)
    good, bad = dial(server.bound_port), dial(server.bound_port)
    for peer in (good, bad):
        peer.expect("connect")
        peer.expect("linger")
        peer.say(channel_data(), reply())
    execute = good.expect("sendmsg")
    bad.expect("sendmsg")
    bad.say(reply(), FAULTS[fault])
    bad.expect_end()
    good.say(reply(), complete("answer", app_uuid(execute)))
    gevent.sleep(0.01)
    assert server.connection_count == 1
    good.say(event("CHANNEL_HANGUP"))
    good.expect("exit")


# 6. Lingering -----------------------------------------------------------------------------------------


def test_hazard_06_linger_has_a_number(line: Line, their_line: TheirLine) -> None:
    session, peer = their_line
    gevent.spawn(session.linger)
    assert peer.command() == "linger"

    ours, peer = line
    peer.say(reply())
    ours.linger()
    assert peer.command() == "linger 5"


# 7. Own events ----------------------------------------------------------------------------------------


def test_hazard_07_flow_gets_a_third_of_what_myevents_brings() -> None:
    """Compare the bytes of a captured call."""
    from esl_apps.esl.channel import EVENTS

    heard = [frame for data in recorded("outbound-disa-myevents") for frame in Framer().feed(data)]
    events = [frame for frame in heard if frame.content_type == wire.EVENT_PLAIN]
    needed = [frame for frame in events if frame.name.decode() in EVENTS.split()]
    assert len(events) >= 25
    assert len(needed) <= len(events) / 3


# 8. The tick ------------------------------------------------------------------------------------------


def test_hazard_08_connect_and_linger_are_one_write() -> None:
    """Each write wakes the switch. A seqpacket socket keeps each write a message of its own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    naive = greenswitch.OutboundSession(("test", 0), ours)
    for step in (naive.connect, lambda: naive.linger(5)):
        gevent.spawn(step)
    assert [theirs.recv(100), theirs.recv(100)] == [b"connect\n\n", b"linger 5\n\n"]
    gevent.killall([naive._receive_events_greenlet, naive._process_events_greenlet])

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.send(channel_data() + reply())
    OutboundSession(("test", 0), ours).connect()
    assert theirs.recv(100) == b"connect\n\nlinger 5\n\n"


# 9. The failover list ---------------------------------------------------------------------------------


def test_hazard_09_watchdog_is_taken_off_first(line: Line) -> None:
    """The dialplan arms ``sched_transfer +8`` before ``socket``, for a node that never comes to cancel it."""
    session, peer = line
    peer.say(channel_data(), reply())
    channel = Channel(session, lambda name, _rate: name, lambda _uuid: None)
    peer.pending()
    channel.begin("ref", watched=True)
    assert peer.command() == f"api sched_del {UUID}"


# 10. Entering and leaving -----------------------------------------------------------------------------


def test_hazard_10_calls_are_counted_when_accepted(serve: Serve) -> None:
    """If calls were counted later, a burst would pass a limit of one."""
    port, over = free_port(), Flag()

    class App:
        def __init__(self, _session: object) -> None: ...

        def run(self) -> None:
            over.wait()

    def burst(port: int) -> list[Peer]:
        peers = [dial_once_up(port) for _ in range(5)]
        for peer in peers:
            peer.expect("connect")
        return peers

    full = greenswitch.OutboundESLServer("127.0.0.1", port, application=App, max_connections=1)
    naive = gevent.spawn(full.listen)
    for peer in (theirs := burst(port)):
        peer.say(channel_data())
    eventually(lambda: full.connection_count == 5)
    naive.kill()
    with no_tracebacks():
        for peer in theirs:
            peer.close()
        over.set()
        eventually(lambda: full.connection_count == 0)

    server = serve(lambda session: session.wait(lambda: session.connect() is None, 1), max_connections=1)
    peers = burst(server.bound_port)
    assert server.connection_count == 1
    for peer in peers:
        peer.close()


def test_hazard_10_drain_strands_no_connected_caller(serve_naively: ServeNaively, serve: Serve) -> None:
    def knock(port: int) -> Peer:
        """Open a connection that the kernel has accepted, but not the server."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", port))
        sock.setblocking(True)
        return Peer(sock)

    naive = serve_naively(lambda peer: peer.say(b"connect\n\n"))
    peer = knock(naive.port)
    naive.server.close()
    with pytest.raises((ConnectionError, EOFError)):
        peer.command()

    ours = serve(OutboundSession.connect)
    peer = knock(ours.bound_port)
    ours.close_listener()
    peer.expect("connect")
    peer.expect("linger")
    peer.say(channel_data(), reply())
    assert peer.command().endswith("\n\nSWITCH_CONGESTION")


# 11. When the socket drops ----------------------------------------------------------------------------


def test_hazard_11_bridge_outlives_the_socket_and_is_found_again(
    their_line: TheirLine,
) -> None:
    session, peer = their_line
    bridging = gevent.spawn(session.bridge, "user/1000")
    peer.expect("sendmsg")
    peer.say(reply(), event("CHANNEL_ANSWER", uuid=OTHER_UUID))
    peer.close()
    assert never_returns(bridging)

    last = as_we_read(
        event(
            "CHANNEL_HANGUP_COMPLETE",
            {
                "Hangup-Cause": "NORMAL_CLEARING",
                "variable_hangup_cause_q850": 16,
                "Caller-Channel-Hangup-Time": 1_700_000_060_000_000,
            },
        )
    )
    ours, theirs = socket.socketpair()
    peer = Peer(theirs)
    peer.say(channel_data(), reply())
    asked: list[str] = []

    def find_end(uuid: str) -> Event:
        asked.append(uuid)
        return last

    channel = Channel(OutboundSession(("test", 0), ours), lambda name, _rate: name, find_end)
    channel.begin("ref", watched=False)
    peer.say(reply(), reply(), reply(), reply(), event("CHANNEL_ANSWER", uuid=OTHER_UUID))
    peer.close()

    def progress(_what: str, _at: float, _leg: Leg | None) -> None: ...

    with pytest.raises(CallEnded) as caught:
        channel.bridge({}, [("user/1000", None)], 5, 60, progress)
    assert caught.value.lost
    end = channel.ended()
    assert asked == [UUID]
    assert (end.lost, end.at, end.aleg.q850) == (False, 1_700_000_060.0, 16)


# 12. Order --------------------------------------------------------------------------------------------


# 13. Quoting ------------------------------------------------------------------------------------------


# 14. Events for others --------------------------------------------------------------------------------
