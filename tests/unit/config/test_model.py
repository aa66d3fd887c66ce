"""The sections: the shipped file agrees with them, and they become what the node works with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec
import pytest
import yaml

from esl_apps.config import explain, load, model, parse, spending
from esl_apps.config.inbound import Inbound
from esl_apps.config.pin_guard import PinGuard
from esl_apps.config.problems import ConfigError
from tests.support.configurations import LEAST, SECRETS, SHIPPED, read


def test_shipped_file_has_the_promised_values() -> None:
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


def test_shipped_file_has_every_key() -> None:
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
        (PinGuard, shipped["pin_guard"]),
        (model.Callback, shipped["callback"]),
        (model.DisaDefaults, shipped["callflow.disa"]),
        (model.Account, acme),
        (model.Disa, acme["disa"]["front"]),
        (Inbound, shipped["inbound"]["27115550000"]),
        (spending.Spending, shipped["spending"]),
        (spending.Limits, shipped["spending"]["limits"]),
        (spending.Breaker, shipped["spending"]["breaker"]),
    ]
    missing = {
        f"{kind.__name__}.{one.encode_name}"
        for kind, found in sections
        for one in msgspec.structs.fields(kind)
        if one.encode_name not in found
    }
    assert missing == set()


def numbers(kind: Any, data: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every key of a configuration that takes a number: its path, and where it is in the data."""
    members = explain.alternatives(kind)
    section = next((member for member in members if explain.is_section(member)), None)
    for member in members:
        steps: Any = ()
        if get_origin(member) is dict and isinstance(data, dict):
            steps = data
        elif get_origin(member) is list and isinstance(data, list):
            steps = range(len(data))
        for step in steps:
            name = f"[{step}]" if isinstance(data, list) else f".{step}"
            yield from numbers(get_args(member)[-1], data[step], path + name)
    if section is not None and isinstance(data, dict):
        for one in msgspec.structs.fields(section):
            name = f"{path}.{one.encode_name}"
            if any(explain.bare(member) in (int, float) for member in explain.alternatives(one.type)):
                yield name.removeprefix("."), data, one.encode_name
            else:
                yield from numbers(one.type, data.get(one.encode_name), name)


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", str(10**24), "1.0e+24", "-1"])
def test_number_out_of_bounds_is_refused(value: str) -> None:
    """Later it would be an OverflowError, after an agent has answered."""
    data = yaml.safe_load(SHIPPED.read_text())
    found = list(numbers(model.Config, data))
    assert len(found) > 60
    for _path, section, key in found:
        section[key] = yaml.safe_load(value)
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_dump(data), SECRETS)
    told = {problem.key: problem.message for problem in caught.value.problems}
    # With their upper bounds.
    assert [path for path, _section, _key in found if not re.search(r"[0-9]{3}", told.get(path, ""))] == []


def test_compact_example_is_read() -> None:
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


@pytest.mark.parametrize("section", ["cccp", "callflow.disa"])
def test_kazoo_document_is_read_as_its_default(section: str) -> None:
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


def test_limits_and_breakers_keep_their_destinations() -> None:
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


def test_level_has_the_limits_and_the_breaker_of_its_name() -> None:
    made = read("spending: {limits: {calls_per_day: 9}, breaker: {calls_per_hour: 5}}\n").spending
    level = spending.level("system", made.limits, made.breaker)
    assert level.limits is not None
    assert level.breaker is not None
    assert (level.name, level.limits.calls_per_day, level.breaker.thresholds.calls_per_hour) == ("system", 9, 5)


def test_advertise_is_listen_unless_it_is_set() -> None:
    assert parse(LEAST, {}).advertise == "127.0.0.1:8084"
    assert parse(LEAST.replace("name: app1", 'advertise: "10.0.0.1:8084"'), {}).advertise == "10.0.0.1:8084"
