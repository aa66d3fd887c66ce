"""Defend PINs against guessing. ``esl_apps/store/pin_guard.py`` counts.

A wrong PIN counts against the caller's number, the address that the call came from, the card that it was meant for,
the entrance, the number dialled, and the whole system. Each has a threshold in a sliding window. One that reaches it
is locked for a while, an hour at most: a locked caller hears the same as after a wrong PIN, even if their PIN is right.

Guessers must not lock out honest callers for good. So a number counts as the caller's own only if a trunk asserts it or
STIR/SHAKEN attests it; otherwise it counts together with the address that claims it. And a caller from whom a right PIN
has come passes all locks but their own with this PIN.

Over HTTP, a PIN for a card is a guess at all others: the answer tells whether it is in use. "In use" counts against the
token and the account (:class:`Asker`), and so, with a higher threshold, does every PIN that is set.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from msgspec import Struct

from esl_apps.core.numbers import NumberPlan

#: Verdicts of ``Guard.judge``.
OPEN, WRONG, LOCKED = "open", "wrong", "locked"

NUMBER, ADDRESS, CARD, ENTRANCE, DNIS, ALL = "number", "address", "card", "entrance", "dnis", "all"
TOKEN, ACCOUNT = "token", "account"
NEW_PINS_TOKEN, NEW_PINS_ACCOUNT = "new_pins_token", "new_pins_account"


class Source(Struct, frozen=True):
    """The caller who types a PIN, and the service that they called. Each text has a closed alphabet."""

    number: str
    """The caller: E.164 digits that a trunk vouches for, ``DIGITS@ADDRESS`` of a number that is only claimed,
    ``withheld:HASH`` of a withheld one that a trunk asserts, or ``withheld@ADDRESS``."""
    address: str
    """The network's; empty for a trunk of ``trust``, which all callers share."""
    entrance: str
    """``dialthrough`` or ``disa/ACCOUNT/NAME``."""
    dnis: str
    is_own: bool = False
    """``number`` can't be taken on by any stranger, so it may be remembered once a right PIN has come from it."""

    def counters(self, card_id: str) -> Mapping[str, str]:
        """Return kind → the counter's key, always the same kinds. Empty: this kind doesn't count."""
        return {
            NUMBER: self.number,
            ADDRESS: self.address,
            CARD: card_id,
            ENTRANCE: self.entrance,
            DNIS: self.dnis,
            ALL: ALL,
        }


@dataclass(frozen=True, slots=True)
class Asker:
    """A client that names a PIN or a number for a card."""

    token: str
    """Its token's name; the operator's begin with ``+``, which no account's does."""
    account: str


def source_of(
    caller: str | None,
    address: str,
    dnis: str,
    entrance: str,
    plan: NumberPlan,
    trusted: Callable[[str], bool],
    *,
    vouched: bool = False,
    withheld: str = "",
) -> Source:
    """Build the source.

    ``caller``: None if the number is withheld or unreadable. ``address``: of the packet. ``vouched``: a trunk asserts
    the number. ``withheld``: a hash of the number that a trunk asserts of a caller who withholds it.
    """
    network = _network(address)
    at, on_trunk = f"@{network or 'local'}", trusted(address)
    number = _number(caller, plan)
    if number:
        number += "" if vouched else at
    else:
        number = f"withheld:{withheld}" if withheld else f"withheld{at}"
    return Source(
        number=number,
        address="" if on_trunk else network,
        entrance=entrance,
        dnis=_number(dnis, plan) or "unreadable",
        # What a trunk passes on of From is anyone's word.
        is_own=vouched or bool(withheld) or not on_trunk,
    )


def _number(text: str | None, plan: NumberPlan) -> str:
    """Return one text for all forms of a number: 082…, +2782… and 002782… are one caller."""
    number = plan.find(text)
    return "" if number is None else number.subscriber


@lru_cache(maxsize=1024)  # a call comes from one of a few trunks
def _network(address: str) -> str:
    """Return an IPv4 address, or the /64 of an IPv6 one, all of which one machine may use; empty if it is neither."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    mapped = getattr(ip, "ipv4_mapped", None)
    if ip.version == 4 or mapped:
        return str(mapped or ip)
    return str(ipaddress.ip_network((ip, 64), strict=False))


class Guard(Protocol):
    def judge(self, source: Source, right: bool, card_id: str, *, guessed: bool, pin_id: str = "") -> str:
        """Judge a typed PIN: ``open`` if it is right and nothing of ``source`` is locked, otherwise ``wrong`` or
        ``locked``. The caller must not be able to tell these two apart.

        One round trip, the same for any PIN.

        :param card_id: The card that the PIN belongs to, or was meant for; empty if unknown.
        :param guessed: Something was typed. Silence isn't a guess and doesn't count.
        :param pin_id: Tells the typed PIN from others. A right one from a source whose number ``is_own`` is remembered:
            from then on only a lock of that number shuts this PIN out there. Other PINs stay shut out, or a caller with
            one PIN could guess all others from as many numbers as they claim.

        :raises StoreUnavailable: Redis is down: no PIN opens.
        """
