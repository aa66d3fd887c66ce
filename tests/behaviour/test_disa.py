"""DISA as a caller with a telephone keypad meets it; the same on the sandbox and on a real FreeSWITCH."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

import pytest

from esl_apps.core.dialstring import UNHEARD
from esl_apps.esl import wire
from tests.conftest import on_a_real_switch
from tests.rig.base import PhoneLeg, Rig, Script, eventually
from tests.rig.freeswitch import FreeswitchRig
from tests.support.callers import CALLEE, CALLER, DIALTONE, DISA, DISA_PIN, E164, disa_config
from tests.support.node import Node, RedisServer, asks

CONFIG = disa_config


@pytest.fixture(autouse=True)
def routed(rig: Rig, node: Node) -> None:
    rig.route(DISA, "disa/acme/front", node.config["node"]["listen"])


def dial_in(rig: Rig, did: str = DISA, **script: Any) -> PhoneLeg:
    """Dial a DISA, and wait until it asks for the PIN."""
    leg = rig.outside(CALLER, Script(**script)).dial(did)
    eventually(lambda: asks(rig, "enter_pin"))
    return leg


def test_disa_right_pin_dials_with_two_way_audio(rig: Rig, node: Node, redis: RedisServer) -> None:
    callee = rig.outside(E164, Script(answer_after=0.3, tone=900))
    leg = dial_in(rig, tone=500)
    leg.digits(DISA_PIN)
    assert leg.hears(*DIALTONE)
    leg.digits(CALLEE + "#")
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    assert callee.calls[0].leg.caller_number == "+27115550000"
    assert leg.hears(900)
    assert callee.calls[0].hears(500)
    leg.hangup()
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["hung_up_by"]) == ("answered", 16, "agent"), record
    assert record["ref"] == "disa"
    assert record["extension"] == CALLER
    assert record["number"] == "+27820001234"
    assert record["dial_number"] == "+27115550000"
    assert record["call_dir"] == "external"


@pytest.mark.parametrize(("keyed", "called"), [(CALLEE + "#", E164), ("1000#", "1000")])
def test_disa_shows_the_accounts_number_of_a_withheld_caller(
    rig: Rig, node: Node, redis: RedisServer, keyed: str, called: str
) -> None:
    """FreeSWITCH gives B's leg the privacy of A's. The number that B is shown is the account's, which hides nothing."""
    script = Script(answer_after=0.1, hangup_after=0.3)
    callee = rig.phone(called, script) if called == "1000" else rig.outside(called, script)
    leg = rig.outside(CALLER).dial(DISA, {"Privacy": "id"})
    eventually(lambda: asks(rig, "enter_pin"))
    leg.digits(DISA_PIN + keyed)
    assert redis.pop()["end_reason"] == "answered"
    seen = callee.calls[0].leg
    assert seen.caller_number == "+27115550000"
    assert "privacy=full" not in str(seen.headers)
    assert "privacy" not in seen.headers
    assert CALLER not in str(seen.headers)


def test_disa_first_digit_stops_the_dial_tone(rig: Rig, node: Node, redis: RedisServer) -> None:
    leg = dial_in(rig)
    leg.digits(DISA_PIN)
    assert leg.hears(*DIALTONE)
    leg.digits("0")
    eventually(lambda: not leg.hears(*DIALTONE, within=0.3))
    leg.hangup()
    assert redis.pop()["end_reason"] == "abandoned"


def test_disa_three_wrong_pins_end_the_call(rig: Rig, node: Node, redis: RedisServer) -> None:
    callee = rig.outside(E164)
    leg = dial_in(rig)
    for _ in range(3):
        leg.digits("1111111111")
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.ended_by == "far"
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["number"]) == ("rejected", 21, None)
    assert callee.calls == []


def test_disa_short_pin_with_hash_is_wrong(rig: Rig, node: Node, redis: RedisServer) -> None:
    leg = dial_in(rig)
    leg.digits(DISA_PIN[:4] + "#")
    assert not leg.hears(*DIALTONE, within=1.0)
    leg.digits(DISA_PIN + "#")
    assert leg.hears(*DIALTONE)
    leg.hangup()
    redis.pop()


def test_disa_empty_entry_counts_as_a_try(rig: Rig, node: Node, redis: RedisServer) -> None:
    leg = dial_in(rig)
    leg.digits(DISA_PIN)
    assert leg.hears(*DIALTONE)
    # This one belongs to the PIN, and the tone goes on.
    leg.digits("#")
    assert leg.hears(*DIALTONE)
    for _ in range(2):
        leg.digits("#")
        eventually(lambda: not leg.hears(*DIALTONE, within=0.2))
        assert leg.hears(*DIALTONE)
    leg.digits("#")
    eventually(lambda: leg.leg.ended_at is not None)
    assert redis.pop()["end_reason"] == "rejected"


def test_disa_denied_class_is_refused(rig: Rig, node: Node, redis: RedisServer) -> None:
    premium = rig.outside("27900123456")
    leg = dial_in(rig)
    leg.digits(DISA_PIN + "0900123456#")
    eventually(lambda: leg.leg.ended_at is not None)
    record = redis.pop()
    assert (record["end_reason"], record["end_code"]) == ("rejected", 57)
    assert record["number"] == "+27900123456"
    assert premium.calls == []


def test_disa_emergency_number_is_refused(rig: Rig, node: Node, redis: RedisServer) -> None:
    leg = dial_in(rig)
    leg.digits(DISA_PIN + "112#")
    eventually(lambda: leg.leg.ended_at is not None)
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["number"]) == ("rejected", 57, "112")


def test_disa_star_star_ends_a_talk_for_another_number(rig: Rig, node: Node, redis: RedisServer) -> None:
    first = rig.outside(E164, Script(answer_after=0.1, tone=900))
    second = rig.outside("27831112222", Script(answer_after=0.1, tone=1300))
    leg = dial_in(rig)
    leg.digits(DISA_PIN + CALLEE + "#")
    assert leg.hears(900)
    leg.digits("*")
    # A star that no second one followed goes to the far side.
    eventually(lambda: first.calls[0].received == "*")
    assert leg.hears(900)
    leg.digits("**")
    assert leg.hears(*DIALTONE)
    eventually(lambda: first.calls[0].leg.ended_at is not None)
    leg.digits("0831112222#")
    assert leg.hears(1300)
    second.calls[0].hangup()
    assert leg.hears(*DIALTONE)
    leg.hangup()
    one, two = redis.pop(), redis.pop()
    assert (one["end_reason"], one["hung_up_by"], one["number"]) == ("answered", "agent", "+27820001234")
    assert (two["end_reason"], two["hung_up_by"], two["number"]) == ("answered", "callee", "+27831112222")
    assert one["session_ref"] == two["session_ref"] == one["call_ref"] != two["call_ref"]
    time.sleep(0.1)
    assert redis.client.llen("enigma:notifications:cdr") == 0


def test_disa_busy_number_then_another_connects(rig: Rig, node: Node, redis: RedisServer) -> None:
    busy = rig.outside(E164, Script(reject=486))
    rig.outside("27831112222", Script(answer_after=0.1, tone=900))
    leg = dial_in(rig)
    leg.digits(DISA_PIN + CALLEE + "#")
    eventually(lambda: busy.calls)
    assert leg.hears(*DIALTONE)
    leg.digits("0831112222#")
    assert leg.hears(900)
    leg.hangup()
    one, two = redis.pop(), redis.pop()
    assert (one["end_reason"], one["end_code"]) == ("callee_busy", 17)
    assert two["end_reason"] == "answered"


def test_disa_callers_own_number_is_shown(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route("27115550003", "disa/acme/own", node.config["node"]["listen"])
    callee = rig.outside(E164, Script(answer_after=0.1, hangup_after=0.3))
    leg = dial_in(rig, "27115550003")
    leg.digits(DISA_PIN + CALLEE + "#")
    eventually(lambda: callee.calls)
    # ensure_valid_caller_id: the account may not present a stranger's number, so its own is shown.
    assert callee.calls[0].leg.caller_number == "+27115550000"
    leg.hangup()
    redis.pop()


def test_disa_without_pin_plays_ringing_first(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route("27115550004", "disa/acme/open", node.config["node"]["listen"])
    callee = rig.outside(E164, Script(answer_after=0.1, hangup_after=0.3))
    leg = rig.outside(CALLER).dial("27115550004")
    assert leg.hears(480)
    leg.digits(CALLEE + "#")
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    leg.hangup()
    assert redis.pop()["end_reason"] == "answered"


def test_disa_digits_by_sip_info_are_heard(rig: Rig, node: Node, redis: RedisServer) -> None:
    callee = rig.outside(E164, Script(answer_after=0.1, tone=900))
    leg = dial_in(rig)
    leg.digits(DISA_PIN + CALLEE + "#", method="info")
    eventually(lambda: callee.calls)
    assert leg.hears(900)
    leg.hangup()
    assert redis.pop()["end_reason"] == "answered"


@pytest.mark.parametrize("when", ["pin", "tone", "number", "ringing"])
def test_disa_hangup_in_each_state_leaves_nothing(rig: Rig, node: Node, redis: RedisServer, when: str) -> None:
    callee = rig.outside(E164, Script(answer_after=None))
    leg = dial_in(rig)
    if when != "pin":
        leg.digits(DISA_PIN)
        assert leg.hears(*DIALTONE)
    if when == "number":
        leg.digits("082")
    if when == "ringing":
        leg.digits(CALLEE + "#")
        eventually(lambda: callee.calls)
    leg.hangup()
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["hung_up_by"]) == ("abandoned", 16, "agent")
    assert (record["number"] is None) == (when != "ringing")
    eventually(lambda: rig.live_channels() == 0)


def test_disa_unknown_is_refused_with_a_cause(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route("27115550005", "disa/acme/nosuch", node.config["node"]["listen"])
    leg = rig.outside(CALLER).dial("27115550005")
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.status == 404


@on_a_real_switch
def test_disa_typed_pin_is_left_nowhere(rig: FreeswitchRig, node: Node, redis: RedisServer) -> None:
    tap = rig.listen_events("all")
    rig.outside(E164, Script(answer_after=0.1, hangup_after=0.5))
    leg = dial_in(rig)
    leg.digits(DISA_PIN)
    assert leg.hears(*DIALTONE)
    # No other client got an event with a digit of the PIN.
    assert not re.search(rb"(last_matching_digits|DTMF-Digit)\W+\d", tap.raw)
    leg.digits(CALLEE + "#")
    eventually(lambda: redis.client.llen("enigma:notifications:cdr") == 1)
    leg.hangup()
    eventually(lambda: rig.live_channels() == 0)
    eventually(lambda: list(rig.spool.glob("*.json")) and b"CHANNEL_DESTROY" in tap.raw)
    places = {
        "switch log": rig.log_text(),
        "node log": node.log.read_text(),
        "events": tap.raw.decode(errors="replace"),
        "json cdr": "".join(file.read_text() for file in rig.spool.glob("*")),
    }
    keys = list(redis.client.scan_iter())
    places["redis"] = repr(keys) + "".join(
        redis.client.get(key) or "" for key in keys if redis.client.type(key) == "string"
    )
    for place, text in places.items():
        assert DISA_PIN not in text, place
        assert "RECV DTMF" not in text, place
        assert not re.search(r"digits_dialed\W+\d", text), place
    tap.close()


@on_a_real_switch
def test_disa_pin_typed_over_a_prompt_is_in_no_event(rig: FreeswitchRig, node: Node, redis: RedisServer) -> None:
    tap = rig.listen_events("all")
    leg = dial_in(rig)
    for _ in range(3):
        # A wrong PIN; the next is typed while the prompt about it plays.
        leg.digits("111#")
        time.sleep(1.0)
    leg.digits("4")
    eventually(lambda: leg.leg.ended_at is not None)
    assert redis.pop()["end_reason"] == "rejected"
    eventually(lambda: list(rig.spool.glob("*.json")) and b"CHANNEL_DESTROY" in tap.raw)
    cdrs = "".join(file.read_text() for file in rig.spool.glob("*"))
    assert not re.search(r"last_matching_digits\W+\d", tap.raw.decode(errors="replace") + cdrs)
    tap.close()


def test_disa_session_ends_at_max_session(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route("27115550006", "disa/acme/short", node.config["node"]["listen"])
    leg = dial_in(rig, "27115550006")
    leg.digits(DISA_PIN)
    assert leg.hears(*DIALTONE)
    eventually(lambda: leg.leg.ended_at is not None)
    assert leg.leg.answered_at is not None
    assert leg.leg.ended_at is not None
    # The prompt about it follows.
    assert 2.4 < leg.leg.ended_at - leg.leg.answered_at < 6
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["hung_up_by"]) == ("rejected", 17, "system")


def test_disa_switch_sends_only_events_waited_for(rig: Rig, node: Node) -> None:
    """Send a call's subscriptions. An event carries all headers of its channel, and half of the events only
    said that a variable was set or a key bound."""
    rig.phone("1000", Script(answer_after=0.1, hangup_after=0.5))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        rig.route("27115559999", "raw", f"127.0.0.1:{listener.getsockname()[1]}")
        rig.outside(CALLER, Script()).dial("27115559999")
        call, _ = listener.accept()
    with call:
        call.settimeout(30)
        # The first application of the B-leg has this UUID, too; the second gets one from the switch.
        bleg = "app_uuid=0,execute_on_answer_2=sched_hangup:+60,execute_on_answer_3=set:esl_test=1"
        call.sendall(
            b"connect\n\nlinger 5\n\nfilter Event-Name CHANNEL_EXECUTE_COMPLETE\n\n"
            + f"filter Application-UUID -{UNHEARD}\n\nevent plain CHANNEL_EXECUTE_COMPLETE\n\n".encode()
            + wire.execute("answer", "", "1", lock=True)
            + wire.execute("multiset", "^^|a=1|b=2", UNHEARD, lock=True)
            + wire.execute("set", "c=3", "2", lock=True)
            + wire.execute("set", "continue_on_fail=true", UNHEARD, lock=True)
            + wire.execute("set", "hangup_after_bridge=false", UNHEARD, lock=True)
            + wire.execute("bridge", f"{{{bleg}}}user/1000@127.0.0.1", "3", lock=True)
        )
        heard = b""
        while b"\nApplication-UUID: 3\n" not in heard:
            data = call.recv(65536)
            assert data, heard
            heard += data
        # The other settings took effect all the same.
        assert re.search(rb"\nvariable_b: 2\n", heard)
        call.sendall(wire.execute("hangup", "NORMAL_CLEARING", UNHEARD) + b"exit\n\n")
    assert re.findall(rb"^Application: (\S+)$", heard, re.M) == [b"answer", b"set", b"set", b"bridge"]
