"""Channel variables of the legs, recordings, and connecting the A-leg to B."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from msgspec import Struct, field

from esl_apps.apps.settings import Settings
from esl_apps.core import causes, dialstring, display_name, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import SWITCH_MARGIN, Bridged, Call, CallEnded, Leg, Progress
from esl_apps.core.dialstring import Turn
from esl_apps.core.numbers import Number
from esl_apps.core.versions import CHANNEL_VARIABLES

#: Seconds for which a leg that goes on in another call is waited for: no call is longer.
LONGEST = 86400.0
#: Shown as the caller's number if there is none to show.
ANONYMOUS = "anonymous"
#: Marks the first application that a leg executes: its end isn't waited for.
UNHEARD = {"app_uuid": dialstring.UNHEARD}
#: The dialplan context for transfers by the far side. No context may have this name.
NO_TRANSFER = "esl_apps_no_transfer"
#: The dialplan context of a leg that talks to an agent's phone: with its transfer key, the phone sends the leg there.
REFER = "esl_apps_refer"
#: The variables of an agent's phone that may transfer, and of the leg that it talks to. The switch holds the phone's
#: leg until the transfer is confirmed; if it isn't, it tells the phone (403) and joins the two again.
PHONE = {"confirm_blind_transfer": "true"}
OF_PHONE = {
    "force_transfer_context": REFER,
    # Runs before the leg leaves the bridge, whose end would end the phone's leg too (hangup_after_bridge).
    "execute_on_blind_transfer": dialstring.Spaced(f"execute_extension:esl_apps_parting XML {REFER}"),
}


def leg_variables(settings: Settings, attempt: Attempt, user: str) -> dict[str, str]:
    """Return the variables of every leg, from its first ringing on."""
    reports = {} if settings.rtcp_interval is None else {"rtcp_audio_interval_msec": str(settings.rtcp_interval)}
    return {
        **reports,
        **CHANNEL_VARIABLES,
        "esl_app": attempt.app,
        "esl_call_ref": attempt.call_ref,
        "esl_contact_ref": attempt.contact_ref,
        "esl_account_id": attempt.account_id or attempt.integrator or "",
        "esl_user_id": user,
        # By a REFER, a party can have the switch send the *other* one to any number of the dialplan, past all checks,
        # limits and records. With Replaces it can be refused. Without, it can't, so the leg goes to a context that
        # doesn't exist, and ends.
        "deny_refer_requests": "true",
        "force_transfer_context": NO_TRANSFER,
        # By a SIP INFO, a phone can have the switch record the talk if its profile has a record-template, as the stock
        # one has.
        "sip_disable_recording": "true",
        # Don't pass headers of A's INVITE on to B (X-*, P-*, Diversion, Identity), nor those of B's answer to A. The
        # switch reads this on A's leg for the one, and on B's for the other.
        "sip_copy_custom_headers": "false",
        # Report REFERs to the node: of an agent's phone it may do what the switch has refused (``node.attended``).
        "sip_watch_headers": "refer-to",
    }


def aleg_variables(settings: Settings, attempt: Attempt, user: str) -> dict[str, str]:
    """Return the variables of every A-leg: enough for another node to take the call over."""
    return {
        **leg_variables(settings, attempt, user),
        "esl_node": settings.node,
        "esl_session_ref": attempt.session_ref,
        # If the node dies, the parties go on talking, and the call ends with the bridge (hazard 11).
        "hangup_after_bridge": "true",
        "continue_on_fail": "true",
        "outbound_redirect_fatal": "true",
        # Without this an answered A-leg hears silence while B rings (hazard 20).
        "transfer_ringback": dialstring.Raw(settings.ringback),
        "instant_ringback": "true",
        # B's RTP timestamps start below those of the ringback, and a strict phone plays nothing until they catch up.
        "rtp_rewrite_timestamps": "true",
        # Don't pass bodies of A's INVITE on to B, other than SDP. The switch reads this on the A-leg only.
        "sip_copy_multipart": "false",
    }


def has_phone(settings: Settings, agent: Number) -> bool:
    """Return whether an agent has a registered phone, whose transfer key works."""
    return settings.endpoints.registration(agent) is not None


def phone_of(settings: Settings, attempt: Attempt) -> Number | None:
    """Return the agent whose registered phone is in a call; None if the call's agent has none, or only shows its
    number."""
    agent = None if attempt.claimed else settings.plan.find(attempt.extension)
    return agent if agent is not None and has_phone(settings, agent) else None


def caller_id_variables(number: str, name: str = "") -> dict[str, str]:
    """Return the variables of what a leg's phone shows. Without a name it shows the number twice, because FreeSWITCH
    would have it show "Outbound Call" (hazard 21)."""
    return {
        "origination_caller_id_number": number,
        "origination_caller_id_name": dialstring.Raw(display_name.encoded(name)) if name else number,
    }


class Bleg(Struct, frozen=True):
    """How B is dialled. Times in seconds."""

    caller_id: str
    """The number that B is shown."""
    timeout: float
    """From the first INVITE to an answer."""
    longest: float
    """How long the two may talk."""
    user: str = ""
    """The ``esl_user_id`` of the leg."""
    name: str = ""
    """The name that B is shown with the number."""
    recording: str | None = None
    """The file on the switch; None: the talk is not recorded."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further channel variables."""
    until: float | None = None
    """When the talk ends at the latest, by ``time.monotonic()``."""


def bleg_variables(settings: Settings, attempt: Attempt, bleg: Bleg) -> dict[str, str]:
    """Return the variables of a B-leg."""
    result = {
        **leg_variables(settings, attempt, bleg.user),
        # So that its end is also reported on the inbound connection, in case the A-leg's socket is lost.
        "esl_node": settings.node,
        # The same for all numbers of a session, so the socket subscribes to its B-legs once.
        "esl_bleg": attempt.session_ref,
        **caller_id_variables(bleg.caller_id, bleg.name),
        "outbound_redirect_fatal": "true",
        "ignore_early_media": "false",
        # Offer A's codec first, and the profile's as well. By default B is offered A's alone: a trunk without Opus then
        # refuses every call of a browser that has been answered, with 488 (88).
        "media_mix_inbound_outbound_codecs": "true",
        # Only for a lost application: its own time-out fires first (hazard 19).
        "originate_timeout": str(int(bleg.timeout) + SWITCH_MARGIN),
    }
    if bleg.caller_id != ANONYMOUS:
        # By default B's leg has the privacy of A's: of a caller who withholds their number, a trunk would withhold the
        # account's. These are the flags of any other leg.
        result["origination_privacy"] = "screen"
    if bleg.recording is not None:
        result.update(recording_variables(settings, bleg.recording, attempt.language, attempt.second_party))
    result.update(bleg.variables)
    # The switch ends the leg soon after the application should have, in case the application is gone.
    result["execute_on_answer_2"] = f"sched_hangup:+{int(bleg.longest) + SWITCH_MARGIN}"
    result.update(UNHEARD)
    return result


def recording_variables(
    settings: Settings, recording: str, language: str | None = None, party: str = terms.CALLEE
) -> dict[str, str]:
    """Return the variables that record a leg while it is answered (hazard 25).

    ``language``: of the notice. ``party``: as for :func:`recording_settings`."""
    notice = settings.notice_in(language)
    if notice is None:
        start = {"execute_on_answer": f"record_session:{recording}"}
    else:
        # The leg runs these one after the other (the double colon), and meanwhile its bridge carries no sound.
        start = {
            "execute_on_answer": dialstring.Raw(f"playback::{notice}"),
            "execute_on_answer_1": f"record_session::{recording}",
        }
    return {**start, **recording_settings(settings, party)}


def notice_variables(settings: Settings, language: str | None = None) -> dict[str, str]:
    """Return the variables by which the other leg of a recorded call hears the notice.

    The switch plays it there after the recorded leg has heard it, when it joins the two: a notice of 1.4 s ended 1.4 s
    after the answer on the one leg, and 3.0 s after it on the other. Meanwhile the recorded leg hears silence.
    """
    notice = settings.notice_in(language)
    if notice is None or not settings.notice_to_both:
        return {}
    # Once: after a consultation the leg is joined again, perhaps for a talk that isn't recorded.
    steps = f"m:^:playback:{notice}^unset:bridge_pre_execute_app inline"
    return {"bridge_pre_execute_app": "execute_extension", "bridge_pre_execute_data": dialstring.Spaced(steps)}


def recording_settings(settings: Settings, party: str) -> dict[str, str]:
    """Return the variables that a leg needs before it is recorded. ``party``: whose leg it is; the agent is left."""
    # Without a rate of its own, the file of an Opus call has 48 kHz: 192 KB a second.
    rate = {"record_sample_rate": str(settings.recording_rate)} if settings.recording_rate else {}
    return {
        "RECORD_MIN_SEC": "0",
        "RECORD_STEREO": "true",
        # By default the leg's own voice is left. It may have another value from an earlier call.
        "RECORD_STEREO_SWAP": "false" if party == terms.AGENT else "true",
        **rate,
    }


def recording_name(attempt: Attempt) -> str:
    """Return ``recording_url``. No part of it comes from outside."""
    return f"{attempt.call_ref}.wav"


def recording_path(folder: str, integrator: str, name: str) -> str:
    """Return a recording's path: by integrator and day, so that no folder grows without end.

    The day is part of the reference (UUID version 7), so the name alone is enough to find the file.
    """
    ms = int(name.replace("-", "")[:12], 16)
    day = time.strftime("%Y%m%d", time.gmtime(ms / 1000))
    return f"{folder.rstrip('/')}/{integrator}/{day}/{name}"


def recording_of(call: Call, attempt: Attempt, integrator: str, settings: Settings) -> str:
    """Return the file on the switch into which B's leg will be recorded, and have A hear the notice."""
    attempt.recording_url = recording_name(attempt)
    if notice := notice_variables(settings, attempt.language):
        call.set(notice)
    return recording_path(settings.recordings, integrator, attempt.recording_url)


def leave_if_transferred(call: Call, attempt: Attempt) -> None:
    """Leave A alone after a bridge, if it goes on in another call. :raises CallEnded: it does."""
    went_on = attempt.transferred_to or attempt.consultation
    if attempt.transferred_to is not None:
        # Its socket stays until A ends: the end of one socket ends the park of another.
        call.wait_for_hangup(LONGEST)
    if went_on is not None:
        raise CallEnded(f"it goes on in {went_on}")


def join(
    call: Call,
    attempt: Attempt,
    settings: Settings,
    bleg: Bleg,
    endpoints: Sequence[str],
    *,
    parts: bool = False,
    second: str = terms.CALLEE,
) -> Bridged:
    """Dial B, trying the next endpoint while gateways fail. ``parts``: as ``Call.bridge``. ``second``: the party on
    B."""

    def progress(what: str, at: float, answering: Leg | None) -> None:
        if what == "dialled":
            attempt.dialled(at)
        elif what == "answered":
            attempt.bleg_uuid = answering.uuid if answering is not None else None
            attempt.enter(terms.BRIDGED, at)
        elif what in ("ringing", "early_media"):
            attempt.enter(terms.CALLEE_RINGING, at, "" if what == "ringing" else "early media", second=second)

    outcome = Bridged(False, causes.NETWORK_OUT_OF_ORDER)
    for bridged, _again in dial(call, attempt, settings, bleg, {None: endpoints}, progress, parts=parts):
        leave_if_transferred(call, attempt)
        outcome = bridged
    return outcome


def dial(
    call: Call,
    attempt: Attempt,
    settings: Settings,
    bleg: Bleg,
    wanted: Mapping[str | None, Sequence[str]],
    progress: Progress,
    *,
    parts: bool = False,
) -> Iterator[tuple[Bridged, Sequence[str | None]]]:
    """Ring users at once, then those whose gateways have failed through their next one, and so on. Return the outcome
    of each turn with the users who are rung in the next. One time-out covers all turns.

    ``wanted``: each user's endpoints; a single one may be None, as for ``Call.bridge``.
    """
    leg = bleg_variables(settings, attempt, bleg)
    left: dict[str | None, list[Turn]] = {user: [*dialstring.in_turn(wanted[user])] for user in wanted}
    turns: dict[str | None, Turn] = {}
    heard = False

    def listen(what: str, at: float, answering: Leg | None) -> None:
        nonlocal heard
        heard = heard or what != "dialled"
        if what == "answered":
            if answering is not None and answering.user in turns:
                attempt.gateway = turns[answering.user].label
            # It isn't needed any more, and the two may talk for an hour.
            leg.clear()
        progress(what, at, answering)

    again = [user for user in left if left[user]]
    deadline: float | None = None
    while again:
        began = time.monotonic()
        deadline = deadline if deadline is not None else began + bleg.timeout
        turns = {user: left[user].pop(0) for user in again}
        endpoints = [(turn.endpoint, user) for user, turn in turns.items()]
        attempt.note(
            "dial", ", ".join(dict.fromkeys(endpoint.partition("/")[0] + "/…" for endpoint, _user in endpoints))
        )
        # If several ring, the gateway is that of the first to answer.
        alone = next(iter(turns.values())) if len(turns) == 1 else None
        attempt.gateway = None if alone is None else alone.label
        attempt.save()
        leg.pop("leg_progress_timeout", None)
        leg.update({} if alone is None else alone.patience)
        heard = False
        bridged = call.bridge(leg, endpoints, deadline - began, bleg.longest, listen, parts=parts, until=bleg.until)
        if alone is not None and bridged.timed_out and not heard and alone.is_silent(time.monotonic() - began):
            bridged = Bridged(False, causes.NETWORK_OUT_OF_ORDER, bleg=bridged.bleg)
        if bridged.by_switch:
            attempt.note("switch_full", "it had no session to spare")
        failed = _failed(turns, bridged)
        for label, code in {turns[user].label or "": code for user, code in failed.items()}.items():
            attempt.note("gateway_failed", f"{label}: cause {code}")
            attempt.gateways_failed.append(label)
        if len(failed) == len(turns):
            attempt.gateway = None
            if not bridged.gateway_failed:
                # Without a leg, it says that no user is registered.
                bridged = replace(bridged, code=causes.NETWORK_OUT_OF_ORDER)
        # If no time is left for another gateway, the one before says why the call failed.
        again = [user for user in failed if left[user]] if time.monotonic() < deadline else []
        yield bridged, again


def _failed(turns: Mapping[str | None, Turn], bridged: Bridged) -> dict[str | None, int]:
    """Return the users whose gateway failed, each with its cause."""
    behind = [user for user, turn in turns.items() if turn.gateway is not None]
    if len(turns) == 1:
        return {user: bridged.code for user in behind if bridged.gateway_failed}
    if bridged.answered or bridged.timed_out or bridged.by_switch:
        return {}
    # The switch makes no leg through a gateway that is down.
    codes = dict.fromkeys(behind, causes.NETWORK_OUT_OF_ORDER)
    codes.update({leg.user: leg.q850 or causes.NORMAL_UNSPECIFIED for leg in bridged.legs if leg.user in codes})
    return {user: code for user, code in codes.items() if code in causes.GATEWAY_FAILED}
