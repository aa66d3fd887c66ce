"""Rules for ``integrators``."""

from __future__ import annotations

from collections.abc import Iterator

from esl_apps.config.fields import NAME, NAME_EXPECTED
from esl_apps.config.rules import context
from esl_apps.config.rules.context import Context, Finding


def names_differ(c: Context) -> Iterator[Finding]:
    names: set[str] = set()
    for path, integrator in c.draft.integrators:
        if integrator.name in names:
            yield f"{path}.name", "an integrator above has this name"
        names.add(integrator.name)


def caller_ids_are_numbers(c: Context) -> Iterator[Finding]:
    for path, integrator in c.draft.integrators:
        listed = [(f"{path}.caller_ids[{i}]", text) for i, text in enumerate(integrator.caller_ids)]
        yield from context.numbers(c.plan, listed)


def random_caller_id_has_a_choice(c: Context) -> Iterator[Finding]:
    for path, integrator in c.draft.integrators:
        if integrator.random_caller_id and not integrator.caller_ids:
            yield f"{path}.random_caller_id", "there is nothing to choose from: caller_ids is empty"


def campaigns_have_numbers(c: Context) -> Iterator[Finding]:
    for path, integrator in c.draft.integrators:
        for name, numbers in integrator.campaigns.items():
            at = f"{path}.campaigns.{name}"
            if not NAME.fullmatch(name):
                yield at, NAME_EXPECTED
            listed = [numbers] if isinstance(numbers, str) else numbers
            if not listed:
                yield at, "expected at least one number"
            single = isinstance(numbers, str)
            yield from context.numbers(
                c.plan, [(at if single else f"{at}[{i}]", text) for i, text in enumerate(listed)]
            )


def patterns_are_regexes(c: Context) -> Iterator[Finding]:
    for path, integrator in c.draft.integrators:
        for name in ("agent", "callee", "outbound_id", "contact_ref"):
            text = getattr(integrator.patterns, name)
            if text is not None:
                yield from context.regex(text, f"{path}.patterns.{name}")


RULES = (
    names_differ,
    caller_ids_are_numbers,
    random_caller_id_has_a_choice,
    campaigns_have_numbers,
    patterns_are_regexes,
)
