"""The recordings that each switch has: asked when it connects, and again after a reload of the configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable

from esl_apps.esl.answers import SwitchUnavailable
from esl_apps.esl.switch import Switch
from esl_apps.node.policy import Policies
from esl_apps.process import background
from esl_apps.prompts.recorded import NONE, Recorded, look

log = logging.getLogger(__name__)


def asking(switch: Switch) -> Callable[[str], str]:
    """Return how ``look`` asks a switch. ``-ERR no reply``, about a variable that isn't set, is an empty answer.

    :raises SwitchUnavailable: from what is returned; the switch doesn't answer.
    """

    def ask(command: str) -> str:
        reply = switch.send(f"api {command}")
        return reply.data if reply.ok else ""

    return ask


class SwitchSounds:
    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._found: dict[str, Recorded] = {}
        """By switch."""

    def of(self, switch: Switch) -> Recorded:
        """Return the recordings of a switch; none before it has told them."""
        return self._found.get(switch.name, NONE)

    def look(self, switch: Switch) -> None:
        """Ask a switch in the background which recordings it has, if they are wanted."""
        if switch.connected and self._policies.now.config.prompts.recorded:
            background.once("switch_sounds", self._ask, switch)

    def _ask(self, switch: Switch) -> None:
        try:
            found = look(asking(switch), self._policies.now.spoken.languages)
        except SwitchUnavailable as error:
            # Forget what was found before: another machine may have the same address now.
            self._found.pop(switch.name, None)
            log.warning("switch_sounds_unknown", extra={"switch": switch.name, "reason": str(error)})
            return
        self._found[switch.name] = found
        if found:
            prompts: dict[str, int] = {}
            for language, _prompt in found:
                prompts[language] = prompts.get(language, 0) + 1
            log.info("switch_sounds_found", extra={"switch": switch.name, "prompts": prompts})
