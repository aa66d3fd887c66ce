"""Sessions without state: a signed value with an expiry, in a cookie.

The signature's key is a secret that all nodes share through Redis; the token's digest is signed too. So any worker of
any node can check a session, a token that is taken out of the configuration ends its sessions, and neither the
configuration (which may hold the hash of a token) nor Redis alone is enough to forge one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence

from esl_apps.http.access import Token
from esl_apps.store import keys
from esl_apps.store.redis_client import Client

#: Seconds: a working day, with a margin.
LONGEST = 12 * 3600
_NONCE = 18


class Sessions:
    """Every method raises ``StoreUnavailable`` if the secret isn't known yet and Redis is down."""

    def __init__(self, redis: Client, clock: Callable[[], float] = time.time) -> None:
        """:param clock: Unix seconds."""
        self._redis = redis
        self._clock = clock
        self._secret = b""

    def begin(self, token: Token) -> str:
        """Return the cookie's value for a token."""
        head = f"{int(self._clock()) + LONGEST}.{secrets.token_urlsafe(_NONCE)}"
        return f"{head}.{self._sign('session', head, token.digest)}"

    def token_of(self, cookie: str, known: Sequence[Token]) -> Token | None:
        """Return the token whose session it is; None if it was not signed here or has expired."""
        head, _, signature = cookie.rpartition(".")
        expires = head.partition(".")[0]
        if not expires.isascii() or not expires.isdigit() or len(expires) > 12 or int(expires) <= self._clock():
            return None
        found = self._match(head, signature, known)
        if found is None and self._read():
            # Redis was emptied, and another node made a new secret.
            found = self._match(head, signature, known)
        return found

    def _match(self, head: str, signature: str, known: Sequence[Token]) -> Token | None:
        matching = None
        for token in known:
            if hmac.compare_digest(self._sign("session", head, token.digest).encode(), signature.encode()):
                matching = token
        return matching

    def form_token(self, cookie: str) -> str:
        """Return what a form of this session must bring along: another site can't know it."""
        return self._sign("form", cookie)

    def alias(self, key: str) -> str:
        """Return a name for a key of a lock or a waiting call, which may be a telephone number."""
        return self._sign("alias", key)[:24]

    def _sign(self, use: str, text: str, more: bytes = b"") -> str:
        if not self._secret:
            self._read()
        return hmac.new(self._secret, b"\0".join([use.encode(), text.encode(), more]), hashlib.sha256).hexdigest()

    def _read(self) -> bool:
        """Read the secret, or make it. Return whether it has changed."""
        before = self._secret
        found = self._redis.get(keys.CONSOLE_SECRET)
        if not found:
            # If two nodes make one at the same time, the first one's is kept.
            self._redis.set(keys.CONSOLE_SECRET, secrets.token_bytes(32), nx=True)
            found = self._redis.get(keys.CONSOLE_SECRET)
        self._secret = found or b""
        return self._secret != before
