"""Who is calling, by what the INVITE says; and whether a STIR/SHAKEN verifier has vouched for it.

Everybody may write anything into an INVITE. From is the caller's own word; P-Asserted-Identity, Remote-Party-ID and
a verdict count only where the packet came from a ``trust`` address (hazard 30: FreeSWITCH itself believes anybody's). A
display name is the caller's own, whoever sent the packet: nothing is looked for in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from esl_apps.core.call import Call
from esl_apps.core.numbers import presented

#: What in ``Privacy`` (RFC 3323) makes a number a withheld one.
_WITHHELD = frozenset({"id", "user", "header", "full"})
#: Headers that FreeSWITCH reads itself, and the variables in which it keeps what it read.
_KEPT = {"p-asserted-identity": "sip_P-Asserted-Identity", "from": "sip_from_user"}
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')
_ADDRESS = re.compile(r"(?:sips?|tel):([^@>;]*)", re.IGNORECASE)
_PARTY = re.compile(r";\s*party\s*=\s*(\w+)", re.IGNORECASE)
_VERSTAT = re.compile(r";\s*verstat\s*=\s*([A-Za-z-]+)", re.IGNORECASE)
#: 3GPP TS 24.229 7.2A.20, with the attestation's level behind it as ATIS-1000074 adds it.
_PASSED = re.compile(r"TN-Validation-Passed(?:-([ABC]))?", re.IGNORECASE)


def address_of(call: Call) -> str:
    """Where the call's packet came from; empty for a leg of ours."""
    return call.variable("sip_network_ip") or call.header("Caller-Network-Addr") or ""


def caller_of(call: Call, trusted: Callable[[str], bool]) -> str | None:
    """The caller's number: the From user, or what a trusted trunk asserts; None where it is withheld or no number."""
    # FreeSWITCH goes by Remote-Party-ID and ``Privacy: id``; whoever asks for more (RFC 3323) asks for that, too.
    privacy = re.split(r"[;,\s]+", (call.variable("sip_Privacy") or "").lower())
    if call.header("Caller-Privacy-Hide-Number") == "true" or not _WITHHELD.isdisjoint(privacy):
        return None
    sender = call.variable("sip_from_user")
    if sender is None and call.variable("sip_from_uri") is not None:
        # ``<sip:%00@…>``: FreeSWITCH leaves a user that decodes to nothing out, and has the asserted number alone.
        sender = ""
    if sender is None or call.header("Call-Direction") == "outbound":
        # No INVITE came: a leg of ours, or one of another kind.
        return presented(call.header("Caller-Caller-ID-Number"))
    asserted = _asserted(call) if trusted(address_of(call)) else None
    return presented(plain_user(sender) if asserted is None else user_of(asserted))


def _asserted(call: Call) -> str | None:
    """Whom a trunk says is calling; None where it says nothing. Not Caller-Caller-ID-Number: there FreeSWITCH puts
    P-Preferred-Identity before all others, which is only whom the caller would like to be."""
    asserted = call.variable("sip_P-Asserted-Identity")
    if asserted is not None:
        return asserted
    remote = call.variable("sip_Remote-Party-ID")
    return remote if remote is not None and is_calling_party(remote) else None


def is_attested(call: Call, trusted: Callable[[str], bool], header: str, level: str) -> bool:
    """Whether ``header``, from a trusted address, says that the caller's number was verified; ``level``: as
    :func:`passed`."""
    if not trusted(address_of(call)):
        return False
    kept = _KEPT.get(header.lower())
    said = call.variable(kept) if kept else call.sip_header(header)
    if said is None or not passed(said, level):
        return False
    # An address with a verdict in it is vouched for itself, whoever else the message names.
    number = caller_of(call, trusted)
    return number is not None and (not names_somebody(said) or presented(user_of(said)) == number)


def user_of(header: str) -> str:
    """The user part, without its parameters, of ``"N" <sip:+27…;verstat=…@host>``, ``<tel:+27…>``, or
    ``+27…;verstat=…``, which is all that FreeSWITCH keeps of P-Asserted-Identity."""
    address = _address(header)
    found = _ADDRESS.match(address)
    return found[1] if found else plain_user(address)


def plain_user(user: str) -> str:
    """A user part without its parameters."""
    return user.partition(";")[0]


def is_calling_party(remote_party_id: str) -> bool:
    """Whether a Remote-Party-ID is about the caller: ``party=called`` is not."""
    found = _PARTY.search(_QUOTED.sub("", remote_party_id))
    return found is None or found[1].lower() == "calling"


def names_somebody(header: str) -> bool:
    """Whether a header holds an address, and not a bare verdict."""
    address = _address(header)
    return _ADDRESS.match(address) is not None or re.match(r"\+?[0-9]", address) is not None


def passed(header: str, level: str) -> bool:
    """Whether a header's ``verstat`` (a parameter, or the whole header) says that the caller's number was verified.

    ``level``: the least attestation, ``A``, ``B`` or ``C``. A verdict without one (``TN-Validation-Passed``) is
    the verifier's own yes.
    """
    bare = _QUOTED.sub("", header).strip()
    found = _VERSTAT.search(bare)
    verdict = _PASSED.fullmatch(found[1] if found else bare.removeprefix("verstat="))
    return verdict is not None and (verdict[1] is None or verdict[1].upper() <= level)


def _address(header: str) -> str:
    """What stands between the brackets, or the whole of a header without."""
    bare = _QUOTED.sub("", header)
    return bare.rpartition("<")[2].partition(">")[0] if "<" in bare else bare
