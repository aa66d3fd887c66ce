"""Calls in plain words."""

from __future__ import annotations

from typing import Any

import pytest

from esl_apps.core import terms
from esl_apps.operations import words


def test_words_of_an_end_are_for_every_reason() -> None:
    assert tuple(words._ENDS) == terms.END_REASONS


def call(app: str = "click-dial", **fields: Any) -> dict[str, Any]:
    reason, by = fields.pop("reason", "answered"), fields.pop("by", "callee")
    record = {"end_reason": reason, "end_code": 16, "hung_up_by": by}
    return {"app": app, "agent": "1000", "callee": "0820001234", "integrator": "acme", "record": record, **fields}


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        (call(), "The two talked."),
        (call(reason="agent_no_answer"), "The agent didn't answer."),
        (call(reason="callee_busy"), "The callee was busy."),
        (call(reason="abandoned"), "The agent hung up before the callee answered."),
        (call("inbound", reason="agent_no_answer"), "The agent didn't answer."),
        (call("inbound", reason="abandoned"), "The caller hung up before the agent answered."),
        (call("disa", reason="callee_failed"), "The callee couldn't be reached."),
        (call("callback", reason="agent_no_answer", integrator=None), "The first party didn't answer."),
        (call("autodial", reason="agent_busy", integrator=None), "The first party was busy."),
        (call(reason="of_a_later_version"), "of_a_later_version"),
        (call("not-installed", reason="rejected"), "The node refused it."),
    ],
)
def test_end_of_a_call_is_a_sentence(shown: dict[str, Any], sentence: str) -> None:
    assert words.end(shown) == sentence


@pytest.mark.parametrize(
    ("shown", "party"),
    [
        (call(by="agent"), "the agent"),
        (call(by="callee"), "the callee"),
        (call("inbound", by="agent"), "the agent"),
        (call("inbound", by="callee"), "the caller"),
        (call(by="api"), "a client or an operator"),
        (call(by="system"), "the node"),
        (call(by="x"), "x"),
    ],
)
def test_hung_up_by_names_the_party(shown: dict[str, Any], party: str) -> None:
    assert words.hung_up_by(shown) == party


def test_reasons_are_decisions_that_explain_the_end() -> None:
    decisions = [
        {"what": "switch", "at": 1.0, "detail": "fs2 is tried"},
        {"what": "gateway_failed", "at": 2.0, "detail": "cause 38"},
        {"what": "gateway_failed", "at": 3.0, "detail": "cause 38"},
        {"what": "pin_locked", "at": 4.0, "detail": ""},
        {"what": "aleg_ended", "at": 5.1, "detail": "hung up"},
    ]
    timeline = [{"state": "queued", "at": 1.0, "detail": ""}, {"state": "ended", "at": 5.0, "detail": ""}]
    found = words.reasons(call(decisions=decisions, timeline=timeline))
    assert found == ["gateway failed: cause 38", "pin locked"]
    assert words.reasons(call(decisions=decisions[-1:], timeline=timeline[:1])) == ["aleg ended: hung up"]


def test_tone_of_ends_and_words_for_causes() -> None:
    tones = {reason: words.tone(reason) for reason in ("answered", "callee_busy", "abandoned", "rejected", "lost")}
    assert tones == {
        "answered": "good",
        "callee_busy": "missed",
        "abandoned": "missed",
        "rejected": "failed",
        "lost": "failed",
    }
    assert words.cause(17) == "busy"
    assert words.cause(99) == "see the table of Q.850 causes"


@pytest.mark.parametrize(
    ("app", "state", "shown"),
    [
        ("click-dial", "agent_ringing", "The agent is rung"),
        ("click-dial", "callee_ringing", "The callee is rung"),
        ("inbound", "ringing", "The agents are rung"),
        ("disa", "agent_answered", "The caller is there"),
        ("disa", "bridged", "Talking"),
        ("disa", "unheard_of", "unheard_of"),
    ],
)
def test_state_is_said_with_its_party(app: str, state: str, shown: str) -> None:
    assert words.state(call(app, state=state)) == shown


@pytest.mark.parametrize(
    ("app", "state", "detail", "shown"),
    [
        ("click-dial", "agent_answered", "", "1000 answers"),
        ("disa", "agent_answered", "", "the node answers 1000"),
        ("inbound", "ringing", "1000, 1001", "1000, 1001: their phones ring"),
        ("click-dial", "ended", "callee_busy 17", "end_reason callee_busy, end_code 17"),
        ("click-dial", "gateway_failed", "cause 38", "cause 38"),
    ],
)
def test_moment_of_a_timeline_is_told_in_words(app: str, state: str, detail: str, shown: str) -> None:
    assert words.moment(call(app), state, detail) == shown


def transferred(stays: str, **fields: Any) -> dict[str, Any]:
    timeline = [{"state": "agent_answered", "at": 1.0, "detail": f"the {stays} stays"}]
    return call("transfer", timeline=timeline, **fields)


@pytest.mark.parametrize(
    ("stays", "told"),
    [
        ("callee", ["0820001234 stays", "the node dials 1000", "1000 rings", "1000 answers: the two can talk"]),
        (
            "agent",
            ["1000 stays", "the node dials 0820001234", "0820001234 rings", "0820001234 answers: the two can talk"],
        ),
    ],
)
def test_moments_of_a_transfer_name_who_is_rung(stays: str, told: list[str]) -> None:
    shown = transferred(stays)
    moments = [("agent_answered", f"the {stays} stays"), ("dial", ""), ("callee_ringing", ""), ("bridged", "")]
    assert [words.moment(shown, *moment) for moment in moments] == told


@pytest.mark.parametrize(
    ("stays", "there", "rung", "busy", "left"),
    [
        (
            "callee",
            "The callee is there",
            "The agent is rung",
            "The agent was busy.",
            "The callee hung up before the agent answered.",
        ),
        (
            "agent",
            "The agent is there",
            "The callee is rung",
            "The callee was busy.",
            "The agent hung up before the callee answered.",
        ),
    ],
)
def test_transfer_is_told_by_who_stays(stays: str, there: str, rung: str, busy: str, left: str) -> None:
    assert words.state(transferred(stays, state="agent_answered")) == there
    assert words.state(transferred(stays, state="callee_ringing")) == rung
    comes = "agent" if stays == "callee" else "callee"
    assert words.end(transferred(stays, reason=f"{comes}_busy")) == busy
    assert words.end(transferred(stays, reason="abandoned")) == left
    assert words.hung_up_by(transferred(stays, by="agent")) == "the agent"
