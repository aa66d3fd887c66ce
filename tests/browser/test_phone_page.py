"""The phone's page without a switch: its looks, its links, and a server that is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import on_the_sandbox
from tests.rig.base import Rig, Script, eventually
from tests.support.node import Node, request
from tests.support.ports import free_port

pytestmark = on_the_sandbox


AGENT, CALLEE = "1000", "0820001234"


def CONFIG(config: dict[str, Any]) -> None:
    config["integrators"][0]["phone"] = True
    config["integrators"][0]["tokens"] = [{"name": "desk", "token": "the-desks-token", "scopes": ["call"]}]


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


def test_phone_page_link_never_chooses_the_server(node: Node, open_page: Callable[..., Any]) -> None:
    """A person would type their password for it."""
    page = open_page()
    page.goto(f"http://{node.api}/phone/")
    own = [page.input_value(f"[name={name}]") for name in ("server", "domain")]
    other = open_page()
    other.goto(f"http://{node.api}/phone/#server=wss://example.com&domain=example.com&extension=1000")
    assert [other.input_value(f"[name={name}]") for name in ("server", "domain")] == own
    assert other.input_value("[name=extension]") == "1000"


# Calls of other pages -------------------------------------------------------------------------------------

FIELDS = ("callee", "outbound_id", "contact_ref")


def ask_to_dial(page: Any, **fields: str) -> None:
    """As a page does that embeds the phone, which isn't registered: it fills in the form."""
    answered = page.evaluate(
        """(fields) => new Promise((resolve) => {
             const id = String(Math.random());
             window.addEventListener("message", ({ data }) => {
               if (data.type === "esl-apps-dialled" && data.id === id) resolve(data.state);
             });
             window.postMessage({ type: "esl-apps-dial", id, fields }, location.origin);
           })""",
        fields,
    )
    assert answered == "waiting"


def values(page: Any) -> list[str]:
    return [page.input_value(f"[name={name}]") for name in FIELDS]


def test_phone_page_call_has_nothing_of_the_one_before(node: Node, open_page: Callable[..., Any]) -> None:
    """A customer's call must not be counted as another's."""
    page = open_page()
    page.goto(f"http://{node.api}/phone/")
    page.fill("[name=outbound_id]", "27115550000")
    ask_to_dial(page, callee="0820001234", outbound_id="tvc_spring", contact_ref="lead-7")
    assert values(page) == ["0820001234", "tvc_spring", "lead-7"]
    ask_to_dial(page, callee="0820005678")
    assert values(page) == ["0820005678", "27115550000", ""]
    ask_to_dial(page, callee="0820001234", outbound_id="tvc_spring", contact_ref="lead-7")
    page.fill("[name=callee]", "0820009999")
    assert values(page) == ["0820009999", "27115550000", ""]
    # A person's own reference stays.
    page.fill("[name=contact_ref]", "mine")
    page.fill("[name=callee]", "0820009998")
    assert values(page) == ["0820009998", "27115550000", "mine"]


def test_phone_page_link_is_for_its_own_callee(node: Node, open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.goto(f"http://{node.api}/phone/#callee=0820001234&outbound_id=tvc_spring&contact_ref=lead-7")
    ask_to_dial(page, callee="0820005678")
    assert values(page) == ["0820005678", "", ""]


def test_phone_page_second_link_leaves_nothing_of_the_first(node: Node, open_page: Callable[..., Any]) -> None:
    """Its target is the page that is open, which isn't loaded again."""
    page = open_page()
    page.goto(f"http://{node.api}/phone/")
    page.fill("[name=outbound_id]", "27115550000")
    page.fill("[name=password]", "typed")
    first = "callee=0820001234&outbound_id=tvc_spring&contact_ref=lead-7"
    for link, form in (
        (first, ["0820001234", "tvc_spring", "lead-7"]),
        ("callee=0820005678&contact_ref=lead-8", ["0820005678", "27115550000", "lead-8"]),
        (first, ["0820001234", "tvc_spring", "lead-7"]),
        ("contact_ref=lead-9", ["", "27115550000", "lead-9"]),
        (f"token={agent_token(node)}", ["", "27115550000", "lead-9"]),
    ):
        page.evaluate("link => { location.hash = link }", link)
        eventually(lambda form=form: values(page) == form)  # type: ignore[misc]
    eventually(lambda: page.url == f"http://{node.api}/phone/#")
    # A reference without a number stays with the number that a person enters.
    page.fill("[name=callee]", "0820009999")
    assert values(page) == ["0820009999", "27115550000", "lead-9"]
    assert page.input_value("[name=password]") == "typed"


def embed(page: Any, node: Node, href: str, **more: str) -> None:
    """Turn a link into a call as a page does that embeds the phone."""
    page.goto(f"http://{node.api}/phone/")
    page.evaluate(
        """([href, settings]) => new Promise((resolve) => {
             document.body.insertAdjacentHTML("beforeend", `<a id="link" href="${href}">Call</a>`);
             const script = document.createElement("script");
             Object.assign(script.dataset, settings);
             script.src = "/phone/embed.js";
             script.onload = resolve;
             document.body.append(script);
             window.told = [];
             document.addEventListener("esl-apps-call", ({ detail }) => window.told.push(detail.errors?.[0].field));
           })""",
        [
            href,
            {"agent": AGENT, "outboundId": "27115550000", "token": agent_token(node, scopes=("call", "read"))} | more,
        ],
    )


def test_phone_page_embedded_link_that_is_no_number_says_so(node: Node, open_page: Callable[..., Any]) -> None:
    page = open_page()
    embed(page, node, "tel:100%")
    for count in (1, 2):
        page.click("#link")
        eventually(lambda count=count: page.evaluate("window.told") == ["callee"] * count)  # type: ignore[misc]
    assert "not called: callee: " in page.inner_text("[role=status] >> nth=-1")
    # The browser itself says that the answers are 422.
    assert all("422" in fault for fault in page.faults)
    page.faults.clear()


@pytest.mark.parametrize(
    ("more", "callee"), [({}, "+27-82-000-1234;ext=12"), ({"plus": "09"}, "0927-82-000-1234;ext=12")]
)
def test_phone_page_embedded_link_sends_its_whole_number(
    node: Node, open_page: Callable[..., Any], more: dict[str, str], callee: str
) -> None:
    page = open_page()
    embed(page, node, "tel:+27-82-000-1234;ext=12", **more)
    with page.expect_request("**/click2dial/calls") as request:
        page.click("#link")
    assert request.value.post_data_json["callee"] == callee
    eventually(lambda: page.evaluate("window.told.length") == 1)
    page.faults.clear()


# Events ---------------------------------------------------------------------------------------------------


def agent_token(node: Node, agent: str = AGENT, scopes: tuple[str, ...] = ("read",)) -> str:
    answer = request(node.api, "POST", f"/click2dial/agents/{agent}/token", {"scopes": list(scopes)})
    return str(answer.json["token"])


def follow(page: Any, node: Node, token: str, agent: str = AGENT) -> None:
    """Follow an agent's calls as the page does once the phone has registered, which takes a switch."""
    page.goto(f"http://{node.api}/phone/")
    page.evaluate(
        """async ([token, agent]) => {
             const { Follower } = await import("./follow.js");
             window.told = [];
             window.why = null;
             const progress = (call) => {
               window.told.push(call && [call.state, call.callee, call.contact_ref, call.end_reason ?? ""]);
             };
             const follower = window.follower = new Follower({ progress, followed: (why) => { window.why = why; } });
             follower.use(token);
             follower.begin(agent);
           }""",
        [token, agent],
    )


def told(page: Any) -> list[list[str]]:
    found: list[list[str]] = page.evaluate("window.told")
    return found


def test_phone_page_hears_how_its_agents_call_goes_on(node: Node, rig: Rig, open_page: Callable[..., Any]) -> None:
    """Its own leg ends like any other, whether the callee was busy or has hung up."""
    rig.phone(AGENT, Script(answer_after=0.1))
    rig.phone("1001", Script(answer_after=0.1))
    rig.outside(CALLEE, Script(answer_after=0.1, reject=486))
    page = open_page()
    with page.expect_response("**/click2dial/events*"):
        follow(page, node, agent_token(node))
    node.call("1001", CALLEE, contact_ref="of-another")
    node.call(AGENT, CALLEE, contact_ref="lead-9")
    eventually(lambda: told(page) and told(page)[-1][0] == "ended")
    assert {entry[2] for entry in told(page)} == {"lead-9"}
    assert [entry[0] for entry in told(page)] == [
        "queued",
        "agent_ringing",
        "agent_answered",
        "callee_ringing",
        "ended",
    ]
    assert told(page)[-1] == ["ended", CALLEE, "lead-9", "callee_busy"]


def test_phone_page_that_opens_amid_a_call_knows_it(node: Node, rig: Rig, open_page: Callable[..., Any]) -> None:
    rig.phone(AGENT, Script(answer_after=0.1))
    rig.outside(CALLEE, Script(answer_after=0.1))
    ref = node.call(AGENT, CALLEE, contact_ref="lead-10")
    eventually(lambda: node.get(ref)["state"] == "bridged")
    page = open_page()
    follow(page, node, agent_token(node))
    eventually(lambda: told(page) == [["bridged", CALLEE, "lead-10", ""]])
    node.delete(ref)
    eventually(lambda: told(page)[-1][0] == "ended")


def test_phone_page_leaves_a_call_to_the_agent_who_answers(node: Node, open_page: Callable[..., Any]) -> None:
    page = open_page()
    follow(page, node, agent_token(node))
    calls = [
        {"call_ref": "1", "agent": AGENT, "state": "bridged", "callee": CALLEE, "contact_ref": "own"},
        {"call_ref": "2", "agent": AGENT, "state": "ringing", "callee": CALLEE, "contact_ref": "inbound"},
        {"call_ref": "2", "agent": "1001", "state": "bridged", "callee": CALLEE, "contact_ref": "inbound"},
        {"call_ref": "1", "agent": AGENT, "state": "ended", "callee": CALLEE, "contact_ref": "own"},
        {"call_ref": "2", "agent": "1001", "state": "ended", "callee": CALLEE, "contact_ref": "inbound"},
    ]
    page.evaluate("(calls) => calls.forEach((call) => window.follower.heard(call))", calls)
    assert told(page) == [
        ["bridged", CALLEE, "own", ""],
        ["ringing", CALLEE, "inbound", ""],
        None,
        ["ended", CALLEE, "own", ""],
    ]


def test_phone_page_says_why_it_hears_of_no_call(node: Node, open_page: Callable[..., Any]) -> None:
    page = open_page()
    for token, agent, why in (
        ("the-desks-token", AGENT, "the token doesn't allow it (403)"),
        (agent_token(node, "1001"), AGENT, "the token doesn't allow it (403)"),
        ("wrong", AGENT, "the token isn't valid (401)"),
    ):
        follow(page, node, token, agent)
        eventually(lambda why=why: page.evaluate("window.why") == why)  # type: ignore[misc]
    page.faults.clear()


def test_phone_page_takes_a_links_token_out_of_the_address(node: Node, open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.goto(f"http://{node.api}/phone/#callee=0820001234&token={agent_token(node)}&extension=1000")
    assert page.input_value("[name=callee]") == "0820001234"
    assert page.url == f"http://{node.api}/phone/#callee=0820001234&extension=1000"
    assert "agent." not in page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
