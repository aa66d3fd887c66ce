"""The legs that the switch saw, read from files that no node writes.

The sandbox's ``--legs`` file, or the folder of a real FreeSWITCH's mod_json_cdr. The nodes get links to its files,
because they remove what they have read.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_REF = re.compile(r"esl_call_ref=([0-9a-f]{8}-[0-9a-f-]{27})")


@dataclass
class Leg:
    """A leg. Times are Unix seconds, None for what did not happen."""

    uuid: str
    direction: str
    """``inbound``: a phone dialled the switch; ``outbound``: the switch rang a phone."""
    number: str
    """The number dialled."""
    caller: str
    created: float
    ringing: float | None
    answered: float | None
    bridged: float | None
    ended: float
    cause: str
    q850: int
    ended_by: str | None
    """``phone``: its own BYE, CANCEL or refusal; ``far``: the switch ended it."""
    other: str | None
    """The leg that it was last bridged to; for a B-leg that only rang, its A-leg."""
    variables: dict[str, str]
    applications: list[tuple[str, str, float]]
    killed: bool = False
    """Whether it was up when its switch was killed."""
    refs: list[str] = field(default_factory=list)
    """All values of its ``esl_call_ref``, the oldest first."""

    def __post_init__(self) -> None:
        found = [ref for _app, data, _at in self.applications for ref in _REF.findall(data)]
        own = self.variables.get("esl_call_ref")
        if own and (not found or own not in found):
            # Set when the leg was placed, before any application ran on it.
            found = [own, *found] if self.direction == "outbound" else [*found, own]
        self.refs = list(dict.fromkeys(found))

    @property
    def ref(self) -> str | None:
        """Its attempt, or the last of several."""
        return self.variables.get("esl_call_ref")

    @property
    def is_b(self) -> bool:
        return "esl_bleg" in self.variables

    @property
    def app(self) -> str:
        return self.variables.get("esl_app") or (self.variables.get("socket_path") or "-").split("/")[0]

    @property
    def ended_itself(self) -> bool:
        return self.ended_by == "phone"

    def lines(self) -> list[str]:
        """The leg for people to read: a line of times, then the applications that ran on it."""

        def stamp(at: float | None) -> str:
            return "-" if at is None else clock(at)

        kind = "B" if self.is_b else "A"
        first = (
            f"leg {kind} {self.uuid} {self.direction} {self.caller} -> {self.number} app {self.app}"
            f" created {stamp(self.created)} rang {stamp(self.ringing)} answered {stamp(self.answered)}"
            f" bridged {stamp(self.bridged)} ended {stamp(self.ended)} by {self.ended_by} {self.cause} ({self.q850})"
        )
        refs = f"    refs {' '.join(self.refs) or '-'}  variables {self.variables}"
        return [first, refs, *(f"    {clock(at)} {app} {data[:160]}" for app, data, at in self.applications)]


def clock(at: float) -> str:
    """UTC in the form of the nodes' logs."""
    return time.strftime("%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}"


class SandboxLegs:
    """The sandbox's ``--legs`` file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> list[Leg]:
        return [self._leg(json.loads(line)) for line in self._file.read_text().splitlines()]

    def _leg(self, row: dict[str, Any]) -> Leg:
        del row["status"], row["phone"], row["switch"]
        row["applications"] = [(app, data, at) for app, data, at in row["applications"]]
        return Leg(**row)

    def close(self) -> None:
        pass


class JsonCdrs:
    """mod_json_cdr's folder. The nodes read ``handed_on``, where each file appears a moment later."""

    def __init__(self, spool: Path, handed_on: Path) -> None:
        self._spool, self._handed_on = spool, handed_on
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._stop.wait(0.02):
            self._look()

    def _look(self) -> None:
        for file in os.scandir(self._spool):
            if file.name not in self._seen:
                self._seen.add(file.name)
                # A hard link is the same file: what the switch still writes arrives in it, and removing it removes one
                # name.
                os.link(file.path, self._handed_on / file.name)

    def read(self) -> list[Leg]:
        return [self._leg(file) for file in sorted(self._spool.iterdir())]

    def _leg(self, file: Path) -> Leg:
        body = json.loads(file.read_text(errors="surrogateescape"))
        flow = body["callflow"][0] if isinstance(body["callflow"], list) else body["callflow"]
        values = {name: unquote(value) for name, value in body["variables"].items()}
        profile, times = flow["caller_profile"], flow["times"]

        def at(name: str) -> float | None:
            return int(times[name]) / 1e6 or None

        others = [
            one["uuid"]
            for kind in ("originator", "originatee")
            for one in (profile.get(kind) or {}).get(f"{kind}_caller_profiles", [])
        ]
        disposition = values.get("sip_hangup_disposition", "")
        applications = (body.get("app_log") or {}).get("applications", [])
        created = at("created_time")
        assert created is not None
        return Leg(
            uuid=values["uuid"],
            direction=values["direction"],
            number=profile["destination_number"],
            caller=profile["caller_id_number"],
            created=created,
            ringing=at("progress_time"),
            answered=at("answered_time"),
            bridged=at("bridged_time"),
            ended=at("hangup_time") or created,
            cause=values.get("hangup_cause", ""),
            q850=int(values.get("hangup_cause_q850") or 0),
            ended_by="phone" if disposition.startswith("recv_") else "far" if disposition else None,
            other=others[-1] if others else None,
            variables={k: v for k, v in values.items() if k.startswith(("esl_", "socket_", "last_bridge"))},
            applications=[
                (one["app_name"], one.get("app_data", ""), int(one.get("app_stamp") or 0) / 1e6) for one in applications
            ],
        )

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def by_uuid(legs: Iterable[Leg]) -> dict[str, Leg]:
    return {leg.uuid: leg for leg in legs}
