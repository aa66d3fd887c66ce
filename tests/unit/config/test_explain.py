"""A value of a wrong type, an unknown key, a missing one: file, line, key, and what was expected in plain words."""

from __future__ import annotations

import re

import pytest

from tests.support.configurations import instead, problems_of, refusal, refusal_of_integrator

# Unknown keys ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("colour: red\n", "f.yml:6: colour: unknown key; expected accounts, admin, applications, callback, "),
        ("intergators: []\n", "f.yml:6: intergators: unknown key; did you mean integrators?"),
        (
            "callback:\n  retries: 1\n  retry_aftr: 2\n",
            "f.yml:8: callback.retry_aftr: unknown key; did you mean retry_after?",
        ),
        (
            "accounts:\n  acme:\n    disa:\n      front:\n        pin: '1'\n        retrys: 3\n",
            "f.yml:11: accounts.acme.disa.front.retrys: unknown key; did you mean retries?",
        ),
        (
            "accounts:\n  good: {}\n  bad.name:\n    tokn: x\n",
            "f.yml:9: accounts.bad.name.tokn: unknown key; did you mean token?",
        ),
        (
            # Not reported as missing as well.
            "inbound:\n  '27115550000': {integrator: acme, agents: ['1000']}\n  '27115550001':\n"
            "    integrator: acme\n    agent: ['1000']\n",
            "f.yml:10: inbound.27115550001.agent: unknown key; did you mean agents?",
        ),
        (
            "callflow.disa:\n  default_pin_lenght: 4\n",
            "f.yml:7: callflow.disa.default_pin_lenght: unknown key; did you mean default_pin_length?",
        ),
        ("<<: {trust: []}\n", "f.yml:6: <<: unknown key; merged mappings (<<) are not supported"),
        ("notes: []\n", "f.yml:6: notes: unknown key; did you mean node?"),
        ("cccp:\n  _id: cccp\n  default: {cid_trsut: any}\n", "f.yml:8: cccp.cid_trsut: unknown key; did you mean "),
        # Next to a Kazoo document's default it would say nothing.
        (
            "cccp:\n  _id: cccp\n  pvt_type: config\n  kazoo@node1: {a: 1}\n  default: {}\n  cid_trust: pin\n",
            "f.yml:11: cccp.cid_trust: belongs under default",
        ),
    ],
)
def test_unknown_key_is_refused(more: str, told: str) -> None:
    assert refusal(more).startswith(told), refusal(more)


# Types ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            "callback:\n  retries: often\n",
            "7: callback.retries: expected a whole number from 0 to 1000000000, got text",
        ),
        ("callback:\n  retries: -1\n", "7: callback.retries: expected a whole number from 0 to 1000000000"),
        ("callback:\n  retries: 1.5\n", "7: callback.retries: expected a whole number from 0 to 1000000000"),
        (
            "callback:\n  retries: '2'\n",
            "7: callback.retries: expected a whole number from 0 to 1000000000, got text; remove the quotes",
        ),
        (
            "callback:\n  retry_after: -1\n",
            "7: callback.retry_after: expected a number of seconds, 0 to 31536000 (a year)",
        ),
        ("callback:\n  confirm: 1\n", "7: callback.confirm: expected true or false, got a number"),
        ("callback:\n  confirm: 'yes'\n", "7: callback.confirm: expected true or false, got text"),
        ("callback:\n  confirm: 'true'\n", "7: callback.confirm: expected true or false, got text; remove the quotes"),
        (
            "callback: 5\n",
            "6: callback: expected a mapping of retries, retry_after, cool_down, per_day, answer_after, confirm, "
            "got a number",
        ),
        (
            "callback:\n  - retries: 1\n",
            "6: callback: expected a mapping of retries, retry_after, cool_down, per_day, answer_after, confirm, "
            "got a list; remove the - or the brackets",
        ),
        ("accounts: [a]\n", "6: accounts: expected a mapping, got a list; remove the - or the brackets"),
        (
            "trust: 10.0.0.0/8\n",
            "6: trust: expected a list, got text; write [A, B], or each item in a line of its own, behind -",
        ),
        ("trust: {a: b}\n", "6: trust: expected a list, got a mapping"),
        ("trust:\n", "6: trust: expected a list, got nothing"),
        ("pin_key: 5\n", "6: pin_key: expected text, got a number; put the number in quotes"),
        ("pin_key: 12:30\n", "6: pin_key: expected text, got a number; put the number in quotes"),
        ("pin_key: 2029-01-31\n", "6: pin_key: expected text, got a date; put it in quotes"),
        ("pin_key: 2029-01-31 10:00:00\n", "6: pin_key: expected text, got a date; put it in quotes"),
        ("pin_key: !!binary aGk=\n", "6: pin_key: expected text, got something else"),
        (
            "dial:\n  region: NO\n",
            "7: dial.region: expected an ISO 3166 country code, as ZA, got true or false; without quotes, YAML reads "
            "NO as false: put it in quotes",
        ),
        (
            "pin_key: on\n",
            "6: pin_key: expected text, got true or false; without quotes, YAML reads on as true: put it in quotes",
        ),
        ("pin_key: true\n", "6: pin_key: expected text, got true or false; put it in quotes if it is a text"),
        ("dial:\n  region: za\n", "7: dial.region: expected an ISO 3166 country code, as ZA"),
        ("dial:\n  region: ~\n", "7: dial.region: expected an ISO 3166 country code, as ZA, got nothing"),
        (
            "cccp:\n  cccp_cb_number: 5142223333\n",
            "7: cccp.cccp_cb_number: expected text, got a number; put the number in quotes",
        ),
        ("cccp:\n  cid_trust: everybody\n", "7: cccp.cid_trust: expected any, national, pin or attested"),
        ("cccp:\n  attest_level: D\n", "7: cccp.attest_level: expected A, B or C"),
        ("cccp:\n  pin_from: home\n", "7: cccp.pin_from: expected anywhere or enrolled"),
        ("pin_guard:\n  per_number: 0\n", "7: pin_guard.per_number: expected a whole number from 1 to 10000"),
        (
            "pin_guard:\n  overall: null\n",
            "7: pin_guard.overall: expected a whole number from 1 to 10000, got nothing",
        ),
        ("pin_guard:\n  window: .nan\n", "7: pin_guard.window: expected a number of seconds, 1 to 604800"),
        ("pin_guard:\n  lock: .inf\n", "7: pin_guard.lock: expected a number of seconds, 1 to 2592000"),
        ("prompts:\n  language: ../x\n", "7: prompts.language: expected letters, digits, _ - (at most 64)"),
        (
            "dial:\n  classifiers:\n    mine: '^x'\n    other: 5\n",
            "9: dial.classifiers.other: expected text, got a number; put the number in quotes",
        ),
        (
            "accounts:\n  acme:\n    users:\n      u1: {}\n      u2:\n"
            "        call_restriction:\n          premium: {}\n",
            "12: accounts.acme.users.u2.call_restriction.premium.action: missing; it has no default",
        ),
        (
            "accounts:\n  acme:\n    call_restriction:\n      mobile: {action: deny}\n"
            "      premium:\n        action: block\n",
            "11: accounts.acme.call_restriction.premium.action: expected deny, allow or inherit",
        ),
        (
            "accounts:\n  acme:\n    disa:\n      a: {pin: '1'}\n      front:\n        pin: 1234\n",
            "11: accounts.acme.disa.front.pin: expected text, got a number; put the number in quotes",
        ),
        ("accounts:\n  acme:\n    realm: 'a b'\n", "8: accounts.acme.realm: expected a host name"),
        ('accounts:\n  acme:\n    realm: "a\\n"\n', "8: accounts.acme.realm: expected a host name"),
        (
            "accounts:\n  acme:\n    token_hash: abc\n",
            "8: accounts.acme.token_hash: expected sha256: and 64 hex digits, as `esl-apps hash-token` prints it",
        ),
        (
            "inbound:\n  '27115550000':\n    integrator: acme\n    agents: [1000]\n",
            "9: inbound.27115550000.agents[0]: expected text, got a number; put the number in quotes",
        ),
        (
            "inbound:\n  '27115550000':\n    integrator: acme\n    agents: []\n",
            "9: inbound.27115550000.agents: expected a list of at least 1",
        ),
        (
            "inbound:\n  '27115550000':\n    agents: ['1000']\n",
            "7: inbound.27115550000.integrator: missing; it has no default",
        ),
    ],
)
def test_wrong_type_is_explained(more: str, told: str) -> None:
    assert refusal(more) == f"f.yml:{told}"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("payload: v1", "payload: expected v2, v3 or v4"),
        ("push: up", "push: expected left, right or stream"),
        ("dispositions: mine", "dispositions: expected esl_apps or teleforge"),
        ("agent_timeout: 0", "agent_timeout: expected a number of seconds, above 0, 3600 at most"),
        ("callee_timeout: 4000", "callee_timeout: expected a number of seconds, above 0, 3600 at most"),
        ("legacy_get: true", "legacy_get: expected a mapping of allow or false"),
        ("legacy_get: [10.0.0.1]", "legacy_get: expected a mapping of allow or false, got a list; remove the - or the"),
        ("campaigns: {spring: 5}", "campaigns.spring: expected text or a list, got a number; put the number in quotes"),
        ("campaigns: {spring: {a: b}}", "campaigns.spring: expected text or a list, got a mapping"),
        ("campaigns: {spring: [5]}", "campaigns.spring[0]: expected text, got a number; put the number in quotes"),
        ("patterns: {agents: x}", "patterns.agents: unknown key; did you mean agent?"),
        ("caller_ids: [27115550000]", "caller_ids[0]: expected text, got a number; put the number in quotes"),
        ("tls: {cert: x}", "tls.key: missing; it has no default"),
        ("tls: x", "tls: expected a mapping of cert, key, got text"),
        ("rate: {failed: 0}", "rate.failed: expected a number of requests a second, above 0"),
        (
            "tokens: [{name: a, scopes: [all], token: t}]",
            "tokens[0].scopes[0]: expected call, read, record or",
        ),
        ("tokens: [{name: a, scopes: [], token: t}]", "tokens[0].scopes: expected a list of at least 1"),
    ],
)
def test_wrong_integrator_value_is_explained(line: str, told: str) -> None:
    assert refusal_of_integrator(line).startswith(f"f.yml:10: integrators[1].{told}")


def test_wrong_campaign_has_its_own_line() -> None:
    told = refusal_of_integrator("campaigns:\n      spring: '27115550000'\n      autumn: 5")
    assert told.startswith("f.yml:12: integrators[1].campaigns.autumn: ")


@pytest.mark.parametrize("key", ["name", "listen", "token"])
def test_integrator_without_a_key_is_refused(key: str) -> None:
    given = {"name": "other", "listen": '"127.0.0.1:8301"', "token": "t"}
    lines = [f"{name}: {value}" for name, value in given.items() if name != key]
    assert f"integrators[1].{key}: missing" in refusal("  - " + "\n    ".join(lines) + "\n")


def test_number_from_the_environment_is_text() -> None:
    told = refusal("callback: {retries: '${N}'}\n", {"N": "5"})
    assert told == (
        "f.yml:6: callback.retries: expected a whole number from 0 to 1000000000, got text; "
        "what an environment variable holds is always text"
    )


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a b", "", "é", '"a\\n"', "a" * 65])
def test_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    for key, old in (("integrators[0].name", "{name: acme"), ("node.name", "{name: app1")):
        assert f"{key}: expected letters" in instead(old, f"{{name: {name or chr(39) * 2}")


# Secrets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "accounts: {a: {token:s3cret}}",
        "accounts: {a: {token s3cret}}",
        "accounts: {a: {tokn s3cret}}",
        "accounts: {a: {tokens3cret}}",
        "accounts: {a: {s3cret}}",
        "accounts: {a: {s3cret: x}}",
        "accounts: {a: {token: *s3cret}}",
        "accounts: {a: {token: @s3cret}}",
        "accounts: {a: {token: !s3cret x}}",
        "accounts: {a: {token: 's3cret}}",
        "accounts: {a: {token: s3cret, token: s3cret}}",
        "accounts: {a: {token: 'a s3cret'}}",
        "accounts: {a: {token: [s3cret]}}",
        "accounts: {a: {token_hash: s3cret}}",
        "accounts: {a: {disa: {d: {pin: s3cret}}}}",
        "accounts:\n  a:\n    token: s3cret: x",
        "accounts:\n  a:\n    token:s3cret\n    realm: x",
        'accounts:\n  a:\n    token: "s3cret\\q"',
        "accounts:\n  a:\n    token: |s3cret",
        "accounts:\n  a:\n  token: s3cret",
        "pin_key: {a: s3cret}",
        "cccp: {cid_trust: '${SECRET}'}",
        "switches: ['${SECRET}']",
        "trust: ['${SECRET}']",
        "recordings: {link_key: s3cret}",
        "redis: {url: s3cret}",
        "redis: {url: 'redis://:s3cret/x@h:6379'}",
        "redis: {url: 'redis://:s3cret#x@h:6379'}",
        "redis: {url: 'redis://[s3cret'}",
        "redis: {url: 'redis://h:6379?socket_timeout=s3cret'}",
        "redis: {url: 'redis+cluster://:s3cret'}",
        "redis: {url: 'redis+sentinel://:s3cret/x@h:1/a'}",
        "redis: {url: 'redis+sentinel://[s3cret/a'}",
    ],
)
def test_refusal_shows_no_secret(text: str) -> None:
    told = "\n".join(problems_of(text, {"SECRET": "s3cret"}))
    assert "s3cret" not in told
    assert re.match(r"f\.yml:\d+: ", told)
