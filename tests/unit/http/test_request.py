"""The parser alone, fed from the files in ``requests/``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_apps.http.request import MAX_HEAD, BadRequest, Need, Parser, Request

REQUESTS = sorted((Path(__file__).parent / "requests").glob("*.http"))


def shown(request: Request) -> dict[str, Any]:
    """Return a request in the form of the files."""
    length = len(request.body)
    body = request.body.decode("latin-1") if length <= 100 else f"{length} bytes"
    return {**dataclasses.asdict(request), "body": body}


def read(pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    """Feed the bytes of one connection in these pieces, and return the requests and the refusal."""
    parser, result = Parser(), []
    try:
        for piece in pieces:
            parser.feed(piece)
            while (found := parser.next()) not in (Need.REQUEST, Need.HEAD, Need.BODY):
                if isinstance(found, Request):
                    result.append(shown(found))
                    if not found.whole:
                        return result
        parser.close()
    except BadRequest as refused:
        result.append({"status": refused.status, "code": refused.code, "reason": str(refused)})
    return result


@pytest.mark.parametrize("file", REQUESTS, ids=lambda file: file.stem)
def test_parser_with_a_file_gives_what_is_expected(file: Path) -> None:
    data = file.read_bytes()
    expected = json.loads(file.with_suffix(".expected").read_text())
    assert read([data]) == expected
    assert read(bytes([byte]) for byte in data) == expected
    for cut in range(1, len(data)):
        assert read([data[:cut], data[cut:]]) == expected, f"cut at byte {cut}"


SMALL = [file.read_bytes() for file in REQUESTS if file.stat().st_size < 1000]
BREAKING = [b"", b"\r", b"\n", b"\r\n", b" ", b":", b"\x00", b"0"]
EDITS = st.lists(st.tuples(st.integers(0, 999), st.integers(0, 3), st.sampled_from(BREAKING)), max_size=3)


@settings(max_examples=300)
@given(st.sampled_from(SMALL), EDITS, st.lists(st.integers(0, 999), max_size=6))
def test_parser_with_broken_bytes_gives_the_same_in_pieces(
    data: bytes, edits: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    for position, removed, added in edits:
        data = data[:position] + added + data[position + removed :]
    ends = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    in_pieces = read(data[begin:end] for begin, end in pairwise(ends) if end > begin)
    at_once = read([data])
    for refused in (*in_pieces, *at_once):
        # With two faults, the reason depends on which arrives first.
        refused.pop("reason", None)
    assert in_pieces == at_once


def test_files_come_in_pairs() -> None:
    folder = Path(__file__).parent / "requests"
    assert {file.stem for file in REQUESTS} == {file.stem for file in folder.glob("*.expected")}
    assert REQUESTS


def test_parser_says_what_it_waits_for() -> None:
    parser = Parser()
    assert parser.next() is Need.REQUEST
    assert not parser.begun
    parser.feed(b"POST / HTTP/1.1\r\nHost: x\r\n")
    assert parser.next() is Need.HEAD
    assert parser.begun
    parser.feed(b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
    assert parser.next() is Need.CONTINUE
    assert parser.next() is Need.BODY
    assert parser.begun
    parser.feed(b"{}GET")
    request = parser.next()
    assert isinstance(request, Request)
    assert request.body == b"{}"
    assert parser.next() is Need.HEAD


def test_parser_expecting_continue_with_a_body_needs_nothing() -> None:
    parser = Parser()
    parser.feed(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}")
    assert isinstance(parser.next(), Request)


def test_parser_after_empty_lines_waits_for_a_head() -> None:
    """If it waited for a new request, each empty line would start the deadline again."""
    parser = Parser()
    assert parser.next() is Need.REQUEST
    for _ in range(3):
        parser.feed(b"\r\n")
        assert parser.next() is Need.HEAD
        assert not parser.begun


@pytest.mark.parametrize("line", [b"X: aaaaaaaaaaaaaa\r\n", b"a" * 1000])
def test_parser_fed_without_end_keeps_a_bounded_buffer(line: bytes) -> None:
    parser = Parser()
    parser.feed(b"GET / HTTP/1.1\r\n")
    fed = 0

    def feed_on() -> None:
        nonlocal fed
        while fed < 10 * MAX_HEAD:
            parser.feed(line)
            fed += len(line)
            parser.next()

    with pytest.raises(BadRequest) as refused:
        feed_on()
    assert refused.value.status == 431
    assert fed < MAX_HEAD + len(line)


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("chunk", "count"),
    [(b"1\r\na\r\n", 3275), (b"1;" + b"x" * 1000 + b"\r\na\r\n", 16), (b"14\r\n" + b"a" * 20 + b"\r\n", 2729)],
    ids=["bytes", "extensions", "20 bytes"],
)
def test_parser_bounds_what_surrounds_chunks(chunk: bytes, count: int) -> None:
    assert [found["status"] for found in read([CHUNKED + chunk * (count + 2) + b"0\r\n\r\n"])] == [400]
    # The limit counts what surrounds the chunks, and the last one.
    assert [found["whole"] for found in read([CHUNKED + chunk * (count - 1) + b"0\r\n\r\n"])] == [True]


def test_parser_bounds_trailers_with_their_body() -> None:
    trailer = b"X: " + b"a" * 1000 + b"\r\n"
    for count, wanted in ((15, True), (17, None)):
        (found,) = read([CHUNKED + b"0\r\n" + trailer * count + b"\r\n"])
        assert found.get("whole") is wanted
