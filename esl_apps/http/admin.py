"""The operator's port: health, metrics, the description of the API, and the cards in Kazoo's form."""

from __future__ import annotations

import falcon
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from esl_apps.core.order import Client
from esl_apps.http import crossbar, crossbar_openapi
from esl_apps.http.access import Door
from esl_apps.http.errors import answer, application
from esl_apps.http.openapi import describe
from esl_apps.http.server import Wsgi
from esl_apps.node.node import Node


def build(node: Node) -> Wsgi:
    door = Door(lambda: node.services.policy.config.admin.rate, node.services.refused)
    app = application("the request", door)
    app.add_route("/healthz", _Health())
    app.add_route("/readyz", _Ready(node))
    app.add_route("/metrics", _Metrics(node))
    app.add_route("/openapi.json", _OpenApi(node))
    return crossbar.mount(app, node, door)


class _Health:
    """Alive: this process answers. Nothing else is asked, so that a dead Redis restarts no node."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        answer(resp, 200, {"status": "ok"})


class _Ready:
    def __init__(self, node: Node) -> None:
        self._node = node

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        reasons = self._node.services.readiness.reasons()
        answer(resp, 503 if reasons else 200, {"status": "not ready" if reasons else "ok", "reasons": reasons})


class _Metrics:
    def __init__(self, node: Node) -> None:
        self._node = node

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = CONTENT_TYPE_LATEST
        # Of all workers, where there are several: which of them a scrape reaches is chance.
        resp.data = generate_latest((self._node.scrapes or self._node.services.metrics).registry)


class _OpenApi:
    def __init__(self, node: Node) -> None:
        self._node = node

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        policy = self._node.services.policy
        document = describe(next(iter(policy.clients.values()), None) or Client("none", policy.settings.plan))
        cards = crossbar_openapi.describe()
        document["paths"].update(cards["paths"])
        document["components"]["schemas"].update(cards["schemas"])
        answer(resp, 200, document)
