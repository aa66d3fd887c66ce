"""Calls for the tests of ``CallStore``."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.json import encode

from esl_apps.core.attempt import Attempt
from esl_apps.core.reference import new_ref
from esl_apps.core.status import snapshot
from esl_apps.store.calls import CallStore
from esl_apps.store.essence import Essence


def call(
    state: str = "queued", *, ref: str = "", agent: str = "1000", integrator: str | None = "acme"
) -> dict[str, Any]:
    attempt = Attempt(
        app="click-dial", call_dir="outbound", call_ref=ref or new_ref(), integrator=integrator, extension=agent
    )
    return {**snapshot(attempt), "state": state}


def shown(one: dict[str, Any]) -> Any:
    return msgspec.defstruct("Shown", list(one))(*one.values())


def save(store: CallStore, one: dict[str, Any]) -> dict[str, Any]:
    store.save(one["call_ref"], lambda: shown(one), None if one["state"] == "ended" else encode(essence_of(one)))
    return one


def essence_of(one: dict[str, Any]) -> Essence:
    return Essence(
        call_ref=one["call_ref"],
        session_ref=one["call_ref"],
        contact_ref="",
        app="click-dial",
        queued_at=1.0,
        state=one["state"],
        call_dir="outbound",
    )
