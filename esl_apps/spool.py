"""What FreeSWITCH kept of legs that ended while nobody listened: the files of mod_json_cdr, one a leg (hazard 24).

They are written in place: one that is not whole yet is read later. Files of legs that are not ours stay where they
are; those of calls that have their record go.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import gevent
import msgspec
from gevent.lock import Semaphore

from esl_apps.core import causes
from esl_apps.core.call import Leg

log = logging.getLogger(__name__)

_SUFFIX = ".cdr.json"
#: A leg's file is some 20 KB; one of many more is none.
_MOST = 4 << 20
_BATCH = 50
#: Seconds for which a look into the folder holds, for all who ask.
FRESH = 0.1


class _Profile(msgspec.Struct):
    uuid: str = ""


class _Times(msgspec.Struct):
    created_time: str = "0"
    progress_time: str = "0"
    progress_media_time: str = "0"
    answered_time: str = "0"
    hangup_time: str = "0"
    hold_accum_time: str = "0"


class _Flow(msgspec.Struct):
    times: _Times = msgspec.field(default_factory=_Times)
    caller_profile: _Profile = msgspec.field(default_factory=_Profile)


class _Document(msgspec.Struct):
    variables: dict[str, str]
    callflow: list[_Flow] | _Flow = msgspec.field(default_factory=list)
    core_uuid: str = msgspec.field(default="", name="core-uuid")


@dataclass(frozen=True, slots=True)
class Kept:
    """One leg's file."""

    path: Path
    ref: str
    """Its ``esl_call_ref``; empty: no leg of ours."""
    bleg: bool
    leg: Leg


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
    times = [flow.times for flow in flows] or [_Times()]
    variables = {name: unquote(value) for name, value in one.variables.items()}
    cause = variables.get("hangup_cause")
    q850 = _count(variables.get("hangup_cause_q850", ""))
    leg = Leg(
        uuid=variables.get("uuid") or path.name.removesuffix(_SUFFIX),
        created_at=min((at for at in (_at(one.created_time) for one in times) if at), default=None),
        ringing_at=_first(times, "progress_time") or _first(times, "progress_media_time"),
        answered_at=_first(times, "answered_time"),
        ended_at=max((at for at in (_at(one.hangup_time) for one in times) if at), default=None),
        cause=cause,
        q850=q850 or causes.q850(cause),
        disposition=variables.get("sip_hangup_disposition"),
        hold_seconds=sum(_count(one.hold_accum_time) for one in times) / 1e6,
        user=variables.get("esl_user_id"),
    )
    return Kept(path, variables.get("esl_call_ref", ""), "esl_bleg" in variables, leg)


def _count(text: str) -> int:
    """A whole number; 0 where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _at(text: str) -> float | None:
    return _count(text) / 1e6 or None


def _first(times: list[_Times], name: str) -> float | None:
    return min((at for at in (_at(getattr(one, name)) for one in times) if at), default=None)


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

    def legs(self, ref: str) -> list[Kept]:
        """A call's legs, of those that were read."""
        return list(self._calls.get(ref, ()))

    def ref_of(self, uuid: str) -> str | None:
        """The call that a leg carried at its end; None where its file was not read."""
        return self._known.get(uuid + _SUFFIX)

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
