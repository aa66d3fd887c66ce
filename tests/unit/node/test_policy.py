"""The configuration and the imported documents as a policy, which is never half of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from esl_apps.apps.settings import Entrance
from esl_apps.config.problems import ConfigError
from esl_apps.core.cards import Account
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.node.policy import Policy, own_settings
from esl_apps.testing import ScriptedCall
from tests.support.bench import DID, PIN, Bench, Build, probe


def policy_of(bench: Bench) -> Policy:
    return bench.services.policy


@pytest.fixture
def node(build: Build) -> Bench:
    return build()


def imported(node: Bench, name: str, settings: dict[str, Any]) -> Policy:
    policy = policy_of(node)
    policy.cards.put_system_config(name, settings)
    return policy


# Rules --------------------------------------------------------------------------------------------------


def test_policy_rules_are_the_files(node: Bench) -> None:
    rules = policy_of(node).rules
    assert rules.own_numbers == {"27115550000", "27115550008", "27115550009"}
    assert (rules.allowed_callee, rules.emergency, rules.pin_from_enrolled) == (None, False, False)


def test_policy_imported_rules_override_the_files(node: Bench) -> None:
    policy = imported(node, "cccp", {"last_number_redial_code": "*69", "allowed_callee_regex": "^\\+27"})
    assert policy.rules.redial_code == "*69"
    assert policy.rules.allowed_callee is not None
    assert policy.rules.allowed_callee("+27820001234")
    assert not policy.rules.allowed_callee("+44")


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt_delay": "soon"},
        {"prompt_delay": -1},
        {"cid_trust": "everybody"},
        {"allowed_callee_regex": "("},
        {"cccp_cb_number": "not a number"},
    ],
)
def test_policy_unreadable_rules_let_nothing_through(node: Bench, settings: dict[str, Any]) -> None:
    """Written by hand or by another version; dialling by half of them could be dialling without limits."""
    policy = imported(node, "cccp", settings)
    with pytest.raises(StoreUnavailable, match="the imported cccp"):
        _ = policy.rules


def test_policy_rules_are_asked_again_once_redis_is_back(node: Bench) -> None:
    policy = policy_of(node)
    node.redis.break_after(0)
    with pytest.raises(StoreUnavailable):
        _ = policy.rules
    node.redis.mend()
    asked = node.redis.asked
    assert policy.rules is policy.rules
    # From here on they are this policy's, without asking again.
    assert node.redis.asked == asked + 2


# DISA ---------------------------------------------------------------------------------------------------


def test_policy_entrance_is_as_configured(node: Bench) -> None:
    policy = policy_of(node)
    entrance = policy.entrance("acme", "front")
    assert entrance is not None
    assert (entrance.account.id, entrance.pin_hash) == ("acme", policy.hash_pin(PIN))
    assert entrance.pin_length >= len(PIN)


def test_policy_entrance_is_the_same_by_another_pin_key(build: Build) -> None:
    """Callers in a session go on."""

    def entrance(pin: str, pin_key: str) -> Entrance:
        accounts = {"acme": {"disa": {"front": {"pin": pin}}}}
        bench = build(name=f"app-{pin}-{pin_key}", accounts=accounts, pin_key=pin_key)
        found = policy_of(bench).entrance("acme", "front")
        assert found is not None
        return found

    before, after = entrance(PIN, "one-key-for-tests-012345"), entrance(PIN, "another-key-0123456789012")
    other = entrance("9999999999", "one-key-for-tests-012345")
    assert before.pin_hash != after.pin_hash
    assert (before.pin_mark == after.pin_mark, before.pin_mark == other.pin_mark) == (True, False)


@pytest.mark.parametrize(("account", "name"), [("acme", "back"), ("other", "front"), ("", "")])
def test_policy_unknown_entrance_is_none(node: Bench, account: str, name: str) -> None:
    assert policy_of(node).entrance(account, name) is None


def test_policy_entrance_without_redis_lets_nobody_in(node: Bench) -> None:
    node.redis.break_after(0)
    with pytest.raises(StoreUnavailable):
        policy_of(node).entrance("acme", "front")


def test_policy_entrance_rings_instead_of_a_dial_tone(build: Build) -> None:
    disa = {"pin": PIN, "preconnect_audio": "ringing", "ring_repeat_count": 2}
    node = build(accounts={"acme": {"token": "acme-cards-token", "disa": {"front": disa}}})
    entrance = policy_of(node).entrance("acme", "front")
    assert entrance is not None
    assert entrance.preconnect_audio.endswith("loops=2")
    assert entrance.preconnect_seconds == 12.0


# Callers ------------------------------------------------------------------------------------------------


def test_policy_caller_of_a_trusted_trunk_is_believed(build: Build) -> None:
    node = build(trust=["192.0.2.0/24"])
    policy = policy_of(node)
    assert policy.trusted("192.0.2.7")
    assert not policy.trusted("198.51.100.7")
    assert not policy.trusted("not an address")
    call = ScriptedCall(
        variables={"sip_network_ip": "192.0.2.7"},
        headers={"Caller-Caller-ID-Number": "27825556666", "Caller-Destination-Number": DID},
    )
    caller = policy.caller(call)
    assert caller == "27825556666"
    assert not policy.attested(call)
    source = policy.source(call, "disa/acme/front", caller)
    assert source.entrance == "disa/acme/front"


@pytest.mark.parametrize(
    ("address", "asserted", "hidden", "number", "own"),
    [
        ("10.0.0.1", "+27825556666", "false", "27825556666", True),
        ("10.0.0.1", None, "false", "27845550000@10.0.0.1", False),
        ("192.0.2.1", "+27825556666", "false", "27845550000@192.0.2.1", True),
        ("10.0.0.1", None, "true", "withheld@10.0.0.1", False),
        ("192.0.2.1", "+27825556666", "true", "withheld@192.0.2.1", True),
    ],
)
def test_policy_source_trusts_what_a_trunk_asserts(
    build: Build, address: str, asserted: str | None, hidden: str, number: str, own: bool
) -> None:
    """A forged From, or a withheld number, never counts as the caller whom a trunk asserts."""
    policy = policy_of(build(trust=["10.0.0.0/8"]))
    source = policy.source(call := from_trunk(address, asserted, hidden), "dialthrough", policy.caller(call))
    assert (source.number, source.is_own) == (number, own)


def test_policy_source_tells_withheld_callers_of_a_trunk_apart(build: Build) -> None:
    policy = policy_of(build(trust=["10.0.0.0/8"]))
    numbers = set()
    for asserted in ("+27825556666", "+27825556667"):
        call = from_trunk("10.0.0.1", asserted, "true")
        source = policy.source(call, "dialthrough", policy.caller(call))
        assert source.is_own
        # It shows in logs and alerts.
        assert "2782555" not in source.number
        numbers.add(source.number)
    assert len(numbers) == 2


def from_trunk(address: str, asserted: str | None, hidden: str) -> ScriptedCall:
    variables = {"sip_from_user": "0845550000", "sip_network_ip": address}
    if asserted is not None:
        variables["sip_P-Asserted-Identity"] = asserted
    return ScriptedCall(variables=variables, headers={"Caller-Privacy-Hide-Number": hidden})


@pytest.mark.parametrize(
    ("own", "default", "shown"),
    [
        ("+27115551000", None, "+27115551000"),
        (None, "+27115552000", "+27115552000"),
        ("Acme Ltd", None, "Acme Ltd"),
        (None, None, "anonymous"),
    ],
)
def test_policy_account_shows_its_number_or_the_default(
    build: Build, own: str | None, default: str | None, shown: str
) -> None:
    node = build(cccp={"default_caller_id_number": default} if default else {})
    assert policy_of(node).caller_of(Account("acme", caller_id=own)).number == shown


def test_policy_knows_its_prompts(node: Bench) -> None:
    policy = policy_of(node)
    assert policy.is_media("goodbye")
    assert not policy.is_media("../../etc/passwd")
    assert policy.prompt("goodbye", 8000).endswith("/8000/goodbye.wav")


# Applications -------------------------------------------------------------------------------------------


class Knobs(msgspec.Struct):
    level: int = 3


def test_policy_applications_own_settings_are_read(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    probe(monkeypatch, lambda *_parts: None, settings=Knobs)
    node = build(applications={"probe": {"level": 5}})
    assert policy_of(node).own("probe").level == 5


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"probe": {"level": "high"}}, r"applications\.probe"),
        ({"prob": {}}, r"applications\.prob.*no such application.*probe"),
    ],
)
def test_policy_unreadable_settings_are_refused(
    build: Build, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any], message: str
) -> None:
    probe(monkeypatch, lambda *_parts: None, settings=Knobs)
    with pytest.raises(ConfigError, match=message):
        build(applications=sections)


def test_policy_settings_without_such_applications_are_refused(node: Bench) -> None:
    config = msgspec.structs.replace(node.config, applications={"probe": {}})
    with pytest.raises(ConfigError, match="none with settings is installed"):
        own_settings(config)
