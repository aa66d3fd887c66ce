"""One page of what each integrator has in a list of its own, newest first."""

from __future__ import annotations

from collections.abc import Callable, Collection
from heapq import nlargest
from typing import Any

from esl_apps.store import unreadable
from esl_apps.store.errors import Fault

Row = dict[str, Any]
Page = tuple[list[Row], str | None]
"""The rows, and where the next page begins (None: no more)."""


def merge(
    names: Collection[str], read: Callable[[str], Page], key: Callable[[str], str], limit: int, *, strict: bool
) -> Page:
    """Merge the pages of several integrators, by ``call_ref``. ``read``: reads one's page. ``key``: its key in Redis.

    A list that is something else hides no other, and with ``strict`` is an error. A call whose node was only slow may
    be in two: its adopter didn't know yet whose call it was. :raises StoreUnavailable: Redis is down.
    """
    rows: dict[str, Row] = {}
    unseen: list[str] = []
    for name in sorted(names):
        try:
            found, more = read(name)
        except Fault as error:
            if strict:
                raise
            unreadable.say(key(name), error, [key(name)])
            continue
        rows.update({row["call_ref"]: row for row in found})
        # More than a page is only kept to see that there are more: many integrators' pages would fill the memory.
        rows = {ref: rows[ref] for ref in nlargest(limit + 1, rows)}
        if more is not None:
            unseen.append(more)
    # Beyond the newest of these, some integrator's rows were not looked at.
    seen_to = max(unseen, default="")
    fresh = [row for ref, row in rows.items() if ref >= seen_to]
    if len(fresh) > limit:
        return fresh[:limit], fresh[limit - 1]["call_ref"]
    return fresh, seen_to or None
