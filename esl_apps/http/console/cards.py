"""Accounts and their cards: search, create, activate and deactivate."""

from __future__ import annotations

import re
import secrets
from typing import Any
from urllib.parse import urlencode

from esl_apps.core.cards import Account, Card
from esl_apps.core.faults import Refused
from esl_apps.core.pins import Asker
from esl_apps.http import operator
from esl_apps.http.console.site import ConsoleVisit
from esl_apps.http.errors import problem
from esl_apps.store.card_fields import CARD_ID, NAME

_PAGE = 50
#: Cards of an account that a search by comment or user looks through.
_LOOKED_THROUGH, _STEP = 2000, 500
#: Digits of a PIN that the console makes.
_PIN_DIGITS = 12
_WHOLE = re.compile(r"[0-9]{1,5}")


def list_accounts(visit: ConsoleVisit) -> None:
    """The accounts of the configuration; those that were imported are opened by their id."""
    asked = (visit.req.get_param("q") or "").strip()
    config = visit.port.services.policy.config
    found = [
        {"id": id, "caller_id": account.caller_id.number if account.caller_id else None, "disas": len(account.disa)}
        for id, account in sorted(config.accounts.items())
        if asked.lower() in id.lower()
    ]
    if not found and NAME.fullmatch(asked) and visit.port.services.policy.cards.account(asked) is not None:
        found = [{"id": asked, "caller_id": None, "disas": 0}]
    card = _by_number(visit, asked)
    visit.show(
        "accounts.html",
        accounts=visit.seen(found[:_PAGE]),
        more=len(found) - _PAGE,
        asked=asked,
        card=None if card is None else _shown(visit, card),
    )


def list_cards(visit: ConsoleVisit, account_id: str) -> None:
    account = _account(visit, account_id)
    asked = (visit.req.get_param("q") or "").strip()
    after = visit.req.get_param("after")
    if after is not None and not CARD_ID.fullmatch(after):
        after = None
    if asked:
        found, cut = _search(visit, account, asked)
        _show_cards(visit, account, found, asked=asked, cut=cut)
    else:
        found, more = visit.port.services.policy.cards.page(account.id, _PAGE, after)
        _show_cards(visit, account, found, more=more)


def _show_cards(
    visit: ConsoleVisit,
    account: Account,
    found: list[Card],
    *,
    asked: str = "",
    more: str | None = None,
    cut: bool = False,
    faults: dict[str, str] | None = None,
    fields: dict[str, str] | None = None,
) -> None:
    visit.show(
        "cards.html",
        account=account.id,
        cards=[_shown(visit, card) for card in found],
        asked=asked,
        next=more and "?" + urlencode({"after": more}),
        looked_through=_LOOKED_THROUGH if cut else 0,
        faults=faults or {},
        fields=fields or {},
        status=422 if faults else 200,
    )


def _search(visit: ConsoleVisit, account: Account, asked: str) -> tuple[list[Card], bool]:
    """Return the cards with this id, number, user or comment, and whether not all cards were looked through."""
    store = visit.port.services.policy.cards
    exact = store.get(account.id, asked) if CARD_ID.fullmatch(asked) else _by_number(visit, asked)
    if exact is not None and exact.account_id == account.id:
        return [exact], False
    found: list[Card] = []
    after, looked, small = None, 0, asked.lower()
    while looked < _LOOKED_THROUGH and len(found) < _PAGE:
        page, after = store.page(account.id, _STEP, after)
        looked += len(page)
        found += [card for card in page if small in f"{card.user_id or ''}\n{card.comment}".lower()]
        if after is None:
            break
    return found[:_PAGE], after is not None


def _by_number(visit: ConsoleVisit, asked: str) -> Card | None:
    policy = visit.port.services.policy
    number = policy.settings.plan.find(asked)
    return None if number is None else policy.cards.by_number(number.e164)


def create_card(visit: ConsoleVisit, account_id: str) -> None:
    """Create a card with a caller's number, or with a new PIN that is shown this once."""
    account, given = _account(visit, account_id), visit.fields()
    data: dict[str, Any] = {"active": "active" in given, "comment": given.get("comment", "")}
    if given.get("user_id"):
        data["user_id"] = given["user_id"]
    if given.get("most"):
        most = given["most"]
        data["max_concurrent_calls_per_user"] = int(most) if _WHOLE.fullmatch(most) else most
    try:
        card, pin = _create(visit, account, data, given)
    except Refused as refused:
        faults = {fault.field: fault.message for fault in refused.faults}
        found, more = visit.port.services.policy.cards.page(account.id, _PAGE)
        _show_cards(visit, account, found, more=more, faults=faults, fields=given)
        return
    operator.note_action(visit.by, "card_create", card.id)
    visit.show("card_made.html", account=account.id, card=_shown(visit, card), pin=pin)


def _create(
    visit: ConsoleVisit, account: Account, data: dict[str, Any], given: dict[str, str]
) -> tuple[Card, str | None]:
    """Return the card, and its PIN if it has one. :raises Refused: a field is wrong."""
    if given.get("kind") != "pin":
        return _write(visit, account, {**data, "cid": given.get("cid", "")}), None
    # With a million cards, one new PIN in a million is in use already.
    pin = "".join(str(secrets.randbelow(10)) for _ in range(_PIN_DIGITS))
    return _write(visit, account, {**data, "pin": pin}), pin


def _write(visit: ConsoleVisit, account: Account, data: dict[str, Any]) -> Card:
    visit.req.context.asker = Asker(visit.token.name, account.id)
    return visit.port.write_card(visit.req, data, lambda: visit.port.services.policy.cards.create(account.id, data))


def activate_card(visit: ConsoleVisit, account_id: str, card_id: str) -> None:
    _set_active(visit, account_id, card_id, active=True)


def deactivate_card(visit: ConsoleVisit, account_id: str, card_id: str) -> None:
    _set_active(visit, account_id, card_id, active=False)


def _set_active(visit: ConsoleVisit, account_id: str, card_id: str, *, active: bool) -> None:
    account = _account(visit, account_id)
    visit.fields()
    store = visit.port.services.policy.cards
    card = store.update(account.id, card_id, {"active": active}, merge=True) if CARD_ID.fullmatch(card_id) else None
    if card is None:
        raise problem(404, "not_found", "no such card", "id")
    word = "activate" if active else "deactivate"
    operator.note_action(visit.by, f"card_{word}", card.id)
    visit.go(f"/cards/{account.id}", f"{word}d")


def _account(visit: ConsoleVisit, account_id: str) -> Account:
    account = visit.port.services.policy.cards.account(account_id) if NAME.fullmatch(account_id) else None
    if account is None:
        raise problem(404, "not_found", "no such account", "account")
    return account


def _shown(visit: ConsoleVisit, card: Card) -> dict[str, Any]:
    """Return a card for a page: nothing of its PIN."""
    shown: dict[str, Any] = visit.seen(
        {
            "id": card.id,
            "number": None if card.cid is None else f"+{card.cid}",
            "user_id": card.user_id,
            "active": card.active,
            "most": card.max_concurrent_calls_per_user,
            "comment": card.comment,
        }
    )
    return {**shown, "account": card.account_id}
