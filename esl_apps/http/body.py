"""Read JSON bodies of requests, and write those of answers."""

from __future__ import annotations

from codecs import BOM_UTF8
from typing import Any

import falcon
import msgspec

from esl_apps.http.errors import problem
from esl_apps.http.request import MAX_BODY

#: Fields of an object in a body. The most that a request may have are some thirty.
MOST_FIELDS = 100


def answer(resp: falcon.Response, status: int, body: Any) -> None:
    resp.status = status
    resp.data = msgspec.json.encode(body)
    resp.content_type = "application/json"


def read_json(req: falcon.Request) -> tuple[bytes, dict[str, Any]]:
    """Return the body, raw (without a byte order mark) and decoded.

    :raises Problem: 413 if it is too large, 415 for another type, 400 if it isn't JSON, 422 if it isn't an object, or
        has too many fields.
    """
    media = (req.content_type or "application/json").partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise problem(415, "media_type", "expected application/json")
    if (req.content_length or 0) > MAX_BODY:
        raise problem(413, "too_large", f"expected {MAX_BODY} bytes at most")
    # The server has read all of it, so this doesn't wait for the client.
    # A byte order mark in front (RFC 8259, section 8.1) is what some clients on Windows write.
    raw = req.bounded_stream.read().removeprefix(BOM_UTF8)
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise problem(400, "not_json", "expected a JSON object") from None
    if not isinstance(body, dict):
        raise problem(422, "type", "expected a JSON object")
    check_fields(body)
    return raw, body


def check_fields(body: dict[str, Any], field: str = "") -> None:
    """:raises Problem: 422 for more fields than any request has: each unknown one would be named in the answer."""
    if len(body) > MOST_FIELDS:
        raise problem(422, "too_many", f"expected at most {MOST_FIELDS} fields", field)
