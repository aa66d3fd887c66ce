"""The table of API commands, in which each module registers its own."""

from __future__ import annotations

from collections.abc import Callable

from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.switch import Command, Switch
from esl_apps.sandbox.wire import strings

NO_CHANNEL = "-ERR No such channel!\n"
LegCommand = Callable[[Channel, list[str]], str]
_TABLE: dict[str, Command] = {}


def command(*names: str) -> Callable[[Command], Command]:
    """Register a function under its names."""

    def enter(function: Command) -> Command:
        for name in names:
            _TABLE[name] = function
        return function

    return enter


def leg_command(
    name: str, *, least: int = 1, usage: str = "", missing: str = NO_CHANNEL
) -> Callable[[LegCommand], LegCommand]:
    """Register a function of a leg and the words after its UUID. ``usage``: the answer to fewer words than ``least``,
    the UUID included. ``missing``: the answer if the leg isn't up."""

    def enter(function: LegCommand) -> LegCommand:
        def run(switch: Switch, argument: str) -> str:
            words = words_of(argument)
            if usage and len(words) < least:
                return f"-USAGE: {usage}\n"
            channel = channel_of(switch, argument)
            return missing if channel is None else function(channel, words[1:])

        _TABLE[name] = run
        return function

    return enter


def words_of(argument: str, limit: int = 0) -> list[str]:
    return strings.separate(argument, " ", limit)


def channel_of(switch: Switch, argument: str) -> Channel | None:
    """Find the channel that the first word of an argument names, if it is up."""
    return switch.locate(argument.strip().partition(" ")[0])


def table() -> dict[str, Command]:
    """Return all commands by name."""
    return dict(_TABLE)
