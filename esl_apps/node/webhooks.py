"""Deliver notifications to webhooks: in order, at least once, each webhook from one process at a time.

A process that dies loses its leases, and another one goes on where the marks in Redis are
(:mod:`esl_apps.store.webhook_queue`). Each webhook has a greenlet and a connection of its own, so a receiver that is
slow or dead delays no other. Without a webhook in the configuration nothing of this runs.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import gevent
from gevent.event import Event as Flag

from esl_apps.config.model import Config
from esl_apps.config.webhooks import Webhook
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.webhooks import headers, key_of
from esl_apps.net.destination import read_url
from esl_apps.net.post import Failed, Poster, context
from esl_apps.net.resolver import Resolver
from esl_apps.observe.metrics import Metrics
from esl_apps.process import background
from esl_apps.store.documents import WrongVersion
from esl_apps.store.errors import Unreadable
from esl_apps.store.webhook_queue import LEASE, Held, Next, Target, Waiting, WebhookQueue, targets

log = logging.getLogger(__name__)

#: Seconds between two looks for what other nodes have pushed, in which the leases are renewed.
EVERY = 1.0
#: Seconds for which a notification is tried.
TRIED = 3 * 86400
#: Seconds before the next attempt, doubled each time up to the second value; at most those that a receiver can ask for.
BACKOFF_FIRST, BACKOFF_LAST, BACKOFF_ASKED = 1.0, 300.0, 3600.0
#: Seconds of a pause in which another process may try a receiver that doesn't answer this one.
HAND_ON = 30.0
#: Entries read at a time, and seconds after which those delivered are marked: what is delivered and not marked when a
#: process dies is delivered again.
BATCH, MARK_EVERY = 50, 0.25
#: Seconds from one read to the next: what is pushed meanwhile is read and marked together. Each costs a round trip.
GATHER = 0.05
#: Entries set aside at a time.
ASIDE = 1000
#: Seconds after which a connection without a post is closed, and between two looks at a webhook that is off.
IDLE = 30.0
#: Seconds for which a process that stops waits for the answers to what it has posted.
GRACE = 2.0
GONE = 410


def poster(webhook: Webhook, resolver: Resolver) -> Poster:
    return Poster(read_url(webhook.url), resolver, allow_private=webhook.allow_private)


class Webhooks:
    """Those of one process."""

    def __init__(
        self,
        config: Callable[[], Config],
        queue: WebhookQueue,
        metrics: Metrics,
        tell: Callable[..., None],
        now: Callable[[], float] = time.time,
        alone: Callable[[], bool] = lambda: True,
    ) -> None:
        """``tell``: ``Alerts.tell``. ``now``: Redis's clock. ``alone``: whether no other process could deliver."""
        self._config = config
        self._queue = queue
        self._metrics = metrics
        self._tell = tell
        self._now = now
        self._alone = alone
        self._left_to_others: dict[str, float] = {}
        """Webhooks whose receiver this process doesn't reach → until when it takes no lease of them (monotonic)."""
        self._resolver: Resolver | None = None
        self._held: dict[str, Delivery] = {}
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        """Begin to deliver if there is anything to deliver to; also after a reload."""
        wanted = {target.queue: target for target in targets(self._config())}
        for queue, delivery in self._held.items():
            if queue in wanted:
                delivery.configure(wanted[queue])
        if wanted and self._greenlet is None:
            self._resolver = Resolver()
            self._greenlet = background.keep("webhooks", self._run)

    def stop(self) -> None:
        """Let other processes deliver. :raises StoreUnavailable: Redis is down, so they begin when the leases end."""
        if self._greenlet is None:
            return
        self._greenlet.kill()
        for delivery in self._held.values():
            delivery.rest()
        # What is on its way would otherwise be delivered twice.
        gevent.wait([delivery.resting for delivery in self._held.values()], GRACE)
        for queue in list(self._held):
            self._drop(queue)
            self._queue.release(queue)

    def wake(self, list: str) -> None:
        """Something was pushed to a list, which may be a webhook's."""
        delivery = self._held.get(list)
        if delivery is not None:
            delivery.wake()

    def _run(self) -> None:
        # Certificate authorities are read from the disk.
        gevent.get_hub().threadpool.apply(context)
        while True:
            try:
                self.look()
            except StoreUnavailable as error:
                # Leases end by themselves, and the deliveries wait for Redis.
                log.debug("webhooks_not_looked_at", extra={"reason": str(error)})
            gevent.sleep(EVERY)

    def look(self) -> None:
        """Take and renew leases, and wake what has something to deliver. :raises StoreUnavailable: Redis is down."""
        self._hand_on()
        wanted = {
            target.queue: target for target in targets(self._config()) if target.queue not in self._left_to_others
        }
        for queue in [queue for queue in self._held if queue not in wanted]:
            self._drop(queue)
            self._queue.release(queue)
        asked = time.monotonic()
        for (queue, target), answer in zip(wanted.items(), self._queue.hold(list(wanted)), strict=True):
            if isinstance(answer, Exception):
                continue
            if answer is None:
                if queue in self._held:
                    log.info("webhook_handed_over", extra={"webhook": target.webhook.name})
                    self._drop(queue)
                continue
            if queue not in self._held:
                self._held[queue] = self._begin(target)
            self._held[queue].held(asked + LEASE - EVERY, answer)

    def _hand_on(self) -> None:
        """Leave webhooks whose receiver doesn't answer this process to others for a moment: the network may be at
        fault, and theirs be another."""
        now = time.monotonic()
        self._left_to_others = {queue: until for queue, until in self._left_to_others.items() if until > now}
        for queue, delivery in self._held.items():
            if delivery.unreached and not self._alone():
                self._left_to_others[queue] = now + 3 * EVERY

    def _begin(self, target: Target) -> Delivery:
        assert self._resolver is not None
        log.info("webhook_taken", extra={"webhook": target.webhook.name})
        delivery = Delivery(target, self._queue, self._resolver, self._metrics, self._tell, self._now)
        delivery.start()
        return delivery

    def _drop(self, queue: str) -> None:
        self._held.pop(queue).stop()


class Delivery:
    """Delivers one webhook while this process holds its lease."""

    def __init__(
        self,
        target: Target,
        queue: WebhookQueue,
        resolver: Resolver,
        metrics: Metrics,
        tell: Callable[..., None],
        now: Callable[[], float],
    ) -> None:
        self.name = target.webhook.name
        self._of = {"webhook": self.name, "integrator": target.integrator}
        self._name = target.queue
        self._queue = queue
        self._resolver = resolver
        self._metrics = metrics
        self._tell = tell
        self._now = now
        self._until = 0.0
        self.failures = 0
        """Failed attempts in a row."""
        self._unnoted = 0
        """Those of them that Redis couldn't be told of."""
        self.unreached = False
        """The receiver has given no answer for so long that another process may try."""
        self._since = 0.0
        """When the failed attempts began, by Redis's clock; 0.0 if the last one succeeded."""
        self._taken_over = True
        """Whether the pause after a failure of another process, or of an earlier run, is to be kept."""
        self._failing = ""
        """The kind of failure that was logged last; empty while deliveries succeed."""
        self._told_aside = False
        self._unmarked: tuple[str, Waiting, int] | None = None
        """What was delivered and isn't marked yet: the entry before it that is done with, the last one, its status."""
        self._marked_at = 0.0
        self._gathers_until = 0.0
        """When the next read is due (monotonic)."""
        self._work = Flag()
        """Something may wait to be delivered."""
        self._again = Flag()
        """A pause between two attempts is over early."""
        self._waits = False
        """Whether anything did when the lease was renewed."""
        self.resting = Flag()
        """Nothing is on its way."""
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._target = target
        self._keys: list[bytes] = []
        self._poster = poster(target.webhook, resolver)
        self.configure(target)
        metrics.webhook_failing.labels(self.name).set_function(self._failing_seconds)
        # Made now, so that both are 0 at first.
        self._delivered, self._failed = (
            metrics.webhook_attempts.labels(self.name, outcome) for outcome in ("delivered", "failed")
        )
        metrics.webhook_set_aside.labels(self.name)

    def _failing_seconds(self) -> float:
        return self._now() - self._since if self._since and self._waits else 0.0

    def configure(self, target: Target) -> None:
        """Take up a configuration, which may be the same."""
        if target != self._target:
            # A post on its way fails with this, and is tried again with the new configuration.
            self._poster.close()
            self._poster = poster(target.webhook, self._resolver)
        self._target = target
        self._keys = [key_of(secret) for secret in target.webhook.secrets]
        self._again.set()
        self.wake()

    def start(self) -> None:
        self._greenlet = background.keep("webhook", self._run, **self._of)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()
        self._poster.close()
        # The process that delivers from now on says how it goes.
        metrics = self._metrics
        for gauge in (metrics.webhook_depth, metrics.webhook_oldest, metrics.webhook_failing, metrics.webhook_off):
            with suppress(KeyError):
                gauge.remove(self.name)

    def rest(self) -> None:
        """Post nothing more."""
        self._until = 0.0

    def wake(self) -> None:
        self._work.set()

    def held(self, until: float, state: Held) -> None:
        """The lease holds until ``until`` (monotonic)."""
        self._until = until
        self._waits = bool(state.depth)
        self._metrics.webhook_depth.labels(self.name).set(state.depth)
        age = 0.0 if state.oldest is None else max(0.0, self._now() - state.oldest)
        self._metrics.webhook_oldest.labels(self.name).set(age)
        if state.depth:
            self.wake()
        if state.failures < self.failures:
            # An operator has asked for a replay.
            self.failures = state.failures
            self._again.set()

    @property
    def _may(self) -> bool:
        return time.monotonic() < self._until

    # One webhook's work -------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self.resting.set()
            if not self._work.wait(IDLE):
                self._poster.close()
                self._work.wait()
            if (left := self._gathers_until - time.monotonic()) > 0:
                gevent.sleep(left)
            self._again.clear()
            self.resting.clear()
            try:
                pause = self.step()
            except StoreUnavailable:
                # Nothing is lost: what was delivered is marked when Redis is back, and what waits stays in it.
                pause = EVERY
                self.wake()
            if pause:
                self.resting.set()
                self._again.wait(pause)

    def step(self) -> float:
        """Deliver a batch. Return for how many seconds to wait before the next one.

        :raises StoreUnavailable: Redis is down.
        """
        self._mark()
        if not self._may:
            return EVERY
        # Before it is read: what is pushed meanwhile is looked for once more.
        self._work.clear()
        state = self._queue.read(self._name, BATCH)
        self.failures = state.failures
        self._since = state.since
        off = self._target.is_off(state.off)
        self._metrics.webhook_off.labels(self.name).set(off)
        if not state.entries:
            return 0.0
        if off:
            self._set_aside(state)
            return IDLE
        taken_over, self._taken_over = self._taken_over, False
        if taken_over and state.due > self._now():
            self.wake()
            return min(state.due - self._now(), BACKOFF_ASKED)
        if len(state.entries) == BATCH:
            self.wake()
        else:
            self._gathers_until = time.monotonic() + GATHER
        pause = self._deliver(state)
        if pause:
            self.wake()
        return pause

    def _deliver(self, state: Next) -> float:
        done, failures = state.done, state.failures
        self._marked_at = time.monotonic()
        for waiting in state.entries:
            if not self._may:
                break
            answer = self._post(waiting)
            if isinstance(answer, Refusal):
                return self._after_failure(failures, answer) if self._mark() else EVERY
            first = done if self._unmarked is None else self._unmarked[0]
            self._unmarked = (first, waiting, answer)
            done, failures = waiting.id, 0
            if time.monotonic() - self._marked_at > MARK_EVERY and not self._mark():
                break
        self._mark()
        return 0.0

    def _mark(self) -> bool:
        """Mark what was delivered. False: the mark is elsewhere by now. :raises StoreUnavailable: Redis is down."""
        if self._unmarked is None:
            return True
        done, last, status = self._unmarked
        marked = self._queue.delivered(self._name, done, last, status)
        self._unmarked = None
        self._marked_at = time.monotonic()
        if not marked:
            # An operator has asked for a replay, or another process delivers: a machine that was suspended doesn't
            # notice that its lease has ended. Post nothing before the lease is asked for again.
            self.rest()
            self.wake()
        return marked

    def _post(self, waiting: Waiting) -> int | Refusal:
        """Post an entry; return the status, or why it was not taken.

        :raises WrongVersion: it can't be read here.
        """
        try:
            message = waiting.message()
        except WrongVersion:
            # A process that can read it is to deliver from here on. Only if this one is alone does it keep the lease.
            self._mark()
            self.unreached = True
            raise
        except Unreadable:
            # Written by something else. It can't be delivered, and must not hold up what follows.
            log.error("webhook_entry_unreadable", extra={**self._of, "entry": waiting.id})
            return 0
        body = bytes(message.body)
        try:
            answer = self._poster.post(headers(self._keys, message.id, int(time.time()), body), body)
        except Failed as error:
            return Refusal(error.kind, str(error), None, 0.0, message.id)
        if 200 <= answer.status < 300:
            self._delivered.inc()
            self._since, self._unnoted = 0.0, 0
            if self._failing:
                log.info("webhook_delivers", extra=self._of)
                self._failing, self._told_aside = "", False
            return answer.status
        words = f"status {answer.status}"
        if 300 <= answer.status < 400:
            words += "; redirects are not followed"
        return Refusal(str(answer.status), words, answer.status, answer.retry_after or 0.0, message.id)

    def _after_failure(self, failures: int, refusal: Refusal) -> float:
        """Note a failure; return for how many seconds to pause. :raises StoreUnavailable: Redis is down, and can't say
        what is to be set aside."""
        self._failed.inc()
        details = {**self._of, "reason": refusal.words, "message_id": refusal.id}
        off = refusal.status == GONE
        if refusal.kind != self._failing:
            log.warning("webhook_failing", extra=details)
        self._failing = refusal.kind
        doubled = BACKOFF_FIRST * 2 ** min(failures + self._unnoted, 16)
        pause: float = min(BACKOFF_LAST, doubled) * random.uniform(0.5, 1.0)  # noqa: S311
        pause = max(pause, min(refusal.pause, BACKOFF_ASKED))
        mark = self._target.url_mark if off else ""
        try:
            since = self._queue.failed(self._name, refusal.status, refusal.words, off=mark, pause=pause)
        except StoreUnavailable:
            # Redis refuses writes, or is down: a receiver that fails isn't asked each second because of that.
            self._unnoted += 1
            return pause
        if since is None:
            self.rest()
            return EVERY
        self._since = since
        self.failures = failures + 1
        self.unreached = refusal.status is None and pause > HAND_ON
        if off:
            log.error("webhook_off", extra=self._of)
            self._tell("webhook_off", webhook=self.name)
            self._metrics.webhook_off.labels(self.name).set(1)
            return IDLE
        self._set_aside(self._queue.read(self._name, BATCH))
        return pause

    def _set_aside(self, state: Next) -> None:
        """Give up what was tried for its whole time, all of it: one attempt stands for all that wait behind it."""
        limit = self._now() - TRIED
        if not state.since or state.since > limit:
            return
        count = 0
        while old := [entry for entry in state.entries if entry.at < limit]:
            if not self._queue.set_aside(self._name, state.done, old[-1], len(old)):
                break
            count += len(old)
            log.error("webhook_set_aside", extra={**self._of, "count": len(old), "last_seq": old[-1].seq})
            state = self._queue.read(self._name, ASIDE)
        if count:
            self._metrics.webhook_set_aside.labels(self.name).inc(count)
            if not self._told_aside:
                self._told_aside = True
                self._tell("webhook_set_aside", webhook=self.name, count=count)


class Refusal(NamedTuple):
    kind: str
    words: str
    status: int | None
    """The receiver's answer; None: it gave none."""
    pause: float
    """Seconds that the receiver asked for."""
    id: str
    """The message's."""
