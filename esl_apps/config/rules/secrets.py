"""Rules for tokens, passwords and keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit

from esl_apps.config.model import Account, Admin, Integrator
from esl_apps.config.rules.context import Context, Finding
from esl_apps.config.tokens import AdminToken, Bearer, CardsToken, IntegratorToken, digest_of, hash_token
from esl_apps.net.address import is_loopback, split_address

_Holder = Admin | Integrator | Account

#: Every FreeSWITCH is installed with it.
_DEFAULT_PASSWORD = "ClueCon"  # noqa: S105 - it is the one to refuse

#: Characters of a key that strangers can try offline, on what it signed.
_LEAST_KEY = 16

#: Nothing that the switch's configuration would read as something else.
_NODE_SECRET = re.compile(r"[A-Za-z0-9._~-]{16,128}")

#: ``$NAME`` where ``${NAME}`` was meant. Names of variables are in capitals; ``$ecret`` may be a password.
_BARE_VARIABLE = re.compile(r"\$[A-Z_][A-Z0-9_]*")


def secrets_are_read_from_the_environment(c: Context) -> Iterator[Finding]:
    for path, secret in _secrets(c):
        if secret is not None and _BARE_VARIABLE.fullmatch(secret):
            yield path, "expected ${NAME}, with braces: $NAME alone isn't read from the environment"


def _secrets(c: Context) -> Iterator[tuple[str, str | None]]:
    config = c.config
    yield "pin_key", config.pin_key
    yield "pin_key_old", config.pin_key_old
    yield "node.secret", config.node.secret
    yield "node.secret_old", config.node.secret_old
    yield "recordings.link_key", config.recordings.link_key
    for path, switch in c.draft.switches:
        yield f"{path}.password", switch.password
    for path, holder in holders(c):
        yield f"{path}.token", holder.token
        for inner_path, inner in inner_tokens(path, holder):
            yield f"{inner_path}.token", inner.token
    for path, integrator in c.draft.integrators:
        for i, webhook in enumerate(integrator.webhooks):
            yield from ((f"{path}.webhooks[{i}].secrets[{j}]", secret) for j, secret in enumerate(webhook.secrets))
    for path, url in c.redis_urls:
        yield path, _password_of(url)


def _password_of(url: str) -> str | None:
    try:
        # The hosts of a cluster or of sentinels are a list, which urlsplit takes for one host.
        return urlsplit(url).netloc.rpartition("@")[0].rpartition(":")[2]
    except ValueError:
        return None


def holders(c: Context) -> list[tuple[str, _Holder]]:
    accounts = [(f"accounts.{name}", account) for name, account in c.config.accounts.items()]
    return [("admin", c.config.admin), *c.draft.integrators, *accounts]


def inner_tokens(path: str, holder: _Holder) -> Iterable[tuple[str, AdminToken | IntegratorToken | CardsToken]]:
    tokens: Sequence[AdminToken | IntegratorToken | CardsToken] = holder.tokens
    return [(f"{path}.tokens[{i}]", token) for i, token in enumerate(tokens)]


def ports_have_tokens(c: Context) -> Iterator[Finding]:
    needed: list[tuple[str, Bearer, str]] = []
    if c.is_readable("admin"):
        needed.append(("admin", c.config.admin, "missing; the admin port has no default token"))
    others: list[tuple[str, Bearer]] = [*c.draft.integrators]
    for path, holder in holders(c):
        others += inner_tokens(path, holder)
    needed += [(path, bearer, "missing secret; expected token or token_hash") for path, bearer in others]
    for path, bearer, message in needed:
        if not bearer.token and not bearer.token_hash:
            yield f"{path}.token", message


def tokens_can_be_sent(c: Context) -> Iterator[Finding]:
    for path, holder in holders(c):
        for token_path, token in [(path, holder), *inner_tokens(path, holder)]:
            if token.token is not None and token.token_hash is not None:
                yield f"{token_path}.token_hash", "expected token or token_hash, not both"
            if token.token_hash == hash_token(""):
                yield f"{token_path}.token_hash", "is the hash of nothing"
            # A header can't carry anything else.
            if token.token and not re.fullmatch(r"[!-~]+", token.token):
                yield f"{token_path}.token", "expected printable characters, no spaces"


def tokens_of_a_port_differ(c: Context) -> Iterator[Finding]:
    """With the same token twice, its scopes would be uncertain. An account's token may be the operator's, which has all
    of them."""
    admins: dict[bytes, str] = {}
    yield from _differ("admin", c.config.admin, admins)
    for path, integrator in c.draft.integrators:
        yield from _differ(path, integrator, {})
    for name, account in c.config.accounts.items():
        yield from _differ(f"accounts.{name}", account, dict(admins), shared="admin")


def _differ(path: str, holder: _Holder, known: dict[bytes, str], shared: str = "") -> Iterator[Finding]:
    for token_path, token in [(path, holder), *inner_tokens(path, holder)]:
        digest = digest_of(token)
        if digest:
            if known.get(digest) not in (None, shared):
                key = "token_hash" if token.token_hash else "token"
                yield f"{token_path}.{key}", f"is {known[digest]}'s already"
            known[digest] = token_path
        shared = ""


def names_of_tokens_differ(c: Context) -> Iterator[Finding]:
    for path, holder in holders(c):
        names: set[str] = set()
        for inner_path, inner in inner_tokens(path, holder):
            if inner.name in names:
                yield f"{inner_path}.name", "a token above has this name"
            names.add(inner.name)


def switches_have_passwords(c: Context) -> Iterator[Finding]:
    for path, switch in c.draft.switches:
        if not switch.password:
            yield f"{path}.password", "missing secret"
        elif switch.password == _DEFAULT_PASSWORD and not switch.allow_default_password:
            try:
                host, _port = split_address(switch.address)
            except ValueError:
                continue
            if not is_loopback(host):
                yield (
                    f"{path}.password",
                    "is FreeSWITCH's default on an address that others reach; change it, or set "
                    "allow_default_password: true",
                )


def link_key_is_long_enough(c: Context) -> Iterator[Finding]:
    key = c.config.recordings.link_key
    if key is not None and len(key) < _LEAST_KEY:
        yield (
            "recordings.link_key",
            f"expected {_LEAST_KEY} characters at least: anyone who finds it hears every recording",
        )


def old_pin_key_is_another(c: Context) -> Iterator[Finding]:
    old = c.config.pin_key_old
    if old is not None and c.is_readable("pin_key") and old == (c.config.pin_key or ""):
        yield "pin_key_old", "expected another key than pin_key: PINs would be hashed with the same one"
    elif old is not None and c.is_readable("pin_key") and not c.config.pin_key:
        yield "pin_key_old", "needs pin_key, with which its PINs are hashed when they are used"


def node_secret_is_plain_and_long(c: Context) -> Iterator[Finding]:
    node = c.config.node
    for path, secret in (("node.secret", node.secret), ("node.secret_old", node.secret_old)):
        if secret is not None and not _NODE_SECRET.fullmatch(secret):
            yield path, "expected 16 to 128 letters, digits or . _ ~ -; `openssl rand -hex 24` makes one"
    if node.secret_old is not None and node.secret is None:
        yield "node.secret_old", "needs node.secret, which the switches get in its place"


RULES = (
    old_pin_key_is_another,
    node_secret_is_plain_and_long,
    secrets_are_read_from_the_environment,
    ports_have_tokens,
    tokens_can_be_sent,
    tokens_of_a_port_differ,
    names_of_tokens_differ,
    switches_have_passwords,
    link_key_is_long_enough,
)
