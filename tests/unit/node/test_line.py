"""Place one A-leg on a switch: what each answer of the switch comes to, and what its silence does."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest

from esl_apps.apps.ringing import Rang
from esl_apps.core import causes
from esl_apps.core.attempt import Attempt
from esl_apps.esl.switch import Switch
from esl_apps.node import line as line_module
from esl_apps.node.line import SwitchLine
from esl_apps.node.live import Live
from esl_apps.node.switch_pool import FAULTS
from tests.support.bench import Bench, Build, show_legs, write_cdr
from tests.support.call_switch import C, at, ends
from tests.support.peer import OTHER_UUID, UUID, eventually, reply

ORIGINATE = "originate user/1000@127.0.0.1 &park()"
TWO = ("fs1", "fs2")


class Ringing:
    """A call whose A-leg is being placed."""

    def __init__(self, bench: Bench, patience: float = 5.0, *, phone: bool = False) -> None:
        self.bench = bench
        self.attempt = Attempt(app="click-dial", call_dir="internal")
        self.live: Live = bench.services.calls.begin(self.attempt, bench.services.switches[0])
        self.reaped: list[tuple[str, str]] = []
        services = bench.services
        self.line = SwitchLine(
            self.live,
            services.switch_pool,
            self._reap,
            services.calls.census,
            find_cdr=services.switch_cdr.wait_for,
        )
        self.deadline = time.monotonic() + patience
        self.greenlet = gevent.spawn(self.line.originate, ORIGINATE, self.deadline, phone=phone)

    def _reap(self, switch: Switch, ref: str, cause: str) -> None:
        assert ref == self.attempt.call_ref
        self.reaped.append((switch.name, cause))

    def rings(self, *uuids: str) -> Ringing:
        """Wait until the switch has the originate; its legs ring."""
        eventually(self.bench.originates)
        self.live.rang += tuple(uuids)
        return self

    def leg_ends(self, cause: str, q850: int, uuid: str = UUID, **more: Any) -> None:
        headers: dict[str, Any] = {"variable_esl_call_ref": self.attempt.call_ref, **more}
        self.bench.switch.say(ends(cause, q850, uuid=uuid, **headers))

    def loses_switch(self, core_uuid: str = "core-1") -> Ringing:
        """The connection breaks, and is made again to the process ``core_uuid``."""
        self.bench.switch.core_uuid = core_uuid
        self.bench.switch.drop()
        eventually(lambda: not self.live.switch.connected or "switch_lost" in self.notes)
        return self

    @property
    def notes(self) -> list[str]:
        return [moment.what for moment in self.attempt.timeline]

    @property
    def rang(self) -> Rang:
        rang: Rang = self.greenlet.get(timeout=5)
        return rang


def refused(status: int, reason: str = "") -> dict[str, Any]:
    """The variables of a leg that was refused."""
    headers = {"variable_sip_hangup_disposition": "recv_refuse", "variable_sip_term_status": status}
    return {**headers, **({"variable_sip_reason": reason} if reason else {})}


def test_line_answered_leg_is_named(bench: Bench) -> None:
    ringing = Ringing(bench)
    bench.answer_originate(f"+OK {UUID}\n")
    assert (ringing.rang, ringing.line.answered_uuid) == (Rang("answered"), UUID)
    assert ringing.reaped == []


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("-ERR USER_BUSY\n", 17),
        ("-ERR NO_SUCH_CAUSE\n", causes.NORMAL_UNSPECIFIED),
        ("-ERR\n", causes.NORMAL_UNSPECIFIED),
        ("-USAGE originate\n", causes.NORMAL_UNSPECIFIED),
    ],
)
def test_line_failed_leg_has_its_code(bench: Bench, output: str, code: int) -> None:
    ringing = Ringing(bench)
    bench.answer_originate(output)
    assert ringing.rang == Rang("failed", code)


def test_line_failure_is_read_from_the_legs_own_end(bench: Bench) -> None:
    """The answer to the originate has neither the SIP status nor the Reason header."""
    ringing = Ringing(bench).rings()
    ringing.leg_ends("NORMAL_CLEARING", 16, **refused(486, "Q.850;cause=16"))
    bench.answer_originate("-ERR NORMAL_CLEARING\n")
    assert ringing.rang == Rang("failed", 17)


@pytest.mark.parametrize("word", ["NORMAL_TEMPORARY_FAILURE", "USER_BUSY"])
def test_line_living_phone_counts_next_to_a_dead_one(bench: Bench, word: str) -> None:
    """Which of the two the answer names depends on the order in which they registered (hazard 39)."""
    ringing = Ringing(bench, phone=True).rings()
    ringing.leg_ends("NORMAL_TEMPORARY_FAILURE", 41, uuid=C, **refused(503))
    ringing.leg_ends("USER_BUSY", 17, **refused(486))
    bench.answer_originate(f"-ERR {word}\n")
    assert ringing.rang == Rang("failed", 17)


def test_line_busy_phone_counts_next_to_one_that_never_rang(bench: Bench) -> None:
    ringing = Ringing(bench, patience=0.2, phone=True).rings(UUID)
    ringing.leg_ends("USER_BUSY", 17, **refused(486))
    eventually(lambda: ringing.reaped)
    ringing.leg_ends("NO_ANSWER", 19, uuid=C, variable_sip_hangup_disposition="send_cancel")
    eventually(lambda: len(ringing.live.ends) == 2)
    bench.answer_originate("-ERR NO_ANSWER\n")
    assert ringing.rang == Rang("failed", 17)


def test_line_phone_that_answered_and_left_during_a_stop(bench: Bench) -> None:
    """What the switch said of it is read after the time-out."""
    ringing = Ringing(bench, patience=0.05, phone=True).rings(UUID)
    eventually(lambda: ringing.reaped)
    answered: dict[str, Any] = {"Caller-Channel-Answered-Time": at(3)}
    ringing.leg_ends("NORMAL_CLEARING", 16, **answered)
    bench.answer_originate("-ERR NORMAL_CLEARING\n")
    assert (ringing.rang, ringing.line.answered_uuid) == (Rang("answered"), UUID)


def test_line_switch_that_makes_no_leg_is_full(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "_LATE", 0.02)
    ringing = Ringing(bench, phone=True)
    bench.answer_originate("-ERR DESTINATION_OUT_OF_ORDER\n")
    assert ringing.rang.outcome == "full"


def test_line_same_cause_of_a_leg_that_ended_is_its_own(bench: Bench) -> None:
    ringing = Ringing(bench, phone=True).rings()
    ringing.leg_ends("DESTINATION_OUT_OF_ORDER", 27, **refused(502, "Q.850;cause=27"))
    bench.answer_originate("-ERR DESTINATION_OUT_OF_ORDER\n")
    assert ringing.rang == Rang("failed", 27)


def test_line_job_that_the_switch_refuses_has_failed(bench: Bench) -> None:
    bench.switch.answers["bgapi"] = reply("-ERR no reply")
    assert Ringing(bench).rang.outcome == "failed"


def test_line_phone_that_rings_too_long_is_hung_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "KILLED", 0.01)
    ringing = Ringing(bench, patience=0.02)
    assert ringing.rang == Rang("timed_out", 19, heard=False)
    assert ringing.reaped == [("fs1", "NO_ANSWER")]


def test_line_killed_originate_may_say_so_itself(bench: Bench) -> None:
    ringing = Ringing(bench, patience=0.02)
    eventually(lambda: ringing.reaped)
    assert not ringing.greenlet.dead
    bench.answer_originate("-ERR NO_ANSWER\n")
    assert ringing.rang == Rang("timed_out", 19, heard=False)


def test_line_switch_that_is_away_dials_nothing(build: Build) -> None:
    bench = build()
    ringing = Ringing(bench)
    assert ringing.rang == Rang("away")
    assert "switch_away" in ringing.notes
    assert bench.switch.heard == []


# The switch is lost while the phone rings ---------------------------------------------------------------


def test_line_leg_that_ended_meanwhile_has_failed(bench: Bench) -> None:
    ringing = Ringing(bench).rings(UUID).loses_switch()
    eventually(lambda: ringing.live.switch.connected)
    ringing.leg_ends("USER_BUSY", 17)
    assert ringing.rang == Rang("failed", 17)
    assert ringing.notes.count("switch_lost") == 1


def test_line_leg_that_answered_and_ended_meanwhile_was_answered(bench: Bench) -> None:
    """The agent hung up before a node took the leg: nothing of the phone's failed."""
    ringing = Ringing(bench).rings(UUID).loses_switch()
    eventually(lambda: ringing.live.switch.connected)
    answered: dict[str, Any] = {"Caller-Channel-Answered-Time": at(3)}
    ringing.leg_ends("NORMAL_CLEARING", 16, **answered)
    assert (ringing.rang, ringing.line.answered_uuid) == (Rang("answered"), UUID)


def test_line_leg_whose_end_was_not_heard_is_read_from_its_file(bench: Bench) -> None:
    """The agent answered and hung up before the connection was back, and no event says so."""
    ringing = Ringing(bench).rings(UUID)
    write_cdr(bench, UUID, ref=ringing.attempt.call_ref, answered=3, sip_hangup_disposition="recv_bye")
    ringing.loses_switch()
    assert (ringing.rang, ringing.line.answered_uuid) == (Rang("answered"), UUID)
    assert UUID in ringing.live.ends


def test_line_waits_for_all_phones_of_an_agent(bench: Bench) -> None:
    ringing = Ringing(bench).rings(UUID, OTHER_UUID).loses_switch()
    eventually(lambda: ringing.live.switch.connected)
    ringing.leg_ends("USER_BUSY", 17)
    eventually(lambda: ringing.live.ends)
    gevent.sleep(0.005)
    assert not ringing.greenlet.dead
    ringing.leg_ends("NO_ANSWER", 19, uuid=OTHER_UUID)
    assert ringing.rang.outcome == "failed"


def test_line_leg_whose_socket_came_meanwhile_is_answered(bench: Bench) -> None:
    ringing = Ringing(bench).rings(UUID).loses_switch()
    ringing.live.attached = True
    ringing.live.poke()
    assert ringing.rang == Rang("answered")


def test_line_originate_that_never_arrived_is_lost(bench: Bench) -> None:
    """The connection broke with it in its buffers: no phone rings, however long the node waits."""
    ringing = Ringing(bench).rings().loses_switch()
    assert ringing.rang == Rang("lost")


def test_line_leg_that_has_not_rung_yet_is_waited_for(bench: Bench) -> None:
    ringing = Ringing(bench).rings()
    show_legs(bench.switch, {"Unique-ID": UUID, "variable_esl_call_ref": ringing.attempt.call_ref})
    ringing.loses_switch()
    eventually(lambda: f"api uuid_dump {UUID}" in bench.switch.heard)
    ringing.leg_ends("USER_BUSY", 17)
    assert ringing.rang == Rang("failed", 17)


def test_line_phone_that_rang_to_the_end_while_away_times_out(bench: Bench) -> None:
    ringing = Ringing(bench, patience=0.1).rings(UUID)
    bench.switch.server.stop()
    bench.switch.drop()
    assert ringing.rang == Rang("timed_out", 19)
    assert ringing.reaped == [("fs1", "NO_ANSWER")]


def test_line_switch_that_restarted_has_lost_the_leg(bench: Bench) -> None:
    ringing = Ringing(bench).rings(UUID).loses_switch("core-2")
    assert ringing.rang == Rang("lost")
    assert ringing.reaped == []


def test_line_switch_that_stays_away_is_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "AWAY", 0.02)
    ringing = Ringing(bench).rings(UUID)
    bench.switch.server.stop()
    bench.switch.drop()
    assert ringing.rang == Rang("lost")
    assert ringing.reaped == [("fs1", "NORMAL_CLEARING")]


def test_line_cancelled_while_its_switch_was_away_is_hung_up(bench: Bench) -> None:
    ringing = Ringing(bench).rings(UUID).loses_switch()
    ringing.attempt.cancelled_by = "api"
    ringing.live.poke()
    assert ringing.rang.outcome == "timed_out"
    assert ringing.reaped == [("fs1", "NO_ANSWER")]


# Other switches -----------------------------------------------------------------------------------------


def test_line_goes_to_each_switch_once(build: Build) -> None:
    bench = build(switches=TWO).connect()
    ringing = Ringing(bench)
    assert ringing.line.elsewhere()
    assert (ringing.attempt.switch, ringing.live.core_uuid) == ("fs2", "core-1")
    assert "switch" in ringing.notes
    # If this process dies now, its next run asks the right switch.
    assert [call.switch for call in bench.services.call_log._read()] == ["fs2"]
    assert not ringing.line.elsewhere()
    assert ringing.attempt.switch == "fs2"
    ringing.greenlet.kill()


@pytest.mark.parametrize("output", ["-ERR NETWORK_OUT_OF_ORDER\n", None], ids=["gateway down", "switch away"])
def test_line_faults_in_a_row_take_the_switch_out(build: Build, output: str | None) -> None:
    bench = build()
    if output is not None:
        bench.connect()
    health = bench.services.switch_pool.health["fs1"]
    for count in range(1, FAULTS + 1):
        assert not health.out
        ringing = Ringing(bench)
        if output is not None:
            bench.answer_originate(output, count=count)
        assert ringing.rang.outcome in ("failed", "away")
    assert health.out


@pytest.mark.parametrize(
    ("output", "phone", "out"),
    [
        ("-ERR NORMAL_TEMPORARY_FAILURE\n", True, False),  # a dead registration
        ("-ERR NORMAL_TEMPORARY_FAILURE\n", False, True),  # a gateway
        ("-ERR DESTINATION_OUT_OF_ORDER\n", True, True),  # no session: the switch itself
    ],
)
def test_line_phones_failures_are_not_the_switchs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, output: str, phone: bool, out: bool
) -> None:
    monkeypatch.setattr(line_module, "_LATE", 0.02)
    for count in range(1, FAULTS + 1):
        ringing = Ringing(bench, phone=phone)
        bench.answer_originate(output, count=count)
        assert ringing.rang.outcome != "answered"
    assert bench.services.switch_pool.health["fs1"].out == out


def test_line_answered_leg_shows_that_the_switch_is_well(bench: Bench) -> None:
    outputs = ["-ERR NETWORK_OUT_OF_ORDER\n"] * (FAULTS - 1)
    for count, output in enumerate([*outputs, f"+OK {UUID}\n", *outputs], 1):
        ringing = Ringing(bench)
        bench.answer_originate(output, count=count)
        assert ringing.rang.outcome in ("failed", "answered")
    assert not bench.services.switch_pool.health["fs1"].out
