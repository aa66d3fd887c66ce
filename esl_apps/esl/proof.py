"""A switch's proof that it knows ``node.secret``.

The node asks for a hash of the switch's global variable together with a number that it uses once. So the secret is in
no channel, no record and no log, it doesn't travel, and an answer that was overheard opens nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from secrets import token_hex

from esl_apps.core.terms import SECRET_VARIABLE
from esl_apps.esl import wire
from esl_apps.esl.wire import Event


class Proof:
    """One question to one switch."""

    __slots__ = ("_nonce", "_secrets")

    def __init__(self, secrets: Sequence[str]) -> None:
        """``secrets``: any of them will do. There are two while one is replaced."""
        self._secrets = secrets
        self._nonce = token_hex(16)

    @property
    def question(self) -> bytes:
        """The command to send."""
        return wire.command(f"api expand md5 {self._nonce}${{{SECRET_VARIABLE}}}")

    def is_given_by(self, answer: Event) -> bool:
        # The hash that FreeSWITCH has. A search is hindered by the secret's length alone, hence 16 characters at least.
        given = answer.data.strip().encode()
        hashes = [hashlib.md5(f"{self._nonce}{secret}".encode(), usedforsecurity=False) for secret in self._secrets]
        return any(hmac.compare_digest(given, digest.hexdigest().encode()) for digest in hashes)
