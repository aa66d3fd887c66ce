"""The variables that FreeSWITCH sets when a leg ends."""

from __future__ import annotations

import time

from esl_apps.sandbox.protocols import Leg


def set_times(channel: Leg, digits: str) -> None:
    """Set the variables of a leg that ends: its times and durations, its digits, its last application."""
    times = channel.profile.times
    channel.set("digits_dialed", digits)

    def stamp(when: int) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when / 1_000_000))

    channel.set("start_stamp", stamp(times.created))
    channel.set("profile_start_stamp", stamp(times.profile_created))
    for name, when in (
        ("answer", times.answered),
        ("bridge", times.bridged),
        ("hold", times.last_hold),
        ("resurrect", times.resurrected),
        ("progress", times.progress),
        ("progress_media", times.progress_media),
    ):
        if when:
            channel.set(f"{name}_stamp", stamp(when))
    if channel.hold_record:
        channel.set("hold_events", "{" + ",".join(f"{{{on},{off}}}" for on, off in channel.hold_record) + "}")
    channel.set("end_stamp", stamp(times.hungup))
    for name, when in (
        ("start", times.created),
        ("profile_start", times.profile_created),
        ("answer", times.answered),
        ("bridge", times.bridged),
        ("last_hold", times.last_hold),
    ):
        channel.set(f"{name}_epoch", str(when // 1_000_000))
        channel.set(f"{name}_uepoch", str(when))
    channel.set("hold_accum_seconds", str(times.hold_accum // 1_000_000))
    channel.set("hold_accum_usec", str(times.hold_accum))
    channel.set("hold_accum_ms", str(times.hold_accum // 1000))
    for name, when in (
        ("resurrect", times.resurrected),
        ("progress", times.progress),
        ("progress_media", times.progress_media),
        ("end", times.hungup),
    ):
        channel.set(f"{name}_epoch", str(when // 1_000_000))
        channel.set(f"{name}_uepoch", str(when))
    if channel.applications:
        last = channel.applications[-1]
        channel.set("last_app", last.app)
        channel.set("last_arg", last.data)
    name, number = channel.profile.caller_id_name, channel.profile.caller_id_number
    channel.set("caller_id", f'"{name}" <{number}>' if name else number)
    created, hungup = times.created, times.hungup

    def since(when: int, unit: int) -> int:
        return when // unit - created // unit if when else 0

    for unit, mark in ((1_000_000, "sec"), (1_000, "msec"), (1, "usec")):
        letter = {"sec": "", "msec": "m", "usec": "u"}[mark]
        answered = times.answered
        bill = hungup // unit - answered // unit if answered else 0
        waited = since(times.bridged, unit) if times.bridged > created else 0
        channel.set(f"{letter}duration", str(hungup // unit - created // unit))
        channel.set(f"bill{mark}", str(bill))
        channel.set(f"progress{mark}", str(since(times.progress, unit)))
        channel.set(f"answer{mark}", str(since(answered, unit)))
        channel.set(f"wait{mark}", str(waited))
        channel.set(f"progress_media{mark}", str(since(times.progress_media, unit)))
        channel.set(f"flow_bill{mark}", str(since(hungup, unit) if answered else 0))
