"""Live calls by payer: counted once each, moved when the payer becomes known, gone when they end."""

from __future__ import annotations

from esl_apps.core.attempt import Attempt
from esl_apps.node.tenants import Tenants, tenant_of
from tests.support.bench import PIN, Build
from tests.support.peer import eventually


def attempt(account: str | None = None, integrator: str | None = None) -> Attempt:
    return Attempt(app="disa", call_dir="external", account_id=account, integrator=integrator)


def test_tenant_is_the_account_before_the_integrator() -> None:
    assert tenant_of(attempt("acme", "teleforge")) == "account:acme"
    assert tenant_of(attempt(None, "teleforge")) == "integrator:teleforge"
    assert tenant_of(attempt()) == ""


def test_tenant_is_apart_before_a_stranger_has_typed_the_pin() -> None:
    tenants, call = Tenants(), attempt("acme", "teleforge")
    call.stranger = True
    tenants.add(call)
    assert (tenants.count("pin:account:acme"), tenants.count("account:acme")) == (1, 0)
    call.stranger = False
    tenants.add(call)
    assert (tenants.count("pin:account:acme"), tenants.count("account:acme")) == (0, 1)


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


def test_caller_of_a_disa_counts_from_the_pin_on(build: Build) -> None:
    accounts = {"acme": {"token": "acme-cards-token", "max_calls": 1, "disa": {"front": {"pin": PIN}}}}
    bench = build(accounts=accounts).connect()
    card = Attempt(app="dialthrough", call_dir="external", account_id="acme")
    bench.services.calls.begin(card, bench.services.switches[0])
    assert bench.services.has_room(card)
    caller = bench.visit()
    caller.types()
    played = [argument for app, argument in caller.served().switch.executed if app == "playback"]
    assert played[-1].endswith("/too_many_channels.wav")


def test_callers_without_a_pin_take_no_room_of_others(build: Build) -> None:
    """Neither the account's nor, all together, the node's."""
    disa = {"disa": {"front": {"pin": PIN}}}
    accounts = {name: {"token": f"{name}-cards-token", "max_calls": 2, **disa} for name in ("acme", "beta")}
    bench = build(accounts=accounts, node={"max_calls": 10}).connect()
    strangers = [bench.visit(**{"Unique-ID": f"aaaaaaaa-0000-4000-8000-00000000000{n}"}) for n in range(10)]
    eventually(lambda: all(stranger.switch.executed for stranger in strangers))
    assert [stranger.switch.executed[0] for stranger in strangers].count(("hangup", "USER_BUSY")) == 8
    assert bench.services.calls.tenants.count("account:acme") == 0
