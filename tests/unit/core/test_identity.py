"""The caller's number in SIP headers, and whether it was verified."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from esl_apps.core import identity
from esl_apps.testing import ScriptedCall

TRUNK, STRANGER = "10.0.0.1", "192.0.2.1"


def trusted(address: str) -> bool:
    return address == TRUNK


def invite(
    address: str,
    variables: Mapping[str, str] | None = None,
    *,
    sip: Mapping[str, str] | None = None,
    hidden: str = "false",
) -> ScriptedCall:
    """An INVITE from 0845550000, as FreeSWITCH 1.11.1 shows it. ``variables``: without ``sip_``; ``__`` means ``-``."""
    given = {"sip_" + name.replace("__", "-"): value for name, value in (variables or {}).items()}
    return ScriptedCall(
        variables={"sip_from_user": "0845550000", "sip_network_ip": address, **given},
        headers={
            "Call-Direction": "inbound",
            # FreeSWITCH puts the first asserted or preferred number here.
            "Caller-Caller-ID-Number": "0820000000",
            "Caller-Privacy-Hide-Number": hidden,
        },
        sip=dict(sip or {}),
    )


PAI, RPID = "P__Asserted__Identity", "Remote__Party__ID"


@pytest.mark.parametrize(
    ("said", "by_trunk"),
    [
        ({}, "0845550000"),
        ({PAI: "0825556666"}, "0825556666"),
        ({PAI: "+27825556666;verstat=TN-Validation-Passed"}, "+27825556666"),
        ({RPID: '"x" <sip:0825556666@h>;party=calling'}, "0825556666"),
        ({RPID: "<sip:0825556666@h>;party=called"}, "0845550000"),
        ({RPID: '"<sip:0825556666@h>" <sip:0830000000@h>'}, "0830000000"),
        ({PAI: "0825556666", RPID: "<sip:0830000000@h>"}, "0825556666"),
        ({"P__Preferred__Identity": "<sip:0825556666@h>"}, "0845550000"),
        ({PAI: "anonymous", RPID: "<sip:0825556666@h>"}, None),
        ({PAI: "0825556666\n"}, None),
        ({PAI: "0825556666\nsip_from_user: 0830000000"}, None),
        ({"from_user": "+27845550000;verstat=TN-Validation-Failed"}, "+27845550000"),
        ({"from_user": "+27-84-555-0000;npdi;rn=+27110000000"}, "+27845550000"),
        ({"from_user": "5550000;phone-context=+2784"}, "+27845550000"),
        ({RPID: "<tel:555-6666;phone-context=+2782>"}, "+27825556666"),
        # An identity that isn't a number leaves the number in From.
        ({PAI: "alice"}, "0845550000"),
        ({RPID: "<sip:trunk-7@h>"}, "0845550000"),
        ({PAI: ""}, "0845550000"),
        ({PAI: "Anonymous;x=1"}, None),
        ({"from_user": "0825556666\nx"}, None),
        ({"from_user": "alice"}, None),
        ({"Privacy": "id;critical", PAI: "0825556666"}, None),
        ({"Privacy": "none", PAI: "0825556666"}, "0825556666"),
    ],
)
def test_caller_is_the_from_user_or_what_a_trunk_asserts(said: dict[str, str], by_trunk: str | None) -> None:
    assert identity.caller_of(invite(TRUNK, said), trusted) == by_trunk
    # From an untrusted address only From and the wish for privacy count.
    own = {name: value for name, value in said.items() if name in ("from_user", "Privacy")}
    assert identity.caller_of(invite(STRANGER, said), trusted) == identity.caller_of(invite(TRUNK, own), trusted)


def test_hidden_number_is_none_and_no_address_is_not_trusted() -> None:
    assert identity.caller_of(invite(TRUNK, {PAI: "0825556666"}, hidden="true"), trusted) is None
    assert identity.caller_of(invite("", {PAI: "0825556666"}), trusted) == "0845550000"


def test_leg_of_ours_has_the_far_partys_number() -> None:
    call = invite(STRANGER)
    call.headers["Call-Direction"] = "outbound"
    assert identity.caller_of(call, trusted) == "0820000000"


@pytest.mark.parametrize(
    ("header", "said", "sip", "verified"),
    [
        ("P-Asserted-Identity", {PAI: "0825556666;verstat=TN-Validation-Passed-A"}, {}, True),
        ("p-asserted-identity", {PAI: "0825556666;verstat=TN-Validation-Passed"}, {}, True),
        ("P-Asserted-Identity", {PAI: "0825556666;verstat=TN-Validation-Passed-B"}, {}, False),
        ("P-Asserted-Identity", {PAI: "0825556666;verstat=TN-Validation-Failed"}, {}, False),
        ("P-Asserted-Identity", {PAI: "0825556666"}, {}, False),
        ("P-Asserted-Identity", {}, {"P-Asserted-Identity": "<sip:1;verstat=TN-Validation-Passed@h>"}, False),
        ("From", {"from_user": "0845550000;verstat=TN-Validation-Passed-A"}, {}, True),
        # From was verified, but the trunk asserts another caller.
        ("From", {"from_user": "0845550000;verstat=TN-Validation-Passed-A", PAI: "0825556666"}, {}, False),
        ("X-Verstat", {}, {"X-Verstat": "TN-Validation-Passed-A"}, True),
        ("X-Verstat", {PAI: "0825556666"}, {"x-verstat": "TN-Validation-Passed-A"}, True),
        ("X-Verstat", {}, {"X-Verstat": "TN-Validation-Passed-C"}, False),
        ("X-Verstat", {}, {"X-Other": "TN-Validation-Passed-A"}, False),
        ("X-Verstat", {}, {"X-Verstat": "<sip:0825556666@h>;verstat=TN-Validation-Passed-A"}, False),
        ("X-Verstat", {}, {"X-Verstat": "<sip:0845550000@h>;verstat=TN-Validation-Passed-A"}, True),
        ("X-Verstat", {"Privacy": "id"}, {"X-Verstat": "TN-Validation-Passed-A"}, False),
        ("X-Verstat", {"from_user": "alice"}, {"X-Verstat": "TN-Validation-Passed-A"}, False),
    ],
)
def test_is_attested(header: str, said: dict[str, str], sip: dict[str, str], verified: bool) -> None:
    assert identity.is_attested(invite(TRUNK, said, sip=sip), trusted, header, "A") is verified
    assert not identity.is_attested(invite(STRANGER, said, sip=sip), trusted, header, "C")


@pytest.mark.parametrize(
    ("header", "user"),
    [
        ("<sip:+27825556666@127.0.0.1>", "+27825556666"),
        ('"Name" <sip:0825556666@host;user=phone>;party=calling', "0825556666"),
        ("<tel:+27825556666;verstat=TN-Validation-Passed>", "+27825556666;verstat=TN-Validation-Passed"),
        ("<sip:+27825556666;verstat=No@host;user=phone>", "+27825556666;verstat=No"),
        ("sip:0825556666@host;party=calling", "0825556666"),
        # As FreeSWITCH keeps P-Asserted-Identity.
        ("+27825556666;verstat=TN-Validation-Passed", "+27825556666;verstat=TN-Validation-Passed"),
        ("+27825556666", "+27825556666"),
        # A display name is the caller's own.
        ('"<sip:0825556666@a>" <sip:0845550000@b>', "0845550000"),
        ('"sip:0825556666@a\\" <sip:0825556666@a>" <sip:0845550000@b>', "0845550000"),
        ("<sip:anonymous@anonymous.invalid>", "anonymous"),
        ("27825556666\n", "27825556666\n"),
        ("", ""),
    ],
)
def test_user_of(header: str, user: str) -> None:
    assert identity.user_of(header) == user


@pytest.mark.parametrize(
    ("header", "calling"),
    [
        ("<sip:1@a>;party=calling;privacy=off", True),
        ("<sip:1@a>", True),
        ("<sip:1@a>;party=called", False),
        ('"x;party=calling" <sip:1@a>; party=called', False),
        ('"x;party=called" <sip:1@a>;party=calling', True),
    ],
)
def test_is_calling_party(header: str, calling: bool) -> None:
    assert identity.is_calling_party(header) is calling


@pytest.mark.parametrize("name", ['"' + '\\"' * 16_000, '\\"' * 16_000, '"' * 32_001, '"' + "\\\n" * 16_000])
def test_display_name_of_any_length_is_read_at_once(name: str) -> None:
    """A trunk passes on what its callers write. 32 KB of escaped quotes took five seconds, in which no call went on."""
    began = time.process_time()
    assert identity.is_calling_party(name)
    identity.user_of(name)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("header", "levels"),
    [
        ("TN-Validation-Passed", "ABC"),
        ("TN-Validation-Passed-A", "ABC"),
        ("tn-validation-passed-b", "BC"),
        ("TN-Validation-Passed-C", "C"),
        ("verstat=TN-Validation-Passed-A", "ABC"),
        ("+27825556666;verstat=TN-Validation-Passed-B", "BC"),
        ("<sip:+27825556666;verstat=TN-Validation-Passed-A@host;user=phone>", "ABC"),
        ("<sip:+27825556666@host>;verstat=TN-Validation-Passed", "ABC"),
        ("TN-Validation-Failed", ""),
        ("TN-Validation-Failed-A", ""),
        ("No-TN-Validation", ""),
        ("TN-Validation-Passed-D", ""),
        ("TN-Validation-Passed-AA", ""),
        ("A", ""),
        ("true", ""),
        ("", ""),
        ("+27825556666", ""),
        ('"x;verstat=TN-Validation-Passed-A" <sip:+27825556666@host>', ""),
        ('"x;verstat=TN-Validation-Passed-A" <sip:+27825556666;verstat=TN-Validation-Failed@host>', ""),
        ("<sip:+27825556666;noverstat=TN-Validation-Passed@host>", ""),
    ],
)
def test_passed(header: str, levels: str) -> None:
    assert "".join(level for level in "ABC" if identity.passed(header, level)) == levels


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("TN-Validation-Passed-A", False),
        ("verstat=TN-Validation-Passed", False),
        ("+27825556666;verstat=TN-Validation-Passed", True),
        ("<sip:alice;verstat=TN-Validation-Passed@host>", True),
        ('"TN" <tel:+27825556666>', True),
    ],
)
def test_names_somebody(header: str, names: bool) -> None:
    assert identity.names_somebody(header) is names


# Vouching for a number ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "variables", "vouched"),
    [
        (TRUNK, {"P__Asserted__Identity": "+27825556666"}, True),
        (TRUNK, {"Remote__Party__ID": "<sip:+27825556666@trunk>;party=calling"}, True),
        (TRUNK, {"Remote__Party__ID": "<sip:+27825556666@trunk>;party=called"}, False),
        (TRUNK, {}, False),
        (STRANGER, {"P__Asserted__Identity": "+27825556666"}, False),
        (STRANGER, {"Remote__Party__ID": "<sip:+27825556666@trunk>;party=calling"}, False),
    ],
)
def test_number_is_vouched_for_by_a_trunk_alone(address: str, variables: dict[str, str], vouched: bool) -> None:
    call = invite(address, variables)
    assert identity.is_vouched(call, trusted) is vouched
    hidden = invite(address, variables, hidden="true")
    assert identity.caller_of(hidden, trusted) is None
    assert identity.withheld_of(hidden, trusted) == ("+27825556666" if vouched else None)
