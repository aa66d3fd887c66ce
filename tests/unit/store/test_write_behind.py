"""Writes that Redis refuses wait, in bounds, and hold up no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import write_behind
from esl_apps.store.errors import NoAnswer, refusal
from esl_apps.store.write_behind import AGAIN_LAST, BATCH, WriteBehind


class Server:
    """Answers with an error for some keys, and remembers what it was sent."""

    def __init__(self) -> None:
        self.errors: dict[str, StoreUnavailable] = {}
        self.taken: list[tuple[str, ...]] = []
        self.sent = 0
        self.trips = 0
        self.away: StoreUnavailable | None = None
        self.now = 1000.0

    def send_all(self, commands: Sequence[tuple[str, ...]], *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        if self.away is not None:
            raise self.away
        self.sent += len(commands)
        self.trips += 1
        answers: list[Any] = []
        for command in commands:
            error = self.errors.get(command[1])
            answers.append(error or "OK")
            if error is None:
                self.taken.append(command)
        return answers

    def later(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def writes(server: Server) -> WriteBehind:
    return WriteBehind(server, clock=lambda: server.now)


OOM = refusal("OOM command not allowed when used memory > 'maxmemory'.")
WRONG_TYPE = refusal("WRONGTYPE Operation against a key holding the wrong kind of value")


def test_newest_command_about_one_thing_is_sent(writes: WriteBehind, server: Server) -> None:
    writes.put("a", "1", ("SET", "a", "old"))
    writes.put("a", "1", ("SET", "a", "new"))
    writes.flush()
    assert server.taken == [("SET", "a", "new")]
    assert writes.waiting == 0


def test_key_of_another_type_holds_up_no_other(
    writes: WriteBehind, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.errors["bad"] = WRONG_TYPE
    for number in range(3):
        writes.put("bad", f"{number}", ("ZADD", "bad", f"{number}"))
        writes.put("good", f"{number}", ("ZADD", "good", f"{number}"))
    writes.flush()
    assert [command[1] for command in server.taken] == ["good"] * 3
    assert writes.faults == ["redis: bad: WRONGTYPE, a key is of another type"]
    assert writes.refusal is None
    # One command tries it again, ever more seldom; what comes meanwhile costs nothing.
    server.sent = 0
    for _ in range(100):
        server.later(1.0)
        writes.put("bad", "new", ("ZADD", "bad", "new"))
        writes.flush()
    assert server.sent <= 8
    server.errors.clear()
    server.later(AGAIN_LAST)
    writes.flush()
    assert len(server.taken) == 7
    assert (writes.waiting, writes.faults) == (0, [])
    assert [record.msg for record in caplog.records if record.levelname == "WARNING"] == ["redis_write_refused"]


def test_server_that_is_full_is_reported_once(
    writes: WriteBehind, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for key in ("a", "b", "c"):
        server.errors[key] = OOM
        writes.put(key, "1", ("SET", key, "x"))
    writes.flush()
    assert writes.refusal is OOM
    assert writes.faults == []
    assert caplog.messages == ["redis_write_refused"]
    server.errors.clear()
    server.later(1.0)
    caplog.set_level("INFO")
    writes.flush()
    assert writes.refusal is None
    assert len(server.taken) == 3
    assert caplog.messages == ["redis_write_refused", "redis_write_accepted"]


def test_server_that_was_full_for_long_has_all_a_second_later(writes: WriteBehind, server: Server) -> None:
    """One master of a cluster: what tells that Redis is back may be on another one."""
    server.errors["a"] = OOM
    writes.put("a", "1", ("SET", "a", "x"))
    for _ in range(60):
        writes.flush()
        server.later(1.0)
    server.errors.clear()
    writes.flush()
    assert server.taken == [("SET", "a", "x")]


def test_refused_commands_are_hurried_once_redis_is_back(writes: WriteBehind, server: Server) -> None:
    server.errors = {"a": OOM, "b": WRONG_TYPE}
    for _ in range(5):
        server.later(10)
        for key in ("a", "b"):
            writes.put(key, "1", ("SET", key, "x"))
        writes.flush()
    server.errors = {}
    writes.flush()
    assert server.taken == []
    writes.hurry()
    writes.flush()
    assert server.taken == [("SET", "a", "x")]


def test_pipeline_that_a_replica_refuses_waits_whole(writes: WriteBehind, server: Server) -> None:
    writes.put("a", "1", ("SET", "a", "x"))
    server.away = refusal("READONLY You can't write against a read only replica.")
    writes.flush()
    assert writes.refusal is server.away
    server.away = None
    writes.flush()
    assert writes.waiting == 1
    server.later(1.0)
    writes.flush()
    assert writes.waiting == 0


def test_lost_connection_keeps_all_commands(writes: WriteBehind, server: Server) -> None:
    writes.put("a", "1", ("SET", "a", "x"))
    server.away = NoAnswer("redis: gone")
    with pytest.raises(NoAnswer):
        writes.flush()
    assert (writes.waiting, writes.refusal) == (1, None)
    server.away = None
    writes.flush()
    assert writes.waiting == 0


def test_part_of_a_cluster_that_is_silent_keeps_its_commands(writes: WriteBehind, server: Server) -> None:
    writes.put("a", "1", ("SET", "a", "x"))
    writes.put("b", "2", ("SET", "b", "y"))
    server.errors["a"] = NoAnswer("redis: gone")
    with pytest.raises(NoAnswer):
        writes.flush()
    assert (server.taken, writes.waiting, writes.refusal) == ([("SET", "b", "y")], 1, None)
    server.errors.clear()
    writes.flush()
    assert writes.waiting == 0


def test_silent_part_of_a_cluster_holds_up_no_other(
    writes: WriteBehind, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait for it, and in a group of the others, too."""
    monkeypatch.setattr(write_behind, "BATCH", 10)
    server.errors["a"] = NoAnswer("redis: gone")
    for number in range(25):
        writes.put("calls", f"a{number}", ("SET", "a", number))
    with pytest.raises(NoAnswer):
        writes.flush()
    writes.put("calls", "b", ("SET", "b", "y"))
    writes.put("live", "c", ("SET", "c", "z"))
    writes.put("calls", "a3", ("SET", "a", "newer"))
    with pytest.raises(NoAnswer):
        writes.flush()
    assert server.taken == [("SET", "b", "y"), ("SET", "c", "z")]
    assert (writes.waiting, writes.get("calls", "a3")) == (25, ("SET", "a", "newer"))
    writes.drop("calls", "a4")
    server.errors.clear()
    for _ in range(3):
        writes.flush()
    assert (writes.waiting, len(server.taken)) == (0, 26)


@pytest.mark.parametrize("text", ["OOM is full", "LOADING from disk", "CLUSTERDOWN Hash slot not served"])
def test_refusing_part_of_a_cluster_holds_up_no_other(
    writes: WriteBehind, server: Server, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server.errors["bad"] = refusal(text)
    for number in range(20):
        writes.put("calls", f"{number}", ("SET", "bad", f"{number}"))
    writes.flush()
    writes.put("calls", "3", ("SET", "bad", "newer"))
    for number in range(100, 110):
        server.later(0.5)
        writes.put("calls", f"{number}", ("SET", "good", f"{number}"))
        writes.flush()
        assert server.taken[-1] == ("SET", "good", f"{number}")
    assert (writes.waiting, writes.refusal) == (20, server.errors["bad"])
    # The refused ones are tried once a second.
    assert server.sent == 20 + 1 + 10 + 5 * 20
    server.errors.clear()
    server.later(1.0)
    writes.flush()
    assert (writes.waiting, writes.refusal) == (0, None)
    assert [command for command in server.taken if command[1] == "bad"][-1] == ("SET", "bad", "newer")
    assert len(server.taken) == 30
    assert caplog.messages == ["redis_write_refused", "redis_write_accepted"]


@pytest.mark.parametrize("group", ["calls", "a"])
def test_refused_group_that_falls_silent_is_asked_once(writes: WriteBehind, server: Server, group: str) -> None:
    """Each round trip to a silent server takes seconds."""
    server.errors["a"] = OOM
    for number in range(BATCH):
        writes.put(group, f"{number}", ("SET", "a", f"{number}"))
    writes.flush()
    server.errors["a"] = NoAnswer("redis: gone")
    server.later(5.0)
    server.trips = 0
    with pytest.raises(NoAnswer):
        writes.flush()
    assert (server.trips, writes.waiting) == (1, BATCH)


def test_silent_part_of_a_cluster_is_logged_once(
    writes: WriteBehind, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server.errors["a"] = NoAnswer("redis: gone")
    for _ in range(3):
        writes.put("a", "1", ("SET", "a", "x"))
        with pytest.raises(NoAnswer):
            writes.flush()
        # PING tells when all of Redis is away.
        assert caplog.messages == []
    for _ in range(3):
        writes.put("b", "1", ("SET", "b", "x"))
        with pytest.raises(NoAnswer):
            writes.flush()
    server.errors.clear()
    for _ in range(3):
        writes.flush()
    assert caplog.messages == ["redis_part_lost", "redis_part_back"]


def test_commands_that_wait_are_bounded(
    writes: WriteBehind, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(write_behind, "MOST", 100)
    caplog.set_level("INFO")
    server.errors["a"] = OOM
    for number in range(1000):
        writes.put("a", f"{number}", ("HSET", "a", f"{number}"))
    writes.flush()
    assert writes.waiting == 100
    assert writes.get("a", "899") is None
    assert writes.get("a", "900") == ("HSET", "a", "900")
    server.errors.clear()
    server.later(1.0)
    writes.flush()
    assert writes.waiting == 0
    assert [record.__dict__["dropped"] for record in caplog.records if record.msg == "redis_write_accepted"] == [900]


def test_many_commands_are_sent_in_batches(writes: WriteBehind, server: Server) -> None:
    sizes: list[int] = []
    send = server.send_all

    def count(commands: Sequence[tuple[str, ...]], *, raise_on_error: bool) -> list[Any]:
        sizes.append(len(commands))
        return send(commands, raise_on_error=raise_on_error)

    server.send_all = count  # type: ignore[method-assign]
    for number in range(2 * BATCH + 1):
        writes.put("ab"[number % 2], f"{number}", ("SET", f"{number}"))
    writes.flush()
    assert sizes == [BATCH, BATCH, 1]
    assert writes.waiting == 0


def test_command_that_is_dropped_while_it_is_sent_is_gone(writes: WriteBehind, server: Server) -> None:
    send = server.send_all

    def drop(commands: Sequence[tuple[str, ...]], *, raise_on_error: bool) -> list[Any]:
        writes.drop("a", "2")
        return send(commands, raise_on_error=raise_on_error)

    server.send_all = drop  # type: ignore[method-assign]
    for about in ("1", "2"):
        writes.put("a", about, ("SET", "a", about))
    writes.flush()
    assert writes.waiting == 0
    server.errors["a"] = OOM
    writes.put("a", "3", ("SET", "a", "3"))
    writes.flush()
    assert writes.refusal is OOM
