"""Writes that may wait: each command is sent until Redis has taken it, and what Redis refuses holds up nothing else.

Commands are in groups, each of which Redis takes or refuses as one: those of one key, or of keys that are alike. If it
refuses one, the group waits, and after a while its first command is tried again. A group keeps a bounded number.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import islice

from msgspec import Struct, field

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.connection import Command
from esl_apps.store.errors import Fault, NotReady, Reply, raise_first
from esl_apps.store.redis_client import Client

log = logging.getLogger(__name__)

#: Commands that a group keeps; above it the oldest are dropped. Some 25 MB of calls.
MOST = 10_000
#: Commands sent in one round trip.
BATCH = 500
#: Seconds until a refused group is tried again. If the fault is the key's own, they are doubled each time, up to the
#: second value.
AGAIN_FIRST, AGAIN_LAST = 1.0, 30.0


class Group(Struct):
    commands: dict[str, Command] = field(default_factory=dict)
    """By what they are about; a newer one takes the place of an older one."""
    refusal: Reply | None = None
    again_at: float = 0.0
    pause: float = AGAIN_FIRST
    dropped: int = 0


class WriteBehind:
    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._groups: dict[str, Group] = {}
        """Those with commands that wait, or that Redis has refused."""
        self._unanswered: dict[tuple[str, str], Command] = {}
        """Commands for a part of a cluster that didn't answer, by group and what they are about. At each flush some
        are tried again, behind all others."""

    def put(self, group: str, about: str, command: Command) -> None:
        self._unanswered.pop((group, about), None)
        known = self._group(group)
        commands = known.commands
        commands[about] = command
        if len(commands) > MOST:
            del commands[next(iter(commands))]
            known.dropped += 1

    def get(self, group: str, about: str) -> Command | None:
        """The command that waits, if one does."""
        found = self._groups.get(group)
        command = None if found is None else found.commands.get(about)
        return command if command is not None else self._unanswered.get((group, about))

    def drop(self, group: str, about: str) -> None:
        """Don't send it."""
        self._unanswered.pop((group, about), None)
        found = self._groups.get(group)
        if found is not None:
            found.commands.pop(about, None)

    @property
    def waiting(self) -> int:
        return len(self._unanswered) + sum([len(group.commands) for group in self._groups.values()])

    @property
    def refusal(self) -> Reply | None:
        """Why Redis takes no writes, if that isn't the fault of one key."""
        for group in self._groups.values():
            if group.refusal is not None and not isinstance(group.refusal, Fault):
                return group.refusal
        return None

    @property
    def faults(self) -> list[str]:
        """The keys that can't be written, and why."""
        return [
            group.refusal.summary.replace("redis: ", f"redis: {name}: ", 1)
            for name, group in self._groups.items()
            if isinstance(group.refusal, Fault)
        ]

    def hurry(self) -> None:
        """Try what Redis as a whole has refused at the next flush: it takes writes again."""
        for group in self._groups.values():
            if group.refusal is not None and not isinstance(group.refusal, Fault):
                group.again_at = min(group.again_at, self._clock())

    def flush(self) -> None:
        """Send all that is due. :raises StoreUnavailable: no answer; all that was not taken waits."""
        for key in list(islice(self._unanswered, BATCH)):
            name, about = key
            self._group(name).commands[about] = self._unanswered.pop(key)
        silent: list[StoreUnavailable] = []
        while self._groups and (batch := self._due()):
            commands = [command for _group, _about, command in batch]
            try:
                answers = self._client.send_all(commands, raise_on_error=False)
            except NotReady as error:
                answers = [error] * len(batch)
            for (name, about, command), answer in zip(batch, answers, strict=True):
                if isinstance(answer, Reply):
                    self._refused(name, answer)
                    continue
                group = self._groups[name]
                # A newer one may have come while this one was on its way.
                is_newest = group.commands.get(about) is command
                if is_newest:
                    del group.commands[about]
                if isinstance(answer, StoreUnavailable):
                    silent.append(answer)
                    if is_newest and len(self._unanswered) < MOST:
                        self._unanswered[name, about] = command
                elif group.refusal is not None:
                    self._taken(name, group)
            for name in {name for name, _about, _command in batch}:
                if not self._groups[name].commands and self._groups[name].refusal is None:
                    del self._groups[name]
        raise_first(silent)

    def _group(self, name: str) -> Group:
        known = self._groups.get(name)
        if known is None:
            known = self._groups[name] = Group()
        return known

    def _due(self) -> list[tuple[str, str, Command]]:
        now = self._clock()
        found: list[tuple[str, str, Command]] = []
        for name, group in self._groups.items():
            most = BATCH if group.refusal is None else 1 if now >= group.again_at else 0
            found += [(name, about, command) for about, command in islice(group.commands.items(), most)]
        return found[:BATCH]

    def _taken(self, name: str, group: Group) -> None:
        """Redis has taken a command of a group that it had refused."""
        if self._clock() >= group.again_at:
            refused, dropped = group.refusal, group.dropped
            group.refusal, group.pause, group.dropped = None, AGAIN_FIRST, 0
            # One line says that Redis as a whole refuses, and one that it takes all again.
            if dropped or isinstance(refused, Fault) or self.refusal is None:
                log.info("redis_write_accepted", extra={"key": name, "dropped": dropped})

    def _refused(self, name: str, error: Reply) -> None:
        group = self._groups[name]
        now = self._clock()
        if group.refusal is None:
            if isinstance(error, Fault) or self.refusal is None:
                log.warning("redis_write_refused", extra={"key": name, "reason": str(error)})
        elif now < group.again_at:
            return  # Another command of the same batch.
        else:
            group.pause = min(group.pause * 2, AGAIN_LAST) if isinstance(error, Fault) else AGAIN_FIRST
        group.refusal, group.again_at = error, now + group.pause
