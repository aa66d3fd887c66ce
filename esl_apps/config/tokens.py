"""Bearer tokens as the configuration holds them, in clear or as a hash."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from msgspec import Meta

from esl_apps.config.fields import Name, Section, described

TokenHash = Annotated[
    str, described("sha256: and 64 hex digits, as `esl-apps hash-token` prints it", pattern=r"^sha256:[0-9a-f]{64}\Z")
]
PinHash = Annotated[
    str, described("64 hex digits in small letters, as `esl-apps hash-pin` prints them", pattern=r"^[0-9a-f]{64}\Z")
]


def hash_token(token: str) -> str:
    """Hash a token for ``token_hash``. It needs no salt: a long random token can't be found by trying."""
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


class Bearer(Section, frozen=True):
    """A section with a token. ``parse`` keeps only the hash of it."""

    token: str | None = None
    """The bearer token."""
    token_hash: TokenHash | None = None
    """The output of `esl-apps hash-token`, instead of token."""

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the token; empty without one."""
        return bytes.fromhex((self.token_hash or "").removeprefix("sha256:"))


class IntegratorToken(Bearer, frozen=True, kw_only=True):
    name: Name
    """Name of the token, for logs."""
    scopes: Annotated[list[Literal["call", "read", "record", "record_delete"]], Meta(min_length=1)]
    """Uses that it is good for: call, read, record, record_delete."""


class CardsToken(Bearer, frozen=True, kw_only=True):
    name: Name
    """Name of the token, for logs."""
    scopes: Annotated[list[Literal["call", "read", "cards"]], Meta(min_length=1)]
    """Uses that it is good for: call (autodial), read, cards."""


class AdminToken(Bearer, frozen=True, kw_only=True):
    name: Name
    """Name of the token, for logs."""
    scopes: Annotated[list[Literal["call", "read", "cards", "operate", "numbers"]], Meta(min_length=1)]
    """Uses that it is good for: call (autodial), read, cards, operate (changes under /v1), numbers (unmasked)."""


def digest_of(bearer: Bearer) -> bytes:
    """``Bearer.digest``, also before ``parse`` has replaced the token by its hash."""
    return hashlib.sha256(bearer.token.encode()).digest() if bearer.token else bearer.digest
