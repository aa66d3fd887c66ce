"""Bridge two legs until one of them ends, and handle a failed dial."""

from __future__ import annotations

import time

from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.leg.state import State
from esl_apps.sandbox.wire import causes, strings
from esl_apps.sandbox.wire.wire import execute_command


def bridge(caller: Channel, leg: Channel) -> None:
    """Join two legs until one of them ends, in the caller's greenlet."""
    switch = caller.switch
    caller.bridge_originator, leg.bridge_originator = True, False
    if leg.answered and not caller.answered:
        caller.answer()
    if not caller.ready:
        leg.hangup(caller.hangup_cause or "ORIGINATOR_CANCEL")
        return
    leg.originating = False
    leg.set("call_uuid", caller.uuid)
    now = int(time.time() * 1_000_000)
    caller.profile.stamp("bridged", now)
    leg.profile.stamp("bridged", now)
    marks = [("Bridge-A-Unique-ID", caller.uuid), ("Bridge-B-Unique-ID", leg.uuid)]
    caller.fire("CHANNEL_BRIDGE", marks)
    for side in (caller, leg):
        side.confirm_transfer(success=True)
    caller.set("bridge_to", leg.uuid)
    leg.set("bridge_to", caller.uuid)
    caller.set("last_bridge_to", leg.uuid)
    leg.set("last_bridge_to", caller.uuid)
    caller.set("bridge_channel", leg.name)
    caller.set("bridge_uuid", leg.uuid)
    caller.set("signal_bond", leg.uuid)
    leg.set("bridge_channel", caller.name)
    leg.set("bridge_uuid", caller.uuid)
    leg.set("signal_bond", caller.uuid)
    if not leg.down:
        leg.enter(State.EXCHANGE_MEDIA)
    caller.partner, leg.partner = leg, caller
    outer, leg.watcher = leg.watcher, caller.sleeper
    switch.shape_changed(caller, leg)
    caller.execute_on("execute_on_bridge")
    for side in (caller, leg):
        if (app := side.get("bridge_pre_execute_app")) and not side.down:
            side.queue_command(execute_command(app, side.get("bridge_pre_execute_data") or "", lock=True))
    try:
        _exchange(caller, leg)
    finally:
        leg.watcher = outer
        caller.bridge_originator = False
        caller.partner = leg.partner = None
        switch.shape_changed(caller, leg)
    _unbridge(caller, leg, marks)


def _exchange(caller: Channel, leg: Channel) -> None:
    # Give an unanswered caller up after bridge_answer_timeout, in whole seconds.
    seconds = strings.number(caller.get("bridge_answer_timeout"))
    limit = int(time.time()) + seconds + 1 if seconds else None
    shown = False
    while caller.ready and not leg.down and leg.state == State.EXCHANGE_MEDIA:
        if leg.answered and not caller.answered:
            caller.answer()
        if not shown and leg.answered and caller.answered:
            # Send each party the other's number for its display.
            shown = True
            leg.set("last_sent_callee_id_name", leg.profile.caller_id_name)
            leg.set("last_sent_callee_id_number", leg.profile.caller_id_number)
            caller.set("last_sent_callee_id_name", leg.profile.callee_id_name)
            caller.set("last_sent_callee_id_number", leg.profile.callee_id_number)
        for near, far in ((caller, leg), (leg, caller)):
            # An application that is run on the leg reads its digits. The caller's may be this bridge.
            while near.digits and not (near is leg and near.broadcast):
                dtmf = near.dequeue_digit()
                # A sensitive digit is read, and goes no further.
                if dtmf is not None and not dtmf.sensitive:
                    far.endpoint.digit(dtmf.digit)
        deadline = None
        if limit is not None and not (caller.answered and leg.answered):
            left = limit - time.time()
            if left <= 0:
                if caller.true("continue_on_answer_timeout"):
                    return
                caller.hangup("ALLOTTED_TIMEOUT")
                return
            deadline = time.monotonic() + left
        caller.drain_events()
        leg.drain_events()
        caller.idle(deadline)


def _unbridge(caller: Channel, leg: Channel, marks: list[tuple[str, str]]) -> None:
    caller.set("bridge_to", None)
    leg.set("bridge_to", None)
    if leg.state == State.EXCHANGE_MEDIA:
        _release(leg)
    if caller.down:
        leg.set("bridge_hangup_cause", caller.hangup_cause)
    if leg.down:
        caller.set("bridge_hangup_cause", leg.hangup_cause)
    leg.set("call_uuid", leg.uuid)
    caller.fire("CHANNEL_UNBRIDGE", marks)
    cause = leg.hangup_cause or "NORMAL_CLEARING"
    if caller.down or caller.transferring:
        return
    if not leg.answered:
        handle_cause(caller, cause)
    hangup_after = caller.get("hangup_after_bridge")
    if (hangup_after or "").lower() == "explicit":
        caller.hangup(cause)
    if (leg.answered or leg.early_media) and not caller.down:
        if leg.answered and caller.true("park_after_bridge"):
            caller.move(State.PARK)
        elif leg.answered and (where := caller.get("transfer_after_bridge")):
            caller.set("transfer_after_bridge", None)
            parts = [*strings.separate(where, ":"), "", ""][:3]
            caller.transfer(*parts)
        elif leg.answered and strings.true(hangup_after):
            caller.hangup(cause)


def _release(leg: Channel) -> None:
    """Park, transfer or hang up the other party of a bridge that ended."""
    if leg.true("park_after_bridge"):
        leg.move(State.PARK)
    elif where := leg.get("transfer_after_bridge"):
        leg.set("transfer_after_bridge", None)
        parts = [*strings.separate(where, ":"), "", ""][:3]
        leg.transfer(*parts)
    else:
        leg.hangup()


def handle_cause(channel: Channel, cause: str) -> None:
    """Go on after a failed dial, or hang up with its cause."""
    if channel.down:
        return
    if cause != "ATTENDED_TRANSFER":
        keys = (cause.lower(), str(causes.NUMBERS.get(cause, 0)))
        proceed = channel.get("continue_on_fail")
        failures = channel.get("failure_causes")
        if proceed or failures:
            if failures and not any(part.strip().lower() in keys for part in failures.split(",")):
                return
            if proceed and (strings.true(proceed) or any(part.strip().lower() in keys for part in proceed.split(","))):
                return
        elif cause in ("NO_ANSWER", "NO_USER_RESPONSE", "ORIGINATOR_CANCEL"):
            # After no answer the dialplan always goes on.
            return
    channel.hangup(cause)
