"""Which Redis lists or streams a record goes to, and in which form: the integrator's choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from esl_apps.config.model import Integrator
from esl_apps.config.records import RecordsConfig
from esl_apps.core import notification
from esl_apps.core.attempt import Attempt
from esl_apps.core.notification import SessionRecord
from esl_apps.core.record import Record
from esl_apps.core.webhooks import carries
from esl_apps.store import keys
from esl_apps.store.journal import Entry, entry
from esl_apps.store.webhook_queue import for_webhook, kind_of


def entries(record: Record, one: Integrator | None, others: RecordsConfig) -> list[Entry]:
    """A record's notifications; their ids are the record's, so that any node may push them again.

    ``others``: the choices for calls that belong to no integrator.
    """
    if one is None:
        body = notification.cdr_payload(record, payload=others.payload)
        return [entry(record.call_ref, notification.CDR_LIST, body)]
    body = notification.cdr_payload(record, payload=one.payload, dispositions=one.dispositions)
    result = [_entry(record.call_ref, notification.CDR_LIST, body, one)]
    if one.legacy_c2d:
        result.append(_entry(record.call_ref, notification.C2D_LIST, notification.c2d_payload(record), one))
    return result


def closing(session: SessionRecord, one: Integrator | None) -> Entry:
    """The closing entry of a session."""
    id, body = f"{session.session_ref}-session", notification.session_payload(session)
    return entry(id, notification.CDR_LIST, body) if one is None else _entry(id, notification.CDR_LIST, body, one)


def answered(attempt: Attempt, agent: str, hold_time: int, one: Integrator | None, others: RecordsConfig) -> Entry:
    """The notification of an answered inbound call."""
    if one is None:
        body = notification.inbound_payload(attempt, agent, hold_time, payload=others.payload)
        return entry(attempt.call_ref, notification.INBOUND_LIST, body)
    body = notification.inbound_payload(attempt, agent, hold_time, payload=one.payload)
    return _entry(attempt.call_ref, notification.INBOUND_LIST, body, one)


def for_webhooks(entries: Iterable[Entry], one: Integrator) -> Iterator[Entry]:
    """The entries of the integrator's webhooks for these of its lists, for the Redis that all nodes share."""
    for made in entries:
        kind = kind_of(made)
        for webhook in one.webhooks:
            if carries(webhook.events, kind):
                yield for_webhook(made, keys.webhook(one.name, webhook.name))


def _entry(id: str, list: str, body: dict[str, Any], one: Integrator) -> Entry:
    if one.push == "stream":
        return entry(id, f"{list}:stream", body, "stream", one.name, one.stream_length)
    return entry(id, list, body, one.push, one.name)
