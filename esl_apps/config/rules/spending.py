"""Rules for what may be dialled and spent: restrictions, limits, breakers."""

from __future__ import annotations

from collections.abc import Iterator

from esl_apps.config.model import Restriction
from esl_apps.config.rules.context import Context, Finding
from esl_apps.config.spending import COUNTRIES, Breaker, Limits
from esl_apps.core import limits
from esl_apps.core.number_classes import KNOWN_CLASSES


def restricted_classes_exist(c: Context) -> Iterator[Finding]:
    if c.classes is None:
        return
    known = KNOWN_CLASSES | c.classes
    for path, restriction in _restrictions(c):
        for klass in restriction:
            if klass not in known:
                yield f"{path}.{klass}", f"unknown class; expected one of {', '.join(sorted(known))}"


def destinations_exist(c: Context) -> Iterator[Finding]:
    for path, section in _spends(c):
        for text in section.destinations:
            at = f"{path}.destinations.{text}"
            try:
                destination = limits.read_destination(text)
            except ValueError as error:
                yield at, str(error)
                continue
            if destination.kind == "class" and c.classes is not None and destination.value not in c.classes:
                yield at, f"unknown class; expected one of {', '.join(sorted(c.classes))}"
            if destination.kind == "country" and destination.value not in COUNTRIES:
                yield at, "unknown country; expected an ISO 3166 code, or 001 for numbers of no country"


def _restrictions(c: Context) -> Iterator[tuple[str, Restriction]]:
    for path, integrator in c.draft.integrators:
        yield f"{path}.call_restriction", integrator.call_restriction
    for name, account in c.config.accounts.items():
        yield f"accounts.{name}.call_restriction", account.call_restriction
        for user_id, user in account.users.items():
            yield f"accounts.{name}.users.{user_id}.call_restriction", user.call_restriction


def _spends(c: Context) -> Iterator[tuple[str, Limits | Breaker]]:
    yield "spending.limits", c.config.spending.limits
    yield "spending.breaker", c.config.spending.breaker
    for path, integrator in c.draft.integrators:
        yield f"{path}.limits", integrator.limits
        yield f"{path}.breaker", integrator.breaker
    for name, account in c.config.accounts.items():
        yield f"accounts.{name}.limits", account.limits
        yield f"accounts.{name}.card_limits", account.card_limits
        yield f"accounts.{name}.breaker", account.breaker


RULES = (restricted_classes_exist, destinations_exist)
