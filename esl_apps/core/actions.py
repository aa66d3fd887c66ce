"""Actions on a live call: what a client may ask for, and what comes of it.

An action reaches the node that has the call as JSON through the switch (``node.acting``), so each part is plain data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from esl_apps.core import talk
from esl_apps.core.attempt import Attempt
from esl_apps.core.status import Ref, State

CANCEL, HOLD, RESUME, MUTE, UNMUTE, DIGITS, RECORD = "cancel", "hold", "resume", "mute", "unmute", "digits", "record"
TRANSFER, COMPLETE, TAKE_BACK = "transfer", "transfer/complete", "transfer/cancel"
#: A phone asks to join the other parties of two calls of its own, and the first call's node asks for the second one's.
ATTENDED, JOIN = "transfer/attended", "transfer/join"
#: The values of ``mode``.
BLIND, CONSULT = "blind", "consult"
#: A consultation's node tells the node of the call on hold how it ended: the party that asked is back, has gone, or has
#: left the other two to each other.
CONSULTED = "consulted"
BACK, GONE, JOINED = "back", "gone", "joined"
#: The node of a call on hold tells the consultation's that the party on hold has left.
PARTED = "parted"
#: The steps of ``record``, next to RESUME.
START, PAUSE, STOP = "start", "pause", "stop"
#: Keys of a phone (RFC 4733). A longer text is sent in several actions.
KEYS = re.compile(r"[0-9A-Da-d*#]{1,64}")


class Action(Struct, frozen=True, omit_defaults=True):
    """One action, checked by the node that was asked."""

    name: str
    party: str = ""
    """``agent`` or ``callee``: who is muted, or hears the digits."""
    digits: str = ""
    step: str = ""
    """Start, pause, resume or stop (``record``); how it ended (``consulted``)."""
    to: str = ""
    """The number or extension that the party which stays is connected with (``transfer``); the agent who leaves
    (``transfer/join``)."""
    by: str = ""
    """The party that leaves (``transfer``)."""
    mode: str = BLIND
    """Whether that party talks with the new one first (``transfer``)."""
    ref: str = ""
    """The consultation (``consulted``); the Call-ID of the phone's other call (``transfer/attended``); its leg there
    (``transfer/join``)."""
    leg: str = ""
    """The UUID of the new party's leg (``consulted``), or of the one that the switch has taken out of its bridge, as
    the party that leaves asked with its phone (``transfer``); of that party's own (``transfer/attended``), or of the
    one that the other party is joined with (``transfer/join``)."""
    next: str = ""
    """The call in which the two parties that are left are joined (``consulted``, ``transfer/join``)."""
    session: str = ""
    """That call's session (``transfer/join``)."""
    seconds: float | None = None
    """Those of the leg that asks which are in the records until now; None: no node placed it (``parted``). Those since
    its end; None: it isn't known (``consulted``)."""
    shared: float | None = 0.0
    """Seconds of the new party's leg that other records have; None: no node placed it (``consulted``)."""
    agent: str = ""
    """The agent whose token asks. The call's node checks whether they may: others' snapshots are a moment behind."""
    gateway: str | None = None
    """The gateway that carries the new party (``consulted``)."""
    recorded: bool | None = None
    """Whether the new party's call before was being recorded at its end; None: its node is of an earlier version
    (``consulted``)."""


class CallState(Struct, frozen=True):
    """A call after an action: the answer's body."""

    call_ref: Ref
    state: State
    held: bool
    muted: Annotated[list[str], Meta(description="The parties that the other one doesn't hear")]
    recording: Annotated[str, Meta(extra_json_schema={"enum": [talk.ON, talk.PAUSED, talk.OFF]})]
    transfer_ref: (
        Annotated[Ref, Meta(description="The call in which a party goes on, or asks a third one")] | UnsetType
    ) = UNSET


#: The code of an :class:`Undone` whose action may have been done: the switch, or the call's node, doesn't say.
UNKNOWN = "unknown"


class Undone(Exception):
    """The action was not done: ``status`` is HTTP's, ``state`` the call's if that is the reason."""

    def __init__(self, status: int, code: str, message: str, *, field: str = "", state: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field, self.state = status, code, message, field, state


class Unanswered(Undone):
    """The call's node doesn't answer in time. It may have begun the action."""

    def __init__(self) -> None:
        super().__init__(503, UNKNOWN, "the call's node doesn't answer")


class Outcome(Struct, omit_defaults=True):
    """An action's outcome, as it goes from one node to another."""

    done: CallState | None = None
    undone: dict[str, str | int] = field(default_factory=dict)
    """The parts of an ``Undone``."""
    ago: float = 0.0
    """Seconds since the call ended by it (``transfer/join``)."""
    recorded: bool | None = None
    """Whether that was being recorded then; None: its node is of an earlier version."""


def state_of(attempt: Attempt) -> CallState:
    went_on = attempt.transferred_to or attempt.consultation or UNSET
    return CallState(attempt.call_ref, attempt.state, attempt.held, list(attempt.muted), attempt.recording, went_on)


def was_recorded(call: Mapping[str, Any]) -> bool:
    """Return whether a call was being recorded at its end, by its status, which has a client's steps."""
    steps = [entry["detail"] for entry in call.get("decisions") or () if entry["what"] == RECORD]
    if steps:
        return steps[-1] in (START, RESUME)
    return (call.get("record") or {}).get("recording_url") is not None


def not_now(attempt: Attempt, message: str) -> Undone:
    """Return the refusal of an action that the call's state doesn't allow."""
    return Undone(409, "state", message, state=attempt.state)


def outcome_of(undone: Undone) -> Outcome:
    parts = ("status", "code", "message", "field", "state")
    return Outcome(undone={name: getattr(undone, name) for name in parts})


def result(outcome: Outcome) -> CallState:
    """Return an outcome that another node has sent. :raises Undone: it was not done."""
    if outcome.done is not None:
        return outcome.done
    status = outcome.undone.get("status")
    text = {name: str(outcome.undone.get(name, "")) for name in ("code", "message", "field", "state")}
    raise Undone(
        status if isinstance(status, int) else 503,
        text["code"] or "unavailable",
        text["message"],
        field=text["field"],
        state=text["state"],
    )
