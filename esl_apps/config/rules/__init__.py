"""Rules that types can't say: between keys, and on what a text means. One module per section, one function per rule.

A rule is a generator of ``(path, what is wrong)``. It takes a `Context`, which leaves out the parts that can't be read,
so a rule reports nothing that only follows from another mistake.
"""

from __future__ import annotations

from dataclasses import replace

from esl_apps.config.decode import Draft
from esl_apps.config.problems import ConfigError, Problem
from esl_apps.config.reader import Document
from esl_apps.config.rules import (
    accounts,
    callers,
    dial,
    inbound,
    integrators,
    ports,
    secrets,
    spending,
    switches,
    webhooks,
)
from esl_apps.config.rules.context import Context, Rule
from esl_apps.config.rules.warnings import WARNINGS
from esl_apps.core.numbers import NumberPlan

#: These need no reading of numbers, and say whether numbers can be read.
_FIRST: tuple[Rule, ...] = dial.RULES

_THEN: tuple[Rule, ...] = (
    *switches.RULES,
    *ports.RULES,
    *secrets.RULES,
    *integrators.RULES,
    *webhooks.RULES,
    *callers.RULES,
    *accounts.RULES,
    *spending.RULES,
    *inbound.RULES,
)


def check(draft: Draft, document: Document) -> None:
    """Report every rule that doesn't hold to the document."""
    context = Context(draft, None)
    _apply(_FIRST, context, document)
    _apply(_THEN, replace(context, plan=_plan(context, document)), document)


def warn(draft: Draft, document: Document) -> list[Problem]:
    """List the warnings of a whole configuration, one with no problem in it."""
    context = Context(draft, None)
    found = [document.problem(path, message) for rule in WARNINGS for path, message in rule(context)]
    return sorted(found, key=lambda problem: problem.line or 0)


def _apply(rules: tuple[Rule, ...], context: Context, document: Document) -> None:
    for rule in rules:
        for path, message in rule(context):
            document.report(path, message)


def _plan(context: Context, document: Document) -> NumberPlan | None:
    """The plan that numbers are read with; None: what it is made of is wrong, and reported."""
    try:
        context.config.high_risk()
    except ConfigError as error:
        for problem in error.problems:
            document.report("spending.high_risk", str(problem))
        return None
    known = context.is_readable("dial") and context.is_readable("spending")
    wrong = any(problem.key.startswith("dial.") for problem in document.problems)
    return context.config.plan() if known and not wrong else None
