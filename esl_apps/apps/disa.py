"""DISA: a caller with a PIN gets a dial tone and dials out as the account (Kazoo's ``cf_disa``)."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from esl_apps.apps.application import Application, Extension
from esl_apps.apps.context import AppPolicy, Arrival, Host, NotServed
from esl_apps.apps.session import Session, SessionRefused
from esl_apps.apps.settings import Entrance
from esl_apps.apps.shown import shown
from esl_apps.core.call import Call, CallEnded
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import Number
from esl_apps.core.restrictions import ClassRule
from esl_apps.core.unavailable import StoreUnavailable

REF = "disa"

#: North American tones: dial tone of 350 and 440 Hz; ringing of 440 and 480 Hz, two seconds on and four off.
DIALTONE = "tone_stream://%(10000,0,350,440)"
DIALTONE_SECONDS = 10.0
RINGING = "tone_stream://%(2000,4000,440,480);loops={count}"
RINGING_SECONDS = 6.0
FIRST_DIGIT = 10.0
#: Digits of the longest PIN of which only the hash is configured.
LONGEST_HASHED = 32


def arrive(call: Call, arrival: Arrival, policy: AppPolicy, host: Host) -> None:
    """A caller has come to ``disa/ACCOUNT/NAME``. :raises NotServed: it isn't configured."""
    entrance = _entrance(policy, arrival)
    if entrance is None:
        raise NotServed("no such DISA", "UNALLOCATED_NUMBER")
    session = Session.open(call, REF, arrival, policy, host, entrance)

    def talk() -> None:
        session.ask_for_room()
        session.answer()
        if entrance.pin_hash is not None:
            _authorise(session, entrance)
            session.attempt.stranger = False
            session.ask_for_room("too_many_channels")
        current = entrance
        while session.left > 0:
            current = _dial_one(session, arrival, current)

    session.run(talk)


def _authorise(session: Session, entrance: Entrance) -> None:
    """Ask for the PIN. :raises SessionRefused: every try was wrong."""

    opened = False
    # Digits that may have been the whole PIN, and didn't open.
    refused = ""

    def right(typed: str) -> bool:
        # Silence is never right, whatever was hashed.
        return bool(typed) and hmac.compare_digest(session.policy.hash_pin(typed), entrance.pin_hash or "")

    def complete(typed: str) -> bool:
        # Only a PIN that opens ends the entry: under a lock, the time would tell which one is right. A wrong one is
        # judged as well, so that it takes as long, and ends the same way if Redis is down.
        nonlocal opened, refused
        if len(typed) >= entrance.pin_length:
            opened = session.admits(typed, right(typed), whole=False)
            refused = "" if opened else typed
        return opened

    most = LONGEST_HASHED if entrance.pin_hashed else entrance.pin_length
    for tries_left in reversed(range(entrance.retries)):
        refused = ""
        try:
            typed = session.collect_pin("enter_pin", most, FIRST_DIGIT, entrance.interdigit, complete)
        except (CallEnded, SessionRefused):
            # No dial tone came: the caller knows that it was wrong, and may hang up before the entry ends.
            if refused:
                with suppress(StoreUnavailable):
                    session.admits(refused, False)
            raise
        if opened or session.admits(typed, right(typed)):
            return
        if tries_left:
            session.call.play("invalid_pin")
    raise SessionRefused("retries_exceeded", note="wrong PIN")


def _entrance(policy: AppPolicy, arrival: Arrival) -> Entrance | None:
    return policy.entrance(arrival.path[1], arrival.path[2]) if len(arrival.path) == 3 else None


def _dial_one(session: Session, arrival: Arrival, entrance: Entrance) -> Entrance:
    """Play the dial tone, ask for a number and dial it. Return the DISA as it was then.

    :raises SessionRefused: the tries or the session's time are used up, the number is denied, or the DISA is closed.
    """
    call = session.call
    # The time for the first digit begins with the tone, not after it.
    first = max(0.0, FIRST_DIGIT - entrance.preconnect_seconds)
    for _ in range(entrance.retries):
        typed = session.collect(entrance.preconnect_audio, entrance.max_digits, first, entrance.interdigit)
        session.renew(typed)
        try:
            number = session.settings.plan.read(typed)
        except NotDialable:
            call.play("invalid_extension")
            continue
        if not number.is_emergency:
            # These are dialled whatever has become of the DISA and of Redis.
            entrance = _read_again(session, arrival, entrance, number)
        session.check(number, *_levels(entrance))
        own = None if entrance.use_account_caller_id else session.caller
        caller_id = shown(session, own)
        session.tell(session.dial(number, caller_id.number, name=caller_id.name))
        return entrance
    raise SessionRefused("retries_exceeded", note="no number that could be dialled")


def _read_again(session: Session, arrival: Arrival, entrance: Entrance, number: Number) -> Entrance:
    """Read the DISA again before each number. :raises SessionRefused: it is gone, or has another PIN."""
    now = _entrance(session.policy, arrival)
    if now is None:
        session.refuse(number, "the DISA is not configured any more")
    if now.pin_mark != entrance.pin_mark:
        session.refuse(number, "the DISA has another PIN")
    session.account, session.longest = now.account, now.max_session
    return now


def _levels(entrance: Entrance) -> list[Mapping[str, ClassRule]]:
    levels = entrance.account.call_restriction
    if entrance.enforce_call_restriction:
        return [levels]
    # Even if nothing is enforced, classes that fraud dials need a rule that allows them.
    return [{klass: rule for klass, rule in levels.items() if rule.action == "allow"}]


def extensions(config: Mapping[str, Any]) -> Iterator[Extension]:
    for account, about in (config.get("accounts") or {}).items():
        for name, entrance in ((about or {}).get("disa") or {}).items():
            numbers = (entrance or {}).get("numbers") or []
            several = numbers if isinstance(numbers, list) else [numbers]
            yield Extension(
                [APPLICATION.path, str(account), str(name)], several, f"accounts.{account}.disa.{name}.numbers"
            )


APPLICATION = Application(
    ref=REF,
    path="disa",
    title="A caller with a PIN gets a dial tone and dials out as the account.",
    session=True,
    arrive=arrive,
    extensions=extensions,
)
