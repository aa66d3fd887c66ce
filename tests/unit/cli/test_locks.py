"""``esl-apps locks``."""

from __future__ import annotations

import pytest

from esl_apps.config.pin_guard import PinGuard
from esl_apps.core.pins import OPEN, Source
from esl_apps.store import redis_client
from esl_apps.store.pin_guard import GuardStore
from tests.support.node import RedisServer
from tests.unit.cli.conftest import Run, Settings

GUESSER = Source("27845550000", "", "dialthrough", "27115551000")
NAME = "number:27845550000"


@pytest.fixture
def guard(settings: Settings, redis: RedisServer) -> GuardStore:
    """A guard that has locked a caller."""
    made = GuardStore(redis_client.connect(redis.url), PinGuard(per_number=2, lock=300), lambda kind, **_: None)
    for _ in range(2):
        made.judge(GUESSER, False, "", guessed=True)
    return made


def test_locks_of_a_quiet_system(run: Run, settings: Settings) -> None:
    ran = run("locks", "-c", settings.written())
    assert (ran.status, ran.out, ran.err) == (0, "", "0 locked\n")
    assert run("locks", "-c", settings.written(), "--json").out == ""


@pytest.mark.usefixtures("guard")
def test_locks_lists_what_is_locked(run: Run, settings: Settings) -> None:
    ran = run("locks", "-c", settings.written())
    assert ran.out.startswith(f"{NAME} ")
    assert ran.out.endswith(" s left\n")
    assert ran.err == "1 locked\n"


@pytest.mark.usefixtures("guard")
def test_locks_json_has_a_line_for_each_lock(run: Run, settings: Settings) -> None:
    (lock,) = run("locks", "-c", settings.written(), "--json").json
    assert lock["name"] == NAME
    assert 200 < lock["seconds"] <= 300


@pytest.mark.usefixtures("guard")
def test_locks_lift_of_another_name_fails(run: Run, settings: Settings) -> None:
    ran = run("locks", "-c", settings.written(), "--lift", "number:0845550000")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "esl-apps: not locked: number:0845550000 (`esl-apps locks` lists what is)\n"


def test_locks_lift_opens(run: Run, settings: Settings, guard: GuardStore) -> None:
    assert run("locks", "-c", settings.written(), "--lift", NAME).out == f"lifted {NAME}\n"
    assert guard.judge(GUESSER, True, "", guessed=True) == OPEN


@pytest.mark.usefixtures("guard")
def test_locks_lift_json(run: Run, settings: Settings) -> None:
    assert run("locks", "-c", settings.written(), "--lift", NAME, "--json").json == [{"name": NAME, "lifted": True}]
