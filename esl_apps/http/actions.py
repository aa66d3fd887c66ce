"""Actions on a live call, under ``/click2dial/calls/REF/…``: read here, and done by the node that has the call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import falcon
from msgspec import structs

from esl_apps.core import actions, terms
from esl_apps.core.actions import KEYS, Action, CallState
from esl_apps.core.charges import Charge
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.numbers import Number
from esl_apps.core.status import Ref
from esl_apps.http import dry_run, idempotency
from esl_apps.http.access import CALL, OWN_CALL
from esl_apps.http.body import answer, read_json
from esl_apps.http.calls_port import CallsPort
from esl_apps.http.parameters import in_path
from esl_apps.http.routes import Answer, Operation, Route
from esl_apps.http.schemas import DigitsOrder, DryRun, PartyOrder, RecordOrder, TransferOrder

_PARTIES = (terms.AGENT, terms.CALLEE)
_STEPS = (actions.START, actions.PAUSE, actions.RESUME, actions.STOP)

Read = Callable[[CallsPort, str, Mapping[str, Any]], Action]
"""Reads a body into an action of this name. :raises Refused: names each wrong field."""


def _handler(name: str, read: Read) -> Callable[..., None]:
    def act(port: CallsPort, req: falcon.Request, resp: falcon.Response, ref: str) -> None:
        raw, fields = read_json(req) if req.content_length else (b"", {})
        action = structs.replace(read(port, name, fields), agent=port.token(req).agent or "")
        call = port.call(ref)
        key = port.key_of(req)
        if key is None:
            answer(resp, 202, port.act(call, action))
            return
        state, replayed = port.act_once(key, f"{name} {ref} ".encode() + raw, call, action)
        answer(resp, 202, state)
        if replayed:
            resp.set_header(idempotency.REPLAYED, "true")

    return act


# Bodies ---------------------------------------------------------------------------------------------------


def _nothing(_port: CallsPort, name: str, fields: Mapping[str, Any]) -> Action:
    _check(fields, {})
    return Action(name)


def _party(_port: CallsPort, name: str, fields: Mapping[str, Any]) -> Action:
    _check(fields, {"party": _one_of(_PARTIES)})
    return Action(name, party=fields["party"])


def _digits(_port: CallsPort, name: str, fields: Mapping[str, Any]) -> Action:
    _check(fields, {"to": _one_of(_PARTIES), "digits": _keys})
    return Action(name, party=fields["to"], digits=fields["digits"])


def _step(_port: CallsPort, name: str, fields: Mapping[str, Any]) -> Action:
    _check(fields, {"action": _one_of(_STEPS)})
    return Action(name, step=fields["action"])


def _transfer(port: CallsPort, name: str, fields: Mapping[str, Any]) -> Action:
    return _read_transfer(port, name, fields)[0]


def _read_transfer(port: CallsPort, name: str, fields: Mapping[str, Any]) -> tuple[Action, Number]:
    """:raises Refused: lists every fault."""
    fields = {"mode": "blind", "by": terms.AGENT, **fields}
    modes = _one_of((actions.BLIND, actions.CONSULT))
    faults = _faults(fields, {"to": _text, "mode": modes, "by": _one_of(_PARTIES)})
    if all(fault.field != "to" for fault in faults):
        try:
            to = port.client.read_target(fields["to"])
        except Refused as refused:
            faults += refused.faults
    if faults:
        raise Refused(faults)
    return Action(name, to=fields["to"], by=fields["by"], mode=fields["mode"]), to


def _transfer_call(port: CallsPort, req: falcon.Request, resp: falcon.Response, ref: str) -> None:
    if not dry_run.is_asked_for(req):
        _handler(actions.TRANSFER, _transfer)(port, req, resp, ref)
        return
    _raw, fields = read_json(req)
    port.key_of(req)
    call = port.call(ref)
    faults: list[Fault] = []
    to: Number | None = None
    try:
        _action, to = _read_transfer(port, actions.TRANSFER, fields)
    except Refused as refused:
        faults = list(refused.faults)
    if call["state"] != terms.BRIDGED:
        faults.append(Fault("state", "state", f"the call is {call['state']}; expected bridged"))
    elif call.get("consultation") is not None:
        faults.append(Fault("state", "state", "one party asks another: complete or cancel the transfer first"))
    checked = ("to", "mode", "by", "state")
    answer(resp, 200, dry_run.report(port.services, checked, faults, [Charge("", port.client.levels, to)]))


def _check(fields: Mapping[str, Any], expected: Mapping[str, Callable[[Any], str]]) -> None:
    """:raises Refused: lists every fault."""
    if faults := _faults(fields, expected):
        raise Refused(faults)


def _faults(fields: Mapping[str, Any], expected: Mapping[str, Callable[[Any], str]]) -> list[Fault]:
    """Return what is wrong with an action's fields. ``expected``: by field, a function that says what is wrong with a
    value, or returns an empty text."""
    known = f"unknown field; expected {', '.join(expected) or 'none'}"
    faults = [Fault(name[:64], "unknown", known) for name in fields if name not in expected]
    for name, wrong in expected.items():
        if name not in fields:
            faults.append(Fault(name, "required", f"missing; {wrong(None)}"))
        elif message := wrong(fields[name]):
            faults.append(Fault(name, "value", message))
    return faults


def _one_of(values: tuple[str, ...]) -> Callable[[Any], str]:
    return lambda value: "" if value in values else f"expected one of {', '.join(values)}"


def _text(value: Any) -> str:
    right = isinstance(value, str) and 0 < len(value) <= 64
    return "" if right else "expected a number or an extension"


def _keys(value: Any) -> str:
    right = isinstance(value, str) and KEYS.fullmatch(value)
    return "" if right else "expected 1 to 64 of 0-9, *, # and A-D"


# Routes ---------------------------------------------------------------------------------------------------

_KEY = idempotency.parameter(
    "Send it again within 24 hours: nothing more is done, and the answer says the call's state"
)


def _route(
    name: str, operation: str, summary: str, read: Read, body: Any = None, dry: Callable[..., None] | None = None
) -> Route:
    """``dry``: handles the request if it may be a dry run."""
    errors = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503)
    replayed = idempotency.replayed_header("An earlier request with this Idempotency-Key has done it")
    answers = {202: Answer("Done, now or before; the call's state", CallState, headers=replayed)}
    parameters = [in_path("ref", Ref), _KEY]
    if dry is not None:
        answers[200] = Answer("A dry run's verdicts", DryRun)
        parameters.append(dry_run.PARAMETER)
    return Route(
        "/click2dial/calls/{ref}/" + name,
        (
            Operation(
                "POST",
                operation,
                summary,
                dry or _handler(name, read),
                scopes=(CALL, OWN_CALL),
                parameters=tuple(parameters),
                body=body,
                answers=answers,
                errors=errors,
            ),
        ),
    )


ROUTES = (
    _route(actions.HOLD, "holdCall", "Play music to the customer; the parties don't hear each other", _nothing),
    _route(actions.RESUME, "resumeCall", "End the hold", _nothing),
    _route(actions.MUTE, "muteParty", "Let the other party hear silence of this one", _party, PartyOrder),
    _route(actions.UNMUTE, "unmuteParty", "End the mute", _party, PartyOrder),
    _route(actions.DIGITS, "sendDigits", "Send keys to a party, as its phone's own (RFC 4733)", _digits, DigitsOrder),
    _route(
        actions.TRANSFER,
        "transferCall",
        "Connect the party that stays with another one, at once or after a consultation; the other party leaves",
        _transfer,
        TransferOrder,
        _transfer_call,
    ),
    _route(actions.COMPLETE, "completeTransfer", "Join the party on hold with the new one; the other leaves", _nothing),
    _route(actions.TAKE_BACK, "cancelTransfer", "Let the new party go; the other two talk again", _nothing),
    _route(
        actions.RECORD,
        "recordCall",
        "Start, pause, resume or stop the recording; a paused one contains silence",
        _step,
        RecordOrder,
    ),
)
