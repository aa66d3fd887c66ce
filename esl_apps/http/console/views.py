"""The pages that show what all nodes do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from esl_apps.apps import APPLICATIONS
from esl_apps.core import status, terms
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http import operator
from esl_apps.http.console import charts
from esl_apps.http.console.site import ConsoleVisit, wanted_of
from esl_apps.operations import breakers, captures, waiting, words
from esl_apps.store.pin_guard import Locks

#: Calls on the first page, on a page of the list, and looked through for failed ones.
_FIRST, _PAGE, _LOOKED_THROUGH = 10, 50, 500
_FILTERS = ("app", "integrator", "state", "agent", "callee", "contact_ref", "switch")
_OUTCOMES = {"": "All", words.FAILED: "Failed", words.MISSED: "Missed", words.GOOD: "Answered"}


def overview(visit: ConsoleVisit) -> None:
    """Health, live calls, the latest calls and the last hour. It also answers while Redis is down."""
    port = visit.port
    now: dict[str, Any] = {"redis": "", "health": None, "live": [], "more": False, "recent": []}
    now |= {"nodes": [], "switches": [], "locks": 0}
    try:
        live, more = operator.live_calls(port, {}, _PAGE)
        recent, _next = operator.recent_calls(port, {}, _FIRST + _PAGE)
        ended = [call for call in recent if call["state"] == terms.ENDED][:_FIRST]
        now |= {
            "live": visit.seen(live),
            "more": more is not None,
            "recent": visit.seen(ended),
            "health": operator.overview(port),
            "nodes": operator.processes(port),
            "switches": operator.all_switches(port),
            "locks": len(Locks(port.services.redis).list()),
        }
    except StoreUnavailable as error:
        now["redis"] = error.summary
    visit.show(
        "overview.html",
        reasons=port.services.readiness.problems(),
        charts=charts.charts(list(visit.site.history.samples), visit.site.history.now),
        drawing=charts,
        **now,
    )


def list_calls(visit: ConsoleVisit) -> None:
    req = visit.req
    wanted = dict(wanted_of(req, _FILTERS))
    if wanted.get("state") not in terms.STATES:
        wanted.pop("state", None)
    outcome = req.get_param("outcome") or ""
    before = req.get_param("before")
    if before is not None and not status.is_ref(before):
        before = None
    if outcome not in _OUTCOMES or not outcome:
        outcome = ""
        found, more = operator.recent_calls(visit.port, wanted, _PAGE, before)
    else:
        found, more = operator.recent_calls(visit.port, wanted, _LOOKED_THROUGH, before)
        matching = [call for call in found if "record" in call and words.tone(call["record"]["end_reason"]) == outcome]
        if len(matching) > _PAGE:
            more = matching[_PAGE - 1]["call_ref"]
        found = matching[:_PAGE]
    config = visit.port.services.policy.config
    visit.show(
        "calls.html",
        calls=visit.seen(found),
        wanted=wanted,
        outcome=outcome,
        outcomes=_OUTCOMES,
        older=more and "?" + urlencode({**wanted, "outcome": outcome, "before": more}),
        apps=list(APPLICATIONS),
        states=terms.STATES,
        integrators=[integrator.name for integrator in config.integrators],
        switches=[switch.name for switch in config.switches],
    )


def show_call(visit: ConsoleVisit, ref: str) -> None:
    call = operator.find_call(visit.port, ref)
    seen = visit.seen(call)
    moments = [{**entry, "what": entry["state"], "is_state": True} for entry in seen["timeline"]]
    moments += [{**entry, "is_state": False} for entry in seen["decisions"]]
    for entry in moments:
        is_end = entry["what"] == terms.ENDED and "record" in seen
        entry["words"] = words.end(seen) if is_end else words.moment(seen, entry["what"], entry["detail"])
    visit.show(
        "call.html",
        call=seen,
        ended=call["state"] == terms.ENDED,
        moments=sorted(moments, key=lambda entry: entry["at"]),
        began=call["timeline"][0]["at"],
        legs=_legs(seen),
        heard=captures.legs(seen, visit.port.services.policy.config.records.capture_url),
    )


def _legs(call: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Both legs: the party, its number, and when it rang and answered. None: it has not."""
    at = {entry["state"]: entry["at"] for entry in call["timeline"]}
    first, second = words.parties(call)
    rings_agents = words.rings_agents(call)
    caller, called = (call["callee"], call["agent"]) if rings_agents else (call["agent"], call["callee"])
    aleg = {"party": first, "number": caller, "rang": at.get("agent_ringing"), "answered": at.get("agent_answered")}
    bleg = {"party": second, "number": called, "rang": at.get("callee_ringing"), "answered": at.get("bridged")}
    if words.is_inbound(call):
        # The caller's leg isn't rung by us; the agents' phones are.
        aleg["rang"], aleg["answered"], bleg["rang"] = None, at.get("bridged"), at.get("ringing")
    aleg["shown"], bleg["shown"] = None, call["outbound_id"]
    return [{"name": "A-leg", **aleg}, {"name": "B-leg", **bleg}]


def list_nodes(visit: ConsoleVisit) -> None:
    visit.show("nodes.html", nodes=operator.processes(visit.port), switches=operator.all_switches(visit.port))


def list_locks(visit: ConsoleVisit) -> None:
    locks = [asdict(lock) for lock in Locks(visit.port.services.redis).list()]
    visit.show("locks.html", locks=_aliased(visit, locks, "name"))


def list_breakers(visit: ConsoleVisit) -> None:
    services = visit.port.services
    found = breakers.listed(services.policy.config, services.redis)
    visit.show("breakers.html", breakers={**visit.seen(found), "tripped": _aliased(visit, found["tripped"], "scope")})


def list_waiting(visit: ConsoleVisit) -> None:
    found = waiting.listed(visit.port.services.timed_calls)
    visit.show("callbacks.html", waiting=_aliased(visit, found, "key"))


def _aliased(visit: ConsoleVisit, found: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Return things as the operator may see them, each with an alias of its key, for the forms."""
    return [{**visit.seen(item), "alias": visit.alias(item[key])} for item in found]
