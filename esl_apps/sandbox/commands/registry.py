"""The table of API commands; each module of this package enters its own."""

from __future__ import annotations

from collections.abc import Callable

from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.switch import Command, Switch
from esl_apps.sandbox.wire import strings

NO_CHANNEL = "-ERR No such channel!\n"
_TABLE: dict[str, Command] = {}


def command(*names: str) -> Callable[[Command], Command]:
    """Enter a function under its names."""

    def enter(function: Command) -> Command:
        for name in names:
            _TABLE[name] = function
        return function

    return enter


def words_of(argument: str, limit: int = 0) -> list[str]:
    return strings.separate(argument, " ", limit)


def channel_of(switch: Switch, uuid: str) -> Channel | None:
    """A channel that commands can still find."""
    return switch.locate(uuid.strip())


def table() -> dict[str, Command]:
    """All commands by name."""
    return dict(_TABLE)
