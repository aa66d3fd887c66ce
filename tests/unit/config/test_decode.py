"""Everything that is wrong is reported at once, and nothing that only follows from another mistake."""

from __future__ import annotations

import pytest

from tests.support.configurations import LEAST, problems_of

#: Twenty mistakes of every kind, most of them in the third integrator.
TWENTY = """\
switches:
  - {name: fs1, address: "127.0.0.1", password: s3cret}
  - {name: fs1, address: "10.0.0.1:8021", password: ClueCon}
admin: {token: "$ADMIN_TOKEN", listn: "127.0.0.1:8000"}
pin_key: "${PIN_KEY}"
dial:
  region: NO
  external: sofia/gateway/pstn/{number}
callback: [retries, 2]
integrators:
  - {name: one, listen: "127.0.0.1:8301", token: t1}
  - {name: two, listen: "127.0.0.1:8301", token: "t 2"}
  - name: three
    listen: 8303
    token: t3
    agent_timeout: "30"
    payload: v5
    call_restriction:
      premium: {action: block}
    limits:
      destinations:
        country:CU: {calls_per_day: -1}
    redis: {uri: x}
accounts:
  good: {integrator: three}
  bad: {integrator: four, token: 5, token: 6}
inbound:
  "27115550000": {integrator: three}
  "27115550001": {integrator: nine, agents: ["1000"]}
spending: {breaker: {destinations: {Cuba: {}}}}
"""


def test_twenty_mistakes_are_reported_at_once() -> None:
    told = [line.removeprefix("f.yml:").partition(": ")[::2] for line in problems_of(TWENTY)]
    assert [(int(line), text.partition(": ")[0]) for line, text in told] == [
        (2, "switches[0].address"),
        (3, "switches[1].name"),
        (3, "switches[1].password"),
        (4, "admin.listn"),
        (5, "pin_key"),
        (7, "dial.region"),
        (8, "dial.external"),
        (9, "callback"),
        (12, "integrators[1].listen"),
        (12, "integrators[1].token"),
        (14, "integrators[2].listen"),
        (16, "integrators[2].agent_timeout"),
        (17, "integrators[2].payload"),
        (19, "integrators[2].call_restriction.premium.action"),
        (22, "integrators[2].limits.destinations.country:CU.calls_per_day"),
        (23, "integrators[2].redis.uri"),
        (26, "accounts.bad.token"),
        (26, "accounts.bad.token"),
        (28, "inbound.27115550000.agents"),
        (29, "inbound.27115550001.integrator"),
        (30, "spending.breaker.destinations.Cuba"),
    ]


def test_broken_integrator_still_has_its_name() -> None:
    more = "  - {name: b, listen: 5, token: t}\naccounts: {a: {integrator: b}}\n"
    assert problems_of(LEAST + more) == [
        "f.yml:6: integrators[1].listen: expected text, got a number; put the number in quotes"
    ]


@pytest.mark.parametrize("integrators", ["[{listen: '127.0.0.1:1', token: t}]", "[5]", "5", "{name: b}"])
def test_integrator_without_a_name_hides_no_other(integrators: str) -> None:
    text = LEAST.partition("integrators")[0] + f"integrators: {integrators}\naccounts: {{a: {{integrator: b}}}}\n"
    (told,) = problems_of(text)
    assert told.startswith("f.yml:4: integrators")


def test_broken_dial_makes_no_number_wrong() -> None:
    more = (
        "dial: {region: 5, classifiers: {mine: x}}\n"
        "accounts: {a: {caller_ids: [x], call_restriction: {mine: {action: deny}}}}\n"
        "cccp: {cccp_cb_number: '0115550000', cccp_cc_number: '0115550000'}\n"
        "inbound: {x: {integrator: acme, agents: ['112']}}\n"
        "spending: {limits: {destinations: {'class:mine': {}}}}\n"
    )
    assert [line.split(": ")[1] for line in problems_of(LEAST + more)] == ["dial.region"]


def test_wrong_pattern_in_dial_makes_no_number_wrong() -> None:
    told = problems_of(LEAST + "dial: {extensions: '('}\naccounts: {a: {caller_ids: [x]}}\n")
    assert [line.split(": ")[1] for line in told] == ["dial.extensions"]


def test_broken_admin_is_not_reported_as_missing() -> None:
    told = problems_of(LEAST.replace("{token: t0ken}", "{token: 5}"))
    assert told == ["f.yml:2: admin.token: expected text, got a number; put the number in quotes"]


@pytest.mark.parametrize("switches", ["5", "[5]", "[{name: a, address: 'h:1'}]"])
def test_broken_switch_is_not_reported_as_missing(switches: str) -> None:
    text = LEAST.replace('[{name: fs1, address: "127.0.0.1:8021", password: s3cret}]', switches)
    (told,) = problems_of(text)
    assert told.startswith("f.yml:1: switches")


def test_indexes_count_broken_items() -> None:
    more = '  - 5\n  - {name: c, listen: "127.0.0.1:x", token: t}\n'
    assert [line.split(": ")[1] for line in problems_of(LEAST + more)] == ["integrators[1]", "integrators[2].listen"]


def test_unset_pin_key_is_reported_once() -> None:
    told = problems_of(LEAST + f"pin_key: ${{K}}\naccounts: {{a: {{disa: {{d: {{pin_hash: {'a' * 64}}}}}}}}}\n")
    assert [line.split(": ")[1] for line in told] == ["pin_key"]


def test_unset_variable_inside_a_list_is_reported_once() -> None:
    told = problems_of(LEAST + "trust: ['${A}', '${B}']\n")
    assert [line.split(": ")[1] for line in told] == ["trust[0]", "trust[1]"]
