"""Read many keys in one round trip: one that something else has made another type of hides no other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from esl_apps.store.connection import Command
from esl_apps.store.errors import Fault, raise_first
from esl_apps.store.redis_client import Client

log = logging.getLogger(__name__)

#: Keys of another type that are remembered, so that each is logged once.
_MOST = 1000


class LenientReads:
    def __init__(self, client: Client) -> None:
        self._client = client
        self.unreadable: dict[str, str] = {}
        """Keys of another type that were met, and what Redis says of them."""

    def ask(self, commands: Sequence[Command], nothing: Any) -> list[Any]:
        """The answers; ``nothing`` from a key that is something else.

        :raises StoreUnavailable: Redis is down, or refuses.
        """
        answers: list[Any] = self._client.send_all(commands, raise_on_error=False)
        for i, answer in enumerate(answers):
            if isinstance(answer, Fault):
                self._say(commands[i][1], answer)
                answers[i] = nothing
        raise_first(answers)
        return answers

    def _say(self, key: str, error: Fault) -> None:
        """Log a key once: others are read and written at every beat."""
        if key not in self.unreadable:
            if len(self.unreadable) == _MOST:
                self.unreadable.clear()
            self.unreadable[key] = str(error).removeprefix("redis: ")
            log.error("key_unreadable", extra={"key": key, "reason": str(error)})
