"""Bearer tokens as the configuration holds them, in clear or as a hash."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from msgspec import Meta

from esl_apps.config.fields import Name, Section, described

TokenHash = Annotated[
    str, described("sha256: and 64 hex digits, as `esl-apps hash-token` prints it", pattern=r"^sha256:[0-9a-f]{64}\Z")
]


def hash_token(token: str) -> str:
    """As a ``token_hash`` has it. No key and no salt: a token is long and random, and such a one is not found by
    trying."""
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


class Bearer(Section, frozen=True):
    """What has a token. ``parse`` leaves the hash alone: the token itself is not kept."""

    token: str | None = None
    """The bearer token."""
    token_hash: TokenHash | None = None
    """The output of `esl-apps hash-token`, instead of token."""

    @property
    def digest(self) -> bytes:
        """Empty where there is no token."""
        return bytes.fromhex((self.token_hash or "").removeprefix("sha256:"))


class IntegratorToken(Bearer, frozen=True, kw_only=True):
    name: Name
    """Name of the token, for logs."""
    scopes: Annotated[list[Literal["call", "read", "record"]], Meta(min_length=1)]
    """What it may be used for: call, read, record."""


class CardsToken(Bearer, frozen=True, kw_only=True):
    name: Name
    """Name of the token, for logs."""
    scopes: Annotated[list[Literal["call", "read", "cards"]], Meta(min_length=1)]
    """What it may be used for: call (autodial), read, cards."""


def digest_of(bearer: Bearer) -> bytes:
    """The digest of a token that ``parse`` hasn't hashed yet, too."""
    return hashlib.sha256(bearer.token.encode()).digest() if bearer.token else bearer.digest
