"""One classification of what Redis refuses, on each server, by each client, alone and in a script."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import errors, redis_client
from esl_apps.store.errors import Fault, NoAnswer, NoScript, NotReady, RedisRefused, refusal
from esl_apps.store.fast_client import fast_client
from esl_apps.store.redis_py import translated
from tests.support import redis_servers
from tests.support.node import RedisServer

PUSH = "return redis.call('LPUSH', KEYS[1], 'x')"
#: Commands that fail, each by itself and in a script.
WRITES = [("LPUSH", "a", "x"), ("EVAL", PUSH, 1, "a")]


@pytest.fixture(scope="module", params=["", *redis_servers.ENDS])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    made = RedisServer(program=redis_servers.program(request.param) if request.param else "")
    yield made
    made.close()


def _full(control: Any) -> Callable[[], None]:
    control.config_set("maxmemory", "1")
    return lambda: control.config_set("maxmemory", "0")


def _wrong_type(control: Any) -> Callable[[], None]:
    control.set("a", "text")
    return lambda: control.delete("a")


def _read_only(control: Any) -> Callable[[], None]:
    control.replicaof("127.0.0.1", "1")
    return lambda: control.replicaof("NO", "ONE")


def _no_replicas(control: Any) -> Callable[[], None]:
    control.config_set("min-replicas-to-write", "1")
    return lambda: control.config_set("min-replicas-to-write", "0")


def _no_right(control: Any) -> Callable[[], None]:
    control.execute_command("ACL", "SETUSER", "default", "-lpush")
    return lambda: control.execute_command("ACL", "SETUSER", "default", "+lpush")


def _no_key(control: Any) -> Callable[[], None]:
    control.execute_command("ACL", "SETUSER", "default", "resetkeys", "~b*")
    return lambda: control.execute_command("ACL", "SETUSER", "default", "resetkeys", "~*")


CAUSES = [
    (_full, RedisRefused, "OOM"),
    (_wrong_type, Fault, "WRONGTYPE"),
    (_read_only, NotReady, "READONLY"),
    (_no_replicas, RedisRefused, "NOREPLICAS"),
    (_no_right, RedisRefused, "NOPERM"),
    (_no_key, RedisRefused, "NOPERM"),
]


@pytest.mark.parametrize("client", [fast_client, redis_client.connect])
@pytest.mark.parametrize(("cause", "kind", "code"), CAUSES)
def test_refusal_has_its_kind_and_code(
    server: RedisServer, client: Callable[[str], Any], cause: Callable[[Any], Callable[[], None]], kind: type, code: str
) -> None:
    server.client.delete("a")
    asking = client(server.url)
    # Several answers of one pipeline may fail; NotReady fails the whole.
    undo = cause(server.client)
    try:
        for write in WRITES:
            with pytest.raises(StoreUnavailable) as caught:
                asking.execute_command(*write)
            error = caught.value
            assert type(error) is kind
            assert isinstance(error, errors.Reply)
            assert error.code == code
            assert str(error).startswith(f"redis: {code} ")
            assert error.summary.startswith(f"redis: {code}, ")
            assert "user_script" not in str(error)
    finally:
        undo()
    assert asking.execute_command(*WRITES[0]) == 1


def test_unknown_command_never_shows_its_arguments(server: RedisServer) -> None:
    """A proxy that doesn't know AUTH answers with the password."""
    for client in (fast_client(server.url), redis_client.connect(server.url)):
        with pytest.raises(Fault) as caught:
            client.execute_command("AUTHX", "user", "pa55word")
        assert "unknown command" in str(caught.value)
        assert "pa55word" not in str(caught.value)
        assert caught.value.summary == "redis: a command was refused"


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("LOADING Redis is loading the dataset in memory", NotReady, "LOADING"),
        ("MASTERDOWN Link with MASTER is down", NotReady, "MASTERDOWN"),
        ("NOAUTH Authentication required.", NotReady, "NOAUTH"),
        ("WRONGPASS invalid username-password pair", NotReady, "WRONGPASS"),
        ("DENIED Redis is running in protected mode", NotReady, "DENIED"),
        ("ERR max number of clients reached", NotReady, "MAXCLIENTS"),
        ("MISCONF Errors writing to the AOF file: No space left on device", RedisRefused, "MISCONF"),
        ("CLUSTERDOWN Hash slot not served", RedisRefused, "CLUSTERDOWN"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", RedisRefused, "TRYAGAIN"),
        ("MOVED 3999 127.0.0.1:6381", RedisRefused, "MOVED"),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL", RedisRefused, "BUSY"),
        ("NOSCRIPT No matching script. Please use EVAL.", NoScript, "NOSCRIPT"),
        ("CROSSSLOT Keys in request don't hash to the same slot", Fault, "CROSSSLOT"),
        ("ERR syntax error", Fault, "ERR"),
        ("what a proxy says", Fault, "ERR"),
        ("", Fault, "ERR"),
    ],
)
def test_reply_has_its_kind_by_either_client(text: str, kind: type, code: str) -> None:
    parse: Any = redis._parsers.base.BaseParser.parse_error
    parsed = parse(text)
    for error in (refusal(text), translated(parsed)):
        assert type(error) is kind
        assert isinstance(error, errors.Reply)
        assert error.code == code
        assert error.summary != "redis: no answer"


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("Error 111 connecting to 127.0.0.1:1"),
        redis.TimeoutError("Timeout reading from socket"),
        redis.exceptions.RedisClusterException("Redis Cluster cannot be connected"),
        redis.exceptions.MaxConnectionsError("too many"),
        OSError("unreachable"),
    ],
)
def test_lost_connection_is_no_answer(error: Exception) -> None:
    assert type(translated(error)) is NoAnswer
    assert translated(error).summary == "redis: no answer"


def test_server_busy_with_a_script_is_refused(server: RedisServer) -> None:
    server.client.config_set("lua-time-limit", "1")
    control: Any = redis.Redis(port=server.port)
    asking: Any = redis_client.connect(server.url, 5.0)
    # Its answer never comes.
    control.connection_pool.get_connection().send_command("EVAL", "while true do end", 0)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                asking.ping()
            except StoreUnavailable as caught:
                error = caught
                break
            assert time.monotonic() < deadline
    finally:
        control.script_kill()
    assert isinstance(error, RedisRefused)
    assert error.code == "BUSY"


def test_refusal_of_any_length_is_cut() -> None:
    """An integrator's own Redis writes it, and logs show it."""
    found = refusal("WRONGTYPE " + "x" * 1_000_000)
    assert isinstance(found, Fault)
    assert len(str(found)) < 1100
