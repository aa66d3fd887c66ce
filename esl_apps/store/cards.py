"""Cards and accounts in Redis, shared by all nodes.

A card is found by its *claim*: the keyed hash of its PIN, or its caller number. One Redis hash maps claims to cards, so
each look-up is one HGET for any number of cards, and claims are unique over all accounts. The PIN itself is stored
nowhere: not in the document, not in the claim (HMAC-SHA256, whose key is in the configuration only), and it appears in
no answer and no log.

All keys of cards share a hash tag, so they are on one slot of a cluster. The reason: moving a card to another PIN takes
the new claim, releases the old one and changes the id's pointer, in one step. Spread over slots these would be three
steps, with a repair for every way to die between them, and a half-moved card may be used for calls at the wrong
account's expense. With a million cards the slot holds about half a gigabyte and answers 100,000 look-ups a second, of
which a call needs one or two.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from esl_apps.config import model
from esl_apps.core.call_fields import Language
from esl_apps.core.cards import Card
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.number_classes import subscriber
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import NumberPlan
from esl_apps.core.reference import new_ref
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import CARD
from esl_apps.store import documents, keys
from esl_apps.store.accounts import AccountStore
from esl_apps.store.card_fields import CHECKS, PIN, spelled
from esl_apps.store.errors import read_text
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script
from esl_apps.store.stale import Stale

log = logging.getLogger(__name__)

_KEYS = keys.CARDS, keys.CARD_IDS, keys.LAST_NUMBERS
#: How often an update is tried when others change the same card at the same time.
_TRIES = 20


class IdTaken(Exception):
    """A card with this id exists already."""


class Taken(Refused):
    """A card has this PIN or number already."""

    def __init__(self, claim: str, account_id: str) -> None:
        # Don't say whose: confirming that a PIN exists gives away half of it.
        what = "PIN" if claim.startswith("p") else "CID"
        super().__init__([Fault("cccp", "unique", f"{what} already exists")])
        self.account_id = account_id
        """The account that has it, for the guard only; empty: its card has just been deleted."""


class _Document(msgspec.Struct, array_like=True):
    """A card as it is stored. Its claim is the key, not part of it."""

    id: str
    account_id: str
    user_id: str | None = None
    active: bool = False
    retain_cid: bool = False
    max_concurrent_calls_per_user: int = 1
    comment: str = ""
    language: Language | None = None


def hash_pin(key: str, pin: str) -> str:
    """The keyed hash of a PIN (HMAC-SHA256, 64 hex digits), as it is stored and as ``pin_hash`` of a DISA."""
    return hmac.digest(key.encode(), pin.encode(), hashlib.sha256).hex()


def _seen(account_id: str, id: str) -> str:
    return f"i{account_id}/{id}"


class CardStore(AccountStore):
    """Cards, accounts and imported settings. Every method that asks Redis raises :class:`StoreUnavailable`."""

    def __init__(
        self,
        client: Client,
        pin_key: str | None,
        plan: NumberPlan,
        accounts: Mapping[str, model.Account],
        *,
        stale: Stale | None = None,
        old_key: str | None = None,
        languages: Collection[str] | None = None,
    ) -> None:
        """``pin_key``: None if PINs are not used; then none is found and none can be set. ``accounts``, ``stale``: as
        :class:`AccountStore`'s. ``old_key``: another key with which PINs may be hashed, while the key is replaced.
        ``languages``: those that a card may have; None: any."""
        self._languages = languages
        self._pin_key = pin_key
        self._old_key = old_key or None
        self._plan = plan
        super().__init__(client, accounts, stale)
        self._create = Script(client, "card_create")
        self._replace = Script(client, "card_replace")
        self._read = Script(client, "cards_read")
        self._page = Script(client, "cards_page")
        self._delete = Script(client, "card_delete")
        self._dial = Script(client, "card_dial")

    # During a call ----------------------------------------------------------------------------------

    def by_pin(self, pin: str) -> Card | None:
        """The card of a PIN, active or not. One look-up, the same for a PIN that exists and one that does not."""
        return None if self._pin_key is None else self._by_claim("p" + hash_pin(self._pin_key, pin), self._old(pin))

    def by_number(self, e164: str) -> Card | None:
        """The card of a caller number (E.164 digits, or an extension), active or not. One HGET for most numbers."""
        canonical = subscriber(e164)
        card = self._by_claim("c" + canonical)
        if card is None and canonical != e164:
            # A card from before all forms of a subscriber's number were one.
            card = self._by_claim("c" + e164)
        return card

    def _by_claim(self, claim: str, old: str = "") -> Card | None:
        """``old``: the same PIN's claim by the old key."""

        def ask() -> Card | None:
            if not old:
                raw = self._client.hget(keys.CARDS, claim)
                return None if raw is None else _card(claim, raw)
            raw, raw_old = self._client.execute_command("HMGET", keys.CARDS, claim, old)
            if raw is None and raw_old is not None:
                return self._hashed_again(old, raw_old, claim)
            return None if raw is None else _card(claim, raw)

        card = self._stale.ask(claim, ask)
        if card is not None:
            self._stale.keep(_seen(card.account_id, card.id), card)
        return card

    def _hashed_again(self, old: str, raw: bytes, claim: str) -> Card:
        """Move a card to its PIN's claim by the present key, unless it changes at this moment."""
        card = _card(old, raw)
        moved = self._replace(_KEYS, [card.id, old, raw, claim, raw, "", ""]) > 0
        if moved:
            log.info("pin_hashed_again", extra={"card": card.id})
        return _card(claim, raw) if moved else card

    def _old(self, pin: object) -> str:
        """A PIN's claim by the old key; empty if there is none."""
        if self._old_key is None or not isinstance(pin, str) or not PIN.fullmatch(pin):
            return ""
        return "p" + hash_pin(self._old_key, pin)

    def last_number(self, card_id: str) -> str | None:
        raw = self._client.hget(keys.LAST_NUMBERS, card_id)
        return None if raw is None else read_text(raw)

    # For operators ----------------------------------------------------------------------------------

    def create(self, account_id: str, fields: Mapping[str, Any], id: str | None = None) -> Card:
        """Create a card from a document's ``fields`` as Crossbar has them; ``id``: the one that it had in Kazoo.

        :raises Refused: a field is wrong, or (``cccp``, ``unique``) a card of any account has this PIN or number.
        :raises IdTaken: a card has this id.
        """
        claim, document = self._draft(fields, _Document(id or new_ref().replace("-", ""), account_id), None)
        raw = documents.encode(CARD, document)
        old = self._old(fields.get("pin"))
        made = self._create([keys.CARDS, keys.CARD_IDS, keys.cards_of(account_id)], [claim, document.id, raw, old])
        if made < 0:
            raise IdTaken(document.id)
        if not made:
            raise self._taken(claim, old)
        return _card(claim, raw)

    def check(self, fields: Mapping[str, Any]) -> None:
        """Check a document's fields without a look at other cards. :raises Refused: a field is wrong."""
        self._draft(fields, _Document("", ""), "unknown")

    def get(self, account_id: str, id: str) -> Card | None:
        """A card of this account, or None, for other accounts' cards, too."""
        return self._stale.ask(_seen(account_id, id), lambda: _card_of(self._find(account_id, id)))

    def dial(self, card: Card, number: str) -> Card | None:
        """As :meth:`get`, and note the card's last number in the same round trip if the card is active and unchanged.
        (With ``stale`` answers while Redis is down, the last number stays as it was.)"""
        known = [card.claim, card.stored if card.active else b""]

        def ask() -> Card | None:
            return _card_of(_own(card.account_id, self._dial(_KEYS, [card.id, number, *known])))

        return self._stale.ask(_seen(card.account_id, card.id), ask)

    def update(self, account_id: str, id: str, fields: Mapping[str, Any], *, merge: bool) -> Card | None:
        """Change a card. None: this account has none with this id.

        ``merge``: fields that are not named keep their values (PATCH); otherwise they get their defaults (POST). A PIN
        is never shown, so clients can't send it back: it stays until ``pin`` or ``cid`` replaces it.

        :raises Refused: as :meth:`create`.
        """
        for _ in range(_TRIES):
            found = self._find(account_id, id)
            if found is None:
                return None
            old_claim, old_raw = found
            old = documents.decode(CARD, old_raw, _Document)
            kept = old_claim if merge or old_claim.startswith("p") else None
            claim, document = self._draft(fields, old if merge else _Document(id, account_id), kept)
            raw = documents.encode(CARD, document, documents.rest_of(old_raw, _Document))
            other = self._old(fields.get("pin"))
            # A PIN that was hashed with the old key is the same person's.
            given_on = old_claim not in (claim, other) or document.user_id != old.user_id
            done = self._replace(_KEYS, [id, old_claim, old_raw, claim, raw, other, "1" if given_on else ""])
            if done > 0:
                return _card(claim, raw)
            if not done:
                raise self._taken(claim, other)
        raise StoreUnavailable("other requests keep changing this card; try again")

    def delete(self, account_id: str, id: str) -> Card | None:
        """Delete a card and return it. None: this account has none with this id."""
        found = self._delete([keys.CARDS, keys.CARD_IDS, keys.cards_of(account_id), keys.LAST_NUMBERS], [id])
        return _card(read_text(found[0]), found[1]) if found else None

    def page(self, account_id: str, limit: int, after: str | None = None) -> tuple[list[Card], str | None]:
        """An account's cards in the order of their ids, which is that of their creation here, and the id after which
        the next page begins (None: no more)."""
        found = self._page(
            [keys.CARDS, keys.CARD_IDS, keys.cards_of(account_id)], [f"({after}" if after else "-", limit + 1]
        )
        cards = [_card(read_text(found[i]), found[i + 1]) for i in range(0, len(found), 2)]
        return cards[:limit], cards[limit - 1].id if len(cards) > limit else None

    def _taken(self, claim: str, old: str) -> Taken:
        raw = self._client.hget(keys.CARDS, claim) or (self._client.hget(keys.CARDS, old) if old else None)
        return Taken(claim, "" if raw is None else documents.decode(CARD, raw, _Document).account_id)

    def _find(self, account_id: str, id: str) -> tuple[str, bytes] | None:
        return _own(account_id, self._read([keys.CARDS, keys.CARD_IDS], [id]))

    def _draft(self, fields: Mapping[str, Any], base: _Document, claim: str | None) -> tuple[str, _Document]:
        """Apply ``fields`` to ``base``. Return the claim (``claim`` if the fields name none) and the document."""
        faults: list[Fault] = []
        given = spelled(fields, faults)
        if "pin" in given or "cid" in given:
            claim = self._claim(given, claim, faults)
        if claim is None and not faults:
            faults.append(Fault("cccp", "required", "expected pin or cid"))
        changes = {
            name: check(given[name], name, faults) for name, check in CHECKS.items() if given.get(name) is not None
        }
        language = changes.get("language")
        if language is not None and self._languages is not None and language not in self._languages:
            faults.append(Fault("language", "enum", f"expected one of {', '.join(self._languages)}"))
        # A client sends null to remove a value.
        defaults = _Document(base.id, base.account_id)
        changes |= {name: getattr(defaults, name) for name in CHECKS if name in given and given[name] is None}
        if faults:
            raise Refused(faults)
        assert claim is not None
        return claim, msgspec.structs.replace(base, **changes)

    def _claim(self, given: Mapping[str, Any], old: str | None, faults: list[Fault]) -> str | None:
        pin, cid = given.get("pin"), given.get("cid")
        if pin is not None and cid is not None:
            faults.append(Fault("cccp", "oneOf", "expected pin or cid, not both"))
        elif pin is not None:
            if not isinstance(pin, str) or not PIN.fullmatch(pin):
                faults.append(Fault("pin", "pattern", "expected 9 to 12 digits in quotes"))
            elif self._pin_key is None:
                faults.append(Fault("pin", "forbidden", "the configuration has no pin_key to hash it with"))
            else:
                return "p" + hash_pin(self._pin_key, pin)
        elif cid is not None:
            try:
                number = self._plan.read(cid if isinstance(cid, str) else "")
            except NotDialable as error:
                faults.append(Fault("cid", "pattern", str(error)))
            else:
                if not number.is_emergency:
                    return "c" + number.subscriber
                faults.append(Fault("cid", "forbidden", "is an emergency number"))
        elif old is not None and ("pin" if old.startswith("p") else "cid") not in given:
            return old
        return None


def _card(claim: str, raw: bytes) -> Card:
    document = documents.decode(CARD, raw, _Document)
    return Card(
        id=document.id,
        account_id=document.account_id,
        user_id=document.user_id,
        cid=claim[1:] if claim.startswith("c") else None,
        active=document.active,
        retain_cid=document.retain_cid,
        max_concurrent_calls_per_user=document.max_concurrent_calls_per_user,
        comment=document.comment,
        language=document.language,
        claim=claim,
        stored=raw,
    )


def _own(account_id: str, found: Sequence[bytes]) -> tuple[str, bytes] | None:
    """Claim and document that a script returned, or None if they are another account's."""
    if not found or documents.decode(CARD, found[1], _Document).account_id != account_id:
        return None
    return read_text(found[0]), found[1]


def _card_of(found: tuple[str, bytes] | None) -> Card | None:
    return None if found is None else _card(*found)
