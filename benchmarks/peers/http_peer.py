"""The least that an HTTP port could do: decode the body, SET a key in Redis, answer 202. No token, checks or call.

Arguments: ``PORT REDIS_PORT [falcon]``. With ``falcon``, a falcon application handles the request, as in our node.
"""

from gevent import monkey

monkey.patch_all()

import itertools
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import falcon
import redis
from gevent.pywsgi import WSGIServer

CLIENT = redis.Redis(port=int(sys.argv[2]), max_connections=200)
NUMBERS = itertools.count()
PATH = "/click2dial/calls"


def store_call(body: bytes) -> bytes:
    fields = json.loads(body)
    ref = f"{next(NUMBERS):032x}"
    CLIENT.set("peer:" + ref, json.dumps(fields), ex=600)
    return json.dumps({"call_ref": ref, "state": "queued"}).encode()


class Calls:
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.data = store_call(req.bounded_stream.read())
        resp.status = 202
        resp.content_type = "application/json"


def plain(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    body = store_call(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    start_response("202 Accepted", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def with_falcon() -> falcon.App[falcon.Request, falcon.Response]:
    app = falcon.App()
    app.add_route(PATH, Calls())
    return app


if __name__ == "__main__":
    WSGIServer(
        ("127.0.0.1", int(sys.argv[1])), with_falcon() if "falcon" in sys.argv else plain, log=None, backlog=512
    ).serve_forever()
