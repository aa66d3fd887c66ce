"""A browser without a browser: asks the console of a node's parts, with a cookie and the tokens of forms."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import urlencode

from prometheus_client import CollectorRegistry

from esl_apps.http import admin
from esl_apps.http.console.site import COOKIE
from tests.support.bench import Bench
from tests.support.http_client import HttpClient

ADMIN = "admin-token-for-tests"
#: By the scopes that their tests need.
TOKENS = [
    {"name": "wallboard", "token": "the-wallboards-token", "scopes": ["read"]},
    {"name": "noc", "token": "the-nocs-token-for-tests", "scopes": ["read", "operate"]},
    {"name": "shop", "token": "the-shops-token-for-tests", "scopes": ["cards"]},
    {"name": "dialler", "token": "the-diallers-token", "scopes": ["call"]},
]
_FORM_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]+)"')
SAME = {"Sec-Fetch-Site": "same-origin"}


class Browser:
    def __init__(self, bench: Bench, **settings: Any) -> None:
        """``settings``: of the HTTP client."""
        self.bench = bench
        self.services = bench.services
        self.client = HttpClient(admin.build(bench.services, bench.outgoing, CollectorRegistry()), **settings)
        self.cookie = ""

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
        send = {**({"Cookie": f"{COOKIE}={self.cookie}"} if self.cookie else {}), **(headers or {})}
        result = self.client.simulate_request(method, f"/console{path}", headers=send, **more)
        if COOKIE in result.cookies:
            self.cookie = result.cookies[COOKIE].value
        return result

    def get(self, path: str, status: int = 200, **more: Any) -> str:
        """Return a page's text as a person reads it: without tags."""
        result = self.ask("GET", path, **more)
        assert result.status_code == status, result.text
        return read(result.text)

    def html(self, path: str) -> str:
        return str(self.ask("GET", path).text)

    def post(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> Any:
        """Send a form of this session."""
        fields.setdefault("form_token", self.form_token())
        return self.send(path, headers, **fields)

    def send(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> Any:
        return self.ask(
            "POST",
            path,
            {"Content-Type": "application/x-www-form-urlencoded", **(SAME if headers is None else headers)},
            body=urlencode(fields),
        )

    def form_token(self) -> str:
        """The token of the log-out form, which is on every page."""
        match = _FORM_TOKEN.search(self.html("/cards"))
        return match[1] if match else ""

    def log_in(self, token: str = ADMIN) -> Browser:
        result = self.send("/login", token=token)
        assert result.status_code == 303, result.text
        return self


def read(html: str) -> str:
    """Return the text of a page, with single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())
