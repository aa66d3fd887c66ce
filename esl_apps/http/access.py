"""Admit requests to a port: check tokens and their scopes, and limit rates.

A token is kept and compared as its hash. The comparison takes the same time for every token, right or wrong. The server
counts each request against its address. Here, each request with a right token also counts against that token (with an
agent token, against its agent and against all agents of its issuer), and each wrong token once more against its
address. Past a rate the answer is 429, before anything else is checked.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import falcon

from esl_apps.config.model import Rate
from esl_apps.config.tokens import AdminToken, Bearer, CardsToken, IntegratorToken
from esl_apps.http.errors import Problem, problem
from esl_apps.http.rate_limit import Buckets, capacity_of, source_of

CALL, READ, RECORD, CARDS, OPERATE, NUMBERS = "call", "read", "record", "cards", "operate", "numbers"
RECORD_DELETE = "record_delete"
#: A route that names these, too, is open to agent tokens, and keeps to the agent's own calls. All others are closed.
OWN_CALL, OWN_READ = "call:agent", "read:agent"
#: By the name that a request for an agent token gives them.
OWN = {CALL: OWN_CALL, READ: OWN_READ}


#: Clients whose right token is remembered. One that is forgotten is only counted again.
_ADMITTED = 10_000
#: Requests of all agent tokens of an issuer together, in times of ``rate.per_token``.
_AGENTS_TIMES = 10


@dataclass(frozen=True, slots=True)
class Token:
    """A token that opens a port, by its hash, and what it may do there."""

    digest: bytes
    #: None: everything.
    scopes: frozenset[str] | None
    #: For logs and locks, as ``acme`` or ``acme/crm``.
    name: str = ""
    #: Of an agent token: it opens this agent's calls alone.
    agent: str | None = None
    #: The digest of the token that issued it.
    issuer: bytes = b""

    def has(self, *scopes: str) -> bool:
        """Whether it has one of the scopes."""
        return self.scopes is None or not self.scopes.isdisjoint(scopes)


def tokens_of(main: Bearer, scoped: Iterable[AdminToken | CardsToken | IntegratorToken], name: str = "") -> list[Token]:
    """Return the tokens of a section of the configuration, which ``name`` names: its full token, if it has one, and
    those with scopes."""
    full = [Token(main.digest, None, name)] if main.digest else []
    return full + [
        Token(token.digest, frozenset(token.scopes), f"{name}/{token.name}") for token in scoped if token.digest
    ]


class Door:
    """Keep the counts of one port while it is open. Rates come from the configuration in force."""

    def __init__(self, rate: Callable[[], Rate], on_refused: Callable[[int], None]) -> None:
        """:param on_refused: called with the status of each 401, 403 and 429."""
        self._rate = rate
        self._on_refused = on_refused
        self._of_token = Buckets()
        self._wrong = Buckets()
        #: Addresses and digests of tokens that were right, oldest first.
        self._admitted: dict[tuple[str, bytes], None] = {}

    def check(self, req: falcon.Request, known: Sequence[Token], *scopes: str) -> Token:
        """Admit a request if its token has one of the scopes, and return the token.

        :raises Problem: 401 for no token or a wrong one; 403 for a token without these scopes; 429 for too many wrong
            tokens from this address, or too many requests with this token.
        """
        token = self.find(req, given_token(req), known)
        self.enter(token, *scopes)
        return token

    def find(self, req: falcon.Request, given: str, known: Sequence[Token]) -> Token:
        """Return the token that a request gives. :raises Problem: 401; 429 for too many wrong tokens from this
        address."""
        digest = hashlib.sha256(given.encode()).digest()
        client = (_source(req), digest)
        # Another client's wrong tokens from this address, as behind a proxy, don't shut out one that was here before.
        if given and client not in self._admitted:
            self.may_guess(req)
        matching: Token | None = None
        for token in known:
            # Compare with all, so that the time doesn't tell a token's place in the list.
            if hmac.compare_digest(digest, token.digest):
                matching = token
        if matching is None or not given:
            self._admitted.pop(client, None)
            if given:
                self.guessed(req)
            raise self.unauthorized()
        self._admitted[client] = None
        if len(self._admitted) > _ADMITTED:
            del self._admitted[next(iter(self._admitted))]
        return matching

    def enter(self, token: Token, *scopes: str) -> None:
        """Count a request of a token. :raises Problem: 429 for too many; 403 if it has none of the scopes."""
        rate = self._rate()
        if rate.per_token is not None:
            wait = self._count(token, rate.per_token, rate.burst)
            if wait:
                raise self.too_many(wait, "requests with this token")
        if not token.has(*scopes):
            self._on_refused(403)
            # Those with a colon are for agents' own tokens: no configuration names them.
            named = " or ".join(scope for scope in scopes if ":" not in scope)
            raise problem(403, "scope", f"this token lacks the scope {named}")

    def _count(self, token: Token, rate: float, burst: float) -> float:
        """Count a request of a token. Return the seconds to wait; 0 if it is admitted."""
        if token.agent is None:
            return self._of_token.take(token.digest, rate, capacity_of(rate, burst))
        # Issuing another token for the agent, or for another agent, must not bring an issuer any number of requests.
        wait = self._of_token.take((token.issuer, token.agent), rate, capacity_of(rate, burst))
        rate *= _AGENTS_TIMES
        return wait or self._of_token.take((token.issuer, None), rate, capacity_of(rate, burst))

    def may_guess(self, req: falcon.Request) -> None:
        """Call this before comparing a secret. :raises Problem: 429 for too many wrong secrets from this address."""
        # The right secret gets 429, too. If it were let in, a guesser would learn that it is right.
        rate = self._rate()
        if rate.failed is not None:
            wait = self._wrong.wait(_source(req), rate.failed, capacity_of(rate.failed, rate.burst))
            if wait:
                raise self.too_many(wait, "wrong tokens from this address")

    def guessed(self, req: falcon.Request) -> None:
        """Count a wrong secret against this address."""
        rate = self._rate()
        if rate.failed is not None:
            self._wrong.take(_source(req), rate.failed, capacity_of(rate.failed, rate.burst))

    def unauthorized(self) -> Problem:
        self._on_refused(401)
        return problem(
            401,
            "unauthorized",
            "expected Authorization: Bearer TOKEN, or X-Auth-Token",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def too_many(self, wait: float, what: str) -> Problem:
        """Return the answer to a client that has to wait so many seconds."""
        self._on_refused(429)
        return problem(429, "too_many", f"too many {what}", headers={"Retry-After": str(max(1, math.ceil(wait)))})


def given_token(req: falcon.Request) -> str:
    """Return the text of the token that a request gives, or an empty string."""
    authorization = req.get_header("Authorization") or ""
    if authorization[:7].lower() == "bearer ":
        return authorization[7:].strip()
    return req.get_header("X-Auth-Token") or ""


def _source(req: falcon.Request) -> str:
    return source_of(req.env["REMOTE_ADDR"])
