"""A switch's WebSocket, as far as the phone's page can tell: it takes and begins calls, without any audio."""

from __future__ import annotations

import itertools
import re
from typing import Any

from tests.rig.base import eventually

SERVER = "ws://switch.test/"
_ICE = "a=ice-ufrag:test", "a=ice-pwd:a-password-of-24-letters", "a=setup:active"
_OFFER = (
    *("v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "m=audio 9 UDP/TLS/RTP/SAVPF 0", "c=IN IP4 0.0.0.0"),
    *("a=rtcp-mux", "a=mid:0", *_ICE[:2], "a=setup:actpass", "a=rtpmap:0 PCMU/8000", "a=sendrecv"),
    f"a=fingerprint:sha-256 {':'.join(['AA'] * 32)}",
)


class Switch:
    """``received`` has the requests and responses of a page. It reads and answers nothing while it is ``dead``."""

    def __init__(self, context: Any) -> None:
        self.sockets: list[Any] = []
        self.received: list[str] = []
        self.dead = False
        self._numbers = itertools.count(1)
        self._contact = ""
        context.route_web_socket(SERVER, self._opened)

    def _opened(self, socket: Any) -> None:
        self.sockets.append(socket)
        socket.on_message(lambda text: self._read(socket, text))

    def _read(self, socket: Any, text: str) -> None:
        if self.dead:
            return
        self.received.append(text)
        method = text.partition(" ")[0]
        if method == "REGISTER":
            self._contact = re.findall(r"<(sip:[^>]+)>", _header(text, "Contact"))[0]
            _answer(socket, text, Contact=_header(text, "Contact"))
        elif method == "INVITE":
            _answer(socket, text, _sdp_answer(text.partition("\r\n\r\n")[2]), Contact="<sip:switch.test;transport=ws>")
        elif method in ("BYE", "CANCEL"):
            _answer(socket, text)

    def ring(self, number: str, name: str = "") -> None:
        """Call the page."""
        n = next(self._numbers)
        shown = f'"{name}" ' if name else ""
        head = (
            f"INVITE {self._contact} SIP/2.0",
            f"Via: SIP/2.0/WS switch.test;branch=z9hG4bK{n}",
            f"From: {shown}<sip:{number}@switch.test>;tag=from{n}",
            "To: <sip:1000@switch.test>",
            f"Call-ID: call-{n}",
            "CSeq: 1 INVITE",
            "Contact: <sip:switch.test;transport=ws>",
            "Max-Forwards: 70",
        )
        self.sockets[-1].send(_message(head, "\r\n".join(_OFFER) + "\r\n"))

    def count(self, begin: str) -> int:
        return sum(text.startswith(begin) for text in self.received)


def register(page: Any, api: str) -> None:
    """Register the page at /phone/ at the switch of its context."""
    page.goto(f"http://{api}/phone/")
    fill_in_account(page)


def fill_in_account(page: Any) -> None:
    for name, text in {"extension": "1000", "password": "p", "server": SERVER, "domain": "switch.test"}.items():
        page.fill(f"[name={name}]", text)
    page.click("#register")
    sees(page, "#registration", "Registered as 1000")


def sees(page: Any, selector: str, text: str) -> None:
    eventually(lambda: text in page.inner_text(selector))


def _header(text: str, name: str) -> str:
    match = re.search(rf"^{name}: (.*)\r$", text, re.MULTILINE)
    return match[1] if match else ""


def _answer(socket: Any, request: str, body: str = "", **headers: str) -> None:
    copied = {name: _header(request, name) for name in ("Via", "From", "To", "Call-ID", "CSeq")}
    if ";tag=" not in copied["To"]:
        copied["To"] += ";tag=to"
    head = (f"{name}: {value}" for name, value in (copied | headers).items())
    socket.send(_message(("SIP/2.0 200 OK", *head), body))


def _message(head: tuple[str, ...], body: str) -> str:
    kind = ("Content-Type: application/sdp",) if body else ()
    return "\r\n".join((*head, *kind, f"Content-Length: {len(body)}", "", body))


def _sdp_answer(offer: str) -> str:
    own = ("a=candidate", "a=ssrc", "a=msid", "a=extmap", "a=ice-", "a=setup", "a=end-of")
    lines = [line for line in offer.splitlines() if not line.startswith(own)]
    return "\r\n".join((*lines, *_ICE)) + "\r\n"
