"""Frames in, commands out: with captured traffic, examples and properties."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_apps.esl import wire
from esl_apps.esl.wire import Event, Framer, FramingError
from tests.support import captures
from tests.support.captures import recorded
from tests.support.commands import split
from tests.support.peer import OTHER_UUID, UUID, api_response, channel_data, event, raw_event, reply

ALL_CAPTURES = captures.names()


def frames(*chunks: bytes) -> list[Event]:
    framer = Framer()
    return [frame for chunk in chunks for frame in framer.feed(chunk)]


def seen(found: Iterable[Event]) -> list[tuple[bytes, bytes, bytes]]:
    return [(frame.content_type, frame.block, frame.payload) for frame in found]


def one_byte_at_a_time(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def plainly_read(data: bytes) -> list[tuple[dict[bytes, bytes], bytes]]:
    """Read heads and bodies in the simplest way, for comparison."""
    stream, found = io.BytesIO(data), []
    while line := stream.readline():
        head: dict[bytes, bytes] = {}
        while line != b"\n":
            name, _, value = line.rstrip(b"\n").partition(b": ")
            head.setdefault(name, value)
            line = stream.readline()
        found.append((head, stream.read(int(head.get(b"Content-Length", 0)))))
    return found


# Captures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_CAPTURES)
def test_framer_reads_a_capture_as_written(name: str) -> None:
    data = b"".join(recorded(name))
    expected = plainly_read(data)
    found = frames(data)
    assert [frame.content_type for frame in found] == [head[b"Content-Type"] for head, _ in expected]
    assert [frame.payload for frame in found] == [body for _, body in expected]


@pytest.mark.parametrize("name", ALL_CAPTURES)
def test_framer_reads_a_capture_byte_by_byte_alike(name: str) -> None:
    data = b"".join(recorded(name))
    assert seen(frames(*one_byte_at_a_time(data))) == seen(frames(data))


@pytest.mark.parametrize("name", ALL_CAPTURES)
def test_event_decodes_each_header_of_a_capture_once(name: str) -> None:
    for frame in frames(*recorded(name)):
        block = frame.block.partition(b"\n\n")[0]
        for text in block.split(b"\n"):
            header, colon, value = text.partition(b": ")
            if colon:
                assert frame.raw(header) == value, header
                assert frame.get(header.decode()) == unquote(value.decode()) == frame.headers[header.decode()]


@pytest.mark.parametrize("name", ALL_CAPTURES)
def test_event_has_its_name_in_the_first_line(name: str) -> None:
    """``Event.name`` relies on this instead of searching."""
    for frame in frames(*recorded(name)):
        if frame.content_type == wire.EVENT_PLAIN and b"Event-Name" in frame.block:
            assert frame.name.decode() == frame.get("Event-Name")


def test_event_of_a_captured_job_has_its_output() -> None:
    jobs = [frame for frame in frames(*recorded("inbound-originate-busy")) if frame.name == b"BACKGROUND_JOB"]
    assert [job.data for job in jobs] == ["-ERR NORMAL_CLEARING\n"]


def test_event_of_a_diverted_digit_has_no_name() -> None:
    """The frame of hazard 27: 18 bytes that aren't a channel's event."""
    (digit,) = frames(raw_event(b"key: x\ndigits: 4\n\n"))
    assert digit.name == b""
    assert digit.get("digits") == "4"


# Headers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["Event-Name", "Unique-ID"])
def test_event_header_twice_has_the_first_value(header: str) -> None:
    forged = f"Event-Name: CHANNEL_ANSWER\nUnique-ID: {UUID}\nEvent-Name: DTMF\nUnique-ID: {OTHER_UUID}\n\n".encode()
    (found,) = frames(raw_event(forged))
    first = {"Event-Name": "CHANNEL_ANSWER", "Unique-ID": UUID}
    assert found.get(header) == found.headers[header] == first[header]


def test_event_header_twice_and_encoded_has_the_first_value() -> None:
    (found,) = frames(raw_event(b"A: 1%0AB: 2\nB: 3\n\n"))
    assert (found.get("A"), found.get("B")) == ("1\nB: 2", "3")


NO_REFERENCES = [
    "",
    " ",
    "%20",
    "0",
    "5",
    "all",
    "x direction inbound",
    f"{UUID} x",
    f"{UUID}%20",
    f"{UUID}%0A",
    f" {UUID}",
    UUID[:-1],
    UUID.replace("-", ""),
    UUID[:-1] + "g",
    UUID + UUID,
    "\uff11" * 8 + UUID[8:],
]


@pytest.mark.parametrize("value", NO_REFERENCES)
@pytest.mark.parametrize(
    "name",
    [
        "Unique-ID",
        "Other-Leg-Unique-ID",
        "variable_esl_call_ref",
        "variable_esl_session_ref",
        "variable_esl_bleg",
        "variable_last_bridge_to",
    ],
)
def test_reference_of_another_form_counts_as_absent(name: str, value: str) -> None:
    (found,) = frames(raw_event(f"Event-Name: CHANNEL_DATA\n{name}: {value}\n\n".encode()))
    assert found.get(name) is None
    assert found.var(name.removeprefix("variable_")) is None


def test_reference_in_either_case_is_read() -> None:
    (found,) = frames(raw_event(f"Event-Name: X\nUnique-ID: {UUID.upper()}\n\n".encode()))
    assert found.get("Unique-ID") == UUID.upper()


def test_event_header_is_not_read_from_the_body() -> None:
    (found,) = frames(event("BACKGROUND_JOB", body="Job-UUID: forged\nMore: x\n"))
    assert found.get("Job-UUID") is None
    assert found.get("More") is None
    assert found.data == "Job-UUID: forged\nMore: x\n"


def test_event_header_is_not_read_from_a_cdr_body() -> None:
    """With ``hangup_complete_with_xml``, a channel's event has a body."""
    cdr = '<?xml version="1.0"?>\n<cdr><caller_id_name>\n\nvariable_esl_bleg: forged\n\n</caller_id_name></cdr>\n'
    (found,) = frames(event("CHANNEL_HANGUP_COMPLETE", {"Hangup-Cause": "NORMAL_CLEARING"}, body=cdr))
    assert found.get("Hangup-Cause") == "NORMAL_CLEARING"
    assert found.var("esl_bleg") is None


def test_event_header_name_matches_whole() -> None:
    (found,) = frames(event("X", {"Other-Leg-Unique-ID": "theirs", "variable_uuid_x": "1"}))
    assert found.get("Leg-Unique-ID") is None
    assert found.var("uuid") is None


def test_event_value_that_is_not_utf8_is_kept_raw() -> None:
    (found,) = frames(raw_event(b"Event-Name: X\nCaller-Caller-ID-Name: Ren\xe9%E9\n\n"))
    assert found.get("Caller-Caller-ID-Name") == "Ren\ufffd\ufffd"
    assert found.raw(b"Caller-Caller-ID-Name") == b"Ren\xe9%E9"


def test_event_header_missing_is_none_or_the_default() -> None:
    (found,) = frames(event("X"))
    assert found.get("Absent") is None
    assert found.get("Absent", "-") == "-"
    assert found.var("absent") is None
    assert found.int("Absent") == 0


@pytest.mark.parametrize("value", ["", "-1", "1.5", "٣", "1e3", "9" * 5000])
def test_event_int_of_something_else_is_zero(value: str) -> None:
    (found,) = frames(event("X", {"Caller-Channel-Hangup-Time": value}))
    assert found.int("Caller-Channel-Hangup-Time") == 0


def test_event_without_a_last_line_end_keeps_its_name() -> None:
    (found,) = frames(raw_event(b"Event-Name: HEARTBEAT"))
    assert found.name == b"HEARTBEAT"


# Replies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "ok", "data"),
    [
        (reply("+OK will linger"), True, "+OK will linger"),
        (reply("-ERR no such channel"), False, "-ERR no such channel"),
        (api_response("true"), True, "true"),
        (api_response("-ERR NO_ROUTE_DESTINATION\n"), False, "-ERR NO_ROUTE_DESTINATION\n"),
        (api_response(""), True, ""),
        (channel_data(), True, "+OK\n"),
    ],
)
def test_event_ok_tells_errors_apart(frame: bytes, ok: bool, data: str) -> None:
    (found,) = frames(frame)
    assert (found.ok, found.data) == (ok, data)


# Faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5",
        b"Content-Type: \nContent-Length: 5",
        b"Content-Length: x\nContent-Type: text/event-plain",
        b"Content-Length: -1\nContent-Type: text/event-plain",
        b"Content-Length: 999999999\nContent-Type: text/event-plain",
        b"Content-Type: text/event-plain\nContent-Length: 999999999",
        b"Content-Length: 99999999999999999999\nContent-Type: text/event-plain",
        b"Content-Length: \xd9\xa3\nContent-Type: text/event-plain",
        b"GET / HTTP/1.1\r\nHost: x",
    ],
)
def test_framer_refuses_what_is_not_a_frame(head: bytes) -> None:
    with pytest.raises(FramingError):
        frames(head + b"\n\n")


def test_framer_refuses_a_head_without_an_end() -> None:
    endless = itertools.repeat(b"x" * 65536, wire.MAX_FRAME // 65536 + 2)
    with pytest.raises(FramingError, match="without an end"):
        frames(*endless)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Type: api/response\nContent-Length: 1048577\n\n",
        b"Content-Length: 1048577\nContent-Type: text/event-plain\n\n",
        b"Content-Length: 99999999\nContent-Type: text/event-plain\n\n",
    ],
)
def test_framer_refuses_a_body_of_more_than_1_mb(head: bytes) -> None:
    assert wire.MAX_FRAME == 1048576
    with pytest.raises(FramingError):
        frames(head + b"x")


def test_framer_takes_the_listing_of_a_large_switch() -> None:
    body = b"x" * 40_000_000
    (found,) = Framer(wire.MAX_LISTING).feed(b"Content-Type: api/response\nContent-Length: 40000000\n\n" + body)
    assert len(found.data) == len(body)


class CountingBytes(bytearray):
    """Counts the bytes that searches look at."""

    looked = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        CountingBytes.looked += len(self) - start
        return super().find(sub, start, end)


@pytest.mark.parametrize("piece", [1, 2, 7])
def test_framer_searches_each_byte_once(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(wire, "bytearray", CountingBytes, raising=False)
    CountingBytes.looked = 0
    framer, data = Framer(), b"x" * 20_000
    for start in range(0, len(data), piece):
        assert list(framer.feed(data[start : start + piece])) == []
    assert 0 < CountingBytes.looked < 2 * len(data)


def test_framer_keeps_no_more_than_the_bytes_that_came() -> None:
    framer = Framer()
    list(framer.feed(b"Content-Type: api/response\nContent-Length: 1000000\n\n"))
    for _ in range(200_000):
        list(framer.feed(b"xy"))
    assert sys.getsizeof(framer._body) < 500_000


def test_framer_yields_the_frames_before_a_fault() -> None:
    found = Framer().feed(reply("first") + b"nonsense\n\n" + reply("second"))
    assert next(found).data == "first"
    with pytest.raises(FramingError):
        next(found)


# By property ------------------------------------------------------------------------------------------

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,12}", fullmatch=True).filter(lambda name: name != "Content-Length")
values = st.text(max_size=20)
headers = st.lists(st.tuples(names, values), max_size=8)


def written(pairs: list[tuple[str, str]]) -> bytes:
    """Write a block as FreeSWITCH does, with every byte of each value percent-encoded."""
    return "".join(f"{name}: {''.join(f'%{byte:02X}' for byte in value.encode())}\n" for name, value in pairs).encode()


some_frames = st.lists(
    st.one_of(
        st.builds(lambda pairs: raw_event(written(pairs) + b"\n"), headers),
        st.builds(lambda pairs, text: event("X", dict(pairs), body=text), headers, values),
        st.builds(api_response, values),
        st.builds(lambda pairs: written(pairs) + b"Content-Type: command/reply\n\n", headers),
    ),
    max_size=5,
)


@settings(max_examples=50)
@given(some_frames, st.data())
def test_framer_cut_anywhere_yields_the_same_frames(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=10)) | {0, len(stream)})
    found = frames(*(stream[a:b] for a, b in itertools.pairwise(cuts)))
    assert seen(found) == seen(frames(stream))
    assert len(found) == len(parts)


@given(headers)
def test_event_lookups_agree_on_the_first_value(pairs: list[tuple[str, str]]) -> None:
    (found,) = frames(raw_event(written(pairs) + b"\n"))
    first: dict[str, str] = {}
    for name, value in pairs:
        first.setdefault(name, value)
    assert found.headers == first
    assert {name: found.get(name) for name in first} == first


@given(headers, names, values)
def test_event_value_cannot_write_a_header(pairs: list[tuple[str, str]], name: str, value: str) -> None:
    """Whatever a caller puts into a value, the block has only the names that the switch wrote."""
    hostile = [(key, f"{text}\n{name}: {value}\n\n{name}: {value}") for key, text in pairs]
    (found,) = frames(raw_event(written(hostile) + b"\n"))
    assert set(found.headers) == {key for key, _ in pairs}
    if name not in found.headers:
        assert found.get(name) is None


@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_framer_of_any_bytes_yields_frames_or_raises(chunks: list[bytes], as_event: bool) -> None:
    if as_event:
        chunks = [raw_event(b"".join(chunks))]
    try:
        found = frames(*chunks)
    except FramingError:
        return
    for frame in found:
        # Reading a frame never raises.
        repr((frame.headers, frame.data, frame.ok, frame.name, frame.get("Unique-ID"), frame.int("x"), repr(frame)))


# Commands ---------------------------------------------------------------------------------------------

LINE_BREAKS = ["\n", "\r", "\r\n", "\n\n", "\0"]


def test_command_on_the_wire() -> None:
    assert wire.command("api status") == b"api status\n\n"


def test_hazard_49_argument_of_an_execute_is_the_body() -> None:
    assert wire.execute("playback", "/é.wav", "7", lock=True) == (
        "sendmsg\ncall-command: execute\nexecute-app-name: playback\nEvent-UUID: 7\nevent-lock: true\n"
        "content-type: text/plain\ncontent-length: 7\n\n/é.wav".encode()
    )


def test_execute_without_an_argument_sends_none() -> None:
    assert wire.execute("answer", "", "1") == (
        b"sendmsg\ncall-command: execute\nexecute-app-name: answer\nEvent-UUID: 1\n\n"
    )


def test_custom_event_on_the_wire() -> None:
    assert wire.custom_event("esl_apps::call", {"esl_call_ref": "r", "state": "é"}) == (
        "sendevent CUSTOM\nEvent-Subclass: esl_apps::call\nesl_call_ref: r\nstate: é\n\n".encode()
    )


@pytest.mark.parametrize(
    "text",
    [
        "api hupall NORMAL_CLEARING esl_bleg ",
        "api hupall NORMAL_CLEARING esl_bleg  ",
        "api hupall NORMAL_CLEARING esl_bleg",
        "api hupall NORMAL_CLEARING",
        "api hupall",
        "bgapi hupall NORMAL_CLEARING esl_bleg ",
        "api hupall NORMAL_CLEARING esl_bleg x direction inbound",
        "api hupall  esl_bleg x",
        "filter Unique-ID ",
        "filter variable_esl_bleg a b",
        "filter  x",
        "api uuid_kill ",
        "api uuid_kill all",
        f"api uuid_kill {UUID} ALLOTTED_TIMEOUT more",
        "api uuid_break 5 all",
        "api uuid_exists x",
        "api uuid_dump",
        f"api uuid_setvar {UUID}",
        f"api uuid_setvar {UUID} name a b",
        "api uuid_transfer x 900",
        "api sched_del 5",
        "api sched_del ",
        "api sched_hangup +8 ",
        "api sched_hangup +8 x",
        f"api sched_hangup {UUID}",
        f"api sched_hangup +8 {UUID} NORMAL CLEARING",
        f"api sched_del {UUID} 5",
        " api status",
        "api status ",
        "",
    ],
)
def test_command_that_acts_on_something_else_is_refused(text: str) -> None:
    with pytest.raises(wire.CommandError):
        wire.command(text)


@pytest.mark.parametrize(
    "text",
    [
        f"api hupall NORMAL_CLEARING esl_bleg {UUID}",
        f"api uuid_kill {UUID} ALLOTTED_TIMEOUT",
        f"api uuid_break {UUID} all",
        f"api uuid_setvar {UUID} last_matching_digits",
        f"api sched_del {UUID}",
        f"api sched_hangup +8 {UUID}",
        f"api sched_hangup +1 {UUID} NORMAL_CLEARING",
        f"filter Unique-ID {UUID}",
        "filter Application-UUID -0",
        "event plain CHANNEL_ANSWER CUSTOM esl_apps::cancel",
        "api show channels as json",
        "bgapi originate {^^!a=1}user/1000 '&socket(127.0.0.1:8084/x async full)'",
        "auth a password  with spaces ",
    ],
)
def test_command_that_is_whole_is_written_as_it_is(text: str) -> None:
    assert wire.command(text) == text.encode() + b"\n\n"


@given(st.text(max_size=40))
def test_hupall_of_any_text_names_one_value_or_is_refused(value: str) -> None:
    try:
        raw = wire.command(f"api hupall NORMAL_CLEARING esl_bleg {value}")
    except wire.CommandError:
        return
    assert raw.decode().removesuffix("\n\n").split(" ") == ["api", "hupall", "NORMAL_CLEARING", "esl_bleg", value]
    assert value


@given(st.text(max_size=30), st.text(max_size=30))
def test_command_of_any_text_is_one_or_refused(first: str, second: str) -> None:
    makers: tuple[Callable[[], bytes], ...] = (
        lambda: wire.command(first + second),
        lambda: wire.execute(first, second, "1"),
        lambda: wire.custom_event("esl_apps::call", {"a": first, "b": second}),
    )
    for make in makers:
        try:
            raw = make()
        except ValueError:
            continue
        whole, rest = split(raw)
        assert len(whole) == 1
        assert not rest


@pytest.mark.parametrize("mark", LINE_BREAKS)
@pytest.mark.parametrize("where", ["app", "arg"])
def test_execute_with_a_line_break_is_refused(mark: str, where: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        wire.execute(f"a{mark}b" if where == "app" else "playback", f"a{mark}b" if where == "arg" else "x", "1")


@pytest.mark.parametrize("mark", LINE_BREAKS)
@pytest.mark.parametrize("where", ["subclass", "name", "value"])
def test_custom_event_with_a_line_break_is_refused(mark: str, where: str) -> None:
    parts = {"subclass": "esl_apps::call", "name": "a", "value": "b", where: f"a{mark}b"}
    with pytest.raises(ValueError, match="line break"):
        wire.custom_event(parts["subclass"], {parts["name"]: parts["value"]})
