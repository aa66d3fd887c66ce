"""Read from a leg's last event how it sounded, and where it is in a packet capture."""

from __future__ import annotations

import re
from math import sqrt

from esl_apps.core.quality import LegQuality
from esl_apps.esl.wire import Event, decode

#: The first of the leg's RTP statistics, and the most bytes that all of them take: FreeSWITCH writes them in one go.
_FIRST = b"\nvariable_rtp_audio_in_raw_bytes: "
_STATISTICS = 2000
_NUMBER = re.compile(rb"\nvariable_rtp_audio_(in|out)_([a-z_]+): ([0-9]{1,15}(?:\.[0-9]{1,6})?)(?=\n|\Z)")
#: A Call-ID that may be shown and searched for: a phone can send anything.
_CALL_ID = re.compile(r"[!-~]{1,255}")
_CODEC = re.compile(r"[A-Za-z0-9._-]{1,32}")


def quality_of(event: Event, post_dial_delay: float | None, *, answered: bool) -> LegQuality:
    """``post_dial_delay``: seconds to the first ringing, if it is known."""
    quality = LegQuality(leg=event.get("Unique-ID") or "", sip_call_id=_text(event, "sip_call_id", _CALL_ID))
    status = event.last(b"variable_sip_term_status")
    if status is not None and status.isdigit() and len(status) == 3:
        quality.sip_status = int(status)
    elif answered and quality.sip_call_id is not None:
        # The switch ended it, and has no status of its own BYE.
        quality.sip_status = 200
    if event.last(b"variable_direction") == b"outbound":
        quality.gateway = _text(event, "sip_gateway_name", _CODEC)
        quality.post_dial_delay = None if post_dial_delay is None else round(post_dial_delay, 3)
    start = event.block.rfind(_FIRST)
    if start >= 0:
        _read_statistics(quality, event.block[start : start + _STATISTICS])
        name, rate = _text(event, "read_codec", _CODEC), event.last(b"variable_read_rate")
        quality.codec = name if name is None or rate is None or not rate.isdigit() else f"{name}/{rate.decode()}"
    return quality


def _read_statistics(quality: LegQuality, block: bytes) -> None:
    values = {match[1] + b"_" + match[2]: float(match[3]) for match in _NUMBER.finditer(block)}
    packets = values.get(b"in_packet_count")
    quality.packets_in = None if packets is None else int(packets)
    packets_out = values.get(b"out_packet_count")
    quality.packets_out = None if packets_out is None else int(packets_out)
    if packets:
        # Without packets there is nothing to judge, but the switch says 4.5.
        quality.mos = values.get(b"in_mos")
        quality.loss = values.get(b"in_jitter_loss_rate")
        # The switch keeps the variance, in square milliseconds.
        variance = values.get(b"in_jitter_max_variance")
        quality.jitter = None if variance is None else round(sqrt(variance), 2)


def _text(event: Event, name: str, form: re.Pattern[str]) -> str | None:
    value = event.last(f"variable_{name}".encode())
    text = "" if value is None else decode(value)
    return text if form.fullmatch(text) else None
