"""A call whose socket was lost: its end is waited for as long as the switch says that its leg lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest

from esl_apps.core.attempt import Attempt
from esl_apps.node import lost_socket
from esl_apps.node.live import Live
from esl_apps.store import keys
from tests.support.bench import Bench, Build, show_legs
from tests.support.call_switch import ends
from tests.support.peer import OTHER_UUID, UUID, api_response, eventually


def begin(bench: Bench, **fields: Any) -> Live:
    return bench.services.calls.begin(Attempt(app="disa", call_dir="external", **fields), bench.services.switches[0])


def hupalls(bench: Bench) -> list[str]:
    return [text for text in bench.switch.heard if text.startswith("api hupall")]


def find(bench: Bench, live: Live, core_uuid: str | None = "core-1") -> gevent.Greenlet[..., Any]:
    return gevent.spawn(lost_socket.wait_for_end, bench.services, live, UUID, core_uuid)


@contextmanager
def find_until_looked(bench: Bench, live: Live) -> Iterator[None]:
    """Look for an end until the switch was asked several times for the leg."""
    finding = find(bench, live)
    eventually(lambda: looked(bench))
    yield
    finding.kill()


def test_lost_socket_end_heard_already_is_found_at_once(bench: Bench) -> None:
    live = begin(bench)
    headers: dict[str, Any] = {"variable_esl_call_ref": live.attempt.call_ref}
    bench.switch.say(ends("USER_BUSY", 17, uuid=UUID, **headers))
    eventually(lambda: live.ends)
    assert find(bench, live).get(timeout=5).get("Hangup-Cause") == "USER_BUSY"
    assert "api uuid_exists" not in " ".join(bench.switch.heard)


def test_lost_socket_end_is_waited_for_while_the_leg_lives(bench: Bench) -> None:
    live = begin(bench)
    ref = live.attempt.call_ref
    show_legs(bench.switch, {"Unique-ID": UUID, "variable_esl_call_ref": ref})
    finding = find(bench, live)
    eventually(lambda: f"api uuid_exists {UUID}" in bench.switch.heard)
    bench.switch.drop()
    eventually(lambda: bench.switch.heard.count(f"api uuid_exists {UUID}") == 2)
    headers: dict[str, Any] = {"variable_esl_call_ref": ref}
    bench.switch.say(ends("USER_BUSY", 17, uuid=UUID, **headers))
    assert finding.get(timeout=5).get("Hangup-Cause") == "USER_BUSY"


def lose(bench: Bench, monkeypatch: pytest.MonkeyPatch, application: str, *others: dict[str, Any]) -> Live:
    """A caller whose socket is lost, at the second look."""
    monkeypatch.setattr(lost_socket, "PARKED", 0.02)
    monkeypatch.setattr(lost_socket, "_ASK_EVERY", 0.02)
    live = begin(bench)
    own = {"variable_esl_call_ref": live.attempt.call_ref, "variable_current_application": application}
    show_legs(bench.switch, {"Unique-ID": UUID, **own}, *({**own, **other} for other in others))
    return live


def looked(bench: Bench) -> bool:
    return bench.switch.heard.count(f"api uuid_exists {UUID}") >= 4


@pytest.mark.parametrize("application", ["socket", "bridge"])
def test_lost_socket_leg_parked_without_its_socket_is_hung_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, application: str
) -> None:
    """FreeSWITCH keeps it for ever if the connection closes in the instant in which it is parked."""
    live = lose(bench, monkeypatch, application)
    finding = find(bench, live)
    eventually(lambda: hupalls(bench))
    assert hupalls(bench)[0] == f"api hupall NORMAL_TEMPORARY_FAILURE esl_call_ref {live.attempt.call_ref}"
    headers: dict[str, Any] = {"variable_esl_call_ref": live.attempt.call_ref}
    bench.switch.say(ends("NORMAL_TEMPORARY_FAILURE", 41, uuid=UUID, **headers))
    assert finding.get(timeout=5).get("Hangup-Cause") == "NORMAL_TEMPORARY_FAILURE"


def test_lost_socket_leg_that_rings_or_hears_something_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    live = lose(bench, monkeypatch, "bridge", {"Unique-ID": OTHER_UUID, "variable_esl_bleg": "s-1"})
    with find_until_looked(bench, live):
        assert hupalls(bench) == []
    bench.switch.heard.clear()
    live = lose(bench, monkeypatch, "playback")
    with find_until_looked(bench, live):
        assert hupalls(bench) == []


def test_lost_socket_parked_leg_that_goes_on_elsewhere_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    live = lose(bench, monkeypatch, "socket")
    bench.redis_server.client.set(keys.gone_on(live.attempt.call_ref), "r-2 other-process")
    with find_until_looked(bench, live):
        assert hupalls(bench) == []


def test_lost_socket_end_of_a_leg_the_switch_knows_not_is_none(bench: Bench) -> None:
    assert find(bench, begin(bench)).get(timeout=5) is None


def test_lost_socket_switch_that_refuses_is_asked_again(bench: Bench) -> None:
    bench.switch.answers = {"api uuid_exists": api_response("-ERR busy\n")}
    finding = find(bench, begin(bench))
    eventually(lambda: bench.switch.heard.count(f"api uuid_exists {UUID}") == 2)
    show_legs(bench.switch)
    assert finding.get(timeout=5) is None


def test_lost_socket_end_on_a_silent_switch_is_found_on_waking(bench: Bench, impatient: Callable[[], None]) -> None:
    live = begin(bench)
    resumed = bench.switch.stop_at("api uuid_exists")
    finding = find(bench, live)
    eventually(lambda: bench.services.switches[0].reconnects >= 1)
    assert not finding.dead
    impatient()
    show_legs(bench.switch)
    resumed.set()
    assert finding.get(timeout=5) is None


def test_lost_socket_end_on_another_process_is_none(bench: Bench) -> None:
    assert find(bench, begin(bench), "core-0").get(timeout=5) is None


def test_lost_socket_end_on_a_switch_that_stays_away_is_none(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_socket, "AWAY", 0.01)
    bench = build()
    live = begin(bench)
    assert find(bench, live).get(timeout=5) is None
    assert "socket_lost" in [moment.what for moment in live.attempt.timeline]
