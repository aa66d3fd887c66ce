"""Read all notifications from Redis, and tell which of them are due to webhooks, events and history."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from typing import Any

from esl_apps.core.notification import CDR_LIST, INBOUND_LIST
from tests.chaos.accounts import DOUBLED, MISSING, WRONG, Finding
from tests.chaos.witness import Leg

#: A notification: its type, and the reference of its call or session.
Key = tuple[str, str]


def key_of(body: dict[str, Any]) -> Key:
    kind, payload = body["type"], body["payload"]
    return kind, payload["session_ref" if kind == "session" else "call_ref"]


@dataclass
class Notified:
    records: list[dict[str, Any]] = field(default_factory=list)
    """Payloads, also of calls that belong to no integrator."""
    sessions: list[dict[str, Any]] = field(default_factory=list)
    answered: list[dict[str, Any]] = field(default_factory=list)
    """Payloads for answered inbound calls."""
    streamed: set[Key] = field(default_factory=set)
    """Those from a stream, which are certainly an integrator's."""

    @property
    def keys(self) -> set[Key]:
        return {
            *(("cdr", one["call_ref"]) for one in self.records),
            *(("session", one["session_ref"]) for one in self.sessions),
            *(("call", one["call_ref"]) for one in self.answered),
        }

    def due(self, legs: Iterable[Leg]) -> set[Key]:
        """Notifications that the integrator must have got: all but those of callers who showed no card, and so have no
        account. Legs that the switch saw with an account tell them apart."""
        refs = {ref for leg in legs if leg.variables.get("esl_account_id") for ref in leg.refs}
        refs |= {one["call_ref"] for one in self.records if one["ref"] != "dialthrough"}
        due = {key for key in self.keys if key[0] != "cdr" or key[1] in refs}
        return due | self.streamed

    def compare_sessions(self, due: set[Key], handed: Set[str] = frozenset()) -> Iterator[Finding]:
        """Each session of the integrator's has one closing entry, which counts its records.

        ``handed``: as :func:`handed_over` has them. If their call had ended by then, the next node doesn't know what it
        took, and if they leave before it has them, it closes nothing.
        """
        counts = Counter(one["session_ref"] for one in self.records)
        expected = {one["session_ref"] for one in self.records if ("cdr", one["call_ref"]) in due}
        closed = Counter(one["session_ref"] for one in self.sessions)
        for ref, times in closed.items():
            if times > 1:
                yield Finding(DOUBLED, "session", f"{times} closing entries", (ref,))
        for ref in sorted(expected - closed.keys()):
            if ref not in handed:
                yield Finding(MISSING, "session", "no closing entry", (ref,))
        for one in self.sessions:
            if one["calls"] != counts[one["session_ref"]] and one["session_ref"] not in handed:
                text = f"it counts {one['calls']} calls, and there are {counts[one['session_ref']]} records"
                yield Finding(WRONG, "session", text, (one["session_ref"],))


def handed_over(legs: Iterable[Leg]) -> set[str]:
    """References of callers whom the dialplan has handed to a node once more."""
    return {ref for leg in legs if "esl_apps_handover" in leg.variables for ref in leg.refs}


def pop(client: Any) -> Notified:
    """Take everything from the lists, and read the streams."""
    found = Notified()
    for name in (CDR_LIST, INBOUND_LIST):
        bodies = [json.loads(fields[b"json"]) for _id, fields in client.xrange(f"{name}:stream")]
        found.streamed |= {key_of(body) for body in bodies}
        while (text := client.rpop(name)) is not None:
            bodies.append(json.loads(text))
        for body in bodies:
            {"cdr": found.records, "session": found.sessions, "call": found.answered}[body["type"]].append(
                body["payload"]
            )
    return found
