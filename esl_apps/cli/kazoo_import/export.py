"""The forms in which people have Kazoo's documents.

* one document, several one after another (NDJSON or not), or an array
* CouchDB: ``_all_docs?include_docs=true``, ``_bulk_docs``, ``_changes?include_docs=true``, whole and continuous
* couchbackup (a line for each batch) and pouchdb-dump
* Crossbar's replies: ``{"data": …, "status": "success"}``

CouchDB's clients in Erlang and PHP write an empty object as ``[]``, and some write ``"true"`` and ``"2"``:
:func:`tidy` makes them what they mean.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from esl_apps.config.text_file import not_utf8

Document = dict[str, Any]

_GAP = re.compile(r"[\s,\x1e]*")
#: Fields that are objects: ``[]`` is an empty one.
_OBJECTS = frozenset({"caller_id", "external", "internal", "call_restriction", "default", "ui_metadata"})
#: Fields that are true or false.
_FLAGS = frozenset(
    {
        "_deleted",
        "active",
        "cid_retain",
        "default_use_account_caller_id",
        "enabled",
        "ensure_valid_caller_id",
        "pvt_deleted",
        "pvt_enabled",
        "retain_cid",
    }
)
#: Fields that are whole numbers.
_NUMBERS = frozenset(
    {
        "callback_delay",
        "default_pin_length",
        "max_concurent_calls_per_user",
        "max_concurrent_calls_per_user",
        "prompt_delay",
    }
)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def read_text(file: str) -> str:
    """Read a file in UTF-8 or, with a byte order mark, in UTF-16. :raises ValueError: says why it can't be read."""
    try:
        with open(file, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise ValueError(error.strerror) from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if wide else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if wide:
            raise ValueError(f"not UTF-16 at byte {error.start}") from None
        raise ValueError(f"{not_utf8(data, error.start)}, at byte {error.start}; save the file as UTF-8") from None


def read(text: str) -> Iterator[tuple[int, Document | str]]:
    """Yield a file's documents, each with its line. A text in place of a document says what is wrong there."""
    at, line, counted = _skip(text, 0), 1, 0
    while at < len(text):
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = _DECODER.raw_decode(text, at)
        except ValueError as error:
            where = error.lineno if isinstance(error, json.JSONDecodeError) else line
            yield where, f"not JSON: {getattr(error, 'msg', error)}"
            # Go on with the next document that begins a line: it may be whole.
            resumed = text.find("\n{", max(at, getattr(error, "pos", at)))
            end = len(text) if resumed < 0 else resumed
        except RecursionError:
            yield line, "nested too deep"
            return
        else:
            for document in _unwrapped(value):
                yield line, document if isinstance(document, str) else tidy(document)
        at = _skip(text, end)


def _skip(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


def _unwrapped(value: object) -> Iterator[Document | str]:
    if isinstance(value, list):
        for item in value:
            yield from _unwrapped(item)
    elif not isinstance(value, dict):
        yield "expected a document"
    elif "_id" in value:
        yield value
    elif isinstance(rows := value.get("rows", value.get("results")), list):
        for row in rows:
            yield _doc_of(row)
    elif "doc" in value and "changes" in value:
        # A line of _changes?feed=continuous.
        yield _doc_of(value)
    elif isinstance(value.get("docs"), list):
        yield from _unwrapped(value["docs"])
    elif "data" in value and ("status" in value or "request_id" in value):
        yield from _replied(value)
    elif not _is_frame(value):
        yield value


def _doc_of(row: object) -> Document | str:
    if isinstance(row, dict) and isinstance(row.get("doc"), dict):
        return dict(row["doc"])
    return "a row without its document: export with include_docs=true"


def _is_frame(value: Document) -> bool:
    """Return whether this is a line of a dump that holds no document: its header, or where it got to."""
    if str(value.get("name", "")).startswith("@cloudant/") or str(value.get("marker", "")).startswith("@cloudant/"):
        return True
    return "db_info" in value or "db_type" in value or value.keys() <= {"seq", "last_seq", "pending"} != set()


# Crossbar --------------------------------------------------------------------------------------------


def _replied(reply: Document) -> Iterator[Document | str]:
    """Yield the documents of a reply of Crossbar, in CouchDB's form. They say little of where they belong."""
    if reply.get("status") not in (None, "success"):
        yield f"Crossbar's answer is an error: {json.dumps(reply.get('message', reply.get('error')))[:200]}"
        return
    shared = reply.get("metadata")
    for data in reply["data"] if isinstance(reply["data"], list) else [reply["data"]]:
        if not isinstance(data, dict) or not isinstance(data.get("id"), str):
            yield "Crossbar's answer has no document with an id"
            continue
        about = {**(shared if isinstance(shared, dict) else {}), **_about(data)}
        document = {name: value for name, value in data.items() if name not in ("id", "_read_only", "metadata")}
        kind = about.get("type") or _shape(data)
        owner = about.get("account_id") or (data["id"] if kind == "account" else None)
        yield {
            "_id": data["id"],
            **document,
            **({"pvt_type": kind} if kind else {}),
            **({"pvt_account_id": owner} if owner else {}),
        }


def _about(data: Document) -> Document:
    found: Document = {}
    for name in ("metadata", "_read_only"):
        if isinstance(data.get(name), dict):
            found |= data[name]
    return found


def _shape(data: Document) -> str | None:
    if "pin" in data or "cid" in data:
        return "cccp"
    if "username" in data or "priv_level" in data:
        return "user"
    return "account" if "realm" in data else None


# Values ----------------------------------------------------------------------------------------------


def tidy(document: Document) -> Document:
    """Return a document with ``[]`` for an empty object, ``"true"`` and ``"2"`` read as what they mean."""
    return {name: _tidied(name, value) for name, value in document.items()}


def _tidied(name: str, value: object) -> object:
    if value == [] and name in _OBJECTS:
        return {}
    if isinstance(value, dict):
        if name == "call_restriction":
            return {klass: {} if rule == [] else rule for klass, rule in value.items()}
        return tidy(value) if name in _OBJECTS else value
    if isinstance(value, str):
        if name in _FLAGS and value in ("true", "false"):
            return value == "true"
        if name in _NUMBERS and value.isascii() and value.isdecimal() and len(value) < 10:
            return int(value)
    return value
