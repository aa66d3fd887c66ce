"""Live calls by payer: counted once each, moved when the payer becomes known, gone when they end."""

from __future__ import annotations

from esl_apps.core.attempt import Attempt
from esl_apps.node.tenants import Tenants, tenant_of


def attempt(account: str | None = None, integrator: str | None = None) -> Attempt:
    return Attempt(app="disa", call_dir="external", account_id=account, integrator=integrator)


def test_tenant_is_the_account_before_the_integrator() -> None:
    assert tenant_of(attempt("acme", "teleforge")) == "account:acme"
    assert tenant_of(attempt(None, "teleforge")) == "integrator:teleforge"
    assert tenant_of(attempt()) == ""


def test_tenants_count_each_call_once() -> None:
    tenants, call = Tenants(), attempt("acme")
    tenants.add(call)
    tenants.add(call)
    tenants.add(attempt("acme"))
    assert tenants.count("account:acme") == 2
    tenants.remove(call)
    tenants.remove(call)
    assert tenants.count("account:acme") == 1


def test_tenants_move_a_call_whose_payer_becomes_known() -> None:
    tenants, call = Tenants(), attempt()
    tenants.add(call)
    call.account_id = "acme"
    tenants.add(call)
    assert (tenants.count(""), tenants.count("account:acme")) == (0, 1)
    tenants.remove(call)
    assert tenants.count("account:acme") == 0
