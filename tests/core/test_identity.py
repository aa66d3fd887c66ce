"""Who a SIP header says is calling, and whether it was verified."""

from __future__ import annotations

import pytest

from esl_apps.core import identity


@pytest.mark.parametrize(
    ("header", "user"),
    [
        ("<sip:+27825556666@127.0.0.1>", "+27825556666"),
        ('"Name" <sip:0825556666@host;user=phone>;party=calling', "0825556666"),
        ("<tel:+27825556666;verstat=TN-Validation-Passed>", "+27825556666"),
        ("<sip:+27825556666;verstat=TN-Validation-Passed-A@host;user=phone>", "+27825556666"),
        ("sip:0825556666@host;party=calling", "0825556666"),
        # As FreeSWITCH keeps P-Asserted-Identity.
        ("+27825556666;verstat=TN-Validation-Passed", "+27825556666"),
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
