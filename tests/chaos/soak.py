"""The soak: many calls through one node, and what the node holds at the start, on the way and at the end.

``python -m tests.chaos.soak --calls 100000``; ``make soak CALLS=100000``. Before each reading all calls have ended, so
that what is read is what stays.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import parts
from tests.chaos.load import ADMIN_TOKEN, OWN, PIN, TOKEN
from tests.chaos.parts import HOST, NodeProcess, request
from tests.ports import free_port
from tests.rig.base import Script
from tests.rig.sandbox import SandboxRig

CDRS = "enigma:notifications:cdr"
INBOUND, DISA, CALLEE = "27115550010", "27115550002", "0820000000"
#: Of each ten calls.
APPS = ("click2dial",) * 6 + ("inbound",) * 2 + ("autodial", "disa")


@dataclass(frozen=True)
class Reading:
    """What the node holds when nobody calls."""

    calls: int
    at: float
    """Seconds since the first."""
    figures: dict[str, float]
    records: int
    """CDRs that came out of Redis so far."""
    answered: int
    """Those of them that say so."""

    def __getitem__(self, name: str) -> float:
        return self.figures[name]

    @property
    def live(self) -> float:
        return self["esl_apps_live_calls"] + self["esl_apps_outbound_sockets"] + self["esl_apps_outbox_depth"]


class Soak:
    """One node, one switch, one Redis."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, *, channels: int = 240) -> None:
        """``channels``: legs that are up at once."""
        self._channels = channels
        self._redis = stack.enter_context(parts.running("single", folder))
        self._client = self._redis.client()
        self.rig = SandboxRig(tick=0, start=False, cdrs=False)
        stack.callback(self.rig.close)
        self.rig.start()
        self.node = NodeProcess(self._config(folder), folder, self._redis.ports)
        stack.callback(parts.stop, self.node)
        self.node.start()
        listen = self.node.config["node"]["listen"]
        quick = Script(answer_after=0.05, hangup_after=0.2)
        for number in ("1000", "1001"):
            self.rig.phone(number, Script(answer_after=0.05))
        self.rig.outside(CALLEE, quick)
        self.rig.outside("27" + CALLEE[1:], quick)
        self.rig.route(INBOUND, "inbound", listen)
        self.rig.route(DISA, "disa/acme/front", listen)
        self._caller = self.rig.outside("0860000001", Script(hangup_after=0.3))
        self._disa_caller = self.rig.outside(
            "0830000001", Script(digits=f"{PIN}{CALLEE}#", digits_after=0.6, hangup_after=6.0)
        )
        self._workers = stack.enter_context(ThreadPoolExecutor(8))
        self._turns = itertools.cycle(APPS)
        self._place: dict[str, Callable[[], None]] = {
            "click2dial": self._click2dial,
            "inbound": lambda: self._dial(self._caller, INBOUND),
            "disa": lambda: self._dial(self._disa_caller, DISA),
            "autodial": self._autodial,
        }
        self.calls = self.records = self.answered = 0
        self.began = time.monotonic()

    def _config(self, folder: Path) -> dict[str, Any]:
        return {
            "node": {
                "name": "soak", "listen": f"{HOST}:{free_port()}", "drain_timeout": 5,
                "state_dir": str(folder / "state"),
            },
            "redis": {"url": self._redis.url},
            "pin_key": "key-of-soak",
            # A caller who is asked again after a node's death keys on, and a number is no PIN: thousands of those
            # are no attack here.
            "pin_guard": dict.fromkeys(("per_number", "per_address", "per_service", "overall"), 10_000),
            "switches": [{"name": "fs1", "address": self.rig.esl_address, "password": self.rig.esl_password}],
            "dial": {"region": "ZA", **self.rig.dial},
            "admin": {"listen": f"{HOST}:{free_port()}", "token": ADMIN_TOKEN},
            "recordings": {"dir": str(self.rig.recordings)},
            "spool": {"dir": str(self.rig.spool)},
            "integrators": [
                {"name": "acme", "listen": f"{HOST}:{free_port()}", "token": TOKEN, "caller_ids": [OWN]}
            ],
            "accounts": {
                "acme": {"integrator": "acme", "caller_id": {"number": f"+{OWN}"}, "disa": {"front": {"pin": PIN}}}
            },
            "inbound": {INBOUND: {"integrator": "acme", "agents": ["1001"]}},
        }  # fmt: skip

    # Calls --------------------------------------------------------------------------------------------

    def run(self, calls: int) -> None:
        """So many more, all ended when it returns."""
        left = calls
        while left:
            room = (self._channels - self._up()) // 2
            batch = [self._workers.submit(self._one, next(self._turns)) for _ in range(min(left, max(0, room), 40))]
            left -= len(batch)
            for one in batch:
                one.result()
            if not batch:
                time.sleep(0.02)
        self.calls += calls
        parts.until(self._ended, 180, "the calls did not end")

    def _up(self) -> int:
        """Legs that are up; asked with the patience that an overloaded machine takes."""
        return int(self.rig.control("GET", "/status", timeout=120)["channels"])

    def _one(self, app: str) -> None:
        self._place[app]()

    def _click2dial(self) -> None:
        body = {"agent": "1000", "callee": CALLEE, "outbound_id": OWN}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self._ask(lambda: request(self.node.api, "POST", "/click2dial/calls", body, headers), 202)

    def _autodial(self) -> None:
        body = {"data": {"a_leg_number": "27" + CALLEE[1:], "b_leg_number": CALLEE, "callback_delay": 0}}
        headers = {"X-Auth-Token": ADMIN_TOKEN}
        self._ask(lambda: request(self.node.admin, "PUT", "/v2/accounts/acme/cccps/autodial", body, headers), 201)

    @staticmethod
    def _ask(send: Callable[[], tuple[int, bytes]], expected: int) -> None:
        """Again, for a while, where the machine is so busy that the switch does not answer."""
        for _ in range(60):
            status, answer = send()
            if status != 503:
                break
            time.sleep(1)
        assert status == expected, answer

    @staticmethod
    def _dial(phone: Any, number: str) -> None:
        phone.dial(number)
        # The rig would keep each for the test to ask about.
        phone._calls.clear()

    def _ended(self) -> bool:
        now = self.node.metrics()
        busy = now["esl_apps_live_calls"] or now["esl_apps_outbound_sockets"] or now["esl_apps_outbox_depth"]
        return not busy and not self._up()

    @staticmethod
    def pause() -> None:
        """Between two looks."""
        time.sleep(0.2)

    # Readings -----------------------------------------------------------------------------------------

    def read(self) -> Reading:
        """Take the records out, and look at the node."""
        while popped := self._client.rpop(CDRS, 1000):
            self.records += len(popped)
            self.answered += sum(json.loads(body)["payload"]["end_reason"] == "answered" for body in popped)
        return Reading(self.calls, time.monotonic() - self.began, self.node.figures(), self.records, self.answered)

    def warm_up(self) -> Reading:
        """Some calls, so that what is made once is made; then all counts from here."""
        self.run(200)
        self.read()
        self.calls = self.records = self.answered = 0
        self.began = time.monotonic()
        return self.read()

    def live(self) -> int:
        """What Redis still holds for live."""
        return int(self._client.scard("esl_apps:live"))


@contextlib.contextmanager
def soaking() -> Iterator[Soak]:
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, contextlib.ExitStack() as stack:
        yield Soak(Path(folder), stack)


def table(readings: list[Reading]) -> str:
    lines = [
        "One node, calls of four applications (six click-to-dial, two inbound, one autodial, one DISA of ten)",
        "",
        "    calls  records  answered  seconds  calls/s  RSS MB  files  sockets  to Redis  greenlets  live",
        "  -------  -------  --------  -------  -------  ------  -----  -------  --------  ---------  ----",
    ]
    before = readings[0]
    for one in readings:
        rate = (one.calls - before.calls) / (one.at - before.at) if one.at > before.at else 0.0
        lines.append(
            f"  {one.calls:>7,}  {one.records:>7,}  {one.answered:>8,}  {one.at:>7.0f}  {rate:>7.1f}"
            f"  {one['rss_kb'] / 1024:>6.1f}  {one['files']:>5.0f}  {one['sockets']:>7.0f}  {one['pool']:>8.0f}"
            f"  {one['esl_apps_greenlets']:>9.0f}"
            f"  {one.live:>4.0f}"
        )
        before = one
    lines += [
        "",
        "Read when all calls have ended; the first after a warm-up of 200. Sockets: listening, and to the switch. Of",
        "those to Redis a pool keeps as many as were once used at a time.",
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        + f"; {os.cpu_count()} cores, Python {platform.python_version()}",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    calls = parser.parse_args().calls
    parts.end_by_exit()
    with soaking() as soak:
        readings = [soak.warm_up()]
        for done in range(10):
            soak.run(calls * (done + 1) // 10 - soak.calls)
            readings.append(soak.read())
            print(table(readings[-1:]).splitlines()[4], file=sys.stderr, flush=True)
        live = soak.live()
    print(table(readings))
    first, last = readings[0], readings[-1]
    left = [
        f"{name}: {last[name]:.0f}, {first[name]:.0f} at the start"
        for name in ("files", "sockets", "esl_apps_greenlets")
        if last[name] != first[name]
    ]
    if last.live or live:
        left.append(f"{last.live:.0f} live on the node, {live} in Redis")
    if last.records != last.calls:
        left.append(f"{last.records} records of {last.calls} calls")
    for text in left:
        print(f"not as at the start: {text}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
