"""Applications that record."""

from __future__ import annotations

import re
import time

from esl_apps.sandbox.applications.playing import terminators
from esl_apps.sandbox.applications.registry import application
from esl_apps.sandbox.leg import media
from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.wire import strings


@application("record_session", quick=True)
def record_session(channel: Channel, data: str) -> None:
    """Record both directions from now on: ``FILE [+SECONDS]``."""
    match = re.match(r"(.*?)\s+\+(\d+)\s*$", data)
    path, limit = (match[1], float(match[2])) if match else (data.strip(), None)
    path = re.sub(r"^\{[^}]*\}", "", path)
    if path and path not in channel.recordings:
        channel.recordings[path] = media.Recording(channel, path, limit)


@application("stop_record_session", quick=True)
def stop_record_session(channel: Channel, data: str) -> None:
    """End one recording, or ``all``."""
    for path, recording in list(channel.recordings.items()):
        if data.strip() in ("all", path):
            recording.stop()


@application("record_session_unmask", quick=True)
def record_session_unmask(channel: Channel, data: str) -> None:
    """Record the sound again, as after ``uuid_record … mask``."""
    recording = channel.recordings.get(data.strip())
    if recording is not None:
        recording.mask(on=False)


@application("record", media=True)
def record(channel: Channel, data: str) -> None:
    """Record the caller alone: ``FILE [SECONDS]``; a terminator ends it."""
    words = strings.separate(data, " ")
    if not words:
        return
    limit = strings.number(words[1]) if len(words) > 1 else 0
    recording = channel.recordings[words[0]] = media.Recording(channel, words[0], None)
    deadline = time.monotonic() + limit if limit else None
    while channel.ready and not channel.breaking:
        dtmf = channel.dequeue_digit()
        if dtmf is not None and dtmf.digit in terminators(channel):
            break
        if deadline is not None and time.monotonic() >= deadline:
            break
        channel.idle(deadline)
    channel.breaking = False
    recording.stop()
