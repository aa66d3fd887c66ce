"""Cards and accounts in the console."""

from __future__ import annotations

import re
from typing import Any

import pytest

from esl_apps.store import keys
from tests.support.bench import Bench
from tests.support.console import Browser, read

SHOP = "the-shops-token-for-tests"


def make(bench: Bench, **fields: object) -> str:
    return bench.services.policy.cards.create("acme", {"active": True, **fields}).id


def test_accounts_are_searched_by_id_and_number(bench: Bench, browser: Browser) -> None:
    make(bench, cid="0825551111")
    browser.log_in()
    assert "acme" in browser.get("/cards")
    assert "acme" in browser.get("/cards?q=AC")
    assert "The card of +27825551111 belongs to acme" in browser.get("/cards?q=082 555 1111")
    assert "No account and no card is like this." in browser.get("/cards?q=nobody")


def test_card_of_an_older_form_is_found_by_its_number(bench: Bench, browser: Browser) -> None:
    id, claim = make(bench, cid="+5491112345678"), "c541112345678"
    redis = bench.services.redis
    # As a release stored it that told a subscriber's forms apart.
    redis.hset(keys.CARDS, "c5491112345678", redis.hget(keys.CARDS, claim))
    redis.hset(keys.CARD_IDS, id, "c5491112345678")
    redis.hdel(keys.CARDS, claim)
    browser.log_in()
    assert "The card of +5491112345678 belongs to acme" in browser.get("/cards?q=%2B5491112345678")


def test_imported_account_is_opened_by_its_id(bench: Bench, browser: Browser) -> None:
    bench.services.policy.cards.put_account(
        "shop7", name="Shop", realm="", caller_id=None, caller_id_name=None, call_restriction={}
    )
    browser.log_in()
    assert "shop7" in browser.get("/cards?q=shop7")
    assert "This account has no card." in browser.get("/cards/shop7")


def test_cards_are_searched_by_number_user_comment_and_id(bench: Bench, browser: Browser) -> None:
    first = make(bench, cid="0825551111", user_id="ann", comment="Front desk")
    second = make(bench, pin="482190736", comment="Back door")
    browser.log_in()
    for asked, found in [
        ("", {first, second}),
        ("0825551111", {first}),
        ("ANN", {first}),
        ("back door", {second}),
        (second, {second}),
        ("f" * 32, set()),
        ("nothing", set()),
    ]:
        html = browser.ask("GET", "/cards/acme", params={"q": asked}).text
        assert {id for id in (first, second) if f'ref">{id}<' in html} == found, asked


def test_search_says_where_it_stopped(bench: Bench, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_apps.http.console.cards._LOOKED_THROUGH", 2)
    monkeypatch.setattr("esl_apps.http.console.cards._STEP", 2)
    for last in range(3):
        make(bench, cid=f"082555111{last}")
    assert "Only the first 2 cards were looked through." in browser.log_in().get("/cards/acme?q=nothing")


def test_cards_are_shown_in_pages(bench: Bench, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_apps.http.console.cards._PAGE", 2)
    # Cards of the same millisecond have no order of their own.
    ids = sorted(make(bench, cid=f"082555111{last}") for last in range(3))
    browser.log_in()
    html = browser.html("/cards/acme")
    assert ids[2] not in html
    query = html.partition('href="/console/cards/acme?')[2].partition('"')[0]
    assert ids[2] in browser.html(f"/cards/acme?{query}")
    assert ids[0] in browser.html("/cards/acme?after=nonsense")


def test_card_with_a_number_is_made(bench: Bench, browser: Browser) -> None:
    browser.log_in(SHOP)
    result = browser.post(
        "/cards/acme/create", kind="cid", cid="082 555 1111", user_id="ann", most="3", comment="x", active="on"
    )
    assert (result.status_code, "shown this once" in result.text) == (200, False)
    card = bench.services.policy.cards.by_number("27825551111")
    assert card is not None
    assert (card.user_id, card.max_concurrent_calls_per_user, card.comment, card.active) == ("ann", 3, "x", True)


def test_card_with_a_new_pin_shows_it_once(bench: Bench, browser: Browser) -> None:
    browser.log_in(SHOP)
    result = browser.post("/cards/acme/create", kind="pin", comment="front")
    match = re.search(r'<output id="pin">(\d{12})</output>', result.text)
    assert match
    card = bench.services.policy.cards.by_pin(match[1])
    assert card is not None
    assert (card.active, card.comment) == (False, "front")
    assert result.headers["cache-control"] == "no-store"
    assert match[1] not in browser.html("/cards/acme")


def test_pins_of_two_cards_differ(browser: Browser) -> None:
    browser.log_in(SHOP)
    pins = {re.findall(r'id="pin">(\d+)', browser.post("/cards/acme/create", kind="pin").text)[0] for _ in range(3)}
    assert len(pins) == 3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cid": ""}, "caller's number: "),
        ({"cid": "front door"}, "caller's number: "),
        ({"cid": "0825551111", "user_id": "a b"}, "user: expected 1 to 64"),
        ({"cid": "0825551111", "most": "many"}, "calls at once: expected a whole number"),
        ({"cid": "0825552222"}, "card: CID already exists"),
    ],
)
def test_card_with_a_wrong_field_is_not_made(bench: Bench, browser: Browser, fields: dict[str, Any], said: str) -> None:
    make(bench, cid="0825552222")
    browser.log_in(SHOP)
    result = browser.post("/cards/acme/create", **{"kind": "cid", **fields})
    assert result.status_code == 422
    assert f"The card was not made: {said}" in read(result.text)
    # The operator's text is still there.
    assert f'value="{fields["cid"]}"' in result.text
    assert bench.services.policy.cards.by_number("27825551111") is None


def test_card_is_deactivated_and_activated(bench: Bench, browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    id = make(bench, cid="0825551111", comment="kept")
    browser.log_in(SHOP)
    result = browser.post(f"/cards/acme/{id}/deactivate")
    assert result.headers["location"] == "/console/cards/acme?done=deactivated"
    card = bench.services.policy.cards.get("acme", id)
    assert card is not None
    assert (card.active, card.comment, card.cid) == (False, "kept", "27825551111")
    assert "Not active" in browser.get("/cards/acme")
    browser.post(f"/cards/acme/{id}/activate")
    card = bench.services.policy.cards.get("acme", id)
    assert card is not None
    assert card.active
    lines = [record for record in caplog.records if record.message == "operator_acted"]
    assert [(line.by, line.action, line.target) for line in lines] == [  # type: ignore[attr-defined]
        ("admin/shop", "card_deactivate", id),
        ("admin/shop", "card_activate", id),
    ]


@pytest.mark.parametrize("path", ["create", f"{'0' * 32}/deactivate"])
def test_card_needs_the_scope_cards(bench: Bench, browser: Browser, path: str) -> None:
    browser.log_in("the-wallboards-token")
    assert browser.post(f"/cards/acme/{path}", kind="cid", cid="0825551111").status_code == 403
    assert bench.services.policy.cards.by_number("27825551111") is None


@pytest.mark.parametrize(
    "path", ["/cards/nobody", "/cards/a%2Fb", "/cards/acme/x/activate", f"/cards/acme/{'0' * 32}/activate"]
)
def test_unknown_card_or_account_is_404(browser: Browser, path: str) -> None:
    browser.log_in()
    result = browser.post(path) if path.endswith("activate") else browser.ask("GET", path)
    assert result.status_code == 404
