"""One node: the only place that knows all the parts. Builds the edges, wires them, drains and stops them."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import gevent
import msgspec
from gevent.event import Event as Flag

from esl_apps.apps import autodial, callback, click2dial, dialthrough, disa, inbound
from esl_apps.apps.legs import recording_path
from esl_apps.apps.session import Rules, account_level
from esl_apps.apps.settings import Settings
from esl_apps.config.fields import ConfigError
from esl_apps.config.model import Cccp, Config, DisaDefaults, Integrator, level
from esl_apps.core import dialstring, identity, terms
from esl_apps.core.attempt import Attempt, Moment
from esl_apps.core.cards import Account, Unavailable
from esl_apps.core.charges import Charge
from esl_apps.core.dialstring import Endpoints
from esl_apps.core.limits import SYSTEM, Level
from esl_apps.core.numbers import NotDialable
from esl_apps.core.order import Client
from esl_apps.core.pins import Source, source_of
from esl_apps.esl.channel import Channel
from esl_apps.esl.server import OutboundServer
from esl_apps.esl.session import ReplyError
from esl_apps.esl.switch import Switch
from esl_apps.esl.switch import Unavailable as SwitchAway
from esl_apps.esl.switch_cdr import Spool
from esl_apps.net.address import split_address, within
from esl_apps.node import notification_lists
from esl_apps.node.adoption import Adoption
from esl_apps.node.call_log import Begun
from esl_apps.node.calls import CANCEL, EVENTS, Calls
from esl_apps.node.incoming import Incoming
from esl_apps.node.outgoing import Outgoing
from esl_apps.node.snapshot import snapshot, state_event
from esl_apps.node.state_folder import state_folder
from esl_apps.node.switch_pool import Fleet
from esl_apps.node.workers import Share
from esl_apps.observe import logs
from esl_apps.observe.alerts import Alerts
from esl_apps.observe.metrics import Metrics, Scrapes
from esl_apps.prompts import prompt_path
from esl_apps.store import redis_client
from esl_apps.store.breakers import Breakers, Trip
from esl_apps.store.callbacks import CallbackStore
from esl_apps.store.calls import Store
from esl_apps.store.cards import CardStore, hash_pin
from esl_apps.store.essence import Essence, essence
from esl_apps.store.journal import Entry, Journal
from esl_apps.store.membership import Roster
from esl_apps.store.outbox import Outbox
from esl_apps.store.pin_guard import GuardStore
from esl_apps.store.redis_client import ERRORS
from esl_apps.store.stale import Stale
from esl_apps.store.usage import UsageStore

log = logging.getLogger(__name__)

_Section = TypeVar("_Section", Cccp, DisaDefaults)


class Node:
    """``esl-apps serve`` without its ports: they come from ``http`` and are handed this."""

    def __init__(self, config: Config, share: Share | None = None) -> None:
        """``share``: what a worker has of a node; ``config`` is the node's.

        :raises ConfigError: a folder or an address of the configuration can't be used.
        """
        own = split_address(config.node.listen)
        if share is not None:
            own, config = share.own_address(config), share.of(config)
        self.share = share
        self.metrics = Metrics()
        self.scrapes = None if share is None else Scrapes(self.metrics, share.number, share.scrapes)
        self.alerts = Alerts(self.metrics, lambda: self.switches)
        self.draining = False
        self.stopped = Flag()
        self._redis = redis_client.connect(config.redis.url)
        self._stale = Stale(config.redis.stale_cards)
        self.apply(config)
        self.roster = Roster(self._redis, config.node.name, self.config.advertise)
        self.store = Store(self._redis, self.roster.boot, self._save_all, self._make_known)
        self.breakers = Breakers(self._redis, config.node.name, tell=self.alerts.tell, on_trip=self._on_trip)
        self.usage = UsageStore(
            self._redis,
            config.node.name,
            breakers=self.breakers,
            on_cut=self._cut,
            alone=lambda: config.redis.stale_cards > 0 and self.roster.alone,
        )
        self.callbacks = CallbackStore(self._redis, config.node.name)
        self.outgoing = Outgoing(self)
        self.fleet = Fleet()
        self.calls = Calls(self._on_moment, self._on_record, self._on_save, self.fleet)
        self.spool = Spool(config.spool.dir)
        self.adoption = Adoption(self)
        self.outboxes = self._build_outboxes(config)
        self.begun = self._open_begun(config)
        self.switches = [self._build_switch(config, i) for i in range(len(config.switches))]
        for switch in self.switches:
            self.fleet.add(switch)
        try:
            self.server = OutboundServer(
                own,
                Incoming(self).handle,
                # Who is one too many, ``Incoming`` says: a leg that was rung from here has had its place since.
                2 * config.node.max_calls,
                shared=None if share is None else share.socket(config.node.listen),
                on_count=self.metrics.sockets.set,
            )
        except OSError as error:
            key = "node.listen" if share is None else "node.worker_ports"
            raise ConfigError(f"can't listen on {own[0]}:{own[1]}: {error.strerror}", key) from None

    # Configuration ------------------------------------------------------------------------------------

    def apply(self, config: Config) -> None:
        """What a reload may change: everything that has no port, no connection and no file of its own."""
        plan = config.plan()
        dial = config.dial
        self.config = config
        self.settings = Settings(
            node=config.node.name,
            plan=plan,
            endpoints=Endpoints(dial.extension, tuple(dial.external), dial.emergency),
            caller_id_format=dial.caller_id_format,
            ringback=dial.ringback,
            recordings=config.recordings.dir,
        )
        self.system = level(SYSTEM, config.spending.limits, config.spending.breaker)
        self.clients = {one.name: self._client(one) for one in config.integrators}
        self.queues = {}
        for did, number in config.inbound.items():
            one = config.integrator(number.integrator)
            assert one is not None  # config checked it
            read = plan.read(did)
            self.queues[read.e164] = inbound.Queue(
                did=read,
                integrator=one.name,
                agents=tuple(plan.read(agent) for agent in number.agents),
                ring_timeout=number.ring_timeout,
                longest=one.max_duration,
                record=one.record,
            )
        # Without a key of the operator's no PIN outlives this process; a configured DISA needs none to.
        self._pin_key = config.pin_key or secrets.token_hex(32)
        self.cards = CardStore(self._redis, config.pin_key, plan, config.accounts, stale=self._stale)
        self.guard = GuardStore(self._redis, config.pin_guard, self.alerts.tell)
        self._rules: tuple[Rules, DisaDefaults, tuple[str, str]] | None = None
        trunks = [ipaddress.ip_network(text) for text in config.trust]
        # Of a call it is asked two or three times, and most calls come from a few trunks.
        self.trusted: Callable[[str], bool] = lru_cache(maxsize=1024)(lambda address: within(address, trunks))
        """Whether what a packet from there says of its caller is believed."""

    def _client(self, one: Integrator) -> Client:
        return Client(
            one.name,
            self.settings.plan,
            patterns={
                "agent": one.patterns.agent,
                "callee": one.patterns.callee,
                "outbound_id": one.patterns.outbound_id,
                "contact_ref": one.patterns.contact_ref,
            },
            caller_ids=one.caller_ids,
            campaigns=one.campaigns,
            call_restriction=one.call_restriction,
            emergency=self.config.dial.emergency is not None,
            agent_timeout=one.agent_timeout,
            callee_timeout=one.callee_timeout,
            longest=one.max_duration,
            record=one.record,
            levels=(self.system, level(f"integrator:{one.name}", one.limits, one.breaker)),
        )

    def _build_outboxes(self, config: Config) -> dict[str | None, Outbox]:
        """One a Redis: by integrator, and None for calls that belong to none."""
        folder = state_folder(config)
        by_url: dict[str, Outbox] = {}
        result: dict[str | None, Outbox] = {}
        targets: list[tuple[str | None, str]] = [(None, config.redis.url)]
        targets += [(one.name, one.redis.url if one.redis else config.redis.url) for one in config.integrators]
        try:
            for name, url in targets:
                if url not in by_url:
                    journal = folder / _folder_of(url)
                    by_url[url] = Outbox(name or "main", journal, redis_client.connect(url), self._on_pushed)
                result[name] = by_url[url]
            _take_over(folder, {_folder_of(url) for url in by_url}, result)
        except OSError as error:
            raise ConfigError(f"the outbox can't be opened: {error}", "node.state_dir") from None
        return result

    def _open_begun(self, config: Config) -> Begun:
        try:
            return Begun(state_folder(config), self._essences)
        except OSError as error:
            raise ConfigError(f"the begun calls can't be written: {error}", "node.state_dir") from None

    def _build_switch(self, config: Config, index: int) -> Switch:
        one = config.switches[index]
        up = self.metrics.switch_up.labels(one.name)
        lost = self.metrics.reconnects.labels(one.name)

        def on_up(switch: Switch) -> None:
            up.set(1)
            self.calls.on_up(switch)

        def on_down(switch: Switch) -> None:
            up.set(0)
            lost.inc()
            self.calls.on_down(switch)

        return Switch(
            one.name,
            split_address(one.address),
            one.password,
            events=EVENTS,
            # Of cancels all: whose call it is, each knows for itself.
            filters=("Event-Name BACKGROUND_JOB", f"variable_esl_node {config.node.name}", f"Event-Subclass {CANCEL}"),
            on_event=self.calls.on_event,
            on_up=on_up,
            on_down=on_down,
            observe_ping=self.metrics.round_trip.labels(one.name).observe,
        )

    # Life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        for app in (click2dial.REF, inbound.REF, disa.REF, dialthrough.REF, callback.REF, autodial.REF):
            self.metrics.live.labels(app).set_function(partial(self.calls.count, app))
        self.metrics.breakers.set_function(lambda: self.breakers.count)
        for name, health in self.fleet.health.items():
            self.metrics.switch_load.labels(name).set_function(partial(getattr, health, "load"))
            self.metrics.switch_out.labels(name).set_function(partial(getattr, health, "out"))
        self.store.start()
        for outbox in set(self.outboxes.values()):
            self.metrics.outbox.labels(outbox.name).set_function(partial(getattr, outbox, "depth"))
            outbox.start()
        for switch in self.switches:
            switch.start()
        # A request in the first instant finds its switch; one that is away does not hold the start up.
        gevent.wait([gevent.spawn(switch.wait_up, 2.0) for switch in self.switches])
        self.breakers.start()
        self.usage.start()
        self.adoption.start()
        self.outgoing.start()
        self.server.listen()

    def stop(self) -> None:
        """Drain for ``drain_timeout``, then leave: records go out or stay in the journal."""
        self.draining = True
        self.outgoing.stop()
        deadline = time.monotonic() + self.config.node.drain_timeout
        # Those who ring for us come to the event socket when they answer: it stays open for them, and for nobody
        # else (``Incoming`` refuses). Then it closes, and a switch takes the next node of its list.
        while self.calls.expected() and time.monotonic() < deadline:
            gevent.sleep(0.02)
        self.server.close_listener()
        while self.calls.live and time.monotonic() < deadline:
            gevent.sleep(0.05)
        # All at once: of many, each away, none may make the others' wait longer.
        outboxes = set(self.outboxes.values())
        left = max(0.5, min(5.0, deadline - time.monotonic()))
        gevent.joinall([gevent.spawn(outbox.drain, left) for outbox in outboxes])
        self.calls.closed = True
        for outbox in outboxes:
            outbox.stop()
        self.usage.stop()
        self.breakers.stop()
        self.adoption.stop()
        self.store.stop()
        with suppress(*ERRORS):
            # Now, and not before: what is still up is the other nodes' from here on, or this one's next run's.
            self.roster.leave()
        self.begun.close()
        for switch in self.switches:
            switch.stop()
        self.stopped.set()

    # Health -------------------------------------------------------------------------------------------

    def not_ready(self) -> list[str]:
        """Why this node takes no calls; empty where it does."""
        reasons = []
        if self.draining:
            reasons.append("draining")
        if not any(switch.connected for switch in self.switches):
            reasons += [f"switch {switch.name}: {switch.last_error}" for switch in self.switches]
        if not self.store.healthy:
            reasons.append("redis: no answer")
        return reasons

    @property
    def full(self) -> bool:
        """Whether it has as many calls as it may, those among them whose first leg still rings."""
        most = self.config.node.max_calls
        return len(self.calls.live) >= most or self.server.connection_count > most

    # What the ports ask ------------------------------------------------------------------------------

    def refused(self, status: int) -> None:
        """A request was answered with this status, and nothing was done."""
        self.metrics.refused.labels(str(status)).inc()

    def cancel(self, call: dict[str, Any]) -> None:
        """Hang a call up, this node's or (by its snapshot) another's on a switch of ours."""
        ref = str(call["call_ref"])
        if self.calls.cancel(ref, terms.API):
            return
        switch = next((switch for switch in self.switches if switch.name == call["switch"]), None)
        if switch is not None:
            self.calls.cancel_elsewhere(switch, ref)

    # Spending -----------------------------------------------------------------------------------------

    def _on_trip(self, scope: str, trip: Trip) -> None:
        if trip.end_calls:
            self.usage.end_calls(scope)

    def _cut(self, charge: Charge) -> None:
        """End what a charge is for: the whole call, or B alone, whose caller then hears why."""
        attempt = charge.attempt
        switch = next((switch for switch in self.switches if switch.name == attempt.switch), None)
        if switch is None:
            return
        commands = [f"hupall ALLOTTED_TIMEOUT esl_bleg {attempt.session_ref}"]
        if charge.whole:
            # A session's first leg has the reference of the number that it dials now, which may be another.
            commands = [f"hupall ALLOTTED_TIMEOUT esl_call_ref {attempt.call_ref}"]
            if attempt.aleg_uuid is not None:
                commands.append(f"uuid_kill {attempt.aleg_uuid} ALLOTTED_TIMEOUT")
        gevent.spawn(self._order, switch, commands)

    def _order(self, switch: Switch, commands: list[str]) -> None:
        for command in commands:
            # The next beat orders it again; a leg that is gone is what was wanted.
            with suppress(SwitchAway, ReplyError):
                switch.api(command)

    def go_on_paying(self, attempt: Attempt) -> None:
        """An attempt of a process that died: its legs cost what they cost."""
        charges = []
        for one in attempt.paid_for:
            try:
                levels = [self._level(name, attempt) for name in one["levels"]]
                number = self.settings.plan.read(one["number"]) if one["number"] else None
            except (Unavailable, NotDialable) as error:
                log.error("a call is not paid for", extra={"call_ref": attempt.call_ref, "reason": str(error)})
                continue
            charges.append(Charge(attempt, levels, number, aleg=one["aleg"], owner=one["owner"], whole=one["whole"]))
        self.usage.adopt(*charges)
        for charge in charges:
            if attempt.state == terms.BRIDGED or (charge.aleg and attempt.answered_at is not None):
                charge.talk()

    def _level(self, name: str, attempt: Attempt) -> Level:
        """As it is configured now. :raises Unavailable: an imported account, and Redis is away."""
        kind, _, id = name.partition(":")
        if kind == "integrator" and id in self.clients:
            return next(one for one in self.clients[id].levels if one.name == name)
        if kind == "account" and (account := self.cards.account(id)) is not None:
            return account_level(account)
        if kind == "card":
            return Level(name, self.cards.card_limits(attempt.account_id or ""))
        return self.system if name == SYSTEM else Level(name)

    # What the applications ask ------------------------------------------------------------------------

    @property
    def rules(self) -> Rules:
        """:raises Unavailable: Redis is away, and with it what was imported, or that can't be read: nobody dials by
        half of the rules."""
        return self._system()[0]

    def _system(self) -> tuple[Rules, DisaDefaults, tuple[str, str]]:
        """The configuration's ``cccp`` and ``callflow.disa``, with what ``esl-apps import`` put before them."""
        if self._rules is None:
            config = self.config
            cccp = self._with_imported("cccp", config.cccp)
            defaults = self._with_imported("callflow.disa", config.callflow_disa)
            dids = [cccp.cccp_cb_number, cccp.cccp_cc_number, *config.inbound]
            for account in config.accounts.values():
                dids += [did for one in account.disa.values() for did in one.numbers]
            try:
                allowed = re.compile(cccp.allowed_callee_regex) if cccp.allowed_callee_regex else None
                own_numbers = frozenset(self.settings.plan.read(did).e164 for did in dids if did)
            except (re.error, NotDialable) as error:
                raise Unavailable(f"the imported cccp can't be used: {error}") from None
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
            self._rules = rules, defaults, (cccp.attest_header, cccp.attest_level)
        return self._rules

    def _with_imported(self, name: str, section: _Section) -> _Section:
        imported = self.cards.system_config(name)
        if not imported:
            return section
        try:
            return msgspec.convert({**msgspec.to_builtins(section), **imported}, type(section))
        except msgspec.ValidationError as error:
            raise Unavailable(f"the imported {name} can't be read: {error}") from None

    def entrance(self, account_id: str, name: str) -> disa.Entrance | None:
        """A DISA as it is configured now; None where there is none of this name."""
        configured = self.config.accounts.get(account_id)
        one = configured.disa.get(name) if configured else None
        account = self.cards.account(account_id) if one else None
        if one is None or account is None:
            return None
        defaults = self._system()[1]
        hashed = self.hash_pin(one.pin) if one.pin else one.pin_hash
        own = one.use_account_caller_id
        rings = one.preconnect_audio == "ringing"
        return disa.Entrance(
            name=name,
            account=account,
            pin_hash=hashed,
            pin_length=max(defaults.default_pin_length, len(one.pin or "")),
            retries=one.retries,
            interdigit=one.interdigit / 1000,
            max_digits=one.max_digits,
            preconnect_audio=disa.RINGING.format(count=one.ring_repeat_count) if rings else disa.DIALTONE,
            preconnect_seconds=disa.RINGING_SECONDS * one.ring_repeat_count if rings else disa.DIALTONE_SECONDS,
            use_account_caller_id=defaults.default_use_account_caller_id if own is None else own,
            enforce_call_restriction=one.enforce_call_restriction,
            max_session=one.max_session,
        )

    def hash_pin(self, pin: str) -> str:
        return hash_pin(self._pin_key, pin)

    def caller_id_of(self, account: Account) -> str:
        """The number that an account's own calls show."""
        text = account.caller_id or self.rules.default_caller_id
        try:
            return dialstring.caller_id(self.settings.plan.read(text or ""), self.settings.caller_id_format)
        except NotDialable:
            return text or inbound.ANONYMOUS

    def caller(self, channel: Channel) -> str | None:
        """The caller's number; None where it is withheld or none."""
        return identity.caller_of(channel, self.trusted)

    def attested(self, channel: Channel) -> bool:
        """Whether STIR/SHAKEN vouches for the caller's number. :raises Unavailable: as :attr:`rules`."""
        return identity.is_attested(channel, self.trusted, *self._system()[2])

    def source(self, channel: Channel, entrance: str, caller: str | None) -> Source:
        """What wrong PINs of this call are counted against. ``caller``: as :meth:`caller` says."""
        dnis = channel.header("Caller-Destination-Number") or ""
        return source_of(caller, identity.address_of(channel), dnis, entrance, self.settings.plan, self.trusted)

    def prompt(self, name: str, rate: int) -> str:
        return prompt_path(self.config.prompts.dir, self.config.prompts.language, name, rate)

    # Records ------------------------------------------------------------------------------------------

    def _on_moment(self, attempt: Attempt, moment: Moment) -> None:
        self._on_save(attempt)
        if moment.what in (terms.AGENT_RINGING, terms.CALLEE_RINGING) and len(attempt.timeline) <= 3:
            self.metrics.time_to_ring(attempt.app).observe(max(0.0, moment.at - attempt.queued_at))
        logs.say(
            log,
            "call",
            {"call_ref": attempt.call_ref, "app": attempt.app, "state": moment.what, "detail": moment.detail},
        )
        live = self.calls.live.get(attempt.call_ref)
        if live is not None:
            live.switch.post_raw(state_event(attempt, moment))

    def _on_save(self, attempt: Attempt) -> None:
        if self.calls.closed:
            return
        ref = attempt.call_ref
        if attempt.ended:
            kept = None
        else:
            live = self.calls.live.get(ref)
            kept = msgspec.json.encode(essence(attempt, live.core_uuid if live else None))
            self.begun.note(kept)
        self.store.save(ref, lambda: snapshot(attempt), kept)

    def _make_known(self) -> None:
        """:raises Unavailable: Redis is away."""
        if self.roster.boot not in self.roster.peers:
            self.roster.say(draining=self.draining)

    def _save_all(self) -> None:
        """Redis is back, and may have forgotten the calls that are up."""
        for live in list(self.calls.live.values()):
            self._on_save(live.attempt)

    def _essences(self) -> Iterator[Essence]:
        return (essence(live.attempt, live.core_uuid) for live in self.calls.live.values())

    def _on_record(self, attempt: Attempt) -> None:
        record = attempt.record
        assert record is not None
        if attempt.follows and record.number is None:
            # Its session has its record: this was the caller's leaving, or what another node goes on with.
            self.begun.ended(attempt.call_ref)
            return
        self.metrics.calls(attempt.app, record.end_reason).inc()
        if record.recording_url is not None:
            path = recording_path(self.config.recordings.dir, record.integrator or "", record.recording_url)
            # RECORD_STOP comes for a file that never did (hazard 25): only the folder knows.
            if not os.path.exists(path):
                log.error("recording missing", extra={"call_ref": record.call_ref, "path": path})
                record.recording_url = None
        outbox = self.outboxes.get(record.integrator) or self.outboxes[None]
        one = self.config.integrator(record.integrator) if record.integrator else None
        for item in notification_lists.entries(record, one):
            outbox.push(item)
        self.begun.ended(attempt.call_ref)
        logs.say(
            log,
            "record",
            {
                "call_ref": record.call_ref,
                "app": record.app,
                "end_reason": record.end_reason,
                "end_code": record.end_code,
                "call_time": record.call_time,
                "hung_up_by": record.hung_up_by,
            },
        )

    def announce(self, attempt: Attempt, agent: str, hold_time: int) -> None:
        one = self.config.integrator(attempt.integrator or "")
        outbox = self.outboxes.get(attempt.integrator) or self.outboxes[None]
        outbox.push(notification_lists.answered(attempt, agent, hold_time, one))

    def _on_pushed(self, item: Entry) -> None:
        self.metrics.pushed(item.list).inc()


def _folder_of(url: str) -> str:
    """The outbox's folder of a Redis: whoever it belongs to today, what was meant for it goes to it."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def _take_over(folder: Path, used: set[str], outboxes: dict[str | None, Outbox]) -> None:
    """Records of an earlier run for a Redis that is configured no more go to their integrator's, or to the top-level
    one. :raises OSError: a journal can't be read."""
    for path in sorted(folder.iterdir()):
        if path.name in used or not path.is_dir():
            continue
        journal = Journal(path)
        left = journal.open()
        if left:
            log.warning("records for a Redis that is no more", extra={"folder": str(path), "records": len(left)})
        for item in left:
            outboxes.get(item.owner, outboxes[None]).push(item)
        journal.finish(len(left))
        journal.close()
