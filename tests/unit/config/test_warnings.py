"""Warnings: dangers, and probable mistakes that a working configuration may have."""

from __future__ import annotations

import json

import pytest

from esl_apps.config import load, parse, warnings
from esl_apps.config.model import Config
from esl_apps.config.tokens import hash_token
from tests.support import TLS
from tests.support.configurations import LEAST, SECRETS, SHIPPED, problems_of

#: Nothing to warn about.
SOUND = """\
switches: [{name: fs1, address: "127.0.0.1:8021", password: s3cret}]
admin: {token: sixteen-letters-1}
node: {name: app1}
spending: {limits: {calls_per_day: 1000}}
integrators:
  - {name: acme, listen: "127.0.0.1:8300", token: sixteen-letters-2}
"""


def warned(text: str) -> list[str]:
    return [str(problem) for problem in warnings(parse(text, {}, "f.yml"))]


def test_sound_configuration_has_no_warning() -> None:
    assert warned(SOUND) == []


def test_shipped_file_has_only_the_warning_of_no_limit() -> None:
    secrets = {name: f"{secret}-of-sixteen" for name, secret in SECRETS.items()}
    assert [problem.key for problem in warnings(load(str(SHIPPED), secrets))] == ["spending"]


def test_configuration_that_was_not_read_has_no_warning() -> None:
    assert not warnings(Config())


def test_short_token_is_warned_about() -> None:
    message = "shorter than 16 characters, so it can be guessed; `openssl rand -hex 24` makes one"
    assert warned(SOUND.replace("sixteen-letters-1", "fifteen-letters")) == [f"f.yml:2: admin.token: {message}"]
    more = "    tokens: [{name: a, scopes: [read], token: short}]\n"
    block = SOUND.replace("{name: acme, ", "name: acme\n    ").replace(", token: six", "\n    token: six")
    assert warned(block.replace("-2}", "-2") + more) == [f"f.yml:9: integrators[0].tokens[0].token: {message}"]


def test_hash_of_a_token_is_not_short() -> None:
    assert warned(SOUND.replace("token: sixteen-letters-1", f"token_hash: '{hash_token('t')}'")) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("letters-2", "letters-1", "6: integrators[0].token: the same as that of admin"),
        (
            "token: sixteen-letters-2",
            f"token_hash: '{hash_token('sixteen-letters-1')}'",
            "6: integrators[0].token_hash: the same as that of admin",
        ),
        (
            "node: {name: app1}",
            "pin_key: k\naccounts: {a: {token: sixteen-letters-3}, b: {token: sixteen-letters-3}}",
            "4: accounts.b.token: the same as that of accounts.a",
        ),
    ],
)
def test_one_token_for_two_is_warned_about(old: str, new: str, told: str) -> None:
    assert warned(SOUND.replace(old, new)) == [f"f.yml:{told}: its holder can use both"]


@pytest.mark.parametrize("more", ["accounts: {a: {}}\n", "cccp: {cccp_cc_number: '0115550000'}\n"])
def test_cards_without_pin_key_are_warned_about(more: str) -> None:
    assert warned(SOUND + more) == [
        "f.yml:1: pin_key: missing: no card's PIN opens anything, and none can be set; every node needs the same key"
    ]
    assert warned(SOUND + more + "pin_key: k\n") == []


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.1", "app1.example"])
def test_plain_http_that_others_reach_is_warned_about(host: str) -> None:
    told = "plain HTTP: tokens and numbers can be read on the way; set tls, or put a TLS proxy in front of it"
    assert warned(SOUND.replace("127.0.0.1:8300", f"{host}:8300")) == [f"f.yml:6: integrators[0].listen: {told}"]


def test_tls_and_loopback_are_not_warned_about() -> None:
    files = json.dumps({"cert": str(TLS / "one.pem"), "key": str(TLS / "one.key")})
    assert warned(SOUND.replace("127.0.0.1:8300", "localhost:8300")) == []
    assert warned(SOUND.replace('"127.0.0.1:8300"', f'"0.0.0.0:8300", tls: {files}')) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_event_socket_without_an_address_is_warned_about(host: str) -> None:
    reached = SOUND.replace("{name: app1}", f'{{listen: "{host}:8084", advertise: "10.0.0.1:8084"}}')
    assert warned(reached) == []
    (told,) = warned(reached.replace(', advertise: "10.0.0.1:8084"', ""))
    assert told.startswith("f.yml:3: node.advertise: missing: switches are told to connect to ")


@pytest.mark.parametrize("switch", ["192.0.2.7", "[2001:db8::7]", "fs1.example"])
def test_switch_elsewhere_that_is_sent_to_itself_is_warned_about(switch: str) -> None:
    elsewhere = SOUND.replace("127.0.0.1:8021", f"{switch}:8021")
    told = f"missing: the switch at {switch}:8021 is told to connect to 127.0.0.1, which is itself"
    assert [line.partition("node.advertise: ")[2] for line in warned(elsewhere)] == [told]
    for reached in ("{listen: '10.0.0.1:8084'}", "{advertise: '10.0.0.1:8084'}", "{advertise: '127.0.0.1:8084'}"):
        assert warned(elsewhere.replace("{name: app1}", reached)) == []


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_event_socket_for_everyone_is_warned_about(network: str) -> None:
    (told,) = warned(SOUND.replace("{name: app1}", f'{{allow: [10.0.0.0/8, "{network}"]}}'))
    assert told.startswith("f.yml:3: node.allow[1]: every address: anyone can pose as a switch")
    assert warned(SOUND.replace("{name: app1}", f'{{allow: ["{network}"], secret: sixteen--letters}}')) == []
    assert warned(SOUND.replace("{name: app1}", "{allow: [10.0.0.0/8]}")) == []


def test_event_socket_on_one_network_is_not_warned_about() -> None:
    assert warned(SOUND.replace("{name: app1}", '{listen: "10.0.0.1:8084"}')) == []
    assert warned(SOUND.replace("{name: app1}", '{listen: "app1.example:8084"}')) == []


@pytest.mark.parametrize(
    "limit",
    [
        "spending: {breaker: {high_risk_calls_per_hour: 5}}",
        "pin_key: k\naccounts: {a: {card_limits: {calls_per_day: 5}}}",
        "pin_key: k\naccounts: {a: {breaker: {destinations: {'country:CU': {calls_per_day: 5}}}}}",
    ],
)
def test_any_limit_or_breaker_is_enough(limit: str) -> None:
    old = "spending: {limits: {calls_per_day: 1000}}"
    assert warned(SOUND.replace(old, limit)) == []


@pytest.mark.parametrize("spending", ["{}", "{breaker: {end_calls: true}}", "{limits: {destinations: {}}}"])
def test_no_limit_is_warned_about(spending: str) -> None:
    told = warned(SOUND.replace("{limits: {calls_per_day: 1000}}", spending))
    assert told == ["f.yml:4: spending: no limit and no breaker: nothing stops a fraud before the bill comes"]


@pytest.mark.parametrize(
    ("pattern", "region", "text"),
    [
        (r"\d+", "ZA", "0862345678"),
        (r"\d{3,11}", "ZA", "0862345678"),
        (r"0711\d{6}", "ZA", "0711234567"),
        (r"\+\d+", "ZA", "+27862345678"),
        (r"\d{3,10}", "US", "9002345678"),
        (r"\d{3,6}", "ZA", ""),
        (r"[1-8]\d{2,4}", "US", ""),
    ],
)
def test_extensions_that_take_telephone_numbers_are_warned_about(pattern: str, region: str, text: str) -> None:
    told = f"f.yml:7: dial.extensions: takes telephone numbers, as {text}: no rule or limit of a destination holds"
    assert warned(SOUND + f"dial: {{region: {region}, extensions: '{pattern}'}}\n") == ([told] if text else [])


def test_inbound_agent_outside_is_warned_about() -> None:
    """``confirm`` asks agents of click-to-dial only."""
    inbound = 'inbound: {"27115550000": {integrator: acme, agents: ["1000", "0820001234"]}}\n'
    message = "a number outside: if its mailbox answers, it gets the caller; switch it off"
    assert warned(SOUND + inbound) == [f"f.yml:7: inbound.27115550000.agents[1]: {message}"]
    assert warned(SOUND + inbound.replace("0820001234", "1001")) == []


def test_trust_in_everyone_is_warned_about() -> None:
    assert warned(SOUND + "trust: [10.0.0.0/8, '::/0']\n") == [
        "f.yml:7: trust[1]: every address: anyone can claim to be any caller"
    ]
    open_get = SOUND.replace("letters-2}", "letters-2, legacy_get: {allow: [0.0.0.0/0]}}")
    assert warned(open_get) == [
        "f.yml:6: integrators[0].legacy_get.allow[0]: every address: anyone can place calls, with no token"
    ]


@pytest.mark.parametrize(("url", "count"), [("redis://h/x", 1), ("redis://h/1", 0), ("redis://h", 0), ("unix:///x", 0)])
def test_redis_database_with_a_name_is_warned_about(url: str, count: int) -> None:
    told = "f.yml:7: redis.url: the database behind the last / is not a number; 0 is used"
    assert warned(SOUND + f"redis: {{url: '{url}'}}\n") == [told] * count


def test_warnings_cannot_be_set_by_a_file() -> None:
    for value in ("[]", "[{message: x}]"):
        (told,) = problems_of(LEAST + f"notes: {value}\n")
        assert told.startswith("f.yml:6: notes: unknown key")
