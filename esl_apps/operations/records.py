"""The records of all applications over the last days, whichever integrator they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest
from typing import Any

from esl_apps.store import keys, unreadable
from esl_apps.store.errors import Fault
from esl_apps.store.record_history import Chosen, RecordHistory

Page = tuple[list[dict[str, Any]], str | None]


def page(
    history: RecordHistory,
    integrators: Iterable[str],
    chosen: Chosen,
    limit: int,
    before: str | None = None,
    integrator: str | None = None,
) -> Page:
    """The records, the latest call first, each with its ``integrator``, and where the next page begins (None: no more).

    ``integrators``: those of the configuration. ``integrator``: one of them, or '' for calls of none; None: all.
    A history that is something else hides no other. :raises StoreUnavailable: Redis is down.

    A call whose node was only slow may be in two: its adopter didn't know yet whose call it was.
    """
    names = {"", *integrators} if integrator is None else {integrator}
    records: dict[str, dict[str, Any]] = {}
    unseen: list[str] = []
    for name in sorted(names):
        try:
            found, more = history.page(name, chosen, limit, before)
        except Fault as error:
            if integrator is not None:
                raise
            unreadable.say(keys.history(name), error, [keys.history(name)])
            continue
        records.update({record["call_ref"]: {"integrator": name or None, **record} for record in found})
        # More than a page is only kept to see that there are more: many integrators' pages would fill the memory.
        records = {ref: records[ref] for ref in nlargest(limit + 1, records)}
        if more is not None:
            unseen.append(more)
    # Beyond the newest of these, some integrator's records were not looked at.
    seen_to = max(unseen, default="")
    fresh = [record for ref, record in records.items() if ref >= seen_to]
    if len(fresh) > limit:
        return fresh[:limit], fresh[limit - 1]["call_ref"]
    return fresh, seen_to or None
