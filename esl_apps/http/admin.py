"""The operator's port: health, metrics, the description of the API, the cards in Kazoo's form, and autodial."""

from __future__ import annotations

from typing import Any

import falcon
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry

from esl_apps.http import asyncapi, autodial, crossbar, openapi, v1
from esl_apps.http.admin_port import AdminPort
from esl_apps.http.body import answer
from esl_apps.http.connection import Wsgi
from esl_apps.http.crossbar_port import KAZOO, PREFIX
from esl_apps.http.routes import Answer, Api, Operation, Route, serve
from esl_apps.http.schemas import Status
from esl_apps.node.metric_history import MetricHistory
from esl_apps.node.outgoing import Outgoing
from esl_apps.node.services import Services


def build(
    services: Services, outgoing: Outgoing, registry: CollectorRegistry, history: MetricHistory | None = None
) -> Wsgi:
    """:param registry: the metrics to show; with several workers, those of all of them. :param history: for the
    console."""
    port = AdminPort(services, outgoing, registry)
    if not services.policy.config.admin.console:
        return serve(API, port)
    # Only now: Jinja2 takes longer to import than the rest of this package.
    from esl_apps.http.console import routes as console

    return console.serve(API, port, history or MetricHistory(registry.collect))


# Handlers -------------------------------------------------------------------------------------------------


def get_health(_port: AdminPort, _req: falcon.Request, resp: falcon.Response) -> None:
    """Say that this process answers. Redis isn't asked: restarting nodes doesn't help when Redis is down."""
    answer(resp, 200, Status("ok"))


def get_readiness(port: AdminPort, _req: falcon.Request, resp: falcon.Response) -> None:
    reasons = port.services.readiness.problems()
    answer(resp, 503 if reasons else 200, Status("not ready" if reasons else "ok", reasons))


def get_metrics(port: AdminPort, _req: falcon.Request, resp: falcon.Response) -> None:
    resp.content_type = CONTENT_TYPE_LATEST
    resp.data = port.exposition.text()


def describe(_port: AdminPort) -> dict[str, Any]:
    return openapi.document(API)


def describe_messages(port: AdminPort) -> dict[str, Any]:
    """Describe the notifications of calls that belong to no integrator."""
    return asyncapi.document(asyncapi.Choices.of_others(port.services.policy.config))


# Routes ---------------------------------------------------------------------------------------------------

_ROUTES = (
    Route(
        "/healthz",
        (
            Operation(
                "GET",
                "getHealth",
                "Operator's port: this process answers",
                get_health,
                scopes=None,
                answers={200: Answer("Alive", Status)},
                errors=(429,),
            ),
        ),
    ),
    Route(
        "/readyz",
        (
            Operation(
                "GET",
                "getReadiness",
                "Operator's port: a switch and Redis can be reached, and the node is not draining",
                get_readiness,
                scopes=None,
                answers={
                    200: Answer("Calls are taken", Status),
                    503: Answer("No calls are taken; reasons says why", Status),
                },
                errors=(429,),
            ),
        ),
    ),
    Route(
        "/metrics",
        (
            Operation(
                "GET",
                "getMetrics",
                "Operator's port: Prometheus",
                get_metrics,
                scopes=None,
                answers={200: Answer("Text", {"type": "string"}, media="text/plain")},
                errors=(429,),
            ),
        ),
    ),
    Route("/openapi.json", (openapi.describing(describe),)),
    Route("/asyncapi.json", (asyncapi.describing(describe_messages),)),
)

API = Api(
    "esl_apps for operators",
    "Health, metrics, operating (/v1), cards in the form of Kazoo's Crossbar, and autodial.",
    (*_ROUTES, *v1.ROUTES, *crossbar.ROUTES, *autodial.ROUTES),
    forms={PREFIX: KAZOO},
)
