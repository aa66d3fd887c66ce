"""A cluster of three masters: one that is away, or that gives up a slot, holds up none of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from esl_apps.core.attempt import Attempt
from esl_apps.core.call_events import CallEvent
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Level, Limits
from esl_apps.store import cluster, event_writer, keys, redis_client
from esl_apps.store.call_events import START, EventStore
from esl_apps.store.calls import CallStore
from esl_apps.store.errors import Fault, NoAnswer, NoScript, Unsent
from esl_apps.store.event_writer import EventWriter
from esl_apps.store.redis_py import pipelined
from esl_apps.store.usage import UsageStore
from esl_apps.store.write_behind import WriteBehind
from tests.support.cluster import Master, cluster_of_three
from tests.support.stored_calls import call, save

KEYS = [f"key{number}" for number in range(30)]
LIMIT = Limits(minutes_per_day=1)
SET = [("SET", key, "1") for key in KEYS]


@pytest.fixture(scope="module")
def masters() -> Iterator[list[Master]]:
    with cluster_of_three() as masters:
        yield masters


@pytest.fixture
def client(masters: list[Master]) -> Any:
    for master in masters:
        if master.process is not None and master.process.poll() is None:
            master.client.flushall()
    client = redis_client.connect(next(master.url for master in masters if not master.has(keys.PING)))
    client.get("a")  # connects
    return client


@pytest.fixture(scope="module")
def lost(masters: list[Master]) -> Master:
    """A master that is killed. It also has the key that tells whether Redis takes writes. For the last tests."""
    master = next(master for master in masters if master.has(keys.PING))
    master.kill()
    return master


def named(key: Callable[[str], str], master: Master, *, on: bool) -> str:
    """A name whose key is on a master, or not."""
    return next(name for name in (f"account:{number}" for number in range(999)) if master.has(key(name)) is on)


def test_answers_of_three_masters_come_in_order(client: Any) -> None:
    told: list[float] = []
    client._client.observe = told.append
    assert client.send_all([("SET", key, key) for key in KEYS]) == [True] * len(KEYS)
    assert client.send_all([("GET", key) for key in KEYS]) == [key.encode() for key in KEYS]
    assert client.send_all([]) == []
    commands = [("LPUSH", KEYS[0], "x"), ("EVALSHA", "0" * 40, 1, KEYS[1])]
    assert [type(answer) for answer in client.send_all(commands, raise_on_error=False)] == [Fault, NoScript]
    assert len(told) == 4


@pytest.fixture
def asked(masters: list[Master], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ports of masters that were asked. The last master doesn't answer in time."""
    asked: list[int] = []

    def ask(master: Any, commands: list[Any]) -> list[Any]:
        port = master.connection_pool.connection_kwargs["port"]
        asked.append(port)
        if port == masters[2].port:
            raise redis.TimeoutError("Timeout reading from socket")
        return pipelined(master, commands)

    monkeypatch.setattr(cluster, "pipelined", ask)
    return asked


def test_silent_master_fails_its_own_commands_only(client: Any, masters: list[Master], asked: list[int]) -> None:
    answers = client.send_all(SET, raise_on_error=False)
    assert [type(answer) for answer in answers] == [NoAnswer if masters[2].has(key) else bool for key in KEYS]
    # Not for each command.
    assert sorted(asked) == sorted(master.port for master in masters)


def test_silent_master_is_asked_once_a_second(client: Any, masters: list[Master], asked: list[int]) -> None:
    now, silent = [100.0], masters[2]
    client._client.clock = lambda: now[0]
    states = WriteBehind(client)
    for number in range(1500):
        states.put("calls", str(number), ("SET", f"call{number}", "x"))
    with pytest.raises(NoAnswer):
        states.flush()
    assert states.waiting == sum(silent.has(f"call{number}") for number in range(1500))
    assert asked.count(silent.port) == 1
    now[0] += 0.9
    (answer,) = client.send_all([next(command for command in SET if silent.has(command[1]))], raise_on_error=False)
    assert type(answer) is Unsent
    assert asked.count(silent.port) == 1
    now[0] += 0.1
    client.send_all(SET, raise_on_error=False)
    assert asked.count(silent.port) == 2
    now[0] += 1.0
    client.send_all([next(command for command in SET if masters[0].has(command[1]))])
    # It may be gone, so it isn't remembered.
    assert client._client._silent == {}


@pytest.mark.parametrize("is_done", [False, True])
def test_command_follows_its_slot_to_another_master(client: Any, masters: list[Master], *, is_done: bool) -> None:
    first, second = masters[:2]
    key = next(key for key in (f"moved{number}" for number in range(99)) if first.has(key))
    slot = redis.crc.key_slot(key.encode())
    ids = [master.client.execute_command("CLUSTER", "MYID") for master in (first, second)]
    second.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    first.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    if is_done:
        for master in (second, first):
            master.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
    assert client.send_all([*SET, ("SET", key, "1")]) == [True] * (len(SET) + 1)
    if not is_done:
        for master in (first, second):
            master.client.flushall()
            master.client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")


def test_unused_seconds_go_back_to_other_masters(
    client: Any, masters: list[Master], request: pytest.FixtureRequest
) -> None:
    lost, now = next(master for master in masters if master.has(keys.PING)), [1.7e9]
    there, away = (named(keys.usage_sums, lost, on=on) for on in (False, True))
    usage = UsageStore(client, "n", clock=lambda: now[0])
    charges = [Charge(f"ref{n}", [Level(name, LIMIT)], None) for n, name in enumerate([there, away, there])]
    assert usage.begin(*charges) is None
    for charge in charges:
        charge.talk()
    request.getfixturevalue("lost")
    now[0] += 1
    for ended in (charges[:2], charges[2:]):
        for charge in ended:
            charge.end()
        with pytest.raises(Unsent):
            usage.settle()
    assert [float(used) for used in client.hgetall(keys.usage_sums(there)).values()] == [2.0]
    # Nothing was sent to the lost one, so its seconds go back later.
    assert [charge.tickets[0].taken for charge in charges] == [1.0, 10.0, 1.0]


def test_lost_master_fails_its_own_commands_only(client: Any, lost: Master) -> None:
    answers = client.send_all(SET, raise_on_error=False)
    assert [type(answer) for answer in answers] == [Unsent if lost.has(key) else bool for key in KEYS]
    with pytest.raises(Unsent):
        client.send_all(SET)
    with pytest.raises(Unsent):
        client.get(next(filter(lost.has, KEYS)))


def test_calls_of_other_masters_are_written_without_one(client: Any, lost: Master) -> None:
    store = CallStore(client, named(keys.live, lost, on=False))
    integrator = named(keys.calls, lost, on=False)
    made = [save(store, call(integrator=integrator)) for _ in range(20)]
    assert not store.flush()
    reader = CallStore(client)
    there = [one for one in made if not lost.has(keys.call(one["call_ref"]))]
    assert there
    assert [reader.call(one["call_ref"]) for one in there] == there


def events_of(integrator: str) -> str:
    return keys.events(keys.history(integrator))


def test_events_of_other_masters_are_read_without_one(client: Any, lost: Master) -> None:
    names = [named(events_of, lost, on=on) for on in (False, True, False)]
    client.execute_command("XADD", events_of(names[0]), "*", "event", "state", "json", "{}")
    found = EventStore(client).after_each([(name, START) for name in names], 10)
    assert [type(answer) for answer in found] == [list, Unsent, list]
    assert [len(answer) for answer in found if isinstance(answer, list)] == [1, 1]


@pytest.mark.parametrize("stops", [False, True], ids=["live", "at the stop"])
def test_events_of_other_masters_are_written_without_one(client: Any, lost: Master, *, stops: bool) -> None:
    away, there = (named(events_of, lost, on=on) for on in (True, False))
    writer = EventWriter(client)
    writer.listened = frozenset((away, there))
    for integrator, count in (away, event_writer.BATCH), (there, 5):
        for _ in range(count):
            writer.add(
                Attempt(app="click-dial", call_dir="outbound", integrator=integrator), CallEvent(0, "call", '"rank":0')
            )
    for write in [writer.stop] if stops else [writer.flush] * 2:
        with pytest.raises(Unsent):
            write()
    assert len(EventStore(client).after(there, START, 100)) == 5
    # None is sent twice.
    assert {attempt.integrator for attempt, *_rest in writer._due()} == (set() if stops else {away})
