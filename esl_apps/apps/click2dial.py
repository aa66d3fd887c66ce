"""Click-to-dial: ring the agent; when the agent answers, dial the callee.

Two ways in. Over HTTP a request makes the agent's phone ring (:meth:`ClickCall.aleg`), and the answered A-leg comes to
:meth:`ClickCall.answered`. From a SIP or WebRTC phone the agent *is* the caller (:func:`arrive`), and the same values
come as ``X-Teleforge-*`` headers. ``IntegratorRules.read`` reads both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import msgspec
from msgspec import Struct

from esl_apps.apps import agent_prompts
from esl_apps.apps.application import Application
from esl_apps.apps.context import AppPolicy, Arrival, Host, NotServed
from esl_apps.apps.ending import conclude
from esl_apps.apps.legs import (
    LONGEST,
    OF_PHONE,
    PHONE,
    Bleg,
    aleg_variables,
    caller_id_variables,
    has_phone,
    join,
    recording_of,
)
from esl_apps.apps.ringing import Aleg
from esl_apps.apps.settings import Settings
from esl_apps.core import (
    call_options,
    causes,
    dialstring,
    display_name,
    identity,
    node_clock,
    numbers,
    parties,
    reference,
    talk,
    terms,
)
from esl_apps.core.attempt import Attempt
from esl_apps.core.billing import note_legs
from esl_apps.core.call import Bridged, Call, CallEnded
from esl_apps.core.call_options import NO_OPTIONS, CallOptions
from esl_apps.core.cards import Usage
from esl_apps.core.charges import Charge
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.limits import BREAKER, Refusal
from esl_apps.core.number_text import NotDialable, presented
from esl_apps.core.numbers import NumberPlan
from esl_apps.core.order import IntegratorRules, Order
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.written_number import POST_DIAL, as_dtmf

REF = "click-dial"


# Over HTTP ---------------------------------------------------------------------------------------------


class ClickCall(Struct, frozen=True):
    """A call from an order to its end."""

    attempt: Attempt
    order: Order
    client: IntegratorRules
    restored: bool = False
    """Read by another process than the one that checked it."""
    placed: bool = True
    """A node rings the agent. False: their phone has dialled, and that leg costs nothing here."""

    @property
    def callee_name(self) -> str:
        """The name that the agent's phone shows."""
        return (self.order.options.callee_name or "") if self.order.agent.is_extension else ""

    def charges(self, policy: AppPolicy) -> list[Charge]:
        """The placed legs' charges. If an agent outside is rung, the call counts from the agent's answer."""
        ref, order, levels = self.attempt.call_ref, self.order, self.client.levels
        outside = self.placed and not order.agent.is_extension
        agent = [Charge(ref, levels, order.agent, aleg=True)] if outside else []
        if order.callee.is_emergency:
            # No bill is worth the callee's leg. An agent outside is counted, and may be refused like any other.
            return agent
        return [*agent, Charge(ref, levels, order.callee, owner=not agent)]

    def aleg(self, policy: AppPolicy, application: str) -> Aleg:
        """How the agent is rung. The leg carries enough to go on from where another process left."""
        attempt, order, settings = self.attempt, self.order, policy.settings
        # An extension's phone shows the callee; an outside number is shown a number of the integrator's own.
        shown = order.callee.dialled if order.agent.is_extension else attempt.dial_number or ""
        variables = {
            **aleg_variables(settings, attempt, order.agent.dialled),
            "esl_callee": order.callee.dialled,
            "esl_outbound_id": order.outbound.dialled,
            "esl_callee_digits": order.digits,
            **_headers(order.options, "agent"),
            **caller_id_variables(shown, self.callee_name),
            # A 183 from the agent's mobile isn't an answer: don't ring the callee before the agent answers (hazard 18).
            "ignore_early_media": "true",
            **({"presence_data": dialstring.mark_of(order.agent.dialled)} if order.agent.is_extension else {}),
            **(PHONE if has_phone(settings, order.agent) else {}),
        }
        if self.client.answers_itself(order) and settings.endpoints.registration(order.agent) is not None:
            headers = self.client.auto_answer_headers
            variables.update({f"sip_h_{name}": dialstring.Raw(value) for name, value in headers.items()})
        if order.options.ringback is not None:
            variables["transfer_ringback"] = dialstring.Raw(order.options.ringback)
        endpoints = settings.endpoints.of(order.agent, as_asked=True)
        return Aleg(variables, endpoints, application, order.options.agent_timeout or self.client.agent_timeout)

    def answered(self, call: Call, policy: AppPolicy, host: Host) -> None:
        """The agent has answered, and the charges have begun: dial the callee, connect the two, and see the call to its
        end."""
        attempt = self.attempt
        attempt.aleg_uuid = call.uuid
        attempt.placed = True
        click, fault = self.renewed(policy, host)
        attempt.enter(terms.AGENT_ANSWERED, call.answered_at or node_clock.now())
        failed: Bridged | None = None
        ready = False
        try:
            if fault is not None:
                attempt.note("refused", f"{fault.field}: {fault.message}")
                call.play("limit_reached" if fault.field == "limits" else "unauthorized_call")
            elif attempt.cancelled_by is None and attempt.cut is None:
                ready = click.agent_is_ready(call)
                if ready:
                    failed = _dial_callee(call, click, policy)
            call.hangup("NORMAL_CLEARING")
        except CallEnded as ended:
            attempt.note("aleg_ended", str(ended))
        if fault is not None:
            end = call.ended()
            note_legs(attempt, end.aleg, None)
            attempt.end(terms.REJECTED, code_of([fault]), terms.SYSTEM, end.at)
        else:
            _finish(call, attempt, failed, unconfirmed=not ready and click.client.confirms(self.order))

    def agent_is_ready(self, call: Call) -> bool:
        """Play what the agent is to hear before the callee is dialled. Return False if they had to press a key and
        haven't."""
        order = self.order
        ready = agent_prompts.prepare(call, order.callee, order.options.announce, confirm=self.client.confirms(order))
        if not ready:
            self.attempt.note("unconfirmed", "the agent didn't press the key")
        return ready

    def renewed(self, policy: AppPolicy, host: Host) -> tuple[ClickCall, Fault | None]:
        """Return the call by the rules in force, and what these have against it: the agent may have been rung for
        minutes, and a reload holds for the callee, too."""
        client = policy.clients.get(self.attempt.integrator or "")
        if client is None:
            return self, Fault("integrator", "restricted", "is not configured any more")
        click = msgspec.structs.replace(self, client=client)
        # The same rules have nothing else to say.
        faults = client.faults_now(self.order) if self.restored or client is not self.client else []
        if faults:
            return click, faults[0]
        if self.order.callee.is_emergency:
            return click, None
        if client.levels == self.client.levels:
            refusal = host.usage.tripped(*self.attempt.charges)
            return click, None if refusal is None else limit_fault(refusal)
        before = list(self.attempt.charges)
        fault = _pay(host.usage, self.attempt, click.charges(policy))
        if fault is None:
            for charge in before:
                self.attempt.drop(charge)
                charge.end()
        return click, fault


def new_call(
    order: Order, client: IntegratorRules, settings: Settings, ref: str = "", *, placed: bool = True
) -> ClickCall:
    """Make a call. ``ref``: its reference, if it has one already. ``placed``: a node rings the agent."""
    attempt = Attempt(
        app=REF,
        integrator=client.name,
        extension=order.agent.dialled,
        number=order.callee.dialled,
        **parties.first(order.agent),
        **parties.second(order.callee),
        dial_number=dialstring.caller_id(order.outbound, settings.caller_id_format),
        call_dir=numbers.direction(order.agent, order.callee),
        contact_ref=order.contact_ref,
        metadata=order.options.metadata,
        language=client.language,
        order=call_options.kept(order.options),
        call_ref=ref or reference.new_ref(),
    )
    return ClickCall(attempt, order, client, placed=placed)


def restore(attempt: Attempt, call: Call, policy: AppPolicy) -> ClickCall | None:
    """Read a call of another process; None if its A-leg's variables, its options or its integrator are missing."""
    client = policy.clients.get(attempt.integrator or "")
    if client is None:
        return None
    try:
        options = call_options.restored(attempt.order)
        return ClickCall(attempt, order_of(call, policy.settings.plan, options), client, restored=True)
    except (NotDialable, msgspec.ValidationError):
        return None


def order_of(call: Call, plan: NumberPlan, options: CallOptions = NO_OPTIONS) -> Order:
    """Return the order in an A-leg's variables. :raises NotDialable: it has none, or a wrong one."""
    digits = dialstring.decode(call.variable("esl_callee_digits") or "")
    if digits and not POST_DIAL.fullmatch(digits):
        raise NotDialable("digits that can't be sent")
    return Order(
        agent=plan.read(call.variable("esl_user_id") or ""),
        callee=plan.read(call.variable("esl_callee") or ""),
        outbound=plan.read(call.variable("esl_outbound_id") or ""),
        contact_ref=dialstring.decode(call.variable("esl_contact_ref") or ""),
        options=options,
        digits=digits,
    )


def _dial_callee(call: Call, click: ClickCall, policy: AppPolicy) -> Bridged | None:
    """Return B's outcome if it didn't answer; None after the two have talked."""
    attempt, order, client, settings = click.attempt, click.order, click.client, policy.settings
    options, recording = order.options, None
    if client.record and options.record is not False:
        recording = recording_of(call, attempt, client.name, settings)
    lengths = [charge.longest for charge in attempt.charges if charge.longest is not None]
    bounds = [client.longest, options.max_duration or client.longest, *lengths]
    bleg = Bleg(
        caller_id=attempt.dial_number or "",
        name=options.outbound_name or "",
        timeout=options.callee_timeout or client.callee_timeout,
        longest=LONGEST if order.callee.is_emergency else min(bounds),
        user=order.agent.dialled,
        recording=recording,
        variables={**_bleg_extras(click), **(OF_PHONE if has_phone(settings, order.agent) else {})},
    )
    bridged = join(call, attempt, settings, bleg, settings.endpoints.of(order.callee, as_asked=True))
    return None if bridged.answered else bridged


def _headers(options: CallOptions, leg: Literal["agent", "callee"]) -> dict[str, str]:
    """Return the variables of a leg's own SIP headers."""
    given = (options.headers or {}).get(leg, {})
    return {f"sip_h_{name}": dialstring.Spaced(value) for name, value in given.items()}


def _bleg_extras(click: ClickCall) -> dict[str, str]:
    extras = _headers(click.order.options, "callee")
    if click.order.digits:
        extras["execute_on_answer_3"] = f"send_dtmf:{as_dtmf(click.order.digits)}"
    if click.callee_name:
        # Once the callee answers, the switch tells some agents' phones again who that is.
        extras["origination_callee_id_name"] = dialstring.Raw(display_name.encoded(click.callee_name))
    return extras


def _finish(call: Call, attempt: Attempt, failed: Bridged | None, *, unconfirmed: bool = False) -> None:
    """End the attempt. ``unconfirmed``: as ``conclude``."""
    end = call.ended()
    attempt.hold_time = talk.hold_time(attempt, end.at, end.aleg.hold_seconds)
    conclude(attempt, end, failed, terms.CALLEE, unconfirmed=unconfirmed)


# From a phone ------------------------------------------------------------------------------------------

#: Prefixes of the headers, newest first. A refusal uses the prefix of the request.
_FAMILIES = ("X-Teleforge", "X-Platforma")
#: The headers that make a phone's call one of ours.
_MARKS = ("Outbound-ID", "Contact-Ref")


def arrive(call: Call, arrival: Arrival, policy: AppPolicy, host: Host) -> None:
    """A SIP or WebRTC phone dialled a callee with ``X-Teleforge-*`` headers, to ``click2dial[/INTEGRATOR]``.

    Its authenticated user is the agent; a packet of a ``trust`` address may name one in From.

    :raises NotServed: the integrator isn't configured.
    """
    clients, settings = policy.clients, policy.settings
    client = clients.get(arrival.path[1]) if len(arrival.path) > 1 else next(iter(clients.values()), None)
    if client is None:
        raise NotServed("no such integrator", "SWITCH_CONGESTION")
    family = next((family for family in _FAMILIES if _has_marks(call, family)), _FAMILIES[0])
    agent = _agent_of(call, policy.trusted)
    fields = _fields_of(call, agent)
    try:
        if agent is None:
            raise Refused([Fault("agent", "not_registered", "only a registered phone or a trusted address may dial")])
        order = client.read(fields)
    except Refused as refused:
        attempt = _refused_attempt(client, settings.plan, agent, fields)
        _begin(call, attempt, host)
        _refuse(call, attempt, refused.faults, family)
        return
    click = new_call(order, client, settings, placed=False)
    attempt = click.attempt
    _begin(call, attempt, host)
    fault = _pay(host.usage, attempt, click.charges(policy)) if host.room(attempt) else NO_ROOM
    if fault is not None:
        client.return_turn(order)
        _refuse(call, attempt, [fault], family)
        return
    failed: Bridged | None = None
    try:
        phone = PHONE if has_phone(settings, order.agent) else {}
        call.set({**aleg_variables(settings, attempt, order.agent.dialled), **phone})
        failed = _dial_callee(call, click, policy)
        call.hangup(failed.cause if failed is not None else "NORMAL_CLEARING")
    except CallEnded as ended:
        attempt.note("aleg_ended", str(ended))
    _finish(call, attempt, failed)


def _fields_of(call: Call, agent: str | None) -> dict[str, object]:
    """Return the order in a phone's INVITE, as the fields of a request."""

    def header(name: str) -> str | None:
        # A phone whose names were changed one by one has both.
        texts = (call.sip_header(f"{family}-{name}") for family in _FAMILIES)
        return next((text for text in texts if text is not None), None)

    return {
        **call_options.of_headers(header),
        "agent": agent or "",
        "callee": call.header("Caller-Destination-Number") or "",
        "outbound_id": header("Outbound-ID") or "",
        "contact_ref": header("Contact-Ref"),
        # Its name in older documents.
        "call_ref": header("Call-Ref"),
    }


def _refused_attempt(
    client: IntegratorRules, plan: NumberPlan, agent: str | None, fields: Mapping[str, object]
) -> Attempt:
    """Make the attempt of a call whose order can't be read."""
    callee = str(fields["callee"])
    first, second = plan.find(agent), plan.find(callee)
    return Attempt(
        app=REF,
        integrator=client.name,
        extension=presented(agent),
        number=presented(callee),
        **parties.first(first),
        **parties.second(second),
        dial_number=None,
        call_dir=numbers.direction(first, second),
        # Ignore the reference of a phone that isn't trusted.
        contact_ref=client.contact_ref(fields, []) if agent is not None else "",
    )


def _begin(call: Call, attempt: Attempt, host: Host) -> None:
    attempt.aleg_uuid = call.uuid
    attempt.dialled(call.created_at)
    host.begin(attempt)


def _has_marks(call: Call, family: str) -> bool:
    return any(call.sip_header(f"{family}-{name}") is not None for name in _MARKS)


def _pay(usage: Usage, attempt: Attempt, charges: Sequence[Charge]) -> Fault | None:
    try:
        refusal = usage.begin(*charges)
    except StoreUnavailable:
        return Fault("limits", "unavailable", "can't be asked now")
    if refusal is not None:
        return limit_fault(refusal)
    attempt.pay(*charges)
    return None


#: The integrator has as many live calls as it may.
NO_ROOM = Fault("limits", "limit_reached", "max_calls is reached")


def limit_fault(refusal: Refusal) -> Fault:
    return Fault("limits", "breaker" if refusal.what == BREAKER else "limit_reached", refusal.message)


def _agent_of(call: Call, trusted: Callable[[str], bool]) -> str | None:
    """Return the agent: the authenticated user, or the From user if the address is trusted; None if neither."""
    if call.variable("sip_authorized") == "true":
        user = call.variable("sip_auth_username") or call.variable("user_name")
        if user:
            return user
    address = identity.address_of(call)
    return call.variable("sip_from_user") if address and trusted(address) else None


def _refuse(call: Call, attempt: Attempt, faults: Sequence[Fault], family: str) -> None:
    """Refuse with SIP 400, one ``X-…-Error: FIELD: message`` header per fault, and end with a rejected record."""
    for fault in faults:
        attempt.note("refused", f"{fault.field}: {fault.message}")
    code = code_of(faults)
    errors = [(f"{family}-Error", f"{fault.field}: {fault.message}") for fault in faults]
    with suppress(CallEnded):
        # By default the switch sends cause 41 with a 400, as if the network had failed.
        call.respond(400, errors, code=code)
    attempt.end(terms.REJECTED, code, terms.SYSTEM, call.ended().at)


def code_of(faults: Sequence[Fault]) -> int:
    """Return the Q.850 cause of a refusal."""
    codes = {fault.code for fault in faults}
    if "restricted" in codes:
        return causes.BEARER_NOT_AUTHORIZED
    return causes.USER_BUSY if "limit_reached" in codes else causes.CALL_REJECTED


APPLICATION = Application(
    ref=REF,
    path="click2dial",
    title="A client asks over HTTP, or a phone dials: ring the agent, then the customer.",
    recorded=True,
    arrive=arrive,
    restore=restore,
    holds=True,
    headers=[f"{family}-{name}" for family in _FAMILIES for name in _MARKS],
)
