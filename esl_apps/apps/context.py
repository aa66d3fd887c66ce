"""The parameters of every application: ``(call, arrival, policy, host)``, in this order.

- ``call``: the A-leg, a :class:`esl_apps.core.call.Call`.
- ``arrival``: how the dialplan sent it here. For a leg that a node rang, the application's own order instead.
- ``policy``: the configuration, and what depends on it.
- ``host``: services of the node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from esl_apps.apps.ringing import Aleg
from esl_apps.apps.settings import Entrance, Queue, Rules, Settings
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call
from esl_apps.core.cards import Account, CallerId, Card, Cards, Usage
from esl_apps.core.charges import Charge
from esl_apps.core.order import IntegratorRules
from esl_apps.core.pins import Guard, Source
from esl_apps.core.timed_call import Frequency, Scheduled


class NotServed(Exception):
    """The call is hung up with ``cause`` (FreeSWITCH's name) before it has a record."""

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(reason)
        self.cause = cause


class Arrival(Struct, frozen=True):
    """A call that the dialplan sent to an application."""

    path: tuple[str, ...]
    """The parts of the event socket's path, as ``("disa", "acme", "front")``."""
    session_ref: str = ""
    """The session that this caller was in before its node died; empty: a new one begins."""


def at_once(task: Callable[[], None]) -> None:
    """Do a task that a flow has put off."""
    task()


class Host(Struct, frozen=True):
    """The services of a node for one flow."""

    begin: Callable[[Attempt], None]
    """Make an attempt known: call it before anything is dialled or answered for it."""
    usage: Usage
    announce: Callable[[Attempt, str, int], None]
    """Push the notification of an answered inbound call: the attempt, the agent, the seconds waited."""
    schedule: Callable[[str, Sequence[str], float, Frequency], Scheduled]
    """Have a node call a number later: the number, the application's data, when (by the node's clock, ``now``), how
    often it may be called. :raises StoreUnavailable: Redis is down."""
    room: Callable[[Attempt], bool] = lambda _attempt: True
    """Return whether the payer of an attempt that was begun may have it among its live calls on this node: ask as soon
    as its account or integrator is known."""
    used: Callable[[str], None] = lambda _number: None
    """Note that the call that was scheduled to this number was of use: it counts against ``Frequency.per_day``.
    :raises StoreUnavailable: Redis is down."""
    afterwards: Callable[[Callable[[], None]], None] = at_once
    """Do something once the caller has left. If Redis is down, it is tried again for a minute."""
    policy: Callable[[], AppPolicy] | None = None
    """The policy in force now, which a reload may have replaced since the call came: ask before each number. None: it
    never changes."""


class Restored(Protocol):
    """A call whose A-leg comes to an event socket because a node sent it there."""

    def answered(self, call: Call, policy: AppPolicy, host: Host) -> None:
        """A has answered: run the call to its end."""


class Placed(Restored, Protocol):
    """A call whose A-leg a node rings."""

    @property
    def attempt(self) -> Attempt: ...

    def charges(self, policy: AppPolicy) -> list[Charge]:
        """Its legs' charges. :raises StoreUnavailable: Redis is down."""

    def aleg(self, policy: AppPolicy, application: str) -> Aleg:
        """How A is rung. ``application``: where the answered leg goes."""


class AppPolicy(Protocol):
    """The configuration for this call. A reload makes another policy, and leaves this one as it is."""

    @property
    def settings(self) -> Settings: ...

    @property
    def rules(self) -> Rules:
        """:raises StoreUnavailable: Redis is down, or its rules can't be read. Never dial by half of the rules."""

    @property
    def clients(self) -> Mapping[str, IntegratorRules]:
        """By integrator, in the configuration's order."""

    @property
    def queues(self) -> Mapping[str, Queue]:
        """Inbound numbers, by E.164 digits."""

    @property
    def cards(self) -> Cards: ...

    @property
    def guard(self) -> Guard: ...

    def entrance(self, account_id: str, name: str) -> Entrance | None:
        """A DISA, or None if there is none of this name. :raises StoreUnavailable: Redis is down."""

    def trusted(self, address: str, /) -> bool:
        """Whether to believe what a packet from this address says of its caller."""

    def caller(self, call: Call) -> str | None:
        """The caller's number, or None if it is withheld or no number."""

    def attested(self, call: Call) -> bool:
        """Whether STIR/SHAKEN vouches for the caller's number. :raises StoreUnavailable: as :attr:`rules`."""

    def source(self, call: Call, entrance: str, caller: str | None) -> Source:
        """The counters of this call's wrong PINs. ``caller``: as :meth:`caller` returns it."""

    def hash_pin(self, pin: str) -> str:
        """The keyed hash of a typed PIN."""

    def caller_id_of(self, account: Account) -> str:
        """The number that an account's own calls show. :raises StoreUnavailable: as :attr:`rules`."""

    def caller_of(self, account: Account, user_id: str | None = None) -> CallerId:
        """The number and name that an account's own calls show, or those of one of its users.

        :raises StoreUnavailable: as :attr:`rules`.
        """

    def language(self, dnis: str, account: Account | None, card: Card | None = None) -> str | None:
        """The language of a caller's prompts: the card's, the one of the number dialled, or the account's; None: the
        configuration's."""

    def own(self, ref: str) -> Any:
        """An application's own settings, of the type that it gave with ``settings``."""

    def is_media(self, name: str) -> bool:
        """Whether this may be played: an existing prompt, or a URL that the configuration lists."""
