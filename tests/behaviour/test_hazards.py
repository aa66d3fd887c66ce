"""Hazards 6 to 14 of ``docs/explanation/hazards.rst`` that need a switch: the sandbox, which acts as FreeSWITCH does.

Most tests have two parts: what the unmodified greenswitch 0.0.19, or naive code, brings about, and what this package
does. Hazards of the wire are in ``tests/unit/esl/test_hazards.py``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.event import Event as Flag
from greenswitch import esl as greenswitch

from esl_apps.core import dialstring
from esl_apps.esl import session as session_module
from esl_apps.esl import wire
from esl_apps.esl.server import OutboundServer
from esl_apps.esl.session import OutboundSession
from esl_apps.esl.switch import Switch
from esl_apps.esl.wire import Event
from tests.rig.base import Script
from tests.rig.sandbox import SandboxCall, SandboxRig
from tests.support.esl_servers import NaiveServer, serving, serving_naively
from tests.support.peer import (
    Peer,
    eventually,
)
from tests.support.ports import free_port

Serve = Callable[..., OutboundServer]
ServeNaively = Callable[[Callable[[Peer], None]], NaiveServer]


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Fail with the stack after some seconds instead of hanging."""
    with gevent.Timeout(20):
        yield


@pytest.fixture(scope="module")
def sandbox_process() -> Iterator[SandboxRig]:
    with SandboxRig() as rig:
        yield rig


@pytest.fixture
def sandbox(sandbox_process: SandboxRig) -> Iterator[SandboxRig]:
    """Yield the sandbox, without calls and phones."""
    yield sandbox_process
    # In a thread, because the calls end only after this process's greenlets have left them.
    gevent.get_hub().threadpool.apply(sandbox_process.reset)


serve = pytest.fixture(serving)
serve_naively = pytest.fixture(serving_naively)


def is_shown(sandbox: SandboxRig, number: str) -> bool:
    """Whether the switch still has the channel of a call to a number."""
    return number in sandbox.api("show channels")


DID, SECOND_DID = "27115550000", "27115550001"


def arrives(
    sandbox: SandboxRig, port: int, flags: str = "async full", *, number: str = DID, before: str = ""
) -> SandboxCall:
    """Call from outside into ``socket 127.0.0.1:port``. ``before``: an application that runs first."""
    actions = [(before, "")] if before else []
    sandbox.extension("public", number, [*actions, ("socket", f"127.0.0.1:{port} {flags}")])
    return sandbox.outside(f"2782{number[-7:]}", Script()).dial(number)


def test_hazard_06_lingering_client_does_not_pin_the_channel(
    sandbox: SandboxRig, serve: Serve, serve_naively: ServeNaively, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client forgets to leave: its application is stuck in something else when the caller hangs up."""

    lingering: list[str] = []

    def forgetful(peer: Peer) -> None:
        peer.say(b"connect\n\nlinger\n\n")
        heard = b""
        while b"will linger" not in heard:
            heard += peer.sock.recv(1 << 20)
        lingering.append("naive")
        gevent.sleep(60)

    monkeypatch.setattr(session_module, "LINGER", 3)

    def equally_forgetful(session: OutboundSession) -> None:
        session.connect()
        lingering.append("ours")
        Flag().wait(10)

    calls = [
        arrives(sandbox, serve_naively(forgetful).port),
        arrives(sandbox, serve(equally_forgetful).bound_port, number=SECOND_DID),
    ]
    eventually(lambda: len(lingering) == 2)
    for call in calls:
        call.hangup()
    gevent.sleep(0.1)
    assert is_shown(sandbox, DID)
    assert is_shown(sandbox, SECOND_DID)
    eventually(lambda: not is_shown(sandbox, SECOND_DID))
    assert is_shown(sandbox, DID)


def test_hazard_06_exit_frees_the_channel_at_once(
    sandbox: SandboxRig, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "LINGER", 60)
    connected: list[str] = []
    ended: list[Event | None] = []

    def application(session: OutboundSession) -> None:
        session.connect(events="CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE")
        connected.append(session.uuid)
        session.wait(lambda: session.hangup_complete is not None, 5, past_hangup=True)
        ended.append(session.hangup_complete)

    call = arrives(sandbox, serve(application).bound_port)
    eventually(lambda: connected)
    call.hangup()
    eventually(lambda: ended and not is_shown(sandbox, DID))
    assert [one.get("Hangup-Cause") for one in ended if one] == ["ORIGINATOR_CANCEL"]


def test_hazard_07_events_of_other_calls_do_not_come(
    sandbox: SandboxRig, serve: Serve, serve_naively: ServeNaively
) -> None:
    naively: list[str] = []
    ours: list[Event] = []
    subscribed = Flag()

    def subscribes_first(peer: Peer) -> None:
        peer.say(b"connect\n\nevent plain CHANNEL_CREATE CHANNEL_HANGUP\n\n")
        while data := peer.sock.recv(1 << 20):
            naively.append(data.decode())

    def application(session: OutboundSession) -> None:
        session.connect(events="CHANNEL_CREATE CHANNEL_HANGUP")
        session.register_handle("*", ours.append)
        subscribed.set()
        session.wait(lambda: False, 30)

    calls = [
        arrives(sandbox, serve_naively(subscribes_first).port),
        arrives(sandbox, serve(application).bound_port, number=SECOND_DID),
    ]
    assert subscribed.wait(30)
    eventually(lambda: "event listener enabled" in "".join(naively))
    sandbox.outside("27820009999", Script()).dial("27115559999")
    eventually(lambda: "27820009999" in "".join(naively))
    calls[1].hangup()
    eventually(lambda: ours)
    assert [one.get("Caller-Destination-Number") for one in ours] == [SECOND_DID]


def test_hazard_08_many_variables_take_one_tick(sandbox: SandboxRig, serve: Serve, serve_naively: ServeNaively) -> None:
    """FreeSWITCH checks a socket every 20 ms, so each execute takes a tick."""
    variables = {f"esl_test_{i}": str(i) for i in range(10)}
    naively: list[float] = []
    executed: list[str | None] = []
    last: list[str] = []

    def naive(peer: Peer) -> None:
        session = greenswitch.OutboundSession(("test", 0), peer.sock)
        session.connect()
        session.myevents()
        started = time.monotonic()
        for name, value in variables.items():
            session.call_command("set", f"{name}={value}", block=True)
        naively.append(time.monotonic() - started)
        gevent.killall([session._receive_events_greenlet, session._process_events_greenlet])

    def application(session: OutboundSession) -> None:
        session.register_handle("CHANNEL_EXECUTE_COMPLETE", lambda event: executed.append(event.get("Application")))
        session.connect(events="CHANNEL_EXECUTE_COMPLETE")
        session.multiset(variables)
        session.finish(session.execute("set", "esl_test_last=1", lock=True), 5)
        last.append(session.api(f"uuid_getvar {session.uuid} esl_test_9"))

    arrives(sandbox, serve_naively(naive).port, before="answer")
    eventually(lambda: naively)
    assert naively[0] > (len(variables) - 1) * 0.02

    arrives(sandbox, serve(application).bound_port, before="answer")
    eventually(lambda: last)
    assert executed == ["multiset", "set"]
    assert last == ["9"]


def test_hazard_09_draining_node_sends_the_switch_to_the_next(
    sandbox: SandboxRig, serve: Serve, serve_naively: ServeNaively
) -> None:
    """Only a refused connection makes it go on. One that is accepted but not served holds the caller for ever."""
    taken: list[str] = []

    def application(session: OutboundSession) -> None:
        taken.append(session.connect().var("socket_path") or "")
        session.wait(lambda: False, 5)

    second = serve(application)

    naive = serve_naively(lambda _peer: None)
    naive.server.stop_accepting()
    call = calls_through_list(sandbox, naive.port, second.bound_port)
    gevent.sleep(0.1)
    assert taken == []
    call.hangup()

    ours = serve(application)
    ours.close_listener()
    call = calls_through_list(sandbox, ours.bound_port, second.bound_port)
    eventually(lambda: taken == ["disa/acme/front"])
    call.hangup()


def calls_through_list(sandbox: SandboxRig, first: int, second: int) -> SandboxCall:
    """Make a call whose ``socket`` names two nodes."""
    path = "disa/acme/front"
    nodes = f"127.0.0.1:{first}/{path}|127.0.0.1:{second}/{path}"
    sandbox.extension("public", "27115550000", [("socket", f"{nodes} async full")])
    return sandbox.outside("27820001234", Script()).dial("27115550000")


def stranded(sandbox: SandboxRig, call: SandboxCall) -> bool:
    """Whether the caller is neither served nor hung up."""
    for _ in range(6):
        gevent.sleep(0.05)
        if call.leg.ended_at is not None:
            return False
    call.hangup()
    return True


def strands_one(sandbox: SandboxRig, port: int) -> bool:
    """Try a few callers: on a busy machine the 5 ms in which closing strands a caller may pass."""
    return any(stranded(sandbox, arrives(sandbox, port)) for _ in range(5))


def test_hazard_10_caller_too_many_gets_a_cause(sandbox: SandboxRig, serve: Serve, serve_naively: ServeNaively) -> None:
    def closes(peer: Peer) -> None:
        peer.close()

    naively = serve_naively(closes).port
    assert strands_one(sandbox, naively)

    port = free_port()
    full = greenswitch.OutboundESLServer("127.0.0.1", port, application=object, max_connections=0)
    naive = gevent.spawn(full.listen)
    gevent.sleep(0.01)
    # It sends ``connect`` and then ``exit`` at once.
    assert strands_one(sandbox, port)
    naive.kill()

    call = arrives(sandbox, serve(OutboundSession.connect, max_connections=0).bound_port)
    assert not stranded(sandbox, call)
    assert call.leg.status == 503


def test_hazard_12_executes_sent_at_once_run_in_order(
    sandbox: SandboxRig, serve: Serve, serve_naively: ServeNaively
) -> None:
    order: dict[str, list[str]] = {}

    def naive(peer: Peer) -> None:
        execute = "call-command: execute\nexecute-app-name: playback\nexecute-app-arg: silence_stream://60"
        both = [f"sendmsg\n{execute}\nEvent-UUID: {name}\n\n".encode() for name in ("first", "second")]
        peer.say(b"connect\n\nmyevents\n\n", *both)
        heard = ""
        ended: list[str] = []
        while len(ended) < 2:
            heard += peer.sock.recv(1 << 20).decode()
            ended = re.findall(r"Event-Name: CHANNEL_EXECUTE_COMPLETE\n.*?Application-UUID: (\w+)\n", heard, re.S)
        order["naive"] = ended

    def application(session: OutboundSession) -> None:
        session.connect(events="CHANNEL_EXECUTE_COMPLETE")
        ended = order.setdefault("ours", [])
        session.register_handle("CHANNEL_EXECUTE_COMPLETE", lambda one: ended.append(one.get("Application-UUID") or ""))
        session.execute("playback", "silence_stream://60", lock=True)
        session.finish(session.execute("playback", "silence_stream://60", lock=True), 5)

    for port in (serve_naively(naive).port, serve(application).bound_port):
        arrives(sandbox, port, before="answer")
        gevent.sleep(0.01)
    eventually(lambda: all(len(order.get(which, ())) == 2 for which in ("naive", "ours")))
    assert order == {"naive": ["second", "first"], "ours": ["1", "2"]}


@pytest.fixture
def sandbox_switch(sandbox: SandboxRig) -> Iterator[Switch]:
    """Yield the sandbox's inbound event socket."""
    switch = switch_to(sandbox)
    yield switch
    switch.stop()


def switch_to(sandbox: SandboxRig, **more: object) -> Switch:
    host, _, port = sandbox.esl_address.rpartition(":")
    switch = Switch("sandbox", (host, int(port)), sandbox.esl_password, **more)  # type: ignore[arg-type]
    switch.start()
    assert switch.wait_up(5)
    return switch


def test_hazard_13_quotes_keep_async_full_together(sandbox: SandboxRig, sandbox_switch: Switch, serve: Serve) -> None:
    sandbox.phone("1000", Script(answer_after=0.0))
    entered: list[tuple[str | None, bool]] = []

    def application(session: OutboundSession) -> None:
        control = session.connect().get("Control")
        # Refused without ``full``: no events come, and the socket doesn't linger after the hang-up.
        entered.append((control, session.send("event plain CHANNEL_HANGUP").ok))

    server = serve(application)
    socket_app = f"socket(127.0.0.1:{server.bound_port}/click2dial async full)"
    assert sandbox_switch.bgapi(f"originate user/1000 &{socket_app}").result(5).startswith("+OK")
    eventually(lambda: entered)
    assert entered == [("single-channel", False)]

    entered.clear()
    assert sandbox_switch.bgapi(dialstring.originate({}, "user/1000", socket_app)).result(5).startswith("+OK")
    eventually(lambda: entered)
    assert entered == [("full", True)]


def test_hazard_14_custom_event_reaches_listeners(sandbox: SandboxRig, serve: Serve) -> None:
    """With a live channel's ``Unique-ID`` it would go to that channel instead."""
    heard: list[str | None] = []
    listener = switch_to(
        sandbox, events="CUSTOM esl_apps::call", on_event=lambda _switch, one: heard.append(one.get("state"))
    )

    def application(session: OutboundSession) -> None:
        session.connect()
        session.execute("playback", "silence_stream://-1")
        gevent.sleep(0.1)
        naive = f"sendevent CUSTOM\nEvent-Subclass: esl_apps::call\nUnique-ID: {session.uuid}\nstate: naive"
        session.post_raw(f"{naive}\n\n".encode())
        session.post_raw(wire.custom_event("esl_apps::call", {"esl_leg_uuid": session.uuid, "state": "ours"}))
        session.wait(lambda: False, 5)

    call = arrives(sandbox, serve(application).bound_port, before="answer")
    eventually(lambda: "ours" in heard)
    gevent.sleep(0.1)
    assert heard == ["ours"]
    call.hangup()
    listener.stop()
