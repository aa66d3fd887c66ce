"""Scripted phones: extensions with registrations, and numbers behind a gateway.

A `Dialog` is one call between the switch and one phone. It plays the SIP endpoint to its channel and does
what the phone's script says; nothing of it is SIP on a wire, but the variables, causes and times are those
that FreeSWITCH has when a real phone behaves so.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from esl_apps.sandbox.leg.channel import Channel, State
from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.run.sleeper import Handle, later
from esl_apps.sandbox.wire import causes, strings
from esl_apps.sandbox.wire.events import Event

if TYPE_CHECKING:
    from esl_apps.sandbox.switch import Switch

DIGIT_SECONDS = 0.1
"""One key: pressed and let go; it counts at its release."""
GAP_SECONDS = 0.05
PCMU = ("PCMU", "8000", "64000")
USER_AGENT = "esl_apps sandbox"


@dataclass
class Script:
    """How a phone behaves when it is called, and once it is connected. Times are seconds."""

    answer_after: float | None = 0.1
    """From the INVITE to the 200; None: it rings for ever."""
    ring_after: float | None = 0.0
    """To the 180; None: no 180."""
    early_media: bool = False
    """183 with the phone's tone in place of the 180."""
    reject: int | None = None
    """A final SIP status in place of an answer, after ``answer_after`` (None: at once)."""
    redirect: str | None = None
    """With ``reject`` 302: the Contact."""
    hangup_after: float | None = None
    """From the answer to this phone's BYE."""
    tone: int | None = None
    """Hz of the sine that it plays while it has media."""
    digits: str = ""
    """DTMF sent ``digits_after`` seconds after the answer; ``,`` pauses half a second."""
    digits_after: float = 0.3
    reason: str | None = None
    """With ``reject``: a Reason header, such as ``Q.850;cause=34``, whose cause counts."""

    @staticmethod
    def parse(values: Mapping[str, Any]) -> Script:
        """A script from JSON; unknown keys are an error that names the known ones."""
        known = {one.name for one in fields(Script)}
        unknown = set(values) - known
        if unknown:
            raise ValueError(f"unknown script keys {sorted(unknown)}; known are {sorted(known)}")
        return Script(**values)


@dataclass
class Leg:
    """One call as the phone saw it; instants are ``time.time()``."""

    direction: str
    number: str
    caller_number: str = ""
    caller_name: str = ""
    headers: dict[str, list[str]] = field(default_factory=dict)
    started_at: float = 0.0
    ringing_at: float | None = None
    early_media_at: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    status: int | None = None
    ended_by: str | None = None


class Phone:
    """An extension or an outside number, its script and its calls in the order in which they began."""

    def __init__(self, switch: Switch, number: str, *, outside: bool, script: Script | None = None) -> None:
        self.switch = switch
        self.number = number
        self.outside = outside
        self.script = script or Script()
        self.registrations = 0 if outside else 1
        self.calls: list[Dialog] = []
        self.keep = 10_000
        """Calls that are remembered: a load run's would fill the memory."""

    def note(self, dialog: Dialog) -> None:
        """Remember a call."""
        self.calls.append(dialog)
        if len(self.calls) > self.keep:
            del self.calls[: self.keep // 10]

    def contacts(self) -> list[str]:
        """Dial strings of the phone's registrations."""
        base = 20000 + (strings.number(self.number) % 1000) * 10
        return [f"sofia/internal/sip:{self.number}@127.0.0.1:{base + n};ob" for n in range(self.registrations)]

    def dial(self, number: str, headers: Mapping[str, str] | None = None, *, context: str | None = None) -> Dialog:
        """Call a number through the switch."""
        dialog = Dialog(self.switch, self, self.script, "out", number)
        self.note(dialog)
        dialog.invite_switch(dict(headers or {}), context)
        return dialog


class Dialog:
    """One call of one phone, and the `Endpoint` of its channel."""

    kind = "sofia"

    def __init__(self, switch: Switch, phone: Phone | None, script: Script, direction: str, number: str) -> None:
        self.switch = switch
        self.phone = phone
        self.script = script
        self.leg = Leg(direction, number, started_at=time.time())
        self.ref = switch.next_call_number()
        self.channel: Channel | None = None
        self.uuid: str | None = None
        """Of a channel that is gone."""
        self.received = ""
        """Digits that the other party sent."""
        self.on_hold = False
        self.held = False
        """The switch holds this phone (``uuid_hold``)."""
        self.late_cancel = False
        """Redirected: the switch ends the leg as if it cancelled it."""
        self.sent_refusal: tuple[int, str] | None = None
        self._timers: list[Handle] = []

    # -- the switch calls the phone -------------------------------------------------------------------

    def invited(self) -> None:
        """The INVITE reached the phone: do as the script says."""
        script, leg = self.script, self.leg
        leg.started_at = time.time()
        if script.reject is not None:
            if script.answer_after is None:
                self._after(0, self._refuse)
                return
            self._after(script.answer_after, self._refuse)
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
        """The dialog is over."""
        return self.leg.ended_at is not None

    def _ring(self) -> None:
        channel = self.channel
        if channel is None or self.ended or channel.down:
            return
        self.leg.ringing_at = time.time()
        _dialog_variables(channel)
        channel.mark_ring_ready()

    def _early(self) -> None:
        channel = self.channel
        if channel is None or self.ended or channel.down:
            return
        self.leg.early_media_at = time.time()
        _dialog_variables(channel)
        _media_variables(channel)
        channel.set("endpoint_disposition", "EARLY MEDIA")
        codec, channel.codec = channel.codec, None
        channel.mark_pre_answered()
        channel.codec = codec
        self.switch.shape_changed(channel)

    def pick_up(self) -> None:
        """Answer a call that rings, whenever its script would have."""
        if self.leg.direction == "in" and self.leg.answered_at is None:
            self._answer()

    def reject(self, status: int) -> None:
        """Refuse a call that rings with this SIP status."""
        if self.leg.direction == "in" and self.leg.answered_at is None:
            self.script = replace(self.script, reject=status)
            self._refuse()

    def _answer(self) -> None:
        channel = self.channel
        if channel is None or self.ended or channel.down:
            return
        self.leg.answered_at = time.time()
        self.leg.status = 200
        _dialog_variables(channel)
        _media_variables(channel)
        self._connected()
        channel.mark_answered()
        self.switch.shape_changed(channel)

    def _refuse(self) -> None:
        channel = self.channel
        if channel is None or self.ended or channel.down:
            return
        status = self.script.reject or 486
        self._end("phone", status)
        if status in (301, 302) and self.script.redirect:
            self._redirected(channel, self.script.redirect)
            return
        cause = causes.from_sip(status)
        reason = self.script.reason or ""
        if "Q.850" in reason and "cause=" in reason:
            cause = causes.NAMES.get(strings.number(reason.split("cause=")[1]), cause)
        if reason:
            channel.set("sip_reason", reason)
        phrase = causes.phrase(status)
        channel.set("sip_hangup_disposition", "recv_refuse")
        for variable, value in (("status", str(status)), ("phrase", phrase)):
            channel.set(f"sip_invite_failure_{variable}", value)
        partner = channel.bonded()
        if partner is not None:
            partner.set("sip_invite_failure_status", str(status))
            partner.set("sip_invite_failure_phrase", phrase)
            partner.set("sip_hangup_phrase", phrase)
        channel.set("sip_term_status", str(status))
        channel.set("proto_specific_hangup_cause", f"sip:{status}")
        channel.set("sip_term_cause", str(causes.NUMBERS[cause]))
        channel.hangup(cause)

    def _redirected(self, channel: Channel, contact: str) -> None:
        """A 3xx: fatal if the dial string says so, else the *caller* goes to the redirector's number."""
        address = contact.strip("<>").removeprefix("sip:")
        if "@" not in address:
            address += "@127.0.0.1"
        user, _, host = address.partition("@")
        caller = channel.bonded()
        for name, value in (
            ("sip_hangup_disposition", "recv_refuse"),
            ("sip_redirect_contact_0", f"<sip:{address}>"),
            ("sip_redirected_to", f"<sip:{address}>"),
            ("sip_redirect_contact_user_0", user),
            ("sip_redirect_contact_host_0", host),
            ("proto_specific_hangup_cause", "sip:302"),
        ):
            channel.set(name, value)
        # What is left open is closed by a CANCEL, so the leg says.
        self.leg.ended_at, self.late_cancel = None, True
        if channel.true("outbound_redirect_fatal"):
            channel.hangup("REQUESTED_CHAN_UNAVAIL")
            return
        channel.hangup("REDIRECTION_TO_NEW_DESTINATION")
        if caller is not None:
            caller.transfer(user.split(";")[0], context=caller.profile.context)

    def _connected(self) -> None:
        script = self.script
        if script.hangup_after is not None:
            self._after(script.hangup_after, self.hang_up)
        if script.digits:
            self._after(script.digits_after, self.digits, script.digits)

    # -- the phone calls the switch -------------------------------------------------------------------

    def invite_switch(self, headers: dict[str, str], context: str | None) -> None:
        """Send the INVITE: a channel in the dialplan's context for who calls."""
        assert self.phone is not None
        switch, phone, number = self.switch, self.phone, self.leg.number
        profile_name = "external" if phone.outside else "internal"
        context = context or ("public" if phone.outside else "default")
        call = _Invite(switch, phone, number, headers)
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
        """A 180 for the phone that dials."""
        if self.leg.ringing_at is None:
            self.leg.ringing_at = time.time()

    def progress(self) -> None:
        """A 183 for the phone that dials."""
        if self.leg.early_media_at is None:
            self.leg.early_media_at = time.time()
        if self.channel is not None:
            _media_variables(self.channel)
            self.channel.set("endpoint_disposition", "EARLY MEDIA")

    def answer(self) -> None:
        """A 200 for the phone that dials; its events say early media first, as FreeSWITCH's do."""
        channel = self.channel
        if channel is None or self.ended:
            return
        if not channel.early_media:
            _media_variables(channel)
            channel.set("endpoint_disposition", "EARLY MEDIA")
            channel.mark_pre_answered()
        channel.set("sip_to_tag", _tag())
        self.leg.answered_at = time.time()
        self.leg.status = 200
        self._connected()

    def respond(self, status: int, reason: str) -> None:
        """This very refusal, with its headers, when the channel ends."""
        self.sent_refusal = (status, reason)

    def hangup(self, cause: str) -> None:
        """The channel ended: tell the phone, if it was not the phone that said so."""
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
                    # A trailing space makes a second header of one name.
                    leg.headers.setdefault(lower[7:].rstrip(" "), []).append(value)
            leg.headers["reason"] = [f'Q.850;cause={causes.q850(cause)};text="{cause}"']
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
        """A digit from the other party: the phone notes it."""
        self.received += digit

    def hold(self, on: bool) -> None:
        """A re-INVITE with or without audio."""
        self.held = on

    # -- what a test does with the phone ---------------------------------------------------------------

    def hang_up(self) -> None:
        """BYE; CANCEL before the answer of a call that the phone made; 603 of one that it got."""
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
            channel.set("sip_to_tag", _tag())
            callee = channel.bonded()
            if callee is not None:
                callee.set("sip_hangup_phrase", "Request Terminated")
            for name, value in (
                ("sip_hangup_disposition", "recv_cancel"),
                ("sip_invite_failure_status", "487"),
                ("sip_invite_failure_phrase", "CANCEL"),
                ("sip_term_status", "487"),
                ("proto_specific_hangup_cause", "sip:487"),
                ("sip_term_cause", "487"),
            ):
                channel.set(name, value)
            channel.hangup("ORIGINATOR_CANCEL")
        else:
            self.script = Script(reject=603, answer_after=None)
            self._refuse()

    def digits(self, digits: str, method: str = "rfc2833") -> float:
        """Send DTMF; ``,`` pauses half a second. Seconds until the last is through."""
        at = 0.0
        for digit in digits:
            if digit == ",":
                at += 0.5
                continue
            self._after(at + DIGIT_SECONDS, self._released, digit, method)
            at += DIGIT_SECONDS + GAP_SECONDS
        return at

    def _released(self, digit: str, method: str) -> None:
        channel = self.channel
        if channel is None or self.ended or channel.down:
            return
        if method == "inband":
            if channel.detects_dtmf:
                channel.queue_digit(digit, 800, "INBAND_AUDIO")
            return
        channel.queue_digit(digit, 800, "RTP" if method == "rfc2833" else "ENDPOINT")

    def set_hold(self, on: bool) -> None:
        """The phone puts the switch on hold, or takes it off."""
        channel = self.channel
        if channel is None or self.ended or self.on_hold == on:
            return
        self.on_hold = on
        channel.mark_hold(on)
        self.switch.shape_changed(channel)

    def tones(self) -> set[int]:
        """What this phone sends."""
        channel = self.channel
        if self.script.tone is None or self.ended or channel is None or self.on_hold:
            return set()
        if self.leg.answered_at is None and self.leg.early_media_at is None:
            return set()
        return {self.script.tone}

    def hears(self) -> set[int]:
        """What reaches this phone."""
        if self.channel is None or self.ended or self.on_hold or self.held:
            return set()
        return self.channel.tones()

    def as_json(self) -> dict[str, Any]:
        """For the control port."""
        return {
            "call": self.ref,
            "uuid": self.channel.uuid if self.channel else self.uuid,
            "leg": asdict(self.leg),
            "received": self.received,
        }


#: Whom the switch takes for the caller before From, whoever sent it: the first of these.
_IDENTITIES = ("p-preferred-identity", "p-asserted-identity", "remote-party-id")


class _Invite:
    """An incoming INVITE: whose number the switch believes, and its variables."""

    def __init__(self, switch: Switch, phone: Phone, number: str, headers: dict[str, str]) -> None:
        self.switch = switch
        self.phone = phone
        self.number = number
        given = self.given = {name.lower(): value for name, value in headers.items()}
        # As FreeSWITCH reads them: from anybody.
        self.from_user, self.from_name = _address(given.get("from", ""), phone.number)
        asserted = next((given[name] for name in _IDENTITIES if given.get(name)), "")
        self.caller_number, self.caller_name = self.from_user, self.from_name or self.from_user
        if asserted:
            self.caller_number, self.caller_name = _address(asserted, self.from_user)
            self.caller_name = self.caller_name or self.caller_number
        privacy = given.get("privacy", "")
        rpid = given.get("remote-party-id", "")
        self.private = ("id" in privacy and "none" not in privacy) or "privacy=full" in rpid
        self.headers = headers
        self.registered = not phone.outside

    def variables(self, channel: Channel, profile_name: str) -> None:
        """Set what sofia sets, in its order."""
        port = str(20000 + strings.number(self.phone.number) % 10000)
        host = "127.0.0.1"
        number, user = self.number, self.from_user
        tag = _tag()
        url = f"sip:mod_sofia@{host}:5060"
        shown = f'"{self.from_name}" ' if self.from_name else ""
        pairs: list[tuple[str, str]] = [
            ("direction", "inbound"),
            ("uuid", channel.uuid),
            ("call_uuid", channel.uuid),
            ("session_id", str(channel.session_id)),
            ("sip_from_user", user + _parameters(self.given.get("from", ""))),
            ("sip_from_uri", f"{user}@{host}"),
            ("sip_from_host", host),
            ("video_media_flow", "disabled"),
            ("audio_media_flow", "disabled"),
            ("text_media_flow", "disabled"),
            ("channel_name", channel.name),
            ("sip_call_id", channel.uuid.replace("-", "")),
            ("sip_local_network_addr", host),
            ("sip_network_ip", host),
            ("sip_network_port", port),
            ("sip_invite_stamp", str(int(time.time() * 1_000_000))),
            ("sip_received_ip", host),
            ("sip_received_port", port),
            ("sip_via_protocol", "udp"),
        ]
        if self.registered:
            auth = self.phone.number
            pairs += [
                ("sip_authorized", "true"),
                # FreeSWITCH pours the headers of an inner event into the variables of registered callers: a
                # trap for whoever looks for ``Event-Name`` too loosely.
                *self.switch.bus.stamp(Event("REQUEST_PARAMS"), ("sofia.c", "sofia_handle_sip_i_invite", 10735)).head,
                ("sip_number_alias", auth),
                ("sip_auth_username", auth),
                ("sip_auth_realm", host),
                ("number_alias", auth),
                ("requested_user_name", auth),
                ("requested_domain_name", host),
                *self.switch.user_variables(auth),
                ("user_name", auth),
                ("domain_name", host),
            ]
        pairs += [
            ("sip_from_user_stripped", user.lstrip("+")),
            ("sip_from_tag", tag),
            ("sofia_profile_name", profile_name),
            ("sofia_profile_url", url),
            ("recovery_profile_name", profile_name),
        ]
        for header, variable in (
            ("remote-party-id", "sip_Remote-Party-ID"),
            ("p-asserted-identity", "sip_P-Asserted-Identity"),
            ("p-preferred-identity", "sip_P-Preferred-Identity"),
            ("privacy", "sip_Privacy"),
        ):
            value = self.given.get(header, "")
            if value:
                if header == "p-asserted-identity":
                    # Of this one it keeps the user part alone, and of a tel: URI not even its parameters.
                    value = _address(value, "")[0] + _parameters(value)
                pairs.append((variable, value))
                if header == "remote-party-id":
                    pairs.append(("sip_cid_type", "rpid"))
                if header == "p-asserted-identity":
                    pairs.append(("sip_cid_type", "pid"))
        full_from = f"{shown}<sip:{user}@{host}>;tag={tag}"
        pairs += [
            ("sip_full_via", f"SIP/2.0/UDP {host}:{port};rport={port};branch=z9hG4bK{tag}"),
            ("sip_from_display", self.from_name),
            ("sip_full_from", full_from),
            ("sip_full_to", f"<sip:{number}@{host}>"),
            ("sip_allow", "INVITE, ACK, BYE, CANCEL, UPDATE, INFO, NOTIFY, REFER, MESSAGE, OPTIONS"),
            ("sip_req_user", number),
            ("sip_req_port", "5060"),
            ("sip_req_uri", f"{number}@{host}:5060"),
            ("sip_req_host", host),
            ("sip_to_user", number),
            ("sip_to_uri", f"{number}@{host}"),
            ("sip_to_host", host),
            ("sip_contact_user", user),
            ("sip_contact_port", port),
            ("sip_contact_uri", f"{user}@{host}:{port}"),
            ("sip_contact_host", host),
            ("rtp_use_codec_string", "PCMU,PCMA"),
            ("sip_user_agent", USER_AGENT),
            ("sip_via_host", host),
            ("sip_via_port", port),
            ("sip_via_rport", port),
            ("max_forwards", "70"),
        ]
        for name, value in self.headers.items():
            lower = name.lower()
            if lower.startswith("x-") or lower in ("diversion", "identity", "user-to-user"):
                pairs.append((f"sip_h_{'identity' if lower == 'identity' else name}", value))
            elif lower.startswith("p-") and lower not in _IDENTITIES:
                pairs.append((f"sip_h_{name}", value))
        pairs += [
            ("switch_r_sdp", _sdp(port)),
            ("ep_codec_string", "CORE_PCM_MODULE.PCMU@8000h@20i@64000b"),
            ("endpoint_disposition", "DELAYED NEGOTIATION"),
        ]
        for name, value in pairs:
            if value:
                channel.set(name, value)


def _address(value: str, default: str) -> tuple[str, str]:
    """User and display name of a SIP address."""
    value = value.strip()
    if not value:
        return default, ""
    display, bracket, rest = value.partition("<")
    address = rest.split(">")[0] if bracket else value.split(";")[0]
    address = address.removeprefix("sip:").removeprefix("sips:").removeprefix("tel:")
    user = address.split("@")[0].split(";")[0]
    return _decode(user), display.strip().strip('"') if bracket else ""


def _parameters(value: str) -> str:
    """Those of a sip: address's user part, with their semicolon."""
    found = re.search(r"sips?:[^@>;]*(;[^@>]*)@", value)
    return found[1] if found else ""


def _decode(user: str) -> str:
    """FreeSWITCH decodes what a user part escapes: ``%0A`` becomes a newline."""
    out: list[str] = []
    index = 0
    while index < len(user):
        pair = user[index + 1 : index + 3]
        if user[index] == "%" and len(pair) == 2 and all(c in "0123456789abcdefABCDEF" for c in pair):
            out.append(chr(int(pair, 16)))
            index += 3
        else:
            out.append(user[index])
            index += 1
    return "".join(out)


def _tag() -> str:
    return f"{random.getrandbits(64):013x}"[:13]


def _sdp(port: str) -> str:
    return (
        f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
    )


def _dialog_variables(channel: Channel) -> None:
    """What an answer to our INVITE brings."""
    if channel.get("sip_to_tag"):
        return
    user = channel.get("sip_dialled_user") or channel.profile.callee_id_number
    number, name = channel.profile.caller_id_number, channel.profile.caller_id_name
    host, port = "127.0.0.1", "20000"
    tag = _tag()
    shown = f'"{name}" ' if name else ""
    via = f"SIP/2.0/UDP {host}:5060;rport=5060;branch=z9hG4bK{tag}"
    for variable, value in (
        ("sip_local_network_addr", host),
        ("sip_reply_host", host),
        ("sip_reply_port", port),
        ("sip_network_ip", host),
        ("sip_network_port", port),
        ("sip_allow", "INVITE, ACK, BYE, CANCEL, UPDATE, INFO, NOTIFY, REFER, MESSAGE, OPTIONS"),
        ("sip_recover_contact", f"<sip:{user}@{host}:{port}>"),
        ("sip_full_via", via),
        ("sip_recover_via", via),
        ("sip_from_display", name),
        ("sip_full_from", f"{shown}<sip:{number}@{host}>;tag={tag}"),
        ("sip_full_to", f"<sip:{user}@{host}>;tag={tag}"),
        ("sip_from_user", number),
        ("sip_from_uri", f"{number}@{host}"),
        ("sip_from_host", host),
        ("sip_to_user", user),
        ("sip_to_uri", f"{user}@{host}"),
        ("sip_to_host", host),
        ("sip_contact_user", user),
        ("sip_contact_port", port),
        ("sip_contact_uri", f"{user}@{host}:{port}"),
        ("sip_contact_host", host),
        ("sip_to_tag", tag),
        ("sip_from_tag", tag),
        ("sip_cseq", "1"),
        ("sip_call_id", channel.uuid.replace("-", "")),
    ):
        channel.set(variable, value or None)
    channel.profile.network_addr = host
    channel.profile.touch()


def _media_variables(channel: Channel) -> None:
    """What settling on a codec brings."""
    if channel.codec is not None:
        return
    channel.codec = PCMU
    outbound = channel.direction == "outbound"
    if outbound:
        channel.set("switch_r_sdp", _sdp("20000"))
        channel.set("ep_codec_string", "CORE_PCM_MODULE.PCMU@8000h@20i@64000b")
        channel.set("rtp_use_codec_string", channel.get("rtp_use_codec_string") or "PCMU,PCMA")
    for variable, value in (
        ("remote_video_media_flow", "inactive"),
        ("remote_text_media_flow", "inactive"),
        ("remote_audio_media_flow", "sendrecv"),
        ("audio_media_flow", "sendrecv"),
        ("rtp_audio_recv_pt", "0"),
        ("rtp_use_codec_name", "PCMU"),
        ("rtp_use_codec_rate", "8000"),
        ("rtp_use_codec_ptime", "20"),
        ("rtp_use_codec_channels", "1"),
        ("rtp_last_audio_codec_string", "PCMU@8000h@20i@1c"),
        ("read_codec", "PCMU"),
        ("original_read_codec", "PCMU"),
        ("read_rate", "8000"),
        ("original_read_rate", "8000"),
        ("write_codec", "PCMU"),
        ("write_rate", "8000"),
        ("dtmf_type", "rfc2833"),
        ("local_media_ip", "127.0.0.1"),
        ("local_media_port", "16384"),
        ("advertised_media_ip", "127.0.0.1"),
        ("rtp_use_timer_name", "soft"),
        ("rtp_use_pt", "0"),
        ("rtp_use_ssrc", "1"),
        ("rtp_2833_send_payload", "101"),
        ("rtp_2833_recv_payload", "101"),
        ("remote_media_ip", "127.0.0.1"),
        ("remote_media_port", "20000"),
    ):
        channel.set(variable, value)
