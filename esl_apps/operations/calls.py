"""The calls of all applications: the live ones as their processes last wrote them, and all of the last day."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from operator import attrgetter

from esl_apps.core.status import snapshot, values_by
from esl_apps.operations import pages
from esl_apps.operations.pages import Page, Row
from esl_apps.store import keys
from esl_apps.store.calls import CallStore
from esl_apps.store.essence import restored

#: The fields by which calls can be chosen.
FILTERS = ("app", "integrator", "state", "agent", "callee", "contact_ref", "session_ref", "switch")
#: Calls are listed without these; one call has them.
_LONG = ("timeline", "decisions")


def live_calls(
    store: CallStore,
    boots: Iterable[str],
    wanted: Mapping[str, str],
    limit: int | None = None,
    before: str | None = None,
) -> Page:
    """The live calls, newest first, each with its ``age`` in seconds.

    ``boots``: the processes. ``wanted``: the values that fields must have. :raises StoreUnavailable: Redis is down.
    """
    now = time.time()
    stored = [call for process in store.live(boots).values() for call in process]
    stored.sort(key=attrgetter("call_ref"), reverse=True)
    calls: list[Row] = []
    # No more than the page needs: there may be thousands, with much metadata each.
    for essence in stored:
        if before is not None and essence.call_ref >= before:
            continue
        call = snapshot(restored(essence)) | {"age": round(now - essence.queued_at, 1)}
        if _is_wanted(call, wanted):
            calls.append(_short(call))
            if limit is not None and len(calls) > limit:
                return calls[:limit], calls[limit - 1]["call_ref"]
    return calls, None


def recent_calls(
    store: CallStore, integrators: Iterable[str], wanted: Mapping[str, str], limit: int, before: str | None
) -> Page:
    """The live and ended calls of the last day, newest first.

    ``integrators``: those of the configuration. :raises StoreUnavailable: Redis is down.
    """
    names = {"", *integrators}
    if "integrator" in wanted:
        names &= {wanted["integrator"]}
    others = {field: value for field, value in wanted.items() if field != "integrator"}
    strict = "integrator" in wanted

    def read(name: str) -> Page:
        return store.calls(name, others, limit, before)

    found, more = pages.merge(names, read, keys.calls, limit, strict=strict)
    return [_short(call) for call in found], more


def _is_wanted(call: Row, wanted: Mapping[str, str]) -> bool:
    return all(value in values_by(field, call) for field, value in wanted.items())


def _short(call: Row) -> Row:
    return {field: value for field, value in call.items() if field not in _LONG}
