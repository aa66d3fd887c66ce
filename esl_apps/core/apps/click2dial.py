"""Click-to-dial: ring the agent; when the agent answers, dial the callee.

Two ways in. Over HTTP a request makes the agent's phone ring (``ring_agent``), and the answered A-leg comes
to ``run``. From a SIP or WebRTC phone the agent *is* the caller (``run_from_phone``), and the same values
come as ``X-Teleforge-*`` headers. What is asked is read by one function, ``read``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from esl_apps.core import causes, cdr, dialstring
from esl_apps.core.apps.common import (
    Line,
    Settings,
    aleg_variables,
    bleg_variables,
    conclude,
    join,
    recording_name,
    recording_path,
    ring_aleg,
)
from esl_apps.core.call import Bridged, Call, CallEnded
from esl_apps.core.cards import Unavailable, Usage
from esl_apps.core.cdr import Attempt
from esl_apps.core.numbers import NotDialable, Number, NumberPlan, presented
from esl_apps.core.restrictions import Rule, denied
from esl_apps.core.spending import BREAKER, Charge, Level, Refusal

REF = "click-dial"

#: The accepted forms (contract §4, Teleforge's API); each a whole match. An integrator elsewhere replaces them.
PATTERNS = {
    "agent": r"\d{3,4}|0\d{9}|27\d{9}|00\d{11,14}",
    "callee": r"\d{3,4}|0\d{9}|27\d{9}|00\d{11,14}",
    "outbound_id": r"0\d{9}|27\d{9}|tvc_[A-Za-z0-9._-]+",
    "contact_ref": r"[A-Za-z0-9.\-_~:]+",
}
_EXPECTED = {
    "agent": "3 or 4 digits, or as callee",
    "callee": "10 digits from 0; 11 digits from 27; 13 to 16 digits from 00; or 3 or 4 digits",
    "outbound_id": "10 digits from 0; 11 digits from 27; or tvc_NAME of a campaign",
    "contact_ref": "letters, digits and .-_~:",
}
#: Longer references are cut, not refused (Teleforge's rule).
CONTACT_REF_LENGTH = 230


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request."""

    field: str
    code: str
    message: str


class Refused(Exception):
    """A request that dials nothing; ``faults`` says why, field by field."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))
        self.faults = faults

    @property
    def restricted(self) -> bool:
        return any(fault.code == "restricted" for fault in self.faults)


@dataclass(frozen=True, slots=True)
class Order:
    """A request that may be dialled."""

    agent: Number
    callee: Number
    outbound: Number
    """The CLI that the callee is shown."""
    contact_ref: str
    """Empty where the client gave none."""


class Client:
    """One integrator's rules, ready to read requests: its patterns, caller IDs, campaigns and restrictions."""

    def __init__(
        self,
        name: str,
        plan: NumberPlan,
        *,
        patterns: Mapping[str, str | None] | None = None,
        caller_ids: list[str] | None = None,
        campaigns: Mapping[str, str | list[str]] | None = None,
        call_restriction: Mapping[str, Rule] | None = None,
        emergency: bool = False,
        agent_timeout: float = 30,
        callee_timeout: float = 60,
        longest: float = 14400,
        record: bool = False,
        levels: Sequence[Level] = (),
    ) -> None:
        """``emergency``: an emergency dial string is configured. ``levels``: who pays. Times in seconds."""
        self.name = name
        self.plan = plan
        self.agent_timeout = agent_timeout
        self.callee_timeout = callee_timeout
        self.longest = longest
        self.record = record
        self.levels = tuple(levels)
        own = patterns or {}
        self._own = {field for field, regex in own.items() if regex}
        self.patterns = {field: own.get(field) or default for field, default in PATTERNS.items()}
        self._patterns = {field: re.compile(regex) for field, regex in self.patterns.items()}
        self._campaigns = {key: _listed(numbers) for key, numbers in (campaigns or {}).items()}
        self._turns = dict.fromkeys(self._campaigns, 0)
        self._caller_ids = {plan.read(text).e164 for text in caller_ids or []}
        if self._caller_ids:
            # A campaign's numbers are the integrator's own (contract §2).
            for numbers in self._campaigns.values():
                self._caller_ids.update(plan.read(text).e164 for text in numbers)
        self._restriction = call_restriction or {}
        self._emergency = emergency

    def expected(self, field: str) -> str:
        return f"a match of {self.patterns[field]}" if field in self._own else _EXPECTED[field]

    def read(self, fields: Mapping[str, object], *, peek: bool = False) -> Order:
        """A request's fields as an order. ``peek``: a campaign's turn is not taken (dry run).

        ``call_ref`` stands for ``contact_ref`` in the pre-v3 form.
        :raises Refused: with every fault, not the first alone.
        """
        faults: list[Fault] = []
        for name in fields:
            if name not in PATTERNS and name != "call_ref":
                faults.append(Fault(str(name)[:40], "unknown", f"unknown field; expected {', '.join(PATTERNS)}"))
        agent = self._number("agent", fields.get("agent"), faults)
        callee = self._number("callee", fields.get("callee"), faults)
        contact_ref = self.contact_ref(fields, faults)
        # Last: a request with a fault takes no campaign's turn.
        outbound = self._outbound(fields.get("outbound_id"), faults, peek=peek)
        if faults or agent is None or callee is None or outbound is None:
            raise Refused(faults)
        return Order(agent, callee, outbound, contact_ref)

    def _text(self, field: str, value: object, faults: list[Fault]) -> str | None:
        if value is None or value == "":
            faults.append(Fault(field, "required", f"missing; expected {self.expected(field)}"))
        elif not isinstance(value, str):
            faults.append(Fault(field, "type", f"expected a string: {self.expected(field)}"))
        elif not self._patterns[field].fullmatch(value):
            faults.append(Fault(field, "pattern", f"expected {self.expected(field)}"))
        else:
            return value
        return None

    def _number(self, field: str, value: object, faults: list[Fault]) -> Number | None:
        text = self._text(field, value, faults)
        if text is None:
            return None
        try:
            number = self.plan.read(text)
        except NotDialable as error:
            faults.append(Fault(field, "not_dialable", str(error)))
            return None
        if number.is_emergency and (field == "agent" or not self._emergency):
            faults.append(Fault(field, "restricted", "an emergency number is not dialled from here"))
        elif what := denied(number, self._restriction):
            faults.append(Fault(field, "restricted", f"numbers of class {what} are not dialled from here"))
        return number

    def _outbound(self, value: object, faults: list[Fault], *, peek: bool) -> Number | None:
        text = self._text("outbound_id", value, faults)
        if text is None:
            return None
        if text.startswith("tvc_"):
            campaign = text[4:]
            numbers = self._campaigns.get(campaign)
            if numbers is None:
                faults.append(Fault("outbound_id", "unknown_campaign", "no campaign of this name is configured"))
                return None
            turn = self._turns[campaign]
            text = numbers[turn % len(numbers)]
            if not peek and not faults:
                self._turns[campaign] = turn + 1
        try:
            number = self.plan.read(text)
        except NotDialable as error:
            faults.append(Fault("outbound_id", "not_dialable", str(error)))
            return None
        if self._caller_ids and number.e164 not in self._caller_ids:
            faults.append(Fault("outbound_id", "not_yours", "this number is not one of the integrator's caller_ids"))
        return number

    def contact_ref(self, fields: Mapping[str, object], faults: list[Fault]) -> str:
        """The client's reference, cut; empty where there is none or (with a fault more) where it is wrong."""
        field = "contact_ref" if fields.get("contact_ref") is not None else "call_ref"
        value = fields.get(field)
        if value is None or value == "":
            return ""
        if isinstance(value, str):
            value = value[:CONTACT_REF_LENGTH]
            if self._patterns["contact_ref"].fullmatch(value):
                return value
        faults.append(Fault(field, "pattern", f"expected {self.expected('contact_ref')}"))
        return ""


def _listed(numbers: str | list[str]) -> list[str]:
    return [numbers] if isinstance(numbers, str) else list(numbers)


# Over HTTP ---------------------------------------------------------------------------------------------


def new_attempt(client: Client, order: Order, settings: Settings, ref: str = "") -> Attempt:
    return Attempt(
        app=REF,
        integrator=client.name,
        extension=order.agent.dialled,
        number=order.callee.dialled,
        dial_number=dialstring.caller_id(order.outbound, settings.caller_id_format),
        call_dir=cdr.direction(order.agent, order.callee),
        contact_ref=order.contact_ref,
        call_ref=ref or cdr.new_ref(),
    )


def charges(attempt: Attempt, order: Order, client: Client) -> list[Charge]:
    """What a call's legs cost. An agent outside is paid for from its answer on, and with it the call."""
    if order.callee.is_emergency:
        return []
    callee = Charge(attempt, client.levels, order.callee, owner=order.agent.is_extension)
    if order.agent.is_extension:
        return [callee]
    return [Charge(attempt, client.levels, order.agent, aleg=True), callee]


def aleg(attempt: Attempt, order: Order, client: Client, settings: Settings) -> dict[str, str]:
    """The variables of the agent's leg, enough to go on from where another process left."""
    # A phone inside shows whom it is about to talk to; a number outside is shown a number of the integrator's.
    shown = order.callee.dialled if order.agent.is_extension else attempt.dial_number or ""
    return {
        **aleg_variables(settings, attempt, order.agent.dialled),
        "esl_callee": order.callee.dialled,
        "esl_outbound_id": order.outbound.dialled,
        "origination_caller_id_number": shown,
        "origination_caller_id_name": shown,
        # A 183 from the agent's mobile is no answer: the callee would be rung for nobody (hazard 18).
        "ignore_early_media": "true",
    }


def ring_agent(
    line: Line, attempt: Attempt, order: Order, client: Client, settings: Settings, application: str
) -> bool:
    """Ring the agent. True: it answered, and its leg is on its way to ``run``; else the attempt is ended.

    ``application``: ``socket(host:port/click2dial async full)``, where an answered leg goes.
    """
    leg = aleg(attempt, order, client, settings)
    endpoints = settings.endpoints.of(order.agent, as_asked=True)
    return ring_aleg(line, attempt, leg, endpoints, client.agent_timeout, application)


def order_of(call: Call, plan: NumberPlan) -> Order:
    """The order that an A-leg carries. :raises NotDialable: it carries none."""
    return Order(
        agent=plan.read(call.variable("esl_user_id") or ""),
        callee=plan.read(call.variable("esl_callee") or ""),
        outbound=plan.read(call.variable("esl_outbound_id") or ""),
        contact_ref=dialstring.decode(call.variable("esl_contact_ref") or ""),
    )


def run(call: Call, attempt: Attempt, order: Order, client: Client, settings: Settings) -> None:
    """The agent has answered, and what the call costs has begun to be paid (``charges``): dial the callee, join the
    two, and see the call to its end."""
    attempt.aleg_uuid = call.uuid
    attempt.enter(cdr.AGENT_ANSWERED, call.answered_at or time.time())
    failed: Bridged | None = None
    try:
        if attempt.cancelled_by is None and attempt.cut is None:
            failed = _dial_callee(call, attempt, order, client, settings)
        call.hangup("NORMAL_CLEARING")
    except CallEnded as ended:
        attempt.note("aleg_ended", str(ended))
    _finish(call, attempt, failed)


def _dial_callee(
    call: Call, attempt: Attempt, order: Order, client: Client, settings: Settings
) -> Bridged | None:
    """B's outcome where it did not answer; None once the two have talked."""
    recording = None
    if client.record:
        attempt.recording_url = recording_name(attempt)
        recording = recording_path(settings.recordings, client.name, attempt.recording_url)
    timeout = client.callee_timeout
    bridged = join(
        call,
        attempt,
        # Held by nobody while they talk.
        bleg_variables(settings, attempt, order.agent.dialled, attempt.dial_number or "", timeout, recording),
        settings.endpoints.of(order.callee, as_asked=True),
        timeout,
        min([client.longest, *(charge.longest for charge in attempt.charges if charge.longest is not None)]),
    )
    return None if bridged.answered else bridged


def _finish(call: Call, attempt: Attempt, failed: Bridged | None) -> None:
    end = call.ended()
    attempt.hold_time = round(end.aleg.hold_seconds)
    conclude(attempt, end, failed, cdr.CALLEE)


# From a phone ------------------------------------------------------------------------------------------

#: Header families, newest first: the refusal's header has the prefix of the request's.
_FAMILIES = ("X-Teleforge", "X-Platforma")


def run_from_phone(
    call: Call,
    client: Client,
    settings: Settings,
    *,
    trusted: Callable[[str], bool],
    begin: Callable[[Attempt], None],
    usage: Usage,
) -> None:
    """A SIP or WebRTC phone dialled a callee with ``X-Teleforge-*`` headers.

    Its authenticated user is the agent; a packet of a ``trust`` address may name one in From. ``begin`` makes
    the attempt known before anything is dialled.
    """
    family = next((name for name in _FAMILIES if call.sip_header(f"{name}-Outbound-ID") is not None), _FAMILIES[0])
    agent = _agent_of(call, trusted)
    callee = call.header("Caller-Destination-Number") or ""
    fields: dict[str, object] = {
        "agent": agent or "",
        "callee": callee,
        "outbound_id": call.sip_header(f"{family}-Outbound-ID") or "",
    }
    contact_ref = call.sip_header(f"{family}-Contact-Ref")
    if contact_ref:
        fields["contact_ref"] = contact_ref
    order: Order | None = None
    faults: list[Fault] = []
    if agent is None:
        faults = [Fault("agent", "not_registered", "only a registered phone or a trusted address may dial")]
    else:
        try:
            order = client.read(fields)
        except Refused as refused:
            faults = refused.faults
    if order is None:
        attempt = Attempt(
            app=REF,
            integrator=client.name,
            extension=presented(agent),
            number=presented(callee),
            dial_number=None,
            call_dir=cdr.direction(_party(settings.plan, agent), _party(settings.plan, callee)),
            # A stranger's reference is not the client's.
            contact_ref=client.contact_ref(fields, []) if agent is not None else "",
        )
        attempt.aleg_uuid = call.uuid
        begin(attempt)
        attempt.dialled(call.created_at)
        _refuse(call, attempt, faults, family)
        return
    attempt = new_attempt(client, order, settings)
    attempt.aleg_uuid = call.uuid
    begin(attempt)
    attempt.dialled(call.created_at)
    fault = _pay(usage, charges(attempt, order, client))
    if fault is not None:
        _refuse(call, attempt, [fault], family)
        return
    failed: Bridged | None = None
    try:
        call.set(aleg_variables(settings, attempt, order.agent.dialled))
        failed = _dial_callee(call, attempt, order, client, settings)
        call.hangup(failed.cause if failed is not None else "NORMAL_CLEARING")
    except CallEnded as ended:
        attempt.note("aleg_ended", str(ended))
    _finish(call, attempt, failed)


def _pay(usage: Usage, charges: Sequence[Charge]) -> Fault | None:
    try:
        refusal = usage.begin(*charges)
    except Unavailable:
        return Fault("limits", "unavailable", "can't be asked now")
    return None if refusal is None else limit_fault(refusal)


def limit_fault(refusal: Refusal) -> Fault:
    return Fault("limits", "breaker" if refusal.what == BREAKER else "limit_reached", refusal.message)


def _party(plan: NumberPlan, text: str | None) -> Number | None:
    try:
        return plan.read(text or "")
    except NotDialable:
        return None


def _agent_of(call: Call, trusted: Callable[[str], bool]) -> str | None:
    """Who dials: the user that authenticated, or the From user of an address that is believed."""
    if call.variable("sip_authorized") == "true":
        user = call.variable("sip_auth_username") or call.variable("user_name")
        if user:
            return user
    address = call.variable("sip_network_ip") or call.header("Caller-Network-Addr")
    return call.variable("sip_from_user") if address and trusted(address) else None


def _refuse(call: Call, attempt: Attempt, faults: Sequence[Fault], family: str) -> None:
    """SIP 400, one ``X-…-Error: FIELD: message`` header a fault; one rejected record."""
    codes = {fault.code for fault in faults}
    for fault in faults:
        attempt.note("refused", f"{fault.field}: {fault.message}")
    with suppress(CallEnded):
        call.respond(400, [(f"{family}-Error", f"{fault.field}: {fault.message}") for fault in faults])
    code = causes.CALL_REJECTED
    if "restricted" in codes:
        code = causes.BEARER_NOT_AUTHORIZED
    elif "limit_reached" in codes:
        code = causes.USER_BUSY
    attempt.end(cdr.REJECTED, code, cdr.SYSTEM, call.ended().at)
