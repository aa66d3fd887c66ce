"""Small doubles of the services that HTTP handlers use: no switch, no Redis, no socket."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import cached_property
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from esl_apps.apps.autodial import AutodialOrder
from esl_apps.config import parse
from esl_apps.core.actions import Action, CallState, state_of
from esl_apps.core.attempt import Attempt
from esl_apps.core.cards import Account, Card
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Refusal
from esl_apps.core.order import IntegratorRules, Order
from esl_apps.core.pins import Asker
from esl_apps.core.status import snapshot
from esl_apps.core.timed_call import Waiting
from esl_apps.http import admin, integrator
from esl_apps.node.dial_claim import DialClaim
from esl_apps.node.event_feed import Feeds
from esl_apps.node.policy import read_policy
from esl_apps.observe.metrics import Metrics
from esl_apps.process.folder import Folder
from esl_apps.store.cards import Taken
from esl_apps.store.idempotency import Claim
from esl_apps.store.redis_client import connect
from esl_apps.store.stale import Stale
from tests.support.event_stores import FakeEventStore
from tests.support.http_client import HttpClient

TOKEN, ADMIN_TOKEN, ACCOUNT_TOKEN = "the-integrators-token", "the-operators-token", "an-accounts-token"
BOOT = "app1-1"
LINK_KEY = "a-key-for-links-in-tests"
#: The configuration of the handlers' tests; ``{recordings}`` is a folder.
CONFIGURATION = f"""\
switches: [{{name: fs1, address: "127.0.0.1:8021", password: s3cret}}]
node: {{name: app1}}
admin: {{token: {ADMIN_TOKEN}, tokens: [{{name: viewer, token: the-viewers-token, scopes: [read]}}]}}
integrators:
  - name: acme
    listen: "127.0.0.1:8300"
    token: {TOKEN}
    tokens: [{{name: wallboard, token: the-wallboards-token, scopes: [read]}}]
    caller_ids: ["27115550000"]
    legacy_get: {{allow: ["198.51.100.0/24"]}}
recordings: {{dir: "{{recordings}}", link_key: {LINK_KEY}, link_longest: 7200}}
prompts: {{urls: ["https://media.example/hello.wav"]}}
cccp: {{cccp_cb_number: "0115550001", allowed_callee_regex: '^\\+27[0-9]+$'}}
dial: {{emergency: "sofia/gateway/sos/{{number}}"}}
pin_key: a-key-for-tests
accounts:
  acme: {{token: {ACCOUNT_TOKEN}, call_restriction: {{premium: {{action: deny}}}}}}
"""


class FakeStore:
    """Calls and claims in memory. If ``fails`` is set, every method raises it."""

    def __init__(self) -> None:
        self.saved: dict[str, dict[str, Any]] = {}
        self.claims: dict[str, Claim] = {}
        self.released: list[str] = []
        self.claimed_for = 0.0
        self.fails: Exception | None = None

    def _ask(self) -> None:
        if self.fails is not None:
            raise self.fails

    def claim(self, _integrator: str, key: str, body: bytes, ref: str) -> Claim | None:
        self._ask()
        if key in self.claims:
            return self.claims[key]
        self.claims[key] = Claim(hashlib.sha256(body).hexdigest(), ref, BOOT)
        return None

    def reclaim(self, _integrator: str, key: str, claim: Claim, ref: str) -> bool:
        self._ask()
        if self.claims[key] != claim:
            return False
        self.claims[key] = Claim(claim.body, ref, BOOT)
        return True

    def note(self, _integrator: str, key: str, _body: bytes, _ref: str, outcome: str, transfer_ref: str = "") -> None:
        self.claims[key] = msgspec.structs.replace(self.claims[key], outcome=outcome, transfer_ref=transfer_ref)

    def age(self, _integrator: str, _key: str) -> float:
        return self.claimed_for

    def release(self, _integrator: str, key: str, _body: bytes, _ref: str) -> None:
        self.released.append(key)
        del self.claims[key]

    def call(self, ref: str) -> dict[str, Any] | None:
        self._ask()
        return self.saved.get(ref)

    def calls(
        self, integrator: str, wanted: dict[str, str], limit: int, before: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        self._ask()
        self.asked = integrator, wanted, limit, before
        found = list(self.saved.values())[:limit]
        return found, found[-1]["call_ref"] if len(self.saved) > limit else None


class FakeCards:
    """Cards and accounts in memory. If ``fails`` is set, every method raises it."""

    def __init__(self, *accounts: Account) -> None:
        self._accounts = {account.id: account for account in accounts}
        self.cards: dict[str, Card] = {}
        self.fails: Exception | None = None

    def _ask(self) -> None:
        if self.fails is not None:
            raise self.fails

    def account(self, account_id: str) -> Account | None:
        self._ask()
        return self._accounts.get(account_id)

    def system_config(self, _name: str) -> None:
        self._ask()

    def page(self, _account_id: str, size: int, after: str | None) -> tuple[list[Card], str | None]:
        self._ask()
        ids = [card_id for card_id in sorted(self.cards) if after is None or card_id > after]
        return [self.cards[card_id] for card_id in ids[:size]], ids[size - 1] if len(ids) > size else None

    def check(self, _fields: dict[str, Any]) -> None:
        self._ask()

    def create(self, account_id: str, fields: dict[str, Any]) -> Card:
        """:raises Taken: the PIN ends with 1 and is another account's, or with 2 and is this one's."""
        self._ask()
        owner = {"1": "another", "2": account_id}.get(str(fields.get("pin"))[-1])
        if owner is not None:
            raise Taken("p", owner)
        cid = fields.get("cid")
        card = Card(f"{len(self.cards):032x}", account_id, fields.get("user_id"), cid, fields.get("active", False))
        self.cards[card.id] = card
        return card

    def get(self, _account_id: str, card_id: str) -> Card | None:
        self._ask()
        return self.cards.get(card_id)

    def update(self, _account_id: str, card_id: str, fields: dict[str, Any], *, merge: bool) -> Card | None:
        self._ask()
        card = self.cards.get(card_id)
        if card is None:
            return None
        base = card if merge else Card(card.id, card.account_id, None, card.cid, active=False)
        self.cards[card_id] = msgspec.structs.replace(base, **fields)
        return self.cards[card_id]

    def delete(self, _account_id: str, card_id: str) -> Card | None:
        self._ask()
        return self.cards.pop(card_id, None)


class FakeOutgoing:
    """Place calls that stay queued. If ``fails`` is set, every method raises it."""

    def __init__(self, services: Any) -> None:
        self._services = services
        self.placed: list[Attempt] = []
        self.fails: Exception | None = None

    def check_ready(self) -> None:
        if self.fails is not None:
            raise self.fails

    def _place(self, attempt: Attempt) -> Attempt:
        self.check_ready()
        self.placed.append(attempt)
        self._services.calls.live[attempt.call_ref] = SimpleNamespace(attempt=attempt)
        return attempt

    def click2dial(self, order: Order, client: IntegratorRules, ref: str, _claim: DialClaim | None = None) -> Attempt:
        attempt = Attempt(
            app="click-dial",
            integrator=client.name,
            extension=order.agent.dialled,
            number=order.callee.dialled,
            dial_number=order.outbound.dialled,
            call_dir="outbound",
            metadata=order.options.metadata,
        )
        attempt.contact_ref, attempt.call_ref = order.contact_ref, ref
        return self._place(attempt)

    def autodial(self, account: Account, order: AutodialOrder) -> Attempt:
        callee = order.b.dialled if order.b else None
        return self._place(
            Attempt(
                app="autodial", extension=order.a.dialled, number=callee, call_dir="external", account_id=account.id
            )
        )


class FakeGuard:
    """Counts what clients were told of other accounts' cards; ``locked`` refuses for so many seconds."""

    def __init__(self) -> None:
        self.locked = 0
        self.asked: list[tuple[Asker, bool]] = []
        self.counted: list[Asker] = []

    def refuses(self, asker: Asker, *, new_pin: bool) -> int:
        self.asked.append((asker, new_pin))
        return self.locked

    def told(self, asker: Asker) -> None:
        self.counted.append(asker)


class FakeTimedCalls:
    """Calls that wait, in memory."""

    def __init__(self) -> None:
        self.calls: dict[str, Waiting] = {}

    def waiting_of(self, owner: str) -> list[Waiting]:
        return [call for call in self.calls.values() if call.owner == owner]

    def find(self, number: str) -> Waiting | None:
        return self.calls.get(number)

    def drop(self, number: str, owner: str) -> bool | None:
        call = self.calls.get(number)
        if call is None or call.owner != owner:
            return False
        return None if call.placing else self.calls.pop(number) is call


class FakeActing:
    """Note what is asked for. If ``fails`` is set, each action raises it."""

    def __init__(self, services: Any) -> None:
        self._services = services
        self.done: list[Action] = []
        self.fails: Exception | None = None

    def cancel(self, call: dict[str, Any], agent: str | None = None) -> None:
        if agent is not None and self.fails is not None:
            raise self.fails
        self._services.cancelled.append(call["call_ref"])

    def act(self, call: dict[str, Any], action: Action) -> CallState:
        if self.fails is not None:
            raise self.fails
        self.done.append(action)
        return state_of(self._services.calls.live[call["call_ref"]].attempt)


class FakeServices:
    def __init__(self, recordings: str) -> None:
        config = parse(CONFIGURATION.replace("{recordings}", recordings), {})
        policy = read_policy(config, connect("redis://127.0.0.1:1/0"), Stale(0), lambda *_args: None)
        self.cards = FakeCards(*filter(None, [policy.cards.account(name) for name in config.accounts]))
        self.guard = FakeGuard()
        doubles: Any = {"cards": self.cards, "guard": self.guard}
        self.policies = SimpleNamespace(now=dataclasses.replace(policy, **doubles))
        self.store = FakeStore()
        self.idempotency = self.store
        self.dead: set[str] = set()
        self.membership = SimpleNamespace(
            held_since=lambda _at: False, is_dead=lambda boot: boot in self.dead, is_current=True
        )
        self.timed_calls = {"autodial": FakeTimedCalls()}
        self.reasons: list[str] = []
        self.readiness = SimpleNamespace(reasons=lambda: self.reasons, problems=lambda: self.reasons)
        self.spent: Refusal | Exception | None = None
        self.usage = SimpleNamespace(check=self._check)
        self.cancelled: list[str] = []
        self.calls = SimpleNamespace(live={})
        self.switches: list[Any] = []
        self.acting = FakeActing(self)
        self.metrics = Metrics()
        events: Any = FakeEventStore()
        self.event_feeds = Feeds(events, events)
        # A stream that ends at once.
        self.event_feeds.stop()
        self.record_history = SimpleNamespace(page=lambda *_asked: ([], None))
        self.recordings = Folder("recordings")
        self.counted: list[int] = []
        """Statuses of refused requests."""

    @property
    def policy(self) -> Any:
        return self.policies.now

    def refused(self, status: int) -> None:
        self.counted.append(status)

    def _check(self, *charges: Charge) -> Refusal | None:
        self.charged = charges
        if isinstance(self.spent, Exception):
            raise self.spent
        return self.spent


class World:
    """Both ports of a node, on doubles of its services. A port is built when it is asked: most tests ask one."""

    def __init__(self, recordings: str) -> None:
        self.services = cast(Any, FakeServices(recordings))
        self.outgoing = cast(Any, FakeOutgoing(self.services))

    @cached_property
    def api(self) -> HttpClient:
        made = integrator.build(self.services, self.outgoing, "acme")
        return HttpClient(made, headers={"Authorization": f"Bearer {TOKEN}"})

    @cached_property
    def admin(self) -> HttpClient:
        made = admin.build(self.services, self.outgoing, self.services.metrics.registry)
        return HttpClient(made, headers={"X-Auth-Token": ADMIN_TOKEN})

    def configure(self, **sections: Any) -> None:
        """Change fields of sections of the configuration, as a reload does."""
        policy = self.services.policy
        changed = {}
        for name, fields in sections.items():
            section = getattr(policy.config, name)
            if isinstance(section, list):
                changed[name] = [msgspec.structs.replace(one, **fields) for one in section]
            else:
                changed[name] = msgspec.structs.replace(section, **fields)
        config = msgspec.structs.replace(policy.config, **changed)
        self.services.policies.now = dataclasses.replace(policy, config=config)

    def end(self, attempt: Attempt) -> None:
        """End a call, so that only Redis knows it."""
        attempt.end("cancelled", 31, "api", attempt.queued_at + 1)
        del self.services.calls.live[attempt.call_ref]
        self.services.store.saved[attempt.call_ref] = snapshot(attempt)


def errors(result: Any, status: int) -> list[tuple[str, str]]:
    """Return the field and the code of each error of an answer."""
    assert result.status_code == status, result.text
    return [(error["field"], error["code"]) for error in result.json["errors"]]


def kazoo_errors(result: Any, status: int) -> dict[str, list[str]]:
    """Return the codes by field of an answer in the form of Kazoo's Crossbar."""
    assert result.status_code == status, result.text
    assert (result.json["error"], result.json["status"]) == (str(status), "error")
    return {field: sorted(codes) for field, codes in result.json["data"].items()}
