"""The channel variables that SIP messages set, and the addresses in them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.wire import causes

PCMU = ("PCMU", "8000", "64000")
_PAYLOAD_TYPES = {"PCMU": "0", "PCMA": "8", "G729": "18"}


def address(value: str, default: str) -> tuple[str, str]:
    """Read the user and display name of a SIP address."""
    value = value.strip()
    if not value:
        return default, ""
    display, bracket, rest = value.partition("<")
    address = rest.split(">")[0] if bracket else value.split(";")[0]
    address = address.removeprefix("sip:").removeprefix("sips:").removeprefix("tel:")
    user = address.split("@")[0].split(";")[0]
    return _decode(user), display.strip().strip('"') if bracket else ""


def parameters(value: str) -> str:
    """Return the parameters of a sip: address's user part, with their semicolon."""
    match = re.search(r"sips?:[^@>;]*(;[^@>]*)@", value)
    return match[1] if match else ""


def _decode(user: str) -> str:
    """Decode a user part as FreeSWITCH does: ``%0A`` becomes a newline."""
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


def new_tag() -> str:
    return f"{random.getrandbits(64):013x}"[:13]


def sdp(port: str, codecs: Sequence[str] = ("PCMU",)) -> str:
    types = " ".join(_PAYLOAD_TYPES[codec] for codec in codecs)
    return (
        f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {types} 101\r\na=rtpmap:101 telephone-event/8000\r\n"
    )


def codec_string(codecs: Sequence[str]) -> str:
    """Return ``ep_codec_string``: the codecs of an offer that the switch has, too."""
    return ",".join(f"CORE_PCM_MODULE.{codec}@8000h@20i@64000b" for codec in codecs if codec in ("PCMU", "PCMA"))


def dialog_variables(channel: Channel) -> None:
    """Set the variables that a response to the switch's INVITE sets."""
    if channel.get("sip_to_tag"):
        return
    user = channel.get("sip_dialled_user") or channel.profile.callee_id_number
    number, name = channel.profile.caller_id_number, channel.profile.caller_id_name
    host, port = "127.0.0.1", "20000"
    tag = new_tag()
    shown = f'"{name}" ' if name else ""
    via = f"SIP/2.0/UDP {host}:5060;rport=5060;branch=z9hG4bK{tag}"
    response_variables(channel)
    for variable, value in (
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


def response_variables(channel: Channel) -> None:
    """Set the variables that tell where a response came from. A 100 sets none, nor does a status of sofia's own."""
    for variable, value in (
        ("sip_local_network_addr", "127.0.0.1"),
        ("sip_reply_host", "127.0.0.1"),
        ("sip_reply_port", "20000"),
        ("sip_network_ip", "127.0.0.1"),
        ("sip_network_port", "20000"),
    ):
        channel.set(variable, value)


def refusal_variables(channel: Channel, status: int, cause: str) -> None:
    """Set the variables that a phone's refusal sets, on its leg and on the caller's."""
    phrase = causes.phrase(status)
    failure = (("sip_invite_failure_status", str(status)), ("sip_invite_failure_phrase", phrase))
    for variable, value in (
        ("sip_hangup_disposition", "recv_refuse"),
        *failure,
        ("sip_term_status", str(status)),
        ("proto_specific_hangup_cause", f"sip:{status}"),
        ("sip_term_cause", str(causes.NUMBERS[cause])),
    ):
        channel.set(variable, value)
    caller = channel.bonded()
    if caller is not None:
        for variable, value in (*failure, ("sip_hangup_phrase", phrase)):
            caller.set(variable, value)


def redirect_variables(channel: Channel, user: str, host: str) -> None:
    """Set the variables that a 3xx sets."""
    for variable, value in (
        ("sip_hangup_disposition", "recv_refuse"),
        ("sip_redirect_contact_0", f"<sip:{user}@{host}>"),
        ("sip_redirected_to", f"<sip:{user}@{host}>"),
        ("sip_redirect_contact_user_0", user),
        ("sip_redirect_contact_host_0", host),
        ("proto_specific_hangup_cause", "sip:302"),
    ):
        channel.set(variable, value)


def cancel_variables(channel: Channel) -> None:
    """Set the variables that a caller's CANCEL sets, on the caller's leg and on the phone's."""
    for variable, value in (
        ("sip_hangup_disposition", "recv_cancel"),
        ("sip_invite_failure_status", "487"),
        ("sip_invite_failure_phrase", "CANCEL"),
        ("sip_term_status", "487"),
        ("proto_specific_hangup_cause", "sip:487"),
        ("sip_term_cause", "487"),
    ):
        channel.set(variable, value)
    callee = channel.bonded()
    if callee is not None:
        callee.set("sip_hangup_phrase", "Request Terminated")


def media_variables(channel: Channel) -> None:
    """Set the variables that the choice of a codec sets."""
    if channel.codec is not None:
        return
    channel.codec = PCMU
    outbound = channel.direction == "outbound"
    if outbound:
        channel.set("switch_r_sdp", sdp("20000"))
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
