"""Bodies of requests and answers. Each is declared once, for its encoder and for the description."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from esl_apps.core import call_options, display_name
from esl_apps.core.actions import KEYS
from esl_apps.core.notification import CallRecord
from esl_apps.core.order import CONTACT_REF_LENGTH, IntegratorRules
from esl_apps.core.status import CallStatus, Ref, State
from esl_apps.core.written_number import LONGEST
from esl_apps.operations.reports import Report
from esl_apps.store.card_fields import CARD_ID, COMMENT_LENGTH, LANGUAGE, MOST_CONCURRENT_CALLS, NAME, PIN

# Errors ---------------------------------------------------------------------------------------------------


class Error(Struct):
    field: str
    code: str
    message: str
    reason: (
        Annotated[
            str,
            Meta(
                description="Of `agent_unavailable`: why",
                extra_json_schema={"enum": ["not_registered", "busy"]},
            ),
        ]
        | UnsetType
    ) = UNSET
    state: Annotated[State, Meta(description="The call's, if code is state")] | UnsetType = UNSET


class Errors(Struct):
    errors: list[Error]


class CrossbarErrors(Struct):
    """An error in the form of Kazoo's Crossbar."""

    data: Annotated[dict[str, Any], Meta(description="Field, in it a code, in it a message")]
    error: str
    message: str
    status: Annotated[str, Meta(extra_json_schema={"enum": ["error"]})]
    request_id: str


# Calls ----------------------------------------------------------------------------------------------------


class Accepted(Struct):
    call_ref: Ref
    contact_ref: str
    state: State


class Check(Struct):
    check: str
    ok: bool
    message: str


class DryRun(Struct):
    dry_run: bool
    ok: bool
    checks: list[Check]


class Call(CallStatus):
    pass


class Page(Struct):
    calls: list[Call]
    next: Ref | None


class RecordPage(Struct):
    records: list[CallRecord]
    next: Ref | None


def order(client: IntegratorRules) -> dict[str, Any]:
    """Return the schema of an order. It isn't a Struct because each integrator has its own patterns."""

    def text(field: str) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^(?:{client.patterns[field]})$", "description": client.expected(field)}

    def number(field: str, more: str = "") -> dict[str, Any]:
        about = f"{client.expected(field)}. Spaces, brackets, + and tel: are read as people write them{more}"
        return {"type": "string", "minLength": 1, "maxLength": LONGEST, "description": about}

    contact_ref = text("contact_ref")
    contact_ref["description"] += f"; cut at {CONTACT_REF_LENGTH} characters; made when absent"
    return {
        "type": "object",
        "required": ["agent", "callee", "outbound_id"],
        "additionalProperties": False,
        "properties": {
            "agent": number("agent"),
            "callee": number("callee", "; ;ext=, ;postd= or a comma begin digits that are sent after the answer"),
            "outbound_id": number("outbound_id"),
            "contact_ref": contact_ref,
            "call_ref": {**contact_ref, "description": "contact_ref in the form before v3.0.0"},
            **call_options.schemas(),
        },
    }


# Actions --------------------------------------------------------------------------------------------------

Party = Annotated[str, Meta(extra_json_schema={"enum": ["agent", "callee"]})]


class PartyOrder(Struct, forbid_unknown_fields=True):
    party: Party


class DigitsOrder(Struct, forbid_unknown_fields=True):
    to: Annotated[str, Meta(description="Who hears them", extra_json_schema={"enum": ["agent", "callee"]})]
    digits: Annotated[str, Meta(pattern=f"^{KEYS.pattern}$")]


class RecordOrder(Struct, forbid_unknown_fields=True):
    action: Annotated[str, Meta(extra_json_schema={"enum": ["start", "pause", "resume", "stop"]})]


class TransferOrder(Struct, forbid_unknown_fields=True):
    to: Annotated[str, Meta(min_length=1, max_length=64, description="A number or an extension, as a callee")]
    mode: Annotated[
        str,
        Meta(description="consult: talk with the new party first", extra_json_schema={"enum": ["blind", "consult"]}),
    ] = "blind"
    by: Annotated[str, Meta(description="Who leaves", extra_json_schema={"enum": ["agent", "callee"]})] = "agent"


# Recordings -----------------------------------------------------------------------------------------------


class LinkOrder(Struct, forbid_unknown_fields=True):
    expires_in: (
        Annotated[int, Meta(ge=1, description="Seconds; an hour by default, at most recordings.link_longest")]
        | UnsetType
    ) = UNSET


class Link(Struct):
    url: Annotated[str, Meta(description="Below this port")]
    expires_at: Annotated[int, Meta(description="Unix seconds")]


# Agents ---------------------------------------------------------------------------------------------------


class AgentTokenOrder(Struct, forbid_unknown_fields=True):
    expires_in: Annotated[int, Meta(ge=1, le=900, description="Seconds; 900 by default")] | UnsetType = UNSET
    scopes: (
        Annotated[
            list[Annotated[str, Meta(extra_json_schema={"enum": ["call", "read"]})]],
            Meta(min_length=1, description="By default all of these that the issuing token has"),
        ]
        | UnsetType
    ) = UNSET


class AgentToken(Struct):
    token: str
    expires_at: Annotated[int, Meta(description="Unix seconds")]


class Agent(Struct):
    extension: str
    registered: Annotated[bool | None, Meta(description="Whether a phone is registered; null: it isn't known")]
    state: Annotated[
        str,
        Meta(
            description="Busy: in a call, or being rung; unknown: a switch didn't say in time",
            extra_json_schema={"enum": ["idle", "busy", "unknown"]},
        ),
    ]
    calls: Annotated[list[Ref], Meta(description="Your live calls with this agent")]


class PhoneSettings(Struct):
    allow_origins: list[str]


# Cards ----------------------------------------------------------------------------------------------------

CardId = Annotated[str, Meta(pattern=f"^{CARD_ID.pattern}$")]
AccountId = Annotated[str, Meta(pattern=f"^{NAME.pattern}$")]
UserId = Annotated[str, Meta(pattern=f"^{NAME.pattern}$")]
Concurrent = Annotated[int, Meta(ge=0, le=MOST_CONCURRENT_CALLS)]
Comment = Annotated[str, Meta(max_length=COMMENT_LENGTH)]
CardLanguage = Annotated[
    str,
    Meta(
        pattern=f"^{LANGUAGE.pattern}$",
        description="Of its callers' prompts; null: that of the number dialled, or of the account",
    ),
]
RetainCid = Annotated[bool, Meta(description="Show the caller's own number")]
Cid = Annotated[str, Meta(description="The caller number that identifies it; unique across accounts")]


class CardFields(Struct):
    """Exactly one of pin and cid"""

    user_id: UserId | None = None
    active: bool = False
    retain_cid: RetainCid = False
    max_concurrent_calls_per_user: Concurrent = 1
    comment: Comment = ""
    language: CardLanguage | None = None
    cid: Cid | UnsetType = UNSET
    pin: (
        Annotated[
            str,
            Meta(
                pattern=f"^{PIN.pattern}$",
                description="Unique across accounts, and never shown",
                extra_json_schema={"writeOnly": True},
            ),
        ]
        | UnsetType
    ) = UNSET


class Card(Struct):
    """A card as it is shown: without its PIN."""

    id: CardId
    user_id: UserId | None
    active: bool
    retain_cid: RetainCid
    max_concurrent_calls_per_user: Concurrent
    comment: Comment
    cid: Cid | UnsetType = UNSET
    language: CardLanguage | UnsetType = UNSET


# Autodial -------------------------------------------------------------------------------------------------

#: Seconds.
LONGEST_DELAY = 3600


class Autodial(Struct):
    a_leg_number: str
    b_leg_number: Annotated[str, Meta(description="A number, or conference:NAME")]
    callback_delay: (
        Annotated[
            float, Meta(ge=0, le=LONGEST_DELAY, description="Seconds until A is rung; if absent, cccp.callback_delay")
        ]
        | UnsetType
    ) = UNSET
    retain_cid: bool = False
    media_id: Annotated[str, Meta(description="What A hears first: a prompt, or a listed URL")] | UnsetType = UNSET
    a_leg_name: (
        Annotated[str, Meta(pattern=display_name.PATTERN, description="The name shown with A's number (retain_cid)")]
        | UnsetType
    ) = UNSET


class Autodialled(Struct):
    call_ref: Ref
    state: str


class WaitingAutodial(Struct):
    """An autodial that waits for its callback_delay."""

    call_ref: Ref
    a_leg_number: str
    b_leg_number: str
    due_at: Annotated[float, Meta(description="Unix seconds")]


# The operator's port --------------------------------------------------------------------------------------


class Status(Struct, omit_defaults=True):
    status: str
    reasons: list[str] | UnsetType = UNSET


class Overview(Struct):
    node: str
    version: str
    reasons: Annotated[list[str], Meta(description="Why this node takes no calls, and what a person has to mend")]
    nodes: int
    live: int
    waiting_records: int
    tripped_breakers: int


class Process(Struct):
    boot: str
    name: str
    advertise: str
    alive: bool
    draining: bool
    report: Report | None


class Trip(Struct, forbid_unknown_fields=True):
    end_calls: Annotated[bool, Meta(description="End its live calls, too")] = False


class Webhook(Struct):
    name: str
    integrator: str
    host: Annotated[str, Meta(description="Of its URL")]
    events: list[str]
    state: Annotated[Literal["delivering", "failing", "off"], Meta(description="off: the receiver answered 410")]
    depth: Annotated[int, Meta(description="Notifications that wait")]
    oldest_seconds: Annotated[float | None, Meta(description="Age of the oldest that waits")]
    last_status: Annotated[int | None, Meta(description="Of the last answer")]
    last_error: str | None
    failing_seconds: Annotated[float | None, Meta(description="Time since the first of the failed attempts in a row")]
    failures: Annotated[int, Meta(description="Failed attempts in a row")]
    delivered_at: Annotated[float | None, Meta(description="Last delivery, in Unix seconds")]
    set_aside: Annotated[int, Meta(description="Notifications given up since the webhook exists")]
    node: Annotated[str | None, Meta(description="The node that delivers it")]


class Replay(Struct):
    since: Annotated[float, Meta(ge=0, description="Unix seconds")]
