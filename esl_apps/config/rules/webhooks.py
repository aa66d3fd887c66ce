"""Rules for ``integrators[].webhooks``."""

from __future__ import annotations

from collections.abc import Iterator

from esl_apps.config.rules.context import Context, Finding
from esl_apps.config.webhooks import Webhook
from esl_apps.core.webhooks import key_of
from esl_apps.net.destination import check_literal, read_url


def _webhooks(c: Context) -> Iterator[tuple[str, Webhook]]:
    for path, integrator in c.draft.integrators:
        for i, webhook in enumerate(integrator.webhooks):
            yield f"{path}.webhooks[{i}]", webhook


def names_differ(c: Context) -> Iterator[Finding]:
    names: set[str] = set()
    for path, webhook in _webhooks(c):
        if webhook.name in names:
            yield f"{path}.name", "a webhook above has this name"
        names.add(webhook.name)


def urls_can_be_posted_to(c: Context) -> Iterator[Finding]:
    for path, webhook in _webhooks(c):
        try:
            to = read_url(webhook.url)
        except ValueError as error:
            yield f"{path}.url", str(error)
            continue
        if not to.secure and not webhook.allow_http:
            yield f"{path}.url", "expected https, or allow_http: true"
        why = check_literal(to.host)
        if why and not webhook.allow_private:
            yield f"{path}.url", f"{why}; expected a public address, or allow_private: true"


def secrets_are_keys(c: Context) -> Iterator[Finding]:
    for path, webhook in _webhooks(c):
        keys: set[bytes] = set()
        for i, secret in enumerate(webhook.secrets):
            try:
                key = key_of(secret)
            except ValueError:
                yield f"{path}.secrets[{i}]", "expected whsec_ and the base64 of 24 to 64 bytes"
                continue
            if key in keys:
                yield f"{path}.secrets[{i}]", "a secret above is the same"
            keys.add(key)


def events_are_named(c: Context) -> Iterator[Finding]:
    for path, webhook in _webhooks(c):
        if not webhook.events:
            yield f"{path}.events", "expected at least one; without this key it is all of them"


RULES = (names_differ, urls_can_be_posted_to, secrets_are_keys, events_are_named)
