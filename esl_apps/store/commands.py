"""Every command that the package sends to Redis, its scripts included. None is newer than Redis 6.2.

``check`` tries each, and :func:`acl_rule` makes the least rights of them. ``tests/unit/store/test_commands.py`` looks
for commands that aren't here.
"""

from __future__ import annotations

from collections.abc import Sequence

from esl_apps.core import notification
from esl_apps.store import keys
from esl_apps.store.connection import Command

_OWN, _LISTS = keys.NODES.partition(":")[0], notification.CDR_LIST.rpartition(":")[0]
#: The patterns of all keys: our own, and the lists that clients read.
PATTERNS = (f"{_OWN}:*", f"{_LISTS}:*")
#: A text among the lists that clients read. Nothing can be pushed to a text; it expires.
TRIAL_LIST = f"{_LISTS}:{_OWN}-check"

_STRING, _COUNTER, _HASH, _ZSET = (keys.trial(kind) for kind in ("string", "counter", "hash", "zset"))
_SET, _LIST, _STREAM = (keys.trial(kind) for kind in ("set", "list", "stream"))
_ALL = (_STRING, _COUNTER, _HASH, _ZSET, _SET, _LIST, _STREAM)

#: Each command, as it does no harm: on keys of its own, which are gone afterwards.
TRIALS: Sequence[Command] = (
    *(("DEL", key) for key in _ALL),
    ("SET", _STRING, "1", "EX", 60),
    ("GET", _STRING),
    ("TYPE", _STRING),
    ("EXISTS", _STRING),
    ("EXPIRE", _STRING, 60),
    ("PEXPIRE", _STRING, 60_000),
    ("PTTL", _STRING),
    ("INCR", _COUNTER),
    ("HSET", _HASH, "a", "1"),
    ("HSETNX", _HASH, "b", "1"),
    ("HGET", _HASH, "a"),
    ("HMGET", _HASH, "a", "b"),
    ("HGETALL", _HASH),
    ("HKEYS", _HASH),
    ("HVALS", _HASH),
    ("HLEN", _HASH),
    ("HEXISTS", _HASH, "a"),
    ("HINCRBY", _HASH, "a", 1),
    ("HINCRBYFLOAT", _HASH, "a", "1.5"),
    ("HDEL", _HASH, "a"),
    ("ZADD", _ZSET, 0, "a"),
    ("ZCARD", _ZSET),
    ("ZSCORE", _ZSET, "a"),
    ("ZRANGE", _ZSET, 0, 0),
    ("ZRANGEBYLEX", _ZSET, "-", "+"),
    ("ZREVRANGEBYLEX", _ZSET, "+", "-"),
    ("ZRANGEBYSCORE", _ZSET, "-inf", "+inf"),
    ("ZREMRANGEBYSCORE", _ZSET, "-inf", "-1"),
    ("ZREMRANGEBYRANK", _ZSET, "0", "-100"),
    ("ZREMRANGEBYLEX", _ZSET, "-", "(a"),
    ("ZREM", _ZSET, "a"),
    ("SADD", _SET, "a"),
    ("SCARD", _SET),
    ("SMEMBERS", _SET),
    ("SREM", _SET, "a"),
    ("LPUSH", _LIST, "a"),
    ("LRANGE", _LIST, 0, 0),
    ("LTRIM", _LIST, 0, 9),
    ("XADD", _STREAM, "*", "a", "1"),
    ("XRANGE", _STREAM, "-", "+", "COUNT", 1),
    ("XREVRANGE", _STREAM, "+", "-", "COUNT", 1),
    ("XTRIM", _STREAM, "MAXLEN", "~", 9),
    # Among the lists that clients read: WRONGTYPE says that they may be pushed to, and pushes nothing.
    ("SET", TRIAL_LIST, "1", "EX", 60),
    ("LPUSH", TRIAL_LIST, "a"),
    ("RPUSH", TRIAL_LIST, "a"),
    ("LLEN", TRIAL_LIST),
    ("XADD", TRIAL_LIST, "*", "a", "1"),
    ("XLEN", TRIAL_LIST),
    ("EVALSHA", "0" * 40, 1, _STRING),
    ("EVAL", "return 1", 1, _STRING),
    *(("DEL", key) for key in _ALL),
)
#: Commands about a server.
SERVER_TRIALS: Sequence[Command] = (("TIME",), ("INFO", "persistence"))
#: Commands that connections are made with. Redis refuses HELLO and AUTH to no user.
CONNECTION = ("ping", "select")
#: A right without which everything works, but less is known.
OPTIONAL = "+info"


#: The commands that push records, all that an integrator's own Redis is used for.
_RECORDS = {"GET", "SET", "INCR", "TYPE", "LPUSH", "RPUSH", "LLEN", "XADD", "XLEN", "EVAL", "EVALSHA"}


def trials(*, records_only: bool) -> list[Command]:
    return [command for command in TRIALS if not records_only or command[0] in _RECORDS]


def acl_rule(*, records_only: bool = False) -> str:
    """The least rights that a user of Redis needs."""
    commands = (*trials(records_only=records_only), *SERVER_TRIALS)
    names = sorted({*(str(command[0]).lower() for command in commands), *CONNECTION})
    return " ".join([*(f"~{pattern}" for pattern in PATTERNS), "-@all", *(f"+{name}" for name in names)])
