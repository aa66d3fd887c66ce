"""One chaos run, from the first process to the verdict."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import reduce
from operator import and_, or_
from pathlib import Path
from typing import Any

import esl_apps
from esl_apps.cli.dialplan import render
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.http.event_stream import HEARTBEAT
from esl_apps.store import keys
from esl_apps.store.webhook_queue import WebhookQueue
from tests.chaos import listener, notified, parts, receiver, transfers, witness
from tests.chaos.accounts import LEFT_OVER, Accounts, Finding, compare_minutes
from tests.chaos.listener import Listener
from tests.chaos.load import ADMIN_TOKEN, CALLBACK, CARD, DISA, OWN, PIN, QUEUES, TOKEN, Load
from tests.chaos.logs import Logs
from tests.chaos.mischief import CLOCK_STEP, GATEWAY, Deed, Mischief
from tests.chaos.notified import Notified
from tests.chaos.parts import HOST, ClockedNode
from tests.chaos.receiver import Receiver
from tests.chaos.report import LEAK, Options, Report
from tests.chaos.rolling import Rolling
from tests.rig.sandbox import SandboxRig
from tests.support import ROOT, releases
from tests.support.ports import free_port

#: Seconds. A limit's lease lasts 30: one held longer was left behind.
LEASE = 30.0
#: The same for the lease of a callback.
CALLBACK_LEASE = 120.0
#: Minutes are counted, and never used up.
_COUNTED = {"minutes_per_day": 1_000_000}
#: Seconds for which phones ring: long compared with the time in which an overloaded machine reports an answer.
_RING = 8
#: Seconds after which a gateway that says nothing is passed over.
_SILENCE = 1

#: Greenlets that the warm-up doesn't need: those of the list of answered inbound calls and, if the integrator's records
#: go to a stream, of the list of callers without a card.
_LATER = Counter(outbox=2, outbox_sync=2, outbox_watch=2)


def run(options: Options) -> Report:
    folder = options.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    # Nodes of another release run in their own directory.
    folder = folder.resolve()
    with contextlib.ExitStack() as stack:
        stage = _Stage(options, folder, stack)
        report = stage.play()
    if report.good and options.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return report


class _Stage:
    def __init__(self, options: Options, folder: Path, stack: contextlib.ExitStack) -> None:
        self.options, self.folder = options, folder
        self.began = time.monotonic()
        self.redis = stack.enter_context(parts.running(options.redis, folder))
        listens = [f"{HOST}:{free_port()}" for _ in range(options.nodes)]
        self.rigs, self.witnesses = self._switches(listens, stack)
        self.receiver = Receiver()
        stack.callback(self.receiver.close)
        self.nodes = [ClockedNode(self._config(i, listens), folder, self.redis.ports) for i in range(options.nodes)]
        self.old = None if options.old is None else releases.earlier(options.old, folder / "old")
        for node in self.nodes:
            node.code = self.old
            stack.callback(parts.stop, node)
            node.start()
        # One moves all the time, one stays until its node dies.
        self.listeners = [
            Listener(lambda: [node.api for node in self.nodes], TOKEN, options.seed, stays)
            for stays in ((1.0, 6.0), (60.0, 120.0))
        ]

    # Building -----------------------------------------------------------------------------------------

    def _plain(self, listens: list[str]) -> dict[str, Any]:
        return {
            "dialplan": {"nodes": listens},
            "cccp": {
                "cccp_cc_number": CARD,
                "cccp_cb_number": CALLBACK,
                "callback_delay": 0.5,
                "prompt_delay": 0.2,
                "default_caller_id_number": f"+{OWN}",
            },
            # Retried during the run, not a minute later.
            "callback": {"retry_after": 4, "cool_down": 0},
            "accounts": {
                "acme": {
                    "integrator": "acme",
                    "caller_id": {"number": f"+{OWN}"},
                    "limits": _COUNTED,
                    "disa": {"front": {"pin": PIN, "numbers": [DISA], "interdigit": 1500}},
                }
            },
            "inbound": {
                did: {"integrator": "acme", "agents": agents, "ring_timeout": _RING} for did, agents in QUEUES.items()
            },
            "prompts": {"dir": str(Path(esl_apps.__file__).parent / "prompts")},
        }

    def _dialplan(self, listens: list[str]) -> dict[str, Path]:
        files = {}
        for name, text in render(self._plain(listens)).items():
            context = next((one for one in ("public", "default") if one in name), None)
            if context is None:
                # The context of the phones' transfer keys: `route_refers` has it.
                continue
            files[context] = self.folder / name
            files[context].write_text(text)
        return files

    def _switches(
        self, listens: list[str], stack: contextlib.ExitStack
    ) -> tuple[list[Any], list[witness.SandboxLegs | witness.JsonCdrs]]:
        rigs: list[Any] = []
        dialplan = self._dialplan(listens)
        # One folder for all switches, as `spool.dir` is one.
        self.spool = spool = self.folder / "json_cdr"
        spool.mkdir()
        witnesses: list[witness.SandboxLegs | witness.JsonCdrs] = []
        for i in range(self.options.switches):
            if self.options.real:
                from tests.rig.freeswitch import FreeswitchRig

                real = FreeswitchRig(dialplan_files=sorted(dialplan.values()))
                stack.callback(real.close)
                rigs.append(real)
                witnesses.append(witness.JsonCdrs(real.spool, spool))
                stack.callback(witnesses[-1].close)
                continue
            legs = self.folder / f"fs{i + 1}.legs"
            rig = SandboxRig(
                tick=self.options.tick,
                arguments=[
                    f"--legs={legs}",
                    f"--spool={spool}",
                    *(f"--dialplan={context}={file}" for context, file in dialplan.items()),
                ],
                start=False,
                cdrs=False,
            )
            rig.spool = spool
            rig.log = self.folder / f"fs{i + 1}.log"
            stack.callback(rig.close)
            rig.start()
            rigs.append(rig)
            witnesses.append(witness.SandboxLegs(legs))
        for i, rig in enumerate(rigs):
            rig.route_refers("|".join(listens))
            rig.name = f"fs{i + 1}"
        return rigs, witnesses

    def _config(self, index: int, listens: list[str]) -> dict[str, Any]:
        options = self.options
        return {
            **self._plain(listens),
            "node": {
                "name": f"chaos{index + 1}",
                "listen": listens[index],
                "drain_timeout": 4,
                "state_dir": str(self.folder / f"state{index + 1}"),
            },
            "redis": {"url": self.redis.url_of(f"chaos{index + 1}")},
            "pin_key": "key-of-chaos",
            # A caller asked for the PIN again after a node's death keys a number instead: thousands of wrong PINs
            # are not an attack here.
            "pin_guard": dict.fromkeys(("per_number", "per_address", "per_service", "overall"), 10_000),
            "switches": [
                {"name": rig.name, "address": rig.esl_address, "password": rig.esl_password} for rig in self.rigs
            ],
            "dial": {
                "region": "ZA",
                **self.rigs[0].dial,
                "external": [f"sofia/gateway/{name}/{{number}}" for name in (GATEWAY, "pstn2")],
                "gateway_timeout": _SILENCE,
            },
            "admin": {"listen": f"{HOST}:{free_port()}", "token": ADMIN_TOKEN},
            "recordings": {"dir": str(self.rigs[0].recordings)},
            "spool": {"dir": str(self.spool)},
            "integrators": [
                {
                    "name": "acme",
                    "listen": f"{HOST}:{free_port()}",
                    "token": TOKEN,
                    "caller_ids": [OWN],
                    "limits": _COUNTED,
                    "agent_timeout": _RING,
                    "callee_timeout": _RING,
                    "webhooks": [self.receiver.webhook("crm")],
                    "push": options.push,
                    "session_records": True,
                    # None is dropped.
                    "stream_length": 10_000_000,
                }
            ],
        }

    # Running ------------------------------------------------------------------------------------------

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {what}", file=sys.stderr, flush=True)

    def play(self) -> Report:
        options = self.options
        callbacks = int(options.seconds * options.rate * 0.13) + 10
        callers = 20 if options.real or options.seconds < 60 else 200
        # An older release has blind transfers alone, and can't go on with others.
        modes = ("blind",) if options.old else ("blind", "consult", "refer", "attended")
        load = Load(self.rigs, self.nodes, options.seed, options.rate, callers, callbacks, modes)
        load.prepare()
        for one in self.listeners:
            one.start()
        self._say("prepared")
        self._warm_up(load)
        self._say("warm")
        weights = dict(options.weights)
        if options.real:
            # Legs that die with the switch before it wrote about them are unknown. The rig's gateways always work.
            for kind in ("switch killed", "gateway dead", "gateway silent"):
                weights.pop(kind, None)
        mischief = Mischief(
            self.nodes, self.redis, self.rigs, self.receiver, options.seed, options.pause, weights=weights
        )
        load.start()
        mischief.start()
        if self.old is not None:
            rolling = Rolling(mischief, self.nodes, self.old, ROOT, options.seconds)
            rolling.start()
        time.sleep(options.seconds)
        if self.old is not None:
            rolling.wait()
        mischief.stop()
        load.stop()
        for one in self.listeners:
            one.stay()
        self._say(f"{load.begun} calls begun, {len(mischief.deeds)} deeds; waiting for rest")
        findings = self._settle()
        self._say("at rest")
        findings += [Finding(LEAK, "-", fault) for fault in mischief.faults]
        legs = [leg for one in self.witnesses for leg in one.read()]
        found = notified.pop(self.redis.client())
        moved, others, records = transfers.split(load.transfers, legs, found.records)
        accounts = Accounts(
            others,
            records,
            load.asked,
            load.missed,
            lambda at: any("dropped" not in deed.kind for deed in mischief.around(at - 1, at + 1)),
            steps=(0.0, -CLOCK_STEP, CLOCK_STEP) if mischief.count()["node clock stepped"] else (0.0,),
        )
        findings = [*accounts.compare(), *moved.findings(), *self._notified(found, legs, mischief, load), *findings]
        disturbed = mischief.around
        findings += compare_minutes(
            others,
            self._counted(),
            lambda begin, end: bool(disturbed(begin, end)),
            [leg for leg in moved.legs if transfers.pays(leg)],
        )
        return Report(
            options=options,
            findings=findings,
            outcomes=accounts.outcomes + moved.outcomes(),
            deeds=mischief.count(),
            begun=load.begun,
            records=len(found.records),
            legs=len(legs),
            posted=len(self.receiver.taken),
            trouble=load.trouble,
            seconds=time.monotonic() - self.began,
            stories=self._stories(accounts, findings, mischief),
        )

    def _warm_up(self, load: Load) -> None:
        """Place a call through each node, so that what is created once exists before anything is counted."""
        for node in self.nodes:
            load.nodes = [node]
            load.one_call()
        load.nodes = self.nodes
        self._wait(lambda: not self._channels() and self._quiet(), 20)
        self.at_rest = [node.figures() for node in self.nodes]
        self.greenlets_at_rest = reduce(or_, [node.greenlets() for node in self.nodes])

    def _counted(self) -> dict[str, float]:
        """Return the seconds that were counted, by level."""
        client = self.redis.client()
        levels = ("integrator:acme", "account:acme")
        sums = {level: client.hgetall(keys.usage_sums(level)) for level in levels}
        return {
            level: sum(float(value) for name, value in found.items() if name.startswith(b"d"))
            for level, found in sums.items()
        }

    def _channels(self) -> int:
        return sum(rig.live_channels() for rig in self.rigs)

    def _wait(self, quiet: Any, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not quiet():
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True

    def _settle(self) -> list[Finding]:
        """Wait until all is at rest; return what never comes to rest."""
        findings: list[Finding] = []
        deadline = time.monotonic() + self.options.settle
        if not self._wait(lambda: not self._channels(), self.options.settle):
            for rig in self.rigs:
                for row in json.loads(rig.api("show channels as json")).get("rows", ()):
                    at = float(row["created_epoch"])
                    text = f"a channel still up: {row['name']} {row['state']} {row['application']}"
                    findings.append(Finding(LEAK, "-", text, uuids=(row["uuid"],), at=at, until=at + 30))
                # Its CDR will describe the call it was in.
                rig.api("hupall")
            self._wait(lambda: not self._channels(), 10)
        client = self.redis.client()

        self._say("no channel is up")

        def at_rest() -> bool:
            return not any(self._left(client)) and not self._channels() and self._quiet() and not self._posts(client)

        self._wait(at_rest, max(LEASE + 5, deadline - time.monotonic()))
        # A callback that a node had taken when it died goes to another when its lease ends.
        self._wait(lambda: at_rest() or not self._left(client)[2], CALLBACK_LEASE)
        self._wait(at_rest, LEASE + 5)
        for one in self.listeners:
            one.stop()
        # A node notices that a client has left when a heartbeat can't be sent: the second, as the first is answered by
        # a reset.
        self._wait(lambda: not any(any(_idle(node, self.greenlets_at_rest)) for node in self.nodes), 2 * HEARTBEAT + 5)
        limits, live, pending = self._left(client)
        findings += [Finding(LEFT_OVER, "-", f"{key} {members}") for key, members in limits.items()]
        findings += [Finding(LEAK, "-", f"in {keys.live('*')}: {ref}", (ref,)) for ref in live]
        findings += [Finding(LEAK, "callback", f"still pending: {one}") for one in pending]
        for node in self.nodes:
            findings += [Finding(LEAK, "-", f"{node.name}: {text}") for text in _leaks(node, self.at_rest)]
            findings += [Finding(LEAK, "-", f"{node.name}: {text}") for text in _idle(node, self.greenlets_at_rest)]
        return findings

    def _left(self, client: Any) -> tuple[dict[str, list[str]], list[str], list[str]]:
        """Count held limits, live references and waiting callbacks."""
        try:
            limits = {
                key.decode(): [one.decode() for one in client.zrange(key, 0, -1)]
                for key in client.scan_iter(match=keys.concurrent("*"), count=1000)
            }
            held = list(client.scan_iter(match=keys.live("*"), count=1000))
            live = [ref.decode() for key in held for ref in client.hkeys(key)]
            pending = [one.decode() for one in client.zrange(keys.timed_due("callbacks"), 0, -1)]
        except StoreUnavailable as error:
            return {"redis": [str(error)]}, [], []
        return limits, live, pending

    def _notified(self, found: Notified, legs: list[witness.Leg], mischief: Mischief, load: Load) -> list[Finding]:
        """Compare what the webhook's receiver, the clients of events and the history got with what is in Redis."""
        due, lost = found.due(legs), mischief.redis_lost
        calls = {ref for kind, ref in due if kind == "cdr"}
        recorded = {record["call_ref"] for record in found.records}
        findings = receiver.compare(self.receiver.taken, due, found.keys, self.receiver.faults, lost)
        for one in self.listeners:
            findings += listener.compare(one.heard, calls, recorded, one.faults, lost)
        findings += listener.compare_history(listener.in_history(self.redis.client()), calls, recorded)
        uncounted = notified.handed_over(legs)
        if self.old is not None:
            # Nodes before 7705808 may close a session without the call that was transferred.
            uncounted |= {asked.call_ref for asked in load.transfers}
        return [*findings, *found.compare_sessions(due, uncounted)]

    def _posts(self, client: Any) -> int:
        """How many notifications wait for the receiver."""
        (webhook,) = WebhookQueue(client).describe([keys.webhook("acme", "crm")])
        return int(webhook["depth"])

    def _quiet(self) -> bool:
        """Whether all nodes are idle: no call, and all records in Redis."""
        for node in self.nodes:
            with contextlib.suppress(OSError):
                now = node.metrics()
                if now["esl_apps_live_calls"] or now["esl_apps_outbound_sockets"] or now["esl_apps_outbox_depth"]:
                    return False
        return True

    # Faults -------------------------------------------------------------------------------------------

    def _stories(self, accounts: Accounts, findings: list[Finding], mischief: Mischief) -> list[str]:
        """Write all that is known about each call in disagreement."""
        if not findings:
            return []
        logs = Logs([node.log for node in self.nodes])
        client = self.redis.client()
        return ["\n".join(self._story(one, accounts, mischief, logs, client)) for one in findings]

    def _story(
        self, finding: Finding, accounts: Accounts, mischief: Mischief, logs: Logs, client: Any
    ) -> Iterator[str]:
        yield f"=== {finding.kind}: {finding.app}: {finding.text}"
        legs = {uuid: accounts.by_uuid[uuid] for uuid in finding.uuids if uuid in accounts.by_uuid}
        refs = [*finding.refs, *(ref for leg in legs.values() for ref in leg.refs)]
        # The whole session: the A-leg's other attempts are part of the story.
        for ref in finding.refs:
            for leg in accounts.legs_of(ref):
                legs[leg.uuid] = leg
                refs += [one for one in leg.refs if one not in refs]
                other = accounts.by_uuid.get(leg.other or "")
                if other is not None:
                    legs[other.uuid] = other
        for leg in sorted(legs.values(), key=lambda leg: leg.created):
            yield from leg.lines()
        for ref in refs:
            asked = accounts.asked_by_ref.get(ref)
            if asked is not None:
                yield f"asked {witness.clock(asked.at)} {asked}"
            for record in accounts.by_ref.get(ref, ()):
                yield f"record {json.dumps(record)}"
            with contextlib.suppress(StoreUnavailable):
                state = json.loads(client.get(keys.call(ref)) or "{}")
                # The record is printed above.
                yield f"{keys.call(ref)} {json.dumps({**state, 'record': None}) if state else '(nothing)'}"
        if finding.at:
            deeds: list[Deed] = mischief.around(finding.at, finding.until)
            yield "meanwhile: " + ("; ".join(map(str, deeds)) or "nothing was done")
        for line in logs.about([*refs, *legs]):
            yield f"  {line}"


def _leaks(node: ClockedNode, at_rest: list[dict[str, float]]) -> Iterator[str]:
    """Resources that a node holds beyond those it held ``at_rest``, before the run."""
    if not node.runs:
        yield "is not up"
        return
    # What is left stays, whereas /proc/net/tcp leaves sockets out if it changes while it is read.
    readings = [node.figures() for _ in range(3)]
    now = {name: min(reading[name] for reading in readings) for name in readings[0]}
    for name in ("esl_apps_live_calls", "esl_apps_outbound_sockets", "esl_apps_outbox_depth"):
        if now[name]:
            yield f"{name} is {now[name]:.0f}"
    if now["connections"]:
        yield f"{now['connections']:.0f} connections to its event socket"
    # To another node's port, or for a heartbeat: a few come and go.
    # Each outbox that the warm-up doesn't use has three files of its own.
    for name, allowed in (("files", 3 + 3 * _LATER["outbox"]), ("sockets", 4)):
        before = max(one[name] for one in at_rest)
        if now[name] > before + allowed:
            names = node.peers() if name == "sockets" else node.paths() if name == "files" else []
            yield f"{name} {now[name]:.0f}, {before:.0f} before {' '.join(sorted(names))}"


def _idle(node: ClockedNode, at_rest: Counter[str]) -> Iterator[str]:
    """Greenlets of a node beyond those that there were ``at_rest``, by their work."""
    if node.runs:
        now = reduce(and_, [node.greenlets() for _ in range(3)])
        for task, count in (now - at_rest - _LATER).items():
            yield f"{at_rest[task] + count} greenlets of {task}, {at_rest[task]} before"
