"""The configuration as calls use it, read once: everything that a reload may change.

A :class:`Policy` never changes. A reload builds another one and puts it into :class:`Policies` whole, so that no call
ever sees half of a file.
"""

from __future__ import annotations

import ipaddress
import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec

from esl_apps.apps import APPLICATIONS, ApplicationError, disa, legs, load_installed
from esl_apps.apps.application import Application
from esl_apps.apps.permission import is_own
from esl_apps.apps.settings import Entrance, Queue, Rules, Settings
from esl_apps.config import model
from esl_apps.config.model import Cccp, Config, DisaDefaults, Integrator
from esl_apps.config.problems import ConfigError
from esl_apps.config.spending import level
from esl_apps.core import dialstring, identity
from esl_apps.core.call import Call
from esl_apps.core.cards import Account, CallerId, Card, language_of, own_caller_id
from esl_apps.core.dialstring import Endpoints
from esl_apps.core.limits import SYSTEM, Level
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import Number, NumberPlan
from esl_apps.core.order import IntegratorRules
from esl_apps.core.pins import Source, source_of
from esl_apps.core.timed_call import Frequency
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.round_trips import INTERVAL
from esl_apps.net.address import within
from esl_apps.net.turns import take_turn
from esl_apps.node.spoken import Spoken
from esl_apps.node.tenants import STRANGERS
from esl_apps.prompts.recorded import NONE, Recorded
from esl_apps.store import redis_client
from esl_apps.store.cards import CardStore, hash_pin
from esl_apps.store.pin_guard import GuardStore
from esl_apps.store.stale import Stale

_Section = TypeVar("_Section", Cccp, DisaDefaults)

#: Trunk addresses whose verdict is remembered: a call asks two or three times, and most come from a few trunks.
_TRUNKS_REMEMBERED = 1024


#: Callbacks a day after which no number is dialled, at least: missed calls with a forged number make them, and must not
#: use up what the person with that number may have.
_UNUSED = 50


#: The bounds of an imported account.
_NO_ACCOUNT = model.Account()


class _System(NamedTuple):
    """Sections that ``esl-apps import`` may override."""

    rules: Rules
    disa: DisaDefaults
    attest: tuple[str, str]
    """The header and the level by which STIR/SHAKEN vouches for a number."""


@dataclass(frozen=True)
class Policy:
    config: Config
    settings: Settings
    system: Level
    """The limits of the whole installation."""
    clients: Mapping[str, IntegratorRules]
    """By integrator."""
    queues: Mapping[str, Queue]
    """Inbound numbers, by E.164."""
    cards: CardStore
    guard: GuardStore
    trusted: Callable[[str], bool]
    """Whether to believe what a packet from this address says of its caller."""
    pin_key: str
    own_numbers: frozenset[str]
    """The DIDs of this installation, as subscribers, without those of ``cccp``."""
    spoken: Spoken
    """The prompts."""
    own_settings: Mapping[str, msgspec.Struct]
    """The settings of applications that have their own, by ``ref``."""

    def own(self, ref: str) -> Any:
        return self.own_settings[ref]

    def serves(self, app: Application) -> bool:
        """Whether an application is switched on."""
        return app.settings is None or app.ref in self.own_settings

    # Bounds -------------------------------------------------------------------------------------------

    def max_calls_of(self, tenant: str) -> int:
        """How many live calls a payer, as ``tenant_of`` names it, may have on this node."""
        config = self.config
        kind, _, name = tenant.removeprefix(STRANGERS).partition(":")
        section = config.accounts.get(name) if kind == "account" else config.integrator(name)
        if section is not None and section.max_calls is not None:
            return section.max_calls
        # A tenth is left for the others, if there are any.
        several = len(config.integrators) + len(config.accounts) > 1
        return math.ceil(config.node.max_calls * (0.9 if several else 1.0))

    def max_waiting_of(self, account_id: str) -> int:
        """How many calls of an account may wait to be placed."""
        return self.config.accounts.get(account_id, _NO_ACCOUNT).max_waiting

    # Rules --------------------------------------------------------------------------------------------

    @property
    def rules(self) -> Rules:
        """:raises StoreUnavailable: Redis is down, or holds rules that can't be read. Dialling by half of them
        would open what the other half closes."""
        return self._system.rules

    @cached_property
    def _system(self) -> _System:
        """``cccp`` and ``callflow.disa`` of the file, overridden by imported documents.

        :raises StoreUnavailable: as :attr:`rules`; the next call asks again.
        """
        config = self.config
        cccp = self._with_imported("cccp", config.cccp)
        defaults = self._with_imported("callflow.disa", config.callflow_disa)
        try:
            allowed = re.compile(cccp.allowed_callee_regex) if cccp.allowed_callee_regex else None
            own_numbers = self._own_numbers(cccp)
        except (re.error, NotDialable) as error:
            raise StoreUnavailable(f"the imported cccp can't be used: {error}") from None
        rules = Rules(
            redial_code=cccp.last_number_redial_code,
            ensure_valid_caller_id=cccp.ensure_valid_caller_id,
            default_caller_id=cccp.default_caller_id_number,
            allowed_callee=allowed.search if allowed else None,
            cid_trust=cccp.cid_trust,
            pin_from_enrolled=cccp.pin_from == "enrolled",
            prompt_delay=cccp.prompt_delay,
            callback_delay=cccp.callback_delay,
            emergency=config.dial.emergency is not None,
            system=self.system,
            own_numbers=own_numbers,
        )
        return _System(rules, defaults, (cccp.attest_header, cccp.attest_level))

    def _own_numbers(self, cccp: Cccp) -> frozenset[str]:
        """The DIDs of this installation, E.164. :raises NotDialable: an imported one is no number."""
        dids = filter(None, [cccp.cccp_cb_number, cccp.cccp_cc_number])
        return self.own_numbers.union(self.settings.plan.read(did).subscriber for did in dids)

    def _with_imported(self, name: str, section: _Section) -> _Section:
        imported = self.cards.system_config(name)
        if not imported:
            return section
        try:
            return msgspec.convert({**msgspec.to_builtins(section), **imported}, type(section))
        except msgspec.ValidationError as error:
            raise StoreUnavailable(f"the imported {name} can't be read: {error}") from None

    # DISA ---------------------------------------------------------------------------------------------

    def entrance(self, account_id: str, name: str) -> Entrance | None:
        """A DISA as configured now, or None if there is none of this name. :raises StoreUnavailable: Redis is down."""
        configured = self.config.accounts.get(account_id)
        entrance = configured.disa.get(name) if configured else None
        account = self.cards.account(account_id) if entrance else None
        if entrance is None or account is None:
            return None
        defaults = self._system.disa
        hashed = self._hash_configured(entrance.pin) if entrance.pin else entrance.pin_hash
        own = entrance.use_account_caller_id
        rings = entrance.preconnect_audio == "ringing"
        return Entrance(
            name=name,
            account=account,
            pin_hash=hashed,
            pin_length=max(defaults.default_pin_length, len(entrance.pin or "")),
            retries=entrance.retries,
            interdigit=entrance.interdigit / 1000,
            max_digits=entrance.max_digits,
            preconnect_audio=disa.RINGING.format(count=entrance.ring_repeat_count) if rings else disa.DIALTONE,
            preconnect_seconds=disa.RINGING_SECONDS * entrance.ring_repeat_count if rings else disa.DIALTONE_SECONDS,
            use_account_caller_id=defaults.default_use_account_caller_id if own is None else own,
            enforce_call_restriction=entrance.enforce_call_restriction,
            max_session=entrance.max_session,
            pin_hashed=entrance.pin_hash is not None,
            pin_mark=_mark(entrance.pin) if entrance.pin else entrance.pin_hash,
        )

    @cached_property
    def _hashes(self) -> dict[str, str]:
        """The hashes of PINs of the configuration, by PIN."""
        return {}

    def _hash_configured(self, pin: str) -> str:
        hashed = self._hashes.get(pin)
        if hashed is None:
            hashed = self._hashes[pin] = self.hash_pin(pin)
        return hashed

    def hash_pin(self, pin: str) -> str:
        """The keyed hash of a typed PIN."""
        return hash_pin(self.pin_key, pin)

    # Callers ------------------------------------------------------------------------------------------

    def caller(self, call: Call) -> str | None:
        """The caller's number, or None if it is withheld or no number."""
        return identity.caller_of(call, self.trusted)

    def attested(self, call: Call) -> bool:
        """Whether STIR/SHAKEN vouches for the caller's number. :raises StoreUnavailable: as :attr:`rules`."""
        return identity.is_attested(call, self.trusted, *self._system.attest)

    def source(self, call: Call, entrance: str, caller: str | None) -> Source:
        """The parties against which this call's wrong PINs are counted. ``caller``: as :meth:`caller` says."""
        withheld = identity.withheld_of(call, self.trusted) if caller is None else None
        return source_of(
            caller,
            identity.address_of(call),
            call.header("Caller-Destination-Number") or "",
            entrance,
            self.settings.plan,
            self.trusted,
            vouched=identity.is_vouched(call, self.trusted) or self.attested(call),
            withheld=self.hash_pin(withheld)[:16] if withheld else "",
        )

    def caller_id_of(self, account: Account) -> str:
        """As :meth:`caller_of`, the number alone."""
        return self.caller_of(account).number or legs.ANONYMOUS

    def caller_of(self, account: Account, user_id: str | None = None) -> CallerId:
        """What an account's own calls show, or those of one of its users. :raises StoreUnavailable: as
        :attr:`rules`."""
        shown = own_caller_id(account, user_id, self.rules.default_caller_id)
        number = self.settings.plan.find(shown.number)
        if number is None:
            return CallerId(shown.number or legs.ANONYMOUS, shown.name)
        return CallerId(dialstring.caller_id(number, self.settings.caller_id_format), shown.name)

    def is_own(self, number: Number) -> bool:
        """Whether a number leads back to this installation; by the file alone if Redis, which may have imported ones,
        is down and was never asked."""
        try:
            return is_own(number, self.rules.own_numbers)
        except StoreUnavailable:
            return is_own(number, self._own_numbers(self.config.cccp))

    def prompt(self, name: str, rate: int, language: str | None = None, recorded: Recorded = NONE) -> str:
        """As :meth:`Spoken.path`."""
        return self.spoken.path(name, rate, language, recorded)

    def language(self, dnis: str, account: Account | None, card: Card | None = None) -> str | None:
        """The language of a caller's prompts; None: the configuration's."""
        return language_of(self.spoken.language_of(dnis), account, card)

    def is_media(self, name: object) -> bool:
        """Whether this is an existing prompt, or a URL that the configuration lists."""
        return self.spoken.is_media(name)


@cache
def _own_key() -> str:
    """This process's key: for configured DISAs if the operator gives none, and for what a reload must not change."""
    return secrets.token_hex(32)


@cache
def _mark(pin: str) -> str:
    return hash_pin(_own_key(), pin)


class Policies:
    """The policy in force."""

    def __init__(self, now: Policy) -> None:
        self.now = now


def read_policy(config: Config, redis: redis_client.Client, stale: Stale, alert: Callable[..., None]) -> Policy:
    """Make the policy of a configuration. Lets other greenlets run meanwhile.

    :raises ConfigError: an inbound number's integrator isn't configured.
    """
    plan, dial = config.plan(), config.dial
    spoken = Spoken(config, plan)
    system = level(SYSTEM, config.spending.limits, config.spending.breaker)
    trunks = [ipaddress.ip_network(text) for text in config.trust]

    def is_own_number(number: Number) -> bool:
        return policy.is_own(number)

    policy = Policy(
        config=config,
        settings=Settings(
            node=config.node.name,
            plan=plan,
            endpoints=Endpoints(dial.extension, tuple(dial.external), dial.emergency, dial.gateway_timeout),
            caller_id_format=dial.caller_id_format,
            ringback=dial.ringback,
            recordings=config.recordings.dir,
            rtcp_interval=INTERVAL if config.records.round_trip else None,
            session_records=frozenset(
                [integrator.name for integrator in config.integrators if integrator.session_records]
                + ([""] if config.records.session_records else [])
            ),
            recording_rate=config.recordings.sample_rate,
            notice=spoken.notices.get(config.prompts.language),
            notices=spoken.notices,
            notice_to_both=config.recordings.notice_to == "both",
            callback_answer_after=config.callback.answer_after,
            callback_frequency=Frequency(
                config.callback.cool_down, config.callback.per_day, max(_UNUSED, 5 * config.callback.per_day)
            ),
            callback_retries=config.callback.retries,
            callback_retry_after=config.callback.retry_after,
            callback_confirm=config.callback.confirm,
        ),
        system=system,
        clients={
            integrator.name: _client(config, plan, spoken, integrator, system, is_own_number)
            for integrator in config.integrators
        },
        queues=_queues(config, plan),
        cards=CardStore(
            redis,
            config.pin_key,
            plan,
            config.accounts,
            stale=stale,
            old_key=config.pin_key_old,
            languages=spoken.languages,
        ),
        spoken=spoken,
        guard=GuardStore(redis, config.pin_guard, alert),
        trusted=lru_cache(maxsize=_TRUNKS_REMEMBERED)(lambda address: within(address, trunks)),
        pin_key=config.pin_key or _own_key(),
        own_settings=own_settings(config),
        own_numbers=frozenset(_own_numbers(config, plan)),
    )
    return policy


def _others_numbers(config: Config, plan: NumberPlan) -> Iterator[str]:
    """Yield the DIDs of installed applications, from what these tell the dialplan's generator."""
    others = [app for app in APPLICATIONS.values() if app.settings is not None and app.ref in config.applications]
    if not any(app.extensions for app in others):
        return
    plain = msgspec.to_builtins(config)
    for app in others:
        for extension in app.extensions(plain) if app.extensions else ():
            for did in extension.numbers:
                with suppress(NotDialable):
                    yield plan.read(str(did)).subscriber


def _own_numbers(config: Config, plan: NumberPlan) -> Iterator[str]:
    for account in config.accounts.values():
        take_turn("configuration")
        for entrance in account.disa.values():
            for did in entrance.numbers:
                yield plan.read(did).subscriber
    for did in config.inbound:
        take_turn("configuration")
        yield plan.read(did).subscriber
    yield from _others_numbers(config, plan)


def own_settings(config: Config) -> dict[str, msgspec.Struct]:
    """Return the settings of the applications that have a section of their own, by ``ref``.

    :raises ConfigError: a section is malformed, or its application isn't installed or can't be used.
    """
    try:
        load_installed()
    except ApplicationError as error:
        raise ConfigError(str(error), "applications") from None
    wanted = {app.ref: app.settings for app in APPLICATIONS.values() if app.settings is not None}
    if unknown := config.applications.keys() - wanted.keys():
        known = f"those with settings are: {', '.join(sorted(wanted))}" if wanted else "none with settings is installed"
        raise ConfigError(f"no such application; {known}", f"applications.{min(unknown)}")
    try:
        return {(path := ref): msgspec.convert(section, wanted[ref]) for ref, section in config.applications.items()}
    except msgspec.ValidationError as error:
        raise ConfigError(str(error), f"applications.{path}") from None


def _client(
    config: Config,
    plan: NumberPlan,
    spoken: Spoken,
    integrator: Integrator,
    system: Level,
    is_own: Callable[[Number], bool],
) -> IntegratorRules:
    take_turn("configuration")
    return IntegratorRules(
        integrator.name,
        plan,
        patterns={field: regex for field, regex in msgspec.structs.asdict(integrator.patterns).items() if regex},
        caller_ids=integrator.caller_ids,
        campaigns=integrator.campaigns,
        call_restriction=integrator.call_restriction,
        emergency=config.dial.emergency is not None,
        outside=bool(config.dial.external),
        agent_timeout=integrator.agent_timeout,
        callee_timeout=integrator.callee_timeout,
        longest=integrator.max_duration,
        record=integrator.record,
        names=integrator.names,
        headers=integrator.headers,
        random_caller_id=integrator.random_caller_id,
        levels=(system, level(f"integrator:{integrator.name}", integrator.limits, integrator.breaker)),
        is_own=is_own,
        is_media=spoken.is_media,
        confirm=integrator.confirm,
        auto_answer=integrator.auto_answer,
        auto_answer_headers={str(name): value for name, value in integrator.auto_answer_headers.items()},
        language=integrator.language,
    )


def _queues(config: Config, plan: NumberPlan) -> dict[str, Queue]:
    queues = {}
    for did, number in config.inbound.items():
        take_turn("configuration")
        integrator = config.integrator(number.integrator)
        if integrator is None:
            raise ConfigError(f"no integrator is named {number.integrator}", f"inbound.{did}.integrator")
        read = plan.read(did)
        queues[read.subscriber] = Queue(
            did=read,
            integrator=integrator.name,
            agents=tuple(plan.read(agent) for agent in number.agents),
            ring_timeout=number.ring_timeout,
            longest=integrator.max_duration,
            record=integrator.record,
            strategy=number.strategy,
        )
    return queues
