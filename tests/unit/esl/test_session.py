"""One call's socket, against a scripted switch.

A session reads only while it waits. So a test often writes the switch's frames to the socket before the session asks,
and the order of the test is the order of the wire.
"""

from __future__ import annotations

import gc
import logging
import time
import weakref
from collections.abc import Iterator

import gevent
import pytest
from gevent import socket
from greenswitch.esl import OutboundSession as GreenswitchSession
from greenswitch.esl import OutboundSessionHasGoneAway

from esl_apps.esl.answers import ReplyError
from esl_apps.esl.session import Gone, OutboundSession
from esl_apps.esl.wire import Event
from tests.support.peer import (
    OTHER_UUID,
    UUID,
    Peer,
    api_response,
    app_uuid,
    channel_data,
    complete,
    event,
    goodbye,
    linger_notice,
    reply,
    tcp_pair,
)

Line = tuple[OutboundSession, Peer]


def new_line() -> Line:
    ours, theirs = socket.socketpair()
    return OutboundSession(("test", 0), ours), Peer(theirs)


@pytest.fixture
def line_over_tcp() -> Iterator[Line]:
    ours, theirs = tcp_pair()
    session, peer = OutboundSession(("test", 0), ours), Peer(theirs)
    peer.say(channel_data(), reply("+OK will linger 5 seconds"))
    session.connect()
    peer.pending()
    yield session, peer
    session.close("the test is over")
    peer.close()


# Connecting -------------------------------------------------------------------------------------------


def test_connect_returns_the_channel() -> None:
    session, peer = new_line()
    peer.say(channel_data({"Caller-Destination-Number": "27115550000"}), reply())
    data = session.connect()
    assert session.uuid == UUID
    assert data.get("Caller-Destination-Number") == "27115550000"
    assert session.caller_id_number == "27820001234"
    assert not session.hung_up


def test_connect_subscribes_after_its_filter() -> None:
    session, peer = new_line()
    peer.say(channel_data())
    session.connect("api sched_del {uuid}", events="CHANNEL_ANSWER CHANNEL_HANGUP")
    assert peer.pending() == [
        "connect",
        "linger 5",
        f"api sched_del {UUID}",
        f"filter Unique-ID {UUID}",
        "event plain CHANNEL_ANSWER CHANNEL_HANGUP",
    ]


def test_connect_to_a_channel_that_hung_up_is_hung_up() -> None:
    session, peer = new_line()
    peer.say(channel_data({"Answer-State": "hangup"}), reply())
    session.connect()
    assert session.hung_up
    with pytest.raises(Gone) as caught:
        session.execute("answer")
    assert caught.value.hung_up


def test_connect_answered_with_an_error_raises_gone() -> None:
    session, peer = new_line()
    peer.say(reply("-ERR command not found"))
    with pytest.raises(Gone, match="not answered with a channel"):
        session.connect()


def test_connect_to_a_switch_that_closes_raises_gone() -> None:
    session, peer = new_line()
    peer.close()
    with pytest.raises(Gone) as caught:
        session.connect()
    assert not caught.value.hung_up


def test_connect_to_a_silent_switch_times_out() -> None:
    session, _peer = new_line()
    with pytest.raises(TimeoutError):
        session.connect(timeout=0.02)


# Commands ---------------------------------------------------------------------------------------------


def test_send_returns_its_reply(line: Line) -> None:
    session, peer = line
    for word in ("one", "two"):
        peer.say(reply(f"+OK {word}"))
        assert session.send(word).data == f"+OK {word}"
    assert peer.pending() == ["one", "two"]


def test_api_returns_its_output(line: Line) -> None:
    session, peer = line
    peer.say(api_response("true"))
    assert session.api(f"uuid_exists {UUID}") == "true"
    assert peer.pending() == [f"api uuid_exists {UUID}"]


def test_api_error_is_raised_with_its_text(line: Line) -> None:
    session, peer = line
    peer.say(api_response("-ERR No such channel!\n"))
    with pytest.raises(ReplyError, match=r"^-ERR No such channel!$"):
        session.api(f"uuid_kill {UUID}")


def test_posted_commands_take_their_turn_among_replies(line: Line) -> None:
    session, peer = line
    peer.say(reply("+OK a"), reply("-ERR b"), reply("+OK c"), reply("+OK mine"))
    session.post("a", "b")
    session.post_raw(b"sendevent CUSTOM\n\n")
    assert session.send("mine").data == "+OK mine"


def test_reply_that_nothing_waits_for_wakes_nobody(line_over_tcp: Line) -> None:
    session, peer = line_over_tcp
    session.post(f"api uuid_setvar {UUID} last_matching_digits")
    peer.say(api_response("+OK\n"))
    waiting = gevent.spawn(session.wait, lambda: session.hangup_event is not None, 5.0, past_hangup=True)
    gevent.sleep(0.02)
    assert len(session._replies) == 1
    peer.say(event("CHANNEL_HANGUP"))
    assert waiting.get(timeout=5)
    assert not session._replies


def test_reply_that_is_asked_for_wakes_its_flow(line_over_tcp: Line) -> None:
    session, peer = line_over_tcp
    session.wait(lambda: False, 0.001)
    peer.say(api_response("1"))
    assert session.api("version") == "1"


def test_together_writes_once_and_in_order(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    session, peer = line
    written: list[bytes] = []
    send = session.sock.send

    def watched(_sock: object, data: bytes, timeout: float) -> None:
        written.append(data)
        send(data, timeout)

    monkeypatch.setattr(type(session.sock), "send", watched)
    with session.together():
        session.post("a", "b")
        with session.together():
            session.post_raw(b"c\n\n")
        assert written == []
    session.post("d")
    assert written == [b"a\n\nb\n\nc\n\n", b"d\n\n"]
    assert peer.pending() == ["a", "b", "c", "d"]


def test_together_with_a_fault_still_writes(line: Line) -> None:
    """Replies are matched in the order of the commands, so no command may be left out."""
    session, peer = line

    def say() -> None:
        with session.together():
            session.post("a")
            session.post("b\nc")

    with pytest.raises(ValueError, match="line break"):
        say()
    peer.say(reply("+OK a"), reply("+OK mine"))
    assert session.send("mine").data == "+OK mine"
    assert peer.pending() == ["a", "mine"]


def test_send_handles_events_before_the_reply(line: Line) -> None:
    session, peer = line
    peer.say(event("CHANNEL_HANGUP"), reply("+OK"))
    session.send("api x")
    assert session.hung_up


def test_reply_to_nothing_ends_the_session(line: Line) -> None:
    session, peer = line
    peer.say(reply("+OK"))
    with pytest.raises(Gone, match="framing: a reply to nothing"):
        session.wait(lambda: False, 1)


def test_write_to_a_lost_socket_raises_gone(line: Line) -> None:
    session, peer = line
    peer.close()
    with pytest.raises(Gone, match="write failed") as caught:
        session.post(*["api x"] * 100_000)
    assert not caught.value.hung_up


def test_session_after_its_end_says_why(line: Line) -> None:
    session, peer = line
    peer.close()
    for _ in range(2):
        with pytest.raises(Gone, match="the switch closed the socket"):
            session.wait(lambda: False, 1)
    with pytest.raises(Gone, match="the switch closed the socket"):
        session.send("api x")


def test_write_to_a_switch_that_stops_reading_times_out(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _peer = line
    monkeypatch.setattr("esl_apps.esl.session.REPLY_TIMEOUT", 0.05)
    with pytest.raises(Gone, match="write failed: timed out"):
        session.post("api " + "x" * 50_000_000)


# Applications -----------------------------------------------------------------------------------------


def test_execute_finishes_with_its_completion(line: Line) -> None:
    session, peer = line
    completion = session.execute("playback", "tone_stream://x")
    uuid = app_uuid(peer.expect("sendmsg"))
    assert not completion.done
    peer.say(reply(), complete("playback", uuid, {"variable_playback_ms": "20"}))
    assert session.finish(completion, 1).var("playback_ms") == "20"


def test_execute_that_takes_too_long_times_out(line: Line) -> None:
    session, peer = line
    peer.say(reply())
    with pytest.raises(TimeoutError, match="playback did not complete"):
        session.finish(session.execute("playback", "x"), 0.02)


def test_execute_that_is_refused_raises_reply_error(line: Line) -> None:
    session, peer = line
    peer.say(reply("-ERR invalid session id"))
    with pytest.raises(ReplyError, match=r"^-ERR invalid session id$"):
        session.finish(session.execute("playback", "x"), 1)


def test_execute_ended_by_a_hangup_raises_gone(line: Line) -> None:
    session, peer = line
    peer.say(reply(), event("CHANNEL_HANGUP", {"Hangup-Cause": "NORMAL_CLEARING"}))
    with pytest.raises(Gone) as caught:
        session.finish(session.execute("playback", "x"), 1)
    assert caught.value.hung_up
    assert session.hangup_event is not None
    assert session.hangup_event.get("Hangup-Cause") == "NORMAL_CLEARING"


def test_lost_socket_fails_all_applications_with_its_reason(line: Line) -> None:
    session, peer = line
    started = [session.execute("playback", "x") for _ in range(2)]
    peer.close()
    with pytest.raises(Gone):
        session.finish(started[0], 1)
    assert session.close_reason
    assert [one.error for one in started] == [session.close_reason] * 2


def test_completion_together_with_the_hangup_counts(line: Line) -> None:
    session, peer = line
    completion = session.execute("playback", "x")
    uuid = app_uuid(peer.expect("sendmsg"))
    peer.say(reply(), complete("playback", uuid), event("CHANNEL_HANGUP"))
    assert session.finish(completion, 1) is completion.event


def test_linger_notice_is_a_hangup(line: Line) -> None:
    session, peer = line
    peer.say(linger_notice())
    with pytest.raises(Gone) as caught:
        session.wait(lambda: False, 1)
    assert caught.value.hung_up


def test_goodbye_without_linger_is_a_lost_socket(line: Line) -> None:
    session, peer = line
    peer.say(goodbye())
    peer.close()
    with pytest.raises(Gone) as caught:
        session.wait(lambda: False, 1)
    assert not caught.value.hung_up


def test_wait_past_the_hangup_gets_the_last_event(line: Line) -> None:
    session, peer = line
    peer.say(event("CHANNEL_HANGUP"), linger_notice())
    gevent.spawn_later(0.02, peer.say, event("CHANNEL_HANGUP_COMPLETE", {"variable_hangup_cause_q850": "16"}))
    assert session.wait(lambda: session.hangup_complete is not None, 1, past_hangup=True)
    assert session.hangup_complete is not None
    assert session.hangup_complete.int("variable_hangup_cause_q850") == 16


def test_hangup_of_another_channel_is_ignored(line: Line) -> None:
    session, peer = line
    peer.say(
        event("CHANNEL_HANGUP", uuid=OTHER_UUID),
        event("CHANNEL_HANGUP_COMPLETE", uuid=OTHER_UUID),
        event("CHANNEL_PROGRESS"),
    )
    heard: list[Event] = []
    session.register_handle("CHANNEL_PROGRESS", heard.append)
    assert session.wait(lambda: bool(heard), 5)
    assert not session.hung_up


def test_multiset_sends_one_execute(line: Line) -> None:
    session, peer = line
    session.multiset({"a": "1", "b": "x|y", "c": ""})
    assert "execute-app-name: multiset" in (command := peer.expect("sendmsg"))
    assert command.endswith("\n\n^^~a=1~b=x|y~c=")


def test_multiset_without_a_free_separator_is_refused(line: Line) -> None:
    session, peer = line
    with pytest.raises(ValueError, match="separator"):
        session.multiset({"a": "|~", "b": "!;"})
    assert peer.pending() == []


# Handlers ---------------------------------------------------------------------------------------------


def test_handler_gets_the_events_of_its_name(line: Line) -> None:
    session, peer = line
    heard: list[Event] = []
    session.register_handle("CHANNEL_ANSWER", heard.append)
    peer.say(event("CHANNEL_PROGRESS"), event("CHANNEL_ANSWER", uuid=OTHER_UUID))
    assert session.wait(lambda: bool(heard), 5)
    assert [one.get("Unique-ID") for one in heard] == [OTHER_UUID]


def test_handler_of_custom_events_is_named_by_subclass(line: Line) -> None:
    session, peer = line
    heard: list[Event] = []
    session.register_handle("sofia::register", heard.append)
    peer.say(event("CUSTOM", {"Event-Subclass": "other"}), event("CUSTOM", {"Event-Subclass": "sofia::register"}))
    assert session.wait(lambda: bool(heard), 5)
    assert len(heard) == 1


def test_handler_of_everything_gets_the_rest(line: Line) -> None:
    session, peer = line
    named: list[Event] = []
    others: list[Event] = []
    session.register_handle("CHANNEL_ANSWER", named.append)
    session.register_handle("*", others.append)
    peer.say(event("CHANNEL_ANSWER"), event("CHANNEL_PROGRESS"))
    assert session.wait(lambda: bool(others), 5)
    assert ([one.name for one in named], [one.name for one in others]) == ([b"CHANNEL_ANSWER"], [b"CHANNEL_PROGRESS"])


def test_handler_fault_loses_no_other_event(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    session, peer = line

    def broken(_event: Event) -> None:
        raise ZeroDivisionError

    session.register_handle("CHANNEL_ANSWER", broken)
    completion = session.execute("bridge", "user/1000")
    uuid = app_uuid(peer.expect("sendmsg"))
    peer.say(reply(), event("CHANNEL_ANSWER", uuid=OTHER_UUID), complete("bridge", uuid))
    with caplog.at_level(logging.ERROR):
        session.finish(completion, 1)
    assert "ZeroDivisionError" in caplog.text


def test_handler_may_unregister_itself(line: Line) -> None:
    session, peer = line
    heard: list[str] = []

    def once(_event: Event) -> None:
        heard.append("once")
        session.unregister_handle("CHANNEL_ANSWER", once)

    session.register_handle("CHANNEL_ANSWER", once)
    session.register_handle("CHANNEL_ANSWER", lambda _event: heard.append("always"))
    peer.say(event("CHANNEL_ANSWER"), event("CHANNEL_ANSWER"))
    assert session.wait(lambda: len(heard) == 3, 5)
    assert heard == ["once", "always", "always"]


# Leaving ----------------------------------------------------------------------------------------------


def test_leave_sends_exit_and_closes(line: Line) -> None:
    session, peer = line
    session.leave()
    peer.expect("exit")
    peer.expect_end()


def test_close_from_elsewhere_releases_the_waiter(line: Line) -> None:
    session, _peer = line
    waiting = gevent.spawn(session.wait, lambda: False, None)
    gevent.sleep(0)
    session.close("the node stops")
    with pytest.raises(Gone):
        waiting.get(timeout=10)


def test_wait_that_is_killed_leaves_the_session_usable(line: Line) -> None:
    session, peer = line
    waiting = gevent.spawn(session.wait, lambda: False, None)
    gevent.sleep(0)
    waiting.kill()
    peer.say(reply("+OK mine"))
    assert session.send("x").data == "+OK mine"


def test_wait_keeps_its_own_timeout_after_another(line: Line) -> None:
    """The state that is kept of one deadline must not change another."""
    session, peer = line
    gevent.spawn_later(0.01, peer.say, event("CHANNEL_PROGRESS"))
    heard: list[Event] = []
    session.register_handle("*", heard.append)
    assert session.wait(lambda: bool(heard), 60)
    started = time.monotonic()
    assert not session.wait(lambda: False, 0.02)
    assert 0.015 < time.monotonic() - started < 10
    started = time.monotonic()
    assert not session.wait(lambda: False, 0.1)
    assert 0.09 < time.monotonic() - started < 10


def test_wait_without_a_deadline_ignores_a_passed_one(line: Line) -> None:
    session, peer = line
    assert not session.wait(lambda: False, 0.01)
    gevent.spawn_later(0.04, peer.say, event("CHANNEL_HANGUP"))
    assert session.wait(lambda: session.hung_up, None, past_hangup=True)


def test_leave_twice_does_nothing_more(line: Line) -> None:
    session, peer = line
    session.leave()
    session.leave()
    assert peer.pending() == ["exit"]


def test_wait_that_ended_holds_nothing(line: Line) -> None:
    """A session at rest has no timer, greenlet or handler, only a socket and a few fields."""
    session, peer = line
    completion = session.execute("playback", "x")
    peer.say(reply(), complete("playback", app_uuid(peer.expect("sendmsg"))))
    session.finish(completion, 1)
    assert not session._replies
    assert not session._completions
    assert session.event_handlers == {}


def test_session_is_freed_without_the_garbage_collector() -> None:
    session, peer = new_line()
    peer.say(channel_data(), reply())
    session.connect()
    session.close("done")
    left = weakref.ref(session)
    gc.disable()
    try:
        del session
        assert left() is None
    finally:
        gc.enable()


# For code written for greenswitch ------------------------------------------------------------------------


def test_answer_waits_for_its_completion(line: Line) -> None:
    session, peer = line
    gevent.spawn(lambda: peer.say(reply(), complete("answer", app_uuid(peer.expect("sendmsg")))))
    assert session.answer().name == b"CHANNEL_EXECUTE_COMPLETE"


def test_call_command_waits_only_if_blocking(line: Line) -> None:
    session, peer = line
    session.playback("x", block=False)
    peer.expect("sendmsg")
    gevent.spawn(lambda: peer.say(reply(), reply(), complete("bridge", app_uuid(peer.expect("sendmsg")))))
    assert session.bridge("user/1000").get("Application") == "bridge"


def test_uuid_break_names_the_channel(line: Line) -> None:
    session, peer = line
    peer.say(api_response("+OK"))
    session.uuid_break()
    peer.expect(f"api uuid_break {UUID}")


def test_raise_if_disconnected_raises_after_the_hangup(line: Line) -> None:
    session, peer = line
    session.raise_if_disconnected()
    peer.say(event("CHANNEL_HANGUP"))
    session.wait(lambda: session.hung_up, 1, past_hangup=True)
    with pytest.raises(OutboundSessionHasGoneAway):
        session.raise_if_disconnected()
    with pytest.raises(OutboundSessionHasGoneAway), session.while_connected():
        pass


def test_session_covers_all_of_greenswitchs_methods() -> None:
    """Each public name of greenswitch's is ours, or only calls ours, or is listed here as left out."""
    own = set(vars(OutboundSession))
    # Each has a test above.
    inherited = {"bridge", "park", "uuid_break", "raise_if_disconnected", "while_connected"}
    inherited |= {"register_handle", "unregister_handle", "call_uuid", "caller_id_number"}
    # Its reader and its matching, which nothing of ours starts or calls.
    machinery = {"start_event_handlers", "receive_events", "handle_event", "process_events"}
    machinery |= {"on_event", "on_hangup", "on_disconnect", "register_expected_event"}
    # The first leaves PINs in channel variables (hazard 27); no flow needs the second.
    left_out = {"play_and_get_digits", "say"}
    public = {name for name in dir(GreenswitchSession) if not name.startswith("_")}
    assert public <= own | inherited | machinery | left_out


def test_wait_with_steady_traffic_ends_in_time(line: Line) -> None:
    session, peer = line

    # Steady traffic must not move the deadline.
    def chat() -> None:
        while True:
            peer.say(event("CHANNEL_PROGRESS"))
            gevent.sleep(0.005)

    chatter = gevent.spawn(chat)
    started = time.monotonic()
    assert not session.wait(lambda: False, 0.05)
    assert time.monotonic() - started < 10
    chatter.kill()
