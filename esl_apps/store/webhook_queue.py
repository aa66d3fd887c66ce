"""What a webhook has to deliver, in Redis: a stream that the outbox pushes to, a mark in it, and a lease.

The outbox pushes a notification to a webhook's stream with the script that pushes to lists, so each is in it once, in
order, whichever node pushes. One process at a time delivers them, the one that holds the lease, and moves the mark.
What is behind the mark waits. What is before it was delivered or set aside, and stays for a while to be replayed.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from esl_apps.config.model import Config
from esl_apps.config.webhooks import Webhook
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import WEBHOOK_ENTRY
from esl_apps.net.destination import read_url
from esl_apps.store import documents, keys
from esl_apps.store.errors import Fault
from esl_apps.store.journal import Entry
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script, by_redis, run_all

#: Seconds without a renewal after which another process delivers.
LEASE = 10.0
#: Seconds for which an entry that was delivered or set aside can be replayed, and how many delivered ones at most.
KEEP, KEPT = 7 * 86400, 20_000
#: Seconds after which a webhook that no node delivers any more is forgotten, with what it had.
FORGET = 60 * 86400


_TYPE = re.compile(r'\{"type":"([a-z0-9]+)"')


class Target(NamedTuple):
    """A webhook of the configuration, with the integrator whose notifications it delivers."""

    integrator: str
    webhook: Webhook

    @property
    def queue(self) -> str:
        return keys.webhook(self.integrator, self.webhook.name)

    @property
    def host(self) -> str:
        """The host of its URL, whose path may be a secret."""
        return read_url(self.webhook.url).authority

    @property
    def url_mark(self) -> str:
        """Says which URL answered 410, without showing it."""
        return hashlib.sha256(self.webhook.url.encode()).hexdigest()[:16]

    def is_off(self, mark: str) -> bool:
        """Whether the URL that answered 410 is still this one."""
        return mark == self.url_mark


def targets(config: Config) -> Iterator[Target]:
    for integrator in config.integrators:
        for webhook in integrator.webhooks:
            yield Target(integrator.name, webhook)


class Held(NamedTuple):
    """A queue that this process holds."""

    depth: int
    """How many entries wait."""
    failures: int
    """Failed attempts in a row."""
    oldest: float | None
    """When the oldest entry that waits was pushed: Unix seconds, by Redis's clock."""


class Message(msgspec.Struct):
    """What an entry of the stream holds."""

    id: Annotated[str, Meta(pattern=r"^[!-~]{1,256}\Z")]
    """The same for every attempt, and if a node pushes it again."""
    body: msgspec.Raw


class Waiting(NamedTuple):
    """An entry that waits."""

    id: str
    """In the stream."""
    seq: int
    text: bytes
    """A :class:`Message`."""

    @property
    def at(self) -> float:
        """When it was pushed: Unix seconds, by Redis's clock."""
        return int(self.id.partition("-")[0]) / 1000

    def message(self) -> Message:
        """:raises Unreadable: something else has written it.
        :raises WrongVersion: only nodes of another version can read it.
        """
        return documents.decode(WEBHOOK_ENTRY, self.text, Message)


class Next(NamedTuple):
    """What is next to deliver."""

    done: str
    """The last entry that is done with."""
    failures: int
    """Failed attempts in a row."""
    since: float
    """When they began, by Redis's clock; 0.0 if the last one succeeded."""
    due: float
    """When the next attempt is due, by Redis's clock; 0.0 if the last one succeeded."""
    off: str
    """:attr:`Target.url_mark` of the URL that answered 410."""
    entries: Sequence[Waiting]


def kind_of(entry: Entry) -> str:
    """Return the ``type`` of a notification; empty if it has none."""
    match = _TYPE.match(entry.head)
    return match[1] if match else ""


def for_webhook(entry: Entry, queue: str) -> Entry:
    """Make an entry for a webhook's stream of the entry for a list. The body is not encoded again."""
    # Of one call, several notifications may come. Standard Webhooks wants no full stop in an id.
    id = f"{kind_of(entry)}_{entry.id.replace('.', '-')}"
    return Entry(id, queue, "stream", f'{{"id":"{id}","body":{entry.head}', f"{entry.tail}}}")


class WebhookQueue:
    """The streams of all webhooks, each named by ``keys.webhook``. All methods raise StoreUnavailable."""

    def __init__(
        self, client: Client, boot: str = "", clock: Callable[[], Any] = by_redis, predecessor: str = ""
    ) -> None:
        """``boot``: this process. ``predecessor``: the last run of this node, whose leases are this one's."""
        self._client = client
        self._boot = boot
        self._predecessor = predecessor
        self._clock = clock
        self._hold = Script(client, "webhook_hold")
        self._release = Script(client, "webhook_release")
        self._read = Script(client, "webhook_read")
        self._done = Script(client, "webhook_done")
        self._failed = Script(client, "webhook_failed")
        self._replay = Script(client, "webhook_replay")

    def hold(self, queues: Sequence[str]) -> list[Held | Exception | None]:
        """Take or renew the leases, and drop what is older than ``KEEP``. None: another process holds the queue; an
        exception: it can't be used now."""
        runs = [
            self._hold.on(
                [keys.webhook_lease(queue), keys.webhook_state(queue), keys.seq(queue), queue],
                [self._clock(), self._boot, int(LEASE * 1000), self._predecessor, FORGET, KEEP * 1000],
            )
            for queue in queues
        ]
        answers = run_all(self._client, runs, strict=False)
        return [answer if isinstance(answer, Exception) else _held(*answer) if answer else None for answer in answers]

    def release(self, queue: str) -> None:
        self._release([keys.webhook_lease(queue)], [self._boot])

    def read(self, queue: str, count: int) -> Next:
        done, failures, since, due, off, entries = self._read([queue, keys.webhook_state(queue)], [count])
        # Something else may have written to the state: its times and counts begin again.
        off = off.decode("utf-8", "replace")
        return Next(done.decode(), int(number(failures)), number(since), number(due), off, _waiting(entries))

    def delivered(self, queue: str, done: str, last: Waiting, status: int) -> bool:
        """Mark all up to ``last`` as delivered. False: ``done`` is no longer the last one that is done with."""
        return self._mark(queue, done, last, 0, status)

    def set_aside(self, queue: str, done: str, last: Waiting, count: int) -> bool:
        """Mark all up to ``last`` as given up. As :meth:`delivered`."""
        return self._mark(queue, done, last, count, 0)

    def _mark(self, queue: str, done: str, last: Waiting, aside: int, status: int) -> bool:
        names = [queue, keys.webhook_state(queue), keys.seq(queue)]
        args = [self._clock(), done, last.id, last.seq, aside, status, KEEP * 1000, KEPT]
        return bool(self._done(names, args))

    def failed(self, queue: str, status: int | None, error: str, *, off: str = "", pause: float = 0.0) -> float | None:
        """Note a failed attempt; return since when they fail, by Redis's clock. None: another process delivers, and
        nothing is noted. ``off``: as :attr:`Next.off`. ``pause``: seconds until the next attempt."""
        args = [self._clock(), status or "", error[:300], off, pause, self._boot]
        since = self._failed([keys.webhook_state(queue), keys.webhook_lease(queue)], args)
        return None if since is None else number(since)

    def replay(self, queue: str, since: float) -> int:
        """Deliver all that was pushed after a time (Unix seconds) again; return how many entries wait now."""
        names = [queue, keys.webhook_state(queue), keys.seq(queue)]
        return int(self._replay(names, [int(since * 1000)]))

    def describe(self, queues: Sequence[str]) -> list[dict[str, Any]]:
        """Return the state of each webhook, for operators."""
        commands: list[tuple[Any, ...]] = []
        for queue in queues:
            commands += [
                ("HGETALL", keys.webhook_state(queue)),
                ("GET", keys.seq(queue)),
                ("GET", keys.webhook_lease(queue)),
            ]
        answers = self._client.send_all(commands, raise_on_error=False)
        runs = [self._read.on([queue, keys.webhook_state(queue)], [1]) for queue in queues]
        heads = run_all(self._client, runs, strict=False)
        return [_described([*answers[3 * i : 3 * i + 3], head]) for i, head in enumerate(heads)]


def _held(depth: int, failures: int, oldest: bytes) -> Held:
    return Held(depth, failures, int(oldest) / 1000 if oldest else None)


def _described(answers: Sequence[Any]) -> dict[str, Any]:
    """:raises StoreUnavailable: Redis is down. A key of another type hides no other webhook."""
    for answer in answers:
        if isinstance(answer, Fault):
            return {"depth": 0, "oldest_at": None, "boot": "", "error": str(answer)}
        if isinstance(answer, StoreUnavailable):
            raise answer
    found, pushed, holder, head = answers
    state = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in found.items()}
    entries = _waiting(head[-1])
    return {
        **state,
        "depth": max(0, int(number(pushed) - number(state.get("seq")))),
        "oldest_at": entries[0].at if entries else None,
        "boot": (holder or b"").decode("utf-8", "replace"),
    }


def number(text: bytes | str | None) -> float:
    """Decode a number of a webhook's state; 0.0 if there is none, or if something else has written there."""
    try:
        found = float(text or 0)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) else 0.0


def _waiting(entries: Iterable[tuple[bytes, Sequence[bytes]]]) -> list[Waiting]:
    waiting: list[Waiting] = []
    for id, fields in entries:
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        seq, before = named.get(b"seq", b""), waiting[-1].seq if waiting else 0
        # What something else has written has neither, can't be delivered, and must not hold up what follows.
        waiting.append(Waiting(id.decode(), int(seq) if seq.isdigit() else before, named.get(b"json", b"")))
    return waiting
