"""A client that listens to events and moves to another node now and then, and the comparison of what it heard, and of
the history, with the records."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

from esl_apps.core.terms import STATES
from esl_apps.http.event_stream import HEARTBEAT
from esl_apps.operations import records
from esl_apps.store.record_history import Chosen, RecordHistory
from tests.chaos.accounts import DOUBLED, MISSING, WRONG, Finding

#: Places of a call's events among each other.
_ORDER = [*(("call", state) for state in STATES), ("record", "ended")]


@dataclass(frozen=True)
class Heard:
    id: tuple[int, int]
    kind: str
    ref: str
    state: str
    at: float


class Listener:
    def __init__(
        self, addresses: Callable[[], Sequence[str]], token: str, seed: int, stays: tuple[float, float] = (1.0, 6.0)
    ) -> None:
        """``addresses``: of the nodes' ports. ``stays``: the least and most seconds until it moves."""
        self.heard: list[Heard] = []
        self.faults: list[tuple[str, float]] = []
        """What the stream itself said is missing, and when."""
        self._addresses = addresses
        self._token = token
        self._stays = stays
        self._random = random.Random(seed)
        self._last = ""
        self._stopped = threading.Event()
        self._socket: socket.socket | None = None
        self._moves = True
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stay(self) -> None:
        """Move no more: a node notices at its next event or heartbeat that a client has left."""
        self._moves = False

    def stop(self) -> None:
        self._stopped.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._listen(self._random.choice(list(self._addresses())), self._random.uniform(*self._stays))
            self._stopped.wait(0.1)

    def _listen(self, address: str, seconds: float) -> None:
        host, _, port = address.rpartition(":")
        # Once it stays, it hears no more than heartbeats: without an end, it would begin again each second, and each
        # time leave a connection behind until the node's next heartbeat.
        connection = http.client.HTTPConnection(host, int(port), timeout=1.0 if self._moves else 2 * HEARTBEAT)
        headers = {"Authorization": f"Bearer {self._token}"}
        if self._last:
            headers["Last-Event-ID"] = self._last
        with contextlib.closing(connection):
            connection.request("GET", "/click2dial/events", headers=headers)
            self._socket = connection.sock
            answer = connection.getresponse()
            if answer.status != 200:
                return
            self._read(answer, time.monotonic() + seconds)

    def _read(self, answer: http.client.HTTPResponse, until: float) -> None:
        fields: dict[str, str] = {}
        while (time.monotonic() < until or not self._moves) and not self._stopped.is_set():
            raw = answer.readline()
            if not raw.endswith(b"\n"):
                # The end of the stream. An event that isn't whole comes again.
                return
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
                continue
            self._take(fields)
            fields = {}

    def _take(self, fields: dict[str, str]) -> None:
        self._last = fields.get("id", self._last)
        if "data" not in fields:
            return
        data = json.loads(fields["data"])
        if "id" not in fields:
            if fields["event"] == "gap":
                self.faults.append((f"a gap: {data['reason']}", time.time()))
            return
        ms, _, count = self._last.partition("-")
        event = Heard((int(ms), int(count)), fields["event"], data["call_ref"], data["state"], time.time())
        self.heard.append(event)


def compare(
    heard: Iterable[Heard],
    due: Set[str],
    recorded: Set[str],
    faults: Iterable[tuple[str, float]],
    lost: Callable[[float], bool],
) -> list[Finding]:
    """Compare what a listener heard with the records. ``due``, ``recorded``, ``lost``: as ``receiver.compare``."""
    findings = [Finding(WRONG, "events", text, at=at) for text, at in faults if not lost(at)]
    reached: dict[str, int] = {}
    last = (0, 0)
    for one in heard:
        if one.id <= last and not lost(one.at):
            findings.append(Finding(DOUBLED, "events", f"{one.id} came after {last}", (one.ref,), at=one.at))
        last = max(last, one.id)
        if one.kind == "inbound":
            continue
        place = _ORDER.index((one.kind, one.state))
        if place <= reached.get(one.ref, -1) and not lost(one.at):
            findings.append(Finding(DOUBLED, "events", f"{one.kind} {one.state} again", (one.ref,), at=one.at))
        reached[one.ref] = max(place, reached.get(one.ref, -1))
    ended = {ref for ref, place in reached.items() if place == len(_ORDER) - 1}
    findings += [Finding(MISSING, "events", "no event of its record", (ref,)) for ref in sorted(due - ended)]
    unknown = ended - recorded
    return findings + [Finding(WRONG, "events", "there is no such record", (ref,)) for ref in sorted(unknown)]


def in_history(client: Any) -> list[str]:
    """The references of all records that can be asked for."""
    found: list[str] = []
    before: str | None = None
    while True:
        page, before = records.page(RecordHistory(client), ["acme"], Chosen(), 1000, before)
        found += [record["call_ref"] for record in page]
        if before is None:
            return found


def compare_history(kept: Sequence[str], due: Set[str], recorded: Set[str]) -> list[Finding]:
    twice = sorted({ref for ref in kept if kept.count(ref) > 1}) if len(set(kept)) < len(kept) else []
    findings = [Finding(DOUBLED, "history", "kept twice", (ref,)) for ref in twice]
    findings += [Finding(MISSING, "history", "a record is not kept", (ref,)) for ref in sorted(due - set(kept))]
    return findings + [
        Finding(WRONG, "history", "there is no such record", (ref,)) for ref in sorted(set(kept) - recorded)
    ]
