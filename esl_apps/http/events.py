"""``GET /click2dial/events``: what happens to an integrator's calls, as it happens."""

from __future__ import annotations

import falcon

from esl_apps.core.call_events import KINDS, Wanted
from esl_apps.http.access import OWN_READ, READ
from esl_apps.http.calls_port import CallsPort
from esl_apps.http.errors import problem
from esl_apps.http.event_stream import EventStream
from esl_apps.http.parameters import in_header, in_query
from esl_apps.http.record_query import METADATA, metadata_of
from esl_apps.http.routes import Answer, Operation, Route
from esl_apps.node import descriptors
from esl_apps.store.call_events import Id, read_id

#: Tenths of a port's connections that may listen. Other requests need some.
_READERS = 7
#: Streams at one port of one process for the tokens of one agent. A browser needs one for each of its tabs.
AGENT_READERS = 20
_LAST = "Last-Event-ID"
_SCOPES = (READ, OWN_READ)


def stream_events(port: CallsPort, req: falcon.Request, resp: falcon.Response) -> None:
    agent = req.get_param("agent")
    if agent is not None:
        agent = port.client.agent(agent)
    own = port.token(req).agent
    if own is not None:
        agent = own if agent is None else agent
        port.check_agent(req, agent)
    wanted = Wanted(agent, req.get_param("contact_ref"), metadata_of(req))
    last = _last_of(req)
    feeds, metrics = port.services.event_feeds, port.services.metrics
    if feeds.readers_of(port.name) >= _most_readers(port):
        raise problem(503, "unavailable", "too many clients listen on this node", headers={"Retry-After": "5"})
    if own is not None and port.listening[own] >= AGENT_READERS:
        port.services.refused(429)
        message = "too many clients listen with tokens of this agent"
        raise problem(429, "too_many", message, headers={"Retry-After": "5"})

    def count(reason: str) -> None:
        metrics.event_readers_cut.labels(reason).inc()

    resp.content_type = "text/event-stream"
    resp.set_header("Cache-Control", "no-store")
    # nginx would keep events back until it has a buffer full of them.
    resp.set_header("X-Accel-Buffering", "no")
    if req.method == "HEAD":
        return
    feed = feeds.open(port.name)
    if own is not None:
        port.listening[own] += 1

    def leave() -> None:
        if own is not None:
            port.listening[own] -= 1

    def admits() -> bool:
        return port.still_admits(req, *_SCOPES)

    resp.stream = EventStream(feeds, feed, last, wanted, admits=admits, on_end=count, on_close=leave)


def _most_readers(port: CallsPort) -> int:
    """Return how many clients may listen at a port of this process, which takes fewer if it has few descriptors."""
    clients = descriptors.clients(port.services.policy.config, descriptors.limit())
    return max(1, clients * _READERS // 10)


def _last_of(req: falcon.Request) -> Id | None:
    """:raises Problem: 422."""
    text = req.get_header(_LAST)
    if not text:
        return None
    last = read_id(text)
    if last is None:
        raise problem(422, "value", "expected the id of an earlier event", _LAST)
    return last


ROUTES = (
    Route(
        "/click2dial/events",
        (
            Operation(
                "GET",
                "streamEvents",
                "What happens to calls, as it happens: Server-Sent Events, without an end",
                stream_events,
                scopes=_SCOPES,
                parameters=(
                    in_query("agent", str, "Only calls of this agent, or that ring or rang them"),
                    in_query("contact_ref", str),
                    in_query(METADATA, str, "Only calls with this value of NAME in their metadata"),
                    in_header(_LAST, str, "The `id` of the last event that came: go on behind it, on any node"),
                ),
                answers={
                    200: Answer(
                        f"Events of the types {', '.join(KINDS)}, gap and end",
                        {"type": "string"},
                        media="text/event-stream",
                    )
                },
                errors=(401, 403, 422, 429, 503),
            ),
        ),
    ),
)
