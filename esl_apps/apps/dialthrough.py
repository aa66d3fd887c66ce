"""Dialthrough, the calling card: a caller who is known by number or by PIN dials out (Kazoo's ``cccp``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from esl_apps.apps.application import Application, Extension
from esl_apps.apps.context import AppPolicy, Arrival, Host
from esl_apps.apps.session import Session, SessionRefused, session_variables
from esl_apps.apps.settings import Rules
from esl_apps.apps.shown import shown
from esl_apps.core import dialstring
from esl_apps.core.call import Call
from esl_apps.core.cards import Card
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import Number
from esl_apps.core.restrictions import ClassRule
from esl_apps.core.unavailable import StoreUnavailable

REF = "dialthrough"

# As Kazoo's cccp: a PIN of 9 to 12 digits, a number of 2 to 17, three tries each; 5 s to the first digit, 2 s between.
TRIES = 3
PIN_LEAST, PIN_MOST = 9, 12
NUMBER_LEAST, NUMBER_MOST = 2, 17
FIRST_DIGIT, BETWEEN = 5.0, 2.0


class Opened(NamedTuple):
    """The way a caller was let in. Before each number, the rules in force decide whether it still opens."""

    by_number: bool
    """The caller's number alone; otherwise a PIN."""
    attested: bool = False
    """STIR/SHAKEN vouched for the number."""
    enrolled: bool = False
    """The number is enrolled with the PIN's account."""

    def opens(self, rules: Rules) -> bool:
        if not self.by_number:
            return self.enrolled or not rules.pin_from_enrolled
        return self.attested if rules.cid_trust == "attested" else rules.cid_trust != "pin"

    def home_only(self, rules: Rules) -> bool:
        return self.by_number and rules.cid_trust == "national"


_REALM = re.compile(r"[A-Za-z0-9.-]+")


def arrive(call: Call, arrival: Arrival, policy: AppPolicy, host: Host) -> None:
    """A caller has called the card number: authorise them by their number or a PIN, then dial what they ask for."""
    attested = policy.attested(call)
    session = Session.open(call, REF, arrival, policy, host)

    def talk() -> None:
        session.answer()
        card, opened = _authorise(session, attested)
        take(session, card)
        dial_on(session, opened)

    session.run(talk)


def take(session: Session, card: Card) -> None:
    """Use this card from now on. :raises SessionRefused: its account is unknown, or it has too many calls."""
    cards = session.policy.cards
    account = cards.account(card.account_id)
    if account is None:
        raise SessionRefused("unauthorized_call", note="the card's account is not known")
    session.card, session.account = card, account
    session.card_limits = cards.card_limits(account.id)
    session.note_owner()
    attempt = session.attempt
    attempt.extension = session.caller or card.id
    if not attempt.placed:
        # A callback's language was chosen when it was placed.
        attempt.language = session.policy.language(session.dnis, account, card)
    attempt.note("card", card.id)
    session.ask_for_room("too_many_channels")
    session.hold_place(card)
    session.call.set(session_variables(session.settings, attempt, session.user))


def dial_on(session: Session, opened: Opened | None) -> None:
    """Dial number after number until the caller leaves or the session's time is up. ``opened``: None if the card's
    number was rung."""
    assert session.card is not None
    while session.left > 0:
        number = _ask_number(session)
        if number.is_emergency:
            # Whatever has become of the card, of what let the caller in, and of Redis.
            session.check(number)
        else:
            _read_again(session, number, opened)
        caller_id = shown(session, session.caller if session.card.retain_cid else None)
        diversion = _diversion(session) if caller_id.own else None
        try:
            bridged = session.dial(number, caller_id.number, diversion, name=caller_id.name)
        finally:
            if number.is_emergency:
                # Only now: a Redis that is frozen would have held the call up for seconds.
                with suppress(StoreUnavailable):
                    session.policy.cards.dial(session.card, number.plus)
        session.tell(bridged)


def _check(session: Session, number: Number, opened: Opened | None) -> None:
    """Check a number. :raises SessionRefused: this card must not dial it."""
    session.check(number, *_levels(session))
    if opened is None:
        return
    if not opened.opens(session.rules):
        session.refuse(number, "what let the caller in is not enough any more")
    if opened.home_only(session.rules) and not session.settings.plan.is_home(number):
        session.refuse(number, "known by number alone: dials at home only")


def _read_again(session: Session, number: Number, opened: Opened | None) -> None:
    """Read the card and its account again before each number, and check the number by them: a session may last an hour,
    and either may change or be withdrawn meanwhile.

    Notes ``number`` as the card's last if it passes.

    :raises SessionRefused: the card or its account is gone or has changed, or must not dial the number.
    """
    before, cards = session.card, session.policy.cards
    assert before is not None
    account = cards.account(before.account_id)
    if account is None:
        session.refuse(number, "the card's account is not known any more")
    session.account, session.card_limits = account, cards.card_limits(account.id)
    _check(session, number, opened)
    card = cards.dial(before, number.plus)
    if card is None or not card.active:
        session.refuse(number, "the card is not active any more")
    if card.claim != before.claim:
        session.refuse(number, "the card has another PIN or number")
    session.keep_place(card, number)
    if card.user_id != before.user_id:
        _check(session, number, opened)
    if card != before:
        # The number wasn't noted: it had passed by the card as it was.
        cards.dial(card, number.plus)


def _authorise(session: Session, attested: bool) -> tuple[Card, Opened]:
    """Return the caller's card, and what let them in.

    :raises SessionRefused: three wrong PINs.
    """
    rules, call, cards = session.rules, session.call, session.policy.cards
    enrolled = _by_number(session)
    known = Opened(by_number=True, attested=attested)
    if enrolled is not None and known.opens(rules):
        return enrolled, known
    for tries_left in reversed(range(TRIES)):
        typed = session.collect_pin("enter_pin", PIN_MOST, FIRST_DIGIT, BETWEEN)
        # Look it up even if it can't be a PIN, so that every answer takes as long.
        card = cards.by_pin(typed)
        same = card is not None and enrolled is not None and enrolled.account_id == card.account_id
        typed_pin = Opened(by_number=False, enrolled=same)
        right = card is not None and card.active and PIN_LEAST <= len(typed) <= PIN_MOST and typed_pin.opens(rules)
        if session.admits(typed, right, card.id if card is not None else "") and card is not None:
            return card, typed_pin
        if tries_left:
            call.play("invalid_pin")
    raise SessionRefused("retries_exceeded", note="wrong PIN")


def _by_number(session: Session) -> Card | None:
    """Return the active card of the caller's number; None without a card or a number."""
    number = session.settings.plan.find(session.caller)
    card = None if number is None else session.policy.cards.by_number(number.e164)
    return card if card is not None and card.active else None


def _ask_number(session: Session) -> Number:
    """Ask for a number. :raises SessionRefused: three tries gave none that may be dialled."""
    assert session.card is not None
    call = session.call
    for _ in range(TRIES):
        typed = session.collect("enter_number", NUMBER_MOST, FIRST_DIGIT, BETWEEN)
        session.renew(typed)
        rules, plan = session.rules, session.settings.plan
        if rules.redial_code and typed == rules.redial_code:
            last = session.policy.cards.last_number(session.card.id)
            if last is None:
                call.play("no_last_number")
                continue
            typed = last
        elif len(typed) < NUMBER_LEAST:
            call.play("invalid_extension")
            continue
        try:
            number = plan.read(typed)
        except NotDialable:
            call.play("invalid_extension")
            continue
        if number.is_emergency or rules.allowed_callee is None or rules.allowed_callee("+" + number.e164):
            return number
        session.attempt.note("callee_not_allowed", "allowed_callee_regex")
        call.play("invalid_extension")
    raise SessionRefused("retries_exceeded", note="no number that could be dialled")


def _levels(session: Session) -> list[Mapping[str, ClassRule]]:
    account = session.account
    assert account is not None
    return [account.call_restriction, account.users.get(session.user, {})]


def _diversion(session: Session) -> dict[str, str] | None:
    """Return the ``Diversion`` header (RFC 5806) that names the account if the caller's own number is shown."""
    account = session.account
    number = None if account is None else session.settings.plan.find(account.caller_id)
    if account is None or number is None:
        return None
    realm = account.realm if _REALM.fullmatch(account.realm) else "localhost"
    value = f"<sip:{number.plus}@{realm}>;reason=unconditional"
    return {"sip_h_Diversion": dialstring.Raw(value)}


def extensions(config: Mapping[str, Any]) -> Iterator[Extension]:
    number = (config.get("cccp") or {}).get("cccp_cc_number")
    if number:
        yield Extension([APPLICATION.path], [number], "cccp.cccp_cc_number")


APPLICATION = Application(
    ref=REF,
    path="dialthrough",
    title="A calling card: known by number or PIN, the caller dials out.",
    session=True,
    arrive=arrive,
    extensions=extensions,
)
