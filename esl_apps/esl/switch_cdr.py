"""What FreeSWITCH kept of legs that ended while nobody listened: the files of mod_json_cdr, one a leg (hazard 24).

A file is read as the event that was missed, CHANNEL_HANGUP_COMPLETE, so that whoever goes by the one goes by the other.

They are written in place: one that is not whole yet is read later. Files of legs that are not ours stay where they
are; those of calls that have their record go.
"""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import gevent
import msgspec
from gevent.lock import Semaphore

from esl_apps.core.call import Leg
from esl_apps.esl.legs import leg_of
from esl_apps.esl.wire import EVENT_PLAIN, Event

log = logging.getLogger(__name__)

_SUFFIX = ".cdr.json"
_LINE = re.compile(r"[^\x00-\x1f\x7f]*")
#: A leg's file is some 20 KB; one of many more is none.
_MOST = 4 << 20
_BATCH = 50
#: Seconds for the file of a leg that has just ended to be whole.
WRITTEN = 3.0
#: Seconds for which a look into the folder holds, for all who ask.
FRESH = 0.1


class _Times(msgspec.Struct):
    created_time: str = "0"
    progress_time: str = "0"
    progress_media_time: str = "0"
    answered_time: str = "0"
    hangup_time: str = "0"
    hold_accum_time: str = "0"


class _Flow(msgspec.Struct):
    times: _Times = msgspec.field(default_factory=_Times)


class _Document(msgspec.Struct):
    variables: dict[str, str]
    callflow: list[_Flow] | _Flow = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Kept:
    """One leg's file."""

    path: Path
    ref: str
    """Its ``esl_call_ref``; empty: no leg of ours."""
    event: Event

    @property
    def bleg(self) -> bool:
        return self.event.var("esl_bleg") is not None

    @property
    def leg(self) -> Leg:
        return leg_of(self.event)


def read(path: Path) -> Kept | None:
    """A leg's file; None where it is not whole, or no such file. :raises OSError: it can't be read."""
    if path.stat().st_size > _MOST:
        return None
    try:
        one = msgspec.json.decode(path.read_bytes(), type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    flows = one.callflow if isinstance(one.callflow, list) else [one.callflow]
    # A transfer begins a new flow, written first; created and answered once, the leg is as old as the oldest says.
    times = [flow.times for flow in flows]
    headers = {
        "Event-Name": "CHANNEL_HANGUP_COMPLETE",
        "Unique-ID": one.variables.get("uuid") or path.name.removesuffix(_SUFFIX),
        "Hangup-Cause": one.variables.get("hangup_cause", ""),
        "Caller-Channel-Created-Time": min(filter(None, (_count(each.created_time) for each in times)), default=0),
        "Caller-Channel-Progress-Time": _first(times, "progress_time"),
        "Caller-Channel-Progress-Media-Time": _first(times, "progress_media_time"),
        "Caller-Channel-Answered-Time": _first(times, "answered_time"),
        "Caller-Channel-Hangup-Time": max((_count(each.hangup_time) for each in times), default=0),
        "Caller-Channel-Hold-Accum": sum(_count(each.hold_accum_time) for each in times),
        **{f"variable_{name}": value for name, value in one.variables.items()},
    }
    # The variables' values are percent-encoded, as an event's are; whatever else would be a line is none.
    lines = [f"{name}: {value}" for name, value in headers.items() if _LINE.fullmatch(f"{name}: {value}")]
    event = Event(b"", "\n".join(lines).encode("utf-8", "replace"), EVENT_PLAIN)
    return Kept(path, event.var("esl_call_ref") or "", event)


def _count(text: str) -> int:
    """A whole number; 0 where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _first(times: list[_Times], name: str) -> int:
    return min(filter(None, (_count(getattr(one, name)) for one in times)), default=0)


class Spool:
    """One folder. ``look`` reads what has come since; who asks for a call's legs gets those that were read."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}
        """File name → the call's reference, of whole files that were read; empty: not ours."""
        self._calls: dict[str, list[Kept]] = {}
        self._away = False
        self._looking = Semaphore()
        self._looked = -FRESH

    def look(self) -> None:
        """Read the files that are new, and forget those that are gone. Never raises."""
        with self._looking:
            if time.monotonic() - self._looked > FRESH:
                self._look()
                self._looked = time.monotonic()

    def _look(self) -> None:
        try:
            with os.scandir(self._folder) as entries:
                names = {entry.name for entry in entries if entry.name.endswith(_SUFFIX)}
        except OSError as error:
            if not self._away and not isinstance(error, FileNotFoundError):
                log.warning("the spool can't be read", extra={"folder": self._folder, "reason": str(error)})
            self._away = True
            return
        self._away = False
        for name in self._known.keys() - names:
            self._forget(name)
        for count, name in enumerate(names - self._known.keys(), 1):
            if count % _BATCH == 0:
                # A folder that nobody looked into for a month holds up no call.
                gevent.sleep(0)
            path = Path(self._folder, name)
            try:
                kept = read(path)
            except OSError:
                continue
            if kept is not None:
                self._known[name] = kept.ref
                if kept.ref:
                    self._calls.setdefault(kept.ref, []).append(kept)

    @property
    def there(self) -> bool:
        """Whether there is such a folder."""
        return not self._away

    def wait_for(self, ref: str, uuid: str) -> Event | None:
        """The end of a leg that has just ended; None where the switch keeps none."""
        until = time.monotonic() + WRITTEN
        while True:
            self.look()
            found = next((kept.event for kept in self.legs(ref) if kept.leg.uuid == uuid), None)
            if found is not None or not self.there or time.monotonic() > until:
                return found
            gevent.sleep(FRESH)

    def legs(self, ref: str) -> list[Kept]:
        """A call's legs, of those that were read."""
        return list(self._calls.get(ref, ()))

    def calls(self) -> list[str]:
        return list(self._calls)

    def remove(self, ref: str) -> None:
        """The call has its record: its files go."""
        for kept in self._calls.pop(ref, []):
            self._known.pop(kept.path.name, None)
            try:
                kept.path.unlink(missing_ok=True)
            except OSError as error:
                # Read-only to us: known, so that it is not read again.
                self._known[kept.path.name] = ""
                log.warning("a spool file stays", extra={"file": str(kept.path), "reason": str(error)})

    def _forget(self, name: str) -> None:
        ref = self._known.pop(name)
        left = [kept for kept in self._calls.get(ref, []) if kept.path.name != name]
        if left:
            self._calls[ref] = left
        else:
            self._calls.pop(ref, None)
