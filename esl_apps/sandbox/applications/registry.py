"""The table of dialplan applications, in which each module registers its own."""

from __future__ import annotations

from collections.abc import Callable

from esl_apps.sandbox.leg.channel import Application, Channel

_TABLE: dict[str, Application] = {}


def application(
    name: str, *, media: bool = False, zombie: bool = False, quick: bool = False
) -> Callable[[Callable[[Channel, str], None]], Callable[[Channel, str], None]]:
    """Register a function."""

    def enter(function: Callable[[Channel, str], None]) -> Callable[[Channel, str], None]:
        _TABLE[name] = Application(name, function, media, zombie, quick)
        return function

    return enter


def table() -> dict[str, Application]:
    """Return all applications by name."""
    return dict(_TABLE)


def extension_of(words: list[str]) -> tuple[str, str, str]:
    padded = [*words, "", "", ""]
    return padded[0], padded[1], padded[2]
