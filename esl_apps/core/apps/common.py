"""What every application shares: the leg's variables, joining to B, and the one place where a call ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from esl_apps.core import causes, cdr, dialstring
from esl_apps.core.call import Bridged, Call, Ended, Leg
from esl_apps.core.cdr import Attempt
from esl_apps.core.dialstring import Endpoints
from esl_apps.core.numbers import NumberPlan

#: Seconds by which the switch's own timers come behind the application's, of which they are the net.
_NET = 5
#: The first application that a leg runs, which nobody waits for.
_UNHEARD = {"app_uuid": dialstring.UNHEARD}


@dataclass(frozen=True)
class Settings:
    """What the flows need of the configuration."""

    node: str
    plan: NumberPlan
    endpoints: Endpoints
    caller_id_format: str
    ringback: str
    recordings: str
    """The folder as the switch writes it."""


#: The context that a leg is transferred to by its far side: there must be none of this name.
NO_TRANSFER = "esl_apps_no_transfer"


def leg_variables(attempt: Attempt, user: str) -> dict[str, str]:
    """What every leg carries, ringing ones included (contract §3)."""
    return {
        "esl_app": attempt.app,
        "esl_call_ref": attempt.call_ref,
        "esl_contact_ref": attempt.contact_ref,
        "esl_account_id": attempt.account_id or attempt.integrator or "",
        "esl_user_id": user,
        # A REFER of either party has the switch send the *other* one into the dialplan, to whatever number it names:
        # out of our checks, limits and records. With Replaces it is refused; without, there is no variable that
        # refuses it, and the leg goes to a context that no dialplan has, where it ends.
        "deny_refer_requests": "true",
        "force_transfer_context": NO_TRANSFER,
    }


def aleg_variables(settings: Settings, attempt: Attempt, user: str) -> dict[str, str]:
    """What an A-leg carries, whoever made it: enough for another node to take the call over."""
    return {
        **leg_variables(attempt, user),
        "esl_node": settings.node,
        "esl_session_ref": attempt.session_ref,
        # A node that dies does not cut talking parties, and the bridge's end ends the call (hazard 11).
        "hangup_after_bridge": "true",
        "continue_on_fail": "true",
        "outbound_redirect_fatal": "true",
        # An answered A-leg hears nothing while B rings unless it is told to (hazard 20).
        "transfer_ringback": dialstring.Raw(settings.ringback),
        "instant_ringback": "true",
        # B's RTP timestamps go back behind the ringback's, and a strict phone plays nothing until they have caught up.
        "rtp_rewrite_timestamps": "true",
        # What A's INVITE says of itself (X-*, P-*, Diversion, Identity; bodies beside the SDP) is not ours to say to
        # B. The switch asks A's leg alone: among B's own variables these two do nothing.
        "sip_copy_custom_headers": "false",
        "sip_copy_multipart": "false",
    }


def bleg_variables(
    settings: Settings, attempt: Attempt, user: str, caller_id: str, timeout: float, recording: str | None
) -> dict[str, str]:
    """What a B-leg carries. The caller ID is explicit, or the callee sees "Outbound Call" (hazard 21)."""
    result = {
        **leg_variables(attempt, user),
        # Its end is told on the switch's inbound connection, too: the A-leg's socket may not live to hear of it.
        "esl_node": settings.node,
        # One for all that a session dials: the socket is told once which legs are its.
        "esl_bleg": attempt.session_ref,
        "origination_caller_id_number": caller_id,
        "origination_caller_id_name": caller_id,
        "outbound_redirect_fatal": "true",
        "ignore_early_media": "false",
        # A net under the application's own time-out, which fires first (hazard 19).
        "originate_timeout": str(int(timeout) + _NET),
    }
    if recording is not None:
        result.update(recording_variables(recording))
    return result


def bounded(leg: dict[str, str], longest: float) -> dict[str, str]:
    """A B-leg that the switch itself ends, a moment after the application would have: it may not live so long."""
    return {**leg, "execute_on_answer_2": f"sched_hangup:+{int(longest) + _NET}", **_UNHEARD}


def recording_variables(recording: str) -> dict[str, str]:
    """What records a leg from its answer to its end: its own voice right, the other party left (hazard 25)."""
    return {
        "execute_on_answer": f"record_session:{recording}",
        "RECORD_MIN_SEC": "0",
        "RECORD_STEREO": "true",
        "RECORD_STEREO_SWAP": "true",
    }


@dataclass(frozen=True, slots=True)
class Rang:
    """One originate's end: ``answered``, ``failed`` (with its Q.850 code), ``timed_out``, ``lost``, or ``away``: the
    switch was not reached, and nothing was dialled."""

    outcome: str
    code: int = causes.NORMAL_UNSPECIFIED


class Line(Protocol):
    """A switch, as far as ringing an A-leg goes."""

    def originate(self, command: str, deadline: float) -> Rang:
        """Place one A-leg and wait for its end, or for ``deadline`` (``time.monotonic``), when it is ended."""

    def elsewhere(self) -> bool:
        """Go to another switch; False: there is none that was not tried."""


#: From another switch it may be rung: the gateways are this one's, or its phones registered elsewhere.
_NOT_FROM_HERE = causes.GATEWAY_FAILED | {causes.NOT_REGISTERED}


def ring_aleg(
    line: Line, attempt: Attempt, leg: dict[str, str], endpoints: Sequence[str], timeout: float, application: str
) -> bool:
    """Ring A, endpoint after endpoint while gateways fail, switch after switch while it can't be rung from one (an
    extension may be registered with one of them alone); one time-out over all of them.

    True: it answered, and its leg is on its way to ``application`` (``socket(host:port/path async full)``);
    else the attempt is ended.
    """
    deadline = time.monotonic() + timeout
    # A net under the application's own time-out, which fires first (hazard 19).
    leg = {**leg, "originate_timeout": str(int(timeout) + _NET), **_UNHEARD}
    commands = [dialstring.originate(leg, endpoint, application) for endpoint in endpoints]
    while True:
        rang = _ring_from_here(line, attempt, commands, deadline)
        if rang.outcome == "answered":
            return True
        from_here = rang.outcome == "away" or (rang.outcome == "failed" and rang.code in _NOT_FROM_HERE)
        if _is_over(attempt) or not from_here or time.monotonic() >= deadline or not line.elsewhere():
            break
    now = time.time()
    if attempt.cut is not None:
        attempt.end(cdr.REJECTED, attempt.cut.code, cdr.SYSTEM, now)
    elif attempt.cancelled_by is not None:
        attempt.end(cdr.CANCELLED, causes.NORMAL_CLEARING, attempt.cancelled_by, now)
    elif rang.outcome == "timed_out":
        attempt.end("agent_no_answer", causes.Q850["NO_ANSWER"], cdr.SYSTEM, now)
    elif rang.outcome in ("lost", "away"):
        attempt.end(cdr.LOST, causes.NORMAL_UNSPECIFIED, cdr.SYSTEM, now)
    else:
        attempt.end(f"agent_{causes.failure(rang.code)}", rang.code, cdr.AGENT, now)
    return False


def _ring_from_here(line: Line, attempt: Attempt, commands: Sequence[str], deadline: float) -> Rang:
    rang = Rang("failed", 38)
    for command in commands:
        attempt.dialled(time.time())
        rang = line.originate(command, deadline)
        if _is_over(attempt) or rang.outcome != "failed" or rang.code not in causes.GATEWAY_FAILED:
            break
        attempt.note("gateway_failed", f"cause {rang.code}")
    return rang


def _is_over(attempt: Attempt) -> bool:
    return attempt.cancelled_by is not None or attempt.cut is not None


def recording_name(attempt: Attempt) -> str:
    """``recording_url``: nothing of it comes from outside."""
    return f"{attempt.call_ref}.wav"


def recording_path(folder: str, integrator: str, name: str) -> str:
    """Where a recording stands: by integrator and day, so that no folder grows for ever.

    The day is the reference's own (UUID version 7): the name alone finds the file.
    """
    ms = int(name.replace("-", "")[:12], 16)
    day = time.strftime("%Y%m%d", time.gmtime(ms / 1000))
    return f"{folder.rstrip('/')}/{integrator}/{day}/{name}"


def join(
    call: Call,
    attempt: Attempt,
    leg: dict[str, str],
    endpoints: Sequence[str],
    timeout: float,
    longest: float,
) -> Bridged:
    """Dial B, endpoint after endpoint while gateways fail; one time-out over all of them."""
    leg = bounded(leg, longest)
    deadline: float | None = None

    def progress(what: str, at: float, _leg: Leg | None) -> None:
        if what == "dialled":
            attempt.dialled(at)
        elif what == "answered":
            attempt.enter(cdr.BRIDGED, at)
            # No endpoint is dialled after one that answered, and the two may talk for an hour.
            leg.clear()
        elif what in ("ringing", "early_media"):
            attempt.enter(cdr.CALLEE_RINGING, at, "" if what == "ringing" else "early media")

    bridged = Bridged(False, 38, "NETWORK_OUT_OF_ORDER")
    for endpoint in endpoints:
        now = time.monotonic()
        deadline = deadline if deadline is not None else now + timeout
        if now >= deadline:
            return Bridged(False, causes.Q850["NO_ANSWER"], "NO_ANSWER", timed_out=True)
        attempt.note("dial", endpoint.partition("/")[0] + "/…")
        attempt.save()
        bridged = call.bridge(leg, [(endpoint, None)], deadline - now, longest, progress)
        if not bridged.gateway_failed:
            return bridged
        attempt.note("gateway_failed", f"cause {bridged.code}")
    return bridged


def conclude(attempt: Attempt, end: Ended, failed: Bridged | None, party: str) -> None:
    """End the attempt by what the switch said. ``party``: whose failure a failed B is (``callee``, ``agent``).

    ``failed``: B's outcome where the two were not joined and B is the reason; None where the A-leg left first.
    """
    if failed is None and end.bleg is not None:
        if end.bleg.answered_at is not None:
            # The order of events is not the order of what happened: B's own answer time is.
            attempt.enter(cdr.BRIDGED, end.bleg.answered_at)
        elif _failed_first(end, end.bleg):
            # With early media the two were bridged, and the bridge's end took the A-leg along.
            failed = Bridged(False, end.bleg.q850 or causes.NORMAL_UNSPECIFIED, bleg=end.bleg)
    if attempt.bridged_at is not None:
        if end.lost:
            attempt.end(cdr.LOST, causes.NORMAL_UNSPECIFIED, cdr.SYSTEM, end.at)
            return
        code = end.bleg.q850 if end.bleg is not None and end.bleg.q850 else causes.NORMAL_CLEARING
        attempt.end(cdr.ANSWERED, code, _who(attempt, end, party), end.at)
    elif attempt.cut is not None:
        attempt.end(cdr.REJECTED, attempt.cut.code, cdr.SYSTEM, end.at)
    elif attempt.cancelled_by is not None:
        attempt.end(cdr.CANCELLED, causes.NORMAL_CLEARING, attempt.cancelled_by, end.at)
    elif failed is not None:
        by = cdr.SYSTEM if failed.timed_out else party
        attempt.end(f"{party}_{causes.failure(failed.code)}", failed.code, by, end.at)
    elif end.lost:
        attempt.end(cdr.LOST, causes.NORMAL_UNSPECIFIED, cdr.SYSTEM, end.at)
    else:
        first = cdr.AGENT if party == cdr.CALLEE else cdr.CALLEE
        attempt.end(cdr.ABANDONED, causes.NORMAL_CLEARING, first, end.at)


def _who(attempt: Attempt, end: Ended, second: str) -> str:
    """Who hung an answered call up. ``second``: the party on the B-leg."""
    if attempt.cut is not None:
        return cdr.SYSTEM
    if attempt.cancelled_by is not None:
        return attempt.cancelled_by
    if end.aleg.hung_up_itself:
        return cdr.AGENT if second == cdr.CALLEE else cdr.CALLEE
    if end.bleg is not None and end.bleg.hung_up_itself:
        return second
    return cdr.SYSTEM


#: Seconds. FreeSWITCH stamps each leg's end in that leg's thread: a B that takes A along may be stamped after it.
_STAMPED_WITHIN = 0.25


def end_of(aleg: Leg | None, bleg: Leg | None, now: float) -> Ended:
    """The end of a call of which the legs are all that is known. ``now``: where neither says when it ended.

    A caller's leg may live on in its session when a talk is over: the talk's end is then B's, and A had no part in it.
    """
    ends = [leg.ended_at for leg in (aleg, bleg) if leg is not None and leg.ended_at is not None]
    if aleg is not None and bleg is not None and bleg.answered_at is not None and len(ends) == 2:
        a_ended, b_ended = ends
        if a_ended > b_ended + _STAMPED_WITHIN:
            return Ended(b_ended, replace(aleg, ended_at=None, disposition=None), bleg)
    return Ended(max(ends, default=now), aleg or Leg(""), bleg)


def _failed_first(end: Ended, bleg: Leg) -> bool:
    """Whether an unanswered B ended by itself before A did, and not because A had gone."""
    if end.lost or end.aleg.hung_up_itself or bleg.ended_at is None or bleg.q850 in (None, causes.NORMAL_CLEARING):
        return False
    return end.aleg.ended_at is None or bleg.ended_at <= end.aleg.ended_at + _STAMPED_WITHIN
