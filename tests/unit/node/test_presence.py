"""Whether an agent is there: what the switches say of registrations and channels, and what this node knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from esl_apps.core.attempt import Attempt
from esl_apps.core.dialstring import Endpoints
from esl_apps.esl.answers import ReplyError, SwitchUnavailable
from esl_apps.esl.switch import Switch
from esl_apps.node import presence
from esl_apps.node.presence import Presence
from esl_apps.testing import PLAN, SETTINGS
from tests.support.presence_switch import CONTACT, NOBODY, AnsweringSwitch

REF = "01a20447-2be6-705d-bfcb-64432c6ce89b"


def rung(**more: str) -> dict[str, str]:
    """The channel of a phone that the switch called."""
    return {
        "uuid": "B",
        "direction": "outbound",
        "name": "sofia/internal/1000@192.0.2.7:5060",
        "esl_call_ref": REF,
        **more,
    }


def dials(**more: str) -> dict[str, str]:
    """The channel of someone who calls with 1000 in From."""
    return {"uuid": "A", "direction": "inbound", "name": "sofia/internal/1000@192.0.2.7", **more}


def look(*switches: AnsweringSwitch, own: Attempt | None = None, with_calls: bool = False) -> Presence:
    live = {"ref": SimpleNamespace(attempt=own)} if own is not None else {}
    return presence.look(
        cast("list[Switch]", list(switches)),
        cast(Any, SimpleNamespace(live=live)),
        SETTINGS.endpoints,
        PLAN.read("1000"),
        "acme",
        with_calls=with_calls,
    )


@pytest.mark.parametrize(
    ("contacts", "registered"),
    [((CONTACT,), True), ((NOBODY, CONTACT), True), ((NOBODY, NOBODY), False), ((), None)],
)
def test_agent_is_registered_if_any_switch_says_so(contacts: tuple[str, ...], registered: bool | None) -> None:
    assert look(*map(AnsweringSwitch, contacts)).registered is registered


def test_switch_with_much_to_do_is_not_asked() -> None:
    """A switch works on its commands one after the other, and what places calls would come behind all questions."""
    busy, other = AnsweringSwitch(CONTACT), AnsweringSwitch(CONTACT)
    busy.backlog = presence._BACKLOG
    assert look(busy) == Presence(None, "unknown", [])
    assert busy.asked == []
    assert look(busy, other).registered is True


def test_agent_of_a_switch_that_is_away_is_not_registered() -> None:
    away = AnsweringSwitch(CONTACT)
    away.connected = False
    assert look(AnsweringSwitch(), away).registered is False
    assert away.asked == []


@pytest.mark.parametrize(
    ("channels", "state"),
    [
        ([], "idle"),
        ([rung()], "busy"),
        ([rung(name="sofia/internal/q8h2k1@b4c5.invalid", presence_data="/1000@")], "busy"),
        ([dials(sip_auth_username="1000")], "busy"),
        # Anyone can write an agent's number into From, or into their name.
        ([dials()], "idle"),
        ([dials(sip_auth_username="1001")], "idle"),
        # The list lags behind.
        ([dials(gone="yes")], "idle"),
        ([rung(gone="yes")], "idle"),
        ([rung(presence_data="/1000@", gone="yes"), rung(uuid="C")], "busy"),
        ([rung(name="sofia/external/0820001234", cid_name="/1000@")], "idle"),
        ([rung(name="sofia/internal/x/1000@192.0.2.7", direction="inbound")], "idle"),
    ],
)
def test_agent_is_busy_with_a_channel_of_their_own_phone(channels: list[dict[str, str]], state: str) -> None:
    assert look(AnsweringSwitch(), AnsweringSwitch(CONTACT, *channels)).state == state


def test_flood_of_callers_with_an_agents_number_costs_little() -> None:
    switch = AnsweringSwitch(CONTACT, *[dials(uuid=f"A{n}") for n in range(200)])
    assert look(switch).state == "idle"
    assert len(switch.asked) == 2 + presence._MOST


def placed(**fields: Any) -> Attempt:
    return Attempt(**{"app": "click-dial", "call_dir": "outbound", "integrator": "acme", "extension": "1000", **fields})


def asked_agents(**ended: str) -> Any:
    return [
        {"agent": agent, "seconds": 0, "end_reason": ended.get(f"of_{agent}"), "end_code": None}
        for agent in ("1000", "1001")
    ]


@pytest.mark.parametrize(
    ("own", "state"),
    [
        (placed(), "busy"),
        (placed(extension="1001"), "idle"),
        # A caller shows the agent's number.
        (placed(app="disa", claimed=True), "idle"),
        (placed(app="inbound", extension="1001", agents=asked_agents()), "busy"),
        (placed(app="inbound", extension="1001", agents=asked_agents(of_1000="busy")), "idle"),
        (placed(app="inbound", extension="1001", agents=asked_agents(), bridged_at=1.0), "idle"),
        (placed(app="inbound", agents=None), "busy"),
    ],
)
def test_agent_is_busy_with_a_call_that_no_switch_has_listed(own: Attempt, state: str) -> None:
    assert look(AnsweringSwitch(CONTACT), own=own).state == state


def test_calls_of_an_agent_are_those_of_the_integrator() -> None:
    ours = rung(esl_account_id="acme")
    theirs = rung(uuid="C", esl_account_id="other", esl_call_ref="01a20447-0000-705d-bfcb-64432c6ce89b")
    own = placed()
    found = look(AnsweringSwitch(CONTACT, ours, theirs), AnsweringSwitch(CONTACT, ours), own=own, with_calls=True)
    assert found.calls == [own.call_ref, REF]
    switch = AnsweringSwitch(CONTACT, ours)
    assert look(switch).calls == []
    assert len(switch.asked) == 3


@pytest.mark.parametrize("fault", [SwitchUnavailable("away"), ReplyError("-ERR no database")])
def test_agent_of_a_switch_that_refuses_is_unknown(fault: Exception) -> None:
    found = look(AnsweringSwitch(), AnsweringSwitch(fails=fault))
    assert (found.registered, found.state) == (None, "unknown")
    assert not found.tells("registered")


def test_agent_is_answered_for_in_time_by_a_slow_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "WITHIN", 0.01)
    slow = AnsweringSwitch()
    slow.takes = 60.0
    found = look(AnsweringSwitch(CONTACT), slow)
    assert (found.registered, found.state) == (True, "unknown")
    assert found.tells("registered")
    assert not found.tells("idle")


@pytest.mark.parametrize(
    ("found", "wanted", "reason"),
    [
        (Presence(False, "idle", []), "registered", "not_registered"),
        (Presence(False, "busy", []), "idle", "not_registered"),
        (Presence(True, "busy", []), "idle", "busy"),
        (Presence(True, "busy", []), "registered", None),
        (Presence(None, "busy", []), "idle", "busy"),
        (Presence(True, "idle", []), "idle", None),
    ],
)
def test_presence_lacks_what_was_asked_for(found: Presence, wanted: str, reason: str | None) -> None:
    assert found.lacks(wanted) == reason
    assert found.tells(wanted)


@pytest.mark.parametrize(
    ("template", "argument"),
    [
        ("user/{number}@pbx.example", "*/1000@pbx.example"),
        ("user/{number}", "*/1000"),
        ("sofia/gateway/pbx/{number}", None),
        ("sofia/internal/{number}@192.0.2.7", None),
    ],
)
def test_registration_is_asked_for_as_the_phone_is_dialled(template: str, argument: str | None) -> None:
    endpoints = Endpoints(template, ("sofia/gateway/pstn/{number}",))
    assert endpoints.registration(PLAN.read("1000")) == argument
    assert endpoints.registration(PLAN.read("0820001234")) is None
