"""Read the caller's number from the INVITE, and whether a STIR/SHAKEN verifier has vouched for it.

Anyone can write anything into an INVITE. From is the caller's own word. P-Asserted-Identity, Remote-Party-ID and a
verdict count only if the packet came from a ``trust`` address; FreeSWITCH itself believes them from any address
(hazard 30). A display name is always the caller's own text: it is shown, and decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from esl_apps.core import display_name
from esl_apps.core.call import Call
from esl_apps.core.number_text import presented

#: Values of ``Privacy`` (RFC 3323) that withhold the number.
_WITHHELD = frozenset({"id", "user", "header", "full"})
#: Headers that FreeSWITCH reads itself → the variables in which it keeps them.
_KEPT = {"p-asserted-identity": "sip_P-Asserted-Identity", "from": "sip_from_user"}
#: A display name, which a caller writes. One that isn't closed goes to the end: otherwise each of its quotes would
#: begin a search of its own, and 32 KB of them take seconds.
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*(?:"|\\?\Z)', re.DOTALL)
_ADDRESS = re.compile(r"(?:sips?|tel):([^@>]*)", re.IGNORECASE)
#: User parts with which a network says that the caller withholds their number (RFC 3323, 3GPP TS 24.229, and habits).
_ANONYMOUS = frozenset({"anonymous", "restricted", "private", "unavailable", "withheld", "unknown"})
_PARTY = re.compile(r";\s*party\s*=\s*(\w+)", re.IGNORECASE)
_VERSTAT = re.compile(r";\s*verstat\s*=\s*([A-Za-z-]+)", re.IGNORECASE)
#: 3GPP TS 24.229 7.2A.20, followed by the attestation level of ATIS-1000074.
_PASSED = re.compile(r"TN-Validation-Passed(?:-([ABC]))?", re.IGNORECASE)


def address_of(call: Call) -> str:
    """Return the address that the INVITE came from; empty for a leg that a node placed."""
    return call.variable("sip_network_ip") or call.header("Caller-Network-Addr") or ""


def caller_of(call: Call, trusted: Callable[[str], bool]) -> str | None:
    """Return the From user, or what a trusted trunk asserts; None if it is withheld or not a number."""
    # FreeSWITCH knows ``Privacy: id`` only. The stricter values of RFC 3323 include it.
    privacy = call.variable("sip_Privacy")
    if privacy and not _WITHHELD.isdisjoint(re.split(r"[;,\s]+", privacy.lower())):
        return None
    if call.header("Caller-Privacy-Hide-Number") == "true":
        return None
    sender = call.variable("sip_from_user")
    if sender is None and call.variable("sip_from_uri") is not None:
        # ``<sip:%00@…>``: FreeSWITCH drops a user that decodes to nothing, and keeps the asserted number only.
        sender = ""
    if sender is None or call.header("Call-Direction") == "outbound":
        # There was no INVITE: a node placed this leg, or it isn't a SIP leg.
        return presented(call.header("Caller-Caller-ID-Number"))
    asserted = _asserted(call) if trusted(address_of(call)) else None
    if asserted is None:
        return presented(sender)
    user = user_of(asserted)
    number = presented(user)
    if number is not None or user.partition(";")[0].lower() in _ANONYMOUS or not user.isprintable():
        return number
    # The trunk asserts a name, such as sip:alice@example.net. From is its word, too.
    return presented(sender)


def name_of(call: Call) -> str:
    """Return the display name in From; empty if there is none."""
    return display_name.shown(call.variable("sip_from_display"))


def is_vouched(call: Call, trusted: Callable[[str], bool]) -> bool:
    """Return whether a trusted trunk asserts the number that :func:`caller_of` returns."""
    return trusted(address_of(call)) and call.header("Call-Direction") != "outbound" and _asserted(call) is not None


def withheld_of(call: Call, trusted: Callable[[str], bool]) -> str | None:
    """Return the number that a trusted trunk asserts of a caller who withholds it. It may be counted, not shown."""
    asserted = _asserted(call) if trusted(address_of(call)) else None
    return None if asserted is None else presented(user_of(asserted))


def _asserted(call: Call) -> str | None:
    """Return the caller that a trunk asserts; None if it asserts none.

    Not Caller-Caller-ID-Number: FreeSWITCH prefers P-Preferred-Identity for it, which is only the caller's wish.
    """
    asserted = call.variable("sip_P-Asserted-Identity")
    if asserted is not None:
        return asserted
    remote = call.variable("sip_Remote-Party-ID")
    return remote if remote is not None and is_calling_party(remote) else None


def is_attested(call: Call, trusted: Callable[[str], bool], header: str, level: str) -> bool:
    """Return whether ``header``, from a trusted address, says that the caller's number was verified.

    ``level``: as for :func:`passed`.
    """
    if not trusted(address_of(call)):
        return False
    variable = _KEPT.get(header.lower())
    said = call.variable(variable) if variable else call.sip_header(header)
    if said is None or not passed(said, level):
        return False
    # A verdict next to an address is about that address, so it must be the caller's.
    number = caller_of(call, trusted)
    return number is not None and (not names_somebody(said) or presented(user_of(said)) == number)


def user_of(header: str) -> str:
    """Return the user part, with its parameters, of ``"N" <sip:+27…;verstat=…@host>`` or ``<tel:+27…>``, or of
    ``+27…;verstat=…``, which is all that FreeSWITCH keeps of P-Asserted-Identity."""
    address = _address(header)
    match = _ADDRESS.match(address)
    return match[1] if match else address


def is_calling_party(remote_party_id: str) -> bool:
    """Return whether a Remote-Party-ID is about the caller. ``party=called`` isn't."""
    match = _PARTY.search(_QUOTED.sub("", remote_party_id))
    return match is None or match[1].lower() == "calling"


def names_somebody(header: str) -> bool:
    """Return whether a header holds an address, not just a verdict."""
    address = _address(header)
    return _ADDRESS.match(address) is not None or re.match(r"\+?[0-9]", address) is not None


def passed(header: str, level: str) -> bool:
    """Return whether a header's ``verstat`` (a parameter, or the whole header) says that the number was verified.

    ``level``: the lowest attestation that is accepted, ``A``, ``B`` or ``C``. A verdict without a level
    (``TN-Validation-Passed``) always is: the verifier has decided.
    """
    bare = _QUOTED.sub("", header).strip()
    match = _VERSTAT.search(bare)
    verdict = _PASSED.fullmatch(match[1] if match else bare.removeprefix("verstat="))
    return verdict is not None and (verdict[1] is None or verdict[1].upper() <= level)


def _address(header: str) -> str:
    """Return the text between angle brackets, or all of a header that has none."""
    bare = _QUOTED.sub("", header)
    return bare.rpartition("<")[2].partition(">")[0] if "<" in bare else bare
