"""An idempotency key is claimed by one request, whichever node it reaches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import idempotency, keys
from esl_apps.store.errors import NoAnswer, Unreadable
from esl_apps.store.idempotency import IdempotencyKeys, same_body

BOOT = "boot-of-a-process"


@pytest.fixture
def claims(client: Any) -> IdempotencyKeys:
    return IdempotencyKeys(client, BOOT)


def test_key_of_a_dead_process_is_reclaimed_once(claims: IdempotencyKeys) -> None:
    assert claims.claim("acme", "k", b"{}", "ref-1") is None
    claim = claims.claim("acme", "k", b"{}", "ref-2")
    assert claim is not None
    assert claim.boot == BOOT
    others = [IdempotencyKeys(claims._client, boot) for boot in ("first", "second")]
    assert [other.reclaim("acme", "k", claim, f"ref-{n}") for n, other in enumerate(others, 3)] == [True, False]
    found = claims.claim("acme", "k", b"{}", "ref-5")
    assert found is not None
    assert (found.call_ref, found.boot) == ("ref-3", "first")


def test_key_that_another_process_took_over_is_not_released(claims: IdempotencyKeys) -> None:
    """A process that was stopped and taken for dead refuses its own request late."""
    assert claims.claim("acme", "k", b"{}", "ref-1") is None
    claim = claims.claim("acme", "k", b"{}", "ref-2")
    assert claim is not None
    assert claims.holds("acme", "k", "ref-1")
    assert IdempotencyKeys(claims._client, "second").reclaim("acme", "k", claim, "ref-2")
    assert not claims.holds("acme", "k", "ref-1")
    claims.release("acme", "k", b"{}", "ref-1")
    found = claims.claim("acme", "k", b"{}", "ref-3")
    assert found is not None
    assert found.call_ref == "ref-2"


def test_key_is_claimed_once(claims: IdempotencyKeys) -> None:
    assert claims.claim("acme", "k", b"{}", "ref-1") is None
    claim = claims.claim("acme", "k", b"{}", "ref-2")
    assert claim is not None
    assert claim.call_ref == "ref-1"
    assert same_body(claim, b"{}")
    assert not same_body(claim, b"{ }")
    assert claims.claim("beta", "k", b"{}", "ref-3") is None
    claims.release("acme", "k", b"{}", "ref-1")
    assert claims.claim("acme", "k", b"{}", "ref-4") is None


def test_key_claimed_by_fifty_at_once_goes_to_one(claims: IdempotencyKeys) -> None:
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda number: claims.claim("acme", "k", b"{}", f"ref-{number}"), range(50)))
    assert found.count(None) == 1
    assert len({claim.call_ref for claim in found if claim is not None}) == 1


def test_claim_that_cannot_be_read_is_told(claims: IdempotencyKeys, client: Any) -> None:
    assert claims.claim("acme", "k", b"{}", "ref-1") is None
    [name] = client.keys(keys.idempotency("acme", "*"))
    client.set(name, b"{")
    with pytest.raises(Unreadable):
        claims.claim("acme", "k", b"{}", "ref-2")


def test_claim_while_redis_is_down_raises_and_release_does_not(away: Any, caplog: pytest.LogCaptureFixture) -> None:
    claims = IdempotencyKeys(away, BOOT)
    with pytest.raises(StoreUnavailable):
        claims.claim("acme", "k", b"{}", "ref-1")
    claims.release("acme", "k", b"{}", "ref-1")
    assert "refused" in str(caplog.records[0].__dict__["reason"])


def test_claim_of_a_later_version_is_reclaimed(claims: IdempotencyKeys, client: Any) -> None:
    """It is compared as it is stored, not as this version would write it."""
    assert claims.claim("acme", "k", b"{}", "ref-1") is None
    [name] = client.keys(keys.idempotency("acme", "*"))
    client.set(name, client.get(name)[:-1] + b',"later":1,"v":2}')
    claim = claims.claim("acme", "k", b"{}", "ref-2")
    assert claim is not None
    assert claims.reclaim("acme", "k", claim, "ref-3")
    assert not claims.reclaim("acme", "k", claim, "ref-4")


class LostAnswer:
    """A client whose first command is run, and whose answer is lost."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def execute_command(self, *args: Any) -> Any:
        answer = self._client.execute_command(*args)
        if not self._lost and args[0] == "EVALSHA":
            self._lost = True
            raise NoAnswer
        return answer


def test_claim_whose_answer_is_lost_is_given_back(client: Any, claims: IdempotencyKeys) -> None:
    assert claims.claim("acme", "other", b"{}", "ref-0") is None  # Redis knows the script.
    unlucky: Any = LostAnswer(client)
    with pytest.raises(NoAnswer):
        IdempotencyKeys(unlucky, BOOT).claim("acme", "k", b"{}", "ref-1")
    assert claims.claim("acme", "k", b"{}", "ref-2") is None


def test_key_says_how_its_action_ended(claims: IdempotencyKeys) -> None:
    assert claims.claim("acme", "k", b"{}", "ref-1") is None
    claim = claims.claim("acme", "k", b"{}", "ref-1")
    assert claim is not None
    assert claim.outcome == ""
    claims.note("acme", "k", b"{}", "ref-1", idempotency.DONE, "ref-2")
    noted = claims.claim("acme", "k", b"{}", "ref-1")
    assert noted is not None
    assert (noted.outcome, noted.transfer_ref) == (idempotency.DONE, "ref-2")
    # Another process that took the first one for dead comes too late.
    assert not IdempotencyKeys(claims._client, "second").reclaim("acme", "k", claim, "ref-1")


def test_key_that_another_process_took_over_is_not_noted(claims: IdempotencyKeys) -> None:
    assert claims.claim("acme", "k", b"{}", "ref-1") is None
    claim = claims.claim("acme", "k", b"{}", "ref-1")
    assert claim is not None
    assert IdempotencyKeys(claims._client, "second").reclaim("acme", "k", claim, "ref-1")
    claims.note("acme", "k", b"{}", "ref-1", idempotency.DONE)
    found = claims.claim("acme", "k", b"{}", "ref-1")
    assert found is not None
    assert (found.boot, found.outcome) == ("second", "")


def test_key_has_an_age(client: Any, claims: IdempotencyKeys) -> None:
    assert claims.claim("acme", "k", b"{}", "ref-1") is None
    assert 0 <= claims.age("acme", "k") < 10
    [name] = client.keys(keys.idempotency("acme", "*"))
    client.expire(name, idempotency.KEEP - 100)
    assert 100 <= claims.age("acme", "k") < 110
