"""Calls in Redis: the newest state wins, and a dead process's call is taken over once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gevent
import pytest
import redis
import redis.cluster
from msgspec.json import encode

from esl_apps.core.reference import new_ref
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import gone_calls, keys, redis_client
from esl_apps.store.calls import CallStore
from esl_apps.store.errors import Fault, NoAnswer
from tests.support import redis_servers
from tests.support.cluster import cluster_of_one
from tests.support.node import RedisServer
from tests.support.peer import eventually
from tests.support.ports import free_port
from tests.support.stored_calls import call, essence_of, save, shown


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    with cluster_of_one() as port:
        yield f"redis+cluster://127.0.0.1:{port}"


@pytest.fixture(params=["redis", "cluster"])
def store(request: pytest.FixtureRequest, redis: RedisServer) -> CallStore:
    url = redis.url if request.param == "redis" else request.getfixturevalue("cluster_url")
    client = redis_client.connect(url)
    client.flushall()
    return CallStore(client, BOOT)


BOOT = "boot-of-a-process"


def test_call_is_found_before_and_after_it_is_written(store: CallStore) -> None:
    one = save(store, call())
    assert store.call(one["call_ref"]) == one
    store.stop()
    assert store.call(one["call_ref"]) == one
    assert store.call(new_ref()) is None


def test_calls_of_an_integrator_come_newest_first(store: CallStore) -> None:
    made = [save(store, call(ref=new_ref(1.7e9 + number))) for number in range(3)]
    save(store, call(integrator="beta"))
    save(store, call(integrator=None))
    assert store.calls("acme", {}, 10, None) == (made[::-1], None)
    assert store.calls("acme", {}, 1, made[2]["call_ref"])[0] == [made[1]]


def test_calls_with_a_rare_filter_end_a_page_and_go_on(store: CallStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_apps.store.calls.SCAN", 100)
    wanted = save(store, call(ref=new_ref(1.7e9), agent="1001"))
    for number in range(1, 450):
        save(store, call(ref=new_ref(1.7e9 + number)))
    found, before = store.calls("acme", {"agent": "1001"}, 10, None)
    assert found == []
    pages = 1
    while before is not None and not found:
        found, before = store.calls("acme", {"agent": "1001"}, 10, before)
        pages += 1
    assert found == [wanted]
    assert pages == 5


def test_calls_are_found_by_a_pair_of_their_metadata(store: CallStore) -> None:
    wanted = save(store, {**call(), "metadata": {"lead": "7", "a.b": "c"}})
    for other in ({"lead": "8"}, {"Lead": "7"}, None):
        save(store, {**call(), "metadata": other})
    save(store, {name: value for name, value in call().items() if name != "metadata"})
    assert store.calls("acme", {"metadata.lead": "7"}, 10, None)[0] == [wanted]
    assert store.calls("acme", {"metadata.a.b": "c", "metadata.lead": "7"}, 10, None)[0] == [wanted]
    assert store.calls("acme", {"metadata.lead": "9"}, 10, None)[0] == []


def test_ended_calls_that_do_not_match_are_read_once(store: CallStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [save(store, call("ended", agent=agent))["call_ref"] for agent in ("1000", "1000", "1001")]
    live = save(store, call("agent_ringing"))["call_ref"]
    assert store.calls("acme", {"agent": "1002"}, 10, None) == ([], None)
    read: list[str] = []
    values = store._values

    def counted(refs: list[str]) -> Any:
        read.extend(refs)
        return values(refs)

    monkeypatch.setattr(store, "_values", counted)
    assert store.calls("acme", {"agent": "1002"}, 10, None) == ([], None)
    # One that is live may change.
    assert read == [live]
    found, _next = store.calls("acme", {"agent": "1001"}, 10, None)
    assert [each["call_ref"] for each in found] == [ended[2]]
    assert len(store.calls("acme", {"state": "ended"}, 10, None)[0]) == 3


def test_live_has_the_calls_that_have_not_ended(store: CallStore) -> None:
    one, other = save(store, call("bridged")), save(store, call("queued"))
    store.stop()
    assert {found.call_ref for found in store.live([BOOT])[BOOT]} == {one["call_ref"], other["call_ref"]}
    assert store.live(["another"]) == {"another": []}
    assert store.essence(one["call_ref"], ["another", BOOT]) == (BOOT, essence_of(one))
    one["state"] = "ended"
    save(store, one)
    store.stop()
    assert store.live([BOOT]) == {BOOT: [essence_of(other)]}
    assert store.essence(one["call_ref"], [BOOT]) is None


def test_call_of_a_dead_process_is_taken_over_once(store: CallStore) -> None:
    one = save(store, call("bridged"))
    store.stop()
    others = [CallStore(store._client, boot) for boot in ("first", "second")]
    essence = essence_of(one)
    assert [other.take_over(essence, BOOT) for other in others] == [True, False]
    assert [other.has(one["call_ref"]) for other in (store, *others)] == [False, True, False]
    others[0].forget(one["call_ref"])
    assert not others[0].has(one["call_ref"])


def test_calls_older_than_a_day_are_removed(store: CallStore) -> None:
    old, new = save(store, call(ref=new_ref(1000.0))), save(store, call())
    store.stop()
    new["state"] = "ended"
    save(store, new)
    store.stop()
    assert old["call_ref"] not in str(store.calls("acme", {}, 10, None))


class SlowClient:
    """A client whose answers are late, and may overtake each other."""

    def __init__(self) -> None:
        self.delays = [0.05, 0.0]
        self.stored: dict[str, bytes] = {}

    def send_all(self, commands: list[tuple[Any, ...]], *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        gevent.sleep(self.delays.pop(0))
        for name, key, *more in commands:
            if name == "SET":
                assert more[1:] == ["EX", 86400]
                self.stored[key] = more[0]
        return [True] * len(commands)

    def closes_within(self, seconds: float) -> bool:
        gevent.sleep(seconds)
        return False

    def get(self, key: str) -> bytes | None:
        return self.stored.get(key)

    def zrevrangebylex(self, *_args: object) -> list[bytes]:
        return []


def test_older_state_never_overwrites_a_newer_one() -> None:
    client = SlowClient()
    store = CallStore(client)
    one = save(store, call("bridged"))
    first = gevent.spawn(store.calls, "acme", {}, 1, None)
    gevent.sleep(0.01)
    one["state"] = "ended"
    save(store, one)
    second = gevent.spawn(store.calls, "acme", {}, 1, None)
    gevent.joinall([first, second], raise_error=True)
    assert b'"ended"' in client.stored[keys.call(one["call_ref"])]


def test_call_is_found_while_it_is_written() -> None:
    client = SlowClient()
    store = CallStore(client)
    one = save(store, call("ended"))
    writing = gevent.spawn(store.calls, "acme", {}, 1, None)
    gevent.sleep(0.01)
    assert store.call(one["call_ref"]) == one
    writing.join()
    assert store.call(one["call_ref"]) == one


def test_call_that_could_not_be_written_is_kept(redis: RedisServer) -> None:
    away = redis_client.connect(f"redis://127.0.0.1:{free_port()}/0")
    store = CallStore(away)
    one = save(store, call())
    store.stop()
    assert store.call(one["call_ref"]) == one
    store._client = store._writes._client = redis_client.connect(redis.url)
    store.stop()
    assert CallStore(redis_client.connect(redis.url)).call(one["call_ref"]) == one


def test_call_of_a_process_that_is_no_member_waits(redis: RedisServer) -> None:
    """When the process dies, others look only for the calls of members."""
    client = redis_client.connect(redis.url)
    client.flushall()
    known = [False, True]

    def make_known() -> None:
        if not known.pop(0):
            raise StoreUnavailable("the part of the cluster that has the nodes is away")

    store = CallStore(client, BOOT, make_known=make_known)
    one = call("bridged")
    store.save(one["call_ref"], lambda: shown(one), encode(essence_of(one)))
    assert not store.flush()
    assert client.keys() == []
    assert store.flush()
    assert store.has(one["call_ref"])


def test_cluster_nodes_are_looked_for_by_one_greenlet(monkeypatch: pytest.MonkeyPatch, cluster_url: str) -> None:
    """In redis-py, greenlets change a table that others read: "dictionary changed size during iteration"."""
    inside: list[int] = []
    runs: list[int] = []

    asks = redis.cluster.NodesManager.initialize

    def initialize(self: redis.cluster.NodesManager) -> None:
        if not self.nodes_cache:
            asks(self)
            return
        inside.append(1)
        runs.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        if failing:
            raise redis.ConnectionError("no node of it")

    def all_at_once() -> set[str]:
        began = threading.Barrier(20)

        def one(_number: int) -> str:
            began.wait()
            try:
                nodes.initialize()
            except redis.ConnectionError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(20) as pool:
            return set(pool.map(one, range(20)))

    failing = False
    monkeypatch.setattr(redis.cluster.NodesManager, "initialize", initialize)
    nodes = redis_client.connect(cluster_url).nodes_manager
    assert all_at_once() == {""}
    # Some may have called after it was over.
    assert set(runs) == {1}
    assert len(runs) < 20
    failing = True
    assert all_at_once() == {"no node of it"}
    assert set(runs) == {1}
    failing = False
    assert all_at_once() == {""}


def test_call_being_written_at_a_stop_is_written(redis: RedisServer) -> None:
    client = redis_client.connect(redis.url)
    client.flushall()

    def make_known() -> None:
        gevent.sleep(0.02)

    store = CallStore(client, BOOT, make_known=make_known)
    one = save(store, call("bridged"))
    writer = gevent.spawn(store.flush)
    gevent.sleep(0.01)
    writer.kill()
    assert not store.has("another")
    store.stop()
    assert CallStore(client).call(one["call_ref"]) == one


def test_cluster_whose_table_changes_is_asked_again(monkeypatch: pytest.MonkeyPatch, cluster_url: str) -> None:
    """redis-py 5 removes a failing node from a table that other greenlets read."""
    asks = redis.cluster.NodesManager.initialize
    faults = [RuntimeError("dictionary changed size during iteration")] * 2

    def initialize(self: redis.cluster.NodesManager) -> None:
        if self.nodes_cache and faults:
            raise faults.pop()
        asks(self)

    monkeypatch.setattr(redis.cluster.NodesManager, "initialize", initialize)
    nodes = redis_client.connect(cluster_url).nodes_manager
    nodes.initialize()
    assert faults == []
    # If it never ends, it is a Redis that is down, which every caller handles.
    faults = [RuntimeError("dictionary changed size during iteration")] * 1000
    with pytest.raises(redis.ConnectionError, match="changed"):
        nodes.initialize()


class FaultyClient(SlowClient):
    """Raises an unforeseen exception once in each method."""

    def __init__(self) -> None:
        super().__init__()
        self.delays = [0.0] * 100
        self.faults = {"ping", "watch", "send"}
        self.pings = 0

    def _fault(self, what: str) -> None:
        if what in self.faults:
            self.faults.discard(what)
            raise RuntimeError(f"a fault of {what}")

    def closes_within(self, seconds: float) -> bool:
        self._fault("watch")
        return super().closes_within(seconds)

    def set(self, *_arguments: object, **_options: object) -> None:
        self.pings += 1
        if self.pings > 1:
            self._fault("ping")

    def send_all(self, commands: list[tuple[Any, ...]], *, raise_on_error: bool) -> list[Any]:
        self._fault("send")
        return super().send_all(commands, raise_on_error=raise_on_error)


def test_greenlets_go_on_whatever_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a chaos run the writer had died, and no other node learnt of this one's calls any more."""
    monkeypatch.setattr("esl_apps.store.redis_watch.PING_EVERY", 0.01)
    monkeypatch.setattr("esl_apps.store.redis_watch.PING_AWAY", 0.01)
    monkeypatch.setattr("esl_apps.store.calls.AGAIN", 0.01)
    client = FaultyClient()
    store = CallStore(client)
    store.start()
    one = save(store, call("bridged"))
    with gevent.Timeout(10):
        while client.faults or not store.watch.healthy or keys.call(one["call_ref"]) not in client.stored:
            gevent.sleep(0.01)
    assert not any(greenlet.dead for greenlet in store._greenlets)
    store.stop()


def test_call_that_cannot_be_read_is_none(store: CallStore, caplog: pytest.LogCaptureFixture) -> None:
    """Other programs may write to the same Redis."""
    one = save(store, call("bridged"))
    store.stop()
    store._client.set(keys.call(one["call_ref"]), b'{"call_ref": 1}')
    store._client.hset(keys.live(BOOT), one["call_ref"], b"[")
    assert store.call(one["call_ref"]) is None
    assert store.calls("acme", {}, 10, None) == ([], None)
    assert store.live([BOOT]) == {BOOT: []}
    assert store.essence(one["call_ref"], [BOOT]) is None
    assert len(caplog.records) == 4


# A Redis that refuses -----------------------------------------------------------------------------------


@pytest.fixture(params=["", *redis_servers.ENDS])
def own(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of the test's own: the machine's, and both ends of what is supported."""
    server = RedisServer(program=redis_servers.program(request.param) if request.param else "")
    yield server
    server.close()


def later(store: CallStore) -> None:
    """Let the time pass after which what was refused is tried again."""
    store._writes._clock = lambda: time.monotonic() + 1000
    store.flush()


def test_index_of_another_type_holds_up_no_other_call(own: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    own.client.set(keys.calls("acme"), "text")
    store = CallStore(redis_client.connect(own.url), BOOT)
    assert store.watch.check()
    made = [save(store, call("bridged", integrator=name)) for name in ("acme", "beta") * 50]
    store.flush()
    assert store.faults == ["redis: esl_apps:calls:acme: WRONGTYPE, a key is of another type"]
    assert store.watch.check()
    assert store.watch.reasons == []
    # Each call can be read, other nodes know all of them, and the other integrator's list is whole.
    reader = CallStore(redis_client.connect(own.url), "another")
    assert [reader.call(one["call_ref"]) for one in made] == made
    assert len(reader.live([BOOT])[BOOT]) == 100
    assert len(reader.calls("beta", {}, 200, None)[0]) == 50
    with pytest.raises(Fault):
        reader.calls("acme", {}, 200, None)
    assert caplog.messages == ["redis_write_refused"]
    own.client.delete(keys.calls("acme"))
    later(store)
    assert len(reader.calls("acme", {}, 200, None)[0]) == 50
    assert (store.faults, store._writes.waiting) == ([], 0)


def test_full_redis_is_not_ready_and_then_gets_all(own: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    backs: list[str] = []
    store = CallStore(redis_client.connect(own.url), BOOT, lambda: backs.append("back"))
    assert store.watch.check()
    own.client.config_set("maxmemory", "1")
    one = save(store, call("bridged"))
    assert not store.flush()
    assert not store.watch.healthy
    assert store.watch.reasons == ["redis: OOM, its memory is full"]
    assert not store.watch.check()
    assert store.call(one["call_ref"]) == one
    own.client.config_set("maxmemory", "0")
    later(store)
    assert store.watch.check()
    assert CallStore(redis_client.connect(own.url)).call(one["call_ref"]) == one
    # Live calls are written again: what waits is bounded, and something may have been dropped.
    assert backs == ["back", "back"]
    assert len([message for message in caplog.messages if message == "redis_write_refused"]) <= 2


def test_call_that_goes_back_is_not_written_later(own: RedisServer) -> None:
    store = CallStore(redis_client.connect(own.url), BOOT)
    own.client.config_set("maxmemory", "1")
    one = save(store, call("bridged"))
    assert not store.flush()
    store.forget(one["call_ref"])
    own.client.config_set("maxmemory", "0")
    later(store)
    assert store.watch.check()
    assert store.live([BOOT]) == {BOOT: []}


def test_replica_is_not_ready(own: RedisServer) -> None:
    store = CallStore(redis_client.connect(own.url), BOOT)
    own.client.replicaof("127.0.0.1", free_port())
    assert not store.watch.check()
    assert store.watch.reasons == ["redis: READONLY, a read-only replica"]
    own.client.replicaof("NO", "ONE")
    assert store.watch.check()
    assert store.watch.reasons == []


def test_user_without_a_right_is_not_ready(own: RedisServer) -> None:
    store = CallStore(redis_client.connect(own.url), BOOT)
    assert store.watch.check()
    own.client.execute_command("ACL", "SETUSER", "default", "-zadd")
    save(store, call("bridged"))
    assert not store.flush()
    assert store.watch.check() is False
    assert store.watch.reasons == ["redis: NOPERM, its user lacks a right"]
    own.client.execute_command("ACL", "SETUSER", "default", "+zadd")
    later(store)
    assert store.watch.check()


def test_refusal_is_forgotten_if_nothing_of_it_waits(own: RedisServer) -> None:
    """A call's next state, which Redis took, has replaced the one that it refused."""
    store = CallStore(redis_client.connect(own.url), BOOT)
    assert store.watch.check()
    own.client.execute_command("ACL", "SETUSER", "default", "-set")
    one = save(store, call("bridged"))
    assert not store.flush()
    own.client.execute_command("ACL", "SETUSER", "default", "+set")
    save(store, {**one, "state": "ended"})
    store.flush()
    assert store._writes.waiting == 0
    later(store)
    assert store.watch.check()


def test_keys_of_another_type_hide_no_other_call(store: CallStore, caplog: pytest.LogCaptureFixture) -> None:
    one, other = save(store, call("bridged")), save(store, call("bridged"))
    store.stop()
    client = store._client
    client.delete(keys.call(one["call_ref"]))
    client.lpush(keys.call(one["call_ref"]), "x")
    client.set(keys.live("another"), "x")
    assert store.calls("acme", {}, 10, None)[0] == [other]
    assert len(store.live(["another", BOOT])[BOOT]) == 2
    assert store.essence(one["call_ref"], ["another", BOOT]) is not None
    store.refresh([(one["call_ref"], "acme")])
    for _ in range(3):
        store.calls("acme", {}, 10, None)
        store.live(["another"])
    # Each key once.
    assert caplog.messages == ["key_unreadable"] * 2


def test_refused_calls_are_kept_in_a_bounded_number(
    store: CallStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Anyone can call and be refused; each call took 2 KB for a day."""
    monkeypatch.setattr("esl_apps.store.calls.REFUSED_PER_HOUR", 10)
    refs = [new_ref(1.7e9 + number) for number in range(100)]
    for ref in refs:
        # Other nodes see each while it lives.
        save(store, call("queued", ref=ref))
        store.flush()
        assert store.live([BOOT])[BOOT]
        ended = call("ended", ref=ref)
        store.save(ref, lambda ended=ended: shown(ended), None, refused=True)  # type: ignore[misc]
        store.flush()
    client = store._client
    assert sum(bool(client.exists(keys.call(ref))) for ref in refs) == 10
    assert client.zcard(keys.calls("acme")) <= 10
    assert client.hlen(keys.live(BOOT)) == 0
    assert caplog.messages == ["refused_calls_not_kept"]
    # Calls that were placed are not counted.
    placed = save(store, call("ended"))
    store.flush()
    assert store.call(placed["call_ref"]) == placed


def test_calls_ended_while_redis_is_away_stay_bounded(away: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_apps.store.write_behind.MOST", 100)
    store = CallStore(away, BOOT)
    for _ in range(500):
        save(store, call("ended"))
    assert not store.flush()
    assert store._writes.waiting <= 300
    assert store._pending == {}


def test_live_calls_of_many_are_read_in_turns(store: CallStore, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[object] = []
    monkeypatch.setattr("esl_apps.net.turns.take_turn", turns.append)
    raw = encode(essence_of(call()))
    store._client.hset(keys.live(BOOT), mapping={str(number): raw for number in range(2000)})
    assert len(store.live([BOOT])[BOOT]) == 2000
    assert len(turns) == 100


def test_call_is_listed_once_and_again_by_a_redis_that_was_lost(store: CallStore, monkeypatch: Any) -> None:
    """Listing it with each of its states took a quarter of the commands."""
    one = save(store, call())
    store.flush()
    store._client.delete(keys.calls("acme"))
    save(store, {**one, "state": "bridged"})
    store.flush()
    assert listed(store) == []
    monkeypatch.setattr(store.watch, "_trouble", "redis: no answer")
    store.watch.check()
    save(store, {**one, "state": "bridged"})
    store.flush()
    assert listed(store) == [one["call_ref"]]


def test_call_of_another_integrator_leaves_the_list_of_the_first(store: CallStore) -> None:
    one = save(store, call(integrator="beta"))
    store.flush()
    moved = save(store, {**one, "integrator": "acme"})
    assert store.calls("acme", {}, 10, None) == ([moved], None)
    assert store.calls("beta", {}, 10, None) == ([], None)


def test_list_drops_calls_of_more_than_a_day_ago_once_a_minute(store: CallStore, monkeypatch: Any) -> None:
    old, older = (new_ref(time.time() - days * 86400) for days in (2, 3))
    now = time.time()
    for ref, at in ((old, now), (older, now + 59), (older, now + 61)):
        store._client.execute_command("ZADD", keys.calls("acme"), 0, ref)
        monkeypatch.setattr(store._trim, "_now", lambda at=at: at)
        last = save(store, call("ended"))
        store.flush()
        assert (ref in listed(store)) == (at == now + 59)
        assert last["call_ref"] in listed(store)


def listed(store: CallStore) -> list[str]:
    return [ref.decode() for ref in store._client.execute_command("ZRANGE", keys.calls("acme"), 0, -1)]


# Calls that Redis has again -------------------------------------------------------------------------------


def lost_end(store: CallStore, one: dict[str, Any]) -> dict[str, Any]:
    """End a call, and have Redis lose that."""
    client, live = store._client, keys.live(BOOT)
    store.flush()
    before = client.hget(live, one["call_ref"]), client.get(keys.call(one["call_ref"]))
    ended = save(store, {**one, "state": "ended"})
    store.flush()
    client.hset(live, one["call_ref"], before[0])
    client.set(keys.call(one["call_ref"]), before[1])
    client.delete(keys.calls("acme"))
    return ended


def in_redis(store: CallStore) -> set[str]:
    """The calls that Redis has as this process's."""
    return {raw.decode() for raw in store._client.hkeys(keys.live(BOOT))}


def test_ended_call_that_redis_has_again_ends_there_too(store: CallStore, caplog: pytest.LogCaptureFixture) -> None:
    ended = lost_end(store, save(store, call("bridged")))
    up = save(store, call("bridged"))
    store.flush()
    store.remove_gone()
    assert in_redis(store) == {up["call_ref"]}
    store.flush()
    assert store.call(ended["call_ref"]) == ended
    assert ended["call_ref"] in listed(store)
    store.remove_gone()
    assert caplog.messages == ["ended_calls_removed"]


def test_ended_call_goes_once_redis_is_back(store: CallStore) -> None:
    ended = lost_end(store, save(store, call("bridged")))
    store.watch._trouble = "redis: no answer"
    watching = gevent.spawn(store._watch_gone)
    gevent.sleep(0.01)
    assert in_redis(store) == {ended["call_ref"]}
    store.watch.check()
    eventually(lambda: in_redis(store) == set())
    watching.kill()


def test_ended_call_is_not_left_to_the_next_run(store: CallStore) -> None:
    ended = lost_end(store, save(store, call("bridged")))
    store.watch.check()
    store.stop()
    assert in_redis(store) == set()
    assert store.call(ended["call_ref"]) == ended


def test_call_without_a_known_end_is_left_in_redis(store: CallStore) -> None:
    """It is among no live calls while its caller is back and has not chosen a number yet."""
    other = CallStore(store._client, "other")
    one = save(other, call("bridged"))
    other.flush()
    assert store.take_over(essence_of(one), "other")
    store.remove_gone()
    # Also if an earlier end of it is known here.
    lost_end(store, save(store, one))
    other._client.hset(keys.live("other"), one["call_ref"], encode(essence_of(one)))
    assert store.take_over(essence_of(one), "other")
    store.remove_gone()
    assert in_redis(store) == {one["call_ref"]}
    lost_end(store, save(store, one))
    save(store, one)
    store.remove_gone()
    assert in_redis(store) == {one["call_ref"]}


def test_end_that_waits_to_be_written_is_not_removed(store: CallStore) -> None:
    one = save(store, call("bridged"))
    store.flush()
    save(store, {**one, "state": "ended"})
    store._queue(one["call_ref"], *store._pending.pop(one["call_ref"]))
    store.remove_gone()
    assert in_redis(store) == {one["call_ref"]}
    store.flush()
    assert in_redis(store) == set()


def test_call_whose_takeover_had_no_answer_is_removed(store: CallStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may have taken it over since."""
    one, done = call("bridged"), store._client.hset

    def answer_lost(*args: Any) -> None:
        done(*args)
        raise NoAnswer("redis: no answer")

    monkeypatch.setattr(store._client, "hset", answer_lost)
    with pytest.raises(NoAnswer):
        store.take_over(essence_of(one), "dead")
    assert (in_redis(store), store.unanswered) == ({one["call_ref"]}, {})
    store.remove_gone()
    assert in_redis(store) == set()


def test_call_that_another_took_first_is_removed(store: CallStore, monkeypatch: pytest.MonkeyPatch) -> None:
    one = call("bridged")

    def second_lost(key: str, *_refs: str) -> int:
        if key == keys.live(BOOT):
            raise NoAnswer("redis: no answer")
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(store._client, "hdel", second_lost)
        with pytest.raises(NoAnswer):
            store.take_over(essence_of(one), "dead")
    assert in_redis(store) == {one["call_ref"]}
    store.remove_gone()
    assert in_redis(store) == set()


def test_call_that_went_back_and_that_redis_has_again_is_removed(store: CallStore) -> None:
    one = save(store, call("bridged"))
    store.flush()
    store.forget(one["call_ref"])
    store._client.hset(keys.live(BOOT), one["call_ref"], encode(essence_of(one)))
    store.remove_gone()
    assert in_redis(store) == set()


def test_gone_calls_are_remembered_in_a_bounded_number(store: CallStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gone_calls, "MOST", 20)
    monkeypatch.setattr(gone_calls, "ENDS", 5)
    for _ in range(40):
        save(store, call("ended"))
    store.flush()
    assert (len(store._gone._refs), len(store._gone._ends)) == (20, 5)
