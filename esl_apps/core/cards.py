"""Cards and accounts: who may dial through, with which caller ID, and how much. ``store/cards.py`` keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from esl_apps.core.charges import Charge
from esl_apps.core.limits import Breaker, Limits, Refusal
from esl_apps.core.numbers import NumberPlan
from esl_apps.core.restrictions import ClassRule


class Card(Struct, frozen=True):
    """A PIN or a caller number that may dial through (Kazoo's *cccp* document)."""

    id: str
    """32 hex digits, Kazoo's form of a document's id."""
    account_id: str
    user_id: str | None
    cid: str | None
    """The caller's number that identifies it, E.164 digits; None for a card with a PIN."""
    active: bool
    retain_cid: bool = False
    """Show the caller's own number to the callee."""
    max_concurrent_calls_per_user: int = 1
    comment: str = ""
    language: str | None = None
    """The language of its callers' prompts; None: that of the number they dialled, or of the account."""
    claim: str = ""
    """The key that finds it, made of its number or the keyed hash of its PIN, and changing with them."""
    stored: bytes = b""
    """Its document, by which Redis tells whether it has changed."""

    def __repr__(self) -> str:
        # Without its claim.
        return f"<Card {self.id} of {self.account_id}>"

    @property
    def holder(self) -> str:
        """The key by which concurrent calls are counted: the user over all their cards, or the card if it has none."""
        return f"user:{self.account_id}:{self.user_id}" if self.user_id else f"card:{self.id}"


@dataclass(frozen=True, slots=True)
class CallerId:
    """A number, and the name that phones show with it."""

    number: str | None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """An account: the numbers that it may present and may dial."""

    id: str
    name: str = ""
    realm: str = ""
    """For ``Diversion``: the account's SIP realm, or empty."""
    caller_id: str | None = None
    """The number that its calls show, as in the configuration."""
    caller_id_name: str | None = None
    caller_ids: tuple[str, ...] = ()
    """Numbers that it may present besides ``caller_id``."""
    call_restriction: Mapping[str, ClassRule] = field(default_factory=dict)
    users: Mapping[str, Mapping[str, ClassRule]] = field(default_factory=dict)
    """A user's own ``call_restriction``, by user id."""
    user_caller_ids: Mapping[str, CallerId] = field(default_factory=dict)
    """A user's own caller ID, by user id. Without a number, it names the account's."""
    integrator: str | None = None
    limits: Limits | None = None
    breaker: Breaker | None = None
    language: str | None = None
    """The language of its prompts; None: the configuration's."""


def may_show(account: Account | None, number: str, plan: NumberPlan) -> bool:
    """Return whether a number is one of the account's own."""
    if account is None:
        return False
    own = [*account.caller_ids, *([account.caller_id] if account.caller_id else [])]
    return any(plan.same(number, text) for text in own)


def own_caller_id(account: Account | None, user_id: str | None, default: str | None) -> CallerId:
    """Return the caller ID of calls that don't show the caller's own number: the user's, the account's, or the
    ``default`` number."""
    if account is None:
        return CallerId(default)
    users = account.user_caller_ids.get(user_id or "", CallerId(None))
    return CallerId(users.number or account.caller_id or default, users.name or account.caller_id_name or "")


def language_of(dialled: str | None, account: Account | None, card: Card | None) -> str | None:
    """Return the language of a caller's prompts. ``dialled``: that of the number dialled. None: the configuration's."""
    of_card = card.language if card is not None else None
    return of_card or dialled or (account.language if account is not None else None)


class Cards(Protocol):
    """Cards and accounts in Redis. Every method raises :class:`StoreUnavailable` if Redis is down."""

    def by_pin(self, pin: str) -> Card | None:
        """Look a PIN up, in one round trip: a PIN that exists takes as long as one that doesn't."""

    def by_number(self, e164: str) -> Card | None: ...

    def get(self, account_id: str, id: str) -> Card | None:
        """A card by its id; a card of another account is not found."""

    def dial(self, card: Card, number: str) -> Card | None:
        """Return a card as it is now, active or not. If it is active and equal to ``card``, note the number that it
        dials (E.164 digits, or an extension).

        One round trip.
        """

    def account(self, account_id: str) -> Account | None: ...

    def card_limits(self, account_id: str) -> Limits | None:
        """The limits of each card of an account. ``Account.limits`` holds for all of them together."""

    def last_number(self, card_id: str) -> str | None:
        """The last number that passed this card's checks, as E.164 digits or an extension."""


class Usage(Protocol):
    """Limits across all nodes. Methods raise :class:`StoreUnavailable` if Redis is down."""

    def enter(self, holder: str, limit: int, call_ref: str) -> bool:
        """Count a concurrent call. Return False, and count nothing, if ``holder`` has ``limit`` of them already."""

    def leave(self, holder: str, call_ref: str) -> None:
        """Count it no longer. Never raises: a lease that isn't renewed ends by itself."""

    def begin(self, *charges: Charge) -> Refusal | None:
        """Count legs that are about to be dialled, each against all of its bounds.

        Return None if all allow them. Otherwise return the first refusal: then nothing is counted, and a breaker that
        refused has tripped. One round trip, or none if there is nothing to count.
        """

    def tripped(self, *charges: Charge) -> Refusal | None:
        """Return the tripped breaker that covers one of the legs, as far as this node knows. Redis isn't asked."""

    def check(self, *charges: Charge) -> Refusal | None:
        """Return what :meth:`begin` would, but count nothing and trip nothing."""
