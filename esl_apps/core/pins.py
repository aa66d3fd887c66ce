"""PIN guessing: whose wrong PINs are counted together, and what a lock does. ``esl_apps/store/pin_guard.py`` counts.

A wrong PIN counts against the caller's number, the address that the call came from, the card that it was
meant for, the entrance, the number dialled, and the whole system. Each has its threshold in a sliding window;
whichever is reached is locked for a while. What is locked hears what a wrong PIN hears, whatever it types.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from esl_apps.core.numbers import NotDialable, NumberPlan

#: What ``Guard.judge`` says.
OPEN, WRONG, LOCKED = "open", "wrong", "locked"

NUMBER, ADDRESS, CARD, ENTRANCE, DNIS, ALL = "number", "address", "card", "entrance", "dnis", "all"


@dataclass(frozen=True, slots=True)
class Source:
    """Where PINs are typed from, and at what. Each is one text of a closed alphabet."""

    number: str
    """E.164 digits, an extension, or ``withheld@ADDRESS``."""
    address: str
    """The network's; empty for a trunk of ``trust``: everybody calls from there."""
    entrance: str
    """``dialthrough`` or ``disa/ACCOUNT/NAME``."""
    dnis: str

    def counters(self, card_id: str) -> Mapping[str, str]:
        """Kind → what is counted, always as many; empty: it does not count here."""
        return {
            NUMBER: self.number,
            ADDRESS: self.address,
            CARD: card_id,
            ENTRANCE: self.entrance,
            DNIS: self.dnis,
            ALL: ALL,
        }


def source_of(
    caller: str | None, address: str, dnis: str, entrance: str, plan: NumberPlan, trusted: Callable[[str], bool]
) -> Source:
    """``caller``: the caller's number, None if it is withheld or unreadable. ``address``: of the packet."""
    network = _network(address)
    return Source(
        number=_number(caller, plan) or f"withheld@{network or 'local'}",
        address="" if trusted(address) else network,
        entrance=entrance,
        dnis=_number(dnis, plan) or "unreadable",
    )


def _number(text: str | None, plan: NumberPlan) -> str:
    """One text for all writings of a number: who dials 082…, +2782… and 002782… in turn is one caller."""
    try:
        return plan.read(text or "").e164
    except NotDialable:
        return ""


@lru_cache(maxsize=1024)  # a call comes from one of a few trunks
def _network(address: str) -> str:
    """An IPv4 address; of IPv6 the /64, which one machine may use all of; empty for what is no address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    mapped = getattr(ip, "ipv4_mapped", None)
    if ip.version == 4 or mapped:
        return str(mapped or ip)
    return str(ipaddress.ip_network((ip, 64), strict=False))


class Guard(Protocol):
    def judge(self, source: Source, right: bool, card_id: str, *, guessed: bool) -> str:
        """What a typed PIN opens: ``open`` where it is right and nothing of ``source`` is locked; else ``wrong``,
        or ``locked``, which the caller must not be able to tell from it.

        One round trip, the same whatever was typed. ``card_id``: the card that the PIN is of, or was meant for;
        empty where nobody knows. ``guessed``: something was typed: silence is no guess and does not count.
        :raises StoreUnavailable: Redis is away: nobody gets in.
        """
