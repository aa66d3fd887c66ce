"""The views and actions of operators on a node: those of ``operations``, with what the node itself knows, the problems
that HTTP answers, and a line in the log for each action. ``/v1`` and the console call them, so the two can't differ.

Every function raises ``StoreUnavailable`` if it asks Redis and Redis is down. Each action is logged with the name of
the token, ``by``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from esl_apps import __version__
from esl_apps.core import status, terms
from esl_apps.http.admin_port import AdminPort
from esl_apps.http.errors import problem
from esl_apps.node import reporting
from esl_apps.node.outboxes import HISTORY
from esl_apps.operations import breakers, calls, records, reports, switches, waiting, webhooks
from esl_apps.operations.pages import Page
from esl_apps.operations.reports import Report
from esl_apps.store.pin_guard import Locks
from esl_apps.store.record_history import Chosen

log = logging.getLogger(__name__)


def note_action(by: str, action: str, target: str) -> None:
    log.warning("operator_acted", extra={"by": by, "action": action, "target": target})


# Nodes and switches ---------------------------------------------------------------------------------------


def _reports(port: AdminPort) -> dict[str, Report]:
    services = port.services
    return reports.read(services.redis, services.membership.peers)


def overview(port: AdminPort) -> dict[str, Any]:
    """This node, and sums over all."""
    services = port.services
    reported = _reports(port).values()
    return {
        "node": services.membership.name,
        "version": __version__,
        "reasons": services.readiness.problems(),
        "nodes": len({report.node for report in reported}),
        "live": sum(sum(report.live.values()) for report in reported),
        "waiting_records": sum(
            depth for report in reported for outbox, depth in report.outbox.items() if outbox != HISTORY
        ),
        "tripped_breakers": len(services.breakers.tripped),
    }


def processes(port: AdminPort) -> list[dict[str, Any]]:
    """All processes, each with its last report."""
    membership = port.services.membership
    found = _reports(port)
    return [
        {
            "boot": boot,
            "name": peer.name,
            "advertise": peer.advertise,
            "alive": not membership.is_dead(boot),
            "draining": peer.draining,
            "report": found.get(boot),
        }
        for boot, peer in sorted(membership.peers.items(), key=lambda item: (item[1].name, item[0]))
    ]


def all_switches(port: AdminPort) -> list[dict[str, Any]]:
    """All switches, as each node sees them."""
    return switches.seen_by(_reports(port).values(), switches.pauses(port.services.redis))


def pause_switch(port: AdminPort, name: str, by: str) -> bool:
    """False: it was paused. :raises Problem: 404."""
    return _change_switch(port, name, by, "switch_pause", lambda: switches.pause(port.services.redis, name, by))


def resume_switch(port: AdminPort, name: str, by: str) -> bool:
    """False: it was not paused. :raises Problem: 404."""
    return _change_switch(port, name, by, "switch_resume", lambda: switches.resume(port.services.redis, name))


def _change_switch(port: AdminPort, name: str, by: str, action: str, change: Callable[[], bool]) -> bool:
    if name not in {view["name"] for view in all_switches(port)}:
        raise problem(404, "not_found", "no node has a switch of this name", "name")
    changed = change()
    if changed:
        note_action(by, action, name)
        reporting.heed_pauses(port.services)
    return changed


# Calls ----------------------------------------------------------------------------------------------------


def live_calls(port: AdminPort, wanted: Mapping[str, str], limit: int | None = None, before: str | None = None) -> Page:
    """The live calls of all nodes, newest first, and where the next page begins."""
    services = port.services
    return calls.live_calls(services.store, services.membership.peers, wanted, limit, before)


def recent_calls(port: AdminPort, wanted: Mapping[str, str], limit: int, before: str | None = None) -> Page:
    """The live and ended calls of the last day, newest first, and where the next page begins."""
    services = port.services
    integrators = [integrator.name for integrator in services.policy.config.integrators]
    return calls.recent_calls(services.store, integrators, wanted, limit, before)


def find_call(port: AdminPort, ref: str) -> dict[str, Any]:
    """One call with its timeline. :raises Problem: 404."""
    live = port.services.calls.live.get(ref)
    call = status.snapshot(live.attempt) if live is not None else None
    if call is None and status.is_ref(ref):
        call = port.services.store.call(ref)
    if call is None:
        raise problem(404, "not_found", "no such call; calls are kept for a day", "ref")
    return call


def end_call(port: AdminPort, ref: str, by: str) -> dict[str, Any]:
    """Hang a call up, in any state, and return it as it was. One that has ended stays so. :raises Problem: 404."""
    call = find_call(port, ref)
    if call["state"] != terms.ENDED:
        note_action(by, "call_end", ref)
        port.services.acting.cancel(call)
    return call


def past_records(
    port: AdminPort, chosen: Chosen, limit: int, before: str | None = None, integrator: str | None = None
) -> Page:
    """The records of the last days; as ``operations.records.page``."""
    services = port.services
    names = [configured.name for configured in services.policy.config.integrators]
    return records.page(services.record_history, names, chosen, limit, before, integrator)


# Locks, breakers, waiting calls, webhooks -----------------------------------------------------------------


def lift_lock(port: AdminPort, key: str, by: str) -> None:
    """:raises Problem: 404."""
    if not Locks(port.services.redis).lift(key):
        raise problem(404, "not_found", "not locked", "key")
    note_action(by, "lock_lift", key)


def trip_breaker(port: AdminPort, scope: str, by: str, *, end_calls: bool) -> bool:
    """False: nothing has changed. :raises Problem: 404 for a scope that names nothing."""
    services = port.services
    try:
        changed = breakers.trip(services.policy.config, services.redis, scope, f"token {by}", end_calls=end_calls)
    except ValueError as error:
        raise problem(404, "not_found", str(error), "key") from None
    note_action(by, "breaker_trip", scope)
    return changed


def reset_breaker(port: AdminPort, scope: str, by: str) -> None:
    """:raises Problem: 404."""
    if not breakers.reset(port.services.policy.config, port.services.redis, scope, f"token {by}"):
        raise problem(404, "not_found", "it has not tripped", "key")
    note_action(by, "breaker_reset", scope)


def all_webhooks(port: AdminPort) -> list[dict[str, Any]]:
    services = port.services
    nodes = {boot: peer.name for boot, peer in services.membership.peers.items()}
    return webhooks.listed(services.policy.config, services.redis, nodes)


def replay_webhook(port: AdminPort, name: str, since: float, by: str) -> int:
    """Return how many notifications wait now. :raises Problem: 404."""
    services = port.services
    try:
        target = webhooks.find(services.policy.config, name)
    except LookupError as error:
        raise problem(404, "not_found", str(error), "name") from None
    waiting = webhooks.replay(services.redis, target, since)
    note_action(by, "webhook_replay", name)
    return waiting


def drop_waiting(port: AdminPort, key: str, by: str) -> None:
    """:raises Problem: 404, or 409 if a node is placing it."""
    dropped = waiting.drop(port.services.timed_calls, key)
    if dropped is None:
        raise problem(409, "state", "a node is placing it: end the call", "key")
    if not dropped:
        raise problem(404, "not_found", "not waiting", "key")
    note_action(by, "waiting_drop", key)
