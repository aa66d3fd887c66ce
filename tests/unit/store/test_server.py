"""Find what makes a Redis unfit, on each server that is supported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from esl_apps.store import redis_client, server
from esl_apps.store.commands import PATTERNS, TRIAL_LIST, TRIALS, acl_rule
from esl_apps.store.errors import refusal
from esl_apps.store.server import Finding, examine
from tests.support.cluster import ClusterServer
from tests.support.node import RedisServer
from tests.unit.store.conftest import everything

USER = "node"


@pytest.fixture
def user(server: RedisServer) -> Callable[..., Any]:
    """Make a client whose user has these rights."""

    def make(*rights: str) -> Any:
        more = ["+cluster|slots", "+command"] if isinstance(server, ClusterServer) else []
        server.client.execute_command("ACL", "SETUSER", USER, "reset", "on", ">pw", *rights, *more)
        return redis_client.connect(server.url.replace("://", f"://{USER}:pw@"))

    return make


def messages(findings: Any) -> list[str]:
    return [message for fatal, message in findings if fatal]


def test_fit_redis_has_no_findings_and_no_traces(client: Any, server: RedisServer) -> None:
    assert list(examine(client)) == []
    server.client.delete(TRIAL_LIST)
    assert everything(server) == "[]"


def test_least_rights_of_the_manual_are_enough(user: Callable[..., Any]) -> None:
    assert list(examine(user(*acl_rule().split()))) == []
    assert list(examine(user(*acl_rule(records_only=True).split()), records_only=True)) == []


def test_each_missing_right_is_named(user: Callable[..., Any]) -> None:
    for name in {str(command[0]).lower() for command in TRIALS} | {"time"}:
        findings = messages(examine(user(*acl_rule().split(), f"-{name}")))
        assert findings[0].startswith("its user lacks rights: ")
        assert f"+{name}" in findings[0].split()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_missing_pattern_of_keys_is_named(user: Callable[..., Any], pattern: str) -> None:
    rights = [right for right in acl_rule().split() if right != f"~{pattern}"]
    assert messages(examine(user(*rights))) == [f"its user lacks rights: ~{pattern}"]


def test_user_without_info_is_told_what_to_check(user: Callable[..., Any]) -> None:
    (finding,) = examine(user(*acl_rule().split(), "-info"))
    assert not finding.fatal
    assert "+info" in finding.message
    assert "noeviction" in finding.message


@pytest.mark.parametrize(
    ("policy", "records_only", "losses"),
    [
        ("allkeys-lru", False, ["cards", "limits", "breakers", "live calls", "records"]),
        ("allkeys-random", True, ["records"]),
        ("volatile-ttl", False, ["limits", "PIN locks", "idempotency", "twice"]),
        ("volatile-lfu", True, ["twice"]),
    ],
)
def test_eviction_is_told_with_what_it_loses(
    client: Any, server: RedisServer, policy: str, records_only: bool, losses: list[str]
) -> None:
    server.client.config_set("maxmemory-policy", policy)
    try:
        (message,) = messages(examine(client, records_only=records_only))
    finally:
        server.client.config_set("maxmemory-policy", "noeviction")
    assert message.startswith(f"maxmemory-policy is {policy}, set noeviction: ")
    assert [loss for loss in losses if loss not in message] == []


class Says:
    """A server that says this of itself."""

    def __init__(self, hello: Any, info: dict[str, str] | None = None) -> None:
        self._hello = hello
        self._info = info

    def execute_command(self, *_command: str) -> Any:
        if isinstance(self._hello, Exception):
            raise self._hello
        return self._hello

    def info(self, _section: str) -> dict[str, str]:
        if self._info is None:
            raise refusal("NOPERM User u has no permissions to run the 'info' command")
        return self._info


def hello(name: str, version: str) -> list[Any]:
    return [b"server", name.encode(), b"version", version.encode(), b"proto", 2]


@pytest.mark.parametrize(
    ("says", "fatal"),
    [
        (Says(hello("redis", "6.0.16")), True),
        (Says(hello("redis", "5.0.14")), True),
        (Says(hello("redis", "6.2.0")), None),
        (Says(hello("redis", "10.1.0")), None),
        (Says(hello("valkey", "7.2.5")), None),
        (Says({"server": "redis", "version": "7.4.1"}), None),
    ],
)
def test_version_that_is_too_old_is_told(says: Says, fatal: bool | None) -> None:
    found: list[Finding] = list(server._age(says))
    assert [finding.fatal for finding in found] == ([] if fatal is None else [fatal])
    assert not found or "6.2 or later" in found[0].message


def test_version_without_hello_is_that_of_info() -> None:
    old = refusal("ERR wrong number of arguments for 'hello' command")
    assert server.name_of(Says(old, {"redis_version": "6.0.16"})) == "redis 6.0.16"
    (unknown,) = server._age(Says(old))
    assert (unknown.fatal, "doesn't say its version" in unknown.message) == (False, True)
