"""Cards and autodial on the operator's port, in the form of Kazoo's Crossbar."""

from __future__ import annotations

import dataclasses
from typing import Any

import gevent
import pytest

from esl_apps.core.cards import Account, Card
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.limits import BREAKER, Refusal
from esl_apps.core.pins import Asker
from esl_apps.core.timed_call import Waiting
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http.autodial import read_order
from esl_apps.node.live import Crowded, Full
from esl_apps.node.outgoing import Spent, Unsure
from tests.support.http_services import ACCOUNT_TOKEN, ADMIN_TOKEN, World, kazoo_errors

CARDS = "/v2/accounts/acme/cccps"
NO_CARD = "f" * 32
A, B = "0820001111", "0112223333"


def create(world: World, **fields: Any) -> dict[str, Any]:
    result = world.admin.simulate_put(CARDS, json={"data": fields})
    assert result.status_code == 201, result.text
    assert result.headers["location"] == f"{CARDS}/{result.json['data']['id']}"
    card: dict[str, Any] = result.json["data"]
    return card


# Admission ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", CARDS),
        ("PUT", CARDS),
        ("GET", f"{CARDS}/{NO_CARD}"),
        ("POST", f"{CARDS}/{NO_CARD}"),
        ("PATCH", f"{CARDS}/{NO_CARD}"),
        ("DELETE", f"{CARDS}/{NO_CARD}"),
        ("PUT", f"{CARDS}/autodial"),
        ("GET", f"{CARDS}/autodials"),
        ("DELETE", f"{CARDS}/autodials/01a20447-2be6-705d-bfcb-64432c6ce89b"),
    ],
)
def test_card_route_without_the_scope_is_refused(world: World, method: str, path: str) -> None:
    def ask(token: str) -> Any:
        return world.admin.simulate_request(method, path, headers={"X-Auth-Token": token})

    assert kazoo_errors(ask("wrong"), 401) == {"request": ["unauthorized"]}
    for token in (ACCOUNT_TOKEN, ADMIN_TOKEN):
        assert ask(token).status_code not in (401, 403)
    if method == "GET":
        assert ask("the-viewers-token").status_code != 403
    else:
        assert kazoo_errors(ask("the-viewers-token"), 403) == {"request": ["scope"]}


@pytest.mark.parametrize("account", ["nobody", "a%20b"])
def test_unknown_account_is_404_for_operators_only(world: World, account: str) -> None:
    path = CARDS.replace("acme", account)
    assert kazoo_errors(world.admin.simulate_get(path), 404) == {"account_id": ["not_found"]}
    result = world.admin.simulate_get(path, headers={"X-Auth-Token": ACCOUNT_TOKEN})
    assert kazoo_errors(result, 401)


def test_account_with_redis_down_is_503(world: World) -> None:
    world.services.cards.fails = StoreUnavailable("redis: refused")
    result = world.admin.simulate_get(CARDS)
    assert kazoo_errors(result, 503) == {"request": ["unavailable"]}
    assert (result.headers["retry-after"], result.json["message"]) == ("5", "datastore_unreachable")


@pytest.mark.parametrize("path", [CARDS, f"{CARDS}/autodial"])
def test_thousands_of_fields_are_refused_as_one_fault(world: World, path: str) -> None:
    result = world.admin.simulate_put(path, json={"data": {str(number): 1 for number in range(5000)}})
    assert kazoo_errors(result, 400) == {"data": ["too_many"]}


# Cards ----------------------------------------------------------------------------------------------------


def test_card_is_created_shown_and_deleted(world: World) -> None:
    card = create(world, cid="27820001234", user_id="ann", active=True)
    assert card == {
        "id": card["id"],
        "user_id": "ann",
        "active": True,
        "retain_cid": False,
        "max_concurrent_calls_per_user": 1,
        "comment": "",
        "cid": "+27820001234",
    }
    path = f"{CARDS}/{card['id']}"
    shown = world.admin.simulate_get(path)
    assert (shown.json["data"], shown.json["status"]) == (card, "success")
    assert world.admin.simulate_delete(path).json["data"] == card
    assert kazoo_errors(world.admin.simulate_get(path), 404) == {"id": ["not_found"]}


def test_card_with_a_pin_is_shown_without_it(world: World) -> None:
    card = create(world, pin="482190735")
    assert not card.keys() & {"pin", "cid"}
    assert "482190735" not in world.admin.simulate_get(CARDS).text


def test_card_is_replaced_by_post_and_changed_by_patch(world: World) -> None:
    card = create(world, cid="27820001234", user_id="ann", active=True)
    path = f"{CARDS}/{card['id']}"
    changed = world.admin.simulate_patch(path, json={"data": {"comment": "x"}}).json["data"]
    assert changed == {**card, "comment": "x"}
    replaced = world.admin.simulate_post(path, json={"data": {"comment": "y"}}).json["data"]
    assert replaced == {**card, "comment": "y", "user_id": None, "active": False}


@pytest.mark.parametrize("card_id", [NO_CARD, "x", NO_CARD.upper()])
def test_card_that_does_not_exist_is_404(world: World, card_id: str) -> None:
    for method in ("GET", "POST", "PATCH", "DELETE"):
        result = world.admin.simulate_request(method, f"{CARDS}/{card_id}", json={"data": {}})
        assert kazoo_errors(result, 404) == {"id": ["not_found"]}


def test_card_with_wrong_fields_is_400_and_names_them(world: World) -> None:
    world.services.cards.create = refusing(Fault("pin", "pattern", "a"), Fault("cccp", "unique", "b"))
    result = world.admin.simulate_put(CARDS, json={"data": {}})
    assert kazoo_errors(result, 400) == {"pin": ["pattern"], "cccp": ["unique"]}
    assert result.json["message"] == "validation error"
    assert result.json["data"]["pin"] == {"pattern": {"message": "a"}}


def refusing(*faults: Fault) -> Any:
    def refuse(*_args: object) -> Card:
        raise Refused(list(faults))

    return refuse


def test_list_cards_returns_each_card_on_one_page(world: World) -> None:
    ids = [create(world, pin="482190735")["id"] for _ in range(5)]
    found: list[str] = []
    after: dict[str, str | None] = {}
    for size in (2, 2, 1):
        page = world.admin.simulate_get(CARDS, params={"page_size": 2, **after}).json
        assert page["page_size"] == len(page["data"]) == size
        found += [card["id"] for card in page["data"]]
        after = {"start_key": page.get("next_start_key")}
    assert found == ids
    assert after == {"start_key": None}


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ({"page_size": 0}, {"page_size": ["range"]}),
        ({"page_size": 501}, {"page_size": ["range"]}),
        ({"page_size": "x"}, {"page_size": ["range"]}),
        ({"start_key": "x"}, {"start_key": ["pattern"]}),
    ],
)
def test_list_cards_with_a_wrong_parameter_is_400(
    world: World, query: dict[str, object], fault: dict[str, list[str]]
) -> None:
    assert kazoo_errors(world.admin.simulate_get(CARDS, params=query), 400) == fault


# Bodies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "status", "fault"),
    [
        (b"{", "application/json", 400, {"request": ["not_json"]}),
        (b"[]", "application/json", 400, {"request": ["type"]}),
        (b"{}", "application/json", 400, {"data": ["required"]}),
        (b'{"data": []}', "application/json", 400, {"data": ["required"]}),
        (b"{}", "text/plain", 415, {"request": ["media_type"]}),
        (b" " * 65537, "application/json", 413, {"request": ["too_large"]}),
    ],
)
def test_wrong_body_is_refused_in_kazoos_form(
    world: World, body: bytes, kind: str, status: int, fault: dict[str, list[str]]
) -> None:
    assert kazoo_errors(world.admin.simulate_put(CARDS, body=body, content_type=kind), status) == fault


def test_unknown_path_or_method_is_refused_in_kazoos_form(world: World) -> None:
    assert kazoo_errors(world.admin.simulate_get("/v2/nothing"), 404) == {"request": ["not_found"]}
    assert kazoo_errors(world.admin.simulate_delete(CARDS), 405) == {"request": ["method_not_allowed"]}


def test_unexpected_exception_is_500_in_kazoos_form(world: World) -> None:
    world.services.cards.fails = RuntimeError("a secret")
    result = world.admin.simulate_get(CARDS)
    assert kazoo_errors(result, 500) == {"request": ["internal"]}
    assert result.json["message"] == "unspecified_fault"
    assert "secret" not in result.text


def test_request_id_of_the_client_is_returned(world: World) -> None:
    result = world.admin.simulate_get(CARDS, headers={"X-Request-ID": "abc-1"})
    assert result.json["request_id"] == "abc-1"
    for given in ("", "a b", "x" * 65):
        made = world.admin.simulate_get(CARDS, headers={"X-Request-ID": given}).json["request_id"]
        assert made != given
        assert len(made) == 32


# "In use" is a guess at another account's PIN -----------------------------------------------------------------


def put(world: World, token: str = ADMIN_TOKEN, **fields: Any) -> Any:
    return world.admin.simulate_put(CARDS, json={"data": fields}, headers={"X-Auth-Token": token})


@pytest.mark.parametrize(("token", "name"), [(ACCOUNT_TOKEN, "acme"), (ADMIN_TOKEN, "+admin")])
def test_pin_in_use_elsewhere_is_counted_and_logged(
    world: World, token: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert kazoo_errors(put(world, token, pin="482190731"), 400) == {"cccp": ["unique"]}
    assert world.services.guard.counted == [Asker(name, "acme")]
    (line,) = [record for record in caplog.records if record.message == "card_claim_refused"]
    assert (line.account, line.token) == ("acme", name)  # type: ignore[attr-defined]
    assert "482190731" not in str(line.__dict__)


def test_pin_in_use_in_the_same_account_is_not_counted(world: World) -> None:
    assert kazoo_errors(put(world, pin="482190732"), 400) == {"cccp": ["unique"]}
    assert world.services.guard.counted == []


@pytest.mark.parametrize("fields", [{"pin": "482190731"}, {"pin": "482190735"}, {"cid": "0821110000"}])
def test_locked_client_is_told_nothing_about_a_pin(world: World, fields: dict[str, str]) -> None:
    """The answer is the same whether the PIN is in use or not, and nothing is looked up."""
    card = create(world, cid="27820001234")
    world.services.guard.locked = 1234
    world.services.cards.fails = None
    for answer in (
        put(world, **fields),
        world.admin.simulate_patch(f"{CARDS}/{card['id']}", json={"data": fields}),
        world.admin.simulate_post(f"{CARDS}/{card['id']}", json={"data": fields}),
    ):
        assert kazoo_errors(answer, 429) == {"request": ["too_many"]}
        assert answer.headers["retry-after"] == "1234"
    assert len(world.services.cards.cards) == 1


def test_pins_are_counted_and_numbers_are_not(world: World) -> None:
    create(world, pin="482190735")
    create(world, cid="27820001234")
    create_asked = [(Asker("+admin", "acme"), True), (Asker("+admin", "acme"), False)]
    assert world.services.guard.asked == create_asked


def test_locked_client_can_still_switch_a_card_off(world: World) -> None:
    card = create(world, cid="27820001234", active=True)
    world.services.guard.locked = 1234
    result = world.admin.simulate_patch(f"{CARDS}/{card['id']}", json={"data": {"active": False}})
    assert (result.status_code, result.json["data"]["active"]) == (200, False)
    assert world.admin.simulate_delete(f"{CARDS}/{card['id']}").status_code == 200


def test_guesses_at_the_same_time_come_one_by_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a hundred requests would pass the check before the first is counted."""
    guard, create_card = world.services.guard, world.services.cards.create

    def refuses(asker: Asker, *, new_pin: bool) -> int:
        return 60 if len(guard.counted) >= 3 else 0

    def slow(account_id: str, fields: dict[str, Any]) -> Any:
        gevent.sleep(0.001)
        return create_card(account_id, fields)

    monkeypatch.setattr(guard, "refuses", refuses)
    monkeypatch.setattr(world.services.cards, "create", slow)
    requests = [gevent.spawn(put, world, pin=f"48219{i:03}1") for i in range(20)]
    gevent.joinall(requests, timeout=10)
    assert sorted(request.get().status_code for request in requests) == [400] * 3 + [429] * 17


# Autodial -------------------------------------------------------------------------------------------------


def test_autodial_places_a_call(world: World) -> None:
    order = {"a_leg_number": A, "b_leg_number": B}
    result = world.admin.simulate_put(f"{CARDS}/autodial", json={"data": order})
    (attempt,) = world.outgoing.placed
    assert (result.status_code, result.json["data"]) == (201, {"call_ref": attempt.call_ref, "state": "queued"})
    assert (attempt.extension, attempt.number, attempt.account_id) == (A, B, "acme")


@pytest.mark.parametrize(
    ("error", "status", "fault"),
    [
        (Full("switch fs1: refused"), 503, {"request": ["unavailable"]}),
        (Crowded("as many calls are up as may (max_calls)"), 429, {"limits": ["limit_reached"]}),
        (StoreUnavailable("x"), 503, {"request": ["unavailable"]}),
        (Spent(Refusal("calls_per_hour", "account:acme")), 429, {"limits": ["limit_reached"]}),
        (Spent(Refusal(BREAKER, "system")), 503, {"limits": ["breaker"]}),
        (Unsure("01a2"), 503, {"request": ["unknown"]}),
    ],
)
def test_autodial_that_cannot_be_placed_has_retry_after(
    world: World, error: Exception, status: int, fault: dict[str, list[str]]
) -> None:
    world.outgoing.fails = error
    result = world.admin.simulate_put(f"{CARDS}/autodial", json={"data": {"a_leg_number": A, "b_leg_number": B}})
    assert kazoo_errors(result, status) == fault
    assert int(result.headers["retry-after"]) > 0


def test_autodial_that_may_be_placed_says_its_reference(world: World) -> None:
    world.outgoing.fails = Unsure("01a2")
    result = world.admin.simulate_put(f"{CARDS}/autodial", json={"data": {"a_leg_number": A, "b_leg_number": B}})
    assert result.json["data"]["request"]["unknown"]["call_ref"] == "01a2"


def test_autodials_that_wait_are_listed_and_dropped(world: World) -> None:
    ref, path = "01a20447-2be6-705d-bfcb-64432c6ce89b", f"{CARDS}/autodials"
    order = '{"a": "0820001111", "b": null, "conference": "weekly", "retain_cid": false, "media_id": null}'
    world.services.timed_calls["autodial"].calls = {ref: Waiting(ref, 1_700_000_000.5, "acme", ("acme", order), False)}
    shown = {"call_ref": ref, "a_leg_number": A, "b_leg_number": "conference:weekly", "due_at": 1_700_000_000.5}
    assert world.admin.simulate_get(path).json["data"] == [shown]
    assert world.admin.simulate_delete(f"{path}/{ref}").json["data"] == shown
    assert kazoo_errors(world.admin.simulate_delete(f"{path}/{ref}"), 404) == {"call_ref": ["not_found"]}


def test_autodial_that_is_being_placed_is_not_dropped(world: World) -> None:
    ref = "01a20447-2be6-705d-bfcb-64432c6ce89b"
    world.services.timed_calls["autodial"].calls = {ref: Waiting(ref, 1.0, "acme", ("acme", "{"), True)}
    assert kazoo_errors(world.admin.simulate_delete(f"{CARDS}/autodials/{ref}"), 409) == {"call_ref": ["state"]}


def checks_of(result: Any) -> dict[str, tuple[bool, str]]:
    assert (result.status_code, result.json["status"]) == (200, "success")
    data = result.json["data"]
    checks = {check["check"]: (check["ok"], check["message"]) for check in data["checks"]}
    assert (data["dry_run"], data["ok"]) == (True, all(passed for passed, _message in checks.values()))
    return checks


def test_autodial_with_dry_run_dials_nothing(world: World) -> None:
    order = {"data": {"a_leg_number": A, "b_leg_number": B}}
    for query in ("dry_run=1", "dry_run=true", "dry_run", "dry_run="):
        checks = checks_of(world.admin.simulate_put(f"{CARDS}/autodial", query_string=query, json=order))
        assert {"a_leg_number", "b_leg_number", "limits", "breaker", "ready"} < checks.keys()
        assert set(checks.values()) == {(True, "ok")}
    assert world.outgoing.placed == []
    assert [charge.number and charge.number.dialled for charge in world.services.charged] == [A, B]


def test_autodial_with_dry_run_names_what_is_wrong(world: World) -> None:
    world.services.spent = Refusal("calls_per_hour", "account:acme")
    world.services.reasons.append("draining")
    order = {"data": {"a_leg_number": "x", "b_leg_number": B, "colour": "red"}}
    checks = checks_of(world.admin.simulate_put(f"{CARDS}/autodial", query_string="dry_run=1", json=order))
    assert {name for name, (passed, _message) in checks.items() if not passed} == {
        "a_leg_number",
        "colour",
        "limits",
        "ready",
    }


def test_autodial_reads_numbers_as_people_write_them(world: World) -> None:
    written = {"a_leg_number": "tel:+27-82-555-6666", "b_leg_number": "+27 (0)82 000 1234", "a_leg_name": "Zo\u00eb"}
    result = world.admin.simulate_put(f"{CARDS}/autodial", json={"data": written})
    assert result.status_code == 201, result.text
    assert (world.outgoing.placed[0].extension, world.outgoing.placed[0].number) == ("+27825556666", "+27820001234")
    wrong = {"a_leg_number": "0825556666,,1", "b_leg_number": "082 000 12AB", "a_leg_name": "a\nb"}
    result = world.admin.simulate_put(f"{CARDS}/autodial", json={"data": wrong})
    faults = kazoo_errors(result, 400)
    assert faults == {name: ["pattern"] for name in wrong}


def test_autodial_with_a_wrong_dry_run_is_refused(world: World) -> None:
    order = {"data": {"a_leg_number": A, "b_leg_number": B}}
    result = world.admin.simulate_put(f"{CARDS}/autodial", query_string="dry_run=perhaps", json=order)
    assert kazoo_errors(result, 400) == {"dry_run": ["value"]}
    assert world.outgoing.placed == []


def read(world: World, **fields: object) -> Any:
    account: Account = world.services.cards.account("acme")
    return read_order(world.services.policy, account, {"a_leg_number": A, "b_leg_number": B, **fields})


def test_read_order_without_options_uses_the_defaults(world: World) -> None:
    order = read(world)
    assert (order.a.e164, order.b.e164) == ("27820001111", "27112223333")
    assert (order.delay, order.retain_cid, order.media_id, order.conference) == (3.0, False, None, None)


def test_read_order_with_every_option_keeps_them(world: World) -> None:
    hello = "https://media.example/hello.wav"
    order = read(world, b_leg_number="conference:room-1", callback_delay=0, retain_cid=True, media_id=hello)
    assert (order.b, order.conference, order.delay) == (None, "room-1", 0.0)
    assert (order.retain_cid, order.media_id) == (True, hello)


def test_read_order_accepts_an_emergency_number(world: World) -> None:
    assert read(world, b_leg_number="112").b.is_emergency


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({"a_leg_number": None}, [("a_leg_number", "required")]),
        ({"a_leg_number": "x"}, [("a_leg_number", "pattern")]),
        ({"b_leg_number": 5}, [("b_leg_number", "pattern")]),
        ({"b_leg_number": "conference:"}, [("b_leg_number", "pattern")]),
        ({"b_leg_number": "conference:a b"}, [("b_leg_number", "pattern")]),
        ({"b_leg_number": "0115550001"}, [("b_leg_number", "forbidden")]),
        ({"b_leg_number": "00441632960001"}, [("b_leg_number", "forbidden")]),
        ({"b_leg_number": "0900123456"}, [("b_leg_number", "restricted")]),
        ({"callback_delay": -1}, [("callback_delay", "range")]),
        ({"callback_delay": 3601}, [("callback_delay", "range")]),
        ({"callback_delay": True}, [("callback_delay", "range")]),
        ({"callback_delay": "3"}, [("callback_delay", "range")]),
        ({"retain_cid": "yes"}, [("retain_cid", "type")]),
        ({"media_id": "https://elsewhere.example/a.wav"}, [("media_id", "not_found")]),
        ({"media_id": "../x"}, [("media_id", "not_found")]),
        ({"colour": "red", "a_leg_number": "x"}, [("colour", "additionalProperties"), ("a_leg_number", "pattern")]),
    ],
)
def test_read_order_with_a_wrong_field_is_refused(
    world: World, fields: dict[str, object], faults: list[tuple[str, str]]
) -> None:
    with pytest.raises(Refused) as refused:
        read(world, **fields)
    assert [(fault.field, fault.code) for fault in refused.value.faults] == faults


def test_read_order_without_emergency_endpoint_refuses_112(world: World) -> None:
    policy = world.services.policy
    policy.__dict__["_system"] = policy._system._replace(rules=dataclasses.replace(policy.rules, emergency=False))
    with pytest.raises(Refused) as refused:
        read(world, b_leg_number="112")
    assert [(fault.field, fault.code) for fault in refused.value.faults] == [("b_leg_number", "forbidden")]
