"""Sign tokens that open the calls of one agent, for the agent's own browser.

A token holds its agent, its scopes and when it expires. Nothing is stored, so every node can check it and Redis isn't
asked. Its key is made of the hash of the token that issued it and of ``pin_key``: an agent token ends with its issuer,
and the configuration's file alone isn't enough to make one while ``pin_key`` comes from the environment.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from esl_apps.http.access import OWN, Token

#: Seconds for which a token is good at most, and if the request doesn't say.
LONGEST = 900
#: Scopes that a token may have.
SCOPES = tuple(OWN)
_PREFIX = "agent."
#: Characters. A token is in a header, and its agent is 64 characters at most.
_LONGEST_TEXT = 512


class _Content(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    agent: str
    expires: int
    scopes: list[str]


class ReadToken(NamedTuple):
    token: Token
    expires: int
    """Unix seconds."""


class AgentTokens:
    """The agent tokens of one integrator. ``issuers``: the tokens of the configuration, each with its own key."""

    def __init__(self, integrator: str, issuers: Sequence[Token], pin_key: str) -> None:
        purpose = f"esl_apps agent token {integrator}\n{pin_key}"
        self._keys = [(issuer, hmac.digest(issuer.digest, purpose.encode(), hashlib.sha256)) for issuer in issuers]

    def issue(self, issuer: Token, agent: str, scopes: Sequence[str], expires: int) -> str:
        """Return a token for an agent until ``expires`` (Unix seconds)."""
        key = next(key for known, key in self._keys if known.digest == issuer.digest)
        content = _encoded(msgspec.json.encode(_Content(agent, expires, list(scopes))))
        return f"{_PREFIX}{content}.{_signature(key, content)}"

    def read(self, text: str) -> ReadToken | None:
        """Return the token that a text is; None if it isn't one of ours."""
        content, dot, signature = text.removeprefix(_PREFIX).partition(".")
        if not text.startswith(_PREFIX) or not dot or len(text) > _LONGEST_TEXT:
            return None
        given, signer = signature.encode("utf-8", "replace"), None
        for issuer, key in self._keys:
            if hmac.compare_digest(_signature(key, content).encode(), given):
                signer = issuer
        if signer is None:
            return None
        try:
            signed = msgspec.json.decode(_decoded(content), type=_Content)
        except (binascii.Error, msgspec.DecodeError):  # Signed by a version of ours that wrote another form.
            return None
        # A reload may have taken scopes from the issuer meanwhile.
        scopes = [scope for scope in signed.scopes if signer.scopes is None or scope in signer.scopes]
        opens = frozenset(OWN[scope] for scope in scopes if scope in OWN)
        digest = hashlib.sha256(text.encode()).digest()
        name = f"{signer.name} for agent {signed.agent}"
        return ReadToken(Token(digest, opens, name, signed.agent, signer.digest), signed.expires)


def _signature(key: bytes, content: str) -> str:
    return _encoded(hmac.digest(key, content.encode("utf-8", "replace"), hashlib.sha256))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
