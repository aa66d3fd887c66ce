"""Commands for what runs on a leg: broadcasts, breaks, recordings, digits."""

from __future__ import annotations

from esl_apps.sandbox.commands.registry import channel_of, command, leg_command, words_of
from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.leg.media import Recording
from esl_apps.sandbox.switch import Switch
from esl_apps.sandbox.wire import strings
from esl_apps.sandbox.wire.wire import execute_command

_NO_SESSION = "-ERR Cannot locate session!\n"
_DIGITS = "<uuid> <dtmf digits>[@<tone_duration>]"
_AUDIO = "<uuid> [start [read|write] [mute|level <level>]|stop]"


@leg_command("uuid_broadcast", least=2, usage="<uuid> <path> [aleg|bleg|holdb|both]", missing="-ERR invalid uuid\n")
def uuid_broadcast(channel: Channel, words: list[str]) -> str:
    """``UUID PATH|app::data [aleg|bleg|both]``."""
    which = words[1] if len(words) > 1 else "aleg"
    targets = [channel] if which in ("aleg", "both", "holdb") else []
    partner = channel.bonded()
    if which in ("bleg", "both") and partner is not None:
        targets.append(partner)
    for target in targets:
        path = words[0]
        app, marks, data = path.partition("::")
        if not marks:
            app, data = "playback", path
        target.queue_command(execute_command(app, data, lock=True))
    return "+OK Message sent\n"


@leg_command("uuid_break")
def uuid_break(channel: Channel, words: list[str]) -> str:
    """Stop what plays: ``UUID [all]``."""
    channel.stop_playing(flush=bool(words) and words[0].lower() == "all")
    return "+OK\n"


@leg_command(
    "uuid_record",
    least=3,
    usage="<uuid> [start|stop|mask|unmask|pause|resume] <path> [<limit>] [<recording_vars>]",
    missing=_NO_SESSION,
)
def uuid_record(channel: Channel, words: list[str]) -> str:
    """``UUID start|stop|mask|unmask|pause|resume PATH|all [LIMIT]``."""
    action, path = words[0].lower(), words[1]
    if action == "start":
        limit = float(strings.number(words[2])) if len(words) > 2 else 0.0
        if not channel.media_ready or path in channel.recordings:
            return "-ERR Cannot record session!\n"
        channel.recordings[path] = Recording(channel, path, limit or None)
    elif action in ("mask", "unmask"):
        if path not in channel.recordings:
            return "-ERR Cannot mask recording session!\n"
        channel.recordings[path].mask(on=action == "mask")
    elif action == "stop":
        recordings = [recording for name, recording in channel.recordings.items() if path in ("all", name)]
        if not recordings:
            return "-ERR Cannot stop record session!\n"
        for recording in recordings:
            recording.stop()
    return "+OK Success\n"


@leg_command("uuid_send_dtmf", least=2, usage=_DIGITS, missing=_NO_SESSION)
def uuid_send_dtmf(channel: Channel, words: list[str]) -> str:
    """Send digits to the far end."""
    for digit in words[0].split("@")[0]:
        channel.endpoint.digit(digit)
    return f"+OK {channel.uuid} sent DTMF {words[0]}.\n"


@leg_command("uuid_recv_dtmf", least=2, usage=_DIGITS, missing=_NO_SESSION)
def uuid_recv_dtmf(channel: Channel, words: list[str]) -> str:
    """Queue digits as if the far end had sent them, past its bindings unless they begin with ``~``."""
    digits = words[0].split("@")[0]
    queue = channel.queue_digit if digits.startswith("~") else channel.accept_digit
    for digit in digits.lstrip("~"):
        queue(digit, 2000, "APP")
    return f"+OK {channel.uuid} received DTMF {words[0]}.\n"


@leg_command("uuid_flush_dtmf", missing="-ERR No such session\n")
def uuid_flush_dtmf(channel: Channel, _words: list[str]) -> str:
    """Drop digits that have not been read."""
    channel.digits.clear()
    return "+OK\n"


@leg_command("uuid_audio", least=2, usage=_AUDIO)
def uuid_audio(channel: Channel, words: list[str]) -> str:
    """``UUID start read|write mute|level LEVEL`` or ``UUID stop``. Only muting what a leg says has an effect here."""
    if words[0].lower() == "stop":
        channel.muted = False
    elif words[0].lower() != "start" or len(words) < 4:
        return f"-USAGE: {_AUDIO}\n"
    elif words[1:3] == ["read", "mute"]:
        channel.muted = True
    channel.switch.shape_changed(channel)
    return "+OK\n"


@command("uuid_phone_event", "uuid_display", "uuid_media", "uuid_deflect", "uuid_simplify")
def accepted(switch: Switch, argument: str) -> str:
    """Accepted, with no effect here."""
    words = words_of(argument)
    return "+OK Success\n" if words and channel_of(switch, words[0]) else "-ERR Operation failed\n"
