"""Whether a node takes calls, and why not."""

from __future__ import annotations

import shutil

import pytest

from esl_apps.core.notification import CDR_LIST
from esl_apps.store import keys, record_history
from esl_apps.store.errors import NoAnswer, refusal
from tests.support.bench import Bench, Build, placed
from tests.support.peer import eventually
from tests.support.records import item, record_of


def test_readiness_node_with_all_its_parts_takes_calls(bench: Bench) -> None:
    assert bench.services.readiness.reasons() == []
    assert not bench.services.readiness.full


def test_readiness_names_every_reason(build: Build) -> None:
    bench = build(switches=("fs1", "fs2"))
    bench.services.readiness.draining = True
    bench.services.store.watch._away(NoAnswer("redis: gone"))
    assert bench.services.readiness.reasons() == [
        "draining",
        "switch fs1: not connected yet",
        "switch fs2: not connected yet",
        "redis: no answer",
    ]


def test_readiness_one_switch_of_two_is_enough(build: Build) -> None:
    bench = build(switches=("fs1", "fs2")).connect()
    bench.switches["fs2"].server.stop()
    bench.switches["fs2"].drop()
    eventually(lambda: not bench.services.switches[1].connected)
    assert bench.services.readiness.reasons() == []


@pytest.mark.parametrize(("calls", "sockets", "full"), [(1, 2, False), (2, 0, True), (0, 3, True)])
def test_readiness_counts_calls_and_sockets(build: Build, calls: int, sockets: int, full: bool) -> None:
    """A call whose first leg still rings has no socket yet."""
    bench = build(max_calls=2)
    for _ in range(calls):
        bench.services.calls.begin(placed().attempt, bench.services.switches[0])
    bench.services.readiness.sockets = sockets
    assert bench.services.readiness.full is full


def test_readiness_leaves_sockets_for_legs_on_their_way(build: Build) -> None:
    readiness = build(max_calls=2).services.readiness
    seen = []
    for readiness.sockets in (2, 257, 258, 514):
        seen.append(readiness.has_most_sockets)
    assert seen == [False, False, True, True]


def test_readiness_names_what_redis_refuses(bench: Bench) -> None:
    readiness, store, control = bench.services.readiness, bench.services.store, bench.redis_server.client
    assert readiness.problems() == []
    # Of one key, and of one list: calls go on, but a person has to mend them.
    for key in (keys.calls("acme"), CDR_LIST):
        control.set(key, "text")
    bench.services.calls.begin(placed(integrator="acme").attempt, bench.services.switches[0])
    bench.flush()
    outbox = bench.services.outboxes.of(None)
    outbox.push(item(1, list=CDR_LIST))
    outbox.start()
    eventually(lambda: len(readiness.problems()) == 2)
    assert readiness.problems() == [
        "redis: esl_apps:calls:acme: WRONGTYPE, a key is of another type",
        f"redis: {CDR_LIST}: WRONGTYPE, a key is of another type; its records wait",
    ]
    assert readiness.reasons() == []
    # All of them: nothing can be placed.
    store.watch._away(refusal("OOM command not allowed when used memory > 'maxmemory'."))
    assert readiness.reasons() == ["redis: OOM, its memory is full"]


@pytest.mark.parametrize("key", [keys.history("acme"), keys.events(keys.history("acme"))], ids=["history", "events"])
def test_history_of_another_type_holds_up_only_itself(bench: Bench, key: str) -> None:
    readiness, history, control = bench.services.readiness, bench.services.outboxes.history, bench.redis_server.client
    history.start()
    control.set(key, "text")
    for integrator in ("acme", "beta"):
        attempt = placed(integrator=integrator).attempt
        history.push(record_history.entry(attempt, [], record_of(attempt.call_ref), keep=True))
    eventually(lambda: control.zcard(keys.history("beta")) == 1 and history.depth == 1 and readiness.problems())
    assert readiness.problems() == [f"redis: {key}: WRONGTYPE, a key is of another type; its records wait"]
    control.delete(key)
    eventually(lambda: control.zcard(keys.history("acme")) == 1 and not readiness.problems())


def test_readiness_names_a_state_folder_that_was_removed(bench: Bench) -> None:
    folder = bench.folder / "state"
    shutil.rmtree(folder)
    readiness = bench.services.readiness
    (problem,) = readiness.problems()
    assert problem.startswith(f"{folder}/outbox/app1 was removed")
    assert readiness.reasons() == []
