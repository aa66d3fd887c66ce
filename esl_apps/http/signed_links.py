"""Signed links to recordings: a second way in, for a browser or a player that has no token, until a time that it names.

A signature is bound to integrator, recording and that time; nothing of it is stored, so what takes all links back is a
new key.
"""

from __future__ import annotations

import hashlib
import hmac
import re

_EXPIRES = re.compile(r"[0-9]{1,12}")


class Links:
    def __init__(self, link_key: str, integrator: str) -> None:
        self._key = _hmac(link_key.encode(), f"esl_apps recording link {integrator}")

    def query(self, name: str, expires: int) -> str:
        """What makes a recording's path open, until ``expires`` (Unix seconds)."""
        return f"expires={expires}&signature={self._sign(name, expires)}"

    def expires(self, name: str, expires: str, signature: str) -> int | None:
        """Until when a link is good; None where it is none of ours."""
        if not _EXPIRES.fullmatch(expires):
            return None
        at = int(expires)
        # As bytes: a text that is not ASCII can't be compared in constant time.
        if not hmac.compare_digest(self._sign(name, at).encode(), signature.encode("utf-8", "replace")):
            return None
        return at

    def _sign(self, name: str, expires: int) -> str:
        return _hmac(self._key, f"{name}\n{expires}").hex()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), hashlib.sha256)
