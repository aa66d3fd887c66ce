"""Autodial over HTTP: ring A, then bridge to B or a conference."""

from __future__ import annotations

from typing import Any

import falcon

from esl_apps.apps.autodial import CONFERENCE, REF, AutodialOrder, leg_denial, new_call, order_numbers
from esl_apps.apps.session import account_level
from esl_apps.core import display_name
from esl_apps.core.cards import Account
from esl_apps.core.charges import Charge
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import Number
from esl_apps.core.status import Ref
from esl_apps.core.timed_call import Waiting
from esl_apps.core.written_number import read, split
from esl_apps.http import dry_run
from esl_apps.http.access import CALL, READ
from esl_apps.http.crossbar_port import ACCOUNT_ID, CARDS_PATH, CrossbarPort, operation, read_data, succeed
from esl_apps.http.errors import problem
from esl_apps.http.parameters import in_path
from esl_apps.http.routes import Route
from esl_apps.http.schemas import LONGEST_DELAY, Autodial, Autodialled, DryRun, WaitingAutodial
from esl_apps.node.policy import Policy
from esl_apps.store.timed_calls import TimedCalls

_FIELDS = Autodial.__struct_fields__


def place_autodial(port: CrossbarPort, req: falcon.Request, resp: falcon.Response, account: Account) -> None:
    data = read_data(req)
    if dry_run.is_asked_for(req):
        succeed(req, resp, 200, check_autodial(port, account, data))
        return
    order = read_order(port.services.policy, account, data)
    attempt = port.outgoing.autodial(account, order)
    succeed(req, resp, 201, Autodialled(attempt.call_ref, attempt.state))


def check_autodial(port: CrossbarPort, account: Account, data: dict[str, Any]) -> DryRun:
    """Return every check and its verdict. Nothing is dialled."""
    faults: list[Fault] = []
    policy = port.services.policy
    # If the order can't be read, check the limits for a call without a number: they may be reached all the same.
    charges = [Charge("", [policy.rules.system, account_level(account)], None, aleg=True)]
    try:
        call = new_call(read_order(policy, account, data), account)
        charges = [*call.charges(policy), *call.later_charges(policy)]
    except Refused as refused:
        faults = refused.faults
    return dry_run.report(port.services, _FIELDS, faults, charges)


def read_order(policy: Policy, account: Account, data: dict[str, Any]) -> AutodialOrder:
    """Read a request to dial two numbers. Each is checked as if a caller had keyed it.

    :raises Refused: names every wrong field. :raises StoreUnavailable: Redis is down.
    """
    faults = [
        Fault(name[:64], "additionalProperties", f"unknown; expected one of {', '.join(_FIELDS)}")
        for name in data
        if name not in _FIELDS
    ]
    a = _leg(policy, account, data.get("a_leg_number"), "a_leg_number", faults)
    b, conference = None, None
    b_leg_number = data.get("b_leg_number")
    if isinstance(b_leg_number, str) and b_leg_number.startswith("conference:"):
        room = b_leg_number.removeprefix("conference:")
        if CONFERENCE.fullmatch(room):
            conference = room
        else:
            message = "expected conference: and 1 to 64 letters, digits, . _ -"
            faults.append(Fault("b_leg_number", "pattern", message))
    else:
        b = _leg(policy, account, b_leg_number, "b_leg_number", faults)
    delay = data.get("callback_delay")
    if delay is None:
        delay = policy.rules.callback_delay
    if not isinstance(delay, (int, float)) or isinstance(delay, bool) or not 0 <= delay <= LONGEST_DELAY:
        faults.append(Fault("callback_delay", "range", f"expected seconds from 0 to {LONGEST_DELAY}"))
    retain_cid = data.get("retain_cid")
    if retain_cid is not None and not isinstance(retain_cid, bool):
        faults.append(Fault("retain_cid", "type", "expected true or false"))
    media_id: Any = data.get("media_id")
    if media_id is not None and not policy.is_media(media_id):
        message = "expected the name of a prompt without its .wav, or one of the configuration's prompts.urls"
        faults.append(Fault("media_id", "not_found", message))
    a_leg_name = data.get("a_leg_name")
    if a_leg_name is not None and not (isinstance(a_leg_name, str) and display_name.is_name(a_leg_name)):
        faults.append(Fault("a_leg_name", "pattern", f"expected {display_name.EXPECTED}"))
    if faults:
        raise Refused(faults)
    assert a is not None
    return AutodialOrder(a, b, conference, float(delay), bool(retain_cid), media_id, a_leg_name)


def _leg(policy: Policy, account: Account, text: object, field: str, faults: list[Fault]) -> Number | None:
    """Return a leg's number if dialthrough would dial it; otherwise add a fault and return None."""
    if text is None:
        faults.append(Fault(field, "required", "missing"))
        return None
    try:
        written = split(text if isinstance(text, str) else "")
        if written.digits:
            raise NotDialable("only click-to-dial's callee can be sent digits")
        number = read(written.number, policy.settings.plan)
    except NotDialable as error:
        faults.append(Fault(field, "pattern", str(error)))
        return None
    refusal = leg_denial(number, policy.settings, policy.rules, account)
    if refusal is None:
        return number
    faults.append(Fault(field, refusal.code, refusal.note))
    return None


def list_waiting(port: CrossbarPort, req: falcon.Request, resp: falcon.Response, account: Account) -> None:
    succeed(req, resp, 200, [_shown(call) for call in _store(port).waiting_of(account.id)])


def drop_waiting(
    port: CrossbarPort, req: falcon.Request, resp: falcon.Response, account: Account, call_ref: str
) -> None:
    store = _store(port)
    call = store.find(call_ref)
    dropped = store.drop(call_ref, account.id)
    if dropped is None:
        raise problem(409, "state", "it is being placed", "call_ref")
    if not dropped or call is None:
        raise problem(404, "not_found", "no such autodial waits", "call_ref")
    succeed(req, resp, 200, _shown(call))


def _store(port: CrossbarPort) -> TimedCalls:
    return port.services.timed_calls[REF]


def _shown(call: Waiting) -> WaitingAutodial:
    a, b = order_numbers(call.data)
    return WaitingAutodial(call.number, a, b, call.due_at)


ROUTES = (
    Route(
        CARDS_PATH + "/autodials",
        (
            operation(
                "GET",
                "listAutodials",
                "The account's autodials that wait for their callback_delay",
                list_waiting,
                scopes=(READ, CALL),
                data={"type": "array", "items": WaitingAutodial},
            ),
        ),
        parameters=(ACCOUNT_ID,),
    ),
    Route(
        CARDS_PATH + "/autodial",
        (
            operation(
                "PUT",
                "autodial",
                "Ring A, then connect it to B",
                place_autodial,
                scopes=(CALL,),
                status=201,
                data=Autodialled,
                body=Autodial,
                dry_run_data=DryRun,
            ),
        ),
        parameters=(ACCOUNT_ID,),
    ),
    Route(
        CARDS_PATH + "/autodials/{call_ref}",
        (
            operation(
                "DELETE",
                "dropAutodial",
                "Drop an autodial that waits; its record says cancelled",
                drop_waiting,
                scopes=(CALL,),
                data=WaitingAutodial,
                conflict=True,
            ),
        ),
        parameters=(ACCOUNT_ID, in_path("call_ref", Ref)),
    ),
)
