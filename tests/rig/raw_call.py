"""An INVITE whose bytes a test chooses."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping

from tests.rig.base import HOST
from tests.rig.sip import headers_of


class RawCall:
    """An INVITE written by hand, for messages that PJSIP would refuse to send or would correct.

    ``number`` goes into the request line and ``sender`` behind ``From: ``, unchanged; ``headers`` are added, even twice
    the same. ``instead`` replaces lines that every INVITE has (``To``, ``Contact``, ``Call-ID``, ``Via``'s parameters,
    ``Content-Type``); ``payload`` replaces the offer of PCMU at an unused port. Bytes that aren't UTF-8 are written as
    surrogate escapes.
    """

    content_type = "application/sdp"

    def body(self, sdp: str) -> str:
        """Return the INVITE's body, of type ``content_type``."""
        return sdp

    def __init__(
        self,
        port: int,
        number: str,
        headers: Iterable[tuple[str, str]],
        sender: str,
        *,
        instead: Mapping[str, str] | None = None,
        payload: str | None = None,
    ) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))
        self.socket.connect((HOST, port))
        self.here = f"{HOST}:{self.socket.getsockname()[1]}"
        self.uri = f"sip:{number}@{HOST}:{port}"
        self.instead = dict(instead or {})
        self.ref = hashlib.sha1(os.urandom(8)).hexdigest()
        self.sender = f"{sender};tag={self.ref[:8]}"
        self.to = f"<{self.uri}>"
        self.sent = 1
        self.responses: list[tuple[int, dict[str, list[str]]]] = []
        self.text = ""
        """All received bytes."""
        offer = [f"v=0\r\no=- 1 1 IN IP4 {HOST}\r\ns=-\r\nc=IN IP4 {HOST}\r\nt=0 0\r\n"]
        offer += ["m=audio 9 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"]
        self._send("INVITE", 1, headers, self.body("".join(offer)) if payload is None else payload)

    def _send(
        self,
        method: str,
        number: int,
        headers: Iterable[tuple[str, str]] = (),
        body: str = "",
        content_type: str = "",
    ) -> None:
        branch = 1 if method in ("ACK", "CANCEL") and self.status != 200 else number
        first = method == "INVITE" and number == 1
        own = self.instead
        kind = content_type or self.content_type
        encoded = body.encode("utf-8", "surrogateescape")
        lines = [
            f"{method} {self.uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.here};rport;branch=z9hG4bK{self.ref[:12]}{branch}{own.get('Via', '')}",
            "Max-Forwards: 70",
            f"From: {self.sender}",
            f"To: {own.get('To', self.to) if first else self.to}",
            f"Call-ID: {own.get('Call-ID', self.ref)}",
            f"CSeq: {number} {method}",
            f"Contact: {own.get('Contact', f'<sip:raw@{self.here}>')}",
            *(f"{name}: {value}" for name, value in headers),
            *([f"Content-Type: {own.get('Content-Type', kind) if first else kind}"] if body else []),
            f"Content-Length: {len(encoded)}",
        ]
        self.socket.send(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape") + encoded)

    @property
    def status(self) -> int | None:
        """The status of the last response."""
        return self.responses[-1][0] if self.responses else None

    def wait(self, within: float = 5.0) -> int | None:
        """Wait for the final status, acknowledge and return it; None if none comes. ``responses`` has all of them."""
        until = time.monotonic() + within
        while self.status is None or self.status < 200:
            self.socket.settimeout(max(0.001, until - time.monotonic()))
            try:
                message = self.socket.recv(65536).decode("utf-8", "replace")
            except (TimeoutError, ConnectionError):
                return None
            self.text += message
            headers = headers_of(message)
            if message.startswith("SIP/2.0 ") and headers.get("cseq") == ["1 INVITE"]:
                self.responses.append((int(message[8:11]), headers))
                self.to = headers.get("to", [self.to])[0]
        self._send("ACK", 1)
        return self.status

    def request(self, method: str, headers: Iterable[tuple[str, str]] = (), body: str = "", kind: str = "") -> None:
        """Send one more request in the answered call, without waiting. ``kind``: the body's Content-Type."""
        self.sent += 1
        self._send(method, self.sent, headers, body, kind)

    def answer(self, within: float = 5.0) -> int | None:
        """Return the final status of the last ``request``; None if none comes."""
        until = time.monotonic() + within
        while True:
            self.socket.settimeout(max(0.001, until - time.monotonic()))
            try:
                message = self.socket.recv(65536).decode("utf-8", "replace")
            except (TimeoutError, ConnectionError):
                return None
            self.text += message
            number = headers_of(message).get("cseq", [""])[0].partition(" ")[0]
            if re.match(r"SIP/2\.0 [2-6]", message) and number == str(self.sent):
                return int(message[8:11])

    def hangup(self) -> None:
        if self.status is None or self.status < 200:
            self._send("CANCEL", 1)
            if self.status is not None:
                # Acknowledge an answer that crosses the CANCEL, or the switch would wait half a minute for the ACK.
                self.wait()
        if self.status == 200:
            self._send("BYE", self.sent + 1)
        self.socket.close()
