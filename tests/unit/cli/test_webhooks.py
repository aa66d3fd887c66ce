"""``esl-apps webhook``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from standardwebhooks import Webhook

from esl_apps.store import keys, membership
from tests.support.node import RedisServer
from tests.support.receiver import Receiver, answer
from tests.unit.cli.conftest import Run, Settings

SECRET = "whsec_" + "QUJD" * 8
QUEUE = keys.webhook("acme", "crm")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def hooked(settings: Settings, receiver: Receiver, redis: RedisServer) -> str:
    """The file of a configuration whose webhook has two notifications that wait."""
    hook = {"name": "crm", "url": receiver.url, "secrets": [SECRET], "allow_http": True, "allow_private": True}
    settings["integrators"][0]["webhooks"] = [hook]
    for seq in (1, 2, 3):
        redis.client.xadd(QUEUE, {"seq": redis.client.incr(keys.seq(QUEUE)), "json": "{}"}, id=f"{seq * 1000}-0")
    state: dict[str, Any] = {"done": "1000-0", "seq": 1, "since": 5, "error": "status 500", "status": 500, "aside": 7}
    redis.client.hset(keys.webhook_state(QUEUE), mapping=state)
    return settings.written()


def test_webhook_list_shows_how_each_goes(run: Run, hooked: str) -> None:
    ran = run("webhook", "list", "-c", hooked)
    assert ran.status == 0
    assert ran.out.startswith("crm ")
    assert "failing    2 wait, the oldest for " in ran.out
    assert ran.out.endswith(" s, 7 given up so far: status 500\n")
    assert ran.err == "1 webhooks\n"


def test_webhook_list_json_has_a_line_for_each(run: Run, hooked: str) -> None:
    (view,) = run("webhook", "list", "--json", "-c", hooked).json
    assert (view["name"], view["depth"], view["last_status"], view["node"]) == ("crm", 2, 500, None)


def test_webhook_test_posts_a_signed_message(run: Run, hooked: str, receiver: Receiver) -> None:
    ran = run("webhook", "test", "crm", "-c", hooked)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("crm: taken with status 200 in 0.")
    (post,) = receiver.posts
    message = Webhook(SECRET).verify(post.body, post.headers)
    assert message == {"type": "test", "payload": {"webhook": "crm", "integrator": "acme"}}


def test_webhook_test_says_what_went_wrong(run: Run, hooked: str, receiver: Receiver) -> None:
    receiver.acts = [answer(500), answer(500)]
    ran = run("webhook", "test", "crm", "-c", hooked)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "esl-apps: crm: status 500, and only 2xx means that a message was taken\n"
    (line,) = run("webhook", "test", "crm", "--json", "-c", hooked).json
    assert (line["status"], line["error"] is not None) == (500, True)


def test_webhook_test_of_a_dead_receiver_fails(run: Run, hooked: str, receiver: Receiver) -> None:
    receiver.close()
    ran = run("webhook", "test", "crm", "-c", hooked)
    assert ran.status == 1
    assert "can't connect" in ran.err


@pytest.mark.parametrize(("since", "waiting"), [("1970-01-01T00:00:02.5+00:00", 2), ("1970-01-01T00:00:00+00:00", 3)])
def test_webhook_replay_goes_back(run: Run, hooked: str, since: str, waiting: int) -> None:
    ran = run("webhook", "replay", "crm", "--since", since, "-c", hooked)
    assert (ran.status, ran.out) == (0, f"crm: {waiting} notifications wait to be delivered\n")


def test_webhook_replay_json(run: Run, hooked: str) -> None:
    (line,) = run("webhook", "replay", "crm", "--since", "7d", "--json", "-c", hooked).json
    assert (line["name"], line["waiting"]) == ("crm", 2)


@pytest.mark.parametrize(
    ("argv", "status", "told"),
    [
        (["test"], 2, "expected a NAME"),
        (["replay", "crm"], 2, "expected --since"),
        (["replay", "crm", "--since", "noon"], 2, "expected a time as"),
        (["test", "other"], 1, "other: no such webhook; the configuration has crm"),
        (["mend", "crm"], 2, "invalid choice"),
    ],
)
def test_webhook_with_a_wrong_argument_says_so(run: Run, hooked: str, argv: list[str], status: int, told: str) -> None:
    ran = run("webhook", *argv, "-c", hooked)
    assert ran.status == status
    assert told in ran.err


def test_webhook_list_without_any(run: Run, settings: Settings) -> None:
    ran = run("webhook", "list", "-c", settings.written())
    assert (ran.status, ran.out, ran.err) == (0, "", "0 webhooks\n")


def test_names_of_processes_are_read(redis: RedisServer, settings: Settings) -> None:
    from esl_apps.store import redis_client

    client = redis_client.connect(redis.url)
    member = membership.Membership(client, "n1", "127.0.0.1:8084")
    member.say()
    assert membership.names(client) == {member.boot: "n1"}


def test_check_connects_to_receivers_and_posts_nothing(run: Run, hooked: str, receiver: Receiver) -> None:
    def found() -> Any:
        results = run("check", "--json", "-c", hooked).json
        return next(result for result in results if result["what"] == "webhook crm")

    result = found()
    assert (result["level"], result["message"]) == ("ok", f"127.0.0.1:{receiver.port}: connects to 127.0.0.1")
    assert receiver.posts == []
    receiver.close()
    assert found()["level"] == "fail"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["list", "crm"], "webhook list: expected no NAME; it lists all"),
        (["list", "--since", "2h"], "--since goes with replay"),
        (["test", "crm", "--since", "2h"], "--since goes with replay"),
    ],
)
def test_webhook_refuses_what_it_would_ignore(run: Run, settings: Settings, argv: list[str], said: str) -> None:
    ran = run("webhook", "-c", settings.written(), *argv)
    assert (ran.status, ran.out, ran.err) == (2, "", f"esl-apps: {said}\n")
