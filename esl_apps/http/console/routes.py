"""The console's routes, added to those of the operator's port."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import falcon

from esl_apps.http import routes
from esl_apps.http.access import CARDS, OPERATE, READ
from esl_apps.http.admin_port import AdminPort
from esl_apps.http.console import actions, cards, changes, views
from esl_apps.http.console.site import PREFIX, Site
from esl_apps.http.errors import problem
from esl_apps.node.metric_history import MetricHistory

_Handler = Callable[..., None]

#: Path → the page, and the scopes of which the token needs one.
_PAGES: dict[str, tuple[_Handler, tuple[str, ...]]] = {
    "": (views.overview, (READ,)),
    "/calls": (views.list_calls, (READ,)),
    "/calls/{ref}": (views.show_call, (READ,)),
    "/nodes": (views.list_nodes, (READ,)),
    "/locks": (views.list_locks, (READ,)),
    "/breakers": (views.list_breakers, (READ,)),
    "/callbacks": (views.list_waiting, (READ,)),
    "/events": (changes.stream_changes, (READ,)),
    "/cards": (cards.list_accounts, (READ, CARDS)),
    "/cards/{account_id}": (cards.list_cards, (READ, CARDS)),
}
#: Path → the action, and the scopes of which the token needs one.
_ACTIONS: dict[str, tuple[_Handler, tuple[str, ...]]] = {
    "/logout": (actions.log_out, (READ, CARDS)),
    "/calls/{ref}/end": (actions.end_call, (OPERATE,)),
    "/switches/pause": (actions.pause_switch, (OPERATE,)),
    "/switches/resume": (actions.resume_switch, (OPERATE,)),
    "/locks/lift": (actions.lift_lock, (OPERATE,)),
    "/breakers/trip": (actions.trip_breaker, (OPERATE,)),
    "/breakers/reset": (actions.reset_breaker, (OPERATE,)),
    "/callbacks/drop": (actions.drop_waiting, (OPERATE,)),
    "/cards/{account_id}/create": (cards.create_card, (CARDS,)),
    "/cards/{account_id}/{card_id}/activate": (cards.activate_card, (CARDS,)),
    "/cards/{account_id}/{card_id}/deactivate": (cards.deactivate_card, (CARDS,)),
}


def serve(api: routes.Api, port: AdminPort, history: MetricHistory) -> falcon.App[falcon.Request, falcon.Response]:
    """Return the WSGI application of the operator's port with the console."""
    site = Site(port, history)
    app = routes.serve(dataclasses.replace(api, forms={**api.forms, PREFIX: site.form}), port)
    for path, (view, scopes) in _PAGES.items():
        show = _responder(site, view, scopes)
        app.add_route(PREFIX + path, SimpleNamespace(on_get=show, on_head=show))
    for path, (act, scopes) in _ACTIONS.items():
        app.add_route(PREFIX + path, SimpleNamespace(on_post=_responder(site, act, scopes)))

    def show_login(req: falcon.Request, resp: falcon.Response) -> None:
        actions.show_login(site, req, resp)

    def log_in(req: falcon.Request, resp: falcon.Response) -> None:
        actions.log_in(site, req, resp)

    def send_static(req: falcon.Request, resp: falcon.Response, name: str) -> None:
        site.files.send(req, resp, name)

    app.add_route(f"{PREFIX}/login", SimpleNamespace(on_get=show_login, on_head=show_login, on_post=log_in))
    app.add_route(f"{PREFIX}/static/{{name}}", SimpleNamespace(on_get=send_static, on_head=send_static))
    app.add_sink(_nothing, re.compile(rf"{PREFIX}(/.*)?\Z"))
    return app


def _responder(site: Site, handler: _Handler, scopes: tuple[str, ...]) -> Callable[..., None]:
    def respond(req: falcon.Request, resp: falcon.Response, **params: Any) -> None:
        handler(site.admit(req, resp, scopes), **params)

    return respond


def _nothing(req: falcon.Request, resp: falcon.Response, **_params: Any) -> None:
    raise problem(404, "not_found", "no such page")
