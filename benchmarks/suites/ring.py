"""The time from a request to the agent's INVITE: ``POST /click2dial/calls`` compared with an ``originate`` by hand.

Needs a real FreeSWITCH and a real phone (``tests/rig``).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import json
import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import table
from esl_apps.apps import click2dial
from esl_apps.apps.ringing import Rang, ring_aleg
from esl_apps.apps.settings import Settings
from esl_apps.core import order as order_module
from esl_apps.core.dialstring import Endpoints
from esl_apps.core.numbers import NumberPlan
from tests.rig.base import Script, eventually
from tests.rig.event_socket import EslClient
from tests.rig.freeswitch import FreeswitchRig, find_freeswitch
from tests.support.node import TOKEN, Node, RedisServer, configuration

ROUNDS = 60
AGENT = "1000"
REQUEST = {"agent": AGENT, "callee": "0820001234", "outbound_id": "27115550000"}
POST, FS_CLI, API, BGAPI = "POST", "fs_cli -x", "event socket, api", "event socket, bgapi"
NOTES = """\
The time from just before the request is written until the phone's process gets the INVITE. The same phone rings each
time and answers 486. POST: over a keep-alive HTTP connection to a node with Redis, all on this machine. The others send
the node's originate (its variables, its 'socket' application), each with a call_ref of its own and another node's name,
so that the node takes no part: with a new fs_cli, including its start; and over a connected event socket, as "api" and
as "bgapi", which the node uses. {rounds} rounds after a warm-up call of each, with the four in a new random order and a
random pause of 30 to 70 ms before each call."""


def run(options: argparse.Namespace) -> str:
    binary = find_freeswitch()
    fs_cli = binary.with_name("fs_cli") if binary else None
    if binary is None or fs_cli is None or not os.access(fs_cli, os.X_OK):
        print("ring: skipped: FreeSWITCH with fs_cli not found (set $FREESWITCH to its binary)")
        return ""
    if importlib.util.find_spec("pjsua2") is None:
        print("ring: skipped: the rig's phones are not installed (pip install -e '.[phones]')")
        return ""
    machine = table.machine()
    rounds = ROUNDS // 10 if options.quick else ROUNDS
    with FreeswitchRig() as rig:
        times = measure(rig, fs_cli, rounds)
        version = rig.api("version").strip().partition(" (")[0].partition("~")[0]
    base = statistics.median(times[POST])
    rows = [
        (
            name,
            ms(statistics.median(seconds)),
            ms(percentile(seconds, 90)),
            ms(min(seconds)),
            table.ratio(base, statistics.median(seconds)),
        )
        for name, seconds in times.items()
    ]
    columns = ["request", "median ms", "p90 ms", "least ms", "POST is"]
    notes = [f"{machine}, {version}", "", *NOTES.format(rounds=rounds).splitlines()]
    return table.render("From a request to the agent's INVITE", columns, rows, notes)


def measure(rig: FreeswitchRig, fs_cli: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds from request to INVITE, by kind of request."""
    phone = rig.phone(AGENT, Script(reject=486))
    with started(rig) as (node, redis), contextlib.closing(event_socket(rig)) as client:
        host, _, port = node.api.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        body = json.dumps(REQUEST).encode()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        command = originates(node.config)
        shell = [str(fs_cli), "-H", "127.0.0.1", "-P", str(rig.esl_port), "-p", rig.esl_password, "-x"]

        def post() -> Callable[[], object]:
            connection.request("POST", "/click2dial/calls", body, headers)

            def clean_up() -> None:
                response = connection.getresponse()
                assert response.status == 202, response.status
                response.read()
                redis.pop()

            return clean_up

        def by_fs_cli(text: str) -> Callable[[], object]:
            child = subprocess.Popen([*shell, text], stdout=subprocess.DEVNULL)
            return child.wait

        def typed(text: bytes) -> Callable[[], object]:
            client.socket.sendall(text)
            return client.read

        def requests() -> dict[str, Callable[[], Callable[[], object]]]:
            """Return a function per kind of request. It begins a call and returns a function to clean up after it."""
            text = command()
            return {
                POST: post,
                FS_CLI: lambda: by_fs_cli(text),
                API: lambda: typed(f"api {text}\n\n".encode()),
                BGAPI: lambda: typed(f"bgapi {text}\n\n".encode()),
            }

        def once(name: str) -> float:
            begin = requests()[name]
            calls_before = len(phone.calls)
            time.sleep(random.uniform(0.03, 0.07))
            began = time.time()
            clean_up = begin()
            eventually(lambda: len(phone.calls) > calls_before and phone.calls[calls_before].leg.ended_at)
            clean_up()
            eventually(lambda: rig.live_channels() == 0)
            assert len(phone.calls) == calls_before + 1
            return phone.calls[calls_before].leg.started_at - began

        times: dict[str, list[float]] = {name: [] for name in (POST, FS_CLI, API, BGAPI)}
        for name in times:
            once(name)
        order = list(times)
        for _ in range(rounds):
            random.shuffle(order)
            for name in order:
                times[name].append(once(name))
        connection.close()
        return times


@contextlib.contextmanager
def started(rig: FreeswitchRig) -> Iterator[tuple[Node, RedisServer]]:
    redis = RedisServer()
    try:
        node = Node(configuration(rig, redis))
        try:
            yield node, redis
        finally:
            node.stop()
    finally:
        redis.close()


def event_socket(rig: FreeswitchRig) -> EslClient:
    return EslClient(rig.esl_port, rig.esl_password, 10)


def originates(config: dict[str, Any]) -> Callable[[], str]:
    """Return a function that makes the originate for ``REQUEST`` with the node's own code, without sending it."""
    dial, name = config["dial"], config["node"]["name"]
    plan = NumberPlan(dial["region"], r"\d{3,4}")
    settings = Settings(
        node="x" * len(name),
        plan=plan,
        endpoints=Endpoints(dial["extension"], tuple(dial["external"])),
        caller_id_format="as_given",
        ringback="%(2000,4000,440,480)",
        recordings=config["recordings"]["dir"],
    )
    policy: Any = SimpleNamespace(settings=settings)
    integrator = config["integrators"][0]
    client = order_module.IntegratorRules(integrator["name"], plan, agent_timeout=integrator["agent_timeout"])
    order = client.read(REQUEST)

    class NotingLine:
        command = ""

        def originate(self, command: str, _deadline: float, *, phone: bool) -> Rang:
            self.command = command
            return Rang("failed")

        def is_lost(self) -> bool:
            return False

        def elsewhere(self) -> bool:
            return False

    def command() -> str:
        line = NotingLine()
        click = click2dial.new_call(order, client, settings)
        application = f"socket({config['node']['listen']}/click2dial async full)"
        ring_aleg(line, click.attempt, click.aleg(policy, application))
        return line.command

    return command


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
