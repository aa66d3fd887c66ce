"""Who a SIP message says is calling, and whether a STIR/SHAKEN verifier has vouched for it.

What is read here is believed only where the packet came from a ``trust`` address: who asks sees to that. A display
name is the caller's own, whoever sent the packet: nothing is looked for in it.
"""

from __future__ import annotations

import re

_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')
_ADDRESS = re.compile(r"(?:sips?|tel):([^@>;]*)", re.IGNORECASE)
_PARTY = re.compile(r";\s*party\s*=\s*(\w+)", re.IGNORECASE)
_VERSTAT = re.compile(r";\s*verstat\s*=\s*([A-Za-z-]+)", re.IGNORECASE)
#: 3GPP TS 24.229 7.2A.20, with the attestation's level behind it as ATIS-1000074 adds it.
_PASSED = re.compile(r"TN-Validation-Passed(?:-([ABC]))?", re.IGNORECASE)


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
