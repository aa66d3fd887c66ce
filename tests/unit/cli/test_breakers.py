"""``esl-apps breaker``."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from typing import Any

import pytest

from esl_apps.store import keys
from tests.support.node import RedisServer
from tests.unit.cli.conftest import Ran, Run, Settings


@pytest.fixture
def breaker(run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``esl-apps breaker`` as jo types it, with an account that has two breakers."""
    monkeypatch.setenv("SUDO_USER", "jo")
    destinations = {"country:CU": {"calls_per_day": 1}}
    settings["accounts"] = {"acme": {"breaker": {"calls_per_hour": 40, "destinations": destinations}}}
    file = settings.written()

    def breaker(*argv: str) -> Ran:
        return run("breaker", "-c", file, *argv)

    return breaker


def test_breaker_lists_what_would_trip(breaker: Run) -> None:
    ran = breaker()
    assert (ran.status, ran.err) == (0, "0 tripped\n")
    assert ran.out == (
        "ok      account:acme: trips over calls_per_hour 40\n"
        "ok      account:acme/country:CU: trips over calls_per_day 1\n"
    )


def test_breaker_trip_and_reset_are_listed_with_the_user(breaker: Run, redis: RedisServer) -> None:
    assert breaker("--trip", "account:acme", "--end-calls").out.startswith("account:acme: tripped by jo@")
    listed = breaker().out
    assert "TRIPPED account:acme: by hand, by jo@" in listed
    assert "its calls were ended" in listed
    assert "ok      account:acme:" not in listed
    assert breaker("--reset", "account:acme").out.startswith("account:acme: reset by jo@")
    listed = breaker().out
    assert "TRIPPED" not in listed
    assert "account:acme reset by jo@" in listed
    assert redis.client.hgetall(keys.TRIPPED) == {}


def test_breaker_prints_no_names_of_log_events(settings: Settings, redis: RedisServer) -> None:
    """A process of its own: pytest's handlers keep Python from printing the log."""
    redis.client.hset(keys.TRIPPED, "system", b"garbage")
    ran = subprocess.run(
        [sys.executable, "-m", "esl_apps", "breaker", "-c", settings.written()], capture_output=True, text=True
    )
    assert ran.stderr == "1 tripped\n"


def test_breaker_trip_twice_and_reset_twice_fail(breaker: Run) -> None:
    breaker("--trip", "system")
    again = breaker("--trip", "system")
    assert (again.status, again.out) == (1, "system: has tripped already\n")
    breaker("--reset", "system")
    again = breaker("--reset", "system")
    assert (again.status, again.err) == (1, "esl-apps: system: has not tripped\n")


def test_breaker_that_has_tripped_ends_calls_once(breaker: Run) -> None:
    breaker("--trip", "system")
    again = breaker("--trip", "system", "--end-calls")
    assert again.status == 0
    assert again.out.startswith("system: tripped by jo@")
    assert "its calls were ended" in breaker().out
    assert breaker("--trip", "system", "--end-calls").status == 1


def test_breaker_json_has_a_line_for_each_entry(breaker: Run) -> None:
    assert breaker("--trip", "account:acme", "--json").json == [
        {"scope": "account:acme", "tripped": True, "changed": True}
    ]
    tripped, ok, log = breaker("--json").json
    assert (tripped["type"], tripped["scope"], tripped["why"]) == ("tripped", "account:acme", "by hand")
    assert ok == {"type": "ok", "scope": "account:acme/country:CU", "trips_over": "calls_per_day 1"}
    assert (log["type"], log["scope"], log["what"]) == ("log", "account:acme", "tripped")
    assert breaker("--reset", "account:acme", "--json").json == [
        {"scope": "account:acme", "tripped": False, "changed": True}
    ]


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        ("acount:acme", "expected system, account:NAME"),
        ("account:acmee", "no such account"),
        ("account:acme/Cuba", "expected system"),
        ("account:acme/country:ZZ", "unknown country"),
        ("account:acme/class:mobil", "unknown class"),
        ("integrator:none", "no such integrator"),
        ("card:12", "expected a card's id"),
        ("system/", "expected system"),
        ("account:a/../b", "expected system"),
    ],
)
def test_breaker_misspelt_is_refused(breaker: Run, redis: RedisServer, scope: str, told: str) -> None:
    ran = breaker("--trip", scope)
    assert (ran.status, ran.out) == (2, "")
    assert told in ran.err
    assert list(redis.client.scan_iter("*breaker*")) == []


@pytest.mark.parametrize(
    "scope", ["integrator:acme", "system/country:CU", "system/class:mobile", "card:" + "0" * 32, "system/prefix:+53"]
)
def test_breaker_of_what_exists_trips(breaker: Run, scope: str) -> None:
    assert breaker("--trip", scope).status == 0


def test_breaker_end_calls_alone_is_refused(breaker: Run) -> None:
    ran = breaker("--end-calls")
    assert (ran.status, ran.err) == (2, "esl-apps: --end-calls goes with --trip\n")


def test_breaker_by_a_user_without_a_name(breaker: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Any:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.delenv("SUDO_USER")
    monkeypatch.setattr(getpass, "getuser", unknown)
    assert breaker("--trip", "system").out.startswith(f"system: tripped by uid {os.getuid()}@")
