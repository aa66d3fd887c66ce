"""Writes that may wait: each command is sent until Redis has taken it, and what Redis refuses holds up nothing else.

Commands are in groups: those of one key, whose name is the group's, or of many keys that are alike. If Redis refuses a
command of one key, the group waits, and after a while its first command is tried again. One of many keys waits alone:
in a cluster, others may be on a master that takes them. A group keeps a bounded number.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container
from itertools import islice

from msgspec import Struct, field

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.connection import Command
from esl_apps.store.errors import Fault, NoAnswer, NotReady, Reply, raise_first
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
    many: bool
    """Its commands have different keys, which may be on different masters of a cluster."""
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
        """Commands for a part of a cluster that didn't answer, or refused one of many keys, by group and what they are
        about. At each flush some are tried again, behind all others; refused ones once their pause is over."""
        self._is_partial = False
        """A part of a cluster was silent while another answered."""

    def put(self, group: str, about: str, command: Command) -> None:
        self._unanswered.pop((group, about), None)
        known = self._group(group, command)
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
        began = self._clock()
        for key in list(islice(self._unanswered, BATCH)):
            name, about = key
            group = self._group(name, self._unanswered[key])
            if group.refusal is None or began >= group.again_at:
                group.commands[about] = self._unanswered.pop(key)
        silent: dict[str, StoreUnavailable] = {}
        has_answered = False
        while self._groups and (batch := self._due(silent)):
            commands = [command for _group, _about, command in batch]
            try:
                answers = self._client.send_all(commands, raise_on_error=False)
            except NotReady as error:
                answers = [error] * len(batch)
            has_answered = has_answered or not all(isinstance(answer, NoAnswer) for answer in answers)
            for (name, about, command), answer in zip(batch, answers, strict=True):
                group = self._groups[name]
                # A newer one may have come while this one was on its way.
                is_newest = group.commands.get(about) is command
                if isinstance(answer, Reply):
                    self._refused(name, answer)
                    if not group.many:
                        continue
                elif isinstance(answer, StoreUnavailable):
                    silent.setdefault(name, answer)
                elif group.refusal is not None and not group.many:
                    self._taken(name, group)
                if is_newest:
                    del group.commands[about]
                    if isinstance(answer, StoreUnavailable):
                        self._set_aside(name, about, command)
        self._clear(began)
        self._say_partial(list(silent.values()), has_answered)
        raise_first(list(silent.values()))

    def _set_aside(self, name: str, about: str, command: Command) -> None:
        self._unanswered[name, about] = command
        if len(self._unanswered) > MOST:
            (oldest, about), command = next(iter(self._unanswered.items()))
            del self._unanswered[oldest, about]
            self._group(oldest, command).dropped += 1

    def _clear(self, began: float) -> None:
        """Forget groups with nothing to send, and refusals of those that have nothing left of what was refused."""
        for name, group in list(self._groups.items()):
            is_due = group.refusal is not None and began >= group.again_at and (group.many or not group.commands)
            if is_due and all(waiting != name for waiting, _about in self._unanswered):
                self._taken(name, group)
            if not group.commands and group.refusal is None:
                del self._groups[name]

    def _say_partial(self, silent: list[StoreUnavailable], has_answered: bool) -> None:
        """Log once that a part of a cluster is silent, and once that all parts answer: PING asks only one of them."""
        if silent and has_answered and not self._is_partial:
            self._is_partial = True
            log.warning("redis_part_lost", extra={"reason": str(silent[0])})
        elif self._is_partial and has_answered and not silent and not self._unanswered:
            self._is_partial = False
            log.info("redis_part_back")

    def _group(self, name: str, command: Command) -> Group:
        known = self._groups.get(name)
        if known is None:
            known = self._groups[name] = Group(command[1] != name)
        return known

    def _due(self, silent: Container[str]) -> list[tuple[str, str, Command]]:
        """The next batch. ``silent``: groups that gave no answer in this flush."""
        now = self._clock()
        found: list[tuple[str, str, Command]] = []
        for name, group in self._groups.items():
            if group.many or (group.refusal is None and name not in silent):
                most = BATCH
            else:
                most = int(now >= group.again_at and name not in silent)
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
