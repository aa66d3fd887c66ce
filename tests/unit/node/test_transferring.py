"""Transfers on a node: what the switch is told, what is refused, and both calls' records."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from esl_apps.core import talk
from esl_apps.core.actions import Action, Undone
from esl_apps.core.attempt import Attempt
from esl_apps.node import transferring
from esl_apps.node.live import Live
from esl_apps.prompts import PROMPTS
from tests.support.bench import Bench, Build, click_talk
from tests.support.call_switch import B
from tests.support.peer import UUID, api_response, eventually


def transfer(bench: Bench, live: Live, to: str = "1001", by: str = "agent") -> str:
    state = bench.services.acting.perform(live, Action("transfer", to=to, by=by))
    assert isinstance(state.transfer_ref, str)
    return state.transfer_ref


def refusal(bench: Bench, live: Live, to: str = "1001") -> tuple[int, str, str]:
    with pytest.raises(Undone) as error:
        transfer(bench, live, to)
    return error.value.status, error.value.code, error.value.field


def commands(bench: Bench) -> list[str]:
    names = ("api uuid_setvar", "api uuid_record", "api uuid_audio", "api uuid_transfer")
    return [text.removeprefix("api ") for text in bench.switch.heard if text.startswith(names)]


def test_transferring_moves_the_leg_that_stays(bench: Bench) -> None:
    live = click_talk(bench)
    new = transfer(bench, live)
    settings, *unset, move = commands(bench)
    assert settings.startswith(f"uuid_setvar_multi {B} esl_app=transfer;esl_call_ref={new};")
    assert "esl_apps_nodes=127.0.0.1:8085/transfer\\sasync\\sfull" in settings
    assert unset == [f"uuid_setvar {leg} esl_bleg" for leg in (UUID, B)]
    assert move.startswith(f"uuid_transfer {B} m:^:blind_transfer_ack:true^")
    assert f"api uuid_kill {UUID}" in bench.switch.heard
    record = bench.record()
    assert (record["call_ref"], record["end_reason"], record["hung_up_by"]) == (
        live.attempt.call_ref,
        "answered",
        "agent",
    )
    assert bench.services.calls.live[new].attempt.transferred_from == live.attempt.call_ref


def test_transferring_keeps_the_calls_language(bench: Bench) -> None:
    """Also for the message that the switch plays if no node serves the party."""
    new = transfer(bench, click_talk(bench, language="fr"))
    assert bench.services.calls.live[new].attempt.language == "fr"
    assert f"playback:{PROMPTS}/fr/8000/unavailable.wav" in commands(bench)[0]


def test_transferring_by_the_callee_moves_the_agents_leg(bench: Bench) -> None:
    live = click_talk(bench, muted=["agent"])
    transfer(bench, live, "0820005678", "callee")
    assert f"uuid_audio {UUID} stop" in commands(bench)
    assert commands(bench)[-1].startswith(f"uuid_transfer {UUID} ")


def test_transferring_ends_the_recording_before_the_move(bench: Bench) -> None:
    live = click_talk(bench, recording_url="01900000-0000-7000-8000-000000000000.wav")
    transfer(bench, live)
    assert commands(bench)[-2].startswith(f"uuid_record {B} stop /")


def test_transferring_saves_the_new_call_before_the_move(bench: Bench) -> None:
    seen: list[bool] = []
    live = click_talk(bench)

    def moved(_connection: Any, _command: str) -> bytes:
        seen.append(any('"app":"transfer"' in raw for raw in bench.redis_server.live()))
        return api_response("+OK\n")

    bench.switch.answers["api uuid_transfer"] = moved
    new = transfer(bench, live)
    assert seen == [True]
    assert bench.services.store.call(new) is not None


@pytest.mark.parametrize("to", ["0900123456", "x", "", "0820001234;ext=1", "1001,1002", "112"])
def test_transferring_to_what_may_not_be_dialled_is_422(bench: Bench, to: str) -> None:
    live = click_talk(bench)
    status, _code, field = refusal(bench, live, to)
    assert (status, field) == (422, "to")
    assert commands(bench) == []
    assert live.attempt.transferred_to is None


@pytest.mark.parametrize(("app", "seconds"), [("inbound", 7), ("click-dial", 30), ("dialthrough", 30)])
def test_transferring_keeps_an_inbound_callers_wait(app: str, seconds: int) -> None:
    """Its ``hold_time`` is the wait for an agent, also if the caller was on hold later."""
    old = Attempt(app=app, call_dir="inbound", bridged_at=1000.0, hold_time=7)
    talk.hold(old, 1010.0, on=True)
    transferring.end(old, "agent", 1040.0)
    assert old.record is not None
    assert old.record.hold_time == seconds


def test_transferring_past_a_limit_is_429(build: Build) -> None:
    bench = build(spending={"limits": {"calls_per_day": 1}}).connect()
    transfer(bench, click_talk(bench))
    bench.switch.heard.clear()
    live = click_talk(bench)
    assert refusal(bench, live)[:2] == (429, "limit_reached")
    assert commands(bench) == []
    assert live.attempt.transferred_to is None


def test_transferring_a_leg_that_is_gone_changes_nothing(bench: Bench) -> None:
    bench.switch.answers["api uuid_transfer"] = api_response("-ERR No such channel!\n")
    live = click_talk(bench)
    assert refusal(bench, live)[:2] == (409, "state")
    assert not live.attempt.ended
    assert live.attempt.transferred_to is None
    # The attempt that was begun for it has no record.
    eventually(lambda: len(bench.services.calls.live) == 1)
    assert bench.records() == []


def test_transferring_fault_refuses_and_frees_the_turn(bench: Bench) -> None:
    """An adopted call's recording may be of any name."""
    live = click_talk(bench, recording_url="not-one-of-ours.wav")
    with gevent.Timeout(5):
        assert refusal(bench, live)[:2] == (409, "state")
    eventually(lambda: len(bench.services.calls.live) == 1)
    # The switch may take its legs for the new call's.
    assert not any(text.startswith("api hupall") for text in bench.switch.heard)
    live.attempt.recording = talk.OFF
    with gevent.Timeout(5):
        transfer(bench, live)


def test_transferring_a_leg_that_is_gone_counts_as_no_call(build: Build) -> None:
    bench = build(spending={"limits": {"calls_per_day": 1}}).connect()
    bench.switch.answers["api uuid_transfer"] = api_response("-ERR No such channel!\n")
    assert refusal(bench, click_talk(bench))[:2] == (409, "state")
    bench.services.usage.settle()
    del bench.switch.answers["api uuid_transfer"]
    transfer(bench, click_talk(bench))


def test_transferring_without_the_integrator_is_409(bench: Bench) -> None:
    live = click_talk(bench)
    live.attempt.integrator = "another"
    assert refusal(bench, live)[:2] == (409, "state")
