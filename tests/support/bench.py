"""A node's parts in the test's own process: a real Redis, and switches whose event sockets the test plays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from gevent import socket

from esl_apps.apps import APPLICATIONS
from esl_apps.apps.application import Application
from esl_apps.apps.context import AppPolicy, Host
from esl_apps.apps.ending import conclude
from esl_apps.apps.ringing import Aleg
from esl_apps.config import parse
from esl_apps.config.model import Config
from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call, CallEnded
from esl_apps.core.charges import Charge
from esl_apps.core.reference import new_ref
from esl_apps.esl.session import Gone, OutboundSession
from esl_apps.node.adoption import Adoption
from esl_apps.node.call_parts import build_call_parts
from esl_apps.node.live import Live
from esl_apps.node.services import build_services
from esl_apps.store import keys
from esl_apps.store.errors import NoAnswer
from esl_apps.store.essence import Essence
from esl_apps.store.membership import Membership
from tests.support.call_switch import AT, B, CallSwitch, at, ends
from tests.support.commands import application
from tests.support.node import CDRS, RedisServer
from tests.support.peer import (
    PASSWORD,
    UUID,
    FakeSwitch,
    Peer,
    api_response,
    channel_data,
    complete,
    event,
    eventually,
    lines,
    raw_event,
)

PIN, CALLEE, DID = "482190735", "0820001234", "27115550000"
CALLER = "0825556666"
E164 = "+27820001234"


def node_config(redis_url: str, folder: Path, switches: dict[str, tuple[str, int]], **sections: Any) -> Config:
    """A node with one integrator, one account with a DISA, and an inbound number."""
    name = sections.pop("name", "app1")
    text = {
        "node": {
            "name": name,
            "listen": "127.0.0.1:8085",
            "state_dir": str(folder / "state"),
            "max_calls": sections.pop("max_calls", 5000),
        },
        "redis": {"url": redis_url},
        "switches": [
            {"name": switch, "address": f"{host}:{port}", "password": PASSWORD}
            for switch, (host, port) in switches.items()
        ],
        "dial": {"region": "ZA", "extension": "user/{number}@127.0.0.1", "external": ["sofia/gateway/pstn/{number}"]},
        "recordings": {"dir": str(folder / "recordings")},
        # Or the node would ask each switch for its recordings, in the midst of what a test looks at.
        "prompts": {"recorded": False},
        "spool": {"dir": str(folder / "switch_cdr")},
        "admin": {"token": "admin-token-for-tests"},
        "pin_key": "key-for-tests-0123456789",
        "integrators": [
            {
                "name": "acme",
                "listen": "127.0.0.1:8300",
                "token": "acme-token-for-tests",
                "caller_ids": [DID],
                "record": True,
            }
        ],
        "accounts": {"acme": {"token": "acme-cards-token", "disa": {"front": {"pin": PIN}}}},
        "inbound": {DID: {"integrator": "acme", "agents": ["1000"]}},
        "cccp": {"cccp_cb_number": "27115550008", "cccp_cc_number": "27115550009"},
        **sections,
    }
    return parse(json.dumps(text), {}, "f.yml")


class Breakable:
    """A Redis client that a test can have fail: all of it, or from the n-th command on."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.left: int | None = None
        """Commands that still succeed; None: all."""
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def ask(*args: Any, **options: Any) -> Any:
            self.asked += 1
            if self.left is not None:
                if self.left <= 0:
                    raise NoAnswer("redis: away")
                self.left -= 1
            return method(*args, **options)

        return ask if callable(method) else method

    def break_after(self, commands: int = 0) -> None:
        self.left = commands

    def mend(self) -> None:
        self.left = None


class Visitor:
    """One channel that has come to the node's event socket, and its switch's end."""

    def __init__(self, bench: Bench, headers: dict[str, object]) -> None:
        ours, theirs = socket.socketpair()
        self.session = OutboundSession(("test", 0), ours)
        self.switch = CallSwitch(Peer(theirs))
        channel = {"Caller-Channel-Created-Time": at(0), "Caller-Destination-Number": DID, **headers}
        self.switch.answers["connect"] = channel_data(channel)
        # Without it the keypad takes equal keys in a row for one, heard twice.
        self.switch.scripts["answer"] = lambda uuid: complete("answer", uuid, {"variable_dtmf_type": "rfc2833"})
        self.switch.scripts["hangup"] = lambda _uuid: self.hung_up("NORMAL_CLEARING", 16)
        self.error: Exception | None = None
        self._incoming = bench.incoming
        self.greenlet = gevent.spawn(self._serve)

    def _serve(self) -> None:
        """As the event socket's server does."""
        try:
            self._incoming.handle(self.session)
        except (Gone, CallEnded) as gone:
            self.error = gone
        except Exception as error:
            self.error = error
        finally:
            self.session.leave()

    @staticmethod
    def hung_up(cause: str, q850: int, **more: Any) -> bytes:
        return event("CHANNEL_HANGUP") + ends(cause, q850, uuid=UUID, **more)

    def types(self, pin: str = PIN, *numbers: str) -> None:
        """Have the caller type a PIN when asked for it, and a number at each dial tone; then they listen."""
        left = list(numbers)

        def playback(uuid: str) -> bytes:
            audio = application(self.switch.commands[-1])[1]
            if "enter_pin" in audio:
                return _keys(pin + "#") + complete("playback", uuid)
            if "tone_stream" in audio:
                return _keys(left.pop(0) + "#") + complete("playback", uuid) if left else b""
            return complete("playback", uuid)

        self.switch.scripts["playback"] = playback

    def loses_socket(self) -> None:
        """The connection breaks; the channel lives on."""
        self.switch.peer.close()

    def leaves(self) -> None:
        """The caller hangs up."""
        # They may have been hung up.
        with suppress(OSError):
            self.switch.say(self.hung_up("NORMAL_CLEARING", 16, variable_sip_hangup_disposition="recv_bye"))

    def served(self) -> Visitor:
        """Return once the node is done with the channel."""
        self.greenlet.join(5)
        assert self.greenlet.dead, "still served"
        # It reads what was written before the socket closed.
        self.switch.greenlet.join(5)
        return self

    @property
    def hangup_cause(self) -> str | None:
        """The cause with which the node hung the channel up."""
        return next((arg for app, arg in self.switch.executed if app == "hangup"), None)

    def close(self) -> None:
        self.greenlet.kill()
        self.session.close("the test is over")
        self.switch.peer.close()
        self.switch.greenlet.kill()


def _keys(digits: str) -> bytes:
    return b"".join(raw_event(b"key: x\ndigits: %c\n\n" % ord(digit)) for digit in digits)


class Bench:
    """The parts that ``Node`` wires, and what is around them."""

    def __init__(
        self,
        redis: RedisServer,
        folder: Path,
        *,
        switches: tuple[str, ...] = ("fs1",),
        known: dict[str, FakeSwitch] | None = None,
        **sections: Any,
    ) -> None:
        """``known``: switches of another bench, for a second node."""
        self.redis_server = redis
        self._own = {} if known is not None else {name: FakeSwitch() for name in switches}
        self.switches = self._own if known is None else known
        addresses = {name: switch.address for name, switch in self.switches.items()}
        self.config = node_config(redis.url, folder, addresses, **sections)
        self.services = build_services(self.config)
        self.redis: Breakable = self.services.redis
        parts = build_call_parts(self.services)
        self.outgoing, self.pollers, self.incoming = parts.outgoing, parts.pollers, parts.incoming
        self.adoption = Adoption(self.services, parts.following)
        self.review = parts.following.review
        self.visitors: list[Visitor] = []
        for switch in self._own.values():
            show_legs(switch)
        self.folder = folder
        self._dead = False
        self.services.store.watch.check()
        self.redis.asked = 0

    @property
    def switch(self) -> FakeSwitch:
        return next(iter(self.switches.values()))

    @property
    def live(self) -> dict[str, Any]:
        return self.services.calls.live

    def connect(self) -> Bench:
        """Connect to the switches."""
        for switch in self.services.switches:
            switch.start()
        for switch in self.services.switches:
            assert switch.wait_up(5)
        return self

    def visit(self, path: str = "disa/acme/front", **headers: Any) -> Visitor:
        """A channel comes to ``path``. ``headers``: of the channel; ``variable_…``: its variables."""
        visitor = Visitor(self, {"variable_socket_path": path, "Core-UUID": "core-1", **headers})
        self.visitors.append(visitor)
        return visitor

    def originates(self, switch: str = "fs1") -> list[str]:
        """The originates that a switch has been given."""
        return [text for text in self.switches[switch].heard if text.startswith("bgapi originate")]

    def answer_originate(self, output: str, *, switch: str = "fs1", count: int = 1) -> None:
        """Wait for a switch's originate number ``count``, and report its end: ``+OK UUID`` or ``-ERR CAUSE``."""
        eventually(lambda: len(self.originates(switch)) >= count)
        job = self.originates(switch)[count - 1].rpartition("Job-UUID: ")[2]
        self.switches[switch].say(event("BACKGROUND_JOB", {"Job-UUID": job}, body=output))

    def flush(self) -> None:
        """Write the calls that have changed to Redis, as the store's writer does within 20 ms."""
        self.services.store.flush()

    def records(self) -> list[dict[str, Any]]:
        """The notifications of ended calls, pushed and taken from Redis."""
        self.flush()
        return self.pushed(CDRS)

    def pushed(self, name: str) -> list[dict[str, Any]]:
        """The payloads of a list's notifications, which are gone from there."""
        payloads = []
        outboxes = self.services.outboxes
        # The histories first: the last part of a session makes its closing entry.
        for outbox in chain(outboxes.history, (lane for lanes in outboxes.lanes for lane in lanes)):
            batch = list(outbox._queue)
            outbox._send(batch)
            outbox._queue.clear()
        while (raw := self.redis_server.client.rpop(name)) is not None:
            payloads.append(json.loads(str(raw))["payload"])
        return payloads

    def record(self) -> dict[str, Any]:
        """The only record."""
        (payload,) = self.records()
        return payload

    def reason(self) -> tuple[str, int, str]:
        """How the only recorded call ended: ``end_reason``, ``end_code``, ``hung_up_by``."""
        found = self.record()
        return found["end_reason"], found["end_code"], found["hung_up_by"]

    def die(self) -> None:
        """The process is killed: it writes nothing more, and its files are free for its next run."""
        if self._dead:
            return
        self._dead = True
        self.services.records.closed = True
        for visitor in self.visitors:
            visitor.close()
        for switch in self.services.switches:
            switch.stop()
        self.services.call_log.close()
        for outbox in self.services.outboxes:
            outbox.stop()

    def close(self) -> None:
        self.die()
        for played in self._own.values():
            played.close()


#: Builds benches: the fixture ``build`` of tests/unit/node.
Build = Callable[..., Bench]


def essence_of(app: str = "disa", **fields: Any) -> Essence:
    """A live call, as the process that had it left it."""
    ref = fields.pop("call_ref", None) or new_ref()
    return Essence(
        **{
            "call_ref": ref,
            "session_ref": ref,
            "contact_ref": ref,
            "app": app,
            "queued_at": float(at(0)) / 1e6,
            "state": "queued",
            "call_dir": "external",
            "switch": "fs1",
            "core_uuid": "core-1",
            **fields,
        }
    )


def click_talk(bench: Bench, **fields: Any) -> Live:
    """A click-to-dial call of this process whose parties talk."""
    given = {"app": "click-dial", "number": "0820001234", "extension": "1000", "aleg_uuid": UUID, "bleg_uuid": B}
    attempt = Attempt(call_dir="outbound", integrator="acme", dial_number="27115550000", **{**given, **fields})
    live = bench.services.calls.begin(attempt, bench.services.switches[0])
    attempt.enter(terms.BRIDGED, AT)
    return live


def leave_behind(bench: Bench, *calls: Essence, name: str = "app2", silent: bool = True) -> str:
    """Calls of a process that has left (``silent``) or lives; returns its boot."""
    client = bench.redis_server.client
    roster = Membership(bench.redis, name, "127.0.0.1:9999")
    roster.say()
    for call in calls:
        client.hset(keys.live(roster.boot), call.call_ref, msgspec.json.encode(call))
    if silent:
        roster.leave()
    return roster.boot


def show_legs(switch: FakeSwitch, *legs: dict[str, object]) -> None:
    """Have the switch say that these legs are up: each as its headers, with ``Unique-ID``."""
    rows = [{"uuid": str(leg["Unique-ID"])} for leg in legs]
    listed = {"row_count": len(rows), **({"rows": rows} if rows else {})}
    for start in [start for start in switch.answers if start.startswith("api uuid_")]:
        del switch.answers[start]
    switch.answers["api show channels"] = api_response(json.dumps(listed))
    for leg in legs:
        switch.answers[f"api uuid_dump {leg['Unique-ID']}"] = api_response(lines(leg).decode() + "\n")
        switch.answers[f"api uuid_exists {leg['Unique-ID']}"] = api_response("true")
    switch.answers["api uuid_dump"] = api_response("-ERR No such channel!\n")
    switch.answers["api uuid_exists"] = api_response("false")


def pass_on(switch: FakeSwitch, subclass: str) -> None:
    """Have the switch give an event of this subclass to all nodes, as a real one does."""
    eventually(lambda: any(f"Event-Subclass: {subclass}" in text for text in switch.heard))
    text = next(text for text in switch.heard if text.startswith("sendevent") and f"Event-Subclass: {subclass}" in text)
    switch.heard.remove(text)
    headers = dict(line.split(": ", 1) for line in text.split("\n")[1:])
    for connection in switch.connections:
        # That of a node that has died is closed.
        with suppress(OSError):
            connection.say(event("CUSTOM", headers))


def probe(monkeypatch: pytest.MonkeyPatch, arrive: Callable[..., None] | None = None, **parts: Any) -> Application:
    """Register an application that does what a test says, for benches built after it."""
    app = Application(ref="probe", path="probe", title="for tests", arrive=arrive, headers=["X-Probe"], **parts)
    monkeypatch.setitem(APPLICATIONS, "probe", app)
    return app


@dataclass
class ScriptedPlaced:
    """A call that a node rings, and what its application did once A had answered."""

    attempt: Attempt
    endpoints: Sequence[str] = ("user/1000@127.0.0.1",)
    timeout: float = 5.0
    to_pay: Sequence[Charge] = ()
    answered_by: list[Call] = field(default_factory=list)

    def charges(self, policy: AppPolicy) -> list[Charge]:
        return list(self.to_pay)

    def aleg(self, policy: AppPolicy, application: str) -> Aleg:
        variables = {"esl_call_ref": self.attempt.call_ref}
        return Aleg(variables, self.endpoints, application, self.timeout)

    def answered(self, call: Call, policy: AppPolicy, host: Host) -> None:
        self.answered_by.append(call)
        self.attempt.aleg_uuid = call.uuid
        self.attempt.enter(terms.AGENT_ANSWERED, call.answered_at or time.time())
        try:
            call.hangup("NORMAL_CLEARING")
        except CallEnded:
            conclude(self.attempt, call.ended(), None, terms.CALLEE)


def placed(app: str = "click-dial", **fields: Any) -> ScriptedPlaced:
    attempt = Attempt(app=app, call_dir="internal", extension="1000", number=CALLEE, **fields)
    return ScriptedPlaced(attempt)


def write_cdr(
    bench: Bench, uuid: str, *, ref: str, answered: float = 0, q850: int = 16, hold_accum: float = 0, **variables: str
) -> None:
    """Write a leg's file, as mod_json_cdr does. Times are seconds of the call."""
    folder = Path(bench.config.spool.dir)
    folder.mkdir(exist_ok=True)
    times = {"created_time": at(0), "hangup_time": at(8), "answered_time": at(answered) if answered else 0}
    times["hold_accum_time"] = int(hold_accum * 1_000_000)
    flow = {"times": {name: str(value) for name, value in times.items()}}
    names = {"uuid": uuid, "esl_call_ref": ref, "hangup_cause_q850": str(q850), **variables}
    (folder / f"{uuid}.cdr.json").write_text(json.dumps({"variables": names, "callflow": flow}))
