"""The sections of a configuration: each key with its type, its default, and below it its meaning.

``reference`` reads the meanings for the docs, and a test compares them and the defaults with ``conf/esl_apps.yml``.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from msgspec import field

from esl_apps.config.fields import (
    Count,
    DisplayName,
    Duration,
    Language,
    Name,
    Origin,
    PerSecond,
    Port,
    Positive,
    Seconds,
    Section,
    SipValue,
    Timeout,
    XHeader,
    described,
)
from esl_apps.config.high_risk import HIGH_RISK_RANGES, read_ranges
from esl_apps.config.inbound import Inbound
from esl_apps.config.integrator_parts import IntegratorRedis, LegacyGet, Patterns
from esl_apps.config.pin_guard import PinGuard
from esl_apps.config.problems import Problem
from esl_apps.config.prompts import Prompts
from esl_apps.config.records import Payload, RecordsConfig
from esl_apps.config.spending import Breaker, Limits, Spending
from esl_apps.config.tokens import AdminToken, Bearer, CardsToken, IntegratorToken, PinHash
from esl_apps.config.webhooks import Webhook
from esl_apps.core.numbers import NumberPlan, of_region


class Node(Section, frozen=True):
    name: Name = "app1"
    """Unique among the nodes that share a Redis; appears in logs and metrics."""
    listen: str = "127.0.0.1:8084"
    """Event socket that FreeSWITCH's `socket` application connects to; reachable only from the network of the
    switches, never from the internet."""
    allow: list[str] | None = None
    """Addresses (CIDR) that may connect to listen; null: this machine and the addresses of switches."""
    secret: str | None = None
    """Proves to a node that a connection is a switch's: the switches' global variable esl_apps_secret, which the
    output of `esl-apps dialplan` sets; null: the address alone counts."""
    secret_old: str | None = None
    """While the secret is replaced: switches that have this one are served, too."""
    advertise: str | None = None
    """The same address as the switches reach it; used in originates and in the dialplan."""
    max_calls: Positive = 5000
    """Above this number a caller is hung up with cause 42, and HTTP answers 503."""
    drain_timeout: Seconds = 30
    """How long live calls may continue after SIGTERM."""
    worker_ports: Port | None = None
    """For `serve --workers N`: the first of N event-socket ports, one per worker, that the switches must reach;
    null: the ports after the one in listen."""
    state_dir: str | None = None
    """Folder for data that Redis has not taken yet, kept across restarts; null: /var/lib/esl_apps, or a folder that
    this user can write."""


class Redis(Section, frozen=True):
    url: str = "redis://127.0.0.1:6379/0"
    """Cards, limits and pending calls, shared by all nodes; redis+sentinel:// and redis+cluster:// work, too."""
    stale_cards: Seconds = 0
    """Seconds for which a card that this node has looked up still opens while Redis is away, if this is the only
    node; PINs, and cards with limits per hour or day, are still refused."""


class SwitchConfig(Section, frozen=True):
    name: Name
    """Shown in CDRs as `switch`."""
    address: str
    """Its mod_event_socket."""
    password: str
    """The password of its mod_event_socket."""
    allow_default_password: bool = False
    """True: accept the well-known ClueCon on an address that others can reach."""


class Dial(Section, frozen=True):
    region: Annotated[str, described("an ISO 3166 country code, as ZA", pattern=r"^[A-Z]{2}\Z")] = "ZA"
    """Country whose dialling rules apply to numbers without + (ISO 3166)."""
    extensions: str = r"^\d{3,4}$"
    """Which numbers are extensions instead of telephone numbers."""
    extension: str = "user/{number}@127.0.0.1"
    """Dial string of an extension; use the domain that the phones register with."""
    external: list[str] = field(default_factory=lambda: ["sofia/gateway/pstn/{number}"])
    """Gateways in the order to try them: {number}, {e164}, {plus}, {national}, {dialled}; []: only extensions are
    dialled."""
    gateway_timeout: Positive | None = 5
    """Seconds without ringing, media or answer after which the next gateway is tried; null: never."""
    caller_id_format: Literal["as_given", "e164", "plus", "national"] = "as_given"
    """Form of the caller ID that the trunk wants: as_given, e164, plus or national."""
    emergency: str | None = None
    """Dial string for emergency calls, with {number}; null refuses them with a prompt of their own."""
    classifiers: dict[str, str] = field(default_factory=dict)
    """Your own number classes, name -> regex on +E164, next to the built-in ones."""
    ringback: str = "%(2000,4000,440,480)"
    """Tone that an answered party hears while the other one rings (a FreeSWITCH tone)."""
    hold_music: str | None = None
    """Music for a party on hold: local_stream://NAME, a tone_stream:// or a file on the switch; null: the switch's own
    (hold_music of its vars.xml)."""


class Rate(Section, frozen=True):
    """Limits on the requests of one port on one node. None: no limit."""

    per_token: PerSecond | None = 300
    """Requests a second with one token."""
    per_address: PerSecond | None = 300
    """Requests a second from one address (IPv6: one /64)."""
    failed: PerSecond | None = 10
    """Wrong tokens a second from one address; above it, clients that are new there are refused."""
    burst: Timeout = 10
    """How many seconds' worth of each may arrive at once."""
    connections: Positive = 500
    """Open connections from one address."""


class Tls(Section, frozen=True):
    cert: str
    """File of the certificate in PEM, with its chain."""
    key: str
    """File of its private key in PEM, without a password."""


class Admin(Bearer, frozen=True):
    listen: str = "127.0.0.1:8000"
    """Cards, /metrics, /healthz, /readyz."""
    tokens: list[AdminToken] = field(default_factory=list)
    """Further tokens with fewer rights: [{name: noc, token: ..., scopes: [read, operate]}]."""
    rate: Rate = field(default_factory=Rate)
    """Limits of this port on this node; above them 429 with Retry-After; null: no limit."""
    tls: Tls | None = None
    """{cert: FILE, key: FILE} in PEM, with the chain in cert; SIGHUP reads them again."""
    console: bool = False
    """True: pages for people at /console/, opened with a token of this port that has the scope read or cards."""


class Recordings(Section, frozen=True):
    dir: str = "/var/lib/esl_apps/recordings"
    """Folder as the switch writes to it; the node reads the same path (same machine, or a mount)."""
    sample_rate: Literal[8000, 16000, 32000, 48000] | None = 16000
    """Samples a second of a recording's file, whatever the call's codec; null: as the call, 48000 for Opus."""
    link_key: str | None = None
    """Key for signed links to recordings, the same on all nodes; null: no links; changing it makes all links
    invalid."""
    link_longest: Positive = 604800
    """Longest validity of a link."""
    keep_days: Positive | None = None
    """Whole days after which nodes delete recordings; null: never."""
    notice: str | None = None
    """Prompt, or a URL of prompts.urls, that is played before the first recorded second; null: none."""
    notice_to: Literal["both", "callee"] = "both"
    """Who hears it: both parties, or the callee alone (inbound: the caller)."""


class Spool(Section, frozen=True):
    dir: str = "/var/log/freeswitch/json_cdr"
    """Folder that mod_json_cdr writes (conf/freeswitch/json_cdr.conf.xml): gives the records of calls that ended
    while no node ran."""


class Rule(Section, frozen=True):
    action: Literal["deny", "allow", "inherit"]
    """Deny, allow, or inherit: as without this rule."""


Restriction = dict[str, Rule]


class Integrator(Bearer, frozen=True, kw_only=True):
    name: Name
    """Letters, digits, ._-."""
    listen: str
    """Port of this integrator alone."""
    tokens: list[IntegratorToken] = field(default_factory=list)
    """Further tokens with fewer rights: [{name: wallboard, token: ..., scopes: [read]}]; scopes are call, read, record,
    record_delete."""
    rate: Rate = field(default_factory=Rate)
    """As admin.rate."""
    tls: Tls | None = None
    """As admin.tls."""
    redis: IntegratorRedis | None = None
    """The Redis of its notifications."""
    payload: Payload = "v3"
    """Or v4: notifications with all fields, and with those of later versions; v2: as they were before v3.0.0."""
    session_records: bool = False
    """True: a closing entry of type session after the records of each session: what its legs took in all."""
    record: bool = False
    """True: record from the callee's answer to the end, in stereo, with the agent on the left."""
    caller_ids: list[str] = field(default_factory=list)
    """The numbers that it may show as caller ID; empty: any valid number."""
    names: bool = False
    """True: requests may say which name the callee is shown (outbound_name)."""
    headers: list[XHeader] = field(default_factory=list)
    """Names of X- headers that requests may set in the INVITE to either leg (headers)."""
    random_caller_id: bool = False
    """True: outbound_id may be random, which shows any one of caller_ids."""
    campaigns: dict[str, str | list[str]] = field(default_factory=dict)
    """Campaign -> what is shown if outbound_id is tvc_CAMPAIGN: a number, or a list used in turn."""
    agent_timeout: Timeout = 30
    """From the agent's INVITE."""
    callee_timeout: Timeout = 60
    """From the callee's INVITE."""
    auto_answer: bool | list[str] = False
    """True, or a list of extensions: their phones are asked to answer by themselves; a request can say otherwise."""
    auto_answer_headers: dict[Literal["Call-Info", "Alert-Info"], SipValue] = field(
        default_factory=lambda: {
            "Call-Info": "<sip:auto@answer>;answer-after=0",
            "Alert-Info": "<http://localhost>;info=alert-autoanswer;delay=0",
        }
    )
    """The headers that ask for it, sent to extensions only."""
    confirm: Literal["outside", "always", "never"] = "outside"
    """Agents who must press 1 before the callee is dialled: outside (those with an outside number), always or never; a
    request can say otherwise."""
    patterns: Patterns = field(default_factory=Patterns)
    """Regexes that replace the defaults for agent, callee, outbound_id and contact_ref."""
    call_restriction: Restriction = field(default_factory=dict)
    """Class -> {action: deny | allow}; premium, satellite, unknown and high_risk are denied unless allowed."""
    dispositions: Literal["esl_apps", "teleforge"] = "esl_apps"
    """Or teleforge: whose words end_reason uses."""
    push: Literal["left", "right", "stream"] = "left"
    """Left: LPUSH, for clients that BRPOP; right: RPUSH, for clients that BLPOP; stream: XADD to a stream with :stream
    after the list's name, for consumer groups."""
    stream_length: Positive = 100000
    """About how many entries a stream keeps, read or not; a record takes some 0.7 KB."""
    webhooks: list[Webhook] = field(default_factory=list)
    """Where its notifications are posted, too, signed and in order."""
    legacy_get: LegacyGet | Literal[False] = False
    """Or {allow: [CIDR]}: addresses that may call GET /call.php without a token."""
    allow_origins: list[Origin] = field(default_factory=list)
    """Web sites whose pages may use this port from a browser, as https://crm.example.com; empty: none."""
    phone: bool = False
    """True: serve a phone for browsers at /phone/; `esl-apps check` then looks at the switches' SIP profiles, too."""
    legacy_c2d: bool = False
    """True: also push to enigma:notifications:c2d."""
    max_duration: Duration = 14400
    """Longest duration of a call."""
    language: Language | None = None
    """Language of the prompts in its calls; null: prompts.language."""
    max_calls: Positive | None = None
    """Its live calls on one node; above, HTTP answers 429 and callers are busy; null: node.max_calls, less a tenth if
    there are other integrators or accounts."""
    limits: Limits = field(default_factory=Limits)
    """As spending.limits, for all calls of this integrator on all nodes."""
    breaker: Breaker = field(default_factory=Breaker)
    """As spending.breaker."""


class Cccp(Section, frozen=True):
    cccp_cb_number: str | None = None
    """Number to ring and hang up on, to be called back."""
    cccp_cc_number: str | None = None
    """Number to dial through."""
    last_number_redial_code: str | None = None
    """Dials the last number of the card again."""
    ensure_valid_caller_id: bool = True
    """True: a caller number that the account may not show is replaced by the account's own, or:"""
    default_caller_id_number: str | None = None
    """Shown if the account has no number of its own."""
    allowed_callee_regex: str | None = None
    """Matched against +E164."""
    callback_delay: Seconds = 3
    """From the missed call to the callback."""
    prompt_delay: Seconds = 1
    """From the answer to the first prompt."""
    cid_trust: Literal["any", "national", "pin", "attested"] = "national"
    """Calls that a caller number alone opens: any (all that the card may dial), national (calls within the country),
    pin (nothing without a PIN), attested (all, if STIR/SHAKEN attests the number)."""
    pin_from: Literal["anywhere", "enrolled"] = "anywhere"
    """Or enrolled: a PIN only opens from a number that is enrolled with the same account."""
    attest_header: str = "P-Asserted-Identity"
    """Where a trunk of `trust` reports verstat=TN-Validation-Passed…: P-Asserted-Identity, From, or its own X-… or
    P-…"""
    attest_level: Literal["A", "B", "C"] = "A"
    """Lowest attestation that counts: A (the number is the caller's), B or C; a verdict without a level counts."""


class Callback(Section, frozen=True):
    retries: Count = 2
    """Further attempts if the callback is not answered."""
    retry_after: Seconds = 60
    """Between attempts."""
    cool_down: Seconds = 60
    """Per number: missed calls within this time after a callback are only refused."""
    per_day: Count = 10
    """Callbacks to one number after which it dials on; others are bounded apart."""
    answer_after: Seconds = 0
    """A caller who lets it ring this long gets dialthrough; 0: never answered, never charged."""
    confirm: bool = False
    """True: the person called back must press 1, and nothing else, before dialling; for numbers with voicemail."""


class DisaDefaults(Section, frozen=True):
    default_use_account_caller_id: bool = True
    """For a DISA without use_account_caller_id."""
    default_pin_length: Positive = 10
    """Minimum number of digits collected, unless # ends them."""


class CallerId(Section, frozen=True):
    number: str
    """Shown if the caller's own number is not."""
    name: DisplayName | None = None
    """The name shown with it."""


class UserCallerId(Section, frozen=True):
    number: str | None = None
    """Shown if the caller's own number is not; null: the account's."""
    name: DisplayName | None = None
    """The name shown with it; null: the account's."""


class User(Section, frozen=True):
    call_restriction: Restriction = field(default_factory=dict)
    """The same for one user; a class is refused if system, account or user denies it."""
    caller_id: UserCallerId = field(default_factory=UserCallerId)
    """What calls with this user's cards show, instead of the account's."""


class Disa(Section, frozen=True):
    pin: str | None = None
    """The caller must enter it; CHANGE IT (`esl-apps check` reminds you)."""
    pin_hash: PinHash | None = None
    """The output of `esl-apps hash-pin`, instead of pin."""
    numbers: list[str] = field(default_factory=list)
    """The numbers that lead to it; only used by `esl-apps dialplan`."""
    allow_no_pin: bool = False
    """True: the DISA works without a PIN."""
    retries: Positive = 3
    """Attempts at the PIN, and at the number."""
    interdigit: Positive = 3000
    """Milliseconds between digits."""
    max_digits: Positive = 15
    """Maximum length of a number."""
    preconnect_audio: Literal["dialtone", "ringing"] = "dialtone"
    """Or ringing."""
    ring_repeat_count: Positive = 1
    """How often it rings, with ringing."""
    use_account_caller_id: bool | None = None
    """False: show the caller's own number."""
    enforce_call_restriction: bool = True
    """False: refuse only the classes that are denied for the whole system."""
    max_session: Duration = 3600
    """From answer to hang-up, with all calls of the session."""


class Account(Bearer, frozen=True):
    tokens: list[CardsToken] = field(default_factory=list)
    """Further tokens with fewer rights: [{name: crm, token: ..., scopes: [cards]}]; scopes are call, read, cards."""
    realm: Annotated[str, described("a host name", pattern=r"^[A-Za-z0-9.-]*\Z", max_length=255)] = ""
    """Its SIP realm, for the Diversion header of calls that show the caller's own number; empty: localhost."""
    caller_id: CallerId | None = None
    """Caller ID of calls that don't show the caller's own number."""
    integrator: str | None = None
    """Whose Redis gets the account's records; without this, the top-level one."""
    caller_ids: list[str] = field(default_factory=list)
    """Numbers that it may show as caller ID."""
    call_restriction: Restriction = field(default_factory=dict)
    """Class -> {action: deny | allow}, for all users."""
    users: dict[str, User] = field(default_factory=dict)
    """User -> restrictions and caller ID of that user."""
    limits: Limits = field(default_factory=Limits)
    """As spending.limits, for all its calls together, on all nodes."""
    card_limits: Limits = field(default_factory=Limits)
    """The same for each of its cards."""
    breaker: Breaker = field(default_factory=Breaker)
    """As spending.breaker."""
    language: Language | None = None
    """Language of its callers, unless prompts.numbers or their card says another; null: prompts.language."""
    max_calls: Positive | None = None
    """As integrators[].max_calls, for its DISAs, cards, callbacks and autodials."""
    max_waiting: Count = 1000
    """Its autodials that wait for their callback_delay, over all nodes; above, HTTP answers 429."""
    disa: dict[str, Disa] = field(default_factory=dict)
    """Name -> a DISA, reached by `socket NODE/disa/ACCOUNT/NAME async full`."""


class Dialplan(Section, frozen=True):
    """Further input of ``esl-apps dialplan``."""

    nodes: list[str] = field(default_factory=list)
    """Host:port of all nodes, the nearest first; empty: only this node."""


class Config(Section, frozen=True, dict=True):
    """One node's configuration."""

    node: Node = field(default_factory=Node)
    """This node: where it listens, how many calls it takes."""
    redis: Redis = field(default_factory=Redis)
    """The Redis that all nodes share."""
    pin_key: str | None = None
    """Key for hashing PINs, the same on all nodes; if it is lost, all PINs are lost."""
    pin_key_old: str | None = None
    """While the key is replaced: cards' PINs hashed with this one open, too, and are hashed with pin_key when used."""
    switches: list[SwitchConfig] = field(default_factory=list)
    """Every FreeSWITCH that sends calls to this node or gets calls from it."""
    dial: Dial = field(default_factory=Dial)
    """How numbers are read and dialled."""
    trust: list[str] = field(default_factory=list)
    """Addresses (CIDR) of trunks whose P-Asserted-Identity and Remote-Party-ID are trusted."""
    admin: Admin = field(default_factory=Admin)
    """The operator's HTTP port."""
    recordings: Recordings = field(default_factory=Recordings)
    """Where recordings are, and links to them."""
    prompts: Prompts = field(default_factory=Prompts)
    """Prompts that callers hear."""
    spool: Spool = field(default_factory=Spool)
    """The call records that the switch itself writes."""
    records: RecordsConfig = field(default_factory=RecordsConfig)
    """The records of calls."""
    integrators: list[Integrator] = field(default_factory=list)
    """The clients of the click2dial API."""
    cccp: Cccp = field(default_factory=Cccp)
    """Calling cards and callback; the keys are those of Kazoo's system_config/cccp."""
    pin_guard: PinGuard = field(default_factory=PinGuard)
    """Locks after wrong PINs at DISA and dialthrough, counted over all nodes; a locked caller hears "wrong PIN" for
    any entry."""
    callback: Callback = field(default_factory=Callback)
    """Rules for ringing a caller back."""
    callflow_disa: DisaDefaults = field(default_factory=DisaDefaults, name="callflow.disa")
    """The keys are those of Kazoo's system_config/callflow.disa."""
    spending: Spending = field(default_factory=Spending)
    """Limits for the whole installation: all integrators and accounts, on all nodes."""
    accounts: dict[str, Account] = field(default_factory=dict)
    """Account -> its caller IDs, tokens, limits and DISAs."""
    inbound: dict[str, Inbound] = field(default_factory=dict)
    """Numbers that ring agents."""
    applications: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of applications that have a section of their own, by name."""
    dialplan: Dialplan = field(default_factory=Dialplan)
    """Further input of `esl-apps dialplan`."""

    def plan(self) -> NumberPlan:
        """Return the plan that numbers are read with.

        :raises ConfigError: the file of high-risk ranges can't be read.
        """
        return NumberPlan(self.dial.region, self.dial.extensions, self.dial.classifiers, self.high_risk())

    def high_risk(self) -> list[str]:
        """The prefixes of ``spending.high_risk``. The package's list is used without the prefixes of this node's own
        country, whose calls are local here.

        :raises ConfigError: they can't be read.
        """
        if self.spending.high_risk is not None:
            return read_ranges(self.spending.high_risk)
        return [prefix for prefix in read_ranges(str(HIGH_RISK_RANGES)) if not of_region(prefix, self.dial.region)]

    @property
    def advertise(self) -> str:
        """The address at which a switch reaches this node's event socket."""
        return self.node.advertise or self.node.listen

    def integrator(self, name: str) -> Integrator | None:
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, Integrator]:
        # The first of a name, until the rules have refused the second.
        return {integrator.name: integrator for integrator in reversed(self.integrators)}


class ReadConfig(Config, frozen=True):
    """A configuration that was read from a file, with the file's warnings and the high-risk ranges. Files can't set
    them: they are decoded as `Config`."""

    notes: tuple[Problem, ...] = ()
    prefixes: tuple[str, ...] | None = None
    """The value of ``high_risk``, read with the file, so that using the configuration touches no disk."""

    def high_risk(self) -> list[str]:
        return super().high_risk() if self.prefixes is None else list(self.prefixes)


def sections(config: Config) -> list[tuple[str, Admin | Integrator]]:
    """Return the sections that have an HTTP port, the operator's first, each with its path."""
    return [
        ("admin", config.admin),
        *[(f"integrators[{i}]", integrator) for i, integrator in enumerate(config.integrators)],
    ]
