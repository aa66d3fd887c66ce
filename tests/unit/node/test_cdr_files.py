"""The switch's CDR files: removed with their record, and kept for a while if no process knows their call."""

from __future__ import annotations

import os
import time
from pathlib import Path

import gevent
import pytest

from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node import cdr_files
from esl_apps.node.cdr_files import CdrFiles
from esl_apps.store import keys
from tests.support.bench import Bench, write_cdr
from tests.support.peer import UUID, eventually

REF = "01900000-0000-7000-8000-000000000001"


def begin_call(bench: Bench) -> Attempt:
    attempt = Attempt(app="disa", call_dir="external")
    bench.services.calls.begin(attempt, bench.services.switches[0])
    return attempt


def names(bench: Bench) -> list[str]:
    return sorted(path.name.partition(".")[0] for path in Path(bench.config.spool.dir).iterdir())


def test_cdr_files_of_recorded_calls_are_removed(bench: Bench) -> None:
    files = CdrFiles(bench.services)
    attempt = begin_call(bench)
    write_cdr(bench, UUID, ref=attempt.call_ref, answered=2)
    attempt.end(terms.ABANDONED, 16, terms.AGENT, time.time())
    bench.flush()
    files.tidy()
    assert names(bench) == []


def test_cdr_files_stay_until_redis_knows_the_end(bench: Bench) -> None:
    files = CdrFiles(bench.services)
    attempt = begin_call(bench)
    bench.flush()
    write_cdr(bench, UUID, ref=attempt.call_ref, answered=2)
    attempt.end(terms.ABANDONED, 16, terms.AGENT, time.time())
    files.tidy()
    assert names(bench) == [UUID]
    bench.flush()
    files.tidy()
    assert names(bench) == []


def test_cdr_files_of_live_and_unknown_calls_are_kept(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    files = CdrFiles(bench.services)
    attempt = begin_call(bench)
    bench.flush()
    write_cdr(bench, "mine", ref=attempt.call_ref)
    write_cdr(bench, "stranger", ref=REF)
    for _ in range(3):
        files.tidy()
    assert names(bench) == ["mine", "stranger"]
    unknown = [vars(record) for record in caplog.records if record.message == "unknown_call_in_switch_cdrs"]
    assert [record["call_ref"] for record in unknown] == [REF]


def test_cdr_files_behind_a_key_of_another_type_are_removed(bench: Bench) -> None:
    files = CdrFiles(bench.services)
    attempt = begin_call(bench)
    write_cdr(bench, "first", ref=REF)
    write_cdr(bench, UUID, ref=attempt.call_ref, answered=2)
    attempt.end(terms.ABANDONED, 16, terms.AGENT, time.time())
    bench.flush()
    bench.redis_server.client.rpush(keys.call(REF), "x")
    files.tidy()
    assert names(bench) == ["first"]


def test_cdr_files_of_unknown_calls_seldom_ask_redis(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    files = CdrFiles(bench.services)
    asked: list[str] = []
    monkeypatch.setattr(bench.services.store, "call", asked.append)
    write_cdr(bench, "stranger", ref=REF)
    for _ in range(5):
        files.tidy()
    assert asked == [REF]
    monkeypatch.setattr(cdr_files, "_ASK_AGAIN", 0.0)
    files._strangers.clear()
    for _ in range(3):
        files.tidy()
    assert asked == [REF] * 4


def test_cdr_files_of_a_call_forgotten_for_a_week_go(bench: Bench) -> None:
    files = CdrFiles(bench.services)
    write_cdr(bench, "old", ref=REF)
    week_old = time.time() - cdr_files.FORGOTTEN - 1
    os.utime(Path(bench.config.spool.dir, "old.cdr.json"), (week_old, week_old))
    # Not by this node's clock, which may be ahead.
    files.tidy()
    assert names(bench) == ["old"]
    bench.services.membership.say()
    files._strangers.clear()
    files.tidy()
    assert names(bench) == []


def test_cdr_files_are_looked_at_until_stopped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cdr_files, "LOOK_EVERY", 0.001)
    looks: list[int] = []

    def tidy() -> None:
        looks.append(1)
        raise StoreUnavailable("redis: away")

    files = CdrFiles(bench.services)
    monkeypatch.setattr(files, "tidy", tidy)
    files.stop()
    files.start()
    eventually(lambda: len(looks) > 3)
    files.stop()
    count = len(looks)
    gevent.sleep(0.01)
    assert len(looks) == count
