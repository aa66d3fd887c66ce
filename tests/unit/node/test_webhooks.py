"""Deliveries: ordered, at least once, retried, set aside, taken over; verified as receivers verify them."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import msgspec
import pytest
from gevent.event import Event as Flag
from standardwebhooks import Webhook as Verifier

from esl_apps.config.model import Config
from esl_apps.config.webhooks import Webhook
from esl_apps.net.destination import read_url
from esl_apps.net.post import Poster
from esl_apps.net.resolver import Resolver
from esl_apps.node import webhooks as module
from esl_apps.node.webhooks import Webhooks
from esl_apps.observe.metrics import Metrics
from esl_apps.store import keys, redis_client
from esl_apps.store.errors import NoAnswer, RedisRefused
from esl_apps.store.webhook_queue import Held, WebhookQueue, targets
from tests.support.bench import Breakable, node_config
from tests.support.node import RedisServer
from tests.support.peer import eventually
from tests.support.receiver import OK, Receiver, answer, hang, reset

SECRETS = ["whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"a", b"b")]
DAY = 86400.0
START = 1_800_000_000.0


class Node:
    """The deliveries of one process."""

    def __init__(self, bed: Bed, boot: str) -> None:
        self.client: Any = Breakable(redis_client.connect(bed.redis.url))
        self.metrics = Metrics()
        self.config = bed.config
        self.webhooks = Webhooks(
            lambda: self.config,
            WebhookQueue(self.client, boot, bed.now),
            self.metrics,
            bed.tell,
            bed.now,
            lambda: len(bed.nodes) == 1,
        )
        self.webhooks.start()

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def kill(self) -> None:
        """End as a killed process does: it gives nothing back."""
        held = self.webhooks
        for delivery in held._held.values():
            delivery.stop()
        held._held.clear()
        if held._greenlet is not None:
            held._greenlet.kill()


class Bed:
    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.redis = redis
        self.folder = folder
        self.at = START
        self.alerts: list[tuple[str, dict[str, Any]]] = []
        self.receivers: list[Receiver] = []
        self.nodes: list[Node] = []
        self.config: Config = self.configured()

    def now(self) -> float:
        return self.at

    def tell(self, kind: str, **details: Any) -> None:
        self.alerts.append((kind, details))

    def configured(self, *hooks: dict[str, Any]) -> Config:
        config = node_config(self.redis.url, self.folder, {"fs1": ("127.0.0.1", 8021)})
        (acme,) = config.integrators
        listed = msgspec.convert(list(hooks), list[Webhook])
        return msgspec.structs.replace(config, integrators=[msgspec.structs.replace(acme, webhooks=listed)])

    def receiver(self, *acts: Any) -> Receiver:
        self.receivers.append(Receiver(*acts))
        return self.receivers[-1]

    def begin(self, *hooks: dict[str, Any]) -> Node:
        self.config = self.configured(*hooks)
        return self.node()

    def node(self) -> Node:
        self.nodes.append(Node(self, f"boot{len(self.nodes)}"))
        return self.nodes[-1]

    def push(self, count: int = 1, name: str = "crm") -> None:
        queue = keys.webhook("acme", name)
        for _ in range(count):
            seq = self.redis.client.incr(keys.seq(queue))
            text = json.dumps({"id": f"cdr_{seq}", "body": {"type": "cdr", "payload": {"seq": seq}}})
            self.redis.client.xadd(queue, {"seq": seq, "json": text}, id=f"{int(self.at * 1000)}-{seq}")

    def state(self, name: str = "crm") -> dict[str, str]:
        found: dict[str, str] = self.redis.client.hgetall(keys.webhook_state(keys.webhook("acme", name)))
        return found

    def replay(self, since: float, name: str = "crm") -> int:
        queue = WebhookQueue(redis_client.connect(self.redis.url), clock=self.now)
        return queue.replay(keys.webhook("acme", name), since)


@pytest.fixture
def bed(redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    redis.client.flushall()
    monkeypatch.setattr(module, "EVERY", 0.01)
    monkeypatch.setattr(module, "BACKOFF_FIRST", 0.005)
    monkeypatch.setattr(module, "BACKOFF_LAST", 0.02)
    monkeypatch.setattr(module, "GRACE", 0.2)
    made = Bed(redis, tmp_path)
    yield made
    for node in made.nodes:
        node.kill()
    for one in made.receivers:
        one.close()


def hook(to: Receiver, **more: Any) -> dict[str, Any]:
    return {"name": "crm", "url": to.url, "secrets": SECRETS[:1], "allow_http": True, "allow_private": True, **more}


def seqs(to: Receiver) -> list[int]:
    return [post.payload["seq"] for post in to.taken]


def taken(to: Receiver, count: int) -> Callable[[], bool]:
    return lambda: len(to.taken) >= count


# In order, signed -----------------------------------------------------------------------------------------


def test_posts_are_in_order_and_verified(bed: Bed) -> None:
    to = bed.receiver()
    node = bed.begin(hook(to))
    bed.push(120)
    eventually(taken(to, 120))
    assert seqs(to) == list(range(1, 121))
    for post in to.posts:
        assert Verifier(SECRETS[0]).verify(post.body, post.headers) == {"type": "cdr", "payload": post.payload}
    assert to.connections == 1
    eventually(lambda: bed.state().get("seq") == "120")
    assert node.value("esl_apps_webhook_attempts_total", webhook="crm", outcome="delivered") == 120


def test_both_secrets_of_a_rotation_sign(bed: Bed) -> None:
    to = bed.receiver()
    bed.begin(hook(to, secrets=SECRETS))
    bed.push()
    eventually(taken(to, 1))
    for secret in SECRETS:
        Verifier(secret).verify(to.posts[0].body, to.posts[0].headers)


def test_push_wakes_the_delivery_at_once(bed: Bed) -> None:
    to = bed.receiver()
    node = bed.begin(hook(to))
    eventually(lambda: node.webhooks._held)
    assert node.webhooks._greenlet is not None
    node.webhooks._greenlet.kill()
    bed.push()
    node.webhooks.wake("enigma:notifications:cdr")
    node.webhooks.wake(keys.webhook("acme", "crm"))
    eventually(taken(to, 1))


def test_notifications_pushed_one_by_one_are_read_together(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    read = WebhookQueue.read

    def counted(queue: WebhookQueue, name: str, count: int) -> Any:
        state = read(queue, name, count)
        counts.append(len(state.entries))
        return state

    to = bed.receiver()
    node = bed.begin(hook(to))
    eventually(lambda: node.webhooks._held)
    pushed = Flag()
    gather = SimpleNamespace(
        **{**vars(gevent), "sleep": lambda left: pushed.wait() if left > 60.0 else gevent.sleep(left)}
    )
    monkeypatch.setattr(module, "GATHER", 3600.0)
    monkeypatch.setattr(module, "gevent", gather)
    monkeypatch.setattr(WebhookQueue, "read", counted)
    for number in range(1, 9):
        bed.push()
        node.webhooks.wake(keys.webhook("acme", "crm"))
        if number == 1:
            eventually(taken(to, 1))
        gevent.sleep(0.005)
    pushed.set()
    eventually(taken(to, 8))
    assert [count for count in counts if count] == [1, 7]


# Attempts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (answer(500), "status 500"),
        (answer(404), "status 404"),
        (answer(307, "location: https://example.com/"), "redirects are not followed"),
        (reset, "closed without an answer"),
        (b"nonsense\r\n\r\n", "isn't HTTP"),
    ],
)
def test_what_is_not_taken_is_posted_again_with_its_id(bed: Bed, act: Any, words: str, caplog: Any) -> None:
    to = bed.receiver(act, act)
    node = bed.begin(hook(to))
    bed.push(3)
    eventually(taken(to, 3))
    assert [post.id for post in to.posts] == ["cdr_1"] * 3 + ["cdr_2", "cdr_3"]
    assert seqs(to) == [1, 2, 3]
    assert node.value("esl_apps_webhook_attempts_total", webhook="crm", outcome="failed") == 2
    failing = [record for record in caplog.records if record.message == "webhook_failing"]
    assert len(failing) == 1
    assert words in failing[0].reason
    eventually(lambda: "failures" not in bed.state())


def test_hanging_receiver_is_given_up(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "poster", lambda webhook, resolver: quick(webhook, resolver))
    to = bed.receiver(hang)
    bed.begin(hook(to))
    bed.push(2)
    eventually(taken(to, 2))
    assert [post.id for post in to.posts] == ["cdr_1", "cdr_1", "cdr_2"]


def quick(webhook: Any, resolver: Any) -> Any:
    return Poster(read_url(webhook.url), resolver, allow_private=webhook.allow_private, patience=1.0)


def test_dead_receiver_delays_no_other(bed: Bed) -> None:
    dead, alive = bed.receiver(*[hang] * 50), bed.receiver()
    bed.begin(hook(dead, name="dead"), hook(alive))
    bed.push(20, "dead")
    bed.push(20)
    eventually(taken(alive, 20))
    assert dead.taken == []


def test_pause_grows_and_is_the_one_asked_for(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_FIRST", 1.0)
    monkeypatch.setattr(module, "BACKOFF_LAST", 300.0)
    to = bed.receiver(answer(503, "retry-after: 50"), answer(503, "retry-after: 9999999"), *[answer(500)] * 12)
    bed.begin()
    bed.push()
    node = bed.nodes[0]
    bed.config = node.config = bed.configured(hook(to))
    (one,) = targets(bed.config)
    made = module.Delivery(
        one, WebhookQueue(node.client, "boot0", bed.now), Resolver(1), node.metrics, bed.tell, bed.now
    )
    made.held(time.monotonic() + 60, Held(1, 0, None))
    pauses = [made.step() for _ in range(12)]
    assert pauses[0] == 50
    assert pauses[1] == module.BACKOFF_ASKED
    for i, pause in enumerate(pauses[2:], 2):
        assert 0.5 * min(2**i, 300) <= pause <= min(2**i, 300)
    assert made.failures == 12
    made.stop()


def test_pause_grows_while_redis_refuses_to_note_failures(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_FIRST", 1.0)
    monkeypatch.setattr(module, "BACKOFF_LAST", 300.0)

    def failed(*_arguments: object, **_options: object) -> None:
        raise RedisRefused("OOM", "OOM command not allowed")

    monkeypatch.setattr(WebhookQueue, "failed", failed)
    to = bed.receiver(*[answer(500)] * 9, OK, answer(500))
    bed.begin()
    bed.push(2)
    node = bed.nodes[0]
    (one,) = targets(bed.configured(hook(to)))
    made = module.Delivery(
        one, WebhookQueue(node.client, "boot0", bed.now), Resolver(1), node.metrics, bed.tell, bed.now
    )
    made.held(time.monotonic() + 60, Held(2, 0, None))
    for i in range(9):
        assert 0.5 * min(2**i, 300) <= made.step() <= min(2**i, 300)
    assert made.step() <= 1.0
    made.stop()


def test_failures_are_counted_from_the_last_delivery(bed: Bed) -> None:
    to = bed.receiver(answer(500), answer(500), OK, answer(500))
    bed.begin(hook(to))
    bed.push(2)
    eventually(taken(to, 2))
    eventually(lambda: bed.state().get("seq") == "2")


def test_entry_that_something_else_wrote_holds_up_nothing(bed: Bed, caplog: Any) -> None:
    to = bed.receiver()
    bed.redis.client.set(keys.seq(keys.webhook("acme", "crm")), 1)
    bed.redis.client.xadd(keys.webhook("acme", "crm"), {"seq": 1, "json": "{"}, id=f"{int(bed.at * 1000)}-1")
    bed.push()
    bed.begin(hook(to))
    eventually(taken(to, 1))
    assert "webhook_entry_unreadable" in caplog.messages


# Set aside, switched off, replayed ------------------------------------------------------------------------


def test_three_days_of_failures_set_all_old_entries_aside(bed: Bed, caplog: Any) -> None:
    to = bed.receiver(*[answer(500)] * 100_000)
    node = bed.begin(hook(to))
    bed.push(60)
    eventually(lambda: int(bed.state().get("failures", 0)) > 1)
    bed.at += 2 * DAY
    bed.push(2)
    tried = len(to.posts)
    eventually(lambda: len(to.posts) > tried + 2)
    assert "aside" not in bed.state()
    bed.at += DAY + 1
    eventually(lambda: bed.state().get("aside") == "60")
    assert bed.state()["seq"] == "60"
    eventually(lambda: to.posts[-1].id == "cdr_61")
    assert [kind for kind, _details in bed.alerts] == ["webhook_set_aside"]
    assert node.value("esl_apps_webhook_set_aside_total", webhook="crm") == 60
    assert "webhook_set_aside" in caplog.messages


def test_old_entries_are_tried_for_their_whole_time(bed: Bed) -> None:
    """All nodes were down for a week."""
    bed.push(2)
    bed.at += 7 * DAY
    to = bed.receiver(answer(500), answer(500))
    bed.begin(hook(to))
    eventually(taken(to, 2))
    assert "aside" not in bed.state()


def test_what_was_set_aside_can_be_replayed(bed: Bed) -> None:
    to = bed.receiver(*[answer(500)] * 100_000)
    bed.begin(hook(to))
    bed.push(5)
    eventually(lambda: bed.state().get("failures"))
    bed.at += 3 * DAY + 1
    eventually(lambda: bed.state().get("aside") == "5")
    to.acts.clear()
    assert bed.replay(START) == 5
    eventually(taken(to, 5))
    assert seqs(to) == [1, 2, 3, 4, 5]


def test_410_switches_off_and_nothing_more_is_posted(bed: Bed, caplog: Any) -> None:
    to = bed.receiver(answer(410))
    node = bed.begin(hook(to))
    bed.push(2)
    eventually(lambda: bed.state().get("off"))
    bed.push()
    gevent.sleep(0.1)
    assert len(to.posts) == 1
    assert [kind for kind, _details in bed.alerts] == ["webhook_off"]
    assert node.value("esl_apps_webhook_off", webhook="crm") == 1
    assert "webhook_off" in caplog.messages
    # Another process doesn't try it either.
    node.kill()
    bed.redis.client.delete(keys.webhook_lease(keys.webhook("acme", "crm")))
    bed.node()
    gevent.sleep(0.1)
    assert len(to.posts) == 1


def test_replay_switches_on_again(bed: Bed) -> None:
    to = bed.receiver(answer(410))
    node = bed.begin(hook(to))
    bed.push(2)
    eventually(lambda: bed.state().get("off"))
    assert bed.replay(bed.at + 1) == 2
    eventually(taken(to, 2))
    assert seqs(to) == [1, 2]
    eventually(lambda: node.value("esl_apps_webhook_off", webhook="crm") == 0)


def test_other_url_switches_on_again(bed: Bed) -> None:
    gone, to = bed.receiver(answer(410)), bed.receiver()
    node = bed.begin(hook(gone))
    bed.push(2)
    eventually(lambda: bed.state().get("off"))
    node.config = bed.configured(hook(to))
    node.webhooks.start()
    eventually(taken(to, 2))
    assert len(gone.posts) == 1


def test_entries_of_a_webhook_that_is_off_are_set_aside(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE", 0.01)
    to = bed.receiver(answer(410))
    bed.begin(hook(to))
    bed.push(2)
    eventually(lambda: bed.state().get("off"))
    bed.at += 3 * DAY + 1
    eventually(lambda: bed.state().get("aside") == "2")
    assert len(to.posts) == 1


def test_replay_repeats_what_was_delivered(bed: Bed) -> None:
    to = bed.receiver()
    bed.begin(hook(to))
    bed.push(3)
    eventually(lambda: bed.state().get("seq") == "3")
    assert bed.replay(START) == 3
    eventually(taken(to, 6))
    assert seqs(to) == [1, 2, 3, 1, 2, 3]


# Processes ------------------------------------------------------------------------------------------------


def test_one_process_delivers(bed: Bed) -> None:
    to = bed.receiver()
    first = bed.begin(hook(to))
    eventually(lambda: first.webhooks._held)
    second = bed.node()
    gevent.sleep(0.05)
    assert not second.webhooks._held
    bed.push(10)
    eventually(taken(to, 10))
    assert seqs(to) == list(range(1, 11))
    assert second.value("esl_apps_webhook_depth", webhook="crm") is None


def test_other_process_goes_on_after_a_death(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    to = bed.receiver(*[OK] * 30, *[hang])
    first = bed.begin(hook(to))
    bed.push(60)
    eventually(lambda: len(to.posts) == 31)
    second = bed.node()
    first.kill()
    # The lease of a dead process ends by itself.
    bed.redis.client.pexpire(keys.webhook_lease(keys.webhook("acme", "crm")), 20)
    eventually(lambda: bed.state().get("seq") == "60")
    assert sorted(set(seqs(to))) == list(range(1, 61))
    firsts = list(dict.fromkeys(seqs(to)))
    assert firsts == list(range(1, 61))
    assert second.webhooks._held


def test_process_that_was_suspended_posts_nothing_more(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own clock stood still, so it still believes in its lease."""
    monkeypatch.setattr(module, "MARK_EVERY", 0.0)
    held_back, come = Flag(), Flag()

    def stall(sock: Any) -> None:
        held_back.set()
        come.wait()
        sock.sendall(OK)

    def slow(sock: Any) -> None:
        gevent.sleep(0.02)
        sock.sendall(OK)

    to = bed.receiver(*[OK] * 3, stall, *[slow] * 100)
    first = bed.begin(hook(to))
    bed.push(30)
    held_back.wait(5)
    assert first.webhooks._greenlet is not None
    first.webhooks._greenlet.kill()
    (delivery,) = first.webhooks._held.values()
    delivery._until = math.inf
    bed.redis.client.delete(keys.webhook_lease(keys.webhook("acme", "crm")))
    bed.node()
    eventually(lambda: len(to.posts) > 12)
    come.set()
    eventually(lambda: bed.state().get("seq") == "30")
    posted = [post.payload["seq"] for post in to.posts]
    # Only the one that was on its way comes twice.
    assert posted == [1, 2, 3, 4, *range(4, 31)]


def test_failure_of_a_process_without_its_lease_is_not_noted(bed: Bed) -> None:
    to = bed.receiver(answer(410))
    (one,) = targets(bed.configured(hook(to)))
    bed.push()
    queue = WebhookQueue(redis_client.connect(bed.redis.url), "old", bed.now)
    delivery = module.Delivery(one, queue, Resolver(1), Metrics(), bed.tell, bed.now)
    delivery._until = math.inf
    WebhookQueue(redis_client.connect(bed.redis.url), "new", bed.now).hold([one.queue])
    delivery.step()
    assert "off" not in bed.state()
    assert bed.alerts == []
    # Nor does it post again before it holds the lease.
    assert delivery.step() == module.EVERY
    assert len(to.posts) == 1
    delivery.stop()


def test_process_that_stops_hands_over_at_once(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 30.0)
    stops = Flag()

    def slow(sock: Any) -> None:
        stops.wait()
        sock.sendall(OK)

    to = bed.receiver(*[OK] * 5, slow)
    first = bed.begin(hook(to))
    bed.push(20)
    eventually(lambda: len(to.posts) == 6)
    second = bed.node()
    (delivery,) = first.webhooks._held.values()
    stopping = gevent.spawn(first.webhooks.stop)
    eventually(lambda: not delivery._may)
    stops.set()
    stopping.get()
    eventually(lambda: bed.state().get("seq") == "20")
    assert [post.payload["seq"] for post in to.posts] == list(range(1, 21))
    assert second.webhooks._held


def test_redis_that_is_away_repeats_at_most_what_was_not_marked(bed: Bed) -> None:
    # The batch is read, and its mark fails.
    def lose_redis(sock: Any) -> None:
        bed.nodes[0].client.break_after()
        sock.sendall(OK)

    to = bed.receiver(lose_redis)
    bed.push(5)
    node = bed.begin(hook(to))
    eventually(lambda: len(to.posts) == 5)
    gevent.sleep(0.05)
    assert bed.state().get("seq") is None
    node.client.left = None
    eventually(lambda: bed.state().get("seq") == "5")
    assert len(to.posts) == 5


def test_process_without_a_lease_posts_nothing(bed: Bed) -> None:
    to = bed.receiver()
    bed.push()
    (one,) = targets(bed.configured(hook(to)))
    queue = WebhookQueue(redis_client.connect(bed.redis.url), "boot", bed.now)
    made = module.Delivery(one, queue, Resolver(1), Metrics(), bed.tell, bed.now)
    assert made.step() == module.EVERY
    assert to.posts == []
    made.stop()


def test_next_process_keeps_the_pause_of_the_last(bed: Bed) -> None:
    to = bed.receiver()
    bed.push()
    queue = WebhookQueue(redis_client.connect(bed.redis.url), clock=bed.now)
    queue.failed(keys.webhook("acme", "crm"), 500, "status 500", pause=60)
    node = bed.begin(hook(to))
    eventually(lambda: node.value("esl_apps_webhook_failing_seconds", webhook="crm") is not None)
    gevent.sleep(0.1)
    assert to.posts == []
    bed.replay(bed.at)
    eventually(taken(to, 1))


def test_receiver_that_one_process_does_not_reach_is_anothers(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HAND_ON", 0.0)
    to = bed.receiver()
    unreached = hook(to, url="http://127.0.0.1:1/")
    first = bed.begin(unreached)
    bed.push()
    eventually(lambda: int(bed.state().get("failures", 0)) > 2)
    # Alone, it goes on trying.
    assert first.webhooks._held
    bed.config = bed.configured(hook(to))
    bed.at += 60
    bed.node()
    eventually(taken(to, 1))


def test_failing_time_grows_between_attempts(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_FIRST", 300.0)
    monkeypatch.setattr(module, "BACKOFF_LAST", 300.0)
    to = bed.receiver(answer(500))
    node = bed.begin(hook(to))
    bed.push()
    eventually(lambda: bed.state().get("failures"))
    bed.at += 100
    eventually(lambda: node.value("esl_apps_webhook_failing_seconds", webhook="crm") == 100)
    # Once all was set aside, nothing is tried.
    queue = WebhookQueue(redis_client.connect(bed.redis.url))
    state = queue.read(keys.webhook("acme", "crm"), 10)
    assert queue.set_aside(keys.webhook("acme", "crm"), state.done, state.entries[-1], 1)
    eventually(lambda: node.value("esl_apps_webhook_failing_seconds", webhook="crm") == 0)


# Configuration --------------------------------------------------------------------------------------------


def test_without_webhooks_nothing_runs_and_nothing_is_asked(bed: Bed) -> None:
    node = bed.begin()
    gevent.sleep(0.05)
    assert node.webhooks._greenlet is None
    assert node.client.asked == 0
    node.webhooks.stop()


def test_webhook_of_a_reload_is_delivered(bed: Bed) -> None:
    to = bed.receiver()
    node = bed.begin()
    bed.push()
    node.config = bed.configured(hook(to))
    node.webhooks.start()
    eventually(taken(to, 1))


def test_webhook_that_a_reload_removes_is_left_alone(bed: Bed) -> None:
    to = bed.receiver()
    node = bed.begin(hook(to))
    eventually(lambda: node.webhooks._held)
    node.config = bed.configured()
    node.webhooks.start()
    eventually(lambda: not node.webhooks._held)
    bed.push()
    gevent.sleep(0.05)
    assert to.posts == []
    assert node.value("esl_apps_webhook_depth", webhook="crm") is None


def test_secret_of_a_reload_signs(bed: Bed) -> None:
    to = bed.receiver()
    node = bed.begin(hook(to))
    bed.push()
    eventually(taken(to, 1))
    node.config = bed.configured(hook(to, secrets=SECRETS[1:]))
    node.webhooks.start()
    bed.push()
    eventually(taken(to, 2))
    Verifier(SECRETS[1]).verify(to.posts[1].body, to.posts[1].headers)


def test_private_address_is_not_posted_to(bed: Bed, caplog: Any) -> None:
    to = bed.receiver()
    bed.begin(hook(to, url=f"http://localhost:{to.port}/", allow_private=False))
    bed.push()
    eventually(lambda: bed.state().get("failures"))
    assert "loopback" in bed.state()["error"]
    assert to.connections == 0


def test_redis_error_is_not_a_crash(bed: Bed) -> None:
    to = bed.receiver()
    node = bed.begin(hook(to))
    node.client.break_after()
    with pytest.raises(NoAnswer):
        node.webhooks.look()
    node.client.left = None
    bed.push()
    eventually(taken(to, 1))


# Other versions ----------------------------------------------------------------------------------------


def later(bed: Bed, version: int) -> None:
    """A node of a later version has pushed an entry."""
    queue = keys.webhook("acme", "crm")
    seq = bed.redis.client.incr(keys.seq(queue))
    text = json.dumps({"id": f"cdr_{seq}", "body": {"type": "cdr", "payload": {"seq": seq}}, "v": version})
    bed.redis.client.xadd(queue, {"seq": seq, "json": text}, id=f"{int(bed.at * 1000)}-{seq}")


def test_webhook_entry_one_version_ahead_is_delivered(bed: Bed) -> None:
    to = bed.receiver()
    later(bed, 2)
    bed.begin(hook(to))
    eventually(taken(to, 1))


def test_webhook_entry_two_versions_ahead_is_left_to_others(bed: Bed) -> None:
    """Nothing behind it overtakes it, nothing is marked, and the lease is given up."""
    to = bed.receiver()
    bed.push()
    later(bed, 3)
    bed.push()
    first = bed.begin(hook(to))
    bed.node()
    eventually(taken(to, 1))
    queue, lease = keys.webhook("acme", "crm"), keys.webhook_lease(keys.webhook("acme", "crm"))
    eventually(lambda: queue in first.webhooks._left_to_others)
    eventually(lambda: bed.redis.client.get(lease) == "boot1")
    assert seqs(to) == [1]
    state = bed.state()
    assert (state["seq"], "failures" in state, "aside" in state) == ("1", False, False)
