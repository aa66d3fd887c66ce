"""The phone for browsers, on an integrator's port if ``phone`` is true. The page itself is in the folder ``phone``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import falcon

from esl_apps.http.body import answer
from esl_apps.http.calls_port import CallsPort
from esl_apps.http.errors import problem
from esl_apps.http.parameters import in_path
from esl_apps.http.routes import Answer, Operation, Route
from esl_apps.http.schemas import PhoneSettings
from esl_apps.http.static_files import StaticFiles

_FOLDER = Path(__file__).parent / "phone"
_HEADERS = {
    # Scripts and styles are files of this port. The page connects to the switch, whose address a person may change.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self' ws: wss:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    # Pages of other sites load embed.js.
    "Cross-Origin-Resource-Policy": "cross-origin",
}


@cache
def _files() -> StaticFiles:
    return StaticFiles(_FOLDER, _HEADERS)


def _check_served(port: CallsPort) -> None:
    if not port.settings.phone:
        raise problem(404, "not_found", "no such resource")


def get_page(port: CallsPort, req: falcon.Request, resp: falcon.Response) -> None:
    _check_served(port)
    if not req.env["PATH_INFO"].endswith("/"):
        # The page names its files relative to itself. So is this, as a proxy may have put a path in front.
        raise falcon.HTTPMovedPermanently("phone/")
    _files().send(req, resp, "index.html")


def get_file(port: CallsPort, req: falcon.Request, resp: falcon.Response, file: str) -> None:
    _check_served(port)
    _files().send(req, resp, file)


def get_settings(port: CallsPort, _req: falcon.Request, resp: falcon.Response) -> None:
    """``/phone/settings.json``: the sites for whose pages the phone dials without being asked."""
    _check_served(port)
    resp.set_header("Cache-Control", "no-store")
    answer(resp, 200, PhoneSettings(list(port.settings.allow_origins)))


_VERSION = {"ETag": {"schema": {"type": "string"}}}

ROUTES = (
    Route(
        "/phone",
        (
            Operation(
                "GET",
                "getPhone",
                "A phone for browsers, if the integrator has one",
                get_page,
                scopes=None,
                answers={
                    200: Answer("The page", {"type": "string"}, media="text/html", headers=_VERSION),
                    301: Answer("At /phone/", media="text/html"),
                    304: Answer("The client has it already", media="text/html", headers=_VERSION),
                },
                errors=(404, 429),
            ),
        ),
    ),
    Route(
        "/phone/settings.json",
        (
            Operation(
                "GET",
                "getPhoneSettings",
                "The sites whose pages may have the phone dial",
                get_settings,
                scopes=None,
                answers={200: Answer("The settings", PhoneSettings)},
                errors=(404, 429),
            ),
        ),
    ),
    Route(
        "/phone/{file}",
        (
            Operation(
                "GET",
                "getPhoneFile",
                "A file of the phone's page",
                get_file,
                scopes=None,
                parameters=(in_path("file", str),),
                answers={
                    200: Answer("The file", {"type": "string"}, media="*/*", headers=_VERSION),
                    304: Answer("The client has it already", media="*/*", headers=_VERSION),
                },
                errors=(404, 429),
            ),
        ),
    ),
)
