"""The phone's page without a switch: its looks, its links, and a server that is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import on_the_sandbox
from tests.rig.base import eventually
from tests.support.node import Node
from tests.support.ports import free_port

pytestmark = on_the_sandbox


def CONFIG(config: dict[str, Any]) -> None:
    config["integrators"][0]["phone"] = True


# Colours and sizes don't depend on each other.
@pytest.mark.parametrize(("scheme", "size"), [("light", "desktop"), ("dark", "phone")])
def test_phone_page_is_accessible(
    node: Node, open_page: Callable[..., Any], axe: Callable[[Any], list[str]], scheme: str, size: str
) -> None:
    page = open_page(scheme, size)
    page.goto(f"http://{node.api}/phone/")
    page.click("#sound summary")
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.is_disabled("#place")


def test_phone_page_fits_a_narrow_screen(node: Node, open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.goto(f"http://{node.api}/phone/")
    page.fill("#server", "wss://a-very-long-name-of-a-server.example.com:7443/with/a/path")
    for width in (320, 390, 768):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width


def test_phone_page_says_that_the_server_is_away(node: Node, open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.goto(f"http://{node.api}/phone/")
    server = f"ws://127.0.0.1:{free_port()}"
    for name, text in {"extension": "1000", "password": "never-stored", "server": server, "domain": "x"}.items():
        page.fill(f"[name={name}]", text)
    page.keyboard.press("Enter")
    eventually(lambda: f"no connection to {server}" in page.inner_text("#problem"))
    assert page.inner_text("#registration") == "Not registered"
    assert "never-stored" not in page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    # The browser itself says so on its console.
    assert all("ERR_CONNECTION_REFUSED" in fault for fault in page.faults)
    page.faults.clear()


def test_phone_page_link_fills_in_and_dials_nothing(node: Node, open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.goto(f"http://{node.api}/phone#callee=0820001234&outbound_id=27115550000&contact_ref=lead-7&password=x")
    assert page.url.startswith(f"http://{node.api}/phone/#callee")
    values = [page.input_value(f"[name={name}]") for name in ("callee", "outbound_id", "contact_ref", "password")]
    assert values == ["0820001234", "27115550000", "lead-7", ""]
    assert page.is_hidden("#call")
