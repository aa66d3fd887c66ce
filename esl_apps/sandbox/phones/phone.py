"""Scripted phones: extensions with registrations, and numbers behind a gateway.

A `Dialog` is one call between the switch and one phone. It is its channel's SIP endpoint and follows the phone's
script. It sends no SIP, but the variables, causes and times are those that FreeSWITCH has when a real phone
behaves like this.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from esl_apps.sandbox.leg.channel import Channel, Switchboard
from esl_apps.sandbox.leg.media import dtmf_tones
from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.leg.state import State
from esl_apps.sandbox.phones.gateway import Gateway
from esl_apps.sandbox.phones.invite import Invite
from esl_apps.sandbox.phones.script import Leg, Script, asks_for_answer
from esl_apps.sandbox.phones.sip import (
    cancel_variables,
    dialog_variables,
    media_variables,
    new_tag,
    redirect_variables,
    refusal_variables,
    response_variables,
)
from esl_apps.sandbox.run.refer import refer
from esl_apps.sandbox.run.sleeper import Handle, later
from esl_apps.sandbox.wire import causes, strings
from esl_apps.sandbox.wire.events import Event

DIGIT_SECONDS = 0.1
"""Seconds from a key's press to its release, when it counts."""
GAP_SECONDS = 0.05
#: The port of a registration whose phone is gone.
DEAD_PORT = 9
#: Seconds after which sofia gives an INVITE up: no response at all (timer B), or an ICMP error.
UNHEARD_SECONDS, UNREACHABLE_SECONDS = 32.0, 1.0


class Exchange(Switchboard, Protocol):
    """The switch, as seen by its phones."""

    gateways: dict[str, Gateway]
    extensions: dict[str, Phone]
    outside: dict[str, Phone]
    stray_calls: list[Dialog]

    def next_call_number(self) -> str:
        """Return a number for a phone's call."""

    def call_began(self, dialog: Dialog) -> None:
        """Note that a phone's call began."""

    def call_ended(self, dialog: Dialog) -> None:
        """Note that a phone's call ended."""

    def default_script(self, number: str) -> Script | None:
        """Return the script of an outside number that wasn't defined."""


class Phone:
    """An extension or an outside number, with its script and its calls, oldest first."""

    def __init__(self, switch: Exchange, number: str, *, outside: bool, script: Script | None = None) -> None:
        self.switch = switch
        self.number = number
        self.outside = outside
        self.script = script or Script()
        self.registrations = 0 if outside else 1
        self.dead = 0
        """Further registrations, whose phones are gone."""
        self.calls: list[Dialog] = []
        self.keep = 10_000
        """The most calls to remember: those of a load run would fill the memory."""

    def note(self, dialog: Dialog) -> None:
        """Remember a call."""
        self.calls.append(dialog)
        if len(self.calls) > self.keep:
            del self.calls[: self.keep // 10]

    def contacts(self) -> list[str]:
        """Return the dial strings of the phone's registrations."""
        base = 20000 + (strings.number(self.number) % 1000) * 10
        ports = [*[DEAD_PORT] * self.dead, *(base + n for n in range(self.registrations))]
        return [f"sofia/internal/sip:{self.number}@127.0.0.1:{port};ob" for port in ports]

    def dial(
        self,
        number: str,
        headers: Mapping[str, str] | None = None,
        *,
        context: str | None = None,
        codecs: Sequence[str] = ("PCMU",),
    ) -> Dialog:
        """Call a number through the switch, and offer these codecs."""
        dialog = Dialog(self.switch, self, self.script, "out", number)
        self.note(dialog)
        dialog.invite_switch(dict(headers or {}), context, codecs)
        return dialog


class Dialog:
    """One call of one phone, and the `Endpoint` of its channel."""

    kind = "sofia"

    def __init__(self, switch: Exchange, phone: Phone | None, script: Script, direction: str, number: str) -> None:
        self.switch = switch
        self.phone = phone
        self.script = script
        self.leg = Leg(direction, number, started_at=time.time())
        self.ref = switch.next_call_number()
        self.channel: Channel | None = None
        self.uuid: str | None = None
        """The UUID of a channel that was destroyed."""
        self.received = ""
        """Digits that the other party sent."""
        self._pressed: set[int] = set()
        self.on_hold = False
        self.held = False
        """The switch holds this phone (``uuid_hold``)."""
        self.unfit = False
        """The caller offered no codec that the switch has."""
        self.late_cancel = False
        """The phone redirected the call, and the switch ends the leg as if it had cancelled it."""
        self.sent_refusal: tuple[int, str] | None = None
        self._timers: list[Handle] = []

    # -- the switch calls the phone -------------------------------------------------------------------

    def invited(self) -> None:
        """Follow the script: the INVITE has reached the phone."""
        script, leg = self.script, self.leg
        leg.started_at = time.time()
        if script.silent:
            self._after(UNHEARD_SECONDS, self._refuse, 408)
            return
        if script.unreachable:
            self._after(UNREACHABLE_SECONDS, self._refuse, 503)
            return
        if script.reject is not None:
            if script.answer_after is None:
                self._after(0, self._refuse)
                return
            self._after(script.answer_after, self._refuse)
        elif script.auto_answer and asks_for_answer(leg.headers):
            self._after(0, self._answer)
        elif script.answer_after is not None:
            self._after(script.answer_after, self._answer)
        if script.early_media:
            self._after(script.ring_after or 0.0, self._early)
        elif script.ring_after is not None and (
            script.answer_after is None or script.ring_after <= script.answer_after
        ):
            self._after(script.ring_after, self._ring)

    def _after(self, seconds: float, function: Any, *args: Any) -> None:
        self._timers.append(later(seconds, function, *args))

    @property
    def ended(self) -> bool:
        """Whether the call has ended."""
        return self.leg.ended_at is not None

    def _ring(self) -> None:
        channel = self.channel
        if channel is None or self.ended or channel.down:
            return
        self.leg.ringing_at = time.time()
        dialog_variables(channel)
        channel.mark_ring_ready()

    def _early(self) -> None:
        channel = self.channel
        if channel is None or self.ended or channel.down:
            return
        self.leg.early_media_at = time.time()
        dialog_variables(channel)
        self._media_variables(channel)
        channel.set("endpoint_disposition", "EARLY MEDIA")
        codec, channel.codec = channel.codec, None
        channel.mark_pre_answered()
        channel.codec = codec
        self.switch.shape_changed(channel)

    def pick_up(self) -> None:
        """Answer a ringing call now, whatever its script says."""
        if self.leg.direction == "in" and self.leg.answered_at is None:
            self._answer()

    def reject(self, status: int) -> None:
        """Refuse a ringing call with this SIP status."""
        if self.leg.direction == "in" and self.leg.answered_at is None:
            self.script = replace(self.script, reject=status)
            self._refuse()

    def _answer(self) -> None:
        channel = self.channel
        if channel is None or self.ended or channel.down:
            return
        self.leg.answered_at = time.time()
        self.leg.status = 200
        dialog_variables(channel)
        self._media_variables(channel)
        self._connected()
        channel.mark_answered()
        self.switch.shape_changed(channel)

    def _refuse(self, unheard: int = 0) -> None:
        """End the call with the phone's refusal, or with a status of sofia's own: ``unheard``."""
        channel = self.channel
        if channel is None or self.ended or channel.down:
            return
        if not unheard:
            response_variables(channel)
        status = unheard or self.script.reject or 486
        self._end("phone", status)
        if status in (301, 302) and self.script.redirect:
            self._redirected(channel, self.script.redirect)
            return
        cause = causes.from_sip(status)
        reason = self.script.reason or ""
        if "Q.850" in reason and "cause=" in reason:
            cause = causes.NAMES.get(strings.number(reason.split("cause=")[1]), cause)
        channel.set("sip_reason", reason or None)
        refusal_variables(channel, status, cause)
        channel.hangup(cause)

    def _redirected(self, channel: Channel, contact: str) -> None:
        """Handle a 3xx: the leg fails if the dial string says so, else the *caller* goes to the redirector's number."""
        address = contact.strip("<>").removeprefix("sip:")
        if "@" not in address:
            address += "@127.0.0.1"
        user, _, host = address.partition("@")
        caller = channel.bonded()
        redirect_variables(channel, user, host)
        # FreeSWITCH reports such a leg as cancelled.
        self.leg.ended_at, self.late_cancel = None, True
        if channel.true("outbound_redirect_fatal"):
            channel.hangup("REQUESTED_CHAN_UNAVAIL")
            return
        channel.hangup("REDIRECTION_TO_NEW_DESTINATION")
        if caller is not None:
            caller.transfer(user.split(";")[0], context=caller.profile.context)

    def _media_variables(self, channel: Channel) -> None:
        media_variables(channel)
        if not self.script.telephone_event:
            channel.set("dtmf_type", "info")

    def _connected(self) -> None:
        script = self.script
        if script.hangup_after is not None:
            self._after(script.hangup_after, self.hang_up)
        if script.digits:
            self._after(script.digits_after, self.digits, script.digits)

    # -- the phone calls the switch -------------------------------------------------------------------

    def invite_switch(self, headers: dict[str, str], context: str | None, codecs: Sequence[str] = ("PCMU",)) -> None:
        """Send the INVITE, which creates a channel in the dialplan context of the caller."""
        assert self.phone is not None
        switch, phone, number = self.switch, self.phone, self.leg.number
        profile_name = "external" if phone.outside else "internal"
        context = context or ("public" if phone.outside else "default")
        call = Invite(switch, phone.number, phone.outside, number, headers, codecs)
        self.unfit = not call.codecs
        profile = CallerProfile(
            username=call.from_user,
            dialplan="XML",
            caller_id_name=call.caller_name,
            caller_id_number=call.caller_number,
            orig_caller_id_name=call.caller_name,
            orig_caller_id_number=call.caller_number,
            network_addr="127.0.0.1",
            ani=call.caller_number,
            destination_number=number,
            source="mod_sofia",
            context=context,
            hide_name=call.private,
            hide_number=call.private,
        )
        switch.call_began(self)
        name = f"sofia/{profile_name}/{call.from_user}@127.0.0.1"
        channel = Channel(switch, switch.make_uuid(), name, "inbound", profile, self)
        self.channel = channel
        channel.bare = True
        channel.fire("CHANNEL_STATE")
        channel.bare = False
        call.variables(channel, profile_name)
        channel.codec = None
        channel.create()
        channel.state = State.ROUTING
        channel.launch()

    # -- what the switch tells the caller (Endpoint) ---------------------------------------------------

    def ring(self) -> None:
        """Send a 180 to the phone that dials."""
        if self.leg.ringing_at is None:
            self.leg.ringing_at = time.time()

    def progress(self) -> None:
        """Send a 183 to the phone that dials."""
        if self.leg.early_media_at is None:
            self.leg.early_media_at = time.time()
        if self.channel is not None:
            self._media_variables(self.channel)
            self.channel.set("endpoint_disposition", "EARLY MEDIA")

    def answer(self) -> None:
        """Send a 200 to the phone that dials. The events report early media first, as FreeSWITCH's do."""
        channel = self.channel
        if channel is None or self.ended:
            return
        if self.unfit:
            channel.set("endpoint_disposition", "NO CODECS")
            channel.hangup("INCOMPATIBLE_DESTINATION")
            return
        if not channel.early_media:
            self._media_variables(channel)
            channel.set("endpoint_disposition", "EARLY MEDIA")
            channel.mark_pre_answered()
        channel.set("sip_to_tag", new_tag())
        self.leg.answered_at = time.time()
        self.leg.status = 200
        self._connected()

    def respond(self, status: int, reason: str) -> None:
        """Send this refusal, with its headers, when the channel ends."""
        self.sent_refusal = (status, reason)

    def hangup(self, cause: str) -> None:
        """End the phone's call with its channel, unless the phone ended it."""
        channel = self.channel
        if channel is None or self.ended:
            return
        leg = self.leg
        if cause == "LOSE_RACE":
            channel.set("call_completed_elsewhere", "true")
        if leg.answered_at is not None:
            channel.set("sip_hangup_disposition", "send_bye")
            self._end("far", leg.status)
        elif leg.direction == "in":
            channel.set("sip_hangup_disposition", "send_cancel")
            channel.set("sip_invite_failure_status", "487")
            channel.set("sip_invite_failure_phrase", "CANCEL")
            if self.late_cancel:
                self._end("phone", leg.status)
            else:
                self._end("far", 487)
        else:
            status, _ = self.sent_refusal or (causes.to_sip(cause), "")
            channel.set("sip_hangup_disposition", "send_refuse")
            for name, value in channel.variables():
                lower = name.lower()
                if lower.startswith("sip_rh_"):
                    # A trailing space marks a second header of the same name.
                    leg.headers.setdefault(lower[7:].rstrip(" "), []).append(value)
            reason = channel.get("sip_reason") or f'Q.850;cause={causes.q850(cause)};text="{cause}"'
            leg.headers["reason"] = [reason]
            self._end("far", status)

    def _end(self, who: str, status: int | None) -> None:
        self.leg.ended_at = time.time()
        self.leg.ended_by = who
        self.leg.status = status
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.switch.call_ended(self)

    def digit(self, digit: str) -> None:
        """Note a digit from the other party."""
        self.received += digit

    def hold(self, on: bool) -> None:
        """Take a re-INVITE with or without audio."""
        self.held = on

    def referred(self, status: int) -> None:
        """Take the NOTIFY for this phone's REFER. Phones hang up once it has worked."""
        self.leg.referred.append(status)
        if status == 200:
            self._after(0, self.hang_up)

    # -- what a test does with the phone ---------------------------------------------------------------

    def transfer(self, refer_to: str) -> None:
        """Send a REFER."""
        if self.channel is not None and not self.ended:
            refer(self.channel, refer_to)

    def attend(self, other: Dialog) -> None:
        """Send a REFER with Replaces of another call of the phone."""
        if other.channel is not None:
            call_id = other.channel.get("sip_call_id")
            self.transfer(f"<sip:mod_sofia@127.0.0.1:5060?Replaces={call_id}%3Bto-tag%3Da%3Bfrom-tag%3Db>")

    def hang_up(self) -> None:
        """Send a BYE; before the answer, a CANCEL for a call that the phone made, or a 603 for one that it got."""
        channel = self.channel
        if channel is None or self.ended:
            return
        leg = self.leg
        if leg.answered_at is not None:
            self._end("phone", leg.status)
            if channel.down:
                return
            partner = channel.bonded()
            channel.set("sip_term_status", "200")
            channel.set("proto_specific_hangup_cause", "sip:200")
            channel.set("sip_term_cause", "16")
            if partner is not None:
                partner.set("sip_hangup_phrase", "OK")
            channel.hangup_now("NORMAL_CLEARING", "recv_bye")
        elif leg.direction == "out":
            self._end("phone", 487)
            channel.set("sip_to_tag", new_tag())
            cancel_variables(channel)
            channel.hangup("ORIGINATOR_CANCEL")
        else:
            self.script = Script(reject=603, answer_after=None)
            self._refuse()

    def digits(self, digits: str, method: str = "rfc2833") -> float:
        """Send DTMF; ``,`` pauses half a second. Return the seconds until the last digit is through."""
        at = 0.0
        for digit in digits:
            if digit == ",":
                at += 0.5
                continue
            if method == "inband":
                self._after(at, self._press, digit)
            self._after(at + DIGIT_SECONDS, self._released, digit, method)
            at += DIGIT_SECONDS + GAP_SECONDS
        return at

    def _press(self, digit: str) -> None:
        self._pressed = dtmf_tones(digit)
        if self.channel is not None:
            self.switch.shape_changed(self.channel)

    def _released(self, digit: str, method: str) -> None:
        channel = self.channel
        if channel is None or self.ended or channel.down:
            return
        if method == "inband":
            self._pressed = set()
            self.switch.shape_changed(channel)
            if channel.detects_dtmf:
                channel.queue_digit(digit, 800, "INBAND_AUDIO")
            return
        channel.queue_digit(digit, 800, "RTP" if method == "rfc2833" else "ENDPOINT")
        if method == "info" and self.switch.bus.wanted("RECV_INFO"):
            sender = [("SIP-Content-Type", "application"), ("SIP-From-User", channel.profile.caller_id_number)]
            body = f"Signal={digit}\r\nDuration=100\r\n"
            self.switch.bus.fire(Event("RECV_INFO", channel, sender, body=body))

    def set_hold(self, on: bool) -> None:
        """Put the switch on hold, or take it off."""
        channel = self.channel
        if channel is None or self.ended or self.on_hold == on:
            return
        self.on_hold = on
        channel.mark_hold(on)
        self.switch.shape_changed(channel)

    def tones(self) -> set[int]:
        """Return the frequencies that this phone sends."""
        channel = self.channel
        if self.ended or channel is None or self.on_hold:
            return set()
        if self.leg.answered_at is None and self.leg.early_media_at is None:
            return set()
        return self._pressed or ({self.script.tone} if self.script.tone is not None else set())

    def hears(self) -> set[int]:
        """Return the frequencies that reach this phone."""
        if self.channel is None or self.ended or self.on_hold or self.held:
            return set()
        return self.channel.tones()

    def as_json(self) -> dict[str, Any]:
        """Return the call for the control port."""
        return {
            "call": self.ref,
            "uuid": self.channel.uuid if self.channel else self.uuid,
            "leg": asdict(self.leg),
            "received": self.received,
        }
