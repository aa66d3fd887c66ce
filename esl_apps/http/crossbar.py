"""Cards over HTTP on the operator's port, in the form of Kazoo's Crossbar (``cb_cccps``).

Requests and answers wrap their content in ``data``; errors name the field and the code in it. Two things differ from
Kazoo: no answer contains a PIN, and updates are checked for uniqueness, too.
"""

from __future__ import annotations

from typing import Any

import falcon
from msgspec import UNSET

from esl_apps.core import cards
from esl_apps.core.cards import Account
from esl_apps.http.access import CARDS, READ
from esl_apps.http.crossbar_port import (
    ACCOUNT_ID,
    CARD_ID,
    CARDS_PATH,
    LARGEST_PAGE,
    PAGE,
    CrossbarPort,
    operation,
    read_data,
    succeed,
)
from esl_apps.http.errors import problem
from esl_apps.http.routes import Route
from esl_apps.http.schemas import Card, CardFields
from esl_apps.store import card_fields

# Handlers -------------------------------------------------------------------------------------------------


def list_cards(port: CrossbarPort, req: falcon.Request, resp: falcon.Response, account: Account) -> None:
    after = req.get_param("start_key")
    if after is not None and not card_fields.CARD_ID.fullmatch(after):
        raise problem(400, "pattern", "expected an earlier answer's next_start_key", "start_key")
    try:
        size = req.get_param_as_int("page_size", min_value=1, max_value=LARGEST_PAGE, default=PAGE)
    except falcon.HTTPBadRequest:
        raise problem(400, "range", f"expected a number from 1 to {LARGEST_PAGE}", "page_size") from None
    page, next_key = port.services.policy.cards.page(account.id, size, after)
    paging = {"next_start_key": next_key} if next_key else {}
    succeed(req, resp, 200, [_shown(card) for card in page], page_size=len(page), **paging)


def create_card(port: CrossbarPort, req: falcon.Request, resp: falcon.Response, account: Account) -> None:
    data, store = read_data(req), port.services.policy.cards
    card = port.write_card(req, data, lambda: store.create(account.id, data))
    succeed(req, resp, 201, _shown(card))
    resp.location = f"{CARDS_PATH.format(account_id=account.id)}/{card.id}"


def get_card(port: CrossbarPort, req: falcon.Request, resp: falcon.Response, account: Account, card_id: str) -> None:
    card = port.services.policy.cards.get(account.id, card_id) if _is_id(card_id) else None
    succeed(req, resp, 200, _shown(_found(card)))


def replace_card(
    port: CrossbarPort, req: falcon.Request, resp: falcon.Response, account: Account, card_id: str
) -> None:
    _update(port, req, resp, account, card_id, merge=False)


def update_card(port: CrossbarPort, req: falcon.Request, resp: falcon.Response, account: Account, card_id: str) -> None:
    _update(port, req, resp, account, card_id, merge=True)


def delete_card(port: CrossbarPort, req: falcon.Request, resp: falcon.Response, account: Account, card_id: str) -> None:
    card = port.services.policy.cards.delete(account.id, card_id) if _is_id(card_id) else None
    succeed(req, resp, 200, _shown(_found(card)))


def _update(
    port: CrossbarPort, req: falcon.Request, resp: falcon.Response, account: Account, card_id: str, *, merge: bool
) -> None:
    data, store = read_data(req), port.services.policy.cards

    def update() -> cards.Card | None:
        return store.update(account.id, card_id, data, merge=merge) if _is_id(card_id) else None

    card = port.write_card(req, data, update)
    succeed(req, resp, 200, _shown(_found(card)))


def _is_id(card_id: str) -> bool:
    return card_fields.CARD_ID.fullmatch(card_id) is not None


def _found(card: cards.Card | None) -> cards.Card:
    if card is None:
        raise problem(404, "not_found", "no such card", "id")
    return card


def _shown(card: cards.Card) -> Card:
    """Return a card for an answer, without its PIN or the PIN's hash."""
    return Card(
        id=card.id,
        user_id=card.user_id,
        active=card.active,
        retain_cid=card.retain_cid,
        max_concurrent_calls_per_user=card.max_concurrent_calls_per_user,
        comment=card.comment,
        language=UNSET if card.language is None else card.language,
        cid=UNSET if card.cid is None else "+" + card.cid,
    )


# Routes ---------------------------------------------------------------------------------------------------

_MANY: dict[str, Any] = {"type": "array", "items": Card}

ROUTES = (
    Route(
        CARDS_PATH,
        (
            operation(
                "GET",
                "listCards",
                "An account's cards, a page at a time",
                list_cards,
                scopes=(READ, CARDS),
                data=_MANY,
                paged=True,
            ),
            operation(
                "PUT", "createCard", "A new card", create_card, scopes=(CARDS,), status=201, data=Card, body=CardFields
            ),
        ),
        parameters=(ACCOUNT_ID,),
    ),
    Route(
        CARDS_PATH + "/{card_id}",
        (
            operation("GET", "getCard", "One card", get_card, scopes=(READ, CARDS), data=Card),
            operation(
                "POST",
                "replaceCard",
                "Replace a card's fields",
                replace_card,
                scopes=(CARDS,),
                data=Card,
                body=CardFields,
            ),
            operation(
                "PATCH",
                "updateCard",
                "Change some of a card's fields",
                update_card,
                scopes=(CARDS,),
                data=Card,
                body=CardFields,
            ),
            operation("DELETE", "deleteCard", "Delete a card", delete_card, scopes=(CARDS,), data=Card),
        ),
        parameters=(ACCOUNT_ID, CARD_ID),
    ),
)
