"""The words that a call's state, its end and its parties have in records, status and logs."""

from __future__ import annotations

QUEUED, RINGING, AGENT_RINGING, AGENT_ANSWERED = "queued", "ringing", "agent_ringing", "agent_answered"
CALLEE_RINGING, BRIDGED, ENDED = "callee_ringing", "bridged", "ended"
#: ``ringing`` is for callers who ring the agents of a number; the others are for calls that ring A first.
STATES = (QUEUED, RINGING, AGENT_RINGING, AGENT_ANSWERED, CALLEE_RINGING, BRIDGED, ENDED)

ANSWERED, CANCELLED, ABANDONED = "answered", "cancelled", "abandoned"
REJECTED, LOST = "rejected", "lost"
AGENT_UNCONFIRMED = "agent_unconfirmed"
#: The values of ``end_reason``.
END_REASONS = (
    ANSWERED,
    *("agent_no_answer", "agent_busy", "agent_failed", AGENT_UNCONFIRMED),
    *("callee_no_answer", "callee_busy", "callee_failed"),
    *(CANCELLED, ABANDONED, REJECTED, LOST),
)

AGENT, CALLEE, API, SYSTEM = "agent", "callee", "api", "system"


def other_party(party: str) -> str:
    return CALLEE if party == AGENT else AGENT


#: Seconds within which a node must take a leg that it was sent, and milliseconds until the nodes are tried once more.
WATCHDOG, RESTARTED = 8, 3000

#: The global variable of a switch that holds ``node.secret``.
SECRET_VARIABLE = "esl_apps_secret"  # noqa: S105 - a name

#: Global variables of a switch, read in place of those of a leg that runs no application yet. If an INVITE with
#: Replaces takes such a leg's place, FreeSWITCH runs on the sender's channel what they name; without them, what the
#: sender has dialled, ``system:…`` included (hazard 47).
IN_PLACE = {"current_application": "hangup", "current_application_data": "CALL_REJECTED"}
