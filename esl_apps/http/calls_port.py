"""Shared parts of an integrator's port: authentication, references, idempotency keys."""

from __future__ import annotations

import re
import time
from typing import Any

import falcon
import gevent

from esl_apps.apps import click2dial
from esl_apps.config.model import Config, Integrator
from esl_apps.core import reference
from esl_apps.core.charges import Charge
from esl_apps.core.faults import Refused
from esl_apps.core.limits import BREAKER
from esl_apps.core.order import PATTERNS, Order
from esl_apps.core.reference import new_ref
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http.access import Door, Holder, holders
from esl_apps.http.errors import Problem, problem, spent
from esl_apps.http.signed_links import Links
from esl_apps.node.live import Full
from esl_apps.node.node import Node
from esl_apps.node.outgoing import Spent
from esl_apps.node.snapshot import snapshot
from esl_apps.store.calls import same_body
from esl_apps.store.redis_client import ERRORS

#: Seconds in which a call of another node's may not be in Redis yet, and how often it is looked for meanwhile.
_YOUNG, _YOUNG_TRIES = 0.5, 10
_REF = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
#: Seconds that a client is asked to stay away: as long as a switch or a Redis takes to come back.
_RETRY_AFTER = {"Retry-After": "5"}


class _Port:
    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name
        self.door = Door(lambda: self.settings.rate, node.services.refused)
        #: The tokens of a configuration; a reload brings another one, and with it others.
        self._known: tuple[Config, list[Holder]] | None = None

    @property
    def settings(self) -> Integrator:
        one = self.node.services.policy.config.integrator(self.name)
        assert one is not None  # a reload keeps every port's integrator
        return one

    def authorise(self, req: falcon.Request, scope: str) -> None:
        """:raises Problem: as ``Door.check``."""
        config = self.node.services.policy.config
        if self._known is None or self._known[0] is not config:
            self._known = config, holders(self.settings, self.settings.tokens)
        self.door.check(req, self._known[1], scope)

    @property
    def links(self) -> Links | None:
        """None where links are off."""
        key = self.node.services.policy.config.recordings.link_key
        return Links(key, self.name) if key else None

    # Calls --------------------------------------------------------------------------------------------

    def order(self, fields: dict[str, Any], *, peek: bool = False) -> Order:
        try:
            return self.node.services.policy.clients[self.name].read(fields, peek=peek)
        except Refused as refused:
            self.node.services.refused(422)
            raise Problem(
                422,
                [{"field": fault.field, "code": fault.code, "message": fault.message} for fault in refused.faults],
            ) from None

    def place(self, fields: dict[str, Any], ref: str) -> dict[str, Any]:
        try:
            attempt = self.node.outgoing.click2dial(
                self.order(fields), self.node.services.policy.clients[self.name], ref
            )
        except Full as full:
            self.node.services.refused(503)
            raise problem(503, "unavailable", str(full), headers=_RETRY_AFTER) from None
        except Spent as over:
            refusal = spent(over.refusal)
            self.node.services.metrics.refused.labels(str(refusal.status)).inc()
            raise refusal from None
        except StoreUnavailable:
            self.node.services.metrics.refused.labels("503").inc()
            raise problem(503, "unavailable", "redis: no answer", headers=_RETRY_AFTER) from None
        return {"call_ref": attempt.call_ref, "contact_ref": attempt.contact_ref, "state": attempt.state}

    def place_once(self, key: str, raw: bytes, fields: dict[str, Any]) -> dict[str, Any]:
        """With an idempotency key: the first request dials, later ones get its call."""
        if not _KEY.fullmatch(key):
            raise problem(422, "pattern", "expected 1 to 200 printable characters, no spaces", "Idempotency-Key")
        ref = new_ref()
        try:
            claim = self.node.services.store.claim(self.name, key, raw, ref)
        except ERRORS:
            raise problem(503, "unavailable", "redis: no answer", headers=_RETRY_AFTER) from None
        if claim is None:
            return self._place_claimed(fields, ref, key)
        if not same_body(claim, raw):
            raise problem(409, "key_reused", "this key came with another body before", "Idempotency-Key")
        call = self.find(claim.call_ref)
        if call is None:
            try:
                # Killed between the claim and the call: nobody will ever answer for that request.
                mine = self.node.services.membership.is_dead(claim.boot) and self.node.services.store.reclaim(
                    self.name, key, claim, ref
                )
            except (StoreUnavailable, *ERRORS):
                raise problem(503, "unavailable", "redis: no answer", headers=_RETRY_AFTER) from None
            if mine:
                return self._place_claimed(fields, ref, key)
            raise problem(409, "in_progress", "the first request with this key is still running", "Idempotency-Key")
        return {field: call[field] for field in ("call_ref", "contact_ref", "state")}

    def _place_claimed(self, fields: dict[str, Any], ref: str, key: str) -> dict[str, Any]:
        try:
            return self.place(fields, ref)
        except Exception:
            # Nothing was dialled: the key is as if it had not come.
            self.node.services.store.release(self.name, key)
            raise

    def find(self, ref: str) -> dict[str, Any] | None:
        """A call of this integrator, live or recent; None for unknown and for other integrators' alike."""
        if not _REF.fullmatch(ref):
            return None
        live = self.node.services.calls.live.get(ref)
        # Another node that has just placed it says so a moment later: who asks this one is not told that there is none.
        tries = _YOUNG_TRIES if abs(time.time() - reference.began(ref)) < _YOUNG else 1
        try:
            call = snapshot(live.attempt) if live is not None else self.node.services.store.call(ref)
            while call is None and (tries := tries - 1):
                gevent.sleep(_YOUNG / _YOUNG_TRIES)
                call = self.node.services.store.call(ref)
        except ERRORS:
            raise problem(503, "unavailable", "redis: no answer", headers=_RETRY_AFTER) from None
        return call if call is not None and call["integrator"] == self.name else None

    def dry_run(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Every check and its verdict; nothing is dialled and no campaign's turn is taken."""
        faults: list[Any] = []
        client = self.node.services.policy.clients[self.name]
        # An order that can't be read is asked for as a call to nowhere: the limits may be reached all the same.
        charges = [Charge("", client.levels, None)]
        try:
            order = client.read(fields, peek=True)
            charges = click2dial.charges(
                click2dial.new_attempt(client, order, self.node.services.policy.settings), order, client
            )
        except Refused as refused:
            faults = refused.faults
        checks = [
            {
                "check": field,
                "ok": not (wrong := [fault for fault in faults if fault.field == field]),
                "message": "; ".join(fault.message for fault in wrong) or "ok",
            }
            for field in dict.fromkeys([*PATTERNS, *(fault.field for fault in faults)])
        ]
        checks += self._spending(charges)
        reasons = self.node.services.readiness.reasons()
        checks.append({"check": "ready", "ok": not reasons, "message": "; ".join(reasons) or "ok"})
        return {"dry_run": True, "ok": all(check["ok"] for check in checks), "checks": checks}

    def _spending(self, charges: list[Charge]) -> list[dict[str, Any]]:
        try:
            refusal = self.node.services.usage.check(*charges)
        except StoreUnavailable:
            return [{"check": "limits", "ok": False, "message": "redis: no answer"}]
        tripped = refusal is not None and refusal.what == BREAKER
        message = "ok" if refusal is None else refusal.message
        return [
            {"check": "limits", "ok": refusal is None or tripped, "message": "ok" if tripped else message},
            {"check": "breaker", "ok": not tripped, "message": message if tripped else "ok"},
        ]
