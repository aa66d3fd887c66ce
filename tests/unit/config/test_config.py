"""The configuration: what is accepted, and where and how a wrong one is refused (contract §2)."""

from __future__ import annotations

import ipaddress
import json
import re
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_apps import config
from esl_apps.config import load, model, parse, reader
from esl_apps.config.fields import ConfigError
from esl_apps.config.high_risk import HIGH_RISK_RANGES, read_ranges
from esl_apps.config.model import Config
from esl_apps.net.address import within
from tests.rig.base import eventually
from tests.rig.sandbox import SandboxRig
from tests.support import ROOT
from tests.support.node import ADMIN_TOKEN, TOKEN, Node, RedisServer, configuration, request

SHIPPED = ROOT / "conf" / "esl_apps.yml"
SECRETS = {
    name: f"{name.lower()}-secret"
    for name in ("PIN_KEY", "FS_PASSWORD", "ADMIN_TOKEN", "ACME_TOKEN", "ACME_ADMIN_TOKEN")
}

#: The least that starts; each test adds its section behind it, from line 6 on.
LEAST = """\
switches: [{name: fs1, address: "127.0.0.1:8021", password: s3cret}]
admin: {token: t0ken}
node: {name: app1}
integrators:
  - {name: acme, listen: "127.0.0.1:8300", token: t0ken}
"""


def read(more: str = "", environ: Mapping[str, str] | None = None) -> Config:
    return parse(LEAST + more, environ or {}, "f.yml")


def refusal(more: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(more, environ)
    return str(caught.value)


def refusal_of_integrator(line: str) -> str:
    """A second integrator, with this line; it stands in line 10."""
    return refusal(f'  - name: other\n    listen: "127.0.0.1:8301"\n    token: t\n\n    {line}\n')


def instead(old: str, new: str) -> str:
    """The refusal of the least configuration with one thing in it changed."""
    assert old in LEAST
    with pytest.raises(ConfigError) as caught:
        parse(LEAST.replace(old, new), {}, "f.yml")
    return str(caught.value)


# What is accepted ----------------------------------------------------------------------------------------


def test_the_shipped_file_is_read_and_its_values_are_the_contracts() -> None:
    made = load(str(SHIPPED), SECRETS)
    assert (made.node.listen, made.node.max_calls, made.node.drain_timeout) == ("127.0.0.1:8084", 5000, 30)
    assert made.redis.url == "redis://127.0.0.1:6379/0"
    assert made.switches[0].password == "fs_password-secret"
    assert (made.dial.region, made.dial.extensions, made.dial.emergency) == ("ZA", r"^\d{3,4}$", None)
    assert made.dial.external == ["sofia/gateway/pstn/{number}"]
    acme = made.integrators[0]
    assert (acme.listen, acme.payload, acme.push, acme.agent_timeout, acme.callee_timeout) == (
        "127.0.0.1:8300",
        "v3",
        "left",
        30,
        60,
    )
    assert (acme.legacy_get, acme.legacy_c2d, acme.dispositions) == (False, False, "esl_apps")
    assert (made.cccp.callback_delay, made.cccp.prompt_delay, made.cccp.cid_trust) == (3, 1, "national")
    assert (made.callback.retries, made.callback.retry_after, made.callback.per_day) == (2, 60, 10)
    assert (made.callflow_disa.default_pin_length, made.callflow_disa.default_use_account_caller_id) == (10, True)
    disa = made.accounts["acme"].disa["front"]
    assert (disa.retries, disa.interdigit, disa.max_digits, disa.enforce_call_restriction) == (3, 3000, 15, True)
    assert made.inbound["27115550000"].agents == ["1000", "1001"]


def test_the_shipped_file_has_every_key() -> None:
    shipped = yaml.safe_load(SHIPPED.read_text())
    acme = shipped["accounts"]["acme"]
    sections: list[tuple[Any, Any]] = [
        (model.Config, shipped),
        (model.Node, shipped["node"]),
        (model.Redis, shipped["redis"]),
        (model.SwitchConfig, shipped["switches"][0]),
        (model.Dial, shipped["dial"]),
        (model.Admin, shipped["admin"]),
        (model.Rate, shipped["admin"]["rate"]),
        (model.Recordings, shipped["recordings"]),
        (model.Integrator, shipped["integrators"][0]),
        (model.Cccp, shipped["cccp"]),
        (model.PinGuard, shipped["pin_guard"]),
        (model.Callback, shipped["callback"]),
        (model.DisaDefaults, shipped["callflow.disa"]),
        (model.Account, acme),
        (model.Disa, acme["disa"]["front"]),
        (model.Inbound, shipped["inbound"]["27115550000"]),
        (model.Spending, shipped["spending"]),
        (model.Limits, shipped["spending"]["limits"]),
        (model.Breaker, shipped["spending"]["breaker"]),
    ]
    missing = {
        f"{kind.__name__}.{one.encode_name}"
        for kind, found in sections
        for one in msgspec.structs.fields(kind)
        if one.encode_name not in found
    }
    assert missing == set()


def test_the_contracts_example_is_read() -> None:
    text = """
node:      {name: app1, listen: 127.0.0.1:8084, advertise: 127.0.0.1:8084, max_calls: 5000, drain_timeout: 30}
redis:     {url: redis://127.0.0.1:6379/0, stale_cards: 0}
pin_key:   "${PIN_KEY}"
switches:  [{name: fs1, address: 127.0.0.1:8021, password: "${FS_PASSWORD}"}]
dial:      {region: ZA, extensions: '^\\d{3,4}$', extension: "user/{number}@127.0.0.1",
            external: ["sofia/gateway/pstn/{number}"], caller_id_format: as_given, emergency: null, classifiers: {}}
trust:     []
admin:     {listen: 127.0.0.1:8000, token: "${ADMIN_TOKEN}"}
recordings: {dir: /var/lib/esl_apps/recordings}
prompts:   {dir: null, language: en}
spool:     {dir: /var/log/freeswitch/json_cdr}
integrators:
  - {name: acme, listen: 127.0.0.1:8300, token: "${ACME_TOKEN}", redis: {url: redis://127.0.0.1:6379/1}, payload: v3,
     record: true, caller_ids: ["27115550000"], campaigns: {spring: "27115550001"}, agent_timeout: 30,
     callee_timeout: 60, patterns: {}, call_restriction: {}, dispositions: esl_apps, push: left, legacy_get: false,
     legacy_c2d: false}
cccp:
  {cccp_cb_number: "5142223333", cccp_cc_number: "5141115555", last_number_redial_code: "*0",
   ensure_valid_caller_id: true, default_caller_id_number: "+15140000000", allowed_callee_regex: '^\\+?\\d{11,}$',
   callback_delay: 3, prompt_delay: 1, cid_trust: national}
callback:  {retries: 2, retry_after: 60, cool_down: 60, per_day: 10, answer_after: 0, confirm: false}
callflow.disa: {default_use_account_caller_id: true, default_pin_length: 10}
accounts:
  acme:
    token: "${ACME_ADMIN_TOKEN}"
    caller_id: {number: "+27115550000", name: Acme}
    integrator: acme
    caller_ids: ["+27115550000"]
    call_restriction: {premium: {action: deny}, international: {action: deny}}
    users: {u1: {call_restriction: {}}}
    disa: {front: {pin: "4821907356", retries: 3, interdigit: 3000, max_digits: 15, preconnect_audio: dialtone,
                   ring_repeat_count: 1, use_account_caller_id: true, enforce_call_restriction: true}}
inbound:   {"27115550000": {integrator: acme, agents: ["1000", "1001"], ring_timeout: 20}}
"""
    assert parse(text, SECRETS).accounts["acme"].disa["front"].pin == "4821907356"


def test_json_is_yaml() -> None:
    text = json.dumps(yaml.safe_load(SHIPPED.read_text()), indent=1)
    assert parse(text, SECRETS) == load(str(SHIPPED), SECRETS)


def test_jsons_escapes_of_one_character_are_one_character() -> None:
    assert read(f"pin_key: {json.dumps('a😀')}\n").pin_key == "a😀"
    assert refusal('pin_key: "\\ud83d"\n') == "f.yml:6: pin_key: half a character"


@pytest.mark.parametrize("section", ["cccp", "callflow.disa"])
def test_a_kazoo_document_stands_where_its_default_would(section: str) -> None:
    document = {
        "cccp": {
            "_id": "cccp",
            "default": {
                "cccp_cb_number": "5142223333",
                "cccp_cc_number": "5141115555",
                "last_number_redial_code": "*0",
                "ensure_valid_caller_id": True,
                "default_caller_id_number": "+15140000000",
                "allowed_callee_regex": "^\\+?\\d{11,}$",
                "callback_delay": 5,
            },
            "pvt_account_id": "system_config",
            "pvt_account_db": "system_config",
            "pvt_created": 63562529472,
            "pvt_modified": 63644318172,
            "pvt_type": "config",
            "pvt_node": "whistle_apps@kz.domain.tld",
        },
        "callflow.disa": {
            "_id": "callflow.disa",
            "default": {"default_use_account_caller_id": False, "default_pin_length": 6},
            "pvt_account_id": "system_config",
        },
    }[section]
    made = read(f"{section}: {json.dumps(document)}\n")
    if section == "cccp":
        assert (made.cccp.callback_delay, made.cccp.allowed_callee_regex) == (5, r"^\+?\d{11,}$")
    else:
        assert (made.callflow_disa.default_pin_length, made.callflow_disa.default_use_account_caller_id) == (
            6,
            False,
        )


def test_a_fault_in_a_kazoo_document_has_its_line() -> None:
    told = refusal("cccp:\n  _id: cccp\n  default:\n    callback_delay: 3\n    cid_trsut: any\n")
    assert told.startswith("f.yml:10: cccp.cid_trsut: unknown key; did you mean cid_trust?")


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://:pw@h:6380/2", "unix:///run/redis.sock", "redis+cluster://h:7000"]
)
def test_redis_urls(url: str) -> None:
    assert read(f"redis: {{url: '{url}'}}\n").redis.url == url


# The environment -----------------------------------------------------------------------------------------


def test_values_are_read_from_the_environment() -> None:
    made = read(
        'pin_key: "${A}"\nredis: {url: "redis://:${B}@${HOST_1}:6379/0"}\n', {"A": "k", "B": "p", "HOST_1": "h"}
    )
    assert (made.pin_key, made.redis.url) == ("k", "redis://:p@h:6379/0")


@pytest.mark.parametrize(
    "value", ["a: b", "x\ninjected: 1", "${OTHER}", "{", "'\"", "# no comment", "5", "true", "null"]
)
@pytest.mark.parametrize("quoted", ["'${A}'", '"${A}"', "${A}"])
def test_what_stands_in_the_environment_is_text_and_no_yaml(value: str, quoted: str) -> None:
    assert read(f"pin_key: {quoted}\n", {"A": value, "OTHER": "x"}).pin_key == value


@pytest.mark.parametrize("environ", [{}, {"PIN_KEY": ""}])
def test_a_secret_that_the_environment_does_not_have(environ: dict[str, str]) -> None:
    assert refusal('pin_key:\n  "${PIN_KEY}"\n', environ) == "f.yml:7: pin_key: the environment has no PIN_KEY"


def test_a_dollar_that_names_nothing_stays() -> None:
    assert read("pin_key: 'a$b${}${1}$(c)'\n").pin_key == "a$b${}${1}$(c)"


def test_a_comment_needs_nothing_from_the_environment() -> None:
    assert read("# ${NOT_THERE}\n").pin_key is None


# Unknown, wrong, missing: file, line, key, what was expected ------------------------------------------------


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("colour: red\n", "f.yml:6: colour: unknown key; expected one of accounts, admin"),
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
            "inbound:\n  '27115550000': {integrator: acme, agents: ['1000']}\n  '27115550001':\n"
            "    integrator: acme\n    agent: ['1000']\n",
            "f.yml:10: inbound.27115550001.agent: unknown key; did you mean agents?",
        ),
        (
            "callflow.disa:\n  default_pin_lenght: 4\n",
            "f.yml:7: callflow.disa.default_pin_lenght: unknown key; did you mean",
        ),
        ("<<: {trust: []}\n", "f.yml:6: <<: unknown key"),
    ],
)
def test_an_unknown_key(more: str, told: str) -> None:
    assert refusal(more).startswith(told)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("callback:\n  retries: often\n", r"f\.yml:7: callback\.retries: expected `int`, got `str`"),
        ("callback:\n  retries: -1\n", r"f\.yml:7: callback\.retries: expected `int` >= 0"),
        ("callback:\n  confirm: 1\n", r"f\.yml:7: callback\.confirm: expected `bool`, got `int`"),
        ("callback:\n  confirm: 'yes'\n", r"f\.yml:7: callback\.confirm: expected `bool`, got `str`"),
        ("callback: 5\n", r"f\.yml:6: callback: expected `object`, got `int`"),
        ("trust: 10.0.0.0/8\n", r"f\.yml:6: trust: expected `array`, got `str`"),
        ("pin_key: 5\n", r"f\.yml:6: pin_key: expected `str \| null`, got `int`; put the number in quotes"),
        ("cccp:\n  cccp_cb_number: 5142223333\n", r"f\.yml:7: cccp\.cccp_cb_number: .*put the number in quotes"),
        (
            "cccp:\n  cid_trust: everybody\n",
            r"f\.yml:7: cccp\.cid_trust: invalid enum value 'everybody'; expected one of",
        ),
        ("cccp:\n  attest_level: D\n", r"f\.yml:7: cccp\.attest_level: invalid enum value 'D'; expected one of"),
        (
            "cccp:\n  attest_header: 'X-A: b'\n",
            r"f\.yml:7: cccp\.attest_header: expected From, or the name of a header that begins with P- or X-",
        ),
        (
            "cccp:\n  attest_header: Date\n",
            r"f\.yml:7: cccp\.attest_header: expected From, or the name of a header that begins with P- or X-",
        ),
        ("cccp:\n  pin_from: home\n", r"f\.yml:7: cccp\.pin_from: invalid enum value 'home'; expected one of"),
        ("pin_guard:\n  per_number: 0\n", r"f\.yml:7: pin_guard\.per_number: expected `int` >= 1"),
        ("pin_guard:\n  overall: null\n", r"f\.yml:7: pin_guard\.overall: expected `int`, got `null`"),
        ("pin_guard:\n  window: .nan\n", r"f\.yml:7: pin_guard\.window: expected `float` >= 1"),
        ("pin_guard:\n  lock: .inf\n", r"f\.yml:7: pin_guard\.lock: expected `float` <= 2592000"),
        (
            "pin_guard:\n  lock: 7200\n",
            r"f\.yml:6: pin_guard\.longest_service_lock: is shorter than lock, which is the first",
        ),
        ("prompts:\n  language: ../x\n", r"f\.yml:7: prompts\.language: .*matching regex"),
        (
            "dial:\n  classifiers:\n    mine: '^x'\n    other: 5\n",
            r"f\.yml:9: dial\.classifiers\.other: expected `str`, got `int`",
        ),
        (
            "accounts:\n  acme:\n    users:\n      u1: {}\n      u2:\n"
            "        call_restriction:\n          premium: {}\n",
            r"f\.yml:12: accounts\.acme\.users\.u2\.call_restriction\.premium\.action: missing",
        ),
        (
            "accounts:\n  acme:\n    call_restriction:\n      mobile: {action: deny}\n"
            "      premium:\n        action: block\n",
            r"f\.yml:11: accounts\.acme\.call_restriction\.premium\.action: .*'block'; expected one of allow, deny",
        ),
        (
            "accounts:\n  acme:\n    disa:\n      a: {pin: '1'}\n      front:\n        pin: 1234\n",
            r"f\.yml:11: accounts\.acme\.disa\.front\.pin: .*put the number in quotes",
        ),
        (
            "inbound:\n  '27115550000':\n    integrator: acme\n    agents: [1000]\n",
            r"f\.yml:9: inbound\.27115550000\.agents\[0\]: .*put the number in quotes",
        ),
        (
            "inbound:\n  '27115550000':\n    integrator: acme\n    agents: []\n",
            r"f\.yml:9: inbound\.27115550000\.agents: .*length",
        ),
        ("inbound:\n  '27115550000':\n    agents: ['1000']\n", r"f\.yml:7: inbound\.27115550000\.integrator: missing"),
    ],
)
def test_a_wrong_type_or_a_missing_key(more: str, told: str) -> None:
    assert re.match(told, refusal(more)), refusal(more)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("payload", "v1", "invalid enum value 'v1'; expected one of"),
        ("push", "up", "invalid enum value 'up'; expected one of"),
        ("dispositions", "mine", "invalid enum value 'mine'; expected one of"),
        ("agent_timeout", "0", "expected `float` > 0"),
        ("callee_timeout", "4000", "expected `float` <= 3600"),
        ("legacy_get", "true", "invalid enum value True; expected one of a mapping of allow, false"),
        ("campaigns", "{spring: 5}", "expected `str | array`, got `int`; put the number in quotes"),
        ("patterns", "{agents: x}", "unknown key; did you mean agent?"),
        ("caller_ids", "[27115550000]", "put the number in quotes"),
    ],
)
def test_an_integrators_wrong_value_has_its_place(key: str, value: str, told: str) -> None:
    message = refusal_of_integrator(f"{key}: {value}")
    assert re.match(rf"f\.yml:10: integrators\[1\]\.{key}", message), message
    assert told in message


def test_a_campaign_is_named_where_its_value_is_wrong() -> None:
    told = refusal_of_integrator("campaigns:\n      spring: '27115550000'\n      autumn: 5")
    assert told.startswith("f.yml:12: integrators[1].campaigns.autumn: ")


@pytest.mark.parametrize("key", ["name", "listen", "token"])
def test_what_an_integrator_must_have(key: str) -> None:
    given = {"name": "other", "listen": '"127.0.0.1:8301"', "token": "t"}
    lines = [f"{name}: {value}" for name, value in given.items() if name != key]
    assert f"integrators[1].{key}: missing" in refusal("  - " + "\n    ".join(lines) + "\n")


def test_no_switch_is_an_error() -> None:
    assert "switches: expected at least one" in instead(
        '[{name: fs1, address: "127.0.0.1:8021", password: s3cret}]', "[]"
    )


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("admin: {token: t0ken}", "admin: {}", "admin.token"),
        ("admin: {token: t0ken}", "admin: {token: ''}", "admin.token"),
        ("admin: {token: t0ken}", "admin: {token: null}", "admin.token"),
        (", token: t0ken}", ", token: ''}", "integrators[0].token"),
        ("password: s3cret", "password: ''", "switches[0].password"),
    ],
)
def test_a_missing_secret(old: str, new: str, key: str) -> None:
    assert f": {key}: missing" in instead(old, new)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "not YAML"),
        ("- 1\n", "expected a mapping"),
        ("just text", "expected a mapping"),
        ("a: 1\na: 2\n", "twice"),
        ("? [a]\n: 1\n", "expected a plain key"),
        ("a: &x\n  b: *x\n", "nested too deep"),
        ("admin: {token: !!python/name:os.system }\n", "not a YAML value"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("\x00", "not YAML"),
        ("a:\n\t- b", "not YAML"),
    ],
)
def test_what_is_no_configuration_at_all(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        parse(text, {}, "f.yml")
    assert re.match(r"f\.yml:\d+: ", str(caught.value))


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_lacks_what_it_must_have(text: str) -> None:
    with pytest.raises(ConfigError, match="switches"):
        parse(text, {}, "f.yml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml"):
        load(str(tmp_path / "none.yml"))


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "f.yml"
    file.write_bytes(b"node: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"f\.yml"):
        load(str(file))


# The rules between keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("dial:\n  region: XX\n", "f.yml:7: dial.region: expected an ISO 3166 country code"),
        ("dial:\n  region: za\n", "f.yml:7: dial.region: "),
        ("dial:\n  extensions: '('\n", "f.yml:7: dial.extensions: not a regular expression"),
        ("dial:\n  external: []\n", "f.yml:7: dial.external: expected at least one"),
        ("dial:\n  external: ['sofia/gateway/pstn/1']\n", "f.yml:7: dial.external[0]: expected a placeholder"),
        (
            "dial:\n  external: ['sofia/gateway/pstn/{nummer}']\n",
            "f.yml:7: dial.external[0]: unknown placeholder {nummer}",
        ),
        ("dial:\n  extension: 'user/{number},user/1'\n", "f.yml:7: dial.extension: expected one endpoint"),
        ("dial:\n  extension: '{a=b}user/{number}'\n", "f.yml:7: dial.extension: "),
        ("dial:\n  extension: 'user/{number}|user/1'\n", "f.yml:7: dial.extension: expected one endpoint"),
        ("dial:\n  extension: 'user/{number}@${domain}'\n", "f.yml:7: dial.extension: "),
        ("dial:\n  emergency: 'sofia/gateway/sos/112'\n", "f.yml:7: dial.emergency: expected a placeholder"),
        ("dial:\n  ringback: '{x=1}tone'\n", "f.yml:7: dial.ringback: expected a tone"),
        ("dial:\n  classifiers: {mine: '['}\n", "f.yml:7: dial.classifiers.mine: not a regular expression"),
        ("trust: [10.0.0.0/8, 10.0.0.0/33]\n", "f.yml:6: trust[1]: expected an address or a CIDR network"),
        ("trust: [10.0.0.1/8]\n", "f.yml:6: trust[0]: expected an address or a CIDR network"),
        ("cccp:\n  allowed_callee_regex: '('\n", "f.yml:7: cccp.allowed_callee_regex: not a regular expression"),
        (
            "cccp:\n  cccp_cc_number: '5141115555'\n  cccp_cb_number: '5141115555'\n",
            "f.yml:8: cccp.cccp_cb_number: is cccp_cc_number",
        ),
        (
            "cccp:\n  cccp_cc_number: '+27820001234'\n  cccp_cb_number: '0820001234'\n",
            "f.yml:8: cccp.cccp_cb_number: is cccp_cc_number",
        ),
        ("cccp:\n  cccp_cb_number: '1'\n  cccp_cc_number: '1'\n", "f.yml:7: cccp.cccp_cb_number: "),
        ("cccp:\n  cccp_cc_number: none\n", "f.yml:7: cccp.cccp_cc_number: not a telephone number"),
        (
            "cccp:\n  default_caller_id_number: '1\n\n  api x'\n",
            "f.yml:7: cccp.default_caller_id_number: not a telephone number",
        ),
        ("accounts: {a: {integrator: none}}\n", "f.yml:6: accounts.a.integrator: no such integrator"),
        ("accounts: {a: {caller_id: {number: x}}}\n", "f.yml:6: accounts.a.caller_id.number: not a telephone number"),
        ("accounts: {a: {caller_ids: [x]}}\n", "f.yml:6: accounts.a.caller_ids[0]: not a telephone number"),
        ("accounts: {'a/b': {}}\n", "f.yml:6: accounts.a/b: expected letters, digits"),
        (
            "accounts: {a: {call_restriction: {premuim: {action: deny}}}}\n",
            "f.yml:6: accounts.a.call_restriction.premuim: unknown class",
        ),
        (
            "accounts: {a: {users: {u: {call_restriction: {x: {action: deny}}}}}}\n",
            "f.yml:6: accounts.a.users.u.call_restriction.x: unknown class",
        ),
        ("spending: {limits: {calls_per_hour: -1}}\n", "f.yml:6: spending.limits.calls_per_hour"),
        ("spending: {limits: {calls_per_day: 1.5}}\n", "f.yml:6: spending.limits.calls_per_day"),
        ("spending: {breaker: {minutes_per_hour: lots}}\n", "f.yml:6: spending.breaker.minutes_per_hour"),
        ("spending: {limits: {high_risk_calls_per_hour: 1}}\n", "f.yml:6: spending.limits.high_risk_calls_per_hour"),
        ("spending: {breaker: {longest_call: 1}}\n", "f.yml:6: spending.breaker.longest_call: unknown key"),
        (
            "spending: {limits: {destinations: {Cuba: {calls_per_day: 1}}}}\n",
            "f.yml:6: spending.limits.destinations.Cuba: expected country:XX",
        ),
        (
            "spending: {limits: {destinations: {'country:XX': {}}}}\n",
            "f.yml:6: spending.limits.destinations.country:XX: unknown country",
        ),
        (
            "spending: {breaker: {destinations: {'class:mobil': {}}}}\n",
            "f.yml:6: spending.breaker.destinations.class:mobil: unknown class",
        ),
        (
            "accounts: {a: {card_limits: {destinations: {'prefix:53': {}}}}}\n",
            "f.yml:6: accounts.a.card_limits.destinations.prefix:53: expected country:XX",
        ),
        (
            "accounts: {a: {limits: {destinations: {'country:CU': {destinations: {}}}}}}\n",
            "f.yml:6: accounts.a.limits.destinations.country:CU.destinations: unknown key",
        ),
        ("spending: {high_risk: /nowhere.yml}\n", "f.yml:6: spending.high_risk: /nowhere.yml: No such file"),
        ("accounts: {a: {disa: {d: {}}}}\n", "f.yml:6: accounts.a.disa.d: no pin"),
        ("accounts: {a: {disa: {d: {pin: ''}}}}\n", "f.yml:6: accounts.a.disa.d: no pin"),
        ("accounts: {a: {disa: {d: {pin: 12ab}}}}\n", "f.yml:6: accounts.a.disa.d.pin: expected digits"),
        ("accounts: {a: {disa: {d: {pin: '١٢٣٤'}}}}\n", "f.yml:6: accounts.a.disa.d.pin: expected digits"),
        (
            "accounts: {a: {disa: {d: {pin: '12', pin_hash: x}}}}\n",
            "f.yml:6: accounts.a.disa.d.pin_hash: expected pin or pin_hash",
        ),
        ("accounts: {a: {disa: {d: {pin_hash: x}}}}\n", "f.yml:6: accounts.a.disa.d.pin_hash: needs pin_key"),
        ("accounts: {a: {disa: {'d e': {pin: '12'}}}}\n", "f.yml:6: accounts.a.disa.d e: expected letters, digits"),
        ("inbound: {'x': {integrator: acme, agents: ['1000']}}\n", "f.yml:6: inbound.x: not a telephone number"),
        (
            "inbound: {'27115550000': {integrator: none, agents: ['1000']}}\n",
            "f.yml:6: inbound.27115550000.integrator: no such integrator",
        ),
        (
            "inbound: {'27115550000': {integrator: acme, agents: ['x']}}\n",
            "f.yml:6: inbound.27115550000.agents[0]: not a telephone number",
        ),
        (
            "inbound: {'27115550000': {integrator: acme, agents: ['0900123456']}}\n",
            "f.yml:6: inbound.27115550000.agents[0]: numbers of class premium",
        ),
        ("inbound: {'27115550000': {integrator: acme, agents: ['112']}}\n", "f.yml:6: inbound.27115550000.agents[0]: "),
        (
            "inbound: {'27115550000': {integrator: acme, agents: ['1000']},\n"
            "  '0115550000': {integrator: acme, agents: ['1001']}}\n",
            "f.yml:7: inbound.0115550000: is 27115550000",
        ),
        ("redis: {url: 'http://h'}\n", "f.yml:6: redis.url: expected redis://"),
        ("redis: {url: 'redis://h:port'}\n", "f.yml:6: redis.url: "),
        ("redis: {url: 'redis+sentinel://h:26379'}\n", "f.yml:6: redis.url: expected redis+sentinel://HOST:PORT"),
        ("redis: {url: 'redis+sentinel://h:26379/main/x'}\n", "f.yml:6: redis.url: "),
        ("redis: {url: 'redis+cluster://'}\n", "f.yml:6: redis.url: "),
        ("recordings: {dir: '/var/lib/my recordings'}\n", "f.yml:6: recordings.dir: expected an absolute path"),
        ("recordings: {dir: recordings}\n", "f.yml:6: recordings.dir: expected an absolute path"),
        ("recordings: {dir: '/x}[y]'}\n", "f.yml:6: recordings.dir: expected an absolute path"),
    ],
)
def test_a_rule_that_does_not_hold(more: str, told: str) -> None:
    assert refusal(more).startswith(told), refusal(more)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("caller_ids: ['27115550000', 'x']", "integrators[1].caller_ids[1]: not a telephone number"),
        ("campaigns: {spring: x}", "integrators[1].campaigns.spring: not a telephone number"),
        ("campaigns: {spring: []}", "integrators[1].campaigns.spring: expected at least one number"),
        ("campaigns: {spring: ['27115550000', 'x']}", "integrators[1].campaigns.spring"),
        ("campaigns: {'a b': '27115550000'}", "integrators[1].campaigns.a b: expected letters, digits"),
        ("patterns: {agent: '('}", "integrators[1].patterns.agent: not a regular expression"),
        (
            "legacy_get: {allow: [localhost]}",
            "integrators[1].legacy_get.allow[0]: expected an address or a CIDR network",
        ),
        ("call_restriction: {mobil: {action: deny}}", "integrators[1].call_restriction.mobil: unknown class"),
        ("redis: {url: 'mysql://h'}", "integrators[1].redis.url: expected redis://"),
        ("limits: {destinations: {x: {}}}", "integrators[1].limits.destinations.x: expected country:XX"),
        ("breaker: {destinations: {'prefix:+': {}}}", "integrators[1].breaker.destinations.prefix:+: expected country"),
    ],
)
def test_an_integrators_rule_that_does_not_hold(line: str, told: str) -> None:
    assert refusal_of_integrator(line).startswith(f"f.yml:10: {told}")


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a b", "", "é", '"a\\n"', "a" * 65])
def test_a_name_is_a_name_and_no_way_through_the_file_system(name: str) -> None:
    assert "integrators[0].name" in instead("{name: acme", f"{{name: {name or chr(39) * 2}")
    assert "node.name" in instead("{name: app1", f"{{name: {name or chr(39) * 2}")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", ":8300", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1"]
)
@pytest.mark.parametrize("key", ["node", "admin", "switches", "integrators"])
def test_an_address_is_host_and_port(key: str, address: str) -> None:
    changed = {
        "node": ("{name: app1}", f'{{listen: "{address}"}}'),
        "admin": ("{token: t0ken}", f'{{token: t, listen: "{address}"}}'),
        "switches": ('"127.0.0.1:8021"', f'"{address}"'),
        "integrators": ('"127.0.0.1:8300"', f'"{address}"'),
    }[key]
    assert "expected host:port" in instead(*changed)


def test_two_things_cannot_listen_at_one_address() -> None:
    assert "node.listen's already" in instead("{token: t0ken}", '{token: t, listen: "127.0.0.1:8084"}')
    assert "integrators[0].listen's already" in refusal('  - {name: b, listen: "127.0.0.1:8300", token: t}\n')


def test_names_are_given_once() -> None:
    assert refusal('  - {name: acme, listen: "127.0.0.1:8301", token: t}\n').startswith("f.yml:6: integrators[1].name:")
    twice = '[{name: a, address: "h:1", password: s}, {name: a, address: "h:2", password: s}]'
    assert "switches[1].name" in instead('[{name: fs1, address: "127.0.0.1:8021", password: s3cret}]', twice)


def test_one_switch_stands_once() -> None:
    twice = '[{name: a, address: "h:1", password: s}, {name: b, address: "h:1", password: s}]'
    assert "switches[1].address" in instead('[{name: fs1, address: "127.0.0.1:8021", password: s3cret}]', twice)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.0.1"])
def test_the_default_password_is_for_loopback(host: str) -> None:
    text = LEAST.replace('"127.0.0.1:8021", password: s3cret', f'"{host}:8021", password: ClueCon')
    assert parse(text, {}).switches[0].password == "ClueCon"


@pytest.mark.parametrize("host", ["10.0.0.1", "fs.example.org", "[2001:db8::1]", "0.0.0.0"])
def test_the_default_password_on_an_address_that_others_reach(host: str) -> None:
    old = '"127.0.0.1:8021", password: s3cret'
    assert "switches[0].password: is FreeSWITCH's default" in instead(old, f'"{host}:8021", password: ClueCon')
    allowed = LEAST.replace(old, f'"{host}:8021", password: ClueCon, allow_default_password: true')
    assert parse(allowed, {}).switches[0].allow_default_password


def test_a_disa_without_a_pin_when_it_is_meant() -> None:
    assert read("accounts: {a: {disa: {d: {allow_no_pin: true}}}}\n").accounts["a"].disa["d"].pin is None


def test_a_pins_hash_in_place_of_the_pin() -> None:
    assert read("pin_key: k\naccounts: {a: {disa: {d: {pin_hash: abc}}}}\n").accounts["a"].disa["d"].pin_hash == "abc"


def test_an_own_class_may_be_restricted() -> None:
    text = "dial: {classifiers: {gulf: '^\\+971'}}\naccounts: {a: {call_restriction: {gulf: {action: deny}}}}\n"
    assert read(text).accounts["a"].call_restriction["gulf"].action == "deny"


def test_no_refusal_shows_a_secret() -> None:
    told = refusal('pin_key: "${PIN_KEY}"\ncallback: {retries: x}\n', {"PIN_KEY": "very-secret"})
    assert "very-secret" not in told


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::5", True),
        ("11.1.2.3", False),
        ("::1", False),
        ("", False),
        ("10.1.2.3.4", False),
        ("10.1.2.3\n", False),
        ("localhost", False),
    ],
)
def test_addresses_of_networks(address: str, inside: bool) -> None:
    networks = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "2001:db8::/32")]
    assert within(address, networks) is inside


# Whatever else -------------------------------------------------------------------------------------------

_SHIPPED = yaml.safe_load(SHIPPED.read_text())


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield from _places(value[key], (*path, key))


_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", ".", "..", "a.b", "${X}", "[0]", "112", "+27112", "0900123456", "127.0.0.1:1", "(", "\n"]),
    st.dictionaries(
        st.sampled_from(["action", "pin", "a.b", "[...]", "url", "default", "_id"]), st.text(max_size=5), max_size=2
    ),
    st.lists(st.text(max_size=5), max_size=2),
)


@settings(deadline=None, max_examples=40)
@given(place=st.sampled_from(list(_places(_SHIPPED))), value=_ODD, key=st.one_of(st.none(), st.text(max_size=8)))
def test_a_file_with_anything_anywhere_is_read_or_refused_with_its_place(
    place: tuple[Any, ...], value: Any, key: str | None
) -> None:
    data = json.loads(json.dumps(_SHIPPED))
    holder = data
    for step in place[:-1]:
        holder = holder[step]
    if key is not None and isinstance(holder, dict):
        holder[key] = value
    else:
        holder[place[-1]] = value
    try:
        parse(json.dumps(data, indent=1), {**SECRETS, "X": "x"}, "f.yml")
    except ConfigError as error:
        told = str(error)
    else:
        return
    assert re.match(r"f\.yml:\d+: ", told), told


@settings(deadline=None, max_examples=40)
@given(at=st.integers(0, len(SHIPPED.read_text())), gone=st.integers(0, 40), new=st.text(max_size=10))
def test_a_damaged_file_is_read_or_refused_with_its_place(at: int, gone: int, new: str) -> None:
    text = SHIPPED.read_text()
    try:
        parse(text[:at] + new + text[at + gone :], SECRETS, "f.yml")
    except ConfigError as error:
        told = str(error)
    else:
        return
    assert re.match(r"f\.yml:\d+: ", told), told


# Reload ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxRig]:
    with SandboxRig() as rig:
        yield rig


@pytest.fixture(scope="module")
def reloadable(sandbox: SandboxRig, redis: RedisServer) -> Iterator[Node]:
    node = Node(configuration(sandbox, redis))
    yield node
    assert node.stop() == 0
    assert "Traceback" not in node.log.read_text()


@pytest.fixture
def node(reloadable: Node) -> Iterator[Node]:
    before = json.dumps(reloadable.config)
    yield reloadable
    reloadable.config = json.loads(before)
    reload(reloadable, before)


def reload(node: Node, text: str) -> str:
    """SIGHUP with this file; the log's line about it."""
    seen = sum(line["event"] in ("reloaded", "reload refused") for line in node.lines())
    node.file.write_text(text)
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)

    def told() -> list[dict[str, Any]]:
        return [line for line in node.lines() if line["event"] in ("reloaded", "reload refused")][seen:]

    eventually(told)
    (line,) = told()
    return line["event"] + (": " + line["reason"] if "reason" in line else "")


def dry_run(node: Node, **fields: str) -> Any:
    return request(node.api, "POST", "/click2dial/calls?dry_run=1", {"agent": "1000", "callee": "0820001234", **fields})


def test_a_reload_applies_patterns_tokens_and_caller_ids(node: Node) -> None:
    acme = node.config["integrators"][0]
    acme.update(token="new-token", caller_ids=["27115559999"], patterns={"agent": "7\\d{3}"})
    assert reload(node, json.dumps(node.config)) == "reloaded"
    body = {"agent": "7000", "callee": "0820001234", "outbound_id": "27115559999"}
    answer = request(node.api, "POST", "/click2dial/calls?dry_run=1", body, token="new-token")
    assert answer.json["ok"], answer.json
    assert request(node.api, "GET", "/click2dial/calls", token=TOKEN).status == 401


def test_a_reload_that_is_wrong_in_one_place_changes_nothing(node: Node) -> None:
    acme = node.config["integrators"][0]
    acme.update(token="new-token", caller_ids=["27115559999"])
    node.config["inbound"] = {"27115550000": {"integrator": "nobody", "agents": ["1000"]}}
    told = reload(node, json.dumps(node.config, indent=1))
    assert re.match(r"reload refused: .*esl_apps\.yml:\d+: inbound\.27115550000\.integrator: no such integrator", told)
    assert dry_run(node, outbound_id="27115550000").json["ok"]
    assert not dry_run(node, outbound_id="27115559999").json["ok"]


@pytest.mark.parametrize("text", ["", "node: [", "\x00"])
def test_a_reload_of_a_file_that_is_none_changes_nothing(node: Node, text: str) -> None:
    assert reload(node, text).startswith("reload refused: ")
    assert dry_run(node, outbound_id="27115550000").json["ok"]


@pytest.mark.parametrize("section", ["node", "redis", "switches", "admin"])
def test_a_reload_that_needs_a_restart_is_refused_whole_and_says_which_key(node: Node, section: str) -> None:
    node.config["integrators"][0]["token"] = "new-token"
    if section == "switches":
        node.config["switches"][0]["password"] = "other"
    else:
        key = {"node": "listen", "redis": "url", "admin": "listen"}[section]
        node.config[section][key] = "redis://127.0.0.1:1/0" if section == "redis" else "127.0.0.1:1"
    told = reload(node, json.dumps(node.config))
    assert told.startswith(f"reload refused: {section}"), told
    assert request(node.api, "GET", "/click2dial/calls", token=TOKEN).status == 200


def test_a_reload_drops_no_call(node: Node, sandbox: SandboxRig, redis: RedisServer) -> None:
    redis.client.flushdb()
    sandbox.phone("1000")
    callee = sandbox.outside("0820001234")
    ref = node.call("1000", "0820001234")
    eventually(lambda: node.get(ref)["state"] == "bridged")
    node.config["integrators"][0]["dispositions"] = "teleforge"
    assert reload(node, json.dumps(node.config)) == "reloaded"
    time.sleep(0.1)
    assert node.get(ref)["state"] == "bridged"
    callee.calls[0].hangup()
    assert redis.pop()["call_ref"] == ref


def test_the_admin_port_answers_through_a_refused_reload(node: Node) -> None:
    reload(node, "{")
    assert request(node.admin, "GET", "/readyz", token=ADMIN_TOKEN).status == 200


def test_aliases_of_aliases_end_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MAX_NODES", 1000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 6)]
    with pytest.raises(ConfigError, match="expected fewer values"):
        config.parse("\n".join(lines), {})


# High-risk ranges ----------------------------------------------------------------------------------------


def test_the_shipped_ranges_are_the_packages_and_each_says_why() -> None:
    assert SHIPPED.with_name("high_risk.yml").read_text() == HIGH_RISK_RANGES.read_text()
    ranges = read_ranges(str(HIGH_RISK_RANGES))
    assert len(ranges) == len(set(ranges)) > 80
    assert {"+870", "+881", "+882", "+883", "+53", "+252", "+232", "+220", "+243", "+371", "+375"} <= set(ranges)
    assert {"+387", "+509", "+675", "+676", "+677", "+682", "+685", "+686", "+692"} <= set(ranges)
    # What is honest everywhere is not among them.
    plan = read().plan()
    for text in ("+12125551234", "+442079460000", "+4915112345678", "+61412345678", "0820001234", "0115550000"):
        assert not plan.read(text).high_risk, text


def test_ranges_next_door_are_left_out_of_the_packages_and_held_from_your_own(tmp_path: Path) -> None:
    latvia = "dial: {region: LV}\n"
    assert "+371" in read().high_risk()
    assert "+371" not in read(latvia).high_risk()
    assert "+53" in read(latvia).high_risk()
    # Jamaica's code is North America's.
    assert "+1876" in read("dial: {region: US}\n").high_risk()
    assert "+1876" not in read("dial: {region: JM}\n").high_risk()
    own = tmp_path / "own.yml"
    own.write_text('- "+371"\n')
    assert read(latvia + f"spending: {{high_risk: {own}}}\n").high_risk() == ["+371"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- +53\n", ":1: expected a prefix"),
        ('- "+53"\n- "0053"\n', ":2: expected a prefix"),
        ('- "+53 "\n', ":1: expected a prefix"),
        ('- ["+53"]\n', ":1: expected a prefix"),
        ('- "+"\n', ":1: expected a prefix"),
        ("ranges: []\n", ":1: expected a list"),
        ("'\n", "not YAML"),
        ("[" * 5000, "not YAML"),
    ],
)
def test_a_file_of_ranges_that_cant_be_read_stops_the_start(tmp_path: Path, text: str, told: str) -> None:
    own = tmp_path / "own.yml"
    own.write_text(text)
    message = refusal(f"spending: {{high_risk: {own}}}\n")
    assert message.startswith("f.yml:6: spending.high_risk: ")
    assert told in message


def test_an_empty_file_of_ranges_is_none(tmp_path: Path) -> None:
    own = tmp_path / "own.yml"
    own.write_text("# nothing\n")
    assert read(f"spending: {{high_risk: {own}}}\n").high_risk() == []


def test_limits_and_breakers_become_what_the_calls_are_asked_for() -> None:
    made = read(
        "spending:\n  limits: {calls_per_day: 9, destinations: {'country:CU': {minutes_per_hour: 2}}}\n"
        + "  breaker: {high_risk_calls_per_hour: 1, end_calls: true, destinations: {high_risk: {calls_per_day: 3}}}\n"
    )
    limits = made.spending.limits.read()
    assert (limits.calls_per_day, limits.calls_per_hour) == (9, None)
    assert {str(one): own.minutes_per_hour for one, own in limits.destinations.items()} == {"country:CU": 2}
    breaker = made.spending.breaker.read()
    assert (breaker.high_risk_calls_per_hour, breaker.end_calls) == (1, True)
    assert {str(one): own.calls_per_day for one, own in breaker.thresholds.destinations.items()} == {"high_risk": 3}
