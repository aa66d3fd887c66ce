"""The parts of a node that are built once and never replaced: its stores, its switches, its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from esl_apps.apps.context import Host, at_once
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.core.attempt import Attempt
from esl_apps.core.charges import Charge
from esl_apps.core.timed_call import Frequency, Scheduled
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.switch import Switch
from esl_apps.esl.switch_cdr import Spool
from esl_apps.esl.wire import Event
from esl_apps.net.address import split_address
from esl_apps.node.acting import ACTION, OUTCOME, WATCHED, Acting
from esl_apps.node.call_log import CallLog
from esl_apps.node.calls import EVENTS, Calls
from esl_apps.node.charging import Charging, cut_on
from esl_apps.node.clocks import ClockWatch
from esl_apps.node.event_feed import Feeds
from esl_apps.node.live import Begin, Live
from esl_apps.node.outboxes import MAIN, Outboxes
from esl_apps.node.policy import Policies, Policy, read_policy
from esl_apps.node.readiness import Readiness
from esl_apps.node.records import Records
from esl_apps.node.state_folder import read_boot, state_folder, write_boot
from esl_apps.node.switch_pool import SwitchPool
from esl_apps.node.switch_sounds import SwitchSounds
from esl_apps.node.tenants import tenant_of
from esl_apps.node.webhooks import Webhooks
from esl_apps.observe.alerts import Alerts
from esl_apps.observe.metrics import Metrics
from esl_apps.operations import waiting
from esl_apps.process.folder import Folder
from esl_apps.store import redis_client
from esl_apps.store.breakers import Breakers, Trip
from esl_apps.store.call_events import EventStore
from esl_apps.store.calls import CallStore
from esl_apps.store.cancel_requests import CancelRequests
from esl_apps.store.claims import Claims
from esl_apps.store.essence import Essence
from esl_apps.store.event_writer import EventWriter
from esl_apps.store.idempotency import IdempotencyKeys
from esl_apps.store.journal import Entry
from esl_apps.store.membership import Membership
from esl_apps.store.record_history import RecordHistory
from esl_apps.store.stale import Stale
from esl_apps.store.timed_calls import TimedCalls
from esl_apps.store.usage import UsageStore
from esl_apps.store.webhook_queue import WebhookQueue


@dataclass(frozen=True, slots=True)
class Services:
    metrics: Metrics
    switches: Sequence[Switch]
    switch_pool: SwitchPool
    membership: Membership
    store: CallStore
    idempotency: IdempotencyKeys
    breakers: Breakers
    usage: UsageStore
    charging: Charging
    timed_calls: Mapping[str, TimedCalls]
    """By application."""
    calls: Calls
    acting: Acting
    cancel_requests: CancelRequests
    clocks: ClockWatch
    records: Records
    outboxes: Outboxes
    event_writer: EventWriter
    event_feeds: Feeds
    record_history: RecordHistory
    call_log: CallLog
    switch_cdr: Spool
    recordings: Folder
    readiness: Readiness
    policies: Policies
    """The policy in force."""
    sounds: SwitchSounds
    alerts: Alerts
    webhooks: Webhooks
    redis: redis_client.Client
    stale: Stale
    _hosts: dict[str, Host] = field(default_factory=dict, init=False)

    @property
    def policy(self) -> Policy:
        return self.policies.now

    def host(self, begin: Begin, application: str, afterwards: Callable[[Callable[[], None]], None] = at_once) -> Host:
        """This node's part in one flow of an application. ``afterwards``: as the host's."""
        shared = self._hosts.get(application)
        if shared is None:
            shared = self._hosts[application] = self._shared(application)
        return msgspec.structs.replace(shared, begin=begin, afterwards=afterwards)

    def _shared(self, application: str) -> Host:
        """Return what all flows of an application share. One for each call would take 0.7 KB of a held one."""

        def schedule(number: str, data: Sequence[str], due_at: float, frequency: Frequency) -> Scheduled:
            clock = self.membership.redis_clock
            store, due_there = self.timed_calls[application], clock.there(due_at)
            return store.schedule(number, data, due_there, now=clock.now(), frequency=frequency)

        def used(number: str) -> None:
            self.timed_calls[application].used(number, self.membership.redis_clock.now())

        return Host(
            begin=lambda _attempt: None,
            usage=self.usage,
            announce=self.records.announce,
            schedule=schedule,
            room=self.has_room,
            used=used,
            policy=lambda: self.policy,
        )

    def has_room(self, attempt: Attempt) -> bool:
        """Whether the payer of a live call may have it."""
        tenants, tenant = self.calls.tenants, tenant_of(attempt)
        if attempt.call_ref in self.calls.live:
            tenants.add(attempt)
        return not tenant or tenants.count(tenant) <= self.policy.max_calls_of(tenant)

    def takes_another(self, attempt: Attempt) -> bool:
        """Whether the payer of a call that is not live yet may have it."""
        tenant = tenant_of(attempt)
        return not tenant or self.calls.tenants.count(tenant) < self.policy.max_calls_of(tenant)

    def learn_owner(self, attempt: Attempt, account_id: str | None) -> None:
        """Note whose call it is by the account that its leg names, if the node that asked the caller died before that
        reached Redis. Without it, its record would go to no integrator."""
        if attempt.account_id is None and account_id:
            with suppress(StoreUnavailable):
                account = self.policy.cards.account(account_id)
                if account is not None:
                    attempt.account_id, attempt.integrator = account.id, account.integrator

    def refused(self, status: int) -> None:
        """Count a request that was answered with this HTTP status and had no effect."""
        self.metrics.refused.labels(str(status)).inc()

    def read_policy(self, config: Config) -> Policy:
        """:raises ConfigError: as ``policy.read_policy``."""
        return read_policy(config, self.redis, self.stale, self.alerts.tell)


def build_services(config: Config) -> Services:
    """Build everything and connect to nothing yet.

    :raises ConfigError: a folder, an address or an application of the configuration can't be used.
    """
    # Long: a list, each service once, after those that it is built with. The functions here name later ones, too:
    # nothing calls them before the node starts.
    name = config.node.name
    metrics = Metrics()
    switches: list[Switch] = []
    live: dict[str, Live] = {}
    switch_pool = SwitchPool()
    alerts = Alerts(metrics, lambda: switches)
    redis = redis_client.connect(config.redis.url, observe=metrics.redis_round_trip.labels(MAIN).observe)
    stale = Stale(config.redis.stale_cards)
    policies = Policies(read_policy(config, redis, stale, alerts.tell))

    def pushed(entry: Entry) -> None:
        metrics.pushed(entry.list).inc()
        webhooks.wake(entry.list)

    # The journals are locked first: a process that still runs with these files stops the start here.
    outboxes = Outboxes(
        config,
        state_folder(config),
        pushed,
        alerts.tell,
        lambda name: metrics.redis_round_trip.labels(name).observe,
    )
    predecessor = read_boot(state_folder(config))
    membership = Membership(redis, name, config.advertise, predecessor=predecessor)
    write_boot(state_folder(config), membership.boot)

    def say_alive() -> None:
        if membership.boot not in membership.peers:
            membership.say(draining=readiness.draining)

    def redis_is_back() -> None:
        # At once: it may have lost the places of the calls that are up, or their leases may have ended.
        with suppress(StoreUnavailable):
            usage.leases.renew()
        records.save_all()
        outboxes.examine()

    store = CallStore(redis, membership.boot, redis_is_back, say_alive, membership.redis_time)
    call_log = _open_call_log(config, live)
    readiness = Readiness(switches, store, live, config.node.max_calls, outboxes, call_log)

    breakers, usage = _build_spending(config, redis, alerts, membership, cut_on(switches, live))

    queue = WebhookQueue(redis, membership.boot, predecessor=predecessor)
    webhooks = Webhooks(
        lambda: policies.now.config,
        queue,
        metrics,
        alerts.tell,
        membership.redis_clock.now,
        lambda: not membership.living(),
    )
    recordings = Folder("recordings")
    event_writer = EventWriter(redis)
    records = Records(live, store, call_log, outboxes, event_writer, policies, metrics, recordings)
    spool = Spool(config.spool.dir)
    calls = Calls(live, records, switch_pool, spool.wait_for)
    cancel_requests = CancelRequests(redis)
    acting = Acting(calls, records, switch_pool, policies, Claims(redis), cancel_requests, store)
    sounds = SwitchSounds(policies)
    for index in range(len(config.switches)):
        switches.append(_build_switch(config, index, calls, acting, metrics, sounds.look))
        switch_pool.add(switches[-1])
    return Services(
        metrics=metrics,
        switches=switches,
        switch_pool=switch_pool,
        membership=membership,
        store=store,
        idempotency=IdempotencyKeys(redis, membership.boot),
        breakers=breakers,
        usage=usage,
        charging=Charging(policies, usage, membership),
        timed_calls=waiting.stores(config, redis),
        calls=calls,
        acting=acting,
        cancel_requests=cancel_requests,
        clocks=ClockWatch(switches, records, alerts),
        records=records,
        outboxes=outboxes,
        event_writer=event_writer,
        event_feeds=Feeds(EventStore(redis), event_writer),
        record_history=RecordHistory(redis),
        call_log=call_log,
        switch_cdr=spool,
        recordings=recordings,
        readiness=readiness,
        policies=policies,
        sounds=sounds,
        alerts=alerts,
        webhooks=webhooks,
        redis=redis,
        stale=stale,
    )


def _build_spending(
    config: Config, redis: redis_client.Client, alerts: Alerts, membership: Membership, cut: Callable[[Charge], None]
) -> tuple[Breakers, UsageStore]:
    """Build the breakers and the count of what is used. ``cut`` ends a charge's legs on their switch."""

    def trip(scope: str, tripped: Trip) -> None:
        if tripped.end_calls:
            usage.end_calls(scope)

    name = config.node.name
    breakers = Breakers(redis, name, tell=alerts.tell, on_trip=trip)
    usage = UsageStore(
        redis,
        name,
        breakers=breakers,
        on_cut=cut,
        alone=lambda: config.redis.stale_cards > 0 and membership.alone,
        boot=membership.boot,
    )
    return breakers, usage


def _open_call_log(config: Config, live: Mapping[str, Live]) -> CallLog:
    """:raises ConfigError: its file can't be written."""

    def essences() -> Iterator[Essence]:
        return (call.essence for call in live.values())

    try:
        return CallLog(state_folder(config), essences)
    except OSError as error:
        raise ConfigError(f"the call log can't be written: {error}", "node.state_dir") from None


def _build_switch(
    config: Config, index: int, calls: Calls, acting: Acting, metrics: Metrics, look: Callable[[Switch], None]
) -> Switch:
    """Build the connection to a switch, whose events go to the calls and to the actions. ``look``: finds out, in the
    background, which recordings a switch has."""
    configured = config.switches[index]
    up = metrics.switch_up.labels(configured.name)
    lost = metrics.reconnects.labels(configured.name)

    def on_up(switch: Switch) -> None:
        up.set(1)
        calls.on_up(switch)
        look(switch)

    def on_down(switch: Switch) -> None:
        up.set(0)
        lost.inc()
        calls.on_down(switch)

    def on_event(switch: Switch, event: Event) -> None:
        # FreeSWITCH writes the name of a CUSTOM event behind its subclass, so ``name`` is empty there.
        if event.name in (b"", b"CUSTOM"):
            acting.on_event(switch, event)
        else:
            calls.on_event(switch, event)

    return Switch(
        configured.name,
        split_address(configured.address),
        configured.password,
        events=f"{EVENTS} CUSTOM {ACTION} {OUTCOME} {WATCHED}",
        # Subscribe to every action; each node ignores calls that aren't its own.
        filters=(
            "Event-Name BACKGROUND_JOB",
            f"variable_esl_node {config.node.name}",
            f"Event-Subclass {ACTION}",
            f"Event-Subclass {OUTCOME}",
            # A recording begins as an eavesdropper does.
            "Media-Bug-Function -session_record",
        ),
        on_event=on_event,
        on_up=on_up,
        on_down=on_down,
        observe_ping=metrics.round_trip.labels(configured.name).observe,
    )
