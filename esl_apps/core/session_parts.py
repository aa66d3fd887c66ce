"""Sessions whose calls end on several nodes: each call leaves its part in Redis, and the last part closes the session.

A transfer goes on in another call, and while one party asks a third, a session has two calls. Either may end first,
each on its own node, so neither node knows what the other call took. Nor does a node that the dialplan hands a caller
to, if it doesn't find the call that the caller was in.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from esl_apps.core.notification import SessionRecord


class Part(msgspec.Struct, omit_defaults=True):
    """The part of a session's closing entry that comes from one call."""

    call_ref: str
    closing: SessionRecord
    """The entry as it would be with this call alone, and those before it (``before``)."""
    closes: bool = False
    """The session ends with this call: it knows which others there are."""
    apart: list[str] = msgspec.field(default_factory=list)
    """As ``CallFields.apart``."""


def whole(parts: Iterable[Part]) -> SessionRecord | None:
    """Return the closing entry; None: a part is missing, whose node will see that it is the last one."""
    by_ref = {part.call_ref: part for part in parts}
    last = next((part for part in by_ref.values() if part.closes), None)
    if last is None:
        return None
    refs, todo = {last.call_ref}, list(last.apart)
    while todo:
        ref = todo.pop()
        if ref not in by_ref:
            return None
        if ref not in refs:
            refs.add(ref)
            todo += by_ref[ref].apart
    all_parts = [by_ref[ref].closing for ref in refs]
    a_seconds = [part.a_seconds for part in all_parts if part.a_seconds is not None]
    rests = [part.a_rest_seconds for part in all_parts if part.a_rest_seconds is not None]
    return replace(
        last.closing,
        ended_at=max(part.ended_at for part in all_parts),
        calls=sum(part.calls for part in all_parts),
        a_seconds=round(sum(a_seconds), 3) if a_seconds else None,
        a_rest_seconds=round(sum(rests), 3) if rests else None,
        b_seconds=round(sum(part.b_seconds for part in all_parts), 3),
    )
