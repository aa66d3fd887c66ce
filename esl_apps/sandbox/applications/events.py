"""Applications that fire events and write logs; and those without an effect here."""

from __future__ import annotations

from esl_apps.sandbox.applications.registry import application
from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.wire import strings
from esl_apps.sandbox.wire.event_names import NAMES
from esl_apps.sandbox.wire.events import Event


@application("event", zombie=True, quick=True)
def event(channel: Channel, data: str) -> None:
    """Fire an event: ``Event-Name=CUSTOM,Event-Subclass=x::y,Header=value``."""
    headers = []
    name, subclass = "CHANNEL_APPLICATION", ""
    for part in strings.separate(data, ","):
        key, _, value = part.partition("=")
        if key.lower() == "event-name" and value.upper() in NAMES:
            name = value.upper()
        elif key.lower() == "event-subclass":
            subclass = value
        elif key:
            headers.append((key, value))
    channel.switch.bus.fire(Event(name, channel, after=headers, subclass=subclass if name == "CUSTOM" else ""))


@application("log", quick=True)
def log(channel: Channel, data: str) -> None:
    """Write to the log."""
    channel.switch.log.info("%s", data)


@application("info", zombie=True, quick=True)
def info(channel: Channel, data: str) -> None:
    """Write all variables to the log."""
    del data
    for name, value in channel.headers(True):
        channel.switch.log.info("%s: [%s]", name, value)


@application("eval", zombie=True, quick=True)
def eval_(channel: Channel, data: str) -> None:
    """Do nothing: the argument has been expanded already."""
    del channel, data


def _nothing(channel: Channel, data: str) -> None:
    """Accepted, with no effect here."""
    del channel, data


for _name in (
    "verbose_events",
    "privacy",
    "presence",
    "set_name",
    "enable_heartbeat",
    "sched_heartbeat",
    "remove_bugs",
    "set_audio_level",
    "jitterbuffer",
    "block_dtmf",
    "unblock_dtmf",
    "stop",
    "early_hangup",
    "send_display",
    "stop_tone_detect",
    "tone_detect",
    "start_dtmf_generate",
    "stop_dtmf_generate",
    "cng_plc",
    "set_media_stats",
    "bind_meta_app",
    "unbind_meta_app",
    "session_loglevel",
    "capture",
    "limit",
    "system",
    "set_zombie_exec",
    "deduplicate_dtmf",
    "media_reset",
    "recovery_refresh",
    "reuse_caller_profile",
):
    application(_name, quick=True)(_nothing)
