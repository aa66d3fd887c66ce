"""The calls of all applications: the live ones as their processes last wrote them, and all of the last day."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from heapq import nlargest
from operator import attrgetter, itemgetter
from typing import Any

from esl_apps.core.status import snapshot
from esl_apps.store import keys, unreadable
from esl_apps.store.calls import CallStore
from esl_apps.store.errors import Fault
from esl_apps.store.essence import restored

#: The fields by which calls can be chosen.
FILTERS = ("app", "integrator", "state", "agent", "callee", "contact_ref", "session_ref", "switch")
#: Calls are listed without these; one call has them.
_LONG = ("timeline", "decisions")

Call = dict[str, Any]


def live_calls(
    store: CallStore,
    boots: Iterable[str],
    wanted: Mapping[str, str],
    limit: int | None = None,
    before: str | None = None,
) -> tuple[list[Call], str | None]:
    """The live calls, newest first, each with its ``age`` in seconds; and where the next page begins (None: no more).

    ``boots``: the processes. ``wanted``: the values that fields must have. :raises StoreUnavailable: Redis is down.
    """
    now = time.time()
    stored = [call for process in store.live(boots).values() for call in process]
    stored.sort(key=attrgetter("call_ref"), reverse=True)
    calls: list[Call] = []
    # No more than the page needs: there may be thousands, with much metadata each.
    for essence in stored:
        if before is not None and essence.call_ref >= before:
            continue
        call = snapshot(restored(essence)) | {"age": round(now - essence.queued_at, 1)}
        if _is_wanted(call, wanted):
            calls.append(call)
            if limit is not None and len(calls) > limit:
                break
    return _page(calls, limit)


def recent_calls(
    store: CallStore, integrators: Iterable[str], wanted: Mapping[str, str], limit: int, before: str | None
) -> tuple[list[Call], str | None]:
    """The live and ended calls of the last day, newest first, and where the next page begins (None: no more).

    ``integrators``: those of the configuration. A list that is something else hides no other. :raises StoreUnavailable:
    Redis is down.
    """
    names = {"", *integrators}
    if "integrator" in wanted:
        names &= {wanted["integrator"]}
    others = {field: value for field, value in wanted.items() if field != "integrator"}
    calls: list[Call] = []
    unseen: list[str] = []
    for name in sorted(names):
        try:
            found, more = store.calls(name, others, limit, before)
        except Fault as error:
            if "integrator" in wanted:
                raise
            unreadable.say(keys.calls(name), error, [keys.calls(name)])
            continue
        # More than a page is only kept to see that there are more: many integrators' pages would fill the memory.
        calls = nlargest(limit + 1, [*calls, *found], itemgetter("call_ref"))
        if more is not None:
            unseen.append(more)
    # Beyond the newest of these, some integrator's calls were not looked at.
    seen_to = max(unseen, default="")
    page, more = _page([call for call in calls if call["call_ref"] >= seen_to], limit)
    return page, more or (seen_to or None)


def _is_wanted(call: Call, wanted: Mapping[str, str]) -> bool:
    return all(call.get(field) == value for field, value in wanted.items())


def _page(calls: list[Call], limit: int | None) -> tuple[list[Call], str | None]:
    newest = sorted(calls, key=itemgetter("call_ref"), reverse=True)
    page = newest if limit is None else newest[:limit]
    more = page[-1]["call_ref"] if len(page) < len(newest) and page else None
    return [{field: value for field, value in call.items() if field not in _LONG} for call in page], more
