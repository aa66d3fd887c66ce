"""A scripted switch at the other end of one call's socket.

It answers every command and completes every application at once, except those for which a test has a script.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import gevent
from gevent import socket

from esl_apps.esl.channel import Channel
from esl_apps.esl.session import OutboundSession
from esl_apps.esl.wire import Event
from tests.support.commands import application
from tests.support.peer import Peer, api_response, app_uuid, channel_data, complete, event, reply

B, C = "bbbbbbbb-2222-4333-8444-555555555555", "cccccccc-2222-4333-8444-555555555555"
AT = 1_700_000_000
"""When the call came, in seconds."""

Reaction = Callable[[str], bytes]
"""Takes an application's ``Event-UUID`` and returns the frames that follow its reply."""


def at(seconds: float) -> int:
    """Return an instant of the call as the switch writes it."""
    return int((AT + seconds) * 1_000_000)


class CallSwitch:
    """The other end of one call's socket."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.stops_after: int | None = None
        """After so many commands it does nothing more, as a stopped process, or closes if ``closes`` is set."""
        self.closes = False
        self.commands: list[str] = []
        self.scripts: dict[str, Reaction] = {}
        """Reactions by application."""
        self.answers: dict[str, bytes] = {}
        """Replies in place of ``+OK``, by the start of a command."""
        self.greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        # The other side may close without waiting for the replies to its last commands.
        with suppress(OSError):
            self._obey()

    def _obey(self) -> None:
        for command in self.peer.commands():
            if self.stops_after == len(self.commands):
                if self.closes:
                    self.peer.close()
                return
            self.commands.append(command)
            answer = api_response("+OK") if command.startswith("api") else reply()
            for start, text in self.answers.items():
                if command.startswith(start):
                    answer = text
            self.peer.say(answer)
            if command.startswith("sendmsg") and "call-command: execute" in command:
                app, uuid = application(command)[0], app_uuid(command)
                script = self.scripts.get(app)
                self.peer.say(script(uuid) if script else complete(app, uuid))
            elif command.startswith("api hupall"):
                script = self.scripts.get("hupall")
                if script:
                    self.peer.say(script(""))

    def say(self, *frames: bytes) -> None:
        self.peer.say(*frames)

    @property
    def executed(self) -> list[tuple[str, str]]:
        """The executed applications and their arguments, in order."""
        return [application(command) for command in self.commands if command.startswith("sendmsg")]

    def settle(self) -> None:
        gevent.sleep(0.01)
        # A machine that was busy wakes this greenlet before the switch has read.
        gevent.idle()


Ends = dict[str, Event]


def new_call(headers: dict[str, object], elsewhere: Ends | None = None) -> tuple[Channel, CallSwitch, OutboundSession]:
    """Return a connected channel, its switch, and its session. ``elsewhere``: ends of A-legs from another source."""
    ours, theirs = socket.socketpair()
    peer = Peer(theirs)
    peer.say(channel_data({"Caller-Channel-Created-Time": at(0), **headers}), reply())
    session = OutboundSession(("test", 0), ours)
    known = {} if elsewhere is None else elsewhere
    made = Channel(session, lambda name, rate: f"/prompts/{rate}/{name}.wav", known.get)
    assert peer.pending() == ["connect", "linger 5"]
    return made, CallSwitch(peer), session


def rings(uuid: str = B, **more: object) -> bytes:
    return event("CHANNEL_PROGRESS", {"Caller-Channel-Progress-Time": at(1), **more}, uuid=uuid)


def answers(uuid: str = B, **more: object) -> bytes:
    times = {"Caller-Channel-Progress-Time": at(1), "Caller-Channel-Answered-Time": at(3)}
    return event("CHANNEL_ANSWER", {**times, **more}, uuid=uuid)


def ends(cause: str, q850: int, *, uuid: str = B, when: float = 9, answered: bool = False, **more: object) -> bytes:
    head: dict[str, object] = {
        "Hangup-Cause": cause,
        "variable_hangup_cause_q850": q850,
        "Caller-Channel-Hangup-Time": at(when),
        **more,
    }
    if answered:
        head["Caller-Channel-Answered-Time"] = at(3)
    return event("CHANNEL_HANGUP_COMPLETE", head, uuid=uuid)


def bridge_over(uuid: str, **variables: object) -> bytes:
    named = {f"variable_{name}": value for name, value in variables.items()}
    return complete("bridge", uuid, {"Answer-State": "answered", **named})
