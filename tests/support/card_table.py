"""Cards that answer from a table, for flows that look callers up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from esl_apps.core.cards import Account, Card
from esl_apps.core.limits import Limits

PIN, NUMBER = "482190735", "27825556666"
ACCOUNT = Account("acme", caller_id="+27115550000", realm="acme.example")
CARD = Card("c1", "acme", "u1", None, active=True)


@dataclass
class CardTable:
    """``Cards``: one account, cards by PIN and by E.164 number, and what they dialled last."""

    pins: Mapping[str, Card] = field(default_factory=lambda: {PIN: CARD})
    numbers: Mapping[str, Card] = field(default_factory=dict)
    known: Account | None = ACCOUNT
    last: str | None = None
    dialled: list[str] = field(default_factory=list)

    def _by_id(self, id: str) -> Card | None:
        return next((card for card in [*self.pins.values(), *self.numbers.values()] if card.id == id), None)

    def by_pin(self, pin: str) -> Card | None:
        return self.pins.get(pin)

    def by_number(self, e164: str) -> Card | None:
        return self.numbers.get(e164)

    def get(self, account_id: str, id: str) -> Card | None:
        return self._by_id(id)

    def dial(self, card: Card, number: str) -> Card | None:
        found = self._by_id(card.id)
        if found == card and card.active:
            self.dialled.append(number)
        return found

    def account(self, account_id: str) -> Account | None:
        return self.known

    def card_limits(self, account_id: str) -> Limits | None:
        return None

    def last_number(self, card_id: str) -> str | None:
        return self.last
