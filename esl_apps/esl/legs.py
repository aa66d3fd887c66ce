"""Read a leg's times, causes and parties from a channel event.

A switch's times are read here and nowhere else, and leave this module as the node's (``esl.switch_clock``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from esl_apps.core import causes, node_clock
from esl_apps.core.call import Bridged, Leg
from esl_apps.esl.header_block import HeaderBlock
from esl_apps.esl.quality import quality_of
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.esl.wire import COMMAND_REPLY, Event, decode

#: The variable with the other leg's UUID, which both legs have from the phone's REFER on.
REFERRED = "blind_transfer_uuid"
OF_BLEGS = "CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_ANSWER"
#: Events of a leg that has not ended.
LIVES = frozenset(OF_BLEGS.encode().split())
#: A leg's times in its events, in microseconds.
_TIMES = HeaderBlock(
    b"Caller-Channel-",
    (
        *(b"Created-Time", b"Answered-Time", b"Progress-Time", b"Progress-Media-Time", b"Hangup-Time"),
        *(b"Transfer-Time", b"Resurrect-Time", b"Bridged-Time", b"Last-Hold", b"Hold-Accum"),
    ),
    (b"Created-Time", b"Answered-Time", b"Progress-Time", b"Progress-Media-Time", b"Hangup-Time", b"Hold-Accum"),
    600,
)
#: The headers of a caller's channel that are read after the first bridge.
_LASTING = (
    b"Unique-ID",
    b"Caller-Channel-Created-Time",
    b"Caller-Channel-Answered-Time",
    b"Channel-Read-Codec-Rate",
)
#: What ``originate_disposition`` says of an originate that has not failed.
_NO_CAUSE = frozenset({"SUCCESS", "call accepted"})


def lasting(data: Event) -> Event:
    """Return a channel's data with what is still read after the first bridge."""
    values = [(name, data.raw(name)) for name in _LASTING]
    block = b"".join([name + b": " + value + b"\n" for name, value in values if value is not None])
    return Event(block, b"", COMMAND_REPLY)


def leg_of(event: Event, clock: SwitchClock, *, with_user: bool = True) -> Leg:
    """Read a leg from one of its events. The record is made of the switch's own times.

    ``clock``: that of the switch that wrote the event.

    ``with_user``: also read whose extension it rang. That variable is far back in the event.
    """
    lines = event.lines
    created, answered, progress, media, ended, held = _TIMES.read(lines, lines.find(_TIMES.first))
    hung_up = event.name == b"CHANNEL_HANGUP_COMPLETE"
    ahead = clock.ahead
    cause = q850 = disposition = ended_at = None
    hold = 0.0
    # A live leg has no end, and a header that is absent takes longest to search for.
    if event.name not in LIVES:
        said = event.last(b"variable_sip_hangup_disposition")
        disposition = decode(said) if said is not None else None
    if hung_up:
        cause = event.get("Hangup-Cause")
        q850 = _code(event, cause, refused=disposition == "recv_refuse")
        ended_at = _time(ended, ahead) or node_clock.now()
        hold = _time(held, 0.0) or 0.0
    created_at = _time(created, ahead)
    ringing_at = _time(progress, ahead) or _time(media, ahead)
    answered_at = _time(answered, ahead)
    uuid = event.uuid or ""
    quality = None
    if hung_up:
        delay = None if created_at is None or ringing_at is None else ringing_at - created_at
        quality = quality_of(lines, uuid, delay, answered=answered_at is not None)
    return Leg(
        uuid,
        created_at,
        ringing_at,
        answered_at,
        ended_at,
        cause,
        q850,
        disposition,
        hold,
        event.var("esl_user_id") if with_user else None,
        quality,
    )


def leg_now(event: Event, clock: SwitchClock) -> Leg:
    """Read a leg that is up from the switch's dump of it, with its hold and its sound until now."""
    leg = leg_of(event, clock)
    leg.hold_seconds = event.int("Caller-Channel-Hold-Accum") / 1e6
    since = time_of(event, "Caller-Channel-Last-Hold", clock) if event.get("Channel-Call-State") == "HELD" else None
    if since is not None:
        leg.hold_seconds += max(0.0, node_clock.now() - since)
    delay = None if leg.created_at is None or leg.ringing_at is None else leg.ringing_at - leg.created_at
    leg.quality = quality_of(event.lines, leg.uuid, delay, answered=leg.answered_at is not None)
    return leg


def _code(event: Event, cause: str | None, *, refused: bool) -> int:
    """Read the Q.850 code of a leg's end."""
    number = _number(event, b"variable_hangup_cause_q850")
    if not refused:
        return causes.read(cause, number)
    status = _number(event, b"variable_sip_term_status")
    # FreeSWITCH sets the host with the first response other than 100. Only a 408 may be of its own making.
    unheard = (
        status == 408
        and event.last(b"variable_sip_reply_host") is None
        and event.last(b"variable_sip_gateway_name") is not None
    )
    return causes.read(cause, number, status=status, reason=event.var("sip_reason") or "", unheard=unheard)


def _number(event: Event, name: bytes) -> int:
    """Return a variable of up to three digits; 0 if it is absent or something else."""
    value = event.last(name)
    return int(value) if value is not None and value.isdigit() and len(value) < 4 else 0


def media_fit(aleg: Event) -> bool:
    """Return whether a caller offers an audio codec that the switch takes; also if the switch doesn't say."""
    # The codecs in common. A video codec has no @.
    if "@" in (aleg.var("ep_codec_string") or ""):
        return True
    if aleg.var("endpoint_disposition") != "DELAYED NEGOTIATION":
        return True
    # The dialplan chose another list of codecs, or has the legs negotiate with each other.
    return any(aleg.var(name) for name in ("absolute_codec_string", "codec_string", "bypass_media", "proxy_media"))


def _time(value: bytes, ahead: float) -> float | None:
    """Return a time of a clock that is so many seconds ahead; None if absent or 0, which means that it hasn't
    happened."""
    microseconds = int(value) if value.isdigit() and len(value) < 20 else 0
    return microseconds / 1e6 - ahead if microseconds else None


def time_of(event: Event, header: str, clock: SwitchClock) -> float | None:
    """Return a header's time; None if absent or 0, which means that it hasn't happened."""
    value = event.int(header)
    return clock.here(value / 1e6) if value else None


def bleg_by_aleg(event: Event, clock: SwitchClock) -> Leg | None:
    """Read from an A-leg's end what became of a B-leg whose own events were not seen; None if there was none."""
    bridged_at = time_of(event, "variable_bridge_uepoch", clock)
    if bridged_at is None:
        return None
    cause = event.var("last_bridge_hangup_cause")
    return Leg(
        uuid=event.var("last_bridge_to") or "",
        answered_at=bridged_at,
        ended_at=time_of(event, "Caller-Channel-Hangup-Time", clock),
        cause=cause,
        q850=causes.q850(cause) if cause else causes.NORMAL_CLEARING,
        # The switch sent A the BYE, and no node had ordered it, so B had hung up.
        disposition="recv_bye"
        if event.var("sip_hangup_disposition") == "send_bye" and cause == "NORMAL_CLEARING"
        else None,
    )


class Finished(Protocol):
    """An application that was sent to a leg: its CHANNEL_EXECUTE_COMPLETE, and whether it has ended."""

    event: Event | None

    @property
    def done(self) -> bool: ...


def talk_is_over(bridge: Finished, bleg: Leg | None) -> bool:
    """Return whether two legs talk no more. ``bridge``: the application that joined them."""
    if not bridge.done:
        return False
    # A phone's transfer key takes a leg out of the bridge. If the transfer is refused, the switch joins the two again,
    # in a bridge of its own: then the talk lasts until B ends.
    b_goes_on = bleg is not None and bleg.ended_at is None
    return not (b_goes_on and bridge.event is not None and bridge.event.var(REFERRED) is not None)


def refused_by(aleg: Event) -> Bridged | None:
    """Read from an A-leg's variables why a B-leg failed whose own events were not seen; None: they don't say.

    The originate's own outcome comes first: the bridge's may be that of the number before.
    """
    for name in ("originate_disposition", "last_bridge_hangup_cause", "bridge_hangup_cause"):
        cause = aleg.var(name)
        if cause and cause not in _NO_CAUSE:
            code = causes.q850(cause)
            if code in causes.SAYS_NOTHING:
                # FreeSWITCH copies the status of B's refusal to A, where it stays.
                code = causes.read(cause, status=_number(aleg, b"variable_sip_invite_failure_status"))
            return Bridged(False, code, cause)
    return None


def failure_of_all(blegs: Iterable[Leg]) -> Bridged:
    """Return why none of several users' phones answered, since the switch has no summary of it.

    "No answer" wins over "busy", and that over the rest. If none could be rung, none is registered.
    """
    failed = [leg for leg in blegs if leg.q850 is not None]
    if not failed:
        return Bridged(False, causes.NOT_REGISTERED)
    kinds = [causes.failure(leg.q850 or 0) for leg in failed]
    kind = min(kinds, key=causes.MOST_TELLING.index)
    leg = failed[kinds.index(kind)]
    return Bridged(False, leg.q850 or 0, leg.cause or "NORMAL_UNSPECIFIED", leg)


def telling(legs: Iterable[Leg]) -> Leg | None:
    """Return the leg that says how one user's phones fared: the one that answered, otherwise the one whose cause says
    most; of equals the last. None if no leg has ended or answered."""
    told = [leg for leg in legs if leg.q850 is not None or leg.answered_at is not None]
    return min(
        told,
        key=lambda leg: (
            leg.answered_at is None,
            causes.weight(leg.q850 or 0),
            -(leg.ended_at or 0.0),
        ),
        default=None,
    )


def unreachable(legs: Iterable[Leg], killed: str) -> bool:
    """Return whether the phones that were tried until the cause ``killed`` ended them never rang, and another one has
    refused: they are registrations that are dead, and the other one's refusal counts."""
    legs = list(legs)
    waited = [leg for leg in legs if leg.cause == killed]
    return len(waited) < len(legs) and all(leg.ringing_at is None for leg in waited)
