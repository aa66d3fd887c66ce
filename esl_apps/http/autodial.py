"""Autodial over HTTP: ring A, then bridge to B or a conference."""

from __future__ import annotations

from typing import Any

import falcon

from esl_apps.apps.autodial import CONFERENCE, AutodialOrder
from esl_apps.core.cards import Account
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.numbers import NotDialable, Number
from esl_apps.core.restrictions import denied
from esl_apps.http.access import CALL
from esl_apps.http.crossbar_port import ACCOUNT_ID, CARDS_PATH, CrossbarPort, operation, read_data, succeed
from esl_apps.http.routes import Route
from esl_apps.http.schemas import LONGEST_DELAY, Autodial, Autodialled
from esl_apps.node.policy import Policy
from esl_apps.prompts import is_media

_FIELDS = Autodial.__struct_fields__


def place_autodial(port: CrossbarPort, req: falcon.Request, resp: falcon.Response, account: Account) -> None:
    order = read_order(port.services.policy, account, read_data(req))
    attempt = port.outgoing.autodial(account, order)
    succeed(req, resp, 201, Autodialled(attempt.call_ref, attempt.state))


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
    media_id, prompts = data.get("media_id"), policy.config.prompts
    if media_id is not None and not is_media(media_id, prompts.dir, prompts.language, prompts.urls):
        message = "expected the name of a prompt without its .wav, or one of the configuration's prompts.urls"
        faults.append(Fault("media_id", "not_found", message))
    if faults:
        raise Refused(faults)
    assert a is not None
    return AutodialOrder(a, b, conference, float(delay), bool(retain_cid), media_id)


def _leg(policy: Policy, account: Account, text: object, field: str, faults: list[Fault]) -> Number | None:
    """Return a leg's number if dialthrough would dial it; otherwise add a fault and return None."""
    if text is None:
        faults.append(Fault(field, "required", "missing"))
        return None
    try:
        number = policy.settings.plan.read(text if isinstance(text, str) else "")
    except NotDialable as error:
        faults.append(Fault(field, "pattern", str(error)))
        return None
    rules = policy.rules
    if number.is_emergency:
        if rules.emergency:
            return number
        faults.append(Fault(field, "forbidden", "is an emergency number"))
    elif number.e164 in rules.own_numbers:
        faults.append(Fault(field, "forbidden", "is a number of this installation"))
    elif rules.allowed_callee is not None and not rules.allowed_callee("+" + number.e164):
        faults.append(Fault(field, "forbidden", "is not allowed by allowed_callee_regex"))
    elif number_class := denied(number, account.call_restriction):
        faults.append(Fault(field, "restricted", f"class {number_class} is denied"))
    elif not policy.settings.endpoints.reaches(number):
        faults.append(Fault(field, "restricted", "only extensions are dialled from here: dial.external is empty"))
    else:
        return number
    return None


ROUTES = (
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
            ),
        ),
        parameters=(ACCOUNT_ID,),
    ),
)
