"""Dry runs: every check of a request and its verdict. Nothing is dialled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import falcon

from esl_apps.core.charges import Charge
from esl_apps.core.faults import Fault
from esl_apps.core.limits import BREAKER
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http.errors import problem
from esl_apps.http.parameters import in_query
from esl_apps.http.schemas import Check, DryRun
from esl_apps.node.services import Services

PARAMETER = in_query(
    "dry_run", {"type": "string", "enum": ["1", "true"]}, "Every check and its verdict; nothing is dialled"
)


def is_asked_for(req: falcon.Request) -> bool:
    """:raises Problem: 422, the parameter is neither true nor false."""
    try:
        return bool(req.get_param_as_bool("dry_run", blank_as_true=True))
    except falcon.HTTPBadRequest:
        raise problem(422, "value", "expected 1 or 0", "dry_run") from None


def report(services: Services, fields: Iterable[str], faults: Sequence[Fault], charges: Sequence[Charge]) -> DryRun:
    """Return the verdicts on a request's fields, on the limits that its charges count against, and on this node."""
    checks = [_check_field(field, faults) for field in dict.fromkeys([*fields, *(fault.field for fault in faults)])]
    checks += _check_spending(services, charges)
    reasons = services.readiness.reasons()
    checks.append(Check("ready", not reasons, "; ".join(reasons) or "ok"))
    return DryRun(dry_run=True, ok=all(check.ok for check in checks), checks=checks)


def _check_spending(services: Services, charges: Sequence[Charge]) -> list[Check]:
    try:
        refusal = services.usage.check(*charges)
    except StoreUnavailable as error:
        return [Check("limits", ok=False, message=error.summary)]
    tripped = refusal is not None and refusal.what == BREAKER
    message = "ok" if refusal is None else refusal.message
    return [
        Check("limits", refusal is None or tripped, "ok" if tripped else message),
        Check("breaker", not tripped, message if tripped else "ok"),
    ]


def _check_field(field: str, faults: Sequence[Fault]) -> Check:
    wrong = [fault.message for fault in faults if fault.field == field]
    return Check(field, not wrong, "; ".join(wrong) or "ok")
