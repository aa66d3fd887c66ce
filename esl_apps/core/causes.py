"""Q.850 causes, and what they mean for a call.

The numbers are those of ITU-T Q.850, the names those of FreeSWITCH (``switch_types.h``), which uses them in
``Hangup-Cause``, in the answer to ``originate`` and in ``uuid_kill``. FreeSWITCH's own causes, above 127, have a Q.850
number here if their meaning is plain; on the wire they read as 16 (hazard 23).
"""

from __future__ import annotations

NORMAL_CLEARING = 16
USER_BUSY = 17
CALL_REJECTED = 21
NOT_REGISTERED = 20
NORMAL_UNSPECIFIED = 31
BEARER_NOT_AUTHORIZED = 57

#: FreeSWITCH's name → Q.850.
Q850: dict[str, int] = {
    "UNALLOCATED_NUMBER": 1,
    "NO_ROUTE_TRANSIT_NET": 2,
    "NO_ROUTE_DESTINATION": 3,
    "CHANNEL_UNACCEPTABLE": 6,
    "CALL_AWARDED_DELIVERED": 7,
    "NORMAL_CLEARING": 16,
    "USER_BUSY": 17,
    "NO_USER_RESPONSE": 18,
    "NO_ANSWER": 19,
    "SUBSCRIBER_ABSENT": 20,
    "CALL_REJECTED": 21,
    "NUMBER_CHANGED": 22,
    "REDIRECTION_TO_NEW_DESTINATION": 23,
    "EXCHANGE_ROUTING_ERROR": 25,
    "DESTINATION_OUT_OF_ORDER": 27,
    "INVALID_NUMBER_FORMAT": 28,
    "FACILITY_REJECTED": 29,
    "RESPONSE_TO_STATUS_ENQUIRY": 30,
    "NORMAL_UNSPECIFIED": 31,
    "NORMAL_CIRCUIT_CONGESTION": 34,
    "NETWORK_OUT_OF_ORDER": 38,
    "NORMAL_TEMPORARY_FAILURE": 41,
    "SWITCH_CONGESTION": 42,
    "ACCESS_INFO_DISCARDED": 43,
    "REQUESTED_CHAN_UNAVAIL": 44,
    "PRE_EMPTED": 45,
    "FACILITY_NOT_SUBSCRIBED": 50,
    "OUTGOING_CALL_BARRED": 52,
    "INCOMING_CALL_BARRED": 54,
    "BEARERCAPABILITY_NOTAUTH": 57,
    "BEARERCAPABILITY_NOTAVAIL": 58,
    "SERVICE_UNAVAILABLE": 63,
    "BEARERCAPABILITY_NOTIMPL": 65,
    "CHAN_NOT_IMPLEMENTED": 66,
    "FACILITY_NOT_IMPLEMENTED": 69,
    "SERVICE_NOT_IMPLEMENTED": 79,
    "INVALID_CALL_REFERENCE": 81,
    "INCOMPATIBLE_DESTINATION": 88,
    "INVALID_MSG_UNSPECIFIED": 95,
    "MANDATORY_IE_MISSING": 96,
    "MESSAGE_TYPE_NONEXIST": 97,
    "WRONG_MESSAGE": 98,
    "IE_NONEXIST": 99,
    "INVALID_IE_CONTENTS": 100,
    "WRONG_CALL_STATE": 101,
    "RECOVERY_ON_TIMER_EXPIRE": 102,
    "MANDATORY_IE_LENGTH_ERROR": 103,
    "PROTOCOL_ERROR": 111,
    "INTERWORKING": 127,
    # FreeSWITCH's own causes, by their meaning.
    "ORIGINATOR_CANCEL": 16,
    "MANAGER_REQUEST": 16,
    "LOSE_RACE": 16,
    "PICKED_OFF": 16,
    "ATTENDED_TRANSFER": 16,
    "BLIND_TRANSFER": 16,
    "ALLOTTED_TIMEOUT": 19,
    "PROGRESS_TIMEOUT": 19,
    "MEDIA_TIMEOUT": 102,
    "USER_NOT_REGISTERED": 20,
    "USER_CHALLENGE": 21,
    "DECLINE": 21,
    "BUSY_EVERYWHERE": 17,
    "DOES_NOT_EXIST_ANYWHERE": 1,
    "NO_IDENTITY": 21,
    "UNWANTED": 21,
    "GATEWAY_DOWN": 38,
    "INVALID_GATEWAY": 38,
    "INVALID_URL": 28,
    "INVALID_PROFILE": 38,
    "CHAN_UNAVAIL": 38,
    "CRASH": 41,
    "SYSTEM_SHUTDOWN": 41,
}

#: The gateway failed, not the callee, so the next one of the list is worth trying. Never 1, 17 or 21: those are the
#: callee's.
GATEWAY_FAILED = frozenset({34, 38, 41, 42, 44})
_BUSY = frozenset({17})
_NO_ANSWER = frozenset({18, 19, 102})


def q850(cause: str | None) -> int:
    """Return the Q.850 number (1 to 127) of a FreeSWITCH cause name; 31 if the name is unknown or missing."""
    return Q850.get(cause or "", NORMAL_UNSPECIFIED)


def code(number: int) -> int:
    """Return a number as the record may show it: 1 to 127, or 16 for any other (hazard 23)."""
    return number if 1 <= number <= 127 else NORMAL_CLEARING


def failure(number: int) -> str:
    """Return why a leg was not answered, by its Q.850 cause: ``busy``, ``no_answer`` or ``failed``."""
    if number in _BUSY:
        return "busy"
    return "no_answer" if number in _NO_ANSWER else "failed"
