"""An integrator's port: who may use it, and how its calls are placed and found."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, NamedTuple

import falcon
import gevent
from msgspec import UNSET

from esl_apps.apps import click2dial
from esl_apps.config.model import Config, Integrator
from esl_apps.core import actions, reference, terms
from esl_apps.core.actions import Action, CallState, Undone
from esl_apps.core.call_fields import agents_of, why_not_change
from esl_apps.core.call_options import OPTIONS
from esl_apps.core.charges import Charge
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.numbers import Number
from esl_apps.core.order import PATTERNS, IntegratorRules, Order
from esl_apps.core.status import is_ref, snapshot
from esl_apps.http import dry_run, idempotency
from esl_apps.http.access import Door, Token, given_token, tokens_of
from esl_apps.http.agent_tokens import AgentTokens
from esl_apps.http.errors import Problem, problem
from esl_apps.http.schemas import Accepted, DryRun
from esl_apps.http.signed_links import Links
from esl_apps.node import presence
from esl_apps.node.dial_claim import DialClaim
from esl_apps.node.live import Full
from esl_apps.node.outgoing import Outgoing
from esl_apps.node.presence import AgentUnavailable, Presence
from esl_apps.node.services import Services
from esl_apps.store.idempotency import DONE, UNKNOWN, Claim, same_body

#: Seconds in which another node's new call may not be in Redis yet, and how often to look for it meanwhile.
_YOUNG, _YOUNG_TRIES = 0.5, 10
#: Seconds within which a request with an idempotency key has placed its call or done its action, or has been refused.
_LONGEST = 60.0


#: Methods that change nothing.
_READING = ("GET", "HEAD")


class _Tokens(NamedTuple):
    config: Config
    """The configuration that they are of. A reload brings another."""
    known: list[Token]
    of_agents: AgentTokens


class CallsPort:
    def __init__(self, services: Services, outgoing: Outgoing, name: str) -> None:
        self.services = services
        self.name = name
        self.door = Door(lambda: self.settings.rate, services.refused)
        self.listening: Counter[str] = Counter()
        """Clients that listen to events with tokens of an agent, by agent."""
        self._outgoing = outgoing
        self._last_tokens: _Tokens | None = None

    @property
    def settings(self) -> Integrator:
        integrator = self.services.policy.config.integrator(self.name)
        assert integrator is not None  # a reload keeps every port's integrator
        return integrator

    @property
    def client(self) -> IntegratorRules:
        return self.services.policy.clients[self.name]

    @property
    def links(self) -> Links | None:
        """None if links are off."""
        key = self.services.policy.config.recordings.link_key
        return Links(key, self.name) if key else None

    def admit(self, req: falcon.Request, scopes: tuple[str, ...], params: dict[str, Any]) -> None:
        """An agent token opens calls of its agent only; others are as unknown to it as another integrator's.

        :raises Problem: as ``Door.check``; 401 for an agent token that has expired; 404 for another agent's call; 403
            for a change of one that isn't theirs alone.
        """
        tokens = self._tokens()
        given = given_token(req)
        agent_token = tokens.of_agents.read(given)
        known = tokens.known if agent_token is None else [*tokens.known, agent_token.token]
        token = req.context.token = self.door.find(req, given, known)
        self.door.enter(token, *scopes)
        if agent_token is None or token.agent is None:
            return
        if agent_token.expires <= time.time():
            self.services.refused(401)
            headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            raise problem(401, "expired", "this agent token has expired", headers=headers)
        if "ref" in params:
            call = self.find(params["ref"])
            if call is None or token.agent not in agents_of(call["agent"], call.get("agents")):
                raise problem(404, "not_found", "no such call")
            if req.method not in _READING and call["state"] != terms.ENDED:
                self._check_has(token.agent, call)

    def _check_has(self, agent: str, call: dict[str, Any]) -> None:
        """:raises Problem: 403 if an agent may only see a call: their phones don't ring any more, others' ring, too, or
        another agent has answered it."""
        reason = why_not_change(agent, call["agent"], call.get("agents"), call["bridged_at"])
        if reason:
            self.services.refused(403)
            raise problem(403, "agent", reason)

    def still_admits(self, req: falcon.Request, *scopes: str) -> bool:
        """Whether the token of a request that was admitted still opens this port, with one of these scopes."""
        tokens = self._tokens()
        agent_token = tokens.of_agents.read(given_token(req))
        if agent_token is not None:
            return agent_token.token.has(*scopes) and agent_token.expires > time.time()
        return any(self.token(req).digest == token.digest and token.has(*scopes) for token in tokens.known)

    def token(self, req: falcon.Request) -> Token:
        """Return the token that admitted a request."""
        token: Token = req.context.token
        return token

    def check_agent(self, req: falcon.Request, agent: object) -> None:
        """Check an agent, however the request writes it. :raises Problem: 403 if its token is another agent's."""
        own = self.token(req).agent
        if own is not None and not (isinstance(agent, str) and self.client.agent(agent) == own):
            self.services.refused(403)
            raise problem(403, "agent", f"this token is for calls of agent {own}", "agent")

    @property
    def agent_tokens(self) -> AgentTokens:
        return self._tokens().of_agents

    def _tokens(self) -> _Tokens:
        config = self.services.policy.config
        if self._last_tokens is None or self._last_tokens.config is not config:
            known = tokens_of(self.settings, self.settings.tokens, self.name)
            self._last_tokens = _Tokens(config, known, AgentTokens(self.name, known, config.pin_key or ""))
        return self._last_tokens

    # Calls --------------------------------------------------------------------------------------------

    def place(self, fields: dict[str, Any], ref: str, dial_claim: DialClaim | None = None) -> Accepted:
        """Place a call.

        :raises Refused: a field is wrong. :raises AgentUnavailable, Full, Spent, StoreUnavailable: nothing was dialled.
        """
        self._outgoing.check_ready()
        client = self.client
        order = client.read(fields)
        try:
            self._check_presence(order)
            attempt = self._outgoing.click2dial(order, client, ref, dial_claim)
        except Exception:
            client.return_turn(order)
            raise
        return Accepted(attempt.call_ref, attempt.contact_ref, attempt.state)

    def key_of(self, req: falcon.Request) -> str | None:
        """Return the name of a request's idempotency key; None if it has no key. :raises Problem: 422."""
        key, own = idempotency.key_of(req), self.token(req).agent
        # A page of one agent must not take the keys that its server, or another agent, is about to use.
        return key if key is None or own is None else f"{own} {key}"

    def place_once(self, key: str, raw: bytes, fields: dict[str, Any], ref: str) -> Accepted:
        """Place a call once per idempotency key: the first request dials, with this ``ref``; later ones get its call.

        ``key``: as ``key_of``. :raises Problem: 409. Everything else as ``place``.
        """
        store, membership = self.services.idempotency, self.services.membership
        began = time.monotonic()

        def sure() -> bool:
            return time.monotonic() < began + _LONGEST / 2 and membership.held_since(began)

        dial_claim = DialClaim(sure, lambda: store.holds(self.name, key, ref))
        claim = store.claim(self.name, key, raw, ref)
        if claim is None:
            return self._place_claimed(key, raw, fields, ref, dial_claim)
        if not same_body(claim, raw):
            raise problem(409, "key_reused", "this key came with another body before", idempotency.KEY)
        call = self.find(claim.call_ref)
        if call is not None:
            return Accepted(call["call_ref"], call["contact_ref"], call["state"])
        if self._is_over(key, claim) and store.reclaim(self.name, key, claim, ref):
            return self._place_claimed(key, raw, fields, ref, dial_claim)
        raise _in_progress()

    def act(self, call: dict[str, Any], action: Action) -> CallState:
        """Do an action on a live call. :raises Undone: it can't be done now."""
        acting = self.services.acting
        try:
            return acting.act(call, action)
        except Undone as undone:
            return acting.act(self._ended_meanwhile(call, undone), action)

    def cancel(self, call: dict[str, Any], agent: str | None) -> dict[str, Any]:
        """Cancel a call unless it has ended, and return it: as it was, or as it ended meanwhile.

        ``agent``: as ``Acting.cancel``. :raises Undone: the agent may not cancel it, or its node doesn't answer.
        """
        if call["state"] != terms.ENDED:
            try:
                self.services.acting.cancel(call, agent)
            except Undone as undone:
                return self._ended_meanwhile(call, undone)
        return call

    def _ended_meanwhile(self, call: dict[str, Any], undone: Undone) -> dict[str, Any]:
        """Return a call that its node ended at that moment, so that none answered. :raises Undone: it is still up."""
        now = self.find(call["call_ref"]) if undone.status == 503 else None
        if now is None or now["state"] != terms.ENDED:
            raise undone
        return now

    def act_once(self, key: str, request: bytes, call: dict[str, Any], action: Action) -> tuple[CallState, bool]:
        """Do an action once per idempotency key. Once it is done, a repeated request gets the call's state, and the
        first answer's ``transfer_ref``. Return that, and whether it was done before.

        ``key``: as ``key_of``. :raises Problem: 409. :raises Undone: it can't be done now; the key may be used again,
            unless digits may have been sent.
        """
        store, ref = self.services.idempotency, call["call_ref"]
        claim = store.claim(self.name, key, request, ref)
        if claim is None:
            return self._act_claimed(key, request, call, action), False
        if not same_body(claim, request):
            raise problem(409, "key_reused", "this key came with another request before", idempotency.KEY)
        if claim.outcome == DONE:
            fields = {name: call[name] for name in CallState.__struct_fields__ if name in call}
            # That of the first answer: since then, its consultation may have ended, and another may have begun.
            went_on = claim.transfer_ref
            if went_on is None:
                went_on = (call.get("record") or {}).get("transferred_to") or call.get("consultation")
            return CallState(**fields, transfer_ref=went_on or UNSET), True
        if claim.outcome != UNKNOWN and not self._is_over(key, claim):
            raise _in_progress()
        if action.name == actions.DIGITS:
            # Sent twice, they may be another number.
            raise Undone(503, actions.UNKNOWN, "the first request with this key may have sent them, or not")
        if store.reclaim(self.name, key, claim, ref):
            return self._act_claimed(key, request, call, action), False
        raise _in_progress()

    def _act_claimed(self, key: str, request: bytes, call: dict[str, Any], action: Action) -> CallState:
        store, ref = self.services.idempotency, call["call_ref"]
        try:
            state = self.act(call, action)
        except Exception as error:
            # Other actions change nothing if they are done twice.
            if action.name != actions.DIGITS or (isinstance(error, Undone) and error.code != actions.UNKNOWN):
                store.release(self.name, key, request, ref)
            else:
                store.note(self.name, key, request, ref, UNKNOWN)
            raise
        store.note(self.name, key, request, ref, DONE, state.transfer_ref or "")
        return state

    def _is_over(self, key: str, claim: Claim) -> bool:
        """Whether the request that claimed a key won't go on: its process was killed meanwhile, or it was refused when
        Redis was down, and its claim is still there."""
        membership = self.services.membership
        if membership.is_dead(claim.boot):
            return True
        return membership.is_current and self.services.idempotency.age(self.name, key) > _LONGEST

    def _place_claimed(self, key: str, raw: bytes, fields: dict[str, Any], ref: str, dial_claim: DialClaim) -> Accepted:
        try:
            return self.place(fields, ref, dial_claim)
        except Exception:
            # Nothing was dialled, so the key may be used again.
            self.services.idempotency.release(self.name, key, raw, ref)
            raise

    def find(self, ref: str) -> dict[str, Any] | None:
        """Return a live or recent call of this integrator; None for unknown calls and for other integrators'.

        :raises StoreUnavailable: Redis is down.
        """
        if not is_ref(ref):
            return None
        live = self.services.calls.live.get(ref)
        # A call that another node has just placed reaches Redis a moment later. Wait for it before answering 404.
        tries = _YOUNG_TRIES if abs(time.time() - reference.began(ref)) < _YOUNG else 1
        call = snapshot(live.attempt) if live is not None else self.services.store.call(ref)
        while call is None and (tries := tries - 1):
            gevent.sleep(_YOUNG / _YOUNG_TRIES)
            call = self.services.store.call(ref)
        return call if call is not None and call["integrator"] == self.name else None

    def call(self, ref: str) -> dict[str, Any]:
        """As :meth:`find`. :raises Problem: 404."""
        call = self.find(ref)
        if call is None:
            raise problem(404, "not_found", "no such call")
        return call

    # Agents -------------------------------------------------------------------------------------------

    def presence(self, agent: Number, *, with_calls: bool = False) -> Presence:
        """Return whether an extension is there. ``with_calls``: and all its calls of this integrator."""
        services, endpoints = self.services, self.services.policy.settings.endpoints
        return presence.look(services.switches, services.calls, endpoints, agent, self.name, with_calls=with_calls)

    def _check_presence(self, order: Order) -> None:
        """:raises Refused: no switch knows whether this agent is there. :raises AgentUnavailable: they aren't.
        :raises Full: a switch didn't say in time."""
        wanted = order.options.require_agent
        if wanted is None:
            return
        if self.services.policy.settings.endpoints.registration(order.agent) is None:
            raise Refused(
                [Fault("require_agent", "not_allowed", "this agent's phone doesn't register with the switch")]
            )
        found = self.presence(order.agent)
        reason = found.lacks(wanted)
        if reason is not None:
            raise AgentUnavailable(reason)
        if not found.tells(wanted):
            raise Full("the switches didn't say in time whether the agent is there")

    # Dry run ------------------------------------------------------------------------------------------

    def dry_run(self, fields: dict[str, Any]) -> DryRun:
        """Return every check and its verdict. Nothing is dialled and no campaign's turn is taken."""
        faults: list[Fault] = []
        client, policy = self.client, self.services.policy
        # If the order can't be read, check the limits for a call without a number: they may be reached all the same.
        charges = [Charge("", client.levels, None)]
        try:
            order = client.read(fields, peek=True)
            charges = click2dial.new_call(order, client, policy.settings).charges(policy)
            self._check_presence(order)
        except Refused as refused:
            faults = refused.faults
        except (AgentUnavailable, Full) as unavailable:
            faults = [Fault("require_agent", "agent_unavailable", str(unavailable))]
        given = [name for name in OPTIONS if name in fields]
        return dry_run.report(self.services, [*PATTERNS, *given], faults, charges)


def _in_progress() -> Problem:
    message = "the first request with this key is still running"
    return problem(409, "in_progress", message, idempotency.KEY, {"Retry-After": "1"})
