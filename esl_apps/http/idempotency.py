"""The header ``Idempotency-Key``: a request that is repeated with its key does nothing more."""

from __future__ import annotations

import re
from typing import Any

import falcon

from esl_apps.http.errors import problem
from esl_apps.http.parameters import in_header

KEY = "Idempotency-Key"
#: The header of an answer to a repeated request.
REPLAYED = "Idempotent-Replayed"
_FORM = re.compile(r"[!-~]{1,200}")


def key_of(req: falcon.Request) -> str | None:
    """Return a request's key; None if it has none. :raises Problem: 422 for a key of another form."""
    key: str | None = req.get_header(KEY)
    if key is not None and not _FORM.fullmatch(key):
        raise problem(422, "pattern", "expected 1 to 200 printable characters, no spaces", KEY)
    return key


def parameter(description: str) -> dict[str, Any]:
    return in_header(KEY, {"type": "string", "pattern": f"^{_FORM.pattern}$"}, description)


def replayed_header(description: str) -> dict[str, Any]:
    return {REPLAYED: {"schema": {"type": "string", "enum": ["true"]}, "description": description}}
