"""A switch's profiles and contexts: can agents' phones transfer, and can others?"""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from esl_apps.cli.transfer_profiles import Trunk, has_context, open_profiles, profiles_for_anyone, trunks_of
from tests.support import ROOT


def sofia(**profiles: str) -> str:
    made = [
        f'<profile name="{name}"><gateways><gateway name="{name}-gw"/></gateways>'
        f'<aliases><alias name="{name}-alias"/></aliases>'
        f'<settings><param name="disable-transfer" value="{value}"/></settings></profile>'
        for name, value in profiles.items()
    ]
    return f"<configuration><profiles>{''.join(made)}</profiles></configuration>"


@pytest.mark.parametrize(
    "dialled",
    [
        "sofia/gateway/external-gw/{number}",
        "sofia/gateway/external::external-gw/{number}",
        "sofia/external/{number}@trunk.example;transport=tcp",
        "sofia/external-alias/{plus}@trunk.example",
        "SOFIA/Gateway/external-gw/{number}",
    ],
)
def test_transfer_profiles_are_those_of_dial_strings(dialled: str) -> None:
    xml = sofia(external="false", other="no", safe="true")
    trunks = trunks_of([dialled, "sofia/gateway/safe-gw/{number}", "sofia/safe/{number}@x", "user/{number}@x", ""])
    assert open_profiles(xml, trunks) == ["external"]


@pytest.mark.parametrize("dialled", ["sofia/gateway/other::external-gw/{number}", "loopback/{number}/external"])
def test_transfer_profiles_of_other_dial_strings(dialled: str) -> None:
    assert open_profiles(sofia(external="false", other="no"), trunks_of([dialled])) == []


@pytest.mark.parametrize("value", ["true", "Yes", "1"])
def test_transfer_profiles_read_true_as_the_switch_does(value: str) -> None:
    assert open_profiles(sofia(external=value), [Trunk(None, "external-gw")]) == []


def test_transfer_profiles_of_no_xml_raise() -> None:
    with pytest.raises(ElementTree.ParseError):
        open_profiles("-ERR", [Trunk(None, "pstn")])


@pytest.mark.parametrize(
    ("params", "is_open"),
    [
        ({}, True),
        ({"auth-calls": "false"}, True),
        ({"auth-calls": "true"}, False),
        ({"auth-calls": "false", "apply-inbound-acl": "trunks"}, False),
        ({"apply-inbound-acl": ""}, True),
    ],
)
def test_profiles_for_anyone_have_neither_password_nor_addresses(params: dict[str, str], *, is_open: bool) -> None:
    settings = "".join(f'<param name="{name}" value="{value}"/>' for name, value in params.items())
    xml = f'<configuration><profile name="external"><settings>{settings}</settings></profile></configuration>'
    assert profiles_for_anyone(xml) == (["external"] if is_open else [])


def test_shipped_context_is_recognised() -> None:
    assert has_context((ROOT / "dialplan" / "00_esl_apps_refer.xml").read_text())
    assert not has_context("can't find anything\n")
