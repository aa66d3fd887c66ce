"""What a call waits for: a real FreeSWITCH, SIPp's calls, and when their packets passed.

One scenario has all three waits in it: the caller's INVITE to our 200, the last key to the B-leg's INVITE, the caller's
BYE to the record in Redis. The same calls go to a node, to the least program that could answer them, and to a
dialplan that needs none. Every time is the kernel's stamp on a packet of loopback (``capture``).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import random
import re
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import capture, process, sipp, table
from esl_apps import redisclient
from esl_apps.cards import CardStore
from esl_apps.core.numbers import NumberPlan
from tests.node import CDRS, Node, RedisServer, configuration
from tests.rig.base import eventually
from tests.rig.freeswitch import FreeswitchRig, find_freeswitch

#: Calls a second, and how many of them in one run.
RATES = {10: 60, 50: 200, 100: 300}
ROUNDS = 3
#: Enrolled callers; each has the next call when its last one is long over.
CALLERS = 1000
DISA, DIALTHROUGH, RESPONDER, DIALPLAN = "DISA", "dialthrough", "responder", "dialplan"
NODE = (DISA, DIALTHROUGH)
DIDS = {DISA: "0115550002", DIALTHROUGH: "0115550003", RESPONDER: "0115550004", DIALPLAN: "0115550005"}
DIALTONE = "tone_stream://%(10000,0,350,440)"
#: min, max, tries, time-out, terminator, file, file for a wrong one, variable, regex, time-out between digits
COLLECT = f"2 17 1 10000 # {DIALTONE} silence_stream://10 got \\d+ 3000"
ANSWER, DIAL, RECORD = "INVITE to 200", "the last key to the B-leg's INVITE", "BYE to the record"
NOTES = """\
SIPp calls a FreeSWITCH through the shipped dialplan's extension, keys a number of ten digits and # as SIP INFO,
{between} ms from key to key, and hangs up {bye} ms later; another SIPp answers the B-leg. All times are the kernel's
stamps on packets of loopback, from one capture: no process has to be awake to take them. "DISA" (with no PIN) and
"dialthrough" (a card by the caller's number) are a node with a real redis-server; "responder" a process that splits
frames and no more, and answers connect with answer; "dialplan" has no socket: answer, play_and_get_digits, bridge.
The record is in the list when Redis has answered the node's push. {rounds} rounds of {counts} calls at
{rates} a second, all contenders and rates in a new order in each. "idle" is what the two cores, which have SIPp and
FreeSWITCH to carry too, had left: without any, times are those of a queue."""


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
    calls: list[tuple[str, str]]
    idle: float = 0.0


@dataclass
class Results:
    waits: dict[tuple[str, int, str], list[float]] = field(default_factory=dict)
    """Milliseconds, by contender, rate, and which wait."""
    idle: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    placed: int = 0

    def add(self, run: Run, seen: dict[str, Seen]) -> None:
        key = run.contender, run.rate
        self.idle.setdefault(key, []).append(run.idle)
        self.placed += len(run.calls)
        wanted = 3 if run.contender in NODE else 2
        for _, number in run.calls:
            waits = seen[number].waits()
            if len(waits) != wanted:
                raise RuntimeError(f"{run.contender} at {run.rate}/s, a call without its end: {seen[number]}")
            for name, ms in waits.items():
                self.waits.setdefault((*key, name), []).append(ms)


def run(options: argparse.Namespace) -> str:
    why = unable()
    if why:
        print(f"delay: skipped: {why}")
        return ""
    machine = table.machine()
    rates = {rate: calls // 10 for rate, calls in RATES.items()} if options.quick else RATES
    rounds = 1 if options.quick else ROUNDS
    wanted = [name for name in DIDS if not options.only or name in options.only]
    results = Results()
    combinations = [(name, rate) for name in wanted for rate in rates]
    with FreeswitchRig() as rig, set_up(rig) as (redis, target):
        version = rig.api("version").strip().partition(" (")[0].partition("~")[0]
        numbers = Numbers()
        for _ in range(rounds):
            one_round(rig, redis, target, combinations, rates, numbers, results)
    notes = NOTES.format(
        rounds=rounds, between=sipp.BETWEEN_KEYS, bye=sipp.BEFORE_BYE,
        counts=", ".join(str(count) for count in rates.values()), rates=", ".join(str(rate) for rate in rates),
    )  # fmt: skip
    texts = [section(results, name, wanted, rates) for name in (ANSWER, DIAL, RECORD)]
    return "\n\n\n".join([*filter(None, texts), f"{results.placed:,} calls. {notes}\n\n{machine}, {version}"])


def unable() -> str:
    """Why this machine can't run it; empty: it can."""
    if find_freeswitch() is None:
        return "no FreeSWITCH on this machine ($FREESWITCH names the binary)"
    if shutil.which("sipp") is None:
        return "no SIPp (Debian: sip-tester)"
    if importlib.util.find_spec("pjsua2") is None:
        return "no phones for the rig (pip install -e '.[phones]')"
    return capture.missing()


def section(results: Results, name: str, contenders: Sequence[str], rates: Sequence[int] | dict[int, int]) -> str:
    rows = []
    for rate in rates:
        for contender in contenders:
            times = results.waits.get((contender, rate, name))
            if not times:
                continue
            median = statistics.median(times)
            others = [
                statistics.median(results.waits[peer, rate, name]) if (peer, rate, name) in results.waits else 0.0
                for peer in (RESPONDER, DIALPLAN)
            ]
            cuts = statistics.quantiles(times, n=100, method="inclusive")
            rows.append((
                contender, rate, len(times), f"{median:.1f}", f"{cuts[89]:.1f}", f"{cuts[98]:.1f}",
                *([table.ratio(median, other) for other in others] if name != RECORD else []),
                f"{statistics.mean(results.idle[contender, rate]):.0f} %",
            ))  # fmt: skip
    if not rows:
        return ""
    columns = ["", "calls/s", "calls", "median ms", "p90 ms", "p99 ms"]
    columns += ["of responder", "of dialplan", "idle"] if name != RECORD else ["idle"]
    return table.render(f"From {name}", columns, rows)


# The set-up -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def set_up(rig: FreeswitchRig) -> Iterator[tuple[RedisServer, int]]:
    """Everything that is called, on a switch that writes no debug log; Redis and the port of the B-legs."""
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
        stack.enter_context(process.running(command, port, core=None))
        address = node.config["node"]["listen"]
        rig.route(DIDS[DISA], "disa/acme/front", address)
        rig.route(DIDS[DIALTHROUGH], "dialthrough", address)
        rig.route(DIDS[RESPONDER], "", f"{sipp.HOST}:{port}")
        rig.extension("public", DIDS[DIALPLAN], [
            ("answer", ""), ("play_and_get_digits", COLLECT), ("bridge", endpoint % "${got}"),
        ])  # fmt: skip
        yield redis, target


def configured(rig: FreeswitchRig, redis: RedisServer, target: int) -> dict[str, Any]:
    config = configuration(rig, redis)
    config["dial"] |= {"external": [f"sofia/external/{{dialled}}@{sipp.HOST}:{target}"]}
    config["cccp"] = {"cccp_cb_number": "5142223333", "cccp_cc_number": DIDS[DIALTHROUGH]}
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
    client = redisclient.connect(redis.url)
    store = CardStore(client, None, NumberPlan("ZA", r"\d{3,4}"), {})
    for i in range(CALLERS):
        store.create("acme", {"cid": "+" + caller(i), "active": True})


def caller(i: int) -> str:
    return f"2711{4000000 + i}"


class Numbers:
    """A caller and a number to dial for each call; no number is dialled twice."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> list[tuple[str, str]]:
        first, self._next = self._next, self._next + count
        return [(caller(i % CALLERS), f"082{i:07d}") for i in range(first, self._next)]


# The calls --------------------------------------------------------------------------------------------


def one_round(
    rig: FreeswitchRig,
    redis: RedisServer,
    target: int,
    combinations: Sequence[tuple[str, int]],
    rates: dict[int, int],
    numbers: Numbers,
    results: Results,
) -> None:
    runs = [Run(name, rate, numbers.take(rates[rate])) for name, rate in combinations]
    random.shuffle(runs)
    ports = f"udp port {rig.external_port} or tcp port {redis.port}"
    with capture.capturing(ports) as packets, tempfile.TemporaryDirectory(prefix="sipp-") as folder:
        for each in runs:
            idle, whole = processor()
            sipp.run(Path(folder), DIDS[each.contender], rig.external_port, each.rate, each.calls)
            idle_then, whole_then = processor()
            each.idle = (idle_then - idle) / (whole_then - whole) * 100
            eventually(lambda: rig.live_channels() == 0, within=20)
            records = len(each.calls) if each.contender in NODE else 0
            eventually(partial(recorded, redis, records), within=20)
            redis.client.delete(CDRS)
    seen = read(packets, rig.external_port, target, redis.port)
    for each in runs:
        results.add(each, seen)


def recorded(redis: RedisServer, count: int) -> bool:
    return int(redis.client.llen(CDRS)) == count


def processor() -> tuple[float, float]:
    """Ticks of all cores: idle, and all."""
    ticks = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


_CALL_ID = re.compile(rb"\r\nCall-ID: ([^\r]+)", re.IGNORECASE)
_SUBJECT = re.compile(rb"\r\nSubject: (\d+)")
_NUMBER = re.compile(rb'"number":"\+27(\d+)"')


def read(packets: Sequence[capture.Packet], switch: int, target: int, redis: int) -> dict[str, Seen]:
    """The calls, by the number that each dialled."""
    found: dict[str, Seen] = {}
    by_id: dict[bytes, Seen] = {}
    pushes: dict[int, list[Seen]] = {}
    for packet in packets:
        if packet.tcp:
            _read_redis(packet, redis, found, pushes)
        elif packet.target == target:
            if packet.data.startswith(b"INVITE sip:"):
                seen = found[packet.data[11:].partition(b"@")[0].decode()]
                seen.bleg = seen.bleg or packet.at
        elif packet.source != target and (name := _CALL_ID.search(packet.data)) is not None:
            _read_aleg(packet, name[1], switch, found, by_id)
    return found


def _read_aleg(
    packet: capture.Packet, name: bytes, switch: int, found: dict[str, Seen], by_id: dict[bytes, Seen]
) -> None:
    data = packet.data
    if data.startswith(b"INVITE") and name not in by_id and (subject := _SUBJECT.search(data)) is not None:
        by_id[name] = found[subject[1].decode()] = Seen(packet.at)
        return
    seen = by_id[name]
    if packet.source == switch:
        if data.startswith(b"SIP/2.0 200") and b" INVITE\r\n" in data:
            seen.answered = seen.answered or packet.at
    elif data.startswith(b"INFO") and b"\r\nSignal=#" in data:
        seen.last_key = seen.last_key or packet.at
    elif data.startswith(b"BYE"):
        seen.bye = seen.bye or packet.at


def _read_redis(packet: capture.Packet, redis: int, found: dict[str, Seen], pushes: dict[int, list[Seen]]) -> None:
    """A push to the list; then Redis's answer on that connection."""
    if packet.target == redis:
        if b"EVALSHA" in packet.data and CDRS.encode() in packet.data:
            pushes[packet.source] = [found["0" + number.decode()] for number in _NUMBER.findall(packet.data)]
    else:
        for seen in pushes.pop(packet.target, ()):
            seen.recorded = seen.recorded or packet.at
