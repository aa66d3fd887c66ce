"""Pages of several integrators' lists."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from esl_apps.operations import calls, records
from esl_apps.store import unreadable
from esl_apps.store.errors import Fault


class BrokenStore:
    """Every list is a key of another type."""

    def calls(self, *_args: Any) -> Any:
        raise Fault("WRONGTYPE", "WRONGTYPE Operation against a key holding the wrong kind of value")

    page = calls


def recent_calls(integrators: list[str], asked: str | None) -> Any:
    store: Any = BrokenStore()
    return calls.recent_calls(store, integrators, {} if asked is None else {"integrator": asked}, 10, None)


def past_records(integrators: list[str], asked: str | None) -> Any:
    history: Any = BrokenStore()
    chosen: Any = None
    return records.page(history, integrators, chosen, 10, None, asked)


@pytest.mark.parametrize("read", [recent_calls, past_records])
@pytest.mark.parametrize("integrators", [[], ["acme"]])
def test_pages_skip_and_log_a_list_that_is_something_else(
    read: Callable[..., Any],
    integrators: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without integrators, there is one list: that of calls of none."""
    monkeypatch.setattr(unreadable, "_said", set())
    caplog.set_level(logging.WARNING)
    assert read(integrators, None) == ([], None)
    assert len(caplog.records) == 1 + len(integrators)


@pytest.mark.parametrize("read", [recent_calls, past_records])
def test_pages_of_the_integrator_that_is_asked_for_fail(read: Callable[..., Any]) -> None:
    with pytest.raises(Fault):
        read(["acme"], "acme")
