"""The switch's end of a call's event socket, played in place: it keeps what a flow writes and answers at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from esl_apps.esl import session as session_module
from esl_apps.esl.channel import Channel
from esl_apps.esl.session import OutboundSession
from tests.support.commands import split
from tests.support.peer import OTHER_UUID, UUID, api_response, channel_data, complete, event, raw_event, reply


class Switchboard:
    """A session's ``Stream``: every application completes, every bridged leg answers and hangs up.

    ``keys``: the keys typed at each prompt in turn; after them the caller is silent.
    """

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.sent = b""
        self._pending = b""

    def send(self, data: bytes, _timeout: float) -> None:
        self.sent += data
        for command in split(data)[0]:
            self._pending += self._answer(command.decode())

    def wait_for(self, _least: int) -> None: ...

    def recv(self, _deadline: float | None) -> bytes | None:
        pending, self._pending = self._pending, b""
        return pending or None

    def close(self) -> None: ...

    def _answer(self, command: str) -> bytes:
        if command == "connect":
            return channel_data({"Channel-Name": "sofia/external/27825556666@127.0.0.1"})
        if command.startswith("api "):
            return api_response("+OK\n")
        if not command.startswith("sendmsg"):
            return reply()
        app = re.search(r"^execute-app-name: (.*)$", command, re.MULTILINE)
        uuid = re.search(r"^Event-UUID: (.*)$", command, re.MULTILINE)
        assert app is not None
        assert uuid is not None
        happened = b""
        if app[1] == "hangup":
            ended = {"Caller-Channel-Hangup-Time": 1_700_000_060_000_000, "Hangup-Cause": "NORMAL_CLEARING"}
            return reply() + event("CHANNEL_HANGUP") + event("CHANNEL_HANGUP_COMPLETE", ended)
        if app[1] == "bridge":
            leg = {"Caller-Channel-Answered-Time": 1_700_000_000_000_000, "variable_hangup_cause_q850": 16}
            happened = event("CHANNEL_ANSWER", leg, uuid=OTHER_UUID)
            leg["Caller-Channel-Hangup-Time"] = 1_700_000_050_000_000
            happened += event("CHANNEL_HANGUP_COMPLETE", leg, uuid=OTHER_UUID)
        if app[1] == "playback" and self.keys:
            happened = b"".join(raw_event(b"key: x\ndigits: %s\n\n" % key.encode()) for key in self.keys.pop(0))
        return reply() + happened + complete(app[1], uuid[1], {"variable_dtmf_type": "rfc2833"})


@dataclass
class Caller:
    """The texts that a caller puts into their channel: variables, headers of its events, and SIP headers."""

    variables: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    sip_headers: Mapping[str, str] = field(default_factory=dict)


class CallerChannel(Channel):
    """A channel with the texts of a caller."""

    caller: Caller

    def variable(self, name: str) -> str | None:
        return self.caller.variables.get(name)

    def header(self, name: str) -> str | None:
        return self.caller.headers.get(name)

    def sip_header(self, name: str) -> str | None:
        return self.caller.sip_headers.get(name.lower())


def channel(board: Switchboard, caller: Caller | None = None) -> Channel:
    """A ``Call`` for the flows, which writes to ``board``."""
    with mock.patch.object(session_module, "Stream", lambda stream: stream):
        stream: Any = board
        session = OutboundSession(("switchboard", 0), stream)
    made = (Channel if caller is None else CallerChannel)(session, _prompt, _nowhere)
    if isinstance(made, CallerChannel) and caller is not None:
        made.caller = caller
    made.begin("01a20000-0000-7000-8000-000000000000", watched=True)
    assert made.uuid == UUID
    return made


def _prompt(name: str, _rate: int) -> str:
    return f"/prompts/{name}.wav"


def _nowhere(_uuid: str) -> None:
    return None
