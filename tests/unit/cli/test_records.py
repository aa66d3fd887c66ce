"""``esl-apps records``."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from esl_apps.core.attempt import Attempt
from esl_apps.core.reference import new_ref
from esl_apps.store import record_history, redis_client
from esl_apps.store.record_history import HistoryOutbox
from tests.support.node import RedisServer
from tests.support.records import record_of
from tests.unit.cli.conftest import Run, Settings

NOW = 1_700_000_000.0


@pytest.fixture
def kept(settings: Settings, redis: RedisServer, tmp_path: Path) -> list[str]:
    """Two records of calls, an hour apart."""
    outbox = HistoryOutbox("history", tmp_path / "history", redis_client.connect(redis.url))
    outbox.start()
    found = []
    for at, reason in ((NOW, "answered"), (NOW + 3600, "callee_busy")):
        ref = new_ref(at)
        found.append(ref)
        party = {"extension": "0825556666", "number": "=1+1"}
        fields = {**record_of(ref, dialed_at=int(at), end_reason=reason, **party), "ref": "disa"}
        attempt = Attempt(app="disa", call_dir="external", call_ref=ref)
        outbox.push(record_history.entry(attempt, [], fields, keep=True))
    assert outbox.drain(5)
    outbox.stop()
    return found


def test_records_of_a_quiet_system(run: Run, settings: Settings) -> None:
    ran = run("records", "-c", settings.written())
    assert (ran.status, ran.out) == (0, "")
    assert ran.err == "0 records; records are kept for 7 days\n"


def test_records_name_an_unknown_integrator(run: Run, settings: Settings) -> None:
    ran = run("records", "-c", settings.written(), "--integrator", "acmee")
    assert (ran.status, ran.out) == (0, "")
    assert ran.err.splitlines()[0] == "esl-apps: no integrator acmee in the configuration; did you mean acme?"
    assert "no integrator" not in run("records", "-c", settings.written(), "--integrator", "").err


def test_records_name_an_unknown_end_reason(run: Run, settings: Settings) -> None:
    ran = run("records", "-c", settings.written(), "--end-reason", "answerd")
    assert (ran.status, ran.out) == (0, "")
    assert ran.err.splitlines()[0] == "esl-apps: no call ends with answerd; did you mean answered?"
    assert "no call" not in run("records", "-c", settings.written(), "--end-reason", "callee_busy").err


def test_records_have_one_format(run: Run, settings: Settings) -> None:
    ran = run("records", "-c", settings.written(), "--json", "--csv")
    assert (ran.status, ran.out) == (2, "")
    assert "--csv: not allowed with argument --json" in ran.err


def test_records_are_a_line_each(run: Run, settings: Settings, kept: list[str]) -> None:
    lines = run("records", "-c", settings.written()).out.splitlines()
    assert [kept[1] in lines[0], kept[0] in lines[1]] == [True, True]
    assert "answered" in lines[1]
    assert "0825556666 -> =1+1" in lines[1]


def test_records_since_a_time_are_json_or_csv(run: Run, settings: Settings, kept: list[str]) -> None:
    command = ("records", "-c", settings.written(), "--since", str(int(NOW) + 60))
    assert [record["call_ref"] for record in run(*command, "--json").json] == [kept[1]]
    (row,) = csv.DictReader(io.StringIO(run(*command, "--csv").out))
    assert (row["call_ref"], row["number"], row["integrator"]) == (kept[1], "'=1+1", "")


def test_records_are_chosen_by_what_is_asked_for(run: Run, settings: Settings, kept: list[str]) -> None:
    command = ("records", "-c", settings.written(), "--json")
    assert [record["call_ref"] for record in run(*command, "--end-reason", "answered").json] == [kept[0]]
    for none in (("--integrator", "acme"), ("--agent", "1000"), ("--number", "1"), ("--account", "acme")):
        assert run(*command, *none).out == ""
