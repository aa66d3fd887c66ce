"""Read from a leg's last event how it sounded, and where it is in a packet capture."""

from __future__ import annotations

import re
from math import sqrt

from esl_apps.core.quality import LegQuality
from esl_apps.esl.header_block import HeaderBlock, value_at
from esl_apps.esl.wire import decode

#: Where FreeSWITCH writes a variable: among the first, the last, or together with another. A search of the whole event
#: for one that is absent takes as long as all of this does.
_FIRST, _LAST, _TOGETHER = 1500, 6000, 200
_DIRECTION = b"\nvariable_direction: "
_GATEWAY = b"\nvariable_sip_gateway_name: "
_STATUS = b"\nvariable_sip_term_status: "
_CALL_ID = b"\nvariable_sip_call_id: "
_CODEC = b"\nvariable_read_codec: "
_RATE = b"\nvariable_read_rate: "
#: The leg's RTP statistics.
_STATISTICS = HeaderBlock(
    b"variable_rtp_audio_",
    (
        *(b"in_raw_bytes", b"in_media_bytes", b"in_packet_count", b"in_media_packet_count"),
        *(b"in_skip_packet_count", b"in_jitter_packet_count", b"in_dtmf_packet_count", b"in_cng_packet_count"),
        *(b"in_flush_packet_count", b"in_largest_jb_size", b"in_jitter_min_variance", b"in_jitter_max_variance"),
        *(b"in_jitter_loss_rate", b"in_jitter_burst_rate", b"in_mean_interval", b"in_flaw_total"),
        *(b"in_quality_percentage", b"in_mos", b"out_raw_bytes", b"out_media_bytes", b"out_packet_count"),
    ),
    (b"in_packet_count", b"in_jitter_max_variance", b"in_jitter_loss_rate", b"in_mos", b"out_packet_count"),
    2000,
)
#: A Call-ID that may be shown and searched for: a phone can send anything.
_SHOWN = re.compile(r"[!-~]{1,255}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")


def quality_of(block: bytes, uuid: str, post_dial_delay: float | None, *, answered: bool) -> LegQuality:
    """``block``: the headers of the event, each with a line break before it. ``post_dial_delay``: seconds to the first
    ringing, if it is known."""
    quality = LegQuality(leg=uuid, sip_call_id=_text(block, block.rfind(_CALL_ID), _CALL_ID, _SHOWN))
    status = value_at(block, block.rfind(_STATUS, max(0, len(block) - _LAST)), _STATUS)
    if status.isdigit() and len(status) == 3:
        quality.sip_status = int(status)
    elif answered and quality.sip_call_id is not None:
        # The switch ended it, and has no status of its own BYE.
        quality.sip_status = 200
    at = block.find(_DIRECTION)
    if at >= 0 and block.startswith(b"outbound\n", at + len(_DIRECTION)):
        quality.gateway = _text(block, block.find(_GATEWAY, at, at + _FIRST), _GATEWAY, _NAME)
        quality.post_dial_delay = None if post_dial_delay is None else round(post_dial_delay, 3)
    at = block.rfind(_STATISTICS.first)
    if at >= 0:
        _note_statistics(quality, *map(_number, _STATISTICS.read(block, at)))
        at = block.rfind(_CODEC, 0, at)
        quality.codec = _text(block, at, _CODEC, _NAME)
        rate = value_at(block, block.find(_RATE, at, at + _TOGETHER), _RATE)
        if quality.codec is not None and rate.isdigit() and len(rate) < 7:
            quality.codec += "/" + rate.decode()
    return quality


def _note_statistics(
    quality: LegQuality,
    packets: float | None,
    variance: float | None,
    loss: float | None,
    mos: float | None,
    packets_out: float | None,
) -> None:
    quality.packets_in = None if packets is None else int(packets)
    quality.packets_out = None if packets_out is None else int(packets_out)
    if packets:
        # Without packets there is nothing to judge, but the switch says 4.5.
        quality.mos, quality.loss = mos, loss
        # The switch keeps the variance, in square milliseconds.
        quality.jitter = None if variance is None else round(sqrt(variance), 2)


def _number(value: bytes) -> float | None:
    # Nothing but digits and one point: float() reads "nan" and "1e9", too.
    return float(value) if len(value) < 20 and value.replace(b".", b"", 1).isdigit() else None


def _text(block: bytes, at: int, name: bytes, form: re.Pattern[str]) -> str | None:
    text = decode(value_at(block, at, name))
    return text if form.fullmatch(text) else None
