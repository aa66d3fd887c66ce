"""A call's events as the scripts of the store read them."""

from __future__ import annotations

import json

import msgspec

from esl_apps.apps import inbound, rung_agents
from esl_apps.core import call_events, terms
from esl_apps.core.attempt import Attempt, Moment
from esl_apps.core.call import Bridged, Leg
from esl_apps.core.call_events import Noted, Searched, Wanted
from esl_apps.testing import PLAN


def test_each_group_of_ringing_agents_is_an_event_of_its_own() -> None:
    attempt = Attempt(app="inbound", call_dir="inbound", queued_at=1000.0)
    attempt.agents = [{"agent": "1000", "seconds": 0, "end_reason": None, "end_code": None}]
    for number, agent in enumerate(("1000", "1001", "1002")):
        attempt.ring([agent], 1001.0 + number)
    attempt.enter(terms.BRIDGED, 1005.0)
    noted: list[Noted] = [moment for moment in attempt.timeline if moment.what in terms.STATES]
    call, *lines = call_events.written(attempt, noted).split("\n")
    ranks = [int(line.split(" ", 1)[0]) for line in lines]
    assert ranks == sorted(set(ranks))
    states = [json.loads("{" + line.split(" ", 2)[2] + "}")["state"] for line in lines]
    assert states == ["queued", "ringing", "ringing", "ringing", "bridged"]
    assert ranks[-1] < call_events.of_answer(attempt, 5).rank
    assert json.loads(call)["agents"][0]["agent"] == "1000"


def test_ringing_is_written_at_a_node_that_adopted_it() -> None:
    attempt = Attempt(app="inbound", call_dir="inbound", queued_at=1000.0, state=terms.RINGING)
    adopted = Moment(1000.0, terms.RINGING)  # the timeline is that of the process that is gone
    attempt.ring(["1001"], 1009.0)
    _call, *lines = call_events.written(attempt, [adopted, attempt.timeline[-1]]).split("\n")
    caught_up, rings = (int(line.split(" ", 1)[0]) for line in lines)
    first = Attempt(app="inbound", call_dir="inbound", queued_at=1000.0)
    first.ring(["1000"], 1001.0)
    (_call, rang) = call_events.written(first, [first.timeline[-1]]).split("\n")
    assert caught_up < int(rang.split(" ", 1)[0]) < rings


def test_agents_hear_of_an_inbound_call_from_ringing_to_its_end() -> None:
    """1000 rings first, then 1001, who answers."""
    attempt = Attempt(app="inbound", call_dir="inbound", extension="1000", queued_at=1000.0)

    def heard() -> dict[str | None, bool]:
        call, line = call_events.written(attempt, [attempt.timeline[-1]]).split("\n")
        event = msgspec.json.decode("{" + line.split(" ", 2)[2] + "," + call[1:], type=Searched)
        return {agent: Wanted(agent).takes(event) for agent in (None, "1000", "1001", "1002")}

    first = {None: True, "1000": True, "1001": False, "1002": False}
    both = {**first, "1001": True}
    rung_agents.ask(attempt, [PLAN.read("1000")])
    attempt.ring(["1000"], 1001.0)
    assert heard() == first
    rung_agents.fared(attempt, [], Bridged(False, 19, timed_out=True))
    rung_agents.ask(attempt, [PLAN.read("1001")])
    attempt.ring(["1001"], 1021.0)
    assert heard() == both
    inbound.agent_answered(attempt, 1025.0, Leg("B", user="1001"), lambda *_: None)
    assert attempt.extension == "1001"
    assert heard() == both
    attempt.end(terms.ANSWERED, 16, terms.AGENT, 1030.0)
    assert heard() == both
