"""Applications that do something later."""

from __future__ import annotations

from esl_apps.sandbox.applications.registry import application, extension_of
from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.wire import causes, strings


@application("sched_hangup", quick=True)
def sched_hangup(channel: Channel, data: str) -> None:
    """``+SECONDS [CAUSE]``."""
    words = data.split()
    if words:
        cause = causes.parse(words[1]) if len(words) > 1 else "ALLOTTED_TIMEOUT"
        channel.schedule(words[0], "switch_ivr_schedule_hangup", channel.hangup, cause)


@application("sched_transfer", quick=True)
def sched_transfer(channel: Channel, data: str) -> None:
    """``+SECONDS EXTENSION [DIALPLAN [CONTEXT]]``."""
    words = strings.separate(data, " ")
    if len(words) > 1:
        channel.schedule(words[0], "switch_ivr_schedule_transfer", channel.transfer, *extension_of(words[1:]))


@application("sched_cancel", quick=True)
def sched_cancel(channel: Channel, data: str) -> None:
    """Cancel this channel's tasks, or one by number."""
    channel.switch.scheduler.cancel(data.strip() or channel.uuid)


@application("sched_broadcast", quick=True)
def sched_broadcast(channel: Channel, data: str) -> None:
    """``+SECONDS PATH``."""
    words = data.split()
    if len(words) > 1:
        channel.schedule(words[0], "switch_ivr_schedule_broadcast", channel.run_inline, f"playback::{words[1]}")
