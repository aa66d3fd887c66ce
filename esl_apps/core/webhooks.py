"""Sign webhooks as Standard Webhooks has it (https://www.standardwebhooks.com, version 1)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

PREFIX = "whsec_"
#: Bytes of a secret, as Standard Webhooks has them.
SHORTEST, LONGEST = 24, 64

#: The notifications that a webhook may carry. ``call`` and ``inbound`` are two names of one: an inbound call was
#: answered. Its list is named ``inbound``, and its ``type`` is ``call``.
EVENTS = ("cdr", "call", "inbound", "session")
_SAME = {"call": ("call", "inbound")}


def key_of(secret: str) -> bytes:
    """Return the bytes of a secret. :raises ValueError: it isn't ``whsec_`` and the base64 of 24 to 64 bytes."""
    if not secret.startswith(PREFIX):
        raise ValueError("without whsec_")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise ValueError("too short or too long")
    return key


def headers(keys: Iterable[bytes], id: str, at: int, body: bytes) -> list[tuple[str, str]]:
    """Return the headers of a message.

    ``keys``: those of all secrets, so that receivers verify during a rotation. ``id`` has no full stop, which separates
    what is signed. ``at``: Unix seconds.
    """
    signed = b"%s.%d.%s" % (id.encode(), at, body)
    signatures = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
    return [
        ("webhook-id", id),
        ("webhook-timestamp", str(at)),
        ("webhook-signature", " ".join(f"v1,{signature}" for signature in signatures)),
    ]


def carries(events: Iterable[str], kind: str) -> bool:
    """Whether a webhook of these ``events`` carries notifications of a ``type``."""
    return any(name in events for name in _SAME.get(kind, (kind,)))
