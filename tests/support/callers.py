"""The numbers, cards and configurations that the behaviour tests share."""

from __future__ import annotations

from typing import Any

from tests.rig.base import PhoneLeg
from tests.support.node import ADMIN_TOKEN, Node, request

AGENT = "1000"
CALLEE, E164 = "0820001234", "27820001234"
CALLER, CALLER_E164 = "0825556666", "27825556666"
STRANGER = "0845550000"

#: The numbers that callers dial: callback, calling card (national and abroad), DISA.
CB, CC_NATIONAL, CC, DISA = "0115552000", "0115552001", "5141115555", "27115550002"
DISA_PIN = "4821907356"
#: Hz.
DIALTONE = (350, 440)


def card(node: Node, account: str = "acme", **fields: Any) -> dict[str, Any]:
    """An active card, made through the API that an operator uses."""
    body = {"data": {"active": True, **fields}}
    answer = request(node.admin, "PUT", f"/v2/accounts/{account}/cccps", body, token=ADMIN_TOKEN)
    assert answer.status == 201, answer.body
    return dict(answer.json["data"])


def reach(leg: PhoneLeg, digits: str, hz: int) -> None:
    """Key ``digits`` and hear the far side's tone."""
    leg.digits(digits)
    assert leg.hears(hz)


def disa_config(config: dict[str, Any]) -> None:
    """Four DISAs of one account."""
    # The node empties its spool of JSON CDRs as calls end; some tests read them.
    config["spool"]["dir"] += "/none"
    config["accounts"] = {
        "acme": {
            "caller_id": {"number": "+27115550000", "name": "Acme"},
            "integrator": "acme",
            "call_restriction": {"international": {"action": "deny"}},
            "disa": {
                "front": {"pin": DISA_PIN, "use_account_caller_id": True},
                "own": {"pin": DISA_PIN, "use_account_caller_id": False},
                "short": {"pin": DISA_PIN, "max_session": 2.5},
                "open": {"allow_no_pin": True, "preconnect_audio": "ringing"},
            },
        }
    }


#: Cards that any number of theirs opens, with a fast callback.
CARDS: dict[str, Any] = {
    "pin_key": "key-for-tests",
    "cccp": {
        "cccp_cb_number": CB,
        "cccp_cc_number": CC_NATIONAL,
        "callback_delay": 0.2,
        "prompt_delay": 0.1,
        "cid_trust": "any",
    },
    "callback": {"retries": 1, "retry_after": 0.5, "cool_down": 60},
    "accounts": {"acme": {"caller_id": {"number": "+27115550000"}}},
}
