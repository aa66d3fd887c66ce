"""The console's way in, its headers, its forms and its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from esl_apps.http import console
from esl_apps.http.console.site import COOKIE
from tests.support.bench import Bench
from tests.support.console import ADMIN, SAME, Browser, read
from tests.support.interpreter import run_fresh

STATIC = Path(console.__file__).parent / "static"


def test_jinja_is_imported_for_a_console_alone() -> None:
    code = "import sys, esl_apps.http.ports, esl_apps.http.admin; print('jinja2' in sys.modules)"
    assert run_fresh(code) == "False"


def test_console_is_off_unless_it_is_configured(bench: Bench, tmp_path: Path) -> None:
    import msgspec

    policy = bench.services.policy
    admin = msgspec.structs.replace(policy.config.admin, console=False)
    config = msgspec.structs.replace(policy.config, admin=admin)
    bench.services.policies.now = bench.services.read_policy(config)
    assert Browser(bench).ask("GET", "/").status_code == 404
    assert Browser(bench).ask("GET", "/login").status_code == 404


# In and out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/calls", "/cards", "/cards/acme", "/nodes", "/locks", "/breakers", "/callbacks"]
)
def test_page_without_a_session_leads_to_the_login(browser: Browser, path: str) -> None:
    result = browser.ask("GET", path)
    assert result.status_code == 303
    assert result.headers["location"].startswith("/console/login")
    polled = browser.ask("GET", path, {"HX-Request": "true"})
    assert (polled.status_code, polled.headers["hx-redirect"]) == (401, "/console/login")


def test_link_from_elsewhere_is_followed_with_the_cookie(browser: Browser) -> None:
    # Browsers send no strict cookie with it: ask them to ask again.
    result = browser.ask("GET", "/calls", {"Sec-Fetch-Site": "cross-site"})
    assert (result.status_code, result.headers["refresh"]) == (200, "0")
    assert browser.ask("GET", "/calls", {"Sec-Fetch-Site": "same-origin"}).status_code == 303
    browser.log_in()
    assert "refresh" not in browser.ask("GET", "/calls", {"Sec-Fetch-Site": "cross-site"}).headers


@pytest.mark.parametrize("path", ["/", "/login", "/static/console.css"])
def test_head_of_a_page_is_its_head_alone(browser: Browser, path: str) -> None:
    browser.log_in()
    result = browser.ask("HEAD", path)
    assert (result.status_code, result.content) == (200, b"")
    assert result.headers["content-type"] == browser.ask("GET", path).headers["content-type"]


def test_login_begins_a_session_in_a_strict_cookie(browser: Browser) -> None:
    result = browser.send("/login", token=ADMIN)
    assert (result.status_code, result.headers["location"]) == (303, "/console/")
    cookie = result.cookies[COOKIE]
    assert (cookie.http_only, cookie.same_site, cookie.path, cookie.secure) == (True, "Strict", "/console", False)
    assert cookie.max_age == 12 * 3600
    assert ADMIN not in cookie.value
    assert "Ready" in browser.get("/")


@pytest.mark.parametrize(
    "way", [{"protocol": "https"}, {"headers": {"Origin": "https://node.example", "Sec-Fetch-Site": "same-origin"}}]
)
def test_cookie_is_secure_wherever_the_browser_has_tls(browser: Browser, way: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded", **SAME, **way.pop("headers", {})}
    result = browser.ask("POST", "/login", headers, body=f"token={ADMIN}", **way)
    assert result.cookies[COOKIE].secure


@pytest.mark.parametrize(
    ("asked", "led"),
    [
        ("/console/calls/0199f0a2-4c1e-7bd2-8a55-0123456789ab", "/console/calls/0199f0a2-4c1e-7bd2-8a55-0123456789ab"),
        ("https://evil.example/", "/console/"),
        ("//evil.example", "/console/"),
        ("/console//evil.example", "/console/"),
        ("/console/\r\nX: y", "/console/"),
        ("/metrics", "/console/"),
        ("", "/console/"),
    ],
)
def test_login_leads_to_pages_of_the_console_alone(browser: Browser, asked: str, led: str) -> None:
    assert browser.send("/login", token=ADMIN, to=asked).headers["location"] == led


def test_login_comes_back_to_the_page_asked_for(browser: Browser) -> None:
    location = browser.ask("GET", "/calls").headers["location"]
    assert location == "/console/login?to=/console/calls"
    assert 'value="/console/calls"' in browser.html("/login?to=/console/calls")


def test_login_with_a_wrong_token_says_so(browser: Browser) -> None:
    result = browser.send("/login", token="acme-cards-token")
    assert (result.status_code, COOKIE in result.cookies) == (401, False)
    assert "isn't a token of the operator's port" in read(result.text)
    assert browser.send("/login", token="").status_code == 401


def test_wrong_tokens_of_logins_and_of_the_api_count_together(bench: Bench) -> None:
    import msgspec

    config = bench.services.policy.config
    rate = msgspec.structs.replace(config.admin.rate, failed=0.01, burst=200)
    admin = msgspec.structs.replace(config.admin, rate=rate)
    bench.services.policies.now = bench.services.read_policy(msgspec.structs.replace(config, admin=admin))
    browser = Browser(bench)
    assert browser.send("/login", token="wrong").status_code == 401
    assert browser.client.simulate_get("/v1/status", headers={"X-Auth-Token": "wrong"}).status_code == 401
    result = browser.send("/login", token=ADMIN)
    assert (result.status_code, result.headers["retry-after"]) == (429, "100")
    assert "Too many wrong tokens" in read(result.text)


def test_login_of_a_token_without_the_scope_is_403(browser: Browser) -> None:
    result = browser.send("/login", token="the-diallers-token")
    assert (result.status_code, COOKIE in result.cookies) == (403, False)


def test_logout_takes_the_cookie_back(browser: Browser) -> None:
    browser.log_in()
    result = browser.post("/logout")
    assert (result.status_code, result.headers["location"]) == (303, "/console/login")
    assert result.cookies[COOKIE].value == ""
    assert "expires=Thu, 01 Jan 1970" in result.headers["set-cookie"]


def test_session_lasts_no_longer_than_its_token(bench: Bench, browser: Browser) -> None:
    import msgspec

    browser.log_in("the-nocs-token-for-tests")
    assert browser.ask("GET", "/").status_code == 200
    config = bench.services.policy.config
    admin = msgspec.structs.replace(config.admin, tokens=[])
    bench.services.policies.now = bench.services.read_policy(msgspec.structs.replace(config, admin=admin))
    assert browser.ask("GET", "/").status_code == 303


# Scopes ---------------------------------------------------------------------------------------------------


def test_token_for_cards_sees_cards_alone(browser: Browser) -> None:
    assert browser.send("/login", token="the-shops-token-for-tests").headers["location"] == "/console/cards"
    assert "acme" in browser.get("/cards")
    assert "Breakers" not in browser.get("/cards")
    for path in ("/", "/calls", "/nodes", "/locks", "/breakers", "/callbacks"):
        assert "lacks the scope read" in browser.get(path, 403)


@pytest.mark.parametrize(
    "path",
    ["/switches/pause", "/switches/resume", "/locks/lift", "/breakers/trip", "/breakers/reset", "/callbacks/drop"],
)
def test_action_needs_the_scope_operate(browser: Browser, path: str) -> None:
    browser.log_in("the-wallboards-token")
    result = browser.post(path, name="fs1", scope="system")
    assert result.status_code == 403
    assert "lacks the scope operate" in read(result.text)


def test_page_offers_no_action_without_the_scope(browser: Browser) -> None:
    browser.log_in("the-wallboards-token")
    assert "Trip by hand" not in browser.get("/breakers")
    assert "New card" not in browser.get("/cards/acme")


# Forms of other sites -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://falconframework.org", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://falconframework.org.evil.example"},
    ],
)
def test_form_of_another_site_changes_nothing(browser: Browser, headers: dict[str, str]) -> None:
    browser.log_in()
    assert browser.post("/breakers/trip", headers, scope="system").status_code == 403
    assert browser.send("/login", headers, token=ADMIN).status_code == 403
    assert "No breaker has tripped" in browser.get("/breakers")


@pytest.mark.parametrize("headers", [SAME, {"Origin": "http://falconframework.org"}])
def test_form_of_the_console_is_taken(browser: Browser, headers: dict[str, str]) -> None:
    browser.log_in()
    assert browser.post("/breakers/trip", headers, scope="system").status_code == 303


def test_form_of_another_session_changes_nothing(bench: Bench, browser: Browser) -> None:
    browser.log_in()
    other = Browser(bench).log_in()
    for token in ("", "0" * 64, other.form_token()):
        assert browser.post("/breakers/trip", scope="system", form_token=token).status_code == 403
    assert "No breaker has tripped" in browser.get("/breakers")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/json"}, "{}", 415),
        ({"Content-Type": "text/plain"}, "form_token=x", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "&".join(["a=1"] * 50), 422),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "a=%ff", 422),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "a=" + "x" * 70_000, 413),
    ],
)
def test_form_that_cant_be_read_is_refused(browser: Browser, headers: dict[str, str], body: str, status: int) -> None:
    browser.log_in()
    assert browser.ask("POST", "/breakers/trip", {**SAME, **headers}, body=body).status_code == status


# Headers, files, errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/", "/calls", "/nothing"])
def test_page_forbids_inline_code_and_caches(browser: Browser, path: str) -> None:
    browser.log_in()
    result = browser.ask("GET", path)
    policy = result.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert result.headers["cache-control"] == "no-store"
    assert result.headers["x-content-type-options"] == "nosniff"
    assert result.headers["content-type"] == "text/html; charset=utf-8"
    assert " style=" not in result.text
    assert " on" not in "".join(part.partition(">")[0] for part in result.text.split("<")).replace(" one", "")


def test_static_files_are_open_and_have_an_etag(browser: Browser) -> None:
    for path in STATIC.iterdir():
        result = browser.ask("GET", f"/static/{path.name}")
        assert result.content == path.read_bytes()
        again = browser.ask("GET", f"/static/{path.name}", {"If-None-Match": result.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert browser.ask("GET", "/static/console.css").headers["content-type"] == "text/css; charset=utf-8"
    for name in ("nothing.js", "..", "..%2fsite.py", "%2e%2e%2fsite.py"):
        assert browser.ask("GET", f"/static/{name}").status_code == 404


def test_htmx_is_shipped_with_its_licence() -> None:
    assert 'version:"2.0.11"' in (STATIC / "htmx.min.js").read_text()
    assert "Zero-Clause BSD" in (STATIC / "htmx.LICENSE.txt").read_text()


def test_error_is_a_page_here_and_json_elsewhere(browser: Browser) -> None:
    browser.log_in()
    assert "no such page" in browser.get("/nothing", 404)
    assert "no such call" in browser.get("/calls/x", 404)
    assert browser.ask("POST", "/nodes", SAME).status_code == 405
    assert browser.client.simulate_get("/nothing").json["errors"][0]["code"] == "not_found"


def test_console_without_redis_shows_what_it_can(bench: Bench, browser: Browser) -> None:
    browser.log_in()
    bench.redis.break_after(0)
    assert "Redis can't be reached" in browser.get("/")
    for path in ("/calls", "/nodes", "/locks", "/breakers", "/callbacks"):
        assert "Not available now" in browser.get(path, 503)
    fresh = Browser(bench)
    fresh.cookie = browser.cookie
    assert "Not available now" in fresh.get("/", 503)


def test_fault_of_a_page_is_a_page(bench: Bench, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    browser.log_in()
    monkeypatch.setattr("esl_apps.http.operator.processes", lambda _port: 1 / 0)
    assert "the request failed; its log says why" in browser.get("/nodes", 500)
