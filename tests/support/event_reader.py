"""A client of ``GET /click2dial/events`` that can move to another node, as one behind a load balancer does."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.support.node import TOKEN


class Received(NamedTuple):
    id: str
    kind: str
    data: dict[str, Any]


class EventReader:
    """Reads in a thread. ``events``: all that have come, over all connections."""

    def __init__(self, address: str, query: str = "") -> None:
        self.events: list[Received] = []
        self.last = ""
        self._query = query
        self._open(address)

    def _open(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=30)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        if self.last:
            headers["Last-Event-ID"] = self.last
        self._connection.request("GET", f"/click2dial/events{self._query}", headers=headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self._thread = threading.Thread(target=self._read, args=(self._answer,), daemon=True)
        self._thread.start()

    def _read(self, answer: Iterable[bytes]) -> None:
        fields: dict[str, str] = {}
        # The connection ends when this reader moves, or its node dies.
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for raw in answer:
                line = raw.decode().rstrip("\n")
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                    continue
                self.last = fields.get("id", self.last)
                if "data" in fields:
                    self.events.append(Received(fields.get("id", ""), fields["event"], json.loads(fields["data"])))
                fields = {}

    def move(self, address: str) -> None:
        """Go on at another node, or at the same one again."""
        self.close()
        self._open(address)

    def close(self) -> None:
        sock = self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(2)
        else:
            # http.client hands the socket to an answer without an end.
            with contextlib.suppress(OSError, AttributeError):
                self._answer.fp.raw._sock.shutdown(2)  # type: ignore[attr-defined]
        self._thread.join(5)
        self._connection.close()

    def states(self, ref: str) -> list[str]:
        """What came of a call, in order: its states, ``inbound`` and ``record``."""
        events = [event for event in self.events if event.data.get("call_ref") == ref]
        return [event.data["state"] if event.kind == "call" else event.kind for event in events]
