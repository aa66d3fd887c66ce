"""Pages of other origins: which may read answers, and what they may send."""

from __future__ import annotations

from typing import Any

import pytest

from esl_apps.config import parse
from esl_apps.config.problems import ConfigError
from tests.support.http_services import CONFIGURATION, World

CALLS = "/click2dial/calls"
CRM = "https://crm.example.com"


@pytest.fixture
def open_world(world: World) -> World:
    world.configure(integrators={"allow_origins": [CRM, "http://localhost:8080"]})
    return world


def ask(world: World, method: str = "GET", path: str = CALLS, **headers: str) -> Any:
    return world.api.simulate_request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})


def cors(result: Any) -> list[str]:
    return sorted(name for name in result.headers if name.startswith("access-control"))


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_cors_is_off_by_default(world: World, method: str) -> None:
    result = ask(world, method, Origin=CRM, Access_Control_Request_Method="POST")
    assert cors(result) == []
    assert "vary" not in result.headers


def test_cors_preflight_of_a_listed_origin_is_answered(open_world: World) -> None:
    result = open_world.api.simulate_options(
        CALLS,
        headers={
            "Origin": CRM,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
            "Authorization": "",
        },
    )
    assert result.status_code == 200
    assert result.headers["access-control-allow-origin"] == CRM
    assert {"GET", "POST"} <= set(result.headers["access-control-allow-methods"].split(", "))
    assert "Authorization" in result.headers["access-control-allow-headers"]
    assert "Origin" in result.headers["vary"]


@pytest.mark.parametrize(
    "origin",
    [
        "https://crm.example.com.evil.example",
        "https://evil.example/https://crm.example.com",
        "https://CRM.example.com",
        "http://crm.example.com",
        "https://crm.example.com:8443",
        "null",
        "*",
        "",
        f"{CRM}, {CRM}",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_cors_refuses_every_other_origin(open_world: World, method: str, origin: str) -> None:
    result = ask(open_world, method, Origin=origin, Access_Control_Request_Method="POST")
    assert cors(result) == []
    assert "Origin" in result.headers["vary"]


def test_cors_never_allows_credentials_or_all(open_world: World) -> None:
    for method, path in (("GET", CALLS), ("OPTIONS", CALLS), ("GET", "/nowhere"), ("POST", CALLS)):
        result = ask(open_world, method, path, Origin=CRM, Access_Control_Request_Method="POST")
        assert "access-control-allow-credentials" not in result.headers
        assert result.headers["access-control-allow-origin"] == CRM


def test_cors_lets_a_page_read_refusals(open_world: World) -> None:
    result = ask(open_world, Origin=CRM, Authorization="Bearer wrong")
    assert result.status_code == 401
    assert result.headers["access-control-allow-origin"] == CRM
    assert "Retry-After" in result.headers["access-control-expose-headers"]


def test_cors_preflight_opens_nothing_that_is_not_there(open_world: World) -> None:
    result = ask(open_world, "OPTIONS", "/nowhere", Origin=CRM, Access_Control_Request_Method="POST")
    assert result.status_code == 404
    assert "access-control-allow-methods" not in result.headers


def test_cors_follows_a_reload(open_world: World) -> None:
    open_world.configure(integrators={"allow_origins": []})
    assert cors(ask(open_world, Origin=CRM)) == []


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "crm.example.com",
        "https://crm.example.com/",
        "https://crm.example.com/app",
        "https://*.example.com",
        "https://CRM.example.com",
        "https://crm.example.com:443",
        "http://crm.example.com:80",
        "ftp://crm.example.com",
        "https://user@crm.example.com",
        "https://crm.example.com\n",
    ],
)
def test_cors_origin_that_no_browser_sends_is_an_error(tmp_path: Any, origin: str) -> None:
    listed = CONFIGURATION.replace("{recordings}", str(tmp_path))
    text = listed.replace("    listen:", f"    allow_origins: [{origin!r}]\n    listen:", 1)
    assert text != listed
    with pytest.raises(ConfigError, match="allow_origins"):
        parse(text.replace("'https://crm.example.com\\n'", '"https://crm.example.com\\n"'), {})


@pytest.mark.parametrize(
    "origin", [CRM, "http://localhost:8080", "https://crm.example.com:8443", "http://[::1]:3000", "http://10.0.0.1"]
)
def test_cors_origin_as_browsers_write_it_is_read(tmp_path: Any, origin: str) -> None:
    text = CONFIGURATION.replace("{recordings}", str(tmp_path))
    text = text.replace("    listen:", f"    allow_origins: [{origin!r}]\n    listen:", 1)
    assert parse(text, {}).integrators[0].allow_origins == [origin]
