"""The part of a call that another process needs to follow it to its end, as JSON in Redis and in the call log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from esl_apps.core import node_clock
from esl_apps.core.attempt import Attempt
from esl_apps.core.call_fields import CallFields, show_times, values_of
from esl_apps.core.terms import AGENT_ANSWERED, BRIDGED, QUEUED, STATES
from esl_apps.core.versions import LIVE_CALL, NOTHING, Rest
from esl_apps.store import documents
from esl_apps.store.documents import WrongVersion
from esl_apps.store.errors import Unreadable

log = logging.getLogger(__name__)

#: One object, because msgspec leaves out a default by its identity.
_AGREES = 0.0


class Essence(CallFields, omit_defaults=True):
    """A call's fields, and where it was."""

    core_uuid: str | None = None
    """The FreeSWITCH process that had the call: if another one answers, the call is gone."""
    ahead: float = _AGREES
    """Seconds by which that process's clock was ahead of the clock of these times, the node's."""
    had_by: list[str] = msgspec.field(default_factory=list)
    """The processes that had the call before, by boot. The first one's flow runs it, if it lives after all."""

    @property
    def rest(self) -> Rest:
        """Members that a node of another version wrote and this one doesn't know."""
        return NOTHING

    def encode(self) -> bytes:
        return documents.encode(LIVE_CALL, self, self.rest)


class FoundCall(NamedTuple):
    """A live call in Redis."""

    boot: str
    """The boot of the process that has the call."""
    call: Essence


class StoredEssence(Essence, omit_defaults=True, dict=True):
    """One that was read. It keeps what isn't known here; most calls have nothing of that, and are made as the other,
    whose encoding takes a sixth fewer instructions."""

    @property
    def rest(self) -> Rest:
        raw = self.__dict__.pop("raw", None)
        if raw is not None:
            self.__dict__["rest"] = documents.rest_of(raw, StoredEssence)
        rest: Rest = self.__dict__.get("rest", NOTHING)
        return rest

    def keep(self, rest: Rest) -> StoredEssence:
        self.__dict__["rest"] = rest
        return self

    @classmethod
    def decode(cls, raw: bytes) -> StoredEssence:
        """:raises Unreadable, WrongVersion: as ``documents.decode``."""
        call = documents.decode(LIVE_CALL, raw, cls)
        # Looked through only if the call is adopted: of most calls that are read, the rest isn't asked for.
        call.__dict__["raw"] = raw
        return call

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Essence) and msgspec.structs.astuple(self) == msgspec.structs.astuple(other)

    __hash__ = None  # type: ignore[assignment]


def read_essence(raw: bytes) -> Essence | None:
    """Decode a live call as its process wrote it. None, with a log line, if it is damaged.

    :raises WrongVersion: only nodes of another version can read it.
    """
    try:
        return StoredEssence.decode(raw)
    except WrongVersion:
        raise
    except Unreadable as error:
        log.error("live_call_unreadable", extra={"reason": str(error)})
        return None


def own_version(raw: bytes) -> Essence | WrongVersion | None:
    """As `read_essence`; the error if only nodes of another version can read it."""
    try:
        return read_essence(raw)
    except WrongVersion as error:
        return error


def essence(attempt: Attempt, core_uuid: str | None, ahead: float = 0.0, had_by: Sequence[str] = ()) -> Essence:
    """``ahead``: of that process's clock, by this node's. The essence has the times as the system's clock has them."""
    shift = node_clock.clock.shift
    fields: tuple[Any, ...] = (*values_of(attempt), core_uuid, (ahead - shift) or _AGREES, list(had_by))
    result = Essence(*fields) if attempt.rest is NOTHING else StoredEssence(*fields).keep(attempt.rest)
    if shift:
        show_times(result)
    return result


def restored(known: Essence, core_uuid: str | None = None, ahead: float = 0.0) -> Attempt:
    """The attempt of a process that can no longer end it.

    Its times are those of that process's clock, or of this node's before it was set. If the same FreeSWITCH process
    (``core_uuid``) still has the call, that one's clock is known to both, and the times become this node's. ``ahead``:
    as :attr:`Essence.ahead`, by this node's clock.
    """
    fields = dict(zip(CallFields.__struct_fields__, values_of(known), strict=True))
    if known.state not in STATES:
        # Another version's: go on from the last state that its times prove.
        fields["state"] = BRIDGED if known.bridged_at else AGENT_ANSWERED if known.answered_at else QUEUED
    attempt = Attempt(**fields, rest=known.rest, is_shared=True)
    if core_uuid is not None and core_uuid == known.core_uuid:
        attempt.move(known.ahead - ahead)
    else:
        attempt.move(-node_clock.clock.shift)
    return attempt
