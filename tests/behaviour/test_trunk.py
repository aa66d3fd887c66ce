"""The caller as an INVITE from a trusted trunk names them, and what of that reaches the far phone.

``tests/unit/core/test_identity.py`` has every combination of trust; here a real switch supplies the variables
that are read there.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import on_a_real_switch
from tests.rig.base import Rig, Script, eventually
from tests.support.callers import CALLEE, CALLER, CC, E164, STRANGER, card, reach
from tests.support.node import Node, RedisServer, asks

ATTESTED = {"P-Asserted-Identity": f"<sip:{CALLER};verstat=TN-Validation-Passed-A@127.0.0.1;user=phone>"}


def CONFIG(config: dict[str, Any]) -> None:
    config["pin_key"] = "key-for-tests"
    # All packets of a rig come from this address.
    config["trust"] = ["127.0.0.0/8"]
    config["cccp"] = {"cid_trust": "attested"}
    config["accounts"] = {"acme": {"caller_id": {"number": "+27115550000"}}}


@pytest.fixture(autouse=True)
def routed(rig: Rig, node: Node) -> None:
    rig.route(CC, "dialthrough", node.config["node"]["listen"])


#: Claims the caller added, which B would take for ours.
CLAIMS = {
    "P-Preferred-Identity": "<sip:0830000000@127.0.0.1>",
    "Diversion": "<sip:0830000000@127.0.0.1>;reason=unconditional",
    "Identity": "eyJ;info=<https://127.0.0.1/c.pem>;alg=ES256;ppt=shaken",
    "User-to-User": "00abcd",
    "X-Teleforge-Outbound-ID": "27115550000",
    "X-Anything": "1",
    "P-Charging-Vector": "icid-value=1",
    "History-Info": "<sip:0830000000@127.0.0.1>;index=1",
}


def test_trunk_attested_number_opens_headers_stay_here(rig: Rig, node: Node, redis: RedisServer) -> None:
    card(node, cid=CALLER)
    callee = rig.outside(E164, Script(answer_after=0.1, tone=900))
    leg = rig.outside(STRANGER).dial(CC, {**ATTESTED, **CLAIMS})
    eventually(lambda: leg.leg.answered_at is not None)
    eventually(lambda: asks(rig, "enter_number"))
    reach(leg, CALLEE + "#", 900)
    seen = callee.calls[0].leg
    assert seen.caller_number == "+27115550000"
    assert {name.lower() for name in (*CLAIMS, *ATTESTED)} & set(seen.headers) == set()
    assert "0830000000" not in str(seen.headers)
    assert CALLER not in str(seen.headers)
    leg.hangup()
    record = redis.pop()
    assert (record["end_reason"], record["extension"]) == ("answered", CALLER)


@pytest.mark.parametrize(
    "headers",
    [
        {"P-Asserted-Identity": f"<sip:{CALLER};verstat=TN-Validation-Failed@127.0.0.1;user=phone>"},
        {
            "P-Asserted-Identity": f'"x;verstat=TN-Validation-Passed-A" <sip:{CALLER}@127.0.0.1>',
            "X-Verstat": "TN-Validation-Passed-A",
        },
    ],
)
def test_trunk_number_not_attested_opens_nothing(
    rig: Rig, node: Node, redis: RedisServer, headers: dict[str, str]
) -> None:
    card(node, cid=CALLER)
    callee = rig.outside(E164)
    leg = rig.outside(STRANGER).dial(CC, headers)
    eventually(lambda: asks(rig, "enter_pin"))
    leg.digits(CALLEE + "#")
    eventually(lambda: asks(rig, "invalid_pin"))
    leg.hangup()
    record = redis.pop()
    # The trunk is trusted to name the caller; that is not enough.
    assert (record["number"], record["extension"]) == (None, CALLER)
    assert callee.calls == []


@on_a_real_switch
@pytest.mark.parametrize(
    ("sender", "headers", "caller"),
    [
        # FreeSWITCH prefers this header to all others, but it only states a wish.
        (f"<sip:{STRANGER}@127.0.0.1>", [("P-Preferred-Identity", f"<sip:{CALLER}@127.0.0.1>")], STRANGER),
        (f"<sip:{STRANGER}@127.0.0.1>", [("Remote-Party-ID", f"<sip:{CALLER}@127.0.0.1>;party=called")], STRANGER),
        (f"<sip:{STRANGER}@127.0.0.1>", [("Remote-Party-ID", f'"sip:1@a" <sip:{CALLER}@127.0.0.1>')], CALLER),
        (f"<sip:{STRANGER}@127.0.0.1>", [("P-Asserted-Identity", f'"sip:1@a" <sip:{CALLER}@127.0.0.1>')], CALLER),
        (f"<sip:{STRANGER}@127.0.0.1>", [("P-Asserted-Identity", f"<tel:+27{CALLER[1:]}>")], f"+27{CALLER[1:]}"),
        (f"<sip:+27{CALLER[1:]};verstat=TN-Validation-Failed@127.0.0.1>", [], f"+27{CALLER[1:]}"),
        ("<sip:127.0.0.1>", [("P-Preferred-Identity", f"<sip:{CALLER}@127.0.0.1>")], None),
        (f"<sip:{CALLER}%0A@127.0.0.1>", [], None),
    ],
)
def test_trunk_caller_is_read_from_the_switchs_variables(
    rig: Any, node: Node, redis: RedisServer, sender: str, headers: list[tuple[str, str]], caller: str | None
) -> None:
    call = rig.raw_call(CC, headers, sender=sender)
    assert call.wait() == 200
    call.hangup()
    assert redis.pop()["extension"] == caller
