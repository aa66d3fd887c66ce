"""Scripts are files that document their arguments, and run on a Redis that has forgotten them."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import unreadable
from esl_apps.store.errors import Fault
from esl_apps.store.script import Script, run_all, sha_of, text_of

NAMES = sorted(
    entry.name.removesuffix(".lua")
    for entry in resources.files("esl_apps.store").joinpath("lua").iterdir()
    if entry.name.endswith(".lua")
)
HEAD = re.compile(r"\A-- [A-Z][^\n]*\n(?:-- [^\n]*\n)*?-- KEYS: (?:-- |[^\n]*\n)*?-- ARGV: ")


@pytest.mark.parametrize("name", NAMES)
def test_script_documents_its_keys_and_argv(name: str) -> None:
    assert HEAD.match(text_of(name))


def test_script_compiles_with_its_includes(client: Any) -> None:
    for name in NAMES:
        text = text_of(name)
        assert "-- include:" not in text
        found = client.script_load(text)
        assert (found.decode() if isinstance(found, bytes) else found) == sha_of(text), name


@pytest.fixture
def both(client: Any) -> tuple[Script, Script]:
    return Script(client, "timed_call_done"), Script(client, "concurrent_renew")


def test_script_redis_never_saw_runs(both: tuple[Script, Script]) -> None:
    done, _renew = both
    keys = ["{a}due", "{a}pending", "{a}past"]
    assert done(keys, ["number", "claim", 1]) == 0
    assert done(keys, ["number", "claim", 1]) == 0


def test_run_all_sends_again_what_redis_never_saw(client: Any, both: tuple[Script, Script]) -> None:
    done, renew = both
    renew(["{c}"], [1, "call", 30])
    keys = ["{a}due", "{a}pending", "{a}past"]
    runs = [renew.on(["{c}"], [1, "call", 30]), done.on(keys, ["n", "c", 1]), renew.on(["{d}"], [1, "call", 30])]
    assert run_all(client, runs) == [1, 0, 1]
    assert run_all(client, []) == []


def test_run_all_tells_a_failure_as_asked(client: Any, both: tuple[Script, Script]) -> None:
    _done, renew = both
    client.set("{text}", "x")
    runs = [renew.on(["{c}"], [1, "call", 30]), renew.on(["{text}"], [1, "call", 30])]
    answers = run_all(client, runs, strict=False)
    assert answers[0] == 1
    assert isinstance(answers[1], Exception)
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        run_all(client, runs)


def test_script_of_a_redis_that_is_away_raises(away: Any) -> None:
    done = Script(away, "timed_call_done")
    with pytest.raises(StoreUnavailable):
        done(["{a}due", "{a}pending", "{a}past"], ["number", "claim", 1])
    with pytest.raises(StoreUnavailable):
        run_all(away, [done.on(["{a}due", "{a}pending", "{a}past"], ["number", "claim", 1])])


def test_script_whose_key_is_of_another_type_says_so_once(
    client: Any, both: tuple[Script, Script], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits, locks and webhooks refused what they were asked, and no log said which key a person had to mend."""
    monkeypatch.setattr(unreadable, "_said", set())
    _done, renew = both
    client.set("{c}", "x")
    for _ in range(2):
        with pytest.raises(Fault):
            renew(["{c}"], [1, "call", 30])
        with pytest.raises(Fault):
            run_all(client, [renew.on(["{c}"], [1, "call", 30])])
    assert [(record.message, vars(record)["key"]) for record in caplog.records] == [("key_unreadable", "{c}")]
    client.delete("{c}")
    renew(["{c}"], [1, "call", 30])
    client.delete("{c}")
    client.set("{c}", "x")
    with pytest.raises(Fault):
        renew(["{c}"], [1, "call", 30])
    assert caplog.messages == ["key_unreadable"] * 2
