"""Marks of imported documents: with them, importing a document again changes nothing, under any key."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import NamedTuple

from esl_apps.cli.kazoo_import.export import Document
from esl_apps.store.card_fields import FIELDS, SPELLINGS

#: Never hashed without a key: anyone who knows the other fields could find a PIN from that.
_CLAIM = {"pin", "cid"}
_OPTIONS = {*FIELDS, *SPELLINGS, "pvt_account_id", "pvt_deleted"} - _CLAIM


class Mark(NamedTuple):
    document: str
    """The keyed hash of all of the document."""
    key: str = ""
    """The key's name."""
    options: str = ""
    """The plain hash of a card without its PIN and number, by which an unchanged card is known once the key is gone.
    Empty for other documents, which nothing but an import changes."""

    def __str__(self) -> str:
        return ":".join(self)


def mark(kind: str, document: Document, pin_key: str) -> Mark:
    written = {name: value for name, value in document.items() if name not in ("_rev", "pvt_modified")}
    options = {name: value for name, value in document.items() if name in _OPTIONS}
    return Mark(
        _keyed(pin_key, _text(written)),
        _keyed(pin_key, "esl_apps import")[:16],
        hashlib.sha256(_text(options).encode()).hexdigest() if kind == "cccp" else "",
    )


def read(raw: bytes | None) -> Mark | None:
    """Return a mark as Redis has it; None if the document hasn't been imported."""
    return None if raw is None else Mark(*raw.decode().split(":"))


def _keyed(key: str, text: str) -> str:
    return hmac.digest(key.encode(), text.encode(), hashlib.sha256).hex()


def _text(values: Document) -> str:
    return json.dumps(values, sort_keys=True)
