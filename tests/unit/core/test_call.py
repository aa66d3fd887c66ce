"""The flow language is a public interface: its names and signatures hold in everything that implements it."""

from __future__ import annotations

import inspect

import pytest

from esl_apps.core import call as call_module
from esl_apps.core.call import API_VERSION, Bridged, Call, CallEnded, Leg
from esl_apps.esl.channel import Channel
from esl_apps.testing import ScriptedCall

METHODS = [name for name, member in vars(Call).items() if inspect.isfunction(member) and not name.startswith("_")]
PROPERTIES = [name for name, member in vars(Call).items() if isinstance(member, property)]


def test_api_version_1_has_these_names() -> None:
    assert API_VERSION[0] == 1
    assert sorted(call_module.__all__) == [
        "API_VERSION",
        "Bridged",
        "Call",
        "CallEnded",
        "Ended",
        "Endpoint",
        "Leg",
        "Progress",
    ]


def test_call_of_api_version_1_has_these_members() -> None:
    """One that is missing breaks the applications that others have written: then the major version changes."""
    assert {
        "answer",
        "bridge",
        "collect",
        "collect_pin",
        "conference",
        "ended",
        "hangup",
        "header",
        "play",
        "play_early",
        "respond",
        "ring",
        "set",
        "sip_header",
        "variable",
        "wait_for_hangup",
    } <= set(METHODS)
    assert {"answered_at", "created_at", "uuid"} <= set(PROPERTIES)


@pytest.mark.parametrize("implementation", [Channel, ScriptedCall])
@pytest.mark.parametrize("method", METHODS)
def test_implementation_has_the_signature_of_call(implementation: type, method: str) -> None:
    def shape(owner: type) -> list[tuple[str, object]]:
        parameters = inspect.signature(getattr(owner, method)).parameters.values()
        return [(parameter.name, parameter.default) for parameter in parameters]

    assert shape(implementation) == shape(Call)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_what_it_does(method: str) -> None:
    assert inspect.getdoc(getattr(Call, method))


@pytest.mark.parametrize(
    ("disposition", "itself"), [("recv_bye", True), ("recv_cancel", True), ("send_bye", False), (None, False)]
)
def test_leg_hung_up_itself_if_its_phone_sent_the_end(disposition: str | None, itself: bool) -> None:
    assert Leg("B", disposition=disposition).hung_up_itself is itself


@pytest.mark.parametrize(
    ("bridged", "failed"),
    [
        (Bridged(False, 41), True),
        (Bridged(False, 17), False),
        (Bridged(False, 41, timed_out=True), False),
        (Bridged(True, 41), False),
    ],
)
def test_gateway_failed_only_if_nothing_was_reached(bridged: Bridged, failed: bool) -> None:
    assert bridged.gateway_failed is failed


def test_call_ended_says_whether_the_switch_was_lost() -> None:
    assert (CallEnded("gone").lost, CallEnded("gone", lost=True).lost) == (False, True)
