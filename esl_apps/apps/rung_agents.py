"""The agents of an inbound call: which of them are rung, in which order, and how each fared."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from esl_apps.apps.settings import Queue
from esl_apps.core import causes
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Bridged, Leg
from esl_apps.core.call_fields import RungAgent
from esl_apps.core.numbers import Number

ANSWERED, ELSEWHERE = "answered", "elsewhere"


def without(agents: Sequence[Number], caller: Number | None) -> list[Number]:
    """Return the agents but the caller, whose phone is in this call."""
    return [agent for agent in agents if caller is None or agent.subscriber != caller.subscriber]


def rounds(queue: Queue, agents: Sequence[Number]) -> list[list[Number]]:
    """Return the agents in the order of the number's strategy: those in one list ring at once."""
    if queue.strategy == "all":
        return [list(agents)]
    one_by_one = [[agent] for agent in agents]
    if queue.strategy == "random":
        random.shuffle(one_by_one)
    return one_by_one


def ask(attempt: Attempt, agents: Sequence[Number]) -> None:
    """Note that these agents are rung now."""
    asked: list[RungAgent] = [
        {"agent": agent.dialled, "seconds": 0, "end_reason": None, "end_code": None} for agent in agents
    ]
    attempt.agents = [*(attempt.agents or ()), *asked]
    attempt.agents_outside += [agent.dialled for agent in agents if not agent.is_extension]


def one_answered(attempt: Attempt, agent: str) -> None:
    """Note that an agent has answered, so that the others aren't rung any more. :func:`fared` says more at the end."""
    for entry in attempt.agents or ():
        if entry["end_reason"] is None:
            entry["end_reason"] = ANSWERED if entry["agent"] == agent else ELSEWHERE
            entry["end_code"] = causes.NORMAL_CLEARING


def fared(
    attempt: Attempt,
    legs: Sequence[Leg],
    outcome: Bridged | None = None,
    *,
    again: Collection[str | None] = (),
) -> None:
    """Note how the agents fared that are rung now, by all their legs.

    ``outcome``: of ringing them; None if the caller left, or talked with one of them to the end of the call.
    ``again``: those who are rung once more, through another gateway.
    """
    heard = bool(legs) or outcome is not None
    for entry in attempt.agents or ():
        if entry["end_reason"] not in (None, ANSWERED, ELSEWHERE):
            continue
        own = [leg for leg in legs if leg.user == entry["agent"]]
        for leg in own:
            if leg.answered_at is None:
                attempt.stopped_ringing(leg.ended_at)
        # Their phones may have rung through a gateway that failed then.
        entry["seconds"] = max([entry["seconds"], *map(_rang, own)])
        if entry["agent"] in again:
            continue
        if outcome is not None and outcome.by_switch:
            entry["end_reason"], entry["end_code"] = "failed", outcome.code
        elif heard and not own:
            # The switch makes no leg for a user without a registration, nor through a gateway that is down.
            has_gateway = entry["agent"] in attempt.agents_outside
            code = causes.NETWORK_OUT_OF_ORDER if has_gateway else causes.NOT_REGISTERED
            entry["end_reason"], entry["end_code"] = "failed", code
        else:
            timed_out = outcome is not None and outcome.timed_out
            entry["end_reason"], entry["end_code"] = _end(attempt, own, timed_out=timed_out)


def _rang(leg: Leg) -> int:
    """Return the whole seconds for which a phone rang."""
    end = leg.answered_at or leg.ended_at
    return 0 if leg.ringing_at is None or end is None else max(0, round(end - leg.ringing_at))


def _end(attempt: Attempt, legs: Sequence[Leg], *, timed_out: bool) -> tuple[str, int]:
    talked = attempt.bridged_at is not None
    for leg in legs:
        if talked and leg.answered_at is not None and leg.cause != "LOSE_RACE":
            return ANSWERED, leg.q850 or causes.NORMAL_CLEARING
    codes = [leg.q850 for leg in legs if leg.q850 is not None and leg.q850 not in causes.SAYS_NOTHING]
    if codes:
        code = min(codes, key=causes.weight)
        return causes.failure(code), code
    if timed_out:
        return "no_answer", causes.NO_ANSWER
    if talked:
        return ELSEWHERE, causes.NORMAL_CLEARING
    return ("abandoned" if attempt.cancelled_by is None else "cancelled"), causes.NORMAL_CLEARING


def most_telling(outcomes: Sequence[Bridged]) -> Bridged:
    """Return the outcome that says how the call fared: an answer, otherwise as the agents of one round are summed up:
    one who didn't answer counts before one who was busy, and that one before the rest."""
    last = outcomes[-1]
    if last.answered or last.by_switch:
        return last
    return min(outcomes, key=lambda outcome: causes.MOST_TELLING.index(causes.failure(outcome.code)))
