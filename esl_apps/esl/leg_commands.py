"""Questions to a switch about a leg that has no socket here, and its variables.

All but `try_api` raise :class:`SwitchFailed` if the switch doesn't answer in time, or refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from esl_apps.core import dialstring
from esl_apps.esl.answers import SwitchFailed
from esl_apps.esl.switch import REPLY_TIMEOUT, Switch

#: FreeSWITCH's answer for a variable that isn't set.
_UNSET = "_undef_"
_NONE: Mapping[str, str] = {}


def is_up(switch: Switch, leg: str, timeout: float = REPLY_TIMEOUT) -> bool:
    return switch.api(f"uuid_exists {leg}", timeout).strip() == "true"


def variable(switch: Switch, leg: str, name: str, timeout: float = REPLY_TIMEOUT) -> str:
    """Return a leg's variable; empty if it has none. :raises ReplyError: the leg isn't there."""
    value = switch.api(f"uuid_getvar {leg} {name}", timeout).strip()
    return "" if value == _UNSET else value


def set_variables(switch: Switch, leg: str, variables: Mapping[str, str], plan: Mapping[str, str] = _NONE) -> None:
    """Set a leg's variables. ``plan``: more of them, values of ours with spaces and quotes."""
    # How a list of variables holds spaces and quotes.
    escaped = {name: value.replace(" ", "\\s").replace("'", "\\'") for name, value in plan.items()}
    pairs = ";".join(f"{name}={value}" for name, value in {**dialstring.encoded(variables), **escaped}.items())
    switch.api(f"uuid_setvar_multi {leg} {pairs}")


def try_api(switch: Switch, command: str) -> None:
    """Send a command that may fail: its leg may have left."""
    with suppress(SwitchFailed):
        switch.api(command)
