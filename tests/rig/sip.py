"""Read a SIP message."""

from __future__ import annotations

import re


def headers_of(message: str) -> dict[str, list[str]]:
    """Read a SIP message's headers: names in lower case, repeated ones in order. ``:start`` is the first line."""
    head = re.sub(r"\r\n[ \t]+", " ", message).partition("\r\n\r\n")[0]
    lines = head.split("\r\n")
    found: dict[str, list[str]] = {":start": [lines[0]]}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip().lower(), []).append(value.strip())
    return found


def asks_for_answer(headers: dict[str, list[str]]) -> bool:
    """Return whether an INVITE asks the phone to answer by itself, in one of the ways that most makes obey."""
    return any("answer-after=0" in value for value in headers.get("call-info", [])) or any(
        "alert-autoanswer" in value for value in headers.get("alert-info", [])
    )


def user_of(uri: str) -> str:
    """Return the user part of the first URI in a header's value or a request line, unchanged."""
    match = re.search(r"(?:sips?|tel):([^@;>\s]*)", uri)
    return match[1] if match else ""


def display_name(value: str) -> str:
    match = re.match(r'\s*"((?:[^"\\]|\\.)*)"\s*<', value)
    if match:
        return re.sub(r"\\(.)", r"\1", match[1])
    return value.partition("<")[0].strip() if "<" in value else ""


def without_telephone_event(sdp: str) -> str:
    """Return an offer without telephone-event (RFC 4733)."""
    for payload in re.findall(r"a=rtpmap:(\d+) telephone-event/", sdp):
        sdp = re.sub(rf"a=(?:rtpmap|fmtp):{payload} [^\r\n]*\r?\n", "", sdp)
        sdp = re.sub(rf"(m=audio [^\r\n]*?) {payload}\b", r"\1", sdp)
    return sdp
