"""A call's timeline as lines of text, and its states as events on the switch."""

from __future__ import annotations

from typing import Any

from esl_apps.core import node_clock, terms
from esl_apps.core.attempt import Attempt, Moment
from esl_apps.esl import wire


def timeline(call: dict[str, Any]) -> list[str]:
    """A call's snapshot as lines: states and decisions, in the order of time."""
    lines = [
        f"{call['call_ref']}  {call['app']}  {call['agent'] or '-'} -> {call['callee'] or '-'}"
        f"  shown {call['outbound_id'] or '-'}  contact_ref {call['contact_ref']}"
    ]
    moments = [(entry["at"], entry["state"], entry["detail"]) for entry in call["timeline"]]
    moments += [(entry["at"], f"  {entry['what']}", entry["detail"]) for entry in call["decisions"]]
    start = call["timeline"][0]["at"]
    for at, what, detail in sorted(moments, key=lambda moment: moment[0]):
        lines.append(f"{at - start:9.3f}  {what:<18} {detail}".rstrip())
    return lines


def state_event(attempt: Attempt, moment: Moment) -> bytes:
    """Return the event ``CUSTOM esl_apps::call``, in which ``fs_cli`` shows the states of a call."""
    headers = {
        "esl_call_ref": attempt.call_ref,
        "esl_leg_uuid": attempt.aleg_uuid or "",
        "esl_app": attempt.app,
        "esl_state": moment.what,
        "esl_at": f"{node_clock.shown(moment.at):.3f}",
    }
    if moment.what == terms.RINGING:
        headers["esl_agents"] = moment.detail
    if attempt.record is not None:
        headers["esl_end_reason"] = attempt.record.end_reason
        headers["esl_end_code"] = str(attempt.record.end_code)
    return wire.custom_event("esl_apps::call", headers)
