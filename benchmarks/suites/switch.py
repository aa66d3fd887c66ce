"""How many calls a second one machine carries with its switch: SIPp, a real FreeSWITCH and a node, at a rising rate.

In every call the caller keys a number, talks to a B-leg and hangs up. The same calls go through a dialplan without us.
The highest rate at which no call fails is then held for ``--minutes``, with the memory of all processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from benchmarks import process, table
from benchmarks.load import capture, sipp
from benchmarks.suites import delay
from benchmarks.suites.delay import ANSWER, DIAL, DIALPLAN, DIALTHROUGH, DISA, RECORD, Contenders, Settled
from tests.rig.base import eventually
from tests.rig.freeswitch import FreeswitchRig
from tests.support.node import CDRS

#: The first rate, and by how much the next is higher. The step from the last good one to the first bad one is halved
#: so often.
FIRST, FACTOR, HALVINGS = 20, 1.5, 2
#: The highest rate that is tried: for more, the generator would need a machine of its own.
MOST = 500
#: The part of a rate that is held if calls fail in the first piece at that rate.
LOWER = 0.85
#: Seconds after which a caller gives up waiting for an answer.
PATIENCE = 10
#: How often a rate is tried until no call fails.
TRIES = 2
#: Seconds of calls at each rate, and in each line of the hold.
STEP, CHUNK = 8, 60
CONTENDERS = (DIALPLAN, DISA, DIALTHROUGH)
RAMP = """\
SIPp calls, keys four digits and #, a second SIPp answers the B-leg, and the first hangs up {bye} ms after the last
key: some 1.2 s a call. {step} s at each rate; a rate counts if, in one of two tries, every call reached its end and,
with a node, every record came. "dialplan" is the same call without us: answer, play_and_get_digits, bridge. "calls/s"
is the rate that SIPp was asked for; "of dialplan" compares the highest good rates. Shares are of all {cores} cores
together, at that rate: "node" with its Redis. "SIPp" are both of them, which an owner doesn't have; the packets'
capture is not listed. Delays are p99, by the kernel's timestamps of the packets, as in docs/benchmarks/delay.txt.
Node and Redis are realtime processes, as FreeSWITCH is."""
HOLD = """\
{contender} at {rate} calls a second for {minutes:g} minutes, in pieces of {chunk} s. MB is resident memory at the end
of each piece; the node has just written its last records then."""


@dataclass
class Step:
    """Calls at one rate."""

    contender: str
    rate: int
    calls: int
    failed: int
    p99: dict[str, float]
    """Milliseconds by delay."""
    shares: dict[str, float]
    """Percent of all cores, by process."""
    memory: dict[str, float]
    """MB by process."""

    @property
    def good(self) -> bool:
        return not self.failed


@dataclass
class Found:
    """The steps of a contender."""

    steps: list[Step] = field(default_factory=list)

    @property
    def best(self) -> Step | None:
        """The highest good rate below the lowest bad one."""
        bad = min((step.rate for step in self.steps if not step.good), default=MOST + 1)
        return max((step for step in self.steps if step.good and step.rate < bad), key=lambda s: s.rate, default=None)


def run(options: argparse.Namespace) -> str:
    reason = delay.obstacle()
    if reason:
        print(f"switch: skipped: {reason}")
        return ""
    machine = table.machine(["gevent", "redis"])
    contenders = [name for name in CONTENDERS if not options.only or name in options.only]
    step = 3 if options.quick else STEP
    minutes = 0.1 if options.quick else options.minutes
    with delay.roomy() as rig, delay.set_up(rig) as setup:
        version = rig.api("version").strip().partition(" (")[0].partition("~")[0]
        bench = Bench(rig, setup)
        if options.rate:
            held = [hold(bench, name, options.rate, minutes) for name in contenders if name != DIALPLAN]
            return "\n\n\n".join(held) + f"\n\n{machine}, {version}"
        found = {name: Found() for name in contenders}
        for name in contenders:
            climb(bench, name, step, found[name], most=FIRST if options.quick else MOST)
        texts = [ramp(found, step)]
        for name in contenders:
            best = found[name].best
            if name == DISA and best is not None:
                texts.append(hold(bench, name, best.rate, minutes, lower=True))
    return "\n\n\n".join(texts) + f"\n\n{machine}, {version}"


def climb(bench: Bench, contender: str, seconds: int, found: Found, most: int) -> None:
    """Raise the rate until calls fail, then look between the last two."""

    def good(rate: int) -> bool:
        """Whether no call fails, or none does the second time: a single failure may be another process's doing."""
        for _ in range(TRIES):
            step = said(bench.step(contender, rate, seconds))
            if step.good:
                break
        found.steps.append(step)
        return step.good

    rate = FIRST
    while rate <= most and good(rate):
        rate = round(rate * FACTOR)
    low = found.best.rate if found.best is not None else 0
    high = min((step.rate for step in found.steps if not step.good), default=0)
    for _ in range(HALVINGS if high else 0):
        between = (low + high) // 2
        if between in (low, high):
            return
        low, high = (between, high) if good(between) else (low, between)


def said(step: Step) -> Step:
    print(
        f"{step.contender}, {step.rate} a second: {step.failed} of {step.calls} failed; "
        + ", ".join(f"{name} {share:.0f} %" for name, share in step.shares.items()),
        file=sys.stderr,
        flush=True,
    )
    return step


# Tables -----------------------------------------------------------------------------------------------------


def ramp(found: dict[str, Found], seconds: int) -> str:
    without = found[DIALPLAN].best if DIALPLAN in found else None
    rows: list[tuple[object, ...]] = []
    for name, each in found.items():
        best = each.best
        if best is None:
            rows.append((name, f"fewer than {FIRST}", *[""] * 9))
            continue
        rows.append(
            (
                name,
                best.rate,
                table.ratio(best.rate, without.rate) if without is not None else "-",
                *(f"{best.shares[who]:.0f} %" if who in best.shares else "-" for who in SHARES),
                *(f"{best.p99[what]:.0f}" if what in best.p99 else "-" for what in (ANSWER, DIAL, RECORD)),
                ", ".join(f"{step.rate}: {step.failed}" for step in each.steps if not step.good),
            )
        )
    columns = ["", "calls/s", "of dialplan", *SHARES, "answer ms", "B-leg ms", "record ms", "failed at"]
    notes = RAMP.format(bye=sipp.BEFORE_BYE[0], step=seconds, cores=os.cpu_count()).splitlines()
    return table.render("Calls a second on one machine with its switch, without a failure", columns, rows, notes)


def hold(bench: Bench, contender: str, rate: int, minutes: float, *, lower: bool = False) -> str:
    """Hold a rate, and return a line for each part of it. ``lower``: start again at a lower rate if calls fail."""
    end = time.monotonic() + minutes * 60
    rows: list[tuple[object, ...]] = []
    began = time.monotonic()
    while time.monotonic() < end:
        seconds = max(3, min(CHUNK, round(end - time.monotonic())))
        step = said(bench.step(contender, rate, seconds))
        if lower and not rows and not step.good and rate > 1:
            # A queue that grew for a minute: the seconds of the search were too few to see it.
            return hold(bench, contender, int(rate * LOWER), minutes, lower=True)
        rows.append(
            (
                f"{(time.monotonic() - began) / 60:.1f}",
                step.calls,
                step.failed,
                *(f"{step.shares[who]:.0f} %" for who in SHARES),
                *(f"{step.p99[what]:.0f}" if what in step.p99 else "-" for what in (ANSWER, DIAL, RECORD)),
                *(f"{step.memory[who]:.1f}" for who in ("node", "FreeSWITCH", "Redis")),
            )
        )
    columns = ["minute", "calls", "failed", *SHARES, "answer ms", "B-leg ms", "record ms"]
    columns += ["node MB", "FreeSWITCH MB", "Redis MB"]
    notes = HOLD.format(contender=contender, rate=rate, minutes=minutes, chunk=CHUNK).splitlines()
    title = f"{contender}: {rate} calls a second, held for {minutes:g} minutes"
    return table.render(title, columns, rows, notes)


# Steps ------------------------------------------------------------------------------------------------------

SHARES = ("node", "FreeSWITCH", "SIPp", "idle")


class Bench:
    """A switch with all contenders behind it."""

    def __init__(self, rig: FreeswitchRig, contenders: Contenders) -> None:
        self._rig, self._contenders = rig, contenders
        self._node, self._redis = contenders.pids[DISA]
        for pid in (self._node, self._redis):
            process.realtime(pid, True)

    def step(self, contender: str, rate: int, seconds: int) -> Step:
        """Place calls at a rate for some seconds, and wait for their ends and records."""
        rig, redis = self._rig, self._contenders.redis
        count = min(rate * seconds, delay.CALLERS)
        numbers = ((number, delay.callee(number).decode()) for number in map(delay.caller, range(delay.CALLERS)))
        run = delay.Run(contender, rate, True, list(islice(numbers, count)))
        ports = f"udp port {rig.external_port} or tcp port {redis.port}"
        with capture.capturing(ports) as packets, tempfile.TemporaryDirectory(prefix="sipp-") as folder:
            did, port = delay.DIDS[contender], rig.external_port
            # On a machine that can't carry the rate, SIPp may not come to its end: those calls have failed.
            with self._shares() as shares, contextlib.suppress(subprocess.TimeoutExpired, RuntimeError):
                sipp.run(Path(folder), did, port, rate, run.calls, dial=True, patience=PATIENCE)
            self._clear()
            expected = count if contender in delay.NODE else 0
            eventually(Settled(redis, expected), within=60)
            records = delay.recorded(redis)
            redis.client.delete(CDRS)
        results = delay.Results()
        results.add(run, delay.read(packets, rig.external_port, self._contenders.target, redis.port))
        failed = max(results.failed[run.key], expected - records)
        waits = {
            what: delay.percentile(sorted(results.waits[*run.key, what]), 99)
            for what in (ANSWER, DIAL, RECORD)
            if (*run.key, what) in results.waits
        }
        memory = {"node": self._node, "FreeSWITCH": rig.pid, "Redis": self._redis}
        return Step(
            contender,
            rate,
            count,
            failed,
            waits,
            shares,
            {name: process.memory(pid) / 1024 for name, pid in memory.items()},
        )

    def _clear(self) -> None:
        """Wait for the ends of all calls; those that are left hang up."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: self._rig.live_channels() == 0, within=20)
            return
        self._rig.api("hupall")
        eventually(lambda: self._rig.live_channels() == 0, within=60)

    @contextlib.contextmanager
    def _shares(self) -> Iterator[dict[str, float]]:
        """Yield a dictionary that has, after the block, who used which share of all cores, in percent."""
        shares: dict[str, float] = {}
        before, idle, total = self._cpu(), *delay.cpu_ticks()
        began = time.monotonic()
        try:
            yield shares
        finally:
            self._add_shares(shares, before, idle, total, began)

    def _add_shares(
        self, shares: dict[str, float], before: dict[str, float], idle: float, total: float, began: float
    ) -> None:
        took = (time.monotonic() - began) * (os.cpu_count() or 1)
        after = self._cpu()
        shares |= {name: (after[name] - before[name]) / took * 100 for name in after}
        idle_then, total_then = delay.cpu_ticks()
        shares["idle"] = (idle_then - idle) / (total_then - total) * 100

    def _cpu(self) -> dict[str, float]:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "node": process.cpu(self._node) + process.cpu(self._redis),
            "FreeSWITCH": process.cpu(self._rig.pid),
            # The caller has ended; the callee goes on.
            "SIPp": ended.ru_utime + ended.ru_stime + sum(map(process.cpu, _named("sipp"))),
        }


def _named(name: str) -> Sequence[int]:
    """Return the living children of this process with this name."""
    result = []
    for pid in process.children(os.getpid()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                result.append(pid)
    return result
