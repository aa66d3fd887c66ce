"""Admission to a port: tokens, scopes and rates."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, islice

import falcon
import pytest
from falcon.testing import create_environ

from esl_apps.config.model import Rate
from esl_apps.http import access
from esl_apps.http.access import Door, Token
from esl_apps.http.agent_tokens import AgentTokens
from esl_apps.http.errors import Problem
from esl_apps.http.rate_limit import Buckets
from tests.support.clock import Clock
from tests.support.configurations import read


def test_holders_of_an_account_with_an_empty_token_are_none() -> None:
    config = read("accounts: {a: {token: ''}, b: {}}\n")
    assert access.tokens_of(config.accounts["a"], []) == access.tokens_of(config.accounts["b"], []) == []


def test_check_of_no_token_is_401_even_if_its_hash_is_known() -> None:
    door = Door(Rate, lambda _status: None)
    for token in ("", " ", None):
        with pytest.raises(Problem) as caught:
            door.check(asking(token), [Token(hashlib.sha256(b"").digest(), None)], "read")
        assert caught.value.status == 401


def test_check_compares_with_every_token_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    original = hmac.compare_digest

    def counted(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return original(a, b)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    known = [Token(hashlib.sha256(text).digest(), None) for text in (b"first", b"second", b"third")]
    door = Door(lambda: Rate(failed=None), lambda _status: None)
    for text in ("first", "third"):
        compared.clear()
        door.check(asking(text), known, "read")
        assert compared == [(32, 32)] * 3
    for text in ("", "firs", "x" * 5000):
        compared.clear()
        with pytest.raises(Problem):
            door.check(asking(text), known, "read")
        assert compared == [(32, 32)] * 3


def asking(token: str | None, address: str = "10.0.0.1") -> falcon.Request:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return falcon.Request(create_environ(headers=headers, remote_addr=address))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(access, "Buckets", lambda: Buckets(clock=made))
    return made


KNOWN = [Token(hashlib.sha256(text).digest(), None) for text in (b"right", b"other")]


def outcome(door: Door, token: str | None, address: str = "10.0.0.1") -> tuple[int, int]:
    """Return the status and the value of Retry-After."""
    request = asking(token, address)
    try:
        door.check(request, KNOWN, "read")
    except Problem as refusal:
        problem = refusal
    else:
        return 200, 0
    assert ("Retry-After" in problem.headers) is (problem.status == 429)
    return problem.status, int(problem.headers.get("Retry-After", 0))


def test_check_past_a_tokens_rate_is_429(clock: Clock) -> None:
    door = Door(lambda: Rate(per_token=0.25, per_address=None, burst=8), lambda _status: None)
    assert [outcome(door, "right")[0] for _ in range(3)] == [200, 200, 429]
    assert outcome(door, "right") == (429, 4)
    assert outcome(door, "right", "10.0.0.2") == (429, 4)
    assert outcome(door, "other") == (200, 0)
    clock.now += 3
    assert outcome(door, "right") == (429, 1)
    clock.now += 1
    assert outcome(door, "right") == (200, 0)


def agent_tokens(issuer: Token, agent: str) -> Iterator[Token]:
    """Yield tokens of one agent, each with another text."""
    tokens = AgentTokens("acme", [issuer], "key")
    for expires in count():
        read = tokens.read(tokens.issue(issuer, agent, ["call"], expires))
        assert read is not None
        yield read[0]


def admitted(door: Door, issuer: Token, *agents: str) -> int:
    """Return how many of 50 tokens of each agent get in."""
    requests = 0
    for agent in agents:
        for token in islice(agent_tokens(issuer, agent), 50):
            with suppress(Problem):
                door.enter(token, "call:agent")
                requests += 1
    return requests


def test_tokens_of_an_agent_share_its_rate(clock: Clock) -> None:
    door = Door(lambda: Rate(per_token=2, burst=2), lambda _status: None)
    assert [admitted(door, KNOWN[0], agent) for agent in ("1000", "1001")] == [4, 4]
    assert admitted(door, KNOWN[1], "1000") == 4
    assert outcome(door, "right") == outcome(door, "other") == (200, 0)
    clock.now += 1
    assert admitted(door, KNOWN[0], "1000") == 2


def test_tokens_of_all_agents_share_ten_times_the_rate(clock: Clock) -> None:
    door = Door(lambda: Rate(per_token=2, burst=2), lambda _status: None)
    agents = [str(agent) for agent in range(1000, 1050)]
    assert [admitted(door, issuer, *agents) for issuer in KNOWN] == [40, 40]
    assert outcome(door, "right") == (200, 0)
    clock.now += 1
    assert admitted(door, KNOWN[0], *agents) == 20


def test_check_past_the_rate_of_wrong_tokens_is_429_for_all(clock: Clock) -> None:
    door = Door(lambda: Rate(failed=0.1, burst=50), lambda _status: None)
    assert [outcome(door, f"guess-{number}")[0] for number in range(7)] == [401] * 5 + [429] * 2
    # The right token, too: otherwise a guesser would see that it is right.
    assert outcome(door, "right") == outcome(door, "wrong") == (429, 10)
    assert outcome(door, None) == (401, 0)
    assert outcome(door, "right", "10.0.0.2") == (200, 0)
    clock.now += 10
    assert [outcome(door, "right")[0] for _ in range(20)] == [200] * 20
    assert outcome(door, "guess")[0] == 401
    assert outcome(door, "guess") == outcome(door, "other") == (429, 10)


def test_check_lets_a_client_in_that_was_here_before(clock: Clock) -> None:
    """Others behind the same proxy may send wrong tokens all day."""
    door = Door(lambda: Rate(failed=0.1, burst=50), lambda _status: None)
    assert outcome(door, "right") == (200, 0)
    assert [outcome(door, f"guess-{number}")[0] for number in range(7)] == [401] * 5 + [429] * 2
    assert outcome(door, "right") == (200, 0)
    assert outcome(door, "other") == (429, 10)
    assert outcome(door, "right", "10.0.0.2") == (200, 0)


def test_check_forgets_a_token_that_was_withdrawn(clock: Clock) -> None:
    door = Door(lambda: Rate(failed=0.1, burst=10), lambda _status: None)
    assert outcome(door, "right") == (200, 0)
    with pytest.raises(Problem):
        door.check(asking("right"), KNOWN[1:], "read")
    assert outcome(door, "right") == (429, 10)


def test_check_remembers_a_bounded_number_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_ADMITTED", 3)
    door = Door(Rate, lambda _status: None)
    for i in range(5):
        outcome(door, "right", f"10.0.0.{i}")
    assert [address for address, _digest in door._admitted] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]


def test_check_after_a_reload_uses_the_new_rate(clock: Clock) -> None:
    rate = Rate(per_token=1, burst=1)
    door = Door(lambda: rate, lambda _status: None)
    assert [outcome(door, "right")[0] for _ in range(2)] == [200, 429]
    rate = Rate(per_token=None)
    assert outcome(door, "right") == (200, 0)


def test_default_rates_let_a_busy_client_through() -> None:
    rate = Rate()
    assert rate.per_token is not None
    assert rate.per_address is not None
    assert rate.failed is not None
    # A hundred clients share a token and an address, ask once a second, and all start at nine o'clock.
    assert min(rate.per_token, rate.per_address) >= 100
    assert min(rate.per_token, rate.per_address) * rate.burst >= 1000
    assert rate.failed * 10 <= rate.per_address
    assert rate.connections >= 200
