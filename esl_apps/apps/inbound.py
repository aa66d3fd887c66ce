"""An inbound call to an integrator's number: ring all its agents, answer with the first that answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from esl_apps.apps.application import Application
from esl_apps.apps.ending import conclude
from esl_apps.apps.legs import (
    aleg_variables,
    bleg_variables,
    bounded,
    recording_name,
    recording_path,
    recording_variables,
)
from esl_apps.apps.settings import Settings
from esl_apps.core import causes, numbers, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Bridged, Call, CallEnded, Leg
from esl_apps.core.numbers import NotDialable, Number, presented

REF = "inbound"
APPLICATION = Application(
    ref=REF,
    path="inbound",
    title="A customer calls an integrator's number: ring its agents, answer with the first who does.",
    recorded=True,
    second_party=terms.AGENT,
)
#: What a caller whose number is withheld or unreadable is shown as.
ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Queue:
    """One number of ``inbound``."""

    did: Number
    integrator: str
    agents: tuple[Number, ...]
    ring_timeout: float
    longest: float
    record: bool


def run(
    call: Call,
    queue: Queue | None,
    caller: str | None,
    settings: Settings,
    *,
    begin: Callable[[Attempt], None],
    announce: Callable[[Attempt, str, int], None],
    session_ref: str = "",
) -> None:
    """``queue``: None where the dialled number is not configured. ``caller``: the caller's number, None if it
    is withheld. ``announce`` pushes the inbound notification: the attempt, the agent, the seconds waited."""
    dnis = call.header("Caller-Destination-Number") or ""
    if queue is None:
        attempt = Attempt(REF, None, None, caller, presented(dnis), "external")
        begin(attempt)
        attempt.dialled(call.created_at)
        attempt.note("refused", "the number is not in the configuration's inbound")
        with suppress(CallEnded):
            call.hangup("UNALLOCATED_NUMBER")
        attempt.end(terms.REJECTED, causes.CALL_REJECTED, terms.SYSTEM, call.ended().at)
        return
    try:
        from_whom = settings.plan.read(caller) if caller else None
    except NotDialable:
        from_whom = None
    attempt = Attempt(
        app=REF,
        integrator=queue.integrator,
        extension=queue.agents[0].dialled,
        number=caller,
        dial_number=presented(dnis) or queue.did.e164,
        call_dir=numbers.direction(from_whom, queue.agents[0]),
        session_ref=session_ref,
    )
    attempt.aleg_uuid = call.uuid
    begin(attempt)
    attempt.dialled(call.created_at)
    bridged: Bridged | None = None
    try:
        variables = aleg_variables(settings, attempt, "")
        if queue.record:
            # On the caller's leg, which is answered with the agent that talks: two agents who answer in one tick
            # would write into one file.
            attempt.recording_url = recording_name(attempt)
            path = recording_path(settings.recordings, queue.integrator, attempt.recording_url)
            variables.update(recording_variables(path))
        call.set(variables)
        call.ring()
        bridged = _ring(call, attempt, queue, caller, settings, announce)
        if bridged.answered:
            call.hangup("NORMAL_CLEARING")
        elif bridged.timed_out or causes.failure(bridged.code) == "no_answer":
            call.play_early("agents_unavailable", 20)
            call.hangup("NO_ANSWER")
        elif causes.failure(bridged.code) == "busy":
            call.hangup("USER_BUSY")
        else:
            call.hangup("NO_ANSWER" if bridged.code != causes.NOT_REGISTERED else "USER_NOT_REGISTERED")
    except CallEnded as ended:
        attempt.note("aleg_ended", str(ended))
    end = call.ended()
    if end.bleg is not None and end.bleg.answered_at is not None and attempt.bridged_at is None:
        # The caller left in the instant of the answer, or the socket did not live to see it.
        answered(attempt, end.bleg.answered_at, end.bleg, announce)
    conclude(attempt, end, None if bridged is None or bridged.answered else bridged, terms.AGENT)


def _ring(
    call: Call,
    attempt: Attempt,
    queue: Queue,
    caller: str | None,
    settings: Settings,
    announce: Callable[[Attempt, str, int], None],
) -> Bridged:
    leg = bleg_variables(settings, attempt, "", caller or ANONYMOUS, queue.ring_timeout, None)
    # One agent's early media is not the caller's business while the others ring.
    leg["ignore_early_media"] = "true"
    endpoints = [
        (endpoint, agent.dialled)
        for agent in queue.agents
        for endpoint in settings.endpoints.of(agent, as_asked=True)[:1]
    ]

    def progress(what: str, at: float, bleg: Leg | None) -> None:
        if what == "ringing":
            attempt.enter(terms.AGENT_RINGING, at)
        elif what == "answered":
            answered(attempt, at, bleg, announce)

    return call.bridge(bounded(leg, queue.longest), endpoints, queue.ring_timeout, queue.longest, progress)


def answered(attempt: Attempt, at: float, bleg: Leg | None, announce: Callable[[Attempt, str, int], None]) -> None:
    """An agent has answered: the client has waited as long as it had."""
    if bleg is not None and bleg.user:
        attempt.extension = bleg.user
    attempt.answered_at = at
    attempt.hold_time = round(at - (attempt.dialed_at or at))
    attempt.enter(terms.BRIDGED, at)
    announce(attempt, attempt.extension or "", attempt.hold_time)
