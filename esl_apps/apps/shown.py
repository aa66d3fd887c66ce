"""The number and name that a session shows to the callee."""

from __future__ import annotations

from typing import NamedTuple

from esl_apps.apps.legs import ANONYMOUS
from esl_apps.apps.session import Session
from esl_apps.core import dialstring
from esl_apps.core.cards import may_show, own_caller_id


class Shown(NamedTuple):
    """A caller ID for B's phone."""

    number: str
    name: str
    own: bool
    """Whether it is the caller's own number."""


def shown(session: Session, own: str | None) -> Shown:
    """Return the caller ID for B's phone.

    ``own``: the caller's number if it should be shown, None for the user's or the account's. With
    ``ensure_valid_caller_id``, a number that the account may not present is replaced by the account's, or by the
    system's default if it has none.
    """
    account, rules, plan = session.account, session.rules, session.settings.plan
    if own is not None and (not rules.ensure_valid_caller_id or may_show(account, own, plan)):
        return Shown(_format(session, own), session.caller_name, True)
    theirs = own_caller_id(account, session.user, rules.default_caller_id)
    return Shown(_format(session, theirs.number) if theirs.number else ANONYMOUS, theirs.name, False)


def shown_number(session: Session, own: str | None) -> tuple[str, bool]:
    """Return the number of :func:`shown`, and whether it is the caller's own."""
    number, _name, is_own = shown(session, own)
    return number, is_own


def _format(session: Session, text: str) -> str:
    number = session.settings.plan.find(text)
    return text if number is None else dialstring.caller_id(number, session.settings.caller_id_format)
