"""One outbox for each Redis, and records whose Redis was taken out of the configuration."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from esl_apps.config.problems import ConfigError
from esl_apps.node.outboxes import Outboxes
from esl_apps.process.folder import THREADS
from esl_apps.store import redis_client
from esl_apps.store.journal import Entry
from tests.support.bench import DID, node_config

MAIN, OTHER = "redis://127.0.0.1:1/0", "redis://127.0.0.1:1/5"


def outboxes(folder: Path, *integrators: str, redis: dict[str, str] | None = None) -> Outboxes:
    """``redis``: of integrators with a Redis of their own."""
    listed: list[dict[str, Any]] = []
    for i, name in enumerate(integrators):
        own = {"redis": {"url": redis[name]}} if redis and name in redis else {}
        token = f"{name}-token-for-tests"
        listed.append({"name": name, "listen": f"127.0.0.1:{8300 + i}", "token": token, "caller_ids": [DID], **own})
    config = node_config(MAIN, folder, {"fs1": ("127.0.0.1", 8021)}, integrators=listed, inbound={})
    state = folder / "journals"
    state.mkdir(exist_ok=True)
    return Outboxes(config, state, lambda _entry: None)


def stop(made: Outboxes) -> None:
    for outbox in made:
        outbox.stop()


def entry(id: str, owner: str) -> Entry:
    return Entry(id, "list", "left", "{}", "", owner)


def test_outboxes_of_one_redis_are_one(tmp_path: Path) -> None:
    made = outboxes(tmp_path, "acme", "bell", redis={"bell": OTHER})
    assert len(made.lanes) == 2
    assert made.of("acme") is made.of(None) is made.of("unknown")
    assert made.of("bell") is not made.of("acme")
    stop(made)


def test_outboxes_renamed_integrator_finds_its_records(tmp_path: Path) -> None:
    first = outboxes(tmp_path, "bell", redis={"bell": OTHER})
    first.of("bell").push(entry("r-1", "bell"))
    stop(first)
    again = outboxes(tmp_path, "bella", redis={"bella": OTHER})
    assert (again.of("bella").depth, again.of(None).depth) == (1, 0)
    stop(again)


@pytest.mark.parametrize("still_there", [True, False], ids=["integrator", "no integrator"])
def test_outboxes_records_of_a_lost_redis_go_to_another(
    tmp_path: Path, still_there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    first = outboxes(tmp_path, "bell", redis={"bell": OTHER})
    first.of("bell").push(entry("r-1", "bell"))
    stop(first)
    elsewhere = {"bell": "redis://127.0.0.1:1/7"}
    again = outboxes(tmp_path, "bell", redis=elsewhere) if still_there else outboxes(tmp_path, "acme")
    assert again.of("bell").depth == 1
    assert again.of(None).depth == (0 if still_there else 1)
    assert caplog.messages == ["records_redirected"]
    stop(again)
    # Once.
    third = outboxes(tmp_path, "bell", redis=elsewhere) if still_there else outboxes(tmp_path, "acme")
    assert third.of("bell").depth == 1
    stop(third)


def test_outboxes_journal_of_a_running_node_is_refused(tmp_path: Path) -> None:
    first = outboxes(tmp_path, "acme")
    with pytest.raises(ConfigError, match=r"node\.state_dir.*another process holds it"):
        outboxes(tmp_path, "acme")
    stop(first)


def test_outboxes_of_many_redis_share_their_threads(tmp_path: Path) -> None:
    names = [f"i{number}" for number in range(20)]
    made = outboxes(tmp_path, *names, redis={name: f"redis://127.0.0.1:1/{i}" for i, name in enumerate(names, 1)})
    before = threading.active_count()
    for name in names:
        made.of(name).push(entry(f"r-{name}", name))
    stop(made)
    assert len({lane._disk for one in made for lane in one}) == 1
    assert threading.active_count() <= before + THREADS


def test_outboxes_drain_waits_no_longer_than_told(tmp_path: Path) -> None:
    made = outboxes(tmp_path, "acme", "bell", redis={"bell": OTHER})
    made.of("bell").push(entry("r-1", "bell"))
    made.drain(0.01)
    assert made.of("bell").depth == 1
    stop(made)


def test_own_redis_of_an_integrator_is_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only short answers are read from it (:mod:`esl_apps.store.connection`)."""
    made: dict[str, bool] = {}

    def connect(url: str, real: Any = redis_client.connect, foreign: bool = False, **options: Any) -> Any:
        made[url] = foreign
        return real(url, foreign=foreign, **options)

    monkeypatch.setattr(redis_client, "connect", connect)
    outboxes(tmp_path, "acme", "beta", redis={"acme": MAIN, "beta": OTHER})
    assert made == {MAIN: False, OTHER: True}
