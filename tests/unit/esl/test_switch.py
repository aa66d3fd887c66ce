"""The inbound connection to one switch: its start, its commands and events, and its reconnecting."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import gevent
import pytest

from esl_apps.esl import switch as switch_module
from esl_apps.esl.answers import ReplyError, SwitchUnavailable
from esl_apps.esl.switch import Switch
from esl_apps.esl.wire import Event
from tests.support.peer import (
    OTHER_UUID,
    PASSWORD,
    UUID,
    FakeSwitch,
    Peer,
    api_response,
    event,
    eventually,
    goodbye,
    raw_event,
    rejection,
    reply,
)

Connect = Callable[..., Switch]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten back-offs to milliseconds, and ping only if a test asks for it."""
    monkeypatch.setattr(switch_module, "BACKOFF_FIRST", 0.005)
    monkeypatch.setattr(switch_module, "BACKOFF_LAST", 0.02)
    monkeypatch.setattr(switch_module, "PING_EVERY", 60.0)


@pytest.fixture
def connect(fake_switch: FakeSwitch) -> Iterator[Connect]:
    """Yield a function that starts a connection to ``fake_switch``, and by default waits until it is up."""
    started: list[Switch] = []

    def start(password: str = PASSWORD, *, up: bool = True, **more: object) -> Switch:
        switch = Switch("fs1", fake_switch.address, password, **more)  # type: ignore[arg-type]
        started.append(switch)
        switch.start()
        if up:
            assert switch.wait_up(10)
        return switch

    yield start
    for switch in started:
        switch.stop()


def job_uuid(command: str) -> str:
    return next(line[10:] for line in command.split("\n") if line.startswith("Job-UUID: "))


def job_done(uuid: str, output: str) -> bytes:
    return event("BACKGROUND_JOB", {"Job-UUID": uuid}, body=output)


# Coming up --------------------------------------------------------------------------------------------


def test_switch_authenticates_and_subscribes(fake_switch: FakeSwitch, connect: Connect) -> None:
    switch = connect(events="BACKGROUND_JOB CHANNEL_ANSWER", filters=("A 1", "B 2"))
    assert sorted(fake_switch.heard) == sorted(
        [
            f"auth {PASSWORD}",
            "filter A 1",
            "filter B 2",
            "event plain BACKGROUND_JOB CHANNEL_ANSWER",
            "api global_getvar core_uuid",
        ]
    )
    assert switch.connected
    assert switch.core_uuid == "core-1"


def test_switch_filters_before_it_subscribes(fake_switch: FakeSwitch, connect: Connect) -> None:
    """In the other order, events of other nodes' calls would come in between (hazard 7)."""
    connect(filters=("A 1",))
    heard = fake_switch.heard
    assert heard.index("filter A 1") < heard.index("event plain BACKGROUND_JOB")


def test_switch_loses_no_event_after_the_subscription(fake_switch: FakeSwitch, connect: Connect) -> None:
    """It may even come in the same packet as the subscription's reply."""
    fake_switch.answers["event plain"] = reply() + event("CHANNEL_HANGUP_COMPLETE")
    heard: list[Event] = []
    connect(on_event=lambda _switch, one: heard.append(one))
    eventually(lambda: len(heard) == 1)


def test_switch_with_a_wrong_password_is_down_and_says_why(fake_switch: FakeSwitch, connect: Connect) -> None:
    switch = connect("wrong", up=False)
    eventually(lambda: len(fake_switch.connections) > 1)
    assert not switch.connected
    assert switch.last_error == "the switch refused the password"


def test_switch_whose_acl_refuses_says_so(fake_switch: FakeSwitch, connect: Connect) -> None:
    fake_switch.hello = rejection()
    switch = connect(up=False)
    eventually(lambda: len(fake_switch.connections) > 1)
    assert not switch.connected
    assert switch.last_error == "refused by the switch's ACL: Access Denied, go away."


def test_switch_that_refuses_the_subscription_is_down(fake_switch: FakeSwitch, connect: Connect) -> None:
    fake_switch.answers["event plain"] = reply("-ERR no keywords supplied")
    switch = connect(up=False)
    eventually(lambda: len(fake_switch.connections) > 1)
    assert switch.last_error == "the switch refused the subscription"


def test_switch_of_another_protocol_is_down(fake_switch: FakeSwitch, connect: Connect) -> None:
    fake_switch.hello = b"220 mail ESMTP\r\n\n\n"
    switch = connect(up=False)
    eventually(lambda: len(fake_switch.connections) > 1)
    assert switch.last_error == "a frame without Content-Type"


def test_switch_that_says_nothing_is_given_up(
    fake_switch: FakeSwitch, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switch_module, "CONNECT_TIMEOUT", 0.02)
    fake_switch.hello = b""
    switch = connect(up=False)
    eventually(lambda: len(fake_switch.connections) > 1)
    assert "timed out" in switch.last_error


def test_switch_that_says_goodbye_at_once_is_tried_again(fake_switch: FakeSwitch, connect: Connect) -> None:
    connections = fake_switch.connections
    fake_switch.answers["event plain"] = lambda _peer, _text: reply() + (goodbye() if len(connections) == 1 else b"")
    switch = connect(up=False)
    eventually(lambda: len(connections) == 2 and switch.connected)


def test_switch_that_is_unreachable_is_logged_once(
    fake_switch: FakeSwitch, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        connect("wrong", up=False)
        eventually(lambda: len(fake_switch.connections) > 3)
    assert caplog.messages.count("switch_unreachable") == 1


# Commands and replies ---------------------------------------------------------------------------------


def test_switch_send_returns_its_reply(connect: Connect) -> None:
    assert connect().send("linger").data == "+OK"


def test_api_returns_its_output(connect: Connect) -> None:
    assert connect().api(f"uuid_exists {UUID}") == f"+OK uuid_exists {UUID}"


def test_api_error_is_raised_with_its_text(fake_switch: FakeSwitch, connect: Connect) -> None:
    fake_switch.answers["api uuid_kill"] = api_response("-ERR No such channel!\n")
    with pytest.raises(ReplyError, match=r"^-ERR No such channel!$"):
        connect().api(f"uuid_kill {UUID}")


def test_backlog_counts_commands_that_were_given_up(fake_switch: FakeSwitch, connect: Connect) -> None:
    switch = connect()
    resumed = fake_switch.stop_at("api slow")
    for _ in range(3):
        with pytest.raises(SwitchUnavailable):
            switch.api("slow", 0.01)
    assert switch.backlog == 3
    resumed.set()
    switch.api("behind them")
    assert switch.backlog == 0


@pytest.mark.parametrize("text", ["a\n\napi shutdown", "a\rb", "a\0b"])
def test_switch_refuses_a_line_break(fake_switch: FakeSwitch, connect: Connect, text: str) -> None:
    switch = connect()
    before = len(fake_switch.heard)
    for method in (switch.send, switch.api, switch.bgapi):
        with pytest.raises(ValueError, match="line break"):
            method(text)
    assert switch.api("still there") == "+OK still there"
    assert len(fake_switch.heard) == before + 1


def test_switch_gives_each_of_many_its_own_reply(connect: Connect) -> None:
    switch = connect()
    asking = [gevent.spawn(switch.api, f"echo {i}") for i in range(200)]
    gevent.joinall(asking, raise_error=True)
    assert [one.value for one in asking] == [f"+OK echo {i}" for i in range(200)]


def test_switch_late_reply_is_not_the_next_commands(fake_switch: FakeSwitch, connect: Connect) -> None:
    resumed = fake_switch.stop_at("api slow")
    switch = connect()
    with pytest.raises(SwitchUnavailable, match="no reply within"):
        switch.api("slow", timeout=0.02)
    resumed.set()
    assert switch.api("next") == "+OK next"


def test_switch_reply_to_a_posted_frame_takes_its_turn(connect: Connect) -> None:
    switch = connect()
    switch.post_raw(b"sendevent CUSTOM\nEvent-Subclass: esl_apps::call\n\n")
    assert switch.api("next") == "+OK next"


def test_switch_posted_frames_go_out_before_later_commands(fake_switch: FakeSwitch, connect: Connect) -> None:
    switch = connect()
    before = len(fake_switch.heard)
    for number in range(100):
        switch.post_raw(f"sendevent CUSTOM\nn: {number}\n\n".encode())
    eventually(lambda: len(fake_switch.heard) == before + 100)
    for number in range(100, 103):
        switch.post_raw(f"sendevent CUSTOM\nn: {number}\n\n".encode())
        assert switch.api(f"echo {number}") == f"+OK echo {number}"
    said = fake_switch.heard[before:]
    assert said[:100] == [f"sendevent CUSTOM\nn: {number}" for number in range(100)]
    assert said[100:] == [
        text for number in range(100, 103) for text in (f"sendevent CUSTOM\nn: {number}", f"api echo {number}")
    ]


def test_switch_posted_frames_wait_for_one_that_reads_slowly(fake_switch: FakeSwitch, connect: Connect) -> None:
    """They come whole and in their order, whatever is written meanwhile, and in which way."""
    switch = connect()
    resumed = fake_switch.stop_at("api stop")
    texts = ["api stop", *(f"api {number} {'x' * 5_000_000}" for number in range(3)), "api last"]
    asked = None
    for number, text in enumerate(texts):
        switch.post_raw(f"{text}\n\n".encode())
        gevent.sleep(0.005)
        if number == 1:
            asked = gevent.spawn(switch.api, "asked")
            gevent.sleep(0)
    resumed.set()
    assert asked is not None
    assert asked.get(timeout=10) == "+OK asked"
    eventually(lambda: "api last" in fake_switch.heard)
    assert [text[:9] for text in fake_switch.heard if text in texts] == [text[:9] for text in texts]
    assert switch.api("next") == "+OK next"


def test_switch_posted_frames_are_dropped_with_the_connection(fake_switch: FakeSwitch, connect: Connect) -> None:
    switch = connect()
    switch.post_raw(b"sendevent CUSTOM\nold: 1\n\n")
    switch._lost("the test says so")
    switch.post_raw(b"sendevent CUSTOM\nold: 2\n\n")
    fake_switch.drop()
    eventually(lambda: switch.connected)
    assert switch.api("echo new") == "+OK echo new"
    assert not [text for text in fake_switch.heard if "old" in text]


def test_switch_away_fails_commands_and_ignores_posts(connect: Connect) -> None:
    switch = connect("wrong", up=False)
    with pytest.raises(SwitchUnavailable):
        switch.api("x")
    with pytest.raises(SwitchUnavailable):
        switch.bgapi("originate x")
    switch.post_raw(b"sendevent CUSTOM\n\n")


def test_switch_reply_to_nothing_reconnects(fake_switch: FakeSwitch, connect: Connect) -> None:
    switch = connect()
    fake_switch.say(reply())
    eventually(lambda: switch.reconnects == 1 and switch.connected)


def test_switch_writes_of_two_greenlets_do_not_interleave(fake_switch: FakeSwitch, connect: Connect) -> None:
    """A large command blocks half-way. Commands of others meanwhile come after it, complete."""
    resumed = fake_switch.stop_at("api pause")
    switch = connect()
    pausing = gevent.spawn(switch.api, "pause", 10)
    eventually(lambda: "api pause" in fake_switch.heard)
    large = "x" * 20_000_000
    senders = [gevent.spawn(switch.api, text, 10) for text in (large, "small 1", "small 2")]
    gevent.sleep(0.02)
    resumed.set()
    gevent.joinall([pausing, *senders], raise_error=True)
    assert [one[:14] for one in fake_switch.heard if one.startswith("api ")][-3:] == [
        "api " + "x" * 10,
        "api small 1",
        "api small 2",
    ]
    assert senders[0].value == f"+OK {large}"


# Jobs -------------------------------------------------------------------------------------------------


def test_job_has_its_answer(fake_switch: FakeSwitch, connect: Connect) -> None:
    fake_switch.answers["bgapi"] = lambda _peer, text: reply() + job_done(job_uuid(text), "+OK 1234\n")
    assert connect().bgapi("originate user/1000 &park").result(10) == "+OK 1234\n"


def test_job_answer_before_its_reply_counts(fake_switch: FakeSwitch, connect: Connect) -> None:
    fake_switch.answers["bgapi"] = lambda _peer, text: job_done(job_uuid(text), "+OK 1234\n") + reply()
    assert connect().bgapi("originate user/1000 &park").result(10) == "+OK 1234\n"


def test_job_is_answered_once(fake_switch: FakeSwitch, connect: Connect) -> None:
    def twice(_peer: Peer, text: str) -> bytes:
        return reply() + job_done(job_uuid(text), "first") + job_done(job_uuid(text), "second")

    fake_switch.answers["bgapi"] = twice
    told: list[str] = []
    switch = connect()
    job = switch.bgapi("x")
    job.notify(lambda: told.append("told"))
    assert job.result(10) == "first"
    switch.api("behind both")
    assert (job.result(), told) == ("first", ["told"])


def test_job_that_is_refused_has_the_refusal(fake_switch: FakeSwitch, connect: Connect) -> None:
    fake_switch.answers["bgapi"] = reply("-ERR permission denied")
    assert connect().bgapi("originate x").result(10) == "-ERR permission denied"


def test_job_is_lost_with_the_connection(fake_switch: FakeSwitch, connect: Connect) -> None:
    switch = connect()
    job = switch.bgapi("originate user/1000 &park")
    told: list[bool] = []
    job.notify(lambda: told.append(job.done))
    switch.api("behind it")
    fake_switch.drop()
    with pytest.raises(SwitchUnavailable):
        job.result(10)
    eventually(lambda: told == [True])


def test_job_without_an_answer_times_out(connect: Connect) -> None:
    with pytest.raises(SwitchUnavailable, match="in time"):
        connect().bgapi("originate x").result(0.02)


def test_job_of_another_client_is_ignored(fake_switch: FakeSwitch, connect: Connect) -> None:
    switch = connect()
    job = switch.bgapi("x")
    fake_switch.say(job_done("another", "+OK"), raw_event(b"Event-Name: BACKGROUND_JOB\n\n"))
    switch.api("behind them")
    assert not job.done


def test_job_that_ended_is_forgotten(fake_switch: FakeSwitch, connect: Connect) -> None:
    def answers(_peer: Peer, text: str) -> bytes:
        return reply() + job_done(job_uuid(text), "+OK") if "good" in text else reply("-ERR")

    fake_switch.answers["bgapi"] = answers
    switch = connect()
    for command in ("good", "refused"):
        switch.bgapi(command).result(10)
    assert switch._jobs == {}


# Events -----------------------------------------------------------------------------------------------


def test_switch_fault_in_a_listener_loses_no_event(fake_switch: FakeSwitch, connect: Connect) -> None:
    heard: list[str | None] = []

    def on_event(_switch: Switch, one: Event) -> None:
        heard.append(one.get("Unique-ID"))
        raise ZeroDivisionError

    switch = connect(on_event=on_event)
    fake_switch.say(event("CHANNEL_ANSWER"), event("CHANNEL_ANSWER", uuid=OTHER_UUID))
    switch.api("behind them")
    assert heard == [UUID, OTHER_UUID]
    assert switch.reconnects == 0


# Going and coming back --------------------------------------------------------------------------------


def test_switch_reconnects_and_subscribes_again(fake_switch: FakeSwitch, connect: Connect) -> None:
    history: list[str] = []
    switch = connect(
        filters=("A 1",), on_up=lambda _switch: history.append("up"), on_down=lambda _switch: history.append("down")
    )
    first = list(fake_switch.heard)
    fake_switch.drop()
    eventually(lambda: history == ["up", "down", "up"])
    assert fake_switch.heard == first * 2
    assert switch.reconnects == 1
    assert switch.api("works") == "+OK works"


def test_switch_restart_changes_the_core_uuid(fake_switch: FakeSwitch, connect: Connect) -> None:
    switch = connect()
    fake_switch.core_uuid = "core-2"
    fake_switch.drop()
    eventually(lambda: switch.core_uuid == "core-2")


def test_switch_drops_half_a_frame_with_its_connection(fake_switch: FakeSwitch, connect: Connect) -> None:
    switch = connect()
    fake_switch.say(event("CHANNEL_ANSWER")[:-10])
    gevent.sleep(0.01)
    fake_switch.drop()
    eventually(lambda: switch.reconnects == 1 and switch.connected)
    assert len(fake_switch.connections) == 2
    assert switch.api("works") == "+OK works"


def test_switch_loss_fails_the_waiter(fake_switch: FakeSwitch, connect: Connect) -> None:
    fake_switch.answers["api slow"] = b""
    switch = connect()
    asking = gevent.spawn(switch.api, "slow", 10)
    eventually(lambda: "api slow" in fake_switch.heard)
    fake_switch.drop()
    with pytest.raises(SwitchUnavailable):
        asking.get(timeout=10)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the seconds between tries instead of sleeping."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        if seconds != switch_module.PING_EVERY:
            slept.append(seconds)
            seconds = 0
        gevent.sleep(seconds)

    monkeypatch.setattr(switch_module, "gevent", SimpleNamespace(**{**vars(gevent), "sleep": sleep}))
    monkeypatch.setattr(Switch, "_pause", lambda _switch, seconds: sleep(seconds))
    monkeypatch.setattr(switch_module, "BACKOFF_FIRST", 0.1)
    monkeypatch.setattr(switch_module, "BACKOFF_LAST", 1.6)
    return slept


def test_switch_backs_off_with_jitter(connect: Connect, pauses: list[float]) -> None:
    """With jitter, a hundred nodes don't reconnect at the same moment."""
    connect("wrong", up=False)
    eventually(lambda: len(pauses) >= 40)
    steps = [0.1, 0.2, 0.4, 0.8, *[1.6] * 36]
    assert all(0.5 * step <= actual <= 1.5 * step for actual, step in zip(pauses, steps, strict=False))
    assert len({round(actual, 6) for actual in pauses[4:40]}) > 30


def test_switch_backoff_restarts_after_a_good_connection(
    fake_switch: FakeSwitch, connect: Connect, pauses: list[float]
) -> None:
    switch = connect("wrong", up=False)
    eventually(lambda: len(pauses) >= 8)
    switch.password = PASSWORD
    assert switch.wait_up(10)
    tried = len(pauses)
    switch.password = "wrong"
    fake_switch.drop()
    eventually(lambda: len(pauses) > tried)
    assert pauses[tried] <= 0.15


def test_switch_that_hurries_is_tried_at_once(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call has come from it, so it is back."""
    monkeypatch.setattr(switch_module, "BACKOFF_FIRST", 0.01)
    monkeypatch.setattr(random, "uniform", lambda _least, most: most * 1e6)
    switch = connect("wrong", up=False)
    eventually(lambda: "password" in switch.last_error)
    switch.password = PASSWORD
    gevent.sleep(0.05)
    assert not switch.connected
    switch.hurry()
    assert switch.wait_up(10)


def test_switch_that_crashes_each_time_is_asked_with_pauses(
    fake_switch: FakeSwitch, connect: Connect, pauses: list[float]
) -> None:
    def falls_over(peer: Peer, _command: str) -> bytes:
        gevent.spawn_later(0.005, peer.say, b"nonsense\n\n")
        return reply()

    fake_switch.answers["event plain"] = falls_over
    switch = connect(up=False)
    eventually(lambda: len(pauses) >= 6)
    assert switch.reconnects >= 6
    assert pauses[0] <= 0.15
    assert max(pauses) > 0.4


def test_switch_that_is_stopped_is_noticed(
    fake_switch: FakeSwitch, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGSTOP the connection stays open and silent, so only a ping can tell."""
    monkeypatch.setattr(switch_module, "PING_EVERY", 0.02)
    monkeypatch.setattr(switch_module, "REPLY_TIMEOUT", 0.05)
    fake_switch.stop_at("api status")
    downs: list[str] = []
    connect(on_down=lambda switch: downs.append(switch.last_error))
    eventually(lambda: downs)
    assert downs[0] == "no answer within 0.05 s"


def test_switch_that_is_stopped_releases_a_blocked_writer(
    fake_switch: FakeSwitch, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch's buffers are full, so even the ping can't be written."""
    monkeypatch.setattr(switch_module, "PING_EVERY", 0.05)
    monkeypatch.setattr(switch_module, "REPLY_TIMEOUT", 0.05)
    fake_switch.stop_at("api stop")
    switch = connect()
    switch.post_raw(b"api stop\n\n")
    writing = [gevent.spawn(switch.post_raw, b"api " + b"x" * 20_000_000 + b"\n\n") for _ in range(2)]
    eventually(lambda: switch.reconnects == 1 and switch.connected)
    gevent.joinall(writing, timeout=10, raise_error=True)
    assert all(one.ready() for one in writing)


def test_switch_command_waiting_at_the_loss_is_not_sent_later(
    fake_switch: FakeSwitch, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's caller was told that it failed. If it were sent later, a phone would ring without a caller."""
    fake_switch.stop_at("api stop")
    switch = connect()
    switch.post_raw(b"api stop\n\n")
    gevent.spawn(switch.post_raw, b"api " + b"x" * 20_000_000 + b"\n\n")
    gevent.sleep(0.02)
    ringing = gevent.spawn(switch.bgapi, "originate user/1000 &park")
    gevent.sleep(0.02)
    del fake_switch.answers["api stop"]
    fake_switch.drop()
    with pytest.raises(SwitchUnavailable):
        ringing.get(timeout=10).result(10)
    eventually(lambda: switch.reconnects == 1 and switch.connected)
    # Its place in the queue of replies is gone, too.
    assert switch.api("works") == "+OK works"
    assert not [text for text in fake_switch.heard if text.startswith("bgapi")]


def test_switch_ping_measures_the_round_trip(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch_module, "PING_EVERY", 0.01)
    observed: list[float] = []
    switch = connect(observe_ping=observed.append)
    eventually(lambda: len(observed) > 1)
    assert switch.round_trip is not None
    assert 0 < switch.round_trip < 1


@pytest.mark.parametrize("which", ["on_up", "on_down"])
def test_switch_fault_in_a_callback_keeps_the_connection(fake_switch: FakeSwitch, connect: Connect, which: str) -> None:
    def broken(_switch: Switch) -> None:
        raise ZeroDivisionError

    switch = connect(**{which: broken})
    fake_switch.drop()
    eventually(lambda: switch.reconnects == 1 and switch.connected)
    assert switch.api("works") == "+OK works"


def test_switch_stop_ends_all_waits(fake_switch: FakeSwitch, connect: Connect) -> None:
    fake_switch.answers["api slow"] = b""
    downs: list[str] = []
    switch = connect(on_down=lambda one: downs.append(one.last_error))
    asking = gevent.spawn(switch.api, "slow", 10)
    job = switch.bgapi("originate x")
    eventually(lambda: "api slow" in fake_switch.heard)
    switch.stop()
    with pytest.raises(SwitchUnavailable, match="stopped"):
        asking.get(timeout=10)
    with pytest.raises(SwitchUnavailable, match="stopped"):
        job.result(10)
    assert downs == ["stopped"]
    gevent.sleep(0.03)
    assert len(fake_switch.connections) == 1


def test_switch_stop_while_connecting_ends_it(fake_switch: FakeSwitch, connect: Connect) -> None:
    switch = connect("wrong", up=False)
    eventually(lambda: len(fake_switch.connections) > 1)
    switch.stop()
    tried = len(fake_switch.connections)
    gevent.sleep(0.05)
    assert len(fake_switch.connections) <= tried + 1
    assert not switch.connected
