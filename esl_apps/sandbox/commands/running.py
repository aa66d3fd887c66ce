"""Commands for what runs on a leg: broadcasts, breaks, recordings, digits."""

from __future__ import annotations

from esl_apps.sandbox.commands.registry import NO_CHANNEL, channel_of, command, words_of
from esl_apps.sandbox.leg.media import Recording
from esl_apps.sandbox.switch import Switch
from esl_apps.sandbox.wire import strings
from esl_apps.sandbox.wire.wire import execute_command


@command("uuid_broadcast")
def uuid_broadcast(switch: Switch, argument: str) -> str:
    """``UUID PATH|app::data [aleg|bleg|both]``."""
    words = words_of(argument)
    if len(words) < 2:
        return "-USAGE: <uuid> <path> [aleg|bleg|holdb|both]\n"
    channel = channel_of(switch, words[0])
    if channel is None:
        return "-ERR invalid uuid\n"
    which = words[2] if len(words) > 2 else "aleg"
    targets = [channel] if which in ("aleg", "both", "holdb") else []
    partner = channel.bonded()
    if which in ("bleg", "both") and partner is not None:
        targets.append(partner)
    for target in targets:
        path = words[1]
        app, marks, data = path.partition("::")
        if not marks:
            app, data = "playback", path
        target.queue_command(execute_command(app, data, lock=True))
    return "+OK Message sent\n"


@command("uuid_break")
def uuid_break(switch: Switch, argument: str) -> str:
    """Stop what plays: ``UUID [all]``."""
    words = words_of(argument)
    channel = channel_of(switch, argument)
    if channel is None:
        return NO_CHANNEL
    channel.stop_playing(flush=len(words) > 1 and words[1].lower() == "all")
    return "+OK\n"


@command("uuid_record")
def uuid_record(switch: Switch, argument: str) -> str:
    """``UUID start|stop|mask|unmask|pause|resume PATH|all [LIMIT]``."""
    words = words_of(argument)
    if len(words) < 3:
        return "-USAGE: <uuid> [start|stop|mask|unmask|pause|resume] <path> [<limit>] [<recording_vars>]\n"
    channel = channel_of(switch, words[0])
    if channel is None:
        return "-ERR Cannot locate session!\n"
    action, path = words[1].lower(), words[2]
    if action == "start":
        limit = float(strings.number(words[3])) if len(words) > 3 else 0.0
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


@command("uuid_send_dtmf")
def uuid_send_dtmf(switch: Switch, argument: str) -> str:
    """Send digits to the far end."""
    words = words_of(argument)
    if len(words) < 2:
        return "-USAGE: <uuid> <dtmf digits>[@<tone_duration>]\n"
    channel = channel_of(switch, words[0])
    if channel is None:
        return "-ERR Cannot locate session!\n"
    for digit in words[1].split("@")[0]:
        channel.endpoint.digit(digit)
    return f"+OK {channel.uuid} sent DTMF {words[1]}.\n"


@command("uuid_recv_dtmf")
def uuid_recv_dtmf(switch: Switch, argument: str) -> str:
    """Queue digits as if the far end had sent them, past its bindings unless they begin with ``~``."""
    words = words_of(argument)
    if len(words) < 2:
        return "-USAGE: <uuid> <dtmf digits>[@<tone_duration>]\n"
    channel = channel_of(switch, words[0])
    if channel is None:
        return "-ERR Cannot locate session!\n"
    digits = words[1].split("@")[0]
    queue = channel.queue_digit if digits.startswith("~") else channel.accept_digit
    for digit in digits.lstrip("~"):
        queue(digit, 2000, "APP")
    return f"+OK {channel.uuid} received DTMF {words[1]}.\n"


@command("uuid_flush_dtmf")
def uuid_flush_dtmf(switch: Switch, argument: str) -> str:
    """Drop digits that have not been read."""
    channel = channel_of(switch, argument)
    if channel is None:
        return "-ERR No such session\n"
    channel.digits.clear()
    return "+OK\n"


@command("uuid_audio")
def uuid_audio(switch: Switch, argument: str) -> str:
    """``UUID start read|write mute|level LEVEL`` or ``UUID stop``. Only muting what a leg says has an effect here."""
    words = words_of(argument)
    if len(words) < 2:
        return "-USAGE: <uuid> [start [read|write] [mute|level <level>]|stop]\n"
    channel = channel_of(switch, words[0])
    if channel is None:
        return NO_CHANNEL
    if words[1].lower() == "stop":
        channel.muted = False
    elif words[1].lower() != "start" or len(words) < 5:
        return "-USAGE: <uuid> [start [read|write] [mute|level <level>]|stop]\n"
    elif words[2:4] == ["read", "mute"]:
        channel.muted = True
    switch.shape_changed(channel)
    return "+OK\n"


@command("uuid_phone_event", "uuid_display", "uuid_media", "uuid_deflect", "uuid_simplify")
def accepted(switch: Switch, argument: str) -> str:
    """Accepted, with no effect here."""
    words = words_of(argument)
    return "+OK Success\n" if words and channel_of(switch, words[0]) else "-ERR Operation failed\n"
