"""Describe what is sent to clients for ``/asyncapi.json`` (AsyncAPI 3.0.0): lists, streams, webhooks and events.

The schemas are those of ``core.notification_shapes``. Each port describes the forms that its client has chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from esl_apps import __version__
from esl_apps.config.model import Config, Integrator
from esl_apps.core import notification, notification_shapes
from esl_apps.http import described
from esl_apps.http.event_stream import GAPS, REASONS
from esl_apps.http.routes import Operation

_REF = "#/components/schemas/{name}"
#: Headers of Standard Webhooks.
_WEBHOOK_HEADERS = {
    "type": "object",
    "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
    "properties": {
        "webhook-id": {"type": "string", "description": "The same for every attempt of one message."},
        "webhook-timestamp": {"type": "string", "pattern": "^[0-9]+$", "description": "Unix seconds of this attempt."},
        "webhook-signature": {
            "type": "string",
            "description": "v1,SIGNATURE of id.timestamp.body (HMAC-SHA256, base64); several during a rotation.",
        },
    },
}
_EVENTS = {
    "call": "A call has entered a state.",
    "inbound": "An agent has answered an inbound call.",
    "record": "A call has ended: its record. It is the last event of a call.",
}
#: Events of the stream itself, which no call has caused.
_OF_THE_STREAM = {
    "gap": ("Behind Last-Event-ID events may be missing.", notification_shapes.explained("GapEvent", GAPS)),
    "end": ("The stream ends.", notification_shapes.explained("EndEvent", REASONS)),
}


@dataclass(frozen=True, slots=True)
class Choices:
    """What a client has chosen of the notifications."""

    payload: str = "v4"
    dispositions: str = "esl_apps"
    push: str = "left"
    session_records: bool = True
    legacy_c2d: bool = True
    webhooks: bool = True
    events: bool = True

    @classmethod
    def of(cls, integrator: Integrator) -> Choices:
        return cls(
            integrator.payload,
            integrator.dispositions,
            integrator.push,
            integrator.session_records,
            integrator.legacy_c2d,
        )

    @classmethod
    def of_others(cls, config: Config) -> Choices:
        """Those for calls that belong to no integrator."""
        records = config.records
        return cls(
            records.payload,
            session_records=records.session_records,
            legacy_c2d=False,
            webhooks=False,
            events=False,
        )


def document(choices: Choices) -> dict[str, Any]:
    """Return the AsyncAPI document of a client with these choices."""
    shapes = _shapes(choices)
    found, schemas = notification_shapes.schemas(*shapes.values(), ref=_REF)
    messages = {name: _message(name, schema) for name, schema in zip(shapes, found, strict=True)}
    channels: dict[str, Any] = {}
    for name, address, about, carried in _lists(choices):
        channels[name] = _channel(address, about, carried, choices.push)
    if choices.webhooks:
        carried = [name for name in ("cdr", "call", "session", "test") if name in messages]
        channels["webhook"] = {
            "address": None,
            "description": "A POST to the url of each webhook, signed as Standard Webhooks has it.",
            "messages": {name: {"$ref": f"#/components/messages/{name}Webhook"} for name in carried},
            "bindings": {"http": {}},
        }
        for name in carried:
            messages[f"{name}Webhook"] = {**messages[name], "headers": _WEBHOOK_HEADERS}
    if choices.events:
        channels["events"] = _events(messages, schemas)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Notifications and events of esl_apps",
            "version": __version__,
            "description": f"What esl_apps sends, in the form payload: {choices.payload}.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            f"send{name[:1].upper()}{name[1:]}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{message}"} for message in channel["messages"]],
            }
            for name, channel in channels.items()
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def describing(make: Callable[[Any], Any]) -> Operation:
    """Return the operation ``GET /asyncapi.json``; ``make`` returns a port's ``document``."""
    summary = "The notifications and events that this port's client gets"
    return described.describing("getMessages", summary, "AsyncAPI 3.0", make)


def _shapes(choices: Choices) -> dict[str, type[Struct]]:
    shapes = {
        "cdr": notification_shapes.cdr(choices.payload, choices.dispositions),
        "call": notification_shapes.inbound(choices.payload),
    }
    if choices.session_records:
        shapes["session"] = notification_shapes.session()
    if choices.legacy_c2d:
        shapes["c2d"] = notification_shapes.C2dNotification
    if choices.webhooks:
        shapes["test"] = notification_shapes.WebhookTest
    return shapes


def _lists(choices: Choices) -> list[tuple[str, str, str, list[str]]]:
    behind = ":stream" if choices.push == "stream" else ""
    cdrs = ["cdr", "session"] if choices.session_records else ["cdr"]
    lists = [
        ("cdrs", notification.CDR_LIST, "The records of calls, in the order in which they ended.", cdrs),
        ("inbound", notification.INBOUND_LIST, "An agent has answered an inbound call.", ["call"]),
    ]
    if choices.legacy_c2d:
        lists.append(("c2d", notification.C2D_LIST, "Deprecated.", ["c2d"]))
    return [(name, address + behind, about, carried) for name, address, about, carried in lists]


def _channel(address: str, about: str, carried: list[str], push: str) -> dict[str, Any]:
    how = {
        "left": "A list of Redis, pushed with LPUSH: take the oldest with BRPOP.",
        "right": "A list of Redis, pushed with RPUSH: take the oldest with BLPOP.",
        "stream": "A stream of Redis. The field json has the message, the field seq its seq.",
    }[push]
    return {
        "address": address,
        "description": f"{about} {how}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in carried},
        "bindings": {"redis": {}},
    }


def _message(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "contentType": "application/json", "payload": dict(schema)}


def _events(messages: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Add the events' messages and schemas; return their channel."""
    events = {kind: (about, notification_shapes.event(kind)) for kind, about in _EVENTS.items()} | _OF_THE_STREAM
    found, defined = notification_shapes.schemas(*(shape for _about, shape in events.values()), ref=_REF)
    schemas.update(defined)
    for (kind, (about, _shape)), schema in zip(events.items(), found, strict=True):
        messages[f"{kind}Event"] = {**_message(kind, schema), "summary": about}
    return {
        "address": "/click2dial/events",
        "description": "Server-Sent Events. The event's type is the message's name, its data the payload.",
        "messages": {kind: {"$ref": f"#/components/messages/{kind}Event"} for kind in events},
        "bindings": {"http": {}},
    }
