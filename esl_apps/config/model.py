"""YAML in, a frozen :class:`Config` out, or one :class:`ConfigError` that says where and what.

Types, unknown keys and missing ones are msgspec's job; the file and line of what it complains about are
this module's, and so are the rules that hold between keys.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import phonenumbers
from msgspec import Meta, field

from esl_apps.config.fields import (
    Count,
    Duration,
    LockSeconds,
    Name,
    PerSecond,
    Port,
    Positive,
    Seconds,
    Section,
    Threshold,
    Timeout,
    described,
)
from esl_apps.config.high_risk import HIGH_RISK_RANGES, read_ranges
from esl_apps.config.problems import Problem
from esl_apps.config.tokens import Bearer, CardsToken, IntegratorToken
from esl_apps.core import limits as limits_module
from esl_apps.core.numbers import NumberPlan, of_region


class Node(Section, frozen=True):
    name: Name = "app1"
    listen: str = "127.0.0.1:8084"
    advertise: str | None = None
    max_calls: Positive = 5000
    drain_timeout: Seconds = 30
    worker_ports: Port | None = None
    state_dir: str | None = None


class Redis(Section, frozen=True):
    url: str = "redis://127.0.0.1:6379/0"
    stale_cards: Seconds = 0


class SwitchConfig(Section, frozen=True):
    name: Name
    address: str
    password: str
    allow_default_password: bool = False


class Dial(Section, frozen=True):
    region: Annotated[str, described("an ISO 3166 country code, as ZA", pattern=r"^[A-Z]{2}\Z")] = "ZA"
    extensions: str = r"^\d{3,4}$"
    extension: str = "user/{number}@127.0.0.1"
    external: list[str] = field(default_factory=lambda: ["sofia/gateway/pstn/{number}"])
    caller_id_format: Literal["as_given", "e164", "plus", "national"] = "as_given"
    emergency: str | None = None
    classifiers: dict[str, str] = field(default_factory=dict)
    ringback: str = "%(2000,4000,440,480)"


class Rate(Section, frozen=True):
    """Requests a second on one port of one node; None: no bound."""

    per_token: PerSecond | None = 300
    per_address: PerSecond | None = 300
    failed: PerSecond | None = 10
    burst: Timeout = 10
    connections: Positive = 500


class Tls(Section, frozen=True):
    cert: str
    key: str


class Admin(Bearer, frozen=True):
    listen: str = "127.0.0.1:8000"
    tokens: list[CardsToken] = field(default_factory=list)
    rate: Rate = field(default_factory=Rate)
    tls: Tls | None = None


class Recordings(Section, frozen=True):
    dir: str = "/var/lib/esl_apps/recordings"
    link_key: str | None = None
    link_longest: Positive = 604800


class Prompts(Section, frozen=True):
    dir: str | None = None
    language: Name = "en"
    urls: list[str] = field(default_factory=list)


class Spool(Section, frozen=True):
    dir: str = "/var/log/freeswitch/json_cdr"


class Rule(Section, frozen=True):
    action: Literal["deny", "allow", "inherit"]


Restriction = dict[str, Rule]


class DestinationLimits(Section, frozen=True):
    calls_per_hour: Count | None = None
    calls_per_day: Count | None = None
    minutes_per_hour: Count | None = None
    minutes_per_day: Count | None = None
    longest_call: Seconds | None = None

    def read(self) -> limits_module.Limits:
        return limits_module.Limits(
            calls_per_hour=self.calls_per_hour,
            calls_per_day=self.calls_per_day,
            minutes_per_hour=self.minutes_per_hour,
            minutes_per_day=self.minutes_per_day,
            longest_call=self.longest_call,
        )


class Limits(DestinationLimits, frozen=True):
    destinations: dict[str, DestinationLimits] = field(default_factory=dict)

    def read(self) -> limits_module.Limits:
        named = {limits_module.read_destination(text): one.read() for text, one in self.destinations.items()}
        return replace(super().read(), destinations=named)


class DestinationBreaker(Section, frozen=True):
    calls_per_hour: Count | None = None
    calls_per_day: Count | None = None
    minutes_per_hour: Count | None = None
    minutes_per_day: Count | None = None

    def thresholds(self) -> limits_module.Limits:
        return limits_module.Limits(
            calls_per_hour=self.calls_per_hour,
            calls_per_day=self.calls_per_day,
            minutes_per_hour=self.minutes_per_hour,
            minutes_per_day=self.minutes_per_day,
        )


class Breaker(DestinationBreaker, frozen=True):
    high_risk_calls_per_hour: Count | None = None
    end_calls: bool = False
    destinations: dict[str, DestinationBreaker] = field(default_factory=dict)

    def read(self) -> limits_module.Breaker:
        named = {limits_module.read_destination(text): one.thresholds() for text, one in self.destinations.items()}
        return limits_module.Breaker(
            replace(self.thresholds(), destinations=named), self.high_risk_calls_per_hour, self.end_calls
        )


def level(name: str, limits: Limits, breaker: Breaker) -> limits_module.Level:
    return limits_module.Level(name, limits.read(), breaker.read())


class Spending(Section, frozen=True):
    """What all calls of all integrators and accounts together may cost."""

    high_risk: str | None = None
    limits: Limits = field(default_factory=Limits)
    breaker: Breaker = field(default_factory=Breaker)


class IntegratorRedis(Section, frozen=True):
    url: str


class LegacyGet(Section, frozen=True):
    allow: list[str]


class Patterns(Section, frozen=True):
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
    agent_timeout: Timeout = 30
    callee_timeout: Timeout = 60
    patterns: Patterns = field(default_factory=Patterns)
    call_restriction: Restriction = field(default_factory=dict)
    dispositions: Literal["esl_apps", "teleforge"] = "esl_apps"
    push: Literal["left", "right"] = "left"
    legacy_get: LegacyGet | Literal[False] = False
    legacy_c2d: bool = False
    max_duration: Duration = 14400
    limits: Limits = field(default_factory=Limits)
    breaker: Breaker = field(default_factory=Breaker)


class Cccp(Section, frozen=True):
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


class PinGuard(Section, frozen=True):
    """Wrong PINs, counted over all nodes (``esl_apps/store/pin_guard.py``)."""

    window: Annotated[float, described("a number of seconds, 1 to 604800", ge=1, le=604_800)] = 3600
    per_number: Threshold = 10
    per_address: Threshold = 50
    per_card: Threshold = 10
    per_service: Threshold = 50
    overall: Threshold = 200
    lock: LockSeconds = 300
    longest_lock: LockSeconds = 86_400
    longest_service_lock: LockSeconds = 3600


class Callback(Section, frozen=True):
    retries: Count = 2
    retry_after: Seconds = 60
    cool_down: Seconds = 60
    per_day: Count = 10
    answer_after: Seconds = 0
    confirm: bool = False


class DisaDefaults(Section, frozen=True):
    default_use_account_caller_id: bool = True
    default_pin_length: Positive = 10


class CallerId(Section, frozen=True):
    number: str
    name: str | None = None


class User(Section, frozen=True):
    call_restriction: Restriction = field(default_factory=dict)


class Disa(Section, frozen=True):
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
    max_session: Duration = 3600


class Account(Bearer, frozen=True):
    tokens: list[CardsToken] = field(default_factory=list)
    realm: Annotated[str, described("a host name", pattern=r"^[A-Za-z0-9.-]*\Z", max_length=255)] = ""
    caller_id: CallerId | None = None
    integrator: str | None = None
    caller_ids: list[str] = field(default_factory=list)
    call_restriction: Restriction = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    card_limits: Limits = field(default_factory=Limits)
    breaker: Breaker = field(default_factory=Breaker)
    disa: dict[str, Disa] = field(default_factory=dict)


class Inbound(Section, frozen=True):
    integrator: str
    agents: Annotated[list[str], Meta(min_length=1)]
    ring_timeout: Timeout = 20


class Dialplan(Section, frozen=True):
    """For ``esl-apps dialplan``: the nodes that the switch tries, in order; none: this one."""

    nodes: list[str] = field(default_factory=list)


class Config(Section, frozen=True):
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


class ReadConfig(Config, frozen=True):
    """A configuration that was read from a file, with the file's warnings. Files can't set them: they are decoded as
    `Config`."""

    notes: tuple[Problem, ...] = ()


#: What a destination's country may be; 001: of no country.
COUNTRIES = frozenset({*phonenumbers.SUPPORTED_REGIONS, "001"})


def sections(config: Config) -> list[tuple[str, Admin | Integrator]]:
    """What has an HTTP port, the operator's first, and its place in the configuration."""
    return [("admin", config.admin), *[(f"integrators[{i}]", one) for i, one in enumerate(config.integrators)]]
