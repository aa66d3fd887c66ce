"""Commands that do something later."""

from __future__ import annotations

from esl_apps.sandbox.commands.registry import NO_CHANNEL, channel_of, command, words_of
from esl_apps.sandbox.switch import Switch
from esl_apps.sandbox.wire import causes


@command("sched_del")
def sched_del(switch: Switch, argument: str) -> str:
    """Cancel tasks by number or group (a channel's UUID)."""
    return f"+OK Deleted: {switch.scheduler.cancel(argument.strip())}\n"


@command("sched_hangup")
def sched_hangup(switch: Switch, argument: str) -> str:
    """``+SECONDS UUID [CAUSE]``."""
    words = words_of(argument)
    if len(words) < 2:
        return "-USAGE: [+]<time> <uuid> [<cause>]\n"
    channel = channel_of(switch, words[1])
    if channel is None:
        return NO_CHANNEL
    cause = causes.parse(words[2]) if len(words) > 2 else "ALLOTTED_TIMEOUT"
    channel.schedule(words[0], "switch_ivr_schedule_hangup", channel.hangup, cause)
    return "+OK\n"


@command("sched_transfer")
def sched_transfer(switch: Switch, argument: str) -> str:
    """``+SECONDS UUID EXTENSION [DIALPLAN [CONTEXT]]``."""
    words = words_of(argument)
    if len(words) < 3:
        return "-USAGE: [+]<time> <uuid> <extension> [<dialplan>] [<context>]\n"
    channel = channel_of(switch, words[1])
    if channel is None:
        return NO_CHANNEL
    padded = [*words[2:], "", "", ""]
    channel.schedule(words[0], "switch_ivr_schedule_transfer", channel.transfer, padded[0], padded[1], padded[2])
    return "+OK\n"


@command("sched_api")
def sched_api(switch: Switch, argument: str) -> str:
    """``+SECONDS GROUP COMMAND ARGUMENT``."""
    words = argument.split(" ", 3)
    if len(words) < 3:
        return "-ERR Invalid syntax. USAGE: [+@]<time> <group_name> <command_string>[&]\n"
    name, argument = words[2], words[3] if len(words) > 3 else ""
    number = switch.scheduler.add(words[0], words[1], "api", lambda: switch.spawn_api(name, argument))
    return f"+OK Added: {number}\n"
