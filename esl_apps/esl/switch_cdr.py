"""Read the ends of legs that no node heard from the files of mod_json_cdr, one per leg (hazard 24).

A file is turned into the event that was missed, CHANNEL_HANGUP_COMPLETE, so both are handled by the same code.

Files are written in place, so one that is incomplete is read again later. Files of legs that aren't ours are left
alone; those of calls that have their record are deleted.
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
#: The most bytes of a file; a leg's has about 20 KB.
_MOST = 4 << 20
_BATCH = 50
#: Seconds within which the file of a leg that has just ended must be complete.
WRITTEN = 3.0
#: Seconds for which a look into the folder is not repeated.
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
    """Its ``esl_call_ref``; empty if the leg isn't ours."""
    event: Event

    @property
    def bleg(self) -> bool:
        return self.event.var("esl_bleg") is not None

    @property
    def leg(self) -> Leg:
        return leg_of(self.event)


def read(path: Path) -> Kept | None:
    """Read a leg's file; None if it is incomplete or something else. :raises OSError: it can't be read."""
    if path.stat().st_size > _MOST:
        return None
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    flows = document.callflow if isinstance(document.callflow, list) else [document.callflow]
    # A transfer adds a new flow, in front. The oldest flow has the leg's first times.
    times = [flow.times for flow in flows]
    headers = {
        "Event-Name": "CHANNEL_HANGUP_COMPLETE",
        "Unique-ID": document.variables.get("uuid") or path.name.removesuffix(_SUFFIX),
        "Hangup-Cause": document.variables.get("hangup_cause", ""),
        "Caller-Channel-Created-Time": min(filter(None, (_count(flow.created_time) for flow in times)), default=0),
        "Caller-Channel-Progress-Time": _first(times, "progress_time"),
        "Caller-Channel-Progress-Media-Time": _first(times, "progress_media_time"),
        "Caller-Channel-Answered-Time": _first(times, "answered_time"),
        "Caller-Channel-Hangup-Time": max((_count(flow.hangup_time) for flow in times), default=0),
        "Caller-Channel-Hold-Accum": sum(_count(flow.hold_accum_time) for flow in times),
        **{f"variable_{name}": value for name, value in document.variables.items()},
    }
    # The variables' values are percent-encoded, as in an event. Leave out values that would break a line.
    lines = [f"{name}: {value}" for name, value in headers.items() if _LINE.fullmatch(f"{name}: {value}")]
    event = Event(b"", "\n".join(lines).encode("utf-8", "replace"), EVENT_PLAIN)
    return Kept(path, event.var("esl_call_ref") or "", event)


def _count(text: str) -> int:
    """Read a whole number; 0 if it isn't one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _first(times: list[_Times], name: str) -> int:
    return min(filter(None, (_count(getattr(flow, name)) for flow in times)), default=0)


class Spool:
    """One folder. `look` reads new files, `legs` returns what was read."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}
        """File name → the call's reference, of complete files that were read; empty if the leg isn't ours."""
        self._calls: dict[str, list[Kept]] = {}
        self._away = False
        self._looking = Semaphore()
        self._looked = -FRESH

    def look(self) -> None:
        """Read new files, and forget those that are gone. Never raises."""
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
                log.warning("spool_unreadable", extra={"folder": self._folder, "reason": str(error)})
            self._away = True
            return
        self._away = False
        for name in self._known.keys() - names:
            self._forget(name)
        for count, name in enumerate(names - self._known.keys(), 1):
            if count % _BATCH == 0:
                # Yield: after a month without a node the folder is large, and calls must not wait for it.
                gevent.sleep(0)
            path = Path(self._folder, name)
            try:
                cdr = read(path)
            except OSError:
                continue
            if cdr is not None:
                self._known[name] = cdr.ref
                if cdr.ref:
                    self._calls.setdefault(cdr.ref, []).append(cdr)

    @property
    def there(self) -> bool:
        """Whether the folder exists."""
        return not self._away

    def wait_for(self, ref: str, uuid: str) -> Event | None:
        """Wait for the file of a leg that has just ended; None if the switch writes none."""
        until = time.monotonic() + WRITTEN
        while True:
            self.look()
            event = next((cdr.event for cdr in self.legs(ref) if cdr.leg.uuid == uuid), None)
            if event is not None or not self.there or time.monotonic() > until:
                return event
            gevent.sleep(FRESH)

    def legs(self, ref: str) -> list[Kept]:
        """Return a call's legs that were read."""
        return list(self._calls.get(ref, ()))

    def calls(self) -> list[str]:
        return list(self._calls)

    def remove(self, ref: str) -> None:
        """Delete the files of a call that has its record."""
        for cdr in self._calls.pop(ref, []):
            self._known.pop(cdr.path.name, None)
            try:
                cdr.path.unlink(missing_ok=True)
            except OSError as error:
                # Not ours to delete. Remember it, so that it isn't read again.
                self._known[cdr.path.name] = ""
                log.warning("spool_file_not_deleted", extra={"file": str(cdr.path), "reason": str(error)})

    def _forget(self, name: str) -> None:
        ref = self._known.pop(name)
        left = [cdr for cdr in self._calls.get(ref, []) if cdr.path.name != name]
        if left:
            self._calls[ref] = left
        else:
            self._calls.pop(ref, None)
