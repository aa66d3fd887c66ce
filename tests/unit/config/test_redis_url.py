"""The forms of a Redis URL."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from esl_apps.config import redis_url

_REDIS = "expected redis://[USER:PASSWORD@]HOST[:PORT][/DB]; in a password, write / # ? @ : % "
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
        ("redis://:pass/word@h:6379", "the password is cut short or can't be read; in a password, write"),
        ("redis://[h", _REDIS),
        *(
            (f"redis://h?{option}", f"the option {option.partition('=')[0]} has a value that it can't have")
            for option in ("socket_timeout=inf", "socket_timeout=nan", "max_connections=-1", "db=1" + 24 * "0")
        ),
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


# Passwords ----------------------------------------------------------------------------------------------

FORMS = {
    "redis": "redis://{}@h:6379/0",
    "redis-user": "redis://user{}@h:6379",
    "rediss": "rediss://{}@h",
    "unix": "unix://{}@/run/redis.sock?db=1",
    "cluster": "redis+cluster://{}@h:7000",
    "sentinel": "redis+sentinel://{}@h:26379,i:26379/main/0",
}
#: Parts that a URL could take for a host, a port, a database or an option.
_PARTS = (("6379", "12345"), ("s3cr", "et77"), ("7", "Xy9"))
SPECIAL = [f"{left}{char}{right}" for char in "#/?@%:[] \n" for left, right in _PARTS]


def password_of(url: str) -> str | None:
    """As a client would send it."""
    if url.startswith("redis+sentinel"):
        password: str | None = redis_url.sentinel(url.partition("://")[2])[3].get("password")
        return password
    return redis_url.server(url.replace("redis+cluster", "redis")).password


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_password_is_taken_whole_or_refused_unseen(form: str) -> None:
    for password in SPECIAL:
        url = form.format(f":{password}")
        try:
            redis_url.check(url)
        except ValueError as error:
            told = str(error)
        else:
            assert password_of(url) == password
            continue
        assert "in a password, write" in told, url
        assert "%2F %23 %3F %40 %3A %25" in told, url
        for part in (password, *re.split("[#/?@%:\\[\\] \n]", password)):
            assert len(part) < 2 or part not in told, url


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_password_that_is_encoded_is_taken(form: str) -> None:
    for password in filter(str.isprintable, SPECIAL):
        url = form.format(f":{quote(password, safe='')}")
        redis_url.check(url)
        assert password_of(url) == password
        if "sentinel" not in url:
            assert password not in repr(redis_url.server(url.replace("redis+cluster", "redis")))


@pytest.mark.parametrize(
    "url", ["redis://h:6379/0#x", "redis://:1/2@h:6379", "redis://h/0?password=a@b", "unix://:a/b"]
)
def test_url_with_a_stray_character_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="in a password, write"):
        redis_url.check(url)
