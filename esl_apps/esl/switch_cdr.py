"""Read the ends of legs that no node heard from the files of mod_json_cdr, one per leg (hazard 24).

A file is turned into the event that was missed, CHANNEL_HANGUP_COMPLETE, so both are handled by the same code.

Files are written in place, so one that is incomplete is read again later, at growing intervals. Files of legs that
aren't ours are left alone; those of calls that have their record are deleted. Others can write to the folder: it is
touched in threads, and only regular files of a limited size are read.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import gevent
import msgspec
from gevent.lock import Semaphore

from esl_apps.core.call import Leg
from esl_apps.esl.legs import leg_of
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.esl.wire import EVENT_PLAIN, Event
from esl_apps.process import files
from esl_apps.process.folder import Folder

log = logging.getLogger(__name__)

_SUFFIX = ".cdr.json"
_LINE = re.compile(r"[^\x00-\x1f\x7f]*")
#: The most bytes of a file; a leg's has about 20 KB.
_MOST = 4 << 20
#: Files, and bytes, that one piece of work in a thread reads.
_BATCH, _BATCH_BYTES = 20, 8 << 20
#: Seconds after which a file that is still incomplete is reported: the switch writes one within milliseconds.
_INCOMPLETE = 60.0
#: The longest interval, in seconds, at which an incomplete file is read again.
_RARELY = 600.0
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
class LegCdr:
    """One leg's CDR, as the event of its end."""

    ref: str
    """Its ``esl_call_ref``; empty if the leg isn't ours."""
    event: Event

    @property
    def bleg(self) -> bool:
        return self.event.var("esl_bleg") is not None

    @property
    def uuid(self) -> str:
        return self.event.uuid or ""

    def leg(self, clock: SwitchClock) -> Leg:
        """``clock``: that of the switch that wrote the file."""
        return leg_of(self.event, clock)


def parse(name: str, content: bytes) -> LegCdr | None:
    """Read a leg's CDR from the name and the content of its file; None if that is incomplete or something else."""
    try:
        document = msgspec.json.decode(content, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    flows = document.callflow if isinstance(document.callflow, list) else [document.callflow]
    # A transfer adds a new flow, in front. The oldest flow has the leg's first times.
    times = [flow.times for flow in flows]
    headers = {
        "Event-Name": "CHANNEL_HANGUP_COMPLETE",
        "Unique-ID": document.variables.get("uuid") or name.removesuffix(_SUFFIX),
        "Hangup-Cause": document.variables.get("hangup_cause", ""),
        "Caller-Channel-Created-Time": min(filter(None, (_count(flow.created_time) for flow in times)), default=0),
        "Caller-Channel-Progress-Time": _first(times, "progress_time"),
        "Caller-Channel-Progress-Media-Time": _first(times, "progress_media_time"),
        "Caller-Channel-Answered-Time": _first(times, "answered_time"),
        "Caller-Channel-Hangup-Time": max((_count(flow.hangup_time) for flow in times), default=0),
        # As in the leg's event.
        "Caller-Channel-Hold-Accum": _count(times[0].hold_accum_time) if times else 0,
        **{f"variable_{name}": value for name, value in document.variables.items()},
    }
    # The variables' values are percent-encoded, as in an event. Leave out values that would break a line.
    lines = [f"{name}: {value}" for name, value in headers.items() if _LINE.fullmatch(f"{name}: {value}")]
    event = Event(b"", "\n".join(lines).encode("utf-8", "replace"), EVENT_PLAIN)
    return LegCdr(event.var("esl_call_ref") or "", event)


def _count(text: str) -> int:
    """Read a whole number; 0 if it isn't one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _first(times: list[_Times], name: str) -> int:
    return min(filter(None, (_count(getattr(flow, name)) for flow in times)), default=0)


@dataclass(frozen=True, slots=True)
class _Content:
    """What a thread has read of one file."""

    name: str
    content: bytes = b""
    written_at: float = 0.0
    """Unix seconds."""
    fault: str = ""
    """Why it isn't readable; empty if it is."""


def _list(folder: str) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name.endswith(_SUFFIX)}


def _read_all(folder: str, names: Iterable[str]) -> list[_Content]:
    """Read files, the first ones only if they are large. Those that are gone are left out."""
    contents: list[_Content] = []
    left = _BATCH_BYTES
    for name in names:
        path = os.path.join(folder, name)
        try:
            content = files.read_regular(path, _MOST)
            contents.append(_Content(name, content, os.lstat(path).st_mtime))
        except FileNotFoundError:
            continue
        except OSError as error:
            contents.append(_Content(name, fault=error.strerror or str(error)))
            continue
        left -= len(content)
        if left <= 0:
            break
    return contents


class Spool:
    """One folder. `look` reads new files, `legs` returns what they hold.

    Only names are kept: a folder that grew for a month must not grow in memory.
    """

    def __init__(self, folder: str, disk: Folder | None = None) -> None:
        self._folder = folder
        self._disk = disk or Folder("spool")
        self._known: dict[str, str] = {}
        """File name → the call's reference, of complete files that were read; empty if the leg isn't ours."""
        self._calls: dict[str, dict[str, float]] = {}
        """The call's reference → its files' names, and when they were written (Unix seconds)."""
        self._put_off: dict[str, tuple[float, float]] = {}
        """File name → when it was first seen and when to read it again, of files that are incomplete or unreadable."""
        self._reported: set[str] = set()
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
            names = self._disk.run(_list, self._folder)
            for name in self._known.keys() - names:
                self._forget(name)
            for name in self._put_off.keys() - names:
                del self._put_off[name]
            self._reported &= self._put_off.keys()
            self._read_new(names)
            self._away = False
        except OSError as error:
            if not self._away and not isinstance(error, FileNotFoundError):
                log.warning("spool_unreadable", extra={"folder": self._folder, "reason": str(error)})
            self._away = True

    def _read_new(self, names: set[str]) -> None:
        """:raises OSError: the folder doesn't answer."""
        now = time.monotonic()
        new = [name for name in names - self._known.keys() if self._put_off.get(name, (0.0, 0.0))[1] <= now]
        stale: list[_Content] = []
        while new:
            batch = new[-_BATCH:]
            contents = self._disk.run(_read_all, self._folder, reversed(batch))
            # Fewer than asked for if they are large: the rest comes with the next batch.
            last = contents[-1].name if contents else batch[0]
            del new[len(new) - len(batch) + batch.index(last) :]
            for content in contents:
                if not self._take(content) and self._put_off_again(content.name, now):
                    stale.append(content)
            # Yield: after a month without a node the folder is large, and calls must not wait for it.
            gevent.sleep(0)
        if stale:
            reason = stale[0].fault or "incomplete"
            path = os.path.join(self._folder, stale[0].name)
            log.warning("spool_files_unreadable", extra={"files": len(stale), "first": path, "reason": reason})

    def _take(self, content: _Content) -> bool:
        """Note whose file this is. False: it isn't complete."""
        cdr = None if content.fault else parse(content.name, content.content)
        if cdr is None:
            return False
        self._put_off.pop(content.name, None)
        self._known[content.name] = cdr.ref
        if cdr.ref:
            self._calls.setdefault(cdr.ref, {})[content.name] = content.written_at
        return True

    def _put_off_again(self, name: str, now: float) -> bool:
        """Read a file again later. True: it has been unreadable for long, and this is to be reported now."""
        first = self._put_off.get(name, (now, now))[0]
        self._put_off[name] = first, now + min(max(FRESH, (now - first) / 2), _RARELY)
        if now - first < _INCOMPLETE or name in self._reported:
            return False
        self._reported.add(name)
        return True

    @property
    def there(self) -> bool:
        """Whether the folder exists, and answers."""
        return not self._away

    def wait_for(self, ref: str, uuid: str) -> Event | None:
        """Wait for the file of a leg that has just ended; None if the switch writes none."""
        until = time.monotonic() + WRITTEN
        while True:
            self.look()
            event = next((cdr.event for cdr in self.legs(ref) if cdr.uuid == uuid), None)
            if event is not None or not self.there or time.monotonic() > until:
                return event
            gevent.sleep(FRESH)

    def legs(self, ref: str) -> list[LegCdr]:
        """Read a call's legs from their files; those that can't be read any more are left out."""
        names = list(self._calls.get(ref, ()))
        try:
            contents = self._disk.run(_read_all, self._folder, names) if names else []
        except OSError:
            return []
        legs = (parse(content.name, content.content) for content in contents)
        return [leg for leg in legs if leg is not None]

    def calls(self) -> dict[str, float]:
        """The calls that have files, and when the newest of each was written (Unix seconds)."""
        return {ref: max(names.values()) for ref, names in self._calls.items()}

    def remove(self, ref: str) -> None:
        """Delete the files of a call that has its record."""
        for name in self._calls.pop(ref, ()):
            self._known.pop(name, None)
            path = os.path.join(self._folder, name)
            try:
                self._disk.run(_delete, path)
            except OSError as error:
                # Not ours to delete. Remember it, so that it isn't read again.
                self._known[name] = ""
                log.warning("spool_file_not_deleted", extra={"file": path, "reason": str(error)})

    def _forget(self, name: str) -> None:
        ref = self._known.pop(name)
        names = self._calls.get(ref, {})
        names.pop(name, None)
        if not names:
            self._calls.pop(ref, None)


def _delete(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
