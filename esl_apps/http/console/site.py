"""The parts that all pages share: templates, headers, sessions, and the checks of a request."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import falcon
import jinja2

from esl_apps import __version__
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http.access import NUMBERS, Token
from esl_apps.http.admin_port import AdminPort
from esl_apps.http.console import masking
from esl_apps.http.console.sessions import LONGEST, Sessions
from esl_apps.http.errors import OURS, ErrorForm, Problem, problem
from esl_apps.http.request import MAX_BODY
from esl_apps.http.static_files import StaticFiles
from esl_apps.node.metric_history import MetricHistory
from esl_apps.operations import words

log = logging.getLogger(__name__)

PREFIX = "/console"
COOKIE = "esl_apps_console"
_HERE = Path(__file__).parent
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer, browsers send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_AGAIN = (
    '<!doctype html><html lang="en"><title>esl_apps</title><link rel="icon" href="/console/static/icon.svg">'
    '<p><a href="">Go on</a></p></html>'
)
#: Takes a cookie back. Falcon leaves a max_age of 0 out.
_PAST = datetime(1970, 1, 1, tzinfo=UTC)
_TITLES = {
    401: "Not logged in",
    403: "Not allowed",
    404: "Not found",
    409: "Not in this state",
    422: "Not understood",
    429: "Too many requests",
    503: "Not available now",
}
#: Messages after an action, by the query parameter ``done``.
_DONE = {
    "ended": "The call is being hung up.",
    "lifted": "The lock is open.",
    "tripped": "The breaker has tripped.",
    "reset": "The breaker counts from zero again.",
    "dropped": "The waiting call is dropped.",
    "paused": "The switch is paused: no node places calls on it.",
    "resumed": "Calls are placed on the switch again.",
    "activated": "The card is active.",
    "deactivated": "The card is no longer active.",
}


class Site:
    def __init__(self, port: AdminPort, history: MetricHistory) -> None:
        self.port = port
        self.history = history
        self.sessions = Sessions(port.services.redis)
        self.form = ErrorForm(OURS.body, _TITLES, OURS.write, wrong=422, show=self.show_error)
        self.files = StaticFiles(_HERE / "static", {})

    # Requests -----------------------------------------------------------------------------------------

    def admit(self, req: falcon.Request, resp: falcon.Response, scopes: tuple[str, ...]) -> ConsoleVisit:
        """Admit a request of a session whose token has one of the scopes.

        :raises Problem: 403 or 429. :raises falcon.HTTPStatus: the way to the login. :raises StoreUnavailable: Redis
        is down, and this process knows no session yet.
        """
        cookie = req.get_cookie_values(COOKIE) or []
        token = self.sessions.token_of(cookie[0], self.port.tokens()) if cookie else None
        if token is None:
            raise self._to_login(req)
        self.port.door.enter(token, *scopes)
        return ConsoleVisit(self, req, resp, token, cookie[0])

    def _to_login(self, req: falcon.Request) -> falcon.HTTPStatus:
        to = f"{PREFIX}/login"
        if req.get_header("HX-Request"):
            return falcon.HTTPStatus(401, headers={"HX-Redirect": to, "Cache-Control": "no-store"})
        if req.method == "GET" and req.get_header("Sec-Fetch-Site") == "cross-site":
            # A link elsewhere, as in a chat, led here, and with it browsers send no strict cookie. Asked for again by
            # our own page, they do.
            return falcon.HTTPStatus(
                200, headers={**_HEADERS, "Content-Type": "text/html", "Refresh": "0"}, text=_AGAIN
            )
        if req.method == "GET" and req.path not in (PREFIX, f"{PREFIX}/"):
            to += f"?to={quote(req.path)}"
        return falcon.HTTPSeeOther(to, headers={"Cache-Control": "no-store"})

    def check_origin(self, req: falcon.Request) -> None:
        """Refuse a form of another site. :raises Problem: 403."""
        # Browsers say where a request comes from, the older ones in Origin alone. Over plain HTTP no browser sends
        # Sec-Fetch-Site.
        fetched = req.get_header("Sec-Fetch-Site")
        origin = req.get_header("Origin") or ""
        same = fetched == "same-origin" if fetched is not None else origin.partition("://")[2] == req.netloc != ""
        if not same:
            self.port.services.refused(403)
            raise problem(403, "origin", "this form isn't the console's own; open the page again")

    # Answers ------------------------------------------------------------------------------------------

    def show(
        self,
        resp: falcon.Response,
        template: str,
        visit: ConsoleVisit | None,
        *,
        status: int = 200,
        done: str | None = None,
        **values: Any,
    ) -> None:
        """:param done: the message of the action that led here."""
        resp.status = status
        resp.content_type = "text/html; charset=utf-8"
        for name, value in _HEADERS.items():
            resp.set_header(name, value)
        page = _templates().get_template(template)
        resp.text = page.render(
            visit=visit, now=time.time(), node=self.port.services.membership.name, done=done, **values
        )

    def show_error(self, req: falcon.Request, resp: falcon.Response, error: Problem) -> None:
        visit = None
        try:
            cookie = req.get_cookie_values(COOKIE) or [""]
            token = self.sessions.token_of(cookie[0], self.port.tokens())
            visit = None if token is None else ConsoleVisit(self, req, resp, token, cookie[0])
        except StoreUnavailable:
            log.debug("console_without_session")
        messages = [": ".join(filter(None, (fault["field"], fault["message"]))) for fault in error.errors]
        self.show(
            resp,
            "error.html",
            visit,
            status=error.status,
            title=_TITLES.get(error.status, "Failed"),
            messages=messages if visit is None else visit.seen(messages),
        )
        for name, value in error.headers.items():
            resp.set_header(name, value)

    def set_cookie(self, req: falcon.Request, resp: falcon.Response, value: str) -> None:
        """Set the session's cookie, or take it back with an empty value."""
        # Behind a proxy that ends TLS, only the browser knows that it is there.
        secure = req.scheme == "https" or (req.get_header("Origin") or "").startswith("https://")
        resp.set_cookie(
            COOKIE,
            value,
            max_age=LONGEST if value else None,
            expires=None if value else _PAST,
            path=PREFIX,
            secure=secure,
            http_only=True,
            same_site="Strict",
        )


@dataclass(frozen=True)
class ConsoleVisit:
    """A request of an operator who is logged in."""

    site: Site
    req: falcon.Request
    resp: falcon.Response
    token: Token
    cookie: str

    @property
    def port(self) -> AdminPort:
        return self.site.port

    @property
    def by(self) -> str:
        """The token's name, for logs."""
        return self.token.name.removeprefix("+")

    @property
    def path(self) -> str:
        return self.req.path

    def may(self, *scopes: str) -> bool:
        return self.token.has(*scopes)

    @property
    def form_token(self) -> str:
        return self.site.sessions.form_token(self.cookie)

    def alias(self, key: str) -> str:
        return self.site.sessions.alias(key)

    def seen(self, value: Any) -> Any:
        """Return a value as this operator may see it: without the scope ``numbers``, numbers are masked."""
        return value if self.may(NUMBERS) else masking.masked(value)

    def show(self, template: str, **values: Any) -> None:
        self.site.show(self.resp, template, self, done=_DONE.get(self.req.get_param("done") or ""), **values)

    def go(self, path: str, done: str = "") -> None:
        """Send the browser to a page, with the message of an action."""
        self.resp.status = falcon.HTTP_303
        self.resp.location = PREFIX + path + (f"?done={done}" if done else "")
        self.resp.set_header("Cache-Control", "no-store")

    def fields(self) -> dict[str, str]:
        """Return the fields of a form of this session. :raises Problem: 403 for another form; as ``read_form``."""
        self.site.check_origin(self.req)
        fields = read_form(self.req)
        given = fields.pop("form_token", "").encode()
        if not hmac.compare_digest(given, self.form_token.encode()):
            self.port.services.refused(403)
            raise problem(403, "form_token", "this form is of another session; open the page again")
        return fields


def read_form(req: falcon.Request) -> dict[str, str]:
    """Return the fields of a form. :raises Problem: 413, 415, 422."""
    if (req.content_length or 0) > MAX_BODY:
        raise problem(413, "too_large", f"expected {MAX_BODY} bytes at most")
    if (req.content_type or "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise problem(415, "media_type", "expected a form")
    try:
        fields = parse_qs(
            req.bounded_stream.read().decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20
        )
    except ValueError:
        raise problem(422, "form", "expected a form") from None
    return {name: values[0].strip() for name, values in fields.items()}


# Templates and their filters ------------------------------------------------------------------------------


@cache
def _templates() -> jinja2.Environment:
    """Return the templates. They are compiled when they are first shown."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"ago": _ago, "clock": _clock, "lasting": _lasting, "path": _path}
    made.globals |= {"words": words, "version": __version__}
    return made


def _clock(at: float) -> str:
    """The time of day, in the node's time zone; a dash for what Redis has and no clock shows."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "-"


def _lasting(seconds: float) -> str:
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _ago(at: float, now: float) -> str:
    seconds = max(0, int(now - at))
    if seconds < 60:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 3600 else f"{seconds // 3600} h {seconds % 3600 // 60} min ago"


def _path(text: str) -> str:
    return quote(text, safe="")


def wanted_of(req: falcon.Request, fields: tuple[str, ...]) -> Mapping[str, str]:
    """Return the filters of a query that are filled in."""
    return {field: value.strip() for field in fields if (value := req.get_param(field)) and value.strip()}
