"""Turn whatever fails between here and Redis into :class:`StoreUnavailable`, of one of these kinds.

=====================  =========================================  ======================================================
Kind                   What happened                              What to do
=====================  =========================================  ======================================================
:class:`NoAnswer`      no connection, or no answer in time        try again; whether the command was run is not known
:class:`Unsent`        no connection                              try again; the command was not run
:class:`RedisRefused`  Redis refuses what it is asked             try again later: a person has to mend it, or it passes
:class:`NotReady`      the same, for a connection's commands      close the connection and try again later
:class:`NoScript`      Redis doesn't know a script                send the script
:class:`Fault`         this command can't succeed on this key     try others; again only after a person has mended it
:class:`Unreadable`    a stored document is not what was written  allow nothing
=====================  =========================================  ======================================================

Redis 6.2 puts an error inside a script behind ``ERR Error running script``, and Valkey words a missing right in its own
way. Both are read here, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from esl_apps.core.unavailable import StoreUnavailable

#: Codes of a server that serves nothing on this connection. A later connection may find it ready, or another server.
_NOT_READY: Mapping[str, str] = {
    "LOADING": "it is reading its data from disk",
    "MASTERDOWN": "a replica without its master",
    "NOAUTH": "it wants a password",
    "WRONGPASS": "wrong user or password",
    "DENIED": "it is in protected mode",
    "MAXCLIENTS": "it has as many clients as it takes",
    # Behind a name that moves to the new master, a new connection finds it.
    "READONLY": "a read-only replica",
}
#: Codes of a server that refuses more than the one key.
_REFUSED: Mapping[str, str] = {
    "OOM": "its memory is full",
    "MISCONF": "it can't save to its disk",
    "NOREPLICAS": "it has too few replicas to take writes",
    "NOPERM": "its user lacks a right",
    "CLUSTERDOWN": "the cluster is down",
    "TRYAGAIN": "the cluster is moving the key",
    "ASK": "the cluster is moving the key",
    "MOVED": "part of a cluster; write redis+cluster:// in the URL",
    "BUSY": "it is busy with a script",
}
_FAULTS: Mapping[str, str] = {"WRONGTYPE": "a key is of another type", "CROSSSLOT": "keys on several nodes"}

#: The code of an error reply, and the rest.
REPLY = re.compile(r"-?([A-Z]{3,}) (.*)", re.DOTALL)
#: The text before an error that a script raised (Redis 6.2).
_IN_SCRIPT = re.compile(r"(?:ERR )?Error running script \(call to \S+\): (?:@user_script: ?\d+: ?)+")
#: The text behind it (Redis 7 and Valkey).
_ON_LINE = re.compile(r" script: (?:[0-9a-f]{40}, )?on @user_script:\d+\.$")
_NO_RIGHT = re.compile(r"The user executing the script can't|ACL failure in script|[Nn]o permissions to (run|access) ")
#: Characters of an error reply that are read.
_LONGEST = 1000
TOO_MANY = "max number of clients reached"
#: A reply repeats the arguments of a command that it doesn't know: of AUTH, the password.
_ARGUMENTS = re.compile(r",? with args beginning with:.*", re.DOTALL)


class NoAnswer(StoreUnavailable):
    """No connection, or no answer in time."""

    @property
    def summary(self) -> str:
        return "redis: no answer"


class Unsent(NoAnswer):
    """No connection: nothing was asked."""


class Reply(StoreUnavailable):
    """An error reply: Redis answers."""

    def __init__(self, code: str, text: str) -> None:
        """``code``: its first word. ``text``: the reply, without arguments."""
        super().__init__(f"redis: {text}")
        self.code = code

    @property
    def summary(self) -> str:
        words = _NOT_READY.get(self.code) or _REFUSED.get(self.code) or _FAULTS.get(self.code)
        return f"redis: {self.code}, {words}" if words else "redis: a command was refused"


class RedisRefused(Reply):
    """Redis takes no writes now, or not from this user."""


class NotReady(RedisRefused):
    """The server takes no commands on this connection."""


class Fault(Reply):
    """The command can't succeed on this key, or at all; others may."""


class NoScript(Reply):
    """Redis doesn't know the script: it was restarted, or has never seen it."""


class Unreadable(StoreUnavailable):
    """A stored document is not what was written there: it allows nothing."""

    @property
    def summary(self) -> str:
        return "redis: a stored document can't be read"


def refusal(text: str) -> StoreUnavailable:
    """The exception for an error reply, as ``WRONGTYPE Operation against …``. A long one is cut: logs show it."""
    text = without_arguments(_ON_LINE.sub("", _IN_SCRIPT.sub("", text[:_LONGEST])))
    reply = REPLY.match(text)
    code = reply[1] if reply else "ERR"
    if _NO_RIGHT.search(text):
        code = "NOPERM"
    elif TOO_MANY in text:
        code = "MAXCLIENTS"
    plain = text if reply and code == reply[1] else f"{code} {text.removeprefix('ERR ')}"
    return _kind(code)(code, plain.removeprefix("-"))


def without_arguments(text: str) -> str:
    return _ARGUMENTS.sub("", text)


def _kind(code: str) -> type[Reply]:
    if code == "NOSCRIPT":
        return NoScript
    if code in _NOT_READY:
        return NotReady
    return RedisRefused if code in _REFUSED else Fault


def raise_first(answers: Sequence[Any]) -> None:
    """Raise the first error among answers."""
    for answer in answers:
        if isinstance(answer, StoreUnavailable):
            raise answer


def read_count(raw: bytes | None) -> int:
    """Decode a stored count; 0 if there is none. :raises Unreadable: it is not a whole number."""
    if raw and not raw.isdigit():
        raise Unreadable("redis: a stored count can't be read")
    return int(raw or 0)


def read_text(raw: bytes) -> str:
    """Decode a stored text. :raises Unreadable: it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"redis: a stored text can't be read: {error}") from None
