"""Q.850 causes: how to read one from the end of a leg, and what it means for a call.

The numbers are those of ITU-T Q.850, the names those of FreeSWITCH (``switch_types.h``), which uses them in
``Hangup-Cause``, in the answer to ``originate`` and in ``uuid_kill``. FreeSWITCH's own causes, above 127, have a Q.850
number here if their meaning is plain; on the wire they read as 16 (hazard 23).

Three signals say why a leg ended, and :func:`read` believes them in this order:

1. the Q.850 cause that the far side put into a Reason header,
2. the SIP status of its refusal,
3. FreeSWITCH's own cause.

16 and 31 say nothing about a refusal (hazard 38), so the next signal counts then.
"""

from __future__ import annotations

NORMAL_CLEARING = 16
USER_BUSY = 17
NO_ANSWER = 19
NOT_REGISTERED = 20
CALL_REJECTED = 21
NORMAL_UNSPECIFIED = 31
NETWORK_OUT_OF_ORDER = 38
SWITCH_CONGESTION = 42
BEARER_NOT_AUTHORIZED = 57
INCOMPATIBLE = 88

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
    "NO_PICKUP": 19,
    # The gateway has not reacted in time (``leg_progress_timeout``, which only gateways' legs have).
    "PROGRESS_TIMEOUT": 38,
    "MEDIA_TIMEOUT": 102,
    "USER_NOT_REGISTERED": 20,
    "USER_CHALLENGE": 21,
    "DECLINE": 21,
    "BUSY_EVERYWHERE": 17,
    "DOES_NOT_EXIST_ANYWHERE": 1,
    "REJECT_ALL": 21,
    "NO_IDENTITY": 21,
    "BAD_IDENTITY_INFO": 21,
    "UNSUPPORTED_CERTIFICATE": 21,
    "INVALID_IDENTITY": 21,
    "STALE_DATE": 21,
    "UNWANTED": 21,
    "NOT_ACCEPTABLE": 88,
    "SRTP_READ_ERROR": 88,
    "BOWOUT": 16,
    "GATEWAY_DOWN": 38,
    "INVALID_GATEWAY": 38,
    "INVALID_URL": 28,
    "INVALID_PROFILE": 38,
    "CHAN_UNAVAIL": 38,
    "CRASH": 41,
    "SYSTEM_SHUTDOWN": 41,
}

#: Q.850 → FreeSWITCH's name, of which the switch makes the SIP status and the Reason header of a refusal. It tells its
#: own causes otherwise: 484 and cause 16 of an unknown gateway, say.
NAMES = {number: name for name, number in reversed(Q850.items())}

#: SIP status of a refusal → Q.850, by RFC 3398, section 8.2.6.1. Added are statuses that it leaves open (487, 488, 606)
#: or that are younger: identity (RFC 8224 and 5079), unwanted (RFC 8197), rejected (RFC 8688).
SIP: dict[int, int] = {
    400: 41,
    401: 21,
    402: 21,
    403: 21,
    404: 1,
    405: 63,
    406: 79,
    407: 21,
    408: 102,
    410: 22,
    413: 127,
    414: 127,
    415: 79,
    416: 127,
    420: 127,
    421: 127,
    423: 127,
    428: 21,
    429: 21,
    433: 21,
    436: 21,
    437: 21,
    438: 21,
    480: 18,
    481: 41,
    482: 25,
    483: 25,
    484: 28,
    485: 1,
    486: 17,
    487: 31,
    488: 88,
    500: 41,
    501: 79,
    502: 38,
    503: 41,
    504: 102,
    505: 127,
    513: 127,
    600: 17,
    603: 21,
    604: 1,
    606: 88,
    607: 21,
    608: 21,
}
#: Any other status, by its first digit. A server's failure is worth another gateway; the rest is the callee's.
_SIP_CLASS = {4: NORMAL_UNSPECIFIED, 5: 41, 6: CALL_REJECTED}

#: The gateway failed, not the callee, so the next one of the list is worth trying. Never 1, 17 or 21: those are the
#: callee's.
GATEWAY_FAILED = frozenset({34, 38, 41, 42, 44})
#: Causes of an originate that made no leg because the switch gave it no session: it is at ``max_sessions`` or its
#: session rate, is paused, or shuts down. mod_sofia says 27 then (hazard 39).
NO_SESSION = frozenset({"DESTINATION_OUT_OF_ORDER", "SYSTEM_SHUTDOWN", "CHAN_NOT_IMPLEMENTED"})
#: The leg and the switch have no media in common, or the leg offers none.
NO_MEDIA = frozenset({65, INCOMPATIBLE, 96})
#: As the cause of a refusal.
SAYS_NOTHING = frozenset({NORMAL_CLEARING, NORMAL_UNSPECIFIED})
_BUSY = frozenset({17})
_NO_ANSWER = frozenset({18, 19, 102})
#: Nobody was reached: the gateway failed, or the phone is switched off or away.
UNREACHABLE = GATEWAY_FAILED | {NOT_REGISTERED}


def read(cause: str | None, number: int = 0, *, status: int = 0, reason: str = "", unheard: bool = False) -> int:
    """Return the Q.850 number (1 to 127) that says why a leg ended.

    :param cause: FreeSWITCH's name of it.
    :param number: ``hangup_cause_q850``; 0 if there is none.
    :param status: The SIP status with which the far side refused the leg; 0 if it didn't.
    :param reason: The Reason header of that refusal.
    :param unheard: The leg went through a gateway that sent no response at all. FreeSWITCH reports a 408 of its own.
    """
    if unheard and status == 408:
        return NETWORK_OUT_OF_ORDER
    said = number
    if not 1 <= number <= 127 or number in SAYS_NOTHING:
        # FreeSWITCH also writes 16 as the number of its causes above 127 (hazard 38).
        said = Q850.get(cause or "", code(number) if number else NORMAL_UNSPECIFIED)
    if not status or (_is_q850(reason) and said not in SAYS_NOTHING):
        return said
    return SIP.get(status) or _SIP_CLASS.get(status // 100, said)


def _is_q850(reason: str) -> bool:
    """Return whether FreeSWITCH takes its cause from this header. Else it takes it from the status."""
    return reason.lower().startswith(("q.850", "freeswitch"))


def q850(cause: str | None) -> int:
    """Return the Q.850 number (1 to 127) of a FreeSWITCH cause name; 31 if the name is unknown or missing."""
    return read(cause)


def code(number: int) -> int:
    """Return a number as the record may show it: 1 to 127, or 16 for any other (hazard 23)."""
    return number if 1 <= number <= 127 else NORMAL_CLEARING


def failure(number: int) -> str:
    """Return why a leg was not answered, by its Q.850 cause: ``busy``, ``no_answer`` or ``failed``."""
    if number in _BUSY:
        return "busy"
    return "no_answer" if number in _NO_ANSWER else "failed"


#: The results of ``failure``, the one first that counts most if several users were rung.
MOST_TELLING = ("no_answer", "busy", "failed")


def weight(number: int) -> int:
    """Return how much a leg's cause says about a user whose phones all failed: lower counts first.

    A phone that was busy says more than one that nobody picked up, that more than one that refused, and one that can't
    be reached says least: a dead registration next to a living phone.
    """
    if number in UNREACHABLE:
        return 3
    return ("busy", "no_answer", "failed").index(failure(number))
