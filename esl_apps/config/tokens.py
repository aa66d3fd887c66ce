"""Bearer tokens as the configuration holds them, in clear or as a hash."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, TypeVar

from msgspec import Meta

from esl_apps.config.fields import Name, _Section

TokenHash = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]


def hash_token(token: str) -> str:
    """As a ``token_hash`` has it. No key and no salt: a token is long and random, and such a one is not found by
    trying."""
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


class Bearer(_Section, frozen=True):
    """What has a token. ``parse`` leaves the hash alone: the token itself is not kept."""

    token: str | None = None
    token_hash: TokenHash | None = None

    @property
    def digest(self) -> bytes:
        """Empty where there is no token."""
        return bytes.fromhex((self.token_hash or "").removeprefix("sha256:"))


class IntegratorToken(Bearer, frozen=True, kw_only=True):
    name: Name
    scopes: Annotated[list[Literal["call", "read", "record"]], Meta(min_length=1)]


class CardsToken(Bearer, frozen=True, kw_only=True):
    name: Name
    scopes: Annotated[list[Literal["call", "read", "cards"]], Meta(min_length=1)]


_Bearer = TypeVar("_Bearer", bound=Bearer)
