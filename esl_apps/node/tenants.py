"""How many live calls each integrator and account has on this node, so that none fills it for the others."""

from __future__ import annotations

from collections import Counter

from esl_apps.core.attempt import Attempt

#: Before a payer whose PIN hasn't been typed yet.
STRANGERS = "pin:"


def tenant_of(attempt: Attempt) -> str:
    """Return the payer of a call: ``account:ID`` or ``integrator:NAME``; empty before a caller is known.

    ``pin:account:ID`` for a stranger, who is counted apart: else they would take the account's room, or all the node's.
    """
    if attempt.account_id is not None:
        return f"{STRANGERS if attempt.stranger else ''}account:{attempt.account_id}"
    return f"integrator:{attempt.integrator}" if attempt.integrator is not None else ""


class Tenants:
    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._of: dict[str, str] = {}
        """The payer of each live call, by ``call_ref``."""

    def count(self, tenant: str) -> int:
        return self._counts[tenant]

    def add(self, attempt: Attempt) -> None:
        """Count a live call, or move it if its payer has become known."""
        tenant = tenant_of(attempt)
        if self._of.get(attempt.call_ref) != tenant:
            self.remove(attempt)
            self._of[attempt.call_ref] = tenant
            self._counts[tenant] += 1

    def remove(self, attempt: Attempt) -> None:
        tenant = self._of.pop(attempt.call_ref, None)
        if tenant is None:
            return
        self._counts[tenant] -= 1
        if not self._counts[tenant]:
            del self._counts[tenant]
