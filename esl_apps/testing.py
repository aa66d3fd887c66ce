"""Doubles for the tests of applications: a call that follows a script, a policy of fixed answers, a node's part.

No socket and no sleep: what B does and when the caller leaves is in the script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from esl_apps.apps import second_party
from esl_apps.apps.context import Host
from esl_apps.apps.settings import Entrance, Queue, Rules, Settings
from esl_apps.core import causes
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Bridged, Call, CallEnded, Complete, Ended, Endpoint, Leg, Progress
from esl_apps.core.cards import Account, CallerId, Card, Cards, Usage, language_of, own_caller_id
from esl_apps.core.charges import Charge
from esl_apps.core.dialstring import Endpoints
from esl_apps.core.limits import BREAKER, Refusal
from esl_apps.core.numbers import NumberPlan
from esl_apps.core.order import IntegratorRules
from esl_apps.core.pins import OPEN, WRONG, Guard, Source

PLAN = NumberPlan("ZA", r"^\d{3,4}$")
SETTINGS = Settings(
    node="app1",
    plan=PLAN,
    endpoints=Endpoints("user/{number}@127.0.0.1", ("sofia/gateway/pstn/{number}", "sofia/gateway/spare/{number}")),
    caller_id_format="as_given",
    ringback="%(2000,4000,440,480)",
    recordings="/recordings",
)


SOURCE = Source("27825556666", "192.0.2.1", "dialthrough", "27115551000")


class OpenGuard:
    """``Guard`` that locks no caller out."""

    def judge(self, source: Source, right: bool, card_id: str, *, guessed: bool, pin_id: str = "") -> str:
        return OPEN if right else WRONG


@dataclass
class ScriptedPolicy:
    """``AppPolicy`` of fixed answers."""

    settings: Settings = SETTINGS
    rules: Rules = field(default_factory=Rules)
    clients: Mapping[str, IntegratorRules] = field(default_factory=dict)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    cards: Cards = field(default=None)  # type: ignore[assignment]
    guard: Guard = field(default_factory=OpenGuard)
    entrances: Mapping[tuple[str, str], Entrance] = field(default_factory=dict)
    number: str | None = None
    """The caller's."""
    is_attested: bool = False
    media: frozenset[str] = frozenset({"announcement"})
    trusts: bool = False
    pin_source: Source = SOURCE
    own_settings: Mapping[str, Any] = field(default_factory=dict)
    """By application."""
    languages: Mapping[str, str] = field(default_factory=dict)
    """By the number dialled."""

    def entrance(self, account_id: str, name: str) -> Entrance | None:
        return self.entrances.get((account_id, name))

    def trusted(self, address: str, /) -> bool:
        return self.trusts

    def caller(self, call: Call) -> str | None:
        return self.number

    def attested(self, call: Call) -> bool:
        return self.is_attested

    def source(self, call: Call, entrance: str, caller: str | None) -> Source:
        return self.pin_source

    def hash_pin(self, pin: str) -> str:
        return f"#{pin}"

    def caller_id_of(self, account: Account) -> str:
        return self.caller_of(account).number or "anonymous"

    def caller_of(self, account: Account, user_id: str | None = None) -> CallerId:
        shown = own_caller_id(account, user_id, self.rules.default_caller_id)
        return CallerId(shown.number or "anonymous", shown.name)

    def language(self, dnis: str, account: Account | None, card: Card | None = None) -> str | None:
        return language_of(self.languages.get(dnis), account, card)

    def own(self, ref: str) -> Any:
        return self.own_settings[ref]

    def is_media(self, name: str) -> bool:
        return name in self.media


def host(begun: list[Attempt], usage: Usage | None = None, **more: Any) -> Host:
    """A node's part that collects the attempts begun. ``more`` has what a flow needs to announce or schedule a call."""

    def unexpected(*call: Any) -> Any:
        raise AssertionError(f"this test expects neither an announced nor a scheduled call, but {call}")

    def begin(attempt: Attempt) -> None:
        attempt.second_party = second_party(attempt)
        begun.append(attempt)

    services = {"announce": unexpected, "schedule": unexpected, **more}
    return Host(begin, usage or Purse(), **services)


class Purse:
    """``Usage`` that refuses, and cuts, what it is told to."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        self.refusal = refusal
        self.now = 0.0
        self.charges: list[Charge] = []

    def enter(self, holder: str, limit: int, call_ref: str) -> bool:
        return True

    def leave(self, holder: str, call_ref: str) -> None: ...

    def begin(self, *charges: Charge) -> Refusal | None:
        if self.refusal is None:
            for charge in charges:
                charge.open(lambda: self.now, lambda _charge: None)
                self.charges.append(charge)
        return self.refusal

    def tripped(self, *charges: Charge) -> Refusal | None:
        return self.refusal if self.refusal is not None and self.refusal.what == BREAKER else None

    def check(self, *charges: Charge) -> Refusal | None:
        return self.refusal


#: One bridge: reports its progress, then returns its outcome or raises CallEnded.
Step = Callable[[Progress], Bridged]


@dataclass
class ScriptedCall:
    """``Call`` that follows a script: ``bridges`` are taken in turn, ``end`` is the value of ``ended()``."""

    bridges: list[Step] = field(default_factory=list)
    end: Ended = field(default_factory=lambda: Ended(1010.0, Leg("A", ended_at=1010.0), None))
    variables: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    sip: dict[str, str] = field(default_factory=dict)
    uuid: str = "A"
    created_at: float = 1000.0
    answered_at: float | None = 1002.0
    gone_at: str = ""
    """The first call of this method finds that the caller has left."""
    keyed: list[str] = field(default_factory=list)
    """The values of ``collect`` and ``collect_pin``, in turn."""
    log: list[tuple[Any, ...]] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)
    """Names that the flow has asked for. A channel drops its data at the first bridge."""

    def _do(self, *what: Any) -> None:
        self.log.append(what)
        if what[0] == self.gone_at:
            raise CallEnded("the channel hung up")

    def did(self, name: str) -> list[tuple[Any, ...]]:
        return [entry[1:] for entry in self.log if entry[0] == name]

    def variable(self, name: str) -> str | None:
        return self._told("variable_" + name, self.variables.get(name))

    def header(self, name: str) -> str | None:
        return self._told(name, self.headers.get(name))

    def sip_header(self, name: str) -> str | None:
        assert not self.did("bridge"), f"{name} is asked for after the first bridge"
        return next((value for key, value in self.sip.items() if key.lower() == name.lower()), None)

    def _told(self, name: str, value: str | None) -> str | None:
        """:raises AssertionError: it is asked for after the first bridge, and wasn't before."""
        assert not self.did("bridge") or name in self._known, f"{name} is asked for after the first bridge"
        self._known.add(name)
        return value

    def set(self, variables: Mapping[str, str]) -> None:
        self._do("set", dict(variables))

    def ring(self) -> None:
        self._do("ring")

    def answer(self, variables: Mapping[str, str] | None = None) -> None:
        if variables:
            self._do("set", dict(variables))
        self._do("answer")

    def play(self, audio: str, timeout: float = 60.0) -> None:
        self._do("play", audio)

    def collect(self, audio: str | None, most: int, first: float, between: float, longest: float = 120.0) -> str:
        self._do("collect", audio)
        return self.keyed.pop(0) if self.keyed else ""

    def collect_pin(
        self, audio: str, most: int, first: float, between: float, longest: float = 120.0, *, complete: Complete = None
    ) -> str:
        self._do("collect_pin", audio)
        return self.keyed.pop(0) if self.keyed else ""

    def drop_keys(self, quiet: float, longest: float) -> None:
        self._do("drop_keys")

    def pass_keys(self) -> None:
        self._do("pass_keys")

    def wait_for_hangup(self, seconds: float) -> None:
        self._do("wait_for_hangup", seconds)

    def conference(self, name: str, longest: float) -> None:
        self._do("conference", name, longest)

    def bridge(
        self,
        leg: Mapping[str, str],
        endpoints: Sequence[Endpoint],
        timeout: float,
        longest: float,
        progress: Progress,
        *,
        parts: bool = False,
        until: float | None = None,
    ) -> Bridged:
        if parts:
            self.log.append(("parts",))
        if until is not None:
            self.log.append(("until", until))
        self._do("bridge", dict(leg), list(endpoints), timeout, longest)
        progress("dialled", 1003.0, None)
        return self.bridges.pop(0)(progress)

    def go_on(self) -> None:
        self._do("go_on")

    def play_early(self, prompt: str, timeout: float) -> None:
        self._do("play_early", prompt)

    def respond(self, status: int, headers: Sequence[tuple[str, str]] = (), *, code: int | None = None) -> None:
        if code is not None:
            self.log.append(("reason", code))
        self._do("respond", status, list(headers))

    def hangup(self, cause: str) -> None:
        self._do("hangup", cause)
        raise CallEnded(f"hung up with {cause}")

    def ended(self) -> Ended:
        return self.end


def talks(bleg: Leg | None = None) -> Step:
    """B rings, answers and hangs up."""
    leg = bleg or Leg("B", ringing_at=1003.5, answered_at=1005.0)

    def step(progress: Progress) -> Bridged:
        progress("ringing", 1003.5, leg)
        progress("answered", leg.answered_at or 1005.0, leg)
        return Bridged(True, 16, bleg=leg)

    return step


def fails(cause: str, *, timed_out: bool = False, users: Sequence[str] = ()) -> Step:
    """B fails. ``users``: those who were rung, each on a leg of its own that rang for 1.5 s."""

    def step(progress: Progress) -> Bridged:
        code = causes.q850(cause)
        legs = [Leg("B", ringing_at=1003.5, ended_at=1005.0, cause=cause, q850=code, user=user) for user in users]
        for leg in legs:
            progress("ringing", 1003.5, leg)
        last = Leg("B", ended_at=1005.0, cause=cause, q850=code)
        return Bridged(False, code, cause, last, timed_out=timed_out, legs=legs)

    return step


def caller_leaves(*, ringing: bool = True) -> Step:
    def step(progress: Progress) -> Bridged:
        if ringing:
            progress("ringing", 1003.5, None)
        raise CallEnded("the channel hung up")

    return step


def socket_lost(progress: Progress) -> Bridged:
    progress("ringing", 1003.5, None)
    raise CallEnded("the switch closed the socket", lost=True)


def ended(
    *,
    a_by: str | None = None,
    b: Leg | None = None,
    at: float = 1010.0,
    hold: float = 0.0,
    lost: bool = False,
    legs: Sequence[Leg] = (),
) -> Ended:
    """``a_by``: A's ``sip_hangup_disposition``. ``legs``: those of the users that were rung."""
    aleg = Leg("A", answered_at=1002.0, ended_at=at, disposition=a_by, hold_seconds=hold)
    return Ended(at, aleg, b, lost=lost, legs=legs)
