"""Let pages of listed origins read a port's answers (Cross-Origin Resource Sharing).

Without ``allow_origins`` no answer has such a header, and browsers keep the answers from pages of other sites. An
origin is compared whole and echoed, never ``*``. Credentials (cookies) aren't allowed: every request brings its token
in a header, which a page can only send after the browser has asked with OPTIONS (a preflight).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import falcon

#: Headers that a page may send, and those of the answer that it may read.
_SENT = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Range, X-Auth-Token"
_READ = "Content-Range, ETag, Idempotent-Replayed, Link, Location, Retry-After"
#: Seconds for which a browser may remember a preflight's answer, and for which a removed origin may still be let in.
_REMEMBERED = "600"


class Cors:
    """Falcon's middleware. ``origins`` returns the list in force."""

    def __init__(self, origins: Callable[[], Collection[str]]) -> None:
        self._origins = origins

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, _resource: Any, _req_succeeded: bool
    ) -> None:
        origins = self._origins()
        if not origins:
            return
        # Also without an origin: a cache must not hand a page the answer to another.
        resp.append_header("Vary", "Origin")
        origin = req.get_header("Origin")
        if origin is None or origin not in origins:
            return
        resp.set_header("Access-Control-Allow-Origin", origin)
        allowed = resp.get_header("Allow")
        if req.method == "OPTIONS" and req.get_header("Access-Control-Request-Method") and allowed:
            resp.set_header("Access-Control-Allow-Methods", allowed)
            resp.set_header("Access-Control-Allow-Headers", _SENT)
            resp.set_header("Access-Control-Max-Age", _REMEMBERED)
        else:
            resp.set_header("Access-Control-Expose-Headers", _READ)
