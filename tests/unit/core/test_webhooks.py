"""Signatures, verified by the library of Standard Webhooks that receivers use."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from esl_apps.core import webhooks

OLD, NEW = (webhooks.PREFIX + base64.b64encode(letter * 32).decode() for letter in (b"a", b"b"))
BODY = b'{"type":"cdr","payload":{"number":"\xc3\xa9"}}'


def signed(*secrets: str, body: bytes = BODY, at: float | None = None) -> dict[str, str]:
    now = int(time.time() if at is None else at)
    return dict(webhooks.headers([webhooks.key_of(secret) for secret in secrets], "cdr_1", now, body))


def test_signature_is_verified_by_standardwebhooks() -> None:
    assert Webhook(OLD).verify(BODY, signed(OLD))["type"] == "cdr"


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_both_secrets_verify_during_a_rotation(secret: str) -> None:
    assert Webhook(secret).verify(BODY, signed(OLD, NEW))["type"] == "cdr"


@pytest.mark.parametrize(
    "forge",
    [
        lambda headers: (BODY.replace(b"cdr", b"cdx"), headers),
        lambda headers: (BODY, {**headers, "webhook-id": "cdr_2"}),
        lambda headers: (BODY, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}),
    ],
)
def test_signature_covers_body_id_and_time(forge: Any) -> None:
    body, headers = forge(signed(OLD))
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(body, headers)


def test_other_secret_and_old_message_are_not_verified() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(BODY, signed(OLD))
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(OLD).verify(BODY, signed(OLD, at=time.time() - 400))


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        OLD.removeprefix("whsec_"),
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        OLD + " ",
        OLD[:-2],
        "whsec_" + "é" * 40,
    ],
)
def test_bad_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError):
        webhooks.key_of(secret)


@pytest.mark.parametrize(
    ("events", "kind", "carried"),
    [
        (["cdr"], "cdr", True),
        (["cdr"], "call", False),
        (["inbound"], "call", True),
        (["call"], "call", True),
        (["session"], "cdr", False),
        (["cdr", "call", "inbound", "session"], "", False),
    ],
)
def test_webhook_carries_the_events_it_names(events: list[str], kind: str, carried: bool) -> None:
    assert webhooks.carries(events, kind) is carried
