"""A registration whose phone is gone: an unplugged phone, a closed app."""

from __future__ import annotations

import hashlib
import os
import re
import socket

from tests.rig.base import HOST, RigError
from tests.rig.sip import headers_of


class DeadRegistration:
    """Registers a user at a port that is closed then, as an INVITE will find. :raises RigError: it was refused."""

    def __init__(self, registrar: int, user: str, password: str) -> None:
        self.registrar, self.user, self.password = registrar, user, password
        self.ref = os.urandom(8).hex()
        self.sent = 0
        with self._socket() as phone:
            self.contact = f"{HOST}:{phone.getsockname()[1]}"
            self._register(phone, 600)

    def forget(self) -> None:
        """Take it back."""
        with self._socket() as phone:
            self._register(phone, 0)

    def _socket(self) -> socket.socket:
        phone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        phone.bind((HOST, 0))
        phone.connect((HOST, self.registrar))
        phone.settimeout(5)
        return phone

    def _register(self, phone: socket.socket, seconds: int) -> None:
        here, user = f"{HOST}:{phone.getsockname()[1]}", self.user
        authorization, status = "", 0
        for _challenged in (False, True):
            self.sent += 1
            lines = [
                f"REGISTER sip:{HOST} SIP/2.0",
                f"Via: SIP/2.0/UDP {here};rport;branch=z9hG4bK{self.ref}{self.sent}",
                "Max-Forwards: 70",
                f"From: <sip:{user}@{HOST}>;tag={self.ref}",
                f"To: <sip:{user}@{HOST}>",
                f"Call-ID: {self.ref}",
                f"CSeq: {self.sent} REGISTER",
                f"Contact: <sip:{user}@{self.contact}>",
                f"Expires: {seconds}",
                *([f"Authorization: {authorization}"] if authorization else []),
                "Content-Length: 0",
            ]
            phone.send(("\r\n".join(lines) + "\r\n\r\n").encode())
            answer = phone.recv(65536).decode("utf-8", "replace")
            status = int(answer[8:11])
            authorization = _credentials(headers_of(answer).get("www-authenticate", [""])[0], user, self.password)
        if status != 200:
            raise RigError(f"{user} could not register: {status}")


def _credentials(challenge: str, user: str, password: str) -> str:
    """Answer a digest challenge (RFC 2617)."""
    given = dict(re.findall(r'(\w+)="?([^",]+)"?', challenge))
    uri = f"sip:{HOST}"
    secret = _md5(f"{user}:{given.get('realm')}:{password}")
    answer = _md5(f"{secret}:{given.get('nonce')}:00000001:abc:auth:{_md5(f'REGISTER:{uri}')}")
    parts = {"username": user, "realm": given.get("realm"), "nonce": given.get("nonce"), "uri": uri, "cnonce": "abc"}
    quoted = ",".join(f'{name}="{value}"' for name, value in {**parts, "response": answer}.items())
    return f"Digest {quoted},qop=auth,nc=00000001,algorithm=MD5"


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
