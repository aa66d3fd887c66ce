"""Cards and accounts in Redis, shared by all nodes.

A card is found by its *claim*: the keyed hash of its PIN, or its caller number. One hash holds every card's
document under its claim, so a look-up is one HGET whatever is asked for and however many cards there are, and
a claim is unique over all accounts because a field of a hash is. The PIN itself is nowhere: not in the
document, not in the claim (HMAC-SHA256, whose key stands in the configuration only), in no answer and no log.

The keys of cards have one hash tag, so that each script's keys are on one slot of a cluster. Why one slot:
moving a card from one PIN to another takes the new claim, gives the old one back and turns the
id's pointer, and no two nodes may do half of it. Spread over slots that is three steps with a repair for every
way to die between them, and what a half-moved card costs is somebody's telephone bill. One slot holds some
half a gigabyte at a million cards and answers 100,000 look-ups a second, of which a call takes one or two.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from esl_apps.config import model
from esl_apps.core.cards import Card
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.numbers import NotDialable, NumberPlan
from esl_apps.core.reference import new_ref
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.store import keys
from esl_apps.store.accounts import AccountStore
from esl_apps.store.card_fields import _CHECKS, PIN, _spelled
from esl_apps.store.errors import read_json, read_text
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script
from esl_apps.store.stale import Stale

#: How often an update is tried when others change the same card at the same time.
_TRIES = 20


class IdTaken(Exception):
    """A card of this id is there already."""


class _Document(msgspec.Struct, array_like=True):
    """A card as it is stored: its claim is not in it."""

    id: str
    account_id: str
    user_id: str | None = None
    active: bool = False
    retain_cid: bool = False
    max_concurrent_calls_per_user: int = 1
    comment: str = ""


def hash_pin(key: str, pin: str) -> str:
    """The keyed hash of a PIN (HMAC-SHA256, 64 hex digits), as it is stored and as ``pin_hash`` of a DISA."""
    return hmac.digest(key.encode(), pin.encode(), hashlib.sha256).hex()


def _seen(account_id: str, id: str) -> str:
    return f"i{account_id}/{id}"


class CardStore(AccountStore):
    """Cards, accounts and imported settings. Every method raises :class:`StoreUnavailable` when Redis is away."""

    def __init__(
        self,
        client: Client,
        pin_key: str | None,
        plan: NumberPlan,
        accounts: Mapping[str, model.Account],
        *,
        stale: Stale | None = None,
    ) -> None:
        """``pin_key``: None where there are no PINs: none is found and none can be set. ``accounts``: those
        of the configuration, which go before imported ones of the same id. ``stale``: what is gone by while Redis
        is away; None: nothing, and nobody gets in."""
        self._pin_key = pin_key
        self._plan = plan
        super().__init__(client, accounts, stale)
        self._create = Script(client, "card_create")
        self._replace = Script(client, "card_replace")
        self._read = Script(client, "cards_read")
        self._page = Script(client, "cards_page")
        self._delete = Script(client, "card_delete")
        self._dial = Script(client, "card_dial")

    # What a call asks ---------------------------------------------------------------------------------

    def by_pin(self, pin: str) -> Card | None:
        """The card of a PIN, active or not. One HGET, the same for a PIN that exists and one that does not."""
        return None if self._pin_key is None else self._by_claim("p" + hash_pin(self._pin_key, pin))

    def by_number(self, e164: str) -> Card | None:
        """The card of a caller number (E.164 digits, or an extension), active or not. One HGET."""
        return self._by_claim("c" + e164)

    def _by_claim(self, claim: str) -> Card | None:
        def ask() -> Card | None:
            raw = self._client.hget(keys.CARDS, claim)
            return None if raw is None else _card(claim, raw)

        card = self._stale.ask(claim, ask)
        if card is not None:
            self._stale.keep(_seen(card.account_id, card.id), card)
        return card

    def last_number(self, card_id: str) -> str | None:
        raw = self._client.hget(keys.LAST_NUMBERS, card_id)
        return None if raw is None else read_text(raw)

    # What an operator does ----------------------------------------------------------------------------

    def create(self, account_id: str, fields: Mapping[str, Any], id: str | None = None) -> Card:
        """A new card from a document's ``fields`` (contract §5); ``id``: the one that it had in Kazoo.

        :raises Refused: a field is wrong, or (``cccp``, ``unique``) another card of whatever account has its
            PIN or number. :raises IdTaken: the id.
        """
        claim, document = self._draft(fields, _Document(id or new_ref().replace("-", ""), account_id), None)
        raw = msgspec.json.encode(document)
        made = self._create([keys.CARDS, keys.CARD_IDS, keys.cards_of(account_id)], [claim, document.id, raw])
        if made < 0:
            raise IdTaken(document.id)
        if not made:
            raise _taken(claim)
        return _card(claim, raw)

    def get(self, account_id: str, id: str) -> Card | None:
        """A card of this account; another account's is as one that is not there."""

        return self._stale.ask(_seen(account_id, id), lambda: _card_of(self._find(account_id, id)))

    def dial(self, account_id: str, id: str, number: str) -> Card | None:
        """As :meth:`get`, in the same round trip as the card's last number is noted. (While Redis is away, a caller
        who may dial meanwhile does so, and redial has what it had.)"""

        def ask() -> Card | None:
            return _card_of(_own(account_id, self._dial([keys.CARDS, keys.CARD_IDS, keys.LAST_NUMBERS], [id, number])))

        return self._stale.ask(_seen(account_id, id), ask)

    def update(self, account_id: str, id: str, fields: Mapping[str, Any], *, merge: bool) -> Card | None:
        """Change a card; None where this account has none of this id.

        ``merge``: what ``fields`` does not name stays (PATCH); else it gets its default (POST). A PIN is never
        shown and so can't be sent back: it stays until ``pin`` or ``cid`` is named, which takes its place.

        :raises Refused: as :meth:`create`.
        """
        for _ in range(_TRIES):
            found = self._find(account_id, id)
            if found is None:
                return None
            old_claim, old_raw = found
            old = read_json(old_raw, _Document)
            kept = old_claim if merge or old_claim.startswith("p") else None
            claim, document = self._draft(fields, old if merge else _Document(id, account_id), kept)
            raw = msgspec.json.encode(document)
            done = self._replace([keys.CARDS, keys.CARD_IDS], [id, old_claim, old_raw, claim, raw])
            if done > 0:
                return _card(claim, raw)
            if not done:
                raise _taken(claim)
        raise StoreUnavailable("the card is being changed by others without end")

    def delete(self, account_id: str, id: str) -> Card | None:
        """Delete a card; what it was, or None where this account has none of this id."""
        found = self._delete([keys.CARDS, keys.CARD_IDS, keys.cards_of(account_id), keys.LAST_NUMBERS], [id])
        return _card(read_text(found[0]), found[1]) if found else None

    def page(self, account_id: str, limit: int, after: str | None = None) -> tuple[list[Card], str | None]:
        """An account's cards in the order of their ids, which is that of their creation here, and after which
        id the next page begins (None: there is none)."""
        found = self._page(
            [keys.CARDS, keys.CARD_IDS, keys.cards_of(account_id)], [f"({after}" if after else "-", limit + 1]
        )
        cards = [_card(read_text(found[i]), found[i + 1]) for i in range(0, len(found), 2)]
        return cards[:limit], cards[limit - 1].id if len(cards) > limit else None

    def _find(self, account_id: str, id: str) -> tuple[str, bytes] | None:
        return _own(account_id, self._read([keys.CARDS, keys.CARD_IDS], [id]))

    def _draft(self, fields: Mapping[str, Any], base: _Document, claim: str | None) -> tuple[str, _Document]:
        """``base`` with ``fields`` on top, and its claim: ``claim`` where the fields name none."""
        faults: list[Fault] = []
        given = _spelled(fields, faults)
        if "pin" in given or "cid" in given:
            claim = self._claim(given, claim, faults)
        if claim is None and not faults:
            faults.append(Fault("cccp", "required", "expected pin or cid"))
        changes = {
            name: check(given[name], name, faults) for name, check in _CHECKS.items() if given.get(name) is not None
        }
        # null is what a client sends to take a value away.
        defaults = _Document(base.id, base.account_id)
        changes |= {name: getattr(defaults, name) for name in _CHECKS if name in given and given[name] is None}
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
                    return "c" + number.e164
                faults.append(Fault("cid", "forbidden", "is an emergency number"))
        elif old is not None and ("pin" if old.startswith("p") else "cid") not in given:
            return old
        return None


def _card(claim: str, raw: bytes) -> Card:
    one = read_json(raw, _Document)
    return Card(
        id=one.id,
        account_id=one.account_id,
        user_id=one.user_id,
        cid=claim[1:] if claim.startswith("c") else None,
        active=one.active,
        retain_cid=one.retain_cid,
        max_concurrent_calls_per_user=one.max_concurrent_calls_per_user,
        comment=one.comment,
    )


def _own(account_id: str, found: Sequence[bytes]) -> tuple[str, bytes] | None:
    """Claim and document that a script found; another account's is as one that is not there."""
    if not found or read_json(found[1], _Document).account_id != account_id:
        return None
    return read_text(found[0]), found[1]


def _card_of(found: tuple[str, bytes] | None) -> Card | None:
    return None if found is None else _card(*found)


def _taken(claim: str) -> Refused:
    # Whose it is, is not said: a PIN that is known to exist is half guessed.
    what = "PIN" if claim.startswith("p") else "CID"
    return Refused([Fault("cccp", "unique", f"{what} already exists")])
