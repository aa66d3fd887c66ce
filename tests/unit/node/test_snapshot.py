"""A call as lines of text, and its states as events on the switch."""

from __future__ import annotations

from esl_apps.core import terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.status import snapshot
from esl_apps.node.snapshot import state_event, timeline


def call() -> Attempt:
    attempt = Attempt(
        app="click-dial",
        call_dir="internal",
        extension="1000",
        number="0820001234",
        call_ref="ref-1",
        contact_ref="contact",
        queued_at=1000.0,
    )
    attempt.note("dial", "user/…", at=1000.25)
    attempt.enter(terms.AGENT_RINGING, 1000.5)
    return attempt


def test_timeline_shows_states_and_decisions_in_order() -> None:
    assert timeline(snapshot(call())) == [
        "ref-1  click-dial  1000 -> 0820001234  shown -  contact_ref contact",
        "    0.000  queued",
        "    0.250    dial             user/…",
        "    0.500  agent_ringing",
    ]


def test_state_event_names_the_call_and_its_state() -> None:
    attempt = call()
    text = state_event(attempt, attempt.timeline[-1]).decode()
    assert "Event-Subclass: esl_apps::call" in text
    assert {"esl_call_ref: ref-1", "esl_state: agent_ringing", "esl_at: 1000.500"} <= set(text.splitlines())
    assert "esl_end_reason" not in text


def test_state_event_of_an_end_says_why() -> None:
    attempt = call()
    attempt.end("agent_busy", 17, terms.AGENT, 1001.0)
    lines = state_event(attempt, attempt.timeline[-1]).decode().splitlines()
    assert {"esl_state: ended", "esl_end_reason: agent_busy", "esl_end_code: 17"} <= set(lines)


def test_state_event_of_ringing_agents_names_them() -> None:
    attempt = Attempt(app="inbound", call_dir="inbound")
    attempt.ring(["1000", "1001"], 1001.0)
    assert b"esl_agents: 1000, 1001\n" in state_event(attempt, attempt.timeline[-1])
