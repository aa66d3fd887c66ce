"""The forms of a Redis URL."""

from __future__ import annotations

import pytest

from esl_apps.config import redis_url

_REDIS = "expected redis://[USER:PASSWORD@]HOST[:PORT][/DB]; in a password, write / # ? @ : % as "
_SENTINEL = (
    "expected redis+sentinel://HOST:PORT[,HOST:PORT…]/SERVICE[/DB], PORT and DB in digits; in a password, write "
)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://:p%2Fw@h:6379/1",
        "rediss://:pw@h:6380/2",
        "unix:///run/redis.sock?db=1",
        "redis+cluster://h:7000",
        "redis+sentinel://h:26379,i/main/1",
    ],
)
def test_redis_url_of_a_known_form_is_accepted(url: str) -> None:
    redis_url.check(url)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://h", "expected redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"),
        ("", "expected redis://, rediss://"),
        ("redis://h:port", _REDIS),
        ("redis://:pass/word@h:6379", _REDIS),
        ("redis://[h", _REDIS),
        ("redis://h?socket_timeout=x", "the option socket_timeout has a value that it can't have"),
        ("redis+cluster://", "expected redis+cluster://[USER:PASSWORD@]HOST:PORT"),
        ("redis+cluster://:pass", "expected redis+cluster://[USER:PASSWORD@]HOST:PORT; in a password"),
        ("redis+sentinel://h:26379", _SENTINEL),
        ("redis+sentinel://h:26379/main/x", _SENTINEL),
        ("redis+sentinel://h:port/main", _SENTINEL),
        ("redis+sentinel://[h/main", _SENTINEL),
        ("redis+sentinel:///main", _SENTINEL),
    ],
)
def test_other_redis_url_is_refused(url: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        redis_url.check(url)
    assert str(caught.value).startswith(told)


def test_sentinel_url_is_taken_apart() -> None:
    assert redis_url.sentinel("u:p%2Fw@h:26379,i/main/2?username=n") == (
        [("h", 26379), ("i", 26379)],
        "main",
        2,
        {"password": "p/w", "username": "n"},
    )
