"""Calls that come over the outbound event socket: what must hold whatever their application does."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from esl_apps import incoming
from esl_apps.core.cdr import Attempt
from tests.esl.test_channel import UUID, new_call


def test_a_fault_in_an_application_costs_its_call_but_not_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Attempt("disa", None, "0820000000", None, None, "external")
    node: Any = SimpleNamespace(calls=SimpleNamespace(live={attempt.call_ref: SimpleNamespace(attempt=attempt)}))
    visit = incoming._Visit.__new__(incoming._Visit)
    visit.node, visit.ref = node, attempt.call_ref
    visit.channel = SimpleNamespace(let_go=lambda: None)  # type: ignore[assignment]
    incomings = incoming.Incoming(node)

    def fault(_visit: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(incoming, "_Visit", lambda _node, _session: visit)
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

    def serve(visit: incoming._Visit) -> None:
        visit.channel.begin("ref-1", watched=False)
        freed.append(weakref.ref(visit))
        assert visit.channel.uuid == UUID

    made = [channel]
    freed: list[Any] = [weakref.ref(channel), weakref.ref(session)]
    monkeypatch.setattr(incoming, "Channel", opened)
    node: Any = SimpleNamespace(switches=[SimpleNamespace(core_uuid="core")], prompt=None)
    incomings = incoming.Incoming(node)
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
