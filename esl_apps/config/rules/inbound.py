"""Rules for ``inbound``."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import suppress

from esl_apps.config.inbound import Inbound
from esl_apps.config.rules import context
from esl_apps.config.rules.context import Context, Finding
from esl_apps.core.number_text import NotDialable
from esl_apps.core.restrictions import denied


def numbers_are_numbers(c: Context) -> Iterator[Finding]:
    for did, inbound in c.config.inbound.items():
        agents = [(f"inbound.{did}.agents[{i}]", text) for i, text in enumerate(inbound.agents)]
        yield from context.numbers(c.plan, [(f"inbound.{did}", did), *agents])


def numbers_differ(c: Context) -> Iterator[Finding]:
    if c.plan is None:
        return
    seen: dict[str, str] = {}
    for did in c.config.inbound:
        try:
            e164 = c.plan.read(did).subscriber
        except NotDialable:
            continue
        if e164 in seen:
            yield f"inbound.{did}", f"is the same number as {seen[e164]} above"
        seen.setdefault(e164, did)


def integrators_exist(c: Context) -> Iterator[Finding]:
    for did, inbound in c.config.inbound.items():
        if c.draft.names is not None and inbound.integrator not in c.draft.names:
            yield f"inbound.{did}.integrator", "no such integrator"


def agents_may_be_rung(c: Context) -> Iterator[Finding]:
    own_numbers = set(_own_numbers(c))
    for did, inbound in c.config.inbound.items():
        yield from _agents(c, did, inbound, own_numbers)


def _agents(c: Context, did: str, inbound: Inbound, own_numbers: Container[str]) -> Iterator[Finding]:
    owner = c.config.integrator(inbound.integrator)
    if c.plan is None or owner is None:
        return
    for i, text in enumerate(inbound.agents):
        try:
            agent = c.plan.read(text)
        except NotDialable:
            continue
        refused = agent.klass if agent.is_emergency else denied(agent, owner.call_restriction)
        if refused:
            yield f"inbound.{did}.agents[{i}]", f"numbers of class {refused} are not rung"
        elif agent.subscriber in own_numbers:
            yield f"inbound.{did}.agents[{i}]", "is a number of this installation: the call would come back here"
        elif not agent.is_extension and not c.config.dial.external:
            yield f"inbound.{did}.agents[{i}]", "is not an extension, and dial.external is empty: nothing can ring it"


def _own_numbers(c: Context) -> Iterator[str]:
    """Yield the DIDs of this installation, E.164."""
    cccp = c.config.cccp
    disas = [disa for account in c.config.accounts.values() for disa in account.disa.values()]
    dids = [
        *c.config.inbound,
        cccp.cccp_cb_number,
        cccp.cccp_cc_number,
        *(did for disa in disas for did in disa.numbers),
    ]
    for did in dids:
        if did and c.plan is not None:
            with suppress(NotDialable):
                yield c.plan.read(did).subscriber


RULES = (numbers_are_numbers, numbers_differ, integrators_exist, agents_may_be_rung)
