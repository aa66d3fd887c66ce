"""A switch's profiles and contexts: can agents' phones transfer, and can others?"""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from esl_apps.cli.transfer_profiles import gateways_of, has_context, open_profiles, profiles_for_anyone
from tests.support import ROOT


def sofia(**profiles: str) -> str:
    made = [
        f'<profile name="{name}"><gateways><gateway name="{name}-gw"/></gateways>'
        f'<settings><param name="disable-transfer" value="{value}"/></settings></profile>'
        for name, value in profiles.items()
    ]
    return f"<configuration><profiles>{''.join(made)}</profiles></configuration>"


def test_transfer_profiles_are_those_of_dialled_gateways() -> None:
    xml = sofia(external="false", other="no", safe="true")
    assert open_profiles(xml, ["external-gw", "safe-gw"]) == ["external"]
    assert open_profiles(xml, []) == []


@pytest.mark.parametrize("value", ["true", "Yes", "1"])
def test_transfer_profiles_read_true_as_the_switch_does(value: str) -> None:
    assert open_profiles(sofia(external=value), ["external-gw"]) == []


def test_transfer_profiles_of_no_xml_raise() -> None:
    with pytest.raises(ElementTree.ParseError):
        open_profiles("-ERR", ["pstn"])


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


def test_gateways_of_dial_strings() -> None:
    assert gateways_of(["sofia/gateway/pstn/{number}", "sofia/internal/{number}@x"]) == {"pstn"}


def test_shipped_context_is_recognised() -> None:
    assert has_context((ROOT / "dialplan" / "00_esl_apps_refer.xml").read_text())
    assert not has_context("can't find anything\n")
