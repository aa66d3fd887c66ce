"""The delays that a call adds, on a real FreeSWITCH with calls from SIPp, taken from the times of their packets.

A call has three delays: from the caller's INVITE to our 200, from the last key to the B-leg's INVITE, and from the
caller's BYE to the record in Redis. The same calls go to a node, to the smallest program that can answer them, and to a
dialplan without a socket. All times are the kernel's timestamps of loopback packets (``capture``).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import random
import re
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import process, table
from benchmarks.load import capture, sipp
from esl_apps.core.numbers import NumberPlan
from esl_apps.store import redis_py
from esl_apps.store.cards import CardStore
from esl_apps.store.fast_client import TIMEOUT
from tests.rig.base import eventually
from tests.rig.freeswitch import FreeswitchRig, find_freeswitch
from tests.support.node import CDRS, Node, RedisServer, configuration

#: Calls a second -> calls in one run. False: the call is only answered. True: the caller dials on to a B-leg; carrying
#: both legs of 50 such calls a second takes FreeSWITCH one of the two cores.
RATES = {False: {10: 40, 50: 150, 100: 300}, True: {10: 40, 50: 150, 100: 100}}
ROUNDS = 2
#: Enrolled callers: each call of a round has its own.
CALLERS = 4000
#: Above the kernel's range for outgoing connections. FreeSWITCH skips a port that is in use.
RTP_PORTS = {"$${rig_rtp_start}": 61000, "$${rig_rtp_end}": 64998}
FSCONF = process.ROOT / "tests" / "rig" / "fsconf"
DISA, DIALTHROUGH, RESPONDER, DIALPLAN = "DISA", "dialthrough", "responder", "dialplan"
PLAIN, ANSWERED = "DISA, ordinary", "DISA, answered first"
NODE, PEERS = (DISA, DIALTHROUGH, PLAIN, ANSWERED), (RESPONDER, DIALPLAN)
DIDS = {
    DISA: "0115550002",
    PLAIN: "0115550002",
    ANSWERED: "0115550006",
    DIALTHROUGH: "0115550003",
    RESPONDER: "0115550004",
    DIALPLAN: "0115550005",
}
DIALTONE = "tone_stream://%(10000,0,350,440)"
#: min, max, tries, time-out, terminator, prompt, prompt after wrong input, variable, regex, time-out between digits
COLLECT = f"2 17 1 10000 # {DIALTONE} silence_stream://10 got \\d+ 3000"
ANSWER, DIAL, RECORD = "INVITE to 200", "the last key to the B-leg's INVITE", "BYE to the record"
#: Title of a table -> its delay, and whether it is about calls that dial on.
SECTIONS = {
    "From INVITE to 200": (ANSWER, False),
    "From the last key to the B-leg's INVITE": (DIAL, True),
    "From BYE to the record, after a bridged call": (RECORD, True),
    "From BYE to the record, of a caller who didn't dial": (RECORD, False),
}
NOTES = """\
SIPp calls a FreeSWITCH through the extension of the shipped dialplan and hangs up {bye} ms after the answer. Or it keys
four digits and # as SIP INFO, {between} ms apart, a second SIPp answers the B-leg, and the first hangs up {bye} ms
after the last key. All times are the kernel's timestamps of loopback packets, from one capture; no process has to wake
up to take them. "DISA" (without a PIN) and "dialthrough" (card found by the caller's number) are a node with a real
redis-server. "responder" is a process that only splits frames and answers connect with answer. "dialplan" has no
socket: answer, play_and_get_digits, bridge. The record counts as written when Redis has answered the node's push.
FreeSWITCH, started as root, runs as a realtime process (SCHED_FIFO); other processes get what it leaves. So node,
Redis and responder run in realtime, too (SCHED_RR, priority 1: the docs' page "Size a machine"). "{plain}" is the
same node as an ordinary process; "{answered}" has "answer" before "socket" in its dialplan. {rounds} rounds, each
with all contenders and rates in a new random order. "idle" is the idle share of the two cores, which also run SIPp
and FreeSWITCH. With none left, the times show a queue. "failed" calls did not reach their end."""


@dataclass
class Timeline:
    """The times of a call's packets, in seconds since 1970: the first packet of each kind."""

    invite: float
    answered: float | None = None
    last_key: float | None = None
    bleg: float | None = None
    bye: float | None = None
    recorded: float | None = None

    def waits(self) -> dict[str, float]:
        pairs = {
            ANSWER: (self.invite, self.answered),
            DIAL: (self.last_key, self.bleg),
            RECORD: (self.bye, self.recorded),
        }
        return {
            name: (end - start) * 1000 for name, (start, end) in pairs.items() if start is not None and end is not None
        }


@dataclass
class Run:
    """Calls of one contender at one rate."""

    contender: str
    rate: int
    dial: bool
    calls: list[tuple[str, str]]
    idle: float = 0.0

    @property
    def key(self) -> tuple[str, int, bool]:
        return self.contender, self.rate, self.dial


@dataclass
class Results:
    """Results by contender, rate, and whether the calls dial on."""

    waits: dict[tuple[str, int, bool, str], list[float]] = field(default_factory=dict)
    """Milliseconds; the key's last part names the delay."""
    idle: dict[tuple[str, int, bool], list[float]] = field(default_factory=dict)
    failed: Counter[tuple[str, int, bool]] = field(default_factory=Counter)
    """How many calls did not reach their end."""

    def add(self, run: Run, timelines: dict[str, Timeline]) -> None:
        self.idle.setdefault(run.key, []).append(run.idle)
        delays = {ANSWER}
        delays |= {DIAL} if run.dial else set()
        delays |= {RECORD} if run.contender in NODE else set()
        for number, _ in run.calls:
            waits = timelines[number].waits() if number in timelines else {}
            if waits.keys() < delays:
                self.failed[run.key] += 1
                continue
            for name, ms in waits.items():
                self.waits.setdefault((*run.key, name), []).append(ms)


def run(options: argparse.Namespace) -> str:
    reason = obstacle()
    if reason:
        print(f"delay: skipped: {reason}")
        return ""
    machine = table.machine()
    contenders = [name for name in DIDS if not options.only or name in options.only]
    runs = [
        (name, rate, dial, count // 10 if options.quick else count)
        for dial, rates in RATES.items()
        for name in contenders
        for rate, count in rates.items()
    ]
    rounds = 1 if options.quick else ROUNDS
    results = Results()
    with roomy() as rig, set_up(rig) as setup:
        version = rig.api("version").strip().partition(" (")[0].partition("~")[0]
        for _ in range(rounds):
            run_round(rig, setup, runs, results)
    notes = NOTES.format(
        plain=PLAIN, answered=ANSWERED, rounds=rounds, between=sipp.BETWEEN_KEYS[0], bye=sipp.BEFORE_BYE[0]
    )
    texts = [section(results, title, contenders, *delay) for title, delay in SECTIONS.items()]
    return "\n\n\n".join([*filter(None, texts), f"{notes}\n\n{machine}, {version}"])


def obstacle() -> str:
    """Return why the benchmark can't run on this machine, or an empty string if it can."""
    if find_freeswitch() is None:
        return "FreeSWITCH not found (set $FREESWITCH to its binary)"
    if shutil.which("sipp") is None:
        return "SIPp is not installed (Debian package: sip-tester)"
    if os.geteuid() != 0:
        return "needs root, to capture packets and to make processes realtime"
    if importlib.util.find_spec("pjsua2") is None:
        return "the rig's phones are not installed (pip install -e '.[phones]')"
    return capture.obstacle()


def section(results: Results, title: str, contenders: Sequence[str], name: str, dial: bool) -> str:
    rows = []
    for rate in RATES[dial]:
        medians = {
            contender: statistics.median(times)
            for contender in contenders
            if (times := results.waits.get((contender, rate, dial, name))) is not None
        }
        for contender, median in medians.items():
            times = results.waits[contender, rate, dial, name]
            rows.append(
                (
                    contender,
                    rate,
                    len(times),
                    results.failed[contender, rate, dial],
                    f"{median:.1f}",
                    *(f"{percentile(times, percent):.1f}" for percent in (90, 99)),
                    *(table.ratio(median, medians.get(peer, 0.0)) for peer in PEERS if name != RECORD),
                    f"{statistics.mean(results.idle[contender, rate, dial]):.0f} %",
                )
            )
    if not rows:
        return ""
    columns = ["", "calls/s", "calls", "failed", "median ms", "p90 ms", "p99 ms"]
    columns += [f"of {peer}" for peer in PEERS if name != RECORD]
    return table.render(title, [*columns, "idle"], rows)


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


# The set-up -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contenders:
    redis: RedisServer
    target: int
    """The port that answers B-legs."""
    pids: dict[str, list[int]]
    """The processes of each contender: the one that answers, and those that it needs."""


@contextlib.contextmanager
def roomy() -> Iterator[FreeswitchRig]:
    """Start the rig with more RTP ports than the tests need, as about 250 legs are up at a time."""
    text = (FSCONF / "autoload_configs" / "switch.conf.xml").read_text()
    for name, port in RTP_PORTS.items():
        text = text.replace(name, str(port))
    with tempfile.TemporaryDirectory(prefix="conf-") as folder:
        file = Path(folder) / "switch.conf.xml"
        file.write_text(text)
        with FreeswitchRig(conf_files=[file]) as rig:
            yield rig


@contextlib.contextmanager
def set_up(rig: FreeswitchRig) -> Iterator[Contenders]:
    """Start all contenders, on a switch that writes no debug log."""
    for bank in rig.outside_banks:  # the phones take no part
        bank.close()
    rig.api("fsctl loglevel warning")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sipp-")))
        target = stack.enter_context(sipp.answering(folder))
        redis = RedisServer()
        stack.callback(redis.close)
        enrol(redis)
        node = Node(configured(rig, redis, target))
        stack.callback(node.stop)
        port = process.free_port()
        endpoint = f"sofia/external/%s@{sipp.HOST}:{target}"
        command = process.python("benchmarks.peers.responder", port, endpoint, COLLECT)
        responder = stack.enter_context(process.running(command, port, core=None))
        address = node.config["node"]["listen"]
        rig.route(DIDS[DISA], "disa/acme/front", address)
        rig.extension("public", DIDS[ANSWERED], [("answer", ""), ("socket", f"{address}/disa/acme/front async full")])
        rig.route(DIDS[DIALTHROUGH], "dialthrough", address)
        rig.route(DIDS[RESPONDER], "", f"{sipp.HOST}:{port}")
        rig.extension(
            "public",
            DIDS[DIALPLAN],
            [
                ("answer", ""),
                ("play_and_get_digits", COLLECT),
                ("bridge", endpoint % "${got}"),
            ],
        )
        assert node.process is not None
        assert redis.process is not None
        node_pids = [node.process.pid, redis.process.pid]
        pids = dict.fromkeys(NODE, node_pids) | {RESPONDER: [responder.pid]}
        yield Contenders(redis, target, pids)


def configured(rig: FreeswitchRig, redis: RedisServer, target: int) -> dict[str, Any]:
    config = configuration(rig, redis)
    config["dial"] |= {"extension": f"sofia/external/{{number}}@{sipp.HOST}:{target}"}
    config["cccp"] = {
        "cccp_cb_number": "5142223333",
        "cccp_cc_number": DIDS[DIALTHROUGH],
        "allowed_callee_regex": "^",
    }
    config["accounts"] = {
        "acme": {
            "token": "account-token-for-benchmarks",
            "caller_id": {"number": "+27115550000"},
            "integrator": "acme",
            "disa": {"front": {"allow_no_pin": True, "numbers": [DIDS[DISA], DIDS[ANSWERED]]}},
        }
    }
    return config


def enrol(redis: RedisServer) -> None:
    """Create a card for each caller."""
    client = redis_py.single(redis.url, TIMEOUT)
    store = CardStore(client, None, NumberPlan("ZA", r"\d{3,4}"), {})
    for i in range(CALLERS):
        store.create("acme", {"cid": "+" + caller(i), "active": True})


def caller(i: int) -> str:
    return f"2711{_CALLER + i}"


def callee(caller: str) -> bytes:
    """Return the number that `caller` dials."""
    return str(_NUMBER + int(caller[4:]) - _CALLER).encode()


_CALLER, _NUMBER = 4000000, 2000


# The calls --------------------------------------------------------------------------------------------


def run_round(
    rig: FreeswitchRig, contenders: Contenders, plan: Sequence[tuple[str, int, bool, int]], results: Results
) -> None:
    """Run each of ``wanted`` once: contender, calls a second, whether they dial on, how many."""
    numbers = ((number, callee(number).decode()) for number in map(caller, range(CALLERS)))
    runs = [Run(name, rate, dial, list(islice(numbers, count))) for name, rate, dial, count in plan]
    random.shuffle(runs)
    redis = contenders.redis
    ports = f"udp port {rig.external_port} or tcp port {redis.port}"
    with capture.capturing(ports) as packets, tempfile.TemporaryDirectory(prefix="sipp-") as folder:
        for run in runs:
            did = DIDS[run.contender]
            for pid in contenders.pids.get(run.contender, ()):
                process.realtime(pid, run.contender != PLAIN)
            idle, total = cpu_ticks()
            succeeded = sipp.run(Path(folder), did, rig.external_port, run.rate, run.calls, dial=run.dial)
            idle_then, total_then = cpu_ticks()
            run.idle = (idle_then - idle) / (total_then - total) * 100
            eventually(lambda: rig.live_channels() == 0, within=20)
            expected = len(run.calls) if run.contender in NODE else 0
            eventually(Settled(redis, expected), within=60)
            records = recorded(redis)
            if succeeded and records < expected:
                raise RuntimeError(f"{run.contender}: {records} records of {expected} calls")
            redis.client.delete(CDRS)
    timelines = read(packets, rig.external_port, contenders.target, redis.port)
    for run in runs:
        results.add(run, timelines)


def recorded(redis: RedisServer) -> int:
    """Return how many records the list in Redis has."""
    client: Any = redis.client
    return int(client.llen(CDRS))


class Settled:
    """True once no more records are due: all expected ones are there, or none has arrived for three seconds."""

    def __init__(self, redis: RedisServer, expected: int) -> None:
        self._redis = redis
        self._expected = expected
        self._count, self._since = -1, 0.0

    def __call__(self) -> bool:
        count, now = recorded(self._redis), time.monotonic()
        if count != self._count:
            self._count, self._since = count, now
        return count == self._expected or now - self._since > 3.0


def cpu_ticks() -> tuple[float, float]:
    """Return clock ticks of all cores together: idle, and total."""
    ticks = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


_CALL_ID = re.compile(rb"\r\nCall-ID: ([^\r]+)", re.IGNORECASE)
_FROM = re.compile(rb"\r\nFrom: <sip:(\d+)@")
_EXTENSION = re.compile(rb'"extension":"(\d+)"')


def read(packets: Sequence[capture.Packet], switch: int, target: int, redis: int) -> dict[str, Timeline]:
    """Return the times of each call, by its caller."""
    timelines: dict[str, Timeline] = {}
    by_id: dict[bytes, Timeline] = {}
    by_number: dict[bytes, Timeline] = {}
    pushes: dict[int, list[Timeline]] = {}
    for packet in packets:
        data = packet.data
        if packet.tcp:
            if packet.source == redis:
                for timeline in pushes.pop(packet.target, ()):
                    timeline.recorded = timeline.recorded or packet.at
            elif b"EVALSHA" in data and CDRS.encode() in data:
                pushes[packet.source] = [timelines[sender.decode()] for sender in _EXTENSION.findall(data)]
        elif packet.target == target:
            # If a key was lost, no caller was to dial this number.
            if data.startswith(b"INVITE sip:") and (bleg := by_number.get(data[11:15])) is not None:
                bleg.bleg = bleg.bleg or packet.at
        elif packet.source != target and (name := _CALL_ID.search(data)) is not None:
            if data.startswith(b"INVITE") and name[1] not in by_id:
                sender = _FROM.search(data)
                assert sender is not None
                by_id[name[1]] = by_number[callee(sender[1].decode())] = timelines[sender[1].decode()] = Timeline(
                    packet.at
                )
            elif name[1] in by_id:  # otherwise it is of a failed call of an earlier run
                _read_aleg(packet, by_id[name[1]], from_switch=packet.source == switch)
    return timelines


def _read_aleg(packet: capture.Packet, timeline: Timeline, *, from_switch: bool) -> None:
    data = packet.data
    if from_switch:
        if data.startswith(b"SIP/2.0 200") and b" INVITE\r\n" in data:
            timeline.answered = timeline.answered or packet.at
    elif data.startswith(b"INFO") and b"\r\nSignal=#" in data:
        timeline.last_key = timeline.last_key or packet.at
    elif data.startswith(b"BYE"):
        timeline.bye = timeline.bye or packet.at
