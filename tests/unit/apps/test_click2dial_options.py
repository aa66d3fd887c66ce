"""Click-to-dial's optional fields, from the request to the two legs, the record, and another process."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest

from esl_apps.apps import click2dial
from esl_apps.apps.ringing import Rang, ring_aleg
from esl_apps.core import dialstring
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Leg
from esl_apps.core.call_options import OPTIONS
from esl_apps.core.faults import Refused
from esl_apps.core.notification import cdr_payload
from esl_apps.core.order import IntegratorRules
from esl_apps.core.status import snapshot
from esl_apps.sandbox.wire.strings import brackets, separate
from esl_apps.store.essence import Essence, essence, restored
from esl_apps.testing import PLAN, SETTINGS, ScriptedCall, ScriptedPolicy, ended, host, talks
from tests.support.dial_strings import ATTACKS

CLIENT = IntegratorRules(
    "acme", PLAN, agent_timeout=30, callee_timeout=60, longest=600, record=True, names=True, headers=["X-Lead"]
)
POLICY = ScriptedPolicy(clients={"acme": CLIENT})
FIELDS = {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"}


def click(**options: Any) -> click2dial.ClickCall:
    return click2dial.new_call(CLIENT.read({**FIELDS, **options}), CLIENT, SETTINGS)


def run(call: click2dial.ClickCall, policy: ScriptedPolicy = POLICY) -> tuple[ScriptedCall, Attempt]:
    """Run a call whose agent and callee answer."""
    script = ScriptedCall([talks()], ended(b=Leg("B", answered_at=1005.0, ended_at=1010.0, q850=16)))
    call.answered(script, policy, host([]))
    return script, call.attempt


class Phone:
    """``Originator``: notes when the agent has to have answered."""

    def __init__(self) -> None:
        self.seconds = math.nan

    def originate(self, command: str, deadline: float, *, phone: bool) -> Rang:
        self.seconds = deadline - time.monotonic()
        return Rang("answered")

    def is_lost(self) -> bool:
        return False

    def elsewhere(self) -> bool:
        return False


@pytest.mark.parametrize(("options", "seconds"), [({}, 30), ({"agent_timeout": 7.5}, 7.5), ({"agent_timeout": 90}, 90)])
def test_agent_timeout_bounds_the_ringing_of_the_agent(options: dict[str, Any], seconds: float) -> None:
    phone, call = Phone(), click(**options)
    ring_aleg(phone, call.attempt, call.aleg(POLICY, "socket(127.0.0.1:8084/click2dial async full)"))
    assert phone.seconds == pytest.approx(seconds, abs=0.5)


@pytest.mark.parametrize(
    ("options", "timeout", "longest"),
    [({}, 60, 600), ({"callee_timeout": 5}, 5, 600), ({"max_duration": 20}, 60, 20)],
)
def test_callees_leg_keeps_the_requests_times(options: dict[str, Any], timeout: float, longest: float) -> None:
    ((_leg, _endpoints, waited, talked),) = run(click(**options))[0].did("bridge")
    assert (waited, talked) == (pytest.approx(timeout, abs=0.5), longest)


@pytest.mark.parametrize(("options", "recorded"), [({}, True), ({"record": True}, True), ({"record": False}, False)])
def test_record_false_records_nothing(options: dict[str, Any], recorded: bool) -> None:
    call, attempt = run(click(**options))
    leg = call.did("bridge")[0][0]
    assert ("execute_on_answer" in leg) is recorded
    assert attempt.record is not None
    assert (attempt.record.recording_url is not None) is recorded


def test_metadata_is_in_the_status_and_the_record() -> None:
    metadata = {"lead": "7 \u00e9\0\n", "b": ""}
    _call, attempt = run(click(metadata=metadata))
    shown = snapshot(attempt)
    assert shown["metadata"] == shown["record"]["metadata"] == metadata


@pytest.mark.parametrize("payload", ["v2", "v3", "v4"])
def test_metadata_is_in_every_payload_if_the_request_had_it(payload: str) -> None:
    metadata = {"lead": "7 \u00e9\0\n"}
    made = run(click(metadata=metadata))[1].record, run(click())[1].record
    shown = [cdr_payload(record, payload=payload)["payload"].get("metadata", "no key") for record in made if record]
    assert shown == [metadata, None if payload == "v4" else "no key"]


def test_names_are_shown_on_the_phones() -> None:
    call = click(callee_name="Zo\u00eb", outbound_name="Acme 100%")
    assert call.aleg(POLICY, "socket(x)").variables["origination_caller_id_name"] == "Zo%C3%AB"
    leg = run(call)[0].did("bridge")[0][0]
    assert leg["origination_caller_id_name"] == "Acme%20100%25"
    # Some phones are told again once the callee has answered.
    assert leg["origination_callee_id_name"] == "Zo%C3%AB"


def test_agent_outside_is_not_shown_who_the_callee_is() -> None:
    variables = click(agent="0831112222", callee_name="Zo\u00eb").aleg(POLICY, "socket(x)").variables
    assert variables["origination_caller_id_name"] == variables["origination_caller_id_number"] == "27115550000"


def places(leg: Mapping[str, str], endpoint: str) -> None:
    """Check that each variable and the endpoint come out of FreeSWITCH's tokenisers as they went in."""
    words = separate(dialstring.originate(leg, endpoint, "socket(x)"), " ")
    found = brackets(words[1], "{", "}", ",")
    assert len(words) == 3
    assert found is not None
    assert found[1] == endpoint
    given = {name: unquote(value) for name, value in leg.items() if value}
    assert {name: unquote(value) for name, value in found[0].items()} == given


def hostile(name: str) -> Iterator[click2dial.ClickCall]:
    """The calls that come of attacks in a field."""
    for text in ATTACKS:
        for value in (text, {text: "a"}, {"a": text}, {"agent": {"X-Lead": text}}, {"callee": {"X-Lead": text}}):
            with suppress(Refused):
                yield click(**{name: value})


@pytest.mark.parametrize("name", OPTIONS)
def test_attack_in_an_option_stays_in_its_place(name: str) -> None:
    for call in hostile(name):
        places(call.aleg(POLICY, "socket(x)").variables, "user/1000@127.0.0.1")
        script, _attempt = run(call)
        places(script.did("bridge")[0][0], "sofia/gateway/pstn/0820001234")
        assert [endpoint for endpoint, _user in script.did("bridge")[0][1]] == ["sofia/gateway/pstn/0820001234"]


def test_headers_go_to_their_leg_and_arrive_unchanged() -> None:
    value = "00Q5g a=1;b=2 (x) 5%"
    call = click(headers={"agent": {"X-Lead": value}, "callee": {"X-Lead": "7 8"}})
    command = dialstring.originate(call.aleg(POLICY, "socket(x)").variables, "user/1000", "socket(x)")
    found = brackets(separate(command, " ")[1], "{", "}", ",")
    assert found is not None
    assert found[0]["sip_h_X-Lead"] == value
    leg = run(call)[0].did("bridge")[0][0]
    found = brackets(dialstring.bridge(leg, [("user/1001", None)]), "{", "}", ",")
    assert found is not None
    assert found[0]["sip_h_X-Lead"] == "7 8"


def test_ringback_replaces_the_operators() -> None:
    tone = "%(400,200,400,450);%(400,2000,400,450)"
    call = click(ringback=tone)
    assert call.aleg(POLICY, "socket(x)").variables["transfer_ringback"] == tone
    assert click().aleg(POLICY, "socket(x)").variables["transfer_ringback"] == SETTINGS.ringback


def test_call_in_another_process_keeps_its_options() -> None:
    call = click(agent_timeout=9, callee_timeout=5, max_duration=20, record=False, metadata={"lead": "7"})
    kept = msgspec.json.decode(msgspec.json.encode(essence(call.attempt, None)), type=Essence)
    variables = dict(call.aleg(POLICY, "socket(x)").variables)
    again = click2dial.restore(restored(kept), ScriptedCall(variables=variables), POLICY)
    assert again is not None
    script, attempt = run(again)
    ((leg, _endpoints, timeout, longest),) = script.did("bridge")
    assert (timeout, longest) == (pytest.approx(5, abs=0.5), 20)
    assert "execute_on_answer" not in leg
    assert attempt.metadata == {"lead": "7"}


def test_digits_are_sent_once_the_callee_answers() -> None:
    leg = run(click(callee="+27 82 000 1234,,12#"))[0].did("bridge")[0][0]
    assert leg["execute_on_answer_3"] == "send_dtmf:WWWW12#"
    assert not any(value.startswith("send_dtmf") for value in run(click())[0].did("bridge")[0][0].values())


@pytest.mark.parametrize(("carried", "found"), [(None, ",12#"), ("%2C1", ",1"), ("1%0A", None), ("1;", None)])
def test_digits_in_another_process_are_those_of_the_leg(carried: str | None, found: str | None) -> None:
    call = click(callee="0820001234,12#")
    variables = dict(call.aleg(POLICY, "socket(x)").variables)
    if carried is not None:
        variables["esl_callee_digits"] = carried
    again = click2dial.restore(call.attempt, ScriptedCall(variables=variables), POLICY)
    assert (again.order.digits if again is not None else None) == found


def test_call_whose_stored_options_are_wrong_is_not_restored() -> None:
    call = click(max_duration=20)
    variables = dict(call.aleg(POLICY, "socket(x)").variables)
    call.attempt.order = {"max_duration": "x"}
    assert click2dial.restore(call.attempt, ScriptedCall(variables=variables), POLICY) is None


def test_options_that_a_reload_forbids_dial_no_callee() -> None:
    call = click(max_duration=500)
    tight = IntegratorRules("acme", PLAN, longest=60)
    script, attempt = run(call, replace(POLICY, clients={"acme": tight}))
    assert script.did("bridge") == []
    assert attempt.record is not None
    assert attempt.record.end_reason == "rejected"
