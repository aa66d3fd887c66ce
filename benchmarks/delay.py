"""What a call waits for: a real FreeSWITCH, SIPp's calls, and when their packets passed.

One scenario has all three waits in it: the caller's INVITE to our 200, the last key to the B-leg's INVITE, the caller's
BYE to the record in Redis. The same calls go to a node, to the least program that could answer them, and to a
dialplan that needs none. Every time is the kernel's stamp on a packet of loopback (``capture``).
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

from benchmarks import capture, process, sipp, table
from esl_apps.store import redis_client
from esl_apps.store.cards import CardStore
from esl_apps.core.numbers import NumberPlan
from tests.support.node import CDRS, Node, RedisServer, configuration
from tests.rig.base import eventually
from tests.rig.freeswitch import FreeswitchRig, find_freeswitch

#: Calls a second, and how many of them in one run: of calls that are answered and no more, and of those that dial on.
#: A FreeSWITCH that has both legs to carry needs one of these two cores for 50 of them a second.
RATES = {False: {10: 40, 50: 150, 100: 300}, True: {10: 40, 50: 150, 100: 100}}
ROUNDS = 2
#: Enrolled callers, one for each call of a round.
CALLERS = 4000
#: Above those that the kernel gives to outgoing connections; FreeSWITCH passes over one that is taken.
RTP_PORTS = {"$${rig_rtp_start}": 61000, "$${rig_rtp_end}": 64998}
FSCONF = process.ROOT / "tests" / "rig" / "fsconf"
DISA, DIALTHROUGH, RESPONDER, DIALPLAN = "DISA", "dialthrough", "responder", "dialplan"
PLAIN = "DISA, ordinary"
NODE, PEERS = (DISA, DIALTHROUGH, PLAIN), (RESPONDER, DIALPLAN)
DIDS = {
    DISA: "0115550002",
    PLAIN: "0115550002",
    DIALTHROUGH: "0115550003",
    RESPONDER: "0115550004",
    DIALPLAN: "0115550005",
}
DIALTONE = "tone_stream://%(10000,0,350,440)"
#: min, max, tries, time-out, terminator, file, file for a wrong one, variable, regex, time-out between digits
COLLECT = f"2 17 1 10000 # {DIALTONE} silence_stream://10 got \\d+ 3000"
ANSWER, DIAL, RECORD = "INVITE to 200", "the last key to the B-leg's INVITE", "BYE to the record"
#: What is shown, and of which calls: those that dial on, or those that are answered and no more.
SECTIONS = {
    "From INVITE to 200": (ANSWER, False),
    "From the last key to the B-leg's INVITE": (DIAL, True),
    "From BYE to the record, of a talk": (RECORD, True),
    "From BYE to the record, of a caller who dialled nothing": (RECORD, False),
}
NOTES = """\
SIPp calls a FreeSWITCH through the shipped dialplan's extension and hangs up {bye} ms after the answer; or it keys
four digits and # as SIP INFO, some {between} ms from key to key, and hangs up {bye} ms after the last one, and another
SIPp answers the B-leg. All times are the kernel's stamps on packets of loopback, from one capture: no process has to be
awake to take them. "DISA" (with no PIN) and "dialthrough" (a card by the caller's number) are a node with a real
redis-server; "responder" a process that splits frames and no more, and answers connect with answer; "dialplan" has no
socket: answer, play_and_get_digits, bridge. The record is in the list when Redis has answered the node's push.
FreeSWITCH, started as root, runs as a realtime process (SCHED_FIFO) and leaves to others on its machine what it does
not need. So node, Redis and responder run as such, too (SCHED_RR, priority 1: docs/operating.rst); "{plain}" is the
same node as an ordinary process. {rounds} rounds, all contenders and rates in a new order in each. "idle" is what the
two cores, which have SIPp and FreeSWITCH to carry too, had left: without any, times are those of a queue, and calls
that did not come to their end are "failed"."""


@dataclass
class Seen:
    """One call, as its packets tell: seconds since 1970, each the first of its kind."""

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
    """By contender, rate, and whether the calls dial on."""

    waits: dict[tuple[str, int, bool, str], list[float]] = field(default_factory=dict)
    """Milliseconds; and by which wait."""
    idle: dict[tuple[str, int, bool], list[float]] = field(default_factory=dict)
    failed: Counter[tuple[str, int, bool]] = field(default_factory=Counter)
    """Calls that did not come to their end."""

    def add(self, run: Run, seen: dict[str, Seen]) -> None:
        self.idle.setdefault(run.key, []).append(run.idle)
        wanted = {ANSWER}
        wanted |= {DIAL} if run.dial else set()
        wanted |= {RECORD} if run.contender in NODE else set()
        for who, _ in run.calls:
            waits = seen[who].waits() if who in seen else {}
            if waits.keys() < wanted:
                self.failed[run.key] += 1
                continue
            for name, ms in waits.items():
                self.waits.setdefault((*run.key, name), []).append(ms)


def run(options: argparse.Namespace) -> str:
    why = unable()
    if why:
        print(f"delay: skipped: {why}")
        return ""
    machine = table.machine()
    wanted = [name for name in DIDS if not options.only or name in options.only]
    runs = [
        (name, rate, dial, count // 10 if options.quick else count)
        for dial, rates in RATES.items()
        for name in wanted
        for rate, count in rates.items()
    ]
    rounds = 1 if options.quick else ROUNDS
    results = Results()
    with roomy() as rig, set_up(rig) as stand:
        version = rig.api("version").strip().partition(" (")[0].partition("~")[0]
        for _ in range(rounds):
            one_round(rig, stand, runs, results)
    notes = NOTES.format(plain=PLAIN, rounds=rounds, between=sipp.BETWEEN_KEYS[0], bye=sipp.BEFORE_BYE[0])
    texts = [section(results, title, wanted, *what) for title, what in SECTIONS.items()]
    return "\n\n\n".join([*filter(None, texts), f"{notes}\n\n{machine}, {version}"])


def unable() -> str:
    """Why this machine can't run it; empty: it can."""
    if find_freeswitch() is None:
        return "no FreeSWITCH on this machine ($FREESWITCH names the binary)"
    if shutil.which("sipp") is None:
        return "no SIPp (Debian: sip-tester)"
    if os.geteuid() != 0:
        return "not root, as which it captures packets and makes realtime processes"
    if importlib.util.find_spec("pjsua2") is None:
        return "no phones for the rig (pip install -e '.[phones]')"
    return capture.missing()


def section(results: Results, title: str, contenders: Sequence[str], name: str, dial: bool) -> str:
    rows = []
    for rate in RATES[dial]:
        medians = {
            who: statistics.median(times)
            for who in contenders
            if (times := results.waits.get((who, rate, dial, name))) is not None
        }
        for who, median in medians.items():
            times = results.waits[who, rate, dial, name]
            rows.append(
                (
                    who,
                    rate,
                    len(times),
                    results.failed[who, rate, dial],
                    f"{median:.1f}",
                    *(f"{percentile(times, percent):.1f}" for percent in (90, 99)),
                    *(table.ratio(median, medians.get(peer, 0.0)) for peer in PEERS if name != RECORD),
                    f"{statistics.mean(results.idle[who, rate, dial]):.0f} %",
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
class Stand:
    redis: RedisServer
    target: int
    """The port of the B-legs."""
    pids: dict[str, list[int]]
    """Who answers, and whom they need, by contender."""


@contextlib.contextmanager
def roomy() -> Iterator[FreeswitchRig]:
    """The rig with more ports for RTP than tests need: some 250 legs are up at a time."""
    text = (FSCONF / "autoload_configs" / "switch.conf.xml").read_text()
    for name, port in RTP_PORTS.items():
        text = text.replace(name, str(port))
    with tempfile.TemporaryDirectory(prefix="conf-") as folder:
        file = Path(folder) / "switch.conf.xml"
        file.write_text(text)
        with FreeswitchRig(conf_files=[file]) as rig:
            yield rig


@contextlib.contextmanager
def set_up(rig: FreeswitchRig) -> Iterator[Stand]:
    """Everything that is called, on a switch that writes no debug log."""
    for bank in rig.outside_banks:  # no phone has a part in it
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
        command = process.python("benchmarks.apps.responder", port, endpoint, COLLECT)
        responder = stack.enter_context(process.running(command, port, core=None))
        address = node.config["node"]["listen"]
        rig.route(DIDS[DISA], "disa/acme/front", address)
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
        ours = [node.process.pid, redis.process.pid]
        pids = dict.fromkeys(NODE, ours) | {RESPONDER: [responder.pid]}
        yield Stand(redis, target, pids)


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
            "disa": {"front": {"allow_no_pin": True, "numbers": [DIDS[DISA]]}},
        }
    }
    return config


def enrol(redis: RedisServer) -> None:
    """A card for each caller."""
    client = redis_client.connect(redis.url)
    store = CardStore(client, None, NumberPlan("ZA", r"\d{3,4}"), {})
    for i in range(CALLERS):
        store.create("acme", {"cid": "+" + caller(i), "active": True})


def caller(i: int) -> str:
    return f"2711{_CALLER + i}"


def numbered(caller: str) -> bytes:
    """The number that this caller dials."""
    return str(_NUMBER + int(caller[4:]) - _CALLER).encode()


_CALLER, _NUMBER = 4000000, 2000


# The calls --------------------------------------------------------------------------------------------


def one_round(rig: FreeswitchRig, stand: Stand, wanted: Sequence[tuple[str, int, bool, int]], results: Results) -> None:
    """``wanted``: contender, calls a second, whether they dial on, and how many."""
    numbers = ((who, numbered(who).decode()) for who in map(caller, range(CALLERS)))
    runs = [Run(name, rate, dial, list(islice(numbers, count))) for name, rate, dial, count in wanted]
    random.shuffle(runs)
    redis = stand.redis
    ports = f"udp port {rig.external_port} or tcp port {redis.port}"
    with capture.capturing(ports) as packets, tempfile.TemporaryDirectory(prefix="sipp-") as folder:
        for each in runs:
            did = DIDS[each.contender]
            for pid in stand.pids.get(each.contender, ()):
                process.realtime(pid, each.contender != PLAIN)
            idle, whole = processor()
            all_well = sipp.run(Path(folder), did, rig.external_port, each.rate, each.calls, dial=each.dial)
            idle_then, whole_then = processor()
            each.idle = (idle_then - idle) / (whole_then - whole) * 100
            eventually(lambda: rig.live_channels() == 0, within=20)
            expected = len(each.calls) if each.contender in NODE else 0
            eventually(Settled(redis, expected), within=60)
            records = recorded(redis)
            if all_well and records < expected:
                raise RuntimeError(f"{each.contender}: {records} records of {expected} calls")
            redis.client.delete(CDRS)
    seen = read(packets, rig.external_port, stand.target, redis.port)
    for each in runs:
        results.add(each, seen)


def recorded(redis: RedisServer) -> int:
    """How many records the list in Redis has."""
    client: Any = redis.client
    return int(client.llen(CDRS))


class Settled:
    """Whether no more records come: they are as many as expected, or none has come for three seconds."""

    def __init__(self, redis: RedisServer, expected: int) -> None:
        self._redis = redis
        self._expected = expected
        self._count, self._since = -1, 0.0

    def __call__(self) -> bool:
        count, now = recorded(self._redis), time.monotonic()
        if count != self._count:
            self._count, self._since = count, now
        return count == self._expected or now - self._since > 3.0


def processor() -> tuple[float, float]:
    """Ticks of all cores: idle, and all."""
    ticks = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


_CALL_ID = re.compile(rb"\r\nCall-ID: ([^\r]+)", re.IGNORECASE)
_FROM = re.compile(rb"\r\nFrom: <sip:(\d+)@")
_EXTENSION = re.compile(rb'"extension":"(\d+)"')


def read(packets: Sequence[capture.Packet], switch: int, target: int, redis: int) -> dict[str, Seen]:
    """The calls, by their callers."""
    found: dict[str, Seen] = {}
    by_id: dict[bytes, Seen] = {}
    by_number: dict[bytes, Seen] = {}
    pushes: dict[int, list[Seen]] = {}
    for packet in packets:
        data = packet.data
        if packet.tcp:
            if packet.source == redis:
                for seen in pushes.pop(packet.target, ()):
                    seen.recorded = seen.recorded or packet.at
            elif b"EVALSHA" in data and CDRS.encode() in data:
                pushes[packet.source] = [found[who.decode()] for who in _EXTENSION.findall(data)]
        elif packet.target == target:
            # Where a key was lost it is a number that nobody dialled.
            if data.startswith(b"INVITE sip:") and (bleg := by_number.get(data[11:15])) is not None:
                bleg.bleg = bleg.bleg or packet.at
        elif packet.source != target and (name := _CALL_ID.search(data)) is not None:
            if data.startswith(b"INVITE") and name[1] not in by_id:
                who = _FROM.search(data)
                assert who is not None
                by_id[name[1]] = by_number[numbered(who[1].decode())] = found[who[1].decode()] = Seen(packet.at)
            else:
                _read_aleg(packet, by_id[name[1]], from_switch=packet.source == switch)
    return found


def _read_aleg(packet: capture.Packet, seen: Seen, *, from_switch: bool) -> None:
    data = packet.data
    if from_switch:
        if data.startswith(b"SIP/2.0 200") and b" INVITE\r\n" in data:
            seen.answered = seen.answered or packet.at
    elif data.startswith(b"INFO") and b"\r\nSignal=#" in data:
        seen.last_key = seen.last_key or packet.at
    elif data.startswith(b"BYE"):
        seen.bye = seen.bye or packet.at
