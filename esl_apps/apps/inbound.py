"""An inbound call to an integrator's number: ring its agents, answer with the first that answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from esl_apps.apps import rung_agents
from esl_apps.apps.application import Application, Extension
from esl_apps.apps.context import AppPolicy, Arrival, Host
from esl_apps.apps.ending import conclude
from esl_apps.apps.legs import (
    ANONYMOUS,
    OF_PHONE,
    PHONE,
    Bleg,
    aleg_variables,
    caller_id_variables,
    dial,
    leave_if_transferred,
    notice_variables,
    recording_name,
    recording_path,
    recording_variables,
)
from esl_apps.apps.settings import Queue
from esl_apps.core import causes, dialstring, identity, numbers, parties, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Bridged, Call, CallEnded, Leg
from esl_apps.core.charges import Charge
from esl_apps.core.number_text import presented
from esl_apps.core.numbers import Number
from esl_apps.core.unavailable import StoreUnavailable

REF = "inbound"


def arrive(call: Call, arrival: Arrival, policy: AppPolicy, host: Host) -> None:
    """Serve a call to a number of ``inbound``. A call to any other number is refused, and gets a record too."""
    caller = policy.caller(call)
    dnis = call.header("Caller-Destination-Number") or ""
    queue = _queue_of(dnis, policy)
    if queue is None:
        _refuse(call, caller, dnis, host)
        return
    settings = policy.settings
    from_whom = settings.plan.find(caller)
    attempt = Attempt(
        app=REF,
        integrator=queue.integrator,
        extension=queue.agents[0].dialled,
        number=caller,
        **parties.first(queue.agents[0]),
        **parties.second(parties.caller(from_whom)),
        dial_number=presented(dnis) or queue.did.e164,
        call_dir=numbers.direction(from_whom, queue.agents[0]),
        session_ref=arrival.session_ref,
        language=policy.language(dnis, None) or _language_of(queue, policy),
    )
    attempt.aleg_uuid = call.uuid
    attempt.dialled(call.created_at)
    host.begin(attempt)
    bridged: Bridged | None = None
    agents, refused = _payable(attempt, queue, rung_agents.without(queue.agents, from_whom), policy, host)
    if agents:
        attempt.extension = agents[0].dialled
    try:
        if not agents:
            call.play_early("agents_unavailable", 20)
            call.hangup("USER_BUSY" if refused == causes.USER_BUSY else "CALL_REJECTED")
        variables = {**aleg_variables(settings, attempt, ""), **OF_PHONE}
        if queue.record:
            # Record on the caller's leg: if two agents answer at the same moment, recording on their legs would write
            # one file twice.
            attempt.recording_url = recording_name(attempt)
            path = recording_path(settings.recordings, queue.integrator, attempt.recording_url)
            variables.update(recording_variables(settings, path, attempt.language))
        call.set(variables)
        call.ring()
        bridged = _ring(call, attempt, queue, agents, policy, host)
        leave_if_transferred(call, attempt)
        _hang_up(call, bridged)
    except CallEnded as ended:
        attempt.note("aleg_ended", str(ended))
    end = call.ended()
    if not agents:
        attempt.end(terms.REJECTED, refused, terms.SYSTEM, end.at)
        return
    if end.bleg is not None and end.bleg.answered_at is not None and end.both_up and attempt.bridged_at is None:
        # The caller left just after the answer, or the socket was lost before it.
        agent_answered(attempt, end.bleg.answered_at, end.bleg, host.announce)
    if end.legs or not end.lost:
        rung_agents.fared(attempt, end.legs)
    conclude(attempt, end, None if bridged is None or bridged.answered else bridged, terms.AGENT)


def _refuse(call: Call, caller: str | None, dnis: str, host: Host) -> None:
    """Refuse a call to a number that isn't configured."""
    attempt = Attempt(app=REF, extension=None, number=caller, dial_number=presented(dnis), call_dir="external")
    attempt.dialled(call.created_at)
    host.begin(attempt)
    attempt.note("refused", "the number is not in the configuration's inbound")
    with suppress(CallEnded):
        call.hangup("UNALLOCATED_NUMBER")
    attempt.end(terms.REJECTED, causes.CALL_REJECTED, terms.SYSTEM, call.ended().at)


def _hang_up(call: Call, bridged: Bridged) -> None:
    """End the caller's leg as its agents fared. :raises CallEnded: always."""
    failure = causes.failure(bridged.code)
    if bridged.answered:
        cause = "NORMAL_CLEARING"
    elif bridged.timed_out or failure == "no_answer":
        call.play_early("agents_unavailable", 20)
        cause = "NO_ANSWER"
    elif failure == "busy":
        cause = "USER_BUSY"
    elif bridged.by_switch:
        # A 503: the trunk may have another switch.
        cause = bridged.cause
    else:
        cause = "USER_NOT_REGISTERED" if bridged.code == causes.NOT_REGISTERED else "NO_ANSWER"
    call.hangup(cause)


def _queue_of(dnis: str, policy: AppPolicy) -> Queue | None:
    number = policy.settings.plan.find(dnis)
    return None if number is None else policy.queues.get(number.subscriber)


def _language_of(queue: Queue, policy: AppPolicy) -> str | None:
    client = policy.clients.get(queue.integrator)
    return client.language if client is not None else None


def _payable(
    attempt: Attempt, queue: Queue, wanted: Sequence[Number], policy: AppPolicy, host: Host
) -> tuple[list[Number], int]:
    """Return the agents that may be rung, and the Q.850 cause for the last that may not.

    An agent outside is a leg like any other that this installation pays for, although a stranger's call rings it. One
    whose limit or breaker refuses is left out.
    """
    if not host.room(attempt):
        attempt.note("refused", "over max_calls of the integrator")
        return [], causes.USER_BUSY
    client = policy.clients.get(queue.integrator)
    if not wanted:
        attempt.note("refused", "the caller is the only agent")
        return [], causes.USER_BUSY
    agents, refused = [], causes.CALL_REJECTED
    for agent in wanted:
        if not agent.is_extension:
            charge = Charge(attempt.call_ref, client.levels if client is not None else (), agent)
            # Strangers who only let it ring must not use up what the integrator may call.
            charge.provisional = True
            try:
                refusal = host.usage.begin(charge)
            except StoreUnavailable as error:
                attempt.note("unavailable", str(error))
                continue
            if refusal is not None:
                attempt.note("refused", str(refusal))
                refused = refusal.code
                continue
            attempt.pay(charge)
        agents.append(agent)
    if attempt.charges:
        # Before they are rung: a process that takes the call over returns what isn't used.
        attempt.save()
    return agents, refused


def _ring(
    call: Call, attempt: Attempt, queue: Queue, agents: Sequence[Number], policy: AppPolicy, host: Host
) -> Bridged:
    lengths = [charge.longest for charge in attempt.charges if charge.longest is not None]
    longest = min([queue.longest, *lengths])
    notice = notice_variables(policy.settings, attempt.language) if queue.record else {}
    settings, caller = policy.settings, policy.settings.plan.find(attempt.number)
    name = identity.name_of(call) if attempt.number is not None else ""
    # A phone shows the number as it came. A trunk may refuse it in another form than its own.
    of_trunk: Mapping[str, str] = {}
    if caller is not None:
        of_trunk = caller_id_variables(dialstring.caller_id(caller, settings.caller_id_format), name)
    bleg = Bleg(
        caller_id=attempt.number or ANONYMOUS,
        name=name,
        timeout=queue.ring_timeout,
        longest=longest,
        # While several agents ring, the caller must not hear one agent's early media.
        # The number and the name are the caller's: with their privacy.
        variables={"ignore_early_media": "true", "origination_privacy": "", **PHONE, **notice},
    )

    def ring(group: Sequence[Number]) -> Iterator[Bridged]:
        """Return the outcomes that count: not that of a turn in which all gateways failed and others are left."""
        wanted: dict[str | None, Sequence[str]] = {
            agent.dialled: settings.endpoints.of(agent, as_asked=False, variables=of_trunk) for agent in group
        }
        rung_agents.ask(attempt, group)
        names = [agent.dialled for agent in group]

        def progress(what: str, at: float, leg: Leg | None) -> None:
            if what in ("ringing", "early_media") and names:
                attempt.ring(names, at)
                names.clear()
            elif what == "answered":
                agent_answered(attempt, at, leg, host.announce)

        ringing = len(wanted)
        for outcome, again in dial(call, attempt, settings, bleg, wanted, progress):
            if not outcome.answered:
                rung_agents.fared(attempt, outcome.legs, outcome, again=again)
            if len(again) < ringing:
                yield outcome
            names[:] = [user for user in again if user is not None]
            ringing = len(again)

    outcomes: list[Bridged] = []
    for group in rung_agents.rounds(queue, agents):
        outcomes.extend(ring(group))
        if outcomes[-1].answered or outcomes[-1].by_switch:
            break
    return rung_agents.most_telling(outcomes)


def agent_answered(
    attempt: Attempt, at: float, bleg: Leg | None, announce: Callable[[Attempt, str, int], None]
) -> None:
    """Note which agent has answered and how long the caller waited, and announce it."""
    for charge in attempt.charges:
        attempt.confirm(charge)
    if bleg is not None and bleg.user:
        attempt.extension = bleg.user
        rung_agents.one_answered(attempt, bleg.user)
        # An agent outside has a charge, with the number.
        number = next((charge.number for charge in attempt.charges if _is_of(charge, bleg.user)), None)
        attempt.set(parties.first(number) if number is not None else parties.EXTENSION)
        # Only the agent who answered talks.
        for charge in [charge for charge in attempt.charges if not _is_of(charge, bleg.user)]:
            attempt.drop(charge)
            charge.end(0.0)
    attempt.bleg_uuid = bleg.uuid if bleg is not None else None
    attempt.answered_at = at
    attempt.hold_time = round(at - (attempt.dialed_at or at))
    attempt.enter(terms.BRIDGED, at)
    announce(attempt, attempt.extension or "", attempt.hold_time)


def _is_of(charge: Charge, user: str) -> bool:
    return charge.number is not None and charge.number.dialled == user


def extensions(config: Mapping[str, Any]) -> Iterator[Extension]:
    for number in config.get("inbound") or {}:
        yield Extension([APPLICATION.path], [number], f"inbound.{number}", str(number))


APPLICATION = Application(
    ref=REF,
    path="inbound",
    title="A customer calls an integrator's number: ring its agents, answer with the first who does.",
    recorded=True,
    second_party=terms.AGENT,
    arrive=arrive,
    joined=agent_answered,
    fared=rung_agents.fared,
    extensions=extensions,
)
