"""Cards over HTTP on the operator's port, in the form of Kazoo's Crossbar (``cb_cccps``), and autodial.

Requests and answers wrap what they carry in ``data``; errors name field and code in it (contract §5). What
differs from Kazoo: a PIN is never in an answer, and uniqueness holds on updates, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import falcon

from esl_apps.core.cards import Card
from esl_apps.http.access import CARDS, READ, Door
from esl_apps.http.autodial import _Autodial
from esl_apps.http.desk import _CARDS, _MOST, _PAGE, _PREFIX, _Desk, _kazoo_form, _succeed
from esl_apps.http.errors import application, problem
from esl_apps.http.server import Wsgi
from esl_apps.node.node import Node
from esl_apps.store.card_fields import CARD_ID


def mount(app: Wsgi, node: Node, door: Door) -> Wsgi:
    """``app``, with everything under ``/v2/`` answered here, in Kazoo's form to the last error."""
    crossbar = build(node, door)

    def by_path(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return (crossbar if environ["PATH_INFO"].startswith(_PREFIX) else app)(environ, start_response)

    return by_path


def build(node: Node, door: Door) -> falcon.App[falcon.Request, falcon.Response]:
    app = application("the request", door, _kazoo_form)
    desk = _Desk(node, door)
    app.add_route(_CARDS, _Cards(desk))
    app.add_route(_CARDS + "/{card_id}", _Card(desk))
    app.add_route(_CARDS + "/autodial", _Autodial(desk))
    return app


def _shown(card: Card) -> dict[str, Any]:
    """A card as it is answered: a PIN is not in it, nor its hash."""
    shown: dict[str, Any] = {
        "id": card.id,
        "user_id": card.user_id,
        "active": card.active,
        "retain_cid": card.retain_cid,
        "max_concurrent_calls_per_user": card.max_concurrent_calls_per_user,
        "comment": card.comment,
    }
    if card.cid is not None:
        shown["cid"] = "+" + card.cid
    return shown


# Cards -----------------------------------------------------------------------------------------------


class _Cards:
    def __init__(self, desk: _Desk) -> None:
        self._desk = desk

    def on_get(self, req: falcon.Request, resp: falcon.Response, account_id: str) -> None:
        account = self._desk.open(req, account_id, READ, CARDS)
        after = req.get_param("start_key")
        if after is not None and not CARD_ID.fullmatch(after):
            raise problem(400, "pattern", "expected an earlier answer's next_start_key", "start_key")
        try:
            size = req.get_param_as_int("page_size", min_value=1, max_value=_MOST, default=_PAGE)
        except falcon.HTTPBadRequest:
            raise problem(400, "range", f"expected a number from 1 to {_MOST}", "page_size") from None
        cards, following = self._desk.ask(lambda: self._desk.node.services.policy.cards.page(account.id, size, after))
        shown = [_shown(card) for card in cards]
        more = {"next_start_key": following} if following else {}
        _succeed(req, resp, 200, shown, page_size=len(shown), **more)

    def on_put(self, req: falcon.Request, resp: falcon.Response, account_id: str) -> None:
        account = self._desk.open(req, account_id, CARDS)
        data = self._desk.data(req)
        card = self._desk.ask(lambda: self._desk.node.services.policy.cards.create(account.id, data))
        _succeed(req, resp, 201, _shown(card))
        resp.location = f"{_CARDS.format(account_id=account.id)}/{card.id}"


class _Card:
    def __init__(self, desk: _Desk) -> None:
        self._desk = desk

    def on_get(self, req: falcon.Request, resp: falcon.Response, account_id: str, card_id: str) -> None:
        account = self._desk.open(req, account_id, READ, CARDS)
        self._show(req, resp, card_id, lambda: self._desk.node.services.policy.cards.get(account.id, card_id))

    def on_post(self, req: falcon.Request, resp: falcon.Response, account_id: str, card_id: str) -> None:
        self._update(req, resp, account_id, card_id, merge=False)

    def on_patch(self, req: falcon.Request, resp: falcon.Response, account_id: str, card_id: str) -> None:
        self._update(req, resp, account_id, card_id, merge=True)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, account_id: str, card_id: str) -> None:
        account = self._desk.open(req, account_id, CARDS)
        self._show(req, resp, card_id, lambda: self._desk.node.services.policy.cards.delete(account.id, card_id))

    def _update(
        self, req: falcon.Request, resp: falcon.Response, account_id: str, card_id: str, *, merge: bool
    ) -> None:
        account = self._desk.open(req, account_id, CARDS)
        data = self._desk.data(req)
        cards = self._desk.node.services.policy.cards
        self._show(req, resp, card_id, lambda: cards.update(account.id, card_id, data, merge=merge))

    def _show(
        self, req: falcon.Request, resp: falcon.Response, card_id: str, question: Callable[[], Card | None]
    ) -> None:
        card = self._desk.ask(question) if CARD_ID.fullmatch(card_id) else None
        if card is None:
            raise problem(404, "not_found", "no such card", "id")
        _succeed(req, resp, 200, _shown(card))
