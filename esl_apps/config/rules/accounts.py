"""Rules for ``accounts``."""

from __future__ import annotations

from collections.abc import Iterator

from esl_apps.config.fields import NAME, NAME_EXPECTED
from esl_apps.config.model import Disa
from esl_apps.config.rules import context
from esl_apps.config.rules.context import Context, Finding


def names_fit_a_path(c: Context) -> Iterator[Finding]:
    for name, account in c.config.accounts.items():
        if not NAME.fullmatch(name):
            yield f"accounts.{name}", NAME_EXPECTED
        for disa in account.disa:
            if not NAME.fullmatch(disa):
                yield f"accounts.{name}.disa.{disa}", NAME_EXPECTED


def integrators_exist(c: Context) -> Iterator[Finding]:
    for name, account in c.config.accounts.items():
        if c.draft.names is not None and account.integrator not in (None, *c.draft.names):
            yield f"accounts.{name}.integrator", "no such integrator"


def caller_ids_are_numbers(c: Context) -> Iterator[Finding]:
    for name, account in c.config.accounts.items():
        path = f"accounts.{name}"
        if account.caller_id is not None:
            yield from context.numbers(c.plan, [(f"{path}.caller_id.number", account.caller_id.number)])
        for user, about in account.users.items():
            if about.caller_id.number is not None:
                theirs = f"{path}.users.{user}.caller_id.number"
                yield from context.numbers(c.plan, [(theirs, about.caller_id.number)])
        listed = [(f"{path}.caller_ids[{i}]", text) for i, text in enumerate(account.caller_ids)]
        yield from context.numbers(c.plan, listed)


def disas_have_a_pin(c: Context) -> Iterator[Finding]:
    for path, disa in _disas(c):
        if disa.pin and disa.pin_hash:
            yield f"{path}.pin_hash", "expected pin or pin_hash, not both"
        if not (disa.pin or disa.pin_hash or disa.allow_no_pin):
            yield path, "no pin: anyone who calls may dial; set pin, or allow_no_pin: true"
        if disa.pin and not (disa.pin.isascii() and disa.pin.isdigit()):
            yield f"{path}.pin", "expected digits"
        if disa.pin_hash and not c.config.pin_key and c.is_readable("pin_key"):
            yield f"{path}.pin_hash", "needs pin_key, which is missing"


def disa_numbers_are_numbers(c: Context) -> Iterator[Finding]:
    for path, disa in _disas(c):
        yield from context.numbers(c.plan, [(f"{path}.numbers[{i}]", text) for i, text in enumerate(disa.numbers)])


def _disas(c: Context) -> list[tuple[str, Disa]]:
    return [
        (f"accounts.{account_id}.disa.{name}", disa)
        for account_id, account in c.config.accounts.items()
        for name, disa in account.disa.items()
    ]


RULES = (names_fit_a_path, integrators_exist, caller_ids_are_numbers, disas_have_a_pin, disa_numbers_are_numbers)
