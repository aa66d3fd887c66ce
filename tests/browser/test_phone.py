"""Phones in two real browsers at a real switch: what they dial, say, hear and press, and what becomes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from esl_apps.cli import browser_profiles
from tests.browser.phones import Stand
from tests.conftest import ON_FREESWITCH
from tests.rig.base import Script, eventually
from tests.rig.freeswitch import FreeswitchRig
from tests.rig.fs_configuration import MOH_HZ
from tests.rig.phones import PASSWORD
from tests.rig.tones import read_wav, tones
from tests.support import nginx
from tests.support.browser_network import BrowserNetwork, why_not
from tests.support.callers import DIALTONE, DISA, DISA_PIN, E164, disa_config
from tests.support.node import Node, RedisServer, asks, configuration, request
from tests.support.ports import free_port

pytestmark = [*ON_FREESWITCH, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]
CALLEE = "0820001234"
ONE, TWO = "1000", "1001"


@pytest.fixture(scope="module")
def page_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def made(
    redis: RedisServer, chromium: Any, page_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    network = BrowserNetwork()
    rig = FreeswitchRig(browsers=network.address)
    config = configuration(rig, redis, record=True, phone=True)
    disa_config(config)
    config["integrators"][0]["listen"] = f"{network.address}:{free_port()}"
    config["integrators"][0]["allow_origins"] = [f"http://{network.address}:{page_port}"]
    node = Node(config)
    stand = Stand(rig, node, network, tmp_path_factory.mktemp("browsers"), chromium.browser_type)
    yield stand
    stand.close()
    node.end()
    rig.close()
    network.close()


@pytest.fixture
def stand(made: Stand, redis: RedisServer) -> Iterator[Stand]:
    made.rig.reset()
    redis.flush()
    made.one.faults.clear()
    made.two.faults.clear()
    yield made
    made.one.leave()
    made.two.leave()
    made.rig.reset()
    assert made.one.faults == []
    assert made.two.faults == []


def record_of(redis: RedisServer, reason: str, code: int, by: str) -> dict[str, Any]:
    record = redis.pop()
    assert (record["end_reason"], record["end_code"], record["hung_up_by"]) == (reason, code, by), record
    return record


def share(path: Path, hz: int, channel: int) -> float:
    """Return the share of a recording's channel that has a tone."""
    found = tones(path, hz, channel)
    return sum(present for _at, present in found) / len(found)


def test_two_browsers_talk_and_are_recorded(stand: Stand, redis: RedisServer) -> None:
    one, two = stand.one.register(ONE), stand.two.register(TWO)
    stand.route(TWO)
    one.dial(TWO, contact_ref="lead-7")
    two.sees("#state", "Incoming call")
    two.sees("#party", "27115550000")
    two.page.click("#answer")
    one.sees("#state", "Connected")
    one.hears(two.hz)
    two.hears(one.hz)
    eventually(lambda: re.fullmatch(r"00:0[1-9]", one.page.inner_text("#duration")))
    two.page.click("#hangup")
    eventually(one.is_idle)
    record = record_of(redis, "answered", 16, "callee")
    assert (record["extension"], record["number"], record["dial_number"]) == (ONE, TWO, "27115550000")
    assert (record["contact_ref"], record["call_dir"], record["ref"]) == ("lead-7", "internal", "click-dial")
    (path,) = Path(stand.rig.recordings).rglob(record["recording_url"])
    rate, channels = read_wav(path)
    assert rate == 16000
    seconds = len(channels[0]) / rate
    assert path.stat().st_size / seconds == pytest.approx(64_000, rel=0.02)
    # The agent is on the left.
    assert share(path, one.hz, 0) > 0.5
    assert share(path, two.hz, 1) > 0.5
    assert share(path, one.hz, 1) < 0.1
    assert share(path, two.hz, 0) < 0.1


def test_browser_talks_over_a_websocket_with_tls(stand: Stand) -> None:
    one = stand.one.register(ONE, f"wss://{stand.rig.websocket_tls}")
    stand.rig.api(f"bgapi originate user/{ONE}@127.0.0.1 &playback(tone_stream://%(20000,0,700))")
    one.sees("#state", "Incoming call")
    one.page.click("#answer")
    one.hears(700)


@pytest.fixture
def proxy(stand: Stand, tmp_path: Path) -> Iterator[nginx.Nginx]:
    ports = {"127.0.0.1:7443": stand.rig.websocket_tls, "127.0.0.1:8300": stand.node.api}
    server = nginx.Nginx(tmp_path, stand.network.address, "howto/connect-browsers.rst", ports)
    yield server
    stand.one.leave()
    server.close()


@pytest.mark.skipif(nginx.why_not() is not None, reason=str(nginx.why_not()))
def test_phone_behind_nginx_as_the_docs_say(stand: Stand, proxy: nginx.Nginx, redis: RedisServer) -> None:
    one = stand.one
    stand.rig.outside(CALLEE, Script(answer_after=0.1, tone=900))
    one.page.goto(f"https://{proxy.address}/phone/")
    # The page finds the switch by itself.
    one.fill(extension=ONE, password=PASSWORD, domain="127.0.0.1")
    one.page.click("#register")
    one.sees("#registration", f"Registered as {ONE}")
    stand.node.call(ONE, CALLEE)
    one.sees("#state", "Incoming call")
    one.page.click("#answer")
    one.hears(900)
    one.page.click("#hangup")
    record_of(redis, "answered", 16, "agent")


def test_check_reads_the_profiles_of_a_real_switch(stand: Stand) -> None:
    (profile,) = browser_profiles.profiles(stand.rig.api(browser_profiles.COMMAND))
    assert (profile.name, profile.candidates, profile.fault) == ("internal", ("rfc1918.auto", "wan.auto"), None)
    assert profile.bindings == (f"ws-binding {stand.rig.websocket}", f"wss-binding {stand.rig.websocket_tls}")


def test_wrong_password_is_told(stand: Stand) -> None:
    one = stand.one
    one.open()
    one.fill(extension=ONE, password="wrong", server=f"ws://{stand.rig.websocket}", domain="127.0.0.1")
    one.page.click("#register")
    one.sees("#registration", "Wrong extension or password")
    assert one.page.is_disabled("#place")


def test_phone_registers_again_after_the_switch_restarts(stand: Stand) -> None:
    one = stand.one.register(ONE)
    stand.rig.kill()
    one.sees("#registration", "Connection lost")
    stand.rig.start()
    one.sees("#registration", f"Registered as {ONE}")
    stand.rig.api(f"bgapi originate user/{ONE}@127.0.0.1 &playback(tone_stream://%(20000,0,700))")
    one.sees("#state", "Incoming call")
    # The browser itself says on its console that it couldn't connect.
    assert all("WebSocket" in fault for fault in one.faults)
    one.faults.clear()


def test_second_call_gets_busy(stand: Stand, redis: RedisServer) -> None:
    one = stand.one.register(ONE)
    stand.rig.api(f"bgapi originate user/{ONE}@127.0.0.1 &playback(tone_stream://%(30000,0,700))")
    one.sees("#state", "Incoming call")
    one.page.click("#answer")
    one.hears(700)
    stand.node.call(ONE, CALLEE)
    record_of(redis, "agent_busy", 17, "agent")
    one.hears(700)


def test_refusal_is_shown_at_each_field(stand: Stand, redis: RedisServer, axe: Any) -> None:
    one = stand.one.register(ONE)
    stand.route("12345")
    one.dial("12345", "0110", "a b")
    one.sees("#callee-error", "Read as +2712345; expected 10 digits from 0")
    one.sees("#outbound_id-error", "expected 10 digits from 0")
    one.sees("#contact_ref-error", "Expected letters, digits")
    assert one.page.get_attribute("#callee", "aria-invalid") == "true"
    assert one.page.evaluate("document.activeElement.id") == "callee"
    assert one.page.is_hidden("#problem")
    assert axe(one.page) == []
    record_of(redis, "rejected", 21, "system")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_of_a_call_are_accessible(
    stand: Stand, scheme: str, axe: Any, screenshot: Any, redis: RedisServer
) -> None:
    one = stand.one

    def shot(name: str) -> None:
        if scheme == "light":
            screenshot(one.page, name, full_page=True)

    one.page.emulate_media(color_scheme=scheme)
    one.open()
    assert axe(one.page) == []
    one.register(ONE)
    stand.route("12345")
    one.dial("12345", "0110", "a b")
    one.sees("#callee-error", "expected 10 digits")
    assert axe(one.page) == []
    shot("phone-refused")
    redis.flush()
    callee = stand.rig.outside(CALLEE, Script(answer_after=0.1))
    stand.node.call(ONE, CALLEE)
    one.sees("#state", "Incoming call")
    assert axe(one.page) == []
    shot("phone-incoming")
    one.page.click("#answer")
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    one.sees("#state", "Connected")
    one.press("42")
    one.sees("#sent", "42")
    assert axe(one.page) == []
    shot("phone-call")
    assert one.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_phone_shows_why_a_call_failed(stand: Stand, redis: RedisServer) -> None:
    one = stand.one.register(ONE)
    stand.route(CALLEE)
    stand.rig.outside(CALLEE, Script(reject=486))
    one.dial(CALLEE)
    one.sees("#problem", f"Call to {CALLEE}: busy (486)")
    assert one.page.evaluate("document.activeElement.id") == "callee"
    record_of(redis, "callee_busy", 17, "callee")


def test_hold_and_mute_stop_the_voice(stand: Stand, redis: RedisServer) -> None:
    one = stand.one.register(ONE)
    stand.route(CALLEE)
    callee = stand.rig.outside(CALLEE, Script(answer_after=0.1, tone=900))
    one.dial(CALLEE)
    one.hears(900)
    leg = callee.calls[0]
    assert leg.hears(one.hz)
    one.page.click("#hold")
    one.sees("#state", "On hold")
    assert leg.hears(MOH_HZ)
    one.page.click("#hold")
    one.sees("#state", "Connected")
    assert leg.hears(one.hz)
    one.hears(900)
    one.page.click("#mute")
    assert one.page.get_attribute("#mute", "aria-pressed") == "true"
    eventually(lambda: not leg.hears(one.hz, within=0.3))
    one.page.click("#mute")
    assert leg.hears(one.hz)
    one.page.click("#hangup")
    record_of(redis, "answered", 16, "agent")


def test_keypad_reaches_a_disa_and_the_far_side(stand: Stand, redis: RedisServer) -> None:
    one = stand.one.register(ONE)
    stand.route(DISA, "disa/acme/front")
    callee = stand.rig.outside(E164, Script(answer_after=0.1, tone=900))
    one.dial(DISA)
    eventually(lambda: asks(stand.rig, "enter_pin"))
    one.press(DISA_PIN)
    eventually(lambda: one.page.evaluate(_PLAYS, list(DIALTONE)))
    one.press(CALLEE + "#")
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    one.hears(900)
    one.press("12*5")
    eventually(lambda: callee.calls[0].received == "12*5")
    one.sees("#sent", "12*5")
    callee.calls[0].hangup()
    record = redis.pop()
    assert (record["ref"], record["end_reason"], record["number"]) == ("disa", "answered", "+27820001234")


#: Whether all these frequencies are played at once.
_PLAYS = """async wanted => {
  const {srcObject} = document.getElementById("remote");
  if (!srcObject || !srcObject.getAudioTracks().length) return false;
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, {fftSize: 8192, smoothingTimeConstant: 0});
  context.createMediaStreamSource(srcObject).connect(analyser);
  await new Promise(done => setTimeout(done, 400));
  const bins = new Float32Array(analyser.frequencyBinCount);
  analyser.getFloatFrequencyData(bins);
  const width = context.sampleRate / analyser.fftSize;
  await context.close();
  return wanted.every(hz => bins[Math.round(hz / width)] > -60);
}"""


def test_post_rings_the_browser(stand: Stand, redis: RedisServer) -> None:
    one = stand.one.register(ONE)
    callee = stand.rig.outside(CALLEE, Script(answer_after=0.1, tone=900))
    ref = stand.node.call(ONE, CALLEE, contact_ref="post-1")
    one.sees("#state", "Incoming call")
    one.sees("#party", CALLEE)
    assert one.page.title() == f"Call from {CALLEE}"
    # The answer has the focus, so a person can answer by keyboard.
    one.page.keyboard.press("Enter")
    one.hears(900)
    assert callee.calls[0].hears(one.hz)
    one.page.click("#hangup")
    record = record_of(redis, "answered", 16, "agent")
    assert (record["call_ref"], record["contact_ref"]) == (ref, "post-1")


def test_phone_shows_how_its_call_goes_on(stand: Stand, redis: RedisServer, axe: Any) -> None:
    one = stand.one
    token = request(stand.node.api, "POST", f"/click2dial/agents/{ONE}/token", {"scopes": ["read"]}).json["token"]
    one.page.goto(f"http://{stand.node.api}/phone/#token={token}")
    one.fill(extension=ONE, password=PASSWORD, server=f"ws://{stand.rig.websocket}", domain="127.0.0.1")
    with one.page.expect_response("**/click2dial/events*"):
        one.page.click("#register")
    stand.rig.outside(CALLEE, Script(answer_after=0.5, reject=486))
    stand.node.call(ONE, CALLEE, contact_ref="lead-9", metadata={"customer": "<b>Ana</b>"})
    one.sees("#progress", f"For a call to {CALLEE}")
    one.sees("#about", "<b>Ana</b>")
    one.sees("#about", "lead-9")
    assert axe(one.page) == []
    one.page.click("#answer")
    # The phone's own leg was answered, and ends like any other.
    one.sees("#last", f"Last call to {CALLEE}: callee busy")
    assert one.page.is_hidden("#call")
    assert axe(one.page) == []
    record_of(redis, "callee_busy", 17, "callee")


def test_browser_refuses_a_call(stand: Stand, redis: RedisServer) -> None:
    one = stand.one.register(ONE)
    stand.node.call(ONE, CALLEE)
    one.sees("#state", "Incoming call")
    one.page.click("#refuse")
    eventually(one.is_idle)
    record_of(redis, "agent_busy", 17, "agent")


@pytest.mark.parametrize(
    ("header", "asked"),
    [("Call-Info=<sip:x>;answer-after=0", True), ("Alert-Info=info=alert-autoanswer", True), ("X-A=b", False)],
)
def test_browser_answers_by_itself_if_asked(stand: Stand, header: str, asked: bool) -> None:
    one = stand.one.register(ONE)
    stand.rig.api(f"bgapi originate {{sip_h_{header}}}user/{ONE}@127.0.0.1 &playback(tone_stream://%(20000,0,700))")
    one.sees("#state", "Connected" if asked else "Incoming call")
    if asked:
        one.hears(700)


# Embedding -----------------------------------------------------------------------------------------------

LINK = "+27-82-000-1234;ext=12"
PAGE = """<!doctype html><html lang="en"><title>Customers</title><body><main><h1>Customers</h1>
<p><a id="link" href="tel:{link}" data-contact-ref="lead-9">082 000 1234</a></p></main>
<script src="http://{api}/phone/embed.js" {attributes}></script></body></html>"""


class Customers:
    """Another company's web site, whose server gets agent tokens."""

    def __init__(self, stand: Stand, port: int) -> None:
        self.attributes = ""
        self.tokens: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, body = (
                    "text/html",
                    PAGE.format(api=stand.node.api, link=LINK, attributes=outer.attributes).encode(),
                )
                if self.path == "/token":
                    answer = request(stand.node.api, "POST", f"/click2dial/agents/{ONE}/token", {})
                    outer.tokens.append(answer.json)
                    kind, body = "application/json", answer.body
                if self.path == "/favicon.ico":
                    kind, body = "image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"/>'
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer((stand.network.address, port), Handler)
        self.url = f"http://{stand.network.address}:{port}/"
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def customers(stand: Stand, page_port: int) -> Iterator[Customers]:
    site = Customers(stand, page_port)
    yield site
    site.server.shutdown()
    site.server.server_close()


#: The page shows what it says for some seconds only.
_NOTE_WHAT_IS_SAID = """() => {
  window.said = [];
  window.states = [];
  const note = () => window.said.push(document.querySelector("[role=status]")?.textContent);
  new MutationObserver(note).observe(document.body, {childList: true, subtree: true, characterData: true});
  document.addEventListener("esl-apps-state", ({detail}) => window.states.push(detail.state));
}"""


def test_link_becomes_a_call_by_post(stand: Stand, redis: RedisServer, customers: Customers, axe: Any) -> None:
    one = stand.one.register(ONE)
    callee = stand.rig.outside(CALLEE, Script(answer_after=0.1, tone=900))
    customers.attributes = f'data-agent="{ONE}" data-outbound-id="27115550000" data-token-url="/token"'
    page = one.new_page()
    page.goto(customers.url)
    page.evaluate(_NOTE_WHAT_IS_SAID)
    page.click("#link")
    one.sees("#state", "Incoming call")
    eventually(lambda: f"{LINK}: your phone rings" in page.evaluate("window.said"))
    assert axe(page) == []
    assert len(customers.tokens) == 1
    one.page.click("#answer")
    one.hears(900)
    eventually(lambda: f"{LINK}: connected" in page.evaluate("window.said"))
    eventually(lambda: callee.calls[0].received == "12")
    one.page.click("#hangup")
    eventually(lambda: f"{LINK}: answered" in page.evaluate("window.said"))
    states = ["agent_ringing", "agent_answered", "callee_ringing", "bridged", "ended"]
    assert page.evaluate("window.states") == states
    record = record_of(redis, "answered", 16, "agent")
    assert (record["extension"], record["contact_ref"]) == (ONE, "lead-9")


def test_link_tells_why_nothing_was_called(stand: Stand, customers: Customers) -> None:
    customers.attributes = f'data-agent="{TWO}" data-outbound-id="27115550000" data-token-url="/token"'
    page = stand.one.new_page()
    page.goto(customers.url)
    page.click("#link")
    eventually(lambda: "was not called" in page.inner_text("[role=status]"))
    assert f"this token is for calls of agent {ONE}" in page.inner_text("[role=status]")
    (fault,) = stand.one.faults
    assert "403" in fault
    stand.one.faults.clear()


def test_link_becomes_a_call_through_the_phone(stand: Stand, redis: RedisServer, customers: Customers) -> None:
    one = stand.one.register(ONE)
    stand.route(LINK)
    callee = stand.rig.outside(CALLEE, Script(answer_after=0.1, tone=900))
    customers.attributes = 'data-mode="phone" data-outbound-id="27115550000" data-token-url="/token"'
    page = one.page.context.new_page()
    one.watch(page)
    page.goto(customers.url)
    with page.expect_popup() as popup:
        page.click("#link")
    phone = popup.value
    one.watch(phone)
    eventually(lambda: f"Register to call {LINK}" in phone.inner_text("#problem"))
    # Its server, domain and extension are remembered, the password isn't.
    assert phone.input_value("#extension") == ONE
    assert phone.input_value("#password") == ""
    phone.fill("#password", PASSWORD)
    phone.keyboard.press("Enter")
    eventually(lambda: f"Registered as {ONE}" in phone.inner_text("#registration"))
    # The site is one of allow_origins, so its next link dials.
    page.click("#link")
    eventually(lambda: "Connected" in phone.inner_text("#state"))
    # The site gave the phone a token of its agent.
    eventually(lambda: f"Connected with {CALLEE}" in phone.inner_text("#progress"))
    assert phone.inner_text("#about").split() == ["Reference", "lead-9"]
    eventually(lambda: callee.calls[0].received == "12")
    phone.click("#hangup")
    eventually(lambda: phone.inner_text("#last") == f"Last call to {CALLEE}: answered")
    record = record_of(redis, "answered", 16, "agent")
    assert (record["number"], record["contact_ref"]) == (CALLEE, "lead-9")
    phone.close()


def test_site_that_is_not_allowed_can_have_nothing_dialled(stand: Stand, redis: RedisServer) -> None:
    one = stand.one.register(ONE)
    stand.route(CALLEE)
    callee = stand.rig.outside(CALLEE)
    page = one.page.context.new_page()
    # A page without an origin of its own.
    page.goto("data:text/html,<title>x</title>")
    with page.expect_popup() as popup:
        page.evaluate(
            "url => { window.phone = window.open(url, 'x') }", f"http://{stand.node.api}/phone/#callee={CALLEE}"
        )
    phone = popup.value
    eventually(lambda: phone.input_value("#callee") == CALLEE)
    phone.fill("#password", PASSWORD)
    phone.click("#register")
    eventually(lambda: f"Registered as {ONE}" in phone.inner_text("#registration"))
    message = {"type": "esl-apps-dial", "id": "1", "fields": {"callee": CALLEE, "contact_ref": "evil"}}
    with phone.expect_response("**/settings.json"):
        page.evaluate("message => window.phone.postMessage(message, '*')", message)
    phone.evaluate("new Promise(done => setTimeout(done, 200))")
    assert phone.input_value("#contact_ref") == ""
    assert phone.is_hidden("#call")
    assert callee.calls == []
    phone.close()
