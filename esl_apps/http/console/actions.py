"""The forms that change something, and the way in and out."""

from __future__ import annotations

import re

import falcon

from esl_apps.core.terms import ENDED
from esl_apps.http import operator
from esl_apps.http.access import CARDS, READ
from esl_apps.http.console.site import PREFIX, ConsoleVisit, Site, read_form
from esl_apps.http.errors import Problem, problem
from esl_apps.operations import breakers, waiting
from esl_apps.store.pin_guard import Locks

#: Pages to go to after the login.
_PAGE = re.compile(rf"{PREFIX}(/[A-Za-z0-9._-]+)*/?")


# In and out -----------------------------------------------------------------------------------------------


def show_login(site: Site, req: falcon.Request, resp: falcon.Response) -> None:
    site.show(resp, "login.html", None, message="", to=_to(req.get_param("to")))


def log_in(site: Site, req: falcon.Request, resp: falcon.Response) -> None:
    """Begin a session. A wrong token counts as a wrong token of the API.

    :raises Problem: 403 for another site's form.
    """
    site.check_origin(req)
    fields = read_form(req)
    to, door = _to(fields.get("to")), site.port.door
    try:
        token = door.find(req, fields.get("token", ""), site.port.tokens())
        door.enter(token, READ, CARDS)
    except Problem as refused:
        message = {
            401: "This isn't a token of the operator's port.",
            403: "This token may not see the console: it needs the scope read or cards.",
        }.get(refused.status, f"{refused.errors[0]['message'].capitalize()}. Wait a moment.")
        site.show(resp, "login.html", None, status=refused.status, message=message, to=to)
        if "Retry-After" in refused.headers:
            resp.set_header("Retry-After", refused.headers["Retry-After"])
        return
    site.set_cookie(req, resp, site.sessions.begin(token))
    # A token for cards alone has nothing to see on the first page.
    resp.status, resp.location = 303, to if token.has(READ) else f"{PREFIX}/cards"
    resp.set_header("Cache-Control", "no-store")


def log_out(visit: ConsoleVisit) -> None:
    visit.fields()
    visit.site.set_cookie(visit.req, visit.resp, "")
    visit.go("/login")


def _to(page: str | None) -> str:
    return page if page and _PAGE.fullmatch(page) else f"{PREFIX}/"


# Calls and switches ---------------------------------------------------------------------------------------


def end_call(visit: ConsoleVisit, ref: str) -> None:
    visit.fields()
    call = operator.end_call(visit.port, ref, visit.by)
    visit.go(f"/calls/{call['call_ref']}", "" if call["state"] == ENDED else "ended")


def pause_switch(visit: ConsoleVisit) -> None:
    operator.pause_switch(visit.port, visit.fields().get("name", ""), visit.by)
    visit.go("/nodes", "paused")


def resume_switch(visit: ConsoleVisit) -> None:
    operator.resume_switch(visit.port, visit.fields().get("name", ""), visit.by)
    visit.go("/nodes", "resumed")


# Locks, breakers, waiting calls ---------------------------------------------------------------------------


def lift_lock(visit: ConsoleVisit) -> None:
    wanted = visit.fields().get("alias")
    name = next((lock.name for lock in Locks(visit.port.services.redis).list() if visit.alias(lock.name) == wanted), "")
    operator.lift_lock(visit.port, name, visit.by)
    visit.go("/locks", "lifted")


def trip_breaker(visit: ConsoleVisit) -> None:
    fields = visit.fields()
    scope = fields.get("scope", "")
    if not scope:
        raise problem(422, "required", "expected a breaker, such as account:acme", "scope")
    operator.trip_breaker(visit.port, scope, visit.by, end_calls="end_calls" in fields)
    visit.go("/breakers", "tripped")


def reset_breaker(visit: ConsoleVisit) -> None:
    wanted, services = visit.fields().get("alias"), visit.port.services
    tripped = breakers.listed(services.policy.config, services.redis)["tripped"]
    scope = next((trip["scope"] for trip in tripped if visit.alias(trip["scope"]) == wanted), "")
    operator.reset_breaker(visit.port, scope, visit.by)
    visit.go("/breakers", "reset")


def drop_waiting(visit: ConsoleVisit) -> None:
    wanted, stores = visit.fields().get("alias"), visit.port.services.timed_calls
    key = next((call["key"] for call in waiting.listed(stores) if visit.alias(call["key"]) == wanted), "")
    operator.drop_waiting(visit.port, key, visit.by)
    visit.go("/callbacks", "dropped")
