"""An INVITE that a phone sends: the number that the switch believes, and the variables that it sets."""

from __future__ import annotations

import time
from collections.abc import Sequence

from esl_apps.sandbox.leg.channel import Channel, Switchboard
from esl_apps.sandbox.phones.sip import address, codec_string, new_tag, parameters, sdp
from esl_apps.sandbox.wire import strings
from esl_apps.sandbox.wire.events import Event

USER_AGENT = "esl_apps sandbox"

Pairs = list[tuple[str, str]]
_HOST = "127.0.0.1"
#: Headers that name the caller, in the order in which the switch believes them, all of them before From.
_IDENTITIES = ("p-preferred-identity", "p-asserted-identity", "remote-party-id")


class Invite:
    """An incoming INVITE: the number that the switch believes, and its variables."""

    def __init__(
        self,
        switch: Switchboard,
        user: str,
        outside: bool,
        number: str,
        headers: dict[str, str],
        offered: Sequence[str] = ("PCMU",),
    ) -> None:
        """``user``: the phone's own number. ``offered``: its codecs."""
        self.offered = offered
        self.codecs = codec_string(offered)
        self.switch = switch
        self.user = user
        self.number = number
        given = self.given = {name.lower(): value for name, value in headers.items()}
        # FreeSWITCH believes these headers from any caller.
        self.from_user, self.from_name = address(given.get("from", ""), user)
        asserted = next((given[name] for name in _IDENTITIES if given.get(name)), "")
        self.caller_number, self.caller_name = self.from_user, self.from_name or self.from_user
        if asserted:
            self.caller_number, self.caller_name = address(asserted, self.from_user)
            self.caller_name = self.caller_name or self.caller_number
        privacy = given.get("privacy", "")
        rpid = given.get("remote-party-id", "")
        self.private = ("id" in privacy and "none" not in privacy) or "privacy=full" in rpid
        self.headers = headers
        self.registered = not outside

    def variables(self, channel: Channel, profile_name: str) -> None:
        """Set the variables that sofia sets, in its order."""
        port = str(20000 + strings.number(self.user) % 10000)
        tag = new_tag()
        for name, value in (
            *self._arrival(channel, port),
            *(self._registration() if self.registered else ()),
            ("sip_from_user_stripped", self.from_user.lstrip("+")),
            ("sip_from_tag", tag),
            ("sofia_profile_name", profile_name),
            ("sofia_profile_url", f"sip:mod_sofia@{_HOST}:5060"),
            ("recovery_profile_name", profile_name),
            *self._asserted(),
            *self._message(port, tag),
            *self._own_headers(),
            ("switch_r_sdp", sdp(port, self.offered)),
            ("ep_codec_string", self.codecs),
            ("endpoint_disposition", "DELAYED NEGOTIATION"),
        ):
            if value:
                channel.set(name, value)

    def _arrival(self, channel: Channel, port: str) -> Pairs:
        """The variables of the channel and of the message's source."""
        user = self.from_user
        return [
            ("direction", "inbound"),
            ("uuid", channel.uuid),
            ("call_uuid", channel.uuid),
            ("session_id", str(channel.session_id)),
            ("sip_from_user", user + parameters(self.given.get("from", ""))),
            ("sip_from_uri", f"{user}@{_HOST}"),
            ("sip_from_host", _HOST),
            ("video_media_flow", "disabled"),
            ("audio_media_flow", "disabled"),
            ("text_media_flow", "disabled"),
            ("channel_name", channel.name),
            ("sip_call_id", channel.uuid.replace("-", "")),
            ("sip_local_network_addr", _HOST),
            ("sip_network_ip", _HOST),
            ("sip_network_port", port),
            ("sip_invite_stamp", str(int(time.time() * 1_000_000))),
            ("sip_received_ip", _HOST),
            ("sip_received_port", port),
            ("sip_via_protocol", "udp"),
        ]

    def _registration(self) -> Pairs:
        """The variables of a registered caller, from the directory."""
        auth = self.user
        return [
            ("sip_authorized", "true"),
            # FreeSWITCH copies the headers of an internal event into the variables of registered callers: a trap
            # for code that searches for ``Event-Name`` too loosely.
            *self.switch.bus.stamp(Event("REQUEST_PARAMS"), ("sofia.c", "sofia_handle_sip_i_invite", 10735)).head,
            ("sip_number_alias", auth),
            ("sip_auth_username", auth),
            ("sip_auth_realm", _HOST),
            ("number_alias", auth),
            ("requested_user_name", auth),
            ("requested_domain_name", _HOST),
            *self.switch.user_variables(auth),
            ("user_name", auth),
            ("domain_name", _HOST),
        ]

    def _asserted(self) -> Pairs:
        """The variables of the headers that name the caller."""
        pairs: Pairs = []
        for header, variable in (
            ("remote-party-id", "sip_Remote-Party-ID"),
            ("p-asserted-identity", "sip_P-Asserted-Identity"),
            ("p-preferred-identity", "sip_P-Preferred-Identity"),
            ("privacy", "sip_Privacy"),
        ):
            value = self.given.get(header, "")
            if value:
                if header == "p-asserted-identity":
                    # FreeSWITCH keeps only the user part, and drops even the parameters of a tel: URI.
                    value = address(value, "")[0] + parameters(value)
                pairs.append((variable, value))
                if header == "remote-party-id":
                    pairs.append(("sip_cid_type", "rpid"))
                if header == "p-asserted-identity":
                    pairs.append(("sip_cid_type", "pid"))
        return pairs

    def _message(self, port: str, tag: str) -> Pairs:
        """The variables of the headers that every INVITE has."""
        number, user = self.number, self.from_user
        shown = f'"{self.from_name}" ' if self.from_name else ""
        return [
            ("sip_full_via", f"SIP/2.0/UDP {_HOST}:{port};rport={port};branch=z9hG4bK{tag}"),
            ("sip_from_display", self.from_name),
            ("sip_full_from", f"{shown}<sip:{user}@{_HOST}>;tag={tag}"),
            ("sip_full_to", f"<sip:{number}@{_HOST}>"),
            ("sip_allow", "INVITE, ACK, BYE, CANCEL, UPDATE, INFO, NOTIFY, REFER, MESSAGE, OPTIONS"),
            ("sip_req_user", number),
            ("sip_req_port", "5060"),
            ("sip_req_uri", f"{number}@{_HOST}:5060"),
            ("sip_req_host", _HOST),
            ("sip_to_user", number),
            ("sip_to_uri", f"{number}@{_HOST}"),
            ("sip_to_host", _HOST),
            ("sip_contact_user", user),
            ("sip_contact_port", port),
            ("sip_contact_uri", f"{user}@{_HOST}:{port}"),
            ("sip_contact_host", _HOST),
            ("rtp_use_codec_string", "PCMU,PCMA"),
            ("sip_user_agent", USER_AGENT),
            ("sip_via_host", _HOST),
            ("sip_via_port", port),
            ("sip_via_rport", port),
            ("max_forwards", "70"),
        ]

    def _own_headers(self) -> Pairs:
        """The variables of the headers that the caller added."""
        pairs: Pairs = []
        for name, value in self.headers.items():
            lower = name.lower()
            if lower.startswith("x-") or lower in ("diversion", "identity", "user-to-user"):
                pairs.append((f"sip_h_{'identity' if lower == 'identity' else name}", value))
            elif lower.startswith("p-") and lower not in _IDENTITIES:
                pairs.append((f"sip_h_{name}", value))
        return pairs
