"""Sign links to recordings, so that a browser or a player without a token can open one for a limited time.

A signature covers the integrator, the recording and the time. Nothing is stored. To revoke all links, change the key.
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
        """Return the query that opens a recording's path until ``expires`` (Unix seconds)."""
        return f"expires={expires}&signature={self._sign(name, expires)}"

    def expires(self, name: str, expires: str, signature: str) -> int | None:
        """Return when a link expires (Unix seconds), or None if its signature isn't ours."""
        if not _EXPIRES.fullmatch(expires):
            return None
        until = int(expires)
        # As bytes: compare_digest refuses a string that isn't ASCII.
        if not hmac.compare_digest(self._sign(name, until).encode(), signature.encode("utf-8", "replace")):
            return None
        return until

    def _sign(self, name: str, expires: int) -> str:
        return _hmac(self._key, f"{name}\n{expires}").hex()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), hashlib.sha256)
