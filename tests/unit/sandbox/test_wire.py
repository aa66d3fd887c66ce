"""The wire, without a socket."""

from __future__ import annotations

from esl_apps.sandbox.wire import wire


def test_wire_escapes_headers_and_splits_commands() -> None:
    assert wire.url_encode("a b/c:d;e@f\n\u00e4'\"~") == "a%20b/c%3Ad%3Be%40f%0A%C3%A4'%22~"
    assert wire.url_encode("100% %0A %0a") == "100%25%20%0A%20%250a"
    reader = wire.CommandReader()
    stream = b"\n\nsendmsg x\r\nA: b: c\r\nContent-Length: 2\r\n\r\nhiexit\n\n"
    commands = [command for byte in stream for command in reader.feed(bytes([byte]))]
    assert [command.line for command in commands] == ["sendmsg x", "exit"]
    assert (commands[0].get("a"), commands[0].body) == ("b: c", "hi")
