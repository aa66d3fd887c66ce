"""Accounts and settings: those of the configuration, and those that were imported into Redis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from esl_apps.config import model
from esl_apps.core.cards import Account, CallerId
from esl_apps.core.limits import Breaker, Limits
from esl_apps.core.versions import ACCOUNT, NOTHING, SETTINGS
from esl_apps.store import documents, keys
from esl_apps.store.errors import read_text
from esl_apps.store.redis_client import Client
from esl_apps.store.stale import Stale, T

#: The fields of an imported account's hash that are a user's: their rules and their caller ID.
_RULES, _CALLER_ID = "user:", "caller_id:"


class _AccountDocument(msgspec.Struct):
    """An imported account as it is stored, without its users."""

    name: str = ""
    realm: str = ""
    caller_id: str | None = None
    caller_id_name: str | None = None
    call_restriction: dict[str, model.Rule] = msgspec.field(default_factory=dict)


class AccountStore:
    """Every method that asks Redis raises :class:`StoreUnavailable` if it is down."""

    def __init__(self, client: Client, accounts: Mapping[str, model.Account], stale: Stale | None = None) -> None:
        """``accounts``: those of the configuration, which hide imported ones of the same id. ``stale``: answers to fall
        back on while Redis is down; None means none."""
        self._client = client
        self._stale = stale or Stale(0)
        self._accounts = accounts
        self._made: dict[str, Account] = {}
        """Configured accounts, made when they are first asked for: a file may have ten thousand."""
        self._card_limits: dict[str, Limits | None] = {}
        """The same of their cards' limits."""

    def account(self, account_id: str) -> Account | None:
        """The configured account, without a round trip, or the imported one."""
        if account_id in self._accounts:
            if account_id not in self._made:
                self._made[account_id] = _configured(account_id, self._accounts[account_id])
            return self._made[account_id]
        return self._stale.ask("a" + account_id, lambda: self._imported(account_id))

    def _imported(self, account_id: str) -> Account | None:
        fields = self._client.hgetall(keys.account(account_id))
        if b"account" not in fields:
            return None
        document = documents.decode(ACCOUNT, fields.pop(b"account"), _AccountDocument)
        return Account(
            id=account_id,
            name=document.name,
            realm=document.realm,
            caller_id=document.caller_id,
            caller_id_name=document.caller_id_name,
            call_restriction=document.call_restriction,
            users=_of_users(fields, _RULES, dict[str, model.Rule]),
            user_caller_ids=_of_users(fields, _CALLER_ID, CallerId),
        )

    def card_limits(self, account_id: str) -> Limits | None:
        """The limits of each card of an account. ``Account.limits`` holds for all of its cards together."""
        if account_id not in self._card_limits and account_id in self._accounts:
            self._card_limits[account_id] = _unless_empty(self._accounts[account_id].card_limits.read(), Limits())
        return self._card_limits.get(account_id)

    def is_configured(self, account_id: str) -> bool:
        """Whether the configuration has this account, which hides an imported one."""
        return account_id in self._accounts

    def put_account(
        self,
        account_id: str,
        *,
        name: str,
        realm: str,
        caller_id: str | None,
        caller_id_name: str | None,
        call_restriction: dict[str, model.Rule],
    ) -> None:
        """Store an imported account in place of an earlier one. Its users stay, and what a later release has noted."""
        document = _AccountDocument(name, realm, caller_id, caller_id_name, call_restriction)
        rest, before = NOTHING, self._client.hget(keys.account(account_id), "account")
        if before is not None:
            documents.decode(ACCOUNT, before, _AccountDocument)
            rest = documents.rest_of(before, _AccountDocument)
        self._client.hset(keys.account(account_id), "account", documents.encode(ACCOUNT, document, rest))

    def close_account(self, account_id: str) -> bool:
        """Remove an imported account, so that its cards no longer work. Its users' rules stay, in case it is imported
        again. False: there was none."""
        return bool(self._client.hdel(keys.account(account_id), "account"))

    def put_user(
        self,
        account_id: str,
        user_id: str,
        call_restriction: Mapping[str, model.Rule],
        caller_id: CallerId | None = None,
    ) -> None:
        """Store a user's rules and caller ID. What is empty is removed."""
        for kind, value in ((_RULES, call_restriction), (_CALLER_ID, caller_id)):
            field = kind + user_id
            if value:
                self._client.hset(keys.account(account_id), field, documents.encode(ACCOUNT, value))
            else:
                self._client.hdel(keys.account(account_id), field)

    def system_config(self, name: str) -> dict[str, Any]:
        """The imported settings of ``cccp`` or ``callflow.disa``, which override the configuration file's. Empty if
        none were imported. They were checked at the import."""

        def ask() -> dict[str, Any]:
            raw = self._client.hget(keys.SYSTEM_CONFIG, name)
            return {} if raw is None else documents.decode_fields(SETTINGS, raw)

        return self._stale.ask("s" + name, ask)

    def put_system_config(self, name: str, settings: Mapping[str, Any]) -> None:
        self._client.hset(keys.SYSTEM_CONFIG, name, documents.encode(SETTINGS, settings))


def _configured(id: str, account: model.Account) -> Account:
    return Account(
        id=id,
        name=id,
        realm=account.realm,
        caller_id=account.caller_id.number if account.caller_id else None,
        caller_id_name=account.caller_id.name if account.caller_id else None,
        caller_ids=tuple(account.caller_ids),
        call_restriction=account.call_restriction,
        users={user_id: user.call_restriction for user_id, user in account.users.items()},
        user_caller_ids={
            user_id: CallerId(user.caller_id.number, user.caller_id.name or "")
            for user_id, user in account.users.items()
            if user.caller_id.number or user.caller_id.name
        },
        integrator=account.integrator,
        limits=_unless_empty(account.limits.read(), Limits()),
        breaker=_unless_empty(account.breaker.read(), Breaker(Limits())),
        language=account.language,
    )


def _of_users(fields: Mapping[bytes, bytes], kind: str, of: type[T]) -> dict[str, T]:
    named = {read_text(field): raw for field, raw in fields.items()}
    return {
        field.removeprefix(kind): documents.decode(ACCOUNT, raw, of)
        for field, raw in named.items()
        if field.startswith(kind)
    }


def _unless_empty(bounds: T, empty: T) -> T | None:
    """Return limits or a breaker; None for those that bound nothing."""
    return None if bounds == empty else bounds
