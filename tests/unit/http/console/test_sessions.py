"""Sessions that are signed and kept nowhere."""

from __future__ import annotations

import hashlib

import pytest

from esl_apps.http.access import Token
from esl_apps.http.console.sessions import LONGEST, Sessions
from esl_apps.store import keys, redis_client
from tests.support.clock import Clock
from tests.support.node import RedisServer


def token(text: str) -> Token:
    return Token(hashlib.sha256(text.encode()).digest(), None, text)


KNOWN = [token("first"), token("second")]


@pytest.fixture
def client(redis: RedisServer) -> redis_client.Client:
    redis.client.flushall()
    return redis_client.connect(redis.url)


def test_session_of_a_token_is_read_by_any_process(client: redis_client.Client) -> None:
    cookie = Sessions(client).begin(KNOWN[1])
    assert Sessions(client).token_of(cookie, KNOWN) is KNOWN[1]


def test_session_whose_token_is_taken_out_ends(client: redis_client.Client) -> None:
    sessions = Sessions(client)
    assert sessions.token_of(sessions.begin(KNOWN[1]), KNOWN[:1]) is None


def test_session_ends_after_its_time(client: redis_client.Client) -> None:
    clock = Clock()
    sessions = Sessions(client, clock)
    cookie = sessions.begin(KNOWN[0])
    clock.now += LONGEST - 1
    assert sessions.token_of(cookie, KNOWN) is KNOWN[0]
    clock.now += 1
    assert sessions.token_of(cookie, KNOWN) is None


def test_session_changed_in_any_part_is_refused(client: redis_client.Client) -> None:
    sessions = Sessions(client)
    expires, nonce, signature = sessions.begin(KNOWN[0]).split(".")
    later = str(int(expires) + 1)
    for forged in (
        f"{later}.{nonce}.{signature}",
        f"{expires}.{nonce}x.{signature}",
        f"{expires}.{nonce}.{signature[:-1]}",
        f"{expires}.{nonce}.{'0' * 64}",
        f"{expires}.{nonce}.é",
        f"٣{expires}.{nonce}.{signature}",
        f"{'9' * 400}.{nonce}.{signature}",
        "",
        ".",
        "..",
    ):
        assert sessions.token_of(forged, KNOWN) is None, forged


def test_session_of_another_secret_is_refused(client: redis_client.Client) -> None:
    sessions = Sessions(client)
    cookie = sessions.begin(KNOWN[0])
    client.delete(keys.CONSOLE_SECRET)
    assert Sessions(client).token_of(cookie, KNOWN) is None


def test_session_made_after_redis_was_emptied_is_read(client: redis_client.Client) -> None:
    older = Sessions(client)
    older.begin(KNOWN[0])
    client.delete(keys.CONSOLE_SECRET)
    cookie = Sessions(client).begin(KNOWN[0])
    assert older.token_of(cookie, KNOWN) is KNOWN[0]


def test_form_tokens_and_aliases_differ_by_session_and_key(client: redis_client.Client) -> None:
    sessions = Sessions(client)
    assert sessions.form_token("a") != sessions.form_token("b")
    assert sessions.alias("number:27820001234") == Sessions(client).alias("number:27820001234")
    assert sessions.alias("number:27820001234") != sessions.form_token("number:27820001234")[:24]
