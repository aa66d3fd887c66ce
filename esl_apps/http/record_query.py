"""Ask for records of calls that have ended: the query, and the answer as JSON or CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from urllib.parse import urlencode

import falcon
from falcon import mediatypes

from esl_apps.core import terms
from esl_apps.core.numbers import NumberPlan
from esl_apps.core.written_number import texts
from esl_apps.http.errors import problem
from esl_apps.http.paging import Paging
from esl_apps.http.parameters import in_query
from esl_apps.net.turns import in_turns
from esl_apps.operations.pages import Page
from esl_apps.operations.record_table import table
from esl_apps.store.record_history import Chosen

PAGING = Paging(100, 1000)
#: A query parameter that stands for all that begin alike, as ``metadata.lead``.
METADATA = "metadata.NAME"
_METADATA = re.compile(r"metadata\.(.*)", re.DOTALL)
#: Query parameters that are fields of the record.
_FIELDS = ("end_reason", "contact_ref")
_CSV = "text/csv"


def chosen(req: falcon.Request, plan: NumberPlan) -> Chosen:
    """Read what a request asks for. ``plan`` reads its numbers. :raises Problem: 422."""
    since, until = _seconds(req, "from"), _seconds(req, "to")
    if since is not None and until is not None and until < since:
        raise problem(422, "value", "expected a time after from", "to")
    fields = [(name, value) for name in _FIELDS if (value := req.get_param(name)) is not None]
    reason = dict(fields).get("end_reason", terms.ANSWERED)
    if reason not in terms.END_REASONS:
        raise problem(422, "value", f"expected one of {', '.join(terms.END_REASONS)}", "end_reason")
    numbers, agents = (
        () if (text := req.get_param(name)) is None else texts(text, plan) for name in ("number", "agent")
    )
    return Chosen(since, until, fields, numbers, list(metadata_of(req).items()), agents)


def metadata_of(req: falcon.Request) -> dict[str, str]:
    """The texts of the query's ``metadata.NAME``."""
    return {match[1]: req.get_param(name) or "" for name in req.params if (match := _METADATA.fullmatch(name))}


def _seconds(req: falcon.Request, name: str) -> float | None:
    text = req.get_param(name)
    if text is None:
        return None
    try:
        at = float(text)
    except ValueError:
        at = math.nan
    if not math.isfinite(at):
        raise problem(422, "value", "expected Unix seconds", name)
    return at


# Answers --------------------------------------------------------------------------------------------------


def wants_csv(req: falcon.Request) -> bool:
    """:raises Problem: 406."""
    try:
        # Media types are compared in any case (RFC 9110, 8.3.1); falcon's client_prefers doesn't.
        media = mediatypes.best_match(("application/json", _CSV), req.accept.lower())
    except ValueError:
        media = ""
    if not media:
        raise problem(406, "media_type", f"expected an Accept of application/json or {_CSV}", "Accept")
    return media == _CSV


def answer_csv(req: falcon.Request, resp: falcon.Response, page: Page, first: Sequence[str] = ()) -> None:
    """Answer with a table. The next page is in the header ``Link``."""
    records, more = page
    resp.content_type = f"{_CSV}; charset=utf-8; header=present"
    # A thousand rows with metadata take 60 ms.
    resp.text = table(in_turns("history", records), first)
    if more is not None:
        query = urlencode({**req.params, "before": more})
        resp.set_header("Link", f'<{req.path}?{query}>; rel="next"')


# The description ------------------------------------------------------------------------------------------

_BEGAN = "; a delayed autodial began with its request"
PARAMETERS = (
    in_query("from", float, f"Unix seconds: calls that began then or later{_BEGAN}"),
    in_query("to", float, f"Unix seconds: calls that began before{_BEGAN}"),
    in_query("agent", str, "The record's `extension`: an extension, or a number as `number`"),
    in_query("number", str, "As it was dialled, in E.164, or in any other way of writing"),
    in_query("end_reason", {"type": "string", "enum": list(terms.END_REASONS)}),
    in_query("contact_ref", str),
    in_query(METADATA, str, "Calls whose `metadata` has this text under NAME"),
    *PAGING.parameters,
)
TABLE = (_CSV,)
LINK = {"Link": {"schema": {"type": "string"}, "description": 'The next page of a table, as `rel="next"`'}}
