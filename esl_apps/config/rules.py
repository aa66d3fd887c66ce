"""Checks that span several keys."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable

import phonenumbers

from esl_apps.config import redis_url
from esl_apps.config.fields import _NAME, _NAME_EXPECTED, ConfigError
from esl_apps.config.model import COUNTRIES, Breaker, Config, Limits, Restriction, Tls
from esl_apps.config.reader import _Reader
from esl_apps.config.tokens import Bearer, hash_token
from esl_apps.core import limits
from esl_apps.core.numbers import CLASSES, HIGH_RISK, NotDialable
from esl_apps.core.restrictions import denied
from esl_apps.net import tls
from esl_apps.net.address import is_loopback, split_address

_RECORDINGS = re.compile(r"/[A-Za-z0-9/._~:+@-]*")
#: What every FreeSWITCH is installed with.
_DEFAULT_PASSWORD = "ClueCon"  # noqa: S105 - it is the one to refuse

#: Characters of a key that strangers can try offline, on what it signed.
_LEAST_KEY = 16


def _check(config: Config, reader: _Reader) -> None:
    """:raises ConfigError: at the first rule that does not hold."""

    def require(condition: object, path: str, message: str) -> None:
        if not condition:
            raise reader.error(path, message)

    def address(text: str, path: str) -> tuple[str, int]:
        try:
            return split_address(text)
        except ValueError as error:
            raise reader.error(path, str(error)) from None

    def regex(text: str, path: str) -> None:
        try:
            re.compile(text)
        except re.error as error:
            raise reader.error(path, f"not a regular expression: {error}") from None

    def networks(values: list[str], path: str) -> None:
        for i, text in enumerate(values):
            try:
                ipaddress.ip_network(text)
            except ValueError:
                raise reader.error(f"{path}[{i}]", "expected an address or a CIDR network") from None

    def redis(url: str, path: str) -> None:
        try:
            redis_url.check(url)
        except ValueError as error:
            raise reader.error(path, str(error)) from None

    ports: dict[tuple[str, int], str] = {}

    def port(text: str, path: str) -> None:
        at = address(text, path)
        require(at not in ports or at[1] == 0, path, f"{text} is {ports.get(at)}'s already")
        ports[at] = path

    def bearer(one: Bearer, path: str, known: dict[bytes, str], missing: str = "", shared: str = "") -> None:
        """A token, and one that none of ``known`` is but ``shared``: with two of a kind nobody could say which scopes
        it has."""
        both = one.token is not None and one.token_hash is not None
        require(not both, f"{path}.token_hash", "expected token or token_hash, not both")
        require(one.token or one.token_hash or not missing, f"{path}.token", missing)
        require(one.token_hash != hash_token(""), f"{path}.token_hash", "is the hash of nothing")
        if one.token:
            # What a header can carry; anything else would never be the right one.
            require(re.fullmatch(r"[!-~]+", one.token), f"{path}.token", "expected printable characters, no spaces")
        digest = hashlib.sha256(one.token.encode()).digest() if one.token else one.digest
        if digest:
            key = "token_hash" if one.token_hash else "token"
            require(known.get(digest) in (None, shared), f"{path}.{key}", f"is {known.get(digest)}'s already")
            known[digest] = path
        names: set[str] = set()
        for i, inner in enumerate(getattr(one, "tokens", ())):
            require(inner.name not in names, f"{path}.tokens[{i}].name", "a token of this name stands above")
            names.add(inner.name)
            bearer(inner, f"{path}.tokens[{i}]", known, "missing secret; expected token or token_hash")

    def certificate(files: Tls | None, path: str) -> None:
        if files is not None:
            try:
                tls.context(files.cert, files.key)
            except tls.Unusable as error:
                raise reader.error(f"{path}.tls.{error.key}", str(error)) from None

    require(config.switches, "switches", "expected at least one switch")
    port(config.node.listen, "node.listen")
    if config.node.advertise:
        address(config.node.advertise, "node.advertise")
    admins: dict[bytes, str] = {}
    bearer(config.admin, "admin", admins, "missing; the admin port has no default token")
    port(config.admin.listen, "admin.listen")
    certificate(config.admin.tls, "admin")
    redis(config.redis.url, "redis.url")
    names: set[str] = set()
    addresses: set[tuple[str, int]] = set()
    for i, switch in enumerate(config.switches):
        path = f"switches[{i}]"
        host, at_port = address(switch.address, f"{path}.address")
        require((host, at_port) not in addresses, f"{path}.address", "a switch at this address stands above")
        addresses.add((host, at_port))
        require(
            switch.password != _DEFAULT_PASSWORD or switch.allow_default_password or is_loopback(host),
            f"{path}.password",
            "is FreeSWITCH's default on an address that others reach; change it, or allow_default_password: true",
        )
        require(switch.password, f"{path}.password", "missing secret")
        require(switch.name not in names, f"{path}.name", "a switch of this name stands above")
        names.add(switch.name)

    dial = config.dial
    require(dial.region in phonenumbers.SUPPORTED_REGIONS, "dial.region", "expected an ISO 3166 country code")
    regex(dial.extensions, "dial.extensions")
    for name, text in dial.classifiers.items():
        regex(text, f"dial.classifiers.{name}")
    require(dial.external, "dial.external", "expected at least one dial string")
    templates = [("dial.extension", dial.extension)]
    templates += [(f"dial.external[{i}]", text) for i, text in enumerate(dial.external)]
    if dial.emergency is not None:
        templates.append(("dial.emergency", dial.emergency))
    for path, text in templates:
        _check_template(text, path, require)
    require(
        re.fullmatch(r"[%(),;=0-9.+vl-]+", dial.ringback), "dial.ringback", "expected a tone, as %(2000,4000,440,480)"
    )
    networks(config.trust, "trust")
    require(
        _RECORDINGS.fullmatch(config.recordings.dir),
        "recordings.dir",
        "expected an absolute path of letters, digits and - _ . ~ : + @: it goes through a dial string",
    )
    require(
        config.recordings.link_key is None or len(config.recordings.link_key) >= _LEAST_KEY,
        "recordings.link_key",
        f"expected {_LEAST_KEY} characters at least: whoever finds it hears every recording",
    )
    for i, text in enumerate(config.prompts.urls):
        # It becomes an argument of the switch's: nothing in it may be read as more (DESIGN.md, 15).
        require(
            re.fullmatch(r"https?://[A-Za-z0-9._~:/?=&+-]+", text),
            f"prompts.urls[{i}]",
            "expected http:// or https://, then letters, digits and . _ ~ : / ? = & + -",
        )

    try:
        plan = config.plan()
    except ConfigError as error:
        raise reader.error("spending.high_risk", str(error)) from None

    def number(text: str, path: str) -> None:
        try:
            plan.read(text)
        except NotDialable as error:
            raise reader.error(path, f"not a telephone number: {error}") from None

    restrictions: list[tuple[str, Restriction]] = []
    integrators: set[str] = set()
    for i, one in enumerate(config.integrators):
        path = f"integrators[{i}]"
        require(one.name not in integrators, f"{path}.name", "an integrator of this name stands above")
        integrators.add(one.name)
        bearer(one, path, {}, "missing secret; expected token or token_hash")
        port(one.listen, f"{path}.listen")
        certificate(one.tls, path)
        for j, text in enumerate(one.caller_ids):
            number(text, f"{path}.caller_ids[{j}]")
        for name, numbers in one.campaigns.items():
            require(_NAME.fullmatch(name), f"{path}.campaigns.{name}", _NAME_EXPECTED)
            listed = [numbers] if isinstance(numbers, str) else numbers
            require(listed, f"{path}.campaigns.{name}", "expected at least one number")
            for text in listed:
                number(text, f"{path}.campaigns.{name}")
        for name in ("agent", "callee", "outbound_id", "contact_ref"):
            text = getattr(one.patterns, name)
            if text is not None:
                regex(text, f"{path}.patterns.{name}")
        if one.redis is not None:
            redis(one.redis.url, f"{path}.redis.url")
        if one.legacy_get:
            networks(one.legacy_get.allow, f"{path}.legacy_get.allow")
        restrictions.append((f"{path}.call_restriction", one.call_restriction))

    guard = config.pin_guard
    for key in ("longest_lock", "longest_service_lock"):
        require(getattr(guard, key) >= guard.lock, f"pin_guard.{key}", "is shorter than lock, which is the first")
    cccp = config.cccp
    header = re.fullmatch(r"From|[PX]-[A-Za-z0-9-]{1,62}", cccp.attest_header, re.IGNORECASE)
    require(header, "cccp.attest_header", "expected From, or the name of a header that begins with P- or X-")
    if cccp.allowed_callee_regex is not None:
        regex(cccp.allowed_callee_regex, "cccp.allowed_callee_regex")
    for key in ("cccp_cb_number", "cccp_cc_number", "default_caller_id_number"):
        if (text := getattr(cccp, key)) is not None:
            number(text, f"cccp.{key}")
    if cccp.cccp_cb_number and cccp.cccp_cc_number:
        require(
            not plan.same(cccp.cccp_cb_number, cccp.cccp_cc_number),
            "cccp.cccp_cb_number",
            "is cccp_cc_number: callback and dialthrough need a number each",
        )
    for name, account in config.accounts.items():
        path = f"accounts.{name}"
        require(_NAME.fullmatch(name), path, _NAME_EXPECTED)
        bearer(account, path, dict(admins), shared="admin")
        known_integrator = account.integrator is None or account.integrator in integrators
        require(known_integrator, f"{path}.integrator", "no such integrator")
        if account.caller_id is not None:
            number(account.caller_id.number, f"{path}.caller_id.number")
        for i, text in enumerate(account.caller_ids):
            number(text, f"{path}.caller_ids[{i}]")
        restrictions.append((f"{path}.call_restriction", account.call_restriction))
        for user_id, user in account.users.items():
            restrictions.append((f"{path}.users.{user_id}.call_restriction", user.call_restriction))
        for disa_name, disa in account.disa.items():
            at = f"{path}.disa.{disa_name}"
            require(_NAME.fullmatch(disa_name), at, _NAME_EXPECTED)
            require(not (disa.pin and disa.pin_hash), f"{at}.pin_hash", "expected pin or pin_hash, not both")
            require(
                disa.pin or disa.pin_hash or disa.allow_no_pin,
                at,
                "no pin: whoever calls may dial; set pin, or allow_no_pin: true",
            )
            require(not disa.pin or (disa.pin.isascii() and disa.pin.isdigit()), f"{at}.pin", "expected digits")
            for text in disa.numbers:
                number(text, f"{at}.numbers")
            require(not disa.pin_hash or config.pin_key, f"{at}.pin_hash", "needs pin_key, which is missing")
    spends: list[tuple[str, Limits | Breaker]] = [
        ("spending.limits", config.spending.limits),
        ("spending.breaker", config.spending.breaker),
    ]
    for i, one in enumerate(config.integrators):
        spends += [(f"integrators[{i}].limits", one.limits), (f"integrators[{i}].breaker", one.breaker)]
    for name, account in config.accounts.items():
        path = f"accounts.{name}"
        spends += [(f"{path}.{key}", getattr(account, key)) for key in ("limits", "card_limits", "breaker")]
    classes = {*CLASSES, *dial.classifiers}
    for path, section in spends:
        for text in section.destinations:
            at = f"{path}.destinations.{text}"
            try:
                destination = limits.read_destination(text)
            except ValueError as error:
                raise reader.error(at, str(error)) from None
            if destination.kind == "class":
                message = f"unknown class; expected one of {', '.join(sorted(classes))}"
                require(destination.value in classes, at, message)
            if destination.kind == "country":
                message = "unknown country; expected an ISO 3166 code, or 001 for what is of no country"
                require(destination.value in COUNTRIES, at, message)
    known = {*classes, HIGH_RISK}
    for path, restriction in restrictions:
        for klass in restriction:
            require(klass in known, f"{path}.{klass}", f"unknown class; expected one of {', '.join(sorted(known))}")
    for i, text in enumerate(config.dialplan.nodes):
        address(text, f"dialplan.nodes[{i}]")
    dids: dict[str, str] = {}
    for did, inbound in config.inbound.items():
        path = f"inbound.{did}"
        number(did, path)
        e164 = plan.read(did).e164
        require(e164 not in dids, path, f"is {dids.get(e164)}, which stands above")
        dids[e164] = did
        owner = config.integrator(inbound.integrator)
        if owner is None:
            raise reader.error(f"{path}.integrator", "no such integrator")
        for j, text in enumerate(inbound.agents):
            number(text, f"{path}.agents[{j}]")
            agent = plan.read(text)
            refused = agent.klass if agent.is_emergency else denied(agent, owner.call_restriction)
            require(not refused, f"{path}.agents[{j}]", f"numbers of class {refused} are not rung")


def _check_template(text: str, path: str, require: Callable[[object, str, str], None]) -> None:
    """A dial string template: one endpoint, known placeholders, nothing that FreeSWITCH would read as more."""
    names = re.findall(r"\{(\w*)\}", text)
    allowed = {"number", "e164", "plus", "national", "dialled"}
    require(names, path, "expected a placeholder: {number}, {e164}, {plus}, {national} or {dialled}")
    for name in names:
        require(name in allowed, path, f"unknown placeholder {{{name}}}")
    rest = re.sub(r"\{\w*\}", "", text)
    require(re.fullmatch(r"[A-Za-z0-9_./:;=@*-]+", rest), path, "expected one endpoint, as sofia/gateway/pstn/{number}")
