"""Calls that come over the outbound event socket: what must hold whatever their application does."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from esl_apps.core.attempt import Attempt
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node import incoming
from esl_apps.node import visit as visit_module
from esl_apps.store.essence import Essence
from tests.support.call_switch import new_call
from tests.support.peer import UUID

REF = "01a20447-2be6-705d-bfcb-64432c6ce89b"
KNOWN = Essence(REF, REF, "contact", "disa", 1.0, "agent_answered", "external")


def test_a_fault_in_an_application_costs_its_call_but_not_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Attempt(app="disa", extension="0820000000", call_dir="external")
    live = {attempt.call_ref: SimpleNamespace(attempt=attempt)}
    services: Any = SimpleNamespace(calls=SimpleNamespace(live=live))
    visit = visit_module.Visit.__new__(visit_module.Visit)
    visit.services, visit.ref = services, attempt.call_ref
    visit.channel = SimpleNamespace(let_go=lambda: None)  # type: ignore[assignment]
    incomings = incoming.Incoming(services, {})

    def fault(_visit: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(incoming, "Visit", lambda _node, _session: visit)
    monkeypatch.setattr(incomings, "_serve", fault)
    with pytest.raises(RuntimeError):
        incomings.handle(SimpleNamespace())  # type: ignore[arg-type]
    assert attempt.record is not None
    assert (attempt.record.end_reason, attempt.record.end_code) == ("lost", 31)


def test_a_calls_visit_is_freed_without_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the channel, which asks it for its end; the session tells the channel of what comes; and all the events
    of the call hang on these."""
    channel, switch, session = new_call({"socket_path": "disa/acme/front"})

    def opened(_session: object, _prompt: object, find_end: Any) -> object:
        (channel := made.pop())._find_end = find_end
        return channel

    def serve(visit: visit_module.Visit) -> None:
        visit.channel.begin("ref-1", watched=False)
        freed.append(weakref.ref(visit))
        assert visit.channel.uuid == UUID

    made = [channel]
    freed: list[Any] = [weakref.ref(channel), weakref.ref(session)]
    monkeypatch.setattr(visit_module, "Channel", opened)
    policy = SimpleNamespace(prompt=None)
    services: Any = SimpleNamespace(switches=[SimpleNamespace(core_uuid="core")], policy=policy)
    incomings = incoming.Incoming(services, {})
    monkeypatch.setattr(incomings, "_serve", serve)
    gc.disable()
    try:
        incomings.handle(session)
        session.leave()
        del channel, session
        monkeypatch.undo()
        assert [one() for one in freed] == [None, None, None]
    finally:
        gc.enable()
        switch.peer.close()
        switch.greenlet.kill()


def handed_back(say: Any, kept: dict[str, Essence]) -> tuple[visit_module.Visit, list[str]]:
    """A channel that carries ``REF``. ``say`` is the roster's; ``kept``: what is in Redis, by process."""
    taken: list[str] = []
    visit = visit_module.Visit.__new__(visit_module.Visit)
    visit.carried = REF
    visit.channel = SimpleNamespace(variable=lambda _name: None)  # type: ignore[assignment]

    def essence(ref: str, boots: Any) -> tuple[str, Essence] | None:
        assert ref == REF
        return next(((boot, kept[boot]) for boot in boots if boot in kept), None)

    store = SimpleNamespace(essence=essence, take_over=lambda _known, boot: taken.append(boot))
    roster = SimpleNamespace(peers={"ours": None})
    roster.say = lambda *, draining: say(roster)
    readiness = SimpleNamespace(draining=False)
    services: Any = SimpleNamespace(store=store, membership=roster, readiness=readiness)
    visit.services = services
    return visit, taken


def test_a_call_that_a_process_had_which_lived_for_less_than_a_beat_is_taken_over() -> None:
    visit, taken = handed_back(lambda roster: roster.peers.update(young=None), {"young": KNOWN})
    assert visit.take_over() is KNOWN
    assert taken == ["young"]


def test_a_call_that_nobody_has_is_not_taken_over() -> None:
    visit, taken = handed_back(lambda _roster: None, {"unheard of": KNOWN})
    assert visit.take_over() is None
    assert taken == []


def test_a_call_that_was_handed_back_while_redis_goes_away_is_none_of_ours() -> None:
    def away(_roster: Any) -> None:
        raise StoreUnavailable("redis: away")

    visit, taken = handed_back(away, {})
    assert visit.take_over() is None
    assert visit.follows
    assert taken == []
