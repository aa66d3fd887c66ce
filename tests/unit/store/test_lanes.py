"""One outbox for each list of a Redis: a list that Redis refuses holds up only itself."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from esl_apps.store import redis_client
from esl_apps.store.journal import Journal
from esl_apps.store.lanes import Lanes, folder_of
from esl_apps.store.outbox import Outbox
from tests.support.node import RedisServer
from tests.support.peer import eventually
from tests.support.records import LIST, item

OTHER = "enigma:notifications:inbound"


@pytest.fixture
def lanes(redis: RedisServer, tmp_path: Path) -> Iterator[Callable[[], Lanes]]:
    redis.client.flushall()
    made: list[Lanes] = []

    def make() -> Lanes:
        client = redis_client.connect(redis.url)
        made.append(Lanes("test", tmp_path, client, partial(Outbox, "test", client=client)))
        return made[-1]

    yield make
    for one in made:
        with contextlib.suppress(OSError):
            one.stop()


def test_list_of_another_type_holds_up_only_itself(
    lanes: Callable[[], Lanes], redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis.client.set(LIST, "text")
    outbox = lanes()
    outbox.start()
    for number in range(1, 501):
        outbox.push(item(number, list=LIST))
        outbox.push(item(number, list=OTHER))
    assert not outbox.drain(2)
    assert redis.client.llen(OTHER) == 500
    assert outbox.depth == 500
    assert 1.0 < outbox.failing_seconds < 60.0
    assert outbox.refusals == [f"redis: {LIST}: WRONGTYPE, a key is of another type; its records wait"]
    redis.client.delete(LIST)
    assert outbox.drain(10)
    assert redis.client.llen(LIST) == 500
    assert (outbox.refusals, outbox.failing_seconds) == ([], 0.0)
    assert caplog.messages.count("records_refused") == 1


def test_lists_of_similar_names_hold_up_only_themselves(lanes: Callable[[], Lanes], redis: RedisServer) -> None:
    first, *others = names = [f"{OTHER}-{mark}za" for mark in "-._"]
    redis.client.set(first, "text")
    outbox = lanes()
    outbox.start()
    for name in names:
        outbox.push(item(1, list=name))
    assert not outbox.drain(0.5)
    assert [redis.client.llen(name) for name in others] == [1, 1]
    outbox.stop()


def test_list_in_a_folder_of_an_earlier_name_is_emptied(
    lanes: Callable[[], Lanes], redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order: records that come while Redis is away, and its lane backs off, stay behind those."""
    monkeypatch.setattr("esl_apps.store.outbox.BACKOFF_FIRST", 0.4)
    lanes().stop()
    journal = Journal(tmp_path / "enigma-notifications-inbound")
    journal.open()
    journal.append(item(1, list=OTHER))
    journal.close()
    redis.client.set(OTHER, "text")
    again = lanes()
    again.start()
    eventually(lambda: again.refusals)
    redis.client.delete(OTHER)
    again.push(item(2, list=OTHER))
    assert again.drain(5)
    again.push(item(3, list=OTHER))
    assert again.drain(5)
    pushed = [json.loads(record)["payload"]["call_ref"] for record in reversed(redis.client.lrange(OTHER, 0, -1))]
    assert pushed == ["id-1", "id-2", "id-3"]
    assert (tmp_path / folder_of(OTHER)).is_dir()


def test_lists_left_by_an_earlier_process_are_taken_up(
    lanes: Callable[[], Lanes], redis: RedisServer, tmp_path: Path
) -> None:
    # As earlier versions wrote them: all lists in one file.
    journal = Journal(tmp_path)
    journal.open()
    for number in range(1, 4):
        journal.append(item(number, list=LIST if number % 2 else OTHER))
    journal.close()
    first = lanes()
    first.push(item(4, list=OTHER))
    first.stop()
    again = lanes()
    assert again.depth == 4
    again.start()
    assert again.drain(5)
    assert [redis.client.llen(name) for name in (LIST, OTHER)] == [2, 2]


def test_folder_of_a_running_process_is_refused(lanes: Callable[[], Lanes]) -> None:
    held: Any = lanes()
    with pytest.raises(BlockingIOError):
        lanes()
    assert held.depth == 0


def test_new_list_on_a_full_disk_loses_no_record(
    lanes: Callable[[], Lanes], redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = lanes()
    outbox.start()
    outbox.push(item(1, list=LIST))
    with monkeypatch.context() as context:

        def no_room(*_arguments: object, **_options: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        context.setattr(Path, "mkdir", no_room)
        outbox.push(item(2, list=OTHER))
    outbox.push(item(3, list=OTHER))
    assert outbox.drain(5)
    assert [redis.client.llen(name) for name in (LIST, OTHER)] == [1, 2]
