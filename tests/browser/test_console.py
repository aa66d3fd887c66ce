"""The console in a browser, over a sandbox."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest

from esl_apps.cli.demo.script import CALLS
from esl_apps.cli.demo.stage import open_stage
from esl_apps.http import console
from esl_apps.http.console import charts
from esl_apps.node.metric_history import Sample
from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support import nginx
from tests.support.node import ADMIN_TOKEN, Node, RedisServer, asks, configuration, request

CALLEE, DID, CARD_DID, CALLER = "0820001234", "27115550000", "27115550003", "0835550001"
EVIL = "<img src=x onerror=document.title='broken'>"
PAGES = ("", "calls", "cards", "cards/acme", "nodes", "breakers", "locks", "callbacks")

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def rig() -> Iterator[SandboxRig]:
    with SandboxRig() as rig:
        yield rig


@pytest.fixture(scope="module")
def node(rig: SandboxRig, redis: RedisServer) -> Iterator[Node]:
    redis.flush()
    config = configuration(rig, redis)
    config["node"]["name"] = "app1"
    config["pin_key"] = "key-for-tests-0123456789"
    config["admin"] |= {
        "console": True,
        "tokens": [{"name": "noc", "token": "the-nocs-token", "scopes": ["read", "operate"]}],
    }
    config["accounts"] = {"acme": {"integrator": "acme", "caller_id": {"number": f"+{DID}"}}}
    config["inbound"] = {DID: {"integrator": "acme", "agents": ["1000"]}}
    config["cccp"] = {"cccp_cc_number": CARD_DID}
    config["pin_guard"] = {"per_number": 2, "lock": 60}
    config["spending"] = {"breaker": {"calls_per_hour": 1000}}
    node = Node(config)
    rig.route(DID, "inbound", config["node"]["listen"])
    rig.route(CARD_DID, "dialthrough", config["node"]["listen"])
    yield node
    node.stop()


@pytest.fixture(autouse=True)
def phones(rig: SandboxRig) -> None:
    rig.phone("1000", Script(answer_after=0.2))
    rig.outside(CALLEE, Script(answer_after=0.2))


def log_in(page: Any, node: Node, token: str = ADMIN_TOKEN, at: str = "") -> Any:
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"{at or f'http://{node.admin}'}/console/")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Latest calls").wait_for()
    return page


def go(page: Any, node: Node, path: str) -> None:
    page.goto(f"http://{node.admin}/console/{path}")


def until(page: Any, condition: str) -> None:
    """Wait for a condition in JavaScript. (Playwright's own way evaluates a text, which the pages forbid.)"""
    end = time.monotonic() + 15
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def failed_call(node: Node, rig: SandboxRig, **more: str) -> str:
    """A call whose callee was refused by the far end."""
    rig.outside(CALLEE, Script(answer_after=0.2, reject=404))
    ref = node.call("1000", CALLEE, **more)
    eventually(lambda: node.get(ref)["state"] == "ended")
    return ref


# A call ---------------------------------------------------------------------------------------------------


def test_console_shows_a_call_appear_and_hangs_it_up(node: Node, open_page: Open) -> None:
    page = log_in(open_page(), node)
    ref = node.call("1000", CALLEE)
    # Nothing is loaded again: the page follows by itself.
    row = page.locator("#now tr", has_text="Talking")
    row.wait_for()
    row.get_by_role("link", name="Follow").click()
    page.get_by_text("0820001234 answers: the two can talk").wait_for()
    page.get_by_role("button", name="Hang up").click()
    page.locator(".verdict").get_by_text("A client or an operator ended it").wait_for()
    assert node.get(ref)["state"] == "ended"
    assert page.get_by_role("button", name="Hang up").count() == 0


def test_console_failed_call_is_explained_in_two_clicks(node: Node, rig: SandboxRig, open_page: Open) -> None:
    failed_call(node, rig)
    page = log_in(open_page(), node)
    page.get_by_role("link", name="Failed ones").click()
    page.get_by_role("link", name="Why and how").first.click()
    verdict = page.locator(".verdict")
    verdict.get_by_text("The callee couldn't be reached.").wait_for()
    verdict.get_by_text("Cause 1: this number doesn't exist.").wait_for()


def test_console_keeps_the_focus_while_it_follows(node: Node, open_page: Open) -> None:
    page = log_in(open_page(), node)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator("#tile-breakers").focus()
    page.evaluate("document.getElementById('now').dataset.old = 'yes'")
    until(page, "document.getElementById('now').dataset.old === undefined")
    assert page.evaluate("document.activeElement.id") == "tile-breakers"
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Breakers", exact=True).wait_for()


def test_console_says_when_its_node_is_away(node: Node, open_page: Open) -> None:
    page = log_in(open_page(), node)
    page.context.set_offline(True)
    page.get_by_text("No answer from this node.").wait_for()
    page.context.set_offline(False)
    page.get_by_text("No answer from this node.").wait_for(state="hidden")
    page.faults.clear()


def test_console_asks_for_nothing_while_events_flow(node: Node, open_page: Open) -> None:
    ref = node.call("1000", CALLEE)
    page = open_page()
    page.clock.install()
    log_in(page, node)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    # The page, and once more when its events come.
    with page.expect_response(lambda response: response.request.headers.get("hx-request") == "true"):
        go(page, node, f"calls/{ref}")
    page.get_by_role("button", name="Hang up").wait_for()
    page.get_by_text("the two can talk").wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(11_000)
    page.wait_for_timeout(100)
    assert asked == []
    node.delete(ref)
    page.locator(".verdict").get_by_text("A client or an operator ended it").wait_for()
    assert asked == [f"http://{node.admin}/console/calls/{ref}"]


def test_console_shows_what_changed_before_events_came(node: Node, open_page: Open) -> None:
    ref = node.call("1000", CALLEE)
    page = log_in(open_page(), node)
    page.add_init_script("window.setInterval = () => 0")  # The page doesn't ask by itself.
    held: list[Any] = []
    page.route("**/console/events", lambda route: held.append(route))
    go(page, node, f"calls/{ref}")
    page.get_by_role("button", name="Hang up").wait_for()
    node.delete(ref)
    eventually(lambda: node.get(ref)["state"] == "ended")
    # A stream that opens and tells nothing.
    held[0].fulfill(content_type="text/event-stream", body="retry: 60000\n\n")
    page.locator(".verdict").get_by_text("A client or an operator ended it").wait_for()


@pytest.mark.parametrize("status", [None, 503])
def test_console_without_events_says_so_and_asks(node: Node, open_page: Open, status: int | None) -> None:
    page = open_page()
    page.clock.install()

    def refuse(route: Any) -> None:
        route.abort() if status is None else route.fulfill(status=status)

    page.route("**/console/events", refuse)
    log_in(page, node)
    note = page.get_by_text("Live updates are off.")
    note.wait_for()
    ref = node.call("1000", CALLEE)
    page.clock.run_for(5_100)
    page.locator("#now tr", has_text=CALLEE).first.wait_for()
    page.unroute("**/console/events")
    # The browser itself tries again after an abort, and the page itself after any other answer.
    page.clock.run_for(5_100)
    note.wait_for(state="hidden")
    node.delete(ref)
    page.faults.clear()


def test_console_stream_that_falls_silent_counts_as_lost(node: Node, open_page: Open) -> None:
    """A proxy may keep the connection and pass nothing on."""
    page = open_page()
    page.clock.install()
    page.route("**/console/events", lambda _route: None)
    log_in(page, node)
    note = page.get_by_text("Live updates are off.")
    # The clock runs on by itself, too.
    page.clock.run_for(6_000)
    assert note.is_hidden()
    page.clock.run_for(6_000)
    note.wait_for()


_HIDE = """
  window.streams = [];
  const Real = EventSource;
  window.EventSource = class extends Real { constructor(url) { super(url); window.streams.push(this); } };
  let hidden = false;
  Object.defineProperty(document, "hidden", {get: () => hidden});
  window.hide = (yes) => { hidden = yes; document.dispatchEvent(new Event("visibilitychange")); };
"""


def test_console_page_that_is_hidden_has_no_stream(node: Node, open_page: Open) -> None:
    """A browser opens six connections to a server for all its tabs: the seventh page and all forms would wait."""
    page = open_page()
    page.add_init_script(_HIDE)
    log_in(page, node)
    until(page, "window.streams.at(-1).readyState === EventSource.OPEN")
    page.evaluate("window.hide(true)")
    assert page.evaluate("window.streams.every(({readyState}) => readyState === EventSource.CLOSED)")
    ref = node.call("1000", CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    row = page.locator("#now tr", has_text="Talking")
    assert row.count() == 0
    page.evaluate("window.hide(false)")
    row.wait_for()
    node.delete(ref)
    row.wait_for(state="detached")


def test_console_callers_words_stay_text(node: Node, rig: SandboxRig, open_page: Open) -> None:
    path = "/v2/accounts/acme/cccps"
    card = {"data": {"cid": "0825559999", "comment": EVIL}}
    assert request(node.admin, "PUT", path, card, token=ADMIN_TOKEN).status == 201
    named = {"From": f'"{EVIL}" <sip:{EVIL.replace(" ", "%20").replace("<", "%3C").replace(">", "%3E")}@192.0.2.1>'}
    rig.phone("1000", Script(answer_after=None))
    call = rig.outside(CALLER).dial(DID, named)
    page = log_in(open_page(), node)
    page.get_by_role("link", name="Follow").first.click()
    page.get_by_role("heading", name="Both legs").wait_for()
    go(page, node, "cards/acme")
    page.get_by_text(EVIL).wait_for()
    for path in PAGES:
        go(page, node, path)
        assert page.locator("img").count() == 0
        assert "broken" not in page.title()
    call.hangup()


# Actions --------------------------------------------------------------------------------------------------


def test_console_lifts_a_lock(node: Node, rig: SandboxRig, open_page: Open) -> None:
    leg = rig.outside(CALLER).dial(CARD_DID)
    eventually(lambda: asks(rig, "enter_pin"))
    leg.digits("999999999#888888888#")
    eventually(lambda: leg.leg.ended_at is not None)
    page = log_in(open_page(), node, "the-nocs-token")
    page.locator("#tile-locks").click()
    page.get_by_text("number:278••••••01").wait_for()
    assert "27835550001" not in page.content()
    page.get_by_role("row", name="number:").get_by_role("button", name="Open now").click()
    page.get_by_text("The lock is open.").wait_for()
    assert page.get_by_text("number:278••••••01").count() == 0


def test_console_trips_and_resets_a_breaker(node: Node, open_page: Open) -> None:
    page = log_in(open_page(), node)
    go(page, node, "breakers")
    page.get_by_label("Breaker", exact=True).fill("account:acme")
    page.get_by_role("button", name="Trip").click()
    page.get_by_text("The breaker has tripped.").wait_for()
    page.get_by_role("button", name="Reset").click()
    page.get_by_text("The breaker counts from zero again.").wait_for()
    page.get_by_text("No breaker has tripped.").wait_for()


def test_console_makes_a_card_and_shows_its_pin_once(node: Node, open_page: Open) -> None:
    page = log_in(open_page(), node)
    page.get_by_role("link", name="Cards", exact=True).click()
    page.get_by_role("link", name="acme").click()
    page.get_by_label("a new PIN, shown once").check()
    page.get_by_label("Comment", exact=True).fill("front desk")
    page.get_by_role("button", name="Make the card").click()
    pin = page.locator("#pin").inner_text()
    assert len(pin) == 12
    page.get_by_role("link", name="Cards of acme").click()
    row = page.get_by_role("row", name="front desk")
    row.get_by_role("button", name="Deactivate").click()
    page.get_by_text("The card is no longer active.").wait_for()
    assert pin not in page.content()


@pytest.mark.skipif(nginx.why_not() is not None, reason=str(nginx.why_not()))
def test_console_behind_nginx_as_the_docs_say(node: Node, open_page: Open, tmp_path: Path) -> None:
    proxy = nginx.Nginx(tmp_path, "127.0.0.1", "howto/serve-tls.rst", {"127.0.0.1:8000": node.admin})
    try:
        page = log_in(open_page(ignore_https_errors=True), node, at=f"https://{proxy.address}")
        node.call("1000", CALLEE)
        page.locator("#now tr", has_text="Talking").wait_for()
        page.close()
        # An older browser says in Origin alone where its form comes from, and nginx must pass on which port it is at.
        connection = http.client.HTTPSConnection(proxy.address, context=ssl._create_unverified_context())
        headers = {"Origin": f"https://{proxy.address}", "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/console/login", f"token={ADMIN_TOKEN}", headers)
        assert connection.getresponse().status == 303
        connection.close()
    finally:
        proxy.close()


def test_console_link_from_elsewhere_needs_no_new_login(node: Node, open_page: Open) -> None:
    page = log_in(open_page(), node)
    # To a browser, localhost is another site than 127.0.0.1.
    page.goto(f"http://localhost:{node.admin.rpartition(':')[2]}/console/login")
    page.evaluate("address => { location.href = address }", f"http://{node.admin}/console/calls?outcome=failed")
    page.get_by_role("heading", name="Calls of the last day").wait_for()
    assert page.url.endswith("/console/calls?outcome=failed")


def test_console_logout_needs_a_new_login(node: Node, open_page: Open) -> None:
    page = log_in(open_page(), node)
    assert [cookie["httpOnly"] for cookie in page.context.cookies()] == [True]
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Token").wait_for()
    go(page, node, "calls")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").get_by_text("This isn't a token").wait_for()
    # Chromium reports the 401 as an error.
    page.faults.clear()


# The demo -------------------------------------------------------------------------------------------------

_WATCH = """() => {
  window.seen = {};
  const look = () => {
    for (const row of document.querySelectorAll("section[aria-labelledby=live] tbody tr")) {
      const cells = row.cells;
      window.seen[cells[4].textContent.trim().split(/\\s/)[0]] = cells[3].textContent.trim();
    }
  };
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true});
}"""


def test_console_follows_the_calls_of_the_demo(open_page: Open) -> None:
    failed: list[BaseException] = []
    with open_stage(lambda _line: None, lambda _key, _body: None) as stage:
        page = open_page()
        page.goto(f"http://{stage.admin}/console/")
        page.get_by_label("Token").fill(stage.admin_token)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Latest calls").wait_for()
        page.evaluate(_WATCH)

        def place() -> None:
            try:
                for call in CALLS.values():
                    stage.ended_call(call.place(stage)["call_ref"])
            except BaseException as error:
                failed.append(error)

        placing = threading.Thread(target=place)
        placing.start()
        end = time.monotonic() + 60
        while placing.is_alive() and time.monotonic() < end:
            page.wait_for_timeout(200)
        placing.join(1)
        assert failed == []
        latest = page.locator("section[aria-labelledby=latest] tbody tr")
        for app in CALLS:
            latest.filter(has_text=app).filter(has_text="Answered").first.wait_for()
        assert set(CALLS) <= set(page.evaluate("Object.keys(window.seen)"))
        # Before its node stops.
        page.close()


# For everybody --------------------------------------------------------------------------------------------


#: Buttons that are wider than the row that holds them.
_CUT_OFF = """[...document.querySelectorAll(".stack button")]
  .filter(button => button.getBoundingClientRect().right > button.closest("tr").getBoundingClientRect().right)
  .map(button => button.textContent)"""


# Colours and sizes don't depend on each other, and axe takes a third of a second for a page.
@pytest.mark.parametrize(("scheme", "size"), [("light", "desktop"), ("dark", "phone")])
def test_console_pages_have_no_fault(
    node: Node, rig: SandboxRig, redis: RedisServer, open_page: Open, axe: Any, scheme: str, size: str
) -> None:
    ref = failed_call(node, rig, contact_ref="as-long-as-they-may-be-" * 10)
    rig.outside(CALLEE, Script(answer_after=0.2))
    live = node.call("1000", CALLEE)
    page = open_page(scheme, size)
    page.goto(f"http://{node.admin}/console/login")
    assert axe(page) == []
    log_in(page, node)
    breaker(page, node)
    for path in (*PAGES, f"calls/{ref}", f"calls/{live}", "calls?outcome=failed", "cards/acme?q=x"):
        go(page, node, path)
        page.get_by_role("heading").first.wait_for(state="attached")
        assert axe(page) == [], path
        width, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert width <= room, f"{path} is {width} px wide on a screen of {room}"
    page.goto(f"http://{node.admin}/console/breakers")
    page.get_by_role("button", name="Reset").click()
    node.delete(live)


def test_console_cuts_nothing_off_on_the_smallest_phone(node: Node, open_page: Open) -> None:
    page = log_in(open_page(), node)
    page.set_viewport_size({"width": 320, "height": 640})
    go(page, node, "nodes")
    page.get_by_role("button", name="Pause").first.wait_for()
    name = "Pause switch-7.johannesburg.example.com"
    page.evaluate("name => { document.querySelector('.stack button').textContent = name }", name)
    assert page.evaluate(_CUT_OFF) == []


def breaker(page: Any, node: Node) -> None:
    go(page, node, "breakers")
    page.get_by_label("Breaker", exact=True).fill("account:acme/country:CU")
    page.get_by_role("button", name="Trip").click()
    page.get_by_text("The breaker has tripped.").wait_for()


# For the docs ---------------------------------------------------------------------------------------------


def test_console_screenshots(node: Node, rig: SandboxRig, redis: RedisServer, open_page: Open, screenshot: Any) -> None:
    redis.flush()
    rig.outside("0820005555", Script(answer_after=0.2, hangup_after=0.3))
    rig.outside("0820007777", Script(answer_after=0.1, reject=486))
    refs = [node.call("1000", callee) for callee in ("0820005555", "0820007777")]
    eventually(lambda: all(node.get(ref)["state"] == "ended" for ref in refs))
    failed = failed_call(node, rig)
    rig.outside(CALLEE, Script(answer_after=0.2))
    live = node.call("1000", CALLEE)
    eventually(lambda: node.get(live)["state"] == "bridged")
    for scheme, size, names in (
        ("light", "desktop", ("console-overview", "console-call")),
        ("dark", "phone", ("console-phone", "console-phone-call")),
    ):
        page = log_in(open_page(scheme, size), node)
        page.evaluate("html => { document.getElementById('hour').outerHTML = html }", an_hour())
        page.get_by_text("Talking").wait_for()
        screenshot(page, names[0], full_page=size == "desktop")
        go(page, node, f"calls/{failed}")
        screenshot(page, names[1], full_page=size == "desktop")
    node.delete(live)


def an_hour() -> str:
    """The charts of an hour that no test can wait for."""
    now, ended, rang = 1e9, {"answered": 0.0, "callee_busy": 0.0, "rejected": 0.0}, {1.0: 0.0, 2.0: 0.0, 5.0: 0.0}
    samples = []
    for step in range(361):
        ended["answered"] += step * 7 % 11 // 8
        ended["callee_busy"] += step % 5 == 0
        ended["rejected"] += 120 < step < 140 or step % 40 == 0
        quick, slow = step % 2, step * 5 % 13 // 4
        rang = {1.0: rang[1.0] + quick, 2.0: rang[2.0] + quick + slow, 5.0: rang[5.0] + quick + slow + step // 90 % 2}
        samples.append(Sample(now - 3600 + 10 * step, 20 + step // 18 + step // 9 % 5, dict(ended), dict(rang)))
    folder = Path(console.__file__).parent / "templates"
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)
    return pages.get_template("hour.html").render(charts=charts.charts(samples, now), drawing=charts, node="app1")
