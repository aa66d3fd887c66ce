"""Calls that come over the outbound event socket: what must hold whatever their application does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from esl_apps import incoming
from esl_apps.core.cdr import Attempt


def test_a_fault_in_an_application_costs_its_call_but_not_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Attempt("disa", None, "0820000000", None, None, "external")
    node: Any = SimpleNamespace(calls=SimpleNamespace(live={attempt.call_ref: SimpleNamespace(attempt=attempt)}))
    visit = incoming._Visit.__new__(incoming._Visit)
    visit.node, visit.ref = node, attempt.call_ref
    incomings = incoming.Incoming(node)

    def fault(_visit: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(incoming, "_Visit", lambda _node, _session: visit)
    monkeypatch.setattr(incomings, "_serve", fault)
    with pytest.raises(RuntimeError):
        incomings.handle(SimpleNamespace())  # type: ignore[arg-type]
    assert attempt.record is not None
    assert (attempt.record.end_reason, attempt.record.end_code) == ("lost", 31)
