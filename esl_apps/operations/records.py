"""The records of all applications over the last days, whichever integrator they belong to."""

from __future__ import annotations

from collections.abc import Iterable

from esl_apps.operations import pages
from esl_apps.operations.pages import Page
from esl_apps.store import keys
from esl_apps.store.record_history import Chosen, RecordHistory


def page(
    history: RecordHistory,
    integrators: Iterable[str],
    chosen: Chosen,
    limit: int,
    before: str | None = None,
    integrator: str | None = None,
) -> Page:
    """The records, the latest call first, each with its ``integrator``.

    ``integrators``: those of the configuration. ``integrator``: one of them, or '' for calls of none; None: all.
    :raises StoreUnavailable: Redis is down.
    """

    def read(name: str) -> Page:
        found, more = history.page(name, chosen, limit, before)
        return [{"integrator": name or None, **record} for record in found], more

    names = {"", *integrators} if integrator is None else {integrator}
    return pages.merge(names, read, keys.history, limit, strict=integrator is not None)
