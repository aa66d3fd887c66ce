"""Warnings: what a configuration that works should not have. Certain mistakes are refused instead."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from esl_apps.config.model import sections
from esl_apps.config.rules.context import Context, Finding, Rule
from esl_apps.config.rules.secrets import holders, inner_tokens
from esl_apps.config.spending import Breaker, Limits
from esl_apps.config.tokens import digest_of
from esl_apps.net.address import is_elsewhere, is_loopback, split_address

#: Characters. A shorter token is found by trying.
SHORT_TOKEN = 16
#: Seconds, as ``store.pin_guard`` has them.
LONGEST_LOCK = 3600


def tokens_are_short(c: Context) -> Iterator[Finding]:
    for path, holder in holders(c):
        for token_path, bearer in [(path, holder), *inner_tokens(path, holder)]:
            if bearer.token and len(bearer.token) < SHORT_TOKEN:
                yield (
                    f"{token_path}.token",
                    f"shorter than {SHORT_TOKEN} characters, so it can be guessed; `openssl rand -hex 24` makes one",
                )


def one_token_opens_several_things(c: Context) -> Iterator[Finding]:
    seen: dict[bytes, str] = {}
    for path, holder in holders(c):
        for token_path, bearer in [(path, holder), *inner_tokens(path, holder)]:
            digest = digest_of(bearer)
            if not digest:
                continue
            key = "token_hash" if bearer.token_hash else "token"
            if digest in seen:
                yield f"{token_path}.{key}", f"the same as that of {seen[digest]}: its holder can use both"
            seen.setdefault(digest, token_path)


def cards_have_no_pin_key(c: Context) -> Iterator[Finding]:
    if not c.config.pin_key and (c.config.accounts or c.config.cccp.cccp_cc_number):
        yield "pin_key", "missing: no card's PIN opens anything, and none can be set; every node needs the same key"


def http_is_plain(c: Context) -> Iterator[Finding]:
    for path, section in sections(c.config):
        if section.tls is None and not is_loopback(split_address(section.listen)[0]):
            yield (
                f"{path}.listen",
                "plain HTTP: tokens and numbers can be read on the way; set tls, or put a TLS proxy in front of it",
            )


def every_address_is_a_switch(c: Context) -> Iterator[Finding]:
    for i, text in enumerate(c.config.node.allow or []):
        if ipaddress.ip_network(text).prefixlen == 0 and not c.config.node.secret:
            yield (
                f"node.allow[{i}]",
                "every address: anyone can pose as a switch; list the switches, or set secret",
            )


def switches_are_sent_to_themselves(c: Context) -> Iterator[Finding]:
    node = c.config.node
    host, _port = split_address(node.listen)
    if node.advertise:
        return
    elsewhere = [switch.address for switch in c.config.switches if is_elsewhere(*split_address(switch.address))]
    if _is_unspecified(host):
        yield "node.advertise", f"missing: switches are told to connect to {host}, which is themselves"
    elif is_loopback(host) and elsewhere:
        yield "node.advertise", f"missing: the switch at {elsewhere[0]} is told to connect to {host}, which is itself"


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def nothing_limits_spending(c: Context) -> Iterator[Finding]:
    config = c.config
    limits = [config.spending.limits, *(integrator.limits for integrator in config.integrators)]
    breakers = [config.spending.breaker, *(integrator.breaker for integrator in config.integrators)]
    for account in config.accounts.values():
        limits += [account.limits, account.card_limits]
        breakers.append(account.breaker)
    limited = any(section != Limits() for section in limits)
    watched = any(section != Breaker(end_calls=section.end_calls) for section in breakers)
    if not limited and not watched:
        yield "spending", "no limit and no breaker: nothing stops a fraud before the bill comes"


def extensions_are_telephone_numbers(c: Context) -> Iterator[Finding]:
    """An extension is dialled past ``call_restriction`` and the limits of destinations, and is never premium."""
    dial = c.config.dial
    for kind in (PhoneNumberType.PREMIUM_RATE, PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE):
        number = phonenumbers.example_number_for_type(dial.region, kind)
        if number is None:
            continue
        national = re.sub(r"\D", "", phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL))
        e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
        for text in (national, e164.removeprefix("+"), e164):
            if re.fullmatch(dial.extensions, text):
                yield "dial.extensions", f"takes telephone numbers, as {text}: no rule or limit of a destination holds"
                return


def mailboxes_may_take_customers(c: Context) -> Iterator[Finding]:
    plan = c.config.plan()
    for did, inbound in c.config.inbound.items():
        for i, text in enumerate(inbound.agents):
            agent = plan.find(text)
            if agent is not None and not agent.is_extension:
                yield (
                    f"inbound.{did}.agents[{i}]",
                    "a number outside: if its mailbox answers, it gets the caller; switch it off",
                )


def everyone_is_trusted(c: Context) -> Iterator[Finding]:
    for i, text in enumerate(c.config.trust):
        if ipaddress.ip_network(text).prefixlen == 0:
            yield f"trust[{i}]", "every address: anyone can claim to be any caller"
    for path, integrator in c.draft.integrators:
        for i, text in enumerate(integrator.legacy_get.allow if integrator.legacy_get else []):
            if ipaddress.ip_network(text).prefixlen == 0:
                yield f"{path}.legacy_get.allow[{i}]", "every address: anyone can place calls, with no token"


def redis_database_is_not_a_number(c: Context) -> Iterator[Finding]:
    for path, url in c.redis_urls:
        parts = urlsplit(url)
        database = parts.path.strip("/")
        if parts.scheme in ("redis", "rediss") and database and not database.isdigit():
            yield path, "the database behind the last / is not a number; 0 is used"


def locks_are_longer_than_an_hour(c: Context) -> Iterator[Finding]:
    for key in ("lock", "longest_lock", "longest_service_lock"):
        if getattr(c.config.pin_guard, key) > LONGEST_LOCK:
            yield f"pin_guard.{key}", "an hour is used: a lock may hit honest callers"


WARNINGS: tuple[Rule, ...] = (
    tokens_are_short,
    one_token_opens_several_things,
    cards_have_no_pin_key,
    http_is_plain,
    every_address_is_a_switch,
    switches_are_sent_to_themselves,
    nothing_limits_spending,
    extensions_are_telephone_numbers,
    mailboxes_may_take_customers,
    everyone_is_trusted,
    locks_are_longer_than_an_hour,
    redis_database_is_not_a_number,
)
