"""Whether a Redis is fit to be used: its version, what it evicts, and the rights of its user."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store.commands import OPTIONAL, PATTERNS, SERVER_TRIALS, TRIAL_LIST, trials
from esl_apps.store.connection import Command
from esl_apps.store.errors import Fault, RedisRefused, Reply
from esl_apps.store.redis_client import Client

#: The oldest Redis that is supported. Every Valkey is newer.
OLDEST = (6, 2)

#: A missing right to a key, and not to the command, in the words of each server.
_OF_A_KEY = re.compile(r"access (?:one of the|a|at least one of the) keys?\b")

NO_EVICTION = "noeviction"
#: The losses of a full Redis that evicts, by the first part of its policy: everything, or keys that expire.
_LOST_WITH_CALLS = {
    "allkeys": "any key may vanish: cards and accounts, so callers are refused; counts of limits, PIN locks and "
    "tripped breakers, which start at zero again; live calls, which no node takes over; records that no client "
    "has taken",
    "volatile": "keys that expire may vanish: counts of limits and PIN locks, which start again at zero; idempotency "
    "keys, so a repeated request dials again; marks of pushed records, so a record may come twice",
}
_LOST_WITH_RECORDS = {
    "allkeys": "records that no client has taken may vanish, and records may come twice",
    "volatile": "marks of pushed records may vanish, so a record may come twice",
}


class Finding(NamedTuple):
    """Something that an operator should mend."""

    fatal: bool
    """False: it may be right, but can't be seen."""
    message: str


def examine(client: Client, *, records_only: bool = False) -> Iterator[Finding]:
    """Find what makes a Redis unfit. ``records_only``: it is an integrator's own, with nothing but records.

    :raises StoreUnavailable: no answer.
    """
    for master in client.masters():
        yield from _age(master)
        yield from _eviction(master, records_only=records_only)
    missing, other = _rights(client, trials(records_only=records_only))
    if missing:
        yield Finding(True, f"its user lacks rights: {' '.join(missing)}")
    yield from (Finding(True, message) for message in other)


def name_of(master: Any) -> str:
    """``redis 7.0.15``, or ``valkey 9.1.2``; '' if it doesn't say.

    :raises StoreUnavailable: no answer.
    """
    # Any user may send HELLO, which INFO is not true of. Without an argument it needs Redis 6.2.
    for ask in (lambda: _pairs(master.execute_command("HELLO")), lambda: _of_info(master.info("server"))):
        found = _asked(ask)
        if isinstance(found, dict) and found.get("version"):
            return f"{found.get('server') or 'redis'} {found['version']}"
    return ""


def _asked(ask: Callable[[], Any]) -> Any:
    """The answer, or the error reply. :raises StoreUnavailable: no answer."""
    try:
        return ask()
    except Reply as error:
        return error


def _pairs(answer: Any) -> dict[str, str]:
    """The texts of HELLO's answer, which is a list in Redis's older protocol."""
    items = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=False)
    return {_text(name): _text(value) for name, value in items}


def _of_info(info: dict[str, Any]) -> dict[str, str]:
    return {"server": "redis", "version": str(info.get("redis_version", ""))}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _age(master: Any) -> Iterator[Finding]:
    name = name_of(master)
    version = re.match(r"redis (\d+)\.(\d+)", name)
    wanted = ".".join(str(part) for part in OLDEST)
    if not name:
        yield Finding(False, f"it doesn't say its version; Redis {wanted} or later is needed, or Valkey")
    elif version is not None and (int(version[1]), int(version[2])) < OLDEST:
        yield Finding(True, f"{name} is too old: Redis {wanted} or later is needed, or Valkey")


def _eviction(master: Any, *, records_only: bool) -> Iterator[Finding]:
    memory = _asked(lambda: master.info("memory"))
    if isinstance(memory, StoreUnavailable) or "maxmemory_policy" not in memory:
        yield Finding(
            False,
            f"its user may not ask INFO ({OPTIONAL}), so check by hand that its maxmemory-policy is {NO_EVICTION}. "
            "Records are kept in memory until a client takes them",
        )
        return
    policy = str(memory["maxmemory_policy"])
    if policy != NO_EVICTION:
        lost = _LOST_WITH_RECORDS if records_only else _LOST_WITH_CALLS
        what = lost.get(policy.partition("-")[0], lost["allkeys"])
        yield Finding(True, f"maxmemory-policy is {policy}, set {NO_EVICTION}: when its memory is full, {what}")


def _pattern_of(command: Command) -> str:
    """The pattern of the key that a command names."""
    texts = [str(word) for word in command]
    return next(f"~{pattern}" for pattern in PATTERNS if any(text.startswith(pattern[:-1]) for text in texts))


def _rights(client: Client, commands: list[Command]) -> tuple[list[str], list[str]]:
    """The missing rights, as in an ACL, and what else went wrong. :raises StoreUnavailable: no answer."""
    answers: list[Any] = list(zip(commands, client.send_all(commands, raise_on_error=False), strict=True))
    for master in client.masters():
        answers += [(command, _asked(partial(master.execute_command, *command))) for command in SERVER_TRIALS]
    missing: dict[str, None] = {}
    other: dict[str, None] = {}
    for command, answer in answers:
        name = f"+{command[0].lower()}"
        if not isinstance(answer, RedisRefused | Fault):
            continue
        if answer.code == "WRONGTYPE" and command[1] == TRIAL_LIST:
            continue
        if answer.code == "NOPERM":
            missing[_pattern_of(command) if _OF_A_KEY.search(str(answer)) else name] = None
        elif isinstance(answer, RedisRefused):
            other[answer.summary.removeprefix("redis: ")] = None
        else:
            other[f"{command[0]} fails: {str(answer).removeprefix('redis: ')}"] = None
    missing.pop(OPTIONAL, None)
    return list(missing), list(other)
