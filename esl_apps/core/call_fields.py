"""The fields of a call, each declared once.

Everything that holds, keeps or shows a call is derived from :class:`CallFields`: the live attempt, its JSON in Redis
and in the call log, the record of its end, the status, the notifications and their schemas. A field added here is kept
through the death of its node without another line; with :class:`Shown` it is published, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any, TypedDict, get_args, get_type_hints

import msgspec
from msgspec.structs import astuple

from esl_apps.core import node_clock
from esl_apps.core.quality import CallQuality, RingSeconds
from esl_apps.core.terms import CALLEE

#: A text that goes into commands to a switch. It may come from Redis, which others can write to. (``$`` alone would
#: allow a line feed behind it, and ``\Z`` is none of OpenAPI's.)
Plain = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9.-]{1,64}(?!\n)$")]

#: A language of prompts. It goes into the path of a file, so it has no dots.
Language = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?!\n)$")]


@dataclass(frozen=True, slots=True)
class Shown:
    """Under which key a field is published; None: not there."""

    status: str | None = None
    """In a call's status: ``GET /click2dial/calls/REF``."""
    cdr: str | None = None
    """In the record: the payload of ``enigma:notifications:cdr``, and over HTTP."""
    inbound: str | None = None
    """In the payload of ``enigma:notifications:inbound``."""


class RecordingFile(msgspec.Struct, frozen=True):
    """A recording as it lies in its folder."""

    seconds: float
    bytes: int
    sha256: str
    channels: int
    rate: int
    """Samples a second."""


class RungAgent(TypedDict):
    """How one agent of an inbound call fared."""

    agent: str
    seconds: int
    """For which their phones rang."""
    end_reason: str | None
    """``answered``, ``no_answer``, ``busy``, ``failed``, ``elsewhere`` (another agent answered), ``abandoned`` (the
    caller left) or ``cancelled``; None: they are being rung, or it isn't known."""
    end_code: int | None
    """Q.850, 1 to 127."""


class Before(msgspec.Struct):
    """What the records of a session have had before this one."""

    calls: int = 0
    a_seconds: float = 0.0
    b_seconds: float = 0.0
    aleg: float | None = None
    """The seconds of the A-leg among them; None: ``a_seconds``. After a transfer, A was another one's leg before."""
    bleg: float | None = 0.0
    """Those of the B-leg; None: no node placed it. B was another call's before if its party was consulted, or was
    joined with this call by a phone."""

    @property
    def of_aleg(self) -> float:
        return self.a_seconds if self.aleg is None else self.aleg


class CallFields(msgspec.Struct):
    """Everything that is known of a call. Times are Unix seconds with fractions; None: it has not happened."""

    call_ref: Annotated[Plain, Shown(status="call_ref", cdr="call_ref", inbound="call_ref")]
    session_ref: Annotated[Plain, Shown(status="session_ref", cdr="session_ref", inbound="session_ref")]
    """The first ``call_ref`` of its session, in which one caller may dial several numbers."""
    contact_ref: Annotated[str, Shown(status="contact_ref", cdr="contact_ref", inbound="contact_ref")]
    """The client's reference; the ``call_ref`` if it gave none."""
    app: Annotated[str, Shown(status="app", cdr="ref")]
    queued_at: float
    state: Annotated[str, Shown(status="state")]
    call_dir: Annotated[str, Shown(status="call_dir", cdr="call_dir", inbound="call_dir")]
    integrator: Annotated[str | None, Shown(status="integrator")] = None
    account_id: Annotated[str | None, Shown(cdr="account_id")] = None
    card_id: Annotated[str | None, Shown(cdr="card_id")] = None
    """The card that let its caller in, or was called back."""
    user_id: Annotated[str | None, Shown(cdr="user_id")] = None
    """The card's user."""
    extension: Annotated[str | None, Shown(status="agent", cdr="extension", inbound="ref")] = None
    """A's party: the agent, the caller's number or their card, the number called back."""
    number: Annotated[str | None, Shown(status="callee", cdr="number", inbound="number")] = None
    """B's."""
    number_e164: Annotated[str | None, Shown(cdr="number_e164", inbound="number_e164")] = None
    """B's number with ``+``; None for an extension, an emergency number or a withheld one."""
    number_class: Annotated[str | None, Shown(cdr="class")] = None
    """B's class (``Number.klass``)."""
    country: Annotated[str | None, Shown(cdr="country", inbound="country")] = None
    """B's country, ISO 3166 alpha-2."""
    extension_e164: Annotated[str | None, Shown(cdr="extension_e164")] = None
    """The same of A's party."""
    extension_class: Annotated[str | None, Shown(cdr="extension_class")] = None
    extension_country: Annotated[str | None, Shown(cdr="extension_country")] = None
    dial_number: Annotated[str | None, Shown(status="outbound_id", cdr="dial_number", inbound="dial_number")] = None
    """The number that B is shown; inbound: the number dialled."""
    dialed_at: Annotated[float | None, Shown(status="dialed_at", cdr="dialed_at")] = None
    """The first INVITE, in or out."""
    answered_at: Annotated[float | None, Shown(status="answered_at", cdr="answered_at")] = None
    bridged_at: Annotated[float | None, Shown(status="bridged_at", cdr="bridged_at")] = None
    """When B answered."""
    hold_time: Annotated[int, Shown(cdr="hold_time", inbound="hold_time")] = 0
    """Whole seconds: inbound from arrival to answer, otherwise on hold."""
    metadata: Annotated[dict[str, str] | None, Shown(status="metadata", cdr="metadata")] = None
    """The client's own data."""
    agents: Annotated[list[RungAgent] | None, Shown(status="agents", cdr="agents")] = None
    """Inbound: the agents that were rung."""
    agents_outside: list[str] = msgspec.field(default_factory=list)
    """Those of them with outside numbers."""
    cancelled_by: str | None = None
    recording_url: Annotated[Plain | None, Shown(cdr="recording_url")] = None
    aleg_uuid: Plain | None = None
    bleg_uuid: Plain | None = None
    """The leg that A is connected with."""
    held: Annotated[bool, Shown(status="held")] = False
    """The client has put the customer on hold (``hold``)."""
    muted: Annotated[list[str], Shown(status="muted")] = msgspec.field(default_factory=list)
    """The parties that the other one doesn't hear: ``agent``, ``callee``."""
    recording: Annotated[str, Shown(status="recording")] = "off"
    """``on``, ``paused`` or ``off``."""
    mute_time: Annotated[int, Shown(cdr="mute_time")] = 0
    """Whole seconds for which a party was muted."""
    recording_paused: Annotated[int, Shown(cdr="recording_paused")] = 0
    """Whole seconds of silence in the recording because it was paused."""
    recording_file: Annotated[RecordingFile | None, Shown(cdr="recording")] = None
    """The file of ``recording_url``, once it is complete."""
    transferred_from: Annotated[Plain | None, Shown(cdr="transferred_from")] = None
    """The ``call_ref`` from which one of its parties came."""
    transferred_to: Annotated[Plain | None, Shown(cdr="transferred_to")] = None
    """The ``call_ref`` in which one of its parties went on."""
    consultation: Annotated[Plain | None, Shown(status="consultation")] = None
    """The ``call_ref`` in which one of its parties asks a third, while the other one is on hold."""
    consults: str | None = None
    """The party that asks: ``agent`` or ``callee``."""
    asks_emergency: bool = False
    """The third is an emergency number."""
    followed: bool = False
    """No flow runs it any more: the switch joined its legs itself, and says how they end."""
    since: dict[str, float] = msgspec.field(default_factory=dict)
    """Stretches that go on (``core.talk``): when each began, in seconds since the two were connected."""
    spent: dict[str, float] = msgspec.field(default_factory=dict)
    """Seconds of the stretches that are over."""
    switch: Annotated[str | None, Shown(status="switch", cdr="switch")] = None
    placed: bool = False
    """A node rang A."""
    claimed: bool = False
    """``extension`` is what a caller shows, who can show any number: it isn't known to be theirs."""
    agent_ringing_at: float | None = None
    callee_ringing_at: float | None = None
    session_at: float | None = None
    """The first INVITE of its session."""
    session_answered_at: float | None = None
    """When A answered, or was answered, in its session."""
    before: Before | None = None
    """None: it is the session's first."""
    apart: list[str] = msgspec.field(default_factory=list)
    """Calls of its session that aren't in ``before``: each leaves its part in Redis (``session_parts``), perhaps from
    another node."""
    ring_seconds: Annotated[RingSeconds | None, Shown(cdr="ring_seconds")] = None
    a_seconds: Annotated[float | None, Shown(cdr="a_seconds")] = None
    """From A's answer to its end, in this record, if a node placed it."""
    b_seconds: Annotated[float | None, Shown(cdr="b_seconds")] = None
    """From B's answer to its end."""
    gateway: Annotated[str | None, Shown(status="gateway", cdr="gateway")] = None
    """The gateway that carries B."""
    gateways_failed: Annotated[list[str], Shown(cdr="gateways_failed")] = msgspec.field(default_factory=list)
    """Those that were tried before it."""
    quality: Annotated[CallQuality | None, Shown(cdr="quality")] = None
    second_party: Annotated[str, Shown(cdr="second_party")] = CALLEE
    """The party on the B-leg: ``callee``, or ``agent``."""
    follows: bool = False
    """Its session has a record already: if this attempt dials nothing, it gets none of its own."""
    holder: str | None = None
    """Whose place among the concurrent calls its session has."""
    paid_for: list[dict[str, Any]] = msgspec.field(default_factory=list)
    """Its legs' charges, each as ``Charge.essence``."""
    language: Language | None = None
    """The language of its prompts; None: the configuration's."""
    order: dict[str, Any] | None = None
    """Data by which its application goes on with it in another process."""
    changes: int = 0
    """How often it was written down: of two forms of one call, that with more is the newer one."""


#: The fields that are points in time.
TIMES = tuple(name for name in CallFields.__struct_fields__ if name.endswith("_at"))
_COUNT = len(CallFields.__struct_fields__)


def agents_of(named: str | None, rung: Sequence[Mapping[str, Any]] | None) -> list[str | None]:
    """Return the agents whose call it is: the one that it names, and those whose phones ring or rang in it.

    ``named``, ``rung``: the call's ``extension`` and ``agents``.
    """
    return [named, *(entry.get("agent") for entry in rung or ())]


def is_with(agent: str, named: str | None, rung: Sequence[Mapping[str, Any]] | None, bridged_at: float | None) -> bool:
    """Return whether an agent is in a call that is up: their phones ring, or they have it."""
    if rung is None or bridged_at is not None:
        return named == agent
    return any(entry["agent"] == agent and entry["end_reason"] is None for entry in rung)


def why_not_change(
    agent: str, named: str | None, rung: Sequence[Mapping[str, Any]] | None, bridged_at: float | None
) -> str:
    """Return why an agent may not end or change a call that is up; empty if they may: they have it, or it rings them
    alone. The caller of one that rings several is not any one agent's to hang up on."""
    if not is_with(agent, named, rung, bridged_at):
        return f"agent {agent} is not in this call now"
    if bridged_at is None and any(entry["agent"] != agent and entry["end_reason"] is None for entry in rung or ()):
        return f"this call rings other agents, too, so agent {agent} can't end or change it"
    return ""


def values_of(call: CallFields) -> tuple[Any, ...]:
    """Return the values of a call's fields, in their order. ``call`` is of a class whose first fields these are: an
    attribute by its name costs eight times as much."""
    return astuple(call)[:_COUNT]


def show_times(call: CallFields) -> None:
    """Move a call's times from this node's clock to the system's."""
    for name in TIMES:
        at = getattr(call, name)
        if at is not None:
            setattr(call, name, node_clock.shown(at))


class Published:
    """One published form of a call: its keys, and the fields that they show.

    ``order``: the keys that clients know, in the order that is promised to them. Keys that are declared since follow;
    if the form is ``closed``, they don't, so that a reader that refuses unknown keys keeps working.
    """

    def __init__(self, form: str, source: type[CallFields], order: Sequence[str], *, closed: bool = False) -> None:
        hints = get_type_hints(source, include_extras=True)
        declared_as = {key: name for name, hint in hints.items() if (key := _key(hint, form)) is not None}
        later = () if closed else (key for key in declared_as if key not in order)
        self.fields: Mapping[str, str] = {key: declared_as[key] for key in (*order, *later)}
        self._keys = tuple(self.fields)
        self.values: Callable[[CallFields], tuple[Any, ...]] = attrgetter(*self.fields.values())
        self._hints = {key: hints[name] for key, name in self.fields.items()}
        declared = {field.name: field for field in msgspec.structs.fields(source)}
        self._defaults = {key: declared[name].default for key, name in self.fields.items()}
        self.rounded = tuple(key for key, hint in self._hints.items() if _is_float(hint.__origin__))
        """Keys of times."""

    def of(self, call: CallFields) -> dict[str, Any]:
        return dict(zip(self._keys, self.values(call)))  # noqa: B905 - as many, and a quarter faster

    def struct(self, name: str, types: Mapping[str, Any] | None = None) -> Any:
        """A Struct of this form, to describe and to check it. ``types``: of keys that are not shown as they are."""
        hints = {**self._hints, **(types or {})}
        fields = [
            (key, hints[key]) if self._defaults[key] is msgspec.NODEFAULT else (key, hints[key], self._defaults[key])
            for key in self.fields
        ]
        return msgspec.defstruct(name, fields, kw_only=True)


def _is_float(kind: Any) -> bool:
    return kind is float or float in get_args(kind)


def _key(hint: Any, form: str) -> str | None:
    shown = next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Shown)), None)
    return None if shown is None else getattr(shown, form)
