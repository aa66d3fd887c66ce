"""The phone's page at a switch that answers by script: what it shows and does when something fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.browser.switch import Switch, register, sees
from tests.conftest import on_the_sandbox
from tests.rig.base import eventually
from tests.support.node import Node

pytestmark = on_the_sandbox
CALLEE = "0820001234"
Open = Callable[..., Any]


def CONFIG(config: dict[str, Any]) -> None:
    config["integrators"][0]["phone"] = True


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
