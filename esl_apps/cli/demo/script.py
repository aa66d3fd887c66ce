"""The demo's calls: one through each application, and how each must come out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from esl_apps.cli.demo.stage import CALLBACK_DID, CARD_DID, DID, DISA_DID, DemoFailed, Stage
from esl_apps.core.notification import CDR_LIST, INBOUND_LIST

CALLEE, CALLEE_E164 = "0820001234", "27820001234"
CALLER, CALLER_E164 = "0835550001", "27835550001"
_CLICK2DIAL = {"agent": "1000", "callee": CALLEE, "outbound_id": DID, "contact_ref": "demo-1"}
_TRANSFER = {"to": "1001"}
_AUTODIAL = {"a_leg_number": CALLER, "b_leg_number": CALLEE, "media_id": "beep", "callback_delay": 0}


@dataclass(frozen=True)
class DemoCall:
    title: str
    story: str
    """A sentence or two: the caller, the number called, and how it goes on."""
    place: Callable[[Stage], dict[str, Any]]
    """Place the call, and return the payload of its record. :raises DemoFailed: it came out otherwise."""
    request: str = ""
    """The client's request, if one starts the call."""


def _click2dial(stage: Stage) -> dict[str, Any]:
    stage.phone("1000", answer_after=0.4, tone=500)
    stage.phone(CALLEE, outside=True, answer_after=0.6, hangup_after=1.2, tone=900)
    accepted = stage.request("POST", "/click2dial/calls", _CLICK2DIAL)
    record = stage.pop(CDR_LIST)
    return _expect(
        record, call_ref=accepted["call_ref"], contact_ref="demo-1", end_reason="answered", hung_up_by="callee"
    )


def _inbound(stage: Stage) -> dict[str, Any]:
    stage.route(DID, "inbound")
    stage.phone("1000", answer_after=None)
    stage.phone("1001", answer_after=0.5, hangup_after=1.0, tone=500)
    stage.phone(CALLER, outside=True, tone=900)
    stage.dial(CALLER, DID)
    announced = _expect(stage.pop(INBOUND_LIST), ref="1001", number=CALLER)
    record = stage.pop(CDR_LIST)
    return _expect(record, call_ref=announced["call_ref"], end_reason="answered", hung_up_by="agent", number=CALLER)


def _disa(stage: Stage) -> dict[str, Any]:
    stage.route(DISA_DID, "disa/acme/front")
    stage.phone(CALLER, outside=True, digits=f"{stage.pin}{CALLEE}#", digits_after=0.5)
    stage.phone(CALLEE_E164, outside=True, answer_after=0.3, hangup_after=0.8, tone=900)
    stage.dial(CALLER, DISA_DID)
    record = stage.pop(CDR_LIST)
    stage.hang_up(CALLER)
    return _expect(
        record, ref="disa", end_reason="answered", number=f"+{CALLEE_E164}", dial_number=f"+{DID}", hung_up_by="callee"
    )


def _dialthrough(stage: Stage) -> dict[str, Any]:
    stage.card(cid=CALLER)
    stage.route(CARD_DID, "dialthrough")
    stage.phone(CALLER, outside=True, digits=f"{CALLEE}#", digits_after=0.5)
    stage.dial(CALLER, CARD_DID)
    record = stage.pop(CDR_LIST)
    stage.hang_up(CALLER)
    return _expect(record, ref="dialthrough", end_reason="answered", extension=CALLER, number=f"+{CALLEE_E164}")


def _callback(stage: Stage) -> dict[str, Any]:
    stage.route(CALLBACK_DID, "callback")
    stage.phone(CALLER, outside=True)
    stage.phone(CALLER_E164, outside=True, answer_after=0.3, digits=f"{CALLEE}#", digits_after=0.8)
    stage.dial(CALLER, CALLBACK_DID)
    record = stage.pop(CDR_LIST)
    stage.hang_up(CALLER_E164)
    return _expect(record, ref="callback", end_reason="answered", extension=f"+{CALLER_E164}", number=f"+{CALLEE_E164}")


def _autodial(stage: Stage) -> dict[str, Any]:
    stage.phone(CALLER_E164, outside=True, answer_after=0.3, tone=500)
    stage.crossbar("PUT", "/v2/accounts/acme/cccps/autodial", _AUTODIAL)
    record = stage.pop(CDR_LIST)
    return _expect(record, ref="autodial", end_reason="answered", hung_up_by="callee")


def _transfer(stage: Stage) -> dict[str, Any]:
    stage.phone("1000", answer_after=0.3, tone=500)
    stage.phone("1001", answer_after=0.4, hangup_after=0.8, tone=700)
    stage.phone(CALLEE, outside=True, answer_after=0.3, tone=900)
    ref = stage.request("POST", "/click2dial/calls", _CLICK2DIAL)["call_ref"]
    stage.until(ref, "bridged")
    answer = stage.request("POST", f"/click2dial/calls/{ref}/transfer", _TRANSFER)
    _expect(stage.pop(CDR_LIST), call_ref=ref, end_reason="answered", hung_up_by="agent")
    record = stage.pop(CDR_LIST)
    return _expect(record, call_ref=answer["transfer_ref"], session_ref=ref, extension="1001", number=CALLEE)


#: By the application's ``ref``. The order counts: the callback finds the card that the dialthrough enrolled.
CALLS = {
    "click-dial": DemoCall(
        "Click-to-dial",
        f"A client asks over HTTP for a call from agent 1000 to {CALLEE}. Phone 1000 rings; when the agent answers, "
        f"the callee is dialled and sees {DID}.",
        _click2dial,
        f"POST /click2dial/calls\n{json.dumps(_CLICK2DIAL)}",
    ),
    "inbound": DemoCall(
        "Inbound",
        f"{CALLER} calls {DID}. The agents' phones 1000 and 1001 ring, and 1001 answers.",
        _inbound,
    ),
    "disa": DemoCall(
        "DISA",
        f"{CALLER} calls {DISA_DID}, keys a PIN, hears the dial tone and keys {CALLEE}#.",
        _disa,
    ),
    "dialthrough": DemoCall(
        "Calling card (dialthrough)",
        f"{CALLER}, whose number is on a card, calls {CARD_DID} and keys {CALLEE}#.",
        _dialthrough,
    ),
    "callback": DemoCall(
        "Callback",
        f"{CALLER} calls {CALLBACK_DID} and is refused as busy, at no charge. The node calls back, and the caller keys "
        f"{CALLEE}#.",
        _callback,
    ),
    "autodial": DemoCall(
        "Autodial",
        f"A client asks over HTTP to connect {CALLER} with {CALLEE}. The first hears a beep when they answer, then the "
        "second is dialled.",
        _autodial,
        f"PUT /v2/accounts/acme/cccps/autodial\n{json.dumps({'data': _AUTODIAL})}",
    ),
    "transfer": DemoCall(
        "Transfer",
        f"Agent 1000 talks with {CALLEE}. A client transfers the customer to agent 1001, who answers.",
        _transfer,
        f"POST /click2dial/calls/CALL_REF/transfer\n{json.dumps(_TRANSFER)}",
    ),
}


def _expect(payload: dict[str, Any], **wanted: object) -> dict[str, Any]:
    for field, value in wanted.items():
        if payload.get(field) != value:
            raise DemoFailed(f"{field} of the record is {payload.get(field)!r}, expected {value!r}")
    return payload
