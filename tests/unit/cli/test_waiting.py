"""``esl-apps waiting``."""

from __future__ import annotations

import time

import pytest

from esl_apps.core.timed_call import TimedCall
from esl_apps.store import redis_client
from esl_apps.store.timed_calls import TimedCalls
from tests.support.node import RedisServer
from tests.unit.cli.conftest import Run, Settings

REF = "01a20447-2be6-705d-bfcb-64432c6ce89b"


@pytest.fixture
def autodials(settings: Settings, redis: RedisServer) -> TimedCalls:
    """A callback that waits, and a later autodial of acme's."""
    client, now = redis_client.connect(redis.url), time.time()
    TimedCalls(client, "app1", "callbacks").schedule("27825556666", ["card"], now + 60, now=now)
    made = TimedCalls(client, "app1", "autodials")
    made.schedule(REF, ["acme", "{}"], now + 3600, now=now, owner="acme", most=9)
    return made


def test_waiting_of_a_quiet_system(run: Run, settings: Settings) -> None:
    ran = run("waiting", "-c", settings.written())
    assert (ran.status, ran.out, ran.err) == (0, "", "0 waiting\n")


@pytest.mark.usefixtures("autodials")
def test_waiting_lists_the_next_first(run: Run, settings: Settings) -> None:
    ran = run("waiting", "-c", settings.written())
    assert [line.split()[0] for line in ran.out.splitlines()] == ["callback/27825556666", f"autodial/{REF}"]
    assert ran.out.endswith("acme\n")
    assert ran.err == "2 waiting\n"
    one, two = run("waiting", "-c", settings.written(), "--json").json
    assert (one["account"], two["account"], two["placing"]) == (None, "acme", False)
    assert 3500 < two["due_in"] <= 3600


def test_waiting_drop_ends_a_call(run: Run, settings: Settings, autodials: TimedCalls) -> None:
    assert run("waiting", "-c", settings.written(), "--drop", f"autodial/{REF}").out == f"dropped autodial/{REF}\n"
    assert autodials.waiting() == []
    (dropped,) = run("waiting", "-c", settings.written(), "--drop", "callback/27825556666", "--json").json
    assert dropped == {"key": "callback/27825556666", "dropped": True}


@pytest.mark.parametrize("key", ["autodial/27825556666", "callback/1", "other/1", "autodial"])
@pytest.mark.usefixtures("autodials")
def test_waiting_drop_of_another_key_fails(run: Run, settings: Settings, key: str) -> None:
    ran = run("waiting", "-c", settings.written(), "--drop", key)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"esl-apps: not waiting: {key}")


def test_waiting_drop_of_a_call_being_placed_fails(run: Run, settings: Settings, autodials: TimedCalls) -> None:
    assert isinstance(autodials.claim_due(time.time() + 4000, 60), TimedCall)
    ran = run("waiting", "-c", settings.written(), "--drop", f"autodial/{REF}")
    assert ran.status == 1
    assert ran.err.startswith("esl-apps: is being placed")
