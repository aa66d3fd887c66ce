"""What every application shares: the leg's variables, joining to B, and the one place where a call ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from esl_apps.apps.settings import Settings
from esl_apps.core import causes, dialstring, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Bridged, Call, Leg

#: Seconds by which the switch's own timers come behind the application's, of which they are the net.
NET = 5
#: The first application that a leg runs, which nobody waits for.
UNHEARD = {"app_uuid": dialstring.UNHEARD}


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


@dataclass(frozen=True, slots=True)
class Bleg:
    """How B is dialled. Times in seconds."""

    caller_id: str
    """The number that B is shown."""
    timeout: float
    """From the first INVITE to an answer."""
    longest: float
    """The two may talk for as long."""
    user: str = ""
    """The ``esl_user_id`` of the leg."""
    recording: str | None = None
    """The file on the switch; None: the talk is not recorded."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further channel variables."""


def bleg_variables(settings: Settings, attempt: Attempt, bleg: Bleg) -> dict[str, str]:
    """What a B-leg carries. The caller ID is explicit, or the callee sees "Outbound Call" (hazard 21)."""
    result = {
        **leg_variables(attempt, bleg.user),
        # Its end is told on the switch's inbound connection, too: the A-leg's socket may not live to hear of it.
        "esl_node": settings.node,
        # One for all that a session dials: the socket is told once which legs are its.
        "esl_bleg": attempt.session_ref,
        "origination_caller_id_number": bleg.caller_id,
        "origination_caller_id_name": bleg.caller_id,
        "outbound_redirect_fatal": "true",
        "ignore_early_media": "false",
        # A net under the application's own time-out, which fires first (hazard 19).
        "originate_timeout": str(int(bleg.timeout) + NET),
    }
    if bleg.recording is not None:
        result.update(recording_variables(bleg.recording))
    result.update(bleg.variables)
    # The switch ends the leg a moment after the application would have, if the application is gone by then.
    result["execute_on_answer_2"] = f"sched_hangup:+{int(bleg.longest) + NET}"
    result.update(UNHEARD)
    return result


def recording_variables(recording: str) -> dict[str, str]:
    """What records a leg from its answer to its end: its own voice right, the other party left (hazard 25)."""
    return {
        "execute_on_answer": f"record_session:{recording}",
        "RECORD_MIN_SEC": "0",
        "RECORD_STEREO": "true",
        "RECORD_STEREO_SWAP": "true",
    }


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


def join(call: Call, attempt: Attempt, settings: Settings, bleg: Bleg, endpoints: Sequence[str]) -> Bridged:
    """Dial B, endpoint after endpoint while gateways fail; one time-out over all of them."""
    leg = bleg_variables(settings, attempt, bleg)
    deadline: float | None = None

    def progress(what: str, at: float, _leg: Leg | None) -> None:
        if what == "dialled":
            attempt.dialled(at)
        elif what == "answered":
            attempt.enter(terms.BRIDGED, at)
            # No endpoint is dialled after one that answered, and the two may talk for an hour.
            leg.clear()
        elif what in ("ringing", "early_media"):
            attempt.enter(terms.CALLEE_RINGING, at, "" if what == "ringing" else "early media")

    bridged = Bridged(False, 38, "NETWORK_OUT_OF_ORDER")
    for endpoint in endpoints:
        now = time.monotonic()
        deadline = deadline if deadline is not None else now + bleg.timeout
        if now >= deadline:
            return Bridged(False, causes.Q850["NO_ANSWER"], "NO_ANSWER", timed_out=True)
        attempt.note("dial", endpoint.partition("/")[0] + "/…")
        attempt.save()
        bridged = call.bridge(leg, [(endpoint, None)], deadline - now, bleg.longest, progress)
        if not bridged.gateway_failed:
            return bridged
        attempt.note("gateway_failed", f"cause {bridged.code}")
    return bridged
