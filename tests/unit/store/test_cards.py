"""Cards in Redis: unique over all accounts under concurrent writes, found in one step, PINs never readable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from esl_apps.config.model import Rule
from esl_apps.core.cards import CallerId, Card
from esl_apps.core.faults import Refused
from esl_apps.core.limits import Limits
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys
from esl_apps.store.cards import CardStore, IdTaken, Taken, hash_pin
from esl_apps.store.redis_client import connect
from esl_apps.store.stale import Stale
from esl_apps.store.timed_calls import TimedCalls
from esl_apps.store.usage import UsageStore
from tests.support.node import RedisServer
from tests.support.ports import free_port
from tests.support.threads import at_once
from tests.unit.store.conftest import ACCOUNTS, PIN_KEY, PLAN, commands, everything

PIN, OTHER_PIN = "482190735", "111222333444"
#: Digits to str.isdigit(), but not to a telephone.
FULLWIDTH = "\uff14\uff18\uff12\uff11\uff19\uff10\uff17\uff13\uff15"


def refusal(action: Callable[[], object]) -> list[tuple[str, str]]:
    """The (field, code) pairs of a refusal."""
    with pytest.raises(Refused) as refused:
        action()
    return [(fault.field, fault.code) for fault in refused.value.faults]


def stores(connect: Callable[[], Any], count: int) -> list[CardStore]:
    return [CardStore(connect(), PIN_KEY, PLAN, ACCOUNTS) for _ in range(count)]


# Uniqueness ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [{"pin": PIN}, {"cid": "0820001234"}])
def test_create_of_one_claim_by_ten_at_once_makes_one_card(connect: Callable[[], Any], claim: dict[str, str]) -> None:
    nodes = stores(connect, 10)
    accounts = ["acme", "other"]
    results = at_once([partial(nodes[i].create, accounts[i % 2], claim) for i in range(10)])
    refused = [result for result in results if isinstance(result, Refused)]
    assert len(refused) == 9, results
    assert all(fault.field == "cccp" and fault.code == "unique" for one in refused for fault in one.faults)
    assert sum(len(nodes[0].page(account, 100)[0]) for account in accounts) == 1


def test_update_of_ten_cards_to_one_pin_changes_one(connect: Callable[[], Any], cards: CardStore) -> None:
    made = [cards.create("acme", {"pin": str(900000000 + i)}) for i in range(10)]
    nodes = stores(connect, 10)
    results = at_once([partial(nodes[i].update, "acme", made[i].id, {"pin": PIN}, merge=True) for i in range(10)])
    winners = [result for result in results if not isinstance(result, Refused)]
    assert len(winners) == 1, results
    winner = cards.by_pin(PIN)
    assert winner is not None
    assert winner == winners[0]
    # The others kept their PINs, and the winner's old PIN is free.
    for i, card in enumerate(made):
        assert cards.by_pin(str(900000000 + i)) == (None if card.id == winner.id else card)


def test_update_by_several_at_once_keeps_all_changes(connect: Callable[[], Any], cards: CardStore) -> None:
    card = cards.create("acme", {"pin": PIN})
    changes: list[dict[str, Any]] = [{"active": True}, {"retain_cid": True}, {"comment": "c"}, {"user_id": "u1"}]
    nodes = stores(connect, 4)
    at_once([partial(nodes[i].update, "acme", card.id, changes[i], merge=True) for i in range(4)])
    found = cards.by_pin(PIN)
    assert found is not None
    assert (found.active, found.retain_cid, found.comment, found.user_id) == (True, True, "c", "u1")


def test_update_does_not_undo_a_pin_moved_meanwhile(connect: Callable[[], Any], cards: CardStore) -> None:
    card = cards.create("acme", {"pin": PIN})
    one, two = stores(connect, 2)
    for _ in range(50):
        at_once(
            [
                lambda: one.update("acme", card.id, {"pin": OTHER_PIN}, merge=True),
                lambda: two.update("acme", card.id, {"active": True}, merge=True),
            ]
        )
        assert cards.by_pin(PIN) is None
        assert cards.by_pin(OTHER_PIN) is not None
        cards.update("acme", card.id, {"pin": PIN, "active": False}, merge=True)


@pytest.mark.parametrize("text", ["0820001234", "+27820001234", "27820001234"])
def test_number_written_in_another_form_is_the_same_claim(cards: CardStore, text: str) -> None:
    first = cards.create("acme", {"cid": "0820001234"})
    assert first.cid == "27820001234"
    assert refusal(lambda: cards.create("other", {"cid": text})) == [("cccp", "unique")]
    second = cards.create("other", {"pin": PIN})
    assert refusal(lambda: cards.update("other", second.id, {"cid": text}, merge=True)) == [("cccp", "unique")]
    assert refusal(lambda: cards.update("other", second.id, {"cid": text}, merge=False)) == [("cccp", "unique")]
    # A card may be written with its own number again.
    assert cards.update("acme", first.id, {"cid": text, "active": True}, merge=False) is not None


def test_card_is_found_by_any_form_of_its_number(cards: CardStore, client: Any) -> None:
    card = cards.create("acme", {"cid": "+5491112345678"})
    assert cards.by_number("541112345678") == cards.by_number("5491112345678") == card
    assert refusal(lambda: cards.create("acme", {"cid": "+541112345678"})) == [("cccp", "unique")]
    # As an earlier version stored it.
    client.hset(keys.CARDS, "c5491187654321", client.hget(keys.CARDS, "c541112345678"))
    assert cards.by_number("5491187654321") is not None


def test_refusal_does_not_say_whose_the_claim_is(cards: CardStore) -> None:
    card = cards.create("acme", {"pin": PIN, "comment": "the boss"})
    with pytest.raises(Refused) as refused:
        cards.create("other", {"pin": PIN})
    for secret in (PIN, card.id, "acme", "boss"):
        assert secret not in f"{refused.value} {refused.value.faults}"


def test_claim_of_a_deleted_card_is_free(cards: CardStore) -> None:
    card = cards.create("acme", {"pin": PIN})
    assert cards.delete("acme", card.id) == card
    assert cards.delete("acme", card.id) is None
    assert cards.by_pin(PIN) is None
    assert cards.create("other", {"pin": PIN}).account_id == "other"


# The PIN ---------------------------------------------------------------------------------------------


def test_pin_is_stored_and_logged_nowhere(cards: CardStore, server: RedisServer) -> None:
    made = cards.create("acme", {"pin": PIN, "active": True})
    cards.update("acme", made.id, {"pin": OTHER_PIN, "comment": "x"}, merge=True)
    found = cards.by_pin(OTHER_PIN)
    shown = f"{made} {found} {cards.page('acme', 10)} {cards.get('acme', made.id)}"
    for pin in (PIN, OTHER_PIN):
        assert pin not in everything(server)
        assert pin not in shown
        assert hash_pin(PIN_KEY, pin) not in shown
    assert hash_pin(PIN_KEY, OTHER_PIN) in everything(server)
    assert hash_pin(PIN_KEY, PIN) not in everything(server)


def test_pin_under_another_key_finds_nothing(cards: CardStore, client: Any) -> None:
    cards.create("acme", {"pin": PIN})
    assert CardStore(client, "another-key", PLAN, ACCOUNTS).by_pin(PIN) is None


def test_store_without_a_key_has_no_pins(client: Any) -> None:
    cards = CardStore(client, None, PLAN, ACCOUNTS)
    assert refusal(lambda: cards.create("acme", {"pin": PIN})) == [("pin", "forbidden")]
    assert cards.by_pin(PIN) is None
    assert cards.create("acme", {"cid": "0820001234"}).cid == "27820001234"


def test_hash_pin_is_the_hmac_of_rfc_4231() -> None:
    # Test case 2 of RFC 4231, so that other programs compute the same.
    assert hash_pin("Jefe", "what do ya want for nothing?") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


# Fields ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, ("cccp", "required")),
        ({"pin": None}, ("cccp", "required")),
        ({"pin": PIN, "cid": "0820001234"}, ("cccp", "oneOf")),
        ({"pin": "12345678"}, ("pin", "pattern")),
        ({"pin": "1234567890123"}, ("pin", "pattern")),
        ({"pin": FULLWIDTH}, ("pin", "pattern")),
        ({"pin": PIN + "\n"}, ("pin", "pattern")),
        ({"pin": 482190735}, ("pin", "pattern")),
        ({"pin": True}, ("pin", "pattern")),
        ({"cid": "anonymous"}, ("cid", "pattern")),
        ({"cid": "0820001234\n"}, ("cid", "pattern")),
        ({"cid": "+27820001234%0A"}, ("cid", "pattern")),
        ({"cid": 27820001234}, ("cid", "pattern")),
        ({"cid": ""}, ("cid", "pattern")),
        ({"cid": "112"}, ("cid", "forbidden")),
        ({"pin": PIN, "user_id": "a b"}, ("user_id", "pattern")),
        ({"pin": PIN, "user_id": "u\n"}, ("user_id", "pattern")),
        ({"pin": PIN, "user_id": "}{"}, ("user_id", "pattern")),
        ({"pin": PIN, "user_id": 7}, ("user_id", "pattern")),
        ({"pin": PIN, "active": "yes"}, ("active", "type")),
        ({"pin": PIN, "active": 1}, ("active", "type")),
        ({"pin": PIN, "retain_cid": "true"}, ("retain_cid", "type")),
        ({"pin": PIN, "max_concurrent_calls_per_user": -1}, ("max_concurrent_calls_per_user", "minimum")),
        ({"pin": PIN, "max_concurrent_calls_per_user": 1.5}, ("max_concurrent_calls_per_user", "minimum")),
        ({"pin": PIN, "max_concurrent_calls_per_user": True}, ("max_concurrent_calls_per_user", "minimum")),
        ({"pin": PIN, "max_concurent_calls_per_user": 1 << 70}, ("max_concurrent_calls_per_user", "minimum")),
        ({"pin": PIN, "comment": "x" * 256}, ("comment", "maxLength")),
        ({"pin": PIN, "comment": ["x"]}, ("comment", "maxLength")),
        ({"pin": PIN, "actve": True}, ("actve", "additionalProperties")),
    ],
)
def test_create_with_a_wrong_field_stores_nothing(
    cards: CardStore, server: RedisServer, fields: dict[str, Any], fault: tuple[str, str]
) -> None:
    assert refusal(lambda: cards.create("acme", fields)) == [fault]
    assert everything(server) == "[]"


def test_create_with_several_faults_names_each(cards: CardStore) -> None:
    faults = refusal(lambda: cards.create("acme", {"pin": "1", "active": "x", "comment": 1}))
    assert faults == [("pin", "pattern"), ("active", "type"), ("comment", "maxLength")]


def test_card_without_fields_has_the_defaults(cards: CardStore) -> None:
    card = cards.create("acme", {"pin": PIN})
    assert (card.active, card.retain_cid, card.max_concurrent_calls_per_user) == (False, False, 1)
    assert (card.user_id, card.cid, card.comment) == (None, None, "")
    assert len(card.id) == 32
    assert cards.by_pin(PIN) == cards.get("acme", card.id) == card


def test_kazoos_spellings_are_accepted(cards: CardStore) -> None:
    card = cards.create("acme", {"cid": "0820001234", "max_concurent_calls_per_user": 4, "cid_retain": True})
    assert (card.max_concurrent_calls_per_user, card.retain_cid) == (4, True)
    both = {"max_concurent_calls_per_user": 4, "max_concurrent_calls_per_user": 2}
    changed = cards.update("acme", card.id, both, merge=True)
    assert changed is not None
    assert changed.max_concurrent_calls_per_user == 2


def test_patch_merges_and_null_removes(cards: CardStore) -> None:
    card = cards.create("acme", {"cid": "0820001234", "active": True, "user_id": "u1", "comment": "c"})
    changed = cards.update("acme", card.id, {"comment": None, "max_concurrent_calls_per_user": 0}, merge=True)
    assert changed is not None
    assert (changed.active, changed.user_id, changed.comment) == (True, "u1", "")
    assert changed.max_concurrent_calls_per_user == 0
    assert changed.cid == "27820001234"
    assert cards.by_number("27820001234") == changed
    assert refusal(lambda: cards.update("acme", card.id, {"cid": None}, merge=True)) == [("cccp", "required")]


def test_post_replaces_all_but_the_pin(cards: CardStore) -> None:
    card = cards.create("acme", {"pin": PIN, "active": True, "user_id": "u1"})
    changed = cards.update("acme", card.id, {"comment": "new"}, merge=False)
    assert changed is not None
    assert (changed.active, changed.user_id, changed.comment) == (False, None, "new")
    assert cards.by_pin(PIN) == changed
    known = cards.create("acme", {"cid": "0820001234"})
    assert refusal(lambda: cards.update("acme", known.id, {"active": True}, merge=False)) == [("cccp", "required")]


def test_card_changes_from_pin_to_number_and_back(cards: CardStore) -> None:
    card = cards.create("acme", {"pin": PIN})
    cards.update("acme", card.id, {"cid": "0820001234"}, merge=True)
    assert cards.by_pin(PIN) is None
    found = cards.by_number("27820001234")
    assert found is not None
    assert found.id == card.id
    cards.update("acme", card.id, {"pin": OTHER_PIN, "cid": None}, merge=True)
    assert cards.by_number("27820001234") is None
    assert cards.by_pin(OTHER_PIN) == cards.get("acme", card.id)


def test_card_of_another_account_is_not_found(cards: CardStore) -> None:
    card = cards.create("acme", {"pin": PIN})
    assert cards.get("other", card.id) is None
    assert cards.update("other", card.id, {"active": True}, merge=True) is None
    assert cards.delete("other", card.id) is None
    assert cards.page("other", 10) == ([], None)
    assert cards.by_pin(PIN) == card


def test_pages_have_each_card_once_in_order_of_creation(cards: CardStore) -> None:
    made = []
    for i in range(7):
        made.append(cards.create("acme", {"pin": str(100000000 + i)}))
        time.sleep(0.002)
    seen, after = [], None
    while True:
        some, after = cards.page("acme", 3, after)
        seen += some
        if after is None:
            break
    assert seen == made


def test_id_that_exists_is_refused(cards: CardStore) -> None:
    id = "0" * 31 + "a"
    assert cards.create("acme", {"pin": PIN}, id).id == id
    with pytest.raises(IdTaken):
        cards.create("other", {"pin": OTHER_PIN}, id)
    assert cards.by_pin(OTHER_PIN) is None


# Looking up ------------------------------------------------------------------------------------------


def test_look_up_is_one_command_found_or_not(alone: RedisServer) -> None:
    alone.client.flushall()
    cards = CardStore(connect(alone.url), PIN_KEY, PLAN, ACCOUNTS)
    cards.create("acme", {"pin": PIN})
    cards.create("acme", {"cid": "0820001234"})
    for ask in (
        lambda: cards.by_pin(PIN),
        lambda: cards.by_pin(OTHER_PIN),
        lambda: cards.by_number("27820001234"),
        lambda: cards.by_number("27820009999"),
    ):
        assert commands(alone, ask) == 1
    assert commands(alone, lambda: cards.account("acme")) == 0


@pytest.mark.parametrize("typed", ["", "#", "4821907", "*" * 40, "482190735 ", "p" * 64])
def test_text_that_is_not_a_pin_finds_nothing(cards: CardStore, typed: str) -> None:
    cards.create("acme", {"pin": PIN})
    assert cards.by_pin(typed) is None


def test_number_never_finds_a_card_with_a_pin(cards: CardStore) -> None:
    cards.create("acme", {"pin": PIN})
    assert cards.by_number(hash_pin(PIN_KEY, PIN)) is None
    assert cards.by_number(PIN) is None


def test_last_number_is_deleted_with_its_card(cards: CardStore, server: RedisServer) -> None:
    card = cards.create("acme", {"pin": PIN, "active": True})
    assert cards.last_number(card.id) is None
    assert cards.dial(card, "27820009999") == card
    assert cards.dial(card, "1001") == card
    assert cards.last_number(card.id) == "1001"
    cards.delete("acme", card.id)
    # The call goes on, and the caller may dial another number.
    assert cards.dial(card, "27820009999") is None
    assert cards.last_number(card.id) is None
    assert everything(server) == "[]"


@pytest.mark.parametrize(
    "change", [{"pin": OTHER_PIN}, {"cid": "0820005555"}, {"user_id": "u2"}, {"active": False}, {"comment": "new"}]
)
def test_last_number_of_a_card_that_has_changed_waits(cards: CardStore, change: dict[str, Any]) -> None:
    """Its session checks the number by the card as it is now, and notes it then."""
    before = cards.create("acme", {"pin": PIN, "active": True})
    changed = cards.update("acme", before.id, change, merge=True)
    assert changed is not None
    assert cards.dial(before, "27820009999") == changed
    assert cards.last_number(before.id) is None
    assert cards.dial(changed, "27820009999") == changed
    assert cards.last_number(before.id) == ("27820009999" if changed.active else None)


def test_last_number_of_a_stored_card_of_another_version(cards: CardStore, client: Any) -> None:
    claim = "p" + hash_pin(PIN_KEY, PIN)
    made = cards.create("acme", {"pin": PIN, "active": True})
    client.hset(keys.CARDS, claim, client.hget(keys.CARDS, claim)[:-1] + b',"later",{"v":2}]')
    card = cards.by_pin(PIN)
    assert card is not None
    assert card != made
    assert cards.dial(card, "27820009999") == card
    assert cards.last_number(card.id) == "27820009999"


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"cid": "0820005555"}, False),
        ({"pin": OTHER_PIN}, False),
        ({"user_id": "u2"}, False),
        ({"user_id": None}, False),
        ({"pin": PIN, "user_id": "u1", "comment": "kept"}, True),
        ({"user_id": "u1", "active": False}, True),
    ],
)
def test_last_number_is_not_the_next_holders(cards: CardStore, change: dict[str, Any], kept: bool, merge: bool) -> None:
    card = cards.create("acme", {"pin": PIN, "user_id": "u1", "active": True})
    cards.dial(card, "27820009999")
    assert cards.update("acme", card.id, {"user_id": "u1", **change}, merge=merge) is not None
    assert cards.last_number(card.id) == ("27820009999" if kept else None)


def test_last_number_stays_if_the_claim_is_taken(cards: CardStore) -> None:
    card = cards.create("acme", {"pin": PIN, "active": True})
    cards.create("acme", {"pin": OTHER_PIN})
    cards.dial(card, "27820009999")
    assert refusal(lambda: cards.update("acme", card.id, {"pin": OTHER_PIN}, merge=True)) == [("cccp", "unique")]
    assert cards.last_number(card.id) == "27820009999"


# Accounts and settings -------------------------------------------------------------------------------


def test_configured_account_hides_an_imported_one(cards: CardStore) -> None:
    cards.put_account("acme", name="x", realm="x", caller_id="+27110000000", caller_id_name=None, call_restriction={})
    acme = cards.account("acme")
    assert acme is not None
    assert (acme.caller_id, acme.caller_id_name, acme.caller_ids) == ("+27115550000", "Acme", ("+27115550001",))
    assert acme.realm == "acme.example"
    assert acme.call_restriction["international"].action == "deny"
    assert acme.users["u1"]["mobile"].action == "deny"
    assert acme.limits == Limits(calls_per_hour=100)
    assert cards.card_limits("acme") == Limits(longest_call=600)
    assert cards.card_limits("other") is None
    assert cards.account("nobody") is None


def test_imported_account_has_its_users_rules(cards: CardStore) -> None:
    denied = {"premium": Rule("deny")}
    # A user may be imported before its account.
    cards.put_user("kazoo", "u1", denied)
    assert cards.account("kazoo") is None
    cards.put_account(
        "kazoo", name="K", realm="k.example", caller_id="+27110000000", caller_id_name="Kay", call_restriction=denied
    )
    found = cards.account("kazoo")
    assert found is not None
    assert (found.name, found.realm, found.caller_id, found.caller_id_name) == (
        "K",
        "k.example",
        "+27110000000",
        "Kay",
    )
    assert found.call_restriction == denied
    assert (found.users, found.user_caller_ids) == ({"u1": denied}, {})
    shown = CallerId("+27110000001", "Zo\u00eb")
    cards.put_user("kazoo", "u1", {}, shown)
    found = cards.account("kazoo")
    assert found is not None
    assert (found.users, found.user_caller_ids) == ({}, {"u1": shown})
    cards.put_user("kazoo", "u1", {})
    assert cards.account("kazoo").user_caller_ids == {}  # type: ignore[union-attr]
    cards.close_account("kazoo")
    assert cards.account("kazoo") is None


def test_system_config_is_what_was_imported(cards: CardStore) -> None:
    assert cards.system_config("cccp") == {}
    cards.put_system_config("cccp", {"callback_delay": 5})
    assert cards.system_config("cccp") == {"callback_delay": 5}


# Redis down ------------------------------------------------------------------------------------------


def test_every_method_raises_while_redis_is_down(away: Any) -> None:
    cards = CardStore(away, PIN_KEY, PLAN, ACCOUNTS)
    asked: list[Callable[[], object]] = [
        lambda: cards.by_pin(PIN),
        lambda: cards.by_number("27820001234"),
        lambda: cards.account("kazoo"),
        lambda: cards.last_number("c"),
        lambda: cards.dial(Card("c", "acme", None, None, active=True), "1"),
        lambda: cards.create("acme", {"pin": PIN}),
        lambda: cards.update("acme", "c", {"pin": PIN}, merge=True),
        lambda: cards.get("acme", "c"),
        lambda: cards.delete("acme", "c"),
        lambda: cards.page("acme", 1),
        lambda: cards.system_config("cccp"),
    ]
    for ask in asked:
        with pytest.raises(StoreUnavailable) as error:
            ask()
        assert PIN not in str(error.value)
    # Configured accounts don't need Redis.
    assert cards.account("acme") is not None


def test_stores_are_built_while_redis_is_down() -> None:
    client = connect(f"redis+cluster://127.0.0.1:{free_port()}")
    cards = CardStore(client, PIN_KEY, PLAN, ACCOUNTS)
    UsageStore(client, "one")
    TimedCalls(client, "one", "callbacks")
    with pytest.raises(StoreUnavailable):
        cards.by_pin(PIN)
    with pytest.raises(StoreUnavailable):
        cards.create("acme", {"pin": PIN})


def test_card_has_a_language_of_those_that_there_are(client: Any) -> None:
    cards = CardStore(client, PIN_KEY, PLAN, ACCOUNTS, languages=["en", "fr"])
    made = cards.create("acme", {"pin": PIN, "language": "fr"})
    assert cards.get("acme", made.id) == made
    assert made.language == "fr"
    wrong: list[tuple[object, str]] = [("de", "enum"), ("../fr", "pattern"), (7, "pattern")]
    for value, kind in wrong:
        given = {"pin": OTHER_PIN, "language": value}
        assert refusal(partial(cards.create, "acme", given)) == [("language", kind)]
    unset = cards.update("acme", made.id, {"language": None}, merge=True)
    assert unset is not None
    assert unset.language is None


def test_card_of_an_older_version_has_no_language(client: Any, cards: CardStore) -> None:
    claim = "p" + hash_pin(PIN_KEY, PIN)
    client.hset(keys.CARDS, claim, json.dumps(["0" * 32, "acme", "u1", True, False, 1, "c"]))
    card = cards.by_pin(PIN)
    assert card is not None
    assert (card.comment, card.language) == ("c", None)


def test_stored_card_is_small(cards: CardStore, server: RedisServer) -> None:
    made = cards.create("acme", {"pin": PIN, "active": True, "user_id": "u1"})
    document = server.client.hget(keys.CARDS, "p" + hash_pin(PIN_KEY, PIN))
    assert json.loads(document) == [made.id, "acme", "u1", True, False, 1, "", None]


# Stale answers --------------------------------------------------------------------------------------------


def test_stale_cards_open_for_a_while_if_allowed() -> None:
    now = [1000.0]
    server = RedisServer(persistent=True)
    try:
        client = connect(server.url)
        cards = CardStore(client, PIN_KEY, PLAN, {}, stale=Stale(60, lambda: now[0]))
        closed = CardStore(client, PIN_KEY, PLAN, {})
        for store in (cards, closed):
            store.put_account("imported", name="", realm="", caller_id=None, caller_id_name=None, call_restriction={})
        one = cards.create("imported", {"cid": "27820001234", "active": True})
        gone = cards.create("imported", {"pin": PIN, "active": True})
        other = cards.create("imported", {"pin": "123456789", "active": True})
        for store in (cards, closed):
            assert store.by_number("27820001234") == one
            assert store.by_pin(PIN) == gone
            assert store.account("imported") is not None
        cards.delete("imported", gone.id)
        assert cards.by_pin(PIN) is None
        server.kill()
        assert cards.by_number("27820001234") == one
        assert cards.get("imported", one.id) == one
        assert cards.account("imported") is not None
        assert cards.dial(one, "27820001235") == one
        asks: list[Callable[[], object]] = [
            lambda: cards.by_pin(PIN),
            lambda: cards.by_pin("123456789"),
            lambda: cards.get("imported", other.id),
            lambda: closed.by_number("27820001234"),
            lambda: closed.dial(one, "27820001235"),
        ]
        for ask in asks:
            with pytest.raises(StoreUnavailable):
                ask()
        now[0] += 61
        with pytest.raises(StoreUnavailable):
            cards.by_number("27820001234")
    finally:
        server.close()


def test_stale_answers_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_apps.store.stale._STALE_MOST", 3)
    stale = Stale(60)
    for number in range(5):
        stale.ask(str(number), lambda number=number: number)  # type: ignore[misc]

    def away() -> int:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        stale.ask("1", away)
    assert stale.ask("2", away) == 2


# Another key --------------------------------------------------------------------------------------------

NEW_KEY = "another-key-for-tests"


@pytest.fixture
def rotated(connect: Callable[[], Any]) -> CardStore:
    """A node whose key was replaced."""
    return CardStore(connect(), NEW_KEY, PLAN, ACCOUNTS, old_key=PIN_KEY)


def test_pin_of_the_old_key_opens_and_is_hashed_again(cards: CardStore, rotated: CardStore, connect: Any) -> None:
    card = cards.create("acme", {"pin": PIN, "active": True, "comment": "kept"})
    cards.dial(card, "27820001234")
    found = rotated.by_pin(PIN)
    assert found is not None
    assert (found.id, found.comment, found.claim) == (card.id, "kept", "p" + hash_pin(NEW_KEY, PIN))
    assert rotated.get("acme", card.id) == found
    assert rotated.last_number(card.id) == "27820001234"
    # From now on the old key isn't needed.
    assert cards.by_pin(PIN) is None
    assert CardStore(connect(), NEW_KEY, PLAN, ACCOUNTS).by_pin(PIN) == found


def test_pin_key_of_nodes_that_take_both_may_differ(cards: CardStore, rotated: CardStore, connect: Any) -> None:
    """While the change goes from node to node, each has its own first key; no call sees a difference."""
    other = CardStore(connect(), PIN_KEY, PLAN, ACCOUNTS, old_key=NEW_KEY)
    card = cards.create("acme", {"pin": PIN})
    for store in (rotated, other, other, rotated, rotated):
        found = store.by_pin(PIN)
        assert found is not None
        assert found.id == card.id


@pytest.mark.parametrize("change", ["create", "update"])
def test_pin_that_a_card_has_by_the_old_key_is_taken(cards: CardStore, rotated: CardStore, change: str) -> None:
    cards.create("other", {"pin": PIN})
    if change == "create":
        assert refusal(lambda: rotated.create("acme", {"pin": PIN})) == [("cccp", "unique")]
    else:
        card = rotated.create("acme", {"pin": OTHER_PIN})
        assert refusal(lambda: rotated.update("acme", card.id, {"pin": PIN}, merge=True)) == [("cccp", "unique")]
    with pytest.raises(Taken) as taken:
        rotated.create("acme", {"pin": PIN})
    assert taken.value.account_id == "other"


def test_card_may_be_given_the_pin_that_it_has_by_the_old_key(cards: CardStore, rotated: CardStore) -> None:
    card = cards.create("acme", {"pin": PIN, "active": True})
    cards.dial(card, "27820001234")
    changed = rotated.update("acme", card.id, {"pin": PIN}, merge=True)
    assert changed is not None
    assert changed.claim == "p" + hash_pin(NEW_KEY, PIN)
    assert rotated.last_number(card.id) == "27820001234"
    assert cards.by_pin(PIN) is None


def test_right_pin_and_wrong_pin_take_as_many_commands(
    cards: CardStore, rotated: CardStore, server: RedisServer
) -> None:
    """Otherwise the time of an answer would tell a PIN that exists from one that doesn't."""
    cards.create("acme", {"pin": PIN})
    rotated.create("acme", {"pin": OTHER_PIN})
    rotated.by_pin(OTHER_PIN)
    wrong = commands(server, lambda: rotated.by_pin("999888777"))
    assert commands(server, lambda: rotated.by_pin(OTHER_PIN)) == wrong


# Other versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("merge", [True, False])
def test_update_keeps_what_a_later_version_has_stored(cards: CardStore, client: Any, merge: bool) -> None:
    card = cards.create("acme", {"pin": PIN})
    raw = client.hget(keys.CARDS, card.claim)
    client.hset(keys.CARDS, card.claim, raw[:-1] + b',"later",{"x":1},{"v":2}]')
    changed = cards.update("acme", card.id, {"comment": "lost", "pin": OTHER_PIN}, merge=merge)
    assert changed is not None
    stored = json.loads(client.hget(keys.CARDS, changed.claim))
    assert stored == [card.id, "acme", None, False, False, 1, "lost", None, "later", {"x": 1}, {"v": 2}]


def test_card_two_versions_ahead_opens_nothing_and_stays(cards: CardStore, client: Any, refusals: Any) -> None:
    card = cards.create("acme", {"pin": PIN, "active": True})
    later = client.hget(keys.CARDS, card.claim)[:-1] + b',{"v":3}]'
    client.hset(keys.CARDS, card.claim, later)
    asks: list[Callable[[], object]] = [
        lambda: cards.by_pin(PIN),
        lambda: cards.get("acme", card.id),
        lambda: cards.update("acme", card.id, {"comment": "x"}, merge=True),
    ]
    for ask in asks:
        with pytest.raises(StoreUnavailable, match="a card is of version 3, this node reads 1 to 2"):
            ask()
    assert client.hget(keys.CARDS, card.claim) == later
    assert refusals.current() != []


def test_put_account_keeps_what_a_later_version_has_stored(cards: CardStore, client: Any) -> None:
    fields: dict[str, Any] = {"realm": "r", "caller_id": None, "caller_id_name": None, "call_restriction": {}}
    cards.put_account("imported", name="one", **fields)
    raw = client.hget(keys.account("imported"), "account")
    client.hset(keys.account("imported"), "account", raw[:-1] + b',"later":[1],"v":2}')
    cards.put_account("imported", name="two", **fields)
    stored = json.loads(client.hget(keys.account("imported"), "account"))
    assert (stored["name"], stored["later"], stored["v"]) == ("two", [1], 2)
    client.hset(keys.account("imported"), "account", raw[:-1] + b',"v":3}')
    with pytest.raises(StoreUnavailable):
        cards.put_account("imported", name="three", **fields)
