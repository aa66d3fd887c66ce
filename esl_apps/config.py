"""YAML in, a frozen :class:`Config` out, or one :class:`ConfigError` that says where and what.

Types, unknown keys and missing ones are msgspec's job; the file and line of what it complains about are
this module's, and so are the rules that hold between keys.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import phonenumbers
import yaml
from msgspec import Meta, Struct, field, inspect

from esl_apps import redisclient, tls
from esl_apps.core import spending
from esl_apps.core.numbers import CLASSES, HIGH_RISK, NotDialable, NumberPlan, of_region
from esl_apps.core.restrictions import denied

#: Stands in paths of the event socket and of the file system: never ``.`` or ``..``.
_NAME = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]+")
_NAME_EXPECTED = "expected letters, digits, . _ -"

Name = Annotated[str, Meta(pattern=rf"^{_NAME.pattern}\Z", max_length=64)]
Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
#: Each counted one is kept in Redis until its window is over.
Threshold = Annotated[int, Meta(ge=1, le=10_000)]
LockSeconds = Annotated[float, Meta(ge=1, le=2_592_000)]


class ConfigError(Exception):
    """What is wrong, where, and what was expected; ``str()`` is for the operator."""

    def __init__(self, message: str, path: str = "", line: int | None = None, file: str = "") -> None:
        where = f"{file}:{line}" if line else file
        super().__init__(": ".join(part for part in (where, path, message) if part))


class _Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Node(_Section, frozen=True):
    name: Name = "app1"
    listen: str = "127.0.0.1:8084"
    advertise: str | None = None
    max_calls: Positive = 5000
    drain_timeout: Seconds = 30
    worker_ports: Port | None = None
    state_dir: str | None = None


class Redis(_Section, frozen=True):
    url: str = "redis://127.0.0.1:6379/0"
    stale_cards: Seconds = 0


class SwitchConfig(_Section, frozen=True):
    name: Name
    address: str
    password: str
    allow_default_password: bool = False


class Dial(_Section, frozen=True):
    region: Annotated[str, Meta(pattern="^[A-Z]{2}$")] = "ZA"
    extensions: str = r"^\d{3,4}$"
    extension: str = "user/{number}@127.0.0.1"
    external: list[str] = field(default_factory=lambda: ["sofia/gateway/pstn/{number}"])
    caller_id_format: Literal["as_given", "e164", "plus", "national"] = "as_given"
    emergency: str | None = None
    classifiers: dict[str, str] = field(default_factory=dict)
    ringback: str = "%(2000,4000,440,480)"


TokenHash = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]


def hash_token(token: str) -> str:
    """As a ``token_hash`` has it. No key and no salt: a token is long and random, and such a one is not found by
    trying."""
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


class Bearer(_Section, frozen=True):
    """What has a token. ``parse`` leaves the hash alone: the token itself is not kept."""

    token: str | None = None
    token_hash: TokenHash | None = None

    @property
    def digest(self) -> bytes:
        """Empty where there is no token."""
        return bytes.fromhex((self.token_hash or "").removeprefix("sha256:"))


class IntegratorToken(Bearer, frozen=True, kw_only=True):
    name: Name
    scopes: Annotated[list[Literal["call", "read", "record"]], Meta(min_length=1)]


class CardsToken(Bearer, frozen=True, kw_only=True):
    name: Name
    scopes: Annotated[list[Literal["call", "read", "cards"]], Meta(min_length=1)]


PerSecond = Annotated[float, Meta(gt=0, le=1e6)]


class Rate(_Section, frozen=True):
    """Requests a second on one port of one node; None: no bound."""

    per_token: PerSecond | None = 300
    per_address: PerSecond | None = 300
    failed: PerSecond | None = 10
    burst: Annotated[float, Meta(gt=0, le=3600)] = 10
    connections: Positive = 500


class Tls(_Section, frozen=True):
    cert: str
    key: str


class Admin(Bearer, frozen=True):
    listen: str = "127.0.0.1:8000"
    tokens: list[CardsToken] = field(default_factory=list)
    rate: Rate = field(default_factory=Rate)
    tls: Tls | None = None


class Recordings(_Section, frozen=True):
    dir: str = "/var/lib/esl_apps/recordings"
    link_key: str | None = None
    link_longest: Positive = 604800


class Prompts(_Section, frozen=True):
    dir: str | None = None
    language: Name = "en"
    urls: list[str] = field(default_factory=list)


class Spool(_Section, frozen=True):
    dir: str = "/var/log/freeswitch/json_cdr"


class Rule(_Section, frozen=True):
    action: Literal["deny", "allow", "inherit"]


Restriction = dict[str, Rule]


class DestinationLimits(_Section, frozen=True):
    calls_per_hour: Count | None = None
    calls_per_day: Count | None = None
    minutes_per_hour: Count | None = None
    minutes_per_day: Count | None = None
    longest_call: Seconds | None = None

    def read(self) -> spending.Limits:
        return spending.Limits(
            calls_per_hour=self.calls_per_hour,
            calls_per_day=self.calls_per_day,
            minutes_per_hour=self.minutes_per_hour,
            minutes_per_day=self.minutes_per_day,
            longest_call=self.longest_call,
        )


class Limits(DestinationLimits, frozen=True):
    destinations: dict[str, DestinationLimits] = field(default_factory=dict)

    def read(self) -> spending.Limits:
        named = {spending.read_destination(text): one.read() for text, one in self.destinations.items()}
        return replace(super().read(), destinations=named)


class DestinationBreaker(_Section, frozen=True):
    calls_per_hour: Count | None = None
    calls_per_day: Count | None = None
    minutes_per_hour: Count | None = None
    minutes_per_day: Count | None = None

    def thresholds(self) -> spending.Limits:
        return spending.Limits(
            calls_per_hour=self.calls_per_hour,
            calls_per_day=self.calls_per_day,
            minutes_per_hour=self.minutes_per_hour,
            minutes_per_day=self.minutes_per_day,
        )


class Breaker(DestinationBreaker, frozen=True):
    high_risk_calls_per_hour: Count | None = None
    end_calls: bool = False
    destinations: dict[str, DestinationBreaker] = field(default_factory=dict)

    def read(self) -> spending.Breaker:
        named = {spending.read_destination(text): one.thresholds() for text, one in self.destinations.items()}
        return spending.Breaker(
            replace(self.thresholds(), destinations=named), self.high_risk_calls_per_hour, self.end_calls
        )


def level(name: str, limits: Limits, breaker: Breaker) -> spending.Level:
    return spending.Level(name, limits.read(), breaker.read())


class Spending(_Section, frozen=True):
    """What all calls of all integrators and accounts together may cost."""

    high_risk: str | None = None
    limits: Limits = field(default_factory=Limits)
    breaker: Breaker = field(default_factory=Breaker)


class IntegratorRedis(_Section, frozen=True):
    url: str


class LegacyGet(_Section, frozen=True):
    allow: list[str]


class Patterns(_Section, frozen=True):
    """The defaults are Teleforge's (contract §4); another country replaces them."""

    agent: str | None = None
    callee: str | None = None
    outbound_id: str | None = None
    contact_ref: str | None = None


class Integrator(Bearer, frozen=True, kw_only=True):
    name: Name
    listen: str
    tokens: list[IntegratorToken] = field(default_factory=list)
    rate: Rate = field(default_factory=Rate)
    tls: Tls | None = None
    redis: IntegratorRedis | None = None
    payload: Literal["v2", "v3"] = "v3"
    record: bool = False
    caller_ids: list[str] = field(default_factory=list)
    campaigns: dict[str, str | list[str]] = field(default_factory=dict)
    agent_timeout: Annotated[float, Meta(gt=0, le=3600)] = 30
    callee_timeout: Annotated[float, Meta(gt=0, le=3600)] = 60
    patterns: Patterns = field(default_factory=Patterns)
    call_restriction: Restriction = field(default_factory=dict)
    dispositions: Literal["esl_apps", "teleforge"] = "esl_apps"
    push: Literal["left", "right"] = "left"
    legacy_get: LegacyGet | Literal[False] = False
    legacy_c2d: bool = False
    max_duration: Annotated[float, Meta(gt=0)] = 14400
    limits: Limits = field(default_factory=Limits)
    breaker: Breaker = field(default_factory=Breaker)


class Cccp(_Section, frozen=True):
    cccp_cb_number: str | None = None
    cccp_cc_number: str | None = None
    last_number_redial_code: str | None = None
    ensure_valid_caller_id: bool = True
    default_caller_id_number: str | None = None
    allowed_callee_regex: str | None = None
    callback_delay: Seconds = 3
    prompt_delay: Seconds = 1
    cid_trust: Literal["any", "national", "pin", "attested"] = "national"
    pin_from: Literal["anywhere", "enrolled"] = "anywhere"
    attest_header: str = "P-Asserted-Identity"
    attest_level: Literal["A", "B", "C"] = "A"


class PinGuard(_Section, frozen=True):
    """Wrong PINs, counted over all nodes (``esl_apps/guard.py``)."""

    window: Annotated[float, Meta(ge=1, le=604_800)] = 3600
    per_number: Threshold = 10
    per_address: Threshold = 50
    per_card: Threshold = 10
    per_service: Threshold = 50
    overall: Threshold = 200
    lock: LockSeconds = 300
    longest_lock: LockSeconds = 86_400
    longest_service_lock: LockSeconds = 3600


class Callback(_Section, frozen=True):
    retries: Count = 2
    retry_after: Seconds = 60
    cool_down: Seconds = 60
    per_day: Count = 10
    answer_after: Seconds = 0
    confirm: bool = False


class DisaDefaults(_Section, frozen=True):
    default_use_account_caller_id: bool = True
    default_pin_length: Positive = 10


class CallerId(_Section, frozen=True):
    number: str
    name: str | None = None


class User(_Section, frozen=True):
    call_restriction: Restriction = field(default_factory=dict)


class Disa(_Section, frozen=True):
    pin: str | None = None
    pin_hash: str | None = None
    numbers: list[str] = field(default_factory=list)
    allow_no_pin: bool = False
    retries: Positive = 3
    interdigit: Positive = 3000
    max_digits: Positive = 15
    preconnect_audio: Literal["dialtone", "ringing"] = "dialtone"
    ring_repeat_count: Positive = 1
    use_account_caller_id: bool | None = None
    enforce_call_restriction: bool = True
    max_session: Annotated[float, Meta(gt=0)] = 3600


class Account(Bearer, frozen=True):
    tokens: list[CardsToken] = field(default_factory=list)
    realm: Annotated[str, Meta(pattern=r"^[A-Za-z0-9.-]*$", max_length=255)] = ""
    caller_id: CallerId | None = None
    integrator: str | None = None
    caller_ids: list[str] = field(default_factory=list)
    call_restriction: Restriction = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    card_limits: Limits = field(default_factory=Limits)
    breaker: Breaker = field(default_factory=Breaker)
    disa: dict[str, Disa] = field(default_factory=dict)


class Inbound(_Section, frozen=True):
    integrator: str
    agents: Annotated[list[str], Meta(min_length=1)]
    ring_timeout: Annotated[float, Meta(gt=0, le=3600)] = 20


class Dialplan(_Section, frozen=True):
    """For ``esl-apps dialplan``: the nodes that the switch tries, in order; none: this one."""

    nodes: list[str] = field(default_factory=list)


class Config(_Section, frozen=True):
    """One node's configuration: every key of the contract's §2, its default, and nothing else."""

    node: Node = field(default_factory=Node)
    redis: Redis = field(default_factory=Redis)
    pin_key: str | None = None
    switches: list[SwitchConfig] = field(default_factory=list)
    dial: Dial = field(default_factory=Dial)
    trust: list[str] = field(default_factory=list)
    admin: Admin = field(default_factory=Admin)
    recordings: Recordings = field(default_factory=Recordings)
    prompts: Prompts = field(default_factory=Prompts)
    spool: Spool = field(default_factory=Spool)
    integrators: list[Integrator] = field(default_factory=list)
    cccp: Cccp = field(default_factory=Cccp)
    pin_guard: PinGuard = field(default_factory=PinGuard)
    callback: Callback = field(default_factory=Callback)
    callflow_disa: DisaDefaults = field(default_factory=DisaDefaults, name="callflow.disa")
    spending: Spending = field(default_factory=Spending)
    accounts: dict[str, Account] = field(default_factory=dict)
    inbound: dict[str, Inbound] = field(default_factory=dict)
    dialplan: Dialplan = field(default_factory=Dialplan)

    def plan(self) -> NumberPlan:
        """:raises ConfigError: the file of high-risk ranges can't be read."""
        return NumberPlan(self.dial.region, self.dial.extensions, self.dial.classifiers, self.high_risk())

    def high_risk(self) -> list[str]:
        """The prefixes of ``spending.high_risk``. The package's own have none of this country's: what is far away for
        most is next door here.

        :raises ConfigError: they can't be read.
        """
        if self.spending.high_risk is not None:
            return read_ranges(self.spending.high_risk)
        return [prefix for prefix in read_ranges(str(HIGH_RISK_RANGES)) if not of_region(prefix, self.dial.region)]

    @property
    def advertise(self) -> str:
        """Where a switch reaches this node's outbound server."""
        return self.node.advertise or self.node.listen

    def integrator(self, name: str) -> Integrator | None:
        return next((one for one in self.integrators if one.name == name), None)


_RECORDINGS = re.compile(r"/[A-Za-z0-9/._~:+@-]*")
#: What every FreeSWITCH is installed with.
_DEFAULT_PASSWORD = "ClueCon"  # noqa: S105 - it is the one to refuse

#: What a destination's country may be; 001: of no country.
COUNTRIES = frozenset({*phonenumbers.SUPPORTED_REGIONS, "001"})

#: Ranges that fraud dials, as they ship.
HIGH_RISK_RANGES = Path(__file__).with_name("high_risk.yml")
_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}")
_TEXT = "tag:yaml.org,2002:str"

#: Characters of a key that strangers can try offline, on what it signed.
_LEAST_KEY = 16

#: Values in one file; 200 integrators and 10,000 accounts are fewer.
_MAX_NODES = 1_000_000

#: Sections that Kazoo exports as documents: what stands under ``default`` is the section.
_KAZOO_DOCUMENTS = {"cccp", "callflow.disa"}


def load(path: str, environ: Mapping[str, str] | None = None) -> Config:
    """Read, check and freeze a configuration file.

    :raises ConfigError: with file, line, key and what was expected; nothing of the file applies then.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(error), file=path) from None
    return parse(text, os.environ if environ is None else environ, path)


def parse(text: str, environ: Mapping[str, str], file: str = "configuration") -> Config:
    """``load`` on a text. :raises ConfigError: as ``load``."""
    reader = _Reader(environ, file)
    data = reader.read(text)
    for section in _KAZOO_DOCUMENTS:
        document = data.get(section)
        if isinstance(document, dict) and "default" in document and document.get("_id") == section:
            reader.alias(section, f"{section}.default")
            data[section] = document["default"]
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise reader.explain(str(error), data) from None
    _check(config, reader)
    return _sealed(config)


_Bearer = TypeVar("_Bearer", bound=Bearer)


def _sealed(config: Config) -> Config:
    """Without the tokens: what they are compared with is their hash."""

    def seal(one: _Bearer) -> _Bearer:
        changes: dict[str, Any] = {}
        if one.token is not None:
            # An empty one is none, and not the hash of nothing, which a request without a token has, too.
            changes = {"token": None, "token_hash": hash_token(one.token) if one.token else None}
        tokens = getattr(one, "tokens", None)
        if tokens:
            changes["tokens"] = [seal(inner) for inner in tokens]
        return msgspec.structs.replace(one, **changes) if changes else one

    return msgspec.structs.replace(
        config,
        admin=seal(config.admin),
        integrators=[seal(one) for one in config.integrators],
        accounts={name: seal(account) for name, account in config.accounts.items()},
    )


@lru_cache(maxsize=8)
def _ranges(path: str, _changed: float) -> list[str]:
    # Not PyYAML's construction: what is wanted is a flat list, and where in it something is wrong.
    try:
        with open(path, encoding="utf-8") as stream:
            root = yaml.compose(stream.read(), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(error), file=path) from None
    except (yaml.YAMLError, RecursionError):
        raise ConfigError("not YAML", file=path) from None
    if root is None:
        return []
    if not isinstance(root, yaml.SequenceNode):
        raise ConfigError("expected a list of prefixes", line=1, file=path)
    for item in root.value:
        if not (isinstance(item, yaml.ScalarNode) and item.tag == _TEXT and _PREFIX.fullmatch(item.value)):
            message = 'expected a prefix in E.164, in quotes: "+53"'
            raise ConfigError(message, line=item.start_mark.line + 1, file=path)
    return [item.value for item in root.value]


def read_ranges(path: str) -> list[str]:
    """A file of high-risk ranges: a YAML list of E.164 prefixes. :raises ConfigError: with file and line."""
    try:
        changed = os.stat(path).st_mtime
    except OSError as error:
        raise ConfigError(str(error.strerror), file=path) from None
    return _ranges(path, changed)


class _Reader:
    """YAML as plain data, with the line of every key."""

    def __init__(self, environ: Mapping[str, str], file: str) -> None:
        self.environ = environ
        self.file = file
        self.lines: dict[str, int] = {}
        self._aliases: dict[str, str] = {}
        self._nodes = 0

    def read(self, text: str) -> dict[str, Any]:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
            line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1
            raise ConfigError(f"not YAML: {problem}", line=line, file=self.file) from None
        except RecursionError:
            raise ConfigError("nested too deep", line=1, file=self.file) from None
        if root is None:
            return {}
        data = self._value(root, "")
        if not isinstance(data, dict):
            raise ConfigError("expected a mapping of sections", line=1, file=self.file)
        return data

    def alias(self, path: str, real: str) -> None:
        self._aliases[path] = real

    def error(self, path: str, message: str) -> ConfigError:
        return ConfigError(message, path, self._line(path), self.file)

    def _line(self, path: str) -> int | None:
        for alias, real in self._aliases.items():
            if path.startswith(alias):
                path = real + path[len(alias) :]
        while path:
            if path in self.lines:
                return self.lines[path]
            path = re.sub(r"(\.[^.\[]+|\[\d+\])$", "", path) if re.search(r"[.\[]", path) else ""
        return self.lines.get("")

    def _value(self, node: yaml.Node, path: str, depth: int = 0) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            # Aliases of aliases: a few lines that would take hours to read.
            raise ConfigError("expected fewer values", path, node.start_mark.line + 1, self.file)
        if depth > 20:
            raise ConfigError("nested too deep", path, node.start_mark.line + 1, self.file)
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    raise ConfigError("expected a plain key", path, line, self.file)
                key = self._text(str(key_node.value), path, line)
                child = f"{path}.{key}" if path else key
                if key in result:
                    raise ConfigError("the key stands here twice", child, line, self.file)
                self.lines[child] = line
                result[key] = self._value(value_node, child, depth + 1)
            return result
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        line = node.start_mark.line + 1

        def from_environment(match: re.Match[str]) -> str:
            value = self.environ.get(match[1])
            if not value:
                raise ConfigError(f"the environment has no {match[1]}", path, line, self.file)
            return value

        text = self._text(re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", from_environment, node.value), path, line)
        tag = node.tag
        if text != node.value and tag == "tag:yaml.org,2002:str":
            return text
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(yaml.ScalarNode(tag, text, node.start_mark, node.end_mark))
        except (yaml.YAMLError, ValueError):
            raise ConfigError("not a YAML value", path, line, self.file) from None
        finally:
            loader.dispose()

    def _text(self, text: str, path: str, line: int) -> str:
        """JSON writes some characters as two escapes, which YAML leaves as two halves."""
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise ConfigError("half a character", path, line, self.file) from None

    def explain(self, message: str, data: Any) -> ConfigError:
        """msgspec's message with a line: ``Expected `int`, got `str` - at `$.node.max_calls```."""
        text, _, where = message.partition(" - at ")
        steps = _resolve(where.strip("`"), data)
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
        kind = _kind_at(steps)
        unknown = re.search(r"unknown field `(.*)`", text)
        missing = re.search(r"missing required field `(.+?)`", text)
        if unknown:
            key = unknown[1]
            known = _known_keys(kind)
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(sorted(known))}"
            return self.error(f"{path}.{key}" if path else key, f"unknown key{hint if known else ''}")
        if missing:
            return self.error(f"{path}.{missing[1]}" if path else missing[1], "missing; it has no default")
        text = text[:1].lower() + text[1:]
        if "got `int`" in text and "`str" in text:
            text += "; put the number in quotes"
        elif text.startswith("invalid enum value"):
            text += f"; expected one of {', '.join(_choices(kind))}"
        elif _NAME.pattern in text:
            text = _NAME_EXPECTED
        elif "sha256:" in text:
            text = "expected sha256: and 64 hex digits, as `esl-apps hash-token` prints it"
        return self.error(path, text)


_Step = str | int
_STEP = re.compile(r"\.(callflow\.disa|[^.\[\]]+)|\[(\d+)\]|(\[\.\.\.\])")


def _resolve(where: str, data: Any) -> list[_Step]:
    """msgspec's path as steps. It writes ``[...]`` for whichever key of a mapping: that is the first one that,
    alone in its mapping, gives an error at the same place."""
    template: list[_Step | None] = [
        name or (int(index) if index else None) for name, index, _any in _STEP.findall(where.removeprefix("$"))
    ]
    steps: list[_Step] = []
    for depth, step in enumerate(template):
        if step is not None:
            steps.append(step)
            continue
        mapping = _at(data, steps)
        for key in mapping:
            alone = _replaced(data, steps, {key: mapping[key]})
            found = _error_path(alone)
            if found is not None and found.startswith(_upto(where, depth + 1)):
                data = alone
                steps.append(key)
                break
        else:
            break
    return steps


def _upto(where: str, count: int) -> str:
    """The first steps of msgspec's path."""
    ends = [found.end() for found in _STEP.finditer(where)]
    return where[: ends[count - 1]]


def _error_path(data: Any) -> str | None:
    try:
        msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        return str(error).partition(" - at ")[2].strip("`")
    return None


def _at(data: Any, steps: list[_Step]) -> Any:
    for step in steps:
        data = data[step]
    return data


def _replaced(data: Any, steps: list[_Step], value: Any) -> Any:
    """A copy of the data with another value at a place; what lies beside it is shared."""
    if not steps:
        return value
    copy = data.copy()
    copy[steps[0]] = _replaced(data[steps[0]], steps[1:], value)
    return copy


def _kind_at(steps: list[_Step]) -> Any:
    """The type of a place, as ``msgspec.inspect`` has it."""
    kind: Any = inspect.type_info(Config)
    for step in steps:
        for one in _alternatives(kind):
            if isinstance(one, inspect.StructType):
                found = [entry.type for entry in one.fields if entry.encode_name == step]
                if found:
                    kind = found[0]
            elif isinstance(one, inspect.DictType):
                kind = one.value_type
            elif isinstance(one, inspect.ListType):
                kind = one.item_type
    return kind


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _known_keys(kind: Any) -> list[str]:
    structs = [one for one in _alternatives(kind) if isinstance(one, inspect.StructType)]
    return [entry.encode_name for one in structs for entry in one.fields]


def _choices(kind: Any) -> list[str]:
    """What may stand at a place that takes words: ``left``, ``right``, or a mapping."""
    found: list[str] = []
    for one in _alternatives(kind):
        if isinstance(one, inspect.LiteralType):
            found += [str(value).lower() if isinstance(value, bool) else str(value) for value in one.values]
        elif isinstance(one, inspect.StructType):
            found.append("a mapping of " + ", ".join(entry.encode_name for entry in one.fields))
    return found


# The rules between keys ------------------------------------------------------------------------------


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

    def redis_url(url: str, path: str) -> None:
        try:
            redisclient.check(url)
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
    redis_url(config.redis.url, "redis.url")
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
        _RECORDINGS.fullmatch(config.recordings.dir), "recordings.dir",
        "expected an absolute path of letters, digits and - _ . ~ : + @: it goes through a dial string",
    )  # fmt: skip
    require(
        config.recordings.link_key is None or len(config.recordings.link_key) >= _LEAST_KEY, "recordings.link_key",
        f"expected {_LEAST_KEY} characters at least: whoever finds it hears every recording",
    )  # fmt: skip
    for i, text in enumerate(config.prompts.urls):
        # It becomes an argument of the switch's: nothing in it may be read as more (DESIGN.md, 15).
        require(
            re.fullmatch(r"https?://[A-Za-z0-9._~:/?=&+-]+", text), f"prompts.urls[{i}]",
            "expected http:// or https://, then letters, digits and . _ ~ : / ? = & + -",
        )  # fmt: skip

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
            redis_url(one.redis.url, f"{path}.redis.url")
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
                disa.pin or disa.pin_hash or disa.allow_no_pin, at,
                "no pin: whoever calls may dial; set pin, or allow_no_pin: true",
            )  # fmt: skip
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
                destination = spending.read_destination(text)
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


def sections(config: Config) -> list[tuple[str, Admin | Integrator]]:
    """What has an HTTP port, the operator's first, and its place in the configuration."""
    return [("admin", config.admin), *[(f"integrators[{i}]", one) for i, one in enumerate(config.integrators)]]


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_address(text: str) -> tuple[str, int]:
    """``host:port`` → (host, port). :raises ValueError: with what was expected."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected host:port")
    return host.strip("[]"), int(port)


def within(address: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether an address is of one of the networks; an IPv4 address that a port of both families writes as
    ``::ffff:10.0.0.1`` is what it is. Text that is no address is of none."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return any((mapped or ip) in network for network in networks)
