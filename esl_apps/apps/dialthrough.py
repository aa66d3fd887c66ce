"""Dialthrough, the calling card: a caller who is known by number or by PIN dials out (Kazoo's ``cccp``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from esl_apps.apps.application import Application, Extension
from esl_apps.apps.context import AppPolicy, Arrival, Host
from esl_apps.apps.session import Session, SessionRefused, session_variables, shown_number
from esl_apps.core import dialstring
from esl_apps.core.call import Call
from esl_apps.core.cards import Card
from esl_apps.core.numbers import NotDialable, Number
from esl_apps.core.restrictions import ClassRule

REF = "dialthrough"

# As Kazoo's cccp: a PIN of 9 to 12 digits, a number of 2 to 17, three tries each; 5 s to the first digit, 2 s between.
TRIES = 3
PIN_LEAST, PIN_MOST = 9, 12
NUMBER_LEAST, NUMBER_MOST = 2, 17
FIRST_DIGIT, BETWEEN = 5.0, 2.0

_REALM = re.compile(r"[A-Za-z0-9.-]+")


def arrive(call: Call, arrival: Arrival, policy: AppPolicy, host: Host) -> None:
    """A caller has called the card number: authorise them by their number or a PIN, then dial what they ask for."""
    attested = policy.attested(call)
    session = Session.open(call, REF, arrival, policy, host)

    def talk() -> None:
        session.answer()
        card, by_number = _authorise(session, attested)
        take(session, card)
        dial_on(session, home_only=by_number and session.rules.cid_trust == "national")

    session.run(talk)


def take(session: Session, card: Card) -> None:
    """Use this card from now on. :raises SessionRefused: its account is unknown, or it has too many calls."""
    cards = session.policy.cards
    account = cards.account(card.account_id)
    if account is None:
        raise SessionRefused("unauthorized_call", note="the card's account is not known")
    session.card, session.account = card, account
    session.card_limits = cards.card_limits(account.id)
    attempt = session.attempt
    attempt.account_id, attempt.integrator = account.id, account.integrator
    attempt.extension = session.caller or card.id
    attempt.note("card", card.id)
    session.hold_place(card)
    session.call.set(session_variables(session.settings, attempt, session.user))


def dial_on(session: Session, *, home_only: bool) -> None:
    """Dial number after number until the caller leaves or the session's time is up."""
    assert session.card is not None
    while session.left > 0:
        number = _ask_number(session)
        _check(session, number, home_only)
        if _ask_again(session, number):
            _check(session, number, home_only)
        shown, own = shown_number(session, session.caller if session.card.retain_cid else None)
        session.tell(session.dial(number, shown, _diversion(session) if own else None))


def _check(session: Session, number: Number, home_only: bool) -> None:
    """Check a number. :raises SessionRefused: this card must not dial it."""
    session.check(number, *_levels(session))
    if home_only and not session.settings.plan.is_home(number):
        session.refuse(number, "known by number alone: dials at home only")


def _ask_again(session: Session, number: Number) -> bool:
    """Read the card again before each number: a session may last an hour, and the card may be withdrawn meanwhile.

    Notes ``number`` as the card's last. Return True if what the card may dial has changed, so that ``number`` must be
    checked again.

    :raises SessionRefused: the card or its account is gone, or the card is inactive.
    """
    assert session.card is not None
    cards = session.policy.cards
    before = session.card.user_id, session.account
    card = cards.dial(session.card.account_id, session.card.id, number.plus)
    account = cards.account(card.account_id) if card is not None and card.active else None
    if card is None or account is None:
        session.refuse(number, "the card is not active any more")
    session.card, session.account = card, account
    return (card.user_id, account) != before


def _authorise(session: Session, attested: bool) -> tuple[Card, bool]:
    """Return the caller's card, and whether their number alone authorised them.

    :raises SessionRefused: three wrong PINs.
    """
    rules, call, cards = session.rules, session.call, session.policy.cards
    enrolled = _by_number(session)
    if enrolled is not None and (attested if rules.cid_trust == "attested" else rules.cid_trust != "pin"):
        return enrolled, True
    for attempt in range(TRIES):
        typed = session.collect_pin("enter_pin", PIN_MOST, FIRST_DIGIT, BETWEEN)
        # Look it up even if it can't be a PIN, so that every answer takes as long.
        card = cards.by_pin(typed)
        right = (
            card is not None
            and card.active
            and PIN_LEAST <= len(typed) <= PIN_MOST
            and (not rules.pin_from_enrolled or (enrolled is not None and enrolled.account_id == card.account_id))
        )
        meant = card if card is not None else enrolled
        if session.admits(typed, right, meant.id if meant is not None else "") and card is not None:
            return card, False
        if attempt + 1 < TRIES:
            call.play("invalid_pin")
    raise SessionRefused("retries_exceeded", note="wrong PIN")


def _by_number(session: Session) -> Card | None:
    """Return the active card of the caller's number; None without a card or a number."""
    try:
        number = session.settings.plan.read(session.caller or "")
    except NotDialable:
        return None
    card = session.policy.cards.by_number(number.e164)
    return card if card is not None and card.active else None


def _ask_number(session: Session) -> Number:
    """Ask for a number. :raises SessionRefused: three tries gave none that may be dialled."""
    assert session.card is not None
    call, rules, plan = session.call, session.rules, session.settings.plan
    for _ in range(TRIES):
        typed = session.collect("enter_number", NUMBER_MOST, FIRST_DIGIT, BETWEEN)
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
    if account is None or not account.caller_id:
        return None
    try:
        number = session.settings.plan.read(account.caller_id)
    except NotDialable:
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
