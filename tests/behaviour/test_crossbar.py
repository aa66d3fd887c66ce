"""Cards over HTTP in Kazoo's form, from outside: a real node, a real Redis, no switch."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from esl_apps.apps.autodial import AutodialOrder
from esl_apps.apps.settings import Rules
from esl_apps.config import parse
from esl_apps.core.dialstring import Endpoints
from esl_apps.core.faults import Refused
from esl_apps.http.autodial import read_order
from esl_apps.node.spoken import Spoken
from esl_apps.store import keys
from esl_apps.store.cards import CardStore
from esl_apps.store.redis_client import connect
from tests.support.node import ADMIN_TOKEN, Answer, Node, RedisServer, request
from tests.support.ports import free_port

ACME, OTHER = "acme-cards-token", "other-cards-token"
PIN, OTHER_PIN = "482190735", "111222333444"
CARDS = "/v2/accounts/acme/cccps"
OWN_DID = "5142223333"


def config_of(redis_url: str) -> dict[str, Any]:
    return {
        "node": {"name": "cards", "listen": f"127.0.0.1:{free_port()}", "state_dir": tempfile.mkdtemp()},
        "redis": {"url": redis_url},
        "pin_key": "key-for-tests",
        "switches": [{"name": "fs1", "address": f"127.0.0.1:{free_port()}", "password": "secret"}],
        "admin": {"listen": f"127.0.0.1:{free_port()}", "token": ADMIN_TOKEN},
        "integrators": [{"name": "acme", "listen": f"127.0.0.1:{free_port()}", "token": "api"}],
        "prompts": {"urls": ["https://media.example/hello.wav"]},
        "cccp": {"cccp_cb_number": OWN_DID, "allowed_callee_regex": r"^\+?\d{11,}$"},
        "accounts": {
            "acme": {"token": ACME, "call_restriction": {"international": {"action": "deny"}}},
            "other": {"token": OTHER},
            "locked": {"token": ""},
        },
    }


class Door:
    """The admin port as a client of Kazoo uses it."""

    def __init__(self, node: Node, redis: RedisServer) -> None:
        self.node = node
        self.redis = redis

    def __call__(
        self, method: str, path: str = CARDS, data: object = None, token: str | None = ACME, **more: Any
    ) -> Answer:
        body = more.pop("body", None if data is None else {"data": data})
        headers = {"X_Auth_Token": token, **more} if token is not None else more
        return request(self.node.admin, method, path, body, None, **headers)

    def create(self, **fields: Any) -> dict[str, Any]:
        answer = self("PUT", data=fields)
        assert answer.status == 201, answer.body
        assert answer.headers["location"] == f"{CARDS}/{answer.json['data']['id']}"
        return dict(answer.json["data"])


@pytest.fixture(scope="module")
def served() -> Iterator[Door]:
    redis = RedisServer()
    node = Node(config_of(redis.url))
    yield Door(node, redis)
    node.end()
    log = node.log.read_text()
    for secret in (PIN, OTHER_PIN, ACME, ADMIN_TOKEN):
        assert secret not in log
    redis.close()


@pytest.fixture
def door(served: Door) -> Door:
    served.redis.client.flushall()
    return served


def stored_keys(redis: RedisServer) -> set[str]:
    """The keys in Redis, without those that a node writes each second."""
    own = (keys.NODES, keys.PING, keys.report(""))
    return {key for key in redis.client.scan_iter() if not key.startswith(own)}


def refused(answer: Answer, status: int) -> dict[str, Any]:
    """The fields of an error in Kazoo's form."""
    body = answer.json
    assert answer.status == status, body
    assert body["error"] == str(status)
    assert body["status"] == "error"
    assert body["message"]
    assert body["request_id"]
    for field in body["data"].values():
        for code in field.values():
            assert code["message"]
    return {field: sorted(codes) for field, codes in body["data"].items()}


# Access ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "wrong", OTHER, "api", ADMIN_TOKEN + "x"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", CARDS),
        ("PUT", CARDS),
        ("GET", f"{CARDS}/{'0' * 32}"),
        ("POST", f"{CARDS}/{'0' * 32}"),
        ("PATCH", f"{CARDS}/{'0' * 32}"),
        ("DELETE", f"{CARDS}/{'0' * 32}"),
        ("PUT", f"{CARDS}/autodial"),
    ],
)
def test_crossbar_without_the_accounts_token_is_refused(door: Door, method: str, path: str, token: str | None) -> None:
    data = {"pin": PIN} if method not in ("GET", "DELETE") else None
    refused(door(method, path, data, token), 401)
    assert stored_keys(door.redis) == set()


def test_crossbar_account_without_token_is_the_admins(door: Door) -> None:
    refused(door("GET", "/v2/accounts/locked/cccps", token=""), 401)
    refused(door("GET", "/v2/accounts/locked/cccps", token=None), 401)
    assert door("GET", "/v2/accounts/locked/cccps", token=ADMIN_TOKEN).status == 200


def test_crossbar_other_account_looks_like_a_missing_one(door: Door) -> None:
    unknown = door("GET", "/v2/accounts/nobody/cccps")
    others = door("GET", "/v2/accounts/other/cccps")
    assert refused(unknown, 401) == refused(others, 401)
    refused(door("GET", "/v2/accounts/nobody/cccps", token=ADMIN_TOKEN), 404)
    refused(door("GET", "/v2/accounts/%7Bcards%7D%0a/cccps", token=ADMIN_TOKEN), 404)


def test_crossbar_admin_token_opens_every_account(door: Door) -> None:
    assert door("PUT", data={"pin": PIN}, token=ADMIN_TOKEN).status == 201
    assert len(door("GET").json["data"]) == 1
    bearer = request(door.node.admin, "GET", CARDS, None, ACME)
    assert bearer.status == 200
    card = door("GET").json["data"][0]["id"]
    for method in ("GET", "PATCH", "DELETE"):
        data = {"active": True} if method == "PATCH" else None
        answer = door(method, f"/v2/accounts/other/cccps/{card}", data, OTHER)
        refused(answer, 404)
    assert door("GET", f"{CARDS}/{card}").json["data"]["active"] is False


# Cards -----------------------------------------------------------------------------------------------


def test_crossbar_card_is_created_changed_and_deleted(door: Door) -> None:
    made = door.create(pin=PIN, active=True, user_id="u1", comment="the boss", max_concurent_calls_per_user=2)
    id = made.pop("id")
    assert made == {
        "user_id": "u1",
        "active": True,
        "retain_cid": False,
        "max_concurrent_calls_per_user": 2,
        "comment": "the boss",
    }
    path = f"{CARDS}/{id}"
    got = door("GET", path)
    assert got.status == 200
    assert got.json["status"] == "success"
    assert got.json["request_id"]
    assert got.json["data"] == {"id": id, **made}
    assert door("PATCH", path, {"active": False}).json["data"] == {"id": id, **made, "active": False}
    # A client may send an answer's data back.
    assert door("POST", path, {"id": id, **made}).json["data"] == {"id": id, **made}
    assert door("POST", path, {"active": True}).json["data"]["comment"] == ""
    assert door("POST", path, {"cid": "0820001234"}).json["data"]["cid"] == "+27820001234"
    assert door("DELETE", path).json["data"]["id"] == id
    for method in ("GET", "DELETE"):
        assert refused(door(method, path), 404) == {"id": ["not_found"]}
    assert door("GET").json["data"] == []


def test_crossbar_answers_show_no_pin_and_no_hash(door: Door) -> None:
    id = door.create(pin=PIN)["id"]
    answers = [
        door("GET"),
        door("GET", f"{CARDS}/{id}"),
        door("PUT", data={"pin": PIN}),
        door("PATCH", f"{CARDS}/{id}", {"pin": OTHER_PIN}),
        door("PUT", data={"pin": OTHER_PIN}),
        door("PUT", data={"pin": PIN + "12345"}),
        door("DELETE", f"{CARDS}/{id}"),
    ]
    for answer in answers:
        text = answer.body.decode()
        assert PIN not in text
        assert OTHER_PIN not in text
        assert '"pin":' not in text.replace('"pin":{"pattern"', "")
        assert not re.search("[0-9a-f]{64}", text)


def test_crossbar_claim_in_use_is_kazoos_unique(door: Door) -> None:
    door.create(pin=PIN)
    door.create(cid="0820001234")
    id = door.create(pin=OTHER_PIN)["id"]
    for claim in ({"pin": PIN}, {"cid": "+27820001234"}):
        for method, path, token in (
            ("PUT", CARDS, ACME),
            ("PUT", "/v2/accounts/other/cccps", OTHER),
            ("POST", f"{CARDS}/{id}", ACME),
            ("PATCH", f"{CARDS}/{id}", ACME),
        ):
            answer = door(method, path, claim, token)
            assert refused(answer, 400) == {"cccp": ["unique"]}
    assert len(door("GET").json["data"]) == 3


def test_crossbar_wrong_fields_are_each_named(door: Door) -> None:
    answer = door("PUT", data={"pin": "123", "active": "yes", "bogus": 1})
    assert refused(answer, 400) == {"pin": ["pattern"], "active": ["type"], "bogus": ["additionalProperties"]}
    assert refused(door("PUT", data={}), 400) == {"cccp": ["required"]}
    assert refused(door("PUT", data={"pin": PIN, "cid": "0820001234"}), 400) == {"cccp": ["oneOf"]}
    assert stored_keys(door.redis) == set()


def test_crossbar_pages_hold_each_card_once(door: Door) -> None:
    made = [door.create(pin=str(100000000 + i))["id"] for i in range(5)]
    first = door("GET", f"{CARDS}?page_size=3").json
    assert first["page_size"] == 3
    rest = door("GET", f"{CARDS}?page_size=3&start_key={first['next_start_key']}").json
    assert "next_start_key" not in rest
    assert sorted(card["id"] for card in first["data"] + rest["data"]) == sorted(made)
    assert refused(door("GET", f"{CARDS}?page_size=0"), 400) == {"page_size": ["range"]}
    assert refused(door("GET", f"{CARDS}?page_size=501"), 400) == {"page_size": ["range"]}
    assert refused(door("GET", f"{CARDS}?start_key=%2b"), 400) == {"start_key": ["pattern"]}


# Form ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[1]", 400),
        (b"null", 400),
        (b"{}", 400),
        (b'{"data": null}', 400),
        (b'{"data": ["pin"]}', 400),
        (b'{"data": {"pin": "482190735"}, "data": 1}', 400),
        (b"[" * 50000, 400),
        (b'{"data": {"comment": "\\ud800"}}', 400),
        (b'{"data": {"comment": "' + b"x" * 70000 + b'"}}', 413),
    ],
)
def test_crossbar_body_without_data_is_refused(door: Door, body: bytes, status: int) -> None:
    refused(door("PUT", body=body), status)
    assert stored_keys(door.redis) == set()


def test_crossbar_missing_card_is_in_kazoos_form(door: Door) -> None:
    for path in ("/v2/accounts/acme/devices", "/v2/", f"{CARDS}/x/y"):
        refused(door("GET", path), 404)
    for path in (f"{CARDS}/0123", f"{CARDS}/{'0' * 32}", f"{CARDS}/..%2f..", f"{CARDS}/{'0' * 31}%0a"):
        refused(door("GET", path), 404)
    for method in ("POST", "PATCH", "DELETE"):
        refused(door(method, CARDS, {}), 405)
    refused(door("PUT", f"{CARDS}/{'0' * 32}", {}), 405)
    refused(door("GET", f"{CARDS}/autodial"), 405)
    refused(door("PUT", data={"pin": PIN}, Content_Type="text/plain"), 415)
    # Other routes of this port keep their own form.
    assert "errors" in door("GET", "/nowhere").json


def test_crossbar_request_id_is_echoed(door: Door) -> None:
    assert door("GET", X_Request_ID="abc-1").json["request_id"] == "abc-1"
    made = door("GET", X_Request_ID="a b<script>").json["request_id"]
    assert len(made) == 32
    assert door("GET", "/v2/nowhere", X_Request_ID="abc-2").json["request_id"] == "abc-2"


def test_crossbar_routes_are_in_the_openapi_document(door: Door) -> None:
    document = door("GET", "/openapi.json").json
    for path in ("", "/{card_id}", "/autodial"):
        assert f"/v2/accounts/{{account_id}}/cccps{path}" in document["paths"]
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text


def test_crossbar_redis_down_is_503(door: Door) -> None:
    id = door.create(pin=PIN)["id"]
    door.redis.kill()
    try:
        for method, path in (("GET", CARDS), ("PUT", CARDS), ("PATCH", f"{CARDS}/{id}"), ("DELETE", f"{CARDS}/{id}")):
            answer = door(method, path, {"active": True, "pin": PIN} if method in ("PUT", "PATCH") else None)
            refused(answer, 503)
            assert int(answer.headers["retry-after"]) > 0
        refused(door("PUT", f"{CARDS}/autodial", {"a_leg_number": A, "b_leg_number": B}), 503)
    finally:
        door.redis.start()
    assert door("GET").json["data"] == []


# Autodial --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked() -> Any:
    """The part of a node that ``read_order`` uses."""
    config = parse(json.dumps(config_of("redis://127.0.0.1:1/0")), {})
    plan = config.plan()
    cards = CardStore(connect(config.redis.url), None, plan, config.accounts)
    rules = Rules(
        allowed_callee=re.compile(config.cccp.allowed_callee_regex or "").search,
        own_numbers=frozenset([plan.read(OWN_DID).e164]),
    )
    external = tuple(config.dial.external)

    def read(external: tuple[str, ...] = external, **data: Any) -> AutodialOrder:
        settings = SimpleNamespace(plan=plan, endpoints=Endpoints(config.dial.extension, external))
        policy = SimpleNamespace(settings=settings, rules=rules, is_media=Spoken(config, plan).is_media)
        return read_order(policy, cards.account("acme"), data)  # type: ignore[arg-type]

    return read


A, B = "0820001111", "0112223333"


def test_autodial_right_order_is_accepted(asked: Any) -> None:
    order = asked(a_leg_number=A, b_leg_number="+27112223333")
    assert isinstance(order, AutodialOrder)
    assert (order.a.e164, order.b and order.b.e164) == ("27820001111", "27112223333")
    assert (order.delay, order.retain_cid, order.media_id, order.conference) == (3.0, False, None, None)
    order = asked(
        a_leg_number=A,
        b_leg_number="conference:board.room-1",
        callback_delay=0.5,
        retain_cid=True,
        media_id="unavailable",
    )
    assert (order.b, order.conference, order.delay, order.retain_cid) == (None, "board.room-1", 0.5, True)
    assert order.media_id == "unavailable"
    assert asked(a_leg_number=A, b_leg_number=B, media_id="https://media.example/hello.wav").media_id is not None


@pytest.mark.parametrize("leg", ["a_leg_number", "b_leg_number"])
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (None, "required"),
        ("", "pattern"),
        (27820001111, "pattern"),
        ("0820001111\n", "pattern"),
        ("0820001111}sofia/gateway/x", "pattern"),
        ("user/1000@x", "pattern"),
        ("sip:27820001111@evil.example", "pattern"),
        (["0820001111"], "pattern"),
        ("112", "forbidden"),
        (OWN_DID, "forbidden"),
        ("1001", "forbidden"),
        ("0862224444", "restricted"),
        ("+4420755512345", "restricted"),
        ("00442075551234", "restricted"),
        ("+881612345678", "restricted"),
    ],
)
def test_autodial_denied_leg_is_refused(asked: Any, leg: str, number: object, code: str) -> None:
    with pytest.raises(Refused) as refusal:
        asked(**{"a_leg_number": A, "b_leg_number": B, leg: number})
    assert [(fault.field, fault.code) for fault in refusal.value.faults] == [(leg, code)]


def test_autodial_without_a_gateway_is_refused(asked: Any) -> None:
    with pytest.raises(Refused) as refusal:
        asked(external=(), a_leg_number=A, b_leg_number=B)
    assert [(fault.field, fault.code) for fault in refusal.value.faults] == [
        ("a_leg_number", "restricted"),
        ("b_leg_number", "restricted"),
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("b_leg_number", "conference:"),
        ("b_leg_number", "conference:a b"),
        ("b_leg_number", "conference:a@profile+flags{x}"),
        ("b_leg_number", "conference:room\n"),
        ("callback_delay", -1),
        ("callback_delay", 3601),
        ("callback_delay", "3"),
        ("callback_delay", True),
        ("callback_delay", float("nan")),
        ("retain_cid", "yes"),
        ("media_id", "../../../etc/passwd"),
        ("media_id", "no_such_prompt"),
        ("media_id", "unavailable\n"),
        ("media_id", "unavailable.wav"),
        ("media_id", "/etc/passwd"),
        ("media_id", "https://media.example/other.wav"),
        ("media_id", "https://media.example/hello.wav?x"),
        ("media_id", "tone_stream://%(1000)"),
        ("media_id", 7),
        ("cid", "0820009999"),
    ],
)
def test_autodial_wrong_field_is_refused(asked: Any, field: str, value: object) -> None:
    with pytest.raises(Refused) as refusal:
        asked(**{"a_leg_number": A, "b_leg_number": B, field: value})
    assert [fault.field for fault in refusal.value.faults] == [field]


def test_autodial_every_fault_is_named(door: Door) -> None:
    answer = door("PUT", f"{CARDS}/autodial", {"a_leg_number": "112", "callback_delay": -1})
    assert refused(answer, 400) == {
        "a_leg_number": ["forbidden"],
        "b_leg_number": ["required"],
        "callback_delay": ["range"],
    }


def test_autodial_without_a_switch_is_503(door: Door) -> None:
    refused(door("PUT", f"{CARDS}/autodial", {"a_leg_number": A, "b_leg_number": B}), 503)
