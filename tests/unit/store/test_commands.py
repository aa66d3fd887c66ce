"""The commands that the package sends: all are in one table, and none is newer than Redis 6.2."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from esl_apps.config import redis_url
from esl_apps.store.commands import CONNECTION, SERVER_TRIALS, TRIALS, acl_rule
from esl_apps.store.connection import Connection, pack
from esl_apps.store.fast_client import FastClient
from tests.support import ROOT, redis_servers
from tests.support.node import RedisServer

PACKAGE = ROOT / "esl_apps"
TABLE = {str(command[0]) for command in (*TRIALS, *SERVER_TRIALS)} | {name.upper() for name in CONNECTION}

#: The version of Redis that each came with, of https://redis.io/docs/latest/commands/.
SINCE = {
    "1.0.0": "DEL EXISTS EXPIRE GET INCR INFO LLEN LPUSH LRANGE LTRIM PING RPUSH SADD SCARD SELECT SET "
    "SMEMBERS SREM TYPE",
    "1.2.0": "ZADD ZCARD ZRANGE ZREM ZREMRANGEBYSCORE ZSCORE",
    "1.0.5": "ZRANGEBYSCORE",
    "2.0.0": "ZREMRANGEBYRANK HDEL HEXISTS HGET HGETALL HINCRBY HKEYS HLEN HMGET HSET HSETNX HVALS",
    "2.6.0": "EVAL EVALSHA HINCRBYFLOAT PEXPIRE PTTL TIME",
    "5.0.0": "XADD XLEN XRANGE XREVRANGE XTRIM",
    "2.8.9": "ZRANGEBYLEX ZREMRANGEBYLEX ZREVRANGEBYLEX",
}

#: redis-py's methods that are called otherwise than their commands.
METHODS = {"delete": "DEL", "masters": "", "execute_command": "", "send_all": "", "closes_within": "", "close": ""}

#: Options that came after 6.2, each with the command before it on its line.
NEWER_OPTIONS = re.compile(
    r"""P?EXPIRE(?:AT)?['"].*['"](?:NX|XX|GT|LT)['"]"""
    r"""|['"]SET['"].*['"]NX['"].*['"]GET['"]|['"]SET['"].*['"]GET['"].*['"]NX['"]"""
    r"""|\.set\(.*nx=True.*get=True|\.set\(.*get=True.*nx=True|\.p?expire(?:at)?\(.*(?:nx|xx|gt|lt)=True"""
)


def in_scripts() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.lua")):
        text = path.read_text()
        calls = re.findall(r"redis\.p?call\(([^,)]*)", text)
        assert len(calls) == len(re.findall(r"redis\.p?call", text))
        for argument in calls:
            names = re.findall(r"'([A-Z]+)'", argument)
            assert names, (path.name, argument)
            yield from ((path.name, name) for name in names)


#: Methods of clients of the API, which are called ``client``, too.
OTHER_CLIENTS = {"read_target"}


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Everything in the modules that ask Redis, with the module's file."""
    for folder in ("store", "node", "cli", "operations", "http/console"):
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            # The demo pops what a client would; the table itself sends nothing.
            if "demo" in path.parts or path.name == "commands.py":
                continue
            yield from ((path.name, node) for node in ast.walk(ast.parse(path.read_text())))


def methods() -> Iterator[tuple[str, str]]:
    """Methods of what is called ``client``, ``redis`` or ``master``."""
    for file, node in nodes():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value).rpartition(".")[2]
            is_redis = (
                owner in ("client", "_client", "master", "redis", "_redis") and node.func.attr not in OTHER_CLIENTS
            )
            if is_redis and node.func.attr[0].islower():
                yield file, node.func.attr


def in_python() -> Iterator[tuple[str, str]]:
    """The commands of such methods, and tuples that begin like a command."""
    yield from ((file, METHODS.get(name, name.upper())) for file, name in methods())
    for file, node in nodes():
        first = node.elts[0] if isinstance(node, ast.Tuple) and node.elts else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and re.fullmatch("[A-Z]{3,}", first.value):
            yield file, first.value


def test_commands_that_are_sent_are_in_the_table() -> None:
    sent = [(file, name) for file, name in (*in_scripts(), *in_python()) if name]
    assert {name for _file, name in sent} > {"HVALS", "LPUSH", "ZREVRANGEBYLEX", "TIME"}
    not_commands = {"AUTH", "HELLO"}
    assert [one for one in sent if one[1] not in TABLE | not_commands] == []


def test_methods_that_are_called_are_the_fast_clients() -> None:
    """redis-py has them all, so one that is missing would only show on a node."""
    assert [one for one in methods() if not hasattr(FastClient, one[1])] == []


def test_commands_are_no_newer_than_redis_62() -> None:
    known = {name: tuple(map(int, version.split("."))) for version, names in SINCE.items() for name in names.split()}
    assert TABLE - set(known) == set()
    assert max(known[name] for name in TABLE) < (6, 3)


@pytest.mark.parametrize("suffix", ["lua", "py"])
def test_options_are_no_newer_than_redis_62(suffix: str) -> None:
    for newer in ("redis.call('EXPIRE', k, 1, 'NX')", "client.set(a, b, nx=True, get=True)", "('SET', k, 'NX', 'GET')"):
        assert NEWER_OPTIONS.search(newer)
    found = [
        (path.name, line)
        for path in sorted((PACKAGE / "store").rglob(f"*.{suffix}"))
        for line in path.read_text().splitlines()
        if NEWER_OPTIONS.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("end", redis_servers.ENDS)
def test_commands_are_known_to_each_server(end: str) -> None:
    server = RedisServer(program=redis_servers.program(end))
    try:
        # redis-py reads these answers differently from version to version.
        line = Connection(redis_url.server(server.url), 2.0)
        (found,) = line.ask(pack(("COMMAND", "INFO", *sorted(TABLE))), 1)
        assert {one[0].decode().upper() for one in found if one} == TABLE
    finally:
        server.close()


def test_rights_of_the_manual_are_those_of_the_table() -> None:
    page = " ".join((ROOT / "docs/howto/give-redis-a-user.rst").read_text().split())
    assert acl_rule() in page
    assert acl_rule(records_only=True) in page
