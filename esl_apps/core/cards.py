"""Cards and accounts: who may dial through, as what, and how much. Values only: ``store/cards.py`` keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from esl_apps.core.charges import Charge
from esl_apps.core.limits import Breaker, Limits, Refusal
from esl_apps.core.restrictions import ClassRule


@dataclass(frozen=True, slots=True)
class Card:
    """A PIN or a caller number that may dial through (Kazoo's *cccp* document)."""

    id: str
    """32 hex digits, Kazoo's form of a document's id."""
    account_id: str
    user_id: str | None
    cid: str | None
    """The caller number that it is known by, E.164 digits; None for a card with a PIN."""
    active: bool
    retain_cid: bool = False
    """Show the caller's own number to whom it calls."""
    max_concurrent_calls_per_user: int = 1
    comment: str = ""

    @property
    def holder(self) -> str:
        """Whose concurrent calls are counted: the user over all its cards, else the card (contract §4)."""
        return f"user:{self.account_id}:{self.user_id}" if self.user_id else f"card:{self.id}"


@dataclass(frozen=True, slots=True)
class Account:
    """What an account may present and may dial."""

    id: str
    name: str = ""
    realm: str = ""
    """For ``Diversion``: the account's SIP realm, or empty."""
    caller_id: str | None = None
    """The number that its calls show, as configured."""
    caller_id_name: str | None = None
    caller_ids: tuple[str, ...] = ()
    """Numbers that it may present besides ``caller_id``."""
    call_restriction: Mapping[str, ClassRule] = field(default_factory=dict)
    users: Mapping[str, Mapping[str, ClassRule]] = field(default_factory=dict)
    """A user's own ``call_restriction``, by user id."""
    integrator: str | None = None
    limits: Limits | None = None
    breaker: Breaker | None = None


class Cards(Protocol):
    """Every method raises :class:`StoreUnavailable` when Redis is away."""

    def by_pin(self, pin: str) -> Card | None:
        """One round trip, the same for a PIN that exists and one that does not."""

    def by_number(self, e164: str) -> Card | None: ...

    def get(self, account_id: str, id: str) -> Card | None:
        """A card by its id; a card of another account is not found."""

    def dial(self, account_id: str, id: str, number: str) -> Card | None:
        """A card by its id as it is now, active or not; ``number`` (E.164 digits, or an extension) is the last that it
        dials. One round trip."""

    def account(self, account_id: str) -> Account | None: ...

    def card_limits(self, account_id: str) -> Limits | None:
        """What each card of an account may dial; ``Account.limits`` is for all of them together."""

    def last_number(self, card_id: str) -> str | None:
        """The last number that passed this card's checks, as E.164 digits or an extension."""


class Usage(Protocol):
    """Limits across all nodes. Methods raise :class:`StoreUnavailable` when Redis is away."""

    def enter(self, holder: str, limit: int, call_ref: str) -> bool:
        """Count one concurrent call; False, and nothing counted, where ``holder`` has ``limit`` already."""

    def leave(self, holder: str, call_ref: str) -> None:
        """Give it back. Never raises: a lease that is not renewed ends by itself."""

    def begin(self, *charges: Charge) -> Refusal | None:
        """Count legs that are about to be dialled, each against all of its bounds; None where all allow them, else the
        first that does not: nothing is counted then, and a breaker that says so has tripped.

        One round trip where there is something to count, none where there is not.
        """

    def check(self, *charges: Charge) -> Refusal | None:
        """What ``begin`` would say; nothing is counted and nothing trips."""
