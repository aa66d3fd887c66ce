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


def entries(record: Record, integrator: Integrator | None, others: RecordsConfig) -> list[Entry]:
    """A record's notifications; their ids are the record's, so that any node may push them again.

    ``others``: the choices for calls that belong to no integrator.
    """
    if integrator is None:
        body = notification.cdr_payload(record, payload=others.payload)
    else:
        body = notification.cdr_payload(record, payload=integrator.payload, dispositions=integrator.dispositions)
    result = [_entry(record.call_ref, notification.CDR_LIST, body, integrator)]
    if integrator is not None and integrator.legacy_c2d:
        result.append(_entry(record.call_ref, notification.C2D_LIST, notification.c2d_payload(record), integrator))
    return result


def closing(session: SessionRecord, integrator: Integrator | None) -> Entry:
    """The closing entry of a session."""
    id, body = f"{session.session_ref}-session", notification.session_payload(session)
    return _entry(id, notification.CDR_LIST, body, integrator)


def answered(
    attempt: Attempt, agent: str, hold_time: int, integrator: Integrator | None, others: RecordsConfig
) -> Entry:
    """The notification of an answered inbound call."""
    payload = (others if integrator is None else integrator).payload
    body = notification.inbound_payload(attempt, agent, hold_time, payload=payload)
    return _entry(attempt.call_ref, notification.INBOUND_LIST, body, integrator)


def for_webhooks(entries: Iterable[Entry], integrator: Integrator) -> Iterator[Entry]:
    """The entries of the integrator's webhooks for these of its lists, for the Redis that all nodes share."""
    for made in entries:
        kind = kind_of(made)
        for webhook in integrator.webhooks:
            if carries(webhook.events, kind):
                yield for_webhook(made, keys.webhook(integrator.name, webhook.name))


def _entry(id: str, list: str, body: dict[str, Any], integrator: Integrator | None) -> Entry:
    if integrator is None:
        return entry(id, list, body)
    if integrator.push == "stream":
        return entry(id, f"{list}:stream", body, "stream", integrator.name, integrator.stream_length)
    return entry(id, list, body, integrator.push, integrator.name)
