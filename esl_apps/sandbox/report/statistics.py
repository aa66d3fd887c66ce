"""The RTP statistics that FreeSWITCH sets on a leg that ends, or when it is asked to."""

from __future__ import annotations

from esl_apps.sandbox.leg.state import microseconds
from esl_apps.sandbox.protocols import Leg

#: Milliseconds of sound in a packet.
_PACKET = 20
_IN = (
    *("raw_bytes", "media_bytes", "packet_count", "media_packet_count", "skip_packet_count", "jitter_packet_count"),
    *("dtmf_packet_count", "cng_packet_count", "flush_packet_count", "largest_jb_size"),
    *("jitter_min_variance", "jitter_max_variance", "jitter_loss_rate", "jitter_burst_rate", "mean_interval"),
    *("flaw_total", "quality_percentage", "mos"),
)
_OUT = (
    *("raw_bytes", "media_bytes", "packet_count", "media_packet_count", "skip_packet_count"),
    *("dtmf_packet_count", "cng_packet_count"),
)
_RTCP = ("packet_count", "octet_count")
_FRACTIONS = frozenset({name for name in _IN if "jitter_" in name and not name.endswith("_count")} | {"mean_interval"})


def set_statistics(channel: Leg) -> None:
    """Set the statistics of a leg that has had media: a perfect line, on which each side sent a packet every 20 ms."""
    times = channel.profile.times
    began = times.answered or times.progress_media
    if not began or channel.get("rtp_use_codec_name") is None:
        return
    packets = max(0, ((times.hungup or microseconds()) - began) // 1000 // _PACKET)
    known = {"packet_count": packets, "media_packet_count": packets}
    known["raw_bytes"] = known["media_bytes"] = packets * 172
    for name in _IN:
        value = f"{known.get(name, 0)}"
        if name in _FRACTIONS:
            value = "0.00"
        elif name in ("mos", "quality_percentage"):
            value = "4.50" if name == "mos" else "100.00"
        channel.set(f"rtp_audio_in_{name}", value)
    for name in _OUT:
        channel.set(f"rtp_audio_out_{name}", str(known.get(name, 0)))
    for name in _RTCP:
        channel.set(f"rtp_audio_rtcp_{name}", "0")
