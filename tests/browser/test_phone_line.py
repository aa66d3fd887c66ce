"""The phone's page at a switch that answers by script: what it shows and does when something fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.browser.switch import Switch, fill_in_account, register, sees
from tests.conftest import on_the_sandbox
from tests.rig.base import eventually
from tests.support.node import Node

pytestmark = on_the_sandbox
CALLEE, SITE = "0820001234", "http://localhost:8089"
Open = Callable[..., Any]


def CONFIG(config: dict[str, Any]) -> None:
    config["integrators"][0] |= {"phone": True, "allow_origins": [SITE]}


def registered(page: Any, node: Node) -> Switch:
    switch = Switch(page.context)
    register(page, node.api)
    return switch


def dial(page: Any) -> None:
    page.fill("#callee", CALLEE)
    page.fill("#outbound_id", "27115550000")
    page.click("#place")


# The connection -------------------------------------------------------------------------------------------


def test_phone_replaces_a_websocket_that_died(node: Node, open_page: Open) -> None:
    """A sleep or another Wi-Fi ends it without a word."""
    page = open_page()
    page.clock.install()
    switch = registered(page, node)
    switch.dead = True
    page.clock.run_for(50_000 + 32_100)
    sees(page, "#registration", "Connection lost")
    switch.dead = False
    page.clock.run_for(1_100)
    sees(page, "#registration", "Registered as 1000")
    assert len(switch.sockets) == 2


def test_phone_goes_on_with_a_websocket_that_lives(node: Node, open_page: Open) -> None:
    page = open_page()
    page.clock.install()
    switch = registered(page, node)
    page.click("#account-panel summary")
    page.clock.run_for(50_100)
    eventually(lambda: page.evaluate("1") and switch.count("REGISTER") == 2)
    page.clock.run_for(50_100)
    eventually(lambda: page.evaluate("1") and switch.count("REGISTER") == 3)
    assert len(switch.sockets) == 1
    # The panel that a person has opened stays open.
    assert page.is_visible("#password")


def test_phone_asks_at_once_when_the_network_is_back(node: Node, open_page: Open) -> None:
    page = open_page()
    page.clock.install()
    switch = registered(page, node)
    page.evaluate("window.dispatchEvent(new Event('online'))")
    eventually(lambda: page.evaluate("1") and switch.count("REGISTER") == 2)
    # Seen again: it doesn't wait for the next try either.
    switch.sockets[-1].close(code=1011)
    sees(page, "#registration", "Connection lost")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    sees(page, "#registration", "Registered as 1000")
    assert len(switch.sockets) == 2


_CONNECTIONS = """
  window.connections = [];
  const Real = RTCPeerConnection;
  window.RTCPeerConnection = class extends Real {
    constructor(...given) { super(...given); window.connections.push(this); }
    get connectionState() { return this.lost ? "failed" : super.connectionState; }
    lose() { this.lost = true; this.dispatchEvent(new Event("connectionstatechange")); }
  };
"""


def test_phone_ends_a_call_whose_audio_is_lost(node: Node, open_page: Open) -> None:
    """The other end's BYE goes to a WebSocket that died, and until the call ends, others get busy."""
    page = open_page()
    page.add_init_script(_CONNECTIONS)
    switch = registered(page, node)
    dial(page)
    sees(page, "#state", "Connected")
    page.evaluate("window.connections[0].lose()")
    sees(page, "#problem", f"Call to {CALLEE}: the audio was lost")
    assert switch.count("BYE") == 1
    assert page.is_visible("#dial")


# The microphone -------------------------------------------------------------------------------------------

DENIED = "the page may not use a microphone, or there is none"
_DENY = """Object.defineProperty(MediaDevices.prototype, "getUserMedia", {
  value: async () => { throw new DOMException("Permission denied", "NotAllowedError"); } })"""


def test_phone_without_a_microphone_says_so_when_it_dials(node: Node, open_page: Open) -> None:
    page = open_page()
    page.add_init_script(_DENY)
    registered(page, node)
    dial(page)
    sees(page, "#problem", f"Call to {CALLEE}: {DENIED}")
    assert page.is_visible("#dial")


def test_phone_without_a_microphone_says_so_when_answering(node: Node, open_page: Open) -> None:
    page = open_page()
    page.add_init_script(_DENY)
    switch = registered(page, node)
    switch.ring(CALLEE)
    page.click("#answer")
    sees(page, "#problem", f"Call from {CALLEE}: {DENIED}")
    assert switch.count("SIP/2.0 480") == 1
    # The next one rings.
    switch.ring("0820005678")
    sees(page, "#party", "0820005678")


#: ``window.asked`` has the microphones that were asked for; ``unplug(id)`` and ``plug()`` do what a hand does.
_DEVICES = """
  window.asked = [];
  window.tracks = [];
  let gone = "";
  window.hidden = false;
  const {enumerateDevices, getUserMedia} = MediaDevices.prototype;
  MediaDevices.prototype.enumerateDevices = async function () {
    const found = await enumerateDevices.call(this);
    if (window.hidden) return found.map(({kind}) => ({kind, deviceId: "", label: ""}));
    return found.filter(({deviceId}) => deviceId !== gone);
  };
  MediaDevices.prototype.getUserMedia = async function (constraints) {
    const id = constraints.audio.deviceId?.exact ?? "";
    window.asked.push(id);
    if (id && id === gone) throw new DOMException("", "OverconstrainedError");
    window.hidden = false;
    const stream = await getUserMedia.call(this, constraints);
    window.tracks.push(...stream.getTracks());
    return stream;
  };
  window.unplug = (id) => {
    gone = id;
    const track = window.tracks.at(-1);
    track.stop();
    track.dispatchEvent(new Event("ended"));
    navigator.mediaDevices.dispatchEvent(new Event("devicechange"));
  };
"""


def choose_microphone(page: Any) -> str:
    page.click("#sound summary")
    eventually(lambda: page.evaluate("document.getElementById('microphone').options.length") > 1)
    page.select_option("#microphone", index=1)
    return str(page.input_value("#microphone"))


def with_headset(node: Node, open_page: Open) -> tuple[Any, str]:
    """Return a registered page whose microphone is a headset, and the headset's device ID."""
    page = open_page(permissions=["microphone"])
    page.add_init_script(_DEVICES)
    registered(page, node)
    headset = choose_microphone(page)
    return page, headset


def test_phone_call_goes_on_when_its_headset_is_unplugged(node: Node, open_page: Open) -> None:
    page, headset = with_headset(node, open_page)
    dial(page)
    sees(page, "#state", "Connected")
    page.evaluate("id => window.unplug(id)", headset)
    eventually(lambda: page.input_value("#microphone") == "")
    eventually(lambda: page.evaluate("window.tracks.at(-1).readyState") == "live")
    asked = page.evaluate("window.asked")
    assert (asked[0], asked[-1]) == (headset, "")
    # It is remembered for when it is plugged in again.
    page.evaluate("window.unplug('')")
    eventually(lambda: page.evaluate("window.asked.at(-1)") == headset)
    assert page.input_value("#microphone") == headset


def test_phone_first_call_takes_the_remembered_microphone(node: Node, open_page: Open) -> None:
    """Some browsers tell which devices there are only once the page may use one."""
    page, headset = with_headset(node, open_page)
    page.add_init_script("window.hidden = true")
    register(page, node.api)
    assert page.input_value("#microphone") == ""
    dial(page)
    sees(page, "#state", "Connected")
    eventually(lambda: page.evaluate("window.asked") == ["", headset])
    assert page.input_value("#microphone") == headset


def test_phone_shows_the_microphone_that_it_could_not_leave(node: Node, open_page: Open) -> None:
    page, headset = with_headset(node, open_page)
    dial(page)
    sees(page, "#state", "Connected")
    page.evaluate(_DENY)
    page.select_option("#microphone", index=2)
    sees(page, "#problem", f"Microphone: {DENIED}")
    eventually(lambda: page.input_value("#microphone") == headset)
    assert page.evaluate("localStorage.getItem('microphone')") == headset


def test_phone_remembers_not_to_answer_by_itself(node: Node, open_page: Open) -> None:
    page = open_page()
    page.goto(f"http://{node.api}/phone/")
    assert page.is_checked("#automatic")
    page.click("#sound summary")
    page.uncheck("#automatic")
    page.reload()
    assert not page.is_checked("#automatic")


# Names ----------------------------------------------------------------------------------------------------


def test_phone_says_who_calls_by_name_and_number(node: Node, open_page: Open) -> None:
    page = open_page()
    switch = registered(page, node)
    switch.ring(CALLEE, "Zoë Smith")
    sees(page, "#party", f"Zoë Smith, {CALLEE}")
    # A screen reader reads it with the button that has the focus.
    described = page.evaluate(
        "document.getElementById(document.activeElement.getAttribute('aria-describedby')).innerText"
    )
    assert described == f"Zoë Smith, {CALLEE}"
    page.click("#refuse")
    eventually(lambda: page.is_hidden("#call"))
    # As a switch does that has no name.
    switch.ring(CALLEE, CALLEE)
    eventually(lambda: page.inner_text("#party") == CALLEE)


# Calls of another site ------------------------------------------------------------------------------------


def open_site(page: Any, node: Node, more: str = "") -> None:
    """Open a page of another site, whose link calls through the phone."""
    settings = f'data-mode="phone" data-outbound-id="27115550000" {more}'
    script = f'<script src="http://{node.api}/phone/embed.js" {settings}></script>'
    body = f'<!doctype html><link rel="icon" href="data:,"><a id="link" href="tel:{CALLEE}">Ana</a>{script}'
    page.route(f"{SITE}/**", lambda route: route.fulfill(content_type="text/html", body=body))
    page.goto(f"{SITE}/customers/1")


def test_phone_keeps_its_call_when_the_site_is_loaded_again(node: Node, open_page: Open) -> None:
    """Most CRMs load a page for each customer."""
    page = open_page(permissions=["local-network-access"])
    switch = Switch(page.context)
    open_site(page, node)
    with page.expect_popup() as popup:
        page.click("#link")
    phone = popup.value
    sees(phone, "#problem", f"Register to call {CALLEE}")
    fill_in_account(phone)
    page.click("#link")
    sees(phone, "#state", "Connected")
    page.goto(f"{SITE}/customers/2")
    page.click("#link")
    sees(page, "[role=status]", "see the phone's window")
    assert phone.inner_text("#state") == "Connected"
    assert (switch.count("INVITE"), switch.count("BYE"), len(switch.sockets)) == (1, 0, 1)


def test_phone_gets_a_token_of_the_site_loaded_again(node: Node, open_page: Open) -> None:
    page = open_page(permissions=["local-network-access"])
    open_site(page, node, 'data-token="agent.token"')
    with page.expect_popup() as popup:
        page.click("#link")
    phone = popup.value
    sees(phone, "#problem", f"Register to call {CALLEE}")
    page.goto(f"{SITE}/customers/2")
    # As follow.js asks the page that dialled.
    phone.evaluate("window.addEventListener('message', ({ data }) => { window.given = data.token })")
    phone.evaluate("site => window.opener.postMessage({ type: 'esl-apps-token-wanted' }, site)", SITE)
    eventually(lambda: phone.evaluate("window.given") == "agent.token")
