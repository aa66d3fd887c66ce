"""Commands that read and set variables."""

from __future__ import annotations

from esl_apps.sandbox.commands.registry import NO_CHANNEL, channel_of, command, leg_command, words_of
from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.report.statistics import set_statistics
from esl_apps.sandbox.switch import Switch
from esl_apps.sandbox.wire import strings
from esl_apps.sandbox.wire.events import Event


@command("uuid_getvar")
def uuid_getvar(switch: Switch, argument: str) -> str:
    """Return a variable's value or ``_undef_``."""
    words = words_of(argument, 2)
    if not words:
        return "-USAGE: <uuid> <var>\n"
    channel = channel_of(switch, argument)
    if channel is None:
        return NO_CHANNEL
    if len(words) < 2:
        return "-ERR No variable name specified!\n"
    return channel.lookup(words[1].strip()) or "_undef_"


@command("uuid_setvar")
def uuid_setvar(switch: Switch, argument: str) -> str:
    """``UUID NAME [VALUE]``."""
    words = words_of(argument, 3)
    channel = channel_of(switch, argument)
    if len(words) < 2:
        return "-USAGE: <uuid> <var> [value]\n"
    if channel is None:
        return NO_CHANNEL
    value = words[2] if len(words) > 2 else ""
    channel.set(words[1], "" if value == "undef" else value)
    return "+OK\n"


@command("uuid_setvar_multi")
def uuid_setvar_multi(switch: Switch, argument: str) -> str:
    """``UUID NAME=VALUE;NAME=VALUE``."""
    uuid, _, rest = argument.partition(" ")
    channel = channel_of(switch, uuid)
    if not rest:
        return "-USAGE: <uuid> <var>=<value>;<var>=<value>...\n"
    if channel is None:
        return NO_CHANNEL
    for pair in strings.separate(rest, ";"):
        name, equals, value = pair.partition("=")
        if not name:
            return "-ERR No variable specified\n"
        channel.set(name.strip(), value if equals else "")
    return "+OK\n"


@leg_command("uuid_dump")
def uuid_dump(channel: Channel, words: list[str]) -> str:
    """Return all headers of a leg."""
    event = channel.switch.bus.stamp(Event("CHANNEL_DATA", channel))
    if words[:1] == ["json"]:
        return event.json().decode("utf-8", "surrogateescape")
    return event.plain().decode("utf-8", "surrogateescape")


@leg_command("uuid_set_media_stats")
def uuid_set_media_stats(channel: Channel, _words: list[str]) -> str:
    """Set the statistics of a leg's sound until now as its variables."""
    set_statistics(channel)
    return "+OK Success\n"


@command("global_getvar")
def global_getvar(switch: Switch, argument: str) -> str:
    """Return a variable of the switch, or all."""
    if argument.strip():
        return switch.globals.get(argument.strip(), "")
    return "".join(f"{name}={value}\n" for name, value in switch.globals.items())


@command("global_setvar")
def global_setvar(switch: Switch, argument: str) -> str:
    """``NAME=VALUE``."""
    name, _, value = argument.partition("=")
    switch.globals[name.strip()] = value
    return "+OK\n"
