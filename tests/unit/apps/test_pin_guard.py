"""Asking for a PIN: a locked caller can't tell by anything that the flow does, and every way in is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from msgspec import structs

from esl_apps.apps import dialthrough, disa
from esl_apps.apps.context import Arrival
from esl_apps.apps.settings import Entrance, Rules
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import CallEnded, Complete
from esl_apps.core.cards import Account, Card
from esl_apps.core.limits import Limits
from esl_apps.core.pins import LOCKED, OPEN, WRONG, Source, source_of
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.testing import PLAN, ScriptedCall, ScriptedPolicy, host

RIGHT, NOBODYS, INACTIVE = "482190735", "111111111", "333333333"
CALLER, STRANGER = "0825556666", "0845550000"
SOURCE = Source("27825556666", "192.0.2.1", "dialthrough", "27115551000")


@dataclass
class Caller(ScriptedCall):
    """Types ``pins`` in turn, then nothing. ``hurried``: hangs up when a PIN hasn't opened at its last digit."""

    pins: list[str] = field(default_factory=list)
    hurried: bool = False

    def play(self, audio: str, timeout: float = 60.0) -> None:
        self._do("play", audio)

    def collect_pin(
        self, audio: str, most: int, first: float, between: float, longest: float = 120.0, *, complete: Complete = None
    ) -> str:
        self._do("collect_pin", audio, most, first, between)
        typed = self.pins.pop(0) if self.pins else ""
        for length in range(1, len(typed) + 1):
            if complete is not None and complete(typed[:length]):
                # No further key is waited for, which a caller can time.
                self._do("complete")
                return typed[:length]
        if self.hurried:
            raise CallEnded("hung up")
        return typed

    def collect(self, audio: str | None, most: int, first: float, between: float, longest: float = 120.0) -> str:
        self._do("collect", audio)
        raise CallEnded("is in")

    @property
    def is_in(self) -> bool:
        return bool(self.did("collect"))


def card(id: str, *, account: str = "acme", cid: str | None = None, active: bool = True) -> Card:
    return Card(id=id, account_id=account, user_id=None, cid=cid, active=active)


@dataclass
class Deck:
    """Cards by PIN and by number; notes what it is asked."""

    pins: dict[str, Card] = field(
        default_factory=lambda: {RIGHT: card("right"), INACTIVE: card("inactive", active=False)}
    )
    numbers: dict[str, Card] = field(default_factory=lambda: {"27825556666": card("enrolled", cid="27825556666")})
    asked: list[str] = field(default_factory=list)

    def by_pin(self, pin: str) -> Card | None:
        self.asked.append("by_pin")
        return self.pins.get(pin)

    def by_number(self, e164: str) -> Card | None:
        self.asked.append("by_number")
        return self.numbers.get(e164)

    def get(self, account_id: str, id: str) -> Card | None:
        return None

    def dial(self, card: Card, number: str) -> Card | None:
        return next(one for one in [*self.pins.values(), *self.numbers.values()] if one.id == card.id)

    def account(self, account_id: str) -> Account | None:
        return Account(account_id)

    def card_limits(self, account_id: str) -> Limits | None:
        return None

    def last_number(self, card_id: str) -> str | None:
        return None


class Judge:
    """``locked``: refuses any PIN. ``away``: Redis is down."""

    def __init__(self, *, locked: bool = False, away: bool = False) -> None:
        self.locked, self.away = locked, away
        self.judged: list[tuple[bool, str, bool]] = []
        self.pins: list[str] = []

    def judge(self, source: Source, right: bool, card_id: str, *, guessed: bool, pin_id: str = "") -> str:
        assert source == SOURCE
        self.judged.append((right, card_id, guessed))
        self.pins.append(pin_id)
        if self.away:
            raise StoreUnavailable("redis: gone")
        return LOCKED if self.locked else OPEN if right else WRONG


class Free:
    """No limits."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: {"enter": True}.get(name)


def through(
    judge: Judge,
    *pins: str,
    caller: str | None = STRANGER,
    deck: Deck | None = None,
    attested: bool = False,
    **rules: Any,
) -> tuple[Caller, Attempt]:
    call = Caller(pins=list(pins))
    attempts: list[Attempt] = []
    policy = ScriptedPolicy(
        rules=Rules(**rules), cards=deck or Deck(), guard=judge, number=caller, is_attested=attested, pin_source=SOURCE
    )
    dialthrough.arrive(call, Arrival(("dialthrough",)), policy, host(attempts, Free()))
    return call, attempts[0]


def disa_with(
    judge: Judge, *pins: str, hashed: bool = False, hurried: bool = False, longest: float = 3600.0
) -> tuple[Caller, Attempt]:
    call = Caller(pins=list(pins), hurried=hurried)
    attempts: list[Attempt] = []
    entrance = Entrance("front", Account("acme"), f"#{RIGHT}", 10, 3, 3.0, 15, disa.DIALTONE, 10.0, True, True, longest)
    if hashed:
        entrance = structs.replace(entrance, pin_length=len(RIGHT), pin_hashed=True)
    policy = ScriptedPolicy(guard=judge, number=STRANGER, entrances={("acme", "front"): entrance}, pin_source=SOURCE)
    disa.arrive(call, Arrival(("disa", "acme", "front")), policy, host(attempts, Free()))
    return call, attempts[0]


hashed_disa_with = partial(disa_with, hashed=True)


def plain(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    return (entry[0], sorted(entry[1])) if entry[0] == "set" else entry


@pytest.mark.parametrize("app", [through, disa_with])
def test_right_pin_opens(app: Any) -> None:
    judge = Judge()
    call, _ = app(judge, NOBODYS, RIGHT)
    assert call.is_in
    assert [right for right, *_ in judge.judged] == [False, True]


@pytest.mark.parametrize("app", [through, disa_with])
def test_each_pin_is_judged_as_another(app: Any) -> None:
    """Otherwise a caller who opened with one would be past the locks with all."""
    judge = Judge(locked=True)
    app(judge, RIGHT, NOBODYS, RIGHT)
    assert judge.pins[0] == judge.pins[2] != judge.pins[1]
    assert all(judge.pins)
    assert RIGHT not in judge.pins


@pytest.mark.parametrize("app", [through, disa_with, hashed_disa_with])
@pytest.mark.parametrize("typed", [RIGHT, NOBODYS, INACTIVE])
def test_locked_caller_can_tell_nothing_whatever_it_types(app: Any, typed: str) -> None:
    wrong, wrong_attempt = app(Judge(), *[NOBODYS] * 3)
    locked, attempt = app(Judge(locked=True), *[typed] * 3)
    assert not locked.is_in
    # Compare all prompts and waits, in order, but only the names of variables: values hold the call's reference.
    assert [plain(entry) for entry in locked.log] == [plain(entry) for entry in wrong.log]
    record, expected = attempt.record, wrong_attempt.record
    assert record is not None
    assert expected is not None
    assert (record.end_reason, record.end_code, record.hung_up_by) == ("rejected", 21, "system")
    assert (expected.end_reason, expected.end_code, expected.hung_up_by) == ("rejected", 21, "system")
    assert (record.number, record.dial_number, record.extension) == (None, None, STRANGER)
    # The operator sees it with `esl-apps trace`.
    assert [moment.what for moment in attempt.timeline].count("pin_locked") == 3


@pytest.mark.parametrize("typed", [RIGHT, NOBODYS, INACTIVE, "12", ""])
@pytest.mark.parametrize("app", [through, disa_with])
def test_each_entry_is_judged_once_and_nothing_else_is_asked(app: Any, typed: str) -> None:
    deck, judge = Deck(), Judge(locked=True)
    options = {"deck": deck} if app is through else {}
    app(judge, typed, **options)
    assert len(judge.judged) == 3
    assert deck.asked == (["by_number", *["by_pin"] * 3] if app is through else [])
    assert judge.judged[0][2] == bool(typed)


def test_hashed_pin_is_counted_once_however_it_is_typed() -> None:
    judge = Judge()
    call, _ = hashed_disa_with(judge, NOBODYS + "1", RIGHT)
    assert call.is_in
    # As far as it was typed each is judged, but counts as a whole only.
    assert [guessed for _right, _card, guessed in judge.judged] == [False, False, True, False]


@pytest.mark.parametrize("leaving", [{"hurried": True}, {"longest": 0.0}])
@pytest.mark.parametrize(
    ("typed", "guesses"), [(NOBODYS, 1), (NOBODYS + "1", 1), (NOBODYS[:-1], 0), (RIGHT, 0), ("", 0)]
)
def test_hashed_pin_counts_if_the_call_ends_before_the_entry(typed: str, guesses: int, leaving: dict[str, Any]) -> None:
    """Its caller heard no dial tone within milliseconds, so they know that it was wrong."""
    judge = Judge()
    hashed_disa_with(judge, typed, **leaving)
    assert sum(guessed for _right, _card, guessed in judge.judged) == guesses


def test_hashed_pin_counts_once_for_a_caller_who_hangs_up_later() -> None:
    judge = Judge()
    hashed_disa_with(judge, NOBODYS, "12", hurried=True)
    assert sum(guessed for _right, _card, guessed in judge.judged) == 1


@pytest.mark.parametrize("app", [through, disa_with, hashed_disa_with])
def test_nobody_gets_in_while_nobody_can_count(app: Any) -> None:
    call, attempt = app(Judge(away=True), RIGHT)
    assert not call.is_in
    wrong, _ = app(Judge(away=True), NOBODYS)
    assert [plain(entry) for entry in call.log] == [plain(entry) for entry in wrong.log]
    assert call.did("play") == [("unavailable",)]
    assert attempt.record is not None
    assert (attempt.record.end_reason, attempt.record.end_code) == ("rejected", 21)


def test_wrong_pin_counts_at_no_card_for_a_claimed_number() -> None:
    """Anyone can write an enrolled number into From."""
    judge = Judge()
    through(judge, NOBODYS, INACTIVE, caller=CALLER, cid_trust="pin")
    assert judge.judged[:2] == [(False, "", True), (False, "inactive", True)]
    judge = Judge()
    through(judge, NOBODYS)
    assert judge.judged[0] == (False, "", True)


# The caller's number -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trust", "attested", "opens"),
    [
        ("any", False, True),
        ("national", False, True),
        ("pin", False, False),
        ("pin", True, False),
        ("attested", False, False),
        ("attested", True, True),
    ],
)
def test_what_an_enrolled_number_alone_opens(trust: str, attested: bool, opens: bool) -> None:
    judge = Judge()
    call, attempt = through(judge, caller=CALLER, cid_trust=trust, attested=attested)
    assert call.is_in is opens
    assert bool(call.did("collect_pin")) is not opens
    assert attempt.account_id == ("acme" if opens else None)


@pytest.mark.parametrize("trust", ["any", "national", "pin", "attested"])
@pytest.mark.parametrize("caller", [CALLER, STRANGER, None])
def test_pin_opens_from_any_number(trust: str, caller: str | None) -> None:
    call, _ = through(Judge(), RIGHT, caller=caller, cid_trust=trust)
    assert call.is_in


@pytest.mark.parametrize("attested", [True, False])
@pytest.mark.parametrize("caller", [STRANGER, None, "0860"])
def test_number_that_is_not_enrolled_opens_nothing(caller: str | None, attested: bool) -> None:
    call, _ = through(Judge(), caller=caller, cid_trust="attested", attested=attested)
    assert not call.is_in


def test_inactive_cards_number_opens_nothing() -> None:
    deck = Deck(numbers={"27825556666": card("enrolled", cid="27825556666", active=False)})
    call, _ = through(Judge(), caller=CALLER, cid_trust="any", deck=deck)
    assert not call.is_in


@pytest.mark.parametrize(
    ("caller", "account", "opens"),
    [(CALLER, "acme", True), (CALLER, "other", False), (STRANGER, "acme", False), (None, "acme", False)],
)
def test_number_and_pin_of_one_account(caller: str | None, account: str, opens: bool) -> None:
    judge = Judge()
    deck = Deck(pins={RIGHT: card("right", account=account)})
    call, _ = through(judge, RIGHT, caller=caller, deck=deck, cid_trust="pin", pin_from_enrolled=True)
    assert call.is_in is opens
    # A right PIN from a number that isn't enrolled is wrong, and counts.
    assert judge.judged[0][0] is opens


# Sources -------------------------------------------------------------------------------------------------


def source(caller: str | None, address: str = "192.0.2.1", dnis: str = "0115551000", **more: Any) -> Source:
    return source_of(caller, address, dnis, "dialthrough", PLAN, lambda text: text.startswith("10."), **more)


@pytest.mark.parametrize("text", ["0825556666", "+27825556666", "0027825556666"])
def test_all_writings_of_a_number_are_one(text: str) -> None:
    assert source(text).number == "27825556666@192.0.2.1"
    assert source(text, "10.0.0.1", vouched=True).number == "27825556666"
    assert source(None, dnis=text).dnis == "27825556666"


def test_withheld_callers_count_by_address_except_on_trunks() -> None:
    assert source(None).number == "withheld@192.0.2.1"
    assert source("x" * 99).number == "withheld@192.0.2.1"
    assert source(None, "10.0.0.1").number == "withheld@10.0.0.1"
    assert source(CALLER, "10.0.0.1").address == ""
    # A trunk that asserts the withheld number tells its callers apart.
    assert source(None, "10.0.0.1", withheld="8f3a").number == "withheld:8f3a"
    assert source(None, "").number == "withheld@local"


def test_claimed_number_is_another_caller_at_each_address() -> None:
    """A forger must not lock the person out whose number they write into From."""
    sources = [source(CALLER, address) for address in ("192.0.2.1", "198.51.100.7", "10.0.0.1")]
    assert len({one.number for one in [*sources, source(CALLER, "10.0.0.1", vouched=True)]}) == 4


@pytest.mark.parametrize(
    ("made", "own"),
    [
        (source(CALLER, "10.0.0.1", vouched=True), True),
        (source(None, "10.0.0.1", withheld="8f3a"), True),
        (source(CALLER, "192.0.2.1"), True),
        (source(None, "192.0.2.1"), True),
        # All callers of a trunk may write the same.
        (source(CALLER, "10.0.0.1"), False),
        (source(None, "10.0.0.1"), False),
    ],
)
def test_source_is_remembered_if_no_stranger_can_be_it(made: Source, own: bool) -> None:
    assert made.is_own is own


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        # One machine may use a whole /64.
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("not an address", ""),
    ],
)
def test_which_address_counts(address: str, counted: str) -> None:
    assert source(CALLER, address).address == counted
