"""Applications that play something."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from esl_apps.sandbox.applications.registry import application
from esl_apps.sandbox.leg import media
from esl_apps.sandbox.leg.channel import Channel


def play(channel: Channel, path: str, on_digit: Callable[[str], bool] | None = None) -> str:
    """Play to the end. Return ``done``, ``break``, ``gone`` (the channel hung up) or ``missing``.

    ``on_digit`` returns whether a digit ends it.
    """
    sound = media.sound(channel.expand(path))
    if sound is None:
        channel.switch.log.error("Error opening file [%s]", path)
        return "missing"
    kind = "tone_stream" if path.startswith("tone_stream://") else ""
    if path.startswith("local_stream://"):
        kind = "local_stream"
    marks = [("Playback-File-Type", kind)] if kind else []
    marks.append(("Playback-File-Path", path))
    channel.fire("PLAYBACK_START", (), marks)
    deadline = None if sound.loops < 0 or sound.seconds < 0 else time.monotonic() + sound.seconds * max(1, sound.loops)
    tones = set(sound.tones)

    def heard() -> set[int]:
        return tones

    began = time.monotonic()
    channel.heard.append(heard)
    channel.switch.shape_changed(channel)
    status = "done"
    try:
        while True:
            if not channel.ready:
                status = "gone"
                break
            if channel.breaking:
                channel.breaking = False
                status = "break"
                break
            dtmf = channel.dequeue_digit()
            if dtmf is not None:
                if on_digit is not None and on_digit(dtmf.digit):
                    status = "break"
                    break
                # The switch reads one digit per frame.
                channel.sleeper.frame()
                continue
            channel.drain_events()
            if deadline is not None and time.monotonic() >= deadline:
                break
            spent = channel.idle(deadline)
            if deadline is not None:
                deadline += spent
    finally:
        channel.heard.remove(heard)
        channel.switch.shape_changed(channel)
    seconds = time.monotonic() - began
    channel.set("playback_last_offset_pos", str(int(seconds * media.RATE)))
    channel.set("playback_seconds", str(int(seconds)))
    channel.set("playback_ms", str(int(seconds * 1000)))
    channel.set("playback_samples", str(int(seconds * media.RATE)))
    channel.fire("PLAYBACK_STOP", (), [*marks, ("Playback-Status", "break" if status == "break" else "done")])
    return status


def terminators(channel: Channel) -> str:
    value = channel.get("playback_terminators")
    if value is None:
        return "*"
    return {"any": "1234567890*#", "none": ""}.get(value.lower(), value)


@application("playback", media=True)
def playback(channel: Channel, data: str) -> None:
    """Play a file, a tone or silence."""
    channel.set("playback_terminator_used", None)

    def ends(digit: str) -> bool:
        if digit in terminators(channel):
            channel.set("playback_terminator_used", digit)
            return True
        return False

    status = play(channel, data, ends)
    response = {"missing": "FILE NOT FOUND", "gone": "PLAYBACK ERROR"}.get(status, "FILE PLAYED")
    channel.set("current_application_response", response)


@application("endless_playback", media=True)
def endless_playback(channel: Channel, data: str) -> None:
    """Play again and again."""
    while channel.ready and play(channel, data) == "done":
        pass


@application("loop_playback", media=True)
def loop_playback(channel: Channel, data: str) -> None:
    """``+N path``: play N times."""
    match = re.match(r"\+(\d+)\s+(.*)", data)
    count, path = (int(match[1]), match[2]) if match else (1, data)
    for _ in range(count):
        if not channel.ready or play(channel, path) != "done":
            break


@application("gentones", media=True)
def gentones(channel: Channel, data: str) -> None:
    """Play TGML."""
    play(channel, f"tone_stream://{data.split('|', maxsplit=1)[0]}")


@application("say", media=True)
@application("speak", media=True)
def say(channel: Channel, data: str) -> None:
    """Speak, for a tenth of a second per character."""
    play(channel, f"silence_stream://{100 * max(1, len(data.rsplit(' ', maxsplit=1)[-1]))}")


@application("break", quick=True)
def break_(channel: Channel, data: str) -> None:
    """Stop what plays."""
    del data
    channel.breaking = True
